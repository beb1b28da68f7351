//! What an agent's start with very many inspected tuples takes, and what a read takes then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::terms::NumberRange;

use super::gateway::{self, Inspecting};
use super::{Plant, SERVER, median, modbus, process, ratio};

const ROUNDS: usize = 5;
/// Connections of one round, one after the other: where their ends happen to run tells more than the plan does.
const CONNECTIONS: usize = 12;
/// Reads on each.
const READS: &str = "1000";
/// Tuples, of one flow each.
const COUNTS: [u32; 2] = [10, 100_000];
/// Until the start is over in every respect.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two looks after the programs that the agent starts.
const LOOK: Duration = Duration::from_millis(5);

/// What the client reads.
fn operations() -> Operations {
    Operations::from(vec![ModbusOperation {
        function: "read-holding-registers".to_owned(),
        units: None,
        addresses: Some(vec![NumberRange { first: 0, last: 99 }]),
        read_addresses: None,
        values: None,
        sub_functions: None,
    }])
}

/// Prints time and memory of a start, and p50 and p99 of a read then, by the number of tuples.
pub(super) fn starts(plant: &Plant) {
    let program = modbus::compile();
    let _server = modbus::serve(plant, &program);
    let plans = COUNTS.map(|count| gateway::plan_of(count, modbus::PORT, Some(operations())));
    // Start, resident, at most, at most of nft, p50, p99.
    let mut figures = [const { [const { Vec::new() }; 6] }; 2];
    for _ in 0..ROUNDS {
        for (plan, figures) in plans.iter().zip(&mut figures) {
            gateway::clear(plant);
            let (agent, loader_mb) = beside_loader(|| Inspecting::start(plant, plan));
            std::thread::sleep(SETTLE);
            let reads: Vec<[f64; 2]> = (0..CONNECTIONS)
                .map(|_| modbus::read_us(plant, &program, (SERVER, modbus::PORT), READS))
                .collect();
            let [p50, p99] = [0, 1].map(|place| median(reads.iter().map(|both| both[place]).collect()));
            let round = [
                agent.start.as_secs_f64(),
                process::resident_mb(agent.id()),
                process::peak_mb(agent.id()).unwrap(),
                loader_mb,
                p50,
                p99,
            ];
            for (figures, figure) in figures.iter_mut().zip(round) {
                figures.push(figure);
            }
        }
    }
    gateway::clear(plant);
    println!(
        "an agent's start with a stored plan of inspected tuples, one flow each, and Modbus reads then, median of {ROUNDS} \
         interleaved rounds:"
    );
    for (count, figures) in COUNTS.iter().zip(&figures) {
        let [start, resident, peak, loader, p50, p99] = figures.clone().map(median);
        println!(
            "  {count:6} tuples: in force after {start:6.3} s; {resident:.1} MB resident, {peak:.1} MB at most, nft {loader:.1} \
             MB at most; read p50 {p50:.1} us, p99 {p99:.1} us"
        );
    }
    let [start, .., p50, p99] =
        [0, 1, 2, 3, 4, 5].map(|figure| ratio(&figures[1][figure], &figures[0][figure]));
    println!(
        "  {} to {} tuples, median of the rounds: start {start:.1}, read p50 {p50:.2}, p99 {p99:.2}",
        COUNTS[1], COUNTS[0]
    );
}

/// What `work` gives, and the most memory, in megabytes, that a running `nft` was seen to take meanwhile.
fn beside_loader<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut most = 0.0_f64;
            while !over.load(Ordering::Relaxed) {
                for id in process::named("nft") {
                    most = most.max(process::peak_mb(id).unwrap_or(0.0));
                }
                std::thread::sleep(LOOK);
            }
            most
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        (done, looking.join().unwrap())
    })
}
