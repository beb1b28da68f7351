//! Releases on trial: what begins one, what ends one, and what the disk and the kernel have then.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::policy_store::journal::Upto;
use crate::reconcile::site::{Facts, Interlock, MustFlow};
use crate::reconcile::trial::Confirmer;
use crate::reconcile::window::Windows;

/// A site that a test steers.
#[derive(Default)]
pub(super) struct Steered {
    pub(super) boot: Mutex<String>,
    pub(super) is_running: AtomicBool,
    /// No change window is open for weeks.
    pub(super) is_closed: AtomicBool,
    pub(super) session: Mutex<Option<Duration>>,
    /// A session has to stand, and its order to come in it; else somebody is always there to confirm.
    pub(super) needs_session: AtomicBool,
    /// What happens while the process is asked: the session is lost.
    pub(super) loses_session: AtomicBool,
    pub(super) must_flows: Mutex<Vec<MustFlow>>,
    pub(super) is_islanded: AtomicBool,
    /// It was last asked for a plan whose process says something.
    pub(super) is_asked: AtomicBool,
}

impl Site for Steered {
    fn boot(&self) -> String {
        format!("boot{}", self.boot.lock().unwrap())
    }

    fn windows(&self, _: &Plan) -> Option<Result<Windows, String>> {
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        is_closed.then(|| Ok(Windows::new(jiff::tz::TimeZone::UTC, Vec::new())))
    }

    fn interlock(&self, plan: &Plan) -> Interlock {
        self.is_asked.store(plan.interlock.is_some(), Ordering::Relaxed);
        if self.loses_session.load(Ordering::Relaxed) {
            *self.session.lock().unwrap() = None;
        }
        if self.is_running.load(Ordering::Relaxed) {
            return Interlock::NotSafe("the pumps run".to_owned());
        }
        Interlock::Safe
    }

    fn facts(&self) -> Facts {
        Facts {
            session: *self.session.lock().unwrap(),
            must_flows: self.must_flows.lock().unwrap().clone(),
            islanded: self.is_islanded.load(Ordering::Relaxed),
            ..Facts::default()
        }
    }

    fn has_confirmer(&self, order: OrderNumber) -> bool {
        !self.needs_session.load(Ordering::Relaxed) || self.facts().has_confirmer(order)
    }
}

pub(super) fn on_trial() -> Order {
    Order {
        upto: Upto::Active,
        trial_ms: Some(60_000),
        why: "wave 1".to_owned(),
        ..Order::default()
    }
}

/// A plan whose one grant is long over.
pub(super) fn over() -> Plan {
    granted(1, 2)
}

/// A gateway with release 1 in force, and release 2 with its digest.
pub(super) fn with_one() -> (Gateway, Arc<PolicyOffer>, Digest) {
    let mut gateway = Gateway::new();
    let (first, one) = offer(&over(), 1, None);
    let (second, two) = offer(&over(), 2, Some(one));
    gateway.step(Occasion::Offer(first, Order::default()));
    (gateway, second, two)
}

pub(super) fn given(gateway: &Gateway) -> Vec<u64> {
    gateway.kernel.given.lock().unwrap().clone()
}

pub(super) fn believed(gateway: &Gateway) -> u64 {
    gateway.view.borrow().state.trusted.as_ref().unwrap().revision
}

pub(super) fn standing(gateway: &Gateway) -> StandingState {
    gateway.view.borrow().standing.state.clone()
}

pub(super) fn asked(gateway: &mut Gateway, command: Command) -> Result<(), CommandRefused> {
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    gateway.step(Occasion::Command(command, Some(reply)));
    answer.try_recv().unwrap()
}

pub(super) fn confirm(statement: Digest) -> Command {
    Command::Confirm {
        statement,
        by: Confirmer::Person("anna".to_owned()),
    }
}

#[test]
fn floor_and_approvers_move_when_a_trial_is_confirmed_and_not_before() {
    let (mut gateway, second, two) = with_one();
    gateway.step(Occasion::Offer(second, on_trial()));
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 2], 1));
    assert!(matches!(
        standing(&gateway),
        StandingState::Trial { flows: true, .. }
    ));
    assert_eq!(gateway.view.borrow().standing.release, Some((Revision(2), two)));
    assert_eq!(
        asked(&mut gateway, confirm(Digest([9; 32]))),
        Err(CommandRefused::OtherRelease)
    );
    let early = Command::Confirm {
        statement: two,
        by: Confirmer::Remote {
            session_opened: Duration::from_secs(1),
        },
    };
    assert_eq!(asked(&mut gateway, early), Err(CommandRefused::OldSession));
    assert_eq!(asked(&mut gateway, confirm(two)), Ok(()));
    assert_eq!(
        (believed(&gateway), standing(&gateway)),
        (2, StandingState::Settled)
    );
    gateway.pass(Duration::from_secs(120));
    let gateway = gateway.restarted();
    assert_eq!((given(&gateway), believed(&gateway)), (vec![2], 2));
}

