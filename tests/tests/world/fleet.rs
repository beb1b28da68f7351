//! Rollouts over gateways that judge for themselves: the coordinator's machine and each gateway's own, in one process, from one number.
//!
//! Sessions lose, delay and end; coordinator and gateways are killed before and after each write; machines are restarted, clocks are set,
//! plants frozen, gateways held by people, windows and interlocks open and close; some releases break what they come to; and some
//! coordinators lie. What must never be is checked where it would happen. There is no kernel and no policy in here, which the other
//! worlds have: only who may change when, and what comes back.

mod drawn;
mod gateway;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_coordinator::rollout::{
    Action, Command, Fact, Mark, Now, Record, Rollout, Setup, Stage, Target, Upto,
};
use penstock_policy::ids::Revision;
use penstock_policy::rollout::{Fleet, RolloutPlan};
use proptest::test_runner::Config;

use self::drawn::{fleet, plan};
use self::gateway::{Gateway, Message};
use super::chance::Chance;

/// The release that all have, and the one that is carried to them.
const BEFORE: u64 = 6;
const CARRIED: u64 = 7;
/// Steps with faults, and at most so many without.
const TROUBLED: usize = 120;
const CALM_MAX: usize = 1_500;
/// A world begins on a Thursday at midnight.
const BEGINS_MS: u64 = 1_700_092_800_000;

/// What happens to what, counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    swaps: u64,
    confirmed: u64,
    reverted: BTreeMap<String, u64>,
    held: BTreeMap<&'static str, u64>,
    stages: BTreeSet<String>,
    killed: u64,
}

