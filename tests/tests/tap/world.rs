//! One gateway, routed or bridged, whose zones observe; a coordinator, people, and real devices on both sides.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use penstock_lab::{Daemon, Lab, Namespace, wait_until};
use serde_json::Value;

pub const PATIENCE: Duration = Duration::from_secs(100);
const COORDINATOR: &str = "192.0.2.10:7643";
pub const PLC: &str = "10.20.4.7";
pub const PLC_V6: &str = "fd00:20::7";
pub const BROKER: &str = "10.20.4.8";

/// Answers what comes to UDP port 161 with the same.
const UDP_ECHO: &str = r#"
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 161))
print("bound", flush=True)
while True:
    data, client = server.recvfrom(99)
    server.sendto(data, client)
"#;

/// Both zones observe, and no conduit is declared.
const DOCUMENT: &str = r#"
plant: tapped
title: A plant that is learned
approvers:
  threshold: 1
  people: { approver: { key: "@KEY@" } }
sites: { here: { title: Here, timezone: UTC } }
gateways:
  gw-1:
    site: here
    mode: @MODE@
    interfaces:
      office: { zone: office@OFFICE@ }
      control: { zone: control@CONTROL@ }
    management: { interface: mgmt, peers: [192.0.2.10] }
zones:
  office: { title: Office, kind: enterprise, sl_target: 1, enforcement: @ENFORCEMENT@, networks: [10.10.0.0/16, "fd00:10::/64"] }
  control: { title: Control, kind: control, sl_target: 2, enforcement: @ENFORCEMENT@, networks: [10.20.0.0/16, "fd00:20::/64"] }
assets:
  desk: { zone: office, addresses: [10.10.0.66, "fd00:10::66"] }
  plc: { zone: control, addresses: [10.20.4.7, "fd00:20::7"] }
  broker: { zone: control, address: 10.20.4.8 }
"#;

pub struct World {
    pub desk: Namespace,
    pub gateway: Namespace,
    pub plc: Namespace,
    headquarters: Namespace,
    folder: PathBuf,
    routed: bool,
    _running: Vec<Daemon>,
}

impl World {
    /// The networks, the devices, a coordinator, people with keys, and `gw-1` enrolled.
    pub fn new(lab: &Lab, routed: bool) -> Self {
        let [desk, gateway, plc, headquarters] =
            ["desk", "gw-1", "plc", "hq"].map(|name| lab.namespace(name).unwrap());
        for (name, far) in [("office", &desk), ("control", &plc), ("mgmt", &headquarters)] {
            lab.link((&gateway, name), (far, "eth0")).unwrap();
        }
        gateway.address("mgmt", "192.0.2.21/24").unwrap();
        headquarters.address("eth0", "192.0.2.10/24").unwrap();
        let length = if routed { (24, 64) } else { (8, 16) };
        for (host, v4, v6) in [
            (&desk, "10.10.0.66", "fd00:10::66"),
            (&plc, PLC, PLC_V6),
            (&plc, BROKER, "fd00:20::8"),
        ] {
            host.address("eth0", &format!("{v4}/{}", length.0)).unwrap();
            host.address("eth0", &format!("{v6}/{}", length.1)).unwrap();
        }
        if routed {
            gateway.forward().unwrap();
            for (interface, v4, v6, host) in [
                ("office", "10.10.0.1", "fd00:10::1", &desk),
                ("control", "10.20.4.1", "fd00:20::1", &plc),
            ] {
                gateway.address(interface, &format!("{v4}/24")).unwrap();
                gateway.address(interface, &format!("{v6}/64")).unwrap();
                host.route("default", v4).unwrap();
                host.route("default", v6).unwrap();
            }
        } else {
            gateway.bridge("br0", &["office", "control"]).unwrap();
        }
        let mut world = Self {
            desk,
            gateway,
            plc,
            headquarters,
            folder: lab.directory().to_owned(),
            routed,
            _running: Vec::new(),
        };
        let devices = world.devices();
        let coordinator = world.found();
        world._running = devices;
        world._running.push(coordinator);
        world
    }

