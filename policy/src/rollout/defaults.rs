//! The plan that `rollout plan` writes: right for a pair at one site, and for a thousand gateways. Lengths stand with their reasons.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::GatewayId;

use super::fleet::{Fleet, LAB_LABEL};
use super::plan::{Converge, FORMAT, GateLimits, RolloutPlan, Selector, Span, Wave};
use super::tunnels;
use super::waves::assign;

/// Up to this many gateways a part of a hundred is none.
const FEW: usize = 20;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// Why the default plan has the lengths that it has, by key; written beside them.
pub const REASONS: &[(&str, &str)] = &[
    (
        "shadow",
        "one hour sees what polls and reports by the minute; make it a day if shifts or batches matter",
    ),
    (
        "trial",
        "ten minutes: every flow that is polled by the minute was seen several times, and a person still stands there",
    ),
    (
        "silence",
        "five minutes: a session is back within seconds, an agent that restarts within a minute",
    ),
    ("patience", "eight days: a weekly window has opened once"),
    (
        "soak",
        "after few gateways an hour, in which somebody notices; after many a day, which has seen each shift",
    ),
    (
        "gate.soft_rate",
        "2 %: one failure among the first two halts, 1 of 1000 does not",
    ),
    (
        "converge.at_once",
        "as many as one person can look after; with a thousand gateways, 1 % of them",
    ),
    (
        "per_cell",
        "1: what a cell makes goes on if the one that changes stops",
    ),
];

/// The plan for a fleet if nobody writes one.
pub fn default_plan(fleet: &Fleet, seed: u64) -> RolloutPlan {
    let count = fleet.len();
    let mut plan = RolloutPlan {
        format: FORMAT.to_owned(),
        seed,
        start_ms: None,
        shadow: Span::seconds(HOUR),
        trial: Span::seconds(600),
        silence: Span::seconds(300),
        patience: Span::seconds(8 * DAY),
        gate: GateLimits { soft_rate: 0.02 },
        converge: Converge {
            at_once: u32::try_from(count / 100).unwrap_or(u32::MAX).max(1),
        },
        waves: waves(fleet, seed),
    };
    // Where laboratories are most of a fleet, a later wave may have nobody left.
    let assigned: BTreeSet<u16> = assign(&plan, fleet).into_iter().flatten().collect();
    let mut number = 0;
    plan.waves.retain(|_| {
        let is_kept = assigned.contains(&number) || fleet.is_empty();
        number += 1;
        is_kept
    });
    plan
}

fn waves(fleet: &Fleet, seed: u64) -> Vec<Wave> {
    let wave = |name: &str, gateways: Selector, soak: u64| Wave {
        name: name.to_owned(),
        gateways,
        per_cell: 1,
        soak: Span::seconds(soak),
    };
    let order = fleet.draw(seed);
    let names = |at: Option<u32>| -> Vec<GatewayId> {
        at.and_then(|at| fleet.member(at))
            .map(|member| member.id.clone())
            .into_iter()
            .collect()
    };
    let lab = order.iter().copied().find(|at| fleet.is_lab(*at));
    let has_plant = order.iter().any(|at| !fleet.is_lab(*at));
    // Of a pair if there is one: while it changes, the other carries the process.
    let plant = || order.iter().copied().filter(|at| !fleet.is_lab(*at));
    let first = plant()
        .find(|at| fleet.partner(*at).is_some())
        .or_else(|| plant().next());
    let mut waves = Vec::new();
    match fleet.len() {
        0 | 1 => {}
        2 => waves.push(wave("first", Selector::List(names(lab.or(first))), HOUR)),
        count => {
            let is_few = count <= FEW;
            if lab.is_some() {
                let any = BTreeMap::from([(LAB_LABEL.to_owned(), "*".to_owned())]);
                let chosen = if is_few {
                    Selector::List(names(lab))
                } else {
                    Selector::Labels(any)
                };
                waves.push(wave("lab", chosen, HOUR));
            }
            if has_plant {
                waves.push(wave("first", Selector::List(names(first)), HOUR));
            }
            if !is_few && has_plant {
                waves.push(wave("one-percent", Selector::Percent(1), DAY));
                waves.push(wave("ten-percent", Selector::Percent(10), DAY));
            }
        }
    }
    // Tunnels that change come early, and after laboratories only where they are none of those themselves.
    let in_lab = fleet
        .joined()
        .iter()
        .any(|(one, other)| fleet.is_lab(*one) || fleet.is_lab(*other));
    let first = usize::from(lab.is_some() && !in_lab && fleet.len() > 2);
    let together = tunnels::waves(fleet, Span::seconds(HOUR));
    waves.splice(first..first, together);
    let name = if waves.is_empty() { "all" } else { "rest" };
    waves.push(wave(name, Selector::All, HOUR));
    waves
}
