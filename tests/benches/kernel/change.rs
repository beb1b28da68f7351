//! How soon one changed flow of 10,000 is in force, counted from when the agent has the plan.
//!
//! The real reconciler takes signed offers, with a real store on a disk and the real kernel, in its own order: judge,
//! check, store, load. A client sends to two ports of a server all the time; each release moves one flow from one port
//! to the other. In force is the change when a packet has come through to the new port, and none comes to the old one
//! any more: `nft` returns later, since the kernel lets it wait for the memory of what was deleted.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use penstock_agent::audit;
use penstock_agent::enforce::nft::render;
use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::enforce::{EnforceSettings, Enforcer};
use penstock_agent::kernel::{Holds, Kernel, KernelError};
use penstock_agent::reconcile::{Reconciler, SharedStore};
use penstock_agent::store::Store;
use penstock_lab::{LabError, Namespace};
use penstock_policy::ids::{ApproverId, Digest, OperatorId, Revision};
use penstock_policy::merkle::leaf_hash;
use penstock_policy::model::{Approver, ApproverSet};
use penstock_policy::plan::{Capability, Endpoint, Plan};
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{STATEMENT_FORMAT, Statement, Trust, leaf_bytes};
use penstock_policy::terms::{PortRange, Transport};
use penstock_proto::v1::{KernelCounters, PolicyOffer, Signature, SignedRelease};

const FLOWS: u32 = 10_000;
/// The rule that is changed.
const CHANGED: usize = 5_000;
const ROUNDS: u64 = 40;
const PORTS: [u16; 2] = [20_000, 20_001];
/// How often the client sends to each port: how finely the moment is known.
const SEND_EVERY: Duration = Duration::from_micros(500);
/// After a release this long, for late packets to the old port.
const SETTLE: Duration = Duration::from_millis(150);

/// The sockets at both ends.
pub(crate) struct Wires {
    client: UdpSocket,
    servers: [UdpSocket; 2],
}

impl Wires {
    pub(crate) fn open(client: &Namespace, server: &Namespace) -> Result<Self, LabError> {
        Ok(Self {
            client: client.enter(|| UdpSocket::bind("10.1.0.5:40000").unwrap())?,
            servers: server.enter(|| PORTS.map(|port| UdpSocket::bind(("10.2.0.9", port)).unwrap()))?,
        })
    }
}

/// When packets came through to each port: the first since the last look, and the last.
#[derive(Default)]
struct Arrivals {
    first_us: [AtomicU64; 2],
    last_us: [AtomicU64; 2],
    over: AtomicBool,
}

/// The real kernel, and when it was called.
struct Timed {
    enforcer: Enforcer,
    calls: Mutex<Vec<(&'static str, Instant)>>,
}

impl Timed {
    fn note(&self, what: &'static str) {
        self.calls.lock().unwrap().push((what, Instant::now()));
    }
}

impl Kernel for Timed {
    fn capabilities(&self) -> std::collections::BTreeSet<Capability> {
        Kernel::capabilities(&self.enforcer)
    }

    async fn check(&self, plan: Arc<Plan>) -> Result<(), KernelError> {
        self.note("check");
        let done = Kernel::check(&self.enforcer, plan).await;
        self.note("checked");
        done
    }

    async fn apply(&self, plan: Arc<Plan>, revision: Revision) -> Result<Vec<String>, KernelError> {
        self.note("apply");
        let done = Kernel::apply(&self.enforcer, plan, revision).await;
        self.note("applied");
        done
    }

    async fn verify(&self) -> Result<Holds, KernelError> {
        Kernel::verify(&self.enforcer).await
    }

