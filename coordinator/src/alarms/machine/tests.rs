#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use proptest::prelude::*;

use super::*;
use crate::alarms::Cause;
use crate::alarms::common_causes::common_causes;
use crate::alarms::load::Load;
use penstock_policy::ids::ZoneId;

const ON_MS: u64 = 5_000;
const OFF_MS: u64 = 30_000;
const DELAYS: Delays = Delays {
    on: Duration::from_millis(ON_MS),
    off: Duration::from_millis(OFF_MS),
};
const START_MS: u64 = 1_800_000_000_000;

fn zone(name: &str) -> ZoneId {
    ZoneId::new(name).unwrap()
}

fn key() -> AlarmKey {
    AlarmKey::of_zone(&zone("boiler"), Cause::MustFlow)
}

fn sign(subject: &str) -> Sign {
    Sign {
        message: format!("gw-1: {subject} is silent"),
        subjects: BTreeSet::from([subject.to_owned()]),
        gateways: BTreeSet::from([GatewayId::new("gw-1").unwrap()]),
        priority: Priority::High,
        is_safety: false,
        dark: Duration::ZERO,
    }
}

fn stands(subject: &str) -> Condition {
    Condition::Stands(sign(subject))
}

fn seen(condition: Condition) -> BTreeMap<AlarmKey, Condition> {
    BTreeMap::from([(key(), condition)])
}

/// A machine whose steps are all stored.
struct World {
    machine: Machine,
    now_ms: u64,
    words: Vec<&'static str>,
    /// The state before each step of time, and the step's word.
    steps: Vec<(&'static str, &'static str)>,
}

impl World {
    fn new() -> Self {
        Self {
            machine: Machine::new(DELAYS, BTreeMap::new()),
            now_ms: START_MS,
            words: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// A second at a time, as the desk looks.
    fn pass(&mut self, ms: u64, conditions: &BTreeMap<AlarmKey, Condition>) {
        self.pass_by(1000, ms, conditions);
    }

    fn pass_by(&mut self, step_ms: u64, ms: u64, conditions: &BTreeMap<AlarmKey, Condition>) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms += step_ms;
            for step in self.machine.due(self.now_ms, conditions) {
                self.words.push(step.word);
                self.steps.push((self.state(), step.word));
                self.machine.apply(&step);
            }
        }
    }

    fn state(&self) -> &'static str {
        let record = self.machine.records().get(&key());
        record.map_or("normal", |record| record.state.as_str())
    }

    fn command(&mut self, condition: &Condition, command: Command, reason: &str) -> Result<(), CommandError> {
        let by = Author {
            name: "rosa".to_owned(),
            by_topic: false,
        };
        let step = self
            .machine
            .command(&key(), Some(condition), (command, &by, reason), self.now_ms)?;
        self.words.push(step.word);
        self.machine.apply(&step);
        Ok(())
    }

    fn restart(&mut self) {
        let records = self.machine.records().iter().map(|(key, record)| {
            let stored = serde_json::to_vec(record).unwrap();
            (key.clone(), serde_json::from_slice(&stored).unwrap())
        });
        self.machine = Machine::new(DELAYS, records.collect());
    }
}

#[test]
fn an_alarm_is_raised_acknowledged_returns_and_is_seen_to_have_been_there() {
    let mut world = World::new();
    let on = seen(stands("supply/alarms"));
    world.pass(ON_MS, &on);
    assert_eq!(world.state(), "normal", "it stood for less than its delay");
    world.pass(1000, &on);
    assert_eq!(world.state(), "unacknowledged");
    world.pass(OFF_MS + 1000, &seen(Condition::Clear));
    assert_eq!(world.state(), "returned", "nobody has seen it");
    world.pass(ON_MS + 1000, &on);
    assert_eq!(world.state(), "unacknowledged");
    world
        .command(&stands("supply/alarms"), Command::Acknowledge, "")
        .unwrap();
    assert_eq!(world.state(), "acknowledged");
    world.pass(3_600_000, &on);
    assert_eq!(
        world.state(),
        "acknowledged",
        "who has seen it is not called again"
    );
    world.pass(OFF_MS + 1000, &seen(Condition::Clear));
    assert_eq!(world.state(), "normal");
    assert_eq!(
        world.words,
        ["raised", "returned", "raised", "acknowledged", "cleared"]
    );
}

