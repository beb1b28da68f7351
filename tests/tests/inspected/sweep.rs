//! A sweep of SYNs in a client's name, from every port that the inspector may go on from.

use std::time::{Duration, Instant};

use penstock_agent::observed::Observation;
use penstock_lab as lab;
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Decision;

use super::life::{READ, ask, connect, controller};
use super::world::{Agent, CLIENT, SERVER, World, peer, polling, python};

/// Of a machine that sends no resets.
const SILENT: &str =
    "table ip t { chain o { type filter hook output priority 0; tcp flags & rst == rst drop; }; }";
/// What a connection that is held up takes at least.
const STALL: Duration = Duration::from_secs(8);

#[test]
fn a_blind_sweep_in_the_clients_name_holds_up_no_connection() {
    lab::sandbox::test(
        "sweep::a_blind_sweep_in_the_clients_name_holds_up_no_connection",
        |lab| {
            // A bridged gateway whose client says nothing to false answers is not in the table: there the sweep takes the ports
            // themselves for a minute, and new connections are reset.
            for (mode, silent) in [
                (GatewayMode::Routed, false),
                (GatewayMode::Routed, true),
                (GatewayMode::Bridged, false),
            ] {
                let world = World::named(lab, mode, if silent { "silent" } else { "alive" });
                let _seen = controller(&world);
                world.at_gateway(async || {
                    let mut agent = Agent::enforcing(world.plan(&[(502, polling())])).await;
                    let mut standing = connect(&world).unwrap();
                    ask(&mut standing, &READ).unwrap();
                    if silent {
                        // The client's machine says nothing to answers that it did not ask for.
                        world.office_filters(SILENT);
                    }
                    let script = peer("sweep.py");
                    let said = world.say(python(), &[&script, CLIENT, SERVER, "502", "10240", "32767"]);
                    assert_eq!(said, "swept");
                    let begun = Instant::now();
                    for _ in 0..3 {
                        ask(&mut standing, &READ).unwrap();
                        let mut new = connect(&world).unwrap();
                        ask(&mut new, &READ).unwrap();
                    }
                    // It was ten seconds for what stood: as long as the kernel remembers a closed connection.
                    assert!(
                        begun.elapsed() < STALL,
                        "{mode:?}, silent {silent}: {:?}",
                        begun.elapsed()
                    );
                    if mode == GatewayMode::Routed {
                        // One event names whom it was sent for, however many ports were swept.
                        let swept = |seen: &Observation| {
                            matches!(seen, Observation::Verdict(seen) if seen.reason.contains("sweeps the client's ports"))
                        };
                        let told = agent.until_any(swept).await;
                        assert_eq!((told.source, told.destination), (CLIENT.parse().ok(), SERVER.parse().ok()));
                        assert_eq!((told.decision, told.port), (Decision::Deny, 502));
                    }
                });
            }
        },
    )
    .unwrap();
}
