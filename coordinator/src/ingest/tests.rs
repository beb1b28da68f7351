#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::store::BlockFilter;
use penstock_policy::ids::CoordinatorId;
use penstock_proto::audit::{EPOCH_LEAD_MAX, GENESIS, block_digest};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AgentEvent, AuditBlockBody, AuditEvent, IdentityEvent, OperatorEvent};
use prost::Message as _;

fn chain(epoch: u64, count: u64) -> Vec<AuditBlock> {
    let mut previous = GENESIS;
    (0..count)
        .map(|sequence| {
            let body = AuditBlockBody {
                events: vec![AuditEvent {
                    time_ms: sequence,
                    ..AuditEvent::default()
                }],
            }
            .encode_to_vec();
            let block = AuditBlock {
                epoch,
                sequence,
                previous_digest: previous.to_vec().into(),
                body: body.clone().into(),
            };
            previous = block_digest(&previous, epoch, sequence, &body);
            block
        })
        .collect()
}

async fn alarms(store: &Store) -> usize {
    let own = BlockFilter {
        source: Some("coordinator/c1".to_owned()),
        ..BlockFilter::default()
    };
    store.blocks(own, 100).await.unwrap().len()
}

fn ingest(dir: &tempfile::TempDir) -> (Ingest, Store) {
    let store = Store::open(&dir.path().join("s.db")).unwrap();
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    (Ingest::new(store.clone(), journal), store)
}

#[tokio::test]
async fn repeats_are_acknowledged_again_and_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    let blocks = chain(7, 5);
    let first = ingest.accept("gw", blocks[..3].to_vec(), 1).await.unwrap();
    assert_eq!(first.events, 3);
    let again = ingest.accept("gw", blocks.clone(), 1).await.unwrap();
    assert_eq!((again.events, again.fault), (2, None));
    assert_eq!(
        again.ack.as_ref().map(|ack| (ack.epoch, ack.next_sequence)),
        Some((7, 5))
    );
    assert_eq!(ingest.position("gw", 7).await.unwrap(), again.ack);
    assert_eq!(store.blocks(BlockFilter::default(), 100).await.unwrap().len(), 5);
    assert_eq!(alarms(&store).await, 0);
}

#[tokio::test]
async fn forks_wrong_digests_and_garbage_are_not_stored_and_raise_an_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    let blocks = chain(1, 4);
    ingest.accept("gw", blocks[..2].to_vec(), 1).await.unwrap();
    let mut wrong = blocks[2].clone();
    wrong.previous_digest = vec![9; 32].into();
    let mut fork = blocks[1].clone();
    fork.body = AuditBlockBody::default().encode_to_vec().into();
    let mut garbage = blocks[2].clone();
    garbage.body = vec![0xff; 20].into();
    let mut short = blocks[2].clone();
    short.previous_digest = vec![9; 31].into();
    let mut huge = blocks[2].clone();
    huge.body = vec![0; BODY_BYTES_MAX + 1].into();
    for (n, bad) in [wrong, fork, garbage, short, huge].into_iter().enumerate() {
        let outcome = ingest
            .accept("gw", vec![bad, blocks[2].clone()], 1)
            .await
            .unwrap();
        assert!(outcome.fault.is_some(), "{n}");
        assert_eq!(alarms(&store).await, n + 1);
    }
    // The fork and what follows a wrong block in the same delivery: the honest block still fits afterwards.
    let honest = ingest.accept("gw", blocks[2..].to_vec(), 1).await.unwrap();
    assert_eq!(honest.fault, None);
    assert_eq!(store.head("gw").await.unwrap().unwrap().next_sequence, 4);
}

fn block_of(kinds: Vec<Option<Kind>>) -> AuditBlock {
    let event = |kind| AuditEvent {
        kind,
        ..AuditEvent::default()
    };
    let events = kinds.into_iter().map(event).collect();
    AuditBlock {
        epoch: 1,
        sequence: 0,
        previous_digest: GENESIS.to_vec().into(),
        body: AuditBlockBody { events }.encode_to_vec().into(),
    }
}

