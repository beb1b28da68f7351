//! What this gateway saw of the coordinator's trails: the head of the tree over all of them, as the coordinator signed it. Each one has to begin with the one
//! before, and is written into this gateway's own trail, so that a coordinator that rewrites its trails contradicts gateways, whose trails it cannot sign
//! (DESIGN §8).
//!
//! ```text
//! welcome, acknowledgement ─ head, proof ─▶ signed by the coordinator? ─▶ begins with what was seen? ─┬─▶ kept, in the trail (`trails-seen`)
//!                                                                                                    └─▶ fault and alarm (`trails-rewritten`)
//! ```
//!
//! Nothing that is enforced, and no session, depends on it. What was seen changes in no other way, but by a release whose approvers signed that the trails
//! begin again. A coordinator may send what it likes as often as it likes: few heads are looked at ([`HEADS_AT_ONCE`]), and behind one that was not, none until
//! the next session, since their proofs begin with it.

mod seen;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_policy::release::Statement;
use penstock_proto::audit::tree_head::TreeHead;
use penstock_proto::event::AgentStep;
use penstock_proto::tls::times::instant;
use penstock_proto::v1::coordinator_message::Message as Inbound;
use penstock_proto::v1::{EvidenceHead, Fault};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use self::seen::{SeenTrails, Stands};
use crate::allowance::Allowance;
use crate::audit::{Audit, record};
use crate::durable;
use crate::identity::Identity;

const FILE: &str = "trails.json";
const FILE_BYTES_MAX: u64 = 4096;
/// The fault's code, which is the event's step too.
const REWRITTEN: &str = "trails-rewritten";

/// Heads that are looked at one after another: each may cost a write to the disk and a line in the trail ...
pub const HEADS_AT_ONCE: u32 = 8;
/// ... until there is one more. An honest coordinator sends one an hour, and one with each release.
const HEADS_EACH: Duration = Duration::from_secs(300);

/// Keeps it.
#[derive(Debug)]
pub struct TrailsKeeper {
    path: PathBuf,
    audit: Audit,
    state: Mutex<State>,
    faults: watch::Sender<Vec<Fault>>,
    unwritten: Arc<Mutex<Unwritten>>,
}

/// What the disk does not have yet.
#[derive(Debug, Default)]
struct Unwritten {
    newest: Option<SeenTrails>,
    /// A thread writes, and will look for what is newest then.
    is_writing: bool,
}

#[derive(Debug)]
struct State {
    seen: Option<SeenTrails>,
    /// One of this session was not taken: the proofs behind it begin with what this gateway did not see.
    is_behind: bool,
    allowance: Allowance,
}

impl TrailsKeeper {
    /// Of the gateway with this state folder. What cannot be read counts as not seen.
    pub fn open(state_folder: &Path, audit: Audit) -> Self {
        let path = state_folder.join(FILE);
        let seen = match durable::read(&path, FILE_BYTES_MAX) {
            Ok(found) => found.and_then(|bytes| {
                let read = serde_json::from_slice(&bytes);
                let read = read.inspect_err(|error| {
                    tracing::warn!(%error, "what this gateway saw of the coordinator's trails is damaged, and counts as not seen");
                });
                read.ok()
            }),
            Err(error) => {
                tracing::warn!(%error, "what this gateway saw of the coordinator's trails is not known");
                None
            }
        };
        Self::holding(path, audit, seen)
    }

    fn holding(path: PathBuf, audit: Audit, seen: Option<SeenTrails>) -> Self {
        Self {
            path,
            audit,
            state: Mutex::new(State {
                seen,
                is_behind: false,
                allowance: Allowance::full((HEADS_AT_ONCE, HEADS_EACH), Instant::now()),
            }),
            faults: watch::Sender::new(Vec::new()),
            unwritten: Arc::default(),
        }
    }

    /// What is wrong.
    pub fn faults(&self) -> watch::Receiver<Vec<Fault>> {
        self.faults.subscribe()
    }

    /// A session begins: how many blocks were seen.
    pub fn greet(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_behind = false;
        state.seen.map_or(0, |seen| seen.size)
    }

