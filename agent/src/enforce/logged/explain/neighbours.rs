//! Why a neighbour's claim, question or answer does not pass. Pure.

use std::net::IpAddr;

use penstock_policy::plan::Plan;
use penstock_policy::terms::Mac;

use super::super::nflog::{Content, NeighbourClaim, PacketShape};
use crate::observed::VerdictSeen;

/// The reason, in words.
pub(super) fn reason(
    plan: &Plan,
    event: &VerdictSeen,
    content: Content,
    (claim, mac): (NeighbourClaim, [u8; 6]),
) -> String {
    let (mac, side) = (Mac(mac), &event.ingress);
    let what = match content {
        Content::Arp { .. } => "ARP",
        Content::Ip { .. } => "neighbour discovery",
        Content::Frame { .. } => "a frame",
    };
    if let Content::Ip {
        shape: PacketShape::Icmp { kind: 137, .. },
        ..
    } = content
    {
        return "an ICMP redirect: it would send packets another way, and never passes".to_owned();
    }
    match claim {
        NeighbourClaim::Moved => format!(
            "the MAC address {mac} belongs to another side of this gateway, where it was seen or is declared: nothing from it \
             is taken in by {side}"
        ),
        NeighbourClaim::Malformed => {
            format!("{what} from {mac} of a length or form that no host needs: it could carry data")
        }
        NeighbourClaim::Forged => match content {
            Content::Arp { source, .. } => forged(plan, side, source.into(), mac),
            _ => format!(
                "neighbour discovery from {mac} that claims an address of another side, or names another MAC address than its \
                 own"
            ),
        },
        NeighbourClaim::Unjoined => match (event.source, event.destination) {
            (Some(source), Some(target)) if what == "ARP" => format!(
                "ARP: no flow joins {source} and {target}, and neither is a declared router of its side (`routers`)"
            ),
            (Some(source), _) => format!(
                "neighbour discovery: no flow joins {source} and the neighbour that it names, and neither is a declared router \
                 of its side (`routers`)"
            ),
            _ => "no flow joins these neighbours".to_owned(),
        },
        NeighbourClaim::Unbound => {
            let source = event.source.map_or_else(String::new, |source| source.to_string());
            let bound = event.source.and_then(|source| plan.bound_to(side, source));
            let bound = bound.map_or_else(|| "another".to_owned(), |bound| bound.mac.to_string());
            format!(
                "{source} is bound to the MAC address {bound} on the side of {side}, as a conduit asks for more than its address \
                 (`minimum_assurance`); this came from {mac}"
            )
        }
        NeighbourClaim::Advertised => {
            let source = event.source.map_or_else(String::new, |source| source.to_string());
            format!(
                "a router advertisement from {source} ({mac}): no router of that address is declared on the side of {side}"
            )
        }
    }
}

fn forged(plan: &Plan, side: &str, claimed: IpAddr, mac: Mac) -> String {
    let other = plan
        .interfaces
        .iter()
        .find(|other| other.name != side && other.holds(claimed));
    if let Some(other) = other {
        return format!(
            "ARP from {mac} at {side} claims {claimed}, which belongs to the side of {}",
            other.name
        );
    }
    let declared = plan
        .interfaces
        .iter()
        .filter(|here| here.name == side)
        .flat_map(|here| &here.hardware);
    let declared: Vec<String> = declared
        .filter(|one| one.address == claimed)
        .map(|one| one.mac.to_string())
        .collect();
    if declared.is_empty() {
        return format!("ARP from {mac} names another MAC address than its own for {claimed}");
    }
    format!(
        "ARP from {mac} claims {claimed}, which the document declares to have {}",
        declared.join(" or ")
    )
}