    /// A Modbus server that others wrote, in both families, and a broker.
    fn devices(&self) -> Vec<Daemon> {
        let script = self.path("plc.py");
        std::fs::write(&script, include_str!("../../../ctl/src/demo/peers/plc.py")).unwrap();
        let conf = self.path("mosquitto.conf");
        std::fs::write(
            &conf,
            format!("listener 1883 {BROKER}\nallow_anonymous true\nuser root\n"),
        )
        .unwrap();
        let python = python();
        let running = vec![
            self.plc.spawn("plc-v4", &python, &[&script, PLC, "700"]).unwrap(),
            self.plc
                .spawn("plc-v6", &python, &[&script, PLC_V6, "700"])
                .unwrap(),
            self.plc.spawn("broker", "mosquitto", &["-c", &conf]).unwrap(),
            self.plc
                .spawn("manageable", &python, &["-c", UDP_ECHO, PLC])
                .unwrap(),
        ];
        for address in [
            format!("{PLC}:502"),
            format!("[{PLC_V6}]:502"),
            format!("{BROKER}:1883"),
        ] {
            self.plc.wait_for_tcp(&address, PATIENCE).unwrap();
        }
        if let Some(manageable) = running.last() {
            manageable.wait_for_log("bound", PATIENCE).unwrap();
        }
        running
    }

    fn found(&self) -> Daemon {
        let data = self.path("coordinator");
        let arguments = [
            "init",
            "--data",
            &data,
            "--plant",
            "tapped",
            "--listen",
            COORDINATOR,
            "--metrics",
            "none",
            "--address",
            COORDINATOR,
            "--after-approval",
            "at-once",
        ];
        let token = run(&self.headquarters, &program("penstock-coordinator"), &arguments);
        let mut command = self.headquarters.command(&program("penstock-coordinator"));
        command.args(["serve", "--config", &self.path("coordinator/coordinator.toml")]);
        let coordinator = self.headquarters.spawn_command("coordinator", command).unwrap();
        self.headquarters.wait_for_tcp(COORDINATOR, PATIENCE).unwrap();
        self.log_in("admin", &token);
        for (person, role) in [("engineer", "engineer"), ("approver", "approver")] {
            let file = self.path(&format!("{person}.token"));
            self.penstock(
                "admin",
                &["operators", "add", person, "--role", role, "--out", &file],
            );
            self.log_in(person, &std::fs::read_to_string(file).unwrap());
        }
        let made = self.penstock("approver", &["key", "new", &self.path("approver.key")]);
        std::fs::write(self.path("approver.pub"), made["public"].as_str().unwrap()).unwrap();
        let observe = self.document("observe");
        let config = self.path("agent.toml");
        std::fs::write(
            &config,
            format!(
                "[agent]\nstate_folder = \"{}\"\n[audit]\nfree_bytes_min = 1048576\n[tap]\nenabled = true\ninterval_s = 1\n",
                self.path("state")
            ),
        )
        .unwrap();
        let token = self.path("gw-1.token");
        self.penstock_confirmed(
            &["gateways", "token", "gw-1", &observe, "--out", &token],
            &observe,
        );
        run(
            &self.gateway,
            &program("penstock-agent"),
            &["enrol", "--config", &config, "--token", &token],
        );
        coordinator
    }

    /// The public half of the approver's key.
    pub fn key(&self) -> String {
        std::fs::read_to_string(self.path("approver.pub")).unwrap()
    }

    /// The document in a folder of its own, with this enforcement in both zones.
    pub fn document(&self, enforcement: &str) -> String {
        let address = |address: &str| {
            if self.routed {
                format!(", address: {address}/24")
            } else {
                String::new()
            }
        };
        let text = DOCUMENT
            .replace("@KEY@", &self.key())
            .replace("@MODE@", if self.routed { "routed" } else { "bridged" })
            .replace("@OFFICE@", &address("10.10.0.1"))
            .replace("@CONTROL@", &address("10.20.4.1"))
            .replace("@ENFORCEMENT@", enforcement);
        let folder = self.path(enforcement);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(Path::new(&folder).join("plant.yaml"), text).unwrap();
        folder
    }

    pub fn start_agent(&self) -> Daemon {
        let mut command = self.gateway.command(&program("penstock-agent"));
        command.args(["run", "--config", &self.path("agent.toml")]);
        self.gateway.spawn_command("agent", command).unwrap()
    }

