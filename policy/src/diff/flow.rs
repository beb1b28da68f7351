//! Flows that come, go, permit more or permit less.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Change, Effect, Plans, Subject, numbers, operations};
use crate::ids::{ConduitId, FlowName};
use crate::model::{Conduit, Enforcer, Flow, FlowEnd, Plant, Service};
use crate::plan::FlowSide;
use crate::protocol::{Operations, RoleOperations, Roles};
use crate::terms::{Answers, NumberRange, PortRange, Tls, Transport};
use crate::words::and;

/// How many ends a sentence names before it only counts them.
const NAMED_MAX: usize = 4;

type Flows<'a> = BTreeMap<(&'a ConduitId, &'a FlowName), (&'a Conduit, &'a Flow)>;

pub(super) fn changes(
    (old, old_plans): (Option<&Plant>, &Plans),
    (new, new_plans): (&Plant, &Plans),
    changes: &mut Vec<Change>,
) {
    let before = old.map(flows).unwrap_or_default();
    let after = flows(new);
    let weak = old.map(|old| denied(old, old_plans)).unwrap_or_default();
    let weaker = denied(new, new_plans);
    let names: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    for (conduit, flow) in names {
        let subject = Subject::Flow {
            conduit: conduit.clone(),
            flow: flow.clone(),
        };
        let (mut effect, mut details) = match (before.get(&(conduit, flow)), after.get(&(conduit, flow))) {
            (None, Some((conduit, flow))) => (Effect::Added, vec![whole(conduit, flow)]),
            (Some((conduit, flow)), None) => (Effect::Removed, vec![whole(conduit, flow)]),
            (Some((_, before)), Some((_, after))) => compare(before, after),
            (None, None) => continue,
        };
        if after.contains_key(&(conduit, flow)) {
            let of = |denied: &Denied<'_>| denied.get(&(conduit, flow)).cloned().unwrap_or_default();
            assurance(&mut effect, &mut details, (&of(&weak), &of(&weaker)));
        }
        if !details.is_empty() {
            changes.push(Change {
                subject,
                effect,
                details,
            });
        }
    }
}

/// The ends of a flow that prove too little, and where.
#[derive(Clone, Default)]
struct WeakEnds {
    denied: BTreeSet<String>,
    /// Between zones that only observe.
    foretold: BTreeSet<String>,
}

type Denied<'a> = BTreeMap<(&'a ConduitId, &'a FlowName), WeakEnds>;

fn denied<'a>(plant: &Plant, plans: &'a Plans) -> Denied<'a> {
    let mut all = Denied::new();
    for (gateway, plan) in plans {
        for unproven in &plan.unproven {
            let ends = unproven.weak.iter().map(|weak| {
                let way = match weak.side {
                    FlowSide::Source => "from",
                    FlowSide::Destination => "to",
                };
                let (name, asked) = (&weak.end.name, unproven.minimum);
                format!(
                    "{way} {name} at {gateway} (it proves who it is {}, {asked} is asked for)",
                    weak.proof
                )
            });
            let of = all.entry((&unproven.conduit, &unproven.flow)).or_default();
            let conduit = plant.conduits.get(&unproven.conduit);
            match conduit.is_some_and(|conduit| plant.only_observes(conduit)) {
                true => of.foretold.extend(ends),
                false => of.denied.extend(ends),
            }
        }
    }
    all
}

/// What becomes of a flow by the assurance of its ends.
fn assurance(effect: &mut Effect, details: &mut Vec<String>, (before, after): (&WeakEnds, &WeakEnds)) {
    let newly: Vec<_> = after.denied.difference(&before.denied).collect();
    let no_longer: Vec<_> = before.denied.difference(&after.denied).collect();
    let foretold: Vec<_> = after.foretold.difference(&before.foretold).collect();
    let by_itself = matches!(effect, Effect::Added).then_some(Effect::Added);
    let by_assurance = Effect::of(!no_longer.is_empty(), !newly.is_empty());
    let says = by_assurance != Effect::Recorded;
    if !newly.is_empty() {
        details.push(format!(
            "denied from now on, by its assurance: {}",
            and(newly.into_iter())
        ));
    }
    if !foretold.is_empty() {
        details.push(format!(
            "would be denied, by its assurance, if its zones enforced: {}",
            and(foretold.into_iter())
        ));
    }
    if !no_longer.is_empty() {
        details.push(format!(
            "no longer denied by its assurance: {}",
            and(no_longer.into_iter())
        ));
    }
    *effect = match (by_itself, *effect) {
        (Some(added), _) => added,
        (None, Effect::Recorded) => by_assurance,
        (None, same) if !says || same == by_assurance => same,
        (None, _) => Effect::Altered,
    };
}

