//! What compiling, judging and explaining cost, by the number of conduits (DESIGN §12: 10,000 conduits ≤ 1 s,
//! explain ≤ 10 ms). `cargo bench -p penstock-policy`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use divan::Bencher;
use jiff::civil::date;
use penstock_policy::check::check;
use penstock_policy::compile::{compile, compile_all};
use penstock_policy::diagnostics::SourceFile;
use penstock_policy::diff::diff;
use penstock_policy::explain::{Explanation, QueryEnd, Question, explain};
use penstock_policy::ids::{Digest, GatewayId, Revision};
use penstock_policy::load;
use penstock_policy::model::{
    Approver, ApproverSet, Asset, Conduit, Flow, FlowEnd, Gateway, Interface, Plant, PublicKey, Service,
    Site, Zone, ZoneKind,
};
use penstock_policy::plan::Plan;
use penstock_policy::preview::Preview;
use penstock_policy::reach::Steps;
use penstock_policy::release::{Draft, build};
use penstock_policy::terms::{Enforcement, GatewayMode, OnAgentLoss, OnDrift, PortRange, Transport};
use penstock_policy::verdict::Carried;

fn main() {
    divan::main();
}

fn id<T: FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

/// The address of host `number` in the network that begins with `first`.
fn host(first: u8, number: usize) -> IpAddr {
    let [_, b, c, d] = u32::try_from(number + 1).unwrap().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(first, b, c, d))
}

fn zone(kind: ZoneKind, network: &str) -> Zone {
    Zone {
        title: String::new(),
        kind,
        parent: None,
        sl_target: None,
        networks: vec![id(network)],
        consequence: None,
        accountable: None,
        boundary: None,
        requirements: Vec::new(),
        assumptions: Vec::new(),
        enforcement: Enforcement::Enforce,
    }
}

/// A plant of two zones with this many conduits, each with one flow from a client of its own to one of a
/// thousand controllers, spread over the gateways.
fn plant(conduits: usize, gateways: usize) -> Plant {
    let mut plant = Plant {
        id: id("bench"),
        title: String::new(),
        owner: None,
        approvers: ApproverSet {
            emergency_threshold: None,
            threshold: 1,
            people: BTreeMap::from([(
                id("approver"),
                Approver {
                    key: PublicKey::try_from(
                        "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".to_owned(),
                    )
                    .unwrap(),
                    role: None,
                },
            )]),
        },
        sites: BTreeMap::from([(
            id("works"),
            Site {
                title: String::new(),
                timezone: "UTC".to_owned(),
            },
        )]),
        gateways: BTreeMap::new(),
        zones: BTreeMap::from([
            (id("operations"), zone(ZoneKind::Operations, "10.0.0.0/8")),
            (id("control"), zone(ZoneKind::Control, "11.0.0.0/8")),
        ]),
        assets: BTreeMap::new(),
        conduits: BTreeMap::new(),
        remote_access: BTreeMap::new(),
        break_glass: None,
        compensating_controls: BTreeMap::new(),
        risk: Vec::new(),
        accepted: Vec::new(),
    };
    let interface = |zone: &str| Interface {
        zone: id(zone),
        behind: Vec::new(),
        routers: Vec::new(),
        addresses: Vec::new(),
    };
    for number in 0..gateways {
        plant.gateways.insert(
            id(&format!("gw-{number}")),
            Gateway {
                site: id("works"),
                mode: GatewayMode::Routed,
                labels: BTreeMap::new(),
                interfaces: BTreeMap::from([
                    ("eth1".to_owned(), interface("operations")),
                    ("eth2".to_owned(), interface("control")),
                ]),
                management: None,
                windows: Vec::new(),
                safe_to_change: None,
                redundant_with: None,
                on_drift: OnDrift::Repair,
                tunnel: None,
                tunnels: BTreeMap::new(),
            },
        );
    }
    for number in 0..conduits {
        add_conduit(&mut plant, number, gateways);
    }
    plant
}

