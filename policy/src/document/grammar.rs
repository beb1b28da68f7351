//! The grammar: every section of a plant document with its keys, as written and not yet judged together.
//!
//! The text above each field is what editors show and what the help of a missing key says. `docs/plant-document.md`
//! explains the same for people, and a test holds the two together.

mod accepted;
mod enforced_by;
mod frames;
mod requirement;
mod templates;

use std::net::IpAddr;

use serde_json::{Value, json};

use super::addresses::{Addresses, HardwareAddress, InterfaceAddress, Peer, ZoneNetworks};
use super::break_glass::BreakGlass;
use super::names::{InterfaceName, LabelKey};
use super::node::{Kind, Node};
use super::per_end::PerEnd;
use super::read::{List, OneOrMany, Table, Term, record, scalar, wrong_shape};
use super::scalars::{Number, Text, Wanted};
use super::times::{Day, Moment, Windows, ZoneName};
use super::tls::{AskedTls, Tls};
use super::vocabulary::Criticality;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::ids::{
    ApproverId, AssetId, ConduitId, ControlId, FlowName, GatewayId, GrantId, PlantId, RoleName, SiteId,
    ZoneId,
};
use crate::model::{Consequence, PublicKey, Service, SlVector, ZoneKind};
use crate::terms::{Answers, Assurance, Enforcement, GatewayMode, OnAgentLoss, OnDrift, OnRefusal};

pub(crate) use self::accepted::Accepted;
pub(crate) use self::enforced_by::EnforcedBy;
pub(crate) use self::frames::FrameFlow;
pub(crate) use self::requirement::Requirement;
pub(crate) use self::templates::ZonesOrGroups;
use self::templates::{Groups, Stations, Templates};

record! {
    /// A plant: its zones, the conduits between them, and who answers for them.
    Document "a plant document" {
        /// The plant's name: the trust domain of every identity in it.
        required plant: PlantId,
        /// What people call it.
        optional title: Text,
        /// The organisation that owns it, and where to ask.
        optional owner: Owner,
        /// Who signs releases, and how many signatures it takes.
        required approvers: Approvers,
        /// Places, each with its own clock.
        required sites: Table<SiteId, Site>,
        /// Edge gateways.
        optional gateways: Table<GatewayId, Gateway>,
        /// Zones (IEC 62443-3-2): assets with the same security requirements.
        required zones: Table<ZoneId, Zone>,
        /// Assets that live in the zones.
        optional assets: Table<AssetId, Asset>,
        /// Conduits: the only ways between zones.
        optional conduits: Table<ConduitId, Conduit>,
        /// Remote access, each grant for a time.
        optional remote_access: Table<GrantId, RemoteAccess>,
        /// Who in front of a gateway may override it for a while (break-glass).
        optional break_glass: BreakGlass,
        /// What is done instead where a requirement cannot be met.
        optional compensating_controls: Table<ControlId, CompensatingControl>,
        /// The risk assessment, one entry for each threat.
        optional risk: List<Risk>,
        /// Findings of `check` that people live with, each for a time.
        optional accepted: List<Accepted>,
        /// What equal stations have in common, with placeholders such as `$(station)` and `$(net + 5)`.
        optional templates: Templates,
        /// Stations that are made from templates, each with its parameters.
        optional stations: Stations,
        /// Assets and zones that are named together, `group:NAME`.
        optional groups: Groups,
    }
}

record! {
    /// Who owns the plant.
    Owner "the plant's owner" {
        /// The organisation's name.
        required organisation: Text,
        /// A mail address, telephone number or web address.
        optional contact: Text,
    }
}

record! {
    /// The people whose signatures make a release valid.
    Approvers "the approvers" {
        /// How many different people must sign, none of them the author. At least 1.
        required threshold: Number<1, 255>,
        /// How many must sign an emergency, which waits for no window. More than `threshold`, or everybody. Without it there are none.
        optional emergency_threshold: Number<1, 255>,
        /// The people by name.
        required people: Table<ApproverId, Approver>,
    }
}

record! {
    /// One approver.
    Approver "an approver" {
        /// The public key: `ed25519:` and 64 hexadecimal digits, or the line of an OpenSSH `.pub` file (`ssh-ed25519 …`,
        /// `sk-ssh-ed25519@openssh.com …`; `verify-required` before the latter demands a PIN or fingerprint).
        required key: PublicKey,
        /// What the person is in the plant.
        optional role: Text,
    }
}

