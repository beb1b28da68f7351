//! What the shell adds to its machine: what is on disk when something is said.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;

use penstock_policy::ids::FlowId;
use penstock_policy::plan::{Bridge, Broker};
use penstock_proto::v1::AuditEvent;
use penstock_proto::v1::audit_event::Kind;

use super::super::layout::QueueRecord;
use super::super::losses::{self, LossSum};
use super::super::queue::QueueLimits;
use super::super::report::{BridgeSide, Notice};
use super::*;
use crate::audit::{self, Audit};

const LIMITS: QueueLimits = QueueLimits {
    bytes_max: 64 * 1024,
    free_bytes_min: 0,
};

fn reporter(audit: Audit) -> Reporter {
    let broker = |asset: &str| Broker {
        asset: asset.parse().unwrap(),
        address: [10, 0, 0, 1].into(),
        port: 1883,
        tls: None,
    };
    let bridge = Bridge {
        id: FlowId(7),
        conduit: "readings".parse().unwrap(),
        flow: "upwards".parse().unwrap(),
        from: broker("field"),
        to: broker("office"),
        publications: Vec::new(),
        must_flow: false,
    };
    Reporter::new(audit, Arc::new(bridge)).0
}

fn job(folder: &Path, reporter: Reporter, requests: Vec<Request>) -> Job {
    let (queue, _) = Queue::open(folder, [1; 16], LIMITS).unwrap();
    Job {
        machine: KeeperMachine::new(queue.state().finished),
        queue,
        requests,
        write_finished: false,
        reporter,
        losses: LossFile::new(folder),
    }
}

#[test]
fn what_was_delivered_does_not_count_as_lost_after_a_crash_before_the_position_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, _) = Queue::open(folder.path(), [1; 16], LIMITS).unwrap();
    for _ in 0..40 {
        let message = Message {
            seq: 0,
            time_ms: 1,
            expires_ms: 0,
            origin: 0,
            qos: 1,
            retain: false,
            topic: "works/a".to_owned(),
            payload: vec![0; 1000],
        };
        queue.commit(&mut [QueueRecord::Message(message)]).unwrap();
    }
    let (full, (answers, _nobody)) = (queue.bytes(), mpsc::channel(1));
    drop(queue);
    let request = Request {
        question: Question::Finished(41),
        answers,
    };
    let job = job(folder.path(), reporter(Audit::without_spool().0), vec![request]);
    let mut job = job.done();
    let (_, found) = Queue::open(folder.path(), [1; 16], LIMITS).unwrap();
    assert_eq!(found.lost, 0);
    job.write_finished = true;
    let job = job.done();
    assert!(job.queue.bytes() < full / 2, "and it gives its room back");
    drop(job);
    let (queue, found) = Queue::open(folder.path(), [1; 16], LIMITS).unwrap();
    assert_eq!((found.lost, queue.state().finished), (0, 41));
}

#[test]
fn no_acknowledgement_is_lost_however_many_batches_one_sync_held() {
    let (to, mut durable) = mpsc::channel(1);
    let ack = |identifier| Ack { kind: 4, identifier };
    acknowledge((0..200).map(|number| (to.clone(), vec![ack(number)])).collect());
    assert_eq!(durable.try_recv(), Ok((0..200).map(ack).collect()));
}

fn losses_recorded(events: &mut mpsc::Receiver<AuditEvent>) -> Vec<(String, u64)> {
    let kinds = std::iter::from_fn(|| events.try_recv().ok()).filter_map(|event| event.kind);
    let losses = kinds.filter_map(|kind| match kind {
        Kind::Loss(loss) => Some((loss.cause, loss.events)),
        _ => None,
    });
    losses.collect()
}

