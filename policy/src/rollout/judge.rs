//! What is wrong with a rollout plan for a fleet: all of it at once, each with what to do.

use std::collections::BTreeSet;
use std::fmt;

use crate::ids::check_name;

use super::fleet::Fleet;
use super::plan::{FORMAT, RolloutPlan, Selector, Wave};
use super::waves::{assign, chooses};

/// Most waves of a plan.
const WAVES_MAX: usize = 64;
/// Shorter, a must-flow of an ordinary rhythm is not seen often enough to be missed, seconds.
const TRIAL_MIN: u64 = 60;
/// Longer, nobody stands beside it any more, seconds.
const TRIAL_MAX: u64 = 86_400;
/// Shorter, a session that is opened again counts as silence, seconds.
const SILENCE_MIN: u64 = 30;

/// Something wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `waves.rest.per_cell`.
    pub at: String,
    /// What, and what to do.
    pub words: String,
    /// The plan is refused; otherwise it is worth a second look.
    pub is_error: bool,
    /// The wave that it is about, from 0.
    pub wave: Option<u16>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_error { "error" } else { "warning" };
        write!(f, "{kind}: {}: {}", self.at, self.words)
    }
}

#[derive(Default)]
struct Problems {
    found: Vec<Problem>,
    /// The wave that is looked at.
    wave: Option<u16>,
}

impl Problems {
    fn error(&mut self, at: impl Into<String>, words: impl Into<String>) {
        self.add(at.into(), words.into(), true);
    }

    fn warning(&mut self, at: impl Into<String>, words: impl Into<String>) {
        self.add(at.into(), words.into(), false);
    }

    fn add(&mut self, at: String, words: String, is_error: bool) {
        self.found.push(Problem {
            at,
            words,
            is_error,
            wave: self.wave,
        });
    }
}

/// What is wrong with a plan whatever gateways it is for; empty: nothing.
pub fn own_problems(plan: &RolloutPlan) -> Vec<Problem> {
    let mut found = Problems::default();
    values(plan, &mut found);
    waves(plan, None, &mut found);
    found.found
}

/// What is wrong with a plan for these gateways; empty: nothing.
pub fn problems(plan: &RolloutPlan, fleet: &Fleet) -> Vec<Problem> {
    let mut found = Problems::default();
    values(plan, &mut found);
    waves(plan, Some(fleet), &mut found);
    whole(plan, fleet, &mut found);
    together(plan, fleet, &mut found);
    found.found
}

fn waves(plan: &RolloutPlan, fleet: Option<&Fleet>, found: &mut Problems) {
    let chosen: Option<BTreeSet<u16>> =
        fleet.map(|fleet| assign(plan, fleet).into_iter().flatten().collect());
    let mut names = BTreeSet::new();
    for (number, wave) in (0_u16..).zip(plan.waves.iter().take(WAVES_MAX)) {
        found.wave = Some(number);
        let at = format!("waves.{}", wave.name);
        if !names.insert(&wave.name) {
            found.error(&at, "another wave has this name; give each its own");
        }
        judge_wave(wave, &at, fleet, found);
        if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&number)) {
            found.error(
                format!("{at}.gateways"),
                "no gateway is left for this wave; remove it, or choose others",
            );
        }
        let is_last = usize::from(number) + 1 == plan.waves.len();
        if wave.soak.as_seconds() == 0 && !is_last {
            found.warning(
                format!("{at}.soak"),
                "the next wave follows at once: what shows later is seen by both",
            );
        }
    }
    found.wave = None;
}

fn values(plan: &RolloutPlan, found: &mut Problems) {
    if plan.format != FORMAT {
        found.error(
            "format",
            format!("this is not a format that is known here; write {FORMAT}"),
        );
    }
    match plan.waves.len() {
        0 => found.error(
            "waves",
            "there are none, so that no gateway would ever activate; write at least one",
        ),
        1..=WAVES_MAX => {}
        count => found.error("waves", format!("{count} are more than {WAVES_MAX}")),
    }
    let trial = plan.trial.as_seconds();
    if !(TRIAL_MIN..=TRIAL_MAX).contains(&trial) {
        found.error("trial", format!("{} is not between 1m and 1d", plan.trial));
    }
    if plan.silence.as_seconds() < SILENCE_MIN {
        found.error(
            "silence",
            format!(
                "{} is shorter than {SILENCE_MIN}s, within which a session is opened again",
                plan.silence
            ),
        );
    }
    if plan.patience <= plan.silence {
        found.error("patience", "it has to be longer than `silence`");
    }
    let rate = plan.gate.soft_rate;
    // Not a number is not between.
    if !(rate > 0.0 && rate < 1.0) {
        found.error(
            "gate.soft_rate",
            "it has to lie between 0 and 1, both excluded, such as 0.02",
        );
    }
    if plan.converge.at_once == 0 {
        found.error(
            "converge.at_once",
            "with 0, a gateway that was absent never comes; write at least 1",
        );
    }
    if plan.shadow.as_seconds() == 0 {
        found.warning(
            "shadow",
            "without it, the first that shows what the release cuts is a gateway in trial",
        );
    }
}