#[test]
fn more_than_somebody_acknowledged_is_raised_again_and_the_same_is_not() {
    let mut world = World::new();
    world.pass(ON_MS + 1000, &seen(stands("a")));
    world.command(&stands("a"), Command::Acknowledge, "").unwrap();
    world.pass(10_000, &seen(stands("a")));
    assert_eq!(world.state(), "acknowledged");
    world.pass(1000, &seen(stands("b")));
    assert_eq!(world.state(), "unacknowledged");
    world.command(&stands("b"), Command::Acknowledge, "").unwrap();
    // What flaps between the two of them was seen.
    for subject in ["a", "b", "a", "b"] {
        world.pass(2000, &seen(stands(subject)));
    }
    assert_eq!(world.state(), "acknowledged");
}

#[test]
fn who_acknowledges_has_seen_what_was_shown_and_is_called_for_what_came_after() {
    let mut world = World::new();
    let both = || {
        let mut sign = sign("a");
        sign.subjects.insert("b".to_owned());
        Condition::Stands(Sign {
            message: "gw-1: a and b are silent".to_owned(),
            ..sign
        })
    };
    world.pass(ON_MS + 1000, &seen(stands("a")));
    // It comes between two looks: nobody was shown it.
    world.command(&both(), Command::Acknowledge, "").unwrap();
    world.pass(1000, &seen(both()));
    assert_eq!(world.state(), "unacknowledged");
    // And before anybody acknowledged, it is shown as it comes.
    let mut world = World::new();
    world.pass(ON_MS + 1000, &seen(stands("a")));
    world.pass(1000, &seen(both()));
    let shown = world.machine.records()[&key()].clone();
    assert_eq!(shown.message, "gw-1: a and b are silent");
    world.command(&both(), Command::Acknowledge, "").unwrap();
    world.pass(10_000, &seen(both()));
    assert_eq!(world.state(), "acknowledged");
    assert_eq!(world.words, ["raised", "raised-again", "acknowledged"]);
}

#[test]
fn a_shelved_alarm_needs_a_reason_comes_back_by_itself_and_a_safety_zones_is_never_shelved_by_one_person() {
    let mut world = World::new();
    let on = stands("a");
    world.pass(ON_MS + 1000, &seen(on.clone()));
    let hour = Duration::from_secs(3600);
    assert_eq!(
        world.command(&on, Command::Shelve(hour), ""),
        Err(CommandError::NoReason)
    );
    let too_long = SHELF_MAX + Duration::from_secs(1);
    assert_eq!(
        world.command(&on, Command::Shelve(too_long), "pump is out"),
        Err(CommandError::TooLong)
    );
    world.command(&on, Command::Shelve(hour), "pump is out").unwrap();
    world.pass(3_599_000, &seen(on.clone()));
    assert_eq!(world.state(), "shelved");
    world.pass(1000, &seen(on.clone()));
    assert_eq!(world.state(), "unacknowledged", "it stands, and is shown again");
    world.command(&on, Command::Shelve(hour), "pump is out").unwrap();
    world.now_ms -= 7_200_000;
    world.pass(1000, &seen(on.clone()));
    assert_eq!(
        world.state(),
        "unacknowledged",
        "a clock that is set back prolongs no shelf"
    );

    let safety = Condition::Stands(Sign {
        is_safety: true,
        ..sign("a")
    });
    let mut world = World::new();
    world.pass(ON_MS + 1000, &seen(safety.clone()));
    for command in [Command::Shelve(hour), Command::TakeOutOfService] {
        assert_eq!(
            world.command(&safety, command, "it is loud"),
            Err(CommandError::Safety(key()))
        );
    }
    world.command(&safety, Command::Acknowledge, "").unwrap();
}

#[test]
fn a_zone_that_may_be_dark_is_suppressed_for_so_long_and_alarmed_afterwards() {
    let dark = Condition::Stands(Sign {
        dark: Duration::from_secs(900),
        ..sign("lost")
    });
    let mut world = World::new();
    world.pass(ON_MS + 1000, &seen(dark.clone()));
    assert_eq!(world.state(), "suppressed");
    world.restart();
    world.pass(899_000, &seen(dark.clone()));
    assert_eq!(world.state(), "suppressed");
    world.pass(1000, &seen(dark));
    assert_eq!(world.state(), "unacknowledged");
    let mut short = World::new();
    let dark = seen(Condition::Stands(Sign {
        dark: Duration::from_secs(900),
        ..sign("lost")
    }));
    short.pass(60_000, &dark);
    short.pass(OFF_MS + 1000, &seen(Condition::Clear));
    assert_eq!(
        (short.state(), short.words),
        ("normal", vec!["suppressed", "cleared"])
    );
}

