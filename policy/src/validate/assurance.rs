//! Ends of flows that prove less than their conduit asks for, and so will be denied: said before anybody signs.
//!
//! What an end proves is what the gateways' plans check of it, so this asks the compiler, and only of a document that asks for assurance.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::compile::compile_all;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar::{Document, End};
use crate::ids::{AssetId, ConduitId, FlowName, GatewayId};
use crate::model::{Flow, Plant};
use crate::plan::{FlowSide, Unproven, WeakEnd};
use crate::terms::{Assurance, Proof};
use crate::words::and;

/// A flow's end as the document writes it, and what it proves.
type Weak<'a> = (&'a ConduitId, &'a FlowName, FlowSide, String, Proof);

/// Warns of each end that will be denied.
pub(super) fn too_weak(plant: &Plant, document: &Document, faults: &mut Faults) {
    if plant
        .conduits
        .values()
        .all(|conduit| conduit.minimum_assurance.is_none())
    {
        return;
    }
    // A plant that cannot be compiled is refused for that, where its plans are made.
    let Ok(plans) = compile_all(plant) else { return };
    let mut weak: BTreeMap<Weak<'_>, (BTreeSet<&GatewayId>, BTreeSet<IpNet>)> = BTreeMap::new();
    for (gateway, plan) in &plans {
        for denied in &plan.unproven {
            for end in &denied.weak {
                let (gateways, networks) = weak.entry(named(denied, end)).or_default();
                gateways.insert(gateway);
                networks.insert(end.end.network);
            }
        }
    }
    for ((id, name, side, end, proof), (gateways, networks)) in weak {
        let Some(conduit) = plant.conduits.get(id) else {
            continue;
        };
        let (Some(flow), Some(minimum)) = (conduit.flows.get(name), conduit.minimum_assurance) else {
            continue;
        };
        let Some(place) = place_of(document, (id, name), side, &end) else {
            continue;
        };
        let denied = match plant.only_observes(conduit) {
            true => "would be denied (its zones only observe)",
            false => "is denied",
        };
        let asset = end.parse::<AssetId>().ok();
        let asset = asset.and_then(|asset| plant.assets.get(&asset));
        // Of an asset with other addresses that prove enough.
        let part = match asset {
            Some(asset) if asset.addresses.len() > networks.len() => {
                format!(" at {}", and(networks.iter().map(IpNet::addr)))
            }
            _ => String::new(),
        };
        let message = format!(
            "the flow `{id}/{name}` {denied} {} `{end}`{part}, which proves who it is {proof} at {}; `{id}` asks for {minimum}",
            match side {
                FlowSide::Source => "from",
                FlowSide::Destination => "to",
            },
            and(gateways.iter().map(|gateway| format!("`{gateway}`")))
        );
        let help = match minimum {
            Assurance::D5 => {
                "no gateway can tell where a device keeps its key: ask for `D4`, and record the hardware as the asset's `identity`"
                    .to_owned()
            }
            Assurance::D0 | Assurance::D1 => of_address(asset.is_some_and(|asset| asset.mac.is_some())),
            Assurance::D2 | Assurance::D3 | Assurance::D4 => of_certificate(flow, side, minimum),
        };
        faults.add(
            Fault::new(Code::AssuranceTooLow, place, message)
                .label("proves too little")
                .help(format!("{help}; or lower `minimum_assurance`")),
        );
    }
}

fn named<'a>(denied: &'a Unproven, end: &WeakEnd) -> Weak<'a> {
    let name = end.end.name.to_string();
    (&denied.conduit, &denied.flow, end.side, name, end.proof)
}

/// What lifts an end to D1.
fn of_address(has_mac: bool) -> String {
    match has_mac {
        true => "its packets reach the gateway through a router: name it where it is attached itself, lead the conduit through a \
                 `tunnel` from the gateway there, or end TLS at the gateway (`tls`)",
        false => "name an asset and write its `mac`, where it is attached to the gateway itself; give it an interface of its own; or \
                  end TLS at the gateway (`tls`)",
    }
    .to_owned()
}

/// What lifts an end to a certificate.
fn of_certificate(flow: &Flow, side: FlowSide, minimum: Assurance) -> String {
    let help = match (side, &flow.tls) {
        _ if flow.is_bridge() => "speak TLS to both brokers, by certificates of the plant",
        (_, Some(tls)) if tls.plain_port.is_none() && tls.server_authorities.is_none() => {
            "its TLS does not count while it may pass unread: write `on_agent_loss: block`, and name an asset"
        }
        (FlowSide::Source, Some(_)) => {
            "its TLS does not count while it may pass unread: write `on_agent_loss: block`"
        }
        (FlowSide::Source, None) => {
            "end its TLS at the gateway, by a certificate of the plant: `tls`, or `tls: { server: plain }` where the server speaks none"
        }
        (FlowSide::Destination, Some(tls)) if tls.plain_port.is_some() => {
            "a server that speaks no TLS proves its address alone: let it speak TLS, with `tls: {}`"
        }
        (FlowSide::Destination, Some(_)) if minimum == Assurance::D4 => {
            "let the server show a certificate of the plant (leave `server_authorities` out)"
        }
        (FlowSide::Destination, _) => {
            "let the server speak TLS that ends at the gateway, with a certificate of the plant (`tls: {}`)"
        }
    };
    help.to_owned()
}

/// Where the document names the end.
fn place_of(
    document: &Document,
    (conduit, flow): (&ConduitId, &FlowName),
    side: FlowSide,
    end: &str,
) -> Option<Place> {
    let flow = document
        .conduits
        .value()?
        .get(conduit)?
        .flows
        .value()?
        .get(flow)?;
    let ends = match side {
        FlowSide::Source => flow.source.value()?,
        FlowSide::Destination => flow.destination.value()?,
    };
    let written = |at: &End| match at {
        End::Asset(asset) => asset.as_str() == end,
        End::Zone(zone) => end.strip_prefix("zone:") == Some(zone.as_str()),
    };
    ends.0.iter().find(|at| written(&at.value)).map(|at| at.place)
}
