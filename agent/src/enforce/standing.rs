//! Whether the rules stood while no agent watched them: the note that an agent keeps of what it left in the kernel, and what
//! the next one makes of the difference.
//!
//! The note is written after each change and at a planned stop, and its time is renewed each minute while the rules are as
//! they should be: if they are gone later, the gateway may have stood open since then. Rules that were taken away and put
//! back again show by their handles, which the kernel gives once. What was found is a fault for [`SHOWN`], through restarts.
//!
//! Pure but for [`Note::read`], [`Note::write`] and [`touch`]. Not here: who asks (`table`).

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::enforce::nft::readback::KernelRuleset;
use crate::{clock, durable};

/// The note's name in the state folder.
pub const FILE: &str = "left.json";
/// How long health shows that a gateway may have stood open.
pub(in crate::enforce) const SHOWN: Duration = Duration::from_secs(24 * 3600);
/// How often the note's time is renewed.
pub(in crate::enforce) const RENEWED: Duration = Duration::from_secs(60);
/// The permission bits of the file.
const MODE: u32 = 0o600;
/// The most that a note takes.
const BYTES_MAX: u64 = 16 * 1024;

/// What an agent left in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The boot during which it was written, or during which rules were about to be changed.
    pub boot: String,
    /// The agent's version.
    pub version: String,
    /// Digest of our tables' content.
    pub content: String,
    /// Digest of their handles.
    pub handles: String,
    /// The generation of the kernel's rules.
    pub generation: u32,
    /// Whether the agent ended as it should, after this was written.
    pub ended: bool,
    /// Whether it was about to change rules.
    pub changing: bool,
    /// When it was written, milliseconds since 1970; the file's own time may be later.
    pub at_ms: u64,
    /// When the gateway was last found to have stood open.
    pub open: Option<OpenSpan>,
}

/// A span in which the gateway may have stood open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSpan {
    /// From when, milliseconds since 1970; 0: not known.
    pub from_ms: u64,
    /// Until when, milliseconds since 1970.
    pub until_ms: u64,
    /// What was found, in words.
    pub message: String,
}

/// What is known when an agent brings its first plan to the kernel.
#[derive(Debug, Clone, Copy)]
pub(in crate::enforce) struct StartFacts<'a> {
    /// What the agent before left; `None`: no note.
    pub note: Option<&'a Note>,
    /// Whether a policy was ever in force here.
    pub had_policy: bool,
    /// This boot.
    pub boot: &'a str,
    /// When this boot began, milliseconds since 1970; 0: not known.
    pub booted_ms: u64,
    /// What the kernel held.
    pub held: &'a KernelRuleset,
    /// Its generation.
    pub generation: u32,
    /// Whether it held exactly the plan, sealed.
    pub adopted: bool,
    /// Families that our tables should have had.
    pub families: &'a [u8],
}

/// What became of the rules while no agent watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::enforce) enum Continuity {
    /// No policy was ever in force here.
    First,
    /// They stood. So many transactions of others passed by, if that is known.
    Stood(Option<u32>),
    /// They stood as an agent left them, and were replaced in one step now: another version, or another plan.
    Renewed,
    /// After a boot, the base rules denied everything until now.
    Closed,
    /// An agent was ended while it changed rules.
    Unfinished,
    /// They did not stand.
    Opened {
        /// From when, milliseconds since 1970; 0: not known.
        from_ms: u64,
        /// What was found.
        what: &'static str,
    },
}

/// What became of the rules.
pub(in crate::enforce) fn judge(facts: StartFacts<'_>) -> Continuity {
    let StartFacts { note, held, .. } = facts;
    let gone = facts.families.iter().any(|family| !held.tables.contains(family));
    let base = held.is_base();
    let opened = |from_ms, what| Continuity::Opened { from_ms, what };
    let Some(note) = note else {
        return match (facts.had_policy, held.tables.is_empty()) {
            (false, _) => Continuity::First,
            (true, true) => opened(0, GONE),
            (true, false) if base => Continuity::Closed,
            (true, false) if facts.adopted => Continuity::Stood(None),
            (true, false) => Continuity::Renewed,
        };
    };
    if note.boot != facts.boot {
        return if held.tables.is_empty() {
            opened(facts.booted_ms, NO_BASE)
        } else if base {
            Continuity::Closed
        } else if facts.adopted || content(held) == note.content {
            Continuity::Stood(None)
        } else {
            opened(facts.booted_ms, CHANGED)
        };
    }
    if content(held) == note.content || facts.adopted {
        // An agent that is killed amid a change of its own may have left other handles than it noted.
        if !note.changing && handles(held) != note.handles {
            return opened(note.at_ms, PUT_BACK);
        }
        return if facts.adopted {
            let passed = facts.generation.wrapping_sub(note.generation);
            // Transactions of a change that was not noted any more were the agent's own.
            Continuity::Stood((note.ended && !note.changing).then_some(passed))
        } else {
            Continuity::Renewed
        };
    }
    match (gone, base, note.changing) {
        (true, ..) if held.tables.is_empty() || !note.changing => opened(note.at_ms, GONE),
        (_, _, true) => Continuity::Unfinished,
        (_, true, false) => opened(note.at_ms, REPLACED),
        (_, false, false) => opened(note.at_ms, CHANGED),
    }
}

