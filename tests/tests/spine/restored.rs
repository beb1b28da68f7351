//! A coordinator that was lost, and restored from a backup that is older than what its gateways hold.

use std::collections::BTreeSet;

use penstock_lab::wait_until;
use serde_json::Value;

use super::world::{PATIENCE, SOMETIMES, World, test};

/// Where a record stands in its gateway's trail.
fn positions(trail: &[Value]) -> BTreeSet<[u64; 3]> {
    let number = |record: &Value, name: &str| record[name].as_u64().unwrap();
    trail
        .iter()
        .map(|record| ["epoch", "sequence", "index"].map(|name| number(record, name)))
        .collect()
}

#[test]
fn a_restored_coordinator_finds_its_gateways_their_trail_and_a_way_to_lead_them_on() {
    test(
        "restored::a_restored_coordinator_finds_its_gateways_their_trail_and_a_way_to_lead_them_on",
        |lab| {
            let (world, mut coordinator) = World::new(lab, &lab.directory().join("state"));
            let _agent = world.start_agent();
            world.wait_for_effective(world.release(true));
            let token = world.path("carla.token");
            world.penstock(
                "admin",
                &["operators", "add", "carla", "--role", "viewer", "--out", &token],
            );
            world.log_in("carla", &std::fs::read_to_string(token).unwrap());
            world.back_up();
            let because = ["--reason", "her laptop was lost"];
            world.penstock(
                "admin",
                &[&["operators", "revoke", "carla"][..], &because].concat(),
            );
            wait_until("the gateway knows of it", PATIENCE, || {
                world
                    .at_the_cabinet(&["withdrawn", "show"])
                    .1
                    .contains("operator/carla")
            })
            .unwrap();
            for with_flow in [false, true] {
                world.wait_for_effective(world.release(with_flow));
            }
            let told =
                |record: &Value| record["event"]["step"] == "effective" && record["event"]["revision"] == 3;
            wait_until("r3 in the trail", PATIENCE, || world.trail().iter().any(told)).unwrap();
            let acknowledged = positions(&world.trail());

            coordinator.kill();
            world.restore();
            let _coordinator = world.start_coordinator();
            wait_until("the gateway, which nobody enrolled anew", PATIENCE, || {
                world.seen()["connected"] == true
            })
            .unwrap();
            assert!(world.passes(SOMETIMES, true), "the gateway enforces what it had");
            // What was withdrawn after the backup is over again: the gateway gave the list back.
            let search = ["audit", "search", "--kind", "identity"];
            wait_until("the list of withdrawn keys", PATIENCE, || {
                let found = world.penstock("engineer", &search);
                found["records"]
                    .as_array()
                    .is_some_and(|records| records.iter().any(|record| record["event"]["step"] == "restored"))
            })
            .unwrap();
            assert_eq!(
                world.penstock_fails("carla", &["gateways", "list"]),
                "IDENTITY_WITHDRAWN"
            );
            wait_until("what was acknowledged after the backup", PATIENCE, || {
                positions(&world.trail()).is_superset(&acknowledged)
            })
            .unwrap();

            // Whoever verified a later release than the coordinator has is told, and goes no further by mistake.
            assert_eq!(
                world.penstock_fails("engineer", &["release", "list"]),
                "history-forked"
            );
            let document = world.document(false);
            let propose = ["release", "propose", &document, "--reason", "test", "--yes"];
            assert_eq!(world.penstock_fails("engineer", &propose), "history-forked");
            assert!(world.passes(SOMETIMES, true), "r3 is in force still");
            // On purpose, both histories are joined: under a number that neither has used, which the gateway takes.
            assert_eq!(world.release_again(false), 4);
            world.wait_for_effective(4);
            assert!(!world.passes(SOMETIMES, false), "r4 is what the kernel holds");
            // The approvers signed whose keys are withdrawn, since this agent reads that.
            let shown = world.penstock("engineer", &["release", "show", "4"]);
            assert!(shown["statement"]["withdrawn_list"].as_u64() > Some(0), "{shown}");
            assert_eq!(world.release(true), 5);
            world.wait_for_effective(5);
            world.assert_enforced("after it");
        },
    );
}
