//! What the kernel has counted of must-flows, element by element. Which elements, is settled once for each plan.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use penstock_policy::ids::FlowId;
use penstock_policy::plan::Plan;

use crate::enforce::nft::maps::maps_of;
use crate::enforce::nft::readback::RulesetReader;
use crate::enforce::nft::wire::keys;
use crate::enforce::shape::block::{Address, Block};
use crate::enforce::shape::lower::{Disposition, Elements};

/// Elements that are asked for at most; flows that would need more are not followed.
const ELEMENTS_MAX: usize = 512;

/// The elements of a plan's must-flows: by map, with their first keys.
#[derive(Debug, Default)]
pub(in crate::enforce) struct MustFlowElements {
    elements: BTreeMap<String, Vec<(Vec<u8>, FlowId)>>,
}

impl MustFlowElements {
    /// Of a plan and what was made of it.
    pub(in crate::enforce) fn of(plan: &Plan, elements: &Elements) -> Self {
        let must: BTreeSet<FlowId> = plan
            .rules
            .iter()
            .filter(|rule| rule.must_flow)
            .map(|rule| rule.id)
            .collect();
        let mut wanted: BTreeMap<FlowId, Vec<(String, Vec<u8>)>> = BTreeMap::new();
        if must.is_empty() {
            return Self::default();
        }
        gather(&mut wanted, &must, &elements.v4);
        gather(&mut wanted, &must, &elements.v6);
        let mut room = ELEMENTS_MAX;
        let mut found = Self::default();
        for flow in must {
            let Some(keys) = wanted.remove(&flow).filter(|keys| keys.len() <= room) else {
                continue;
            };
            room -= keys.len();
            for (map, key) in keys {
                found.elements.entry(map).or_default().push((key, flow));
            }
        }
        found
    }

    /// Packets of each flow since the tables were made.
    pub(in crate::enforce) fn read(&self) -> io::Result<BTreeMap<FlowId, u64>> {
        let mut packets = BTreeMap::new();
        if self.elements.is_empty() {
            return Ok(packets);
        }
        let reader = RulesetReader::open()?;
        for (map, elements) in &self.elements {
            let keys: Vec<&[u8]> = elements.iter().map(|(key, _)| key.as_slice()).collect();
            let counted = reader.packets(map, &keys)?;
            for ((_, flow), packets_of) in elements.iter().zip(counted) {
                let total = packets.entry(*flow).or_insert(0_u64);
                *total = total.saturating_add(packets_of);
            }
        }
        Ok(packets)
    }
}

fn gather<A: Address>(
    wanted: &mut BTreeMap<FlowId, Vec<(String, Vec<u8>)>>,
    must: &BTreeSet<FlowId>,
    elements: &BTreeMap<Block<A>, Disposition>,
) {
    for (block, placed) in elements {
        if !must.contains(&placed.flow) {
            continue;
        }
        let keys_of = wanted.entry(placed.flow).or_default();
        // One beyond the bound is enough to know that there are too many.
        if keys_of.len() > ELEMENTS_MAX {
            continue;
        }
        let (first, _) = keys(block);
        keys_of.extend(
            maps_of(block, placed.course)
                .iter()
                .map(|map| (format!("{}{}", map.name, A::FAMILY), first.clone())),
        );
    }
}
