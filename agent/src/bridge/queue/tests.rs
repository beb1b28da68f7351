//! The queue held to its promises: order, durability of what was committed, damage seen and never given out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use penstock_inspect::mqtt::packet::kind;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;
use penstock_proto::backoff::Backoff;
use proptest::prelude::*;

use super::*;
use crate::bridge::intake::machine::{Durable, Fact, IntakeMachine};
use crate::bridge::keeper::machine::KeeperMachine;
use crate::bridge::packet::{Incoming, Publication, Welcome};
use crate::bridge::rules::PublicationRules;
use crate::bridge::side::line::{Action, Moment};
use crate::log::faulty::{Fault, FaultyDisk};

const ID: QueueId = [3; 16];
const LIMITS: QueueLimits = QueueLimits {
    bytes_max: 4 * 1024 * 1024,
    free_bytes_min: 0,
};

fn message(number: u64, bytes: usize) -> QueueRecord {
    QueueRecord::Message(Message {
        seq: 0,
        time_ms: number,
        expires_ms: 0,
        origin: 0,
        qos: 1,
        retain: false,
        topic: "works/a".to_owned(),
        payload: vec![u8::try_from(number % 251).unwrap(); bytes],
    })
}

fn open(folder: &Path) -> (Queue, Recovery) {
    Queue::open(folder, ID, LIMITS).unwrap()
}

fn held(queue: &mut Queue) -> Vec<u64> {
    let mut from = queue.state().finished;
    let mut times = Vec::new();
    loop {
        let read = queue.read(from, 3000).unwrap();
        let Some(last) = read.last() else { return times };
        from = last.seq + 1;
        times.extend(read.iter().map(|message| message.time_ms));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 10))]
    #[test]
    fn what_was_committed_is_held_in_order_over_any_restarts_until_it_is_done(
        steps in proptest::collection::vec((0u8..8, 1u64..40, 0usize..3000), 1..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(folder.path());
        let mut model = std::collections::VecDeque::new();
        let mut number = 0;
        for (what, count, bytes) in steps {
            match what {
                0..4 => {
                    let mut batch: Vec<_> = (0..count).map(|n| message(number + n, bytes)).collect();
                    if queue.commit(&mut batch).is_ok() {
                        model.extend(number..number + count);
                        number += count;
                    }
                }
                4..6 => {
                    let done = count.min(model.len() as u64);
                    let seq = queue.state().finished + done;
                    queue.finish(seq);
                    queue.commit(&mut [QueueRecord::Finished(seq)]).unwrap();
                    model.drain(..usize::try_from(done).unwrap());
                }
                _ => {
                    drop(queue);
                    let (again, found) = open(folder.path());
                    prop_assert_eq!(found, Recovery::default());
                    queue = again;
                }
            }
            prop_assert!(queue.bytes() <= LIMITS.bytes_max + RESERVE_BYTES);
            prop_assert_eq!(held(&mut queue), model.iter().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_flipped_byte_anywhere_is_seen_and_what_is_given_out_was_written(
        place: proptest::sample::Index, flip in 1u8.., segment: proptest::sample::Index,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(folder.path());
        for n in 0..60 {
            queue.commit(&mut [message(n, 20_000)]).unwrap();
        }
        drop(queue);
        let files: Vec<_> = crate::log::numbered(&RealDisk, folder.path()).unwrap().into_values().collect();
        prop_assert!(files.len() > 2);
        let path = &files[segment.index(files.len())];
        let mut bytes = std::fs::read(path).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= flip;
        std::fs::write(path, bytes).unwrap();
        let (mut queue, found) = open(folder.path());
        prop_assert!(found.damaged || found.foreign > 0, "{found:?}");
        let all = queue.read(0, u64::MAX).unwrap();
        prop_assert!(all.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        for one in &all {
            prop_assert_eq!(one.seq, one.time_ms + 1);
            prop_assert!(one.payload.iter().all(|byte| u64::from(*byte) == one.time_ms % 251));
        }
        let last = path == files.last().unwrap();
        prop_assert!(last || found.foreign > 0 || all.len() as u64 + found.lost == 60, "{} and {found:?}", all.len());
    }
}

#[test]
fn a_full_queue_says_so_takes_nothing_and_takes_again_after_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path());
    let mut taken = 0;
    let refused = loop {
        match queue.commit(&mut [message(taken, 50_000)]) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, QueueError::Full { .. }), "{refused}");
    assert_eq!(held(&mut queue).len() as u64, taken);
    queue.finish(taken / 2);
    queue.commit(&mut [message(taken, 50_000)]).unwrap();
    assert_eq!(held(&mut queue).last(), Some(&taken));
}

#[test]
fn what_is_known_of_packet_identifiers_outlives_segments_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path());
    for n in 0..90 {
        let QueueRecord::Message(mut one) = message(n, 20_000) else {
            unreachable!()
        };
        one.origin = u16::try_from(n + 1).unwrap();
        queue.commit(&mut [QueueRecord::Message(one)]).unwrap();
        if n != 7 {
            queue
                .commit(&mut [QueueRecord::Released(u16::try_from(n + 1).unwrap())])
                .unwrap();
        }
    }
    queue
        .commit(&mut [QueueRecord::Received(85), QueueRecord::Finished(80)])
        .unwrap();
    queue.finish(80);
    drop(queue);
    let (mut queue, found) = open(folder.path());
    assert_eq!(found, Recovery::default());
    assert!(queue.state().unreleased.keys().eq(&[8]));
    assert_eq!(queue.state().received, BTreeSet::from([85]));
    queue.commit(&mut [QueueRecord::SenderForgot]).unwrap();
    drop(queue);
    assert!(open(folder.path()).0.state().unreleased.is_empty());
}

