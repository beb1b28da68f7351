//! `break_glass`: people with a key of their own each, codes for gateways that there are, and somebody who can use it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::people::own_keys;
use super::{Context, each, resolves};
use crate::break_glass::{LONGEST, PEOPLE_NEEDED, SHORTEST};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::document::break_glass::{BreakGlass, Overrider as Written};
use crate::document::read::{At, Field};
use crate::ids::{Digest, GatewayId, SiteId};
use crate::model::{LONGEST_DEFAULT_S, Overrider, Overriders};

/// `Some(None)` where the document has none; `None` if a fault was added.
pub(super) fn break_glass(context: &Context<'_>, faults: &mut Faults) -> Option<Option<Overriders>> {
    let At { value: it, place } = match &context.document.break_glass {
        Field::Absent => return Some(None),
        Field::Faulty => return None,
        Field::Given(at) => at,
    };
    let before = faults.errors();
    let longest_s = longest(it, faults);
    if let Some(people) = it.people.value() {
        own_keys(
            people.readable().map(|(name, _, person)| (name, &person.key)),
            faults,
        );
    }
    let sites = context.document.sites.value();
    let people = each(it.people.value(), |_, person: &Written| {
        let here = match &person.sites {
            Field::Absent => None,
            Field::Faulty => return None,
            Field::Given(At { value: listed, .. }) => {
                let known = listed
                    .0
                    .iter()
                    .filter(|site| resolves(site, sites, "site", faults));
                Some(known.map(|site| site.value.clone()).collect())
            }
        };
        Some(Overrider {
            key: *person.key.value()?,
            sites: here,
        })
    });
    let sealed = sealed(context, it, faults);
    if !it.people.is_absent() || !it.sealed.is_absent() {
        enough(it, *place, faults);
    } else {
        let message = "`break_glass` names neither people nor a sealed code";
        faults.add(nobody(*place, message.to_owned(), "permits nobody anything"));
    }
    let is_read = !matches!(it.people, Field::Faulty) && !matches!(it.sealed, Field::Faulty);
    let (people, sealed, longest_s) = (people?, sealed?, longest_s?);
    if faults.errors() > before || !is_read {
        return None;
    }
    let made = Overriders {
        longest_s,
        people,
        sealed,
    };
    left_out(context, &made, *place, faults);
    Some(Some(made))
}

fn longest(it: &BreakGlass, faults: &mut Faults) -> Option<u32> {
    let At { value, place } = match &it.longest {
        Field::Absent => return Some(LONGEST_DEFAULT_S),
        Field::Faulty => return None,
        Field::Given(at) => at,
    };
    let seconds = value.as_seconds();
    if (SHORTEST..=LONGEST).contains(&Duration::from_secs(seconds)) {
        return u32::try_from(seconds).ok();
    }
    faults.add(
        Fault::new(Code::OutOfRange, *place, format!("{value} is not within 1m–7d"))
            .label("expected: 1m–7d")
            .help("an override bridges the time until a release can be signed; what is to last longer is a release"),
    );
    None
}

/// The codes by gateway; none for two, since a code opens the gateway that it was made for.
fn sealed(
    context: &Context<'_>,
    it: &BreakGlass,
    faults: &mut Faults,
) -> Option<BTreeMap<GatewayId, BTreeSet<Digest>>> {
    let gateways = context.document.gateways.value();
    if let Some(table) = it.sealed.value() {
        let mut first: BTreeMap<Digest, (Place, &GatewayId)> = BTreeMap::new();
        for (name, named, listed) in table.readable() {
            let reference = At {
                value: name.clone(),
                place: named.key_place,
            };
            resolves(&reference, gateways, "gateway", faults);
            for code in &listed.0 {
                match first.get(&code.value.0) {
                    None => {
                        first.insert(code.value.0, (code.place, name));
                    }
                    Some((place, other)) => faults.add(
                        Fault::new(
                            Code::CodeOfTwoGateways,
                            code.place,
                            format!("the code listed for `{name}` is that of `{other}`"),
                        )
                        .label("opens one of the two at most")
                        .related(*place, format!("the same for `{other}`"))
                        .help(format!(
                            "make one for this gateway: `penstock override seal --gateway {name}`"
                        )),
                    ),
                }
            }
        }
    }
    match &it.sealed {
        Field::Faulty => None,
        field => each(field.value(), |_, listed| {
            Some(listed.0.iter().map(|code| code.value.0).collect())
        }),
    }
}

/// One person is nobody: it takes two.
fn enough(it: &BreakGlass, place: Place, faults: &mut Faults) {
    let Field::Given(people) = &it.people else {
        return;
    };
    if people.value.0.len() < PEOPLE_NEEDED {
        let message =
            "one person alone overrides nothing: it takes two together, or a sealed code".to_owned();
        let place = people
            .value
            .0
            .values()
            .next()
            .map_or(place, |named| named.key_place);
        faults.add(nobody(place, message, "the only one"));
    }
}

fn nobody(place: Place, message: String, label: &'static str) -> Fault {
    Fault::new(Code::OverriddenByNobody, place, message)
        .label(label)
        .help("name two `people` or more, list a code under `sealed`, or remove `break_glass`")
}

/// Gateways that nobody may override, although others can be: said once, with their names.
fn left_out(context: &Context<'_>, made: &Overriders, place: Place, faults: &mut Faults) {
    let gateways = context.document.gateways.value();
    let reached = |name: &GatewayId, site: &SiteId| {
        let here = made.people.values().filter(|person| person.may_at(site));
        made.sealed.contains_key(name) || here.count() >= PEOPLE_NEEDED
    };
    let out: Vec<String> = gateways
        .into_iter()
        .flat_map(|table| table.readable())
        .filter(|(name, _, gateway)| gateway.site.value().is_some_and(|site| !reached(name, site)))
        .map(|(name, ..)| format!("`{name}`"))
        .collect();
    if out.is_empty() {
        return;
    }
    const NAMED: usize = 4;
    let more = match out.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = out.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    faults.add(
        Fault::new(
            Code::NotOverridable,
            place,
            format!("nobody may override {named}{more}: there are not two people at the site, and no code"),
        )
        .label("does not reach every gateway")
        .help("name two people whose `sites` have it, or seal a code for it"),
    );
}
