//! What somebody brings in a file to a site without a link: the agent takes it, or where none runs, this command does, and the next agent
//! knows it from its start on. Either way the trail says who brought it.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use penstock_policy::text;
use penstock_proto::event::AgentStep;

use super::asking::Asking;
use crate::audit::{self, record};
use crate::config::Config;
use crate::local::ask::AskError;
use crate::local::{Ask, people};
use crate::store;

/// What is in the file, if it is no longer than that.
pub(super) fn read(file: &Path, bytes_max: usize) -> anyhow::Result<String> {
    let mut written = String::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    std::fs::File::open(file)
        .and_then(|opened| opened.take(limit.saturating_add(1)).read_to_string(&mut written))
        .with_context(|| format!("nothing was done: {} cannot be read", file.display()))?;
    Ok(written)
}

/// Has the agent take it. Where none runs `alone` does, which says what is so then, and whether that is new; `step` is its name in the trail.
pub(super) fn take(
    asking: Asking,
    ask_for: Ask,
    step: AgentStep,
    alone: impl FnOnce(&Config) -> anyhow::Result<(String, bool)>,
) -> anyhow::Result<()> {
    let config = asking.config()?;
    let said = asking.said();
    let done = match asking.asked(&config.local(), ask_for) {
        Err(error) if matches!(error.downcast_ref(), Some(AskError::NotThere(_))) => {
            let user = rustix::process::geteuid().as_raw();
            let by = people::in_words(user, user, people::name_of(user).as_deref(), said.as_deref())?;
            let _lock = store::lock(&config.state_folder)?;
            let (words, is_new) = alone(&config)?;
            if is_new {
                let noted = format!("brought by {by} while no agent ran: {words}");
                note(&config, step, &noted)?;
            }
            words
        }
        asked => asked?,
    };
    println!("{}", text::printable(&done));
    Ok(())
}

/// Puts it in the trail.
fn note(config: &Config, step: AgentStep, words: &str) -> anyhow::Result<()> {
    const IN_FORCE: &str = "it counts, but is not in the audit trail";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(|| format!("{IN_FORCE}: cannot start the run time"))?;
    runtime.block_on(async {
        let (audit, writer) = audit::start(config.state_folder.clone(), config.spool_limits());
        audit.note(record::agent(step, words));
        audit.close().await;
        writer
            .await
            .with_context(|| format!("{IN_FORCE}: its writer failed"))
    })?;
    Ok(())
}
