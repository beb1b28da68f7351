//! `PC013x`: what must flow still flows, judged against the plans in force.
//!
//! A document cannot know by itself that a flow is missing; only the plan before can tell. Where the process is
//! to lose a flow on purpose, the flow is first released as one that need not flow. What is open only during grants of remote
//! access does not flow.

use std::collections::BTreeMap;

use super::Findings;
use super::rules::{Element, Index, elements};
use super::spans::Spans;
use crate::diff::{Effect, diff_operations};
use crate::ids::{ConduitId, FlowName, GatewayId};
use crate::plan::{Bridge, Broker, Grant, Plan, Rule};
use crate::protocol::Operations;
use crate::protocol::mqtt::MqttOperation;

const HELP: &str =
    "put the flow back; if the process can do without it, first release it without `must_flow`";

/// What must flow by a plan in force, and does not by the new one, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss<'a> {
    pub(crate) gateway: &'a GatewayId,
    pub(crate) conduit: &'a ConduitId,
    pub(crate) flow: &'a FlowName,
    /// Why it is lost; `None`: it goes on, and may do less inside its protocol.
    pub(crate) why: Option<&'static str>,
}

pub(super) fn check(
    previous: &BTreeMap<GatewayId, Plan>,
    plans: &BTreeMap<GatewayId, Plan>,
    findings: &mut Findings,
) {
    for loss in losses(previous, plans) {
        findings.gateway = Some(loss.gateway.clone());
        let name = format!("{}/{}", loss.conduit, loss.flow);
        match loss.why {
            Some(why) => {
                let words = format!("flow {name} must flow, but would be lost: {why}");
                findings.error("PC0131", words, HELP);
            }
            None => findings.warning(
                "PC0132",
                format!(
                    "flow {name} must flow, but may do less inside its protocol than in the plan in force"
                ),
                "make sure that the process does not use what is taken away",
            ),
        }
    }
    findings.gateway = None;
}

/// All that is lost of what must flow, by the plans of each gateway.
pub(crate) fn losses<'a>(
    previous: &'a BTreeMap<GatewayId, Plan>,
    plans: &BTreeMap<GatewayId, Plan>,
) -> Vec<Loss<'a>> {
    let mut losses = Vec::new();
    for (gateway, before) in previous {
        let mut add = |conduit: &'a ConduitId, flow: &'a FlowName, why| {
            losses.push(Loss {
                gateway,
                conduit,
                flow,
                why,
            });
        };
        let rules = before.rules.iter().filter(|rule| rule.must_flow);
        let bridges = before.bridges.iter().filter(|bridge| bridge.must_flow);
        let Some(after) = plans.get(gateway) else {
            let why =
                Some("its gateway gets no plan any more, and goes on by its last one until it is taken out");
            rules.for_each(|rule| add(&rule.conduit, &rule.flow, why));
            bridges.for_each(|bridge| add(&bridge.conduit, &bridge.flow, why));
            continue;
        };
        let index = Index::new(&after.rules);
        let sides: Vec<Spans> = after
            .interfaces
            .iter()
            .map(|side| Spans::of(side.networks.iter().copied()))
            .collect();
        let none = BTreeMap::new();
        for rule in rules {
            // What only grants opened before may go on so.
            let limited = before.grants.contains_key(&rule.conduit);
            let grants = if limited { &none } else { &after.grants };
            if let Err(why) = compare(rule, &index, grants, &sides) {
                add(&rule.conduit, &rule.flow, why);
            }
        }
        for bridge in bridges {
            if let Err(why) = compare_bridge(bridge, &after.bridges) {
                add(&bridge.conduit, &bridge.flow, why);
            }
        }
    }
    losses
}

/// Why it is lost, or `None` if it may only do less.
type LossReason = Option<&'static str>;

fn compare(
    rule: &Rule,
    index: &Index<'_>,
    grants: &BTreeMap<ConduitId, Vec<Grant>>,
    sides: &[Spans],
) -> Result<(), LossReason> {
    let mut narrowed = false;
    for element in elements(rule) {
        let mut covering = index.covering(&element);
        let any = !covering.is_empty();
        covering.retain(|(_, other, _)| !grants.contains_key(&other.conduit));
        if covering.is_empty() {
            return Err(Some(if any {
                "it is permitted only during grants of remote access from now on"
            } else {
                "no flow permits all of it any longer"
            }));
        }
        if !crosses(sides, &element) {
            return Err(Some("its ends are no longer on two sides of the gateway"));
        }
        let limits: Vec<Option<&Operations>> = covering
            .iter()
            .map(|(_, other, _)| other.operations.as_deref())
            .collect();
        let in_plain = |other: &Rule| other.plain_port().is_some();
        let newly_ended = !in_plain(rule) && covering.iter().all(|(_, other, _)| in_plain(other));
        narrowed |= newly_ended || !still_permitted(rule.operations.as_deref(), &limits);
    }
    if narrowed { Err(None) } else { Ok(()) }
}

/// A bridge goes on if some bridge joins the same brokers, and carries what it carried.
fn compare_bridge(bridge: &Bridge, after: &[Bridge]) -> Result<(), LossReason> {
    let place = |broker: &Broker| (broker.address, broker.port);
    let joins =
        |other: &&Bridge| place(&other.from) == place(&bridge.from) && place(&other.to) == place(&bridge.to);
    let mut standing = after.iter().filter(joins).peekable();
    if standing.peek().is_none() {
        return Err(Some("no bridge joins its brokers any longer"));
    }
    let carried: Vec<&MqttOperation> = standing.flat_map(|other| &other.publications).collect();
    if bridge.publications.iter().all(|one| carried.contains(&one)) {
        Ok(())
    } else {
        Err(None)
    }
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
    let Some(before) = before else {
        return false;
    };
    // Several of them together may permit it, each in the same words; or one alone in wider numbers, which takes longer to see.
    let now: Vec<String> = limits
        .iter()
        .flatten()
        .flat_map(|operations| operations.phrases())
        .collect();
    let narrower =
        |now: &Operations| matches!(diff_operations(before, now).0, Effect::Narrowed | Effect::Altered);
    before.phrases().iter().all(|phrase| now.contains(phrase))
        || limits.iter().flatten().any(|now| !narrower(now))
}
