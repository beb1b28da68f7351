//! A world with a seed: the real machines of several gateways and of a coordinator in one process, with time that nobody waits
//! for, while kernels, disks, connections, agents and the coordinator fail. Beside it stand the checkers.
//!
//! What is real: the agent's reconciler with its store's rules, its grants of remote access and its trials of releases (in worlds of
//! their own: `site.rs` says which orders come and what holds a gateway), its session, its renewal; the coordinator's session; releases,
//! signatures and the trail's chain. What is a model: kernel, disk, spool, connection, the coordinator's store. An agent dies at
//! any of its seams, the coordinator between any two messages, and each takes up what its disk has.
//!
//! A failure prints its seed, and `PENSTOCK_SEED` repeats it.
//!
//! What the checkers are worth was tried with faults that were put into the machines by hand, 24 worlds each:
//!
//! | fault | checker |
//! |---|---|
//! | what the disk names as being put in force is not heeded at the next start | back |
//! | it is not named there | floor |
//! | a revert gives no reason in the trail | back |
//! | what can be read again is not taken up | converges |
//! | a clock that is not synchronised is believed | granted |
//! | the kernel has a grant for an hour longer | granted |
//! | a policy comes into the kernel with all its grants open | granted |
//! | the spool hears of what was only sent as acknowledged | lost |
//! | a session resumes one block too late | lost |
//! | no certificate is renewed | converges |
//!
//! Ten others were not caught in so few worlds. Tests of the machine are meant for three: a rejected release that stays named, a grant's
//! end that the kernel hears of only after others learnt of its release (`agent/src/reconcile/tests`), a release that takes the slot of
//! one that is in force and not noted (`agent/tests/link`). Of these it was not tried what catches them: a floor that sinks, a release
//! older than the staged one, a note that is not tried again, no fallback at start, ends of grants that the kernel does not hear of when
//! they move or with a new policy, a conduit that is not tried again.
//!
//! Bridges have a world of their own, with their own real machines and brokers: `agent/src/bridge/tests`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::match_bool
)]

mod chance;
mod checkers;
mod coordinator;
mod disk;
mod fleet;
mod gateway;
mod kernel;
mod life;
mod plant;
mod site;
mod spool;
mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chance::Chance;
use checkers::Checkers;
use coordinator::{Coordinator, Failure};
use gateway::{Gateway, Surroundings};
use proptest::test_runner::Config;
use wire::Wire;

/// How long things fail.
const TROUBLE: Duration = Duration::from_secs(3000);
/// How long they have afterwards to come right.
const CALM: Duration = Duration::from_secs(600);
/// Moments in which nothing gets later.
const MOMENTS_MAX: u64 = 20_000;

struct World {
    base: Instant,
    now: Duration,
    chance: Chance,
    gateways: Vec<Gateway>,
    coordinator: Coordinator,
    wires: BTreeMap<u64, Wire>,
    next_wire: u64,
    checkers: Checkers,
    trouble_at: Duration,
    troubles: u64,
}

/// What a world came through.
#[derive(Debug, Default)]
struct Tally {
    troubles: u64,
    broken_off: u64,
    sessions: u64,
    renewals: u64,
    reverts: u64,
    blocks: usize,
    granted: Duration,
    trials: (u64, u64, u64),
    withdrawn: u64,
}