#[test]
fn a_trial_that_nobody_confirms_goes_back_and_its_release_stays_refused_until_a_person_clears_it() {
    let (mut gateway, second, two) = with_one();
    gateway.step(Occasion::Offer(second.clone(), on_trial()));
    gateway.pass(Duration::from_secs(61));
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 2, 1], 1));
    assert_eq!(gateway.recorded("reverted r2"), 1);
    for order in [on_trial(), Order::default()] {
        gateway.step(Occasion::Offer(second.clone(), order));
        assert_eq!(
            gateway.view.borrow().state.refused.clone().unwrap().code,
            "reverted"
        );
    }
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    gateway.step(Occasion::Offer(second.clone(), on_trial()));
    assert_eq!(given(&gateway), [1]);
    let by = || "anna".to_owned();
    let clear = |statement| Command::Clear { statement, by: by() };
    assert_eq!(
        asked(&mut gateway, clear(Digest([9; 32]))),
        Err(CommandRefused::NothingThere)
    );
    assert_eq!(asked(&mut gateway, clear(two)), Ok(()));
    // It may come again, and does not come by itself: by this agent as by the next.
    let is_staged = |gateway: &Gateway| {
        assert_eq!(gateway.view.borrow().standing.release, Some((Revision(2), two)));
        assert_eq!(standing(gateway), StandingState::Staged);
        let staged = gateway.view.borrow().state.staged.clone();
        assert_eq!((staged.unwrap().revision, given(gateway)), (2, vec![1]));
        let change = crate::local::change::Change::of_view(&gateway.view.borrow(), Duration::ZERO);
        assert_eq!(change.held.unwrap().by, "order");
    };
    is_staged(&gateway);
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    is_staged(&gateway);
    gateway.step(Occasion::Order(two, on_trial()));
    assert_eq!(given(&gateway), [1, 2]);
}

#[test]
fn what_a_person_clears_is_staged_again_only_where_nothing_newer_took_its_place() {
    let (mut gateway, second, two) = with_one();
    let (third, _) = offer(&over(), 3, gateway_trusts(&gateway));
    gateway.step(Occasion::Offer(second, on_trial()));
    gateway.pass(Duration::from_secs(61));
    let staged = Order {
        upto: Upto::Staged,
        ..on_trial()
    };
    gateway.step(Occasion::Offer(third, staged));
    let clear = Command::Clear {
        statement: two,
        by: "anna".to_owned(),
    };
    assert_eq!(asked(&mut gateway, clear), Ok(()));
    let is_third = |gateway: &Gateway| gateway.view.borrow().standing.release.unwrap().0 == Revision(3);
    assert!(is_third(&gateway));
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    assert!(is_third(&gateway));
}

fn gateway_trusts(gateway: &Gateway) -> Option<Digest> {
    let trusted = gateway.view.borrow().state.trusted.clone()?;
    Some(Digest(trusted.statement_digest.as_ref().try_into().unwrap()))
}

#[test]
fn an_agent_that_comes_back_in_time_goes_on_with_what_is_left_and_one_that_comes_late_goes_back() {
    let (mut gateway, second, _) = with_one();
    gateway.step(Occasion::Offer(second, on_trial()));
    pass(&gateway.time, Duration::from_secs(50));
    let mut gateway = gateway.restarted();
    assert_eq!((given(&gateway), believed(&gateway)), (vec![2], 1));
    gateway.pass(Duration::from_secs(9));
    assert_eq!(given(&gateway), [2]);
    pass(&gateway.time, Duration::from_secs(1));
    let gateway = gateway.restarted();
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1], 1));
    assert!(
        matches!(standing(&gateway), StandingState::Reverted(reverted) if reverted.code == "not-confirmed")
    );
}

#[test]
fn a_machine_that_was_started_again_amid_a_trial_has_the_policy_before_and_records_why() {
    let (mut gateway, second, _) = with_one();
    gateway.step(Occasion::Offer(second, on_trial()));
    *gateway.site.boot.lock().unwrap() = "2".to_owned();
    let gateway = gateway.restarted();
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1], 1));
    assert!(matches!(standing(&gateway), StandingState::Reverted(reverted) if reverted.code == "reboot"));
}

