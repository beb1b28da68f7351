//! What stands in the gateway: no rule at all, or the real agent with a stored policy.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use penstock_agent::enforce::nft::names::TABLE_SHADOW;
use penstock_agent::enforce::nft::render;
use penstock_agent::identity::{Enrolment, IdentityFolder};
use penstock_agent::policy_store;
use penstock_agent::policy_store::journal::{Order, Upto};
use penstock_agent::store::Store;
use penstock_policy::ids::{ConduitId, Digest, FlowId, FlowName, Revision, ZoneId};
use penstock_policy::model::ApproverSet;
use penstock_policy::plan::{
    Capability, Endpoint, Management, Observing, PLAN_FORMAT, Plan, PlanInterface, Rule,
};
use penstock_policy::protocol::Operations;
use penstock_policy::release::Trust;
use penstock_policy::terms::{GatewayMode, OnAgentLoss, OnDrift, OnRefusal, PortRange, Transport};
use penstock_proto::v1::{PolicyOffer, SignedRelease};

use super::Plant;

/// The real agent, enforcing one stored plan in the gateway's namespace until it is dropped.
pub(super) struct Inspecting {
    agent: Child,
    config: PathBuf,
    /// From the start of its process until the plan was in force.
    pub(super) start: Duration,
    _folder: tempfile::TempDir,
}

/// What an enrolment leaves on a gateway.
pub(super) struct Enrolled {
    pub(super) enrolment: Enrolment,
    /// The folder of its key and certificates.
    pub(super) files: PathBuf,
}

impl Inspecting {
    /// Comes back when the plan is in force.
    pub(super) fn start(plant: &Plant, plan: &Plan) -> Self {
        Self::in_folder(plant, plan, tempfile::tempdir().unwrap())
    }

