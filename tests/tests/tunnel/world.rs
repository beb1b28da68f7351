//! Two gateways with a host behind each, and between them a network that is not trusted: a bridge on which everything can be seen, and done.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use penstock_agent::audit::{self, Unwritten};
use penstock_agent::enforce::{EnforceSettings, Enforcer};
use penstock_agent::identity::Identity;
use penstock_agent::inspector::SeatLimits;
use penstock_agent::observed::Observation;
use penstock_agent::reconcile::PolicyView;
use penstock_agent::tunnel::supervisor::Supervisor;
use penstock_lab::{Daemon, Lab, Namespace};
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::Revision;
use penstock_policy::plan::Plan;
use penstock_proto::v1::Fault;
use penstock_proto::withdrawn::{Withdrawn, WithdrawnView};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::pki::Pki;

pub const PLANT: &str = "two-shores";
pub const NORTH: &str = "10.1.0.10";
pub const SOUTH: &str = "10.2.0.10";
pub const SOUTH6: &str = "fd00:2::10";
/// What is waited for at most before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The plan of a gateway, from the document.
pub fn plan(gateway: &str) -> Plan {
    let file = SourceFile::new("plant.yaml", include_str!("plant.yaml"));
    let loaded = penstock_policy::load(&[file], jiff::civil::date(2026, 11, 30));
    let plant = loaded.plant.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    compile_all(&plant)
        .unwrap()
        .remove(&gateway.parse().unwrap())
        .unwrap()
}

pub struct World {
    pub north: Namespace,
    pub south: Namespace,
    pub between: Namespace,
    gateways: [Namespace; 2],
    pub pki: Pki,
    folder: PathBuf,
}

impl World {
    pub fn new(lab: &Lab) -> Self {
        Self::with(lab, Duration::ZERO)
    }

    /// One whose certificates were issued so long ago.
    pub fn with(lab: &Lab, ago: Duration) -> Self {
        drop(tracing_subscriber::fmt().with_test_writer().try_init());
        let [north, south, between, first, second] =
            ["north", "south", "between", "gw-north", "gw-south"].map(|name| lab.namespace(name).unwrap());
        lab.link((&north, "eth0"), (&first, "lan0")).unwrap();
        lab.link((&south, "eth0"), (&second, "lan0")).unwrap();
        lab.link((&first, "wan0"), (&between, "west")).unwrap();
        lab.link((&second, "wan0"), (&between, "east")).unwrap();
        between.bridge("br0", &["west", "east"]).unwrap();
        for (host, gateway, shore, other) in [(&north, &first, 1, 2), (&south, &second, 2, 1)] {
            host.address("eth0", &format!("10.{shore}.0.10/24")).unwrap();
            host.address("eth0", &format!("fd00:{shore}::10/64")).unwrap();
            host.route("default", &format!("10.{shore}.0.1")).unwrap();
            host.route("default", &format!("fd00:{shore}::1")).unwrap();
            gateway.address("lan0", &format!("10.{shore}.0.1/24")).unwrap();
            gateway.address("lan0", &format!("fd00:{shore}::1/64")).unwrap();
            gateway.address("wan0", &format!("203.0.113.{shore}/24")).unwrap();
            gateway.address("wan0", &format!("fd00:f::{shore}/64")).unwrap();
            // The way in the clear is there, and open but for the rules.
            gateway
                .route(&format!("10.{other}.0.0/24"), &format!("203.0.113.{other}"))
                .unwrap();
            gateway
                .route(&format!("fd00:{other}::/64"), &format!("fd00:f::{other}"))
                .unwrap();
            gateway.forward().unwrap();
            // Each datagram is a frame, as on a cable.
            gateway.ip(&["link", "set", "wan0", "gso_max_segs", "1"]).unwrap();
        }
        Self {
            pki: Pki::issuing(&lab.directory().join("pki"), ago),
            folder: lab.directory().to_owned(),
            north,
            south,
            between,
            gateways: [first, second],
        }
    }

    /// Begins both gateways.
    pub fn begin(&self) -> [Gateway; 2] {
        [self.gateway("gw-north"), self.gateway("gw-south")]
    }

    /// Begins a gateway.
    pub fn gateway(&self, name: &str) -> Gateway {
        self.gateway_as(name, name)
    }

