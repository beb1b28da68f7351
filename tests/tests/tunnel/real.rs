//! The real programs: a coordinator, two agents and the people's `penstock`, from enrolment to what crosses, and what a restart of an agent costs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use penstock_lab::{self as lab, Daemon, Lab, Namespace, wait_until};
use serde_json::Value;

use super::program::{Program, program};
use super::world::{INNER, PATIENCE, SOUTH, World};

const COORDINATOR: &str = "192.0.2.10:7643";
const GATEWAYS: [&str; 2] = ["gw-north", "gw-south"];

/// A headquarters with a coordinator and three people, and a network to both gateways that carries nothing else.
struct Headquarters<'a> {
    world: &'a World,
    hq: Namespace,
    document: String,
}

impl<'a> Headquarters<'a> {
    fn found(lab: &Lab, world: &'a World) -> (Self, Daemon) {
        let hq = lab.namespace("hq").unwrap();
        for (number, gateway) in (21..).zip(GATEWAYS) {
            let port = format!("to-{gateway}");
            let gateway = world.namespace(gateway);
            lab.link((gateway, "mgmt0"), (&hq, &port)).unwrap();
            gateway.address("mgmt0", &format!("192.0.2.{number}/24")).unwrap();
        }
        hq.bridge("br0", &["to-gw-north", "to-gw-south"]).unwrap();
        hq.address("br0", "192.0.2.10/24").unwrap();
        let mut own = Self {
            world,
            hq,
            document: String::new(),
        };
        let data = own.path("coordinator");
        let found = [
            "init",
            "--data",
            &data,
            "--plant",
            "two-shores",
            "--listen",
            COORDINATOR,
        ];
        let more = [
            "--metrics",
            "none",
            "--address",
            COORDINATOR,
            "--after-approval",
            "wait",
        ];
        let token = own.run(&own.hq, "penstock-coordinator", &[&found[..], &more].concat());
        let mut command = own.hq.command(&program("penstock-coordinator"));
        command.args(["serve", "--config", &format!("{data}/coordinator.toml")]);
        let coordinator = own.hq.spawn_command("coordinator", command).unwrap();
        own.hq.wait_for_tcp(COORDINATOR, PATIENCE).unwrap();
        own.log_in("admin", &token);
        for (person, role) in [("engineer", "engineer"), ("approver", "approver")] {
            let file = own.path(&format!("{person}.token"));
            own.penstock(
                "admin",
                &["operators", "add", person, "--role", role, "--out", &file],
            );
            own.log_in(person, &std::fs::read_to_string(file).unwrap());
        }
        let made = own.penstock("approver", &["key", "new", &own.path("approver.key")]);
        let key = made["public"].as_str().unwrap();
        let old = "ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
        own.document = own.path("plant.yaml");
        let text = include_str!("plant.yaml")
            .replace(old, key)
            .replace("anna:", "approver:");
        std::fs::write(&own.document, text).unwrap();
        (own, coordinator)
    }

    /// Enrols a gateway, and starts its agent.
    fn enrol(&self, gateway: &str) -> Daemon {
        let token = self.path(&format!("{gateway}.token"));
        let ask = ["gateways", "token", gateway, &self.document, "--out", &token];
        let (_, said) = self.say("admin", &ask);
        let id = said["id"].as_str().unwrap_or_else(|| panic!("{said}"));
        self.penstock("approver", &["requests", "confirm", id, &self.document, "--yes"]);
        self.penstock("admin", &ask);
        let (state, config) = (self.path(gateway), self.path(&format!("{gateway}.toml")));
        let text = format!(
            "[agent]\nstate_folder = \"{state}\"\n[audit]\nspool_bytes_max = 8388608\nfree_bytes_min = 1048576\n"
        );
        std::fs::write(&config, text).unwrap();
        let namespace = self.world.namespace(gateway);
        self.run(
            namespace,
            "penstock-agent",
            &["enrol", "--config", &config, "--token", &token],
        );
        let mut command = namespace.command(&program("penstock-agent"));
        command.args(["run", "--config", &config]);
        namespace
            .spawn_command(&format!("agent-{gateway}"), command)
            .unwrap()
    }