fn add_conduit(plant: &mut Plant, number: usize, gateways: usize) {
    let mut end = |name: String, zone: &str, address: IpAddr| {
        plant.assets.entry(id(&name)).or_insert_with(|| Asset {
            title: None,
            tag: None,
            zone: id(zone),
            addresses: vec![address],
            mac: None,
            role: None,
            vendor: None,
            model: None,
            firmware: None,
            criticality: None,
            sl_capability: None,
            identity: None,
        });
        FlowEnd::Asset(id(&name), vec![address])
    };
    let source = end(format!("client-{number}"), "operations", host(10, number));
    let controller = number % 1000;
    let destination = end(format!("plc-{controller}"), "control", host(11, controller));
    let flow = Flow {
        title: None,
        sources: vec![source],
        destinations: vec![destination],
        service: Service {
            name: "modbus-tcp".to_owned(),
            protocol: None,
            transport: Transport::Tcp(vec![PortRange::single(502)]),
        },
        operations: None,
        must_flow: true,
        on_refusal: penstock_policy::terms::OnRefusal::default(),
        answers: penstock_policy::terms::Answers::Strict,
        tls: None,
        roles: None,
        bridge_source: None,
    };
    plant.conduits.insert(
        id(&format!("conduit-{number}")),
        Conduit {
            title: String::new(),
            from: id("operations"),
            to: id("control"),
            via: BTreeSet::from([id(&format!("gw-{}", number % gateways))]),
            enforced_by: penstock_policy::model::Enforcer::default(),
            sl_target: None,
            on_agent_loss: OnAgentLoss::Block,
            tunnel: false,
            only_by_grant: false,
            minimum_assurance: None,
            accountable: None,
            flows: BTreeMap::from([(id("polling"), flow)]),
            frames: BTreeMap::new(),
        },
    );
}

fn plans(plant: &Plant) -> BTreeMap<GatewayId, Plan> {
    compile_all(plant).unwrap()
}

#[divan::bench(args = [1_000, 10_000, 100_000], max_time = 5)]
fn compile_one_gateway(bencher: Bencher<'_, '_>, conduits: usize) {
    let plant = plant(conduits, 1);
    bencher.bench_local(|| compile(&plant, &id("gw-0")).unwrap());
}

#[divan::bench(args = [1_000, 10_000, 100_000], max_time = 5)]
fn compile_to_bytes_for_a_hundred_gateways(bencher: Bencher<'_, '_>, conduits: usize) {
    let plant = plant(conduits, 100);
    bencher.bench_local(|| {
        plans(&plant)
            .values()
            .map(|plan| plan.to_bytes().len())
            .sum::<usize>()
    });
}

#[divan::bench(args = [1_000, 10_000], max_time = 5)]
fn build_a_release_for_a_thousand_gateways(bencher: Bencher<'_, '_>, conduits: usize) {
    let plant = plant(conduits, 1_000);
    bencher.bench_local(|| {
        let draft = Draft {
            emergency: false,
            withdrawn: None,
            trust: None,
            trails: None,
            revision: Revision(1),
            parent: None,
            replaces: Vec::new(),
            document_digest: Digest([0; 32]),
            author: id("author"),
            ticket: None,
            reason: String::new(),
            created_ms: 0,
        };
        build(&plant, draft).unwrap().offers().count()
    });
}

/// The worst question: nothing matches, so that every rule is weighed for being the nearest.
#[divan::bench(args = [1_000, 10_000, 100_000], max_time = 5)]
fn explain_a_refusal(bencher: Bencher<'_, '_>, conduits: usize) {
    let plant = plant(conduits, 1);
    let plans = plans(&plant);
    let question = Question {
        source: QueryEnd::Asset(id("client-7")),
        destination: QueryEnd::Asset(id("plc-999")),
        transport: Carried::Tcp(503),
    };
    bencher.bench_local(|| -> Explanation { explain(&plant, &plans, &question).unwrap() });
}

#[divan::bench(args = [1_000, 10_000, 100_000], max_time = 5)]
fn check_the_plans_against_those_in_force(bencher: Bencher<'_, '_>, conduits: usize) {
    let plant = plant(conduits, 1);
    let plans = plans(&plant);
    bencher.bench_local(|| check(&plant, &plans, Some(&plans)).len());
}

#[divan::bench(args = [1_000, 10_000], max_time = 5)]
fn diff_of_one_changed_flow(bencher: Bencher<'_, '_>, conduits: usize) {
    let old = plant(conduits, 1);
    let mut new = old.clone();
    let polling = new
        .conduits
        .values_mut()
        .flat_map(|conduit| conduit.flows.values_mut())
        .next();
    polling.unwrap().service.transport = Transport::Tcp(vec![PortRange {
        first: 502,
        last: 503,
    }]);
    bencher.bench_local(|| diff(Some(&old), &new).unwrap());
}

