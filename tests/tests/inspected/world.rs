//! A gateway between an office and a control room, with real addresses on both sides, and the programs there.

#[path = "../../../agent/src/service_manager/stored.rs"]
mod stored;

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use penstock_agent::enforce::{EnforceSettings, Enforcer};
use penstock_agent::inspector::SeatLimits;
use penstock_agent::observed::{Observation, OperationSeen, VerdictSeen};
use penstock_agent::service_manager::{ServiceManager, StoredDescriptor};
use penstock_lab::{Daemon, Lab, Namespace};
use penstock_policy::ids::{FlowId, Revision};
use penstock_policy::plan::{Capability, Endpoint, Observing, PLAN_FORMAT, Plan, PlanInterface, Rule};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::{
    GatewayMode, NumberRange, OnAgentLoss, OnDrift, OnRefusal, PortRange, Transport,
};
use tokio::sync::mpsc;

use self::stored::stored;

pub const MODES: [GatewayMode; 2] = [GatewayMode::Routed, GatewayMode::Bridged];
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const CLIENT: &str = "10.1.0.5";
pub const SERVER: &str = "10.2.0.9";
pub const CLIENT6: &str = "fd00:1::5";
pub const SERVER6: &str = "fd00:2::9";

pub struct World {
    pub mode: GatewayMode,
    pub gateway: Namespace,
    pub office: Namespace,
    pub control: Namespace,
}

impl World {
    pub fn new(lab: &Lab, mode: GatewayMode) -> Self {
        Self::named(lab, mode, "one")
    }

    /// One of several of the same mode.
    pub fn named(lab: &Lab, mode: GatewayMode, name: &str) -> Self {
        let kind = if mode == GatewayMode::Routed {
            "routed"
        } else {
            "bridged"
        };
        let prefix = format!("{kind}-{name}");
        let [gateway, office, control] =
            ["gateway", "office", "control"].map(|name| lab.namespace(&format!("{prefix}-{name}")).unwrap());
        for (interface, side) in [("office", &office), ("control", &control)] {
            lab.link((&gateway, interface), (side, "eth0")).unwrap();
        }
        let world = Self {
            mode,
            gateway,
            office,
            control,
        };
        match mode {
            GatewayMode::Routed => world.route(),
            GatewayMode::Bridged => world.bridge(),
        }
        world
    }

    fn route(&self) {
        self.gateway.forward().unwrap();
        for (interface, side, number, host) in
            [("office", &self.office, 1, 5), ("control", &self.control, 2, 9)]
        {
            self.gateway
                .address(interface, &format!("10.{number}.0.1/24"))
                .unwrap();
            self.gateway
                .address(interface, &format!("fd00:{number}::1/64"))
                .unwrap();
            side.address("eth0", &format!("10.{number}.0.{host}/24")).unwrap();
            side.address("eth0", &format!("fd00:{number}::{host}/64"))
                .unwrap();
            side.route("default", &format!("10.{number}.0.1")).unwrap();
            side.ip(&[
                "-6",
                "route",
                "add",
                "default",
                "via",
                &format!("fd00:{number}::1"),
            ])
            .unwrap();
        }
    }

    fn bridge(&self) {
        self.gateway.bridge("br0", &["office", "control"]).unwrap();
        self.gateway.address("br0", "10.0.0.1/8").unwrap();
        self.gateway.address("br0", "fd00::1/16").unwrap();
        for (side, v4, v6) in [(&self.office, CLIENT, CLIENT6), (&self.control, SERVER, SERVER6)] {
            side.address("eth0", &format!("{v4}/8")).unwrap();
            side.address("eth0", &format!("{v6}/16")).unwrap();
        }
    }

