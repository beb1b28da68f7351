//! What is recorded of a request: what exactly is asked for, by whom with which key, and what was decided.

use penstock_policy::ids::{AssetId, Digest, GatewayId, OperatorId, RoleName};
use penstock_policy::model::ApproverSet;
use penstock_proto::refusal::{Reason, Refusal};
use serde::{Deserialize, Serialize};

use super::{KEPT_MS, Person};
use crate::operators::Role;
use crate::subjects::in_role;

/// What is asked for. Two that are equal are the same request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Wanted {
    /// A token that enrols a gateway.
    GatewayToken {
        /// Which.
        gateway: GatewayId,
        /// The only key that it will enrol; `None`: any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
        /// Whom it will believe; `None`: whoever asked did not say.
        approvers: Option<ApproverSet>,
        /// How long the token may be used, seconds.
        valid_seconds: u32,
    },
    /// A token that enrols an operator.
    OperatorToken {
        /// Who.
        operator: OperatorId,
        /// As what.
        role: Role,
        /// How long the token may be used, seconds.
        valid_seconds: u32,
    },
    /// A token with which a device gets its certificate by itself.
    DeviceToken {
        /// Which.
        asset: AssetId,
        /// The only key that it will enrol; `None`: any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
        /// The role that its certificate will give it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device_role: Option<RoleName>,
        /// How long the token may be used, seconds.
        valid_seconds: u32,
    },
    /// A certificate of a device.
    DeviceCertificate {
        /// Which.
        asset: AssetId,
        /// For this key.
        key: Digest,
        /// The role that it will give it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device_role: Option<RoleName>,
    },
    /// That an account of the identity provider is an operator's.
    ProviderAccount {
        /// Which, by its name here.
        account: String,
        /// The provider.
        issuer: String,
        /// What it calls the account.
        subject: String,
        /// What it says that its holder is called.
        shown: String,
        /// Whose it becomes.
        operator: OperatorId,
        /// As what.
        role: Role,
    },
}

impl Wanted {
    /// What it concerns, as the trail says it.
    pub(crate) fn target(&self) -> String {
        let bound = |key: &Option<Digest>| match key {
            Some(key) => format!(" for the key {key}"),
            None => String::new(),
        };
        match self {
            Self::GatewayToken {
                gateway,
                key,
                approvers,
                ..
            } => {
                let believing = approvers
                    .as_ref()
                    .map(|approvers| format!(" believing approvers {}", approvers.digest()));
                format!("gateway/{gateway}{}{}", bound(key), believing.unwrap_or_default())
            }
            Self::OperatorToken { operator, role, .. } => format!("operator/{operator} as {role}"),
            Self::DeviceToken {
                asset,
                key,
                device_role,
                ..
            } => format!("device/{asset}{}{}", bound(key), in_role(device_role.as_ref())),
            Self::DeviceCertificate {
                asset,
                key,
                device_role,
            } => format!("device/{asset} with key {key}{}", in_role(device_role.as_ref())),
            Self::ProviderAccount {
                issuer,
                subject,
                operator,
                role,
                ..
            } => format!("operator/{operator} as {role} for `{subject}` of {issuer}"),
        }
    }

    /// Whether a second person would see what they confirm.
    pub(super) fn can_be_judged(&self) -> Result<(), Refusal> {
        if let Self::GatewayToken {
            gateway,
            approvers: None,
            ..
        } = self
        {
            let what = "is missing: a second person has to see whose signatures the gateway will believe";
            let words = format!(
                "approvers_digest {what}; this `penstock` is too old to make a token for {gateway} here: upgrade it"
            );
            return Err(Refusal::new(Reason::BadRequest, words).field("approvers_digest", what));
        }
        Ok(())
    }
}

/// What a second person decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Decided {
    /// It may be fetched.
    Confirmed {
        /// Who confirmed it.
        by: OperatorId,
        /// When, milliseconds since 1970.
        at_ms: u64,
    },
    /// It may not.
    Rejected {
        /// Who rejected it.
        by: OperatorId,
        /// When, milliseconds since 1970.
        at_ms: u64,
        /// Why.
        reason: String,
    },
}

/// A request as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRecord {
    /// Who asks.
    pub by: OperatorId,
    /// With which key.
    pub key: Digest,
    /// When, milliseconds since 1970.
    pub asked_ms: u64,
    /// For what.
    pub wanted: Wanted,
    /// What was decided; `None`: it waits.
    pub decided: Option<Decided>,
}

impl RequestRecord {
    /// When it ends, whatever was decided, milliseconds since 1970.
    pub fn ends_ms(&self) -> u64 {
        self.asked_ms.saturating_add(KEPT_MS)
    }

    /// Whether it has ended. A clock that was set back by more than it may wait ends it, too.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.ends_ms() <= now_ms || self.asked_ms.saturating_sub(now_ms) >= KEPT_MS
    }

    pub(super) fn is_of(&self, person: Person<'_>) -> bool {
        self.by == *person.operator && self.key == person.key
    }
}
