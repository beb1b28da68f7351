//! Sites, and the gateways that stand at the zones' borders.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::change::{AskedFrom, Condition, Window};
use crate::ids::{AssetId, GatewayId, SiteId, ZoneId};
use crate::terms::{GatewayMode, OnDrift};

/// A site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Site {
    /// For people.
    pub title: String,
    /// IANA name of its time zone.
    pub timezone: String,
}

/// An edge gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gateway {
    /// Its site.
    pub site: SiteId,
    /// Routed or bridged.
    pub mode: GatewayMode,
    /// Labels, which rollouts choose by.
    pub labels: BTreeMap<String, String>,
    /// Guarded interfaces by kernel name.
    pub interfaces: BTreeMap<String, Interface>,
    /// The way in for people and the coordinator.
    pub management: Option<ManagementAccess>,
    /// Change windows in the order of the week, in the site's time; none: at any time.
    pub windows: Vec<Window>,
    /// What must hold in the process before a change.
    pub safe_to_change: Option<SafeToChange>,
    /// The other gateway of a redundant pair.
    pub redundant_with: Option<GatewayId>,
    /// Foreign change of the kernel's table.
    pub on_drift: OnDrift,
    /// Where its tunnels to other gateways end, as written.
    pub tunnel: Option<TunnelEnd>,
    /// The gateways at the other ends of its tunnels, by the tunnel's device: what lies behind each is a side in `interfaces`.
    pub tunnels: BTreeMap<String, GatewayId>,
}

/// Where a gateway's tunnels end: on the side of the network that is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TunnelEnd {
    /// The guarded interface towards that network.
    pub interface: String,
    /// Where other gateways reach it; `None`: it connects to them.
    pub address: Option<IpAddr>,
    /// The UDP port.
    pub port: u16,
}

/// One guarded interface of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// The zone attached to it.
    pub zone: ZoneId,
    /// Zones that are reached through it, beyond the attached one.
    pub behind: Vec<ZoneId>,
    /// Routers on that side.
    pub routers: Vec<IpNet>,
    /// The gateway's own addresses there, in the document's order (routed).
    pub addresses: Vec<IpNet>,
}

/// Management access to the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManagementAccess {
    /// Interface it comes in by.
    pub interface: String,
    /// Who may use it; never empty.
    pub peers: Vec<IpNet>,
}

/// A condition in the process that makes a change safe, and who is asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SafeToChange {
    /// The asset that is asked.
    pub asset: AssetId,
    /// TCP port.
    pub port: u16,
    /// The answer that means safe.
    pub condition: Condition,
}

/// `coil 5 is on at plc-1`, with the port where it is not the usual one.
impl fmt::Display for SafeToChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            asset,
            port,
            condition,
        } = self;
        write!(f, "{condition} at {asset}")?;
        if *port == condition.usual_port() {
            Ok(())
        } else {
            write!(f, ", port {port}")
        }
    }
}

impl Gateway {
    /// Where the gateway reaches an asset of `zone` by itself, for certain: from its own address on that side; or, where the zone is on
    /// no side, through its way in for people, if that names the asset as a peer. `None`: nothing in the document says that it does.
    ///
    /// A bridged gateway has no address on its sides, so of what lives there it reaches nothing.
    pub fn asks(&self, zone: &ZoneId, addresses: &[IpAddr]) -> Option<(IpAddr, AskedFrom)> {
        let sides = self.interfaces.values();
        let mut sides = sides
            .filter(|side| side.zone == *zone || side.behind.contains(zone))
            .peekable();
        if sides.peek().is_some() {
            let own: Vec<&IpNet> = sides.flat_map(|side| &side.addresses).collect();
            return addresses.iter().find_map(|address| {
                let same = |own: &&&IpNet| own.addr().is_ipv4() == address.is_ipv4();
                let near = own.iter().find(|own| own.contains(address));
                let from = near.or_else(|| own.iter().find(same))?;
                Some((*address, AskedFrom::Address(from.addr())))
            });
        }
        let management = self.management.as_ref()?;
        let is_peer = |address: &&IpAddr| management.peers.iter().any(|peer| peer.contains(*address));
        let address = addresses.iter().find(is_peer)?;
        Some((*address, AskedFrom::Interface(management.interface.clone())))
    }
}
