//! What stands open at all times, and what only seems to.

use super::{compile_all, id, listed, waterworks};
use crate::check::check;
use crate::model::Plant;
use crate::protocol::Operations;
use crate::terms::OnAgentLoss;
use crate::waterworks::{conduit, grant_visit, modbus, operation};

/// Codes found in a changed plant, judged against the works as they were; nothing in it must flow any more.
fn after(change: impl FnOnce(&mut Plant)) -> Vec<&'static str> {
    let before = compile_all(&waterworks()).unwrap();
    let mut plant = waterworks();
    let pumps = plant.conduits.get_mut(&id("control-room-to-pumps")).unwrap();
    pumps.flows.values_mut().for_each(|flow| flow.must_flow = false);
    change(&mut plant);
    listed(&check(&plant, &compile_all(&plant).unwrap(), Some(&before)))
}

#[test]
fn a_must_flow_that_only_grants_open_from_now_on_is_lost() {
    assert_eq!(after(|_| {}), [""; 0]);
    let by_grant = |plant: &mut Plant| {
        let pumps = plant.conduits.get_mut(&id("control-room-to-pumps"));
        pumps.unwrap().only_by_grant = true;
    };
    assert_eq!(after(by_grant), ["PC0131", "PC0131"]);
    assert_eq!(
        after(|plant| grant_visit(plant, "control-room-to-pumps")),
        ["PC0131", "PC0131"]
    );
    // What another flow permits at all times is not lost.
    let beside = after(|plant| {
        by_grant(plant);
        let pumps = plant.conduits[&id("control-room-to-pumps")].clone();
        let standing = crate::model::Conduit {
            only_by_grant: false,
            ..pumps
        };
        plant.conduits.insert(id("standing"), standing);
    });
    assert!(!beside.contains(&"PC0131"), "{beside:?}");
}

#[test]
fn a_flow_that_passes_without_the_agent_and_shares_its_connections_with_one_that_is_blocked_is_found() {
    let beside = |pumps: OnAgentLoss, other: OnAgentLoss, limited: bool| {
        let mut plant = waterworks();
        let mut again = modbus(None, &plant, "hmi-1", "plc-7");
        let operations = Operations::from(vec![operation("read-coils", (0, 15))]);
        again.operations = limited.then_some(operations);
        let mut learned = conduit("operations", "control", vec![("coils", again)]);
        learned.on_agent_loss = other;
        plant.conduits.insert(id("learned"), learned);
        let room = plant.conduits.get_mut(&id("control-room-to-pumps")).unwrap();
        room.on_agent_loss = pumps;
        let found = check(&plant, &compile_all(&plant).unwrap(), None);
        let about = found.into_iter().filter(|finding| finding.code == "PC0162");
        about.map(|finding| finding.words).collect::<Vec<_>>()
    };
    use OnAgentLoss::{Block, Pass};
    assert_eq!(
        beside(Pass, Block, true),
        [
            "flow control-room-to-pumps/polling must flow and is to pass while no agent lives, but is blocked where it shares \
             connections with flow learned/coils",
            "flow control-room-to-pumps/setpoints must flow and is to pass while no agent lives, but is blocked where it \
             shares connections with flow learned/coils",
        ]
    );
    assert_eq!(beside(Block, Pass, true).len(), 2, "either way round");
    assert_eq!(beside(Pass, Pass, true), [""; 0]);
    assert_eq!(beside(Block, Block, true), [""; 0]);
    assert_eq!(beside(Pass, Block, false), [""; 0], "the kernel forwards it");
}