fn title(flow: &Flow) -> String {
    flow.title.clone().unwrap_or_else(|| "none".to_owned())
}

fn flows(plant: &Plant) -> Flows<'_> {
    plant
        .conduits
        .iter()
        .flat_map(|(id, conduit)| {
            conduit
                .flows
                .iter()
                .map(move |(name, flow)| ((id, name), (conduit, flow)))
        })
        .collect()
}

/// A flow that comes or goes, in one phrase.
fn whole(conduit: &Conduit, flow: &Flow) -> String {
    let must = if flow.must_flow { ", must flow" } else { "" };
    let by = match &conduit.enforced_by {
        Enforcer::Gateways => format!("at {}", and(conduit.via.iter())),
        Enforcer::Other(by) => format!("enforced by {by} and by no gateway"),
        Enforcer::Nobody => "enforced by nobody yet".to_owned(),
    };
    format!("{flow}{must}, {by}")
}

/// What differs, and whether it lets more or less through.
#[derive(Default)]
struct Comparison {
    wider: bool,
    narrower: bool,
    details: Vec<String>,
}

pub(super) fn compare(before: &Flow, after: &Flow) -> (Effect, Vec<String>) {
    let mut comparison = Comparison::default();
    comparison.ends("from", &before.sources, &after.sources);
    comparison.ends("to", &before.destinations, &after.destinations);
    match (&before.bridge_source, &after.bridge_source) {
        (Some(old), Some(new)) => {
            comparison.broker("source", (&old.service, &old.tls), (&new.service, &new.tls));
            comparison.broker(
                "destination",
                (&before.service, &before.tls),
                (&after.service, &after.tls),
            );
        }
        _ => comparison.transport(&before.service.transport, &after.service.transport),
    }
    comparison.operations(
        before.operations.as_ref(),
        after.operations.as_ref(),
        &who(before, after),
    );
    comparison.roles(before.roles.as_ref(), after.roles.as_ref());
    comparison.carriage(before, after);
    if before.must_flow != after.must_flow {
        let words = if after.must_flow {
            "must flow from now on"
        } else {
            "no longer has to flow"
        };
        comparison.details.push(words.to_owned());
    }
    let service = |flow: &Flow| match &flow.bridge_source {
        Some(source) => format!("{} to {}", source.service.name, flow.service.name),
        None => flow.service.name.clone(),
    };
    for (what, old, new) in [
        ("service", service(before), service(after)),
        ("title", title(before), title(after)),
    ] {
        if old != new {
            comparison.details.push(format!("{what}: {new} (was {old})"));
        }
    }
    if before.service.protocol != after.service.protocol && comparison.details.is_empty() {
        let word = |flow: &Flow| flow.service.protocol.map_or("none", |protocol| protocol.word);
        let detail = format!("protocol: {} (was {})", word(after), word(before));
        comparison.details.push(detail);
    }
    (
        Effect::of(comparison.wider, comparison.narrower),
        comparison.details,
    )
}

/// ` by hmi-1 on plc-7`; nothing where the ends change too, of which other details speak.
fn who(before: &Flow, after: &Flow) -> String {
    let names = |ends: &[FlowEnd]| ends.iter().map(FlowEnd::name).collect::<BTreeSet<_>>();
    let (sources, destinations) = (names(&after.sources), names(&after.destinations));
    if names(&before.sources) != sources || names(&before.destinations) != destinations {
        return String::new();
    }
    let said = |names: BTreeSet<String>| match names.len() {
        0..=NAMED_MAX => and(names.into_iter()),
        many => format!("{many} ends"),
    };
    format!(" by {} on {}", said(sources), said(destinations))
}

