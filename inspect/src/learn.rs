//! From recorded traffic to the smallest conduits that would have let it pass, as a plant document.
//!
//! Only what was seen is proposed: who opened a connection to whom, and inside a protocol that is read which
//! operations with which ranges. Beside an existing plant only what that plant does not yet permit is proposed, and each such
//! line says that it widens it. Traffic proves what happens, not what should: a person reads the proposal.
//!
//! [`document`] writes it.

pub mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::model::Protocol;

use crate::capture::{FlowKey, Flows, Frame, Happening, SkipReason, flows, link};
use crate::follow::{Finding, Follower};
use crate::judge::{Refusal, Rules, Verdict, Why};
use crate::modbus::Span;
use crate::operation::Operation;
use crate::replay::{Gate, KNOWN_PORTS, Plans, Seen};
use crate::{modbus, mqtt};

/// Distinct things kept for one pair of ends; what is beyond is counted in [`Talk::further`].
pub const DISTINCT_MAX: usize = 10_000;

/// What one address does to a port of another.
#[derive(Debug, Clone)]
pub struct Talk {
    /// Connections.
    pub connections: Seen,
    /// The protocol that could be read in them.
    pub protocol: Option<Protocol>,
    /// Modbus operations.
    pub modbus: BTreeMap<ModbusKey, ModbusSeen>,
    /// MQTT publications by topic, wills included.
    pub published: BTreeMap<String, MessagesSeen>,
    /// MQTT subscriptions by filter.
    pub subscribed: BTreeMap<String, MessagesSeen>,
    /// MQTT client identifiers.
    pub client_ids: BTreeSet<String>,
    /// Distinct things that were not kept.
    pub further: u64,
    /// Bytes that could not be read as the protocol of the port: then no operation can be proposed.
    pub unread: bool,
}

/// Operations that one line of a document can say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModbusKey {
    /// Unit.
    pub unit: u8,
    /// Function by name.
    pub function: String,
}

/// What was seen of them.
#[derive(Debug, Clone)]
pub struct ModbusSeen {
    /// How often.
    pub seen: Seen,
    /// Addresses read, merged.
    pub read: Vec<Span>,
    /// Addresses (of file functions: files) written, or of a function that does one thing, touched.
    pub write: Vec<Span>,
    /// Sub-functions of diagnostics.
    pub sub_functions: BTreeSet<u16>,
    /// Least and greatest value written.
    pub values: Option<Span>,
}

/// Messages by topic.
#[derive(Debug, Clone)]
pub struct MessagesSeen {
    /// How often.
    pub seen: Seen,
    /// Least and greatest quality of service.
    pub qos: (u8, u8),
    /// Some were retained.
    pub retain: bool,
}

/// Who opened connections to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    /// Who.
    pub client: IpAddr,
    /// To whom.
    pub server: SocketAddr,
}

/// Everything that was seen and is not permitted yet.
#[derive(Debug, Default)]
pub struct Learned {
    /// By the two ends.
    pub talks: BTreeMap<Ends, Talk>,
    /// Connections and operations that the plant permits already.
    pub permitted_already: u64,
    /// Packets read.
    pub packets: u64,
    /// Packets left aside, and why: nothing is proposed for what they carry.
    pub skipped: BTreeMap<SkipReason, u64>,
}

/// Gathers from frames.
#[derive(Debug)]
pub struct Learner<'p> {
    plans: Option<&'p Plans>,
    flows: Flows,
    running: Vec<Option<Running>>,
    learned: Learned,
}

#[derive(Debug)]
struct Running {
    ends: Ends,
    /// The connection itself passes today.
    passes: bool,
    /// Its operations are limited today, or it has none to limit.
    inspected: bool,
    follower: Option<Follower>,
}

impl<'p> Learner<'p> {
    /// Nothing learned yet. With `plans`, what they permit is left out.
    pub fn new(plans: Option<&'p Plans>) -> Self {
        let ports: Vec<u16> = KNOWN_PORTS.iter().map(|(port, _)| *port).collect();
        Self {
            plans,
            flows: Flows::new(flows::Limits::default(), &ports),
            running: Vec::new(),
            learned: Learned::default(),
        }
    }

