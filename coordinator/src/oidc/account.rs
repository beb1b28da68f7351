//! What is recorded of an account of the identity provider: who it is, and with which operator it is linked.
//!
//! `account/<id>` is the account; the id is made of issuer and `sub`, which alone are who it is. A name or an address of e-mail that the provider
//! tells of it is shown to whoever links it, and never looked up: the one who may change those at the provider would choose an operator.
//! `sign-in/<operator>` is the key that came by the last sign-in of an operator, if it came by one.

use penstock_policy::ids::{Digest, OperatorId};
use serde::{Deserialize, Serialize};

use crate::enrolment;
use crate::operators::Role;
use crate::store::{Store, StoreError};

/// Prefix of accounts.
pub const PREFIX: &str = "account/";
/// Prefix of keys that came by a sign-in.
pub const SIGNED_IN: &str = enrolment::SIGNED_IN;
/// For how long an account waits to be linked, from its first sign-in.
pub(super) const WAITS_MS: u64 = 7 * 86_400_000;

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountRecord {
    /// The provider.
    pub(crate) issuer: String,
    /// What it calls the account.
    pub(crate) subject: String,
    /// What it says that its holder is called.
    pub(crate) shown: String,
    /// When it signed in first, milliseconds since 1970.
    pub(crate) asked_ms: u64,
    /// From where.
    pub(crate) address: String,
    /// With whom it is linked.
    pub(crate) link: Option<Link>,
}

/// That an account is an operator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    /// Whose.
    pub(crate) operator: OperatorId,
    /// As what they begin, where they are not known yet.
    pub(crate) role: Role,
    /// Who linked it.
    pub(crate) by: String,
    /// When, milliseconds since 1970.
    pub(crate) at_ms: u64,
}

/// The key that came by a sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignedInRecord {
    /// By which account.
    pub(crate) account: String,
    /// Which.
    pub(crate) key: Digest,
    /// When it signed in last, milliseconds since 1970.
    pub(crate) at_ms: u64,
}

/// An account with its name and the revision that was read.
#[derive(Debug, Clone)]
pub(crate) struct NamedAccount {
    pub(crate) id: String,
    pub(crate) record: AccountRecord,
    pub(crate) revision: u64,
    /// When it got its last certificate, milliseconds since 1970; 0: none.
    pub(crate) signed_in_ms: u64,
}

impl AccountRecord {
    /// Whether it has waited for too long.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.link.is_none() && now_ms.abs_diff(self.asked_ms) >= WAITS_MS
    }
}

/// The name of an account: short enough to be typed, and nobody else's.
pub fn id(issuer: &str, subject: &str) -> String {
    let digest = Digest::of(format!("penstock account 1\0{issuer}\0{subject}").as_bytes());
    digest
        .0
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(super) fn key_of(id: &str) -> String {
    format!("{PREFIX}{id}")
}

pub(super) fn signed_in_key(operator: &OperatorId) -> String {
    format!("{SIGNED_IN}{operator}")
}

/// The key of an operator that came by a sign-in, with the revision of its record.
pub(crate) async fn signed_in(
    store: &Store,
    operator: &OperatorId,
) -> Result<Option<(SignedInRecord, u64)>, StoreError> {
    store.get_json(&signed_in_key(operator)).await
}