    /// A plan by which `hmi` in the office may use these ports of `plc` with these operations alone.
    pub fn plan(&self, flows: &[(u16, Option<Operations>)]) -> Plan {
        let end = |name: &str, addresses: [&str; 2]| {
            addresses.map(|address| Endpoint {
                name: name.into(),
                network: address.parse::<std::net::IpAddr>().unwrap().into(),
            })
        };
        let side = |number: u8, name: &str| PlanInterface {
            name: name.to_owned(),
            zone: name.parse().unwrap(),
            behind: Vec::new(),
            routers: vec![],
            hardware: vec![],
            networks: vec![
                format!("10.{number}.0.0/24").parse().unwrap(),
                format!("fd00:{number}::/64").parse().unwrap(),
            ],
            observing: Observing::Nothing,
        };
        let mut requires = BTreeSet::from([Capability::KERNEL.to_owned()]);
        if self.mode == GatewayMode::Bridged {
            requires.insert(Capability::KERNEL_BRIDGE.to_owned());
        }
        let limited = flows.iter().filter_map(|(_, operations)| operations.as_ref());
        requires.extend(limited.map(|operations| Capability::inspect(operations.protocol).0));
        Plan {
            format: PLAN_FORMAT.to_owned(),
            plant: "works".parse().unwrap(),
            gateway: "gw".parse().unwrap(),
            mode: self.mode,
            requires: requires.into_iter().map(Capability).collect(),
            on_drift: OnDrift::Repair,
            interfaces: vec![side(2, "control"), side(1, "office")],
            management: None,
            rules: (1..)
                .zip(flows)
                .map(|(id, (port, operations))| Rule {
                    id: FlowId(id),
                    conduit: "supply".parse().unwrap(),
                    flow: format!("flow-{id}").parse().unwrap(),
                    sources: end("hmi", [CLIENT, CLIENT6]).into(),
                    destinations: end("plc", [SERVER, SERVER6]).into(),
                    transport: Transport::Tcp(vec![PortRange::single(*port)]),
                    must_flow: false,
                    on_agent_loss: OnAgentLoss::Block,
                    operations: operations.clone().map(Into::into),
                    on_refusal: OnRefusal::Answer,
                    roles: None,
                    answers: penstock_policy::terms::Answers::Strict,
                    tls: None,
                })
                .collect(),
            bridges: Vec::new(),
            grants: std::collections::BTreeMap::new(),
            windows: None,
            interlock: None,
            break_glass: None,
            tunnels: None,
            bound: std::collections::BTreeMap::new(),
            unproven: Vec::new(),
            frames: Vec::new(),
            open: std::collections::BTreeSet::new(),
            excepted: std::collections::BTreeMap::new(),
        }
    }

