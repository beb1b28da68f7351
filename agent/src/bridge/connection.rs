//! A connection to one broker: TCP, TLS where the plan has it, CONNECT and CONNACK, then packets both ways.
//!
//! Everything has a time limit and a size limit. A connection ends when the broker's key is withdrawn. One that broke is not mended: a new one is made, and what is
//! on disk says what to do on it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use penstock_inspect::connection::Sender;
use penstock_inspect::mqtt::MqttError;
use penstock_inspect::mqtt::packet::Header;
use penstock_proto::tls::TlsError;
use penstock_proto::tls::data_path::{BrokerError, BrokerProfile, explain};
use penstock_proto::withdrawn::{Life, WatchedLife};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use super::packet::{self, Hello, Welcome};

/// How long connection, handshake and CONNACK may take together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a broker may take nothing of what is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A read buffer larger than this is given back when it is empty.
const BUFFER_BYTES: usize = 32 * 1024;

/// Why there is no connection to a broker (any more).
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// It cannot be reached.
    #[error("{address} cannot be reached")]
    Reach {
        /// The broker.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS cannot be begun.
    #[error("TLS cannot be set up as the plan says")]
    Profile(#[from] BrokerError),
    /// The profile cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The broker's certificate is not good, or ours is not for it.
    #[error("TLS with {address} failed: {problem}")]
    Handshake {
        /// The broker.
        address: SocketAddr,
        /// Why.
        problem: String,
    },
    /// The key that the broker proved to have no longer counts.
    #[error(
        "the key of {0} was withdrawn: if it is where it belongs, issue it a certificate for a new key (penstock devices issue)"
    )]
    Withdrawn(Life),
    /// TLS needs an identity.
    #[error("this gateway is not enrolled, so it has no certificate to show")]
    NoIdentity,
    /// The password cannot be read.
    #[error("the password for {asset} cannot be used: {problem}")]
    Password {
        /// The broker.
        asset: String,
        /// What is wrong with its file.
        problem: String,
    },
    /// The file of authorities cannot be used.
    #[error("the authorities in {file} cannot be used: {problem}")]
    Authorities {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It took too long.
    #[error("the broker did not answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// CONNACK said no.
    #[error("the broker refused the connection: {}", reason_text(*.0))]
    Refused(u8),
    /// It ended the session by DISCONNECT.
    #[error("the broker ended the connection: {}", reason_text(*.0))]
    Disconnected(u8),
    /// The stream ended.
    #[error("the broker closed the connection")]
    Closed,
    /// Reading or writing failed.
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    /// It sent what the standard does not have, or what a bridge cannot take.
    #[error("the broker sent something that cannot be understood")]
    Packet(#[from] MqttError),
    /// It did something that its side may not do.
    #[error("the broker {0}")]
    Misbehaved(&'static str),
    /// It takes none of the subscriptions.
    #[error("the broker refused every subscription: {}", reason_text(*.0))]
    NoSubscription(u8),
    /// It cannot take a publication now.
    #[error("the broker cannot take a publication now: {}", reason_text(*.0))]
    NotTaken(u8),
    /// It does not let this gateway publish.
    #[error("the broker refuses what this gateway publishes: {}", reason_text(*.0))]
    NotPublished(u8),
    /// Its session is new, and what the old one had been given must not be taken for given.
    #[error("the broker no longer had this bridge's session, and that cannot be recorded on disk")]
    NotRecorded,
}

/// The name of an MQTT 5 reason code (2.4) that a person may meet.
pub fn reason_text(reason: u8) -> String {
    let words = match reason {
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x84 => "it does not speak MQTT 5",
        0x85 => "the client identifier is not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorised",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8a => "banned",
        0x8b => "it is shutting down",
        0x8d => "keep alive timeout",
        0x8e => "another client took the session over",
        0x90 => "the topic name is not valid",
        0x91 => "the packet identifier is in use",
        0x93 => "receive maximum exceeded",
        0x95 => "the packet is too large",
        0x97 => "quota exceeded",
        0x99 => "the payload's format is not valid",
        0x9a => "it keeps no retained messages",
        0x9b => "the quality of service is not supported",
        _ => return format!("reason {reason:#04x}"),
    };
    words.to_owned()
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What comes from a broker.
pub struct Incoming {
    /// Whose key it proved to have, where that can be withdrawn.
    life: Option<WatchedLife>,
    stream: ReadHalf<Box<dyn Stream>>,
    held: Vec<u8>,
    at: usize,
    packet_bytes_max: usize,
}

/// What goes to a broker.
pub struct Outgoing {
    stream: WriteHalf<Box<dyn Stream>>,
}

/// Where and how a broker is reached.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// How TLS begins there.
    pub tls: Option<BrokerProfile>,
}

/// Connects, says CONNECT and hears CONNACK.
pub(crate) async fn open(
    target: &Target,
    hello: &Hello<'_>,
) -> Result<(Incoming, Outgoing, Welcome), ConnectionError> {
    let address = SocketAddr::new(target.address, target.port);
    let opened = async {
        let tcp = TcpStream::connect(address).await;
        let tcp = tcp.map_err(|source| ConnectionError::Reach { address, source })?;
        tcp.set_nodelay(true)?;
        begin(tcp, target, hello).await
    };
    tokio::time::timeout(OPEN_TIMEOUT, opened)
        .await
        .map_err(|_| ConnectionError::Slow(OPEN_TIMEOUT))?
}

/// The same over a stream that stands; how long it takes is the caller's to bound.
pub(crate) async fn begin(
    tcp: TcpStream,
    target: &Target,
    hello: &Hello<'_>,
) -> Result<(Incoming, Outgoing, Welcome), ConnectionError> {
    let address = SocketAddr::new(target.address, target.port);
    let (stream, life): (Box<dyn Stream>, _) = match &target.tls {
        None => (Box::new(tcp), None),
        Some(profile) => {
            let stream = tokio_rustls::TlsConnector::from(profile.config()?)
                .connect(profile.server_name.clone(), tcp)
                .await
                .map_err(|error| ConnectionError::Handshake {
                    address,
                    problem: explain(&error),
                })?;
            let life = profile.watched(stream.get_ref().1);
            (Box::new(stream), life)
        }
    };
    let (read, write) = tokio::io::split(stream);
    let mut incoming = Incoming {
        life,
        stream: read,
        held: Vec::new(),
        at: 0,
        packet_bytes_max: usize::try_from(hello.packet_bytes_max).unwrap_or(usize::MAX),
    };
    let mut outgoing = Outgoing { stream: write };
    let mut packet = Vec::new();
    packet::connect(&mut packet, hello);
    outgoing.write(&packet).await?;
    let (header, body) = incoming.next().await?;
    let welcome = packet::read_welcome(header, body)?;
    if welcome.reason >= packet::REASON_FAILED {
        return Err(ConnectionError::Refused(welcome.reason));
    }
    Ok((incoming, outgoing, welcome))
}

async fn over(life: &mut Option<WatchedLife>) -> ConnectionError {
    let Some(watched) = life else {
        return std::future::pending().await;
    };
    watched.over().await;
    ConnectionError::Withdrawn(watched.life.clone())
}

impl Incoming {
    /// The next whole packet. May be dropped while it waits and asked again: no byte is lost.
    pub(crate) async fn next(&mut self) -> Result<(Header, &[u8]), ConnectionError> {
        // Also where whole packets are held: what comes of a key that no longer counts is not taken.
        if let Some(life) = self.life.as_ref().filter(|life| life.is_over()) {
            return Err(ConnectionError::Withdrawn(life.life.clone()));
        }
        loop {
            if let Some((header, from, to)) = self.whole()? {
                self.at = to;
                let body = self.held.get(from..to).unwrap_or_default();
                return Ok((header, body));
            }
            self.held.drain(..self.at.min(self.held.len()));
            self.at = 0;
            if self.held.is_empty() && self.held.capacity() > BUFFER_BYTES {
                self.held = Vec::new();
            }
            self.held.reserve(BUFFER_BYTES / 4);
            let read = tokio::select! {
                read = self.stream.read_buf(&mut self.held) => read?,
                error = over(&mut self.life) => return Err(error),
            };
            if read == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }

    /// Waits until the broker's key no longer counts, and hears nothing else. May be dropped while it waits.
    pub(crate) async fn over(&mut self) -> ConnectionError {
        over(&mut self.life).await
    }

    /// The header of a packet that is held whole, and where its body lies.
    fn whole(&self) -> Result<Option<(Header, usize, usize)>, MqttError> {
        let bytes = self.held.get(self.at..).unwrap_or_default();
        let Some(header) = Header::decode(Sender::Server, bytes)? else {
            return Ok(None);
        };
        let length = header.header_bytes + header.remaining;
        if length > self.packet_bytes_max {
            return Err(MqttError::TooLarge {
                bytes: length,
                limit: self.packet_bytes_max,
            });
        }
        let from = self.at + header.header_bytes;
        Ok((bytes.len() >= length).then_some((header, from, self.at + length)))
    }
}

impl Outgoing {
    /// Writes all of it; a broker that takes nothing for [`WRITE_TIMEOUT`] is gone.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        tokio::time::timeout(WRITE_TIMEOUT, written)
            .await
            .map_err(|_| ConnectionError::Slow(WRITE_TIMEOUT))??;
        Ok(())
    }

    /// Says goodbye as well as it can.
    pub async fn leave(mut self, reason: u8, forget: bool) {
        let mut bytes = Vec::new();
        packet::disconnect(&mut bytes, reason, forget);
        let left = async {
            self.stream.write_all(&bytes).await?;
            self.stream.shutdown().await
        };
        // A broker that is gone already needs no goodbye.
        let _ = tokio::time::timeout(Duration::from_secs(1), left).await;
    }
}
