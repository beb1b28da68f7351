//! A gateway that takes another's place comes to running connections with rules that are old.

use std::time::{Duration, Instant};

use penstock_agent::enforce::{DriftState, EnforceSettings};
use penstock_lab as lab;
use penstock_policy::terms::GatewayMode;

use super::plans::{SIDES, two_flows};
use super::turned::{goes, running, started_long_ago};
use super::wire::Part;
use super::world::{Agent, PATIENCE, World, settings};

/// After which a gateway that nothing passes counts as a standby here.
const LULL: Duration = Duration::from_secs(4);

#[test]
fn the_start_ends_by_itself_and_begins_again_on_a_gateway_through_which_nothing_flows() {
    lab::sandbox::test(
        "standby::the_start_ends_by_itself_and_begins_again_on_a_gateway_through_which_nothing_flows",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            world.at_gateway(async || {
                let agent = Agent::start_with(EnforceSettings {
                    lull: LULL,
                    ..settings()
                });
                agent.apply(&two_flows(world.mode), 1).await;
                let starting = || {
                    let listed = world
                        .gateway
                        .run("nft", &["list", "set", "inet", "penstock", "starting"]);
                    listed.unwrap().contains("expires")
                };
                assert!(starting());
                assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
                started_long_ago().await;
                assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
                let [tcp, _, udp, _] = running();
                // An active one refuses what its server begins, however long it runs.
                let mut active = Instant::now();
                while active.elapsed() < 5 * LULL / 2 {
                    goes(&world, &tcp, Part::Data, true);
                    assert!(!starting());
                    let sent = Instant::now();
                    tokio::time::sleep(LULL / 8).await;
                    // A machine that stood still meanwhile is no active one.
                    if sent.elapsed() > LULL / 2 {
                        started_long_ago().await;
                        active = Instant::now();
                    }
                }
                goes(&world, &udp, Part::Push, false);
                // A standby lets it through.
                let patience = Instant::now() + PATIENCE;
                while !starting() {
                    assert!(Instant::now() < patience);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                goes(&world, &udp, Part::Push, true);
                assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
            });
        },
    )
    .unwrap();
}
