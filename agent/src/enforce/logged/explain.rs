//! From a logged packet to the event that a person reads: names for numbers, and the reason.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use penstock_policy::ids::{FlowId, Revision};
use penstock_policy::plan::{Plan, Rule};
use penstock_policy::terms::{GatewayMode, Proof, Transport};
use penstock_policy::verdict::{Carried, Connection, Decision, Reason, decide};

use self::servers::Servers;
use super::direction::{Flows, is_well_known};
use super::events::Aggregate;
use super::nflog::{Content, KernelAction, PacketShape};
use crate::enforce::logged::nflog::Opener;
use crate::enforce::nft::names::STARTING_S;
use crate::observed::VerdictSeen;

mod icmp;
mod neighbours;
mod servers;

/// How long one batch of events may search for the nearest rules; after that the reason is the plain one.
const SEARCH: Duration = Duration::from_millis(100);

impl Flows for Option<Arc<PolicyInForce>> {
    fn serves(&self, protocol: u8, port: u16) -> bool {
        let of_plan = self
            .as_ref()
            .is_some_and(|current| current.ports.contains(&(protocol, port)));
        of_plan || is_well_known(protocol, port)
    }

    fn permits(&self, source: IpAddr, destination: IpAddr, port: u16) -> bool {
        self.as_ref().is_some_and(|current| {
            let servers = &current.servers;
            servers.permit(&current.plan, source, destination, port)
        })
    }
}

/// The ports of a rule that can be told from those that clients choose.
fn ports_of(rule: &Rule) -> Vec<(u8, u16)> {
    let (protocol, ranges) = match &rule.transport {
        Transport::Tcp(ranges) => (6, ranges),
        Transport::Udp(ranges) => (17, ranges),
        Transport::IcmpEcho => return Vec::new(),
    };
    ranges
        .iter()
        .filter(|range| range.last - range.first < SERVICE_PORTS_MAX)
        .flat_map(|range| (range.first..=range.last).map(move |port| (protocol, port)))
        .collect()
}

/// The policy that verdicts are explained by: the one in the kernel.
#[derive(Debug)]
pub(in crate::enforce) struct PolicyInForce {
    pub(in crate::enforce) plan: Arc<Plan>,
    pub(in crate::enforce) revision: Revision,
    /// Place of each flow in the plan, by its number.
    places: Box<[(FlowId, u32)]>,
    /// Ports of its flows, by IP protocol.
    ports: HashSet<(u8, u16)>,
    servers: Servers,
}

/// The widest range of ports of which each is taken for a service's.
const SERVICE_PORTS_MAX: u16 = 128;

impl PolicyInForce {
    pub(in crate::enforce) fn new(plan: Arc<Plan>, revision: Revision) -> Self {
        let places = (0..).zip(&plan.rules).map(|(place, rule)| (rule.id, place));
        let mut places: Vec<(FlowId, u32)> = places.collect();
        places.sort_unstable();
        Self {
            ports: plan.rules.iter().flat_map(ports_of).collect(),
            servers: Servers::of(&plan),
            plan,
            revision,
            places: places.into_boxed_slice(),
        }
    }

