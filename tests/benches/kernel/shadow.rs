//! What a release in its shadow costs the kernel's path: the same traffic with the table in force alone, and with the table of a
//! next plan beside it (issue 12: at least 0.9 of the throughput).
//!
//! One TCP stream, whose packets the kernel handles in large pieces, and single small datagrams, each of which is judged alone:
//! those say what a packet costs. The next plan has the measured flows alike (as most of a plan is from release to
//! release), has them otherwise but permits them, or refuses them. The rounds are short and interleaved, and each begins with another
//! way; a datagram counts when the gateway has sent it on.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use penstock_agent::enforce::nft::render;
use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::enforce::{EnforceSettings, Enforcer};
use penstock_lab::{LabError, Namespace};
use penstock_policy::ids::{FlowId, FlowName, Revision};
use penstock_policy::plan::Plan;
use penstock_policy::terms::{PortRange, Transport};

const FLOWS: u32 = 1000;
const SERVER: (&str, u16) = ("10.2.0.9", 6000);
const ROUNDS: usize = 25;
/// How long each way is measured in a round, ...
const MEASURED: Duration = Duration::from_millis(250);
/// ... and how long after its tables changed.
const SETTLE: Duration = Duration::from_millis(50);
/// Octets of a datagram: what a small request of a fieldbus has.
const DATAGRAM: usize = 18;

/// The sockets at both ends.
pub(crate) struct Wires {
    server: TcpListener,
    datagrams: [UdpSocket; 2],
    client: Namespace,
}

impl Wires {
    pub(crate) fn open(client: &Namespace, server: &Namespace) -> Result<Self, LabError> {
        let at_server = || {
            (
                TcpListener::bind(SERVER).unwrap(),
                UdpSocket::bind(SERVER).unwrap(),
            )
        };
        let (listener, receiver) = server.enter(at_server)?;
        Ok(Self {
            server: listener,
            datagrams: [
                client.enter(|| UdpSocket::bind("10.1.0.5:40001").unwrap())?,
                receiver,
            ],
            client: client.clone(),
        })
    }
}

/// How the next plan has the flows that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Alike,
    Otherwise,
    Refused,
}

/// The ways by name; `None`: no shadow.
const WAYS: [(&str, Option<Next>); 4] = [
    ("table in force alone", None),
    ("shadow that has the flow alike", Some(Next::Alike)),
    ("shadow that has it otherwise", Some(Next::Otherwise)),
    ("shadow that refuses it", Some(Next::Refused)),
];

/// The plan in force, whose last two rules are what is measured.
fn plan() -> Plan {
    let mut plan = super::plan(FLOWS);
    let port = vec![PortRange::single(SERVER.1)];
    let last = plan.rules.last_mut().unwrap();
    last.transport = Transport::Tcp(port.clone());
    let mut datagrams = last.clone();
    datagrams.id = FlowId(FLOWS + 1);
    datagrams.flow = FlowName::new("datagrams").unwrap();
    datagrams.transport = Transport::Udp(port);
    plan.rules.push(datagrams);
    plan
}

fn next(in_force: &Plan, next: Next) -> Plan {
    let mut plan = in_force.clone();
    let measured = plan.rules.len() - 2;
    match next {
        // Another flow goes.
        Next::Alike => drop(plan.rules.remove(100)),
        Next::Otherwise => {
            let ports = vec![PortRange {
                first: SERVER.1,
                last: SERVER.1 + 1,
            }];
            for rule in &mut plan.rules[measured..] {
                rule.transport = match rule.transport {
                    Transport::Tcp(_) => Transport::Tcp(ports.clone()),
                    _ => Transport::Udp(ports.clone()),
                };
            }
        }
        Next::Refused => plan.rules.truncate(measured),
    }
    plan
}

/// Measures both kinds of traffic, and prints what it measured. In the gateway's namespace.
pub(crate) async fn measure(wires: Wires) {
    Nft::new("nft".into()).load(&render::remove()).await.unwrap();
    let (sender, mut observed) = tokio::sync::mpsc::channel(1024);
    let drained = tokio::spawn(async move { while observed.recv().await.is_some() {} });
    let enforcer = Enforcer::start(EnforceSettings::default(), sender).unwrap();
    let in_force = Arc::new(plan());
    enforcer.apply(Arc::clone(&in_force), Revision(1)).await.unwrap();
    let Wires {
        server,
        datagrams,
        client,
    } = wires;
    let stream = Traffic::stream(&server, &client);
    by_each_way(&enforcer, &in_force, ("one TCP stream", "Gbit/s", bits)).await;
    stream.end();
    let datagrams = Traffic::datagrams(datagrams);
    by_each_way(&enforcer, &in_force, ("single datagrams", "Mpackets/s", packets)).await;
    datagrams.end();
    enforcer.shadow(None).await.unwrap();
    drained.abort();
}

