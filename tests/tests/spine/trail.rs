//! kill -9 of agent and coordinator, again and again under load, at moments that a seed chooses; and an oracle of the trail.
//!
//! The load: somebody at the cabinet who is answered one deed after another, each with a text of its own, and packets that the kernel
//! refuses. The oracle knows which deeds were asked for and answered, which packets were sent, and reads the gateway's spool as each
//! dead agent left it. In the end the coordinator has to hold exactly that, byte for byte, in one chain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use penstock_agent::audit::spool::Spool;
use penstock_agent::audit::{BLOCK_BYTES, Position, SpoolLimits};
use penstock_agent::local::ask::{standing, steer};
use penstock_agent::local::{Ask, LocalSettings};
use penstock_coordinator::store::{BlockFilter, Store};
use penstock_lab::{Daemon, wait_until};
use penstock_proto::audit::{Head, read_body};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditBlock, Decision};
use proptest::test_runner::Config;
use rusqlite::{Connection, OpenFlags};

use super::killed::Moments;
use super::world::{PATIENCE, World, test};

/// An answer that took longer may have come though the disk had not: the agent keeps nobody from steering.
const SURELY_DURABLE: Duration = Duration::from_millis(1900);
/// Where packets go that nothing permits.
const PORTS: std::ops::Range<u16> = 20_000..60_000;
const UDP: u32 = 17;

/// What was asked of the agent at the cabinet, one after the other.
#[derive(Default)]
struct Deeds {
    asked: AtomicU64,
    answered: Mutex<BTreeSet<u64>>,
    /// How often what a new agent knew was held against what the last one had answered.
    compared: AtomicU64,
}

fn reason(number: u64) -> String {
    format!(
        "deed {number} {}",
        "x".repeat(usize::try_from(number * 37 % 400).unwrap())
    )
}

fn number_of(reason: &str) -> Option<u64> {
    reason.split(' ').nth(1)?.parse().ok()
}

