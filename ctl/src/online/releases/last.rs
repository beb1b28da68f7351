//! `release known`: what this machine knows of the plant's releases, without asking a coordinator.

use schemars::JsonSchema;
use serde::Serialize;

use crate::contexts::Contexts;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::known::KnownPlant;
use crate::offline::signing::Stated;
use crate::output::{Output, Page, Report, Tone};

/// The release that this person verified last.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KnownShown {
    /// The plant.
    pub plant: String,
    /// Whose machine it is.
    pub operator: String,
    /// The release; absent: none was verified here yet.
    pub verified: Option<Stated>,
    /// The highest number that this machine has seen; 0: none.
    pub highest: u64,
}

impl Report for KnownShown {
    const SCHEMA: &'static str = "penstock.release-known/1";
    fn page(&self, page: &mut Page) {
        let Some(verified) = &self.verified else {
            page.line(format!(
                "{} has verified no release of {} on this machine yet",
                page.paint(Tone::Strong, &self.operator),
                self.plant
            ));
            return;
        };
        verified.page(page);
        if self.highest > verified.revision {
            page.line(format!(
                "this machine has seen numbers up to r{}, proposals among them",
                self.highest
            ));
        }
        page.line(
            "A gateway that enforces it shows the same words (`penstock-agent status`), and so does each approver's machine: compare them \
             by telephone.",
        );
    }
}

/// `penstock release known`.
pub(super) fn known(out: &Output, context: Option<&str>) -> Result<Exit, Failure> {
    let contexts = Contexts::open()?;
    let login = contexts.find(context)?;
    let known = KnownPlant::open(&contexts, &login)?;
    let verified = known.verified()?;
    out.show(&KnownShown {
        plant: login.context.plant.to_string(),
        operator: login.context.operator.to_string(),
        highest: known.highest(),
        verified: verified.map(|verified| Stated::of(&verified.statement, &verified.statement.to_bytes())),
    })?;
    Ok(Exit::Done)
}