/// What a kind of traffic is called, its unit, and how much of it the gateway sent on so far.
type Kind = (&'static str, &'static str, fn([u64; 2]) -> f64);

fn bits([octets, _]: [u64; 2]) -> f64 {
    octets as f64 * 8.0 / 1e9
}

fn packets([_, packets]: [u64; 2]) -> f64 {
    packets as f64 / 1e6
}

async fn by_each_way(enforcer: &Enforcer, in_force: &Plan, (kind, unit, amount): Kind) {
    let nexts = WAYS.map(|(_, way)| way.map(|way| Arc::new(next(in_force, way))));
    let mut rates = WAYS.map(|_| Vec::new());
    for round in 0..ROUNDS {
        for turn in 0..WAYS.len() {
            let place = (round + turn) % WAYS.len();
            let asked = nexts[place].as_ref().map(|next| (Arc::clone(next), Revision(2)));
            enforcer.shadow(asked).await.unwrap();
            tokio::time::sleep(SETTLE).await;
            let (before, began) = (sent_on(), Instant::now());
            tokio::time::sleep(MEASURED).await;
            let (after, took) = (sent_on(), began.elapsed());
            rates[place].push((amount(after) - amount(before)) / took.as_secs_f64());
            // What was measured is what is claimed.
            let report = enforcer.shadowed().await;
            assert_eq!(report.is_some(), nexts[place].is_some());
            if let Some(report) = report {
                let refuses = WAYS[place].1 == Some(Next::Refused);
                assert!(report.judged_packets > 0, "{report:?}");
                assert_eq!(report.would_deny_packets > 0, refuses, "{report:?}");
            }
        }
    }
    println!(
        "{kind} past {FLOWS} flows, median of {ROUNDS} interleaved rounds of {} ms; to the table alone, median of the rounds:",
        MEASURED.as_millis()
    );
    for ((name, way), figures) in WAYS.iter().zip(&rates) {
        let ratio = super::median(
            figures
                .iter()
                .zip(&rates[0])
                .map(|(one, alone)| one / alone)
                .collect(),
        );
        let to_alone = way.map_or_else(String::new, |_| format!("  {ratio:.3} x (budget 0.90)"));
        println!(
            "  {name:32} {:7.3} {unit}{to_alone}",
            super::median(figures.clone())
        );
    }
}

/// Octets and packets that the gateway sent to the server's side so far.
fn sent_on() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lan2:"));
    let fields: Vec<u64> = line
        .unwrap()
        .split_whitespace()
        .map(|field| field.parse().unwrap())
        .collect();
    [fields[8], fields[9]]
}

/// Traffic under way.
struct Traffic {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn stream(server: &TcpListener, client: &Namespace) -> Self {
        let mut from = client.enter(|| TcpStream::connect(SERVER).unwrap()).unwrap();
        let (mut to, _) = server.accept().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let writes = move || {
            let piece = vec![7; 128 * 1024];
            while !is_over.load(Ordering::Relaxed) {
                from.write_all(&piece).unwrap();
            }
        };
        let reads = move || {
            let mut buffer = vec![0; 256 * 1024];
            while to.read(&mut buffer).unwrap() > 0 {}
        };
        Self {
            over,
            threads: vec![std::thread::spawn(writes), std::thread::spawn(reads)],
        }
    }

    fn datagrams([from, to]: [UdpSocket; 2]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let sends = move || {
            while !is_over.load(Ordering::Relaxed) {
                // The first ones fail until the neighbours have found each other.
                let _ = from.send_to(&[7; DATAGRAM], SERVER);
            }
        };
        let is_over = Arc::clone(&over);
        let receives = move || {
            to.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut buffer = [0; 64];
            while !is_over.load(Ordering::Relaxed) {
                let _ = to.recv(&mut buffer);
            }
        };
        Self {
            over,
            threads: vec![std::thread::spawn(sends), std::thread::spawn(receives)],
        }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}
