//! The spool on a disk that tears, forgets, fills, is cut off, and damages what it has: what was durable is there, or reported as lost.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::opening::EpochReason;
use super::*;
use crate::log::faulty::{Fault, FaultyDisk};

/// So small that it sheds, and that segments end often.
const SMALL: SpoolLimits = LIMITS;
const LARGE: SpoolLimits = SpoolLimits {
    bytes_max: 256 * 1024,
    ..LIMITS
};

#[derive(Debug, Clone)]
enum Step {
    /// Severity and text length of each event.
    Append(Vec<(i32, usize)>),
    /// Acknowledge this share (of 100) of what is stored.
    Acknowledge(usize),
    Reopen,
    Cut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = proptest::collection::vec((1i32..=4, 0usize..900), 1..12).prop_map(Step::Append);
    let step = prop_oneof![
        8 => append,
        1 => (0usize..=100).prop_map(Step::Acknowledge),
        1 => Just(Step::Reopen),
        2 => Just(Step::Cut),
    ];
    proptest::collection::vec(step, 1..40)
}

fn faults() -> impl Strategy<Value = Vec<(u32, Fault)>> {
    let fault = prop_oneof![Just(Fault::Cut), Just(Fault::Full), Just(Fault::Sync)];
    proptest::collection::vec((0u32..60, fault), 0..4)
}

struct World {
    /// Where the mark is.
    folder: tempfile::TempDir,
    disk: FaultyDisk,
    limits: SpoolLimits,
    spool: Option<Spool<FaultyDisk>>,
    number: u64,
    /// Events that an append returned for, and others that it failed for.
    durable: BTreeSet<u64>,
    perhaps: BTreeSet<u64>,
    acked: Position,
    /// Where each event was seen.
    places: BTreeMap<u64, Position>,
    /// What comes next, for who reads on and on.
    read_to: Position,
}

fn place(block: &AuditBlock) -> Position {
    Position {
        epoch: block.epoch,
        sequence: block.sequence,
    }
}

/// The events of blocks, by number, each with its severity; loss records are none.
fn numbers(blocks: &[AuditBlock]) -> BTreeMap<u64, (Position, i32)> {
    let mut numbers = BTreeMap::new();
    for block in blocks {
        for event in read_body(&block.body).unwrap().events {
            if !matches!(event.kind, Some(Kind::Loss(_))) {
                let again = numbers.insert(event.time_ms, (place(block), event.severity));
                assert!(again.is_none(), "event {} is there twice", event.time_ms);
            }
        }
    }
    numbers
}

impl World {
    fn new(limits: SpoolLimits) -> Self {
        let mut world = Self {
            folder: folder(),
            disk: FaultyDisk::default(),
            limits,
            spool: None,
            number: 0,
            durable: BTreeSet::new(),
            perhaps: BTreeSet::new(),
            acked: Position::default(),
            places: BTreeMap::new(),
            read_to: Position::default(),
        };
        world.open();
        world
    }

    /// Opens it, again and again if the disk refuses.
    fn open(&mut self) {
        for _ in 0..5 {
            match Spool::open_on(&self.disk, self.folder.path(), self.limits, 1) {
                Ok((spool, begun)) => {
                    let is_first = self.durable.is_empty() && begun == Some(EpochReason::First);
                    assert!(begun.is_none() || is_first, "{begun:?}");
                    self.spool = Some(spool);
                    if let Some(spool) = &mut self.spool {
                        spool.acknowledge(self.acked);
                    }
                    return;
                }
                Err(_) => self.spool = None,
            }
        }
    }

    fn cut(&mut self, seed: u64) {
        self.spool = None;
        self.disk = self.disk.after_cut(seed);
        self.open();
    }

    fn append(&mut self, events: &[(i32, usize)]) {
        let Some(spool) = &mut self.spool else { return };
        let numbers = self.number..self.number + events.len() as u64;
        self.number = numbers.end;
        let batch = numbers.clone().zip(events);
        let batch: Vec<_> = batch
            .map(|(n, (severity, bytes))| event(*severity, n, *bytes))
            .collect();
        let before = spool.read(Position::default(), usize::MAX, usize::MAX);
        match spool.append(batch, self.number * 700) {
            Ok(()) => self.durable.extend(numbers),
            Err(_) => {
                if let (Ok(before), Ok(after)) =
                    (before, spool.read(Position::default(), usize::MAX, usize::MAX))
                {
                    assert_eq!(before, after, "a commit that failed changes nothing");
                }
                let cause = super::super::layout::Cause::DiskError;
                spool.count_lost(cause, events.len() as u64, numbers.start, numbers.end);
                self.perhaps.extend(numbers);
            }
        }
    }

