//! What is remembered of a gateway beside its key.

use penstock_policy::ids::Digest;
use penstock_proto::v1::TrustHeld;
use serde::{Deserialize, Serialize};

use crate::store::{Change, Expect, Store, StoreError};

/// Prefix of gateways' records.
pub const GATEWAY_PREFIX: &str = "gateway/";

/// What is remembered of a gateway across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayRecord {
    /// When it enrolled last, milliseconds since 1970; 0: a certificate of it was seen, but no enrolment here.
    pub enrolled_ms: u64,
    /// When its certificate expires, milliseconds since 1970.
    pub certificate_expires_ms: u64,
    /// When it was last connected, milliseconds since 1970.
    pub last_seen_ms: u64,
    /// The number of the trust bundle that it held then; absent from before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<u64>,
    /// SHA-256 of the root below which its certificate was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
}

impl GatewayRecord {
    /// Whether it is remembered to hold this trust bundle.
    pub(crate) fn is_trusting(&self, held: &TrustHeld) -> bool {
        let mut now = self.clone();
        now.trusts(held);
        now == *self
    }

    /// It holds this trust bundle.
    pub(crate) fn trusts(&mut self, held: &TrustHeld) {
        self.trust = Some(held.number);
        self.root = <[u8; 32]>::try_from(held.root.as_ref()).ok().map(Digest);
    }

    /// A session of the gateway ended, which it had begun with a certificate that expires then. A newer one that it got since stays what is
    /// remembered; an older coordinator's backup may know less than the session.
    pub(crate) fn session_ended(&mut self, certificate_expires_ms: u64, now_ms: u64) {
        self.last_seen_ms = now_ms;
        self.certificate_expires_ms = self.certificate_expires_ms.max(certificate_expires_ms);
    }
}

/// Adds to a change what is remembered of a gateway from then on.
pub(crate) async fn with_gateway(
    store: &Store,
    change: Change,
    gateway: &str,
    update: impl Fn(&mut GatewayRecord),
) -> Result<Change, StoreError> {
    let key = format!("{GATEWAY_PREFIX}{gateway}");
    let (mut record, expect) = match store.get_json::<GatewayRecord>(&key).await? {
        Some((record, revision)) => (record, Expect::Revision(revision)),
        None => (GatewayRecord::default(), Expect::Absent),
    };
    update(&mut record);
    change.json(&key, expect, &record)
}

/// Changes what is remembered of a gateway, as a part of `change`, as often as somebody else was faster.
pub(crate) async fn update_gateway(
    store: &Store,
    change: Change,
    gateway: &str,
    update: impl Fn(&mut GatewayRecord),
) -> Result<(), StoreError> {
    loop {
        let change = with_gateway(store, change.clone(), gateway, &update).await?;
        match store.apply(change).await {
            Err(StoreError::Conflict { .. }) => {}
            other => return other.map(|_| ()),
        }
    }
}
