//! What inspected connections take of the agent's memory.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::gateway::{self, Inspecting};
use super::{Plant, SERVER, modbus};

/// Held at once.
const CONNECTIONS: &str = "1000";

/// Prints the agent's resident memory without and with [`CONNECTIONS`], each of which has carried a read.
pub(super) fn of_connections(plant: &Plant, program: &Path) {
    gateway::clear(plant);
    let _server = modbus::serve(plant, program);
    let agent = Inspecting::start(plant, &gateway::plan(modbus::PORT, Some(modbus::rules())));
    std::thread::sleep(Duration::from_secs(3));
    let idle = agent.resident_mb();
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
    let held = agent.resident_mb();
    let _ = client.kill();
    let _ = client.wait();
    assert_eq!(line, "held\n", "not all connections came to be");
    println!(
        "agent's resident memory: idle {idle:.1} MB (budget 24), {CONNECTIONS} inspected connections {held:.1} MB (budget 40)"
    );
}