    /// Takes a packet.
    pub fn frame(&mut self, frame: &Frame<'_>) {
        self.learned.packets += 1;
        let segment = match link::segment(frame) {
            Ok(segment) => segment,
            Err(reason) => {
                *self.learned.skipped.entry(reason).or_default() += 1;
                return;
            }
        };
        let (plans, running, learned) = (self.plans, &mut self.running, &mut self.learned);
        self.flows
            .segment(frame.at, &segment, &mut |number, key, at, happening| {
                happened(plans, running, learned, number, key, at, happening);
            });
    }

    /// The end of all captures.
    pub fn finish(mut self) -> Learned {
        let (plans, running, learned) = (self.plans, &mut self.running, &mut self.learned);
        self.flows.finish(&mut |number, key, at, happening| {
            happened(plans, running, learned, number, key, at, happening);
        });
        self.learned
    }
}

fn happened(
    plans: Option<&Plans>,
    running: &mut Vec<Option<Running>>,
    learned: &mut Learned,
    number: usize,
    key: FlowKey,
    at: Duration,
    happening: Happening<'_>,
) {
    if let Happening::Begins { midway } = happening {
        running.push(begin(plans, learned, key, at, midway));
        return;
    }
    let Some(Some(flow)) = running.get_mut(number) else {
        return;
    };
    let (ends, passes, inspected) = (flow.ends, flow.passes, flow.inspected);
    let Some(follower) = &mut flow.follower else {
        return;
    };
    let mut found = |finding: Finding<'_>| match finding {
        Finding::Judged { operation, verdict } => {
            let malformed = matches!(
                verdict,
                Verdict::Refuse(Refusal {
                    why: Why::Malformed(_) | Why::Busy(_),
                    ..
                })
            );
            if passes && (!inspected || verdict.allows()) {
                learned.permitted_already += 1;
            } else if !malformed && let Some(talk) = learned.talks.get_mut(&ends) {
                talk.operation(at, operation);
            }
        }
        Finding::NeverFollowed { .. } | Finding::WouldEnd => {
            if let Some(talk) = learned.talks.get_mut(&ends) {
                talk.unread = true;
            }
        }
        _ => {}
    };
    match happening {
        Happening::Data(from, bytes) => follower.data(from, at, bytes, &mut found),
        Happening::Gap(from, _) => follower.gap(from),
        Happening::Ends => follower.finish(&mut found),
        Happening::Begins { .. } | Happening::Conflict(..) => {}
    }
}

fn begin(
    plans: Option<&Plans>,
    learned: &mut Learned,
    key: FlowKey,
    at: Duration,
    midway: bool,
) -> Option<Running> {
    let protocol = KNOWN_PORTS
        .iter()
        .find(|(port, _)| *port == key.server.port())
        .map(|(_, protocol)| *protocol);
    let gates: Vec<Gate> = plans
        .map(|plans| plans.tracks(key.client, key.server))
        .unwrap_or_default()
        .into_iter()
        .map(|track| track.gate)
        .collect();
    // Nothing stands between the two: there is nothing to propose.
    if gates.iter().any(|gate| matches!(gate, Gate::Uncrossed)) {
        learned.permitted_already += 1;
        return None;
    }
    let passes = !gates.is_empty() && gates.iter().all(|gate| !matches!(gate, Gate::Shut { .. }));
    let rules = gates.into_iter().find_map(|gate| match gate {
        Gate::Inspected { rules, .. } => Some(rules),
        _ => None,
    });
    let inspected = rules.is_some();
    let rules = rules.or_else(|| protocol.map(|protocol| Arc::new(Rules::nothing(protocol))));
    let ends = Ends {
        client: key.client.ip(),
        server: key.server,
    };
    if passes && !inspected {
        learned.permitted_already += 1;
        return None;
    }
    learned
        .talks
        .entry(ends)
        .and_modify(|talk| talk.connections.again(at))
        .or_insert_with(|| Talk::new(at, rules.as_ref().map(|rules| rules.protocol())));
    Some(Running {
        ends,
        passes,
        inspected,
        follower: rules.map(|rules| Follower::new(rules, midway)),
    })
}

