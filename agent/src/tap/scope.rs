//! Which interfaces are tapped, and whether two addresses talk across what only observes. Pure but for the kernel's
//! numbers of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use penstock_policy::plan::{Observing, Plan};
use rustix::net::netdevice::name_to_index;

/// The sides of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    sides: Vec<Side>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Side {
    name: String,
    observes: bool,
    networks: Vec<IpNet>,
}

impl Scope {
    /// The sides of `plan`.
    pub fn of(plan: &Plan) -> Self {
        let side = |interface: &penstock_policy::plan::PlanInterface| Side {
            name: interface.name.clone(),
            observes: interface.observing == Observing::Everything,
            networks: interface.networks.clone(),
        };
        Self {
            sides: plan.interfaces.iter().map(side).collect(),
        }
    }

    /// Whether any side only observes.
    pub fn observes(&self) -> bool {
        self.sides.iter().any(|side| side.observes)
    }

    /// The names of the interfaces that observe.
    pub fn names(&self) -> Vec<&str> {
        let observing = self.sides.iter().filter(|side| side.observes);
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

    /// Whether two addresses lie on different sides that both observe. What lies on no side was seen on one that
    /// observes; an enforcing side refuses by itself, and what it refuses does not happen.
    pub fn crosses(&self, one: IpAddr, other: IpAddr) -> bool {
        let holding = |address: IpAddr| {
            self.sides
                .iter()
                .filter(move |side| side.networks.iter().any(|network| network.contains(&address)))
        };
        let placed = |address: IpAddr| holding(address).next().is_some();
        match (placed(one), placed(other)) {
            (true, true) => holding(one).any(|here| {
                holding(other).any(|there| here.observes && there.observes && here.name != there.name)
            }),
            (true, false) => holding(one).any(|side| side.observes),
            (false, true) => holding(other).any(|side| side.observes),
            (false, false) => true,
        }
    }
}
