//! Which zones lie beside which, with a gateway between them, and what becomes of undeclared traffic there (DESIGN, promise
//! 12): it passes where both zones observe, and is dropped as soon as one of the two enforces, whatever else lies on the
//! same side of the gateway.
//!
//! One place for all that is said of a zone as a whole: `check`, `diff`, `reach`, health and the picture. What is said of
//! addresses is `verdict`, and a property holds this against it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{GatewayId, ZoneId};
use crate::model::Plant;
use crate::terms::Enforcement;
use crate::words::and;

/// The zones that lie beside one zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbours {
    /// Those that only observe.
    pub observing: BTreeSet<ZoneId>,
    /// Those that enforce.
    pub enforcing: BTreeSet<ZoneId>,
}

/// Every gateway with two zones that lie on different sides of it. (A zone that lies on two sides has each for itself: there
/// nothing is crossed.)
pub(crate) fn crossings(plant: &Plant) -> BTreeSet<(&GatewayId, &ZoneId, &ZoneId)> {
    let mut crossings = BTreeSet::new();
    for (id, gateway) in &plant.gateways {
        for (near, here) in &gateway.interfaces {
            for (far, there) in &gateway.interfaces {
                if near == far {
                    continue;
                }
                for from in std::iter::once(&here.zone).chain(&here.behind) {
                    let beyond = std::iter::once(&there.zone).chain(&there.behind);
                    crossings.extend(beyond.filter(|to| *to != from).map(|to| (id, from, to)));
                }
            }
        }
    }
    crossings
}

/// The neighbours of each zone of a plant.
pub fn neighbours(plant: &Plant) -> BTreeMap<ZoneId, Neighbours> {
    let mut all: BTreeMap<ZoneId, Neighbours> = plant
        .zones
        .keys()
        .map(|zone| (zone.clone(), Neighbours::default()))
        .collect();
    for (_, from, to) in crossings(plant) {
        let (Some(beside), Some(zone)) = (all.get_mut(from), plant.zones.get(to)) else {
            continue;
        };
        match zone.enforcement {
            Enforcement::Observe => beside.observing.insert(to.clone()),
            Enforcement::Enforce => beside.enforcing.insert(to.clone()),
        };
    }
    all
}

impl Neighbours {
    /// The zones from and to which everything passes, if the zone itself has this mode.
    pub fn open_to(&self, mode: Enforcement) -> BTreeSet<&ZoneId> {
        match mode {
            Enforcement::Observe => self.observing.iter().collect(),
            Enforcement::Enforce => BTreeSet::new(),
        }
    }

    /// What becomes of undeclared traffic of the zone whose neighbours these are, if it has this mode: a clause.
    pub fn undeclared(&self, mode: Enforcement) -> String {
        self.undeclared_naming(mode, usize::MAX)
    }

    /// The same with so many names of zones of each mode at most, and how many more there are.
    pub fn undeclared_naming(&self, mode: Enforcement, most: usize) -> String {
        let dropped = match self.enforcing.len() {
            1 => "which enforces, it is dropped",
            _ => "which enforce, it is dropped",
        };
        let named = |zones: &BTreeSet<ZoneId>| match zones.len().checked_sub(most) {
            None | Some(0) => and(zones.iter()),
            Some(more) => {
                let first: Vec<&str> = zones.iter().take(most).map(ZoneId::as_str).collect();
                format!("{} and {more} more", first.join(", "))
            }
        };
        let (open, shut) = (named(&self.observing), named(&self.enforcing));
        match mode {
            Enforcement::Enforce => "what no conduit permits is dropped".to_owned(),
            Enforcement::Observe if self.observing.is_empty() && self.enforcing.is_empty() => {
                "no other zone lies beside it".to_owned()
            }
            Enforcement::Observe if self.observing.is_empty() => {
                "every zone beside it enforces, so what no conduit permits between them is dropped".to_owned()
            }
            Enforcement::Observe if self.enforcing.is_empty() => {
                format!("what no conduit permits between it and {open} passes, and is recorded")
            }
            Enforcement::Observe => format!(
                "what no conduit permits between it and {open} passes, and is recorded; between it and {shut}, {dropped}"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