impl Talk {
    fn new(at: Duration, protocol: Option<Protocol>) -> Self {
        Self {
            connections: Seen::once(at),
            protocol,
            modbus: BTreeMap::new(),
            published: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            client_ids: BTreeSet::new(),
            further: 0,
            unread: false,
        }
    }

    /// Whether operations were read in it.
    pub fn has_operations(&self) -> bool {
        !(self.modbus.is_empty() && self.published.is_empty() && self.subscribed.is_empty())
    }

    fn operation(&mut self, at: Duration, operation: Operation<'_>) {
        match operation {
            Operation::Modbus(operation) => self.modbus(at, operation),
            Operation::Mqtt(operation) => self.mqtt(at, operation),
        }
    }

    fn modbus(&mut self, at: Duration, operation: modbus::Operation) {
        let key = ModbusKey {
            unit: operation.unit,
            function: operation.function(),
        };
        let entry = self.modbus.entry(key).and_modify(|seen| seen.seen.again(at));
        let entry = entry.or_insert_with(|| ModbusSeen {
            seen: Seen::once(at),
            read: Vec::new(),
            write: Vec::new(),
            sub_functions: BTreeSet::new(),
            values: None,
        });
        if let (Some(read), Some(_)) = (operation.read, operation.write) {
            merge(&mut entry.read, read);
        }
        if let Some(span) = operation.write.or(operation.read).or(operation.files) {
            merge(&mut entry.write, span);
        }
        if operation.code == 8 {
            entry.sub_functions.extend(operation.sub_function);
        }
        if let Some(values) = operation.values {
            entry.values = Some(entry.values.map_or(values, |seen| seen.hull(values)));
        }
    }

    fn mqtt(&mut self, at: Duration, operation: mqtt::Operation<'_>) {
        let (list, topic, qos, retain) = match operation {
            mqtt::Operation::Publish { topic, qos, retain }
            | mqtt::Operation::Will { topic, qos, retain } => (&mut self.published, topic, qos, retain),
            mqtt::Operation::Subscribe { filter, qos } => (&mut self.subscribed, filter, qos, false),
            mqtt::Operation::Connect { client_id, .. } => {
                if self.client_ids.len() < DISTINCT_MAX {
                    self.client_ids.insert(client_id.into_owned());
                }
                return;
            }
            // A delivery follows from its subscription, an end of one needs no rule.
            mqtt::Operation::Unsubscribe { .. } | mqtt::Operation::Deliver { .. } => return,
        };
        if let Some(seen) = list.get_mut(topic.as_ref()) {
            seen.seen.again(at);
            seen.qos = (seen.qos.0.min(qos), seen.qos.1.max(qos));
            seen.retain |= retain;
        } else if list.len() < DISTINCT_MAX {
            let seen = MessagesSeen {
                seen: Seen::once(at),
                qos: (qos, qos),
                retain,
            };
            list.insert(topic.into_owned(), seen);
        } else {
            self.further += 1;
        }
    }
}

/// Adds a span to a sorted list of separate ones, joining those that meet.
fn merge(spans: &mut Vec<Span>, span: Span) {
    let meets = |one: &Span, other: &Span| {
        u32::from(one.first) <= u32::from(other.last) + 1 && u32::from(other.first) <= u32::from(one.last) + 1
    };
    let mut joined = span;
    spans.retain(|kept| {
        let met = meets(kept, &joined);
        if met {
            joined = joined.hull(*kept);
        }
        !met
    });
    let at = spans.partition_point(|kept| kept.first < joined.first);
    spans.insert(at, joined);
}
