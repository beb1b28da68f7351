#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

/// 2026-11-29.
const NOW_MS: u64 = 1_796_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const YEAR_MS: u64 = 365 * DAY_MS;

fn at(wall_ms: u64, synchronised: bool, boot_ms: u64) -> Time {
    Time {
        wall_ms,
        synchronised,
        boot: Duration::from_millis(boot_ms),
    }
}

/// What happens to a gateway, as far as its knowledge of the time goes.
#[derive(Debug, Clone)]
enum Deed {
    /// The clock is set, and it is synchronised or not.
    Set(u64, bool),
    Pass(u64),
    /// A coordinator says a time, to a certificate valid in a span.
    Hear(u64, (u64, u64)),
    /// The machine starts again; what was not written is gone.
    Restart,
}

fn deed() -> impl Strategy<Value = Deed> {
    let any_time = || prop_oneof![Just(0), 0..NOW_MS * 2, NOW_MS..NOW_MS + DAY_MS];
    prop_oneof![
        (any_time(), any::<bool>()).prop_map(|(ms, synchronised)| Deed::Set(ms, synchronised)),
        (0..YEAR_MS).prop_map(Deed::Pass),
        (any_time(), any_time(), 0..90 * DAY_MS)
            .prop_map(|(ms, from, days)| Deed::Hear(ms, (from, from + days))),
        Just(Deed::Restart),
    ]
}

proptest! {
    #[test]
    fn the_floor_never_sinks_and_rises_by_nothing_but_what_may_be_believed(deeds in prop::collection::vec(deed(), 1..40)) {
        let mut known = Known::default();
        let mut time = at(NOW_MS, false, 0);
        let mut boot = 0;
        for deed in deeds {
            let before = known.clone();
            match deed {
                Deed::Set(wall_ms, synchronised) => {
                    (time.wall_ms, time.synchronised) = (wall_ms, synchronised);
                    known.seen(time);
                    let risen = before.floor.is_none_or(|floor| floor.ms < wall_ms) && synchronised;
                    prop_assert_eq!(known.floor != before.floor, risen);
                }
                Deed::Pass(ms) => {
                    time.wall_ms += ms;
                    time.boot += Duration::from_millis(ms);
                }
                Deed::Hear(ms, span) => {
                    let is_believed = known.heard(ms, span, (&boot.to_string(), time));
                    prop_assert_eq!(is_believed, (span.0..=span.1).contains(&ms));
                    prop_assert!(is_believed || known == before);
                }
                Deed::Restart => {
                    known = serde_json::from_slice(&serde_json::to_vec(&known).unwrap()).unwrap();
                    (boot, time.boot) = (boot + 1, Duration::ZERO);
                }
            }
            prop_assert!(known.floor.map(|floor| floor.ms) >= before.floor.map(|floor| floor.ms));
            let state = known.judge(None, (&boot.to_string(), time));
            // A clock that the kernel vouches for decides; nothing brings one back that is not vouched for.
            prop_assert_eq!(state.quality == Quality::Synchronised, time.synchronised);
            let now_ms = known.now_ms(time);
            if time.synchronised {
                prop_assert_eq!(now_ms, time.wall_ms);
            } else {
                prop_assert!(now_ms >= time.wall_ms && known.floor.is_none_or(|floor| now_ms >= floor.ms));
            }
            if state.quality == Quality::Authenticated {
                prop_assert!(known.said.as_ref().is_some_and(|said| said.boot == boot.to_string()));
                prop_assert!(state.wrong.is_none());
            }
            prop_assert_eq!(state.quality == Quality::Unknown, !time.synchronised && known == Known::default());
        }
    }
}

#[test]
fn a_clock_that_begins_in_1970_is_named_by_how_far_it_is_behind_the_certificate_and_what_is_known_stays() {
    let mut known = Known::default();
    known.believe(NOW_MS, TimeSource::Coordinator);
    let certificate = Some((NOW_MS - 10 * DAY_MS, NOW_MS + 80 * DAY_MS));
    let state = known.judge(certificate, ("b", at(5_000, false, 5_000)));
    assert_eq!(state.quality, Quality::Floor);
    let fault = state.fault().unwrap();
    assert_eq!(fault.code, "clock-behind");
    assert!(
        fault
            .message
            .contains("this machine's clock is 56 years behind the certificate (valid from 2026-11-"),
        "{}",
        fault.message
    );
    assert!(fault.message.contains("What is enforced goes on unchanged"));
    // The same words as long as it lasts: a fault that changes is new each time.
    let later = known.judge(certificate, ("b", at(65_000, false, 65_000)));
    assert_eq!(later.fault(), Some(fault));
    assert!(later.to_string().contains("WRONG: 56 years behind"), "{later}");
    assert_eq!(known.now_ms(at(5_000, false, 5_000)), NOW_MS);
    // Without a certificate the floor says it.
    let state = known.judge(None, ("b", at(5_000, false, 5_000)));
    let words = state.wrong.unwrap().words;
    assert!(
        words.contains("56 years behind the latest time that this gateway knew (2026-11-")
            && words.contains("by the coordinator"),
        "{words}"
    );
}