record! {
    /// A place with its own clock.
    Site "a site" {
        /// What people call it.
        optional title: Text,
        /// The IANA name of its time zone, such as `Europe/Berlin`.
        required timezone: ZoneName,
    }
}

record! {
    /// An edge gateway.
    Gateway "a gateway" {
        /// The site it stands in.
        required site: SiteId,
        /// `routed`, or `bridged` (bump in the wire: no address in the plant changes).
        required mode: GatewayMode,
        /// Labels, by which rollouts choose gateways. `lab`: it carries nothing that matters, and comes first. `cell`: what is not to be
        /// changed together with it; without one, its site.
        optional labels: Table<LabelKey, Text>,
        /// The interfaces it guards, by their kernel's names.
        required interfaces: Table<InterfaceName, Interface>,
        /// The way in for people; every other way to the gateway's own ports is closed, also without it.
        optional management: Management,
        /// When it may be changed: `Sun 02:00-04:00`, one or a list, in the site's time; without it at any time. A change begins only if its
        /// trial ends within.
        optional window: OneOrMany<Windows>,
        /// What must hold in the process for a change to begin; the gateway asks for it. Without it nothing is asked.
        optional safe_to_change: SafeToChange,
        /// The other gateway of a redundant pair, which names this one. A rollout never changes one while the other is on trial; both may
        /// end the TLS of a flow.
        optional redundant_with: GatewayId,
        /// What to do when something else changed its ruleset: `repair` (default) or `report`.
        optional on_drift: OnDrift,
        /// Where its tunnels to other gateways end, which carry the conduits with `tunnel: yes`. Routed gateways only.
        optional tunnel: TunnelEnd,
    }
}

record! {
    /// Where a gateway's tunnels end.
    TunnelEnd "the end of tunnels" {
        /// The interface towards the network that is not trusted. What lies behind it on the other side of a tunnel is reached through
        /// the tunnel alone.
        required interface: InterfaceName,
        /// Where the other gateways reach this one: an address of its own, or one that leads to it. Without it, it connects to them.
        optional address: IpAddr,
        /// UDP port; default 4433.
        optional port: Number<1, 65535>,
    }
}

record! {
    /// A guarded interface.
    Interface "an interface" {
        /// The zone that is attached to it.
        required zone: ZoneId,
        /// Zones further away that are reached through it, one or a list, or `group:NAME`.
        optional behind: ZonesOrGroups,
        /// Routers on that side, addresses or networks, one or a list: they may send ICMP errors; on a bridged gateway also
        /// router advertisements (by their link-local address), and stand between hosts of this side and the others.
        optional routers: OneOrMany<Peer>,
        /// A routed gateway's own addresses there, each with its prefix, one or a list (IPv4 and IPv6).
        optional address: OneOrMany<InterfaceAddress>,
    }
}

record! {
    /// Management access to a gateway.
    Management "management access" {
        /// The interface it comes in by.
        required interface: InterfaceName,
        /// Addresses or networks that may use it, one or a list.
        required peers: OneOrMany<Peer>,
    }
}

record! {
    /// What the gateway asks the process before it changes: a coil by Modbus/TCP, or a retained message at an MQTT 5 broker.
    SafeToChange "a condition in the process" {
        /// The asset that is asked for a coil. It, or `mqtt`.
        optional modbus: AssetId,
        /// The coil that says it, 0–65535, counted as on the wire.
        optional coil: Number<0, 65535>,
        /// The Modbus unit; default 255, the device itself. Behind a gateway to a serial line it is the device's number there.
        optional unit: Number<0, 255>,
        /// The broker that is asked for a retained message. It, or `modbus`.
        optional mqtt: AssetId,
        /// The topic of that message, without wildcards.
        optional topic: Text,
        /// The broker is spoken to inside TLS.
        optional tls: AskedTls,
        /// TCP port, if it is not the usual one: 502, 1883, with `tls` 8883.
        optional port: Number<1, 65535>,
        /// What means safe: of a coil `on` or `off`, of a topic the message, byte for byte. Anything else, and silence, is not safe.
        required is: Wanted,
    }
}

