//! A rollout as it is shown: what the coordinator said of it, folded for a thousand gateways, those that failed first. How it looks is
//! `page`'s.

mod page;

use std::collections::BTreeMap;

use penstock_proto::v1::{FreezeState, Rollout, RolloutEvent, RolloutGateway};
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::Failure;
use crate::online::digest;
use crate::online::standing::StandingLine;
use crate::words;

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RolloutView {
    /// The release.
    pub revision: u64,
    /// Digest of its statement.
    pub statement_digest: String,
    /// How far it is: `scheduled`, `staging`, `shadowing`, `opening`, `soaking`, `converging`, `completed`, `completed-with-exceptions`,
    /// `rolling-back`, `rolled-back`, `cancelled`, `superseded`, …
    pub stage: String,
    /// The wave that runs, from 1; 0: none.
    pub wave: u32,
    /// How many there are.
    pub waves: u32,
    /// Its name.
    pub wave_name: String,
    /// Why it is paused; empty: it is not.
    pub paused: String,
    /// Why it is halted; empty: it is not.
    pub halted: String,
    /// Who stopped the line of the whole plant, and why; absent: nobody.
    pub frozen: Option<FreezeLine>,
    /// It skips shadow and soak, by the emergency's threshold.
    pub emergency: bool,
    /// Who started it; empty: the coordinator by its settings.
    pub started_by: String,
    /// Why.
    pub reason: String,
    /// Where it was agreed.
    pub ticket: String,
    /// When it was started, milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, milliseconds since 1970; 0: it has not.
    pub ended_ms: u64,
    /// How many gateways are in which state, by stable word.
    pub counts: BTreeMap<String, u32>,
    /// Failures among those that activated.
    pub failed: u32,
    /// How many activated.
    pub activated: u32,
    /// Who waits for what, those that hold all of it first.
    pub waits: Vec<WaitLine>,
    /// Things that are waited for beyond those.
    pub further_waits: u32,
    /// Each gateway where it was asked for, else those that failed or are overridden.
    pub gateways: Vec<GatewayState>,
    /// Gateways beyond those.
    pub further_gateways: u32,
    /// What was done and by whom, the oldest first.
    pub events: Vec<EventLine>,
    /// When this was so, milliseconds since 1970.
    pub time_ms: u64,
}

/// A freeze of the whole plant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FreezeLine {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Where it was agreed.
    pub ticket: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
}

/// Who waits for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WaitLine {
    /// The gateways that are named; none: all of the rollout, or more than are named.
    pub names: Vec<String>,
    /// How many gateways; 0: all of the rollout.
    pub gateways: u32,
    /// For what.
    pub reason: String,
}

/// One gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GatewayState {
    /// Its name.
    pub name: String,
    /// Its state in this rollout, as a stable word.
    pub state: String,
    /// Its wave, from 1; 0: none.
    pub wave: u32,
    /// Whether it is connected.
    pub connected: bool,
    /// It knows no trials: what it is offered is in force at once, and does not come back by itself.
    pub without_trials: bool,
    /// What people in front of it override of what it enforces, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<String>,
    /// How it stands to the release, if it says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<StandingLine>,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EventLine {
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// An operator or a gateway; empty: the coordinator by the plan.
    pub by: String,
    /// Stable word.
    pub what: String,
    /// In words.
    pub message: String,
    /// Why, where a person did it.
    pub reason: String,
    /// Where it was agreed.
    pub ticket: String,
}

impl FreezeLine {
    /// As it came; `None`: nothing is frozen.
    pub(super) fn of(freeze: Option<FreezeState>) -> Option<Self> {
        let freeze = freeze.filter(|freeze| freeze.frozen)?;
        Some(Self {
            by: freeze.by,
            reason: freeze.reason,
            ticket: freeze.ticket,
            since_ms: freeze.since_ms,
        })
    }

    /// Who, since when and why.
    pub(super) fn words(&self) -> String {
        format!(
            "by {} since {}: {}{}",
            self.by,
            words::instant(self.since_ms),
            self.reason,
            ticket_words(&self.ticket)
        )
    }
}

/// Where it was agreed, behind a reason.
pub(super) fn ticket_words(ticket: &str) -> String {
    match ticket {
        "" => String::new(),
        ticket => format!(" ({ticket})"),
    }
}

impl From<RolloutEvent> for EventLine {
    fn from(event: RolloutEvent) -> Self {
        let because = event.because.unwrap_or_default();
        Self {
            time_ms: event.time_ms,
            by: event.by,
            what: event.what,
            message: event.message,
            reason: because.reason,
            ticket: because.ticket,
        }
    }
}

impl From<RolloutGateway> for GatewayState {
    fn from(gateway: RolloutGateway) -> Self {
        Self {
            standing: gateway.standing.as_ref().and_then(StandingLine::of),
            name: gateway.name,
            state: gateway.state,
            wave: gateway.wave,
            connected: gateway.connected,
            without_trials: gateway.without_trials,
            overridden: gateway.overridden,
        }
    }
}

/// A state that a person has to look at.
pub(super) fn is_failure(state: &str) -> bool {
    ["reverted", "silent", "refused"]
        .iter()
        .any(|word| state.contains(word))
}

impl GatewayState {
    /// How it is, in a few words.
    pub(super) fn words(&self, now_ms: u64) -> String {
        let mut said = match &self.standing {
            Some(standing) if is_failure(&self.state) || standing.state != "trial" => {
                standing.words(now_ms).1
            }
            Some(standing) => format!("{}, {} left", self.state, words::span(standing.left_ms)),
            None => self.state.clone(),
        };
        if !self.connected {
            said.push_str(", not connected");
        }
        if self.without_trials {
            said.push_str(", knows no trials");
        }
        for overridden in &self.overridden {
            said.push_str(&format!("; {overridden}"));
        }
        said
    }
}

