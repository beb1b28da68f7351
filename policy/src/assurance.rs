//! How well the ends of a plant's flows prove who they are, over all its gateways: for health, metrics and the picture.
//!
//! A flow is as well known as its weakest end is, at the gateway that knows it least.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{ConduitId, FlowName, GatewayId, ZoneId};
use crate::model::Plant;
use crate::plan::Plan;
use crate::terms::{Assurance, Proof};

/// How well the ends of one flow are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowAssurance {
    /// The least that an end proves at a gateway that permits it; `None`: no gateway does.
    pub least: Option<Proof>,
    /// Some gateway denies it to an end, or wholly, since that proves too little. Not so between zones that only observe.
    pub denied: bool,
}

/// The flows of the conduits of one zone, by their assurance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneAssurance {
    /// How many flows there are of each level.
    pub flows: BTreeMap<Assurance, u32>,
    /// How many flows are denied, wholly or to some ends, since these prove too little.
    pub denied: u32,
}

/// Each flow that is in a plan, permitted or denied.
pub fn by_flow<'a>(
    plant: &Plant,
    plans: &'a BTreeMap<GatewayId, Plan>,
) -> BTreeMap<(&'a ConduitId, &'a FlowName), FlowAssurance> {
    let mut all: BTreeMap<_, FlowAssurance> = BTreeMap::new();
    for plan in plans.values() {
        let proofs: BTreeMap<_, Proof> = plan.least_proofs().collect();
        let rules = plan.rules.iter().map(|rule| (rule.id, &rule.conduit, &rule.flow));
        let bridges = plan.bridges.iter().map(|one| (one.id, &one.conduit, &one.flow));
        for (id, conduit, flow) in rules.chain(bridges) {
            let of = all.entry((conduit, flow)).or_default();
            let here = proofs.get(&id).copied();
            of.least = match (of.least, here) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        for denied in &plan.unproven {
            let of = all.entry((&denied.conduit, &denied.flow)).or_default();
            let conduit = plant.conduits.get(&denied.conduit);
            of.denied |= !conduit.is_some_and(|conduit| plant.only_observes(conduit));
        }
    }
    all
}

/// Each zone's flows. A zone without flows is among them.
pub fn by_zone(plant: &Plant, plans: &BTreeMap<GatewayId, Plan>) -> BTreeMap<ZoneId, ZoneAssurance> {
    let mut zones: BTreeMap<ZoneId, ZoneAssurance> = plant
        .zones
        .keys()
        .map(|zone| (zone.clone(), ZoneAssurance::default()))
        .collect();
    for ((conduit, _), flow) in by_flow(plant, plans) {
        let ends = plant
            .conduits
            .get(conduit)
            .map(|conduit| [&conduit.from, &conduit.to]);
        let ends: BTreeSet<&ZoneId> = ends.into_iter().flatten().collect();
        for zone in ends {
            let Some(of) = zones.get_mut(zone) else { continue };
            if let Some(least) = flow.least {
                *of.flows.entry(least.assurance()).or_default() += 1;
            }
            of.denied += u32::from(flow.denied);
        }
    }
    zones
}

/// "4 flows at D0, 1 at D4; 2 denied, as their ends prove too little".
pub fn in_words(flows: impl IntoIterator<Item = (Assurance, u32)>, denied: u32) -> String {
    let mut words = Vec::new();
    for (level, count) in flows.into_iter().filter(|(_, count)| *count > 0) {
        let flows = match (words.is_empty(), count) {
            (true, 1) => " flow",
            (true, _) => " flows",
            (false, _) => "",
        };
        words.push(format!("{count}{flows} at {level}"));
    }
    let mut said = match words.is_empty() {
        true => "no flow is permitted".to_owned(),
        false => words.join(", "),
    };
    if denied > 0 {
        let prove = match denied {
            1 => "an end proves",
            _ => "ends prove",
        };
        said.push_str(&format!("; {denied} denied, as {prove} too little"));
    }
    said
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::compile::compile_all;
    use crate::waterworks::{id, waterworks};

    #[test]
    fn a_zone_counts_the_flows_of_its_conduits_by_their_weakest_end_and_those_that_are_denied() {
        let mut plant = waterworks();
        let count =
            |plant: &Plant, zone: &str| by_zone(plant, &compile_all(plant).unwrap())[&id(zone)].clone();
        let control = |plant: &Plant| count(plant, "control");
        assert_eq!(control(&plant).flows, BTreeMap::from([(Assurance::D0, 2)]));
        assert_eq!(control(&plant).denied, 0);
        let conduit = plant.conduits.get_mut(&id("control-room-to-pumps")).unwrap();
        conduit.minimum_assurance = Some(Assurance::D1);
        assert_eq!(control(&plant).flows, BTreeMap::new());
        assert_eq!(control(&plant).denied, 2);
    }

    #[test]
    fn counts_read_as_a_sentence() {
        assert_eq!(
            in_words([(Assurance::D0, 4), (Assurance::D1, 0), (Assurance::D4, 1)], 2),
            "4 flows at D0, 1 at D4; 2 denied, as ends prove too little"
        );
        assert_eq!(
            in_words([], 1),
            "no flow is permitted; 1 denied, as an end proves too little"
        );
    }
}