    /// Takes the head out of a message, if there is one.
    pub fn take(&self, message: &mut Option<Inbound>, identity: &Identity, now: Instant) {
        let head = match message {
            Some(Inbound::Welcome(welcome)) => welcome.trails.take(),
            Some(Inbound::AuditAck(ack)) => ack.trails.take(),
            _ => None,
        };
        let Some(head) = head else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_behind {
            return;
        }
        if !state.allowance.take(now) {
            state.is_behind = true;
            return;
        }
        let certificates = head.certificates.iter();
        let certificates: Vec<_> = certificates
            .map(|der| CertificateDer::from(der.to_vec()))
            .collect();
        let plant = &identity.enrolment.plant;
        match TreeHead::verify(&head.note, &certificates, plant, identity.roots()) {
            Ok(verified) => self.judge(&mut state, &verified.head, &head),
            Err(error) => {
                state.is_behind = true;
                tracing::warn!(%error, "the coordinator's head of its trails is not kept");
            }
        }
    }

    /// Judges a head that the coordinator signed.
    fn judge(&self, state: &mut State, head: &TreeHead, came: &EvidenceHead) {
        let new = SeenTrails::from(head);
        match seen::judge(state.seen.as_ref(), &new, &came.consistency) {
            Stands::Same => self.are_well(),
            Stands::Continues => {
                let again = state.seen.map_or(0, |seen| seen.again);
                self.keep(state, SeenTrails { again, ..new });
                let words = format!(
                    "{} had {} blocks at {}",
                    head.origin,
                    new.size,
                    instant(new.time_ms)
                );
                self.audit
                    .note(record::trails(AgentStep::TrailsSeen, &words, &came.note));
                self.are_well();
            }
            Stands::Rewritten(seen) => {
                state.is_behind = true;
                let words = seen::rewritten_in_words(&head.origin, &seen, &new);
                // The same each session: once is enough.
                let is_news = self.faults.send_if_modified(|faults| {
                    let fault = vec![Fault {
                        code: REWRITTEN.to_owned(),
                        message: words.clone(),
                        ..Fault::default()
                    }];
                    let is_news = faults.is_empty();
                    *faults = fault;
                    is_news
                });
                if is_news {
                    tracing::error!("{words}");
                    self.audit
                        .note(record::trails(AgentStep::TrailsRewritten, &words, &came.note));
                }
            }
        }
    }

    /// What a release says of the trails, which this gateway's approvers signed: that they begin again is believed, and nothing else.
    pub fn learn(&self, statement: &Statement) {
        let Some(named) = statement.trails.filter(|named| named.again) else {
            return;
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = SeenTrails {
            size: named.size,
            root: named.root,
            time_ms: statement.created_ms,
            again: statement.revision.0,
        };
        // The same release again, after a restart, is no step back from what was seen since. No clock decides that: revisions never go back.
        if state.seen.is_some_and(|seen| seen.again >= accepted.again) {
            return;
        }
        // The proofs of this session begin elsewhere.
        state.is_behind = true;
        self.keep(&mut state, accepted);
        self.are_well();
    }

    fn are_well(&self) {
        self.faults.send_if_modified(|faults| {
            let were_wrong = !faults.is_empty();
            faults.clear();
            were_wrong
        });
    }

    /// Remembers it; on the disk as soon as that takes it. Where it does not, less was seen after a restart, which proves less.
    fn keep(&self, state: &mut State, seen: SeenTrails) {
        state.seen = Some(seen);
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        unwritten.newest = Some(seen);
        if std::mem::replace(&mut unwritten.is_writing, true) {
            return;
        }
        let (path, unwritten) = (self.path.clone(), self.unwritten.clone());
        tokio::task::spawn_blocking(move || {
            while let Some(seen) = next(&unwritten) {
                // Numbers and a digest cannot fail to be JSON.
                let bytes = serde_json::to_vec(&seen).unwrap_or_default();
                if let Err(error) = durable::replace(&path, &bytes, 0o600) {
                    tracing::warn!(%error, "what this gateway saw of the coordinator's trails is not on its disk");
                }
            }
        });
    }
}

/// What is to be written next; where there is nothing, nobody writes any more.
fn next(unwritten: &Mutex<Unwritten>) -> Option<SeenTrails> {
    let mut unwritten = unwritten.lock().unwrap_or_else(PoisonError::into_inner);
    let newest = unwritten.newest.take();
    unwritten.is_writing = newest.is_some();
    newest
}
