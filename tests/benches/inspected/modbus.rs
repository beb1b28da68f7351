//! How long a Modbus read takes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use penstock_lab::Daemon;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::terms::NumberRange;

use super::gateway::{self, Inspecting};
use super::{GATEWAY, Plant, SERVER, haproxy, median, process, ratio};

const ROUNDS: usize = 21;
/// Reads of one round.
const READS: usize = 6000;
/// Reads that the client makes before those that it times.
pub(super) const WARM_UP: usize = 500;
/// What a controller of some age takes for an answer.
const SLOW: Duration = Duration::from_millis(5);
const SLOW_ROUNDS: usize = 5;
const SLOW_READS: usize = 500;
/// Programs that never rest beside those that are measured.
const LOAD: usize = 4;
const LOADED_ROUNDS: usize = 9;
const LOADED_READS: usize = 500;
/// Rules of the inspected flow; the last one is what permits the reads.
pub(super) const RULES: u32 = 100;
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

/// Starts a server that answers at once.
pub(super) fn serve(plant: &Plant, program: &Path) -> Daemon {
    serve_after(plant, program, Duration::ZERO)
}

/// Starts a server that answers each request after `delay`.
fn serve_after(plant: &Plant, program: &Path, delay: Duration) -> Daemon {
    let [port, delay] = [PORT.to_string(), delay.as_micros().to_string()];
    let arguments = ["server", SERVER, &port, &delay];
    let server = plant
        .server
        .spawn("modbus", program.to_str().unwrap(), &arguments)
        .unwrap();
    plant
        .server
        .wait_for_tcp(&format!("{SERVER}:{PORT}"), Duration::from_secs(5))
        .unwrap();
    server
}

/// So many rules for different units and functions, the last of which permits what the client reads.
pub(super) fn rules(count: u32) -> Operations {
    let others = (1..count).map(of_others);
    Operations::from(others.chain([rule(1, 0)]).collect::<Vec<_>>())
}

/// So many rules, none of which permits what the client reads.
pub(super) fn others(count: u32) -> Operations {
    Operations::from((1..=count).map(of_others).collect::<Vec<_>>())
}

fn of_others(n: u32) -> ModbusOperation {
    rule(1 + n % 4, 1000 + 20 * n)
}

fn rule(unit: u32, from: u32) -> ModbusOperation {
    let one = |first: u32, last: u32| Some(vec![NumberRange { first, last }]);
    ModbusOperation {
        function: "read-holding-registers".to_owned(),
        units: one(unit, unit),
        addresses: one(from, from + 9),
        read_addresses: None,
        values: None,
        sub_functions: None,
    }
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

/// Prints how long a read takes by each way, from a server that answers at once and from one that takes its time.
pub(super) fn latency(plant: &Plant) {
    let program = compile();
    for (delay, rounds, reads) in [(Duration::ZERO, ROUNDS, READS), (SLOW, SLOW_ROUNDS, SLOW_READS)] {
        let _server = serve_after(plant, &program, delay);
        println!(
            "Modbus read of 10 registers, libmodbus, answered after {} ms, {reads} reads a round, median of {rounds} \
             interleaved rounds:",
            delay.as_millis()
        );
        by_each_way(plant, &program, rounds, reads);
    }
}

/// Prints how long a read takes by each way where [`LOAD`] other programs want the processors all the time.
pub(super) fn latency_beside_load(plant: &Plant) {
    let program = compile();
    let _server = serve(plant, &program);
    println!(
        "the same beside {LOAD} programs that never rest, {LOADED_READS} reads a round, median of {LOADED_ROUNDS} interleaved \
         rounds:"
    );
    let load: Vec<_> = (0..LOAD).map(|_| Restless::start()).collect();
    by_each_way(plant, &program, LOADED_ROUNDS, LOADED_READS);
    drop(load);
}

/// A program that never rests, until it is dropped.
struct Restless(Child);

impl Restless {
    fn start() -> Self {
        Self(
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn by_each_way(plant: &Plant, program: &Path, rounds: usize, reads: usize) {
    let inspected = gateway::plan(PORT, Some(rules(RULES)));
    let observed = gateway::observing(inspected.clone());
    // The same kernel rules, which take another port to the inspector: HAProxy beside the agent.
    let beside = gateway::plan(haproxy::PORT + 1, Some(rules(RULES)));
    let asleep = haproxy::Settings::default();
    let ways = [
        ("routed, no filter", None, None),
        ("HAProxy, TCP mode", None, Some(asleep)),
        ("inspected, 100 rules", Some(&inspected), None),
        ("HAProxy, same kernel rules", Some(&beside), Some(asleep)),
        ("HAProxy that never sleeps", None, Some(haproxy::NEVER_SLEEPING)),
        ("observed, 100 rules", Some(&observed), None),
    ];
    // p50, p99, processor time of the gateway's process.
    let mut figures = ways.map(|_| [const { Vec::new() }; 3]);
    for _ in 0..rounds {
        for ((_, plan, settings), figures) in ways.iter().zip(&mut figures) {
            gateway::clear(plant);
            let agent = plan.map(|plan| Inspecting::start(plant, plan));
            let proxy = settings.map(|settings| haproxy::start(plant, PORT, settings));
            let (address, id) = match (&proxy, &agent) {
                (Some(proxy), _) => ((GATEWAY, haproxy::PORT), Some(proxy.id())),
                (None, agent) => ((SERVER, PORT), agent.as_ref().map(Inspecting::id)),
            };
            let used = || id.map_or(0.0, process::processor_seconds);
            let before = used();
            let [p50, p99] = read_us(plant, program, address, &reads.to_string());
            let processor_us = (used() - before) * 1e6 / (WARM_UP + reads) as f64;
            for (figures, figure) in figures.iter_mut().zip([p50, p99, processor_us]) {
                figures.push(figure);
            }
        }
    }
    for ((name, ..), figures) in ways.iter().zip(&figures) {
        let [p50, p99, processor_us] = figures.clone().map(median);
        println!(
            "  {name:28} p50 {p50:7.1} us   p99 {p99:7.1} us   {processor_us:6.1} us of its processor time"
        );
    }
    let [_, proxied, inspected, beside, _, observed] = figures;
    // What observing adds is what a plain copy adds.
    let [p50, p99, processor] = [0, 1, 2].map(|figure| ratio(&observed[figure], &beside[figure]));
    println!(
        "  observed to HAProxy beside the same kernel rules, median of the rounds: p50 {p50:.2}, p99 {p99:.2}; processor time \
         {processor:.2}"
    );
    let [p50, p99, processor] = [0, 1, 2].map(|figure| ratio(&inspected[figure], &proxied[figure]));
    println!(
        "  inspected to HAProxy, median of the rounds: p50 {p50:.2}, p99 {p99:.2} (budget 1.00); processor time {processor:.2}"
    );
}
