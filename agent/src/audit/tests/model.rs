//! Random appends, acknowledgements, crashes and reopenings; the reference says what must be there.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Severity and text length of each event.
    Append(Vec<(i32, usize)>),
    /// Acknowledge this share (of 100) of what is stored.
    Acknowledge(usize),
    Crash,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = proptest::collection::vec((1i32..=4, 0usize..900), 1..12).prop_map(Step::Append);
    proptest::collection::vec(
        prop_oneof![
            8 => append,
            2 => (0usize..=100).prop_map(Step::Acknowledge),
            1 => Just(Step::Crash),
            1 => Just(Step::Reopen),
        ],
        1..40,
    )
}

/// What the reference knows of a stored block: its severity.
type Stored = BTreeMap<Position, u8>;

fn stored(blocks: &[AuditBlock]) -> Stored {
    blocks
        .iter()
        .map(|block| {
            let events = read_body(&block.body).unwrap().events;
            let severity = events[0].severity;
            assert!(events.iter().all(|event| event.severity == severity));
            let at = Position {
                epoch: block.epoch,
                sequence: block.sequence,
            };
            (at, severity as u8)
        })
        .collect()
}

struct World {
    folder: tempfile::TempDir,
    spool: Option<Spool>,
    now_ms: u64,
    appended: u64,
    /// Events that went with acknowledged blocks: delivered, not lost.
    delivered: u64,
    acked: Position,
}

impl World {
    fn append(&mut self, events: &[(i32, usize)]) {
        let spool = self.spool.as_mut().unwrap();
        let before = all(spool);
        let old = stored(&before);
        self.now_ms += 700;
        let batch: Vec<_> = events
            .iter()
            .map(|(severity, bytes)| event(*severity, self.now_ms, *bytes))
            .collect();
        let severity_max = batch.iter().map(|event| event.severity).max().unwrap() as u8;
        spool.append(batch, self.now_ms).unwrap();
        self.appended += events.len() as u64;
        let after = all(spool);
        let new = stored(&after);
        assert!(spool.state().bytes <= LIMITS.bytes_max, "the quota is hard");

        let gone: Vec<_> = old.iter().filter(|(at, _)| !new.contains_key(at)).collect();
        let stayed: Vec<_> = old.iter().filter(|(at, _)| new.contains_key(at)).collect();
        let (delivered, shed): (Vec<_>, Vec<_>) = gone.into_iter().partition(|(at, _)| **at < self.acked);
        if !shed.is_empty() {
            assert!(
                stayed.iter().all(|(at, _)| **at >= self.acked),
                "nothing undelivered goes while something delivered is kept"
            );
        }
        for (at, severity) in &shed {
            // A loss record is an alarm that may come on top of the batch.
            assert!(**severity <= severity_max.max(4));
            for (kept, kept_severity) in &stayed {
                assert!(
                    (*kept_severity, *kept) > (*severity, *at),
                    "the least severe goes first, among those the oldest"
                );
            }
        }
        for (at, _) in delivered {
            let block = before
                .iter()
                .find(|block| (block.epoch, block.sequence) == (at.epoch, at.sequence));
            self.delivered += verify(std::slice::from_ref(block.unwrap())).1;
        }
        self.check();
    }

    fn check(&mut self) {
        let spool = self.spool.as_mut().unwrap();
        let lost = spool.state().lost_events;
        let untold: (u64, u64) = spool
            .accounts
            .untold
            .iter()
            .fold((0, 0), |sum, loss| (sum.0 + loss.events, sum.1 + loss.blocks));
        let (missing, present, told_events, told_blocks) = verify(&all(spool));
        assert_eq!(
            present + self.delivered + lost,
            self.appended,
            "every event is accounted for"
        );
        if self.acked == Position::default() {
            // Nothing was delivered, so each gap and each lost event has its record, or will.
            let end = spool.next().sequence - all(spool).last().map_or(0, |block| block.sequence + 1);
            assert_eq!(missing + end, told_blocks + untold.1);
            assert_eq!(lost, told_events + untold.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 5,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]
    #[test]
    fn nothing_stored_is_lost_by_a_crash_and_nothing_shed_goes_unsaid(steps in steps()) {
        let folder = folder();
        let (spool, _) = Spool::open(folder.path(), LIMITS, 1).unwrap();
        let mut world = World {
            folder, spool: Some(spool), now_ms: 1_000_000, appended: 0, delivered: 0,
            acked: Position::default(),
        };
        for step in &steps {
            match step {
                Step::Append(events) => world.append(events),
                Step::Acknowledge(share) => {
                    let spool = world.spool.as_mut().unwrap();
                    let blocks = all(spool);
                    if let Some(block) = blocks.get(blocks.len() * share / 101) {
                        let to = Position { epoch: block.epoch, sequence: block.sequence };
                        spool.acknowledge(to);
                        world.acked = world.acked.max(to);
                    }
                }
                Step::Crash | Step::Reopen => {
                    let mut spool = world.spool.take().unwrap();
                    let before = (all(&mut spool), spool.head());
                    if matches!(step, Step::Crash) {
                        let left = crash(world.folder.path());
                        drop(spool);
                        world.folder = left;
                    } else {
                        spool.close().unwrap();
                    }
                    let (mut spool, begun) = Spool::open(world.folder.path(), LIMITS, 1).unwrap();
                    let untouched = before.0.is_empty() && begun == Some(super::super::opening::EpochReason::First);
                    prop_assert!(begun.is_none() || untouched, "{begun:?}");
                    prop_assert_eq!((all(&mut spool), spool.head()), before);
                    // Acknowledgements come again with the next session.
                    spool.acknowledge(world.acked);
                    world.spool = Some(spool);
                    world.check();
                }
            }
        }
    }
}
