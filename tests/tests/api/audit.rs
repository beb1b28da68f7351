//! Audit over the wire: taken in exactly once, searched, followed live, and kept through kill -9.

use std::time::Duration;

use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_message::Message as Up;
use proptest::prelude::ProptestConfig;
use prost::Message as _;

use crate::world::{PATIENCE, Program, Session, World, store_of};

/// A gateway's trail as it grows.
pub struct Trail {
    epoch: u64,
    next: u64,
    previous: [u8; 32],
}

impl Trail {
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            next: 0,
            previous: GENESIS,
        }
    }

    pub fn block(&mut self, text: &str) -> v1::AuditBlock {
        let body = v1::AuditBlockBody {
            events: vec![v1::AuditEvent {
                time_ms: crate::world::now_ms(),
                severity: v1::Severity::Warning.into(),
                revision: 1,
                kind: Some(v1::audit_event::Kind::Verdict(v1::VerdictEvent {
                    decision: v1::Decision::Deny.into(),
                    source: "10.1.0.9".into(),
                    reason: text.to_owned(),
                    ..v1::VerdictEvent::default()
                })),
            }],
        }
        .encode_to_vec();
        let block = v1::AuditBlock {
            epoch: self.epoch,
            sequence: self.next,
            previous_digest: self.previous.to_vec().into(),
            body: body.clone().into(),
        };
        self.previous = block_digest(&self.previous, self.epoch, self.next, &body);
        self.next += 1;
        block
    }
}

