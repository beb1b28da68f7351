//! A gateway with one namespace on each of its sides, in which raw frames are sent and caught.
//!
//! The far interface is chosen by the sender: on a routed gateway by the packet's DSCP (a test's own routing, no part
//! of Penstock), on a bridged one by the frame's destination.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_agent::enforce::{ApplyReport, Counters, EnforceSettings, Enforcer};
use penstock_agent::observed::Observation;
use penstock_lab::{self as lab, Lab, Namespace};
use penstock_policy::ids::Revision;
use penstock_policy::plan::Plan;
use penstock_policy::terms::GatewayMode;
use penstock_tests::at_once;
use tokio::sync::mpsc;

use super::plans::SIDES;
use super::wire::{Mac, Part, Probe, Wire, essence, frame};

/// What a gateway may be.
pub const MODES: [GatewayMode; 2] = [GatewayMode::Routed, GatewayMode::Bridged];

/// Runs `test` with an agent at a routed gateway with [`SIDES`], and at a bridged one, both at once.
pub fn at_each_gateway(name: &str, test: impl AsyncFn(GatewayMode, &World, Agent) + Sync) {
    lab::sandbox::test(name, |lab| {
        let worlds = MODES.map(|mode| World::new(lab, mode, &SIDES));
        at_once(&worlds, |world| {
            world.at_gateway(async || test(world.mode, world, Agent::start()).await);
        });
    })
    .unwrap();
}

/// One side of the gateway.
#[derive(Debug)]
pub struct Side {
    pub namespace: Namespace,
    pub wire: Wire,
    pub mac: Mac,
    /// The gateway's interface there.
    pub gateway_mac: Mac,
    pub dscp: u8,
}

#[derive(Debug)]
pub struct World {
    pub mode: GatewayMode,
    pub gateway: Namespace,
    /// The other end of the gateway's `eth0`.
    pub manager: Namespace,
    pub sides: BTreeMap<String, Side>,
}

impl World {
    /// A gateway with these interfaces, and `eth0` to manage it by.
    pub fn new(lab: &Lab, mode: GatewayMode, interfaces: &[&str]) -> Self {
        let prefix = if mode == GatewayMode::Routed {
            "routed"
        } else {
            "bridged"
        };
        let gateway = lab.namespace(&format!("{prefix}-gateway")).unwrap();
        let manager = lab.namespace(&format!("{prefix}-manager")).unwrap();
        lab.link((&gateway, "eth0"), (&manager, "eth0")).unwrap();
        let mut world = Self {
            mode,
            gateway,
            manager,
            sides: BTreeMap::new(),
        };
        for (number, interface) in (1_u8..).zip(interfaces) {
            world.add_side(lab, number, interface, prefix);
        }
        match mode {
            GatewayMode::Routed => world.route(),
            GatewayMode::Bridged => world.bridge(),
        }
        world
    }

    fn add_side(&mut self, lab: &Lab, number: u8, interface: &str, prefix: &str) {
        let namespace = lab.namespace(&format!("{prefix}-side{number}")).unwrap();
        namespace
            .sysctl("net.ipv6.conf.default.disable_ipv6", "1")
            .unwrap();
        lab.link((&self.gateway, interface), (&namespace, "eth0"))
            .unwrap();
        let (gateway_mac, mac) = ([2, 0, 0, 0, 1, number], [2, 0, 0, 0, 2, number]);
        for (place, name, address) in [(&self.gateway, interface, gateway_mac), (&namespace, "eth0", mac)] {
            place
                .ip(&["link", "set", name, "address", &text(address)])
                .unwrap();
        }
        let wire = namespace.enter(|| Wire::open("eth0")).unwrap();
        let side = Side {
            namespace,
            wire,
            mac,
            gateway_mac,
            dscp: number,
        };
        self.sides.insert(interface.to_owned(), side);
    }