#[test]
fn a_clock_is_held_against_what_the_coordinator_said_since_the_machine_started() {
    let mut known = Known::default();
    let span = (NOW_MS - DAY_MS, NOW_MS + DAY_MS);
    assert!(known.heard(NOW_MS, span, ("b", at(NOW_MS, false, 1_000))));
    let judged = |wall_ms, boot_ms, boot| known.judge(Some(span), (boot, at(wall_ms, false, boot_ms)));
    let state = judged(NOW_MS + HOUR_MS, 1_000 + HOUR_MS, "b");
    assert_eq!(
        (state.quality, state.wrong.clone()),
        (Quality::Authenticated, None)
    );
    assert!(
        state.to_string().contains("the coordinator said the same"),
        "{state}"
    );
    let ahead = judged(NOW_MS + 44 * YEAR_MS, 1_000, "b");
    assert_eq!(ahead.quality, Quality::Floor);
    let fault = ahead.fault().unwrap();
    assert_eq!(fault.code, "clock-ahead");
    assert!(
        fault.message.contains("43 years ahead of the coordinator's"),
        "{}",
        fault.message
    );
    let behind = judged(NOW_MS - 3 * HOUR_MS, 1_000, "b");
    assert!(
        behind
            .fault()
            .unwrap()
            .message
            .contains("3 hours behind the coordinator's")
    );
    // What it said before the machine was started says nothing of this clock.
    let state = judged(NOW_MS + HOUR_MS, 1_000, "another");
    assert_eq!((state.quality, state.wrong), (Quality::Floor, None));
}

#[test]
fn nothing_that_is_known_is_said_as_such() {
    let state = Known::default().judge(None, ("b", at(NOW_MS, false, 0)));
    assert_eq!((state.quality, state.fault()), (Quality::Unknown, None));
    assert!(
        state
            .to_string()
            .ends_with("not synchronised; nothing is known to hold it against"),
        "{state}"
    );
    let state = Known::default().judge(None, ("b", at(NOW_MS, true, 0)));
    assert!(state.to_string().ends_with("Z, synchronised"), "{state}");
}

/// A machine whose clock a test sets.
fn machine(wall_ms: u64, synchronised: bool) -> (Timepiece, Arc<Mutex<Time>>) {
    let time = Arc::new(Mutex::new(at(wall_ms, synchronised, 1_000)));
    (Timepiece::Told(time.clone()), time)
}

#[tokio::test]
async fn what_is_known_is_on_the_disk_and_a_restart_in_1970_begins_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (timepiece, time) = machine(NOW_MS, true);
    let known = KnownTime::open(folder.path(), timepiece);
    known.look().await;
    assert_eq!(peek(folder.path()).floor.unwrap().ms, NOW_MS);
    // Less than an hour later nothing is written, and an hour later it is.
    let pass = |ms: u64| {
        let mut time = time.lock().unwrap();
        time.wall_ms += ms;
        time.boot += Duration::from_millis(ms);
    };
    pass(HOUR_MS - 1);
    known.look().await;
    assert_eq!(peek(folder.path()).floor.unwrap().ms, NOW_MS);
    pass(1);
    known.look().await;
    assert_eq!(peek(folder.path()).floor.unwrap().ms, NOW_MS + HOUR_MS);

    let (timepiece, _) = machine(0, false);
    let again = KnownTime::open(folder.path(), timepiece);
    assert_eq!(again.now_ms(), NOW_MS + HOUR_MS);
    assert_eq!(again.judge(None).quality, Quality::Floor);
    again.look().await;
    assert_eq!(peek(folder.path()).floor.unwrap().ms, NOW_MS + HOUR_MS);
}

#[tokio::test]
async fn a_damaged_file_costs_what_it_said_and_nothing_else() {
    for damaged in [b"{\"floor\":".to_vec(), b"\xff".repeat(100), vec![b' '; 100_000]] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), &damaged).unwrap();
        let (timepiece, _) = machine(NOW_MS, false);
        let known = KnownTime::open(folder.path(), timepiece);
        assert_eq!(known.judge(None).quality, Quality::Unknown);
        known.heard(NOW_MS, (NOW_MS, NOW_MS));
        known.look().await;
        assert_eq!(peek(folder.path()).floor.unwrap().ms, NOW_MS);
    }
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_not_asked_at_each_look() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    let (timepiece, time) = machine(NOW_MS, true);
    let known = KnownTime::open(&gone, timepiece);
    known.look().await;
    std::fs::create_dir(&gone).unwrap();
    known.look().await;
    assert_eq!(peek(&gone), Known::default());
    time.lock().unwrap().boot += AGAIN;
    known.look().await;
    assert_eq!(peek(&gone).floor.unwrap().ms, NOW_MS);
}
