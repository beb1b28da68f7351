//! What a gateway reports, as the standing that a rollout goes by.

#![allow(clippy::unwrap_used)]

use penstock_policy::ids::Revision;

use super::*;
use crate::sessions::News;

fn mark(revision: u64) -> PolicyMark {
    PolicyMark {
        revision: Revision(revision),
        plan: Digest::of(&revision.to_be_bytes()),
        statement: Some(Digest::of(&revision.to_le_bytes())),
    }
}

/// What is known of a gateway that enforces `effective`, has `staged`, and says this of a release.
fn facts(effective: u64, staged: u64, about: u64, state: Option<State>) -> GatewayFacts {
    let wire = |revision: u64| (revision > 0).then(|| v1::RevisionDigest::from(mark(revision)));
    let policy = v1::PolicyState {
        effective: wire(effective),
        staged: wire(staged),
        standing: Some(v1::PolicyStanding {
            order: order_number(3, 9),
            revision: about,
            statement_digest: mark(about).statement.unwrap().0.to_vec().into(),
            state,
        }),
        ..v1::PolicyState::default()
    };
    let mut facts = GatewayFacts::default();
    let hello = v1::Hello {
        capabilities: vec!["trials".to_owned()],
        policy: Some(policy),
        ..v1::Hello::default()
    };
    facts.learn(&News::Hello(Box::new(hello)), 1);
    facts
}

fn trial(confirmable: bool) -> Option<State> {
    Some(State::Trial(v1::OnTrial {
        confirmable,
        ..v1::OnTrial::default()
    }))
}

fn reverted(code: &str, ordered: bool) -> Option<State> {
    Some(State::Reverted(v1::Reverted {
        code: code.to_owned(),
        ordered,
        ..v1::Reverted::default()
    }))
}

#[test]
fn what_a_gateway_reports_is_read_as_it_concerns_this_release_and_no_other() {
    let of = |effective, staged, about, state| standing(&facts(effective, staged, about, state), &mark(2));
    assert_eq!(of(1, 0, 2, None), Standing::Behind);
    assert_eq!(of(1, 2, 2, None), Standing::Staged);
    assert_eq!(of(2, 0, 2, None), Standing::Confirmed);
    assert_eq!(of(2, 0, 2, trial(false)), Standing::Trial { confirmable: false });
    assert_eq!(of(2, 0, 2, trial(true)), Standing::Trial { confirmable: true });
    // A newer one is kept; on trial with whatever else, it is that one's.
    assert_eq!(of(3, 0, 3, None), Standing::Confirmed);
    assert_eq!(of(3, 0, 3, trial(true)), Standing::OtherTrial);
    assert_eq!(of(1, 0, 1, trial(true)), Standing::OtherTrial);
    // What went back of another release says nothing of this one.
    assert_eq!(of(1, 2, 1, reverted("reboot", false)), Standing::Staged);
    let back = |code, ordered| of(1, 2, 2, reverted(code, ordered));
    assert_eq!(
        back("not-confirmed", false),
        Standing::Reverted(RevertReason::Timer)
    );
    assert_eq!(back("asked", true), Standing::Reverted(RevertReason::Ordered));
    assert_eq!(back("asked", false), Standing::Reverted(RevertReason::Person));
    assert_eq!(
        back("what newer software says", false),
        Standing::Reverted(RevertReason::Denials)
    );
    for (code, event) in [
        ("must-flow", HardEvent::MustFlowLost),
        ("management", HardEvent::ManagementLost),
        ("crash", HardEvent::Crash),
        ("lost", HardEvent::Crash),
    ] {
        assert_eq!(back(code, false), Standing::Reverted(RevertReason::Hard(event)));
    }
    let held = |reason: v1::HoldReason| {
        Some(State::Held(v1::Held {
            reason: reason.into(),
            until_ms: 7,
            ..v1::Held::default()
        }))
    };
    let window = Standing::Held {
        reason: HoldReason::Window,
        until_ms: Some(7),
    };
    assert_eq!(of(1, 2, 2, held(v1::HoldReason::Window)), window);
    let alone = Standing::Held {
        reason: HoldReason::NoSession,
        until_ms: Some(7),
    };
    assert_eq!(of(1, 2, 2, held(v1::HoldReason::NoSession)), alone);
    // What it was ordered before this release, and may begin as soon as its window opens.
    assert_eq!(of(1, 3, 3, held(v1::HoldReason::Window)), Standing::OtherTrial);
}

#[test]
fn an_order_of_one_rollout_says_nothing_of_what_a_gateway_may_still_begin_by_another() {
    let facts = facts(1, 0, 2, None);
    assert_eq!(order_of(3, &facts), 9);
    assert_eq!(order_of(2, &facts), 0);
    assert_eq!(order_of(4, &facts), 0);
    assert!(order_number(4, 1) > order_number(3, u64::from(u32::MAX)));
}

#[test]
fn a_must_flow_that_fell_silent_is_hard_and_what_is_only_foretold_granted_or_overridden_is_nothing() {
    let mut facts = facts(2, 0, 2, None);
    let report = |codes: &[&str]| v1::HealthReport {
        faults: codes
            .iter()
            .map(|code| v1::Fault {
                code: (*code).to_owned(),
                ..v1::Fault::default()
            })
            .collect(),
        ..v1::HealthReport::default()
    };
    facts.learn(
        &News::Report(Box::new(report(&[
            "not-ready-to-enforce",
            "remote-access",
            "overridden",
        ]))),
        2,
    );
    assert!(wrong(&facts).is_empty());
    facts.learn(&News::Report(Box::new(report(&["spool-full"]))), 3);
    assert_eq!(hard(&wrong(&facts)), None);
    assert_eq!(wrong(&facts).len(), 1);
    facts.learn(&News::Report(Box::new(report(&["flow-silent"]))), 4);
    assert_eq!(hard(&wrong(&facts)), Some(HardEvent::MustFlowLost));
}