#[test]
fn what_is_no_longer_in_the_plant_has_no_alarm() {
    let mut world = World::new();
    world.pass(ON_MS + 1000, &seen(stands("a")));
    world.pass(1000, &BTreeMap::new());
    assert_eq!(world.state(), "normal");
}

#[test]
fn a_flood_has_one_common_cause_counts_once_and_ends_below_five_in_ten_minutes() {
    let mut machine = Machine::new(DELAYS, BTreeMap::new());
    let mut load = Load::default();
    let lost = |number: usize, gateway: &str| {
        let key = AlarmKey::of_zone(&zone(&format!("zone-{number}")), Cause::Stale);
        let of = Sign {
            gateways: BTreeSet::from([GatewayId::new(gateway).unwrap()]),
            ..sign("lost")
        };
        (key, Condition::Stands(of))
    };
    let conditions: BTreeMap<_, _> = (0..20).map(|number| lost(number, "gw-office")).collect();
    for now_ms in [START_MS, START_MS + ON_MS] {
        for step in machine.due(now_ms, &conditions) {
            machine.apply(&step);
            load.count(&step, now_ms);
        }
    }
    let common = common_causes(machine.records());
    assert_eq!(common.len(), 1);
    assert_eq!(common[0].words(), "20 zones: gw-office lost");
    assert_eq!(load.counts(START_MS + ON_MS).ten_minutes, 1);
    let mut machine = Machine::new(DELAYS, BTreeMap::new());
    let apart: BTreeMap<_, _> = (0..11)
        .map(|number| lost(number, &format!("gw-{number}")))
        .collect();
    for now_ms in [START_MS, START_MS + ON_MS] {
        for step in machine.due(now_ms, &apart) {
            machine.apply(&step);
            load.count(&step, now_ms);
        }
    }
    assert_eq!(common_causes(machine.records()), []);
    let counts = load.counts(START_MS + ON_MS);
    assert!(counts.flood && counts.ten_minutes == 12, "{counts:?}");
    let later = load.counts(START_MS + ON_MS + 600_000);
    assert!(!later.flood && later.hour == 12, "{later:?}");
}

/// One of what may be seen of a condition, or done.
#[derive(Debug, Clone)]
enum Happening {
    Stands(u8),
    Clear,
    Unknown,
    Acknowledge,
    Shelve(u16),
    OutOfService,
    Return,
    Restart,
}

fn happenings() -> impl Strategy<Value = Vec<(Happening, u64)>> {
    let one = prop_oneof![
        4 => (0..3_u8).prop_map(Happening::Stands),
        4 => Just(Happening::Clear),
        2 => Just(Happening::Unknown),
        2 => Just(Happening::Acknowledge),
        1 => (1..800_u16).prop_map(Happening::Shelve),
        1 => Just(Happening::OutOfService),
        1 => Just(Happening::Return),
        2 => Just(Happening::Restart),
    ];
    proptest::collection::vec((one, 1..60_u64), 1..60)
}

