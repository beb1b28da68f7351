//! Under which names clients connect: as they stand, or made up anew for each connection, which no list can name.

use std::collections::{BTreeMap, BTreeSet};

/// As many names of one form as show that they are made up.
const ALIKE_MIN: usize = 3;
/// As many characters have to differ between them.
const VARYING_MIN: usize = 4;
/// What libraries and tools put before a name that they make up: one is enough to know it by.
const MAKERS: [&str; 8] = [
    "mosq-",
    "mosqpub|",
    "mosqsub|",
    "mosq_",
    "mqttjs_",
    "mqtt-explorer-",
    "nodered_",
    "paho",
];
/// The form of a UUID: how many digits stand between its hyphens.
const UUID: [usize; 5] = [8, 4, 4, 4, 12];

/// The part that is always the same of names that are made up for each connection; `None`: they can be listed as they stand.
pub(super) fn made_up(names: &BTreeSet<String>) -> Option<String> {
    if let Some((maker, _)) = names.iter().find_map(|name| of_maker(name)) {
        return Some(maker.to_owned());
    }
    let mut alike: BTreeMap<(&str, usize), Vec<&str>> = BTreeMap::new();
    for name in names {
        let (before, tail) = parts(name);
        alike.entry((before, tail.len())).or_default().push(tail);
    }
    alike.iter().find_map(|((before, _), tails)| {
        let same = common(tails);
        let shared = tails.first()?.get(..same)?;
        varies(tails, same).then(|| format!("{before}{shared}"))
    })
}

/// A name that a known tool made up.
fn of_maker(name: &str) -> Option<(&str, &str)> {
    let maker = MAKERS.iter().find(|maker| name.starts_with(**maker))?;
    let (before, tail) = name.split_at_checked(maker.len())?;
    let random = tail.len() >= 6 && tail.bytes().any(|byte| byte.is_ascii_digit());
    random.then_some((before, tail))
}

/// What may be the same in others of its kind, and what may not.
fn parts(name: &str) -> (&str, &str) {
    let uuid = name
        .len()
        .checked_sub(36)
        .and_then(|at| name.split_at_checked(at));
    if let Some((before, tail)) = uuid.filter(|(_, tail)| is_uuid(tail)) {
        return (before, tail);
    }
    let separator = name.rfind(|c: char| !c.is_ascii_alphanumeric());
    let at = match separator {
        Some(at) => {
            at + name
                .get(at..)
                .and_then(|rest| rest.chars().next())
                .map_or(1, char::len_utf8)
        }
        None => 0,
    };
    name.split_at_checked(at).unwrap_or((name, ""))
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() == UUID.len()
        && parts
            .iter()
            .zip(UUID)
            .all(|(part, digits)| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// How many bytes all of them begin with.
fn common(tails: &[&str]) -> usize {
    let Some((first, rest)) = tails.split_first() else {
        return 0;
    };
    let with = |other: &&str| {
        first
            .bytes()
            .zip(other.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    rest.iter().map(with).min().unwrap_or(first.len())
}

/// Whether texts of one length differ as what is drawn at random does, and not as what is numbered through.
fn varies(tails: &[&str], same: usize) -> bool {
    let varying: Vec<&str> = tails.iter().filter_map(|tail| tail.get(same..)).collect();
    let long = varying.first().is_some_and(|tail| tail.len() >= VARYING_MIN);
    let with_digits = varying
        .iter()
        .filter(|tail| tail.bytes().any(|byte| byte.is_ascii_digit()))
        .count();
    let numbers: Option<Vec<u64>> = varying.iter().map(|tail| tail.parse().ok()).collect();
    let is_sparse = numbers.is_none_or(|numbers| {
        let (least, most) = (numbers.iter().min(), numbers.iter().max());
        let span = most.zip(least).map_or(0, |(most, least)| most - least);
        span >= 10 * u64::try_from(numbers.len()).unwrap_or(u64::MAX)
    });
    tails.len() >= ALIKE_MIN && long && 2 * with_digits >= tails.len() && is_sparse
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(names: &[&str]) -> Option<String> {
        made_up(&names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn names_that_are_drawn_at_random_are_known_by_what_they_have_in_common() {
        for (names, common) in [
            (
                &["scada-9e3779b1", "scada-3c6ef362", "scada-daa66d2b"][..],
                "scada-",
            ),
            (&["mosq-Xa81kJ2mQ0wE"], "mosq-"),
            (&["a1b2c3d4", "9f8e7d6c", "00112233"], ""),
            (
                &[
                    "hmi-550e8400-e29b-41d4-a716-446655440000",
                    "hmi-6ba7b810-9dad-11d1-80b4-00c04fd430c8",
                    "hmi-16fd2706-8baf-433b-82eb-8c7fada847da",
                ],
                "hmi-",
            ),
        ] {
            assert_eq!(form(names).as_deref(), Some(common), "{names:?}");
        }
    }

    #[test]
    fn names_of_machines_are_listed_also_where_they_are_numbered_through() {
        for names in [
            &["plc-line1", "plc-line2", "plc-line3", "plc-line4"][..],
            &["pump-0001", "pump-0002", "pump-0003", "pump-0017"],
            &["historian", "scada", "hmi-1", "hmi-2", "paho"],
            &["north-station", "south-station"],
            &["1000", "1001", "1002"],
            &["ä", "öü", "—"],
            &[""],
        ] {
            assert_eq!(form(names), None, "{names:?}");
        }
    }
}
