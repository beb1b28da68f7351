//! `penstock-agent trust`: which roots this gateway trusts, and a trust bundle that somebody brings to a site without a link.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use penstock_policy::text;
use penstock_proto::bundle::{BUNDLE_FILE_BYTES_MAX, SignedBundle, from_json};
use penstock_proto::event::AgentStep;

use super::asking::Asking;
use crate::audit::{self, record};
use crate::config::Config;
use crate::identity::IdentityFolder;
use crate::local::ask::AskError;
use crate::local::{Ask, people};
use crate::store::{self, Store};
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
                let trusted = IdentityFolder::new(&config.state_folder).trusted()?;
                println!("{}", text::printable(&in_words(&trusted)));
                Ok(())
            }
            Self::Take { asking, file } => {
                let written = read(&file)?;
                let bundles = from_json(&written)
                    .with_context(|| format!("nothing was done: {} is not used", file.display()))?;
                let config = asking.config()?;
                let said = asking.said();
                let asked = asking.asked(&config.local(), Ask::TakeTrust { bundles: written });
                let done = match asked {
                    Err(error) if matches!(error.downcast_ref(), Some(AskError::NotThere(_))) => {
                        take_alone(&config, &bundles, said.as_deref())?
                    }
                    asked => asked?,
                };
                println!("{}", text::printable(&done));
                Ok(())
            }
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut written = String::new();
    let limit = u64::try_from(BUNDLE_FILE_BYTES_MAX).unwrap_or(u64::MAX);
    std::fs::File::open(file)
        .and_then(|opened| opened.take(limit.saturating_add(1)).read_to_string(&mut written))
        .with_context(|| format!("nothing was done: {} cannot be read", file.display()))?;
    Ok(written)
}

/// The same where no agent runs: the next one knows it from its start on.
fn take_alone(config: &Config, bundles: &[SignedBundle], said: Option<&str>) -> anyhow::Result<String> {
    let user = rustix::process::geteuid().as_raw();
    let by = people::in_words(user, user, people::name_of(user).as_deref(), said)?;
    let _lock = store::lock(&config.state_folder)?;
    let enrolment = IdentityFolder::enrolment(&mut Store::open(&config.state_folder))?;
    let taken = IdentityFolder::new(&config.state_folder)
        .take_trust(&enrolment.plant, bundles)
        .context("nothing was done")?;
    let Some(trusted) = taken else {
        return Ok("the trust bundle says nothing new".to_owned());
    };
    let words = in_words(&trusted);
    note(config, &format!("brought by {by} while no agent ran: {words}"))?;
    Ok(words)
}

/// Puts it in the trail.
fn note(config: &Config, words: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("it counts, but is not in the audit trail: cannot start the run time")?;
    runtime.block_on(async {
        let (audit, writer) = audit::start(config.state_folder.clone(), config.spool_limits());
        audit.note(record::agent(AgentStep::TrustTaken, words));
        audit.close().await;
        let _ = writer.await;
    });
    Ok(())
}