#[test]
fn a_queue_of_another_bridge_is_never_read_as_this_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path());
    queue.commit(&mut [message(1, 10)]).unwrap();
    assert_eq!(undelivered(folder.path()).known, Some((1, 1, 1)));
    drop(queue);
    let (mut other, found) = Queue::open(folder.path(), [4; 16], LIMITS).unwrap();
    assert_eq!(found.foreign, 1);
    assert!(held(&mut other).is_empty());
}

#[test]
fn a_segment_that_cannot_be_read_hides_nothing_of_the_others_when_a_bridge_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path());
    for n in 1..=3 {
        queue.commit(&mut [message(n, 10)]).unwrap();
    }
    queue.commit(&mut [QueueRecord::Finished(2)]).unwrap();
    drop(queue);
    let left = |damaged| Undelivered {
        known: Some((2, 2, 3)),
        damaged,
    };
    // Made, and not yet written when the power went.
    let torn = folder.path().join("00000000000000ff.seg");
    std::fs::write(&torn, b"").unwrap();
    assert_eq!(undelivered(folder.path()), left(false));
    std::fs::write(&torn, b"PS").unwrap();
    assert_eq!(undelivered(folder.path()), left(true));
}

/// So small that segments end often.
const SMALL: QueueLimits = QueueLimits {
    bytes_max: 64 * 1024,
    free_bytes_min: 0,
};

fn open_on(disk: &FaultyDisk) -> Queue<FaultyDisk> {
    Queue::open_on(disk.clone(), Path::new("/queue"), ID, SMALL)
        .unwrap()
        .0
}

/// Each message that is given out, with its own payload and in order.
#[test]
fn a_broker_that_has_every_packet_identifier_under_way_and_releases_one_by_one_takes_no_more_than_the_reserve()
 {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(folder.path());
    let under_way = |identifier| {
        let mut record = message(0, 1);
        if let QueueRecord::Message(message) = &mut record {
            (message.qos, message.origin) = (2, identifier);
        }
        record
    };
    let identifiers: Vec<u16> = (1..=u16::MAX).collect();
    for some in identifiers.chunks(512) {
        let mut records: Vec<_> = some.iter().copied().map(under_way).collect();
        if queue.commit(&mut records).is_err() {
            break;
        }
    }
    while queue.commit(&mut [message(0, 10_000)]).is_ok() {}
    let known: Vec<u16> = queue.state().unreleased.keys().copied().collect();
    for identifier in known {
        queue.commit(&mut [QueueRecord::Released(identifier)]).unwrap();
        assert!(
            queue.bytes() <= LIMITS.bytes_max + RESERVE_BYTES,
            "{}",
            queue.bytes()
        );
    }
}

fn given<D: Disk>(queue: &mut Queue<D>) -> Vec<u64> {
    let mut from = queue.state().finished;
    let mut times = Vec::new();
    loop {
        let read = queue.read(from, 3000).unwrap();
        let Some(last) = read.last() else { return times };
        from = last.seq + 1;
        for message in read {
            let filled = u8::try_from(message.time_ms % 251).unwrap();
            assert!(
                message.payload.iter().all(|byte| *byte == filled),
                "a wrong record"
            );
            times.push(message.time_ms);
        }
    }
}