    /// Proposes and approves a document, and waits until the gateway's kernel holds it.
    pub fn release(&self, document: &str) {
        let arguments = [
            "release", "propose", document, "--ticket", "T-1", "--reason", "test", "--yes",
        ];
        let proposed = self.penstock("engineer", &arguments);
        let revision = proposed["release"]["revision"].as_u64().unwrap();
        let digest = proposed["release"]["statement_digest"].as_str().unwrap();
        let key = self.path("approver.key");
        let text = revision.to_string();
        self.penstock(
            "approver",
            &[
                "release", "approve", &text, "--digest", digest, "--key", &key, "--yes",
            ],
        );
        wait_until(&format!("r{revision} in force"), PATIENCE, || {
            let seen = self.gateway_seen();
            seen["connected"] == true && seen["effective"] == revision
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.gateway_seen()));
    }

    /// What the coordinator knows of the gateway.
    pub fn gateway_seen(&self) -> Value {
        self.penstock("engineer", &["gateways", "list"])["gateways"][0].clone()
    }

    /// The trail's records of a kind.
    pub fn trail(&self, kind: &str) -> Vec<Value> {
        let arguments = ["audit", "search", "--kind", kind, "--limit", "100000"];
        self.penstock("engineer", &arguments)["records"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// Gives the desk another MAC address.
    pub fn give_desk(&self, mac: &str) {
        self.desk.ip(&["link", "set", "eth0", "address", mac]).unwrap();
    }

    /// What the trail says last of the MAC address behind an address.
    pub fn binding(&self, address: &str) -> Option<Value> {
        let records = self.trail("learned");
        let events = records.iter().map(|record| &record["event"]);
        let mut found = events.filter(|event| event["source"] == address && !event["binding"].is_null());
        // The newest comes first.
        found.next().map(|event| event["binding"].clone())
    }

    /// What the agent's program says on the gateway.
    pub fn agent_says(&self, arguments: &[&str]) -> String {
        let config = self.path("agent.toml");
        let words = [arguments, &["--config", &config]].concat();
        run(&self.gateway, &program("penstock-agent"), &words)
    }

    /// `penstock …` as a person; gives its JSON.
    pub fn penstock(&self, person: &str, arguments: &[&str]) -> Value {
        let home = format!("XDG_CONFIG_HOME={}", self.path(person));
        let program = program("penstock");
        let words = [&[home.as_str(), &program, "--output", "json"], arguments].concat();
        serde_json::from_str(&run(&self.headquarters, "env", &words)).unwrap_or(Value::Null)
    }

    /// `penstock …` of the administrator, which the approver confirms with this copy of the document.
    fn penstock_confirmed(&self, arguments: &[&str], document: &str) {
        let home = format!("XDG_CONFIG_HOME={}", self.path("admin"));
        let mut command = self.headquarters.command("env");
        command.args([home.as_str(), &program("penstock"), "--output", "json"]);
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(
            (output.status.code(), &said["state"]),
            (Some(1), &"waiting".into())
        );
        let id = said["id"].as_str().unwrap();
        self.penstock("approver", &["requests", "confirm", id, document, "--yes"]);
        self.penstock("admin", arguments);
    }

    fn log_in(&self, person: &str, token: &str) {
        let file = self.path(&format!("{person}.login"));
        std::fs::write(&file, token).unwrap();
        self.penstock(person, &["login", "--token", &file]);
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }
}

/// Runs a program to its end, which must be a success; what it printed.
pub fn run(place: &Namespace, program: &str, arguments: &[&str]) -> String {
    let mut command = place.command(program);
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {said}{complained}"
    );
    said
}

/// A program of the workspace: `make test` builds all of them, into the folder above the tests'.
fn program(name: &str) -> String {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join(name);
    assert!(
        program.is_file(),
        "{}: cargo build --workspace --bins",
        program.display()
    );
    program.to_string_lossy().into_owned()
}

/// The Python that has pymodbus (`scripts/setup` puts it there).
pub fn python() -> String {
    let tests = std::env::current_exe().unwrap();
    let target = tests.ancestors().find(|folder| folder.join("peers").is_dir());
    let python = target
        .expect("target/peers: run scripts/setup")
        .join("peers/bin/python");
    python.to_string_lossy().into_owned()
}