    async fn counters(&self) -> Result<KernelCounters, KernelError> {
        Kernel::counters(&self.enforcer).await
    }
}

/// The one approver.
fn approver() -> (ApproverId, ApproverKey) {
    (ApproverId::new("anna").unwrap(), ApproverKey::from_seed(&[1; 32]))
}

fn trust(plan: &Plan) -> Trust {
    let (name, key) = approver();
    let person = Approver {
        key: key.public(),
        role: None,
    };
    Trust {
        plant: plan.plant.clone(),
        gateway: plan.gateway.clone(),
        approvers: ApproverSet {
            emergency_threshold: None,
            threshold: 1,
            people: BTreeMap::from([(name, person)]),
        },
        floor: Revision(0),
        current: None,
    }
}

fn offer(plan: &Plan, revision: u64, parent: Option<Digest>) -> (Arc<PolicyOffer>, Digest) {
    let bytes = plan.to_bytes();
    let leaf = leaf_bytes(&plan.gateway, Revision(revision), Digest::of(&bytes));
    let statement = Statement {
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        format: STATEMENT_FORMAT.to_owned(),
        plant: plan.plant.clone(),
        revision: Revision(revision),
        parent,
        replaces: Vec::new(),
        document_digest: Digest::of(b"document"),
        plans_root: Digest(leaf_hash(&leaf)),
        gateways: 1,
        approvers: trust(plan).approvers,
        author: OperatorId::new("carla").unwrap(),
        ticket: None,
        reason: "bench".to_owned(),
        created_ms: 1,
    }
    .to_bytes();
    let (name, key) = approver();
    let signature = key.sign(name.clone(), &statement).unwrap();
    let digest = Digest::of(&statement);
    let offer = PolicyOffer {
        release: Some(SignedRelease {
            statement: statement.into(),
            signatures: vec![Signature {
                approver: name.to_string(),
                signature: signature.bytes().to_vec().into(),
                ..Default::default()
            }],
        }),
        plan: bytes.into(),
        leaf_index: 0,
        inclusion_proof: Vec::new(),
        chain: Vec::new(),
        order: None,
        ..PolicyOffer::default()
    };
    (Arc::new(offer), digest)
}

/// The plan whose changed flow leads to this port.
fn plan(port: u16) -> Plan {
    let mut plan = super::plan(FLOWS);
    let host = |address: &str| {
        vec![Endpoint {
            name: "host".into(),
            network: address.parse::<std::net::IpAddr>().unwrap().into(),
        }]
    };
    let rule = &mut plan.rules[CHANGED];
    rule.sources = host("10.1.0.5");
    rule.destinations = host("10.2.0.9");
    rule.transport = Transport::Udp(vec![PortRange::single(port)]);
    plan
}

pub(crate) async fn measure(wires: Wires) {
    Nft::new("nft".into()).load(&render::remove()).await.unwrap();
    let (sender, mut observed) = tokio::sync::mpsc::channel(1024);
    // What is told of the denied packets is taken, and thrown away.
    let told = tokio::spawn(async move { while observed.recv().await.is_some() {} });
    let kernel = Arc::new(Timed {
        enforcer: Enforcer::start(EnforceSettings::default(), sender).unwrap(),
        calls: Mutex::default(),
    });
    // Not on a memory file system: storing is part of what is measured.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let limits = audit::SpoolLimits {
        bytes_max: 64 * 1024 * 1024,
        block_bytes: audit::BLOCK_BYTES,
        free_bytes_min: 0,
    };
    let (trail, _writer) = audit::start(folder.path().to_owned(), limits);
    let store = Arc::new(Mutex::new(Store::open(folder.path())));
    let plans = PORTS.map(plan);
    let (mut reconciler, _view) = Reconciler::new(kernel.clone(), store, trail, Some(trust(&plans[0])));
    reconciler.start().await;

    let (epoch, arrivals) = (Instant::now(), Arc::new(Arrivals::default()));
    let traffic = Traffic::start(wires, epoch, &arrivals);
    let mut phases: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut parent = None;
    for round in 0..=ROUNDS {
        let place = usize::from(round % 2 == 1);
        let (offered, digest) = offer(&plans[place], round + 1, parent);
        parent = Some(digest);
        let times = one(&mut reconciler, &kernel, offered, place, epoch, &arrivals).await;
        // The first one loads all.
        if round > 0 {
            for (phase, ms) in times {
                phases.entry(phase).or_default().push(ms);
            }
        }
    }
    drop(traffic);
    drop(reconciler);
    told.abort();
    tell(phases);
}