fn judge_wave(wave: &Wave, at: &str, fleet: Option<&Fleet>, found: &mut Problems) {
    if let Err(error) = check_name(&wave.name) {
        found.error(at, error.to_string());
    }
    if wave.per_cell == 0 {
        found.error(
            format!("{at}.per_cell"),
            "with 0, none of its gateways ever activates; write at least 1",
        );
    }
    let at = format!("{at}.gateways");
    let has = |id| fleet.is_none_or(|fleet| fleet.find(id).is_some());
    let members = fleet.map(Fleet::members);
    match &wave.gateways {
        Selector::Percent(1..=100) | Selector::All => {}
        Selector::Percent(percent) => found.error(at, format!("{percent} is not between 1 and 100")),
        Selector::Labels(labels) if labels.is_empty() => {
            found.error(at, "no label chooses no gateway; write `all`")
        }
        Selector::List(ids) => {
            for id in ids.iter().filter(|id| !has(id)) {
                found.error(&at, format!("gateway {id} is not in this release"));
            }
        }
        selector => {
            if members.is_some_and(|members| !members.iter().any(|member| chooses(selector, member))) {
                found.error(
                    at,
                    "no gateway of this release is at that site or has those labels",
                );
            }
        }
    }
}

/// Gateways whose tunnel changes are in one wave, which has room for both at once: between two, what one of them tunnels the other would refuse.
fn together(plan: &RolloutPlan, fleet: &Fleet, found: &mut Problems) {
    let waves = assign(plan, fleet);
    let wave_of = |at: u32| {
        let number = waves.get(at as usize).copied().flatten()?;
        Some((number, plan.waves.get(usize::from(number))?))
    };
    let mut too_few = BTreeSet::new();
    for (one, other) in fleet.joined() {
        let (Some(first), Some(second)) = (fleet.member(*one), fleet.member(*other)) else {
            continue;
        };
        // Whoever is in none is named already.
        let (Some((number, wave)), Some((other_number, other_wave))) = (wave_of(*one), wave_of(*other))
        else {
            continue;
        };
        if number != other_number {
            found.error(
                "waves",
                format!(
                    "the tunnel between gateways {} and {} begins, ends or changes with this release, and nothing of it crosses while only one of \
                     them has it: they are in the waves {} and {}; put both into one",
                    first.id, second.id, wave.name, other_wave.name
                ),
            );
            continue;
        }
        for at in [*one, *other] {
            let cell = fleet.cell(at);
            let in_cell = (0..)
                .zip(&waves)
                .filter(|(at, wave)| **wave == Some(number) && fleet.cell(*at) == cell)
                .count();
            if in_cell > wave.per_cell as usize && too_few.insert((number, cell)) {
                found.wave = Some(number);
                found.error(
                    format!("waves.{}.per_cell", wave.name),
                    format!(
                        "gateways {} and {} have to activate together, since the tunnel between them changes, and {in_cell} gateways of a cell are in \
                         this wave; write at least {in_cell}, or give the two a wave of their own",
                        first.id, second.id
                    ),
                );
                found.wave = None;
            }
        }
    }
}

fn whole(plan: &RolloutPlan, fleet: &Fleet, found: &mut Problems) {
    let waves = assign(plan, fleet);
    let left: Vec<&str> = fleet
        .members()
        .iter()
        .zip(&waves)
        .filter(|(_, wave)| wave.is_none())
        .map(|(member, _)| member.id.as_str())
        .collect();
    if let Some(first) = left.first() {
        let count = left.len();
        found.error(
            "waves",
            format!(
                "{} in no wave, such as {first}; end with a wave of `all`",
                if count == 1 {
                    "1 gateway is".to_owned()
                } else {
                    format!("{count} gateways are")
                }
            ),
        );
    }
    let first_other = (0..)
        .zip(&waves)
        .filter(|(at, _)| !fleet.is_lab(*at))
        .filter_map(|(_, wave)| *wave)
        .min();
    let first_lab = (0..)
        .zip(&waves)
        .filter(|(at, _)| fleet.is_lab(*at))
        .filter_map(|(_, wave)| *wave)
        .min();
    if let (Some(other), Some(lab)) = (first_other, first_lab)
        && other < lab
    {
        found.warning(
            "waves",
            "a gateway of the plant comes before any of the laboratory; put the label `lab` first",
        );
    }
}