const GONE: &str = "the gateway's rules were removed from the kernel";
const CHANGED: &str = "the gateway's rules were changed in the kernel";
const REPLACED: &str = "the gateway's rules were removed from the kernel, and its base rules loaded later";
const PUT_BACK: &str = "the gateway's rules were removed from the kernel and put back";
const NO_BASE: &str = "after the boot no base rules were in the kernel (is penstock-base.service enabled?)";

impl Continuity {
    /// What is worth an event although nothing is wrong: its step, its sentence, and whether it is worth a second look.
    pub(in crate::enforce) fn words(&self) -> Option<(&'static str, String, bool)> {
        let quiet = |step, message: &str| Some((step, message.to_owned(), false));
        match self {
            Self::First | Self::Opened { .. } => None,
            Self::Stood(Some(0)) => quiet(
                "rules-stood",
                "the kernel held the policy's rules while no agent ran, and nobody changed any rule of the packet filter",
            ),
            Self::Stood(Some(others)) => Some((
                "rules-stood",
                format!(
                    "the kernel held the policy's rules while no agent ran; other programs changed the packet filter {others} \
                     times meanwhile"
                ),
                true,
            )),
            Self::Stood(None) => quiet(
                "rules-stood",
                "the kernel holds the policy's rules, as an agent left them",
            ),
            Self::Renewed => quiet(
                "rules-renewed",
                "the kernel held the rules as an agent left them; they were replaced in one step by those of this version \
                 and plan",
            ),
            Self::Closed => quiet(
                "rules-closed",
                "since the boot the base rules let nothing cross a guarded interface, until the policy was in force",
            ),
            Self::Unfinished => Some((
                "rules-unfinished",
                "the previous agent ended while it was changing rules; they have been replaced now"
                    .to_owned(),
                true,
            )),
        }
    }
}

impl OpenSpan {
    /// The alarm.
    pub(in crate::enforce) fn sentence(&self) -> String {
        let from = match self.from_ms {
            0 => "a time that is not known".to_owned(),
            known => clock::utc(known),
        };
        format!(
            "{}: between {from} and {} this gateway may have let pass what its policy refuses, and nothing of it is in the trail",
            self.message,
            clock::utc(self.until_ms)
        )
    }

    /// Whether health still shows it.
    pub(in crate::enforce) fn is_shown(&self, now_ms: u64) -> bool {
        let shown_ms = u64::try_from(SHOWN.as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_sub(self.until_ms) <= shown_ms
    }
}

/// The content of our tables, as a note has it.
pub(in crate::enforce) fn content(held: &KernelRuleset) -> String {
    hex::encode(held.content().0)
}

/// Their handles.
pub(in crate::enforce) fn handles(held: &KernelRuleset) -> String {
    hex::encode(held.handles.0)
}

impl Note {
    /// Whether this is what it says that the kernel holds.
    pub fn holds(&self, held: &KernelRuleset) -> bool {
        content(held) == self.content && handles(held) == self.handles
    }

    /// The note at `path`, with the time at which it last held; `None` if there is none that can be read.
    pub fn read(path: &Path) -> Option<Self> {
        let bytes = durable::read(path, BYTES_MAX).ok().flatten()?;
        let mut note: Self = serde_json::from_slice(&bytes).ok()?;
        let renewed = std::fs::metadata(path).and_then(|file| file.modified()).ok();
        let renewed = renewed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let renewed_ms = renewed.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0));
        note.at_ms = note.at_ms.max(renewed_ms);
        Some(note)
    }

    /// Writes it.
    pub fn write(&self, path: &Path) {
        // Names and numbers cannot fail to be JSON.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        if let Err(error) = durable::replace(path, &bytes, MODE) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot record what this agent leaves in the kernel: after a restart it is not known whether the rules stood"
            );
        }
    }
}

/// The rules are as noted, at this moment. Not durable: it is for an agent that is killed, not for a machine that is.
pub(in crate::enforce) fn touch(path: &Path) {
    let touched = std::fs::File::options()
        .append(true)
        .open(path)
        .and_then(|file| file.set_modified(std::time::SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(%error, "the note's time is not renewed");
    }
}

#[cfg(test)]
mod tests;
