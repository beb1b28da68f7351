//! The kernel path (DESIGN §12). Each part has a name:
//!
//! - `change`: the time until one changed flow of 10,000 is in force for packets ([`change`]);
//! - `throughput`: with 10 and with 100,000 flows against no filter, interleaved in one run;
//! - `shadow`: with the table of a next plan beside the one in force, against that alone ([`shadow`]).
//!
//! Run by `make bench`; needs `iperf3`. `PENSTOCK_BENCH=shadow` runs that part alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use penstock_agent::enforce::nft::render;
use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::enforce::{ApplyMethod, EnforceSettings, Enforcer};
use penstock_lab::{Lab, Namespace, sandbox};
use penstock_policy::ids::{ConduitId, FlowId, FlowName, Revision, ZoneId};
use penstock_policy::plan::{Endpoint, Observing, PLAN_FORMAT, Plan, PlanInterface, Rule};
use penstock_policy::terms::{GatewayMode, OnAgentLoss, OnDrift, PortRange, Transport};

mod change;
mod shadow;

const PARTS: [&str; 3] = ["change", "throughput", "shadow"];
const ROUNDS: usize = 5;
const SECONDS: &str = "2";

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a bench: cargo bench -p penstock-tests --bench kernel");
        return;
    }
    let selected = std::env::var("PENSTOCK_BENCH").ok();
    assert!(
        selected
            .as_deref()
            .is_none_or(|selected| PARTS.contains(&selected)),
        "PENSTOCK_BENCH is none of {PARTS:?}"
    );
    let runs = |part| selected.as_deref().is_none_or(|selected| selected == part);
    if !sandbox::inside() {
        let status = sandbox::reexecute(&["--bench"]).unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    sandbox::prepare().unwrap();
    let lab = Lab::new("/run/penstock-bench").unwrap();
    let (client, gateway, server) = plant(&lab);
    let wires = change::Wires::open(&client, &server).unwrap();
    let beside = shadow::Wires::open(&client, &server).unwrap();
    let _iperf = server.spawn("iperf3", "iperf3", &["-s"]).unwrap();
    server
        .wait_for_tcp("10.2.0.9:5201", Duration::from_secs(5))
        .unwrap();
    gateway
        .enter(|| {
            // As the agent's.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                if runs("change") {
                    change::measure(wires).await;
                }
                if runs("throughput") {
                    throughput(&client).await;
                }
                if runs("shadow") {
                    shadow::measure(beside).await;
                }
            });
        })
        .unwrap();
}

fn plant(lab: &Lab) -> (Namespace, Namespace, Namespace) {
    let client = lab.namespace("client").unwrap();
    let gateway = lab.namespace("gateway").unwrap();
    let server = lab.namespace("server").unwrap();
    lab.link((&client, "eth0"), (&gateway, "lan1")).unwrap();
    lab.link((&server, "eth0"), (&gateway, "lan2")).unwrap();
    for (host, port, side, own) in [(&client, "lan1", 1, 5), (&server, "lan2", 2, 9)] {
        host.address("eth0", &format!("10.{side}.0.{own}/16")).unwrap();
        gateway.address(port, &format!("10.{side}.255.1/16")).unwrap();
        host.route("default", &format!("10.{side}.255.1")).unwrap();
    }
    gateway.forward().unwrap();
    (client, gateway, server)
}

/// A plan of `count` flows of one tuple each; the last one is the measured client's.
fn plan(count: u32) -> Plan {
    let host = |side: u8, number: u32| {
        let [.., high, low] = number.to_be_bytes();
        vec![Endpoint {
            name: "host".into(),
            network: std::net::IpAddr::from(Ipv4Addr::new(10, side, high, low)).into(),
        }]
    };
    let rule = |id: u32, source: u32, destination: u32, port: u16| Rule {
        id: FlowId(id),
        conduit: ConduitId::new("bench").unwrap(),
        flow: FlowName::new(format!("flow{id}")).unwrap(),
        sources: host(1, source),
        destinations: host(2, destination),
        transport: Transport::Tcp(vec![PortRange::single(port)]),
        must_flow: false,
        on_refusal: penstock_policy::terms::OnRefusal::default(),
        roles: None,
        answers: penstock_policy::terms::Answers::Strict,
        tls: None,
        on_agent_loss: OnAgentLoss::Block,
        operations: None,
    };
    let mut rules: Vec<Rule> = (1..count)
        .map(|id| rule(id, id % 60_000, (id * 7) % 60_000, 1000 + (id / 60_000) as u16))
        .collect();
    rules.push(rule(count, 5, 9, 5201));
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "bench".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: BTreeSet::new(),
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
        management: None,
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

async fn throughput(client: &Namespace) {
    let configurations = [("no filter", 0), ("10 flows", 10), ("100,000 flows", 100_000)];
    let plans: Vec<Arc<Plan>> = configurations
        .iter()
        .map(|(_, count)| Arc::new(plan((*count).max(1))))
        .collect();
    let mut gigabits = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (place, (name, count)) in configurations.iter().enumerate() {
            // Each measurement begins from nothing, so that the order tells nothing.
            Nft::new("nft".into()).load(&render::remove()).await.unwrap();
            let (sender, _observed) = tokio::sync::mpsc::channel(64);
            let enforcer = Enforcer::start(EnforceSettings::default(), sender).unwrap();
            if *count > 0 {
                let applied = enforcer
                    .apply(Arc::clone(&plans[place]), Revision(1))
                    .await
                    .unwrap();
                assert_eq!(
                    (applied.elements, applied.change),
                    (*count as usize, ApplyMethod::Whole),
                    "{name}"
                );
            }
            let measured = run_iperf(client);
            gigabits[place].push(measured);
        }
    }
    let [none, ten, many] = gigabits.map(median);
    println!("kernel path, median of {ROUNDS} interleaved rounds of {SECONDS} s, one TCP stream:");
    println!("  no filter      {none:6.2} Gbit/s");
    println!("  10 flows       {ten:6.2} Gbit/s  {:.2} x no filter", ten / none);
    println!(
        "  100,000 flows  {many:6.2} Gbit/s  {:.2} x no filter (budget 0.80)",
        many / none
    );
    println!("  100,000 flows to 10 flows: {:.2} (budget 0.90)", many / ten);
}

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn run_iperf(client: &Namespace) -> f64 {
    let text = client
        .run("iperf3", &["-c", "10.2.0.9", "-t", SECONDS, "-O", "1", "-J"])
        .unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e9
}
