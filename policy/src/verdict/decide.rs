//! The judgement itself, written to be read beside the order that `verdict` states.

use std::net::IpAddr;

use super::{Carried, Connection, Decision, Nearest, Reason, RuleName, Verdict, words};
use crate::plan::{Endpoint, Plan, PlanInterface, Rule, WeakEnd};
use crate::protocol::Operations;
use crate::terms::{Enforcement, OnAgentLoss, PortRange, Transport};

/// What `plan` says of `connection`.
pub fn decide(plan: &Plan, connection: &Connection) -> Verdict {
    let sides = (
        interface(plan, &connection.ingress),
        interface(plan, &connection.egress),
    );
    let refusal = match mode(plan, connection) {
        Some(Enforcement::Observe) => Decision::WouldDeny,
        Some(Enforcement::Enforce) => Decision::Deny,
        None => return verdict(Decision::NotGuarded, Reason::NotGuarded),
    };
    let unguarded = |interface: &str| {
        let interface = interface.to_owned();
        verdict(refusal, Reason::Unguarded { interface })
    };
    let (ingress, egress) = match sides {
        (Some(ingress), Some(egress)) => (ingress, egress),
        (None, None) => return verdict(refusal, Reason::Around),
        (_, None) => return unguarded(&connection.egress),
        (None, _) => return unguarded(&connection.ingress),
    };
    for (address, side) in [(connection.source, ingress), (connection.destination, egress)] {
        if !side.holds(address) {
            let interface = side.name.clone();
            return verdict(refusal, Reason::Misplaced { address, interface });
        }
    }
    if ingress.zone == egress.zone && ingress.behind.is_empty() && egress.behind.is_empty() {
        return verdict(Decision::Allow, Reason::SameZone(ingress.zone.clone()));
    }
    match winner(plan, connection) {
        Some(rule) => verdict(Decision::Allow, Reason::Rule(RuleName::of(rule))),
        None => {
            let closed = plan.rules.iter().find(|rule| fit(rule, connection).is_some());
            let reason = match closed {
                Some(rule) => Reason::Closed {
                    rule: RuleName::of(rule),
                    grants: plan.grants_of(&rule.conduit).to_vec(),
                },
                None => unproven(plan, connection).unwrap_or_else(|| Reason::NoRule {
                    nearest: nearest(plan, connection),
                }),
            };
            verdict(refusal, reason)
        }
    }
}

/// The first flow that is declared for the connection, and denied since one of its ends proves too little.
fn unproven(plan: &Plan, connection: &Connection) -> Option<Reason> {
    let mut forwarded = plan.unproven.iter().filter(|flow| !flow.bridged);
    forwarded.find_map(|flow| {
        fit_service(&flow.transport, connection.transport)?;
        fit_end(&flow.sources, connection.source)?;
        fit_end(&flow.destinations, connection.destination)?;
        let weak: Vec<WeakEnd> = flow
            .in_the_way(connection.source, connection.destination)
            .cloned()
            .collect();
        let rule = RuleName {
            id: flow.id,
            conduit: flow.conduit.clone(),
            flow: flow.flow.clone(),
        };
        let minimum = flow.minimum;
        (!weak.is_empty()).then_some(Reason::Unproven { rule, minimum, weak })
    })
}

/// Whether what no rule permits is dropped: as soon as one of the two ends belongs to a zone that enforces, each on its own
/// side (DESIGN, promise 12). An end behind an interface that the plan does not name has no say; where neither has, the sides do
/// to which the addresses belong, if they are different ones. `None`: nobody has.
pub fn mode(plan: &Plan, connection: &Connection) -> Option<Enforcement> {
    let ends = [
        (&connection.ingress, connection.source),
        (&connection.egress, connection.destination),
    ];
    ends.into_iter()
        .filter_map(|(name, address)| Some(interface(plan, name)?.observing.mode(Some(address))))
        .max()
        .or_else(|| mode_around(plan, connection))
}

/// The strictest mode of the sides to which the ends belong; `None` if one of them belongs to none, or one side holds both.
fn mode_around(plan: &Plan, connection: &Connection) -> Option<Enforcement> {
    let (source, destination) = (connection.source, connection.destination);
    if plan
        .interfaces
        .iter()
        .any(|side| side.holds(source) && side.holds(destination))
    {
        return None;
    }
    let strictest = |address: IpAddr| {
        let sides = plan.interfaces.iter().filter(|side| side.holds(address));
        sides.map(|side| side.observing.mode(Some(address))).max()
    };
    Some(strictest(source)?.max(strictest(destination)?))
}