/// Offers one release; the milliseconds of its phases.
async fn one(
    reconciler: &mut Reconciler<Timed, SharedStore>,
    kernel: &Timed,
    offered: Arc<PolicyOffer>,
    place: usize,
    epoch: Instant,
    arrivals: &Arrivals,
) -> Vec<(&'static str, f64)> {
    kernel.calls.lock().unwrap().clear();
    arrivals.first_us[place].store(0, Ordering::Relaxed);
    let began = Instant::now();
    reconciler
        .consider((offered, penstock_agent::policy_store::journal::Order::default()))
        .await;
    let ended = Instant::now();
    tokio::time::sleep(SETTLE).await;
    let calls = kernel.calls.lock().unwrap().clone();
    let [
        ("check", check),
        ("checked", checked),
        ("apply", apply),
        ("applied", _),
    ] = calls[..]
    else {
        panic!("the offer was not taken: {calls:?}");
    };
    let at = |us: &AtomicU64| epoch + Duration::from_micros(us.load(Ordering::Relaxed));
    assert_ne!(
        arrivals.first_us[place].load(Ordering::Relaxed),
        0,
        "nothing came to the new port"
    );
    let opened = at(&arrivals.first_us[place]);
    let closed = at(&arrivals.last_us[1 - place]);
    let in_force = opened.max(closed);
    let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e3;
    vec![
        ("1 judged: signatures, inclusion, plan read", ms(began, check)),
        ("2 checked", ms(check, checked)),
        ("3 stored, durable", ms(checked, apply)),
        ("4 loaded, in force for packets", ms(apply, in_force)),
        ("5 loading returns", ms(apply, ended)),
        (HAS_PLAN, ms(check, in_force) - ms(checked, apply)),
        ("7 the same, with storing", ms(check, in_force)),
        ("8 from the offer's arrival", ms(began, in_force)),
    ]
}

/// What the budget is about.
const HAS_PLAN: &str = "6 from having the plan to its force (budget 20 ms)";

/// Packets under way until this is dropped.
struct Traffic(Arc<Arrivals>);

impl Traffic {
    fn start(wires: Wires, epoch: Instant, arrivals: &Arc<Arrivals>) -> Self {
        let Wires { client, servers } = wires;
        let sent = Arc::clone(arrivals);
        std::thread::spawn(move || send(&client, &sent));
        for (place, server) in servers.into_iter().enumerate() {
            let arrivals = Arc::clone(arrivals);
            std::thread::spawn(move || receive(&server, place, epoch, &arrivals));
        }
        Self(Arc::clone(arrivals))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

fn send(client: &UdpSocket, arrivals: &Arrivals) {
    while !arrivals.over.load(Ordering::Relaxed) {
        for port in PORTS {
            // The first ones fail until the neighbours have found each other.
            let _ = client.send_to(b"x", ("10.2.0.9", port));
        }
        std::thread::sleep(SEND_EVERY);
    }
}

fn receive(server: &UdpSocket, place: usize, epoch: Instant, arrivals: &Arrivals) {
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 8];
    while !arrivals.over.load(Ordering::Relaxed) {
        if server.recv(&mut buffer).is_ok() {
            let now = u64::try_from(epoch.elapsed().as_micros()).unwrap();
            arrivals.last_us[place].store(now, Ordering::Relaxed);
            let _ = arrivals.first_us[place].compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn tell(phases: BTreeMap<&str, Vec<f64>>) {
    println!("one changed flow of {FLOWS}, {ROUNDS} releases through the reconciler (median, worst, ms):");
    for (phase, mut times) in phases {
        times.sort_by(f64::total_cmp);
        println!(
            "  {phase:52} {:6.1} {:6.1}",
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
}
