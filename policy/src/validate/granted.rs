//! Conduits that grants of remote access open: what they may carry, and that they say so themselves.

use std::collections::BTreeMap;

use super::inside::is_bridge;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::document::grammar::{Conduit, Document};
use crate::document::read::At;
use crate::ids::{ConduitId, GrantId};

/// Judges each conduit that is closed but for its grants.
pub(super) fn check(document: &Document, faults: &mut Faults) {
    let mut named: BTreeMap<&ConduitId, (&GrantId, &At<ConduitId>)> = BTreeMap::new();
    let grants = document.remote_access.value().into_iter();
    for (name, _, grant) in grants.flat_map(|table| table.readable()) {
        if let Some(conduit) = grant.conduit.get() {
            named.entry(&conduit.value).or_insert((name, conduit));
        }
    }
    let conduits = document.conduits.value().into_iter();
    for (id, _, conduit) in conduits.flat_map(|table| table.readable()) {
        match (named.get(id), conduit.only_by_grant.value()) {
            (None, None | Some(false)) => {}
            (Some((grant, at)), None) => {
                faults.add(
                    Fault::new(
                        Code::StandsWithoutGrant,
                        at.place,
                        format!("the conduit `{id}` stands open once its last grant is gone"),
                    )
                    .label(format!("opened by the grant `{grant}`"))
                    .help(format!("write `only_by_grant: yes` at the conduit `{id}`")),
                );
                carried(id, conduit, faults);
            }
            (Some((grant, at)), Some(false)) => {
                let place = conduit.only_by_grant.get().map(|at| at.place);
                faults.add(
                    Fault::new(
                        Code::NotByGrant,
                        place,
                        format!(
                            "the conduit `{id}` is to stand open, but the grant `{grant}` opens it for a time"
                        ),
                    )
                    .label("contradicts the grant")
                    .related(at.place, "the grant")
                    .help("write `only_by_grant: yes`, or take the grant out"),
                );
            }
            (_, Some(true)) => carried(id, conduit, faults),
        }
    }
}

/// What cannot wait for a grant.
fn carried(id: &ConduitId, conduit: &Conduit, faults: &mut Faults) {
    for (name, named) in conduit.frames.value().into_iter().flat_map(|table| &table.0) {
        faults.add(
            Fault::new(
                Code::NotByGrant,
                named.key_place,
                format!(
                    "the frames `{id}/{name}` would pass at all times, but their conduit is closed between grants of remote access"
                ),
            )
            .label("no timer closes what is not IP")
            .help("put them into a conduit of their own, which stands open"),
        );
    }
    for (name, _, flow) in conduit
        .flows
        .value()
        .into_iter()
        .flat_map(|table| table.readable())
    {
        let bridge = flow
            .service
            .get()
            .filter(|service| is_bridge(&service.value.source().value));
        let must = flow.must_flow.get().filter(|must| must.value);
        let (place, what) = match (must, bridge) {
            (Some(must), _) => (must.place, "must flow"),
            (None, Some(service)) => (service.place, "is a bridge"),
            (None, None) => continue,
        };
        faults.add(
            Fault::new(
                Code::NotByGrant,
                place,
                format!(
                    "the flow `{id}/{name}` {what}, but its conduit is closed between grants of remote access"
                ),
            )
            .label(what)
            .help("put it into a conduit of its own, which stands open"),
        );
    }
}