impl Deeds {
    /// Asks until it is to stop. What an agent that comes up knows is what was answered last, or asked for since.
    fn ask(&self, settings: &LocalSettings, stop: &AtomicBool) {
        let mut answers = false;
        while !stop.load(SeqCst) {
            if !answers && !self.is_remembered(settings) {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let number = self.asked.fetch_add(1, SeqCst);
            let began = Instant::now();
            let reason = reason(number);
            answers = steer(settings, Some("anna".to_owned()), Ask::Hold { reason }).is_ok();
            if answers && began.elapsed() < SURELY_DURABLE {
                self.answered.lock().unwrap().insert(number);
            }
        }
    }

    /// Whether an agent answers and has its policy in force; then it knows its hold.
    fn is_remembered(&self, settings: &LocalSettings) -> bool {
        let Ok(standing) = standing(settings) else {
            return false;
        };
        if standing.in_kernel.is_none() {
            return false;
        }
        if let Some(answered) = self.answered.lock().unwrap().last() {
            let hold = standing
                .change
                .hold
                .expect("a hold that was answered outlives the agent");
            let number = number_of(&hold.why).unwrap();
            assert_eq!(hold.why, reason(number));
            let known = *answered..self.asked.load(SeqCst);
            assert!(known.contains(&number), "deed {number} is none of {known:?}");
            self.compared.fetch_add(1, SeqCst);
        }
        true
    }
}

/// How many packets were sent to each port.
type Sent = Mutex<BTreeMap<u32, u64>>;

/// Sends packets that the kernel refuses, some hundreds a second.
fn knock(socket: &UdpSocket, (sent, last): (&Sent, &AtomicU16), stop: &AtomicBool) {
    for port in PORTS.cycle() {
        if stop.load(SeqCst) {
            return;
        }
        last.store(port, SeqCst);
        *sent.lock().unwrap().entry(port.into()).or_default() += 1;
        socket.send_to(&[0], ("10.20.4.7", port)).unwrap();
        if port % 8 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Blocks by epoch and sequence.
type Blocks = BTreeMap<(u64, u64), AuditBlock>;

/// The gateway's spool as it was each time that its agent was dead.
struct Left {
    state: PathBuf,
    folder: PathBuf,
    blocks: Blocks,
    looks: u64,
}

impl Left {
    /// Takes in what is in the spool now: what was there before stays what it was.
    fn look(&mut self) {
        self.looks += 1;
        let copy = self.folder.join(format!("spool-{}", self.looks));
        copy_folder(&self.state.join("trail"), &copy.join("trail"));
        let mark = "spool.mark";
        if self.state.join(mark).exists() {
            std::fs::copy(self.state.join(mark), copy.join(mark)).unwrap();
        }
        let limits = SpoolLimits {
            bytes_max: 8_388_608,
            block_bytes: BLOCK_BYTES,
            free_bytes_min: 0,
        };
        let (mut spool, begun) = Spool::open(&copy, limits, 1).unwrap();
        assert!(begun.is_none(), "{begun:?}");
        assert_eq!(spool.state().lost_events, 0);
        let held = spool.read(Position::default(), usize::MAX, usize::MAX).unwrap();
        let newest = self.blocks.keys().last().copied();
        assert!(held.last().map(position) >= newest, "what was durable is there");
        for block in held {
            let before = self.blocks.insert(position(&block), block.clone());
            assert!(
                before.is_none_or(|before| before == block),
                "{:?}",
                position(&block)
            );
        }
        drop(spool);
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

fn position(block: &AuditBlock) -> (u64, u64) {
    (block.epoch, block.sequence)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What came to the coordinator last, also while it runs.
fn arrived(database: &Path) -> Option<Vec<Kind>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags).ok()?;
    let bodies = "SELECT body FROM block JOIN source ON source.id = block.source \
                  WHERE source.name = 'gw-1' ORDER BY block.id DESC LIMIT 50";
    let mut statement = connection.prepare(bodies).ok()?;
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).ok()?;
    let events = rows
        .map_while(Result::ok)
        .flat_map(|body| read_body(&body).unwrap().events);
    Some(events.filter_map(|event| event.kind).collect())
}

/// The number of the deed that an event speaks of; what it says has to be all of that.
fn deed(kind: &Kind) -> Option<u64> {
    let Kind::Policy(event) = kind else { return None };
    let (_, said) = event.message.split_once(" at the gateway: ")?;
    let number = number_of(said)?;
    assert_eq!(
        event.message,
        format!("root (said to be anna) at the gateway: {}", reason(number))
    );
    (event.step == "hold").then_some(number)
}

/// What the coordinator holds of a source, in one chain from its beginning.
fn stored(database: &Path, source: &str) -> Blocks {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let filter = BlockFilter {
        source: Some(source.to_owned()),
        ..BlockFilter::default()
    };
    let stored = runtime.block_on(async {
        let store = Store::open(database).unwrap();
        store.blocks(filter, usize::MAX >> 1).await.unwrap()
    });
    let mut blocks = Blocks::new();
    for (block, sequence) in stored.into_iter().zip(0..) {
        assert_eq!(
            (block.epoch, block.sequence),
            (1, sequence),
            "one chain without a gap"
        );
        let block = AuditBlock {
            epoch: block.epoch,
            sequence,
            previous_digest: Default::default(),
            body: block.body,
        };
        blocks.insert(position(&block), block);
    }
    blocks
}

#[test]
fn agent_and_coordinator_killed_again_and_again_lose_and_invent_nothing_of_what_was_acknowledged() {
    test(
        "trail::agent_and_coordinator_killed_again_and_again_lose_and_invent_nothing_of_what_was_acknowledged",
        |lab| {
            let state = lab.directory().join("state");
            let (world, mut coordinator) = World::new(lab, &state);
            let mut agent = world.start_agent();
            world.wait_for_effective(world.release(true));
            let load = Load::of(&world, &state);
            let mut left = Left {
                state,
                folder: lab.directory().to_owned(),
                blocks: Blocks::new(),
                looks: 0,
            };
            let database = PathBuf::from(world.path("coordinator/penstock.db"));
            std::thread::scope(|scope| {
                scope.spawn(|| load.deeds.ask(&load.cabinet, &load.stop));
                scope.spawn(|| knock(&load.socket, (&load.sent, &load.last_port), &load.stop));
                // Whatever fails, the load ends.
                let _ends = Ends(&load.stop);
                let mut moments = Moments::new();
                let rounds = Config::default().cases / 10;
                let began = Instant::now();
                for round in 0..rounds {
                    moments.wait(200);
                    kill_twice(
                        round,
                        &world,
                        (&mut agent, &mut coordinator),
                        (&mut moments, &mut left),
                    );
                    // News flows again, behind all that came before.
                    let fresh = load.deeds.asked.load(SeqCst);
                    wait_until("a deed that was asked for since", PATIENCE, || {
                        let arrived = arrived(&database).unwrap_or_default();
                        arrived.iter().filter_map(deed).max() >= Some(fresh)
                    })
                    .unwrap_or_else(|error| panic!("{error}: {}\n{}", agent.log(), coordinator.log()));
                }
                println!("{} kills in {:.1?}", rounds * 2, began.elapsed());
            });
            let last = u32::from(load.last_port.load(SeqCst));
            wait_until("the last packet", PATIENCE, || {
                let arrived = arrived(&database).unwrap_or_default();
                arrived
                    .iter()
                    .any(|kind| matches!(kind, Kind::Verdict(verdict) if verdict.port == last))
            })
            .unwrap_or_else(|error| panic!("{error}: {}", agent.log()));
            // It is found by who searches, too.
            let search = [
                "audit", "search", "--source", "gw-1", "--kind", "policy", "--limit", "100000",
            ];
            let found = world.penstock("engineer", &search);
            let found = found["records"].as_array().unwrap();
            let found = found
                .iter()
                .filter(|record| record["event"]["step"] == "hold")
                .count();
            agent.kill();
            left.look();
            coordinator.kill();
            load.judge(&left.blocks, &stored(&database, "gw-1"), found);
            let own = stored(&database, "coordinator/c1");
            let complains = events(&own).any(|kind| matches!(kind, Kind::Trail(_)));
            assert!(!complains, "the coordinator saw no gap and no fork");
        },
    );
}

/// What is asked and sent while programs are killed.
struct Load {
    cabinet: LocalSettings,
    socket: UdpSocket,
    deeds: Deeds,
    sent: Sent,
    last_port: AtomicU16,
    stop: AtomicBool,
}

/// Ends the load when it goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn events(blocks: &Blocks) -> impl Iterator<Item = Kind> {
    let bodies = blocks
        .values()
        .flat_map(|block| read_body(&block.body).unwrap().events);
    bodies.map(|event| event.kind.unwrap())
}

impl Load {
    fn of(world: &World, state: &Path) -> Self {
        let bound = world.desk.enter(|| UdpSocket::bind("10.1.0.66:0").unwrap());
        Self {
            cabinet: LocalSettings {
                socket: state.join("local.sock"),
                group: None,
            },
            socket: bound.unwrap(),
            deeds: Deeds::default(),
            sent: Sent::default(),
            last_port: AtomicU16::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Holds what the coordinator has against what the gateway's disk had, and against what was done.
    fn judge(&self, left: &Blocks, stored: &Blocks, found: usize) {
        let end = stored.keys().last().unwrap();
        let mut head: Option<Head> = None;
        for (at, block) in left {
            let accepted = Head::accept(head.as_ref(), block).unwrap();
            assert_eq!(accepted.missing, 0, "before {at:?}");
            head = Some(accepted.head);
            assert!(
                at > end || stored[at].body == block.body,
                "{at:?} is as the gateway wrote it"
            );
        }
        assert!(
            stored.keys().all(|at| left.contains_key(at)),
            "the gateway wrote all of it"
        );

        let told: Vec<_> = events(stored).filter_map(|kind| deed(&kind)).collect();
        let once: BTreeSet<_> = told.iter().copied().collect();
        let answered = self.deeds.answered.lock().unwrap();
        assert_eq!(told.len(), once.len(), "each deed stands there once");
        let missing: Vec<_> = answered.difference(&once).collect();
        // The last ones may have come after the coordinator died, and are on the gateway then.
        let unsent: BTreeSet<_> = events(left).filter_map(|kind| deed(&kind)).collect();
        assert!(
            missing.iter().all(|number| unsent.contains(number)),
            "{missing:?}"
        );
        assert!(
            once.last() < Some(&self.deeds.asked.load(SeqCst)),
            "none was invented"
        );
        assert!(
            told.len() - found < 10,
            "{found} of {} are found by a search",
            told.len()
        );

        let sent = self.sent.lock().unwrap();
        let (mut reported, mut lost) = (BTreeMap::<u32, u64>::new(), 0);
        for kind in events(stored) {
            match kind {
                Kind::Verdict(verdict) if verdict.protocol == UDP && sent.contains_key(&verdict.port) => {
                    assert_eq!(verdict.decision(), Decision::Deny, "{verdict:?}");
                    *reported.entry(verdict.port).or_default() += verdict.count;
                }
                Kind::Loss(loss) => lost += loss.events,
                _ => {}
            }
        }
        assert!(
            reported.iter().all(|(port, count)| *count <= sent[port]),
            "{reported:?}"
        );
        let (all, reported): (u64, u64) = (sent.values().sum(), reported.values().sum());
        // An agent that dies between the report of what nobody heard and its account leaves the next one to report it again.
        assert!(lost < all * 8, "{lost} counted as lost of {all} packets");
        assert!(
            reported > 0 && reported + lost >= all,
            "{reported} and {lost} of {all} packets"
        );
        println!(
            "{} deeds answered, {} asked; {all} packets, {reported} reported, {lost} counted as lost; {} blocks; {} memories",
            answered.len(),
            self.deeds.asked.load(SeqCst),
            stored.len(),
            self.deeds.compared.load(SeqCst),
        );
    }
}

/// Two of the programs' deaths; both come up again. The spool is looked at while no agent works in it.
fn kill_twice(
    round: u32,
    world: &World,
    (agent, coordinator): (&mut Daemon, &mut Daemon),
    (moments, left): (&mut Moments, &mut Left),
) {
    match round % 4 {
        // The second time while it comes up.
        0 => {
            for _ in 0..2 {
                moments.wait(150);
                agent.kill();
                left.look();
                *agent = world.start_agent();
            }
        }
        1 => {
            for _ in 0..2 {
                moments.wait(250);
                coordinator.kill();
                *coordinator = world.spawn_coordinator();
            }
        }
        // One while the other is away.
        2 => {
            coordinator.kill();
            moments.wait(200);
            agent.kill();
            left.look();
            *coordinator = world.spawn_coordinator();
            moments.wait(200);
            *agent = world.start_agent();
        }
        // Amid an upload of what waited.
        _ => {
            agent.kill();
            left.look();
            *agent = world.start_agent();
            moments.wait(600);
            coordinator.kill();
            *coordinator = world.spawn_coordinator();
        }
    }
}