#[tokio::test]
async fn a_gateway_cannot_write_what_only_the_coordinator_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    let forged = [
        Kind::Operator(OperatorEvent {
            operator: "alice".to_owned(),
            action: "approve-release".to_owned(),
            allowed: true,
            ..OperatorEvent::default()
        }),
        Kind::Trail(TrailEvent::default()),
        Kind::Identity(IdentityEvent::default()),
    ];
    for (n, kind) in forged.into_iter().enumerate() {
        let started = Kind::Agent(AgentEvent::default());
        let block = block_of(vec![Some(started), Some(kind)]);
        let outcome = ingest.accept("gw", vec![block], 1).await.unwrap();
        assert!(outcome.fault.unwrap().contains("only a coordinator writes"));
        assert_eq!((outcome.events, outcome.ack), (0, None));
        let own = last_own(&store).await;
        let Some(Kind::Trail(told)) = own.kind else {
            panic!("{own:?}");
        };
        assert_eq!((told.step.as_str(), told.source.as_str()), ("refused", "gw"));
        assert_eq!(alarms(&store).await, n + 1);
    }
    // A kind that this version does not know is a newer gateway's, and the next block of an honest one is taken.
    let honest = block_of(vec![None, Some(Kind::Agent(AgentEvent::default()))]);
    let outcome = ingest.accept("gw", vec![honest], 1).await.unwrap();
    assert_eq!((outcome.events, outcome.fault), (2, None));
}

async fn last_own(store: &Store) -> AuditEvent {
    let own = BlockFilter {
        source: Some("coordinator/c1".to_owned()),
        newest_first: true,
        ..BlockFilter::default()
    };
    let newest = store.blocks(own, 1).await.unwrap();
    read_body(&newest[0].body).unwrap().events.remove(0)
}

/// Begins this, and leaves it as soon as it waits: as a session does that ends meanwhile.
async fn broken_off<T>(begun: impl Future<Output = T>) {
    tokio::select! {
        biased;
        _ = begun => {}
        () = std::future::ready(()) => {}
    }
}

async fn until(store: &Store, reached: impl Fn(Head) -> bool) {
    while !store.head("gw").await.unwrap().is_some_and(&reached) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_session_that_ends_while_its_blocks_are_stored_loses_no_alarm_of_what_is_missing_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    let mut blocks = chain(1, 6);
    ingest.accept("gw", blocks[..2].to_vec(), 1).await.unwrap();
    blocks[5].previous_digest = vec![9; 32].into();
    broken_off(ingest.accept("gw", blocks[4..].to_vec(), 1)).await;
    until(&store, |head| head.next_sequence == 5).await;
    assert_eq!(alarms(&store).await, 2);
    let Some(Kind::Trail(refused)) = last_own(&store).await.kind else {
        panic!("of what was refused");
    };
    assert_eq!((refused.step.as_str(), refused.sequence), ("refused", 5));
}

#[tokio::test]
async fn a_session_that_ends_while_its_trail_is_taken_back_loses_no_alarm_of_who_wrote_beyond() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    ingest.accept("gw", chain(1, 2), 1).await.unwrap();
    for epoch in [1 + EPOCH_FOLLOWED_MAX, 2 + EPOCH_FOLLOWED_MAX] {
        ingest.accept("gw", chain(epoch, 1), 1).await.unwrap();
    }
    let position = ingest.position("gw", 1);
    let mut position = std::pin::pin!(position);
    while store.head("gw").await.unwrap().unwrap().epoch > 1 + EPOCH_FOLLOWED_MAX {
        broken_off(position.as_mut()).await;
        tokio::task::yield_now().await;
        // Once it is asked for, nobody waits for what comes of it.
    }
    assert_eq!(alarms(&store).await, 1);
}

#[tokio::test]
async fn what_a_gateway_is_refused_again_and_again_does_not_fill_the_coordinators_trail() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    let forged = block_of(vec![Some(Kind::Operator(OperatorEvent::default()))]);
    for _ in 0..100 {
        ingest.accept("gw", vec![forged.clone()], 1).await.unwrap();
    }
    let written = alarms(&store).await;
    assert!((1..=35).contains(&written), "{written}");
}

