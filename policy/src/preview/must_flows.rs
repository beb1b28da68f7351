//! What must flow by the plant in force, and what a change does to it.
//!
//! Whether it is lost or narrowed is judged by the plans of each gateway as `check` judges it, so that a flow under another name
//! that permits the same takes its place. Whether its standing connections end is said of TCP that is enforced, as the
//! inspector treats it: what passes unread and is read from now on was not followed from its beginning and is reset; what is
//! read goes on under other operations, but ends where another protocol is read or TLS ends otherwise; and what is no longer
//! read goes on. Between zones that only observe nothing ends. Of a gateway that changes between routed and bridged it is not
//! judged, which is said of each flow that must flow there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use serde::Serialize;

use crate::check::{Element, Index, Loss, elements, losses};
use crate::diff::flow_details;
use crate::ids::{ConduitId, FlowName, GatewayId};
use crate::model::{Flow, FlowEnd, Plant, Zone};
use crate::plan::{Plan, Rule};
use crate::protocol::Protocol;
use crate::terms::{Enforcement, GatewayMode, Tls, Transport};
use crate::words::and;

type Plans = BTreeMap<GatewayId, Plan>;

/// How many gateways a sentence names before it only counts them.
const NAMED_MAX: usize = 4;

/// A flow that must flow by the plant in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MustFlowAtRisk {
    /// Its conduit.
    pub conduit: ConduitId,
    /// Its name there.
    pub flow: FlowName,
    /// What becomes of it.
    pub risk: Risk,
    /// At which gateways.
    pub gateways: BTreeSet<GatewayId>,
    /// How: the end of its sentence.
    pub why: String,
}

/// What becomes of a flow that must flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Nothing permits it any longer, or not all of it.
    Lost,
    /// It may do less inside its protocol.
    Narrowed,
    /// It was only observed, and is enforced from now on.
    Enforced,
    /// It goes on, but connections that stand at the change end.
    Interrupted,
    /// It goes on, but whether connections that stand at the change do cannot be told.
    NotJudged,
}

/// What each flow, and why, is at risk where.
#[derive(Default)]
struct RiskTable(BTreeMap<(ConduitId, FlowName, Risk, String), BTreeSet<GatewayId>>);

impl RiskTable {
    fn add(&mut self, (conduit, flow): (&ConduitId, &FlowName), risk: Risk, at: &GatewayId, why: String) {
        let key = (conduit.clone(), flow.clone(), risk, why);
        self.0.entry(key).or_default().insert(at.clone());
    }
}

pub(super) fn at_risk(
    (old, before): (&Plant, &Plans),
    (new, after): (&Plant, &Plans),
) -> Vec<MustFlowAtRisk> {
    let mut found = RiskTable::default();
    for loss in losses(before, after) {
        let named = (loss.conduit, loss.flow);
        let Some(flow) = flow_of(old, named) else { continue };
        let Some((risk, mut why)) = lost(&loss, flow, flow_of(new, named)) else {
            continue;
        };
        // A bridge carries what it lists, whatever its zones are.
        if !flow.is_bridge() && after.contains_key(loss.gateway) && observed(new, flow) {
            why.push_str("; its zones only observe, so that it passes and is recorded");
        }
        found.add(named, risk, loss.gateway, why);
    }
    for (id, conduit) in &old.conduits {
        for (name, flow) in &conduit.flows {
            let enforced = flow.must_flow && !flow.is_bridge() && observed(old, flow) && !observed(new, flow);
            let at = conduit.via.iter().filter(|at| after.contains_key(*at));
            for gateway in at.filter(|_| enforced) {
                let why =
                    "what it does beyond what is declared is refused; it passed and was recorded before";
                found.add((id, name), Risk::Enforced, gateway, why.to_owned());
            }
        }
    }
    for (gateway, plan) in before {
        if let Some(next) = after.get(gateway) {
            interruptions((old, plan), (new, next), &mut found);
        }
    }
    let all = found.0.into_iter();
    let mut all: Vec<_> = all
        .map(|((conduit, flow, risk, why), gateways)| MustFlowAtRisk {
            conduit,
            flow,
            risk,
            gateways,
            why,
        })
        .collect();
    all.sort_by_key(|one| one.risk);
    all
}

fn flow_of<'a>(plant: &'a Plant, (conduit, flow): (&ConduitId, &FlowName)) -> Option<&'a Flow> {
    plant.conduits.get(conduit)?.flows.get(flow)
}

/// What a loss is, in the words of what changed of the flow; `None` if its operations are only written differently.
fn lost(loss: &Loss<'_>, before: &Flow, after: Option<&Flow>) -> Option<(Risk, String)> {
    let details = after.map(|after| flow_details(before, after));
    match (loss.why, details) {
        (None, Some((narrower, details))) => narrower.then(|| (Risk::Narrowed, details.join("; "))),
        (None, None) => Some((
            Risk::Narrowed,
            "what permits it now permits less inside its protocol".to_owned(),
        )),
        (Some(why), Some((true, details))) => Some((Risk::Lost, format!("{why}: {}", details.join("; ")))),
        (Some(why), _) => Some((Risk::Lost, why.to_owned())),
    }
}

/// Whether all zones in which its ends lie only observe.
fn observed(plant: &Plant, flow: &Flow) -> bool {
    let mut ends = flow.sources.iter().chain(&flow.destinations);
    ends.all(|end| match end {
        FlowEnd::Asset(asset, addresses) => match plant.assets.get(asset) {
            Some(asset) => observes(plant.zones.get(&asset.zone)),
            None => addresses
                .iter()
                .all(|one| observes(holding(plant, (*one).into()))),
        },
        FlowEnd::Zone(zone, networks) => match plant.zones.get(zone) {
            Some(zone) => observes(Some(zone)),
            None => networks.iter().all(|one| observes(holding(plant, *one))),
        },
    })
}

