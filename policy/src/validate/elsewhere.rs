//! Conduits that no gateway of the plant enforces: nothing in them looks as though one did.

use std::collections::BTreeSet;

use super::inside::is_bridge;
use super::ways::Ways;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar::{Allow, Conduit, Document};
use crate::ids::{ConduitId, GatewayId, ZoneId};

/// Judges a conduit that says `enforced_by`; the gateways that it crosses, which are none.
pub(super) fn check(
    name: &ConduitId,
    conduit: &Conduit,
    (from, to): (&ZoneId, &ZoneId),
    ways: &Ways<'_>,
    faults: &mut Faults,
) -> BTreeSet<GatewayId> {
    for (key, at) in [
        ("via", conduit.via.get().map(|at| at.place)),
        ("tunnel", conduit.tunnel.get().map(|at| at.place)),
        ("on_agent_loss", conduit.on_agent_loss.get().map(|at| at.place)),
        ("only_by_grant", conduit.only_by_grant.get().map(|at| at.place)),
        (
            "minimum_assurance",
            conduit.minimum_assurance.get().map(|at| at.place),
        ),
    ] {
        if let Some(at) = at {
            promised(
                name,
                &format!("`{key}` is written at the conduit `{name}`"),
                at,
                faults,
            );
        }
    }
    let flows = conduit
        .flows
        .value()
        .into_iter()
        .flat_map(|table| table.readable());
    for (flow, _, record) in flows {
        let limited = record
            .allow
            .get()
            .filter(|at| matches!(at.value, Allow::Operations(_)));
        let bridge = record
            .service
            .get()
            .filter(|service| is_bridge(&service.value.source().value));
        let inside = [
            ("lists operations", limited.map(|at| at.place)),
            ("has `roles`", record.roles.get().map(|at| at.place)),
            ("has `tls`", record.tls.get().map(|at| at.place)),
            ("is a bridge", bridge.map(|at| at.place)),
            // No gateway would notice that it fell silent.
            (
                "must flow",
                record.must_flow.get().filter(|at| at.value).map(|at| at.place),
            ),
        ];
        for (what, at) in inside {
            if let Some(at) = at {
                promised(name, &format!("the flow `{name}/{flow}` {what}"), at, faults);
            }
        }
    }
    let between = ways.all_between(from, to);
    if let (Some(gateway), Some(at)) = (between.first(), conduit.enforced_by.get()) {
        faults.add(
            Fault::new(
                Code::NotEnforcedHere,
                at.place,
                format!(
                    "the gateway `{gateway}` stands between `{from}` and `{to}`, and drops what no conduit of its own permits"
                ),
            )
            .label("enforced by a gateway after all")
            .help("take `enforced_by` out, so that the gateway lets the conduit's flows pass"),
        );
    }
    BTreeSet::new()
}

fn promised(name: &ConduitId, what: &str, at: Place, faults: &mut Faults) {
    faults.add(
        Fault::new(
            Code::NotEnforcedHere,
            at,
            format!("{what}, but no gateway enforces `{name}`"),
        )
        .label("nobody would do this")
        .help("remove it, or take `enforced_by` out"),
    );
}

/// Refuses grants of remote access to such conduits: nobody would open or close them.
pub(super) fn grants(document: &Document, faults: &mut Faults) {
    let conduits = document.conduits.value();
    let grants = document.remote_access.value().into_iter();
    for (name, _, grant) in grants.flat_map(|table| table.readable()) {
        let Some(conduit) = grant.conduit.get() else {
            continue;
        };
        let elsewhere = conduits
            .and_then(|table| table.get(&conduit.value))
            .is_some_and(|record| !record.enforced_by.is_absent());
        if elsewhere {
            promised(
                &conduit.value,
                &format!("the grant `{name}` is to open the conduit"),
                conduit.place,
                faults,
            );
        }
    }
}
