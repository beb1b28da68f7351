//! Which addresses belong to which zone.
//!
//! Two networks either nest or have nothing in common, so one pass over all of them in the order of their
//! addresses, with the enclosing ones on a stack, finds every conflict. An inner zone's network is cut out of its
//! parent's: afterwards no two zones share an address, and every other part of the program may rely on that.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Ancestors;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::addresses::{self, without};
use crate::document::grammar::Document;
use crate::ids::ZoneId;
use crate::model::ZoneKind;

/// The networks of all zones, none of them in two.
pub(super) struct ZoneNetworks {
    by_zone: BTreeMap<ZoneId, Vec<IpNet>>,
    /// Sorted by address and disjoint.
    sorted: Vec<(IpNet, ZoneId)>,
}

/// A network as written.
struct WrittenNetwork<'a> {
    net: IpNet,
    zone: &'a ZoneId,
    depth: usize,
    place: Place,
    /// A part of the Internet: whatever another zone has of it is that zone's.
    internet: bool,
    /// Networks of inner zones within it.
    holes: Vec<IpNet>,
}

impl ZoneNetworks {
    pub(super) fn new(document: &Document, ancestors: &Ancestors, faults: &mut Faults) -> Self {
        let mut written = written(document, ancestors, faults);
        let mut enclosing: Vec<usize> = Vec::new();
        let mut redundant: Vec<usize> = Vec::new();
        for at in 0..written.len() {
            let Some(inner) = written.get(at).map(|w| (w.net, w.zone, w.place, w.internet)) else {
                continue;
            };
            while let Some(outer) = enclosing.last().and_then(|outer| written.get(*outer)) {
                if outer.net.contains(&inner.0) {
                    break;
                }
                enclosing.pop();
            }
            let outer = enclosing.last().copied().and_then(|outer| written.get_mut(outer));
            if let Some(outer) = outer {
                if !judge(outer, inner, ancestors, faults) {
                    redundant.push(at);
                    continue;
                }
                outer.holes.push(inner.0);
            }
            enclosing.push(at);
        }
        let mut by_zone: BTreeMap<ZoneId, Vec<IpNet>> = BTreeMap::new();
        let mut sorted = Vec::new();
        for (at, network) in written.iter().enumerate() {
            if redundant.contains(&at) {
                continue;
            }
            for part in without(network.net, &network.holes) {
                by_zone.entry(network.zone.clone()).or_default().push(part);
                sorted.push((part, network.zone.clone()));
            }
        }
        sorted.sort();
        Self { by_zone, sorted }
    }

    /// The networks of a zone, in order; none if it has none, or only such as belong to inner zones.
    pub(super) fn of(&self, zone: &ZoneId) -> &[IpNet] {
        self.by_zone.get(zone).map_or(&[], Vec::as_slice)
    }

    /// The network that an address lies in, and its zone.
    pub(super) fn holding(&self, address: IpAddr) -> Option<(IpNet, &ZoneId)> {
        let after = self.sorted.partition_point(|(net, _)| net.network() <= address);
        let (net, zone) = self.sorted.get(after.checked_sub(1)?)?;
        net.contains(&address).then_some((*net, zone))
    }
}