    fn check(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        let Ok(next) = spool.read(self.read_to, usize::MAX, usize::MAX) else {
            return;
        };
        let Ok(blocks) = spool.read(Position::default(), usize::MAX, usize::MAX) else {
            return;
        };
        let lost = spool.state().lost_events;
        assert!(spool.state().bytes <= self.limits.bytes_max + 16 * 1024);
        verify(&blocks);
        let next: Vec<_> = next.iter().map(place).collect();
        let whole = blocks.iter().map(place);
        let beyond: Vec<_> = whole.filter(|at| *at >= self.read_to).collect();
        assert_eq!(next, beyond, "read on, and read whole");
        self.read_to = blocks.last().map_or(self.read_to, |block| place(block).after());
        let held = numbers(&blocks);
        for (number, (at, _)) in &held {
            assert!(self.durable.contains(number) || self.perhaps.contains(number));
            self.places.insert(*number, *at);
        }
        let is_delivered = |number: &&u64| self.places.get(number).is_some_and(|at| *at < self.acked);
        let missing = self.durable.iter().filter(|number| !held.contains_key(number));
        let missing = missing.filter(|number| !is_delivered(number)).count() as u64;
        assert!(
            missing <= lost,
            "{missing} events are missing, {lost} are counted as lost"
        );
        if self.limits.bytes_max == LARGE.bytes_max && self.number < 200 {
            assert_eq!(missing, 0, "there was room for all of them");
        }
    }
}

#[test]
fn putting_pieces_together_loses_nothing_wherever_it_is_cut_off() {
    for fault in [Fault::Cut, Fault::Full, Fault::Sync] {
        for after in 0..16 {
            let mut world = World::new(LARGE);
            for _ in 0..8 {
                world.append(&[(2, 10), (4, 10)]);
                world.spool = None;
                if world.number < 16 {
                    world.open();
                }
            }
            assert_eq!(world.durable.len(), 16);
            world.disk.fail_after(after, fault);
            let _ = Spool::open_on(&world.disk, world.folder.path(), LARGE, 1);
            if after % 2 == 0 || fault == Fault::Cut {
                world.cut(u64::from(after) * 77);
            } else {
                world.open();
            }
            let held = numbers(&all(world.spool.as_mut().unwrap()));
            assert_eq!(held.len(), 16, "{fault:?} after {after}");
            assert_eq!(
                world.spool.as_ref().unwrap().state().lost_events,
                0,
                "{fault:?} after {after}"
            );
        }
    }
}

#[test]
fn an_upload_that_read_up_to_a_failed_commit_misses_nothing_of_the_next_one() {
    for after in 0..16 {
        let mut world = World::new(LARGE);
        let mut uploaded: Vec<AuditBlock> = Vec::new();
        for round in 0..3 {
            if round == 1 {
                // What it begins now are segments of their own.
                world.open();
                world.disk.fail_after(after, Fault::Full);
            }
            let batch = [(4, 10), (2, 10)];
            let events = batch.map(|(severity, bytes)| event(severity, world.number, bytes));
            world.number += 1;
            let spool = world.spool.as_mut().unwrap();
            let _ = spool.append(events.to_vec(), world.number * 700);
            let from = uploaded
                .last()
                .map_or(Position::default(), |block| place(block).after());
            uploaded.extend(spool.read(from, usize::MAX, usize::MAX).unwrap());
        }
        let uploaded: Vec<_> = uploaded.iter().map(place).collect();
        let held: Vec<_> = all(world.spool.as_mut().unwrap()).iter().map(place).collect();
        assert_eq!(uploaded, held, "full after {after}");
    }
}

