//! What a token is to be made for, and what of that a second person has to confirm.

use penstock_policy::model::ApproverSet;
use penstock_proto::peer::Subject;

use crate::operators::Role;
use crate::requests::Wanted;

/// What a token is to be made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWish {
    /// A gateway or an operator.
    pub subject: Subject,
    /// An operator's role.
    pub role: Option<Role>,
    /// Whom a gateway will believe; `None`: whoever asks does not say.
    pub approvers: Option<ApproverSet>,
    /// How long it may be used, seconds.
    pub valid_seconds: u32,
}

impl TokenWish {
    /// For whom it is, as the trail says it.
    pub(crate) fn target(&self) -> String {
        match self.role {
            Some(role) => format!("{} as {role}", self.subject),
            None => self.subject.to_string(),
        }
    }

    /// What a second person has to confirm of it; `None`: nothing.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        match (&self.subject, self.role) {
            (Subject::Gateway(gateway), _) => Some(Wanted::GatewayToken {
                gateway: gateway.clone(),
                approvers: self.approvers.clone(),
                valid_seconds: self.valid_seconds,
            }),
            (Subject::Operator(operator), Some(role)) if role.confirms() => Some(Wanted::OperatorToken {
                operator: operator.clone(),
                role,
                valid_seconds: self.valid_seconds,
            }),
            _ => None,
        }
    }
}