/// All open rules that match the connection's tuple, in the plan's order. Interfaces are not looked at.
pub fn matching<'a>(plan: &'a Plan, connection: &Connection) -> impl Iterator<Item = &'a Rule> {
    plan.open_rules()
        .filter(move |rule| fit(rule, connection).is_some())
}

/// What a connection that [`decide`] allows by a rule may do inside its protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permissions<'a> {
    /// No rule matches.
    Nothing,
    /// A matching rule sets no limit: it need not be inspected.
    Anything,
    /// Anything, but only inside TLS that ends at the gateway, as this rule says: the agent carries it.
    InsideTls(&'a Rule),
    /// What any of the matching rules lists, each with the rule that lists it; never empty.
    Only(Vec<(&'a Rule, &'a Operations)>),
}

/// The operations that the connection may carry: the union over all rules that match its tuple.
///
/// Two flows may share a tuple and differ in their operations (polling and set-points of one client to one
/// controller). A further rule thus never takes away what another permits.
pub fn permitted<'a>(plan: &'a Plan, connection: &Connection) -> Permissions<'a> {
    let (mut listed, mut inside) = (Vec::new(), None);
    for rule in matching(plan, connection) {
        match rule.operations.as_deref() {
            None if rule.tls.is_none() => return Permissions::Anything,
            None => inside = inside.or(Some(rule)),
            Some(operations) => listed.push((rule, operations)),
        }
    }
    match inside {
        Some(rule) => Permissions::InsideTls(rule),
        None if listed.is_empty() => Permissions::Nothing,
        None => Permissions::Only(listed),
    }
}

impl RuleName {
    /// The name of `rule`.
    pub fn of(rule: &Rule) -> Self {
        Self {
            id: rule.id,
            conduit: rule.conduit.clone(),
            flow: rule.flow.clone(),
        }
    }
}

fn verdict(decision: Decision, reason: Reason) -> Verdict {
    Verdict { decision, reason }
}

pub(super) fn interface<'a>(plan: &'a Plan, name: &str) -> Option<&'a PlanInterface> {
    plan.interfaces.iter().find(|interface| interface.name == name)
}

/// How closely a rule, or a part of it, names what it matches. Declared from loose to tight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// By a network or a range.
    Covering,
    /// As exactly one address, or one port.
    Exact,
}

/// The rule that decides: of a conduit that a grant opens only where those that stand open permit less than it does.
fn winner<'a>(plan: &'a Plan, connection: &Connection) -> Option<&'a Rule> {
    if plan.open.is_empty() {
        return closest(plan.open_rules(), connection);
    }
    let least = matching(plan, connection).map(limits).min();
    let stands = |rule: &&Rule| !plan.grants.contains_key(&rule.conduit);
    if matching(plan, connection)
        .filter(stands)
        .any(|rule| Some(limits(rule)) == least)
    {
        return closest(plan.open_rules().filter(stands), connection);
    }
    let opens = |rule: &&Rule| !stands(rule) && Some(limits(rule)) == least;
    closest(plan.open_rules().filter(opens), connection)
}

/// How much a rule limits what it permits.
fn limits(rule: &Rule) -> u8 {
    match (rule.is_carried(), rule.on_agent_loss) {
        (false, _) => 0,
        (true, OnAgentLoss::Block) => 1,
        (true, OnAgentLoss::Pass) => 2,
    }
}

/// The first rule that names the connection exactly, else the first that covers it.
fn closest<'a>(rules: impl Iterator<Item = &'a Rule>, connection: &Connection) -> Option<&'a Rule> {
    let mut covering = None;
    for rule in rules {
        match fit(rule, connection) {
            Some(Fit::Exact) => return Some(rule),
            Some(Fit::Covering) => {
                covering.get_or_insert(rule);
            }
            None => {}
        }
    }
    covering
}

fn fit(rule: &Rule, connection: &Connection) -> Option<Fit> {
    let service = fit_service(&rule.transport, connection.transport)?;
    let source = fit_end(&rule.sources, connection.source)?;
    let destination = fit_end(&rule.destinations, connection.destination)?;
    Some(service.min(source).min(destination))
}

