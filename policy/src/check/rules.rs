//! `PC012x`: rules among each other.
//!
//! A rule unfolds into elements: a source network, a destination network and a range of ports. Which elements
//! cover a given one is looked up by the lengths of prefixes that occur, so that the cost stays near linear.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::spans::Spans;
use super::{Findings, Severity};
use crate::plan::{Bridge, Broker, Plan, Rule};
use crate::protocol::Operations;
use crate::terms::{Answers, OnAgentLoss, Transport};

/// One permitted combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    source: IpNet,
    destination: IpNet,
    /// IP protocol number; 1 stands for echo of both families.
    protocol: u8,
    first: u16,
    last: u16,
}

impl Element {
    /// Source and destination.
    pub(super) fn ends(&self) -> (&IpNet, &IpNet) {
        (&self.source, &self.destination)
    }
}

/// All combinations of one rule whose ends have a family in common.
pub(crate) fn elements(rule: &Rule) -> Vec<Element> {
    let (protocol, ranges): (u8, Vec<(u16, u16)>) = match &rule.transport {
        Transport::Tcp(ports) => (6, super::spans::ports(ports)),
        Transport::Udp(ports) => (17, super::spans::ports(ports)),
        Transport::IcmpEcho => (1, vec![(0, 0)]),
    };
    let mut elements = Vec::new();
    for source in &rule.sources {
        for destination in &rule.destinations {
            if source.network.addr().is_ipv4() != destination.network.addr().is_ipv4() {
                continue;
            }
            for (first, last) in &ranges {
                elements.push(Element {
                    source: source.network,
                    destination: destination.network,
                    protocol,
                    first: *first,
                    last: *last,
                });
            }
        }
    }
    elements
}

/// All elements of a plan, to be asked which rules cover one.
pub(crate) struct Index<'a> {
    rules: &'a [Rule],
    by_ends: HashMap<(IpNet, IpNet), Vec<(usize, Element)>>,
    source_lengths: BTreeSet<u8>,
    destination_lengths: BTreeSet<u8>,
}

impl<'a> Index<'a> {
    pub(crate) fn new(rules: &'a [Rule]) -> Self {
        let mut index = Self {
            rules,
            by_ends: HashMap::new(),
            source_lengths: BTreeSet::new(),
            destination_lengths: BTreeSet::new(),
        };
        for (number, rule) in rules.iter().enumerate() {
            for element in elements(rule) {
                index.source_lengths.insert(element.source.prefix_len());
                index.destination_lengths.insert(element.destination.prefix_len());
                let ends = (element.source.trunc(), element.destination.trunc());
                index.by_ends.entry(ends).or_default().push((number, element));
            }
        }
        index
    }

    /// The rules that permit the whole of `element`, each with the element that does.
    pub(crate) fn covering(&self, element: &Element) -> Vec<(usize, &'a Rule, Element)> {
        let mut covering = Vec::new();
        for source in wider(&element.source, &self.source_lengths) {
            for destination in wider(&element.destination, &self.destination_lengths) {
                for (number, other) in self.by_ends.get(&(source, destination)).into_iter().flatten() {
                    let permits = other.protocol == element.protocol
                        && other.first <= element.first
                        && element.last <= other.last;
                    if permits && let Some(rule) = self.rules.get(*number) {
                        covering.push((*number, rule, *other));
                    }
                }
            }
        }
        covering
    }
}

/// The network itself and those around it, of the lengths that occur.
fn wider(network: &IpNet, lengths: &BTreeSet<u8>) -> impl Iterator<Item = IpNet> {
    lengths
        .range(..=network.prefix_len())
        .filter_map(|length| IpNet::new(network.addr(), *length).ok())
        .map(|network| network.trunc())
}

pub(super) fn check(plan: &Plan, findings: &mut Findings) {
    let index = Index::new(&plan.rules);
    for (number, rule) in plan.rules.iter().enumerate() {
        overlaps(plan, &index, number, rule, findings);
        any_client(rule, findings);
        last_metre(rule, findings);
    }
    for bridge in &plan.bridges {
        forwarded_too(&index, bridge, findings);
    }
    let sides: Vec<Spans> = plan
        .interfaces
        .iter()
        .map(|side| Spans::of(side.networks.iter().copied()))
        .collect();
    for rule in &plan.rules {
        if rule.answers == Answers::InOrder {
            findings.add(
                Severity::Note,
                "PC0129",
                format!(
                    "flow {} takes answers in order: one that comes too late for its request can be taken for the answer \
                     to the next",
                    name(rule)
                ),
                "leave `answers: in-order` out where the server answers under its requests' identifiers",
            );
        }
        if !can_cross(&sides, rule) {
            findings.warning(
                "PC0123",
                format!(
                    "flow {} can never pass here: its ends are not on two sides of this gateway",
                    name(rule)
                ),
                "correct the addresses, or name the gateways it crosses with `via`",
            );
        }
    }
}

