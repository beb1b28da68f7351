//! What a grant does to its conduit as time goes by, jumps, and is not known.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_policy::plan::Capability;
use proptest::prelude::*;

use super::*;

const FROM: u64 = 1_796_112_000_000;
const HOUR: u64 = 3_600_000;
const UNTIL: u64 = FROM + 8 * HOUR;

/// A plan whose conduit `remote` hangs on these grants.
fn plan(grants: &[(&str, u64, u64)]) -> Plan {
    let mut plan = Plan::from_bytes(include_bytes!("../../../policy/fixtures/plan-format-1.json")).unwrap();
    let grant = |(name, from_ms, until_ms): &(&str, u64, u64)| Grant {
        name: name.parse().unwrap(),
        person: "Carla".to_owned(),
        from_ms: *from_ms,
        until_ms: *until_ms,
    };
    plan.requires
        .insert(Capability(Capability::REMOTE_ACCESS.to_owned()));
    plan.grants.insert(remote(), grants.iter().map(grant).collect());
    plan
}

fn remote() -> ConduitId {
    "remote".parse().unwrap()
}

/// A clock that was right at `FROM`, which was 100 s after the machine's start.
fn at(wall_ms: u64) -> Time {
    Time {
        wall_ms,
        synchronised: true,
        boot: Duration::from_millis(wall_ms + 100_000 - FROM),
    }
}

fn steps(look: &GrantsReport) -> Vec<&'static str> {
    look.news.iter().map(|news| news.step.word()).collect()
}

#[test]
fn a_grant_opens_its_conduit_is_reported_before_its_end_and_when_it_has_ended() {
    let plan = plan(&[("visit", FROM + HOUR, UNTIL)]);
    let mut grants = Grants::default();
    let before = grants.look(&plan, at(FROM));
    assert!(before.open.is_empty() && before.news.is_empty());
    let open = grants.look(&plan, at(FROM + HOUR));
    assert_eq!(open.open[&remote()], Duration::from_hours(7));
    assert_eq!(steps(&open), ["remote-access-open"]);
    assert!(
        open.news[0].message.contains("Carla until 2026-12-01T16:00:00Z"),
        "{}",
        open.news[0].message
    );
    assert_eq!(
        steps(&grants.look(&plan, at(UNTIL - 20 * 60_000))),
        [""; 0],
        "once"
    );
    let soon = grants.look(&plan, at(UNTIL - 15 * 60_000));
    assert_eq!(steps(&soon), ["remote-access-ending"]);
    assert!(
        soon.news[0]
            .message
            .contains("closes in 15 min, at 2026-12-01T16:00:00Z"),
        "{}",
        soon.news[0].message
    );
    assert!(soon.shown[0].message.contains("closes soon"));
    assert_eq!(steps(&grants.look(&plan, at(UNTIL - 1))), [""; 0]);
    let over = grants.look(&plan, at(UNTIL));
    assert!(over.open.is_empty() && over.shown.is_empty());
    assert_eq!(steps(&over), ["remote-access-closed"]);
    assert_eq!(over.again, None, "nothing changes by itself any more");
}

#[test]
fn an_unsynchronised_clock_closes_a_grant_and_opens_none_and_says_which_conduit_waits() {
    let plan = plan(&[("visit", FROM, UNTIL)]);
    let mut grants = Grants::default();
    let unknown = |wall_ms| Time {
        synchronised: false,
        ..at(wall_ms)
    };
    let waiting = grants.look(&plan, unknown(FROM + HOUR));
    assert!(waiting.open.is_empty() && waiting.news.is_empty());
    assert_eq!(waiting.waiting, BTreeSet::from([remote()]));
    assert!(!grants.look(&plan, at(FROM + HOUR)).open.is_empty());
    let lost = grants.look(&plan, unknown(FROM + 2 * HOUR));
    assert!(lost.open.is_empty());
    assert_eq!(steps(&lost), ["remote-access-closed"]);
    assert_eq!(lost.again, Some(LOOK), "it may be synchronised again");
    assert!(!grants.look(&plan, at(FROM + 2 * HOUR)).open.is_empty());
}

