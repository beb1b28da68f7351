//! `penstock-agent trust`: which roots this gateway trusts, and a trust bundle that somebody brings to a site without a link.

use std::path::PathBuf;

use anyhow::Context as _;
use penstock_policy::text;
use penstock_proto::bundle::{BUNDLE_FILE_BYTES_MAX, SignedBundle, from_json};
use penstock_proto::event::AgentStep;

use super::asking::Asking;
use super::brought;
use crate::config::Config;
use crate::identity::IdentityFolder;
use crate::local::Ask;
use crate::store::Store;
use crate::trust::in_words;

/// What can be done with trust bundles.
#[derive(Debug, clap::Subcommand)]
pub enum TrustCommand {
    /// Show which roots are trusted here, also while no agent runs.
    Show {
        /// Who asks, and whom.
        #[command(flatten)]
        asking: Asking,
    },
    /// Take a trust bundle from a file, at a site without a link to the coordinator.
    ///
    /// A root that this gateway trusts already has to have signed it: whoever brings it can leave it out, and cannot change it.
    Take {
        /// Who asks, and whom.
        #[command(flatten)]
        asking: Asking,
        /// The signed bundles.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

impl TrustCommand {
    /// Does it.
    ///
    /// # Errors
    /// Nothing was done, and why.
    pub fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::Show { asking } => {
                let config = asking.config()?;
                let trusted = config.identity().trusted()?;
                println!("{}", text::printable(&in_words(&trusted)));
                Ok(())
            }
            Self::Take { asking, file } => {
                let written = brought::read(&file, BUNDLE_FILE_BYTES_MAX)?;
                let bundles = from_json(&written)
                    .with_context(|| format!("nothing was done: {} is not used", file.display()))?;
                let ask_for = Ask::TakeTrust { bundles: written };
                brought::take(asking, ask_for, AgentStep::TrustTaken, |config| {
                    take_alone(config, &bundles)
                })
            }
        }
    }
}

/// Where no agent runs.
fn take_alone(config: &Config, bundles: &[SignedBundle]) -> anyhow::Result<(String, bool)> {
    let enrolment = IdentityFolder::enrolment(&mut Store::open(&config.state_folder))?;
    let taken = config
        .identity()
        .take_trust(&enrolment.plant, bundles)
        .context("nothing was done")?;
    Ok(match taken {
        Some(trusted) => (in_words(&trusted), true),
        None => ("the trust bundle says nothing new".to_owned(), false),
    })
}