fn name(rule: &Rule) -> String {
    format!("{}/{}", rule.conduit, rule.flow)
}

/// A server gives a session to whoever opens it under its name.
fn any_client(rule: &Rule, findings: &mut Findings) {
    let Some(operations) = rule.operations.as_deref() else {
        return;
    };
    let Some(session) = &operations.protocol.session else {
        return;
    };
    let mut opens = operations.named(session.operation).peekable();
    if opens.peek().is_none() || opens.any(|permitted| permitted.limit(session.names).is_none()) {
        findings.warning(
            "PC0120",
            format!("flow {} {}", name(rule), session.risk),
            session.help,
        );
    }
}

fn overlaps(plan: &Plan, index: &Index<'_>, number: usize, rule: &Rule, findings: &mut Findings) {
    let elements = elements(rule);
    let mut redundant_to: Option<String> = None;
    let mut redundant = !elements.is_empty();
    let mut said = BTreeSet::new();
    for element in &elements {
        let others: Vec<_> = index
            .covering(element)
            .into_iter()
            .filter(|(other, _, _)| *other != number)
            .collect();
        for (_, other, _) in &others {
            contradiction(rule, other, &mut said, findings);
            ends_with_grant(plan, rule, other, findings);
            agent_loss(plan, rule, other, findings);
        }
        // Of two that say the same, only the later one is too many.
        let same = others.iter().find(|(place, other, covering)| {
            // What only a grant opens is no substitute for what stands open, nor for what other grants open.
            let stands = !plan.grants.contains_key(&other.conduit) || other.conduit == rule.conduit;
            let same = other.operations == rule.operations && other.tls == rule.tls;
            (*place < number || covering != element) && same && stands
        });
        match same {
            Some((_, other, _)) => redundant_to = Some(name(other)),
            None => redundant = false,
        }
    }
    if redundant && let Some(other) = redundant_to {
        findings.warning(
            "PC0121",
            format!(
                "flow {} permits nothing that others do not permit already ({other})",
                name(rule)
            ),
            "remove one of the two, so that the trail names the one that was meant",
        );
    }
}

fn contradiction(rule: &Rule, other: &Rule, said: &mut BTreeSet<String>, findings: &mut Findings) {
    let Some(limits) = &rule.operations else {
        if rule.is_carried() && other.tls != rule.tls && said.insert(name(other)) {
            tls_disagrees(rule, other, findings);
        }
        return;
    };
    let protocol = |operations: &Operations| operations.protocol;
    match &other.operations {
        None if other.tls != rule.tls
            && (other.is_carried() || rule.plain_port().is_some())
            && said.insert(name(other)) =>
        {
            tls_disagrees(rule, other, findings);
        }
        None if said.insert(name(other)) => findings.warning(
            "PC0122",
            format!(
                "flow {} limits operations, but flow {} permits anything on the same connections",
                name(rule),
                name(other)
            ),
            "give the wider flow its operations too, or take these ends and ports out of it",
        ),
        Some(others) if protocol(others) != protocol(limits) && said.insert(name(other)) => findings.error(
            "PC0124",
            format!(
                "flows {} and {} name different protocols for the same connections",
                name(rule),
                name(other)
            ),
            "a port speaks one protocol: correct the service of one of them",
        ),
        Some(_) if other.tls != rule.tls && said.insert(name(other)) => tls_disagrees(rule, other, findings),
        Some(_) if other.on_refusal != rule.on_refusal && said.insert(name(other)) => findings.warning(
            "PC0126",
            format!(
                "flows {} and {} share connections, but answer a refusal differently: nobody can tell whose refusal it is",
                name(rule),
                name(other)
            ),
            "write the same `on_refusal` at both",
        ),
        Some(_) if other.answers != rule.answers && said.insert(name(other)) => findings.warning(
            "PC0128",
            format!(
                "flows {} and {} share connections, but match answers differently: the strict way holds for both",
                name(rule),
                name(other)
            ),
            "write the same `answers` at both",
        ),
        _ => {}
    }
}