#[test]
fn a_clock_that_is_set_back_prolongs_no_grant() {
    let plan = plan(&[("visit", FROM, UNTIL)]);
    let mut grants = Grants::default();
    assert_eq!(
        grants.look(&plan, at(UNTIL - HOUR)).open[&remote()],
        Duration::from_hours(1)
    );
    // Set back by four hours, and called synchronised.
    let back = |wall_ms| Time {
        wall_ms: wall_ms - 4 * HOUR,
        ..at(wall_ms)
    };
    assert_eq!(
        grants.look(&plan, back(UNTIL - HOUR / 2)).open[&remote()],
        Duration::from_mins(30)
    );
    let used_up = grants.look(&plan, back(UNTIL));
    assert!(used_up.open.is_empty());
    assert!(
        used_up.news[0].message.contains("set back"),
        "{}",
        used_up.news[0].message
    );
    assert!(grants.look(&plan, back(UNTIL + HOUR)).open.is_empty());
}

#[test]
fn a_clock_that_was_wrong_for_a_while_closes_the_conduit_and_the_right_one_reopens_it() {
    let plan = plan(&[("visit", FROM, UNTIL)]);
    let mut grants = Grants::default();
    grants.look(&plan, at(FROM + HOUR));
    let ahead = Time {
        wall_ms: UNTIL + 900 * HOUR,
        ..at(FROM + 2 * HOUR)
    };
    assert!(grants.look(&plan, ahead).open.is_empty());
    let right = grants.look(&plan, at(FROM + 3 * HOUR));
    assert_eq!(
        right.open[&remote()],
        Duration::from_hours(5),
        "and until its own end"
    );
}

#[test]
fn of_several_grants_the_last_one_closes_the_conduit() {
    let plan = plan(&[("one", FROM, FROM + 2 * HOUR), ("two", FROM + HOUR, UNTIL)]);
    let mut grants = Grants::default();
    assert_eq!(
        grants.look(&plan, at(FROM)).open[&remote()],
        Duration::from_hours(2)
    );
    assert_eq!(
        grants.look(&plan, at(FROM + HOUR)).open[&remote()],
        Duration::from_hours(7)
    );
    let one_over = grants.look(&plan, at(FROM + 2 * HOUR));
    assert_eq!(one_over.open[&remote()], Duration::from_hours(6));
    assert_eq!(steps(&one_over), ["remote-access-closed"]);
}

#[test]
fn a_grant_that_a_new_policy_takes_back_is_reported_as_closed() {
    let mut grants = Grants::default();
    grants.look(&plan(&[("visit", FROM, UNTIL)]), at(FROM));
    let gone = grants.look(&plan(&[]), at(FROM + 1));
    assert!(gone.open.is_empty() && gone.again.is_none());
    assert_eq!(steps(&gone), ["remote-access-closed"]);
}

#[test]
fn a_grant_with_another_beginning_is_another_one_and_no_end_of_the_old_one_holds_for_it() {
    let mut grants = Grants::default();
    // The clock was ahead by seven hours when it opened: one hour was left.
    let ahead = Time {
        wall_ms: UNTIL - HOUR,
        ..at(FROM)
    };
    grants.look(&plan(&[("visit", FROM, UNTIL)]), ahead);
    let later = at(FROM + 2 * HOUR);
    assert!(
        grants
            .look(&plan(&[("visit", FROM, UNTIL)]), later)
            .open
            .is_empty()
    );
    let moved = grants.look(&plan(&[("visit", FROM + HOUR, UNTIL)]), later);
    assert_eq!(moved.open[&remote()], Duration::from_hours(6));
}

