//! What stands in the gateway: no rule at all, or the real agent with a stored policy.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use penstock_agent::enforce::render;
use penstock_agent::policy_store;
use penstock_agent::store::Store;
use penstock_policy::ids::{ConduitId, Digest, FlowId, FlowName, Revision, ZoneId};
use penstock_policy::model::{
    ApproverSet, Enforcement, GatewayMode, OnAgentLoss, OnDrift, OnRefusal, Operations,
};
use penstock_policy::plan::{
    Capability, Endpoint, PLAN_FORMAT, Plan, PlanInterface, PortRange, Rule, Transport,
};
use penstock_policy::release::Trust;
use penstock_proto::v1::{PolicyOffer, SignedRelease};

use super::Plant;

/// The real agent, enforcing one stored plan in the gateway's namespace until it is dropped.
pub(super) struct Inspecting {
    agent: Child,
    _folder: tempfile::TempDir,
}

impl Inspecting {
    /// Comes back when the plan is in force.
    pub(super) fn start(plant: &Plant, plan: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), plan);
        let config = folder.path().join("agent.toml");
        let text = format!(
            "[agent]\nstate_folder = {:?}\n",
            folder.path().display().to_string()
        );
        std::fs::write(&config, text).unwrap();
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
        // What it says further is read and dropped, so that it never waits for a reader.
        std::thread::spawn(move || log.count());
        Self {
            agent,
            _folder: folder,
        }
    }

    /// Resident memory now, in megabytes.
    pub(super) fn resident_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes / 1024.0
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

/// Leaves a policy as if it had been in force when the agent last ran.
fn store(folder: &Path, plan: &Plan) {
    // What is in the store was verified once: the statement is only compared by its digest.
    let statement = b"statement".to_vec();
    let digest = Digest::of(&statement);
    let trust = Trust {
        plant: plan.plant.clone(),
        gateway: plan.gateway.clone(),
        approvers: ApproverSet {
            threshold: 1,
            people: BTreeMap::new(),
        },
        floor: Revision(1),
        current: Some(digest),
    };
    let offer = PolicyOffer {
        release: Some(SignedRelease {
            statement: statement.into(),
            signatures: Vec::new(),
        }),
        plan: plan.to_bytes().into(),
        leaf_index: 0,
        inclusion_proof: Vec::new(),
    };
    let mut store = Store::open(folder);
    policy_store::stage(&mut store, &trust, &offer).unwrap();
    policy_store::set_effective(&mut store, digest).unwrap();
}

/// Takes all rules out of the gateway.
pub(super) fn clear(plant: &Plant) {
    let script = render::remove();
    plant
        .gateway
        .run_with_input("nft", &["-f", "-"], &script)
        .unwrap();
}

/// A plan with one rule: the client may do `operations` on the server's `port`.
pub(super) fn plan(port: u16, operations: Option<Operations>) -> Plan {
    let host = |address: &str| {
        vec![Endpoint {
            name: "host".into(),
            network: address.parse::<IpAddr>().unwrap().into(),
        }]
    };
    let inspector = operations.as_ref().map(|operations| match operations {
        Operations::ModbusTcp(_) => Capability::INSPECT_MODBUS_TCP,
        Operations::Mqtt(_) => Capability::INSPECT_MQTT,
    });
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "bench".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: [Some(Capability::KERNEL), inspector]
            .into_iter()
            .flatten()
            .map(|name| Capability(name.to_owned()))
            .collect(),
        on_drift: OnDrift::Repair,
        interfaces: (1..=2)
            .map(|side| PlanInterface {
                name: format!("lan{side}"),
                zone: ZoneId::new(format!("zone{side}")).unwrap(),
                behind: vec![],
                enforcement: Enforcement::Enforce,
                networks: vec![format!("10.{side}.0.0/16").parse().unwrap()],
            })
            .collect(),
        management: None,
        rules: vec![Rule {
            id: FlowId(1),
            conduit: ConduitId::new("bench").unwrap(),
            flow: FlowName::new("flow").unwrap(),
            sources: host("10.1.0.5"),
            destinations: host(super::SERVER),
            transport: Transport::Tcp(vec![PortRange::single(port)]),
            must_flow: false,
            on_agent_loss: OnAgentLoss::Block,
            operations,
            on_refusal: OnRefusal::Answer,
            tls: None,
        }],
        bridges: Vec::new(),
    }
}
