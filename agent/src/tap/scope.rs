//! Which interfaces are tapped, and whether two addresses talk between zones that only observe. Pure but for the kernel's
//! numbers of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use penstock_policy::plan::{Observing, Plan};
use penstock_policy::terms::Enforcement;
use rustix::net::netdevice::name_to_index;

/// The sides of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapScope {
    sides: Vec<TapSide>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TapSide {
    name: String,
    networks: Vec<IpNet>,
    observing: Observing,
}

impl TapSide {
    fn holds(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether the zone of `address` observes, as far as this side tells.
    fn observes(&self, address: IpAddr) -> bool {
        self.observing.mode(Some(address)) == Enforcement::Observe
    }

    /// Whether any of its zones observes.
    fn is_tapped(&self) -> bool {
        self.observing != Observing::Nothing
    }
}

impl TapScope {
    /// The sides of `plan`.
    pub fn of(plan: &Plan) -> Self {
        let side = |interface: &penstock_policy::plan::PlanInterface| TapSide {
            name: interface.name.clone(),
            networks: interface.networks.clone(),
            observing: interface.observing.clone(),
        };
        Self {
            sides: plan.interfaces.iter().map(side).collect(),
        }
    }

    /// Whether any zone only observes.
    pub fn observes(&self) -> bool {
        self.sides.iter().any(TapSide::is_tapped)
    }

    /// The names of the interfaces on whose side a zone observes.
    pub fn names(&self) -> Vec<&str> {
        let observing = self.sides.iter().filter(|side| side.is_tapped());
        observing.map(|side| side.name.as_str()).collect()
    }

    /// The kernel's numbers of those that exist, sorted.
    pub fn indices(&self) -> Vec<u32> {
        let family = rustix::net::AddressFamily::INET;
        let Ok(socket) = rustix::net::socket(family, rustix::net::SocketType::DGRAM, None) else {
            return Vec::new();
        };
        let mut indices: Vec<u32> = self
            .names()
            .into_iter()
            .filter_map(|name| name_to_index(&socket, name).ok())
            .take(super::filter::INTERFACES_MAX)
            .collect();
        indices.sort_unstable();
        indices
    }

    /// Whether two addresses lie on different sides, in zones that both observe. Of one that lies on no side, the other
    /// decides; of two, whether all that is tapped observes. What a zone that enforces refuses does not happen.
    pub fn crosses(&self, one: IpAddr, other: IpAddr) -> bool {
        let observes = |address| {
            let mut holding = self.sides.iter().filter(|side| side.holds(address)).peekable();
            holding.peek()?;
            Some(holding.filter(|side| side.observes(address)).collect::<Vec<_>>())
        };
        match (observes(one), observes(other)) {
            (Some(here), Some(there)) => here
                .iter()
                .any(|here| there.iter().any(|there| here.name != there.name)),
            (Some(holding), None) | (None, Some(holding)) => !holding.is_empty(),
            (None, None) => self
                .sides
                .iter()
                .all(|side| !matches!(side.observing, Observing::Only(_))),
        }
    }
}