#[tokio::test]
async fn no_far_epoch_ends_a_trail_and_each_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    ingest.accept("gw", chain(1, 2), 1).await.unwrap();
    // At once: refused, and the trail goes on.
    for epoch in [u64::MAX, 1 << 40, 1 + EPOCH_LEAD_MAX + 1] {
        let far = ingest.accept("gw", chain(epoch, 1), 1).await.unwrap();
        assert!(far.fault.is_some());
    }
    let next = chain(1, 3).pop().unwrap();
    let outcome = ingest.accept("gw", vec![next], 1).await.unwrap();
    assert_eq!((outcome.events, outcome.fault), (1, None));
    // Step by step, by whoever has the gateway's key: the gateway comes back at its own epoch, and its trail goes on.
    let far = 1 + EPOCH_FOLLOWED_MAX + 1;
    let steps = (1..)
        .map(|step| 1 + step * EPOCH_LEAD_MAX)
        .take_while(|epoch| *epoch < far);
    let blocks = steps.chain([far]).flat_map(|epoch| chain(epoch, 1)).collect();
    assert_eq!(ingest.accept("gw", blocks, 1).await.unwrap().fault, None);
    let before = alarms(&store).await;
    let held = ingest.position("gw", 1).await.unwrap().unwrap();
    assert!(held.epoch <= 1 + EPOCH_FOLLOWED_MAX, "{}", held.epoch);
    assert_eq!(alarms(&store).await, before + 1);
    let own = ingest.accept("gw", chain(held.epoch + 1, 1), 1).await.unwrap();
    assert!(own.fault.is_some() || own.events == 1);
    let own = ingest.accept("gw", chain(held.epoch + 2, 1), 1).await.unwrap();
    assert_eq!((own.events, own.fault), (1, None));
    // One that does not say where it stands is left alone.
    assert_eq!(
        ingest.position("gw", 0).await.unwrap().unwrap().epoch,
        held.epoch + 2
    );
}

#[tokio::test]
async fn a_trail_goes_on_past_what_somebody_else_left_where_it_comes_to_next() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    ingest.accept("gw", chain(1, 2), 1).await.unwrap();
    let last = 1 + EPOCH_FOLLOWED_MAX;
    for theirs in [chain(last, 1), chain(last + 1, 3)] {
        assert_eq!(ingest.accept("gw", theirs, 1).await.unwrap().fault, None);
    }
    // The gateway comes back, is led before what it cannot follow, and begins the epoch after that.
    assert_eq!(ingest.position("gw", 1).await.unwrap().unwrap().epoch, last);
    let mut own = chain(last + 1, 1);
    own[0].body = AuditBlockBody::default().encode_to_vec().into();
    assert!(ingest.accept("gw", own, 1).await.unwrap().fault.is_some());
    // That place is taken, and it learns so: what is held there is another block than its own.
    let held = ingest.position("gw", last + 1).await.unwrap().unwrap();
    assert_eq!((held.epoch, held.next_sequence), (last + 1, 3));
    let own = ingest.accept("gw", chain(last + 2, 2), 1).await.unwrap();
    assert_eq!((own.events, own.fault), (2, None));
    assert_eq!(store.head("gw").await.unwrap().unwrap().epoch, last + 2);
}

#[tokio::test]
async fn the_same_blocks_behind_a_trail_that_was_taken_back_are_held_and_not_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    let blocks = chain(3, 2);
    ingest.accept("gw", chain(1, 1), 1).await.unwrap();
    ingest.accept("gw", blocks.clone(), 1).await.unwrap();
    store.rewind("gw", 1, None).await.unwrap().unwrap();
    let again = ingest.accept("gw", blocks, 1).await.unwrap();
    assert_eq!((again.events, again.fault), (0, None));
    assert_eq!(again.ack.map(|ack| (ack.epoch, ack.next_sequence)), Some((3, 2)));
}

#[tokio::test]
async fn a_coordinator_restored_from_before_a_gateway_went_as_far_ahead_as_it_may_takes_its_trail_up() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, _) = ingest(&dir);
    ingest.accept("gw", chain(1, 2), 1).await.unwrap();
    // The farthest that a gateway at epoch 1 follows, and then goes on after.
    let farthest = 1 + EPOCH_FOLLOWED_MAX + 1;
    let own = ingest.accept("gw", chain(farthest, 2), 1).await.unwrap();
    assert_eq!((own.events, own.fault), (2, None));
}

#[tokio::test]
async fn a_gap_is_taken_and_told_and_a_new_epoch_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (ingest, store) = ingest(&dir);
    let blocks = chain(1, 6);
    ingest.accept("gw", blocks[..2].to_vec(), 1).await.unwrap();
    let jumped = ingest.accept("gw", blocks[4..].to_vec(), 1).await.unwrap();
    assert_eq!((jumped.events, jumped.fault), (2, None));
    assert_eq!(alarms(&store).await, 1);
    let Some(Kind::Trail(gap)) = last_own(&store).await.kind else {
        panic!("a gap is no drift of the kernel's table");
    };
    assert_eq!((gap.step.as_str(), gap.source.as_str()), ("gap", "gw"));
    assert_eq!((gap.epoch, gap.sequence, gap.blocks), (1, 4, 2));
    let anew = ingest.accept("gw", chain(2, 1), 1).await.unwrap();
    assert_eq!(anew.ack.map(|ack| (ack.epoch, ack.next_sequence)), Some((2, 1)));
}
