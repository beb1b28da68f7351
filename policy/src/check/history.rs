//! `PC013x`: what must flow still flows, judged against the plans in force.
//!
//! A document cannot know by itself that a flow is missing; only the plan before can tell. Where the process is
//! to lose a flow on purpose, the flow is first released as one that need not flow. What is open only during grants of remote
//! access does not flow.

use std::collections::BTreeMap;

use super::Findings;
use super::rules::{Element, Index, elements};
use super::spans::Spans;
use crate::ids::{ConduitId, FlowName, GatewayId};
use crate::plan::{Bridge, Broker, Grant, Plan, Rule};
use crate::protocol::Operations;
use crate::protocol::mqtt::MqttOperation;

const HELP: &str =
    "put the flow back; if the process can do without it, first release it without `must_flow`";

pub(super) fn check(
    previous: &BTreeMap<GatewayId, Plan>,
    plans: &BTreeMap<GatewayId, Plan>,
    findings: &mut Findings,
) {
    for (gateway, before) in previous {
        let needed = || before.rules.iter().filter(|rule| rule.must_flow);
        let needed_bridges = || before.bridges.iter().filter(|bridge| bridge.must_flow);
        findings.gateway = Some(gateway.clone());
        let Some(after) = plans.get(gateway) else {
            for rule in needed() {
                lost(
                    &rule.conduit,
                    &rule.flow,
                    "its gateway no longer has a plan",
                    findings,
                );
            }
            for bridge in needed_bridges() {
                lost(
                    &bridge.conduit,
                    &bridge.flow,
                    "its gateway no longer has a plan",
                    findings,
                );
            }
            continue;
        };
        let index = Index::new(&after.rules);
        let sides: Vec<Spans> = after
            .interfaces
            .iter()
            .map(|side| Spans::of(side.networks.iter().copied()))
            .collect();
        let none = BTreeMap::new();
        for rule in needed() {
            // What only grants opened before may go on so.
            let limited = before.grants.contains_key(&rule.conduit);
            let grants = if limited { &none } else { &after.grants };
            compare(rule, &index, grants, &sides, findings);
        }
        for bridge in needed_bridges() {
            compare_bridge(bridge, &after.bridges, findings);
        }
    }
    findings.gateway = None;
}

fn compare(
    rule: &Rule,
    index: &Index<'_>,
    grants: &BTreeMap<ConduitId, Vec<Grant>>,
    sides: &[Spans],
    findings: &mut Findings,
) {
    let mut narrowed = false;
    for element in elements(rule) {
        let mut covering = index.covering(&element);
        let any = !covering.is_empty();
        covering.retain(|(_, other, _)| !grants.contains_key(&other.conduit));
        if covering.is_empty() {
            let why = if any {
                "it is permitted only during grants of remote access from now on"
            } else {
                "no flow permits all of it any longer"
            };
            return lost(&rule.conduit, &rule.flow, why, findings);
        }
        if !crosses(sides, &element) {
            return lost(
                &rule.conduit,
                &rule.flow,
                "its ends are no longer on two sides of the gateway",
                findings,
            );
        }
        let limits: Vec<Option<&Operations>> = covering
            .iter()
            .map(|(_, other, _)| other.operations.as_deref())
            .collect();
        narrowed |= !still_permitted(rule.operations.as_deref(), &limits);
    }
    if narrowed {
        less(&rule.conduit, &rule.flow, findings);
    }
}

/// A bridge goes on if some bridge joins the same brokers, and carries what it carried.
fn compare_bridge(bridge: &Bridge, after: &[Bridge], findings: &mut Findings) {
    let place = |broker: &Broker| (broker.address, broker.port);
    let joins =
        |other: &&Bridge| place(&other.from) == place(&bridge.from) && place(&other.to) == place(&bridge.to);
    let mut standing = after.iter().filter(joins).peekable();
    if standing.peek().is_none() {
        return lost(
            &bridge.conduit,
            &bridge.flow,
            "no bridge joins its brokers any longer",
            findings,
        );
    }
    let carried: Vec<&MqttOperation> = standing.flat_map(|other| &other.publications).collect();
    if !bridge.publications.iter().all(|one| carried.contains(&one)) {
        less(&bridge.conduit, &bridge.flow, findings);
    }
}

fn less(conduit: &ConduitId, flow: &FlowName, findings: &mut Findings) {
    findings.warning(
        "PC0132",
        format!(
            "flow {conduit}/{flow} must flow, but may do less inside its protocol than in the plan in force"
        ),
        "make sure that the process does not use what is taken away",
    );
}

fn lost(conduit: &ConduitId, flow: &FlowName, why: &str, findings: &mut Findings) {
    let words = format!("flow {conduit}/{flow} must flow, but would be lost: {why}");
    findings.error("PC0131", words, HELP);
}

fn crosses(sides: &[Spans], element: &Element) -> bool {
    let (source, destination) = element.ends();
    sides.iter().enumerate().any(|(near, from)| {
        from.hold(source)
            && sides
                .iter()
                .enumerate()
                .any(|(far, to)| far != near && to.hold(destination))
    })
}

/// Whether the union of `limits` (an absent one permits anything) has every operation that was permitted before.
fn still_permitted(before: Option<&Operations>, limits: &[Option<&Operations>]) -> bool {
    if limits.iter().any(Option::is_none) {
        return true;
    }
    let now: Vec<String> = limits
        .iter()
        .flatten()
        .flat_map(|operations| operations.phrases())
        .collect();
    before.is_some_and(|before| before.phrases().iter().all(|phrase| now.contains(phrase)))
}
