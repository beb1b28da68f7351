//! What the agent costs its gateway (DESIGN §12): how fast the audit spool takes events for good, and how much memory an
//! idle agent holds.
//!
//! The spool is measured on a real disk with its own fsyncs: first as fast as it goes in commits of the writer's size,
//! then through the handle that everybody records with, at a given rate, where what comes too fast is counted as lost.
//! Memory is the resident set of the real program, started in a network namespace with a stored policy in force.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use penstock_agent::audit::spool::Spool;
use penstock_agent::audit::{self, BLOCK_BYTES, Limits, Position, record};
use penstock_agent::policy_store;
use penstock_agent::store::Store;
use penstock_policy::ids::{ConduitId, Digest, FlowId, FlowName, Revision};
use penstock_policy::model::{ApproverSet, GatewayMode, OnAgentLoss, OnDrift, OnRefusal};
use penstock_policy::plan::{Endpoint, PLAN_FORMAT, Plan, PortRange, Rule, Transport};
use penstock_policy::release::Trust;
use penstock_proto::audit::read_body;
use penstock_proto::v1::{
    AuditEvent, Decision, PolicyOffer, Severity, SignedRelease, VerdictEvent, audit_event::Kind,
};

/// Events of the measurement without a pace.
const EVENTS: u64 = 400_000;
/// Events of one commit: what the writer takes at most.
const COMMIT_EVENTS: u64 = 4096;
/// Paces, events a second, and how long each is kept.
const PACES: [u64; 3] = [50_000, 100_000, 150_000];
const PACE_SECONDS: u64 = 4;
const LIMITS: Limits = Limits {
    bytes_max: 1024 * 1024 * 1024,
    block_bytes: BLOCK_BYTES,
    free_bytes_min: 0,
};

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a bench: cargo bench -p penstock-agent --bench gateway");
        return;
    }
    unpaced();
    for pace in PACES {
        paced(pace);
    }
    // A user's namespace has no socket buffers for the first load of many more.
    for flows in [10, 1_000] {
        memory(flows);
    }
}

/// On the disk that is built on, not on a memory file system.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A denied packet, as the data plane tells it.
fn event(number: u64) -> AuditEvent {
    let [.., high, low] = number.to_be_bytes();
    let verdict = VerdictEvent {
        decision: Decision::Deny.into(),
        flow_id: 0,
        flow: String::new(),
        ingress: "lan1".to_owned(),
        egress: "lan2".to_owned(),
        source: format!("10.1.{high}.{low}"),
        destination: "10.2.0.9".to_owned(),
        protocol: 6,
        port: 502,
        count: 1,
        first_ms: number,
        last_ms: number,
        reason: "no rule of this revision matches: between office and control nothing leads to tcp/502"
            .to_owned(),
    };
    record::event(number, Severity::Warning, 7, Kind::Verdict(verdict))
}

fn unpaced() {
    let folder = folder();
    let (mut spool, _) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    let commits: Vec<Vec<AuditEvent>> = (0..EVENTS / COMMIT_EVENTS)
        .map(|commit| {
            (commit * COMMIT_EVENTS..(commit + 1) * COMMIT_EVENTS)
                .map(event)
                .collect()
        })
        .collect();
    let count = commits.iter().map(Vec::len).sum::<usize>();
    let began = Instant::now();
    for (now_ms, commit) in (1..).zip(commits) {
        spool.append(commit, now_ms).unwrap();
    }
    let took = began.elapsed().as_secs_f64();
    let (events, lost) = stored(&mut spool);
    assert_eq!((events, lost), (count as u64, 0));
    println!(
        "audit spool, commits of {COMMIT_EVENTS} events as fast as it goes: {:.0} events/s durable (budget 100,000)",
        count as f64 / took
    );
}