    /// As [`Inspecting::start`], with an identity to end TLS with.
    pub(super) fn start_enrolled(plant: &Plant, plan: &Plan, enrolled: &Enrolled) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path());
        IdentityFolder::store_enrolment(&mut store, &enrolled.enrolment).unwrap();
        drop(store);
        let files = folder.path().join("identity");
        std::fs::create_dir(&files).unwrap();
        for file in std::fs::read_dir(&enrolled.files).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), files.join(file.file_name())).unwrap();
        }
        Self::in_folder(plant, plan, folder)
    }

    /// As [`Inspecting::start`], with `next` as a release in its shadow; comes back when live traffic is judged by that too.
    pub(super) fn start_shadowing(plant: &Plant, plan: &Plan, next: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), plan, Some(next));
        let agent = Self::in_stored_folder(plant, folder);
        let began = Instant::now();
        while plant
            .gateway
            .run("nft", &["list", "table", "inet", TABLE_SHADOW])
            .is_err()
        {
            assert!(began.elapsed() < Duration::from_secs(10), "there is no shadow");
            std::thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    /// Waits until the agent shows that the release in its shadow would have refused so many operations.
    pub(super) fn wait_for_refused(&self, plant: &Plant, operations: u64) {
        let began = Instant::now();
        loop {
            let mut status = plant.gateway.command(program().to_str().unwrap());
            status.args(["status", "--json", "--config"]).arg(&self.config);
            // It fails where the gateway is not enrolled, and has said all that it knows.
            let said = String::from_utf8(status.output().unwrap().stdout).unwrap();
            let status: serde_json::Value = serde_json::from_str(&said).unwrap();
            let refused = &status["change"]["shadow"]["would_deny_operations"];
            if refused.as_u64().is_some_and(|refused| refused >= operations) {
                return;
            }
            // It is looked at every ten seconds.
            assert!(began.elapsed() < Duration::from_secs(30), "{said}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn in_folder(plant: &Plant, plan: &Plan, folder: tempfile::TempDir) -> Self {
        store(folder.path(), plan, None);
        Self::in_stored_folder(plant, folder)
    }

    fn in_stored_folder(plant: &Plant, folder: tempfile::TempDir) -> Self {
        let config = folder.path().join("agent.toml");
        let text = format!(
            "[agent]\nstate_folder = {:?}\n",
            folder.path().display().to_string()
        );
        std::fs::write(&config, text).unwrap();
        let began = Instant::now();
        let mut agent = plant
            .gateway
            .command(program().to_str().unwrap())
            .args(["run", "--config", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(agent.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        while !said
            .last()
            .is_some_and(|line: &String| line.contains("policy in force"))
        {
            let line = log
                .next()
                .unwrap_or_else(|| panic!("no policy in force: {said:#?}"));
            said.push(line.unwrap());
        }
        let start = began.elapsed();
        // What it says further is read and dropped, so that it never waits for a reader.
        std::thread::spawn(move || log.count());
        Self {
            agent,
            config,
            start,
            _folder: folder,
        }
    }

    /// The agent's process.
    pub(super) fn id(&self) -> u32 {
        self.agent.id()
    }
}

impl Drop for Inspecting {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// The agent's program as it was built with this bench.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().with_file_name("penstock-agent");
    assert!(
        program.exists(),
        "{} is not built: cargo build --release -p penstock-agent",
        program.display()
    );
    program
}

/// Leaves a policy as if it had been in force when the agent last ran, and `next` as a release that is judged by beside it.
fn store(folder: &Path, plan: &Plan, next: Option<&Plan>) {
    let mut store = Store::open(folder);
    let (trust, offer) = accepted(plan, 1);
    let order = Order::default();
    policy_store::stage(&mut store, None, (&trust, &order), &offer).unwrap();
    policy_store::set_effective(&mut store, trust.current.unwrap(), &trust).unwrap();
    if let Some(next) = next {
        let order = Order {
            upto: Upto::Shadow,
            trial_ms: Some(300_000),
            ..Order::default()
        };
        let (next, offer) = accepted(next, 2);
        policy_store::stage(&mut store, trust.current, (&next, &order), &offer).unwrap();
    }
}

/// A release of this number as if it had been verified.
fn accepted(plan: &Plan, revision: u64) -> (Trust, PolicyOffer) {
    // What is in the store was verified once: the statement is only compared by its digest.
    let statement = format!("statement {revision}").into_bytes();
    let trust = Trust {
        plant: plan.plant.clone(),
        gateway: plan.gateway.clone(),
        approvers: ApproverSet {
            emergency_threshold: None,
            threshold: 1,
            people: BTreeMap::new(),
        },
        floor: Revision(revision),
        current: Some(Digest::of(&statement)),
    };
    let offer = PolicyOffer {
        release: Some(SignedRelease {
            statement: statement.into(),
            signatures: Vec::new(),
        }),
        plan: plan.to_bytes().into(),
        leaf_index: 0,
        inclusion_proof: Vec::new(),
        chain: Vec::new(),
        order: None,
        ..PolicyOffer::default()
    };
    (trust, offer)
}

/// Takes all rules out of the gateway.
pub(super) fn clear(plant: &Plant) {
    let script = render::remove();
    plant
        .gateway
        .run_with_input("nft", &["-f", "-"], &script)
        .unwrap();
}

/// A plan with one flow: the client may do `operations` on the server's `port`.
pub(super) fn plan(port: u16, operations: Option<Operations>) -> Plan {
    plan_of(1, port, operations)
}

/// The same plan, whose zones only observe.
pub(super) fn observing(mut plan: Plan) -> Plan {
    for side in &mut plan.interfaces {
        side.observing = Observing::Everything;
    }
    plan
}

/// A plan of `count` flows of one tuple each, all with these operations; the last one is the client's to the server's
/// `port`.
pub(super) fn plan_of(count: u32, port: u16, operations: Option<Operations>) -> Plan {
    let inspector = operations
        .as_ref()
        .map(|operations| Capability::inspect(operations.protocol));
    let end = |name: &str, address: IpAddr| {
        vec![Endpoint {
            name: name.into(),
            network: address.into(),
        }]
    };
    let rule = |id: u32, source: IpAddr, destination: IpAddr, port: u16| Rule {
        id: FlowId(id),
        conduit: ConduitId::new("bench").unwrap(),
        flow: FlowName::new(format!("flow{id}")).unwrap(),
        sources: end("hmi", source),
        destinations: end("plc", destination),
        transport: Transport::Tcp(vec![PortRange::single(port)]),
        must_flow: false,
        on_agent_loss: OnAgentLoss::Block,
        operations: operations.clone().map(Into::into),
        on_refusal: OnRefusal::Answer,
        roles: None,
        answers: penstock_policy::terms::Answers::Strict,
        tls: None,
    };
    let host = |side: u8, number: u32| {
        let [.., high, low] = number.to_be_bytes();
        IpAddr::from(Ipv4Addr::new(10, side, high, low))
    };
    let mut rules: Vec<Rule> = (1..count)
        .map(|id| {
            let port = 10_000 + u16::try_from(id / 60_000).unwrap();
            rule(id, host(1, id % 60_000), host(2, (id * 7) % 60_000), port)
        })
        .collect();
    rules.push(rule(
        count,
        super::CLIENT.parse().unwrap(),
        super::SERVER.parse().unwrap(),
        port,
    ));
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "works".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: [Some(Capability::of(Capability::KERNEL)), inspector]
            .into_iter()
            .flatten()
            .collect(),
        on_drift: OnDrift::Repair,
        interfaces: (1..=2)
            .map(|side| PlanInterface {
                name: format!("lan{side}"),
                zone: ZoneId::new(format!("zone{side}")).unwrap(),
                behind: vec![],
                routers: vec![],
                hardware: vec![],
                networks: vec![format!("10.{side}.0.0/16").parse().unwrap()],
                observing: Observing::Nothing,
            })
            .collect(),
        // HAProxy listens on the gateway itself.
        management: Some(Management {
            interface: "lan1".to_owned(),
            peers: vec![super::CLIENT.parse::<IpAddr>().unwrap().into()],
        }),
        rules,
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
