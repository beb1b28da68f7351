//! The first plan of an agent: whether the rules that an agent before left stood meanwhile, and whether they can be taken over
//! as they are; and the note for the next one.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use penstock_policy::ids::Digest;

use super::{Table, generation, read_held};
use crate::enforce::EnforceError;
use crate::enforce::ground::base::Base;
use crate::enforce::nft::readback::{KernelRuleset, meant};
use crate::enforce::nft::render::{self, TableElements};
use crate::enforce::shape::lower::Elements;
use crate::enforce::shape::structure::{Finding, Structure};
use crate::enforce::standing::{self, Continuity, Note, OpenSpan, StartFacts};
use crate::enforce::table::loaded::LoadedPolicy;
use crate::observed::{Condition, ConditionSeen, ConditionStep, Observation};
use crate::{boot, clock};

/// Hexadecimal digits of each digest in the seal: a chain's comment holds 128 characters.
const SEAL_DIGITS: usize = 48;

impl Table {
    /// The text that marks tables as loaded by an agent, whole, from this structure.
    pub(super) fn seal(&self, structure: &Structure, described: Digest) -> String {
        let none = TableElements {
            flows: &Elements::default(),
            left: &std::collections::BTreeMap::new(),
        };
        let script = render::whole(structure, none, self.settings.log_group);
        let digits = |digest: Digest| {
            hex::encode(digest.0)
                .chars()
                .take(SEAL_DIGITS)
                .collect::<String>()
        };
        format!(
            "penstock {} {}",
            digits(Digest::of(script.as_bytes())),
            digits(described)
        )
    }

    /// Whether the kernel holds exactly this, sealed by an agent before this one; at the `first` plan also what became of it
    /// since.
    pub(super) async fn start(
        &self,
        structure: &Structure,
        elements: &Elements,
        first: bool,
    ) -> Result<Start, EnforceError> {
        let (held, generation) = read_held().await?;
        let meant_seal = self.seal(structure, held.structure);
        let hindrance = match held.seal.as_deref() {
            Some(seal) if seal == meant_seal && held.maps == meant(elements) => None,
            Some(seal) if seal == meant_seal => Some("they hold other flows than the plan"),
            Some(_) if held.is_base() => Some("they are the base rules"),
            Some(seal) if made_from(seal) == made_from(&meant_seal) => {
                Some("they were changed since an agent made them")
            }
            Some(_) => Some(
                "they were made for other interfaces, zones, management or inspector ports, or by another version of the agent",
            ),
            None if held.tables.is_empty() => Some("there are none"),
            None => Some("no agent finished them"),
        };
        if let Some(hindrance) = hindrance {
            tracing::info!(
                hindrance,
                "the rules that the kernel holds are not taken over, but replaced"
            );
        }
        let found = first.then(|| self.judge(structure, &held, generation, hindrance.is_none()));
        Ok(Start {
            adopted: hindrance.is_none(),
            found: found.flatten(),
            held,
            generation,
        })
    }

    /// What became of the rules while no agent watched; `None` where no notes are kept.
    fn judge(
        &self,
        structure: &Structure,
        held: &KernelRuleset,
        generation: u32,
        adopted: bool,
    ) -> Option<Continuity> {
        let note = Note::read(self.settings.note_path.as_deref()?);
        if let Some(open) = note.as_ref().and_then(|note| note.open.clone()) {
            *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        }
        let base = self.settings.base_path.as_deref().map(Base::read);
        Some(standing::judge(StartFacts {
            note: note.as_ref(),
            // A file that cannot be understood was written once all the same.
            had_policy: note.is_some() || base.is_some_and(|base| !matches!(base, Ok(None))),
            boot: &boot::id(),
            booted_ms: boot::began_ms(),
            held,
            generation,
            adopted,
            families: LoadedPolicy::families(structure),
        }))
    }

    /// Tells what became of the rules while no agent watched.
    pub(super) fn tell_start(&self, found: Option<Continuity>) {
        let Some(found) = found else { return };
        if let Continuity::Opened { from_ms, what } = found {
            let open = OpenSpan {
                from_ms,
                until_ms: clock::now_ms(),
                message: what.to_owned(),
            };
            let message = open.sentence();
            tracing::error!("{message}");
            self.outbox.put(Observation::Condition(Box::new(ConditionSeen {
                step: ConditionStep::Found,
                first_ms: open.from_ms,
                last_ms: open.until_ms,
                condition: Condition::of_gateway(STOOD_OPEN, message, true),
            })));
            *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        } else if let Some((step, message, unusual)) = found.words() {
            self.outbox.put(Observation::Start {
                step,
                message,
                unusual,
            });
        }
    }

    /// That this gateway may have stood open of late.
    pub(in crate::enforce) fn stood_open(&self, now_ms: u64) -> Option<Finding> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().filter(|open| open.is_shown(now_ms))?;
        Some(Finding {
            code: STOOD_OPEN,
            message: open.sentence(),
        })
    }

    /// Notes that rules are about to be changed, in this boot: an agent that is killed amid it leaves what nobody else did.
    pub(super) fn note_change(&self) {
        let Some(path) = &self.settings.note_path else {
            return;
        };
        let boot = boot::id();
        if let Some(mut note) = Note::read(path)
            && !(note.changing && note.boot == boot)
        {
            note.changing = true;
            note.boot = boot;
            note.write(path);
        }
    }

    /// Notes what the kernel holds, for the agent that comes next; `ended`: this one ends now.
    pub(in crate::enforce) async fn note(&self, ended: bool) {
        let mut state = self.state.lock().await;
        let (Some(path), Some(loaded)) = (&self.settings.note_path, &state.loaded) else {
            return;
        };
        if !ended && !state.unnoted {
            if !state.differs {
                standing::touch(path);
            }
            return;
        }
        let (content, handles) = state.left.filter(|_| state.differs).unwrap_or_else(|| {
            let content = loaded.content();
            (content, loaded.handles)
        });
        let note = Note {
            boot: boot::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            content: hex::encode(content.0),
            handles: hex::encode(handles.0),
            generation: generation().await.unwrap_or(state.seen),
            ended,
            changing: false,
            at_ms: clock::now_ms(),
            open: self.open.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        note.write(path);
        state.unnoted = false;
    }
}

/// The code of a gateway that may have stood open.
const STOOD_OPEN: &str = "stood-open";

/// What was in the kernel before an agent's first plan.
pub(super) struct Start {
    /// Whether it is exactly the plan.
    pub(super) adopted: bool,
    /// What became of it; `None` where no notes are kept, and for a plan that is not the first.
    pub(super) found: Option<Continuity>,
    pub(super) held: KernelRuleset,
    pub(super) generation: u32,
}

/// Keeps the note for as long as the agent runs: soon after each change, and its time now and then.
pub(in crate::enforce) async fn keep_note(table: Arc<Table>) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(NOTED).await;
        let changed = table.state.lock().await.unnoted;
        if changed || renewed.elapsed() >= standing::RENEWED {
            renewed = Instant::now();
            table.note(false).await;
        }
    }
}

/// How soon after a change the note is written.
const NOTED: Duration = Duration::from_secs(1);

/// What of a seal says from which script the tables were made; the rest says what the kernel made of it.
fn made_from(seal: &str) -> &str {
    seal.rsplit_once(' ').map_or(seal, |(script, _)| script)
}