pub async fn acknowledged(session: &mut Session, until: u64) {
    loop {
        match session.next().await.unwrap() {
            Down::AuditAck(ack) if ack.next_sequence >= until => return,
            // A release that is in force is offered whenever the session is there.
            Down::AuditAck(_) | Down::Offer(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn blocks_are_stored_once_found_by_search_and_seen_live() {
    let mut world = World::start().await;
    let mut viewer = world.operator("vic", v1::Role::Viewer).await;
    let filter = v1::SearchAuditRequest {
        source: "gw-a".into(),
        decision: v1::Decision::Deny.into(),
        ..v1::SearchAuditRequest::default()
    };
    let mut tail = viewer
        .tail_audit(v1::TailAuditRequest { filter: Some(filter) })
        .await
        .unwrap()
        .into_inner();
    let mut trail = Trail::new(3);
    let blocks: Vec<_> = (0..20).map(|n| trail.block(&format!("attack {n}"))).collect();
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    for block in &blocks {
        session.send(Up::Audit(block.clone())).await;
    }
    acknowledged(&mut session, 20).await;
    for n in 0..20 {
        let record = tokio::time::timeout(PATIENCE, tail.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!((record.sequence, record.index, record.epoch), (n, 0, 3));
    }
    // Sent again over a new session, and after a restart: stored once, acknowledged again.
    drop(session);
    world.restart().await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    for block in &blocks {
        session.send(Up::Audit(block.clone())).await;
    }
    acknowledged(&mut session, 20).await;
    let found = world.trail("gw-a").await;
    assert_eq!(
        found.iter().map(|r| r.sequence).collect::<Vec<_>>(),
        (0..20).collect::<Vec<_>>()
    );
    let request = v1::SearchAuditRequest {
        text: "ATTACK 1".into(),
        newest_first: true,
        limit: 3,
        ..v1::SearchAuditRequest::default()
    };
    let mut stream = world.admin().search_audit(request).await.unwrap().into_inner();
    let mut sequences = Vec::new();
    while let Some(record) = stream.message().await.unwrap() {
        sequences.push(record.sequence);
    }
    assert_eq!(sequences, [19, 18, 17]);
}

#[tokio::test]
async fn a_forked_trail_ends_the_session_raises_an_alarm_and_spoils_nothing() {
    let world = World::start().await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    let mut trail = Trail::new(1);
    session.send(Up::Audit(trail.block("one"))).await;
    acknowledged(&mut session, 1).await;
    let mut forked = Trail {
        epoch: 1,
        next: 1,
        previous: [9; 32],
    };
    session.send(Up::Audit(forked.block("forged"))).await;
    let status = session.next().await.unwrap_err();
    assert!(explain(&status).is(Reason::AuditFork), "{status:?}");
    let alarms = world
        .trail("coordinator/c1")
        .await
        .into_iter()
        .filter(|r| r.event.as_ref().unwrap().severity() == v1::Severity::Alarm)
        .count();
    assert_eq!(alarms, 1);
    // The honest trail goes on where it was.
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    session.send(Up::Audit(trail.block("two"))).await;
    acknowledged(&mut session, 2).await;
}

#[tokio::test]
async fn a_search_that_makes_no_sense_is_refused_by_field() {
    let world = World::start().await;
    let request = v1::SearchAuditRequest {
        kinds: vec!["gossip".into()],
        ..v1::SearchAuditRequest::default()
    };
    let status = world.admin().search_audit(request).await.unwrap_err();
    let explained = explain(&status);
    assert!(explained.is(Reason::BadRequest));
    assert_eq!(explained.details[0].0, "kinds");
}

/// Kills the program in the middle of its work, again and again; what it acknowledged is there each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_block_is_lost_when_the_coordinator_is_killed() {
    let rounds = u64::from(ProptestConfig::default().cases / 20);
    let mut world = World::start().await;
    let file = Program::takes_over(&mut world, "127.0.83.1").await;

    let mut trail = Trail::new(1);
    let mut unacknowledged: Vec<v1::AuditBlock> = Vec::new();
    let mut acked = 0;
    for round in 0..rounds {
        let program = Program::start(&file);
        program.serves(&world).await;
        let mut session = world.session("gw-a", v1::PolicyState::default()).await;
        let up = session.up.clone();
        let mut sending = unacknowledged.clone();
        sending.extend((0..400).map(|n| trail.block(&format!("{round}/{n}"))));
        let all = sending.clone();
        let sender = tokio::spawn(async move {
            for block in sending {
                let message = v1::GatewayMessage {
                    message: Some(Up::Audit(block)),
                };
                if up.send(message).await.is_err() {
                    return;
                }
            }
        });
        // Another moment each round: from at once to well into it.
        let until = tokio::time::Instant::now() + Duration::from_millis(3 + round % 12 * 7);
        while let Ok(Ok(Some(message))) = tokio::time::timeout_at(until, session.down.message()).await {
            if let Some(Down::AuditAck(ack)) = message.message {
                assert!(ack.next_sequence >= acked, "an acknowledgement was taken back");
                acked = ack.next_sequence;
            }
        }
        program.kill();
        sender.abort();
        unacknowledged = all.into_iter().filter(|block| block.sequence >= acked).collect();
        // What is on disk holds at least what was acknowledged, as one unbroken chain.
        let store = store_of(&world.config).await;
        let head = store.head("gw-a").await.unwrap();
        assert!(
            head.map_or(0, |head| head.next_sequence) >= acked,
            "round {round}"
        );
    }
    assert!(acked > 0, "the test never saw an acknowledgement");
    let running = penstock_coordinator::app::start(&world.config).await.unwrap();
    world.address = running.grpc[0].to_string().parse().unwrap();
    world.running = Some(running);
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    // The last round may have got everything acknowledged; then there is nothing to send, and no answer to wait for.
    if acked < rounds * 400 {
        for block in unacknowledged {
            session.send(Up::Audit(block)).await;
        }
        acknowledged(&mut session, rounds * 400).await;
    }
    let store = world.running.as_ref().unwrap().store().clone();
    let filter = penstock_coordinator::store::BlockFilter {
        source: Some("gw-a".into()),
        ..Default::default()
    };
    let (mut expected, mut after) = (0, None);
    loop {
        let page = store.page(filter.clone(), after, 500).await.unwrap();
        for block in page.blocks {
            assert_eq!(block.sequence, expected);
            expected += 1;
        }
        if !page.more {
            break;
        }
        after = Some(page.end);
    }
    assert_eq!(expected, rounds * 400);
}

#[tokio::test]
async fn one_operator_has_a_bounded_number_of_searches_and_each_ends_with_its_reader() {
    use penstock_coordinator::query::SEARCHES_MAX;
    let world = World::start().await;
    let mut viewer = world.operator("vic", v1::Role::Viewer).await;
    let mut open = Vec::new();
    for _ in 0..SEARCHES_MAX {
        open.push(viewer.tail_audit(v1::TailAuditRequest::default()).await.unwrap());
    }
    let more = viewer.search_audit(v1::SearchAuditRequest::default()).await;
    crate::world::refused(more, penstock_proto::refusal::Reason::TooManySearches);
    // Another's are another's.
    world.trail("coordinator/c1").await;
    drop(open.pop());
    let again = async {
        while viewer
            .search_audit(v1::SearchAuditRequest::default())
            .await
            .is_err()
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, again).await.unwrap();
}
