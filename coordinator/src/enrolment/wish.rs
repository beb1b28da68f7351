//! What a token is to be made for, and what of that a second person has to confirm.

use penstock_policy::ids::{Digest, RoleName};
use penstock_policy::model::ApproverSet;
use penstock_proto::peer::Subject;

use crate::operators::Role;
use crate::requests::{Permit, Wanted};
use crate::subjects::in_role;

/// What a token is to be made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWish {
    /// A gateway, an operator, or a device.
    pub subject: Subject,
    /// An operator's role.
    pub role: Option<Role>,
    /// The only key that it enrols; `None`: any.
    pub key: Option<Digest>,
    /// Whom a gateway will believe; `None`: whoever asks does not say.
    pub approvers: Option<ApproverSet>,
    /// How long it may be used, seconds.
    pub valid_seconds: u32,
    /// The role that its certificate gives a device.
    pub device_role: Option<RoleName>,
}

impl TokenWish {
    /// For whom it is, as the trail says it.
    pub(crate) fn target(&self) -> String {
        match self.role {
            Some(role) => format!("{} as {role}", self.subject),
            None => format!("{}{}", self.subject, in_role(self.device_role.as_ref())),
        }
    }

    /// What the trail says of it beyond that: the key that it is bound to, and why it may be made.
    pub(crate) fn words(&self, permit: &Permit) -> String {
        let bound = self.key.map(|key| format!("for the key {key}"));
        let why = Some(permit.words().to_owned()).filter(|why| !why.is_empty());
        bound.into_iter().chain(why).collect::<Vec<_>>().join("; ")
    }

    /// What a second person has to confirm of it; `None`: nothing.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        match (&self.subject, self.role) {
            (Subject::Gateway(gateway), _) => Some(Wanted::GatewayToken {
                gateway: gateway.clone(),
                key: self.key,
                approvers: self.approvers.clone(),
                valid_seconds: self.valid_seconds,
            }),
            (Subject::Operator(operator), Some(role)) if role.confirms() => Some(Wanted::OperatorToken {
                operator: operator.clone(),
                role,
                valid_seconds: self.valid_seconds,
            }),
            (Subject::Device(asset), _) => Some(Wanted::DeviceToken {
                asset: asset.clone(),
                key: self.key,
                device_role: self.device_role.clone(),
                valid_seconds: self.valid_seconds,
            }),
            _ => None,
        }
    }
}