    /// Begins a gateway with the certificate of another.
    pub fn gateway_as(&self, name: &str, who: &str) -> Gateway {
        let (list, known) = watch::channel(Arc::<Withdrawn>::default());
        let view = WithdrawnView::from(known);
        let identity = self.pki.gateway(who, view.clone());
        Gateway::begin(self.namespace(name).clone(), plan(name), identity, (list, view))
    }

    /// A file of this world.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes all rules out of both gateways: the way in the clear is open.
    #[allow(dead_code)] // For the bench.
    pub fn clear(&self) {
        for gateway in &self.gateways {
            let script = penstock_agent::enforce::nft::render::remove();
            gateway.run_with_input("nft", &["-f", "-"], &script).unwrap();
        }
    }

    pub fn namespace(&self, gateway: &str) -> &Namespace {
        let [first, second] = &self.gateways;
        if gateway == first.name() { first } else { second }
    }

    /// Whether one ping in the north is answered from there.
    pub fn pings(&self, to: &str) -> bool {
        self.ping(&["-c", "1", "-W", "1", to]).0
    }

    /// What `ping` in the north prints, and whether it was answered.
    pub fn ping(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = self.north.command("ping");
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }

    /// Waits until a ping is answered, or is not.
    pub fn wait_for_pings(&self, answered: bool) {
        let begun = Instant::now();
        while self.pings(SOUTH) != answered {
            assert!(
                begun.elapsed() < PATIENCE,
                "pings answered: {}\n{}",
                !answered,
                self.picture()
            );
        }
    }

    /// How the gateways look, for whoever reads a failure.
    fn picture(&self) -> String {
        let looks = self.gateways.iter().flat_map(|gateway| {
            let words = ["-s -d link", "rule", "route show table all", "-6 rule"];
            words.map(|words| {
                let said = gateway.ip(&words.split(' ').collect::<Vec<_>>());
                format!("{} {words}: {said:?}", gateway.name()).replace("\\n", "\n")
            })
        });
        looks.collect::<Vec<_>>().join("\n")
    }

    /// Records everything on the network between, until it is asked what was there.
    pub fn record(&self, name: &str) -> Recording {
        self.record_at(&self.between, "br0", name)
    }

    pub fn record_at(&self, namespace: &Namespace, interface: &str, name: &str) -> Recording {
        let file = self.folder.join(format!("{name}.pcap"));
        let path = file.to_str().unwrap().to_owned();
        let daemon = namespace
            .spawn(
                name,
                "tcpdump",
                &[
                    "-n",
                    "-U",
                    "--immediate-mode",
                    "-s",
                    HEADERS,
                    "-B",
                    HELD,
                    "-i",
                    interface,
                    "-w",
                    &path,
                ],
            )
            .unwrap();
        daemon.wait_for_log("listening on", PATIENCE).unwrap();
        Recording {
            daemon,
            namespace: namespace.clone(),
            path,
        }
    }
}

/// What is recorded of each packet, bytes. In this mode `tcpdump` has a ring of slots as large as the largest packet that it may record, and by itself that
/// is 256 KiB on a cable of this lab: eight packets at once, and of a stream half were not seen.
const HEADERS: &str = "256";
/// The ring, KiB: more packets than any test sends in one go.
const HELD: &str = "16384";

/// Packets that are being recorded.
pub struct Recording {
    daemon: Daemon,
    namespace: Namespace,
    path: String,
}

