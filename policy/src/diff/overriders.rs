//! What changes about who may override a gateway in front of it (`break_glass`).
//!
//! More leave to override is wider, though no packet passes by it: what an override does is up to those who sign it.

use std::collections::BTreeSet;

use super::{Change, Effect, Subject};
use crate::ids::GatewayId;
use crate::model::{Overrider, Overriders, Plant};
use crate::times::Span;
use crate::words::and;

pub(super) fn changes(old: Option<&Plant>, new: &Plant, changes: &mut Vec<Change>) {
    let old = old.and_then(|old| old.break_glass.as_ref());
    let (effect, details) = match (old, &new.break_glass) {
        (None, None) => return,
        (None, Some(after)) => (Effect::Added, all(after)),
        (Some(_), None) => {
            let gone = "nobody may override a gateway in front of it any more".to_owned();
            (Effect::Removed, vec![gone])
        }
        (Some(before), Some(after)) if before == after => return,
        (Some(before), Some(after)) => compare(before, after),
    };
    changes.push(Change {
        subject: Subject::BreakGlass,
        effect,
        details,
    });
}

/// Everything that it permits.
fn all(it: &Overriders) -> Vec<String> {
    let mut details = Vec::new();
    if !it.people.is_empty() {
        let people = it.people.iter().map(|(name, person)| match &person.sites {
            None => name.to_string(),
            Some(_) => format!("{name} (at {})", places(person)),
        });
        details.push(format!(
            "any two of {} may override a gateway together",
            and(people)
        ));
    }
    details.extend(it.sealed.iter().map(|(gateway, codes)| {
        let may = if codes.len() == 1 { "may" } else { "may each" };
        format!("{} {may} override {gateway} once", sealed(codes.len()))
    }));
    details.push(format!("for at most {}", length(it.longest_s)));
    details
}

fn compare(before: &Overriders, after: &Overriders) -> (Effect, Vec<String>) {
    let (mut wider, mut narrower, mut details) = (false, false, Vec::new());
    let names: BTreeSet<_> = before.people.keys().chain(after.people.keys()).collect();
    for name in names {
        match (before.people.get(name), after.people.get(name)) {
            (None, Some(person)) => {
                wider = true;
                details.push(format!(
                    "{name} may override gateways with another, at {}",
                    places(person)
                ));
            }
            (Some(_), None) => {
                narrower = true;
                details.push(format!("{name} may no longer override a gateway"));
            }
            (Some(old), Some(new)) => {
                if old.key != new.key {
                    (wider, narrower) = (true, true);
                    details.push(format!("{name} has another key for overrides"));
                }
                if old.sites != new.sites {
                    wider |= !within(new, old);
                    narrower |= !within(old, new);
                    details.push(format!(
                        "{name} may override gateways at {} (was: at {})",
                        places(new),
                        places(old)
                    ));
                }
            }
            (None, None) => {}
        }
    }
    let none = BTreeSet::new();
    let gateways: BTreeSet<&GatewayId> = before.sealed.keys().chain(after.sealed.keys()).collect();
    for gateway in gateways {
        let [old, new] = [before, after].map(|it: &Overriders| it.sealed.get(gateway).unwrap_or(&none));
        let [more, fewer] = [new.difference(old).count(), old.difference(new).count()];
        wider |= more > 0;
        narrower |= fewer > 0;
        if more > 0 {
            details.push(format!("{} added for {gateway}", sealed(more)));
        }
        if fewer > 0 {
            details.push(format!("{} of {gateway} removed", sealed(fewer)));
        }
    }
    if before.longest_s != after.longest_s {
        wider |= after.longest_s > before.longest_s;
        narrower |= after.longest_s < before.longest_s;
        let [old, new] = [before, after].map(|it| length(it.longest_s));
        details.push(format!("an override lasts at most {new} (was {old})"));
    }
    (Effect::of(wider, narrower), details)
}

fn within(these: &Overrider, those: &Overrider) -> bool {
    match (&these.sites, &those.sites) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(these), Some(those)) => these.is_subset(those),
    }
}

fn places(person: &Overrider) -> String {
    match &person.sites {
        None => "every site".to_owned(),
        Some(sites) => and(sites.iter()),
    }
}

fn sealed(count: usize) -> String {
    match count {
        1 => "one sealed code".to_owned(),
        more => format!("{more} sealed codes"),
    }
}

fn length(seconds: u32) -> String {
    Span::seconds(seconds.into()).to_string()
}