fn permitted() -> Arc<PublicationRules> {
    let works = MqttOperation::Publish {
        topics: vec!["works/#".to_owned()],
        qos: NumberRange { first: 0, last: 2 },
        retain: false,
    };
    Arc::new(PublicationRules::compile(&[works]).unwrap())
}

/// The taking side and the keeper over a queue, as an agent that has just started.
struct Taking {
    intake: IntakeMachine,
    keeper: KeeperMachine<()>,
    queue: Queue<FaultyDisk>,
    now: Moment,
}

impl Taking {
    /// Connected to a broker that has its session, or has a new one.
    fn connected(disk: &FaultyDisk, session_present: bool) -> Self {
        let (instant, ms) = (Instant::now(), 1_700_000_000_000);
        let now = Moment { instant, ms };
        let queue = open_on(disk);
        let mut taking = Self {
            intake: IntakeMachine::new(permitted(), Some(Vec::new()), instant, Backoff::default()),
            keeper: KeeperMachine::new(queue.state().finished),
            queue,
            now,
        };
        taking.intake.take(Fact::TimePassed, now);
        let welcome = Welcome {
            reason: 0,
            session_present,
            receive_maximum: 100,
            packet_bytes_max: usize::MAX,
            qos_max: 2,
            retain_available: true,
            keep_alive_s: None,
        };
        let outcome = Ok(welcome);
        taking.intake.take(Fact::Opened { outcome, random: 1 }, now);
        taking
    }

    fn subscribed(&mut self) -> bool {
        std::iter::from_fn(|| self.intake.action()).any(|action| matches!(action, Action::Send(_)))
    }

    fn answered(&mut self) {
        let (identifier, reasons) = (1, &[2][..]);
        let answer = Incoming::Subscribed { identifier, reasons };
        self.intake.take(Fact::Packet(answer), self.now);
    }

    /// A publication at QoS 2 comes, and all that waits is written; what is owed for it, if it is durable.
    fn takes(&mut self, payload: &str, duplicate: bool) -> Option<usize> {
        let publication = Publication {
            topic: "works/a",
            qos: 2,
            retain: false,
            identifier: 1,
            duplicate,
            expiry_s: None,
            payload: payload.as_bytes(),
        };
        self.intake
            .take(Fact::Packet(Incoming::Publish(publication)), self.now);
        self.keeps()
    }

    /// The broker releases it.
    fn released(&mut self) -> Option<usize> {
        let release = Incoming::Acknowledge {
            kind: kind::PUBREL,
            identifier: 1,
            reason: 0,
        };
        self.intake.take(Fact::Packet(release), self.now);
        self.keeps()
    }

    fn keeps(&mut self) -> Option<usize> {
        let entries = self.intake.hand_over();
        self.keeper.take(entries, (), &self.queue.state().unreleased);
        let mut commit = self.keeper.commit(&[], true);
        commit.spare(self.queue.state(), self.queue.is_spent());
        self.queue.commit(&mut commit.records).ok()?;
        let owed = self.keeper.kept(&commit, self.now.instant);
        let acks: Vec<_> = owed.into_iter().flat_map(|(_, acks)| acks).collect();
        self.intake.take(Fact::Own(Durable(acks.clone())), self.now);
        Some(acks.len())
    }

    fn payloads(&mut self) -> Vec<String> {
        let messages = self.queue.read(0, u64::MAX).unwrap();
        let payloads = messages
            .into_iter()
            .map(|one| String::from_utf8(one.payload).unwrap());
        payloads.collect()
    }
}

#[test]
fn no_message_of_a_new_session_is_swallowed_by_an_agent_that_was_killed_before_its_disk_knew_of_the_session()
{
    for fault in [Fault::Cut, Fault::Full, Fault::Sync] {
        let disk = FaultyDisk::default();
        let mut taking = Taking::connected(&disk, true);
        taking.answered();
        assert_eq!(taking.takes("old", false), Some(1), "{fault:?}");
        // The broker loses the session, says so, and the agent is killed while it writes that down.
        let mut taking = Taking::connected(&disk, false);
        disk.fail_after(0, fault);
        assert_eq!(taking.keeps(), None, "{fault:?}");
        assert!(!taking.subscribed(), "nothing of that session comes before");
        let disk = disk.after_cut(7);
        // By now the broker has that session. What it sends for the first time is new, also under a known identifier.
        let mut taking = Taking::connected(&disk, true);
        assert!(taking.subscribed());
        taking.answered();
        assert_eq!(taking.takes("old", false), Some(1));
        assert_eq!(taking.payloads(), ["old", "old"], "{fault:?}");
        // Where the first attempt was lost on its way, it comes as one that may have come before.
        let mut taking = Taking::connected(&disk.after_cut(8), true);
        assert_eq!(taking.takes("old", true), Some(1));
        assert_eq!(taking.takes("new", true), Some(1));
        assert_eq!(taking.payloads(), ["old", "old", "new"], "{fault:?}");
    }
}