#[tokio::test]
async fn losses_that_an_agent_had_only_summed_up_when_it_was_killed_are_reported_by_the_next_and_counted_once()
 {
    let (folder, trail) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let limits = audit::SpoolLimits {
        bytes_max: 1 << 20,
        block_bytes: audit::BLOCK_BYTES,
        free_bytes_min: 0,
    };
    let (audit, _writer) = audit::start(trail.path().to_owned(), limits);
    let reporter = self::reporter(audit);
    let expired = |count| LossSum {
        count,
        first_ms: 10,
        last_ms: 20,
    };
    // The first is reported at once, and is nobody's concern any more once the trail has it.
    reporter.lost("bridge-expired", expired(1));
    while !reporter.unreported().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    reporter.lost("bridge-expired", expired(5));
    let finished = || Request {
        question: Question::Finished(1),
        answers: mpsc::channel(1).0,
    };
    let mut job = job(folder.path(), reporter, vec![finished()]);
    job.write_finished = true;
    let job = job.done();
    job.reporter.lost("bridge-full", expired(2));
    let mut job = Job {
        write_finished: true,
        ..job
    }
    .done();
    job.losses.write(job.reporter.unreported());
    drop(job);
    let left = losses::read(folder.path()).unwrap();
    let counts: Vec<_> = left
        .iter()
        .map(|(cause, sum)| (cause.as_str(), sum.count))
        .collect();
    assert_eq!(counts, [("bridge-expired", 5), ("bridge-full", 2)]);

    let (audit, mut events) = Audit::without_spool();
    let reporter = self::reporter(audit);
    reporter.left(left.clone());
    let losses = losses_recorded(&mut events);
    assert_eq!(
        losses,
        [("bridge-expired".to_owned(), 5), ("bridge-full".to_owned(), 2)]
    );
    // Until that is durable the file has it still.
    assert_eq!(reporter.unreported(), left);
}

#[test]
fn what_finds_no_room_in_the_trail_is_summed_up_on() {
    let (audit, mut events) = Audit::without_spool();
    let reporter = reporter(audit.clone());
    while audit
        .offer_event(|| audit.now(Kind::Loss(Default::default())))
        .is_some()
    {}
    let one = LossSum {
        count: 1,
        first_ms: 10,
        last_ms: 10,
    };
    reporter.lost("bridge-full", one);
    while events.try_recv().is_ok() {}
    reporter.lost("bridge-full", LossSum { last_ms: 30, ..one });
    assert_eq!(losses_recorded(&mut events), [("bridge-full".to_owned(), 2)]);
}

#[test]
fn a_file_of_losses_that_cannot_be_read_is_not_taken_for_none() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(losses::read(folder.path()), Ok(Default::default()));
    let path = folder.path().join("losses");
    for torn in ["", "{\"bridge-full\":{\"count\":3", "\0\0\0"] {
        std::fs::write(&path, torn).unwrap();
        assert!(losses::read(folder.path()).is_err(), "{torn:?}");
    }
    // Whatever it held, it says from now on what is lost.
    LossFile::new(folder.path()).write(Default::default());
    assert_eq!(losses::read(folder.path()), Ok(Default::default()));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(losses::read(folder.path()).is_err());
}

#[test]
fn a_broker_that_ends_one_connection_after_the_other_fills_no_trail_and_its_outages_are_counted() {
    let (audit, mut events) = Audit::without_spool();
    let reporter = reporter(audit);
    let mut steps = || {
        let kinds = std::iter::from_fn(|| events.try_recv().ok()).filter_map(|event| event.kind);
        let texts = kinds.filter_map(|kind| match kind {
            Kind::Agent(agent) => Some(agent.message),
            _ => None,
        });
        texts.collect::<Vec<_>>()
    };
    for _ in 0..50 {
        reporter.notice(BridgeSide::To, Notice::Up);
        reporter.notice(
            BridgeSide::To,
            Notice::Down("the broker closed the connection".to_owned()),
        );
    }
    reporter.notice(BridgeSide::To, Notice::Up);
    let told = steps();
    let outages = told.iter().filter(|text| text.contains("not connected")).count();
    assert!(outages < 10 && told.len() <= 2 * outages + 1, "{told:?}");
    reporter.tell_due(false);
    assert!(steps().is_empty(), "it is not time yet");
    reporter.tell_due(true);
    let told = steps();
    let count = format!("{} more times", 50 - outages);
    assert!(told.len() == 2 && told[0].contains(&count), "{told:?}");
    assert!(
        told[1].contains("connected to office") && !told[1].contains("not"),
        "{told:?}"
    );
    // From then on they are told one by one again.
    reporter.notice(BridgeSide::To, Notice::Down("it".to_owned()));
    reporter.tell_due(false);
    assert_eq!(steps().len(), 1);
}
