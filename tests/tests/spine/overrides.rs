//! Break-glass with the real agent in the real kernel: a controller is replaced behind a bridged gateway while it is polled, and no approver
//! is there. The policy lies on the disk; there is no coordinator.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;

use penstock_agent::policy_store::{self, journal::Order};
use penstock_agent::store::Store;
use penstock_lab::{Daemon, Lab, Namespace, wait_until};
use penstock_policy::ids::{ApproverId, FlowId, Revision};
use penstock_policy::overrides::{BreakGlass, Code, Signed};
use penstock_policy::plan::{Capability, Endpoint, Hardware, Observing, Plan, PlanInterface, Rule};
use penstock_policy::release::Trust;
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::terms::{Answers, GatewayMode, OnAgentLoss, OnRefusal, PortRange, Transport};
use serde_json::Value;

use super::trials::fake::{self, BOTH, offer_of};
use super::trials::traffic::Polling;
use super::world::{PATIENCE, program, test};

const PLC: &str = "10.9.2.7:502";
const OTHER: &str = "10.9.3.8:502";
/// The controller's device, and the one that takes its place.
const BEFORE: &str = "02:00:00:00:02:07";
const AFTER: &str = "02:00:00:00:02:99";

fn key(seed: u8) -> ApproverKey {
    ApproverKey::from_seed(&[seed; 32])
}

fn code() -> Code {
    Code::from_random([9; 26])
}

/// The desk polls both controllers; of one the device is declared, and Bert with Dora, or a code, may override that.
fn plan() -> Plan {
    let end = |name: &str, address: [u8; 4]| {
        vec![Endpoint {
            name: name.into(),
            network: IpAddr::from(address).into(),
        }]
    };
    let polled = |id: u32, flow: &str, plc: [u8; 4]| Rule {
        id: FlowId(id),
        conduit: "supply".parse().unwrap(),
        flow: flow.parse().unwrap(),
        sources: end("desk", [10, 9, 1, 66]),
        destinations: end(flow, plc),
        transport: Transport::Tcp(vec![PortRange::single(502)]),
        must_flow: true,
        on_agent_loss: OnAgentLoss::Block,
        operations: None,
        on_refusal: OnRefusal::Answer,
        roles: None,
        answers: Answers::Strict,
        tls: None,
    };
    let side = |number: u8, hardware| PlanInterface {
        name: format!("lan{number}"),
        zone: format!("zone{number}").parse().unwrap(),
        behind: vec![],
        routers: vec![],
        hardware,
        networks: vec![format!("10.9.{number}.0/24").parse().unwrap()],
        observing: Observing::Nothing,
    };
    let declared = Hardware {
        address: IpAddr::from([10, 9, 2, 7]),
        mac: BEFORE.parse().unwrap(),
    };
    let plan = fake::plan();
    let people = [("bert", 11), ("dora", 12)];
    Plan {
        mode: GatewayMode::Bridged,
        requires: [
            Capability::KERNEL,
            Capability::KERNEL_BRIDGE,
            Capability::OVERRIDES,
        ]
        .map(Capability::of)
        .into(),
        interfaces: vec![side(1, vec![]), side(2, vec![declared]), side(3, vec![])],
        rules: vec![polled(1, "plc", [10, 9, 2, 7]), polled(2, "other", [10, 9, 3, 8])],
        break_glass: Some(BreakGlass {
            longest_s: 3600,
            people: people
                .map(|(name, seed)| (ApproverId::new(name).unwrap(), key(seed).public()))
                .into(),
            codes: [code().digest(&plan.plant, &plan.gateway)].into(),
        }),
        ..plan
    }
}

struct Plant<'a> {
    lab: &'a Lab,
    desk: Namespace,
    gateway: Namespace,
    plc: Namespace,
    other: Namespace,
}