impl World {
    /// One in which releases go on trial, and gateways change only when they may.
    fn with_trials(seed: u64) -> Self {
        let mut world = Self::new(seed);
        for gateway in &mut world.gateways {
            gateway.tries = true;
            gateway.kernel.lock().unwrap().doubts = true;
        }
        world
    }

    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let base = Instant::now();
        Self {
            base,
            now: Duration::ZERO,
            gateways: (0..plant::GATEWAYS)
                .map(|index| Gateway::new(index, chance.number()))
                .collect(),
            coordinator: Coordinator::new(base, chance.number()),
            chance,
            wires: BTreeMap::new(),
            next_wire: 0,
            checkers: Checkers::new(),
            trouble_at: Duration::ZERO,
            troubles: 0,
        }
    }

    fn live(mut self) -> Result<Tally, String> {
        let tally = self.come_through();
        tally.map_err(|what| format!("{what}{}", self.checkers.story(&what)))
    }

    fn come_through(&mut self) -> Result<Tally, String> {
        self.run(TROUBLE)?;
        self.end_trouble();
        self.run(TROUBLE + CALM)?;
        let mut tally = Tally {
            troubles: self.troubles,
            reverts: self.checkers.reverts,
            granted: self.checkers.granted,
            trials: self.checkers.trials,
            withdrawn: self.checkers.withdrawn,
            ..Tally::default()
        };
        for gateway in &self.gateways {
            self.checkers.converged(gateway, &self.coordinator)?;
            if !gateway.certificate_is_good(self.now) {
                return Err(format!(
                    "converges: the certificate of gateway {} ended",
                    gateway.index
                ));
            }
            tally.broken_off += gateway.broken_off;
            tally.sessions += gateway.sessions;
            tally.renewals += gateway.renewals;
            tally.blocks += gateway.spool.written.len();
        }
        Ok(tally)
    }

    /// Goes from one moment at which something is due to the next.
    fn run(&mut self, until: Duration) -> Result<(), String> {
        let mut moments = 0;
        loop {
            let next = self.next();
            if next > until {
                self.now = until;
                return Ok(());
            }
            moments = if next > self.now { 0 } else { moments + 1 };
            if moments > MOMENTS_MAX {
                return Err(format!("spins: nothing gets later than {:?}", self.now));
            }
            self.now = self.now.max(next);
            self.advance(until <= TROUBLE)?;
        }
    }

    fn next(&self) -> Duration {
        let gateways = self
            .gateways
            .iter()
            .map(|gateway| gateway.next(self.base, &self.wires));
        let wires = self
            .wires
            .values()
            .filter(|wire| !wire.broken)
            .filter_map(|wire| wire.breaks_at);
        let all = gateways.chain(wires).chain(self.coordinator.next(&self.wires));
        all.chain([self.trouble_at]).min().unwrap()
    }

    fn advance(&mut self, troubled: bool) -> Result<(), String> {
        if self.trouble_at <= self.now {
            self.trouble_at = match troubled {
                true => self.now + Duration::from_millis(200 + self.chance.below(12_000)),
                false => Duration::MAX,
            };
            if troubled {
                self.trouble();
            }
        }
        for wire in self.wires.values_mut() {
            if !wire.broken && wire.breaks_at.is_some_and(|at| at <= self.now) {
                wire.tear(&mut self.chance);
            }
        }
        for index in 0..self.gateways.len() {
            let (gateway, mut around) = self.parts(index);
            gateway.advance(&mut around)?;
        }
        self.coordinator.advance(&mut self.wires, self.now);
        self.wires.retain(|_, wire| !wire.is_over());
        Ok(())
    }

    fn parts(&mut self, index: usize) -> (&mut Gateway, Surroundings<'_>) {
        let around = Surroundings {
            base: self.base,
            now: self.now,
            wires: &mut self.wires,
            next_wire: &mut self.next_wire,
            coordinator: &mut self.coordinator,
            checkers: &mut self.checkers,
        };
        (&mut self.gateways[index], around)
    }

    /// Something happens.
    fn trouble(&mut self) {
        self.troubles += 1;
        let now = self.now;
        let index = self.chance.below(plant::GATEWAYS as u64) as usize;
        let soon = now + Duration::from_millis(self.chance.below(60_000));
        let seams = self.chance.below(14);
        let unreadable = self.chance.below(1 << disk::RECORDS.len());
        let skew = self.chance.below(10_800_000);
        let kind = self.chance.below(25);
        let (gateway, mut around) = self.parts(index);
        match kind {
            // Most of all, at each step.
            0..5 => gateway.kill(Some(seams), &mut around),
            5 => gateway.kill(None, &mut around),
            6 => gateway.reboot(&mut around),
            7 => gateway.kernel.lock().unwrap().fails_until = soon,
            8 => gateway.kernel.lock().unwrap().fails_late_until = soon,
            9 => gateway.kernel.lock().unwrap().rejects_next = true,
            10 => gateway.disk.lock().unwrap().full_until = soon,
            11 => gateway.disk.lock().unwrap().give_back_all_but(unreadable, soon),
            12 => gateway.spool_broken_until = soon,
            13 => gateway.cut_off_until = now + (soon - now) * 4,
            14 | 15 => self.stall(index, soon),
            16 => self.break_wire(index),
            17 => self.coordinator.crash(&mut self.wires, now, soon - now),
            18 => self.coordinator.fails = Some((Failure::Passing, soon)),
            19 => self.coordinator.fails = Some((Failure::NoRoom, soon)),
            20 => self.coordinator.lies = !self.coordinator.lies,
            21 => {
                // Somebody sets it, and the time service puts it right later.
                let by_ms = skew as i64 - 5_400_000;
                gateway.clock_wrong = (now, now + (soon - now) * 5, by_ms);
            }
            _ => self.publish(),
        }
    }

    fn publish(&mut self) {
        // The last one is for the calm.
        if self.coordinator.current + 1 < plant::RELEASES_MAX as u64 && self.chance.once_in(2) {
            self.coordinator.publish(self.coordinator.current + 1);
        }
    }

    fn stall(&mut self, index: usize, until: Duration) {
        if let Some(wire) = self.gateways[index]
            .wire()
            .and_then(|wire| self.wires.get_mut(&wire))
        {
            wire.stalled = true;
            wire.breaks_at = Some(until);
        }
    }

    fn break_wire(&mut self, index: usize) {
        if let Some(wire) = self.gateways[index]
            .wire()
            .and_then(|wire| self.wires.get_mut(&wire))
        {
            wire.tear(&mut self.chance);
        }
    }

    /// Everything works from now on, and one more release is signed.
    fn end_trouble(&mut self) {
        let now = self.now;
        for gateway in &mut self.gateways {
            gateway.spare();
            gateway.troubled = false;
            gateway.cut_off_until = now;
            gateway.clock_wrong.1 = now;
            gateway.spool_broken_until = now;
            let mut kernel = gateway.kernel.lock().unwrap();
            (kernel.fails_until, kernel.fails_late_until) = (now, now);
            (kernel.rejects, kernel.rejects_next) = ((0, now), false);
            let mut disk = gateway.disk.lock().unwrap();
            (disk.full_until, disk.unreadable_until) = (now, now);
        }
        self.coordinator.fails = None;
        self.coordinator.lies = false;
        self.coordinator.down_until = self.coordinator.down_until.min(now);
        self.coordinator.publish(self.coordinator.current + 1);
    }
}

