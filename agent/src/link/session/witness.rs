//! The coordinator's word for a seal of the trail, as it comes with an acknowledgement: verified, and kept beside the trail.

use penstock_proto::audit::chain::SealTrust;
use penstock_proto::audit::witness::witnessed;
use penstock_proto::v1::coordinator_message::Message as Inbound;

use crate::audit::{Audit, sealer};
use crate::identity::Identity;

/// Takes the word out of a message, if there is one that counts.
pub(super) async fn take(message: &mut Option<Inbound>, identity: &Identity, audit: &Audit) {
    let Some(Inbound::AuditAck(ack)) = message else {
        return;
    };
    let Some(word) = ack.witness.take() else { return };
    let trust = SealTrust {
        plant: &identity.enrolment.plant,
        source: identity.enrolment.gateway.as_str().into(),
        roots: identity.roots(),
    };
    let reached = audit.state().borrow().next;
    match witnessed(&trust, &word) {
        // What lies beyond the trail's end says nothing of it, and would be kept for good.
        Ok(text) if sealer::place(&text) <= reached => audit.witness(word).await,
        Ok(_) => tracing::warn!("the coordinator vouches for more of the audit trail than there is"),
        Err(error) => tracing::warn!(%error, "the coordinator's word for the audit trail is not kept"),
    }
}