#[test]
fn a_disk_that_takes_nothing_begins_no_trial_confirms_none_and_keeps_none_from_its_end() {
    let (mut gateway, second, two) = with_one();
    let full = |gateway: &Gateway, record| gateway.records.lock().unwrap().unwritable = record;
    full(&gateway, Some("trial"));
    gateway.step(Occasion::Offer(second, on_trial()));
    assert_eq!(given(&gateway), [1]);
    full(&gateway, None);
    gateway.step(Occasion::Tick);
    assert_eq!(given(&gateway), [1, 2]);
    full(&gateway, Some("trial"));
    assert_eq!(asked(&mut gateway, confirm(two)), Err(CommandRefused::NotStored));
    assert_eq!(believed(&gateway), 1);
    gateway.pass(Duration::from_secs(61));
    assert_eq!(given(&gateway), [1, 2, 1]);
    full(&gateway, None);
    gateway.step(Occasion::Tick);
    // It is in the journal now: the time that is left says nothing any more.
    let gateway = gateway.restarted();
    assert_eq!(given(&gateway), [1]);
    assert!(matches!(standing(&gateway), StandingState::Reverted(_)));
}

#[test]
fn a_first_policy_that_is_reverted_leaves_none() {
    let mut gateway = Gateway::new();
    let (first, _) = offer(&over(), 1, None);
    gateway.step(Occasion::Offer(first, on_trial()));
    assert_eq!(given(&gateway), [1]);
    gateway.pass(Duration::from_secs(61));
    assert_eq!(given(&gateway), [1, 0]);
    let view = gateway.view.borrow().clone();
    assert_eq!((view.state.effective, view.state.trusted), (None, None));
    // It is done, and is not done again by the next agent.
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    assert!(given(&gateway).is_empty());
}

#[test]
fn an_agent_that_ends_before_a_first_policy_is_gone_leaves_the_way_back_to_the_next_one() {
    let mut gateway = Gateway::new();
    let (first, _) = offer(&over(), 1, None);
    gateway.step(Occasion::Offer(first, on_trial()));
    *gateway.kernel.fails.lock().unwrap() = true;
    gateway.pass(Duration::from_secs(61));
    assert_eq!(given(&gateway), [1]);
    assert!(gateway.shows("kernel-failed"));
    let gateway = gateway.restarted();
    assert_eq!(given(&gateway), [0]);
}

#[test]
fn a_release_waits_for_the_process_and_for_a_person_and_a_hold_outlives_the_agent() {
    let (mut gateway, second, _) = with_one();
    gateway.site.is_running.store(true, Ordering::Relaxed);
    gateway.step(Occasion::Offer(second, on_trial()));
    gateway.pass(Duration::from_secs(30));
    assert!(matches!(
        standing(&gateway),
        StandingState::Held(Hold::Interlock(_))
    ));
    assert_eq!(gateway.recorded("held r2"), 1);
    let hold = Command::Hold {
        by: "anna".to_owned(),
        why: "the pumps are repaired".to_owned(),
    };
    assert_eq!(asked(&mut gateway, hold), Ok(()));
    gateway.site.is_running.store(false, Ordering::Relaxed);
    let mut gateway = gateway.restarted();
    assert_eq!(given(&gateway), [1]);
    gateway.step(Occasion::Tick);
    assert!(matches!(
        standing(&gateway),
        StandingState::Held(Hold::Person { .. })
    ));
    let release = Command::ReleaseHold {
        by: "anna".to_owned(),
    };
    assert_eq!(asked(&mut gateway, release), Ok(()));
    assert_eq!(given(&gateway), [1, 2]);
}

#[test]
fn a_release_that_goes_no_further_than_staged_is_in_force_only_after_another_order() {
    let (mut gateway, second, _) = with_one();
    let staged = Order {
        upto: Upto::Staged,
        ..Order::default()
    };
    gateway.step(Occasion::Offer(second.clone(), staged));
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1], 1));
    gateway.step(Occasion::Offer(second, on_trial()));
    assert_eq!(given(&gateway), [1, 2]);
}

#[test]
fn a_release_that_comes_amid_a_trial_waits_for_its_end() {
    let (mut gateway, second, two) = with_one();
    let (third, _) = offer(&over(), 3, Some(two));
    let third = Arc::new(PolicyOffer {
        chain: vec![second.release.clone().unwrap()],
        ..(*third).clone()
    });
    gateway.step(Occasion::Offer(second, on_trial()));
    gateway.step(Occasion::Offer(third, Order::default()));
    gateway.step(Occasion::Tick);
    assert_eq!(given(&gateway), [1, 2]);
    assert_eq!(asked(&mut gateway, confirm(two)), Ok(()));
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1, 2, 3], 3));
}

