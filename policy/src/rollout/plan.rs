//! A rollout plan as a person writes it (`penstock-rollout/1`). Unknown keys are refused; what is wrong with values is said by
//! [`judge`](super::judge), all at once.

use std::collections::BTreeMap;

use crate::ids::GatewayId;
pub use crate::times::{Span, SpanError};
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
