//! A tunnel between two gateways against its peers, interleaved in one run over the same namespaces: routed in the clear with no filter, through
//! WireGuard as a program (`wireguard-go`) or in the kernel where that has it, and through a tunnel of two real agents, which judge each packet twice.
//!
//! - `bulk`: one TCP stream.
//! - `small`: datagrams of 64 bytes as fast as they can be sent: how many of them arrive.
//! - `latency`: the round trip of a ping.
//!
//! Each datagram between the gateways is a frame of its own, as on a cable. Run by `make bench`; needs iperf3 and WireGuard, which
//! `scripts/setup --bench` installs. `PENSTOCK_BENCH=bulk` runs that part alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub
)]

#[path = "../../tests/tunnel/pki.rs"]
mod pki;
#[path = "../inspected/process.rs"]
mod process;
#[path = "../../tests/tunnel/program.rs"]
mod program;
mod wireguard;
#[path = "../../tests/tunnel/world.rs"]
mod world;

use penstock_lab::{Lab, sandbox};

use self::program::Program;
use self::wireguard::WireGuard;
use self::world::{PATIENCE, SOUTH, World};

const ROUNDS: usize = 5;
/// Of one stream or flood.
const SECONDS: &str = "3";
/// Of one round.
const PINGS: &str = "1000";

/// How packets get from one gateway to the other.
#[derive(Clone, Copy)]
enum Way {
    Routed,
    WireGuard,
    Tunnelled,
}

const WAYS: [Way; 3] = [Way::Routed, Way::WireGuard, Way::Tunnelled];
const NAMES: [&str; 3] = ["routed in the clear", "WireGuard", "tunnel"];

