//! How many new connections a second come to their first answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use super::gateway::{self, Inspecting};
use super::{GATEWAY, Plant, SERVER, haproxy, median, modbus, process, ratio};

const ROUNDS: usize = 15;
/// Connections of one round, not counted those that warm it up. An ended connection keeps its port for a minute: all
/// rounds together stay well below the ports that the client has.
const CONNECTIONS: usize = 500;
/// At once.
const CLIENTS: usize = 8;
/// Read ten holding registers of unit 1, from 0 on.
const REQUEST: [u8; 12] = [0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 10];
/// Header, function, count, and the registers.
const ANSWER_BYTES: usize = 29;

/// How connections of one kind are made.
pub(super) trait Dial: Fn() + Sync {}
impl<F: Fn() + Sync> Dial for F {}

/// Connections a second, of `count` that [`CLIENTS`] clients make and end one after the other.
pub(super) fn rate(plant: &Plant, count: usize, dial: impl Dial) -> f64 {
    let all = || {
        let began = Instant::now();
        // A thread belongs to the namespace of the thread that starts it.
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| (0..count / CLIENTS).for_each(|_| dial()));
            }
        });
        (count / CLIENTS * CLIENTS) as f64 / began.elapsed().as_secs_f64()
    };
    plant.client.enter(all).unwrap()
}

/// Prints the rates of plain Modbus/TCP connections.
pub(super) fn rates(plant: &Plant) {
    let program = modbus::compile();
    let _server = modbus::serve(plant, &program);
    let inspected = gateway::plan(modbus::PORT, Some(modbus::rules(modbus::RULES)));
    // The same kernel rules, which take another port to the inspector.
    let beside = gateway::plan(haproxy::PORT + 1, Some(modbus::rules(modbus::RULES)));
    let names = ["HAProxy", "inspected", "HAProxy, same kernel rules"];
    let mut figures = names.map(Figures::new);
    for _ in 0..ROUNDS {
        for (place, figures) in figures.iter_mut().enumerate() {
            gateway::clear(plant);
            let agent = match place {
                0 => None,
                1 => Some(Inspecting::start(plant, &inspected)),
                _ => Some(Inspecting::start(plant, &beside)),
            };
            let proxy =
                (place != 1).then(|| haproxy::start(plant, modbus::PORT, haproxy::Settings::default()));
            let (address, id) = match (&proxy, &agent) {
                (Some(proxy), _) => ((GATEWAY, haproxy::PORT), proxy.id()),
                (None, Some(agent)) => ((SERVER, modbus::PORT), agent.id()),
                (None, None) => unreachable!(),
            };
            let dial = || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(&REQUEST).unwrap();
                stream.read_exact(&mut [0; ANSWER_BYTES]).unwrap();
            };
            rate(plant, CONNECTIONS / 10, dial);
            figures.measure(id, || rate(plant, CONNECTIONS, dial));
        }
    }
    println!(
        "new Modbus/TCP connections up to their first answer, {CLIENTS} at once, {CONNECTIONS} a round, median of {ROUNDS} \
         interleaved rounds:"
    );
    print(&figures, CONNECTIONS);
}

/// What one way gave, round by round.
pub(super) struct Figures {
    name: &'static str,
    rates: Vec<f64>,
    /// Of the gateway's process.
    processor_seconds: f64,
}

impl Figures {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            rates: Vec::new(),
            processor_seconds: 0.0,
        }
    }

    /// A round of `work`, which gives a rate, through process `id`.
    pub(super) fn measure(&mut self, id: u32, work: impl FnOnce() -> f64) {
        let before = process::processor_seconds(id);
        self.rates.push(work());
        self.processor_seconds += process::processor_seconds(id) - before;
    }

    /// For each of the `count` of a round.
    fn processor_us(&self, count: usize) -> f64 {
        self.processor_seconds * 1e6 / (self.rates.len() * count) as f64
    }
}

/// Prints what the ways gave, of `count` a round: the first is HAProxy's, the second the agent's.
pub(super) fn print(figures: &[Figures], count: usize) {
    for way in figures {
        println!(
            "  {:28} {:7.0} /s   {:6.1} us of its processor time each",
            way.name,
            median(way.rates.clone()),
            way.processor_us(count)
        );
    }
    let [proxied, inspected, ..] = figures else { return };
    println!(
        "  inspected to HAProxy, median of the rounds: rate {:.2}; processor time {:.2}",
        ratio(&inspected.rates, &proxied.rates),
        inspected.processor_us(count) / proxied.processor_us(count)
    );
}