#[test]
fn a_message_like_the_last_under_a_packet_identifier_that_is_free_again_is_kept_whenever_it_comes() {
    let disk = FaultyDisk::default();
    let mut taking = Taking::connected(&disk, true);
    taking.answered();
    assert_eq!(taking.takes("on", false), Some(1));
    assert_eq!(taking.released(), Some(1));
    // The identifier is given again at once, over the same connection.
    assert_eq!(taking.takes("on", false), Some(1));
    assert_eq!(taking.payloads(), ["on"; 2]);
    assert_eq!(taking.released(), Some(1));
    // Over the next one it comes before the answer to the subscription, as a retained one may.
    let mut taking = Taking::connected(&disk, true);
    assert_eq!(taking.takes("on", false), Some(1));
    assert_eq!(taking.payloads(), ["on"; 3]);
    // That one is repeated, before and behind that answer.
    let mut taking = Taking::connected(&disk, true);
    assert_eq!(taking.takes("on", true), Some(1));
    let mut taking = Taking::connected(&disk, true);
    taking.answered();
    assert_eq!(taking.takes("on", true), Some(1));
    assert_eq!(taking.payloads(), ["on"; 3]);
    // In a new session it is another one, also where its first attempt did not arrive.
    let mut taking = Taking::connected(&disk, false);
    taking.keeps();
    taking.answered();
    assert_eq!(taking.takes("on", true), Some(1));
    assert_eq!(taking.payloads(), ["on"; 4]);
}

proptest! {
    #[test]
    fn what_was_acknowledged_outlives_any_fault_of_the_disk_at_any_step_and_nothing_wrong_is_given_out(
        steps in proptest::collection::vec((0u8..8, 1u64..12, 0usize..2000), 1..40),
        faults in proptest::collection::vec((0u32..60, prop_oneof![Just(Fault::Cut), Just(Fault::Full), Just(Fault::Sync)]), 1..4),
        mut seed: u64,
    ) {
        let mut disk = FaultyDisk::default();
        let mut queue = open_on(&disk);
        // What was acknowledged and is not done, and what perhaps is: its commit failed, or that it is done was not written.
        let (mut kept, mut perhaps) = (Vec::new(), BTreeSet::new());
        let mut number = 0;
        let mut faults = faults.into_iter();
        for (what, count, bytes) in steps {
            if seed % 5 == 0 && let Some((after, fault)) = faults.next() {
                disk.fail_after(after, fault);
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match what {
                0..5 => {
                    let mut batch: Vec<_> = (number..number + count).map(|n| message(n, bytes)).collect();
                    match queue.commit(&mut batch) {
                        Ok(()) => kept.extend(number..number + count),
                        Err(_) => perhaps.extend(number..number + count),
                    }
                    number += count;
                }
                5 | 6 => {
                    let done: Vec<_> = given(&mut queue).into_iter().take(usize::try_from(count).unwrap()).collect();
                    let seq = queue.state().finished + done.len() as u64;
                    queue.finish(seq);
                    kept.retain(|number| !done.contains(number));
                    perhaps.extend(done);
                    let _ = queue.commit(&mut [QueueRecord::Finished(seq)]);
                }
                _ => {
                    drop(queue);
                    disk = disk.after_cut(seed);
                    queue = open_on(&disk);
                }
            }
            prop_assert!(queue.bytes() <= SMALL.bytes_max + RESERVE_BYTES);
            let given = given(&mut queue);
            prop_assert!(given.windows(2).all(|pair| pair[0] < pair[1]), "{given:?}");
            let (known, others): (Vec<_>, Vec<_>) = given.into_iter().partition(|number| kept.contains(number));
            prop_assert_eq!(&known, &kept);
            prop_assert!(others.iter().all(|number| perhaps.contains(number)), "{others:?}");
        }
        disk = disk.after_cut(seed);
        let known: Vec<_> = given(&mut open_on(&disk)).into_iter().filter(|number| kept.contains(number)).collect();
        prop_assert_eq!(known, kept);
    }
}
