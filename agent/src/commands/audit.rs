//! `penstock-agent audit`: what this gateway's own trail proves, read where it lies.

use std::path::PathBuf;

use penstock_policy::ids::PlantId;
use penstock_policy::text;
use penstock_proto::audit::Head;
use penstock_proto::audit::chain::SealTrust;

use super::asking::CONFIG_PATH;
use crate::audit::{check, sealer};
use crate::config::Config;
use crate::identity::IdentityFolder;

/// What can be done with the trail on this machine.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Verify this gateway's audit trail: chain, seals, gaps, and the coordinator's word; also while the agent runs.
    ///
    /// Says what is proved and what is not. It fails where something was altered, is missing without an account, or cannot be read. Nothing
    /// is changed.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
        /// Also say what the agent would do about what is wrong. It is a plan: nothing is changed.
        #[arg(long)]
        repair: bool,
    },
}

/// The trail is not as the agent left it.
#[derive(Debug, thiserror::Error)]
#[error("the audit trail on this gateway is not whole: see above")]
pub struct NotWhole;

impl AuditCommand {
    /// Does it.
    ///
    /// # Errors
    /// The trail is not whole, or cannot be read.
    pub fn execute(self) -> anyhow::Result<()> {
        let Self::Check { config, repair } = self;
        let config = Config::load(&config)?;
        let folder = config.state_folder.as_path();
        let enrolment = IdentityFolder::peek_enrolment(folder)?;
        let roots = config.identity().held_roots()?;
        let trust = SealTrust {
            plant: &enrolment.plant,
            source: enrolment.gateway.as_str().into(),
            roots: &roots,
        };
        let witness = witness_of(&trust, &config, &enrolment.plant);
        let report = check::check(folder, config.spool_limits(), trust, witness)?;
        print!("{}", text::printable(&report.to_string()));
        if repair {
            let plan = report.plan();
            if plan.is_empty() {
                println!("Nothing is to be repaired.");
            }
            plan.iter().for_each(|line| println!("Plan: {line}"));
        }
        if report.is_whole() {
            Ok(())
        } else {
            Err(NotWhole.into())
        }
    }
}

/// What the coordinator witnessed; a word that proves nothing is said, and is none.
fn witness_of(trust: &SealTrust<'_>, config: &Config, plant: &PlantId) -> Option<Head> {
    match sealer::witnessed(&config.state_folder, trust) {
        Ok(Some(text)) => Some(text.head),
        Ok(None) => {
            println!(
                "No coordinator of {plant} has witnessed this trail, as far as this disk shows: a cut at its end would not show here."
            );
            None
        }
        Err(why) => {
            println!(
                "The coordinator's word in {} proves nothing: {why}",
                sealer::WITNESS
            );
            None
        }
    }
}
