//! How this gateway stands, in the words of the wire, for the session in which it is said. Pure.
//!
//! What of a trial is over and left, and for how long shadow judges, is computed when it is sent, and is no reason to send it again.

use std::time::Duration;

use penstock_proto::v1::policy_standing::State;
use penstock_proto::v1::{Held, HoldReason, OnTrial, PolicyStanding, PolicyState, Reverted, Shadowed};

use crate::kernel::ShadowReport;
use crate::policy_store::journal::RevertedRelease;
use crate::reconcile::trial::Hold;
use crate::reconcile::{PolicyView, Standing, StandingState};

/// What `view` shows, for the session that was opened at `opened`; `boot` is now. Both on the boot's clock.
pub fn policy_state(view: &PolicyView, opened: Duration, boot: Duration) -> PolicyState {
    PolicyState {
        standing: Some(standing(&view.standing, opened, boot)),
        ..view.state.clone()
    }
}

fn standing(standing: &Standing, opened: Duration, boot: Duration) -> PolicyStanding {
    let release = standing.release.as_ref();
    PolicyStanding {
        order: standing.order.in_session(opened),
        revision: release.map_or(0, |(revision, _)| revision.0),
        statement_digest: release
            .map(|(_, statement)| statement.0.to_vec().into())
            .unwrap_or_default(),
        state: state(&standing.state, opened, boot),
    }
}

fn state(state: &StandingState, opened: Duration, boot: Duration) -> Option<State> {
    match state {
        StandingState::Settled | StandingState::Staged | StandingState::Shadow(None) => None,
        StandingState::Shadow(Some(report)) => Some(State::Shadow(shadowed(report, boot))),
        StandingState::Held(hold) => Some(State::Held(held(hold))),
        StandingState::Trial {
            began,
            ends,
            confirmable_since,
            flows,
        } => Some(State::Trial(OnTrial {
            elapsed_ms: milliseconds(boot.saturating_sub(*began)),
            left_ms: milliseconds(ends.saturating_sub(boot)),
            confirmable: *flows && confirmable_since.is_some_and(|since| opened >= since),
        })),
        StandingState::Reverted(reverted) => Some(State::Reverted(reverted_on_the_wire(reverted))),
    }
}

fn shadowed(report: &ShadowReport, boot: Duration) -> Shadowed {
    Shadowed {
        since_ms: report.since_ms,
        judged_packets: report.judged_packets,
        would_deny_packets: report.would_deny_packets,
        would_deny_operations: report.would_deny_operations,
        would_cut_connections: report.would_cut_connections,
        flows: report.flows.clone(),
        further_flows: report.further_flows,
        cuts_must_flow: report.cuts_must_flow,
        not_judged: report.not_judged.clone(),
        judged_ms: milliseconds(boot.saturating_sub(report.since_boot)),
    }
}

fn held(hold: &Hold) -> Held {
    let (reason, until_ms) = match hold {
        // Such a release is staged, and no more was asked for.
        Hold::Order => (HoldReason::Unspecified, None),
        Hold::Person { .. } => (HoldReason::Person, None),
        Hold::NotCleared => (HoldReason::NotCleared, None),
        Hold::Clock => (HoldReason::Clock, None),
        Hold::Window { opens_ms } => (HoldReason::Window, *opens_ms),
        Hold::Zone(_) => (HoldReason::Zone, None),
        Hold::NoSession => (HoldReason::NoSession, None),
        Hold::Interlock(_) => (HoldReason::Interlock, None),
    };
    Held {
        reason: reason.into(),
        message: hold.to_string(),
        until_ms: until_ms.unwrap_or_default(),
    }
}

fn reverted_on_the_wire(reverted: &RevertedRelease) -> Reverted {
    Reverted {
        code: reverted.code.clone(),
        message: reverted.why.clone(),
        at_ms: reverted.at_ms,
        ordered: reverted.ordered,
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use penstock_policy::ids::{Digest, Revision};

    use super::*;
    use crate::policy_store::journal::OrderNumber;

    const SECOND: Duration = Duration::from_secs(1);

    fn shown(state: StandingState, opened: Duration, boot: Duration) -> PolicyStanding {
        let order = OrderNumber {
            session: 20 * SECOND,
            number: 7,
        };
        let view = PolicyView {
            standing: Standing {
                order,
                release: Some((Revision(3), Digest([9; 32]))),
                state,
            },
            ..PolicyView::default()
        };
        policy_state(&view, opened, boot).standing.unwrap()
    }

    #[test]
    fn an_order_is_repeated_in_its_own_session_alone() {
        let order = |opened| shown(StandingState::Staged, opened, opened).order;
        assert_eq!([order(20 * SECOND), order(21 * SECOND)], [7, 0]);
        let none = policy_state(&PolicyView::default(), 20 * SECOND, 20 * SECOND);
        assert_eq!(none.standing, Some(PolicyStanding::default()));
    }

    #[test]
    fn a_trial_is_confirmable_where_its_must_flows_flow_and_the_session_was_opened_under_its_rules() {
        let trial = |flows, opened| {
            let state = StandingState::Trial {
                began: 10 * SECOND,
                ends: 70 * SECOND,
                confirmable_since: Some(12 * SECOND),
                flows,
            };
            let Some(State::Trial(trial)) = shown(state, opened, 30 * SECOND).state else {
                panic!("it is on trial");
            };
            trial
        };
        let good = trial(true, 12 * SECOND);
        assert_eq!(
            (good.elapsed_ms, good.left_ms, good.confirmable),
            (20_000, 40_000, true)
        );
        assert!(!trial(true, 11 * SECOND).confirmable && !trial(false, 12 * SECOND).confirmable);
    }

    #[test]
    fn how_long_shadow_judged_is_as_of_the_moment_of_the_report() {
        let report = ShadowReport {
            since_boot: 12 * SECOND,
            ..ShadowReport::default()
        };
        let Some(State::Shadow(shadow)) =
            shown(StandingState::Shadow(Some(report)), SECOND, 30 * SECOND).state
        else {
            panic!("it is in its shadow");
        };
        assert_eq!(shadow.judged_ms, 18_000);
    }

    #[test]
    fn what_holds_a_release_has_a_reason_of_its_own() {
        let reason = |hold: Hold| {
            let Some(State::Held(held)) = shown(StandingState::Held(hold), SECOND, SECOND).state else {
                panic!("it is held");
            };
            (held.reason(), held.until_ms)
        };
        let opens_ms = Some(5);
        assert_eq!(reason(Hold::Window { opens_ms }), (HoldReason::Window, 5));
        assert_eq!(
            reason(Hold::Interlock("no".to_owned())),
            (HoldReason::Interlock, 0)
        );
        assert_eq!(reason(Hold::Zone("no".to_owned())), (HoldReason::Zone, 0));
        assert_eq!(reason(Hold::NoSession), (HoldReason::NoSession, 0));
        assert_eq!(reason(Hold::Clock), (HoldReason::Clock, 0));
        assert_eq!(reason(Hold::NotCleared), (HoldReason::NotCleared, 0));
    }
}
