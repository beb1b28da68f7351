//! What a session sends of what its gateway should have: the release if that is not there, the order alone if it is, each once.

use super::*;
use crate::sessions::{Order, Word};
use penstock_proto::v1;

struct Session(Machine, Instant);

fn wanted(revision: u64, number: u64, upto: Upto) -> Wanted {
    Wanted {
        mark: marked(revision),
        order: Some(Order {
            number,
            upto,
            trial_seconds: 600,
            why: "rollout".into(),
        }),
        offers: true,
    }
}

fn marked(revision: u64) -> PolicyMark {
    PolicyMark {
        statement: Some(Digest::of(&revision.to_le_bytes())),
        ..mark(revision)
    }
}

impl Session {
    /// After the welcome; the gateway enforces `effective` and has `staged` stored (0: none).
    fn of(effective: u64, staged: u64) -> Self {
        let now = Instant::now();
        let mut session = Self(Machine::new(SessionLimits::default(), 7, now), now);
        let hello = Hello {
            policy: Some(policy(effective, staged)),
            ..Hello::default()
        };
        session.step(message(Message::Hello(hello)));
        session.step(Fact::Answered(Answer::Position(Ok((None, Box::default())))));
        assert!(matches!(session.sent(), Some(Outgoing::Welcome(..))));
        session
    }

    fn step(&mut self, fact: Fact) {
        let _ = self.0.step(self.1, fact);
    }

    fn wants(&mut self, wanted: Wanted) {
        self.step(Fact::Target(Some(wanted)));
    }

    fn reports(&mut self, effective: u64, staged: u64) {
        self.step(message(Message::Policy(policy(effective, staged))));
    }

    fn sent(&mut self) -> Option<Outgoing> {
        assert_eq!(self.0.has_message(), {
            let mut other = self.0.due().is_some() || self.0.word.is_some();
            other |= self.0.stage == Stage::Welcoming || self.0.intake.acknowledges();
            other
        });
        self.0.message(self.1)
    }

    fn is_offered(&mut self, revision: u64) {
        match self.sent() {
            Some(Outgoing::Offer { wanted, .. }) => assert_eq!(wanted, marked(revision)),
            other => panic!("{other:?}"),
        }
    }
}

fn policy(effective: u64, staged: u64) -> PolicyState {
    let wire = |revision: u64| (revision > 0).then(|| RevisionDigest::from(marked(revision)));
    PolicyState {
        effective: wire(effective),
        staged: wire(staged),
        ..PolicyState::default()
    }
}

#[test]
fn a_release_is_offered_to_who_does_not_have_it_and_further_orders_about_it_go_alone() {
    let mut session = Session::of(1, 0);
    session.wants(wanted(2, 1, Upto::Staged));
    session.is_offered(2);
    assert_eq!(session.sent(), None, "it is offered once");
    // It was not heard of since: the offer is on its way, and the order follows it.
    session.wants(wanted(2, 2, Upto::Active));
    assert_eq!(session.sent(), Some(Outgoing::Order));
    session.reports(1, 2);
    session.wants(wanted(2, 3, Upto::Staged));
    assert_eq!(session.sent(), Some(Outgoing::Order));
    // The same target again is nothing new.
    session.wants(wanted(2, 3, Upto::Staged));
    assert_eq!(session.sent(), None);
    // It does not have it after all.
    session.reports(1, 0);
    session.wants(wanted(2, 4, Upto::Active));
    session.is_offered(2);
}

#[test]
fn what_is_in_force_is_neither_offered_nor_ordered_again_and_an_older_release_goes_to_nobody() {
    let mut session = Session::of(2, 0);
    session.wants(wanted(2, 1, Upto::Active));
    assert_eq!(session.sent(), None);
    session.wants(wanted(1, 2, Upto::Active));
    assert_eq!(session.sent(), None);
    // An order that takes back what it could do is sent, also where it came too late.
    session.wants(wanted(2, 3, Upto::Staged));
    assert_eq!(session.sent(), Some(Outgoing::Order));
}

#[test]
fn an_order_that_takes_something_back_carries_no_release_to_who_does_not_have_it() {
    let mut session = Session::of(1, 0);
    session.wants(Wanted {
        offers: false,
        ..wanted(2, 1, Upto::Staged)
    });
    assert_eq!(session.sent(), Some(Outgoing::Order));
}

#[test]
fn a_target_that_is_overtaken_is_not_sent_and_a_word_follows_what_waits() {
    let mut session = Session::of(1, 2);
    session.wants(wanted(2, 1, Upto::Active));
    session.step(Fact::Word(Word::Confirm(Digest::of(b"2"))));
    session.wants(wanted(3, 2, Upto::Staged));
    session.is_offered(3);
    assert_eq!(
        session.sent(),
        Some(Outgoing::Word(Word::Confirm(Digest::of(b"2"))))
    );
    session.step(Fact::Target(None));
    assert_eq!(session.sent(), None);
}

#[test]
fn what_a_person_cleared_and_what_is_only_staged_is_offered_again_where_no_rollout_orders_it() {
    let reverted = |revision: u64| {
        let state = v1::policy_standing::State::Reverted(v1::Reverted::default());
        let standing = v1::PolicyStanding {
            statement_digest: marked(revision).statement.unwrap().0.to_vec().into(),
            state: Some(state),
            ..v1::PolicyStanding::default()
        };
        let reported = PolicyState {
            standing: Some(standing),
            ..policy(1, 0)
        };
        message(Message::Policy(reported))
    };
    let mut session = Session::of(1, 0);
    session.wants(Wanted::at_once(marked(2)));
    session.is_offered(2);
    session.step(reverted(2));
    assert_eq!(session.sent(), None, "it would be refused");
    // By what the agent makes of it, it is staged then, or gone.
    for staged in [2, 0] {
        session.reports(1, staged);
        session.is_offered(2);
        session.reports(1, staged);
        assert_eq!(session.sent(), None, "it is offered once");
        session.step(reverted(2));
    }
    // What was cleared and is not wanted is not offered, nor is anything for it.
    session.step(reverted(3));
    session.reports(1, 0);
    assert_eq!(session.sent(), None);
    let mut another = Session::of(1, 2);
    another.wants(Wanted::at_once(marked(2)));
    another.is_offered(2);
    // A rollout orders by itself.
    another.step(reverted(2));
    another.wants(wanted(2, 1, Upto::Staged));
    another.is_offered(2);
    another.reports(1, 2);
    assert_eq!(another.sent(), None);
}
