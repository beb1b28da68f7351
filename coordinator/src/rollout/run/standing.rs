//! From what is known of a gateway to how it stands to one release, and to what happened there that a rollout has to know. Pure.

use std::collections::BTreeSet;

use penstock_policy::ids::Digest;
use penstock_proto::convert::PolicyMark;
use penstock_proto::fault::{OF_SHOWING, OF_TRAILS, OVERRIDDEN};
use penstock_proto::v1;
use penstock_proto::v1::policy_standing::State;

use crate::rollout::{HardEvent, HoldReason, RevertReason, Standing};
use crate::sessions::GatewayFacts;

/// Bits of an order's number that are its place within its rollout.
const ORDER_BITS: u32 = 32;
/// The fault by which a gateway reports that a must-flow fell silent, and those by which its kernel or its inspectors do not do
/// what the policy says.
const MUST_FLOW: &str = "flow-silent";

/// The number of an order on the wire: it rises from order to order, and from rollout to rollout.
pub(super) fn order_number(rollout: u64, order: u64) -> u64 {
    let within = order & (u64::MAX >> ORDER_BITS);
    (rollout << ORDER_BITS) | within
}

/// Which order of a rollout a gateway obeys by what it repeats. One of another rollout says nothing of it: its release may have been
/// refused there, and the one before may still begin.
pub(super) fn order_of(rollout: u64, facts: &GatewayFacts) -> u64 {
    let repeated = facts.standing.as_ref().map_or(0, |standing| standing.order);
    match repeated >> ORDER_BITS == rollout {
        true => repeated & (u64::MAX >> ORDER_BITS),
        false => 0,
    }
}

/// How a gateway stands to the release of which `mark` is its part.
pub(super) fn standing(facts: &GatewayFacts, mark: &PolicyMark) -> Standing {
    let is = |held: &Option<PolicyMark>| held.as_ref().is_some_and(|held| held.is(mark));
    let (about, state) = match &facts.standing {
        Some(standing) => (digest(&standing.statement_digest), standing.state.as_ref()),
        None => (None, None),
    };
    let is_ours = about.is_some() && about == mark.statement;
    match state {
        Some(State::Trial(trial)) if is_ours => {
            return Standing::Trial {
                confirmable: trial.confirmable,
            };
        }
        Some(State::Trial(_)) => return Standing::OtherTrial,
        _ => {}
    }
    // What is newer on it is confirmed, and it would not go back to this one.
    let is_ahead = |held: PolicyMark| held.revision > mark.revision;
    if is(&facts.effective) || facts.effective.is_some_and(is_ahead) {
        return Standing::Confirmed;
    }
    match state {
        // By an order that it was given before, it begins with that one as soon as nothing holds it.
        Some(State::Held(_)) if !is_ours => return Standing::OtherTrial,
        _ => {}
    }
    match state.filter(|_| is_ours) {
        Some(State::Shadow(shadow)) => {
            return Standing::Shadow {
                cuts_must_flow: shadow.cuts_must_flow,
                judged_ms: shadow.judged_ms,
            };
        }
        Some(State::Held(held)) => {
            return Standing::Held {
                reason: reason(held.reason()),
                until_ms: (held.until_ms > 0).then_some(held.until_ms),
            };
        }
        Some(State::Reverted(reverted)) => return Standing::Reverted(reverted_for(reverted)),
        Some(State::Trial(_)) | None => {}
    }
    let refused = facts
        .refused
        .as_ref()
        .is_some_and(|refused| match refused.statement {
            Some(statement) => Some(statement) == mark.statement,
            None => refused.revision == mark.revision,
        });
    match (refused, is(&facts.staged)) {
        (true, _) => Standing::Refused,
        (false, true) => Standing::Staged,
        (false, false) if !facts.knows_trials() => Standing::WithoutTrials,
        (false, false) => Standing::Behind,
    }
}

/// The codes of what is wrong on a gateway, as far as a rollout has to know: all faults that it reports, and drift.
pub(super) fn wrong(facts: &GatewayFacts) -> BTreeSet<String> {
    let drift = facts.drift == i32::from(v1::Drift::Present);
    let codes = facts.faults.iter().map(|fault| fault.code.as_str());
    let codes = codes.chain(drift.then_some("drift"));
    // What enforcing would change, and who has access for a time, is nothing wrong; nor is what people override at the gateway, which
    // the next release ratifies.
    let codes = codes.filter(|code| !matches!(*code, "not-ready-to-enforce" | "remote-access" | OVERRIDDEN));
    // Nor is it a release's doing that a panel's port or the SCADA's broker is not reached, or what becomes of trails.
    let codes = codes.filter(|code| !OF_SHOWING.contains(code) && !OF_TRAILS.contains(code));
    codes.map(str::to_owned).collect()
}

/// What of it stops a rollout at the first.
pub(super) fn hard(codes: &BTreeSet<String>) -> Option<HardEvent> {
    codes.contains(MUST_FLOW).then_some(HardEvent::MustFlowLost)
}

fn digest(bytes: &[u8]) -> Option<Digest> {
    penstock_proto::convert::digest("statement_digest", bytes).ok()
}

fn reason(wire: v1::HoldReason) -> HoldReason {
    match wire {
        v1::HoldReason::Window => HoldReason::Window,
        v1::HoldReason::Interlock => HoldReason::Interlock,
        v1::HoldReason::Clock => HoldReason::Clock,
        v1::HoldReason::NotCleared => HoldReason::NotCleared,
        v1::HoldReason::Zone => HoldReason::Zone,
        v1::HoldReason::NoSession => HoldReason::NoSession,
        // A reason that is not known here waits for somebody who reads it.
        v1::HoldReason::Person | v1::HoldReason::Unspecified => HoldReason::Person,
    }
}

fn reverted_for(reverted: &v1::Reverted) -> RevertReason {
    match reverted.code.as_str() {
        "not-confirmed" => RevertReason::Timer,
        "reboot" => RevertReason::Reboot,
        // The kernel no longer had it, or did not take it, when the agent came back.
        "crash" | "lost" => RevertReason::Hard(HardEvent::Crash),
        "must-flow" => RevertReason::Hard(HardEvent::MustFlowLost),
        "management" => RevertReason::Hard(HardEvent::ManagementLost),
        "asked" if reverted.ordered => RevertReason::Ordered,
        "asked" => RevertReason::Person,
        // `denials`, and whatever newer software calls it: a failure that is weighed.
        _ => RevertReason::Denials,
    }
}

#[cfg(test)]
mod tests;
