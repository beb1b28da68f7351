//! The ticket that this gateway holds: what its coordinator gave it in its last session, shown in the next, so that a second user of
//! its key is noticed. What it means is for the coordinator to say.
//!
//! ```text
//! identity/ticket.json   the ticket, and the key that it belongs to (0600)
//! ```
//!
//! It is on the disk before it is reported as held, and what is shown is what is on the disk: an agent that ends at any moment, or whose
//! disk takes nothing, holds the last ticket that it reported, or a later one. One is written at a time, to its end, whatever becomes of the
//! session; what comes meanwhile is let go. No session waits for the disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use penstock_policy::ids::Digest;
use penstock_proto::peer::Certified;
use penstock_proto::tls::times::instant;
use penstock_proto::v1::Twin;
use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::durable::{self, FileError};
use crate::identity::Identity;

/// The largest ticket that is kept, bytes.
const TICKET_BYTES_MAX: usize = 128;
const FILE_BYTES_MAX: u64 = 4096;

/// A ticket of this key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptTicket {
    key: Digest,
    ticket: Vec<u8>,
}

/// Keeps it. Clones share it.
#[derive(Debug, Clone)]
pub struct TicketKeeper {
    path: Arc<PathBuf>,
    /// What is on the disk.
    kept: Arc<Mutex<Option<KeptTicket>>>,
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl TicketKeeper {
    /// Of the gateway with this state folder. What cannot be read counts as not held.
    pub fn open(state_folder: &Path) -> Self {
        let keeper = Self::empty(state_folder);
        let kept = match durable::read(&keeper.path, FILE_BYTES_MAX) {
            Ok(found) => found.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            Err(error) => {
                tracing::warn!(%error, "the ticket of the last session is not shown");
                None
            }
        };
        Self {
            kept: Arc::new(Mutex::new(kept)),
            ..keeper
        }
    }

    /// The same, which holds nothing yet.
    pub fn empty(state_folder: &Path) -> Self {
        Self {
            path: Arc::new(state_folder.join("identity").join("ticket.json")),
            kept: Arc::default(),
            writing: Arc::default(),
        }
    }

    /// What is held for the key of this identity; empty: nothing.
    pub fn shown(&self, identity: &Identity) -> Bytes {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = kept.as_ref().filter(|kept| Some(kept.key) == key_of(identity));
        of_key
            .map(|kept| Bytes::copy_from_slice(&kept.ticket))
            .unwrap_or_default()
    }

    /// Puts a ticket on the disk; what is awaited is the ticket, once it is there, or `None`, where it is not taken.
    pub fn keep(&self, identity: &Identity, ticket: Bytes) -> JoinHandle<Option<Bytes>> {
        let (keeper, key) = (self.clone(), key_of(identity));
        tokio::spawn(async move {
            let _one = keeper.writing.clone().try_lock_owned().ok()?;
            let kept = KeptTicket {
                key: key?,
                ticket: Some(ticket.to_vec()).filter(|ticket| ticket.len() <= TICKET_BYTES_MAX)?,
            };
            let (path, written) = (keeper.path.clone(), kept.clone());
            let stored = tokio::task::spawn_blocking(move || write(&path, &written)).await;
            match stored.ok()? {
                Ok(()) => {
                    *keeper.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
                    Some(ticket)
                }
                Err(error) => {
                    tracing::warn!(%error, "the ticket of this session is not kept; the one before is shown again");
                    None
                }
            }
        })
    }
}

fn write(path: &Path, kept: &KeptTicket) -> Result<(), FileError> {
    // A digest and bytes cannot fail to be JSON.
    durable::replace(path, &serde_json::to_vec(kept).unwrap_or_default(), 0o600)
}

fn key_of(identity: &Identity) -> Option<Digest> {
    let leaf = identity.credentials().chain().first()?;
    Certified::from_certificate(leaf)
        .ok()
        .map(|certified| certified.key)
}

/// What it means that the key has two users, and what to do.
pub fn twin_in_words(twin: &Twin) -> String {
    format!(
        "two machines use this gateway's key: one came to the coordinator from {} at {}, and one from {} at {}, which {}. Its policy stays in \
         force, but its certificate is not renewed until an admin decides. If nobody restored this machine from a copy, its key is stolen: \
         `penstock gateways revoke`, a new token, and `penstock-agent enrol --new-key --token FILE` here; if somebody did, `penstock gateways resume`",
        twin.other_address,
        instant(twin.other_ms),
        twin.address,
        instant(twin.since_ms),
        twin.why
    )
}
