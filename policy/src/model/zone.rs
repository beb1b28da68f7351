//! Zones and the assets in them (IEC 62443-3-2 ZCR 3).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ids::ZoneId;
use crate::terms::{Assurance, Enforcement};

/// Kinds of zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // The names are the standard's own.
pub enum ZoneKind {
    Enterprise,
    Dmz,
    Operations,
    Control,
    Safety,
    Wireless,
    RemoteAccess,
    Transient,
    External,
}

/// What a compromise of the zone can lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Consequence {
    None,
    Business,
    Production,
    Environment,
    Safety,
}

/// A security level per foundational requirement (IEC 62443-1-1), each 0–4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct SlVector {
    pub iac: u8,
    pub uc: u8,
    pub si: u8,
    pub dc: u8,
    pub rdf: u8,
    pub tre: u8,
    pub ra: u8,
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Zone {
    /// For people.
    pub title: String,
    /// Kind.
    pub kind: ZoneKind,
    /// The zone that contains it.
    pub parent: Option<ZoneId>,
    /// Target security level.
    pub sl_target: Option<SlVector>,
    /// Its networks, without what belongs to the zones inside it, so that no two zones' networks overlap;
    /// together with its assets' addresses all that may be seen there.
    pub networks: Vec<IpNet>,
    /// Consequence class.
    pub consequence: Option<Consequence>,
    /// Accountable organisation or role (62443-3-2 ZCR 6.4).
    pub accountable: Option<String>,
    /// Physical or logical boundary, in words (ZCR 6.4).
    pub boundary: Option<String>,
    /// Security requirements and policies that apply, in words (ZCR 6.4).
    pub requirements: Vec<String>,
    /// Assumptions and external dependencies (ZCR 6.4).
    pub assumptions: Vec<String>,
    /// Observe or enforce; default: `enforce`.
    pub enforcement: Enforcement,
}

/// An asset.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asset {
    /// For people.
    pub title: Option<String>,
    /// What it is called in the plant, beside its name here; unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Its zone.
    pub zone: ZoneId,
    /// Its addresses; may be empty for an asset that is only recorded.
    pub addresses: Vec<IpAddr>,
    /// MAC address, as written.
    pub mac: Option<String>,
    /// Role (`plc`, `hmi`, `historian`, …).
    pub role: Option<String>,
    /// Vendor.
    pub vendor: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Firmware.
    pub firmware: Option<String>,
    /// Criticality as written (`low`, `medium`, `high`, `safety`).
    pub criticality: Option<String>,
    /// What it can do by itself (IEC 62443-4-2).
    pub sl_capability: Option<SlVector>,
    /// How well it can prove who it is, for the record: what counts is what a gateway checks ([`Proof`](crate::terms::Proof)).
    pub identity: Option<Assurance>,
}