/// A way that is open.
enum Running<'a> {
    Routed,
    WireGuard(WireGuard<'a>),
    Tunnelled(Box<[Program<'a>; 2]>),
}

impl<'a> Running<'a> {
    fn open(world: &'a World, way: Way) -> Self {
        world.clear();
        let running = match way {
            Way::Routed => Self::Routed,
            Way::WireGuard => Self::WireGuard(WireGuard::start(world)),
            Way::Tunnelled => Self::Tunnelled(Box::new(
                ["gw-north", "gw-south"].map(|gateway| Program::start(world, gateway)),
            )),
        };
        world.wait_for_pings(true);
        running
    }

    /// Processor time of both gateways' processes, in seconds; of the kernel's own there is none.
    fn processor_seconds(&self) -> f64 {
        let ids = match self {
            Self::Routed => Vec::new(),
            Self::WireGuard(wireguard) => wireguard.ids(),
            Self::Tunnelled(agents) => agents.iter().map(Program::id).collect(),
        };
        ids.into_iter().map(process::processor_seconds).sum()
    }
}

/// What the ways gave, round by round.
struct Figures {
    rounds: [Vec<f64>; 3],
    processor: [f64; 3],
}

impl Figures {
    fn measure(world: &World, measure: impl Fn() -> f64) -> Self {
        let mut figures = Self {
            rounds: [const { Vec::new() }; 3],
            processor: [0.0; 3],
        };
        for _ in 0..ROUNDS {
            for (place, way) in WAYS.into_iter().enumerate() {
                let running = Running::open(world, way);
                let before = running.processor_seconds();
                figures.rounds[place].push(measure());
                figures.processor[place] += running.processor_seconds() - before;
            }
        }
        figures
    }

    fn print(&self, what: &str, unit: &str) {
        println!("{what}, median of {ROUNDS} interleaved rounds:");
        for ((name, rounds), processor) in NAMES.iter().zip(&self.rounds).zip(self.processor) {
            println!(
                "  {name:20} {:10.1} {unit}   {:5.2} s of the gateways' processor time a round",
                median(rounds.clone()),
                processor / ROUNDS as f64
            );
        }
        let [routed, wireguard, tunnelled] = &self.rounds;
        println!(
            "  tunnel to WireGuard {:.2}, to routed in the clear {:.2} (medians of the rounds' ratios)",
            ratio(tunnelled, wireguard),
            ratio(tunnelled, routed)
        );
    }
}

/// Measures, and prints what it measured.
type Part = fn(&World);

const PARTS: &[(&str, Part)] = &[("bulk", bulk), ("small", small), ("latency", latency)];

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a bench: cargo bench -p penstock-tests --bench tunnel");
        return;
    }
    let selected = std::env::var("PENSTOCK_BENCH").ok();
    let parts: Vec<_> = PARTS
        .iter()
        .filter(|(name, _)| selected.as_deref().is_none_or(|selected| selected == *name))
        .collect();
    let names: Vec<_> = PARTS.iter().map(|(name, _)| name).collect();
    assert!(!parts.is_empty(), "PENSTOCK_BENCH is none of {names:?}");
    if !sandbox::inside() {
        let status = sandbox::reexecute(&["--bench"]).unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    sandbox::prepare().unwrap();
    let lab = Lab::new("/run/penstock-bench").unwrap();
    let world = World::new(&lab);
    println!("WireGuard is {}", wireguard::kind(&world));
    for (_, measure) in parts {
        measure(&world);
    }
}

/// What `iperf3` says of sending from the north to the south.
fn iperf(world: &World, arguments: &[&str]) -> serde_json::Value {
    let server = world
        .south
        .spawn("iperf-server", "iperf3", &["-s", "-1", "--forceflush"])
        .unwrap();
    let listens = format!("{SOUTH}:5201");
    let began = std::time::Instant::now();
    while !world
        .south
        .run("ss", &["-Hltn", "sport = :5201"])
        .unwrap()
        .contains("5201")
    {
        assert!(began.elapsed() < PATIENCE, "{listens}: {}", server.log());
    }
    let said = world
        .north
        .run(
            "iperf3",
            &[&["-J", "-c", SOUTH, "-t", SECONDS], arguments].concat(),
        )
        .unwrap();
    serde_json::from_str(&said).unwrap()
}

fn bulk(world: &World) {
    let figures = Figures::measure(world, || {
        let said = iperf(world, &[]);
        said["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
    });
    figures.print("one TCP stream", "Mbit/s");
}

fn small(world: &World) {
    let figures = Figures::measure(world, || {
        let said = iperf(world, &["-u", "-b", "0", "-l", "64"]);
        let sum = &said["end"]["sum"];
        let [packets, lost, seconds] =
            ["packets", "lost_packets", "seconds"].map(|name| sum[name].as_f64().unwrap());
        (packets - lost) / seconds
    });
    figures.print("datagrams of 64 bytes that arrive", "/s");
}

fn latency(world: &World) {
    let rounds = std::sync::Mutex::new(Vec::new());
    let figures = Figures::measure(world, || {
        let (_, said) = world.ping(&["-c", PINGS, "-i", "0.001", "-W", "2", SOUTH]);
        let mut times: Vec<f64> = said
            .lines()
            .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
            .collect();
        assert!(times.len() > 900, "{said}");
        times.sort_by(f64::total_cmp);
        rounds.lock().unwrap().push(times[times.len() * 99 / 100] * 1e3);
        times[times.len() / 2] * 1e3
    });
    figures.print(&format!("the middle of {PINGS} pings' round trips"), "us");
    let rounds = rounds.into_inner().unwrap();
    let mut slow = [const { Vec::new() }; 3];
    for (number, time) in rounds.into_iter().enumerate() {
        slow[number % 3].push(time);
    }
    let slow = Figures {
        rounds: slow,
        processor: figures.processor,
    };
    slow.print("of which 99 of 100 are faster than", "us");
}

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The middle of what each round says of `one` to `other`: a machine that is busy for a while is so for both.
fn ratio(one: &[f64], other: &[f64]) -> f64 {
    median(one.iter().zip(other).map(|(one, other)| one / other).collect())
}
