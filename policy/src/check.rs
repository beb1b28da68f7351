//! The independent checker: is this plan what the plant says, and is it safe to live with?
//!
//! It judges plans after the compiler and shares no code with it; where both need the same arithmetic, it is
//! written a second time here. So a fault in the one is found by the other. It never changes a plan.
//!
//! | codes | what is judged | file |
//! |---|---|---|
//! | `PC010x` | the way in for people: can a gateway lock them out? | `management` |
//! | `PC011x` | the plan says what the plant says, no more and no less | `faithful` |
//! | `PC012x` | rules among each other: without effect, contradictory, dead | `rules` |
//! | `PC013x` | what must flow still flows, against the plans before | `history` |
//! | `PC014x` | who can reach safety, and with what | `safety` |
//! | `PC015x` | zones and sides: observing too long, overlapping | `zones` |
//! | `PC016x` | what stops with the agent or for want of assurance, and must flow | `agent_loss`, `rules`, `assurance` |
//! | `PC017x` | when a gateway changes, and what it asks before | `change_control` |
//! | `PC018x` | who may override a gateway in front of it | `break_glass` |
//! | `PC019x` | findings that people accepted | `names` |
//!
//! Codes are stable. An [`Severity::Error`] means: do not release this. A warning is for a person to weigh; a note
//! is for the record.

mod agent_loss;
mod assurance;
mod break_glass;
mod change_control;
mod codes;
mod faithful;
mod history;
mod management;
mod names;
mod neighbours;
mod rules;
mod safety;
mod spans;
#[cfg(test)]
mod tests;
mod zones;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

pub use self::codes::{FINDING_CODES, FindingCode, finding_code};
pub(crate) use self::history::{Loss, losses};
pub use self::names::{acceptance, main_subject, named};
pub(crate) use self::rules::{Element, Index, elements};
use crate::ids::GatewayId;
use crate::model::Plant;
use crate::plan::Plan;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Must not be released.
    Error,
    /// A person should weigh it.
    Warning,
    /// For the record.
    Note,
}

/// One thing that the checker found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How grave.
    pub severity: Severity,
    /// Stable code (`PC0101`).
    pub code: &'static str,
    /// The gateway concerned, if it is one.
    pub gateway: Option<GatewayId>,
    /// What was found, in a sentence.
    pub words: String,
    /// What to do.
    pub help: String,
}

/// Judges all plans of a plant; `previous` are the plans in force, if there are any. Gravest first.
pub fn check(
    plant: &Plant,
    plans: &BTreeMap<GatewayId, Plan>,
    previous: Option<&BTreeMap<GatewayId, Plan>>,
) -> Vec<Finding> {
    let mut findings = Findings::default();
    faithful::fleet(plant, plans, &mut findings);
    let index = faithful::Index::of(plant);
    for plan in plans.values() {
        findings.gateway = Some(plan.gateway.clone());
        management::check(plan, &mut findings);
        neighbours::check(plan, &mut findings);
        faithful::check(plant, &index, plan, &mut findings);
        change_control::check(plant, plan, &mut findings);
        break_glass::check(plant, plan, &mut findings);
        assurance::must_flows(plant, plan, &mut findings);
        rules::check(plan, &mut findings);
        zones::sides(plan, &mut findings);
    }
    findings.gateway = None;
    change_control::on_the_way(plans, &mut findings);
    if let Some(previous) = previous {
        history::check(previous, plans, &mut findings);
    }
    safety::check(plant, &mut findings);
    zones::check(plant, &mut findings);
    agent_loss::check(plant, &mut findings);
    names::accepted_without_finding(plant, &mut findings);
    let mut all = findings.all;
    all.sort();
    all.dedup();
    all
}

/// Findings as they are gathered.
#[derive(Default)]
struct Findings {
    gateway: Option<GatewayId>,
    all: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, severity: Severity, code: &'static str, words: String, help: &str) {
        self.all.push(Finding {
            severity,
            code,
            gateway: self.gateway.clone(),
            words,
            help: help.to_owned(),
        });
    }

    fn error(&mut self, code: &'static str, words: String, help: &str) {
        self.add(Severity::Error, code, words, help);
    }

    fn warning(&mut self, code: &'static str, words: String, help: &str) {
        self.add(Severity::Warning, code, words, help);
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: ", self.severity, self.code)?;
        if let Some(gateway) = &self.gateway {
            write!(f, "{gateway}: ")?;
        }
        write!(f, "{}\n  help: {}", self.words, self.help)
    }
}
