//! Numbers for flows: the kernel's mark, counter and log prefix of each, the same on every gateway.
//!
//! A number is the first 28 bits of SHA-256 over `conduit/flow`, so that it needs no register and stays with
//! its flow while others come and go. Two flows that hash alike are told apart in sorted order: the later one
//! takes the hash of its name with `#1`, `#2`, … behind it. Only such a rare pair (about one in a plant of
//! 20,000 flows) can see a number move when the earlier flow appears or goes.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::CompileError;
use crate::ids::{ConduitId, FlowId, FlowName};
use crate::model::Plant;

/// The most flows that one plant may number: a sixteenth of the numbers, so that finding a free one stays quick.
pub(super) const FLOWS_MAX: usize = 1 << 24;

/// The number of every flow of a plant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowIds(BTreeMap<ConduitId, BTreeMap<FlowName, FlowId>>);

impl FlowIds {
    /// Numbers all flows of `plant`.
    ///
    /// # Errors
    /// There are more flows than can be numbered.
    pub fn assign(plant: &Plant) -> Result<Self, CompileError> {
        let count = plant.conduits.values().map(|conduit| conduit.flows.len()).sum();
        if count > FLOWS_MAX {
            return Err(CompileError::TooManyFlows(count));
        }
        let mut taken = HashSet::with_capacity(count);
        let mut ids = BTreeMap::new();
        for (conduit_id, conduit) in &plant.conduits {
            let mut numbers = BTreeMap::new();
            for name in conduit.flows.keys() {
                let id = free_number(&format!("{conduit_id}/{name}"), &mut taken, number);
                numbers.insert(name.clone(), id);
            }
            ids.insert(conduit_id.clone(), numbers);
        }
        Ok(Self(ids))
    }

    /// The number of one flow, if the plant has it.
    pub fn get(&self, conduit: &ConduitId, flow: &FlowName) -> Option<FlowId> {
        self.0.get(conduit)?.get(flow).copied()
    }

    /// The flow that has this number, if there is one. Looks at every flow.
    pub fn find(&self, id: FlowId) -> Option<(&ConduitId, &FlowName)> {
        self.0.iter().find_map(|(conduit, flows)| {
            let (flow, _) = flows.iter().find(|(_, number)| **number == id)?;
            Some((conduit, flow))
        })
    }
}

/// The first number for `name` that is in range and nobody has.
fn free_number(name: &str, taken: &mut HashSet<FlowId>, number: impl Fn(&str) -> u32) -> FlowId {
    let mut attempt = 0_u32;
    loop {
        let id = match attempt {
            0 => FlowId(number(name)),
            n => FlowId(number(&format!("{name}#{n}"))),
        };
        // Zero means "no flow" to the kernel.
        if id.0 != 0 && taken.insert(id) {
            return id;
        }
        attempt += 1;
    }
}

/// The first 28 bits of the name's digest.
fn number(name: &str) -> u32 {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let [a, b, c, d, ..] = digest;
    u32::from_be_bytes([a, b, c, d]) >> 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_first_28_bits_of_the_digest() {
        // printf 'control-room-to-pumps/polling' | sha256sum
        let digest = crate::ids::Digest::of(b"control-room-to-pumps/polling");
        assert_eq!(
            hex::encode(digest.0).get(..7),
            Some(
                FlowId(number("control-room-to-pumps/polling"))
                    .to_string()
                    .as_str()
            )
        );
    }

    #[test]
    fn names_that_hash_alike_get_numbers_of_their_own_in_the_order_they_come() {
        // A hash of three values, one of them the forbidden zero.
        let tiny = |name: &str| if name.contains('#') { name.len() as u32 } else { 1 };
        let mut taken = HashSet::new();
        assert_eq!(free_number("a/b", &mut taken, tiny), FlowId(1));
        assert_eq!(free_number("c/d", &mut taken, tiny), FlowId(5));
        let zero = |name: &str| u32::from(name.contains('#')) * 9;
        assert_eq!(free_number("e/f", &mut taken, zero), FlowId(9));
    }
}
