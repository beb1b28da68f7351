//! Gate and trial over random orders, facts and clocks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use jiff::tz::TimeZone;
use penstock_policy::ids::Revision;
use penstock_policy::model::Window;
use proptest::prelude::*;

use super::*;
use crate::policy_store::journal::{OrderNumber, PersonHold, RevertedRelease};
use crate::reconcile::site::MustFlow;

const STATEMENT: Digest = Digest([7; 32]);
/// A Sunday, 02:00 UTC.
const SUNDAY_MS: u64 = 1_800_151_200_000;

fn at(boot_ms: u64) -> Time {
    Time {
        wall_ms: SUNDAY_MS,
        synchronised: true,
        boot: Duration::from_millis(boot_ms),
    }
}

fn order(trial_ms: Option<u64>) -> Order {
    Order {
        trial_ms,
        ..Order::default()
    }
}

fn begun(trial_ms: u64, facts: &Facts, boot_ms: u64) -> Trial {
    let boot = ("boot".to_owned(), facts);
    Trial::begin(STATEMENT, &order(Some(trial_ms)), None, boot, at(boot_ms)).unwrap()
}

fn flow(rhythm: Option<Duration>, seen: Option<Duration>) -> MustFlow {
    MustFlow {
        name: "telemetry/poll".to_owned(),
        rhythm,
        seen,
    }
}

proptest! {
    #[test]
    fn every_trial_ends_at_its_time_whatever_the_facts_say_and_however_often_agents_end(
        trial_ms in 0..2_000_000_u64,
        began in 0..1_000_000_u64,
        looks in prop::collection::vec((0..400_000_u64, any::<bool>(), prop::option::of(0..3_000_000_u64)), 1..60),
    ) {
        let mut trial = begun(trial_ms, &Facts::default(), began);
        let length = trial_ms.clamp(10_000, 604_800_000);
        let (mut boot, mut starts) = (began, 0);
        for (passes, ends, session) in looks {
            boot += passes;
            let facts = Facts { session: session.map(Duration::from_millis), ..Facts::default() };
            if ends {
                starts += 1;
                match Trial::resume(STATEMENT, trial.record.clone(), "boot", at(boot)) {
                    Ok(resumed) => trial = resumed,
                    Err(why) => {
                        let is_over = boot >= began + length;
                        let expected = if is_over { RevertReason::Timer } else { RevertReason::Crash { starts: 3 } };
                        prop_assert_eq!(why, expected);
                        prop_assert!(is_over || starts == 3);
                        return Ok(());
                    }
                }
                trial.swapped(Duration::from_millis(boot));
            }
            let over = trial.look(&facts, Duration::from_millis(boot));
            prop_assert_eq!(over.is_some(), boot >= began + length, "{:?}", over);
            if over.is_some() {
                return Ok(());
            }
            prop_assert!(trial.again(Duration::from_millis(boot)) > Duration::ZERO);
            prop_assert!(trial.again(Duration::from_millis(boot)) <= trial.left(Duration::from_millis(boot)));
        }
    }

    #[test]
    fn nothing_begins_while_anything_holds_it_and_the_interlock_is_asked_only_if_nothing_else_does(
        staged_only in any::<bool>(),
        held in any::<bool>(),
        reverted in REVERTED_MAX - 1..=REVERTED_MAX,
        windows in 0..4_usize,
        synchronised in any::<bool>(),
        trial_ms in prop::option::of(0..7_200_000_u64),
        word in 0..3_usize,
        minute in 0..180_u64,
        emergency in any::<bool>(),
        has_confirmer in any::<bool>(),
    ) {
        let order = Order {
            upto: if staged_only { Upto::Staged } else { Upto::Active },
            trial_ms,
            ..Order::default()
        };
        let entry = RevertedRelease {
            statement: STATEMENT,
            revision: Revision(1),
            code: "reboot".to_owned(),
            why: String::new(),
            at_ms: 1,
            ordered: false,
        };
        let journal = Journal {
            reverted: vec![entry; reverted],
            hold: held.then(|| PersonHold { by: "anna".to_owned(), why: "pumps".to_owned(), since_ms: 1 }),
            ..Journal::default()
        };
        // 02:00 until 04:00.
        let window = Window { weekday: 6, start_minute: 120, end_minute: 240 };
        let windows = match windows {
            0 => None,
            1 => Some(Err("unknown".to_owned())),
            2 => Some(Ok(Windows::new(TimeZone::UTC, Vec::new()))),
            _ => Some(Ok(Windows::new(TimeZone::UTC, vec![window]))),
        };
        let needs = trial_ms.map_or(0, |ms| ms.max(10_000)) + 60_000;
        let fits = match &windows {
            _ if emergency => true,
            None => true,
            Some(Ok(all)) => synchronised
                && *all != Windows::new(TimeZone::UTC, Vec::new())
                && minute * 60_000 + needs <= 7_200_000
                && minute < 120,
            Some(Err(_)) => false,
        };
        let may_be_tried = reverted < REVERTED_MAX && has_confirmer;
        let free = !staged_only && !held && fits && (trial_ms.is_none() || may_be_tried);
        let words = [Interlock::NotDeclared, Interlock::Safe, Interlock::NotSafe("running".to_owned())];
        let now = Time { wall_ms: SUNDAY_MS + minute * 60_000, synchronised, boot: Duration::ZERO };
        let mut asked = false;
        let gate = Gate { order: &order, emergency, journal: &journal, windows, has_confirmer };
        let judged = gate.judge(now, || { asked = true; words[word].clone() });
        prop_assert_eq!(asked, free);
        prop_assert_eq!(judged.is_ok(), free && word < 2, "{:?}", judged);
        if let Err(Hold::Window { opens_ms: Some(opens) }) = judged {
            prop_assert!(opens > now.wall_ms);
        }
    }

    #[test]
    fn a_must_flow_that_was_alive_reverts_a_trial_exactly_when_it_is_silent_for_five_of_its_own_beats(
        rhythm in 1..20_000_u64,
        seen in prop::option::of(0..400_000_u64),
        now in 0..400_000_u64,
        alive in any::<bool>(),
    ) {
        let swapped = 100_000;
        let before = Facts {
            must_flows: vec![flow(alive.then_some(Duration::from_millis(rhythm)), None)],
            ..Facts::default()
        };
        let mut trial = begun(600_000, &before, swapped);
        trial.swapped(Duration::from_millis(swapped));
        let boot = swapped + now;
        let seen = seen.map(|seen| seen.min(boot));
        // Its rhythm is that from before, whatever is measured now.
        let facts = Facts {
            must_flows: vec![flow(Some(Duration::from_secs(900)), seen.map(Duration::from_millis))],
            ..Facts::default()
        };
        let silent = boot - seen.unwrap_or_default().max(swapped);
        let expected = alive && silent > (5 * rhythm).max(5_000);
        let over = trial.look(&facts, Duration::from_millis(boot));
        prop_assert_eq!(matches!(over, Some(TrialEnd::Reverted(RevertReason::MustFlow { .. }))), expected);
    }
}

