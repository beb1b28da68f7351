//! What takes an export's records: one file each. What [`Receiver::send`] returned from was acknowledged, in the receiver's own way;
//! [`Receiver::hold`] says how long that has to stand before it is certain.

mod file;
mod otlp;
mod syslog;

use std::path::PathBuf;
use std::time::Duration;

use penstock_proto::export::ExportRecord;
use penstock_proto::https::HttpsError;
use penstock_proto::tls::TlsError;

use self::file::FileReceiver;
use self::otlp::OtlpReceiver;
use self::syslog::SyslogReceiver;
use super::settings::Destination;

/// Why records do not arrive now.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiverError {
    /// A file.
    #[error("cannot {verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificates that are shown or believed.
    #[error("the export's certificates cannot be used")]
    Tls(#[from] TlsError),
    /// The receiver cannot be reached, or the connection ended.
    #[error("cannot {verb} {host}")]
    Connection {
        /// What was tried.
        verb: &'static str,
        /// Who.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended the connection.
    #[error("{0} ended the connection")]
    Ended(String),
    /// It takes nothing.
    #[error("{host} took nothing for {seconds} s")]
    Slow {
        /// Who.
        host: String,
        /// For how long.
        seconds: u64,
    },
    /// OTLP/HTTP.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// It refused.
    #[error("{host} answered with status {status}")]
    Status {
        /// Who.
        host: String,
        /// Of HTTP.
        status: u16,
    },
}

/// Records that a receiver will never take, as it says.
#[derive(Debug)]
pub(super) struct Rejected {
    /// How many.
    pub(super) records: u64,
    /// Why.
    pub(super) why: String,
}

/// A receiver, connected.
#[derive(Debug)]
pub(super) enum Receiver {
    File(FileReceiver),
    Syslog(Box<SyslogReceiver>),
    Otlp(OtlpReceiver),
}

impl Receiver {
    /// Opens the file, or connects.
    pub(super) async fn open(to: &Destination) -> Result<Self, ReceiverError> {
        Ok(match to {
            Destination::File { path, format } => Self::File(FileReceiver::open(path, *format).await?),
            Destination::Syslog {
                host,
                port,
                server,
                format,
                tls,
            } => {
                let (host, server) = ((host.as_str(), *port), server.clone());
                let connected = SyslogReceiver::connect(host, server, *format, tls).await?;
                Self::Syslog(Box::new(connected))
            }
            Destination::Otlp { address, tls } => Self::Otlp(OtlpReceiver::new(address, tls).await?),
        })
    }

    /// Sends records, in order, and waits until all are acknowledged; what was rejected for good.
    pub(super) async fn send(
        &mut self,
        records: Vec<ExportRecord>,
    ) -> Result<Option<Rejected>, ReceiverError> {
        match self {
            Self::File(file) => file.send(records).await.map(|()| None),
            Self::Syslog(syslog) => syslog.send(&records).await.map(|()| None),
            Self::Otlp(otlp) => otlp.send(&records).await,
        }
    }

    /// For how long the receiver has to stand after an acknowledgement.
    pub(super) fn hold(&self) -> Duration {
        match self {
            Self::File(_) | Self::Otlp(_) => Duration::ZERO,
            Self::Syslog(_) => syslog::HOLD,
        }
    }

    /// Waits until a connection that stands ends; for ever where there is none between two sendings.
    pub(super) async fn ended(&mut self) -> ReceiverError {
        match self {
            Self::File(_) | Self::Otlp(_) => std::future::pending().await,
            Self::Syslog(syslog) => syslog.ended().await,
        }
    }
}