impl Recording {
    /// The packets so far that this filter takes, a line each.
    pub fn packets(&self, filter: &str) -> Vec<String> {
        assert!(self.daemon.log().contains("listening"), "{}", self.daemon.log());
        let text = self
            .namespace
            .run("tcpdump", &["-n", "-r", &self.path, filter])
            .unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Fails if there were packets on that interface that the recorder did not see: what it did not find means nothing then.
    pub fn saw_all(&self) {
        let before = self.daemon.log().matches("dropped by kernel").count();
        let id = self.daemon.id().to_string();
        self.namespace.run("kill", &["-USR1", &id]).unwrap();
        let begun = Instant::now();
        loop {
            let log = self.daemon.log();
            if log.matches("dropped by kernel").count() > before {
                assert!(log.contains(" 0 packets dropped by kernel"), "{log}");
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until there is such a packet.
    pub fn wait_for(&self, filter: &str) {
        let begun = Instant::now();
        while self.packets(filter).is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{filter}");
        }
    }
}

/// What the addresses behind the gateways are to `tcpdump`.
pub const INNER: &str = "net 10.0.0.0/8 or net fd00:1::/64 or net fd00:2::/64";

fn settings() -> EnforceSettings {
    EnforceSettings {
        inspect: Some(SeatLimits::default()),
        ..EnforceSettings::default()
    }
}

/// The parts of an agent that tunnels need, in a gateway's namespace.
pub struct Gateway {
    pub enforcer: Arc<Enforcer>,
    pub faults: watch::Receiver<Vec<Fault>>,
    pub withdrawn: watch::Sender<Arc<Withdrawn>>,
    policy: watch::Sender<PolicyView>,
    _identity: watch::Sender<Option<Arc<Identity>>>,
    _observed: mpsc::Receiver<Observation>,
    _trail: Unwritten,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    fn begin(
        namespace: Namespace,
        plan: Plan,
        identity: Arc<Identity>,
        (withdrawn, view): (watch::Sender<Arc<Withdrawn>>, WithdrawnView),
    ) -> Self {
        let (ready, made) = sync_channel(1);
        let (kill, killed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            namespace.move_in().unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let (sink, observed) = mpsc::channel(4096);
                let enforcer = Arc::new(Enforcer::start(settings(), sink).unwrap());
                let plan = Arc::new(plan);
                assert!(
                    plan.requires.is_subset(&enforcer.capabilities()),
                    "{:?}",
                    plan.requires
                );
                enforcer.check(plan.clone()).await.unwrap();
                enforcer.apply(plan.clone(), Revision(1)).await.unwrap();
                let (audit, trail) = audit::queue();
                let (policy, in_force) = watch::channel(PolicyView {
                    plan: Some(plan),
                    ..PolicyView::default()
                });
                let (identity_in, identity) = watch::channel(Some(identity));
                let (supervisor, faults) = Supervisor::new(in_force, identity, view, audit);
                let stop = CancellationToken::new();
                tokio::spawn(supervisor.run(stop.clone()));
                let gateway = (enforcer, faults, policy, identity_in, observed, trail);
                ready.send(gateway).ok().unwrap();
                drop(killed.await);
            });
            // As by `kill -9`: nothing is said, nothing is put away.
            runtime.shutdown_background();
        });
        let (enforcer, faults, policy, identity, observed, trail) = made.recv().unwrap();
        Self {
            enforcer,
            faults,
            withdrawn,
            policy,
            _identity: identity,
            _observed: observed,
            _trail: trail,
            kill: Some(kill),
            thread: Some(thread),
        }
    }

    /// Puts another plan in force in the tunnels' eyes.
    pub fn change(&self, spoil: impl FnOnce(&mut Plan)) {
        self.policy.send_modify(|view| {
            let mut plan = (**view.plan.as_ref().unwrap()).clone();
            spoil(&mut plan);
            view.plan = Some(Arc::new(plan));
        });
    }

    /// Waits until there is a fault of this code, or none; what it says.
    pub fn wait_for(&self, code: &str, there: bool) -> String {
        let begun = Instant::now();
        loop {
            let faults = self.faults.borrow().clone();
            let found = faults.iter().find(|fault| fault.code == code);
            if found.is_some() == there {
                return found.map(|fault| fault.message.clone()).unwrap_or_default();
            }
            assert!(begun.elapsed() < PATIENCE, "{code} {there}: {faults:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a fault of its tunnels says this.
    pub fn wait_to_hear(&self, words: &str) {
        let begun = Instant::now();
        while !self
            .faults
            .borrow()
            .iter()
            .any(|fault| fault.message.contains(words))
        {
            assert!(begun.elapsed() < PATIENCE, "{words}: {:?}", *self.faults.borrow());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the kernel's own look at the machine finds this, or no longer does.
    pub fn wait_for_condition(&self, words: &str, there: bool) {
        let begun = Instant::now();
        loop {
            let conditions = self.enforcer.conditions();
            if conditions.iter().any(|one| one.message.contains(words)) == there {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{words} {there}: {conditions:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.kill.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("a gateway failed");
        }
    }
}