#[test]
fn a_trial_is_confirmed_in_the_session_in_which_it_was_ordered_or_by_the_gateway_itself_where_it_is_islanded()
{
    let order = |seconds| OrderNumber {
        session: Duration::from_secs(seconds),
        number: 3,
    };
    let facts = |session: Option<u64>, islanded| Facts {
        session: session.map(Duration::from_secs),
        islanded,
        ..Facts::default()
    };
    assert!(facts(Some(7), false).has_confirmer(order(7)));
    for (session, ordered) in [(None, 7), (Some(8), 7), (None, 0)] {
        assert!(!facts(session, false).has_confirmer(order(ordered)));
        assert!(facts(session, true).has_confirmer(order(ordered)));
    }
}

#[test]
fn a_trial_of_another_boot_is_over_also_where_the_boot_has_no_name() {
    let trial = begun(600_000, &Facts::default(), 5_000);
    let resume = |boot: &str, at_ms| Trial::resume(STATEMENT, trial.record.clone(), boot, at(at_ms));
    assert_eq!(resume("other", 6_000), Err(RevertReason::Reboot));
    assert_eq!(resume("boot", 4_999), Err(RevertReason::Reboot));
    assert!(resume("boot", 6_000).is_ok());
    let mut nameless = trial.record.clone();
    nameless.boot.clear();
    assert_eq!(
        Trial::resume(STATEMENT, nameless, "", at(6_000)),
        Err(RevertReason::Reboot)
    );
}

#[test]
fn only_a_session_that_was_opened_under_the_new_rules_confirms_a_trial_or_counts_as_management() {
    let before = Facts {
        session: Some(Duration::from_secs(1)),
        ..Facts::default()
    };
    let mut trial = begun(600_000, &before, 10_000);
    let remote = |seconds| Confirmer::Remote {
        session_opened: Duration::from_secs(seconds),
    };
    assert!(!trial.is_confirmed_by(&remote(11)) && !trial.is_confirmed_by(&Confirmer::SelfTest));
    trial.swapped(Duration::from_secs(12));
    assert!(!trial.is_confirmed_by(&remote(11)) && trial.is_confirmed_by(&remote(12)));
    assert!(trial.is_confirmed_by(&Confirmer::Person("anna".to_owned())));
    // The old one stands, and nothing new came within half of the trial.
    assert_eq!(trial.look(&before, Duration::from_secs(312)), None);
    assert_eq!(
        trial.clone().look(&before, Duration::from_secs(313)),
        Some(TrialEnd::Reverted(RevertReason::Management))
    );
    let after = Facts {
        session: Some(Duration::from_secs(13)),
        ..Facts::default()
    };
    assert_eq!(trial.look(&after, Duration::from_secs(312)), None);
    assert_eq!(trial.look(&Facts::default(), Duration::from_secs(600)), None);
    assert_eq!(trial.look(&Facts::default(), Duration::from_secs(609)), None);
    // Where there was none before, none is missed.
    let mut islanded = begun(600_000, &Facts::default(), 10_000);
    islanded.swapped(Duration::from_secs(12));
    assert_eq!(islanded.look(&Facts::default(), Duration::from_secs(600)), None);
}

