//! Flows that come, go, permit more or permit less.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Change, Effect, Subject};
use crate::ids::{ConduitId, FlowName};
use crate::model::{Conduit, Flow, FlowEnd, ModbusOperation, MqttOperation, NumberRange, Operations, Plant};
use crate::plan::{PortRange, Transport};
use crate::words::and;

type Flows<'a> = BTreeMap<(&'a ConduitId, &'a FlowName), (&'a Conduit, &'a Flow)>;

pub(super) fn changes(old: Option<&Plant>, new: &Plant, changes: &mut Vec<Change>) {
    let before = old.map(flows).unwrap_or_default();
    let after = flows(new);
    let names: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    for (conduit, flow) in names {
        let subject = Subject::Flow {
            conduit: conduit.clone(),
            flow: flow.clone(),
        };
        let (effect, details) = match (before.get(&(conduit, flow)), after.get(&(conduit, flow))) {
            (None, Some((conduit, flow))) => (Effect::Added, vec![whole(conduit, flow)]),
            (Some((conduit, flow)), None) => (Effect::Removed, vec![whole(conduit, flow)]),
            (Some((_, before)), Some((_, after))) => compare(before, after),
            (None, None) => continue,
        };
        if !details.is_empty() {
            changes.push(Change {
                subject,
                effect,
                details,
            });
        }
    }
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
    format!("{flow}{must}, at {}", and(conduit.via.iter()))
}

/// What differs, and whether it lets more or less through.
#[derive(Default)]
struct Comparison {
    wider: bool,
    narrower: bool,
    details: Vec<String>,
}

fn compare(before: &Flow, after: &Flow) -> (Effect, Vec<String>) {
    let mut comparison = Comparison::default();
    comparison.ends("from", &before.sources, &after.sources);
    comparison.ends("to", &before.destinations, &after.destinations);
    comparison.transport(&before.service.transport, &after.service.transport);
    comparison.operations(before.operations.as_ref(), after.operations.as_ref());
    if before.must_flow != after.must_flow {
        let words = if after.must_flow {
            "must flow from now on"
        } else {
            "need not flow any more"
        };
        comparison.details.push(words.to_owned());
    }
    if before.title != after.title || before.service.name != after.service.name {
        comparison.details.push("is named otherwise".to_owned());
    }
    if before.service.protocol != after.service.protocol && comparison.details.is_empty() {
        comparison.details.push("is read as another protocol".to_owned());
    }
    let effect = match (comparison.wider, comparison.narrower) {
        (true, true) => Effect::Altered,
        (true, false) => Effect::Widened,
        (false, true) => Effect::Narrowed,
        (false, false) => Effect::Recorded,
    };
    (effect, comparison.details)
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

    fn operations(&mut self, before: Option<&Operations>, after: Option<&Operations>) {
        match (before, after) {
            (None, None) => {}
            (None, Some(limits)) => {
                self.narrower = true;
                let phrases = limits.phrases().join("; ");
                self.details
                    .push(format!("limited to {phrases}, where anything was permitted"));
            }
            (Some(limits), None) => {
                self.wider = true;
                let phrases = limits.phrases().join("; ");
                self.details
                    .push(format!("anything is permitted, where only {phrases} was"));
            }
            (Some(old), Some(new)) if old != new => {
                let (more, less) = (beyond(new, old), beyond(old, new));
                self.wider |= !more.is_empty();
                self.narrower |= !less.is_empty();
                let same = more.is_empty() && less.is_empty();
                for (word, phrases) in [("may also", more), ("may not any more", less)] {
                    if !phrases.is_empty() {
                        self.details.push(format!("{word} {}", phrases.join("; ")));
                    }
                }
                if same {
                    self.details
                        .push("the same operations are written otherwise".to_owned());
                }
            }
            _ => {}
        }
    }
}

/// Whether every network of `inner` lies within `outer`.
fn covers(outer: &[IpNet], inner: &[IpNet]) -> bool {
    let outer = IpNet::aggregate(&outer.to_vec());
    inner
        .iter()
        .all(|network| outer.iter().any(|wide| wide.contains(network)))
}

fn covers_ports(outer: &[PortRange], inner: &[PortRange]) -> bool {
    let numbers = |ranges: &[PortRange]| -> Vec<NumberRange> {
        ranges
            .iter()
            .map(|range| NumberRange {
                first: range.first.into(),
                last: range.last.into(),
            })
            .collect()
    };
    covers_numbers(&numbers(outer), &numbers(inner))
}

/// Whether every number of `inner` is one of `outer`, whose ranges may touch and overlap.
pub(super) fn covers_numbers(outer: &[NumberRange], inner: &[NumberRange]) -> bool {
    let mut outer = outer.to_vec();
    outer.sort();
    inner.iter().all(|range| {
        let mut next = u64::from(range.first);
        for wide in &outer {
            if u64::from(wide.first) <= next && next <= u64::from(wide.last) {
                next = u64::from(wide.last) + 1;
            }
        }
        next > u64::from(range.last)
    })
}

/// The operations of `some` that none of `others` covers alone.
fn beyond(some: &Operations, others: &Operations) -> Vec<String> {
    match (some, others) {
        (Operations::ModbusTcp(some), Operations::ModbusTcp(others)) => some
            .iter()
            .filter(|one| !others.iter().any(|other| modbus_covers(other, one)))
            .map(ToString::to_string)
            .collect(),
        (Operations::Mqtt(some), Operations::Mqtt(others)) => some
            .iter()
            .filter(|one| !others.iter().any(|other| mqtt_covers(other, one)))
            .map(ToString::to_string)
            .collect(),
        _ => some.phrases(),
    }
}

fn modbus_covers(outer: &ModbusOperation, inner: &ModbusOperation) -> bool {
    let within = |outer: &Option<Vec<NumberRange>>, inner: &Option<Vec<NumberRange>>| match (outer, inner) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => covers_numbers(outer, inner),
    };
    // Where no range for reading is given, that for writing holds for both.
    let reading = |operation: &ModbusOperation| {
        operation
            .read_addresses
            .clone()
            .or_else(|| operation.addresses.clone())
    };
    outer.function == inner.function
        && within(&outer.units, &inner.units)
        && within(&outer.addresses, &inner.addresses)
        && within(&reading(outer), &reading(inner))
        && within(&outer.values, &inner.values)
        && within(&outer.sub_functions, &inner.sub_functions)
}

fn mqtt_covers(outer: &MqttOperation, inner: &MqttOperation) -> bool {
    let every = |outer: &[String], inner: &[String]| inner.iter().all(|item| outer.contains(item));
    let every_of = |outer: &Option<Vec<String>>, inner: &Option<Vec<String>>| match (outer, inner) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => every(outer, inner),
    };
    let within =
        |outer: &NumberRange, inner: &NumberRange| outer.first <= inner.first && inner.last <= outer.last;
    match (outer, inner) {
        (
            MqttOperation::Publish { topics, qos, retain },
            MqttOperation::Publish {
                topics: inner_topics,
                qos: inner_qos,
                retain: inner_retain,
            },
        ) => every(topics, inner_topics) && within(qos, inner_qos) && (*retain || !inner_retain),
        (
            MqttOperation::Subscribe { topics, qos },
            MqttOperation::Subscribe {
                topics: inner_topics,
                qos: inner_qos,
            },
        ) => every(topics, inner_topics) && within(qos, inner_qos),
        (
            MqttOperation::Connect { client_ids, users },
            MqttOperation::Connect {
                client_ids: inner_ids,
                users: inner_users,
            },
        ) => every_of(client_ids, inner_ids) && every_of(users, inner_users),
        _ => false,
    }
}