    /// Proposes and approves the document.
    fn release(&self) {
        let propose = [
            "release",
            "propose",
            &self.document,
            "--ticket",
            "T-1",
            "--reason",
            "test",
            "--yes",
        ];
        let proposed = self.penstock("engineer", &propose);
        let digest = proposed["release"]["statement_digest"].as_str().unwrap();
        let key = self.path("approver.key");
        let approve = [
            "release", "approve", "1", "--digest", digest, "--key", &key, "--yes",
        ];
        self.penstock("approver", &approve);
    }

    /// Starts its rollout by a plan with these waves, without time to look on: whether it began, and what was said.
    fn roll_out(&self, waves: &str) -> (bool, Value) {
        let plan = self.path("rollout.yaml");
        let text = format!(
            "format: penstock-rollout/1\nseed: 1\nshadow: 0s\ntrial: 1m\nsilence: 30s\npatience: 1m\ngate: {{ soft_rate: 0.5 }}\n\
             converge: {{ at_once: 1 }}\nwaves:\n{waves}"
        );
        std::fs::write(&plan, text).unwrap();
        self.say(
            "engineer",
            &[
                "rollout", "start", "1", "--plan", &plan, "--reason", "test", "--yes",
            ],
        )
    }

    fn gateways(&self) -> Vec<Value> {
        let said = self.penstock("engineer", &["gateways", "list"]);
        said["gateways"].as_array().unwrap().clone()
    }

    fn log_in(&self, person: &str, token: &str) {
        let file = self.path(&format!("{person}.login"));
        std::fs::write(&file, token).unwrap();
        self.penstock(person, &["login", "--token", &file]);
    }

    /// `penstock …` as a person, which has to succeed; its JSON.
    fn penstock(&self, person: &str, arguments: &[&str]) -> Value {
        let (done, said) = self.say(person, arguments);
        assert!(done, "{arguments:?}: {said}");
        said
    }

    /// `penstock …` as a person: whether it succeeded, and the JSON that it says.
    fn say(&self, person: &str, arguments: &[&str]) -> (bool, Value) {
        let home = format!("XDG_CONFIG_HOME={}", self.path(person));
        let mut command = self.hq.command("env");
        command.args([home.as_str(), &program("penstock"), "--output", "json"]);
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr]
            .into_iter()
            .find_map(|said| serde_json::from_slice(&said).ok());
        (output.status.success(), said.unwrap_or(Value::Null))
    }

    fn run(&self, place: &Namespace, name: &str, arguments: &[&str]) -> String {
        place.run(&program(name), arguments).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.world.file(name).to_string_lossy().into_owned()
    }
}

