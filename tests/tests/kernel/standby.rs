//! A gateway that takes another's place comes to running connections with rules that are old.

use std::time::{Duration, Instant};

use penstock_agent::enforce::DriftState;
use penstock_agent::enforce::nft::render::STARTING_S;
use penstock_lab as lab;
use penstock_policy::terms::GatewayMode;

use super::plans::{SIDES, two_flows};
use super::turned::{goes, running, started_long_ago};
use super::wire::Part;
use super::world::{Agent, World};

#[test]
fn the_start_ends_by_itself_and_begins_again_on_a_gateway_through_which_nothing_flows() {
    lab::sandbox::test(
        "standby::the_start_ends_by_itself_and_begins_again_on_a_gateway_through_which_nothing_flows",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            world.at_gateway(async || {
                let agent = Agent::start();
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
                let active = Instant::now() + Duration::from_secs(u64::from(STARTING_S) / 2);
                while Instant::now() < active {
                    goes(&world, &tcp, Part::Data, true);
                    assert!(!starting());
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                goes(&world, &udp, Part::Push, false);
                // A standby lets it through.
                let patience = Instant::now() + 2 * Duration::from_secs(STARTING_S.into());
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