impl<'a> Plant<'a> {
    /// The networks, and a gateway with [`plan`] on its disk.
    fn new(lab: &'a Lab) -> Self {
        let [desk, gateway, plc, other] =
            ["desk", "gw-1", "plc", "other"].map(|name| lab.namespace(name).unwrap());
        for (port, host, address) in [
            ("lan1", &desk, "10.9.1.66/16"),
            ("lan2", &plc, "10.9.2.7/16"),
            ("lan3", &other, "10.9.3.8/16"),
        ] {
            lab.link((&gateway, port), (host, "eth0")).unwrap();
            host.address("eth0", address).unwrap();
        }
        plc.ip(&["link", "set", "eth0", "address", BEFORE]).unwrap();
        gateway.bridge("br0", &["lan1", "lan2", "lan3"]).unwrap();
        gateway.filter_bridged().unwrap();
        let plant = Self {
            lab,
            desk,
            gateway,
            plc,
            other,
        };
        let state = plant.path("state");
        std::fs::create_dir(&state).unwrap();
        let config = format!(
            "[agent]\nstate_folder = \"{state}\"\n[audit]\nspool_bytes_max = 8388608\nfree_bytes_min = 1048576\n"
        );
        std::fs::write(plant.path("agent.toml"), config).unwrap();
        let (offer, statement) = offer_of(&plan(), 1, None, BOTH);
        let trust = Trust {
            plant: fake::plant(),
            gateway: fake::gateway(),
            approvers: fake::approvers(),
            floor: Revision(1),
            current: Some(statement),
        };
        let mut store = Store::open(state.as_ref());
        policy_store::stage(&mut store, None, (&trust, &Order::default()), &offer).unwrap();
        policy_store::set_effective(&mut store, statement, &trust).unwrap();
        plant
    }

    fn path(&self, name: &str) -> String {
        self.lab.directory().join(name).to_string_lossy().into_owned()
    }

    fn start_agent(&self) -> Daemon {
        let mut command = self.gateway.command(&program("penstock-agent"));
        command.args(["run", "--config", &self.path("agent.toml")]);
        let agent = self.gateway.spawn_command("agent", command).unwrap();
        self.wait_for("the policy in the kernel", |status| {
            status["in_kernel"]["revision"] == 1 && status["kernel"]["state"] == "as-left"
        });
        agent
    }

