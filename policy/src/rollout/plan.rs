//! A rollout plan as a person writes it (`penstock-rollout/1`). Unknown keys are refused; what is wrong with values is said by
//! [`judge`](super::judge), all at once.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::ids::GatewayId;
use serde::{Deserialize, Serialize};

/// The format that this code reads and writes.
pub const FORMAT: &str = "penstock-rollout/1";

/// How a release is carried to its gateways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutPlan {
    /// [`FORMAT`].
    pub format: String,
    /// What percentages are drawn with, so that anybody can draw them again.
    pub seed: u64,
    /// Not before this moment, milliseconds since 1970; default: as soon as it is approved and started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// How long the release is judged on live traffic before the first gateway enforces it.
    pub shadow: Span,
    /// How long a gateway enforces it unconfirmed before it goes back by itself.
    pub trial: Span,
    /// How long a gateway may be out of reach before it counts: as absent, or as failed if it had activated.
    pub silence: Span,
    /// How long a wave waits for a gateway that is held, before it goes on without it.
    pub patience: Span,
    /// When failures stop the rollout.
    pub gate: GateLimits,
    /// How those come after that a wave went on without.
    pub converge: Converge,
    /// In their order. A gateway is in the first wave that chooses it.
    pub waves: Vec<Wave>,
}

/// Gateways that may activate together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// Unique in the plan.
    pub name: String,
    /// Who.
    pub gateways: Selector,
    /// Most gateways of one cell that are activated and not confirmed at the same time.
    pub per_cell: u32,
    /// How long to look on after the last one confirmed, before the next wave.
    pub soak: Span,
}

/// Which gateways, of those that no earlier wave chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Selector {
    /// All that are left.
    All,
    /// Those that carry all these labels; `*` stands for any value.
    Labels(BTreeMap<String, String>),
    /// Those of one site.
    Site(String),
    /// This part of the whole fleet, rounded up, by the plan's seed; at most one of a pair.
    Percent(u32),
    /// These.
    List(Vec<GatewayId>),
}

/// When failures stop the rollout. Hard events always do, at the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateLimits {
    /// Halted when the one-sided 95 % lower bound of the rate of failures among activated gateways exceeds this.
    pub soft_rate: f64,
}

/// How those come after that a wave went on without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Converge {
    /// Most of them that are activated and not confirmed at the same time.
    pub at_once: u32,
}

/// A length of time: `90s`, `30m`, `2h`, `8d`; `0s` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time: write a whole number with s, m, h or d, such as `30m`, up to a year")]
pub struct SpanError(String);

const YEAR_SECONDS: u64 = 366 * 86_400;
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl Span {
    /// Of so many seconds, at most a year.
    pub fn seconds(seconds: u64) -> Self {
        Self(seconds.min(YEAR_SECONDS))
    }

    /// In seconds.
    pub fn as_seconds(self) -> u64 {
        self.0
    }

    /// In milliseconds.
    pub fn as_ms(self) -> u64 {
        self.0.saturating_mul(1_000)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .find(|(_, seconds)| self.0 >= *seconds && self.0.is_multiple_of(*seconds));
        let (letter, seconds) = unit.unwrap_or(&('s', 1));
        write!(f, "{}{letter}", self.0 / seconds)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let read = || {
            let letter = text.chars().next_back()?;
            let (_, seconds) = UNITS.iter().find(|(unit, _)| *unit == letter)?;
            let number = text.strip_suffix(letter)?;
            let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            let length = digits
                .then(|| number.parse::<u64>().ok())??
                .checked_mul(*seconds)?;
            (length <= YEAR_SECONDS).then_some(Self(length))
        };
        read().ok_or_else(|| SpanError(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}