#[test]
fn a_spool_in_pieces_is_opened_and_read_while_the_disk_has_no_room_to_put_them_together() {
    let mut world = World::new(LARGE);
    for _ in 0..8 {
        world.append(&[(2, 10), (4, 10)]);
        world.spool = None;
        if world.number < 16 {
            world.open();
        }
    }
    // Behind the two folders' names.
    world.disk.fail_after(2, Fault::Full);
    let limits = SpoolLimits {
        free_bytes_min: u64::MAX,
        ..LARGE
    };
    let (mut spool, _) = Spool::open_on(&world.disk, world.folder.path(), limits, 1).unwrap();
    assert_eq!(numbers(&all(&mut spool)).len(), 16);
    assert!(matches!(
        spool.append(vec![event(4, 99, 0)], 99_000),
        Err(super::super::spool::SpoolError::NoRoom { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 4,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    })]
    #[test]
    fn what_is_durable_outlives_any_fault_of_the_disk_at_any_step_or_is_counted_as_shed(
        steps in steps(), faults in faults(), large: bool, mut seed: u64,
    ) {
        let mut world = World::new(if large { LARGE } else { SMALL });
        let mut faults = faults.into_iter();
        for step in steps {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if (seed >> 33) % 4 == 0 && let Some((after, fault)) = faults.next() {
                world.disk.fail_after(after, fault);
            }
            match step {
                Step::Append(events) => world.append(&events),
                Step::Acknowledge(share) => {
                    if let Some(spool) = &mut world.spool
                        && let Ok(blocks) = spool.read(Position::default(), usize::MAX, usize::MAX)
                        && let Some(block) = blocks.get(blocks.len() * share / 101)
                    {
                        for (number, (at, _)) in numbers(&blocks) {
                            world.places.insert(number, at);
                        }
                        spool.acknowledge(place(block));
                        world.acked = world.acked.max(place(block));
                    }
                }
                Step::Reopen => {
                    world.spool = None;
                    world.open();
                }
                Step::Cut => world.cut(seed),
            }
            if world.spool.is_none() {
                world.cut(seed);
            }
            world.check();
        }
        world.cut(seed);
        prop_assert!(world.spool.is_some());
        world.check();
    }

    #[test]
    fn a_damaged_place_is_found_counted_to_the_event_and_hides_nothing_beside_it(
        batches in proptest::collection::vec(proptest::collection::vec((1i32..=4, 0usize..900), 1..8), 1..20),
        seed: u64,
    ) {
        let mut world = World::new(LARGE);
        for events in &batches {
            world.append(events);
        }
        let whole = numbers(&all(world.spool.as_mut().unwrap()));
        let mut spool = world.spool.take().unwrap();
        // What only the last accounts know.
        spool.count_lost(super::super::layout::Cause::QueueFull, 3, 1, 2);
        spool.close().unwrap();
        let (path, is_cut_off) = world.disk.damage(seed).unwrap();
        let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let (mut spool, begun) = Spool::open_on(&world.disk, world.folder.path(), LARGE, 1).unwrap();
        let blocks = all(&mut spool);
        verify(&blocks);
        let held = numbers(&blocks);
        let lost: Vec<_> = whole.iter().filter(|(number, _)| !held.contains_key(number)).collect();
        let counted = spool.state().lost_events;
        match &begun {
            None if is_cut_off && folder == "accounts" => prop_assert!(lost.is_empty()),
            None => prop_assert_eq!(lost.len() as u64 + 3, counted),
            Some(EpochReason::Lost(_)) => prop_assert_eq!(&folder, "accounts"),
            Some(EpochReason::First) => prop_assert!(false, "it is no first trail"),
        }
        prop_assert!(lost.iter().all(|(_, (_, severity))| severity.to_string() == folder), "{lost:?} in {path:?}");
        if !is_cut_off {
            // No more than what a sector's bytes can touch.
            let blocks: BTreeSet<_> = lost.iter().map(|(_, (at, _))| *at).collect();
            prop_assert!(blocks.len() <= 5, "{blocks:?}");
            prop_assert_eq!(&begun, &None);
        }
        // It is counted once, and reported.
        prop_assert_eq!(all(&mut spool).len(), blocks.len());
        drop(spool);
        let (mut spool, begun) = Spool::open_on(&world.disk, world.folder.path(), LARGE, 1).unwrap();
        prop_assert!(begun.is_none() || folder == "accounts");
        all(&mut spool);
        prop_assert_eq!(spool.state().lost_events, counted);
        spool.append(Vec::new(), 1_000_000_000).unwrap();
        spool.append(vec![event(4, u64::MAX, 1)], 1_000_000_001).unwrap();
        let (_, events, told, _) = verify(&all(&mut spool));
        prop_assert_eq!((events, told), (held.len() as u64 + 1, counted));
    }
}