impl Comparison {
    fn ends(&mut self, word: &str, before: &[FlowEnd], after: &[FlowEnd]) {
        let said = |ends: &[FlowEnd]| ends.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let (old, new) = (said(before), said(after));
        if old != new {
            let more: Vec<_> = new.difference(&old).collect();
            if !more.is_empty() {
                self.details
                    .push(format!("also {word} {}", and(more.into_iter())));
            }
            let less: Vec<_> = old.difference(&new).collect();
            if !less.is_empty() {
                self.details
                    .push(format!("no longer {word} {}", and(less.into_iter())));
            }
        }
        let networks = |ends: &[FlowEnd]| ends.iter().flat_map(FlowEnd::networks).collect::<Vec<_>>();
        let (old, new) = (networks(before), networks(after));
        self.wider |= !covers(&old, &new);
        self.narrower |= !covers(&new, &old);
    }

    /// It permits other things, of which neither are a part of the others.
    fn otherwise(&mut self, so: bool) {
        self.wider |= so;
        self.narrower |= so;
    }

    /// Who forwards it, who reads it, and how a refusal is answered.
    fn carriage(&mut self, before: &Flow, after: &Flow) {
        if before.is_bridge() != after.is_bridge() {
            // Packets against messages.
            self.otherwise(true);
            self.details.push(
                if after.is_bridge() {
                    "the gateway carries messages one way; connections passed before"
                } else {
                    "connections pass; the gateway carried messages one way before"
                }
                .to_owned(),
            );
        }
        match (&before.tls, &after.tls) {
            // Each broker's was told before.
            _ if before.is_bridge() && after.is_bridge() => {}
            (None, Some(tls)) => {
                // What passed in clear must come encrypted; what passed encrypted is only read from now on, or goes on in the plain.
                self.otherwise(before.operations.is_some() || tls.plain_port.is_some());
                self.details.push(format!("TLS ends at the gateway, {tls}"));
            }
            (Some(tls), None) => {
                self.otherwise(after.operations.is_some() || tls.plain_port.is_some());
                self.details.push("TLS no longer ends at the gateway".to_owned());
            }
            (Some(old), Some(new)) if old != new => {
                // Another server may now be taken for it.
                self.otherwise(true);
                let leg = match (old.plain_port, new.plain_port) {
                    (None, None) => "the gateway's own TLS",
                    _ => "from the gateway on",
                };
                self.details.push(format!("{leg}: {new} (was {old})"));
            }
            _ => {}
        }
        if before.answers != after.answers {
            self.wider |= after.answers == Answers::InOrder;
            self.narrower |= after.answers == Answers::Strict;
            self.details.push(format!("{} from now on", after.answers));
        }
        if before.on_refusal != after.on_refusal {
            self.details
                .push(format!("a refusal {} from now on", after.on_refusal));
        }
    }

    /// How the gateway reaches one broker of a bridge. At another port, or by another proof, may be another broker.
    fn broker(&mut self, end: &str, before: (&Service, &Option<Tls>), after: (&Service, &Option<Tls>)) {
        let (old, new) = (&before.0.transport, &after.0.transport);
        if old != new {
            self.otherwise(true);
            self.details
                .push(format!("at its {end} by {new} instead of {old}"));
        }
        if before.1 != after.1 {
            self.otherwise(true);
            self.details.push(match after.1 {
                Some(tls) => format!("at its {end} inside TLS, {tls}"),
                None => format!("at its {end} no longer inside TLS"),
            });
        }
    }

    fn transport(&mut self, before: &Transport, after: &Transport) {
        if before == after {
            return;
        }
        self.details.push(format!("by {after} instead of {before}"));
        let (wider, narrower) = match (before, after) {
            (Transport::Tcp(old), Transport::Tcp(new)) | (Transport::Udp(old), Transport::Udp(new)) => {
                (!covers_ports(old, new), !covers_ports(new, old))
            }
            _ => (true, true),
        };
        self.wider |= wider;
        self.narrower |= narrower;
    }

