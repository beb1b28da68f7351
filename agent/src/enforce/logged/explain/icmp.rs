//! Why an ICMP message, or a packet behind an IPv6 extension header, does not pass: the conditions of `render::icmp`, asked
//! again of the plan. Pure.

use std::net::IpAddr;

use penstock_policy::plan::{Plan, PlanInterface};
use penstock_policy::verdict::{Carried, Connection, Decision, decide};

use super::super::nflog::{About, PacketShape, is_error};
use crate::enforce::nft::render::icmp::{ECHOES_PER_SECOND, ERROR4_BYTES_MAX, ERROR6_BYTES_MAX};
use crate::observed::VerdictSeen;

/// The reason of a packet that was to cross; `None` if it is for others to say.
pub(super) fn refused(plan: &Plan, event: &VerdictSeen, shape: PacketShape) -> Option<String> {
    match shape {
        PacketShape::Plain | PacketShape::Echo | PacketShape::EchoReply => None,
        PacketShape::Behind(header) => Some(format!(
            "it begins with the IPv6 extension header {}, which no flow permits: behind it no port can be judged",
            header_name(header)
        )),
        PacketShape::Icmp { kind, bytes, about } => {
            let name = message_name(event.protocol, kind)?;
            Some(match unfounded(plan, event, (kind, bytes, about)) {
                Some(why) => format!("{name}: {why}"),
                None => format!("{name}: there is no connection that it could be about"),
            })
        }
    }
}

/// The reason of a packet to the gateway itself.
pub(super) fn refused_input(plan: &Plan, event: &VerdictSeen, shape: PacketShape) -> Option<String> {
    let side = plan.interfaces.iter().find(|side| side.name == event.ingress)?;
    match shape {
        PacketShape::Plain | PacketShape::Behind(_) => None,
        PacketShape::Echo if event.source.is_some_and(|source| !side.holds(source)) => Some(format!(
            "an echo request to the gateway from an address that is in no zone on the side of {}: forged, or not declared",
            side.name
        )),
        PacketShape::EchoReply => Some("it answers no echo request of the gateway".to_owned()),
        PacketShape::Echo => Some(format!(
            "the gateway answers one address at most {ECHOES_PER_SECOND} echo requests a second"
        )),
        PacketShape::Icmp { kind, bytes, about } => {
            let name = message_name(event.protocol, kind)?;
            let why = misleading(event.protocol, kind)
                .or_else(|| too_long(event, bytes))
                .or_else(|| of_nobody(event, side))
                .or_else(|| {
                    let far = about?.destination;
                    (!side.holds(far)).then(|| {
                        format!(
                            "it is about a connection with {far}, which is not on the side of {}",
                            side.name
                        )
                    })
                });
            Some(format!(
                "{name}: {}",
                why.unwrap_or_else(|| "it is not about a connection of the gateway itself".to_owned())
            ))
        }
    }
}

fn unfounded(
    plan: &Plan,
    event: &VerdictSeen,
    (kind, bytes, about): (u8, u16, Option<About>),
) -> Option<String> {
    let side = |name: &str| plan.interfaces.iter().find(|side| side.name == name);
    let reason = misleading(event.protocol, kind).or_else(|| too_long(event, bytes));
    if reason.is_some() {
        return reason;
    }
    let ingress = side(&event.ingress)?;
    of_nobody(event, ingress).or_else(|| {
        let About {
            source,
            destination,
            protocol,
            ports,
        } = about?;
        if !ingress.holds(destination) {
            return Some(format!(
                "it is about a connection of {source} with {destination}, and does not come from that one's side"
            ));
        }
        let asked = |(source, destination), (ingress, egress): (&str, &str), port| {
            let transport = match protocol {
                6 => Carried::Tcp(port),
                17 => Carried::Udp(port),
                1 | 58 => Carried::IcmpEcho,
                other => Carried::Other(other),
            };
            let (ingress, egress) = (ingress.to_owned(), egress.to_owned());
            decide(plan, &Connection { ingress, egress, source, destination, transport }).decision
        };
        let (near, far) = (event.egress.as_str(), event.ingress.as_str());
        let permitted = [
            asked((source, destination), (near, far), ports.1),
            asked((destination, source), (far, near), ports.0),
        ]
        .contains(&Decision::Allow);
        (!permitted).then(|| {
            let service = match protocol {
                6 => format!("tcp/{}", ports.1),
                17 => format!("udp/{}", ports.1),
                other => format!("ip/{other}"),
            };
            format!("it is about a packet of {source} to {destination} by {service}, which no flow permits")
        })
    })
}

fn misleading(protocol: u8, kind: u8) -> Option<String> {
    let misleads = match protocol {
        1 => matches!(kind, 4 | 5 | 9),
        _ => kind == 137,
    };
    misleads.then(|| "it would send packets another way or stop them, and never passes".to_owned())
}

fn too_long(event: &VerdictSeen, bytes: u16) -> Option<String> {
    let most = match event.source? {
        IpAddr::V4(_) => ERROR4_BYTES_MAX,
        IpAddr::V6(_) => ERROR6_BYTES_MAX,
    };
    (bytes > most).then(|| format!("it has more than {most} bytes, and could carry data"))
}

fn of_nobody(event: &VerdictSeen, side: &PlanInterface) -> Option<String> {
    let source = event.source?;
    (!side.may_report(source)).then(|| {
        format!(
            "{source} is neither in a zone on the side of {} nor a router there: declare it under the interface's `routers` \
             if it is one",
            side.name
        )
    })
}

/// What people call an ICMP message; of those that are neither errors nor mislead there is nothing to say.
fn message_name(protocol: u8, kind: u8) -> Option<&'static str> {
    Some(match (protocol, kind) {
        (1, 3) | (58, 1) => "an ICMP error (destination unreachable)",
        (58, 2) => "an ICMP error (packet too big)",
        (1, 11) | (58, 3) => "an ICMP error (time exceeded)",
        (1, 12) | (58, 4) => "an ICMP error (parameter problem)",
        (1, 4) => "an ICMP source quench",
        (1, 5) | (58, 137) => "an ICMP redirect",
        (1, 9) => "an ICMP router advertisement",
        _ if is_error(protocol, kind) => "an ICMP error",
        _ => return None,
    })
}

fn header_name(header: u8) -> String {
    let name = match header {
        0 => "hop-by-hop options",
        43 => "routing",
        44 => "fragment",
        51 => "authentication",
        60 => "destination options",
        135 => "mobility",
        139 => "host identity",
        140 => "shim6",
        _ => return header.to_string(),
    };
    format!("`{name}` ({header})")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use penstock_policy::ids::Revision;

    use super::*;

    #[test]
    fn an_answer_to_no_question_is_not_called_a_request() {
        let bytes = include_bytes!("../../../../../policy/fixtures/plan-format-1.json");
        let plan = Plan::from_bytes(bytes).unwrap();
        let side = &plan.interfaces[0];
        let event = VerdictSeen {
            decision: Decision::Deny,
            flow_id: None,
            flow: None,
            revision: Revision(1),
            ingress: side.name.clone(),
            egress: String::new(),
            source: Some(side.networks[0].network()),
            destination: None,
            protocol: 1,
            port: 0,
            count: 1,
            first_ms: 0,
            last_ms: 0,
            reason: String::new(),
            proofs: [None; 2],
        };
        let reason = refused_input(&plan, &event, PacketShape::EchoReply).unwrap();
        assert_eq!(reason, "it answers no echo request of the gateway");
        let reason = refused_input(&plan, &event, PacketShape::Echo).unwrap();
        assert!(reason.contains("echo requests a second"), "{reason}");
    }
}
