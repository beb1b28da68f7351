//! What the agent takes of memory: by itself, and for the connections that it inspects.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use super::gateway::{self, Inspecting};
use super::{Plant, SERVER, modbus, process};

/// Held at once.
const CONNECTIONS: &str = "1000";
/// Until the agent's start is over in every respect.
const SETTLE: Duration = Duration::from_secs(5);

/// Prints all of it.
pub(super) fn all(plant: &Plant) {
    for flows in [10, 1_000] {
        of_flows(plant, flows);
    }
    of_connections(plant);
}

/// Prints the resident memory of an agent that inspects nothing.
fn of_flows(plant: &Plant, flows: u32) {
    gateway::clear(plant);
    let agent = Inspecting::start(plant, &gateway::plan_of(flows, modbus::PORT, None));
    std::thread::sleep(SETTLE);
    println!(
        "agent idle, {flows} flows in force: {:.1} MB resident, {:.1} MB at most since its start (budget 24, 10 flows)",
        process::resident_mb(agent.id()),
        process::peak_mb(agent.id()).unwrap()
    );
}

/// Prints the agent's resident memory without and with [`CONNECTIONS`], each of which has carried a read.
fn of_connections(plant: &Plant) {
    gateway::clear(plant);
    let program = modbus::compile();
    let _server = modbus::serve(plant, &program);
    let agent = Inspecting::start(
        plant,
        &gateway::plan(modbus::PORT, Some(modbus::rules(modbus::RULES))),
    );
    std::thread::sleep(SETTLE);
    let idle = process::resident_mb(agent.id());
    let port = modbus::PORT.to_string();
    let mut client = plant
        .client
        .command(program.to_str().unwrap())
        .args(["hold", SERVER, &port, CONNECTIONS])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let held = process::resident_mb(agent.id());
    let _ = client.kill();
    let _ = client.wait();
    assert_eq!(line, "held\n", "not all connections came to be");
    println!(
        "agent's resident memory: idle {idle:.1} MB (budget 24), {CONNECTIONS} inspected connections {held:.1} MB (budget 40)"
    );
}
