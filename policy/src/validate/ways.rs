//! Which gateways stand between two zones, and whether a conduit's gateways make up a whole way.
//!
//! A gateway judges by what its own interfaces say: it is between two zones if it has them on two different
//! interfaces, attached or behind. The way that packets really take goes from attached zone to attached zone;
//! a gateway on it that does not know one of the two zones would drop what the others let pass.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Context, gateways};
use crate::document::names::InterfaceName;
use crate::ids::{GatewayId, ZoneId};

/// Where each zone is to be found.
pub(super) struct Ways<'a> {
    /// On which gateways and interfaces each zone is, attached or behind.
    sides: BTreeMap<&'a ZoneId, BTreeMap<&'a GatewayId, BTreeSet<&'a InterfaceName>>>,
    /// The gateways that each zone is attached to.
    at_zone: BTreeMap<&'a ZoneId, BTreeSet<&'a GatewayId>>,
    /// The zones attached to each gateway.
    at_gateway: BTreeMap<&'a GatewayId, BTreeSet<&'a ZoneId>>,
}

impl<'a> Ways<'a> {
    pub(super) fn new(context: &Context<'a>) -> Self {
        let mut ways = Self {
            sides: BTreeMap::new(),
            at_zone: BTreeMap::new(),
            at_gateway: BTreeMap::new(),
        };
        let table = context.document.gateways.value();
        for (name, _, gateway) in table.into_iter().flat_map(|table| table.readable()) {
            for (interface, zones) in gateways::zones_by_interface(gateway) {
                for zone in zones {
                    ways.sides
                        .entry(zone)
                        .or_default()
                        .entry(name)
                        .or_default()
                        .insert(interface);
                }
            }
            for (_, _, interface) in gateway
                .interfaces
                .value()
                .into_iter()
                .flat_map(|table| table.readable())
            {
                if let Some(zone) = interface.zone.value() {
                    ways.at_zone.entry(zone).or_default().insert(name);
                    ways.at_gateway.entry(name).or_default().insert(zone);
                }
            }
        }
        ways
    }

    /// Whether the gateway has the two zones on two different interfaces.
    pub(super) fn between(&self, gateway: &GatewayId, from: &ZoneId, to: &ZoneId) -> bool {
        let of = |zone: &ZoneId| self.sides.get(zone).and_then(|gateways| gateways.get(gateway));
        match (of(from), of(to)) {
            (Some(a), Some(b)) => a.len() > 1 || b.len() > 1 || a != b,
            _ => false,
        }
    }

    /// A side of the gateway that has this zone and another, and that other one.
    pub(super) fn shared(
        &self,
        gateway: &GatewayId,
        zone: &ZoneId,
    ) -> Option<(&'a InterfaceName, &'a ZoneId)> {
        let own = self.sides.get(zone)?.get(gateway)?;
        let others = self.sides.iter().filter(|(other, _)| **other != zone);
        others
            .filter_map(|(other, at)| Some((at.get(gateway)?.intersection(own).next().copied()?, *other)))
            .next()
    }

    /// All gateways between the two zones.
    pub(super) fn all_between(&self, from: &ZoneId, to: &ZoneId) -> BTreeSet<GatewayId> {
        let (Some(these), Some(those)) = (self.sides.get(from), self.sides.get(to)) else {
            return BTreeSet::new();
        };
        // A zone in the middle may be at every gateway of the fleet: the other one's are looked through.
        let fewer = if these.len() <= those.len() { these } else { those };
        fewer
            .keys()
            .filter(|gateway| self.between(gateway, from, to))
            .map(|gateway| (*gateway).clone())
            .collect()
    }

    /// The gateways of a shortest way that `via` leaves out; none if `via` holds a whole way, or if no way can be told
    /// from what is attached where.
    pub(super) fn left_out(
        &self,
        from: &ZoneId,
        to: &ZoneId,
        via: &BTreeSet<GatewayId>,
    ) -> Vec<&'a GatewayId> {
        if self.way(from, to, Some(via)).is_some() {
            return Vec::new();
        }
        let mut way = self.way(from, to, None).unwrap_or_default();
        way.retain(|gateway| !via.contains(*gateway));
        way
    }

    /// The gateways of a shortest way over attached zones, using only those named, or any.
    fn way(
        &self,
        from: &ZoneId,
        to: &ZoneId,
        only: Option<&BTreeSet<GatewayId>>,
    ) -> Option<Vec<&'a GatewayId>> {
        let (start, _) = self.at_zone.get_key_value(from)?;
        let mut came: BTreeMap<&ZoneId, (&'a ZoneId, &'a GatewayId)> = BTreeMap::new();
        let mut next: VecDeque<&'a ZoneId> = VecDeque::from([*start]);
        while let Some(zone) = next.pop_front() {
            if zone == to {
                let mut way = Vec::new();
                let mut at = zone;
                while at != from
                    && let Some((before, gateway)) = came.get(at)
                {
                    way.push(*gateway);
                    at = *before;
                }
                return Some(way);
            }
            let here = self.at_zone.get(zone).into_iter().flatten().copied();
            let gateways: Vec<&GatewayId> = match only {
                // Of a zone in the middle of a fleet: not through all gateways for each conduit.
                Some(only) => only
                    .iter()
                    .filter_map(|gateway| self.at_zone.get(zone)?.get(gateway).copied())
                    .collect(),
                None => here.collect(),
            };
            for gateway in gateways {
                for further in self.at_gateway.get(gateway).into_iter().flatten() {
                    if *further != from && !came.contains_key(further) {
                        came.insert(further, (zone, gateway));
                        next.push_back(further);
                    }
                }
            }
        }
        None
    }
}