fn paced(pace: u64) {
    let folder = folder();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (trail, writer) = audit::start(folder.path().to_owned(), LIMITS);
        let mut state = trail.state();
        state.wait_for(|state| state.next.sequence > 0 || state.next.epoch > 0).await.unwrap();
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < Duration::from_secs(PACE_SECONDS) {
            let due = u64::try_from(began.elapsed().as_micros()).unwrap() * pace / 1_000_000;
            for number in sent..due {
                trail.record_event(event(number));
            }
            sent = due;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        trail.close().await;
        let took = began.elapsed().as_secs_f64();
        drop(writer);
        let (mut spool, _) = Spool::open(folder.path(), LIMITS, 1).unwrap();
        // What was lost in the last second is kept, and told with what comes next.
        let later = record::event(u64::MAX, Severity::Info, 0, record::agent("measured", ""));
        spool.append(vec![later], u64::MAX).unwrap();
        let (events, lost) = stored(&mut spool);
        assert_eq!(events + lost, sent, "every event is in the trail or counted as lost");
        println!(
            "audit spool, {pace} events/s offered for {PACE_SECONDS} s: {:.0} events/s durable, {lost} of {sent} counted \
             as lost",
            events as f64 / took
        );
    });
}

/// Verdicts in the spool, and how many its loss records count.
fn stored(spool: &mut Spool) -> (u64, u64) {
    let (mut events, mut lost) = (0, 0);
    for block in spool.read(Position::default(), usize::MAX, usize::MAX).unwrap() {
        for event in read_body(&block.body).unwrap().events {
            match event.kind {
                Some(Kind::Verdict(_)) => events += 1,
                Some(Kind::Loss(loss)) => lost += loss.events,
                _ => {}
            }
        }
    }
    (events, lost)
}

/// An agent that is killed when the measurement ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn memory(flows: u32) {
    let folder = folder();
    store_policy(folder.path(), flows);
    let config = folder.path().join("agent.toml");
    std::fs::write(
        &config,
        format!(
            "[agent]\nstate_folder = {:?}\n",
            folder.path().display().to_string()
        ),
    )
    .unwrap();
    // A user and a network of its own: nothing of this machine is touched, and root is not needed.
    let mut agent = Running(
        Command::new("unshare")
            .args([
                "--map-root-user",
                "--net",
                env!("CARGO_BIN_EXE_penstock-agent"),
                "run",
                "--config",
            ])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare, of util-linux"),
    );
    let mut log = BufReader::new(agent.0.stderr.take().unwrap()).lines();
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
    std::thread::sleep(Duration::from_secs(5));
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.0.id())).unwrap();
    let kilobytes = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!(
        "agent idle, {flows} flows in force: {:.1} MB resident, {:.1} MB at most since its start (budget 24, 10 flows)",
        kilobytes("VmRSS:") / 1024.0,
        kilobytes("VmHWM:") / 1024.0
    );
}

/// Leaves a policy as if it had been in force when the agent last ran.
fn store_policy(folder: &Path, flows: u32) {
    let plan = plan(flows);
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

/// A plan of so many flows of one tuple each.
fn plan(flows: u32) -> Plan {
    let host = |side: u8, number: u32| {
        let [.., high, low] = number.to_be_bytes();
        vec![Endpoint {
            name: "host".into(),
            network: std::net::IpAddr::from(Ipv4Addr::new(10, side, high, low)).into(),
        }]
    };
    let rule = |id: u32| Rule {
        id: FlowId(id),
        conduit: ConduitId::new("bench").unwrap(),
        flow: FlowName::new(format!("flow{id}")).unwrap(),
        sources: host(1, id),
        destinations: host(2, id),
        transport: Transport::Tcp(vec![PortRange::single(502)]),
        must_flow: false,
        on_refusal: OnRefusal::default(),
        tls: None,
        on_agent_loss: OnAgentLoss::Block,
        operations: None,
    };
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "bench".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: BTreeSet::new(),
        on_drift: OnDrift::Repair,
        interfaces: Vec::new(),
        management: None,
        rules: (1..=flows).map(rule).collect(),
        bridges: Vec::new(),
    }
}
