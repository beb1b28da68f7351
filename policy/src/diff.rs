//! What a new plant changes, for whom, in words: what an approver reads before signing.
//!
//! Structured for programs, [`Display`](std::fmt::Display) for people. A change never says "narrowed" when it
//! could permit more: where widening cannot be excluded, it says "altered". Which gateways are touched is
//! not argued from the document but compared from their compiled plans.

mod flow;
mod frames;
mod gateway;
mod granted;
mod numbers;
mod operations;
mod overriders;
mod permits;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

pub(crate) use self::flow::covers_ports;
use crate::compile::{CompileError, compile_all};
use crate::ids::{AssetId, ConduitId, ControlId, FlowName, GatewayId, GrantId, SiteId, ZoneId};
use crate::model::{Flow, Plant};
use crate::plan::Plan;
use crate::protocol::Operations;

/// Everything that differs between two plants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The changes, those of flows first.
    pub changes: Vec<Change>,
    /// What each gateway gets.
    pub gateways: BTreeMap<GatewayId, Touch>,
}

/// What a change means for one gateway's plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Touch {
    /// Its plan differs.
    Changed,
    /// It has a plan for the first time.
    Added,
    /// It has none any more.
    Removed,
    /// Its plan is the same to the byte.
    Untouched,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What changed.
    pub subject: Subject,
    /// What that does to traffic.
    pub effect: Effect,
    /// How, in words; never empty.
    pub details: Vec<String>,
}

/// What a change does to traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It was not there before.
    Added,
    /// It permits more.
    Widened,
    /// It permits other things than before: perhaps more, perhaps less.
    Altered,
    /// It permits less.
    Narrowed,
    /// It is gone.
    Removed,
    /// It permits the same: only the record changed, or how something is answered.
    Recorded,
}

impl Effect {
    fn of(wider: bool, narrower: bool) -> Self {
        match (wider, narrower) {
            (true, true) => Self::Altered,
            (true, false) => Self::Widened,
            (false, true) => Self::Narrowed,
            (false, false) => Self::Recorded,
        }
    }
}

/// What a change is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // The nouns of the plant document.
pub enum Subject {
    Flow { conduit: ConduitId, flow: FlowName },
    Frames { conduit: ConduitId, flow: FlowName },
    Conduit(ConduitId),
    Zone(ZoneId),
    Asset(AssetId),
    Gateway(GatewayId),
    Approvers,
    RemoteAccess(GrantId),
    BreakGlass,
    CompensatingControl(ControlId),
    Accepted(String),
    Risk,
    Site(SiteId),
    Plant,
}

impl Diff {
    /// Whether nothing differs at all.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.touched().next().is_none()
    }

    /// The gateways whose plan changes, comes or goes.
    pub fn touched(&self) -> impl Iterator<Item = &GatewayId> {
        self.gateways
            .iter()
            .filter(|(_, touch)| **touch != Touch::Untouched)
            .map(|(gateway, _)| gateway)
    }

    /// Whether anything may permit more than before.
    pub fn may_widen(&self) -> bool {
        self.changes
            .iter()
            .any(|change| matches!(change.effect, Effect::Added | Effect::Widened | Effect::Altered))
    }
}

/// What `new` changes against `old`; everything, if there is no old plant.
///
/// # Errors
/// One of the plants cannot be compiled.
pub fn diff(old: Option<&Plant>, new: &Plant) -> Result<Diff, CompileError> {
    let before = old.map(compile_all).transpose()?;
    Ok(diff_of_plans(old.zip(before.as_ref()), (new, &compile_all(new)?)))
}

type Plans = BTreeMap<GatewayId, Plan>;

/// The same of plants whose plans are there.
pub(crate) fn diff_of_plans(old: Option<(&Plant, &Plans)>, (new, after): (&Plant, &Plans)) -> Diff {
    let before = old.map(|(_, plans)| plans);
    let old = old.map(|(plant, _)| plant);
    let mut changes = Vec::new();
    let none = BTreeMap::new();
    flow::changes((old, before.unwrap_or(&none)), (new, after), &mut changes);
    frames::changes(old, new, &mut changes);
    record::changes(old, new, &mut changes);
    changes.sort_by(|a, b| (&a.subject, a.effect).cmp(&(&b.subject, b.effect)));
    Diff {
        changes,
        gateways: touches(before, after),
    }
}

/// Whether the second of two flows may permit less than the first, and what differs, in words.
pub(crate) fn flow_details(before: &Flow, after: &Flow) -> (bool, Vec<String>) {
    let (effect, details) = flow::compare(before, after);
    (matches!(effect, Effect::Narrowed | Effect::Altered), details)
}

/// What one list of operations permits against another, outside of any plant: the effect, and how, in words (none if
/// the two say the same).
pub fn diff_operations(old: &Operations, new: &Operations) -> (Effect, Vec<String>) {
    let difference = operations::compare(old, new, "");
    (
        Effect::of(difference.wider, difference.narrower),
        difference.details,
    )
}

fn touches(before: Option<&Plans>, after: &Plans) -> BTreeMap<GatewayId, Touch> {
    let none = BTreeMap::new();
    let before = before.unwrap_or(&none);
    let all: BTreeSet<&GatewayId> = before.keys().chain(after.keys()).collect();
    all.into_iter()
        .map(|gateway| {
            let touch = match (before.get(gateway), after.get(gateway)) {
                (None, _) => Touch::Added,
                (_, None) => Touch::Removed,
                (Some(before), Some(after)) if before == after => Touch::Untouched,
                _ => Touch::Changed,
            };
            (gateway.clone(), touch)
        })
        .collect()
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Added => "added",
            Self::Widened => "widened",
            Self::Altered => "altered",
            Self::Narrowed => "narrowed",
            Self::Removed => "removed",
            Self::Recorded => "recorded",
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow { conduit, flow } => write!(f, "flow {conduit}/{flow}"),
            Self::Frames { conduit, flow } => write!(f, "frames {conduit}/{flow}"),
            Self::Conduit(id) => write!(f, "conduit {id}"),
            Self::Zone(id) => write!(f, "zone {id}"),
            Self::Asset(id) => write!(f, "asset {id}"),
            Self::Gateway(id) => write!(f, "gateway {id}"),
            Self::Approvers => f.write_str("approvers"),
            Self::RemoteAccess(id) => write!(f, "remote access {id}"),
            Self::BreakGlass => f.write_str("break-glass"),
            Self::CompensatingControl(id) => write!(f, "compensating control {id}"),
            Self::Accepted(finding) => write!(f, "finding {finding}"),
            Self::Risk => f.write_str("risk assessment"),
            Self::Site(id) => write!(f, "site {id}"),
            Self::Plant => f.write_str("plant"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.subject, self.effect, self.details.join("; "))
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("Nothing changes.");
        }
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        for (touch, words) in [
            (Touch::Changed, "Gateways with a changed plan"),
            (Touch::Added, "New gateways"),
            (Touch::Removed, "Gateways that are gone"),
        ] {
            let names: Vec<&str> = self.with(touch).map(GatewayId::as_str).collect();
            if !names.is_empty() {
                writeln!(f, "{words}: {}", names.join(", "))?;
            }
        }
        write!(f, "Gateways untouched: {}", self.with(Touch::Untouched).count())
    }
}

impl Diff {
    fn with(&self, touch: Touch) -> impl Iterator<Item = &GatewayId> {
        self.gateways
            .iter()
            .filter(move |(_, at)| **at == touch)
            .map(|(gateway, _)| gateway)
    }
}
