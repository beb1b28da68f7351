//! How long a Modbus read takes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use penstock::lab::Daemon;
use penstock_policy::model::{ModbusOperation, NumberRange, Operations};

use super::gateway::{self, Inspecting};
use super::{GATEWAY, Plant, SERVER, haproxy, median, ratio};

const ROUNDS: usize = 21;
/// Reads of one round.
const READS: &str = "6000";
/// Rules of the inspected flow; the last one is what permits the reads.
const RULES: u32 = 100;
/// The server's port.
pub(super) const PORT: u16 = 502;

/// Builds the client and server in `modbus.c`.
pub(super) fn compile() -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/inspected/modbus.c");
    let program = std::env::temp_dir().join("penstock-bench-modbus");
    let status = Command::new("cc")
        .args(["-O2", "-I/usr/include/modbus", "-o"])
        .arg(&program)
        .args([source, "-lmodbus"])
        .status()
        .expect("cc");
    assert!(
        status.success(),
        "libmodbus's headers are missing: run scripts/setup --bench"
    );
    program
}

/// Starts the server.
pub(super) fn serve(plant: &Plant, program: &Path) -> Daemon {
    let port = PORT.to_string();
    let server = plant
        .server
        .spawn("modbus", program.to_str().unwrap(), &["server", SERVER, &port])
        .unwrap();
    plant
        .server
        .wait_for_tcp(&format!("{SERVER}:{PORT}"), Duration::from_secs(5))
        .unwrap();
    server
}

/// 100 rules for different units and functions, the last of which permits what the client reads.
pub(super) fn rules() -> Operations {
    let one = |first: u32, last: u32| Some(vec![NumberRange { first, last }]);
    let rule = |unit: u32, from: u32| ModbusOperation {
        function: "read-holding-registers".to_owned(),
        units: one(unit, unit),
        addresses: one(from, from + 9),
        read_addresses: None,
        values: None,
        sub_functions: None,
    };
    let others = (1..RULES).map(|n| rule(1 + n % 4, 1000 + 20 * n));
    Operations::ModbusTcp(others.chain([rule(1, 0)]).collect())
}

/// p50 and p99 of `reads` on one connection, in microseconds.
pub(super) fn read_us(plant: &Plant, program: &Path, (address, port): (&str, u16), reads: &str) -> [f64; 2] {
    let arguments = ["client", address, &port.to_string(), reads];
    let text = plant.client.run(program.to_str().unwrap(), &arguments).unwrap();
    let mut times: Vec<f64> = text
        .lines()
        .map(|line| line.parse::<f64>().unwrap() / 1e3)
        .collect();
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

/// Prints p50 and p99 of a read by each way.
pub(super) fn latency(plant: &Plant) {
    let program = compile();
    let _server = serve(plant, &program);
    let inspected = gateway::plan(PORT, Some(rules()));
    // The same kernel rules, which take another port to the inspector: HAProxy beside the agent.
    let beside = gateway::plan(haproxy::PORT + 1, Some(rules()));
    let mut figures = [const { [const { Vec::new() }; 2] }; 4];
    for _ in 0..ROUNDS {
        // Routed, HAProxy, inspected, and HAProxy beside the agent.
        for (place, figures) in figures.iter_mut().enumerate() {
            gateway::clear(plant);
            let (mut _proxy, mut _agent) = (None, None);
            let (address, port) = match place {
                1 | 3 => {
                    _agent = (place == 3).then(|| Inspecting::start(plant, &beside));
                    _proxy = Some(haproxy::start(plant, PORT, "", ""));
                    (GATEWAY, haproxy::PORT)
                }
                2 => {
                    _agent = Some(Inspecting::start(plant, &inspected));
                    (SERVER, PORT)
                }
                _ => (SERVER, PORT),
            };
            let [p50, p99] = read_us(plant, &program, (address, port), READS);
            figures[0].push(p50);
            figures[1].push(p99);
        }
    }
    let [p50, p99] = [0, 1].map(|figure| ratio(&figures[2][figure], &figures[1][figure]));
    println!(
        "Modbus read of 10 registers, libmodbus, {READS} reads a round, median of {ROUNDS} interleaved rounds:"
    );
    let [routed, proxied, inspected, guarded] = figures.map(|both| both.map(median));
    for (name, [p50, p99]) in [
        ("routed, no filter".to_owned(), routed),
        ("HAProxy, TCP mode".to_owned(), proxied),
        ("HAProxy, same kernel rules".to_owned(), guarded),
        (format!("inspected, {RULES} rules"), inspected),
    ] {
        println!("  {name:28} p50 {p50:6.1} us   p99 {p99:6.1} us");
    }
    println!("  inspected to HAProxy, median of the rounds: p50 {p50:.2}, p99 {p99:.2} (budget 1.00)");
}
