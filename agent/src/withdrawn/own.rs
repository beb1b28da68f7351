//! This gateway's own key, where it no longer counts: by the list that it holds, or by what the coordinator says when it refuses it.
//! Nothing that is enforced changes; what a person can do is said.

use penstock_proto::event::AgentStep;
use penstock_proto::refusal::{Reason, ReceivedRefusal};
use penstock_proto::v1::Fault;
use penstock_proto::withdrawn::{Life, Withdrawn};

use crate::audit::record;
use crate::identity::Identity;

/// What to say where this gateway's own certificate no longer counts by this list; `None`: it does.
pub fn words(identity: &Identity, list: &Withdrawn) -> Option<String> {
    over_by(identity, list).map(|why| withdrawn_in_words(&why))
}

/// Why this gateway's own certificate no longer counts by this list; `None`: it does.
pub(super) fn over_by(identity: &Identity, list: &Withdrawn) -> Option<String> {
    let leaf = identity.credentials().chain().first()?;
    let life = Life::of_certificate(leaf).ok()?;
    let from = list.from(&life.subject)?;
    life.is_over(list).then(|| {
        format!(
            "its certificate is of life {}, and by the list of withdrawn keys only life {from} and later ones count",
            life.epoch
        )
    })
}

/// What it means that the key no longer counts, and what to do.
pub(super) fn withdrawn_in_words(why: &str) -> String {
    format!(
        "this gateway's key was withdrawn: {why}. Its policy stays in force, but it gets no new one, and its audit trail waits here. If this machine is to go on as this gateway, make a token for it (penstock gateways token) and run `penstock-agent enrol --new-key --token FILE` here; otherwise take it out of service"
    )
}

/// What health shows where a coordinator refuses this gateway for who it is; `None`: it is refused for something else, which passes.
pub(super) fn refusal_fault(refusal: &ReceivedRefusal) -> Option<Fault> {
    let said = refusal.message.trim_end_matches('.');
    match refusal.reason.as_deref()? {
        _ if refusal.is(Reason::IdentityWithdrawn) || refusal.is(Reason::KeyWithdrawn) => {
            let message = withdrawn_in_words(&format!("the coordinator says: {said}"));
            let step = AgentStep::IdentityWithdrawn;
            Some(Fault::new(step.word(), record::bounded(&message)))
        }
        reason if is_about_us(reason) => {
            let message = format!(
                "the coordinator refuses this gateway: {said}. Its policy stays in force, but it gets no new one, and its audit trail waits here; it goes on asking"
            );
            let step = AgentStep::CoordinatorRefuses;
            Some(Fault::new(step.word(), record::bounded(&message)))
        }
        _ => None,
    }
}

/// Whether a reason is about who this gateway is, and not about a moment: identities' own, also those of a later coordinator.
fn is_about_us(reason: &str) -> bool {
    [
        "IDENTITY_",
        "UNKNOWN_GATEWAY",
        "NO_CERTIFICATE",
        "WRONG_KIND_OF_PEER",
    ]
    .iter()
    .any(|known| reason.starts_with(known))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn refusal(reason: Option<&str>) -> ReceivedRefusal {
        ReceivedRefusal {
            reason: reason.map(str::to_owned),
            message: "gateway gw-1 was revoked by anna: stolen.".to_owned(),
            details: Vec::new(),
            retry_after: None,
        }
    }

    #[test]
    fn a_refusal_for_who_the_gateway_is_says_what_to_do_and_one_that_passes_is_no_fault() {
        let withdrawn = refusal_fault(&refusal(Some(Reason::IdentityWithdrawn.as_str()))).unwrap();
        assert_eq!(withdrawn.code, "identity-withdrawn");
        assert!(
            withdrawn
                .message
                .contains("says: gateway gw-1 was revoked by anna: stolen. Its policy stays in force"),
            "{}",
            withdrawn.message
        );
        assert!(
            withdrawn
                .message
                .contains("penstock-agent enrol --new-key --token FILE")
        );
        let suspended = refusal_fault(&refusal(Some("IDENTITY_SUSPENDED"))).unwrap();
        assert_eq!(suspended.code, "coordinator-refuses");
        assert!(!suspended.message.contains("--new-key"), "{}", suspended.message);
        for passes in [
            None,
            Some("STORE_BUSY"),
            Some("SESSION_REPLACED"),
            Some("STOPPING"),
        ] {
            assert_eq!(refusal_fault(&refusal(passes)), None, "{passes:?}");
        }
    }
}