    /// One event for each aggregate; `interface` gives interfaces their names.
    pub(in crate::enforce) fn events(
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
            KernelAction::Allow | KernelAction::AllowUnread | KernelAction::Assumed => Decision::Allow,
            KernelAction::WouldDeny => Decision::WouldDeny,
            KernelAction::Deny | KernelAction::Cut | KernelAction::Input | KernelAction::Swept => {
                Decision::Deny
            }
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
            proofs: [None; 2],
        };
        event.flow = event.flow_id.and_then(|id| self.name(id));
        if let (Content::Ip { destination, .. }, true, true) = (
            packet.content,
            event.egress.is_empty(),
            packet.logged == KernelAction::Deny,
        ) {
            // It was dropped where it came in, before anybody asked which way it would go: to where its destination is.
            let there = self.plan.interfaces.iter().find(|side| side.holds(destination));
            event.egress = there.map(|side| side.name.clone()).unwrap_or_default();
        }
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
                    (KernelAction::Allow, Some(flow)) => format!("rule {flow} permits it"),
                    (KernelAction::AllowUnread, Some(flow)) => {
                        format!("rule {flow} permits it unread while no inspector runs")
                    }
                    (KernelAction::Assumed, Some(flow)) => format!(
                        "rule {flow} permits it to the client, which has not spoken yet: assumed, as this gateway's rules \
                         were made, or traffic came to it, at most {STARTING_S} s ago"
                    ),
                    (KernelAction::Allow | KernelAction::AllowUnread | KernelAction::Assumed, None) => {
                        "a rule of an earlier revision permitted it".to_owned()
                    }
                    (KernelAction::Cut, _) => {
                        penstock_inspect::protocols::without_leave(
                            "the connection was reset, because what its flow permits cannot be read from the middle of a connection; its client can reconnect",
                        )
                    }
                    (KernelAction::Swept, _) => "a SYN in the client's name, on a port where the inspector's own connection stands: \
                                           somebody sweeps the client's ports to have inspected connections reset, or the \
                                           client chose that port by chance and tries again by another"
                        .to_owned(),
                    (KernelAction::Input, _) => {
                        icmp::refused_input(&self.plan, &event, shape).unwrap_or_else(|| {
                            "the gateway itself answers only its management's peers".to_owned()
                        })
                    }
                    _ if packet.opener == Opener::ByPlan => {
                        "only the client may open this flow: a server's datagram passes once the client has sent one"
                            .to_owned()
                    }
                    _ if !search => "no rule of the plan matches".to_owned(),
                    _ => icmp::refused(&self.plan, &event, shape)
                        .unwrap_or_else(|| self.denied(&event, carried(protocol, port, shape))),
                };
                event.reason.push_str(match packet.opener {
                    Opener::Known | Opener::ByPlan => "",
                    Opener::ByPorts => {
                        "; no opening was seen: which end is the client is inferred from the ports"
                    }
                    Opener::Unknown => "; no opening was seen: which end is the client is not known",
                });
            }
            Content::Arp { source, destination } => {
                (event.source, event.destination) = (Some(source.into()), Some(destination.into()));
                event.reason = format!("ARP from {source}, an address that does not belong to this side");
            }
            Content::Frame { kind, vlan } => {
                let vlan = vlan.map_or_else(String::new, |vlan| format!(" tagged VLAN {vlan}"));
                event.reason = match self.unnamed(&event) {
                    Some(interface) => Reason::Unguarded { interface }.to_string(),
                    None => format!(
                        "a frame of type {kind:#06x}{vlan}: beside untagged IPv4, IPv6 and ARP only what `frames` of a conduit permit crosses between zones"
                    ),
                };
            }
        }
        event.proofs = self.proofs(&event, packet.claim.is_some());
        if let Some((claim, mac)) = packet.claim {
            event.reason = neighbours::reason(&self.plan, &event, packet.content, (claim, mac));
        }
        event
    }

    /// What was checked of who the ends are: of a flow's connection what its rule asks, else their addresses, as far as each is on its
    /// side. Of a neighbour's claim that is not to be had, nothing but the address counts.
    fn proofs(&self, event: &VerdictSeen, is_claim: bool) -> [Option<Proof>; 2] {
        let rule = event.flow_id.and_then(|id| self.rule(id));
        if let (Some(rule), Some(source), Some(destination)) = (rule, event.source, event.destination) {
            return self.plan.proofs(rule, source, destination).map(Some);
        }
        let of = |address: Option<IpAddr>, interface: &str| {
            address.map(|address| match is_claim {
                true => Proof::Address,
                false => self.plan.seen_proof(interface, address),
            })
        };
        [
            of(event.source, &event.ingress),
            of(event.destination, &event.egress),
        ]
    }

    fn rule(&self, id: FlowId) -> Option<&Rule> {
        let found = self.places.binary_search_by_key(&id, |(flow, _)| *flow).ok()?;
        let (_, place) = self.places.get(found)?;
        self.plan.rules.get(usize::try_from(*place).ok()?)
    }

    /// `conduit/flow` of a flow that the plan has.
    fn name(&self, id: FlowId) -> Option<String> {
        let rule = self.rule(id)?;
        Some(format!("{}/{}", rule.conduit, rule.flow))
    }

    /// The first of a packet's interfaces that the plan does not name.
    fn unnamed(&self, event: &VerdictSeen) -> Option<String> {
        [&event.ingress, &event.egress]
            .into_iter()
            .filter(|name| !name.is_empty())
            .find(|name| !self.plan.interfaces.iter().any(|side| side.name == **name))
            .cloned()
    }

    /// The oracle's reason for a connection that the kernel did not let through.
    fn denied(&self, event: &VerdictSeen, transport: Carried) -> String {
        let (Some(source), Some(destination)) = (event.source, event.destination) else {
            return String::new();
        };
        let (ingress, egress) = (event.ingress.clone(), event.egress.clone());
        if egress.is_empty() && self.plan.mode == GatewayMode::Bridged && self.unnamed(event).is_none() {
            return format!("{destination} is in no zone of this gateway");
        }
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

fn carried(protocol: u8, port: u16, shape: PacketShape) -> Carried {
    match protocol {
        6 => Carried::Tcp(port),
        17 => Carried::Udp(port),
        _ if matches!(shape, PacketShape::Echo | PacketShape::EchoReply) => Carried::IcmpEcho,
        other => Carried::Other(other),
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
