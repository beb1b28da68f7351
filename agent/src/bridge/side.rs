//! What both sides of a bridge share: how a broker is reached, and the stream to it, for the machines of both
//! ([`line`]) say when.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use penstock_policy::plan::Broker;
use penstock_policy::text::sentence;
use penstock_proto::backoff::Backoff;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{self, ConnectionError, Incoming, Outgoing, Target};
use super::packet::{self, Hello, Welcome};
use crate::identity::Identity;
use crate::jitter::random;
use crate::{clock, durable};

pub mod line;

use line::{Fact, Goodbye, KEEP_ALIVE_S, Moment};

/// How long a broker keeps our session while we are away: longer than any repair, and not for ever.
pub const SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;
/// The largest password file, bytes.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// User name, and where the password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// A file with the password; a line end at its end does not count.
    pub password_file: PathBuf,
}

impl Login {
    /// The password, or what is wrong with its file.
    pub(crate) async fn password(&self) -> Result<Vec<u8>, String> {
        let path = self.password_file.clone();
        let read = tokio::task::spawn_blocking(move || durable::read(&path, PASSWORD_BYTES_MAX)).await;
        let mut password = match read {
            Ok(Ok(Some(password))) => password,
            Ok(Ok(None)) => return Err(format!("{} is missing", self.password_file.display())),
            Ok(Err(error)) => return Err(sentence(&error)),
            Err(_) => return Err("it could not be read".to_owned()),
        };
        while password.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            password.pop();
        }
        Ok(password)
    }
}

/// One broker, as a bridge reaches it.
#[derive(Debug, Clone)]
pub struct BrokerPeer {
    /// Where it is.
    pub broker: Broker,
    /// Who we say we are: always the same for a bridge.
    pub client_id: String,
    /// How we log in, if we do.
    pub login: Option<Login>,
    /// The gateway's certificate, as it is renewed.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// The largest packet that we take from it, bytes.
    pub packet_bytes_max: u32,
    /// How many publications we take from it at once.
    pub receive_maximum: u16,
    /// How long is waited between two attempts, and after a connection.
    pub backoff: Backoff,
}

impl BrokerPeer {
    /// A connection with its session, or a new session if `clean_start`.
    pub(crate) async fn connect(
        &self,
        clean_start: bool,
    ) -> Result<(Incoming, Outgoing, Welcome), ConnectionError> {
        let (target, password) = self.target().await?;
        connection::open(&target, &self.hello(&password, clean_start, SESSION_EXPIRY_S)).await
    }

    /// The same over a stream that stands, with a session that ends with it.
    pub(crate) async fn ask_over(
        &self,
        tcp: TcpStream,
    ) -> Result<(Incoming, Outgoing, Welcome), ConnectionError> {
        let (target, password) = self.target().await?;
        connection::begin(tcp, &target, &self.hello(&password, true, 0)).await
    }

    /// Where it is and how TLS begins there, and the password.
    async fn target(&self) -> Result<(Target, Vec<u8>), ConnectionError> {
        let tls = match &self.broker.tls {
            None => None,
            Some(tls) => {
                let identity = self
                    .identity
                    .borrow()
                    .clone()
                    .ok_or(ConnectionError::NoIdentity)?;
                Some(identity.broker_profile(tls, &self.broker.asset, self.broker.address)?)
            }
        };
        let target = Target {
            address: self.broker.address,
            port: self.broker.port,
            tls,
        };
        let password = match &self.login {
            // Read at each connection, so that a changed password needs no restart.
            Some(login) => login
                .password()
                .await
                .map_err(|problem| ConnectionError::Password {
                    asset: self.broker.asset.to_string(),
                    problem,
                })?,
            None => Vec::new(),
        };
        Ok((target, password))
    }

    fn hello<'a>(&'a self, password: &'a [u8], clean_start: bool, session_expiry_s: u32) -> Hello<'a> {
        Hello {
            client_id: &self.client_id,
            login: self.login.as_ref().map(|login| (login.user.as_str(), password)),
            clean_start,
            session_expiry_s,
            receive_maximum: self.receive_maximum,
            packet_bytes_max: self.packet_bytes_max,
            keep_alive_s: KEEP_ALIVE_S,
            will: None,
        }
    }
}

/// The stream to a broker, the attempt at one, or neither.
pub enum Wire {
    /// Nothing.
    Closed,
    /// It is being opened.
    Opening(Pin<Box<dyn Future<Output = Opened> + Send>>),
    /// Both its directions.
    Open(Incoming, Outgoing),
}

type Opened = Result<(Incoming, Outgoing, Welcome), ConnectionError>;

impl Wire {
    /// Begins to connect, as `peer` says.
    pub fn open(&mut self, peer: &BrokerPeer, clean_start: bool) {
        let peer = peer.clone();
        *self = Self::Opening(Box::pin(async move { peer.connect(clean_start).await }));
    }

    /// As [`Self::next`] where the machine `listens`; where it does not, only the end of the broker's key is heard.
    pub async fn next_if<O>(&mut self, listens: bool) -> Fact<'_, O> {
        match self {
            _ if listens => self.next().await,
            Self::Open(incoming, _) => Fact::Broke(incoming.over().await),
            Self::Opening(_) | Self::Closed => std::future::pending().await,
        }
    }

    /// Waits for what there is to say. May be dropped while it waits and asked again: nothing is lost.
    pub async fn next<O>(&mut self) -> Fact<'_, O> {
        if let Self::Opening(attempt) = self {
            let opened = attempt.as_mut().await;
            let (next, outcome) = match opened {
                Ok((incoming, outgoing, welcome)) => (Self::Open(incoming, outgoing), Ok(welcome)),
                Err(error) => (Self::Closed, Err(error)),
            };
            *self = next;
            let random = random();
            return Fact::Opened { outcome, random };
        }
        let Self::Open(incoming, _) = self else {
            return std::future::pending().await;
        };
        let read = incoming.next().await;
        match read.and_then(|(header, body)| Ok(packet::read(header, body)?)) {
            Ok(packet) => Fact::Packet(packet),
            Err(error) => Fact::Broke(error),
        }
    }

    /// Writes all of it. If that fails there is no connection any more, and nothing goes over it.
    pub async fn send<O>(&mut self, bytes: &[u8]) -> Fact<'static, O> {
        let Self::Open(_, outgoing) = self else {
            return Fact::TimePassed;
        };
        match outgoing.write(bytes).await {
            Ok(()) => Fact::Written,
            Err(error) => {
                *self = Self::Closed;
                Fact::Broke(error)
            }
        }
    }

    /// Ends the connection, or the attempt at one.
    pub async fn close(&mut self, goodbye: Option<Goodbye>) {
        if let (Self::Open(_, outgoing), Some(goodbye)) = (std::mem::replace(self, Self::Closed), goodbye) {
            outgoing.leave(goodbye.reason, goodbye.forget).await;
        }
    }
}

/// Now, by both clocks.
pub fn moment() -> Moment {
    Moment {
        instant: Instant::now().into_std(),
        ms: clock::now_ms(),
    }
}

/// Waits for a machine's deadline; for ever if it has none.
pub async fn reached(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(Instant::from_std(deadline)).await,
        None => std::future::pending().await,
    }
}
