//! A gateway between an office and a controller, whose coordinator sends what a test wants. The body of a test runs at the coordinator.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use penstock_lab::{Daemon, Lab, Namespace, wait_until};
use penstock_policy::ids::{Digest, FlowId};
use penstock_policy::plan::{
    AskedFrom, Capability, ChangeWindows, Condition, Endpoint, Interlock, Management, Observing, Plan,
    PlanInterface, Rule, Window,
};
use penstock_policy::terms::{Answers, OnAgentLoss, OnRefusal, PortRange, Transport};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::coordinator_message::Message as Outbound;
use penstock_proto::v1::{ConfirmTrial, Order, PolicyOffer, PolicyStanding, PolicyState, Upto};

use super::fake::coordinator::Coordinator;
use super::fake::{self, BOTH, offer_of};
use crate::world::{PATIENCE, program, test};

const COORDINATOR: &str = "192.0.2.10:7643";
/// What the desk polls.
pub const POLLED: &str = "10.20.4.7:502";
/// Where it sends datagrams beside that.
pub const BESIDE: &str = "10.20.4.7:2222";
/// Where the gateway asks the controller.
pub const ASKED: &str = "10.20.4.7:1502";
/// What some releases let pass.
pub const SOMETIMES: &str = "10.20.4.7:8080";

/// What a release lets the desk do with the controller.
#[derive(Clone, Copy)]
pub struct Flows {
    /// [`POLLED`].
    pub polled: bool,
    /// What the flow is called.
    pub polled_is: &'static str,
    /// It is a must-flow.
    pub must: bool,
    /// [`SOMETIMES`].
    pub sometimes: bool,
    /// The gateway asks the controller before it changes, at [`ASKED`].
    pub asks: bool,
    /// It may change on this day of the week only, 0 is Monday.
    pub weekday: Option<u8>,
}

impl Flows {
    pub const ALL: Self = Self {
        polled: true,
        polled_is: "polled",
        must: true,
        sometimes: true,
        asks: false,
        weekday: None,
    };

    fn plan(self) -> Plan {
        let end = |name: &str, address: [u8; 4]| {
            vec![Endpoint {
                name: name.into(),
                network: std::net::IpAddr::from(address).into(),
            }]
        };
        let rule = |id: u32, flow: &str, transport| Rule {
            id: FlowId(id),
            conduit: "supply".parse().unwrap(),
            flow: flow.parse().unwrap(),
            sources: end("desk", [10, 1, 0, 66]),
            destinations: end("plc", [10, 20, 4, 7]),
            transport,
            must_flow: false,
            on_agent_loss: OnAgentLoss::Block,
            operations: None,
            on_refusal: OnRefusal::Answer,
            roles: None,
            answers: Answers::Strict,
            tls: None,
        };
        let tcp = |port| Transport::Tcp(vec![PortRange::single(port)]);
        let mut rules = vec![rule(2, "beside", Transport::Udp(vec![PortRange::single(2222)]))];
        if self.polled {
            let id = if self.polled_is == Self::ALL.polled_is {
                1
            } else {
                4
            };
            rules.push(Rule {
                must_flow: self.must,
                ..rule(id, self.polled_is, tcp(502))
            });
        }
        if self.sometimes {
            rules.push(rule(3, "sometimes", tcp(8080)));
        }
        let side = |name: &str, network: &str| PlanInterface {
            name: name.to_owned(),
            zone: name.parse().unwrap(),
            behind: vec![],
            routers: vec![],
            hardware: vec![],
            networks: vec![network.parse().unwrap()],
            observing: Observing::Nothing,
        };
        let mut requires = fake::plan().requires;
        if self.asks || self.weekday.is_some() {
            requires.insert(Capability::of(Capability::CHANGE_CONTROL));
        }
        let asked: SocketAddr = ASKED.parse().unwrap();
        Plan {
            requires,
            interlock: self.asks.then(|| Interlock {
                asset: "plc".parse().unwrap(),
                address: asked.ip(),
                port: asked.port(),
                from: AskedFrom::Address("10.20.4.1".parse().unwrap()),
                condition: Condition::Coil {
                    unit: 255,
                    coil: 5,
                    is: true,
                },
            }),
            windows: self.weekday.map(|weekday| ChangeWindows {
                timezone: "Europe/Berlin".to_owned(),
                weekly: vec![Window {
                    weekday,
                    start_minute: 0,
                    end_minute: 1440,
                }],
            }),
            interfaces: vec![side("control", "10.20.4.0/24"), side("office", "10.1.0.0/24")],
            management: Some(Management {
                interface: "mgmt".to_owned(),
                peers: vec!["192.0.2.10/32".parse().unwrap()],
            }),
            rules,
            ..fake::plan()
        }
    }
}

