//! The plant as it was meant: typed, checked, complete. Only `validate` makes one from a document.
//!
//! Everything here holds by construction: every name resolves, every conduit crosses two different zones,
//! every flow's ends lie in those zones, no list that grants something is empty.
//! What a gateway enforces of it is the plan's ([`crate::plan`]), in part with the same types.

mod conduit;
mod gateway;
mod overriders;
mod people;
mod public_key;
mod records;
mod zone;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use conduit::{BridgeSource, Conduit, Enforcer, Flow, FlowEnd, FrameFlow, Service};
pub use gateway::{Gateway, Interface, ManagementAccess, SafeToChange, Site, TunnelEnd};
pub use overriders::{LONGEST_DEFAULT_S, Overrider, Overriders};
pub use people::{Approver, ApproverSet, Owner};
pub use public_key::{APPLICATION_BYTES_MAX, Application, KeyForm, PublicKey, PublicKeyError};
pub use records::{Acceptance, CompensatingControl, RemoteAccess, Risk};
pub use zone::{Asset, Consequence, SlVector, Zone, ZoneKind};

pub use crate::change::{Condition, Window};
use crate::ids::{AssetId, ConduitId, ControlId, GatewayId, GrantId, PlantId, SiteId, ZoneId};
use crate::terms::Enforcement;

/// A whole plant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plant {
    /// Its name: the trust domain of every identity.
    pub id: PlantId,
    /// For people.
    pub title: String,
    /// Organisation and contact.
    pub owner: Option<Owner>,
    /// Who may approve releases, and how many it takes.
    pub approvers: ApproverSet,
    /// Sites by name.
    pub sites: BTreeMap<SiteId, Site>,
    /// Gateways by name.
    pub gateways: BTreeMap<GatewayId, Gateway>,
    /// Zones by name.
    pub zones: BTreeMap<ZoneId, Zone>,
    /// Assets by name.
    pub assets: BTreeMap<AssetId, Asset>,
    /// Conduits by name.
    pub conduits: BTreeMap<ConduitId, Conduit>,
    /// Time-boxed remote access.
    pub remote_access: BTreeMap<GrantId, RemoteAccess>,
    /// Who may override a gateway in front of it; `None`: nobody.
    pub break_glass: Option<Overriders>,
    /// Compensating controls (IEC 62443-3-2 ZCR 5.12, 62443-2-1).
    pub compensating_controls: BTreeMap<ControlId, CompensatingControl>,
    /// Risk assessment (IEC 62443-3-2 ZCR 5), as recorded.
    pub risk: Vec<Risk>,
    /// Findings of `check` that people live with, in the order of their codes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Acceptance>,
}

impl Plant {
    /// The conduits that are open only while a grant of remote access lasts.
    pub fn limited(&self) -> BTreeSet<&ConduitId> {
        let named = self.remote_access.values().map(|access| &access.conduit);
        let say_so = self.conduits.iter().filter(|(_, conduit)| conduit.only_by_grant);
        named.chain(say_so.map(|(id, _)| id)).collect()
    }

    /// Whether both zones of a conduit only observe: what its gateways refuse passes, and is recorded.
    pub fn only_observes(&self, conduit: &Conduit) -> bool {
        [&conduit.from, &conduit.to].into_iter().all(|zone| {
            let zone = self.zones.get(zone);
            zone.is_some_and(|zone| zone.enforcement == Enforcement::Observe)
        })
    }

    /// Whether a flow whose ends prove too little stays as it is, since its zones only observe and it is nothing that would pass by itself: the
    /// gateway carries it from broker to broker, or ends the TLS that its server does not speak.
    pub fn spares(&self, conduit: &Conduit, flow: &Flow) -> bool {
        let ends_tls = flow.tls.as_ref().is_some_and(|tls| tls.plain_port.is_some());
        (flow.is_bridge() || ends_tls) && self.only_observes(conduit)
    }

    /// Whether a conduit is open only while a grant of remote access lasts.
    pub fn is_limited(&self, conduit: &ConduitId) -> bool {
        let named = self
            .remote_access
            .values()
            .any(|access| access.conduit == *conduit);
        named
            || self
                .conduits
                .get(conduit)
                .is_some_and(|conduit| conduit.only_by_grant)
    }
}
