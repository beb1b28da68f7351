//! From a logged packet to the event that a person reads: names for numbers, and the reason.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use penstock_policy::ids::{FlowId, Revision};
use penstock_policy::model::GatewayMode;
use penstock_policy::plan::Plan;
use penstock_policy::verdict::{Carried, Connection, Decision, Reason, decide};

use super::VerdictSeen;
use super::events::Aggregate;
use super::nflog::{Content, Logged, Shape};
use super::render::STARTING_S;

mod icmp;

/// How long one batch of events may search for the nearest rules; after that the reason is the plain one.
const SEARCH: Duration = Duration::from_millis(100);

/// The policy that verdicts are explained by: the one in the kernel.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) plan: Arc<Plan>,
    pub(super) revision: Revision,
    /// Place of each flow in the plan.
    places: HashMap<FlowId, usize>,
}

impl Current {
    pub(super) fn new(plan: Arc<Plan>, revision: Revision) -> Self {
        let places = (0..)
            .zip(&plan.rules)
            .map(|(place, rule)| (rule.id, place))
            .collect();
        Self {
            plan,
            revision,
            places,
        }
    }

    /// One event for each aggregate; `interface` gives interfaces their names.
    pub(super) fn events(
        &self,
        batch: Vec<Aggregate>,
        interface: impl Fn(u32) -> String,
    ) -> Vec<VerdictSeen> {
        let began = Instant::now();
        batch
            .into_iter()
            .map(|aggregate| {
                let (ingress, egress) = (
                    interface(aggregate.packet.ingress),
                    interface(aggregate.packet.egress),
                );
                let search = began.elapsed() < SEARCH;
                self.event(&aggregate, ingress, egress, search)
            })
            .collect()
    }

    fn event(&self, aggregate: &Aggregate, ingress: String, egress: String, search: bool) -> VerdictSeen {
        let packet = &aggregate.packet;
        let decision = match packet.logged {
            Logged::Allow | Logged::AllowUnread | Logged::Assumed => Decision::Allow,
            Logged::WouldDeny => Decision::WouldDeny,
            Logged::Deny | Logged::Input => Decision::Deny,
        };
        let mut event = VerdictSeen {
            decision,
            flow_id: (packet.flow != 0).then_some(FlowId(packet.flow)),
            flow: None,
            revision: self.revision,
            ingress,
            egress,
            source: None,
            destination: None,
            protocol: 0,
            port: 0,
            count: aggregate.count,
            first_ms: milliseconds(aggregate.first),
            last_ms: milliseconds(aggregate.last),
            reason: String::new(),
        };
        event.flow = event.flow_id.and_then(|id| self.name(id));
        match packet.content {
            Content::Ip {
                source,
                destination,
                protocol,
                port,
                shape,
            } => {
                (event.source, event.destination) = (Some(source), Some(destination));
                (event.protocol, event.port) = (protocol, port);
                event.reason = match (packet.logged, &event.flow) {
                    (Logged::Allow, Some(flow)) => format!("rule {flow} permits it"),
                    (Logged::AllowUnread, Some(flow)) => {
                        format!("rule {flow} permits it unread while no inspector runs")
                    }
                    (Logged::Assumed, Some(flow)) => format!(
                        "rule {flow} permits it to the client, which has not spoken yet: assumed for {STARTING_S} s \
                         after the rules were made"
                    ),
                    (Logged::Allow | Logged::AllowUnread | Logged::Assumed, None) => {
                        "a rule of an earlier revision permitted it".to_owned()
                    }
                    (Logged::Input, _) => {
                        icmp::refused_input(&self.plan, &event, shape).unwrap_or_else(|| {
                            "the gateway itself answers only its management's peers".to_owned()
                        })
                    }
                    _ if !search => "no rule of the plan matches".to_owned(),
                    _ => icmp::refused(&self.plan, &event, shape)
                        .unwrap_or_else(|| self.denied(&event, carried(protocol, port, shape))),
                };
            }
            Content::Arp { source, destination } => {
                (event.source, event.destination) = (Some(source.into()), Some(destination.into()));
                event.reason = format!("ARP from {source}, an address that does not belong to this side");
            }
            Content::Frame { kind } => {
                event.reason = match self.unnamed(&event) {
                    Some(interface) => Reason::Unguarded { interface }.to_string(),
                    None => format!(
                        "a frame of type {kind:#06x}: between zones only IPv4, IPv6 and ARP can be judged, untagged"
                    ),
                };
            }
        }
        event
    }

    /// `conduit/flow` of a flow that the plan has.
    fn name(&self, id: FlowId) -> Option<String> {
        let rule = self.plan.rules.get(*self.places.get(&id)?)?;
        Some(format!("{}/{}", rule.conduit, rule.flow))
    }

    /// The first of a packet's interfaces that the plan does not name.
    fn unnamed(&self, event: &VerdictSeen) -> Option<String> {
        [&event.ingress, &event.egress]
            .into_iter()
            .find(|name| !self.plan.interfaces.iter().any(|side| side.name == **name))
            .cloned()
    }

    /// The oracle's reason for a connection that the kernel did not let through.
    fn denied(&self, event: &VerdictSeen, transport: Carried) -> String {
        let (Some(source), Some(destination)) = (event.source, event.destination) else {
            return String::new();
        };
        let (ingress, egress) = (event.ingress.clone(), event.egress.clone());
        let connection = Connection {
            ingress,
            egress,
            source,
            destination,
            transport,
        };
        let verdict = decide(&self.plan, &connection);
        // What is routed has the bridge itself for an interface, or none: it does not go from port to port.
        let routed = verdict.decision == Decision::NotGuarded || event.ingress.is_empty();
        match verdict.decision {
            _ if routed && self.plan.mode == GatewayMode::Bridged => {
                "a bridged gateway routes nothing from or to its guarded ports".to_owned()
            }
            Decision::Deny | Decision::WouldDeny => verdict.reason.to_string(),
            // The plan allows such a connection, yet this packet was none of it: without a beginning that was seen,
            // with headers that hide the ports, or logged just before the policy changed.
            _ => "the packet belongs to no connection that a rule permits".to_owned(),
        }
    }
}

fn carried(protocol: u8, port: u16, shape: Shape) -> Carried {
    match protocol {
        6 => Carried::Tcp(port),
        17 => Carried::Udp(port),
        _ if shape == Shape::Echo => Carried::IcmpEcho,
        other => Carried::Other(other),
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
