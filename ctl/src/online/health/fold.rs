//! Many equal lines of a view as one: zones that are in the same state for the same reasons, gateways that are alike. Pure.

use super::{GatewayBrief, ZoneLine};
use crate::words::some_of;

/// As many equal lines as are still shown one by one.
const APART: usize = 3;

/// Lines that are shown as one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fold {
    /// Whose: one name, or some and how many more.
    pub(super) names: String,
    /// The state, or the words of the link.
    pub(super) state: String,
    /// Why; of gateways, what they enforce.
    pub(super) reasons: Vec<String>,
    /// The gateways that guard them.
    pub(super) gateways: String,
}

/// Folds zones in their order: a fold stands where its first line would.
pub(super) fn zones(zones: &[ZoneLine]) -> Vec<Fold> {
    let reasons = |zone: &ZoneLine| {
        zone.reasons
            .iter()
            .map(|reason| bare(zone, reason))
            .collect::<Vec<_>>()
    };
    folded(
        zones,
        |zone| (zone.state.clone(), reasons(zone)),
        |zone| Fold {
            names: zone.zone.clone(),
            state: zone.state.clone(),
            reasons: zone.reasons.clone(),
            gateways: zone.gateways.join(", "),
        },
        |alike, (state, reasons)| {
            let names: Vec<&str> = alike.iter().map(|zone| zone.zone.as_str()).collect();
            let mut gateways: Vec<&str> = alike
                .iter()
                .flat_map(|zone| &zone.gateways)
                .map(String::as_str)
                .collect();
            gateways.sort_unstable();
            gateways.dedup();
            Fold {
                names: format!("{} zones: {}", alike.len(), some_of(&names)),
                state,
                reasons,
                gateways: some_of(&gateways),
            }
        },
    )
}

/// Folds gateways; `words` are those of a gateway's link and of what it enforces.
pub(super) fn gateways(
    gateways: &[&GatewayBrief],
    words: impl Fn(&GatewayBrief) -> (String, String),
) -> Vec<Fold> {
    folded(
        gateways,
        |gateway| words(gateway),
        |gateway| {
            let (state, enforces) = words(gateway);
            Fold {
                names: gateway.name.clone(),
                state,
                reasons: vec![enforces],
                gateways: String::new(),
            }
        },
        |alike, (state, enforces)| {
            let names: Vec<&str> = alike.iter().map(|gateway| gateway.name.as_str()).collect();
            Fold {
                names: format!("{} gateways: {}", alike.len(), some_of(&names)),
                state,
                reasons: vec![enforces],
                gateways: String::new(),
            }
        },
    )
}

/// A reason without the gateway that it begins with, if that is the zone's own and only one.
fn bare(zone: &ZoneLine, reason: &str) -> String {
    let own = match zone.gateways.as_slice() {
        [one] => reason
            .strip_prefix(one.as_str())
            .and_then(|rest| rest.strip_prefix(": ")),
        _ => None,
    };
    own.unwrap_or(reason).to_owned()
}

fn folded<T, K: Ord + Clone>(
    lines: &[T],
    key: impl Fn(&T) -> K,
    one: impl Fn(&T) -> Fold,
    many: impl Fn(&[&T], K) -> Fold,
) -> Vec<Fold> {
    let mut alike: std::collections::BTreeMap<K, Vec<usize>> = std::collections::BTreeMap::new();
    for (place, line) in lines.iter().enumerate() {
        alike.entry(key(line)).or_default().push(place);
    }
    let mut folds: Vec<(usize, Fold)> = Vec::new();
    for (key, places) in alike {
        let members: Vec<&T> = places.iter().filter_map(|place| lines.get(*place)).collect();
        if let (Some(first), true) = (places.first(), members.len() > APART) {
            folds.push((*first, many(&members, key)));
        } else {
            folds.extend(places.iter().copied().zip(members.into_iter().map(&one)));
        }
    }
    folds.sort_by_key(|(place, _)| *place);
    folds.into_iter().map(|(_, fold)| fold).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    fn zone(number: usize, state: &str, reason: &str) -> ZoneLine {
        ZoneLine {
            zone: format!("z-{number}"),
            state: state.to_owned(),
            reasons: vec![format!("gw-{number}: {reason}")],
            assurance: Vec::new(),
            denied_flows: 0,
            gateways: vec![format!("gw-{number}")],
        }
    }

    #[test]
    fn a_hundred_zones_that_are_alike_are_one_line_and_one_that_is_not_keeps_its_own() {
        let mut all: Vec<ZoneLine> = (0..100)
            .map(|number| zone(number, "stale", "has been disconnected for 5 min"))
            .collect();
        all.insert(40, zone(100, "stale", "has been disconnected for 2 h"));
        let folds = zones(&all);
        assert_eq!(folds.len(), 2);
        assert_eq!(
            folds[0].names,
            "100 zones: z-0, z-1, z-2, z-3, z-4, z-5 and 94 more"
        );
        assert_eq!(folds[0].reasons, ["has been disconnected for 5 min"]);
        assert_eq!(
            folds[0].gateways,
            "gw-0, gw-1, gw-10, gw-11, gw-12, gw-13 and 94 more"
        );
        assert_eq!(folds[1].names, "z-100");
        assert_eq!(folds[1].reasons, ["gw-100: has been disconnected for 2 h"]);
    }

    #[test]
    fn a_few_lines_stay_as_they_are_in_their_order() {
        let all = [
            zone(2, "degraded", "a"),
            zone(1, "stale", "a"),
            zone(3, "degraded", "a"),
        ];
        let names: Vec<String> = zones(&all).into_iter().map(|fold| fold.names).collect();
        assert_eq!(names, ["z-2", "z-1", "z-3"]);
    }

    #[test]
    fn gateways_that_are_alike_are_one_line() {
        let all: Vec<GatewayBrief> = (0..50)
            .map(|number| GatewayBrief {
                name: format!("gw-{number}"),
                connected: true,
                last_seen_ms: 1,
                effective: Some(5),
                standing: None,
                denied_packets: number,
                denied_operations: 0,
            })
            .collect();
        let all: Vec<&GatewayBrief> = all.iter().collect();
        let folds = gateways(&all, |_| ("connected".to_owned(), "enforces r5".to_owned()));
        assert_eq!(folds.len(), 1);
        assert_eq!(
            folds[0].names,
            "50 gateways: gw-0, gw-1, gw-2, gw-3, gw-4, gw-5 and 44 more"
        );
    }
}