record! {
    /// A zone.
    Zone "a zone" {
        /// What people call it.
        optional title: Text,
        /// The kind of zone.
        required kind: ZoneKind,
        /// The zone that contains it.
        optional parent: ZoneId,
        /// Target security level: 0–4, or a vector over IAC UC SI DC RDF TRE RA.
        optional sl_target: SlVector,
        /// Its networks, one or a list; of one external zone `internet`: all public addresses that no other zone has.
        optional networks: ZoneNetworks,
        /// What a compromise can lead to.
        optional consequence: Consequence,
        /// The accountable organisation or role.
        optional accountable: Text,
        /// Its physical or logical boundary, in words.
        optional boundary: Text,
        /// Security requirements and policies that apply, in words.
        optional requirements: OneOrMany<Text>,
        /// Assumptions and external dependencies, in words.
        optional assumptions: OneOrMany<Text>,
        /// `enforce` (default), or `observe` while the zone is being adopted.
        optional enforcement: Enforcement,
    }
}

record! {
    /// An asset.
    Asset "an asset" {
        /// What people call it.
        optional title: Text,
        /// What it is called in the plant: on its label, in drawings and in other programs, such as `PLC_01` or `=A1+S2-K7`. Commands find it
        /// by this as well.
        optional tag: Text,
        /// The zone it lives in.
        required zone: ZoneId,
        /// Its address.
        optional address: IpAddr,
        /// Its addresses, if it has several; `10.20.4.10-10.20.4.19` for some in a row.
        optional addresses: List<Addresses>,
        /// Its MAC address.
        optional mac: HardwareAddress,
        /// What it is: `plc`, `hmi`, `historian` …
        optional role: Text,
        /// Who made it.
        optional vendor: Text,
        /// Which model it is.
        optional model: Text,
        /// Which firmware it runs.
        optional firmware: Text,
        /// How much the plant depends on it.
        optional criticality: Criticality,
        /// What it can do by itself (IEC 62443-4-2): 0–4, or a vector.
        optional sl_capability: SlVector,
        /// How well it can prove who it is, D0 (only its address) to D5 (a key in hardware): a record, what counts is what a gateway
        /// checks.
        optional identity: Assurance,
    }
}

record! {
    /// A conduit.
    Conduit "a conduit" {
        /// What people call it.
        optional title: Text,
        /// One of the two zones it joins: by custom that which opens most of its flows.
        required from: ZoneId,
        /// The other zone. Each flow leads from one of the two to the other, either way.
        required to: ZoneId,
        /// The gateways it crosses, one or a list; default: found from the interfaces.
        optional via: OneOrMany<GatewayId>,
        /// Who enforces it, if not the plant's gateways: `none` (nobody yet), or `{ other: WHAT }`. Such a conduit is recorded, drawn and counted in
        /// `reach`, and is in no plan.
        optional enforced_by: EnforcedBy,
        /// Target security level: 0–4, or a vector.
        optional sl_target: SlVector,
        /// What inspected flows do while no agent lives: `block` (default) or `pass`.
        optional on_agent_loss: OnAgentLoss,
        /// Whether it runs inside an encrypted tunnel between its two gateways (default: no), and never outside.
        optional tunnel: bool,
        /// Whether it is open only while a grant of remote access lasts. A conduit that a grant names is so in any case; with
        /// this it stays closed when its last grant is gone.
        optional only_by_grant: bool,
        /// The least assurance of identity that both ends of its flows prove to each gateway, D0 to D5; what proves less is denied.
        optional minimum_assurance: Assurance,
        /// The accountable organisation or role.
        optional accountable: Text,
        /// What may flow, by name. Required where there are no `frames`.
        optional flows: Table<FlowName, Flow>,
        /// What crosses bridged gateways beside IP, by name: PROFINET RT, GOOSE, PTP and the like.
        optional frames: Table<FlowName, FrameFlow>,
    }
}

record! {
    /// A flow: who may open a connection to whom, and what it may do.
    Flow "a flow" {
        /// What people call it.
        optional title: Text,
        /// Who opens it: an asset, `zone:NAME`, `group:NAME`, or a list.
        required source: OneOrMany<End>,
        /// To whom: an asset, `zone:NAME`, `group:NAME`, or a list.
        required destination: OneOrMany<End>,
        /// A service by name, `NAME:PORT`, `tcp/PORTS` or `udp/PORTS`; of a bridge, one for each end if they differ.
        required service: PerEnd<Service>,
        /// The operations it may use, or the word `any`.
        optional allow: Allow,
        /// What of these operations a client may use by the role in its certificate (Modbus/TCP Security): for each role operations, or
        /// the word `any`: all that the flow allows. Needs `tls`.
        optional roles: Table<RoleName, Allow>,
        /// The role of a client whose certificate names none; default: such a client may do nothing.
        optional default_role: RoleName,
        /// Whether its loss hurts the process.
        optional must_flow: bool,
        /// What a client gets for a refused operation: `answer` (default), `acknowledge`, `disconnect`, `reset`, `drop`.
        optional on_refusal: OnRefusal,
        /// Which Modbus answers belong to a request: those under its identifiers (`strict`, the default), or the next one that
        /// fits (`in-order`).
        optional answers: Answers,
        /// The client's TLS ends at the gateway, and how the gateway speaks to the server; of a bridge, for each end if they differ.
        optional tls: PerEnd<Tls>,
    }
}

