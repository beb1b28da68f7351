//! Why sessions end.

use penstock_proto::channel::ConnectError;
use penstock_proto::refusal::explain;
use penstock_proto::tls::TlsError;
use tonic::Status;

use super::machine::SessionFault;
use crate::audit::AuditError;
use crate::link::connect::LinkError;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The identity cannot be used.
    #[error("the identity of this gateway cannot be used for TLS")]
    Tls(#[from] TlsError),
    /// No coordinator could be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator refused or the stream broke.
    #[error("{}", explain(.0).message)]
    Status(Box<Status>),
    /// The coordinator ended the stream in good order.
    #[error("the coordinator ended the session")]
    Ended,
    /// It did not do what a coordinator does.
    #[error(transparent)]
    Fault(#[from] SessionFault),
    /// The spool cannot say what it holds.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The identity was renewed: the next session begins at once.
    #[error("the certificate was renewed")]
    Renewed,
    /// A coordinator's key was withdrawn: the next session shows whether it is this one's, and begins at once.
    #[error("a coordinator's key was withdrawn, and the next session shows whether it is this one's")]
    Reviewed,
    /// What came of the list of withdrawn keys builds upon what is not here: the next session asks for all of it.
    #[error("the list of withdrawn keys has a gap, and the next session asks for all of it")]
    Gap,
    /// A release is on trial since the session was opened: the next session begins at once.
    #[error("a release is on trial, and the next session shows whether its rules let it through")]
    OnTrial,
    /// The agent stops.
    #[error("the agent stops")]
    Stopping,
}

impl From<LinkError> for SessionEnd {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Tls(error) => error.into(),
            LinkError::Connect(error) => error.into(),
        }
    }
}

impl From<Status> for SessionEnd {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}