#[test]
fn what_is_reported_of_a_conduit_that_another_grant_keeps_open_does_not_call_it_closed() {
    let plan = plan(&[("one", FROM, FROM + 2 * HOUR), ("two", FROM + HOUR, UNTIL)]);
    let mut grants = Grants::default();
    grants.look(&plan, at(FROM + HOUR));
    let soon = grants.look(&plan, at(FROM + 2 * HOUR - 60_000));
    let words = &soon.news[0].message;
    assert!(
        words.contains("the grant two keeps conduit remote open"),
        "{words}"
    );
    let over = grants.look(&plan, at(FROM + 2 * HOUR));
    let words = &over.news[0].message;
    assert!(words.starts_with("conduit remote stays open"), "{words}");
}

#[test]
fn between_zones_that_observe_nothing_is_called_open_or_closed() {
    let mut plan = plan(&[("visit", FROM, UNTIL)]);
    for side in &mut plan.interfaces {
        side.observing = penstock_policy::plan::Observing::Everything;
    }
    let conduit = plan.rules[0].conduit.clone();
    let visit = plan.grants.remove(&remote()).unwrap();
    plan.grants.insert(conduit, visit);
    let mut grants = Grants::default();
    let looks = [FROM, UNTIL - 60_000, UNTIL].map(|now| grants.look(&plan, at(now)));
    for (look, step) in looks.iter().zip(["open", "ending", "closed"]) {
        assert_eq!(steps(look), [format!("remote-access-{step}")]);
        let shown = look.shown.iter().map(|open| &open.message);
        for words in look.news.iter().map(|news| &news.message).chain(shown) {
            assert!(words.contains("observe"), "{words}");
            for untrue in [" is open", "closes", "is closed", "connections on it end"] {
                assert!(!words.contains(untrue), "{words}");
            }
        }
    }
}

#[test]
fn what_was_not_brought_about_is_reported_again() {
    let plan = plan(&[("visit", FROM, UNTIL)]);
    let mut grants = Grants::default();
    let before = grants.clone();
    assert_eq!(steps(&grants.look(&plan, at(FROM))), ["remote-access-open"]);
    grants.undo(before);
    assert_eq!(steps(&grants.look(&plan, at(FROM + 1))), ["remote-access-open"]);
    let before = grants.clone();
    assert_eq!(steps(&grants.look(&plan, at(UNTIL))), ["remote-access-closed"]);
    grants.undo(before);
    assert_eq!(
        steps(&grants.look(&plan, at(UNTIL + 1))),
        ["remote-access-closed"]
    );
}

proptest! {
    /// Whatever the clock does, a conduit is only open while it is believed and within a grant; never longer than was left when
    /// it was first opened; and it is looked at again before anything of that ends.
    #[test]
    fn whatever_the_clock_does_no_grant_opens_more_than_it_says(
        looks in prop::collection::vec((0_u64..4 * 3_600_000, -6_i64..6, any::<bool>(), 0..3_u8), 1..60),
        (begins, lasts) in (0_u64..8, 1_u64..8),
    ) {
        let (from, until) = (FROM + begins * HOUR, FROM + (begins + lasts) * HOUR);
        let plan = plan(&[("visit", from, until)]);
        let (mut grants, mut boot, mut first, mut skew) = (Grants::default(), Duration::ZERO, None, 0);
        for (passes, jump, synchronised, jumps) in looks {
            boot += Duration::from_millis(passes);
            if jumps == 0 {
                skew += jump * 3_600_000;
            }
            let wall_ms = (FROM + boot.as_millis() as u64).saturating_add_signed(skew);
            let look = grants.look(&plan, Time { wall_ms, synchronised, boot });
            let within = synchronised && (from..until).contains(&wall_ms);
            if let Some(left) = look.open.get(&remote()) {
                prop_assert!(within);
                let latest = *first.get_or_insert(boot + Duration::from_millis(until - wall_ms));
                prop_assert!(boot + *left <= latest);
                prop_assert!(Duration::from_millis(until - wall_ms) >= *left);
                prop_assert!(look.again.is_some_and(|again| again <= *left && again <= LOOK));
            } else if within {
                prop_assert!(first.is_some_and(|latest| boot >= latest), "closed within its time");
            }
        }
    }
}