fn tls_disagrees(rule: &Rule, other: &Rule, findings: &mut Findings) {
    findings.error(
        "PC0125",
        format!(
            "flows {} and {} share connections, but not how their TLS ends at the gateway",
            name(rule),
            name(other)
        ),
        "give both the same service and the same `tls`, or take these ends out of one of them",
    );
}

/// Behind the gateway nothing is encrypted, and the server knows nobody but by address.
fn last_metre(rule: &Rule, findings: &mut Findings) {
    if let Some(port) = rule.plain_port() {
        findings.add(
            Severity::Note,
            "PC0130",
            format!(
                "flow {}: its clients' TLS ends at the gateway, and from there to the server's port {port} nothing is encrypted \
                 or authenticated",
                name(rule)
            ),
            "keep that side of the gateway short and locked, with nobody else on it who could open the server's port",
        );
    }
}

/// The kernel keeps what a grant opens apart from what stands open, but not from what would pass unread without an agent: there a
/// connection has one course.
fn ends_with_grant(plan: &Plan, rule: &Rule, other: &Rule, findings: &mut Findings) {
    let (granted, stands) = match [rule, other].map(|rule| plan.grants.contains_key(&rule.conduit)) {
        [true, false] => (rule, other),
        [false, true] => (other, rule),
        _ => return,
    };
    let passes = |rule: &Rule| rule.is_carried() && rule.on_agent_loss == OnAgentLoss::Pass;
    if passes(stands) && !passes(granted) {
        findings.error(
            "PC0122",
            format!(
                "flow {} passes unread while no agent lives, but not on connections that it shares with flow {}, which only a grant \
                 opens: when a grant ends while no agent lives, they stop",
                name(stands),
                name(granted)
            ),
            "take these ends and ports out of one of the two flows, or let the first one block while no agent lives",
        );
    }
}

/// While no agent lives, connections that several flows share pass only if each of these flows lets them. Said in the same words
/// from either of the two: which one is the wider does not matter.
fn agent_loss(plan: &Plan, rule: &Rule, other: &Rule, findings: &mut Findings) {
    if !rule.is_carried() || !other.is_carried() {
        return;
    }
    let (passing, blocking) = match (rule.on_agent_loss, other.on_agent_loss) {
        (OnAgentLoss::Pass, OnAgentLoss::Block) => (rule, other),
        (OnAgentLoss::Block, OnAgentLoss::Pass) => (other, rule),
        _ => return,
    };
    let granted = |rule: &Rule| plan.grants.contains_key(&rule.conduit);
    if granted(blocking) && !granted(passing) {
        // `ends_with_grant` says it, and more gravely.
        return;
    }
    let must = if passing.must_flow { "must flow and " } else { "" };
    findings.warning(
        "PC0162",
        format!(
            "flow {} {must}is to pass while no agent lives, but is blocked where it shares connections with flow {}",
            name(passing),
            name(blocking)
        ),
        "write the same `on_agent_loss` at both conduits, or take the shared ends out of one of the two flows",
    );
}

/// A bridge whose brokers can also open connections to each other is not the only way between them.
fn forwarded_too(index: &Index<'_>, bridge: &Bridge, findings: &mut Findings) {
    let host = |broker: &Broker| IpNet::from(broker.address);
    for (opener, opened) in [(&bridge.from, &bridge.to), (&bridge.to, &bridge.from)] {
        let element = Element {
            source: host(opener),
            destination: host(opened),
            protocol: 6,
            first: opened.port,
            last: opened.port,
        };
        if let Some((_, rule, _)) = index.covering(&element).first() {
            findings.warning(
                "PC0127",
                format!(
                    "flow {} lets {} open connections to {}, past the one-way bridge {}/{}",
                    name(rule),
                    opener.asset,
                    opened.asset,
                    bridge.conduit,
                    bridge.flow
                ),
                "take these brokers out of the flow, or do without the bridge",
            );
        }
    }
}

/// Whether some source and some destination of the rule live on two different sides.
fn can_cross(sides: &[Spans], rule: &Rule) -> bool {
    elements(rule).iter().any(|element| {
        sides.iter().enumerate().any(|(near, from)| {
            from.touch(&element.source)
                && sides
                    .iter()
                    .enumerate()
                    .any(|(far, to)| far != near && to.touch(&element.destination))
        })
    })
}