    fn route(&self) {
        let gateway = &self.gateway;
        gateway.forward().unwrap();
        for scope in ["all", "default"] {
            gateway
                .sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")
                .unwrap();
        }
        let mut ways = Vec::new();
        for (interface, side) in &self.sides {
            gateway
                .sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0")
                .unwrap();
            let (dscp, mac) = (side.dscp, text(side.mac));
            let table = 100 + u32::from(dscp);
            ways.push(format!(
                "ip dscp {dscp} meta mark set {table}\nip6 dscp {dscp} meta mark set {table}"
            ));
            let (hop4, hop6) = (format!("169.254.0.{dscp}"), format!("fe80::aaaa:{dscp}"));
            for (family, hop) in [("-4", &hop4), ("-6", &hop6)] {
                let run = |words: String| gateway.ip(&words.split(' ').collect::<Vec<_>>()).unwrap();
                run(format!(
                    "{family} neigh replace {hop} lladdr {mac} dev {interface} nud permanent"
                ));
                run(format!(
                    "{family} route add default via {hop} dev {interface} onlink table {table}"
                ));
                run(format!("{family} rule add fwmark {table} lookup {table}"));
            }
        }
        let script = format!(
            "table inet test_routing {{
               chain pre {{
                 type filter hook prerouting priority mangle;
                 {}
               }}
             }}",
            ways.join("\n")
        );
        gateway.run_with_input("nft", &["-f", "-"], &script).unwrap();
    }

    fn bridge(&self) {
        let ports: Vec<&str> = self.sides.keys().map(String::as_str).collect();
        self.gateway.bridge("br0", &ports).unwrap();
        for (interface, side) in &self.sides {
            let mac = text(side.mac);
            self.gateway
                .run(
                    "bridge",
                    &["fdb", "replace", &mac, "dev", interface, "master", "static"],
                )
                .unwrap();
        }
    }

    /// The frame that carries `probe`'s part over the wire.
    pub fn frame(&self, ingress: &str, egress: &str, probe: &Probe, part: Part) -> Vec<u8> {
        let (near, far) = if part.is_of_server() {
            (egress, ingress)
        } else {
            (ingress, egress)
        };
        let (near, far) = (&self.sides[near], &self.sides[far]);
        let packet = Probe {
            dscp: far.dscp,
            ..*probe
        }
        .packet(part);
        let next = match self.mode {
            GatewayMode::Routed => near.gateway_mac,
            GatewayMode::Bridged => far.mac,
        };
        frame(near.mac, next, &packet)
    }

    /// Sends an IP packet from one side to another as it is.
    pub fn send(&self, ingress: &str, egress: &str, packet: &[u8]) {
        let (near, far) = (&self.sides[ingress], &self.sides[egress]);
        let next = if self.mode == GatewayMode::Routed {
            near.gateway_mac
        } else {
            far.mac
        };
        near.wire.send(&frame(near.mac, next, packet));
    }

    /// Forgets what was caught so far.
    pub fn drain(&self) {
        for side in self.sides.values() {
            while side.wire.try_catch().is_some() {}
        }
    }

    /// Sends the frames, each by its interface, and tells which of them came out where they should: waits until all
    /// of `expected` (indices) did, and a little for those that should not.
    pub fn through(&self, frames: &[(String, String, Vec<u8>)], expected: &HashSet<usize>) -> HashSet<usize> {
        self.drain();
        let mut outstanding = BTreeMap::new();
        for (index, (ingress, egress, frame)) in frames.iter().enumerate() {
            outstanding.insert((egress.clone(), essence(&frame[14..])), index);
            self.sides[ingress].wire.send(frame);
        }
        let mut passed = HashSet::new();
        let begun = Instant::now();
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < Duration::from_millis(20)
            || (!expected.is_subset(&passed) && begun.elapsed() < PATIENCE)
        {
            let mut heard = false;
            for (interface, side) in &self.sides {
                while let Some(caught) = side.wire.try_catch() {
                    heard = true;
                    if caught.len() > 34
                        && matches!(caught[12..14], [0x08, 0x00] | [0x86, 0xdd])
                        && let Some(index) = outstanding.get(&(interface.clone(), essence(&caught[14..])))
                    {
                        passed.insert(*index);
                    }
                }
            }
            if heard {
                quiet_since = Instant::now();
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        passed
    }

    /// Whether one frame from `ingress` comes out at `egress`.
    pub fn passes(&self, ingress: &str, egress: &str, probe: &Probe, part: Part, expected: bool) -> bool {
        let (from, to) = if part.is_of_server() {
            (egress, ingress)
        } else {
            (ingress, egress)
        };
        let frames = [(
            from.to_owned(),
            to.to_owned(),
            self.frame(ingress, egress, probe, part),
        )];
        let expected = if expected {
            HashSet::from([0])
        } else {
            HashSet::new()
        };
        !self.through(&frames, &expected).is_empty()
    }

    /// Runs `work` in the gateway's namespace, on a tokio runtime of its thread.
    pub fn at_gateway<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.gateway
            .enter(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap()
                    .block_on(work())
            })
            .unwrap()
    }
}

