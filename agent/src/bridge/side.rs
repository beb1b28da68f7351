//! What both sides of a bridge share: how a broker is reached, and when to try again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::plan::Broker;
use penstock_policy::text::sentence;
use penstock_proto::backoff::Backoff;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{self, ConnectionError, Incoming, Outgoing, Target};
use super::packet::{Hello, Welcome};
use super::report::{BridgeSide, Reporter};
use crate::durable;
use crate::identity::Identity;
use crate::jitter::random;

/// How long a broker keeps our session while we are away: longer than any repair, and not for ever.
pub const SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;
/// How often a broker hears of us at least.
pub const KEEP_ALIVE_S: u16 = 30;
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
}

impl BrokerPeer {
    /// A connection with its session, or a new session if `clean_start`.
    pub(crate) async fn connect(
        &self,
        clean_start: bool,
    ) -> Result<(Incoming, Outgoing, Welcome), ConnectionError> {
        let tls = match &self.broker.tls {
            None => None,
            Some(tls) => {
                let identity = self
                    .identity
                    .borrow()
                    .clone()
                    .ok_or(ConnectionError::NoIdentity)?;
                let profile = identity.broker_profile(tls, &self.broker.asset, self.broker.address)?;
                Some((profile.config()?, profile.server_name.clone()))
            }
        };
        let target = Target {
            address: self.broker.address,
            port: self.broker.port,
            tls,
        };
        let password = match &self.login {
            Some(login) => self.password(login).await?,
            None => Vec::new(),
        };
        let hello = Hello {
            client_id: &self.client_id,
            login: self
                .login
                .as_ref()
                .map(|login| (login.user.as_str(), password.as_slice())),
            clean_start,
            session_expiry_s: SESSION_EXPIRY_S,
            receive_maximum: self.receive_maximum,
            packet_bytes_max: self.packet_bytes_max,
            keep_alive_s: KEEP_ALIVE_S,
        };
        connection::open(&target, &hello).await
    }

    /// Read at each connection, so that a changed password needs no restart.
    async fn password(&self, login: &Login) -> Result<Vec<u8>, ConnectionError> {
        let path = login.password_file.clone();
        let failed = |problem: String| ConnectionError::Password {
            asset: self.broker.asset.to_string(),
            problem,
        };
        let read = tokio::task::spawn_blocking(move || durable::read(&path, PASSWORD_BYTES_MAX)).await;
        let mut password = match read {
            Ok(Ok(Some(password))) => password,
            Ok(Ok(None)) => {
                return Err(failed(format!("{} is missing", login.password_file.display())));
            }
            Ok(Err(error)) => return Err(failed(sentence(&error))),
            Err(_) => return Err(failed("it could not be read".to_owned())),
        };
        while password.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            password.pop();
        }
        Ok(password)
    }
}

/// When to try again.
#[derive(Debug, Default)]
pub struct Retry {
    backoff: Backoff,
}

impl Retry {
    /// Tells why there is no connection and waits before the next. `false`: there shall be none.
    pub async fn after(
        &mut self,
        error: &ConnectionError,
        lived: Duration,
        reporter: &Reporter,
        side: BridgeSide,
        stop: &CancellationToken,
    ) -> bool {
        if matches!(error, ConnectionError::Stopping | ConnectionError::QueueClosed) {
            return false;
        }
        reporter.down(side, &sentence(error));
        let wait = self.backoff.ended(lived, random());
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}

/// When we last heard of a broker, and when it has to hear of us.
#[derive(Debug)]
pub struct Pulse {
    keep_alive: Duration,
    heard: Instant,
    ticks: tokio::time::Interval,
}

impl Pulse {
    /// By what the broker wants, if it wants anything.
    pub fn new(welcome: &Welcome) -> Self {
        let seconds = match welcome.keep_alive_s {
            Some(0) | None => KEEP_ALIVE_S,
            Some(seconds) => seconds.min(KEEP_ALIVE_S),
        };
        let keep_alive = Duration::from_secs(u64::from(seconds));
        let mut ticks = tokio::time::interval_at(Instant::now() + keep_alive / 2, keep_alive / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self {
            keep_alive,
            heard: Instant::now(),
            ticks,
        }
    }

    /// Something came, or we did not listen.
    pub fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Waits for the next time to ping; an error if the broker has long been silent.
    pub(crate) async fn beat(&mut self) -> Result<(), ConnectionError> {
        self.ticks.tick().await;
        let silence = self.heard.elapsed();
        if silence > self.keep_alive + self.keep_alive / 2 {
            return Err(ConnectionError::Slow(silence));
        }
        Ok(())
    }
}
