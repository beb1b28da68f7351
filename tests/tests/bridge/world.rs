//! Three machines: a broker in one zone, a broker in another, and a gateway between them that forwards nothing.
//!
//! ```text
//! from (10.1.0.2) ── lan1 ── gateway ── lan2 ── to (10.2.0.2)
//! ```

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use penstock_agent::audit::{BLOCK_BYTES, Position, SpoolLimits, spool::Spool};
use penstock_agent::bridge::report::BridgeState;
use penstock_agent::bridge::supervisor::read_states;
use penstock_lab::{Daemon, Lab, Namespace, sandbox, wait_until};
use penstock_policy::ids::{ConduitId, FlowId, FlowName, ZoneId};
use penstock_policy::plan::{
    Bridge, Broker, Capability, Management, Observing, PLAN_FORMAT, Plan, PlanInterface,
};
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::{GatewayMode, NumberRange, OnDrift};
use penstock_proto::audit::read_body;
use penstock_proto::v1::{AuditEvent, audit_event::Kind};

use super::gateway;

pub const PATIENCE: Duration = Duration::from_secs(100);
pub const FROM: &str = "10.1.0.2";
pub const TO: &str = "10.2.0.2";

/// The body of a test with a world of its own.
pub fn test(name: &str, body: impl FnOnce(&World)) {
    sandbox::test(name, |lab| body(&World::new(lab))).unwrap();
}

pub struct World {
    pub from: Namespace,
    pub gateway: Namespace,
    pub to: Namespace,
    pub folder: PathBuf,
    pub state: PathBuf,
}

pub fn permit(topics: &[&str], first: u32, last: u32, retain: bool) -> MqttOperation {
    MqttOperation::Publish {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        qos: NumberRange { first, last },
        retain,
    }
}

fn broker(asset: &str, address: &str) -> Broker {
    Broker {
        asset: asset.parse().unwrap(),
        address: address.parse::<IpAddr>().unwrap(),
        port: 1883,
        tls: None,
    }
}

pub fn plan(publications: Vec<MqttOperation>) -> Plan {
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "works".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: BTreeSet::from([Capability(Capability::BRIDGE_MQTT.to_owned())]),
        on_drift: OnDrift::Repair,
        interfaces: [("lan1", "10.1.0.0/24"), ("lan2", "10.2.0.0/24")]
            .map(|(name, network)| PlanInterface {
                name: name.to_owned(),
                zone: ZoneId::new(format!("zone-{name}")).unwrap(),
                behind: vec![],
                routers: vec![],
                hardware: vec![],
                networks: vec![network.parse().unwrap()],
                observing: Observing::Nothing,
            })
            .into(),
        management: Some(Management {
            interface: "mgmt".to_owned(),
            peers: vec!["192.168.9.0/28".parse().unwrap()],
        }),
        rules: Vec::new(),
        grants: std::collections::BTreeMap::new(),
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: std::collections::BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: BTreeSet::new(),
        excepted: std::collections::BTreeMap::new(),
        bridges: vec![Bridge {
            id: FlowId(7),
            conduit: ConduitId::new("up").unwrap(),
            flow: FlowName::new("values").unwrap(),
            from: broker("from-broker", FROM),
            to: broker("to-broker", TO),
            publications,
            must_flow: false,
        }],
    }
}

impl World {
    fn new(lab: &Lab) -> Self {
        let [from, gateway, to] = ["from", "gateway", "to"].map(|name| lab.namespace(name).unwrap());
        for (lan, there, zone) in [("lan1", &from, 1), ("lan2", &to, 2)] {
            lab.link((&gateway, lan), (there, "eth0")).unwrap();
            gateway.address(lan, &format!("10.{zone}.0.1/24")).unwrap();
            there.address("eth0", &format!("10.{zone}.0.2/24")).unwrap();
        }
        let folder = lab.directory().to_owned();
        let state = folder.join("state");
        std::fs::create_dir(&state).unwrap();
        Self {
            from,
            gateway,
            to,
            folder,
            state,
        }
    }

