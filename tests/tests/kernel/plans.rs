//! Plans written by hand, small enough to read.

use std::collections::BTreeSet;

use penstock_policy::ids::{ConduitId, FlowId, FlowName, ZoneId};
use penstock_policy::plan::{Endpoint, Management, Observing, PLAN_FORMAT, Plan, PlanInterface, Rule};
use penstock_policy::terms::{GatewayMode, OnAgentLoss, OnDrift, PortRange, Transport};

/// Three sides: `lan1` (10.1.0.0/24, fd00:1::/64), `lan2` and `lan3` alike; each its own enforcing zone.
pub const SIDES: [&str; 3] = ["lan1", "lan2", "lan3"];

/// A plan for [`SIDES`] with these rules.
pub fn plan(mode: GatewayMode, rules: Vec<Rule>) -> Plan {
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "works".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        mode,
        requires: BTreeSet::new(),
        on_drift: OnDrift::Repair,
        interfaces: (1..=3)
            .map(|side| PlanInterface {
                name: format!("lan{side}"),
                zone: ZoneId::new(format!("zone{side}")).unwrap(),
                behind: vec![],
                routers: vec![],
                hardware: vec![],
                networks: vec![
                    format!("10.{side}.0.0/24").parse().unwrap(),
                    format!("fd00:{side}::/64").parse().unwrap(),
                ],
                observing: Observing::Nothing,
            })
            .collect(),
        management: Some(Management {
            interface: "eth0".to_owned(),
            peers: vec!["192.168.9.0/28".parse().unwrap(), "fd00:99::/64".parse().unwrap()],
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

/// The plan with these interfaces only observing.
pub fn observing(mut plan: Plan, names: &[&str]) -> Plan {
    for interface in &mut plan.interfaces {
        if names.contains(&interface.name.as_str()) {
            interface.observing = Observing::Everything;
        }
    }
    plan
}

/// A flow named `flow<id>` in a conduit of the same name.
pub fn rule(id: u32, sources: &[&str], destinations: &[&str], transport: Transport) -> Rule {
    let ends = |networks: &[&str]| {
        networks
            .iter()
            .map(|network| Endpoint {
                name: (*network).into(),
                network: if network.contains('/') {
                    network.parse().unwrap()
                } else {
                    network.parse::<std::net::IpAddr>().unwrap().into()
                },
            })
            .collect()
    };
    Rule {
        id: FlowId(id),
        conduit: ConduitId::new(format!("conduit{id}")).unwrap(),
        flow: FlowName::new(format!("flow{id}")).unwrap(),
        sources: ends(sources),
        destinations: ends(destinations),
        transport,
        must_flow: false,
        on_refusal: penstock_policy::terms::OnRefusal::default(),
        roles: None,
        answers: penstock_policy::terms::Answers::Strict,
        tls: None,
        on_agent_loss: OnAgentLoss::Block,
        operations: None,
    }
}

pub fn tcp(port: u16) -> Transport {
    Transport::Tcp(vec![PortRange::single(port)])
}

pub fn udp(first: u16, last: u16) -> Transport {
    Transport::Udp(vec![PortRange { first, last }])
}

/// Two flows from the client of side 1 to the controller of side 2, in both families: 7 is TCP 502, 8 is UDP.
pub fn two_flows(mode: GatewayMode) -> Plan {
    plan(
        mode,
        vec![
            rule(
                7,
                &["10.1.0.5", "fd00:1::5"],
                &["10.2.0.9", "fd00:2::9"],
                tcp(502),
            ),
            rule(
                8,
                &["10.1.0.0/24", "fd00:1::/64"],
                &["10.2.0.9", "fd00:2::9"],
                udp(4000, 4100),
            ),
        ],
    )
}
