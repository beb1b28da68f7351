//! Who may enrol where, by what names they are certified, and what an enrolment gives them.

use penstock_policy::ids::{Digest, GatewayId};
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::refusal::Refusal;
use penstock_proto::tls::names::ServerNames;

use crate::devices::declared::DeclaredDevices;

/// Who may ask here: whoever calls, or the devices of the release in force, which are certified by its names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Applicants<'a> {
    /// Gateways and operators.
    Peers,
    /// Devices; through a gateway, those at its zones.
    Devices(&'a DeclaredDevices, Option<&'a GatewayId>),
}

impl Applicants<'_> {
    pub(super) fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Peers => &["gateway", "operator"],
            Self::Devices(..) => &["device"],
        }
    }

    /// What stands in the certificate. A gateway that ends TLS by its plan renews for the names that it needs.
    pub(super) async fn names(self, subject: &Subject) -> Result<ServerNames, Refusal> {
        match (self, subject) {
            (Self::Devices(declared, through), Subject::Device(asset)) => {
                declared.now().await?.served(asset, through)
            }
            _ => Ok(ServerNames::default()),
        }
    }
}

/// What an enrolment gives whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    /// Who.
    pub(crate) subject: &'a Subject,
    /// In which life.
    pub(crate) epoch: Epoch,
    /// By which key.
    pub(crate) key: Digest,
    /// The same key had it before.
    pub(crate) repeated: bool,
}
