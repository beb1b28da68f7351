//! What sessions do while the store takes nothing, and when the coordinator stops: what was acknowledged is kept, once, and
//! nobody waits for somebody else.

use std::time::{Duration, Instant};

use penstock_proto::refusal::{Reason, explain};
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_message::Message as Up;

use crate::audit::{Trail, acknowledged};
use crate::bounds::{trail_fault, until};
use crate::world::{PATIENCE, Session, World, message};

/// The blocks of a gateway's trail that are stored, each once and without a gap.
async fn stored(world: &World, gateway: &str) -> u64 {
    let trail = world.trail(gateway).await;
    let sequences: Vec<_> = trail.iter().map(|record| record.sequence).collect();
    let whole: Vec<_> = (0..sequences.len() as u64).collect();
    assert_eq!(sequences, whole);
    whole.len() as u64
}

/// Nothing is acknowledged for a while but what was.
async fn nothing_beyond(session: &mut Session, held: u64) {
    let deadline = Instant::now() + Duration::from_millis(500);
    while let Ok(message) = tokio::time::timeout_at(deadline.into(), session.down.message()).await {
        match message.unwrap().unwrap().message.unwrap() {
            Down::AuditAck(ack) => assert!(ack.next_sequence <= held, "{ack:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_takes_nothing_nothing_is_acknowledged_and_afterwards_all_of_it_is_in_the_same_session()
 {
    let world = World::start().await;
    let mut one = world.session("gw-a", v1::PolicyState::default()).await;
    let mut other = world.session("gw-b", v1::PolicyState::default()).await;
    let mut trail = Trail::new(1);
    for _ in 0..3 {
        one.send(Up::Audit(trail.block("before"))).await;
    }
    acknowledged(&mut one, 3).await;

    let database = rusqlite::Connection::open(world.config.data.join("penstock.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    // More than may wait for the store: what is beyond waits in the stream, not in memory.
    let up = one.up.clone();
    let blocks: Vec<_> = (0..200).map(|_| trail.block(&"x".repeat(4096))).collect();
    let sending = tokio::spawn(async move {
        for block in blocks {
            up.send(message(Up::Audit(block))).await.unwrap();
        }
    });
    other.send(Up::Audit(Trail::new(1).block("mine"))).await;
    // Its reason is in health, and what the other one reports is, too, at once.
    let said = until(async || trail_fault(&world, "gw-a").await).await;
    assert!(said.contains("does not store it"), "{said}");
    other
        .send(Up::Health(v1::HealthReport {
            drift: v1::Drift::Present.into(),
            ..v1::HealthReport::default()
        }))
        .await;
    let drifted = async || {
        let listed = world.admin().list_gateways(v1::ListGatewaysRequest {}).await;
        let mut gateways = listed.unwrap().into_inner().gateways.into_iter();
        gateways.find(|found| found.name == "gw-b" && found.drift() == v1::Drift::Present)
    };
    until(drifted).await;
    nothing_beyond(&mut one, 3).await;
    nothing_beyond(&mut other, 0).await;
    assert_eq!(stored(&world, "gw-a").await, 3);

    database.execute_batch("ROLLBACK").unwrap();
    acknowledged(&mut one, 203).await;
    acknowledged(&mut other, 1).await;
    sending.await.unwrap();
    assert_eq!(
        (stored(&world, "gw-a").await, stored(&world, "gw-b").await),
        (203, 1)
    );
    assert_eq!(trail_fault(&world, "gw-a").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_stops_tells_its_gateways_waits_for_none_and_keeps_what_it_acknowledged() {
    let mut world = World::start().await;
    let mut busy = world.session("gw-a", v1::PolicyState::default()).await;
    let mut idle = world.session("gw-b", v1::PolicyState::default()).await;
    // One that reads nothing: nothing can be sent to it.
    let deaf = world.session("gw-c", v1::PolicyState::default()).await;
    let up = deaf.up.clone();
    tokio::spawn(async move {
        let block = Trail::new(1).block("again");
        while up.send(message(Up::Audit(block.clone()))).await.is_ok() {}
    });
    let up = busy.up.clone();
    tokio::spawn(async move {
        let mut trail = Trail::new(1);
        while up.send(message(Up::Audit(trail.block("busy")))).await.is_ok() {}
    });
    acknowledged(&mut busy, 20).await;

    let running = world.running.take().unwrap();
    let began = Instant::now();
    let stopping = tokio::spawn(running.stop());
    let mut held = 20;
    let end = loop {
        match busy.next().await {
            Ok(Down::AuditAck(ack)) => held = held.max(ack.next_sequence),
            Ok(other) => panic!("{other:?}"),
            Err(end) => break end,
        }
    };
    assert!(explain(&end).is(Reason::Stopping), "{end:?}");
    let end = idle.next().await.unwrap_err();
    assert!(explain(&end).is(Reason::Stopping), "{end:?}");
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    // Five seconds for those who take nothing, and what a busy machine needs.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop((busy, idle, deaf));

    world.start_again().await;
    let kept = stored_up_to(&world, "gw-a").await;
    assert!(kept >= held, "{kept} are stored, {held} were acknowledged");
    let mut back = world.session("gw-a", v1::PolicyState::default()).await;
    let mut trail = Trail::new(2);
    back.send(Up::Audit(trail.block("back"))).await;
    acknowledged(&mut back, 1).await;
}

async fn stored_up_to(world: &World, gateway: &str) -> u64 {
    let store = world.running.as_ref().unwrap().store();
    store.head(gateway).await.unwrap().unwrap().next_sequence
}