    /// `penstock-agent …`, with this on its standard input: its exit code, and all that it says.
    fn agent(&self, arguments: &[&str], typed: &str) -> (Option<i32>, String) {
        let mut command = self.gateway.command(&program("penstock-agent"));
        command
            .args(arguments)
            .args(["--config", &self.path("agent.toml")])
            .env_remove("SUDO_USER")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn status(&self) -> Value {
        // It has no identity, and says so by its exit code.
        let (_, said) = self.agent(&["status", "--json"], "");
        said.lines()
            .find_map(|line| serde_json::from_str(line).ok())
            .unwrap_or(Value::Null)
    }

    fn wait_for(&self, what: &str, mut is_so: impl FnMut(&Value) -> bool) {
        wait_until(what, PATIENCE, || is_so(&self.status()))
            .unwrap_or_else(|error| panic!("{error}: {}", self.status()));
    }

    /// A request for the new device, in this file.
    fn request(&self, file: &str) {
        let device = format!("10.9.2.7={AFTER}");
        let arguments = [
            "override",
            "request",
            "--by",
            "carla",
            "--device",
            &device,
            "--for",
            "10m",
            "--reason",
            "PLC 7 was replaced",
            "--ticket",
            "CHG-4711",
            "-o",
            file,
        ];
        let (code, said) = self.agent(&arguments, "");
        assert_eq!(code, Some(0), "{said}");
    }

    /// The desk looks for the controller again, as it does by itself now and then: that is when the gateway judges its device.
    fn forget_neighbours(&self) {
        self.desk.ip(&["neigh", "flush", "all"]).unwrap();
    }

    /// `override begin`, as soon as no earlier refusal is in its way.
    fn begin(&self, more: &[&str], typed: &str) -> (Option<i32>, String) {
        let arguments = [&["override", "begin", "--by", "carla"][..], more].concat();
        let mut answer = (None, String::new());
        wait_until("an answer", PATIENCE, || {
            answer = self.agent(&arguments, typed);
            !answer.1.contains("try again in a few seconds")
        })
        .unwrap();
        answer
    }
}

fn sign(file: &str, name: &str, seed: u8) {
    let mut signed = Signed::from_json(&std::fs::read_to_string(file).unwrap()).unwrap();
    signed.sign(ApproverId::new(name).unwrap(), &key(seed)).unwrap();
    std::fs::write(file, signed.to_json()).unwrap();
}

#[test]
fn a_controller_that_is_replaced_at_night_is_polled_again_after_two_people_signed_and_until_the_override_ends_and_no_other_poll_is_missed()
 {
    test(
        "overrides::a_controller_that_is_replaced_at_night_is_polled_again_after_two_people_signed_and_until_the_override_ends_and_no_other_poll_is_missed",
        |lab| {
            let plant = Plant::new(lab);
            let mut agent = plant.start_agent();
            let other = Polling::between(&plant.desk, &plant.other, OTHER);
            let polled = Polling::between(&plant.desk, &plant.plc, PLC);
            polled.wait_for_answers(5);

            plant.plc.ip(&["link", "set", "eth0", "address", AFTER]).unwrap();
            plant.forget_neighbours();
            polled.wait_for_silence(5);

            let file = plant.path("plc7.json");
            plant.request(&file);
            sign(&file, "bert", 11);
            let (exit, said) = plant.begin(&[&file], "");
            assert!(exit == Some(1) && said.contains("it takes two people"), "{said}");
            polled.wait_for_silence(3);
            sign(&file, "dora", 12);
            let (exit, said) = plant.begin(&[&file], "");
            assert!(
                exit == Some(0) && said.contains("is in force for 10 min"),
                "{said}"
            );
            polled.wait_for_answers(10);
            plant.wait_for("rules as they were left, and what is overridden", |status| {
                let lasting = &status["change"]["overrides"][0];
                status["kernel"]["state"] == "as-left"
                    && lasting["authority"] == "bert and dora"
                    && lasting["in_kernel"] == true
            });
            let (exit, said) = plant.begin(&[&file], "");
            assert!(exit == Some(1) && said.contains("was used"), "{said}");

            // The kernel keeps it while no agent runs, and the next agent keeps it in the kernel.
            let missed = polled.missed();
            agent.kill();
            polled.wait_for_answers(5);
            let (_, said) = plant.agent(&["override", "list"], "");
            assert!(said.contains("PLC 7 was replaced (CHG-4711)"), "{said}");
            assert!(said.contains("permitted by bert and dora"), "{said}");
            agent = plant.start_agent();
            polled.wait_for_answers(5);
            assert_eq!(polled.missed(), missed);
            let status = plant.status();
            let number = status["change"]["overrides"][0]["number"].as_str().unwrap();
            let number = &number["sha256:".len()..][..8];
            let (exit, said) = plant.agent(&["override", "end", number, "--by", "carla"], "");
            assert!(exit == Some(0) && said.starts_with("ended: "), "{said}");
            plant.forget_neighbours();
            polled.wait_for_silence(5);

            // A code does it once.
            let file = plant.path("again.json");
            plant.request(&file);
            let (exit, said) = plant.begin(&[&file, "--code"], "wrong\n");
            assert!(
                exit == Some(1) && said.contains("26 letters and digits"),
                "{said}"
            );
            let typed = format!("{}\n", code().to_string().to_lowercase());
            let (exit, said) = plant.begin(&[&file, "--code"], &typed);
            assert_eq!(exit, Some(0), "{said}");
            assert!(!said.contains(code().to_string().as_str()), "{said}");
            polled.wait_for_answers(10);
            let (exit, said) = plant.agent(&["override", "end", "--all", "--by", "carla"], "");
            assert_eq!(exit, Some(0), "{said}");
            plant.forget_neighbours();
            polled.wait_for_silence(3);
            let file = plant.path("third.json");
            plant.request(&file);
            let (exit, said) = plant.begin(&[&file, "--code"], &typed);
            assert!(exit == Some(1) && said.contains("used before"), "{said}");
            let (_, said) = plant.agent(&["override", "list"], "");
            assert_eq!(said.trim(), "nothing is overridden");

            assert_eq!(other.missed(), 0, "polls of another controller");
            drop(agent);
        },
    );
}