    /// Runs `work` in the gateway's namespace, on a tokio run time of its thread.
    pub fn at_gateway<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work())
        };
        self.gateway.enter(run).unwrap()
    }

    /// The pymodbus controller, ready.
    pub fn plc(&self, address: &str) -> Daemon {
        let mut command = self.control.command(python());
        command.args([peer("plc.py").as_str(), address]);
        let daemon = self.control.spawn_command("plc", command).unwrap();
        let listens = if address.contains(':') {
            format!("[{address}]:502")
        } else {
            format!("{address}:502")
        };
        self.control.wait_for_tcp(&listens, PATIENCE).unwrap();
        daemon
    }

    /// What a Modbus client in the office prints.
    pub fn modbus(&self, arguments: &[&str]) -> String {
        let script = peer("modbus_client.py");
        self.say(python(), &[&[script.as_str()], arguments].concat())
    }

    /// What a program in the office prints, however it ends; one that does not end is a failure.
    pub fn say(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.office.command("timeout");
        let output = command
            .args(["20", program])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_ne!(output.status.code(), Some(124), "{program} {arguments:?} hangs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        format!("{said}{}", String::from_utf8_lossy(&output.stderr))
            .trim()
            .to_owned()
    }

    /// The office's machine filters what it sends.
    pub fn office_filters(&self, rules: &str) {
        let output = self.office.command("nft").arg(rules).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// A program in the office that goes on.
    pub fn begin(&self, name: &str, program: &str, arguments: &[&str]) -> Daemon {
        let mut command: Command = self.office.command(program);
        command.args(arguments);
        self.office.spawn_command(name, command).unwrap()
    }
}

/// As the program's, but that operations and verdicts are reported at once, so that no test waits for it.
fn settings(limits: SeatLimits) -> EnforceSettings {
    EnforceSettings {
        inspect: Some(limits),
        report_after: Duration::from_millis(50),
        ..EnforceSettings::default()
    }
}

/// The data plane within this process.
pub struct Agent {
    pub enforcer: Enforcer,
    observed: mpsc::Receiver<Observation>,
}

impl Agent {
    pub fn start(limits: SeatLimits) -> Self {
        let (sender, observed) = mpsc::channel(4096);
        Self {
            enforcer: Enforcer::start(settings(limits), sender).unwrap(),
            observed,
        }
    }

    /// An agent that enforces `plan`.
    pub async fn enforcing(plan: Plan) -> Self {
        let agent = Self::start(SeatLimits::default());
        agent.apply(plan, 1).await;
        agent
    }

    /// The agent that goes on from here after a planned restart, with what this one leaves to the service manager.
    pub async fn restarted(self, folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let keeping = stored(socket);
        let manager = ServiceManager::at(path.to_str().unwrap()).unwrap();
        self.enforcer.hand_over(&manager).await;
        let kept = keeping.join().unwrap();
        drop(self);
        std::fs::remove_file(path).unwrap();
        let (sender, observed) = mpsc::channel(4096);
        let settings = settings(SeatLimits::default());
        Self {
            enforcer: Enforcer::start_with(settings, kept, sender).unwrap(),
            observed,
        }
    }

    pub async fn apply(&self, plan: Plan, revision: u64) {
        let capabilities = self.enforcer.capabilities();
        assert!(plan.requires.is_subset(&capabilities), "{capabilities:?}");
        let plan = Arc::new(plan);
        self.enforcer.check(plan.clone()).await.unwrap();
        self.enforcer.apply(plan, Revision(revision)).await.unwrap();
    }

    /// The first verdict that is `wanted`.
    pub async fn until_any(&mut self, wanted: impl Fn(&Observation) -> bool) -> VerdictSeen {
        let waiting = async {
            loop {
                let seen = self.observed.recv().await.unwrap();
                if let (true, Observation::Verdict(verdict)) = (wanted(&seen), seen) {
                    return verdict;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap()
    }

    /// The first event that is `wanted`, with those before it.
    pub async fn until(&mut self, wanted: impl Fn(&OperationSeen) -> bool) -> Vec<OperationSeen> {
        let mut all = Vec::new();
        let waiting = async {
            while let Some(observed) = self.observed.recv().await {
                let Observation::Operation(seen) = observed else {
                    continue;
                };
                let enough = wanted(&seen);
                all.push(*seen);
                if enough {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(in_time.is_ok(), "not observed; seen: {all:#?}");
        all
    }
}

pub fn python() -> &'static str {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/bin/python");
    assert!(Path::new(python).exists(), "{python}: run scripts/setup");
    python
}

pub fn peer(name: &str) -> String {
    format!("{}/tests/inspected/peers/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub fn function(name: &str, addresses: Option<(u32, u32)>) -> ModbusOperation {
    ModbusOperation {
        function: name.to_owned(),
        units: None,
        addresses: addresses.map(|(first, last)| vec![NumberRange { first, last }]),
        read_addresses: None,
        values: None,
        sub_functions: None,
    }
}

/// Every register may be read, and 40 to 49 be written.
pub fn polling() -> Option<Operations> {
    Some(Operations::from(vec![
        function("read-holding-registers", None),
        function("write-single-register", Some((40, 49))),
    ]))
}

pub fn telemetry() -> Option<Operations> {
    let qos = NumberRange { first: 0, last: 1 };
    let topics = vec!["works/+/pressure".to_owned()];
    Some(Operations::from(vec![
        MqttOperation::Publish {
            topics: topics.clone(),
            qos,
            retain: false,
        },
        MqttOperation::Subscribe { topics, qos },
    ]))
}