#[test]
fn a_release_that_was_reverted_is_not_taken_while_the_journal_that_says_so_cannot_be_read() {
    let (mut gateway, second, _) = with_one();
    gateway.step(Occasion::Offer(second.clone(), on_trial()));
    gateway.pass(Duration::from_secs(61));
    gateway.records.lock().unwrap().unreadable_one = Some("trial");
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Offer(second, on_trial()));
    gateway.step(Occasion::Tick);
    gateway.records.lock().unwrap().unreadable_one = None;
    gateway.step(Occasion::Tick);
    gateway.step(Occasion::Tick);
    assert_eq!((given(&gateway), believed(&gateway)), (vec![1], 1));
}

#[test]
fn no_trial_begins_while_the_policy_that_it_would_go_back_to_cannot_be_read() {
    let (mut gateway, second, _) = with_one();
    gateway.site.is_running.store(true, Ordering::Relaxed);
    gateway.step(Occasion::Offer(second, on_trial()));
    gateway.site.is_running.store(false, Ordering::Relaxed);
    // Release 1 is in the first slot.
    gateway.records.lock().unwrap().unreadable_one = Some("policy-a");
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    assert!(given(&gateway).is_empty() && gateway.shows("stored-policy-unusable"));
    gateway.records.lock().unwrap().unreadable_one = None;
    gateway.step(Occasion::Tick);
    gateway.pass(Duration::from_secs(61));
    assert_eq!((given(&gateway), believed(&gateway)), (vec![2, 1], 1));
}

#[test]
fn a_trial_whose_record_cannot_be_read_is_neither_taken_for_confirmed_nor_for_reverted() {
    let (mut gateway, second, _) = with_one();
    gateway.step(Occasion::Offer(second, on_trial()));
    gateway.records.lock().unwrap().unreadable_one = Some("trial");
    let mut gateway = gateway.restarted();
    gateway.step(Occasion::Tick);
    assert!(given(&gateway).is_empty() && gateway.shows("stored-policy-unusable"));
    gateway.records.lock().unwrap().unreadable_one = None;
    gateway.step(Occasion::Tick);
    assert_eq!((given(&gateway), believed(&gateway)), (vec![2], 1));
    gateway.pass(Duration::from_secs(61));
    assert_eq!((given(&gateway), believed(&gateway)), (vec![2, 1], 1));
}

#[test]
fn where_nobody_may_be_there_to_confirm_a_trial_it_does_so_itself_if_its_must_flows_flow_and_waits_for_no_session()
 {
    let polled = |seen| MustFlow {
        name: "reads/poll".to_owned(),
        rhythm: Some(Duration::from_secs(15)),
        seen: Some(Duration::from_secs(seen)),
    };
    for (last, confirmed) in [(140, true), (99, false)] {
        let (mut gateway, second, _) = with_one();
        gateway.site.is_islanded.store(true, Ordering::Relaxed);
        *gateway.site.must_flows.lock().unwrap() = vec![polled(99)];
        // A technician's coordinator was there, and goes.
        *gateway.site.session.lock().unwrap() = Some(Duration::from_secs(1));
        gateway.step(Occasion::Offer(second, on_trial()));
        *gateway.site.session.lock().unwrap() = None;
        assert!(gateway.view.borrow().confirms_itself);
        *gateway.site.must_flows.lock().unwrap() = vec![polled(last)];
        gateway.pass(Duration::from_secs(59));
        assert!(matches!(standing(&gateway), StandingState::Trial { .. }));
        gateway.pass(Duration::from_secs(2));
        assert_eq!(believed(&gateway), if confirmed { 2 } else { 1 });
        assert_eq!(gateway.recorded("confirmed r2"), usize::from(confirmed));
        assert!(!gateway.view.borrow().confirms_itself);
    }
}

#[test]
fn who_reads_that_a_command_was_done_sees_that_it_is_so() {
    let (mut gateway, second, two) = with_one();
    gateway.step(Occasion::Offer(second, on_trial()));
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    let revert = Command::Revert {
        statement: two,
        by: "anna".to_owned(),
        ordered: false,
    };
    done(gateway.reconciler.obey(revert, Some(reply)));
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    let view = gateway.view.borrow().clone();
    assert_eq!(view.state.effective.unwrap().revision, 1);
    assert_eq!(view.reverted.len(), 1);
}
