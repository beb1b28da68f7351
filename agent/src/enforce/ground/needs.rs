//! What the machine itself must have for inspection, and may lack: ways over the bridge, kernel parameters.
//!
//! On a bridged gateway the inspector's packets are the gateway's own: they need a route to client and server that leads
//! over the bridge. Without it inspected connections come to nothing, so it is reported when the plan is applied.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use penstock_policy::plan::Plan;
use penstock_policy::terms::GatewayMode;

use super::routing::{self, RouteTarget};
use super::sysctl;
use crate::enforce::EnforceError;
use crate::enforce::nft::netlink::{attributes, message};
use crate::enforce::shape::structure::Finding;

// linux/rtnetlink.h, linux/if_link.h.
const GET_LINK: u16 = 18;
const LINK_MASTER: u16 = 10;
/// Bytes of a link message's header behind the part that all messages have.
const HEADER_REST: usize = 12;
/// How many networks are asked for.
const NETWORKS_MAX: usize = 256;

/// What `plan` needs for its inspected flows, and this machine lacks.
pub(in crate::enforce) async fn findings(plan: Arc<Plan>) -> Result<Vec<Finding>, EnforceError> {
    tokio::task::spawn_blocking(move || lacking(&plan))
        .await
        .map_err(EnforceError::Interrupted)
}

/// The same, on the calling thread.
pub(in crate::enforce) fn lacking(plan: &Plan) -> Vec<Finding> {
    let mut findings = parameters(plan);
    if plan.mode == GatewayMode::Bridged {
        findings.extend(ways(plan));
    }
    findings
}

/// Findings of the machine that are looked at again and again: health shows them for as long as they are so.
pub(in crate::enforce) const LOOKED_AT: [&str; 2] = ["inspection-parameter", "bridge-has-no-way"];

/// The parameter without which connections that run are not taken up.
pub(in crate::enforce) fn tracking() -> Vec<Finding> {
    if sysctl::is_off("net/netfilter/nf_conntrack_tcp_loose") {
        vec![Finding {
            code: "running-connections-lost",
            message: "net.netfilter.nf_conntrack_tcp_loose is 0: TCP connections that run when this gateway starts, or takes \
                      another's place, are dropped until their clients reopen them; set it to 1 (`sysctl -w \
                      net.netfilter.nf_conntrack_tcp_loose=1`). It opens nothing here: each packet is judged by the rules"
                .to_owned(),
        }]
    } else {
        Vec::new()
    }
}

/// Parameters by which the mark of inspected packets would mislead the kernel.
fn parameters(plan: &Plan) -> Vec<Finding> {
    let mut wrong = Vec::new();
    if sysctl::is_on("net/ipv4/tcp_fwmark_accept") {
        wrong.push(("net.ipv4.tcp_fwmark_accept".to_owned(), "answers to clients"));
    }
    let interfaces = plan.interfaces.iter().map(|interface| interface.name.as_str());
    for interface in interfaces.chain(["all"]) {
        if sysctl::is_on(&format!("net/ipv4/conf/{interface}/src_valid_mark")) {
            wrong.push((
                format!("net.ipv4.conf.{interface}.src_valid_mark"),
                "packets of clients",
            ));
        }
    }
    wrong
        .into_iter()
        .map(|(parameter, lost)| Finding {
            code: "inspection-parameter",
            message: format!(
                "{parameter} is 1: {lost} of inspected connections are lost by it; set it to 0 (`sysctl -w \
                 {parameter}=0`)"
            ),
        })
        .collect()
}

/// Networks of inspected flows to which no route leads over the bridge.
fn ways(plan: &Plan) -> Vec<Finding> {
    let bridges: BTreeSet<u32> = plan
        .interfaces
        .iter()
        .filter_map(|port| bridge_of(&port.name))
        .collect();
    let inspected = plan.rules.iter().filter(|rule| rule.is_carried());
    let networks: BTreeSet<IpNet> = inspected
        .flat_map(|rule| rule.sources.iter().chain(&rule.destinations))
        .map(|end| end.network)
        .collect();
    let lacks = |network: &&IpNet| match routing::look_up(host_of(**network), 0) {
        Ok(RouteTarget::Here) => false,
        Ok(RouteTarget::Link(link)) => !bridges.contains(&link),
        Err(_) => true,
    };
    let lacking: Vec<String> = networks
        .iter()
        .take(NETWORKS_MAX)
        .filter(lacks)
        .map(ToString::to_string)
        .collect();
    if lacking.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        code: "bridge-has-no-way",
        message: format!(
            "inspected connections fail: this gateway has no route over its bridge to {}, and needs one to both ends; give the bridge an address in their network, or a route (`ip route add NETWORK dev BRIDGE`)",
            lacking.join(", ")
        ),
    }]
}

/// The first address of a network that a host may have.
fn host_of(network: IpNet) -> IpAddr {
    network.hosts().next().unwrap_or(network.addr())
}

/// The number of the bridge that an interface is a port of.
pub(in crate::enforce) fn bridge_of(port: &str) -> Option<u32> {
    let index = sysctl::interface_number(port)?;
    let mut header = [0; 16];
    header.get_mut(4..8)?.copy_from_slice(&index.to_ne_bytes());
    let answer = routing::ask(&message(GET_LINK, 0, &header, &[])).ok()?;
    let (_, master) = attributes(answer.get(HEADER_REST..)?).find(|(kind, _)| *kind == LINK_MASTER)?;
    master.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}