pub struct Plant<'a> {
    lab: &'a Lab,
    pub desk: Namespace,
    pub gateway: Namespace,
    pub controller: Namespace,
    headquarters: Namespace,
    coordinator: Coordinator,
    orders: Cell<u64>,
    last: RefCell<PolicyOffer>,
}

/// Runs `body` at the coordinator of a plant whose gateway is enrolled.
pub fn at_plant(name: &str, body: impl FnOnce(&Plant<'_>) + Send) {
    test(name, |lab| {
        let [desk, gateway, controller, headquarters] =
            ["desk", "gw-1", "plc", "hq"].map(|name| lab.namespace(name).unwrap());
        gateway.forward().unwrap();
        for (a, b, here, there) in [
            ("office", &desk, "10.1.0.1/24", "10.1.0.66/24"),
            ("control", &controller, "10.20.4.1/24", "10.20.4.7/24"),
            ("mgmt", &headquarters, "192.0.2.21/24", "192.0.2.10/24"),
        ] {
            lab.link((&gateway, a), (b, "eth0")).unwrap();
            gateway.address(a, here).unwrap();
            b.address("eth0", there).unwrap();
        }
        desk.route("default", "10.1.0.1").unwrap();
        controller.route("default", "10.20.4.1").unwrap();
        let listener = controller
            .enter(|| TcpListener::bind(SOMETIMES).unwrap())
            .unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let at_headquarters = headquarters.clone();
        let run = || {
            // The coordinator goes on beside the body, in threads that are where this one is.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let coordinator = runtime.block_on(Coordinator::start_at(COORDINATOR.parse().unwrap()));
            let plant = Plant {
                lab,
                desk,
                gateway,
                controller,
                headquarters,
                coordinator,
                orders: Cell::default(),
                last: RefCell::default(),
            };
            plant.enrol();
            body(&plant);
        };
        at_headquarters.enter(run).unwrap();
    });
}

impl Plant<'_> {
    fn path(&self, name: &str) -> String {
        self.lab.directory().join(name).to_string_lossy().into_owned()
    }

    fn enrol(&self) {
        let config = format!(
            "[agent]\nstate_folder = \"{}\"\n[clock]\nsynchronised_by = \"host\"\n[audit]\nspool_bytes_max = 8388608\nfree_bytes_min = 1048576\n",
            self.path("state")
        );
        std::fs::write(self.path("agent.toml"), config).unwrap();
        std::fs::write(self.path("token"), self.coordinator.token().to_string()).unwrap();
        let mut command = self.gateway.command(&program("penstock-agent"));
        command.args([
            "enrol",
            "--config",
            &self.path("agent.toml"),
            "--token",
            &self.path("token"),
        ]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn start_agent(&self) -> Daemon {
        let mut command = self.gateway.command(&program("penstock-agent"));
        command.args(["run", "--config", &self.path("agent.toml")]);
        self.gateway.spawn_command("agent", command).unwrap()
    }

    /// The same after another one, and waits until it has said how it stands.
    pub fn start_agent_again(&self) -> Daemon {
        let before = self.sessions();
        let agent = self.start_agent();
        wait_until("the next agent's session", PATIENCE, || self.sessions() > before)
            .unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        agent
    }

    /// What the agents said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Offers a release of these flows, on a trial of so many seconds; `None`: without an order.
    pub fn release(
        &self,
        flows: &Flows,
        revision: u64,
        parent: Option<Digest>,
        trial_seconds: Option<u32>,
    ) -> Digest {
        let (offer, digest) = offer_of(&flows.plan(), revision, parent, BOTH);
        self.last.replace(offer);
        self.offer_again(trial_seconds);
        digest
    }

    /// Offers the last release once more.
    pub fn offer_again(&self, trial_seconds: Option<u32>) {
        let mut offer = self.last.borrow().clone();
        let statement = &offer.release.as_ref().unwrap().statement;
        self.orders.set(self.orders.get() + 1);
        offer.order = trial_seconds.map(|trial_seconds| Order {
            statement_digest: Digest::of(statement).0.to_vec().into(),
            upto: Upto::Active.into(),
            trial_seconds,
            number: self.orders.get(),
            why: "a test's".to_owned(),
        });
        // As a coordinator does: again in each session that begins.
        self.coordinator.keep_sending(Outbound::Offer(offer));
    }

    pub fn confirm(&self, statement: Digest) {
        self.coordinator.send(Some(Outbound::Confirm(ConfirmTrial {
            statement_digest: statement.0.to_vec().into(),
        })));
    }

    pub fn sessions(&self) -> usize {
        self.coordinator.memory.lock().unwrap().sessions
    }

    fn policy(&self) -> Option<PolicyState> {
        self.coordinator.memory.lock().unwrap().policy.clone()
    }

    pub fn standing(&self) -> Option<PolicyStanding> {
        self.policy()?.standing
    }

    pub fn effective(&self) -> Option<u64> {
        Some(self.policy()?.effective?.revision)
    }

    pub fn trusted(&self) -> Option<u64> {
        Some(self.policy()?.trusted?.revision)
    }

    pub fn refused(&self) -> Option<String> {
        Some(self.policy()?.refused?.code)
    }

    pub fn wait_for_effective(&self, revision: u64) {
        wait_until("a release in force", PATIENCE, || {
            self.effective() == Some(revision)
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.log()));
    }

    /// The policy's steps in the trail.
    pub fn steps(&self) -> Vec<String> {
        let events = self.coordinator.memory.lock().unwrap().events();
        let steps = events.into_iter().filter_map(|event| match event.kind {
            Some(Kind::Policy(policy)) => Some(format!("{} r{}", policy.step, policy.revision)),
            _ => None,
        });
        steps.collect()
    }

    /// What the trail says of the question to the process.
    pub fn interlock_events(&self) -> Vec<String> {
        let events = self.coordinator.memory.lock().unwrap().events();
        let said = events.into_iter().filter_map(|event| match event.kind {
            Some(Kind::Agent(agent)) if agent.step == "interlock" => Some(agent.message),
            _ => None,
        });
        said.collect()
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

    /// Whether it is so after a while.
    pub fn passes_soon(&self, address: &str, expected: bool) -> bool {
        wait_until("the rules", PATIENCE, || self.passes(address, false) == expected).is_ok()
    }

    /// Drops, or no longer, the first packet of each connection to the coordinator.
    pub fn keep_new_connections_out(&self, out: bool) {
        let script = if out {
            "table inet outage {
               chain input { type filter hook input priority 0; tcp dport 7643 tcp flags & (syn | ack) == syn drop; }
             }\n"
        } else {
            "delete table inet outage\n"
        };
        self.headquarters
            .run_with_input("nft", &["-f", "-"], script)
            .unwrap();
    }

    /// The machine has another boot from now on, as far as agents that are started can see.
    pub fn boot_again(&self) {
        let path = self.path("boot_id");
        std::fs::write(&path, "4e1c0f4c-0000-4000-8000-000000000002\n").unwrap();
        let mount = ["--bind", &path, "/proc/sys/kernel/random/boot_id"];
        assert!(Command::new("mount").args(mount).status().unwrap().success());
    }
}