proptest! {
    /// Whatever comes and goes within the delays: nothing chatters.
    #[test]
    fn what_alternates_within_its_delay_is_never_raised(
        pieces in proptest::collection::vec((1..=5_u64, 1..=20_u64), 1..40),
    ) {
        let mut world = World::new();
        for (on, off) in pieces {
            world.pass(on * 1000, &seen(stands("a")));
            world.pass(off * 1000, &seen(Condition::Clear));
        }
        prop_assert_eq!(world.words, Vec::<&str>::new());
    }

    /// And what was raised does not come and go with a condition that is away for less than its delay.
    #[test]
    fn what_is_away_for_less_than_its_delay_is_raised_once(
        pieces in proptest::collection::vec((1..=5_u64, 1..=30_u64), 1..40),
    ) {
        let mut world = World::new();
        world.pass(ON_MS + 1000, &seen(stands("a")));
        for (on, off) in pieces {
            world.pass(off * 1000, &seen(Condition::Clear));
            world.pass(on * 1000, &seen(stands("a")));
        }
        prop_assert_eq!(world.words, vec!["raised"]);
    }

    /// Whatever happens, each raise ends or stands; unknown changes nothing; and once it is known for long enough whether the condition stands, the state says so:
    /// by each way there, whenever the coordinator was restarted.
    #[test]
    fn each_raise_ends_or_stands_and_the_same_is_shown_by_any_way_with_any_restarts(all in happenings(), ends_on: bool) {
        let mut world = World::new();
        let mut condition = Condition::Clear;
        for (happening, seconds) in all {
            let before = world.state();
            match happening {
                Happening::Stands(subject) => condition = stands(&subject.to_string()),
                Happening::Clear => condition = Condition::Clear,
                Happening::Unknown => condition = Condition::Unknown,
                Happening::Acknowledge => {
                    let done = world.command(&condition, Command::Acknowledge, "").is_ok();
                    prop_assert_eq!(done, matches!(before, "unacknowledged" | "returned"));
                }
                Happening::Shelve(minutes) => {
                    let time = Duration::from_secs(u64::from(minutes) * 60);
                    let done = world.command(&condition, Command::Shelve(time), "why").is_ok();
                    let shown = matches!(before, "unacknowledged" | "acknowledged" | "returned");
                    prop_assert_eq!(done, shown && time <= SHELF_MAX);
                }
                Happening::OutOfService => {
                    let _ = world.command(&condition, Command::TakeOutOfService, "why");
                }
                Happening::Return => {
                    let _ = world.command(&condition, Command::ReturnToService, "");
                }
                Happening::Restart => world.restart(),
            }
            let (state, steps) = (world.state(), world.words.len());
            world.pass(seconds * 1000, &seen(condition.clone()));
            if condition == Condition::Unknown && !matches!(state, "shelved") {
                prop_assert_eq!(world.state(), state, "what nobody knows changes nothing");
                prop_assert_eq!(world.words.len(), steps);
            }
        }
        let _ = world.command(&condition, Command::ReturnToService, "");
        let last = if ends_on { stands("0") } else { Condition::Clear };
        world.pass_by(60_000, 13 * 3_600_000, &seen(last));
        let state = world.state();
        match ends_on {
            true => prop_assert!(matches!(state, "unacknowledged" | "acknowledged"), "{}", state),
            false => prop_assert!(matches!(state, "normal" | "returned"), "{}", state),
        }
        // Nothing is raised that stands already.
        for (before, word) in &world.steps {
            prop_assert!(
                *word != "raised" || matches!(*before, "normal" | "returned" | "suppressed"),
                "{:?}",
                world.steps
            );
        }
    }
}

#[test]
fn a_gateway_whose_seals_never_fit_takes_no_other_gateways_place_in_an_alarm() {
    let of = |subjects: &[String]| {
        Condition::Stands(Sign {
            subjects: subjects.iter().cloned().collect(),
            ..sign("")
        })
    };
    let held = |world: &World| world.machine.records()[&key()].subjects.clone();
    let mut world = World::new();
    // What is not of seals fills it, and more of that is no news.
    let many: Vec<String> = (0..SUBJECTS_MAX)
        .map(|number| format!("client-{number:03}"))
        .collect();
    world.pass(60_000, &seen(of(&many)));
    assert_eq!((held(&world).len(), world.words.len()), (SUBJECTS_MAX, 1));
    world.pass(60_000, &seen(of(&["somebody".to_owned()])));
    assert_eq!(world.words.len(), 1);
    // One gateway reports again and again: each is shown, and the newest alone is kept.
    for number in 0..SUBJECTS_MAX + 9 {
        world.pass(2_000, &seen(of(&[format!("gw-1 seals 1/{number}")])));
    }
    assert_eq!(world.words.len(), 1 + SUBJECTS_MAX + 9);
    let seals = |world: &World| -> Vec<String> {
        held(world)
            .into_iter()
            .filter(|subject| of_seals(subject).is_some())
            .collect()
    };
    let newest = format!("gw-1 seals 1/{}", SUBJECTS_MAX + 8);
    assert_eq!(
        (seals(&world), held(&world).len()),
        (vec![newest.clone()], SUBJECTS_MAX)
    );
    // Another's is raised all the same, once.
    let both = [newest, "gw-2 seals 1/7".to_owned()];
    world.pass(60_000, &seen(of(&both)));
    assert_eq!((seals(&world), held(&world).len()), (both.to_vec(), SUBJECTS_MAX));
    assert_eq!(world.words.len(), 2 + SUBJECTS_MAX + 9);
    // Of more gateways than are kept, those that are not come once the others' are over.
    let all: Vec<String> = (0..2 * SUBJECTS_MAX)
        .map(|number| format!("gw-{number:03} seals 1/1"))
        .collect();
    world.pass(60_000, &seen(of(&all)));
    assert_eq!(seals(&world), all[..SUBJECTS_MAX]);
    assert_eq!(world.words.len(), 3 + SUBJECTS_MAX + 9);
    world.pass(60_000, &seen(of(&all[SUBJECTS_MAX..])));
    assert_eq!(seals(&world), all[SUBJECTS_MAX..]);
    assert_eq!(world.words.len(), 4 + SUBJECTS_MAX + 9);
}