/// A claim that does not hold fails by then; no test that passes waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long is waited for what must not come.
pub const SILENCE: Duration = Duration::from_millis(500);

/// As the program's, but that counters are asked for, what no event tells is looked at, and verdicts are reported more often,
/// so that no test waits for it.
pub fn settings() -> EnforceSettings {
    EnforceSettings {
        count: Duration::from_secs(1),
        report_after: Duration::from_millis(50),
        look: Duration::from_millis(200),
        ..EnforceSettings::default()
    }
}

/// An enforcer and what it observes.
#[derive(Debug)]
pub struct Agent {
    pub enforcer: Enforcer,
    pub observed: mpsc::Receiver<Observation>,
}

impl Agent {
    pub fn start() -> Self {
        Self::start_with(settings())
    }

    pub fn start_with(settings: EnforceSettings) -> Self {
        let (sender, observed) = mpsc::channel(4096);
        Self {
            enforcer: Enforcer::start(settings, sender).unwrap(),
            observed,
        }
    }

    /// Checks and applies, as the agent does with what it is offered.
    pub async fn apply(&self, plan: &Plan, revision: u64) -> ApplyReport {
        let plan = Arc::new(plan.clone());
        self.enforcer.check(Arc::clone(&plan)).await.unwrap();
        let hour = Duration::from_hours(1);
        let left = plan.open.iter().map(|conduit| (conduit.clone(), hour));
        self.enforcer.foretell(left.collect());
        let applied = self
            .enforcer
            .apply(Arc::clone(&plan), Revision(revision))
            .await
            .unwrap();
        if !plan.grants.is_empty() {
            let left = plan.open.iter().map(|conduit| (conduit.clone(), hour));
            self.enforcer.hold_open(left.collect()).await.unwrap();
        }
        applied
    }

    /// The counters once `settled` says that they have come to rest, or as they stand when patience ends.
    ///
    /// They are read one after another while packets pass: two of them can only be compared when nothing is under way.
    pub async fn counters_once(&self, settled: impl Fn(&Counters) -> bool) -> Counters {
        let begun = Instant::now();
        loop {
            let counters = self.enforcer.counters().await.unwrap();
            if settled(&counters) || begun.elapsed() > PATIENCE {
                return counters;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What is observed until `wanted` says that it has seen enough.
    pub async fn observe_until(&mut self, mut wanted: impl FnMut(&Observation) -> bool) -> Vec<Observation> {
        let mut all = Vec::new();
        let waiting = async {
            while let Some(observed) = self.observed.recv().await {
                let enough = wanted(&observed);
                all.push(observed);
                if enough {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(in_time.is_ok(), "not observed in time; seen: {all:#?}");
        all
    }
}

pub fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
