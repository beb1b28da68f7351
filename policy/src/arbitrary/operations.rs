//! Permitted operations of any protocol, from its vocabulary and a small number.

use std::collections::BTreeMap;

use crate::protocol::vocabulary::{Kind, Takes};
use crate::protocol::{LimitSet, Operations, Permitted, Protocol, RoleOperations, Roles};
use crate::terms::NumberRange;

/// One or two permitted operations.
pub(super) fn some(protocol: Protocol, number: u8) -> Operations {
    let names: Vec<&str> = protocol.names().collect();
    let one = |number: u8| {
        let name = names.iter().cycle().nth(usize::from(number / 2)).copied();
        let name = name.unwrap_or_default();
        let takes = protocol.shape(name).map(|shape| shape.limits).unwrap_or_default();
        let set = |takes: &'static Takes| Some((takes.limit.name, set(takes, number)?));
        Permitted {
            operation: name.to_owned(),
            limits: BTreeMap::from_iter(takes.iter().filter_map(set)),
        }
    };
    let mut permitted = vec![one(number)];
    if number.is_multiple_of(3) {
        permitted.push(one(number.wrapping_mul(7)));
        permitted.dedup();
    }
    Operations { protocol, permitted }
}

/// Roles of which one may do everything, one something, and clients without any what one of them may, or nothing.
pub(super) fn roles(protocol: Protocol, number: u8) -> Roles {
    let only = RoleOperations::Only(some(protocol, number.wrapping_mul(5) & !1));
    let named = [("engineer", RoleOperations::All), ("operator", only)];
    let named = named.map(|(name, operations)| (name.parse().ok(), operations));
    let by_role = named
        .into_iter()
        .filter_map(|(name, operations)| Some((name?, operations)))
        .collect();
    let default = match number / 8 % 3 {
        0 => None,
        1 => "engineer".parse().ok(),
        _ => "operator".parse().ok(),
    };
    Roles { by_role, default }
}

/// The set of one limit; `None`: not limited.
fn set(takes: &Takes, number: u8) -> Option<LimitSet> {
    let said = takes.required.is_some() || number.is_multiple_of(5);
    match takes.limit.kind {
        Kind::Numbers { last, .. } => {
            let greatest = takes.within.as_ref().map_or(last, |within| within.last);
            let last = u32::from(number).min(greatest);
            let first = last / 2;
            said.then(|| LimitSet::Numbers(vec![NumberRange { first, last }]))
        }
        Kind::Range { last, .. } => {
            let last = u32::from(number % 3).min(last);
            Some(LimitSet::Range(NumberRange { first: 0, last }))
        }
        Kind::Patterns(patterns) => {
            let example = patterns.examples.iter().cycle().nth(usize::from(number % 8))?;
            Some(LimitSet::Patterns(vec![(*example).to_owned()]))
        }
        Kind::Texts => said.then(|| LimitSet::Texts(vec![format!("name-{}", number % 4)])),
        Kind::Flag { .. } => Some(LimitSet::Flag(number.is_multiple_of(4))),
    }
}
