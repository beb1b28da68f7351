//! `penstock-agent withdrawn`: whose keys no longer count at this gateway, and a list of them that somebody brings to a site without a
//! link.

use std::path::PathBuf;

use anyhow::Context as _;
use penstock_policy::text;
use penstock_proto::event::AgentStep;
use penstock_proto::withdrawn::{FILE_BYTES_MAX, SignedList, Withdrawn};

use super::asking::Asking;
use super::brought;
use crate::config::Config;
use crate::identity::IdentityFolder;
use crate::local::Ask;
use crate::store::Store;
use crate::withdrawn;

/// What can be done with withdrawn keys.
#[derive(Debug, clap::Subcommand)]
pub enum WithdrawnCommand {
    /// Show whose keys no longer count here, also while no agent runs.
    Show {
        /// Who asks, and whom.
        #[command(flatten)]
        asking: Asking,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Take a list of withdrawn keys from a file, at a site without a link to the coordinator.
    ///
    /// The plant's authority signed it: whoever brings it can leave it out, and cannot change it. It only ever takes keys away, so that
    /// an old one does no harm.
    Take {
        /// Who asks, and whom.
        #[command(flatten)]
        asking: Asking,
        /// The signed list.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

impl WithdrawnCommand {
    /// Does it.
    ///
    /// # Errors
    /// Nothing was done, and why.
    pub fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::Show { asking, json } => {
                let config = asking.config()?;
                let list = withdrawn::peek(&config.state_folder).map_err(anyhow::Error::msg)?;
                let list = list.unwrap_or_default();
                if json {
                    println!("{}", text::json(&serde_json::to_string(&list)?));
                } else {
                    print!("{}", text::printable(&shown(&list)));
                }
                Ok(())
            }
            Self::Take { asking, file } => {
                let written = brought::read(&file, FILE_BYTES_MAX)?;
                let list = SignedList::from_json(&written)
                    .with_context(|| format!("nothing was done: {} is not used", file.display()))?;
                let ask_for = Ask::TakeWithdrawn { list: written };
                brought::take(asking, ask_for, AgentStep::KeysWithdrawn, |config| {
                    take_alone(config, &list)
                })
            }
        }
    }
}

fn shown(list: &Withdrawn) -> String {
    if list.is_empty() {
        return "no key was withdrawn, as far as this gateway knows\n".to_owned();
    }
    let width = list.entries().map(|(subject, _)| subject.to_string().len()).max();
    let width = width.unwrap_or(0);
    let mut lines = format!("list         number {}\n", list.held().number);
    for (subject, from) in list.entries() {
        lines += &format!(
            "{:<width$}  only life {from} and later ones count\n",
            subject.to_string()
        );
    }
    lines
}

/// Where no agent runs.
fn take_alone(config: &Config, list: &SignedList) -> anyhow::Result<(String, bool)> {
    let mut store = Store::open(&config.state_folder);
    let enrolment = IdentityFolder::enrolment(&mut store)?;
    let identity = config.identity().load(enrolment)?;
    let known = withdrawn::load(&mut store)
        .inspect_err(|why| eprintln!("what was known before is not used: {}", text::printable(why)));
    let known = known.ok().flatten().unwrap_or_default();
    let taken = withdrawn::put_together(&known, list, identity.plant_trust());
    let (together, news) = taken.context("nothing was done")?;
    withdrawn::save(&mut store, &together)?;
    Ok((withdrawn::in_words(&together, &news), !news.is_empty()))
}
