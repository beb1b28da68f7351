//! One gateway between an office and a controller, a coordinator, and three people, by the programs they would use.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use penstock_lab::{Daemon, Lab, Namespace, sandbox, wait_until};
use serde_json::Value;

pub const PATIENCE: Duration = Duration::from_secs(100);
const COORDINATOR: &str = "192.0.2.10:7643";

/// The controller's services: the first is always declared, the second only where a document says so.
pub const DECLARED: &str = "10.20.4.7:502";
pub const SOMETIMES: &str = "10.20.4.7:8080";
pub const NEVER: &str = "10.20.4.7:22";

const DOCUMENT: &str = r#"
plant: spine
title: A plant for tests
approvers:
  threshold: 1
  people: { approver: { key: "@KEY@" } }
sites: { here: { title: Here, timezone: UTC } }
gateways:
  gw-1:
    site: here
    mode: routed
    interfaces:
      office: { zone: office, address: 10.1.0.1/24 }
      control: { zone: control, address: 10.20.4.1/24 }
    management: { interface: mgmt, peers: [192.0.2.10] }
zones:
  office: { title: Office, kind: enterprise, sl_target: 1, networks: [10.1.0.0/24] }
  control: { title: Control, kind: control, sl_target: 2, networks: [10.20.4.0/24] }
assets:
  desk: { zone: office, address: 10.1.0.66 }
  plc: { zone: control, address: 10.20.4.7 }
conduits:
  reports:
    title: Reports
    from: office
    to: control
    flows:
      always: { source: desk, destination: plc, service: tcp/502 }
"#;

/// A line that a document has or has not: the flow that comes and goes.
const FLOW: &str = "      sometimes: { source: desk, destination: plc, service: tcp/8080 }\n";

pub struct World {
    pub desk: Namespace,
    pub gateway: Namespace,
    pub plc: Namespace,
    headquarters: Namespace,
    folder: PathBuf,
}

impl World {
    /// The networks, a coordinator that runs, people with keys, and `gw-1` enrolled with its state in `state`.
    pub fn new(lab: &Lab, state: &Path) -> (Self, Daemon) {
        let [desk, gateway, plc, headquarters] =
            ["desk", "gw-1", "plc", "hq"].map(|name| lab.namespace(name).unwrap());
        gateway.forward().unwrap();
        for (a, b, here, there) in [
            ("office", &desk, "10.1.0.1/24", "10.1.0.66/24"),
            ("control", &plc, "10.20.4.1/24", "10.20.4.7/24"),
            ("mgmt", &headquarters, "192.0.2.21/24", "192.0.2.10/24"),
        ] {
            lab.link((&gateway, a), (b, "eth0")).unwrap();
            gateway.address(a, here).unwrap();
            b.address("eth0", there).unwrap();
        }
        desk.route("default", "10.1.0.1").unwrap();
        plc.route("default", "10.20.4.1").unwrap();
        for address in [DECLARED, SOMETIMES, NEVER] {
            let listener = plc.enter(|| TcpListener::bind(address).unwrap()).unwrap();
            // Taken, or a long run would fill the queue of those that wait.
            std::thread::spawn(move || listener.incoming().for_each(drop));
        }
        let world = Self {
            desk,
            gateway,
            plc,
            headquarters,
            folder: lab.directory().to_owned(),
        };
        let coordinator = world.found(state);
        (world, coordinator)
    }

    fn found(&self, state: &Path) -> Daemon {
        let data = self.path("coordinator");
        let arguments = [
            "init",
            "--data",
            &data,
            "--plant",
            "spine",
            "--listen",
            COORDINATOR,
        ];
        let more = [
            "--metrics",
            "none",
            "--address",
            COORDINATOR,
            "--after-approval",
            "at-once",
        ];
        let token = self.run(
            &self.headquarters,
            "penstock-coordinator",
            &[&arguments[..], &more].concat(),
        );
        let coordinator = self.start_coordinator();
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
        let key = made["public"].as_str().unwrap();
        let document = DOCUMENT.replace("@KEY@", key);
        std::fs::write(self.path("without.yaml"), &document).unwrap();
        std::fs::write(self.path("with.yaml"), format!("{document}{FLOW}")).unwrap();

        let config = format!(
            "[agent]\nstate_folder = \"{}\"\n[audit]\nspool_bytes_max = 8388608\nfree_bytes_min = 1048576\n",
            state.display()
        );
        std::fs::write(self.path("agent.toml"), config).unwrap();
        let token = self.path("gw-1.token");
        let document = self.path("with.yaml");
        self.penstock_confirmed(
            &["gateways", "token", "gw-1", &document, "--out", &token],
            Some(&document),
        );
        let config = self.path("agent.toml");
        self.run(
            &self.gateway,
            "penstock-agent",
            &["enrol", "--config", &config, "--token", &token],
        );
        coordinator
    }

    pub fn start_coordinator(&self) -> Daemon {
        let daemon = self.spawn_coordinator();
        self.headquarters.wait_for_tcp(COORDINATOR, PATIENCE).unwrap();
        daemon
    }