#[divan::bench(args = [1_000, 10_000], max_time = 5)]
fn preview_of_one_changed_flow(bencher: Bencher<'_, '_>, conduits: usize) {
    let old = plant(conduits, 1);
    let mut new = old.clone();
    let flow = new
        .conduits
        .values_mut()
        .flat_map(|conduit| conduit.flows.values_mut())
        .next();
    flow.unwrap().service.transport = Transport::Tcp(vec![PortRange::single(503)]);
    bencher.bench_local(|| Preview::of(Some(&old), &new).unwrap());
}

#[divan::bench(args = [1_000, 10_000], max_time = 5)]
fn reach_of_all_pairs(bencher: Bencher<'_, '_>, conduits: usize) {
    let plant = plant(conduits, 1);
    let paths_max = std::num::NonZeroUsize::new(16).unwrap();
    bencher.bench_local(|| Steps::of(&plant).all(None, None, paths_max).reaches.len());
}

/// A document of this many stations with twenty assets each, from one template.
fn stations(count: usize) -> SourceFile {
    let assets: String = (10..30)
        .map(|host| {
            format!("      $(station).a{host}: {{ zone: $(station), address: $(net + {host}), role: plc }}\n")
        })
        .collect();
    let lines: String = (0..count)
        .map(|n| {
            let (high, low) = (n / 250, n % 250);
            format!(
                "  s{n}: {{ template: station, net: 10.{}.{low}.0/24, wan: 10.255.{high}.{} }}\n",
                20 + high,
                low + 2
            )
        })
        .collect();
    let text = format!(
        r#"plant: bench
approvers:
  threshold: 1
  people: {{ a: {{ key: "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a" }} }}
sites: {{ centre: {{ timezone: UTC }} }}
gateways:
  gw-centre:
    site: centre
    mode: routed
    interfaces:
      eth1: {{ zone: wan, behind: group:stations, address: 10.255.255.1/16 }}
      eth2: {{ zone: centre, address: 10.10.0.1/24 }}
    management: {{ interface: eth0, peers: 192.0.2.10 }}
zones:
  wan: {{ kind: external, networks: 10.255.0.0/16, accountable: it, boundary: routers }}
  centre: {{ kind: operations, sl_target: 2, networks: 10.10.0.0/24, consequence: production, accountable: ops, boundary: a room }}
assets:
  scada: {{ zone: centre, address: 10.10.0.11 }}
templates:
  station:
    parameters: {{ net: network, wan: address }}
    sites: {{ $(station): {{ timezone: UTC }} }}
    gateways:
      gw-$(station):
        site: $(station)
        mode: routed
        interfaces:
          eth1: {{ zone: wan, behind: centre, address: $(wan)/16 }}
          eth2: {{ zone: $(station), address: $(net + 1)/$(net.length) }}
        management: {{ interface: eth0, peers: 192.0.2.10 }}
    zones:
      $(station): {{ kind: control, sl_target: 2, networks: $(net), consequence: production, accountable: ops, boundary: a fence }}
    assets:
{assets}    conduits:
      $(station).telecontrol:
        from: centre
        to: $(station)
        sl_target: 2
        accountable: ops
        flows:
          polling:
            source: scada
            destination: [$(station).a10, $(station).a11, $(station).a12]
            service: modbus-tcp
            allow: [{{ read-holding-registers: {{ units: 1, addresses: 0-199 }} }}]
          telemetry: {{ source: zone:$(station), destination: scada, service: mqtt, allow: any }}
    groups: {{ stations: zone:$(station) }}
stations:
{lines}"#
    );
    SourceFile::new("plant.yaml", text)
}

/// Target for 1,000 sites: reading and checking 3 s, all plans 5 s.
#[divan::bench(args = [100, 1_000], max_time = 10)]
fn read_and_check_stations_of_twenty_assets(bencher: Bencher<'_, '_>, count: usize) {
    let file = [stations(count)];
    bencher.bench_local(|| {
        let plant = load(&file, date(2027, 1, 1)).plant.unwrap();
        let plans = plans(&plant);
        check(&plant, &plans, None).len()
    });
}

#[divan::bench(args = [100, 1_000], max_time = 10)]
fn compile_stations_of_twenty_assets(bencher: Bencher<'_, '_>, count: usize) {
    let plant = load(&[stations(count)], date(2027, 1, 1)).plant.unwrap();
    bencher.bench_local(|| {
        plans(&plant)
            .values()
            .map(|plan| plan.to_bytes().len())
            .sum::<usize>()
    });
}