    fn operations(&mut self, before: Option<&Operations>, after: Option<&Operations>, who: &str) {
        match (before, after) {
            (None, None) => {}
            (None, Some(limits)) => {
                self.narrower = true;
                let phrases = limits.phrases().join("; ");
                self.details
                    .push(format!("limited to {phrases} (before: anything)"));
            }
            (Some(limits), None) => {
                self.wider = true;
                let phrases = limits.phrases().join("; ");
                self.details
                    .push(format!("anything is permitted (before: only {phrases})"));
            }
            (Some(old), Some(new)) if old != new => {
                let difference = operations::compare(old, new, who);
                self.wider |= difference.wider;
                self.narrower |= difference.narrower;
                if difference.wider || difference.narrower {
                    self.details.extend(difference.details);
                } else {
                    self.details
                        .push("the same operations are written differently".to_owned());
                }
            }
            _ => {}
        }
    }
}

impl Comparison {
    /// What clients may do by their role. A client without one, or with one that is not named, may do nothing.
    fn roles(&mut self, before: Option<&Roles>, after: Option<&Roles>) {
        let (old, new) = match (before, after) {
            (None, None) => return,
            (None, Some(roles)) => {
                self.narrower = true;
                self.details.push(format!("limited {roles}"));
                return;
            }
            (Some(roles), None) => {
                self.wider = true;
                self.details.push(format!(
                    "roles no longer matter, every client may do all of it (was {roles})"
                ));
                return;
            }
            (Some(old), Some(new)) => (old, new),
        };
        let names: BTreeSet<_> = old.by_role.keys().chain(new.by_role.keys()).collect();
        for role in names {
            let words = format!("role {role}");
            self.role(&words, old.by_role.get(role), new.by_role.get(role));
        }
        if old.default != new.default {
            self.role("a client without a role", old.of(None), new.of(None));
        }
    }

    fn role(&mut self, who: &str, before: Option<&RoleOperations>, after: Option<&RoleOperations>) {
        match (before, after) {
            (None, None) => {}
            (None, Some(operations)) => {
                self.wider = true;
                self.details.push(format!("{who} may do {operations}"));
            }
            (Some(operations), None) => {
                self.narrower = true;
                self.details
                    .push(format!("{who} may do nothing any longer (was {operations})"));
            }
            (Some(RoleOperations::Only(old)), Some(RoleOperations::Only(new))) if old != new => {
                let difference = operations::compare(old, new, "");
                self.wider |= difference.wider;
                self.narrower |= difference.narrower;
                if difference.wider || difference.narrower {
                    let details = difference.details.into_iter();
                    self.details
                        .extend(details.map(|detail| format!("{who}: {detail}")));
                } else {
                    self.details
                        .push(format!("{who}: the same operations are written differently"));
                }
            }
            (Some(old), Some(new)) if old != new => {
                self.wider |= *new == RoleOperations::All;
                self.narrower |= *old == RoleOperations::All;
                self.details.push(format!("{who} may do {new} (was {old})"));
            }
            _ => {}
        }
    }
}

/// Whether every network of `inner` lies within `outer`.
pub(super) fn covers(outer: &[IpNet], inner: &[IpNet]) -> bool {
    let outer = IpNet::aggregate(&outer.to_vec());
    inner
        .iter()
        .all(|network| outer.iter().any(|wide| wide.contains(network)))
}

/// Whether every port of `inner` is one of `outer`.
pub(crate) fn covers_ports(outer: &[PortRange], inner: &[PortRange]) -> bool {
    let of = |ranges: &[PortRange]| -> Vec<NumberRange> {
        ranges
            .iter()
            .map(|range| NumberRange {
                first: range.first.into(),
                last: range.last.into(),
            })
            .collect()
    };
    numbers::covers(&of(outer), &of(inner))
}