fn observes(zone: Option<&Zone>) -> bool {
    zone.is_some_and(|zone| zone.enforcement == Enforcement::Observe)
}

/// The zone that holds an end whose name is gone, or another's from now on.
fn holding(plant: &Plant, end: IpNet) -> Option<&Zone> {
    let mut assets = plant.assets.values();
    let asset = assets.find(|asset| asset.addresses.iter().any(|one| IpNet::from(*one) == end));
    let nearest = || {
        let length = |zone: &&Zone| {
            let around = zone.networks.iter().filter(|network| network.contains(&end));
            around.map(IpNet::prefix_len).max()
        };
        let around = plant.zones.values().filter(|zone| length(zone).is_some());
        around.max_by_key(length)
    };
    asset.map_or_else(nearest, |asset| plant.zones.get(&asset.zone))
}

/// Who reads a connection.
#[derive(Debug, PartialEq, Eq)]
enum Reading<'a> {
    /// Nobody: the kernel forwards it.
    Forwarded,
    /// The inspector, as this protocol, within this TLS.
    Inspected(Option<Protocol>, Option<&'a Tls>),
}

impl<'a> Reading<'a> {
    /// Of all connections of an element; `None`: nothing that stands open permits it.
    fn of(element: &Element, plan: &'a Plan, index: &Index<'a>) -> Option<Self> {
        let covering = index.covering(element).into_iter().map(|(_, rule, _)| rule);
        let mut standing = covering.filter(|rule: &&Rule| !plan.grants.contains_key(&rule.conduit));
        let first = standing.next()?;
        if !first.is_carried() || standing.any(|rule| !rule.is_carried()) {
            return Some(Self::Forwarded);
        }
        let protocol = first.operations.as_deref().map(|operations| operations.protocol);
        Some(Self::Inspected(protocol, first.tls.as_deref()))
    }

    /// Why connections that stand end where this takes the place of `before`.
    fn ends(&self, before: &Self) -> Option<&'static str> {
        match (before, self) {
            (Self::Forwarded, Self::Inspected(_, Some(tls))) if tls.plain_port.is_some() => Some(
                "its clients' TLS ends at the gateway from now on: its connections are reset, and their clients have to speak \
                 TLS and show a certificate",
            ),
            (Self::Forwarded, Self::Inspected(..)) => Some(
                "it passes unread, and is inspected from now on: its connections that were not read from their beginning are \
                 reset, and their clients have to reconnect",
            ),
            (Self::Inspected(_, old), Self::Inspected(_, new)) if old != new => Some(
                "its TLS ends otherwise from now on: its connections end, and their clients have to reconnect",
            ),
            // Without limits it went on unread inside its TLS, and cannot be read from its middle.
            (Self::Inspected(old, _), Self::Inspected(new, _)) if old != new && new.is_some() => Some(
                "it is read as another protocol from now on: its connections end, and their clients have to reconnect",
            ),
            _ => None,
        }
    }
}

fn interruptions((old, plan): (&Plant, &Plan), (new, next): (&Plant, &Plan), found: &mut RiskTable) {
    if plan.mode != next.mode {
        let why = format!(
            "its gateway becomes {} (it is {}), and whether standing connections go on across that is not known",
            mode_word(next.mode),
            mode_word(plan.mode)
        );
        for rule in plan.rules.iter().filter(|rule| rule.must_flow) {
            let named = (&rule.conduit, &rule.flow);
            found.add(named, Risk::NotJudged, &plan.gateway, why.clone());
        }
        return;
    }
    // Most of a plant changes nothing here.
    if plan.rules == next.rules && plan.grants == next.grants && old.zones == new.zones {
        return;
    }
    let (before, after) = (Index::new(&plan.rules), Index::new(&next.rules));
    let needed = plan.rules.iter().filter(|rule| rule.must_flow);
    for rule in needed.filter(|rule| matches!(rule.transport, Transport::Tcp(_))) {
        let named = (&rule.conduit, &rule.flow);
        if flow_of(old, named).is_none_or(|flow| observed(new, flow)) {
            continue;
        }
        let reasons = elements(rule).into_iter().filter_map(|element| {
            let before = Reading::of(&element, plan, &before)?;
            Reading::of(&element, next, &after)?.ends(&before)
        });
        for why in reasons.collect::<BTreeSet<_>>() {
            found.add(named, Risk::Interrupted, &plan.gateway, why.to_owned());
        }
    }
}

fn mode_word(mode: GatewayMode) -> &'static str {
    match mode {
        GatewayMode::Routed => "routed",
        GatewayMode::Bridged => "bridged",
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lost => "is lost",
            Self::Narrowed => "is narrowed",
            Self::Enforced => "is enforced",
            Self::Interrupted => "is interrupted",
            Self::NotJudged => "is not judged",
        })
    }
}

impl fmt::Display for MustFlowAtRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match self.gateways.len() {
            0..=NAMED_MAX => and(self.gateways.iter()),
            many => format!("{many} gateways"),
        };
        let (conduit, flow) = (&self.conduit, &self.flow);
        write!(
            f,
            "{conduit}/{flow} must flow, and {} at {at}: {}",
            self.risk, self.why
        )
    }
}
