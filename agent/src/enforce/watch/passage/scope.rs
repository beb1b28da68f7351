//! What of a plan a fault of the machine would concern: by interface, by address family, and from which host to which a way has
//! to lead. Pure, and made once for each plan.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use penstock_policy::ids::ZoneId;
use penstock_policy::plan::{Endpoint, Plan, PlanInterface, Rule};
use penstock_policy::terms::GatewayMode;
use penstock_proto::fault::FLOWS_MAX;

use crate::observed::Condition;

/// Crossings whose way is asked for, each in both directions: must-flows first.
const CROSSINGS_MAX: usize = 64;
/// Ends of one rule that are looked at: those of one zone are on one side as a rule.
const ENDS_MAX: usize = 64;

/// What a plan expects of the machine.
#[derive(Debug, Default)]
pub(super) struct Expectations {
    /// Whether packets are bridged, not routed.
    pub(super) bridged: bool,
    /// The guarded interfaces.
    pub(super) sides: Vec<GuardedSide>,
    /// What crosses by IPv4 and IPv6; `None`: nothing.
    pub(super) families: [Option<Concern>; 2],
    /// From where to where ways must lead.
    pub(super) crossings: Vec<Crossing>,
}

/// One guarded interface.
#[derive(Debug)]
pub(super) struct GuardedSide {
    pub(super) name: String,
    pub(super) zone: ZoneId,
    pub(super) concern: Concern,
}

/// Whom a fault would concern.
#[derive(Debug, Default, Clone)]
pub(super) struct Concern {
    zones: BTreeSet<ZoneId>,
    must: Vec<String>,
    others: Vec<String>,
    further: u32,
}

/// A packet of a flow, from a host on one side to one on another.
#[derive(Debug, Clone)]
pub(super) struct Crossing {
    pub(super) from: (String, IpAddr),
    pub(super) to: (String, IpAddr),
    pub(super) concern: Concern,
}

impl Crossing {
    /// The way of its answers.
    pub(super) fn back(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
            concern: self.concern.clone(),
        }
    }
}

impl Concern {
    /// Of one rule.
    pub(super) fn of_rule(plan: &Plan, rule: &Rule) -> Self {
        let mut concern = Self::default();
        let ends = ends(plan, &rule.sources)
            .into_iter()
            .chain(ends(plan, &rule.destinations));
        let sides = ends.filter_map(|(side, _)| plan.interfaces.get(side));
        concern.add(&name_of(rule), rule.must_flow, sides);
        concern
    }

    /// A flow with the sides that it crosses.
    fn add<'a>(&mut self, flow: &str, must: bool, sides: impl Iterator<Item = &'a PlanInterface>) {
        for side in sides {
            self.zones.insert(side.zone.clone());
            self.zones.extend(side.behind.iter().cloned());
        }
        let names = if must { &mut self.must } else { &mut self.others };
        if names.len() < FLOWS_MAX {
            names.push(flow.to_owned());
        } else {
            self.further = self.further.saturating_add(1);
        }
    }

    /// A fault that concerns them.
    pub(super) fn fault(&self, code: &'static str, subject: &str, message: String) -> Condition {
        let mut flows: Vec<String> = self.must.iter().chain(&self.others).cloned().collect();
        let beyond = flows.len().saturating_sub(FLOWS_MAX);
        flows.truncate(FLOWS_MAX);
        Condition {
            code,
            subject: subject.to_owned(),
            message,
            alarm: !self.must.is_empty(),
            zones: self.zones.clone(),
            flows,
            further_flows: self
                .further
                .saturating_add(u32::try_from(beyond).unwrap_or(u32::MAX)),
        }
    }
}