#[test]
fn a_coordinator_that_is_away_reverts_no_trial_before_its_time_once_its_address_answered_under_the_new_rules()
{
    let stood = Facts {
        session: Some(Duration::from_secs(1)),
        ..Facts::default()
    };
    let answered = |seconds| Facts {
        answered: Some(Duration::from_secs(seconds)),
        ..Facts::default()
    };
    let came_back = Facts {
        session: Some(Duration::from_secs(12)),
        ..answered(12)
    };
    for (facts, is_reached) in [
        (came_back, true),
        // Nobody listens there, which packets that went there and came back say.
        (answered(12), true),
        // That was under the rules before.
        (answered(11), false),
    ] {
        let mut trial = begun(600_000, &stood, 10_000);
        trial.swapped(Duration::from_secs(12));
        assert_eq!(trial.look(&facts, Duration::from_secs(13)), None);
        let mut away = |seconds| trial.look(&Facts::default(), Duration::from_secs(seconds));
        if is_reached {
            assert_eq!(away(609), None);
            assert_eq!(away(610), Some(TrialEnd::Reverted(RevertReason::Timer)));
        } else {
            assert_eq!(away(312), None);
            assert_eq!(away(313), Some(TrialEnd::Reverted(RevertReason::Management)));
        }
    }
}

#[test]
fn more_denials_in_a_minute_than_foretold_revert_a_trial_and_what_was_usual_before_does_not() {
    let facts = |denials| Facts {
        denials,
        denials_max: Some(10),
        ..Facts::default()
    };
    let mut trial = begun(600_000, &facts(100), 10_000);
    trial.swapped(Duration::from_secs(10));
    let mut look = |denials| trial.look(&facts(denials), Duration::from_secs(11));
    assert_eq!((look(110), look(10)), (None, None));
    // A new agent counts from the start.
    assert_eq!(look(0), None);
    assert_eq!(look(111), Some(TrialEnd::Reverted(RevertReason::Denials(11))));
}

#[test]
fn an_islanded_gateway_confirms_by_its_own_test_at_the_end_and_waits_for_no_session() {
    let seen = |seen| Facts {
        islanded: true,
        session: Some(Duration::from_secs(1)),
        must_flows: vec![flow(Some(Duration::from_secs(1)), seen)],
        ..Facts::default()
    };
    let after = Some(Duration::from_secs(609));
    for (last, end) in [
        (after, TrialEnd::Passed),
        // It has not flowed, and it is too early to call it silent.
        (None, TrialEnd::Reverted(RevertReason::Timer)),
    ] {
        let mut trial = begun(600_000, &seen(None), 10_000);
        trial.swapped(Duration::from_secs(606));
        assert_eq!(trial.look(&seen(last), Duration::from_secs(609)), None);
        assert_eq!(trial.look(&seen(last), Duration::from_secs(610)), Some(end));
    }
    // One that was never in the kernel by this agent passes nothing.
    let mut trial = begun(600_000, &seen(after), 10_000);
    let end = trial.look(&seen(after), Duration::from_secs(610));
    assert_eq!(end, Some(TrialEnd::Reverted(RevertReason::Timer)));
}

#[test]
fn must_flows_flow_once_each_that_can_be_waited_for_was_seen_under_the_new_rules() {
    let named = |name: &str, rhythm, seen| MustFlow {
        name: name.to_owned(),
        rhythm: Some(Duration::from_secs(rhythm)),
        seen: Some(Duration::from_secs(seen)),
    };
    let facts = |fast, slow| Facts {
        must_flows: vec![named("fast", 1, fast), named("slow", 300, slow)],
        ..Facts::default()
    };
    let mut trial = begun(600_000, &facts(9, 9), 10_000);
    assert!(!trial.flows(&facts(12, 9)));
    trial.swapped(Duration::from_secs(11));
    assert!(!trial.flows(&facts(10, 12)) && trial.flows(&facts(11, 9)));
}
