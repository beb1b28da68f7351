//! When the trail is sealed, and the keys that do it (`penstock_proto::audit::seal`).
//!
//! A seal is part of the commit that it closes, so that it costs no sync of its own; behind it the key's file is replaced
//! (`penstock_proto::audit::keys` says what holds whatever step the machine stops at). A trail that does not grow gets none, nor does a gateway that was
//! never enrolled: it has no name to seal by.
//!
//! What cannot be kept or made is a fault, and the trail goes on unsealed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_policy::text;
use penstock_proto::audit::chain::SealTrust;
use penstock_proto::audit::key_file::{KeyFile, KeyFileError};
use penstock_proto::audit::keys::SealKeys;
use penstock_proto::audit::note::Note;
use penstock_proto::audit::seal::SealText;
use penstock_proto::audit::witness;
use penstock_proto::v1::SealEvent;
use serde::Serialize;
use tokio::sync::watch;

use super::layout::Position;
use super::waiting::WaitingEvent;
use crate::durable::{self, FileError};

/// The keys of the next seal.
const KEYS: &str = "spool.keys";
/// What the newest seal says, for `penstock-agent status`.
const SHOWN: &str = "spool.sealed";
/// The coordinator's word for the newest seal that it stored (`penstock_proto::audit::witness`).
pub const WITNESS: &str = "spool.witness";
const SHOWN_BYTES_MAX: u64 = 8 * 1024;

/// How often at most a trail is sealed that grows.
const EVERY: Duration = Duration::from_secs(10);
/// How often at most for something grave.
const GRAVE_EVERY: Duration = Duration::from_secs(1);
/// Blocks that no seal covers.
const BLOCKS_MAX: u64 = 1024;

/// What is sealed with, and by what name.
#[derive(Debug)]
pub struct SealOrder<'a> {
    /// Plant and gateway.
    pub name: &'a str,
    /// The keys of the next seal.
    pub keys: &'a SealKeys,
}

/// Decides when, and keeps the keys.
#[derive(Debug)]
pub struct Sealer {
    folder: PathBuf,
    name: watch::Receiver<Option<String>>,
    keys: KeyFile,
    /// By which name, and with which keys, the order is.
    order: Option<(String, Arc<SealKeys>)>,
    last: Option<Instant>,
    /// Blocks behind the newest seal.
    blocks: u64,
    /// Something grave among them.
    is_grave: bool,
    newest: Option<SealText>,
    fault: Option<String>,
}

impl Sealer {
    /// With keys in `folder`, by the name that `name` says once there is one.
    pub fn new(folder: &Path, name: watch::Receiver<Option<String>>) -> Self {
        Self {
            folder: folder.to_owned(),
            name,
            keys: KeyFile::at(folder.join(KEYS)),
            order: None,
            last: None,
            blocks: 0,
            is_grave: false,
            newest: None,
            fault: None,
        }
    }

    /// Whether what stands in the trail, and `batch`, which goes into it now, is to be sealed.
    pub fn is_due(&self, batch: &[WaitingEvent]) -> bool {
        if self.name.borrow().is_none()
            || (self.blocks == 0 && !batch.iter().any(WaitingEvent::is_to_be_sealed))
        {
            return false;
        }
        let since = self.last.map_or(Duration::MAX, |last| last.elapsed());
        let is_grave = self.is_grave || batch.iter().any(WaitingEvent::is_grave);
        since >= EVERY || (is_grave && since >= GRAVE_EVERY) || self.blocks >= BLOCKS_MAX
    }

    /// What to seal with now; `None`: there is no name yet, or the keys cannot be had, which is a fault then.
    pub fn order(&mut self) -> Option<SealOrder<'_>> {
        let name = self.name.borrow().clone()?;
        let keys = self.keys.keys().map_err(|error| self.fail(error)).ok()?;
        let (name, keys) = self.order.insert((name, keys));
        Some(SealOrder { name, keys })
    }

    /// So many blocks are in the trail, with these events among them.
    pub fn grew(&mut self, blocks: u64, has_grave: bool) {
        self.blocks = self.blocks.saturating_add(blocks);
        self.is_grave |= blocks > 0 && has_grave;
    }

    /// The seal is durable: the key that signed it is erased.
    pub fn sealed(&mut self, text: SealText) {
        (self.blocks, self.is_grave, self.last) = (0, false, Some(Instant::now()));
        // What is shown is of no consequence.
        let _ = durable::show(&self.folder.join(SHOWN), text.to_string().as_bytes(), 0o600);
        (self.newest, self.order) = (Some(text), None);
        match self.keys.advance() {
            Ok(()) => self.fault = None,
            // The next seal is by the same key, which a verifier takes; that it could be forged meanwhile is said.
            Err(error) => self.fail(error),
        }
    }

    /// The gateway's disk was set back, or it has a copy: the keys that it has signed already. New ones begin.
    pub fn begin_again(&mut self) {
        if let Err(error) = self.keys.begin_again() {
            self.fail(error);
        }
    }

    /// Whether something in the trail is behind its newest seal.
    pub fn has_unsealed(&self) -> bool {
        self.blocks > 0
    }

    /// What the newest seal says, since the agent began.
    pub fn newest(&self) -> Option<&SealText> {
        self.newest.as_ref()
    }

    /// Why the trail is not sealed as it should be.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    fn fail(&mut self, error: KeyFileError) {
        let why = match error {
            KeyFileError::File(error) => text::sentence(&FileError::from(error)),
            KeyFileError::NoRandom(error) => error.to_string(),
        };
        if self.fault.as_ref() != Some(&why) {
            tracing::warn!("the audit trail is not sealed as it should be: {why}");
        }
        self.fault = Some(why);
    }
}