/// Waits with the same reason as one, in the order of their first.
fn folded(waits: Vec<penstock_proto::v1::RolloutWait>) -> Vec<WaitLine> {
    let mut lines: Vec<WaitLine> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for wait in waits {
        let is_whole = wait.gateway.is_empty() && wait.gateways == 0;
        let count = if is_whole { 0 } else { wait.gateways.max(1) };
        let key = format!("{}{}", u8::from(is_whole), wait.reason);
        let place = *places.entry(key).or_insert_with(|| {
            lines.push(WaitLine {
                names: Vec::new(),
                gateways: 0,
                reason: wait.reason.clone(),
            });
            lines.len() - 1
        });
        if let Some(line) = lines.get_mut(place) {
            line.gateways = line.gateways.saturating_add(count);
            if !wait.gateway.is_empty() {
                line.names.push(wait.gateway);
            }
        }
    }
    lines
}

impl WaitLine {
    /// Who waits.
    fn who(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let count = self.gateways as usize;
        match (self.gateways, names.as_slice()) {
            (0, _) => "the rollout".to_owned(),
            (1, [one]) => (*one).to_owned(),
            (_, []) => words::count(count, "gateway"),
            (_, names) if names.len() == count => {
                format!("{}: {}", words::count(count, "gateway"), words::some_of(names))
            }
            (_, names) => format!(
                "{}, {} among them",
                words::count(count, "gateway"),
                words::some_of(names)
            ),
        }
    }
}

impl RolloutView {
    /// As it came.
    ///
    /// # Errors
    /// A digest is not one.
    pub(super) fn of(rollout: Rollout) -> Result<Self, Failure> {
        let because = rollout.because.unwrap_or_default();
        let mut gateways: Vec<GatewayState> = rollout.gateways.into_iter().map(GatewayState::from).collect();
        gateways.sort_by_key(|gateway| !is_failure(&gateway.state));
        Ok(Self {
            statement_digest: digest("statement_digest", &rollout.statement_digest)?.to_string(),
            revision: rollout.revision,
            stage: rollout.stage,
            wave: rollout.wave,
            waves: rollout.waves,
            wave_name: rollout.wave_name,
            paused: rollout.paused,
            halted: rollout.halted,
            frozen: FreezeLine::of(rollout.freeze),
            emergency: rollout.emergency,
            started_by: rollout.started_by,
            reason: because.reason,
            ticket: because.ticket,
            started_ms: rollout.started_ms,
            ended_ms: rollout.ended_ms,
            counts: rollout
                .counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect(),
            failed: rollout.failed,
            activated: rollout.activated,
            waits: folded(rollout.waits),
            further_waits: rollout.further_waits,
            gateways,
            further_gateways: rollout.further_gateways,
            events: rollout.events.into_iter().map(EventLine::from).collect(),
            time_ms: rollout.time_ms,
        })
    }

    /// Nothing but the time differs.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let timeless = |view: &Self| Self {
            time_ms: 0,
            ..view.clone()
        };
        timeless(self) == timeless(other)
    }

    /// The first digits of its release's digest.
    pub(super) fn short(&self) -> &str {
        let digits = self.statement_digest.trim_start_matches("sha256:");
        digits.get(..12).unwrap_or(digits)
    }

    /// Nothing of it goes on, but that those come late who were away.
    pub(super) fn is_over(&self) -> bool {
        matches!(
            self.stage.as_str(),
            "completed" | "completed-with-exceptions" | "rolled-back" | "cancelled" | "superseded"
        )
    }

    /// How many gateways there are.
    pub(super) fn total(&self) -> u32 {
        self.counts
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many gateways are in one of these states.
    pub(super) fn in_states(&self, states: &[&str]) -> u32 {
        let counts = states.iter().filter_map(|state| self.counts.get(*state));
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many enforce the release, confirmed.
    pub(super) fn confirmed(&self) -> u32 {
        self.in_states(&["confirmed", "confirmed-silent"])
    }

    /// The stage, with the wave where one runs.
    pub(super) fn stage_words(&self) -> String {
        match self.wave {
            0 => self.stage.clone(),
            wave => format!(
                "{}, wave {wave} of {} ({})",
                self.stage, self.waves, self.wave_name
            ),
        }
    }

    /// How many are in which state, in one line.
    pub(super) fn counts_words(&self) -> String {
        let states: Vec<String> = self
            .counts
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(" · {failed} failed of {} that activated", self.activated),
        };
        format!(
            "{} of {} gateways enforce it: {}{failed}",
            self.confirmed(),
            self.total(),
            states.join(", ")
        )
    }

    /// Why nothing is opened, each with its sign.
    pub(super) fn stops(&self) -> Vec<String> {
        let mut stops = Vec::new();
        if let Some(frozen) = self.frozen.as_ref().filter(|_| !self.is_over()) {
            stops.push(format!("▲ the plant is frozen {}", frozen.words()));
        }
        if !self.halted.is_empty() {
            stops.push(format!("✗ halted: {}", self.halted));
        }
        if !self.paused.is_empty() {
            stops.push(format!("▲ paused: {}", self.paused));
        }
        stops
    }
}

/// Rollouts, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RolloutList {
    /// Who stopped the line of the whole plant; absent: nobody.
    pub frozen: Option<FreezeLine>,
    /// Each of them.
    pub rollouts: Vec<RolloutView>,
}
