//! What a new plant changes, as an engineer and an approver need it before they sign: everything of [`diff`](crate::diff), and
//! what follows from it.
//!
//! | part | what it says | file |
//! |---|---|---|
//! | `diff` | what comes, goes, permits more or less; which gateways' plans change | `diff` |
//! | `paths` | pairs of zones of which one can act on the other where it could not, or with more; and no longer, or with less | `paths` |
//! | `must_flows` | what must flow, and the change takes away, narrows, enforces or interrupts | `must_flows` |
//! | `findings` | what `check` finds now and did not before, and what it no longer finds | `findings` |
//!
//! Pure: two plants in, data out, bounded; what is beyond a bound is counted. Not here: traffic that was recorded, and what
//! the new rules would do to it.

mod findings;
mod must_flows;
mod paths;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use self::findings::FindingChanges;
pub use self::must_flows::{MustFlowAtRisk, Risk};
pub use self::paths::{PAIRS_MAX, PairChange, PairChanges, PathChanges, WAYS_MAX};
use crate::compile::{CompileError, compile_all};
use crate::diff::{Diff, diff_of_plans};
use crate::model::Plant;

/// What changes between two plants, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// What comes, goes and changes.
    pub diff: Diff,
    /// Which zone can act on which where it could not, and the other way round.
    pub paths: PathChanges,
    /// What must flow and is at risk, by flow.
    pub must_flows: Vec<MustFlowAtRisk>,
    /// What `check` finds in the one plant and not in the other.
    pub findings: FindingChanges,
}

impl Preview {
    /// What `new` changes against `old`; everything, if there is no old plant.
    ///
    /// # Errors
    /// One of the plants cannot be compiled.
    pub fn of(old: Option<&Plant>, new: &Plant) -> Result<Self, CompileError> {
        let before = old.map(compile_all).transpose()?;
        let after = compile_all(new)?;
        let old = old.zip(before.as_ref());
        Ok(Self {
            diff: diff_of_plans(old, (new, &after)),
            paths: PathChanges::between(old.map(|(plant, _)| plant), new),
            must_flows: old.map_or_else(Vec::new, |old| must_flows::at_risk(old, (new, &after))),
            findings: FindingChanges::between(old, (new, &after)),
        })
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.diff.is_empty()
            && self.paths.is_empty()
            && self.must_flows.is_empty()
            && self.findings.new.is_empty()
            && self.findings.gone.is_empty()
    }
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.diff)?;
        for risk in &self.must_flows {
            write!(f, "\n{risk}")?;
        }
        for (pairs, all, part) in [
            (&self.paths.opened, "can act on", "can do more to"),
            (&self.paths.closed, "can no longer act on", "can do less to"),
        ] {
            for pair in &pairs.pairs {
                let verb = if pair.entirely { all } else { part };
                write!(f, "\n{} {verb} {}", pair.from, pair.to)?;
            }
            if pairs.further > 0 {
                write!(f, "\nand {} further pairs of zones", pairs.further)?;
            }
            if pairs.unexamined > 0 {
                write!(
                    f,
                    "\nfrom {} zones not every pair was looked for",
                    pairs.unexamined
                )?;
            }
        }
        for (findings, word) in [(&self.findings.new, "new"), (&self.findings.gone, "gone")] {
            for finding in findings {
                write!(f, "\n{word}: {finding}")?;
            }
        }
        Ok(())
    }
}
