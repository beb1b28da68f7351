//! Operators and what their roles include.
//!
//! Who an operator is comes from the certificate, what they may do from the record here (`operator/<name>`), so
//! that a role can be changed without a new certificate. Duties are separate (IEC 62443-3-3 SR 2.1): every role
//! may look, and has one thing of its own to do. In particular *admin* makes identities but neither proposes
//! nor approves: who hands out access does not also decide about traffic, unless they have a second identity,
//! which the trail then shows.

use penstock_policy::ids::OperatorId;
use penstock_proto::v1;
use serde::{Deserialize, Serialize};

use crate::store::{Change, Expect, Store, StoreError};

/// Prefix of the records.
pub const PREFIX: &str = "operator/";
/// Prefix of what is remembered of those who could confirm requests, and can no longer.
pub const CONFIRMERS: &str = "confirmer/";

/// What an operator may do.
///
/// ```
/// use penstock_coordinator::operators::Role;
///
/// assert!(matches!("approver".parse(), Ok(Role::Approver)));
/// assert!("root".parse::<Role>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Looks, and proposes releases.
    Engineer,
    /// Looks, and approves releases of others.
    Approver,
    /// Looks, and manages tokens and operators.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Engineer, Self::Approver, Self::Admin];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Engineer => "engineer",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// Whether somebody with this role may do what needs `needed`.
    pub fn includes(self, needed: Self) -> bool {
        needed == Self::Viewer || needed == self
    }

    /// Whether somebody with this role confirms what one admin alone may not do.
    pub fn confirms(self) -> bool {
        matches!(self, Self::Approver | Self::Admin)
    }

    /// From the wire; `None`: unspecified or unknown.
    pub fn from_wire(role: i32) -> Option<Self> {
        match v1::Role::try_from(role).ok()? {
            v1::Role::Unspecified => None,
            v1::Role::Viewer => Some(Self::Viewer),
            v1::Role::Engineer => Some(Self::Engineer),
            v1::Role::Approver => Some(Self::Approver),
            v1::Role::Admin => Some(Self::Admin),
        }
    }

    /// For the wire.
    pub fn to_wire(self) -> v1::Role {
        match self {
            Self::Viewer => v1::Role::Viewer,
            Self::Engineer => v1::Role::Engineer,
            Self::Approver => v1::Role::Approver,
            Self::Admin => v1::Role::Admin,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a role: viewer, engineer, approver or admin"))
    }
}

/// An operator as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorRecord {
    /// What they may do.
    pub role: Role,
    /// When they enrolled last, milliseconds since 1970.
    pub enrolled_ms: u64,
    /// When the certificate ends that they got last, milliseconds since 1970; 0: older software did not write it down.
    #[serde(default)]
    pub certificate_expires_ms: u64,
}

/// Somebody who could confirm requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmerRecord {
    /// Until when, milliseconds since 1970.
    pub until_ms: u64,
}

/// An operator's role, if they are known.
pub(crate) async fn role_of(store: &Store, operator: &OperatorId) -> Result<Option<Role>, StoreError> {
    let record = store
        .get_json::<OperatorRecord>(&format!("{PREFIX}{operator}"))
        .await?;
    Ok(record.map(|(record, _)| record.role))
}

/// Adds to a change an operator's record in place of an older one.
pub(crate) async fn record(
    store: &Store,
    change: Change,
    operator: &OperatorId,
    record: &OperatorRecord,
) -> Result<Change, StoreError> {
    let key = format!("{PREFIX}{operator}");
    let found = store.get_json::<OperatorRecord>(&key).await?;
    let expect = found
        .as_ref()
        .map_or(Expect::Absent, |(_, revision)| Expect::Revision(*revision));
    let change = change.json(&key, expect, record)?;
    match found {
        Some((before, _)) if before.role.confirms() && !record.role.confirms() => {
            confirms_no_longer(store, change, operator, record.enrolled_ms).await
        }
        _ => Ok(change),
    }
}

/// Adds to a change until when an operator's certificate holds from now on.
pub(crate) async fn renewed(
    store: &Store,
    change: Change,
    operator: &OperatorId,
    certificate_expires_ms: u64,
) -> Result<Change, StoreError> {
    let key = format!("{PREFIX}{operator}");
    let Some((record, revision)) = store.get_json::<OperatorRecord>(&key).await? else {
        return Ok(change);
    };
    let record = OperatorRecord {
        certificate_expires_ms,
        ..record
    };
    change.json(&key, Expect::Revision(revision), &record)
}

/// Adds to a change that an operator could confirm requests until now.
pub(crate) async fn confirms_no_longer(
    store: &Store,
    change: Change,
    operator: &OperatorId,
    until_ms: u64,
) -> Result<Change, StoreError> {
    let key = format!("{CONFIRMERS}{operator}");
    let found = store.get(&key).await?;
    let expect = found.map_or(Expect::Absent, |found| Expect::Revision(found.revision));
    change.json(&key, expect, &ConfirmerRecord { until_ms })
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn no_role_includes_the_duty_of_another() {
        for role in Role::ALL {
            for needed in Role::ALL {
                assert_eq!(role.includes(needed), needed == Role::Viewer || role == needed);
            }
        }
    }
}