#[test]
fn a_release_with_a_tunnel_goes_to_both_gateways_at_once_and_what_crosses_then_is_seen_by_nobody_between() {
    lab::sandbox::test(
        "real::a_release_with_a_tunnel_goes_to_both_gateways_at_once_and_what_crosses_then_is_seen_by_nobody_between",
        |lab| {
            let world = World::new(lab);
            let (headquarters, _coordinator) = Headquarters::found(lab, &world);
            let agents = GATEWAYS.map(|gateway| headquarters.enrol(gateway));
            wait_until("both agents in a session", PATIENCE, || {
                let seen = headquarters.gateways();
                seen.len() == 2 && seen.iter().all(|gateway| gateway["connected"] == true)
            })
            .unwrap();
            headquarters.release();
            let (begun, said) = headquarters.roll_out(
                "- { name: first, gateways: { list: [gw-north] }, per_cell: 2, soak: 1s }\n\
                 - { name: rest, gateways: all, per_cell: 2, soak: 0s }\n",
            );
            let said = said.to_string();
            assert!(!begun && said.contains("the tunnel between gateways gw-north and gw-south"), "{said}");
            let (begun, said) =
                headquarters.roll_out("- { name: all, gateways: all, per_cell: 2, soak: 0s }\n");
            assert!(begun, "{said}");
            wait_until("r1 in force at both", PATIENCE, || {
                headquarters.gateways().iter().all(|gateway| gateway["effective"] == 1)
            })
            .unwrap_or_else(|error| panic!("{error}: {:?}", headquarters.gateways()));
            let between = world.record("real");
            world.wait_for_pings(true);
            let (answered, said) = world.ping(&["-c", "20", "-i", "0.02", "-W", "2", SOUTH]);
            assert!(answered, "{said}");
            let clear = between.packets(INNER);
            assert!(clear.is_empty(), "{clear:?}");
            assert!(between.packets("udp port 4433").len() > 40, "it went somewhere");
            wait_until("both tunnels in what the coordinator shows", PATIENCE, || {
                let seen = headquarters.gateways();
                let carries = |tunnel: &Value| tunnel["stands"] == true && tunnel["sent_packets"].as_u64() > Some(20);
                seen.iter().all(|gateway| carries(&gateway["tunnels"][0]))
            })
            .unwrap_or_else(|error| panic!("{error}: {:?}", headquarters.gateways()));
            for (gateway, agent) in GATEWAYS.iter().zip(&agents) {
                let config = headquarters.path(&format!("{gateway}.toml"));
                let shown = || {
                    let mut command = world.namespace(gateway).command(&program("penstock-agent"));
                    let output = command.args(["status", "--config", &config]).output().unwrap();
                    String::from_utf8_lossy(&output.stdout).into_owned()
                };
                wait_until("a tunnel in the status", PATIENCE, || {
                    shown().lines().any(|line| line.starts_with("tunnel ") && line.contains("stands since"))
                })
                .unwrap_or_else(|error| panic!("{error}: {}\n{}", shown(), agent.log()));
            }
        },
    )
    .unwrap();
}

#[test]
fn a_restart_of_either_agent_interrupts_its_tunnel_for_less_than_it_takes_to_notice_a_line_that_is_cut() {
    lab::sandbox::test(
        "real::a_restart_of_either_agent_interrupts_its_tunnel_for_less_than_it_takes_to_notice_a_line_that_is_cut",
        |lab| {
            let world = World::new(lab);
            let between = world.record("restarts");
            let mut agents = GATEWAYS.map(|gateway| Program::start(&world, gateway));
            world.wait_for_pings(true);
            let mut gaps = Vec::new();
            for agent in &mut agents {
                let begun = Instant::now();
                let stopped = agent.restart();
                world.wait_for_pings(true);
                gaps.push((begun.elapsed(), stopped));
            }
            let clear = between.packets(INNER);
            assert!(clear.is_empty(), "{clear:?}");
            for (whole, without_agent) in &gaps {
                let after = whole.saturating_sub(*without_agent);
                assert!(after < Duration::from_secs(4), "{gaps:?}");
            }
            println!("whole, and of that until the agent's policy was in force again: {gaps:?}");
        },
    )
    .unwrap();
}

#[test]
fn a_gateway_that_crashed_says_so_once_it_is_back_and_its_tunnel_does_not_wait_for_its_silence() {
    lab::sandbox::test(
        "real::a_gateway_that_crashed_says_so_once_it_is_back_and_its_tunnel_does_not_wait_for_its_silence",
        |lab| {
            let world = World::new(lab);
            let connecting = Program::start(&world, "gw-north");
            let mut accepting = Program::start(&world, "gw-south");
            world.wait_for_pings(true);
            let mut gaps = Vec::new();
            // On a machine that takes longer to start it than the other side has patience, the silence would come first, and says nothing here.
            let heard = loop {
                let begun = Instant::now();
                let before = connecting.log().len();
                let without_agent = accepting.crash();
                world.wait_for_pings(true);
                gaps.push((begun.elapsed(), without_agent));
                let log = connecting.log().split_off(before);
                if without_agent < Duration::from_secs(2) || gaps.len() == 10 {
                    break log;
                }
            };
            println!("whole, and of that until the agent's policy was in force again: {gaps:?}");
            assert!(
                heard.contains("was restarted and knows nothing of it"),
                "{gaps:?}: {heard}"
            );
            assert!(
                !heard.contains("nothing comes from the other gateway"),
                "{gaps:?}: {heard}"
            );
        },
    )
    .unwrap();
}