struct World {
    chance: Chance,
    fleet: Arc<Fleet>,
    plan: RolloutPlan,
    machine: Rollout,
    gateways: Vec<Gateway>,
    /// True time, milliseconds.
    time: u64,
    /// What is added to it on the coordinator's clock.
    skew: u64,
    frozen: bool,
    calm: bool,
    lies: bool,
    opened: BTreeSet<usize>,
    tally: Tally,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let fleet = Arc::new(fleet(&mut chance));
        let plan = plan(&mut chance, &fleet);
        let setup = Setup {
            revision: Revision(CARRIED),
            plan: plan.clone(),
            fleet: Arc::clone(&fleet),
            in_earlier_trial: Vec::new(),
        };
        let skew = BEGINS_MS;
        let now = Now {
            wall_ms: skew,
            frozen: false,
        };
        let mut machine = Rollout::new(setup, now);
        let emergency = chance.once_in(10);
        for command in [
            Command::Simulated,
            Command::Approved { emergency },
            Command::Start,
        ] {
            machine.steer(now, command).unwrap();
        }
        let gateways = (0..fleet.len())
            .map(|at| Gateway::new(at, emergency, &mut chance))
            .collect();
        Self {
            lies: chance.once_in(6),
            chance,
            fleet,
            plan,
            machine,
            gateways,
            time: 0,
            skew,
            frozen: false,
            calm: false,
            opened: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    fn now(&self) -> Now {
        Now {
            wall_ms: self.time + self.skew,
            frozen: self.frozen,
        }
    }

    /// Some seconds of everything.
    fn tick(&mut self) -> Result<(), String> {
        self.time += 1_000 * (1 + self.chance.below(45));
        if !self.calm {
            self.trouble()?;
        }
        for at in 0..self.gateways.len() {
            let opened = self.opened.contains(&at) || self.lies;
            let gateway = &mut self.gateways[at];
            let swapped = gateway.live(self.time, self.calm, &mut self.chance, &mut self.tally)?;
            if swapped {
                self.swapped(at, opened)?;
            }
        }
        let mut facts = Vec::new();
        for gateway in &mut self.gateways {
            gateway.report(self.time, &mut self.chance, self.calm, &mut facts);
        }
        self.step(&facts)?;
        for gateway in &mut self.gateways {
            gateway.obey(self.time, &mut self.chance, &mut self.tally)?;
        }
        Ok(())
    }

    /// What holds when a gateway has just changed, beside what it checks itself.
    fn swapped(&self, at: usize, opened: bool) -> Result<(), String> {
        if !opened {
            return Err(format!("gateway {at} activated without having been opened"));
        }
        if self.lies {
            return Ok(());
        }
        let place = u32::try_from(at).unwrap();
        let is_on_trial = |other: u32| self.gateways[other as usize].is_on_trial();
        if let Some(partner) = self.fleet.partner(place).filter(|partner| is_on_trial(*partner)) {
            return Err(format!("{at} and {partner} are a pair, and both are on trial"));
        }
        let cell = self.fleet.cell(place);
        let all = 0..u32::try_from(self.gateways.len()).unwrap();
        let others =
            all.filter(|other| *other != place && self.fleet.cell(*other) == cell && is_on_trial(*other));
        let most = self
            .plan
            .waves
            .iter()
            .map(|wave| wave.per_cell)
            .max()
            .unwrap_or_default();
        match others.count() >= most as usize {
            true => Err(format!("cell {cell} has more than {most} on trial")),
            false => Ok(()),
        }
    }

    fn trouble(&mut self) -> Result<(), String> {
        let lot = self.chance.below(70);
        let at = self.chance.below(self.gateways.len() as u64) as usize;
        let why = || "a drill".to_owned();
        match lot {
            0 => self.skew = self.skew.saturating_sub(self.chance.below(7_200_000)),
            1 => self.skew += self.chance.below(90_000_000),
            2 => self.frozen = !self.frozen,
            3 => self.steer(Command::Pause { why: why() })?,
            4 => self.steer(Command::Halt { why: why() })?,
            5..=12 => self.steer(Command::Resume)?,
            13 => {
                let gateway = self.fleet.members()[at].id.clone();
                self.steer(Command::Skip { gateway })?;
            }
            14 if self.chance.once_in(6) => self.steer(Command::Pass)?,
            15 if self.chance.once_in(12) => self.steer(Command::Revert)?,
            16 if self.chance.once_in(12) => self.steer(Command::Cancel)?,
            17 if self.chance.once_in(12) => self.steer(Command::Supersede {
                by: Revision(CARRIED + 1),
            })?,
            18 | 19 => self.restart(),
            20..=25 => self.gateways[at].cut(),
            26..=28 => self.gateways[at].kill(self.chance.below(40_000)),
            29 => self.gateways[at].reboot(self.time, self.chance.below(90_000)),
            30 => self.gateways[at].set_clock(self.chance.below(400_000_000)),
            31..=33 => self.gateways[at].toggle_hold(),
            34 => self.gateways[at].clear(),
            35..=40 if self.lies => self.lie(at),
            _ => {}
        }
        Ok(())
    }

    /// What a coordinator sends that obeys nobody.
    fn lie(&mut self, at: usize) {
        let message = match self.chance.below(5) {
            0 => Message::Confirm(CARRIED),
            1 => Message::Revert(CARRIED),
            2 => Message::Revert(BEFORE),
            3 => Message::Order(BEFORE, self.forged()),
            _ => Message::Order(CARRIED, self.forged()),
        };
        self.gateways[at].send(message);
    }

    fn forged(&mut self) -> Target {
        Target {
            revision: Revision(CARRIED),
            upto: Upto::Active,
            order: self.chance.below(1 << 40),
            trial_seconds: self.chance.below(1_000),
            wave: 0,
        }
    }

    /// The coordinator is killed and started: sessions end, and what is not stored is gone.
    fn restart(&mut self) {
        let text = serde_json::to_string(&self.machine.record()).unwrap();
        let record: Record = serde_json::from_str(&text).unwrap();
        self.machine = Rollout::restore(record, Arc::clone(&self.fleet), self.frozen).unwrap();
        for gateway in &mut self.gateways {
            gateway.forget_session();
        }
    }

    fn steer(&mut self, command: Command) -> Result<(), String> {
        let before = self.machine.clone();
        if let Ok(actions) = self.machine.steer(self.now(), command) {
            self.check(&before)?;
            self.act(&[], actions);
        }
        Ok(())
    }

    fn step(&mut self, facts: &[Fact]) -> Result<(), String> {
        let before = self.machine.clone();
        let actions = self.machine.step(self.now(), facts.iter().copied());
        if !self.calm && self.chance.once_in(150) {
            // Killed before the step was stored: nothing came of it.
            self.machine = before;
            self.restart();
            return Ok(());
        }
        self.check(&before)?;
        if !self.calm && self.chance.once_in(150) {
            // Killed after: it is stored, and nobody has heard of it.
            self.restart();
            return Ok(());
        }
        self.act(facts, actions);
        Ok(())
    }

    fn check(&mut self, before: &Rollout) -> Result<(), String> {
        if before.stage() != self.machine.stage() {
            self.tally.stages.insert(stage(self.machine.stage()));
        }
        for at in 0..self.gateways.len() {
            let place = u32::try_from(at).unwrap();
            if self.machine.mark(place) == Some(Mark::Opened) {
                if before.mark(place) != Some(Mark::Opened) && self.machine.is_stopped() {
                    return Err(format!("gateway {at} was opened while stopped"));
                }
                self.opened.insert(at);
            }
        }
        Ok(())
    }

    /// What a session's shell does: whoever says hello gets its target, and whoever is named.
    fn act(&mut self, facts: &[Fact], actions: Vec<Action>) {
        for fact in facts {
            if let Fact::Hello { gateway, .. } = fact {
                self.send_target(*gateway);
            }
        }
        for action in actions {
            match action {
                Action::Retarget(at) => self.send_target(at),
                Action::RetargetAll => (0..self.fleet.len() as u32).for_each(|at| self.send_target(at)),
                Action::Confirm(at) => self.gateways[at as usize].send(Message::Confirm(CARRIED)),
                Action::Revert(at) => self.gateways[at as usize].send(Message::Revert(CARRIED)),
                Action::Note(_) => {}
            }
        }
    }

    fn send_target(&mut self, at: u32) {
        if let Some(target) = self.machine.target(at) {
            self.gateways[at as usize].send(Message::Order(CARRIED, target));
        }
    }

    /// Faults end; people let go on whatever stops, until all that can come is there.
    fn calm_down(&mut self) -> Result<(), String> {
        (self.calm, self.frozen) = (true, false);
        if self.lies {
            // An honest one takes its place; what gateways were sent before is with their sessions.
            self.restart();
        }
        for gateway in &mut self.gateways {
            gateway.calm_down(self.time);
        }
        for _ in 0..CALM_MAX {
            self.steer(Command::Resume)?;
            self.tick()?;
            let settled = self.gateways.iter().all(|gateway| !gateway.is_on_trial());
            if self.machine.is_over() && settled {
                return Ok(());
            }
        }
        // Nobody is on trial for ever, whatever a rollout waits for.
        match self
            .gateways
            .iter()
            .find(|gateway| gateway.trial_is_overdue(self.time))
        {
            Some(gateway) => Err(format!(
                "gateway {} is on trial and does not end it",
                gateway.index
            )),
            None if self.machine.waits(20).is_empty() => Err("it waits for nothing that it names".to_owned()),
            None => Ok(()),
        }
    }

    /// All that a completed rollout says is so.
    fn settled(&self) -> Result<(), String> {
        for gateway in &self.gateways {
            let mark = self.machine.mark(u32::try_from(gateway.index).unwrap());
            let confirmed = mark.is_some_and(Mark::is_confirmed);
            if confirmed && gateway.confirmed() != CARRIED {
                return Err(format!(
                    "gateway {} is said to have what it has not",
                    gateway.index
                ));
            }
            if self.machine.stage() == Stage::Completed && gateway.confirmed() != CARRIED {
                return Err(format!("completed without gateway {}", gateway.index));
            }
        }
        Ok(())
    }

    fn live(mut self) -> Result<Tally, String> {
        for _ in 0..TROUBLED {
            self.tick()?;
        }
        self.calm_down()?;
        self.settled()?;
        Ok(self.tally)
    }
}

fn stage(stage: Stage) -> String {
    let text = format!("{stage:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

/// What all worlds together have to come through, so that none of it holds for want of cases.
fn reached(all: &Tally) -> Result<(), String> {
    let stages = [
        "Opening",
        "Soaking",
        "Converging",
        "Completed",
        "RolledBack",
        "Superseded",
    ];
    let reverts = [
        "not-confirmed",
        "reboot",
        "crash",
        "must-flow",
        "management",
        "asked",
    ];
    let holds = ["order", "person", "clock", "window", "no-session", "interlock"];
    let missing: Vec<&str> = [
        stages
            .into_iter()
            .filter(|stage| !all.stages.contains(*stage))
            .collect::<Vec<_>>(),
        reverts
            .into_iter()
            .filter(|why| !all.reverted.contains_key(*why))
            .collect(),
        holds
            .into_iter()
            .filter(|hold| !all.held.contains_key(hold))
            .collect(),
    ]
    .concat();
    match missing.is_empty() && all.swaps > 0 && all.confirmed > 0 && all.killed > 0 {
        true => Ok(()),
        false => Err(format!("{missing:?} of {all:?}")),
    }
}

fn live(seeds: std::ops::Range<u64>) -> Tally {
    let mut all = Tally::default();
    for seed in seeds {
        match World::new(seed).live() {
            Ok(tally) => all.add(tally),
            Err(what) => panic!("{what}; PENSTOCK_FLEET={seed} repeats it"),
        }
    }
    all
}

#[test]
fn in_every_fleet_each_trial_ends_and_nothing_changes_that_was_not_let() {
    // 10,000 where others draw 256; or the one that is asked for.
    let worlds = u64::from(Config::default().cases) * 10_000 / 256;
    let given = std::env::var("PENSTOCK_FLEET")
        .ok()
        .and_then(|text| text.parse().ok());
    let (first, worlds) = given.map_or((super::first_seed() * worlds, worlds), |seed: u64| (seed, 1));
    // Two halves, for two processors.
    let middle = first + worlds / 2;
    let (one, other) = std::thread::scope(|scope| {
        let half = scope.spawn(move || live(first..middle));
        let other = live(middle..first + worlds);
        (half.join().unwrap(), other)
    });
    let mut all = one;
    all.add(other);
    println!("{worlds} fleets: {all:?}");
    if given.is_none() {
        reached(&all).unwrap();
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.swaps += other.swaps;
        self.confirmed += other.confirmed;
        self.killed += other.killed;
        self.stages.extend(other.stages);
        for (why, count) in other.reverted {
            *self.reverted.entry(why).or_default() += count;
        }
        for (hold, count) in other.held {
            *self.held.entry(hold).or_default() += count;
        }
    }
}
