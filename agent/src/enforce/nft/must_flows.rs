//! What the kernel has counted of must-flows, element by element. Which elements, is settled once for each plan.
//!
//! What was a must-flow in a plan before is followed too, while the plan in force has the flow still, by its name or by the same ends and
//! ports: a release on trial that only calls it otherwise does not take it away.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ipnet::IpNet;
use penstock_policy::ids::FlowId;
use penstock_policy::plan::{Endpoint, Plan, Rule};
use penstock_policy::terms::Transport;

use crate::enforce::nft::maps::maps_of;
use crate::enforce::nft::readback::RulesetReader;
use crate::enforce::nft::wire::keys;
use crate::enforce::shape::block::{Address, Block};
use crate::enforce::shape::lower::{Disposition, Elements};

/// Elements that are asked for at most; flows that would need more are not followed.
const ELEMENTS_MAX: usize = 512;

/// Flows of plans before that are followed at most.
const FORMER_MAX: usize = 64;

/// The elements of a plan's must-flows: by map, with their first keys.
#[derive(Debug, Default)]
pub(in crate::enforce) struct MustFlowElements {
    elements: BTreeMap<String, Vec<(Vec<u8>, FlowId)>>,
    flows: Vec<FollowedFlow>,
}

/// A must-flow, or what was one in a plan before.
#[derive(Debug, Clone)]
struct FollowedFlow {
    id: FlowId,
    name: String,
    carriage: Carriage,
    /// The rule that carries it in the plan in force.
    carried_by: FlowId,
}

/// From where to where, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Carriage {
    sources: BTreeSet<IpNet>,
    destinations: BTreeSet<IpNet>,
    transport: Transport,
}

impl Carriage {
    fn of(rule: &Rule) -> Self {
        let networks = |ends: &[Endpoint]| ends.iter().map(|end| end.network).collect();
        Self {
            sources: networks(&rule.sources),
            destinations: networks(&rule.destinations),
            transport: rule.transport.clone(),
        }
    }
}

impl FollowedFlow {
    fn of(rule: &Rule) -> Self {
        Self {
            id: rule.id,
            name: format!("{}/{}", rule.conduit, rule.flow),
            carriage: Carriage::of(rule),
            carried_by: rule.id,
        }
    }

    /// The same in `plan`, if that has it.
    fn carried_in(&self, plan: &Plan) -> Option<Self> {
        let mut rules = plan.rules.iter();
        let by_name = plan.rules.iter().find(|rule| rule.id == self.id);
        let rule = by_name.or_else(|| rules.find(|rule| Carriage::of(rule) == self.carriage))?;
        Some(Self {
            carried_by: rule.id,
            ..self.clone()
        })
    }
}

impl MustFlowElements {
    /// Of a plan and what was made of it, which takes the place of another with the elements `before`.
    pub(in crate::enforce) fn of(plan: &Plan, elements: &Elements, before: &Self) -> Self {
        let must = plan.rules.iter().filter(|rule| rule.must_flow);
        let mut flows: Vec<FollowedFlow> = must.map(FollowedFlow::of).collect();
        let now: BTreeSet<FlowId> = flows.iter().map(|flow| flow.id).collect();
        let former = before.flows.iter().filter(|flow| !now.contains(&flow.id));
        flows.extend(former.filter_map(|flow| flow.carried_in(plan)).take(FORMER_MAX));
        let carriers: BTreeSet<FlowId> = flows.iter().map(|flow| flow.carried_by).collect();
        let mut wanted: BTreeMap<FlowId, Vec<(String, Vec<u8>)>> = BTreeMap::new();
        if carriers.is_empty() {
            return Self::default();
        }
        gather(&mut wanted, &carriers, &elements.v4);
        gather(&mut wanted, &carriers, &elements.v6);
        let mut room = ELEMENTS_MAX;
        let mut found = Self::default();
        for flow in now.iter().chain(carriers.difference(&now)) {
            let Some(keys) = wanted.remove(flow).filter(|keys| keys.len() <= room) else {
                continue;
            };
            room -= keys.len();
            for (map, key) in keys {
                found.elements.entry(map).or_default().push((key, *flow));
            }
        }
        found.flows = flows;
        found
    }

    /// The name of a flow that is followed (`conduit/flow`).
    pub(in crate::enforce) fn name(&self, id: FlowId) -> Option<&str> {
        let flow = self.flows.iter().find(|flow| flow.id == id)?;
        Some(&flow.name)
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
        let carried = |flow: &FollowedFlow| Some((flow.id, *packets.get(&flow.carried_by)?));
        Ok(self.flows.iter().filter_map(carried).collect())
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