/// What the newest seal of the trail in `folder` says, as an agent left it there.
pub fn shown(folder: &Path) -> Option<SealText> {
    let bytes = durable::read(&folder.join(SHOWN), SHOWN_BYTES_MAX).ok()??;
    SealText::parse(&String::from_utf8(bytes).ok()?)
}

/// What the coordinator witnessed of the trail in `folder`; `None`: nothing, as far as is known there.
///
/// # Errors
/// There is a word, and it proves nothing.
pub fn witnessed(folder: &Path, trust: &SealTrust<'_>) -> Result<Option<SealText>, String> {
    let read = durable::read(&folder.join(WITNESS), witness::FILE_BYTES_MAX);
    let Some(bytes) = read.map_err(|error| text::sentence(&error))? else {
        return Ok(None);
    };
    let word = witness::from_file(&bytes).ok_or("it cannot be read")?;
    let text = witness::witnessed(trust, &word).map_err(|error| error.to_string())?;
    Ok(Some(text))
}

/// Keeps the coordinator's word, which was verified, if it goes further than the one that is there: a coordinator that was restored from a backup says less.
///
/// # Errors
/// The disk does not take it.
pub fn keep_witness(folder: &Path, word: &SealEvent) -> Result<(), FileError> {
    let goes_to = |word: &SealEvent| {
        let note = Note::parse(&word.note).ok()?;
        SealText::parse(&note.text).map(|text| place(&text))
    };
    let path = folder.join(WITNESS);
    let held = durable::read(&path, witness::FILE_BYTES_MAX).ok().flatten();
    let held = held.and_then(|bytes| goes_to(&witness::from_file(&bytes)?));
    if goes_to(word) <= held {
        return Ok(());
    }
    durable::replace(&path, &witness::to_file(word), 0o600)
}

/// How far the trail on this disk is proved, as its files show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Epoch and sequence before which all is sealed.
    pub sealed: (u64, u64),
    /// When, by this machine's clock, milliseconds since 1970.
    pub sealed_ms: u64,
    /// Up to where a coordinator witnessed it.
    pub witnessed: Option<(u64, u64)>,
}

impl Proof {
    /// Of the trail in `folder`; `None`: it was never sealed.
    pub fn read(folder: &Path) -> Option<Self> {
        let seal = shown(folder)?;
        let bytes = durable::read(&folder.join(WITNESS), witness::FILE_BYTES_MAX)
            .ok()
            .flatten();
        let word = bytes.and_then(|bytes| witness::from_file(&bytes));
        let note = word.and_then(|word| Note::parse(&word.note).ok());
        let text = note.and_then(|note| SealText::parse(&note.text));
        let numbers = |text: &SealText| (text.head.epoch, text.head.next_sequence);
        Some(Self {
            sealed: numbers(&seal),
            sealed_ms: seal.time_ms,
            witnessed: text.as_ref().map(numbers),
        })
    }

    /// In words, at this time.
    pub fn words(&self, now_ms: u64) -> String {
        let (epoch, sequence) = self.sealed;
        let ago = now_ms.saturating_sub(self.sealed_ms) / 1000;
        let witnessed = match self.witnessed {
            Some((epoch, sequence)) => format!("witnessed up to {epoch}/{sequence}"),
            None => "witnessed by no coordinator yet".to_owned(),
        };
        format!("up to {epoch}/{sequence}, {ago} s ago; {witnessed}")
    }
}

/// The place up to which a seal goes.
pub fn place(text: &SealText) -> Position {
    Position {
        epoch: text.head.epoch,
        sequence: text.head.next_sequence,
    }
}