/// The seed that is given, or one from the clock.
fn first_seed() -> u64 {
    let given = std::env::var("PENSTOCK_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs()
    })
}

#[test]
fn in_every_world_kernels_hold_what_was_signed_trails_arrive_whole_and_all_comes_right_once_faults_end() {
    let (first, worlds) = (first_seed(), u64::from(Config::default().cases / 32).max(1));
    let mut all = Tally::default();
    for seed in first..first + worlds {
        match World::new(seed).live() {
            Ok(tally) => {
                all.troubles += tally.troubles;
                all.broken_off += tally.broken_off;
                all.sessions += tally.sessions;
                all.renewals += tally.renewals;
                all.reverts += tally.reverts;
                all.blocks += tally.blocks;
                all.granted += tally.granted;
            }
            Err(what) => panic!("{what}; PENSTOCK_SEED={seed} repeats it"),
        }
    }
    println!("{all:?}");
    // A world in which nothing happens shows nothing.
    assert!(
        all.troubles > 200 * worlds && all.broken_off > 20 * worlds,
        "{all:?}"
    );
    assert!(
        all.sessions > 50 * worlds
            && all.renewals >= worlds
            && all.blocks > 200
            && all.granted.as_secs() > 600 * worlds,
        "{all:?}"
    );
}

#[test]
fn in_every_world_each_trial_ends_with_the_release_confirmed_or_the_one_before_in_force() {
    let (first, worlds) = (first_seed(), u64::from(Config::default().cases / 32).max(1));
    let (mut begun, mut confirmed, mut reverted, mut withdrawn) = (0, 0, 0, 0);
    for seed in first..first + worlds {
        match World::with_trials(seed).live() {
            Ok(tally) => {
                begun += tally.trials.0;
                confirmed += tally.trials.1;
                reverted += tally.trials.2;
                withdrawn += tally.withdrawn;
            }
            Err(what) => panic!("{what}; PENSTOCK_SEED={seed} repeats it"),
        }
    }
    println!(
        "{begun} trials began, {confirmed} were confirmed, {reverted} reverted, {withdrawn} of them the first policy"
    );
    // A world in which nothing is tried shows nothing.
    assert!(
        begun > 4 * worlds && confirmed > worlds && reverted > worlds,
        "{begun} {confirmed} {reverted}"
    );
}

/// In the first two, an agent died between a change of the kernel and its note of it, and could not read the newer policy at its next
/// start: then the older one was put in force. In the last, the older one took the place of a newer one that the kernel had rejected
/// and that rested then, and no event said why. They are these worlds only while no draw of chance is added or taken away.
const ONCE_WRONG: [u64; 3] = [8, 7009, 1_795_981_170];

#[test]
fn worlds_that_once_came_out_wrong_come_out_right() {
    for seed in ONCE_WRONG {
        if let Err(what) = World::new(seed).live() {
            panic!("{what}; PENSTOCK_SEED={seed} repeats it");
        }
    }
}