fn fit_end(ends: &[Endpoint], address: IpAddr) -> Option<Fit> {
    ends.iter()
        .filter(|end| end.network.contains(&address))
        .map(|end| {
            if end.network.prefix_len() == end.network.max_prefix_len() {
                Fit::Exact
            } else {
                Fit::Covering
            }
        })
        .max()
}

fn fit_service(transport: &Transport, carried: Carried) -> Option<Fit> {
    match (transport, carried) {
        (Transport::Tcp(ports), Carried::Tcp(port)) | (Transport::Udp(ports), Carried::Udp(port)) => {
            fit_port(ports, port)
        }
        (Transport::IcmpEcho, Carried::IcmpEcho) => Some(Fit::Exact),
        _ => None,
    }
}

fn fit_port(ports: &[PortRange], port: u16) -> Option<Fit> {
    ports
        .iter()
        .filter(|range| range.contains(port))
        .map(|range| {
            if range.first == range.last {
                Fit::Exact
            } else {
                Fit::Covering
            }
        })
        .max()
}

/// The rule that has most in common with a connection that none matches, and that its reader can do something with: one to
/// the same server, else one of the same client, else one between the same two networks (a conduit's zones). Among those
/// the service weighs on top; a rule that shares no more than that is another plant part's and says nothing.
fn nearest(plan: &Plan, connection: &Connection) -> Option<Nearest> {
    let mut best: Option<(u8, &Rule)> = None;
    for rule in plan.open_rules() {
        let server = fit_end(&rule.destinations, connection.destination).is_some();
        let client = fit_end(&rule.sources, connection.source).is_some();
        if !server && !client && !same_way(plan, rule, connection) {
            continue;
        }
        let mut likeness = 1;
        if server {
            likeness += 8;
        }
        if client {
            likeness += 6;
        }
        if fit_service(&rule.transport, connection.transport).is_some() {
            likeness += 4;
        } else if same_transport(&rule.transport, connection.transport) {
            likeness += 1;
        }
        if likeness > best.map_or(0, |(most, _)| most) {
            best = Some((likeness, rule));
        }
    }
    best.map(|(_, rule)| Nearest {
        rule: RuleName::of(rule),
        differs: differences(rule, connection),
    })
}

/// Whether the rule leads from the network of the connection's source to that of its destination.
fn same_way(plan: &Plan, rule: &Rule, connection: &Connection) -> bool {
    let beside = |side: &str, address: IpAddr, ends: &[Endpoint]| {
        let mut networks = interface(plan, side).into_iter().flat_map(|side| &side.networks);
        networks.any(|network| {
            network.contains(&address) && ends.iter().any(|end| network.contains(&end.network))
        })
    };
    beside(&connection.ingress, connection.source, &rule.sources)
        && beside(&connection.egress, connection.destination, &rule.destinations)
}

/// The rules that let others do what `connection` wants: open this service to this server.
pub fn for_others<'a>(plan: &'a Plan, connection: &Connection) -> impl Iterator<Item = &'a Rule> {
    plan.open_rules().filter(move |rule| {
        fit_service(&rule.transport, connection.transport).is_some()
            && fit_end(&rule.destinations, connection.destination).is_some()
            && fit_end(&rule.sources, connection.source).is_none()
    })
}

fn same_transport(transport: &Transport, carried: Carried) -> bool {
    matches!(
        (transport, carried),
        (Transport::Tcp(_), Carried::Tcp(_))
            | (Transport::Udp(_), Carried::Udp(_))
            | (Transport::IcmpEcho, Carried::IcmpEcho)
    )
}

/// What of `rule` would have to be otherwise for it to match, in words.
fn differences(rule: &Rule, connection: &Connection) -> Vec<String> {
    let mut differs = Vec::new();
    if fit_end(&rule.sources, connection.source).is_none() {
        differs.push(format!(
            "source {} is not {}",
            connection.source,
            words::ends(&rule.sources)
        ));
    }
    if fit_end(&rule.destinations, connection.destination).is_none() {
        differs.push(format!(
            "destination {} is not {}",
            connection.destination,
            words::ends(&rule.destinations)
        ));
    }
    if fit_service(&rule.transport, connection.transport).is_none() {
        differs.push(match (&rule.transport, connection.transport) {
            (Transport::Tcp(ports), Carried::Tcp(port)) | (Transport::Udp(ports), Carried::Udp(port)) => {
                format!("port {port} is not {}", words::ports(ports))
            }
            (permitted, carried) => format!("{carried} is not {permitted}"),
        });
    }
    differs
}
