//! Accepted findings: what each names exists, somebody answers for it, and no finding is accepted twice.
//!
//! Whether there is such a finding only `check` knows, which looks at plans.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, records, text};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::grammar::{Accepted, Document};
use crate::document::node::excerpt;
use crate::document::read::{Field, Key, Table};
use crate::document::suggest;
use crate::model::Acceptance;

pub(super) fn accepted(context: &Context<'_>, faults: &mut Faults) -> Option<Vec<Acceptance>> {
    let document = context.document;
    if matches!(document.accepted, Field::Faulty) {
        return None;
    }
    let mut made = BTreeMap::new();
    let mut places: BTreeMap<(&str, BTreeSet<String>, Option<String>), Place> = BTreeMap::new();
    let mut whole = true;
    for at in document.accepted.value().into_iter().flat_map(|list| &list.0) {
        let Some(acceptance) = one(&at.value, context, faults) else {
            whole = false;
            continue;
        };
        let Some(code) = at.value.code.value() else {
            continue;
        };
        let key = (code.0.as_str(), acceptance.names.clone(), acceptance.says.clone());
        if let Some(first) = places.get(&key) {
            faults.add(
                Fault::new(
                    Code::NotAccepted,
                    at.place,
                    format!("the same finding {} is accepted twice", code.0),
                )
                .label("again here")
                .related(*first, "first here")
                .help("keep one of the two"),
            );
            continue;
        }
        places.insert(key.clone(), at.place);
        made.insert(key, acceptance);
    }
    whole.then(|| made.into_values().collect())
}

fn one(accepted: &Accepted, context: &Context<'_>, faults: &mut Faults) -> Option<Acceptance> {
    let mut names = BTreeSet::new();
    let mut known = true;
    for name in accepted.r#where.value().into_iter().flat_map(|list| &list.0) {
        known &= exists(&name.value.0, name.place, context.document, faults);
        names.insert(name.value.0.clone());
    }
    let by = records::approver(&accepted.by, context, faults);
    let code = accepted.code.value();
    let expires = accepted.expires.get();
    let expired = expires.is_some_and(|expires| expires.value.0 < context.today);
    if let (Some(code), Some(expires)) = (code, expires.filter(|_| expired)) {
        faults.add(
            Fault::new(
                Code::Expired,
                expires.place,
                format!("{} is no longer accepted: that has expired", code.0),
            )
            .label("in the past")
            .help("have it accepted again with a new date, or mend what was found"),
        );
    }
    let reason = text(&accepted.reason);
    accepted.r#where.value()?;
    if !known {
        return None;
    }
    Some(Acceptance {
        code: code?.0.clone(),
        names,
        says: text(&accepted.says),
        by: by?,
        reason: reason?,
        expires: expires?.value.0.to_string(),
        expired,
    })
}

/// Whether the document defines something of that name; a fault says if not.
fn exists(name: &str, place: Place, document: &Document, faults: &mut Faults) -> bool {
    fn in_table<K: Key, T>(table: Option<&Table<K, T>>, name: &str) -> bool {
        K::parse(name).is_ok_and(|name| table.is_some_and(|table| table.0.contains_key(&name)))
    }
    let flow = name.split_once('/').is_some_and(|(conduit, flow)| {
        let conduits = document.conduits.value();
        let conduit = conduits.and_then(|table| table.0.iter().find(|(id, _)| id.text() == conduit));
        let flows = conduit.and_then(|(_, named)| named.value.as_ref()?.flows.value());
        in_table(flows, flow)
    });
    let known = flow
        || in_table(document.zones.value(), name)
        || in_table(document.conduits.value(), name)
        || in_table(document.assets.value(), name)
        || in_table(document.gateways.value(), name);
    if !known {
        let conduits = document
            .conduits
            .value()
            .into_iter()
            .flat_map(|table| table.0.keys())
            .map(Key::text);
        let zones = document
            .zones
            .value()
            .into_iter()
            .flat_map(|table| table.0.keys())
            .map(Key::text);
        let near = suggest::nearest(name, conduits.chain(zones));
        faults.add(
            Fault::new(
                Code::UnknownName,
                place,
                format!("there is nothing called `{}`", excerpt(name)),
            )
            .label("unknown name")
            .help(near.map_or_else(
                || {
                    "name a flow (`CONDUIT/FLOW`), conduit, zone, asset or gateway, as the finding does"
                        .to_owned()
                },
                |near| format!("did you mean `{near}`?"),
            )),
        );
    }
    known
}
