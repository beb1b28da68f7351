//! The gateways of a release as a rollout looks at them: names, places, labels, pairs. In the order of their names; everything else
//! speaks of them by their place in it.

use std::collections::BTreeMap;

use crate::ids::{Digest, GatewayId};
use crate::model::Plant;

/// The label of gateways that carry nothing that matters, and so come first.
pub const LAB_LABEL: &str = "lab";
/// The label that says what else is not to be changed together with a gateway; without it, its site does.
pub const CELL_LABEL: &str = "cell";

/// One gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub id: GatewayId,
    /// Its site.
    pub site: String,
    /// What it shares with those that are not to be changed together.
    pub cell: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The other of its pair.
    pub partner: Option<GatewayId>,
}

/// Why gateways are no fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// A name stands twice.
    #[error("gateway {0} stands twice in the release")]
    Twice(GatewayId),
    /// A pair of which the two do not name each other.
    #[error("gateway {0} names {1} as the other of its pair, which does not name it")]
    Pair(GatewayId, GatewayId),
}

/// All gateways of a release.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fleet {
    members: Vec<Member>,
    partners: Vec<Option<u32>>,
    cells: Vec<u32>,
    cell_count: usize,
    joined: Vec<(u32, u32)>,
}

impl Fleet {
    /// Of these gateways, in any order.
    ///
    /// # Errors
    /// A name stands twice, or the two of a pair do not name each other.
    pub fn new(mut members: Vec<Member>) -> Result<Self, FleetError> {
        members.sort_by(|a, b| a.id.cmp(&b.id));
        if let Some((one, _)) = members
            .iter()
            .zip(members.iter().skip(1))
            .find(|(a, b)| a.id == b.id)
        {
            return Err(FleetError::Twice(one.id.clone()));
        }
        let mut fleet = Self::default();
        let mut cells: BTreeMap<&str, u32> = BTreeMap::new();
        for member in &members {
            let next = u32::try_from(cells.len()).unwrap_or(u32::MAX);
            fleet.cells.push(*cells.entry(&member.cell).or_insert(next));
        }
        fleet.cell_count = cells.len();
        for member in &members {
            let Some(partner) = &member.partner else {
                fleet.partners.push(None);
                continue;
            };
            let at = members.binary_search_by(|other| other.id.cmp(partner)).ok();
            let names_it = |at: &usize| {
                let back = members.get(*at).and_then(|other| other.partner.as_ref());
                back == Some(&member.id) && *partner != member.id
            };
            let Some(at) = at.filter(names_it) else {
                return Err(FleetError::Pair(member.id.clone(), partner.clone()));
            };
            fleet.partners.push(u32::try_from(at).ok());
        }
        fleet.members = members;
        Ok(fleet)
    }

    /// Of a plant's gateways.
    ///
    /// # Errors
    /// A pair of which the two do not name each other; no valid plant has one.
    pub fn of(plant: &Plant) -> Result<Self, FleetError> {
        let members = plant.gateways.iter().map(|(id, gateway)| Member {
            id: id.clone(),
            site: gateway.site.to_string(),
            cell: match gateway.labels.get(CELL_LABEL) {
                Some(cell) => format!("{}/{cell}", gateway.site),
                None => gateway.site.to_string(),
            },
            labels: gateway.labels.clone(),
            partner: gateway.redundant_with.clone(),
        });
        Self::new(members.collect())
    }

    /// The same gateways, of which these pairs have to activate a release together: their tunnels change with it
    /// ([`joined`](super::joined)). Pairs with a gateway that is not among them are none.
    #[must_use]
    pub fn joining<'a>(mut self, pairs: impl IntoIterator<Item = &'a (GatewayId, GatewayId)>) -> Self {
        let places = pairs.into_iter().filter_map(|(one, other)| {
            let places = (self.find(one)?, self.find(other)?);
            (places.0 != places.1).then_some(places)
        });
        self.joined = places.collect();
        self
    }

    /// The places of those that have to activate together.
    pub fn joined(&self) -> &[(u32, u32)] {
        &self.joined
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// In the order of their names.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The gateway at a place.
    pub fn member(&self, at: u32) -> Option<&Member> {
        self.members.get(at as usize)
    }

    /// The place of a gateway.
    pub fn find(&self, id: &GatewayId) -> Option<u32> {
        let at = self.members.binary_search_by(|member| member.id.cmp(id)).ok()?;
        u32::try_from(at).ok()
    }

    /// The other of its pair.
    pub fn partner(&self, at: u32) -> Option<u32> {
        self.partners.get(at as usize).copied().flatten()
    }

    /// The number of its cell, below [`Fleet::cell_count`].
    pub fn cell(&self, at: u32) -> u32 {
        self.cells.get(at as usize).copied().unwrap_or_default()
    }

    /// How many cells there are.
    pub fn cell_count(&self) -> usize {
        self.cell_count
    }

    /// Whether it is one of a laboratory.
    pub fn is_lab(&self, at: u32) -> bool {
        self.member(at)
            .is_some_and(|member| member.labels.contains_key(LAB_LABEL))
    }

    /// All places: laboratories first, then as drawn by the seed. Depends on names alone, so that a gateway more or fewer
    /// moves no other.
    pub fn draw(&self, seed: u64) -> Vec<u32> {
        let mut drawn: Vec<(bool, Digest, u32)> = (0..)
            .zip(&self.members)
            .map(|(at, member)| {
                let lot = Digest::of(format!("{seed}/{}", member.id).as_bytes());
                (!self.is_lab(at), lot, at)
            })
            .collect();
        drawn.sort_unstable();
        drawn.into_iter().map(|(_, _, at)| at).collect()
    }

    /// What a rollout over it remembers it by.
    pub fn digest(&self) -> Digest {
        let mut text = String::new();
        for member in &self.members {
            let partner = member.partner.as_ref().map_or("", GatewayId::as_str);
            // The words of a person are separated by what no name holds.
            text.push_str(&format!(
                "{}\u{1}{}\u{1}{}\u{1}{partner}",
                member.id, member.site, member.cell
            ));
            for (key, value) in &member.labels {
                text.push_str(&format!("\u{1}{key}\u{2}{value}"));
            }
            text.push('\u{3}');
        }
        Digest::of(text.as_bytes())
    }
}