    /// A world whose gateway keeps its state on a file system of its own with so many kilobytes.
    pub fn small_disk(&self, kilobytes: u32) {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "small"])
            .arg(&self.state)
            .status();
        assert!(mount.unwrap().success());
    }

    /// A broker that keeps its sessions over a restart, in order and without a limit.
    pub fn broker(&self, place: &Namespace, address: &str, more: &str) -> Daemon {
        let folder = self.folder.join(format!("{}-broker", place.name()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("mosquitto.conf");
        // Tests of TLS and passwords bring their own listener.
        let listener = if more.contains("listener") {
            String::new()
        } else {
            format!("listener 1883 {address}\nallow_anonymous true\n")
        };
        let text = format!(
            "{listener}user root\npersistence true\npersistence_location {}/\nmax_queued_messages 0\n\
             log_type error\nlog_type warning\nlog_type notice\n{more}\n",
            folder.display()
        );
        std::fs::write(&config, text).unwrap();
        let daemon = place
            .spawn(
                &format!("mosquitto-{}", place.name()),
                "mosquitto",
                &["-c", &config.to_string_lossy()],
            )
            .unwrap();
        let port = if more.contains("8883") { 8883 } else { 1883 };
        place
            .wait_for_tcp(&format!("{address}:{port}"), PATIENCE)
            .unwrap();
        daemon
    }

    pub fn brokers(&self) -> (Daemon, Daemon) {
        (self.broker(&self.from, FROM, ""), self.broker(&self.to, TO, ""))
    }

    pub fn obey(&self, plan: &Plan) {
        let path = self.state.join("plan.new");
        std::fs::write(&path, plan.to_bytes()).unwrap();
        std::fs::rename(path, self.state.join("plan.json")).unwrap();
    }

    pub fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub fn start_with(&self, environment: &[(&str, &str)]) -> Daemon {
        let program = std::env::current_exe().unwrap();
        let mut command = self.gateway.command(&program.to_string_lossy());
        command
            .args(["--exact", gateway::NAME, "--nocapture", "--test-threads=1"])
            .env(gateway::CHILD, &self.state)
            .env("RUST_BACKTRACE", "1");
        for (name, value) in environment {
            command.env(name, value);
        }
        self.gateway.spawn_command("gateway", command).unwrap()
    }

    pub fn bridge(&self) -> Option<BridgeState> {
        read_states(&self.state.join("bridges")).pop()
    }

    /// Waits until the state that the gateway shows is so.
    pub fn wait_for(&self, what: &str, is: impl Fn(&BridgeState) -> bool) {
        wait_until(what, PATIENCE, || self.bridge().is_some_and(|state| is(&state)))
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.bridge()));
    }

    /// Starts the gateway for the first time and waits until both brokers have it.
    pub fn start_connected(&self, plan: &Plan) -> Daemon {
        self.obey(plan);
        let gateway = self.start();
        self.wait_for("both brokers", |state| state.from.connected && state.to.connected);
        gateway
    }

    /// Publishes lines at the first broker, in order, over one connection.
    pub fn publish(&self, topic: &str, qos: u8, lines: &[String]) {
        publish(&self.from, FROM, topic, qos, lines);
    }

    /// Everything that arrives at the second broker from now on: `topic qos retained payload`, one a line.
    pub fn listen(&self) -> Listener {
        Listener::new(&self.to, TO, "listener")
    }

    /// The gateway's trail; the gateway does not run.
    pub fn trail(&self) -> Vec<AuditEvent> {
        let limits = SpoolLimits {
            bytes_max: 8 * 1024 * 1024,
            block_bytes: BLOCK_BYTES,
            free_bytes_min: 0,
        };
        let (mut spool, _) = Spool::open(&self.state.join("trail"), limits, 1).unwrap();
        let blocks = spool.read(Position::default(), usize::MAX, usize::MAX).unwrap();
        let bodies = blocks.into_iter().map(|block| read_body(&block.body).unwrap());
        bodies.flat_map(|body| body.events).collect()
    }
}

/// How many losses of this cause a trail tells.
pub fn losses(trail: &[AuditEvent], cause: &str) -> u64 {
    let of = |event: &AuditEvent| match &event.kind {
        Some(Kind::Loss(loss)) if loss.cause == cause => loss.events,
        _ => 0,
    };
    trail.iter().map(of).sum()
}

/// How many publications a trail says were refused.
pub fn refused(trail: &[AuditEvent]) -> u64 {
    let of = |event: &AuditEvent| match &event.kind {
        Some(Kind::Verdict(verdict)) => verdict.count,
        _ => 0,
    };
    trail.iter().map(of).sum()
}

/// Publishes lines, in order, over one connection.
pub fn publish(place: &Namespace, address: &str, topic: &str, qos: u8, lines: &[String]) {
    let mut child = place
        .command("mosquitto_pub")
        .args([
            "-V",
            "5",
            "-h",
            address,
            "-t",
            topic,
            "-q",
            &qos.to_string(),
            "-l",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = lines.join("\n");
    text.push('\n');
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// `count` different lines in order.
pub fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:06}")).collect()
}

/// A subscriber with a session of its own, so that its broker may restart.
pub struct Listener {
    daemon: Daemon,
}

impl Listener {
    pub fn new(place: &Namespace, address: &str, name: &str) -> Self {
        let mut command = place.command("stdbuf");
        command
            .args(["-oL", "mosquitto_sub", "-V", "5", "-h", address, "-i", name, "-c"])
            .args(["-x", "3600", "-q", "2", "-t", "#"])
            // Mosquitto 2.0.11 sends more of a queue at QoS 2 at once than its subscriber allows, which then leaves.
            .args(["-D", "connect", "receive-maximum", "65535"])
            .args(["--retain-as-published", "-F", "%t %q %r %p"]);
        let daemon = place.spawn_command(name, command).unwrap();
        let listener = Self { daemon };
        // It has subscribed when it hears a word of its own.
        let hears = || {
            publish(place, address, "listening", 0, &["now".to_owned()]);
            listener.daemon.log().contains("listening 0 0 now")
        };
        wait_until("the subscription", PATIENCE, hears).unwrap();
        listener
    }

    /// What it heard, as lines, in order.
    pub fn lines(&self) -> Vec<String> {
        let log = self.daemon.log();
        let lines = log.lines().filter(|line| !line.starts_with("listening "));
        lines.map(str::to_owned).collect()
    }

    /// The payloads alone.
    pub fn payloads(&self) -> Vec<String> {
        let payload = |line: &String| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
        self.lines().iter().map(payload).collect()
    }

    /// Waits until so many different payloads have come.
    pub fn wait_for(&self, count: usize) {
        let distinct = || self.payloads().into_iter().collect::<BTreeSet<_>>().len();
        wait_until(&format!("{count} messages"), PATIENCE, || distinct() >= count)
            .unwrap_or_else(|error| panic!("{error}: {} came", distinct()));
    }
}

/// The first occurrence of each, in order: what is left of a sequence in which some came twice.
pub fn first_of_each(payloads: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    payloads
        .into_iter()
        .filter(|payload| seen.insert(payload.clone()))
        .collect()
}

/// Fills a folder's file system to the last byte.
pub fn fill(folder: &Path) -> PathBuf {
    let ballast = folder.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 65536]).is_ok() {}
    let mut byte = 0;
    while byte < 65536 && file.write_all(&[0]).is_ok() {
        byte += 1;
    }
    ballast
}