/// All networks, outer before inner.
fn written<'a>(
    document: &'a Document,
    ancestors: &Ancestors,
    faults: &mut Faults,
) -> Vec<WrittenNetwork<'a>> {
    let mut written = Vec::new();
    let mut internet: Option<Place> = None;
    for (name, _, zone) in document
        .zones
        .value()
        .into_iter()
        .flat_map(|zones| zones.readable())
    {
        let depth = ancestors.get(name).map_or(0, Vec::len);
        let network = |net, place, internet| WrittenNetwork {
            net,
            zone: name,
            depth,
            place,
            internet,
            holes: Vec::new(),
        };
        match zone.networks.value() {
            None => {}
            Some(addresses::ZoneNetworks::Listed(listed)) => {
                written.extend(listed.iter().map(|at| network(at.value, at.place, false)));
            }
            Some(addresses::ZoneNetworks::Internet(place)) => {
                let is_external = zone.kind.value() == Some(&ZoneKind::External);
                if let Some(first) = internet.filter(|_| is_external) {
                    faults.add(
                        Fault::new(
                            Code::NotTheInternet,
                            *place,
                            format!("the zone `{name}` is a second Internet"),
                        )
                        .label("again here")
                        .related(first, "the first one")
                        .help("keep one zone with `networks: internet`"),
                    );
                } else if zone.kind.is_absent() || is_external {
                    internet = Some(*place);
                    written.extend(
                        addresses::internet()
                            .into_iter()
                            .map(|net| network(net, *place, true)),
                    );
                } else {
                    faults.add(
                        Fault::new(
                            Code::NotTheInternet,
                            *place,
                            format!(
                                "the zone `{name}` is not `external`, and cannot have all public addresses"
                            ),
                        )
                        .label("the Internet")
                        .help("write `kind: external`, or list the zone's networks"),
                    );
                }
            }
        }
    }
    // Of equal networks the outer zone's comes first, so that the inner one takes all of it.
    written.sort_by(|a, b| {
        let key = |w: &WrittenNetwork<'_>| (w.net.network(), w.net.prefix_len(), w.depth);
        key(a).cmp(&key(b)).then_with(|| a.zone.cmp(b.zone))
    });
    written
}

/// Whether a network may lie inside another; a fault says if not.
fn judge(
    outer: &WrittenNetwork<'_>,
    (net, zone, place, internet): (IpNet, &ZoneId, Place, bool),
    ancestors: &Ancestors,
    faults: &mut Faults,
) -> bool {
    let contains =
        |inner: &ZoneId, outer: &ZoneId| ancestors.get(inner).is_some_and(|chain| chain.contains(outer));
    if contains(zone, outer.zone) || outer.internet {
        return true;
    }
    if internet {
        // Another zone has all of this part.
        return false;
    }
    let fault = if zone == outer.zone {
        Fault::new(
            Code::RepeatedItem,
            place,
            format!(
                "{net} lies within {}, which the zone `{zone}` has already",
                outer.net
            ),
        )
        .label("nothing is added by this")
        .related(outer.place, "it lies within this one")
        .help("remove it")
    } else if contains(outer.zone, zone) {
        Fault::new(
            Code::NotWithinParent,
            outer.place,
            format!(
                "{} of the zone `{}` is wider than {net} of its parent `{zone}`",
                outer.net, outer.zone
            ),
        )
        .label("wider than the parent's")
        .related(place, "the parent's network")
        .help("make it a part of the parent's network, or let the two be apart")
    } else {
        Fault::new(
            Code::NetworksOverlap,
            place,
            format!(
                "{net} of the zone `{zone}` overlaps {} of the zone `{}`",
                outer.net, outer.zone
            ),
        )
        .label("claimed here")
        .related(outer.place, format!("and here by `{}`", outer.zone))
        .help(format!(
            "correct one of the two, or say `parent: {}` if `{zone}` lies inside it",
            outer.zone
        ))
    };
    faults.add(fault);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_out_networks_leaves_exactly_the_other_addresses() {
        let net: IpNet = "10.0.0.0/24".parse().unwrap();
        let holes: Vec<IpNet> = ["10.0.0.4/32", "10.0.0.64/26", "10.0.0.255/32"]
            .iter()
            .map(|hole| hole.parse().unwrap())
            .collect();
        let rest = without(net, &holes);
        for last in 0..=255_u8 {
            let address = IpAddr::from([10, 0, 0, last]);
            let cut = holes.iter().any(|hole| hole.contains(&address));
            let kept = rest.iter().filter(|part| part.contains(&address)).count();
            assert_eq!(kept, usize::from(!cut), "{address}");
        }
    }
}
