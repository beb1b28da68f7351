//! Two coordinators on one replicated store: one acts, the other stands by, and goes on where that one ended.

use std::time::Duration;

use penstock_coordinator::app::{self, AppError};
use penstock_coordinator::ca::{Authority, OfflineRoot};
use penstock_coordinator::config::Config;
use penstock_coordinator::operators::Role;
use penstock_policy::ids::{CoordinatorId, OperatorId};
use penstock_proto::v1;
use penstock_proto::v1::gateway_message::Message as Up;

use crate::audit::{Trail, acknowledged};
use crate::world::{Program, World, certified, now_ms, stream};

/// Another coordinator of the same plant, with an issuing key of its own that the root certified.
fn another(world: &World, name: &str) -> Config {
    let mut config = world.config.clone();
    config.name = CoordinatorId::new(name).unwrap();
    config.data = world.dir.path().join(name);
    let root = OfflineRoot::open(&world.dir.path().join("root"), || unreachable!()).unwrap();
    let request = app::init_under(&config, &world.dir.path().join("root/root.pem")).unwrap();
    let pem = certified(&root, &request, &config.name);
    Authority::install(
        &config.data.join("ca"),
        &config.plant,
        pem.as_bytes(),
        &config.keys,
        now_ms(),
    )
    .unwrap();
    config
}

fn acting(world: &mut World, running: app::RunningCoordinator, name: &str) {
    world.config.name = CoordinatorId::new(name).unwrap();
    world.address = running.grpc[0].to_string().parse().unwrap();
    world.running = Some(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_lost_or_stopped_is_followed_by_the_one_that_stands_by_and_nothing_acknowledged_is_lost()
 {
    let mut world = World::start_under_root_with(|config| config.nats = None).await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    let mut trail = Trail::new(1);
    session.send(Up::Audit(trail.block("while it stood alone"))).await;
    acknowledged(&mut session, 1).await;
    drop(session);

    // From a store that stands alone to a replicated one.
    world.config.nats = Some(stream());
    let file = Program::takes_over(&mut world, "127.0.0.27").await;
    let contents = app::replicate(&world.config).await.unwrap();
    assert!(contents.blocks > 1, "{contents}");
    let again = app::replicate(&world.config).await.unwrap_err();
    assert!(format!("{again:?}").contains("IsCopy"), "{again:?}");
    let program = Program::start(&file);
    program.serves(&world).await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    session.send(Up::Audit(trail.block("while c1 acts"))).await;
    acknowledged(&mut session, 2).await;

    // The second one takes the store from the servers, and stands by.
    let started = another(&world, "c2");
    let mut standing_by = tokio::spawn(async move { app::start(&started).await });
    let early = tokio::time::timeout(Duration::from_secs(3), &mut standing_by).await;
    assert!(early.is_err(), "two act at once");
    // What is done to a store while no coordinator runs is not done while one runs elsewhere.
    let operator = OperatorId::new("olga").unwrap();
    let refused = app::operator_token(&another(&world, "c3"), &operator, Role::Admin, 60).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, AppError::OtherActs(who) if who.as_str() == "c1"),
        "{refused}"
    );

    // The first one vanishes: no word to anybody.
    session.send(Up::Audit(trail.block("the last of c1"))).await;
    acknowledged(&mut session, 3).await;
    drop(session);
    program.kill();
    let running = tokio::time::timeout(Duration::from_secs(40), standing_by).await;
    acting(
        &mut world,
        running.expect("nobody takes over").unwrap().unwrap(),
        "c2",
    );
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    session.send(Up::Audit(trail.block("while c2 acts"))).await;
    acknowledged(&mut session, 4).await;
    drop(session);

    // It comes back, and stands by; the one that acts stops in order, which nobody has to wait for.
    let mut first = world.config.clone();
    first.name = CoordinatorId::new("c1").unwrap();
    let standing_by = tokio::spawn(async move { app::start(&first).await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    if standing_by.is_finished() {
        let ended = standing_by.await.unwrap().map(|_| "two act at once");
        panic!("{ended:?}");
    }
    world.running.take().unwrap().stop().await;
    let running = tokio::time::timeout(Duration::from_secs(8), standing_by).await;
    acting(
        &mut world,
        running.expect("nobody takes over").unwrap().unwrap(),
        "c1",
    );
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    session.send(Up::Audit(trail.block("c1 again"))).await;
    acknowledged(&mut session, 5).await;
    drop(session);

    // And back to a store that stands alone, with all of it.
    world.running.take().unwrap().stop().await;
    app::stand_alone(&world.config, false).await.unwrap();
    world.config.nats = None;
    world.start_again().await;
    let stored = world.trail("gw-a").await;
    assert_eq!(
        stored.iter().map(|record| record.sequence).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4]
    );
}