/// One end of a flow, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// An asset.
    Asset(AssetId),
    /// A whole zone, `zone:NAME`.
    Zone(ZoneId),
}

impl Term for End {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "an asset or `zone:NAME`", faults)?;
        let end = match text.strip_prefix("zone:") {
            Some(zone) => ZoneId::new(zone).map(Self::Zone),
            None => AssetId::new(text).map(Self::Asset),
        };
        end.map_err(|error| {
            faults.add(
                Fault::new(Code::BadName, node.place, error.to_string())
                    .label("expected: an asset, or `zone:NAME`"),
            );
        })
        .ok()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^(zone:|group:)?[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$" })
    }
}

/// What a flow allows, as written: read only once its service is known.
#[derive(Debug, Clone)]
pub(crate) enum Allow {
    /// The word `any`.
    Any,
    /// Operations, at least one.
    Operations(Vec<Node>),
}

impl Term for Allow {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        match &node.kind {
            Kind::Scalar { text, .. } if text == "any" => Some(Self::Any),
            Kind::List(items) if items.is_empty() => {
                faults.add(
                    Fault::new(Code::EmptyList, node.place, "no operation is allowed")
                        .label("nothing in it")
                        .help("an empty list never means `any`: name the operations, write `allow: any`, or remove the flow"),
                );
                None
            }
            Kind::List(items) => Some(Self::Operations(items.clone())),
            _ => {
                wrong_shape(node, "a list of operations, or the word `any`,", faults);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "const": "any" },
            { "type": "array", "minItems": 1, "items": { "anyOf": super::operations::schemas() } },
        ] })
    }
}

record! {
    /// A grant of remote access.
    RemoteAccess "a grant of remote access" {
        /// Who is let in.
        required person: Text,
        /// The conduit that it opens, which is closed at all other times.
        required conduit: ConduitId,
        /// What for.
        required reason: Text,
        /// From when, by the gateway's clock, such as `2027-06-30T14:00:00+02:00`.
        required from: Moment,
        /// Until when, at most 30 days later, such as `2027-06-30T18:00:00+02:00`.
        required until: Moment,
        /// The approver who granted it.
        required approved_by: ApproverId,
    }
}

record! {
    /// A compensating control.
    CompensatingControl "a compensating control" {
        /// The zone it stands in.
        optional zone: ZoneId,
        /// The asset it stands for.
        optional asset: AssetId,
        /// The conduit it stands for.
        optional conduit: ConduitId,
        /// The requirement that is not met as it stands: `SR 1.2`, `CR 1.1 RE 1`.
        required requirement: Requirement,
        /// Why it is not met.
        required reason: Text,
        /// What is done instead.
        required measure: Text,
        /// The approver who accepted it.
        required approved_by: ApproverId,
        /// The last day on which it holds, such as `2027-06-30`.
        required expires: Day,
    }
}

record! {
    /// An entry of the risk assessment (IEC 62443-3-2 ZCR 5).
    Risk "a risk" {
        /// The threat, in words.
        required threat: Text,
        /// The zone it concerns.
        optional zone: ZoneId,
        /// The conduit it concerns.
        optional conduit: ConduitId,
        /// 1 (rare) to 5 (expected).
        required likelihood: Number<1, 5>,
        /// 1 (slight) to 5 (disastrous).
        required impact: Number<1, 5>,
        /// Likelihood × impact after the countermeasures, 1–25.
        optional residual: Number<1, 25>,
        /// Countermeasures, in words, one or a list.
        optional countermeasures: OneOrMany<Text>,
    }
}

/// Entries of a risk list are never compared: the same threat may be recorded twice.
impl PartialEq for Risk {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}
