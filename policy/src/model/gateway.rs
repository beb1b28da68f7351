//! Sites, and the gateways that stand at the zones' borders.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Serialize;

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
    /// Labels; recorded only.
    pub labels: BTreeMap<String, String>,
    /// Guarded interfaces by kernel name.
    pub interfaces: BTreeMap<String, Interface>,
    /// The way in for people and the coordinator.
    pub management: Option<ManagementAccess>,
    /// Change windows, as written (`Sun 02:00-04:00`), in the site's time; recorded only.
    pub windows: Vec<Window>,
    /// What must hold in the process before a change; recorded only.
    pub safe_to_change: Option<SafeToChange>,
    /// The other gateway of a redundant pair.
    pub redundant_with: Option<GatewayId>,
    /// Foreign change of the kernel's table.
    pub on_drift: OnDrift,
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

/// A weekly change window. Minutes since midnight, site time; `end` above `start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// 0 = Monday … 6 = Sunday.
    pub weekday: u8,
    /// First minute.
    pub start_minute: u16,
    /// First minute after it.
    pub end_minute: u16,
}

/// A condition in the process that makes a change safe, read by Modbus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SafeToChange {
    /// The asset that is asked.
    pub modbus: AssetId,
    /// The coil that tells.
    pub coil: u16,
    /// The value that means "safe".
    pub is: bool,
}