impl Expectations {
    /// Of a plan.
    pub(super) fn of(plan: &Plan) -> Self {
        let mut sides: Vec<GuardedSide> = plan.interfaces.iter().map(GuardedSide::of).collect();
        let mut families = [4, 6].map(|version| observed(plan, version));
        let mut crossings = Vec::new();
        let by_weight = |must: bool| plan.rules.iter().filter(move |rule| rule.must_flow == must);
        for rule in by_weight(true).chain(by_weight(false)) {
            let name = name_of(rule);
            let from = ends(plan, &rule.sources);
            let to = ends(plan, &rule.destinations);
            let crossed: BTreeSet<usize> = from.iter().chain(&to).map(|(side, _)| *side).collect();
            if crossed.len() < 2 {
                continue;
            }
            let planned = || crossed.iter().filter_map(|side| plan.interfaces.get(*side));
            for side in &crossed {
                if let Some(side) = sides.get_mut(*side) {
                    side.concern.add(&name, rule.must_flow, planned());
                }
            }
            for (version, family) in [4, 6].into_iter().zip(&mut families) {
                if rule
                    .sources
                    .iter()
                    .take(ENDS_MAX)
                    .any(|end| is_of(end.network, version))
                {
                    family
                        .get_or_insert_default()
                        .add(&name, rule.must_flow, planned());
                }
            }
            if plan.mode == GatewayMode::Routed && crossings.len() < CROSSINGS_MAX {
                crossings.extend(crossing(plan, rule, &from, &to, &name));
            }
        }
        Self {
            bridged: plan.mode == GatewayMode::Bridged,
            sides,
            families,
            crossings,
        }
    }
}

impl GuardedSide {
    fn of(side: &PlanInterface) -> Self {
        let mut concern = Concern::default();
        concern.zones.insert(side.zone.clone());
        concern.zones.extend(side.behind.iter().cloned());
        Self {
            name: side.name.clone(),
            zone: side.zone.clone(),
            concern,
        }
    }
}

/// What crosses undeclared where zones observe.
fn observed(plan: &Plan, version: u8) -> Option<Concern> {
    let observing = plan.interfaces.iter().filter(|side| {
        side.observing != penstock_policy::plan::Observing::Nothing
            && side.networks.iter().any(|network| is_of(*network, version))
    });
    let sides: Vec<_> = observing.collect();
    (sides.len() > 1).then(|| {
        let mut concern = Concern::default();
        for side in sides {
            concern.zones.insert(side.zone.clone());
            concern.zones.extend(side.behind.iter().cloned());
        }
        concern
    })
}

/// The sides that ends of a rule are on, each with the first network there.
fn ends(plan: &Plan, ends: &[Endpoint]) -> Vec<(usize, IpNet)> {
    let mut found: Vec<(usize, IpNet)> = Vec::new();
    for end in ends.iter().take(ENDS_MAX) {
        for (number, side) in plan.interfaces.iter().enumerate() {
            if found.iter().any(|(known, _)| *known == number) {
                continue;
            }
            let shared = side
                .networks
                .iter()
                .find_map(|network| shared(*network, end.network));
            found.extend(shared.map(|network| (number, network)));
        }
    }
    found
}

/// What two networks share.
fn shared(one: IpNet, other: IpNet) -> Option<IpNet> {
    if one.contains(&other) {
        Some(other)
    } else if other.contains(&one) {
        Some(one)
    } else {
        None
    }
}

fn crossing(
    plan: &Plan,
    rule: &Rule,
    from: &[(usize, IpNet)],
    to: &[(usize, IpNet)],
    name: &str,
) -> Option<Crossing> {
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
    let (from, to) = pairs.into_iter().find(|(from, to)| {
        from.0 != to.0 && from.1.addr().is_ipv4() == to.1.addr().is_ipv4() && !to.1.addr().is_multicast()
    })?;
    let (source, destination) = (plan.interfaces.get(from.0)?, plan.interfaces.get(to.0)?);
    let mut concern = Concern::default();
    concern.add(name, rule.must_flow, [source, destination].into_iter());
    Some(Crossing {
        from: (source.name.clone(), host_of(from.1)),
        to: (destination.name.clone(), host_of(to.1)),
        concern,
    })
}

/// The first address of a network that a host may have.
fn host_of(network: IpNet) -> IpAddr {
    network.hosts().next().unwrap_or(network.addr())
}

fn name_of(rule: &Rule) -> String {
    format!("{}/{}", rule.conduit, rule.flow)
}

fn is_of(network: IpNet, version: u8) -> bool {
    matches!((network, version), (IpNet::V4(_), 4) | (IpNet::V6(_), 6))
}
