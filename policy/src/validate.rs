//! The document judged as a whole: do its names resolve, do its parts fit together, is its record complete?
//!
//! Reading (`document`) knows each value by itself; here they meet. Every function takes what could be read,
//! adds what is wrong, and goes on. What comes out is the typed [`Plant`], which holds by construction all that
//! `model` promises. Nothing here decides; `assurance` asks the compiler what gateways would check.

mod accepted;
mod assets;
mod assurance;
mod break_glass;
mod conduits;
mod elsewhere;
mod flows;
mod frames;
mod gateways;
mod granted;
mod inside;
mod interlock;
mod networks;
mod people;
mod plain;
mod records;
mod roles;
mod shared;
mod tunnels;
mod ways;
mod zones;

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::document::grammar::Document;
use crate::document::read::{At, Field, Key, Table};
use crate::document::scalars::Text;
use crate::document::suggest;
use crate::ids::{ConduitId, GatewayId, ZoneId};
use crate::model::{Owner, Plant, Site};

use self::networks::ZoneNetworks;

/// What the checks share: the document, and which addresses belong to which zone.
struct Context<'a> {
    document: &'a Document,
    networks: ZoneNetworks,
    today: Date,
}

/// The conduit that a flow belongs to, with those of its zones that exist.
struct Between<'a> {
    conduit: &'a ConduitId,
    from: Option<&'a ZoneId>,
    to: Option<&'a ZoneId>,
    /// The gateways that it crosses, as far as they are known.
    via: &'a BTreeSet<GatewayId>,
}

/// Judges a document that was read, and makes the plant of it. `None` if a part of it could not be made.
pub(crate) fn validate(document: &Document, today: Date, faults: &mut Faults) -> Option<Plant> {
    let ancestors = zones::ancestors(document, faults);
    let networks = ZoneNetworks::new(document, &ancestors, faults);
    let context = Context {
        document,
        networks,
        today,
    };
    let zones = zones::zones(&context, faults);
    let assets = assets::assets(&context, faults);
    let mut gateways = gateways::gateways(&context, faults);
    let conduits = conduits::conduits(&context, faults);
    if let Some(conduits) = &conduits {
        frames::too_many(conduits, document, faults);
    }
    if let (Some(gateways), Some(conduits)) = (&mut gateways, &conduits) {
        tunnels::lay(gateways, conduits, &context, faults);
    }
    let approvers = people::approvers(&context, faults);
    let remote_access = records::remote_access(&context, faults);
    let compensating_controls = records::compensating_controls(&context, faults);
    let risk = records::risk(&context, faults);
    let accepted = accepted::accepted(&context, faults);
    let break_glass = break_glass::break_glass(&context, faults);
    granted::check(document, faults);
    elsewhere::grants(document, faults);
    let id = document.plant.value()?.clone();
    let plant = Plant {
        title: text(&document.title).unwrap_or_else(|| id.to_string()),
        owner: owner(document),
        approvers: approvers?,
        sites: sites(document)?,
        gateways: gateways?,
        zones: zones?,
        assets: assets?,
        conduits: conduits?,
        remote_access: remote_access?,
        break_glass: break_glass?,
        compensating_controls: compensating_controls?,
        risk: risk?,
        accepted: accepted?,
        id,
    };
    assurance::too_weak(&plant, document, faults);
    Some(plant)
}

fn owner(document: &Document) -> Option<Owner> {
    let owner = document.owner.value()?;
    Some(Owner {
        organisation: text(&owner.organisation)?,
        contact: text(&owner.contact),
    })
}

fn sites(document: &Document) -> Option<BTreeMap<crate::ids::SiteId, Site>> {
    each(document.sites.value(), |name, site| {
        Some(Site {
            title: text(&site.title).unwrap_or_else(|| name.to_string()),
            timezone: site.timezone.value()?.0.clone(),
        })
    })
}

/// The text of a field, if it is given.
fn text(field: &Field<Text>) -> Option<String> {
    field.value().map(|text| text.0.clone())
}

/// The texts of a field that is one or a list.
fn texts(field: &Field<crate::document::read::OneOrMany<Text>>) -> Vec<String> {
    field.value().map_or_else(Vec::new, |list| {
        list.0.iter().map(|at| at.value.0.clone()).collect()
    })
}

/// Makes each entry of a section. All are tried, so that every one's faults are said; `None` if any failed.
fn each<K: Key, T, U>(
    table: Option<&Table<K, T>>,
    mut make: impl FnMut(&K, &T) -> Option<U>,
) -> Option<BTreeMap<K, U>> {
    let Some(table) = table else {
        return Some(BTreeMap::new());
    };
    let mut made = BTreeMap::new();
    let mut whole = true;
    for (name, named) in &table.0 {
        match named.value.as_ref().and_then(|value| make(name, value)) {
            Some(value) => {
                made.insert(name.clone(), value);
            }
            None => whole = false,
        }
    }
    whole.then_some(made)
}

/// Whether `reference` names an entry of the section; a fault says if not.
fn resolves<K: Key, T>(
    reference: &At<K>,
    table: Option<&Table<K, T>>,
    what: &str,
    faults: &mut Faults,
) -> bool {
    if table.is_some_and(|table| table.0.contains_key(&reference.value)) {
        return true;
    }
    let fault = Fault::new(
        Code::UnknownName,
        reference.place,
        format!("there is no {what} `{}`", reference.value),
    )
    .label(format!("unknown {what}"));
    // Beyond what is listed a fault is only counted, and the search for a likely name not worth its cost.
    let known = table.into_iter().flat_map(|table| table.0.keys()).map(Key::text);
    faults.add(if faults.full() {
        fault
    } else {
        fault.help(suggest::help(reference.value.text(), known))
    });
    false
}

/// The reference of an optional field, judged if it is given.
fn resolve<K: Key, T>(
    field: &Field<K>,
    table: Option<&Table<K, T>>,
    what: &str,
    faults: &mut Faults,
) -> Option<K> {
    let reference = field.get()?;
    resolves(reference, table, what, faults).then(|| reference.value.clone())
}

/// The zones that contain a zone, nearest first.
type Ancestors = BTreeMap<ZoneId, Vec<ZoneId>>;