    /// The same, though it takes no connections yet.
    pub fn spawn_coordinator(&self) -> Daemon {
        let config = self.path("coordinator/coordinator.toml");
        let mut command = self.headquarters.command(&program("penstock-coordinator"));
        command.args(["serve", "--config", &config]);
        self.headquarters.spawn_command("coordinator", command).unwrap()
    }

    /// A backup, as a person makes it while the coordinator runs.
    pub fn back_up(&self) {
        let (config, to) = (self.path("coordinator/coordinator.toml"), self.path("backup"));
        let passphrase = self.path("passphrase");
        std::fs::write(&passphrase, "correct horse\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&passphrase, mode).unwrap();
        let arguments = [
            "backup",
            "--config",
            &config,
            "--to",
            &to,
            "--passphrase-file",
            &passphrase,
        ];
        self.run(&self.headquarters, "penstock-coordinator", &arguments);
    }

    /// Takes away all that the stopped coordinator had but its configuration, and puts the backup in its place.
    pub fn restore(&self) {
        let (data, lost) = (self.path("coordinator"), self.path("lost"));
        std::fs::rename(&data, &lost).unwrap();
        std::fs::rename(self.path("backup"), &data).unwrap();
        let config = "coordinator.toml";
        std::fs::copy(format!("{lost}/{config}"), format!("{data}/{config}")).unwrap();
        let (config, passphrase) = (format!("{data}/{config}"), self.path("passphrase"));
        let arguments = ["unlock", "--config", &config, "--passphrase-file", &passphrase];
        self.run(&self.headquarters, "penstock-coordinator", &arguments);
    }

    pub fn start_agent(&self) -> Daemon {
        let mut command = self.gateway.command(&program("penstock-agent"));
        command.args(["run", "--config", &self.path("agent.toml")]);
        self.gateway.spawn_command("agent", command).unwrap()
    }

    /// `penstock-agent …` on the gateway, as root there: its exit code, and all that it says.
    pub fn at_the_cabinet(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let command = self.gateway.command(&program("penstock-agent"));
        self.say_at_the_cabinet(command, arguments)
    }

    /// The same as another user in no group but these; `None`: there is none here.
    pub fn at_the_cabinet_as(
        &self,
        (user, groups): (u32, &str),
        arguments: &[&str],
    ) -> Option<(Option<i32>, String)> {
        let user = user.to_string();
        let groups = match groups {
            "" => "--clear-groups".to_owned(),
            groups => format!("--groups={groups}"),
        };
        let become_it = ["--reuid", &user, "--regid", &user, &groups];
        let mut possible = self.gateway.command("setpriv");
        if !possible.args(become_it).arg("true").status().unwrap().success() {
            return None;
        }
        let mut command = self.gateway.command("setpriv");
        command.args(become_it).arg(program("penstock-agent"));
        Some(self.say_at_the_cabinet(command, arguments))
    }

    /// `penstock-agent …` on a terminal of the gateway, where somebody types this.
    pub fn typed_at_the_cabinet(&self, arguments: &[&str], typed: &str) -> (Option<i32>, String) {
        let words = [&[program("penstock-agent").as_str()][..], arguments]
            .concat()
            .join(" ");
        let line = format!("{words} --config {}", self.path("agent.toml"));
        let mut command = self.gateway.command("script");
        command
            .args(["-qec", &line, "/dev/null"])
            .env_remove("SUDO_USER")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut script = command.spawn().unwrap();
        let mut keys = script.stdin.take().unwrap();
        std::io::Write::write_all(&mut keys, format!("{typed}\n").as_bytes()).unwrap();
        // The terminal stays until the program has ended.
        let output = script.wait_with_output().unwrap();
        drop(keys);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    }

    fn say_at_the_cabinet(&self, mut command: Command, arguments: &[&str]) -> (Option<i32>, String) {
        command
            .args(arguments)
            .args(["--config", &self.path("agent.toml")])
            .env_remove("SUDO_USER")
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Proposes and approves the document with or without the flow that comes and goes; gives its revision.
    pub fn release(&self, with_flow: bool) -> u64 {
        self.release_said(with_flow, &[])
    }

    /// The same, though the current release may have the same document.
    pub fn release_again(&self, with_flow: bool) -> u64 {
        self.release_said(with_flow, &["--again"])
    }

    fn release_said(&self, with_flow: bool, more: &[&str]) -> u64 {
        let document = self.document(with_flow);
        let arguments = [
            "release", "propose", &document, "--ticket", "T-1", "--reason", "test", "--yes",
        ];
        let proposed = self.penstock("engineer", &[&arguments[..], more].concat());
        let revision = proposed["release"]["revision"].as_u64().unwrap();
        let digest = proposed["release"]["statement_digest"].as_str().unwrap();
        self.approve(revision, digest);
        revision
    }

    fn approve(&self, revision: u64, digest: &str) {
        let key = self.path("approver.key");
        self.penstock(
            "approver",
            &[
                "release",
                "approve",
                &revision.to_string(),
                "--digest",
                digest,
                "--key",
                &key,
                "--yes",
            ],
        );
    }

    /// What the coordinator knows of the gateway.
    pub fn seen(&self) -> Value {
        self.penstock("engineer", &["gateways", "list"])["gateways"][0].clone()
    }

    pub fn wait_for_effective(&self, revision: u64) {
        wait_until(&format!("r{revision} in force"), PATIENCE, || {
            let seen = self.seen();
            seen["connected"] == true && seen["effective"] == revision
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.seen()));
    }

    /// The gateway's audit records, oldest first.
    pub fn trail(&self) -> Vec<Value> {
        self.records("gw-1", &[])
    }

    /// The seals in its trail.
    pub fn seals(&self) -> Vec<Value> {
        self.records("gw-1", &["--kind", "seal"])
    }

    /// Records of a source, oldest first.
    pub fn records(&self, source: &str, more: &[&str]) -> Vec<Value> {
        let limit = ["audit", "search", "--source", source, "--limit", "100000"];
        let arguments = [&limit, ["--oldest-first"].as_slice(), more].concat();
        self.penstock("engineer", &arguments)["records"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// Whether the desk can open a connection: one that is expected is waited for, and one that is not a little.
    pub fn passes(&self, address: &str, expected: bool) -> bool {
        let address: SocketAddr = address.parse().unwrap();
        let patience = if expected {
            PATIENCE
        } else {
            Duration::from_millis(700)
        };
        let reach = || TcpStream::connect_timeout(&address, patience).is_ok();
        self.desk.enter(reach).unwrap()
    }

    /// Holds the kernel to what the document in force says.
    pub fn assert_enforced(&self, when: &str) {
        assert!(self.passes(DECLARED, true), "the declared flow passes {when}");
        assert!(
            !self.passes(NEVER, false),
            "what is not declared is refused {when}"
        );
    }

    /// `penstock …` as a person; gives its JSON.
    pub fn penstock(&self, person: &str, arguments: &[&str]) -> Value {
        let home = format!("XDG_CONFIG_HOME={}", self.path(person));
        let program = program("penstock");
        let words = [&[home.as_str(), &program, "--output", "json"], arguments].concat();
        let said = self.run_found(&self.headquarters, "env", &words);
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    /// `penstock …` of the administrator, which the approver confirms, of a gateway with this copy of the document.
    pub fn penstock_confirmed(&self, arguments: &[&str], document: Option<&str>) {
        let home = format!("XDG_CONFIG_HOME={}", self.path("admin"));
        let mut command: Command = self.headquarters.command("env");
        command.args([home.as_str(), &program("penstock"), "--output", "json"]);
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(
            (output.status.code(), &said["state"]),
            (Some(1), &"waiting".into())
        );
        let id = said["id"].as_str().unwrap();
        let confirm = ["requests", "confirm", id].into_iter().chain(document);
        self.penstock("approver", &confirm.chain(["--yes"]).collect::<Vec<_>>());
        self.penstock("admin", arguments);
    }

    /// `penstock …` as a person, which has to fail; gives the failure's code.
    pub fn penstock_fails(&self, person: &str, arguments: &[&str]) -> String {
        let home = format!("XDG_CONFIG_HOME={}", self.path(person));
        let program = program("penstock");
        let mut command: Command = self.headquarters.command("env");
        command.args([home.as_str(), &program, "--output", "json"]);
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} did not fail");
        let failure: Value = serde_json::from_str(&complained).unwrap_or_else(|_| panic!("{complained}"));
        let code = failure["code"].as_str().or(failure["error"]["code"].as_str());
        code.unwrap_or_else(|| panic!("{complained}")).to_owned()
    }

    /// The document with or without the flow that comes and goes.
    pub fn document(&self, with_flow: bool) -> String {
        self.path(if with_flow { "with.yaml" } else { "without.yaml" })
    }

    pub fn log_in(&self, person: &str, token: &str) {
        let file = self.path(&format!("{person}.login"));
        std::fs::write(&file, token).unwrap();
        self.penstock(person, &["login", "--token", &file]);
    }

    fn run(&self, place: &Namespace, name: &str, arguments: &[&str]) -> String {
        self.run_found(place, &program(name), arguments)
    }

    fn run_found(&self, place: &Namespace, program: &str, arguments: &[&str]) -> String {
        let mut command: Command = place.command(program);
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {said}{complained}"
        );
        said
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }
}

/// A program of the workspace: `make test` builds all of them, into the folder above the tests'.
pub fn program(name: &str) -> String {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join(name);
    assert!(
        program.is_file(),
        "{}: cargo build --workspace --bins",
        program.display()
    );
    program.to_string_lossy().into_owned()
}

/// The body of a test with a world of its own; see [`sandbox::test`].
pub fn test(name: &str, body: impl FnOnce(&Lab)) {
    sandbox::test(name, body).unwrap();
}
