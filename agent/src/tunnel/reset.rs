//! How a gateway that crashed says so to those who still send on its connections, instead of leaving them to their patience.
//!
//! Whoever gets a packet of a connection that it does not know answers with a token that only it can make for that connection, and that the other
//! side was given in the handshake: a stateless reset (RFC 9000, section 10.3). To make it again after a crash takes a secret that outlives the
//! process.
//!
//! ```text
//! tunnels/reset.key   32 random bytes (0600)
//! ```
//!
//! Who has the secret can end connections of this gateway, which come back at once, and can do nothing else. Where it can be neither read nor
//! written, another one serves for the life of the process: then a crash is noticed by its silence, as before there was one.
//!
//! A reset is no longer than the packet that it answers, and the port sends at most one each 20 ms. Connection IDs carry a mark, so that random packets
//! of strangers do not use that up: of 16 million of them one has it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use quinn_proto::InvalidCid;

use crate::durable::{self, FileError};

const FILE: &str = "reset.key";
const SECRET_BYTES: usize = 32;
/// For the agent alone.
const MODE: u32 = 0o600;
/// What is random in a connection ID: as many are not made in the life of a secret.
const RANDOM_BYTES: usize = 5;
const MARK_BYTES: usize = 3;

/// What both keys are made of.
pub(super) struct ResetSecret([u8; SECRET_BYTES]);

impl Default for ResetSecret {
    /// One that this process alone has.
    fn default() -> Self {
        let mut secret = [0; SECRET_BYTES];
        fill(&mut secret);
        Self(secret)
    }
}

impl ResetSecret {
    /// The one that is kept in this folder, made if there is none.
    pub(super) fn kept_in(folder: &Path) -> Self {
        Self::read_or_make(folder).unwrap_or_else(|error| {
            tracing::warn!(%error, "the secret by which a crash of this agent is noticed at once at the other ends of its tunnels is not kept");
            Self::default()
        })
    }

    fn read_or_make(folder: &Path) -> Result<Self, FileError> {
        let path = folder.join(FILE);
        let kept = durable::read(&path, SECRET_BYTES as u64);
        // One that is too long or too short is no secret of ours: another one takes its place.
        if let Ok(Some(Ok(secret))) = kept.map(|kept| kept.map(|bytes| bytes.as_slice().try_into())) {
            return Ok(Self(secret));
        }
        let made = Self::default();
        durable::create_folder(folder)?;
        durable::replace(&path, &made.0, MODE)?;
        Ok(made)
    }

    /// The configuration of a port that makes its resets and its connection IDs by this secret.
    pub(super) fn endpoint(&self) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(self.key(b"penstock tunnel: resets")));
        let mark = self.key(b"penstock tunnel: connection IDs");
        config.cid_generator(move || Box::new(MarkedIds(mark.clone())));
        config
    }

    fn key(&self, purpose: &[u8]) -> Key {
        let derived = hmac::sign(&Key::new(HMAC_SHA256, &self.0), purpose);
        Key::new(HMAC_SHA256, derived.as_ref())
    }
}

/// Random bytes, and a mark of them that takes the key.
struct MarkedIds(Key);

impl MarkedIds {
    fn mark(&self, random: &[u8]) -> [u8; MARK_BYTES] {
        let mut mark = [0; MARK_BYTES];
        for (to, from) in mark.iter_mut().zip(hmac::sign(&self.0, random).as_ref()) {
            *to = *from;
        }
        mark
    }
}

impl ConnectionIdGenerator for MarkedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut random = [0; RANDOM_BYTES];
        fill(&mut random);
        ConnectionId::new(&[&random[..], &self.mark(&random)].concat())
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(RANDOM_BYTES) {
            Some((random, mark)) if self.mark(random) == mark => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        RANDOM_BYTES + MARK_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Random bytes. A machine that has none makes no TLS either, so that nothing rests on these.
fn fill(bytes: &mut [u8]) {
    if let Err(error) = getrandom::fill(bytes) {
        tracing::error!(%error, "the system gives no random numbers");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_secret_is_made_once_for_the_agent_alone_and_a_damaged_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let tunnels = folder.path().join("tunnels");
        let path = tunnels.join(FILE);
        let first = ResetSecret::kept_in(&tunnels).0;
        assert_eq!(ResetSecret::kept_in(&tunnels).0, first);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        for damaged in [&first[..7], &[7; 90]] {
            std::fs::write(&path, damaged).unwrap();
            let next = ResetSecret::kept_in(&tunnels).0;
            assert_ne!(next, first);
            assert_eq!(ResetSecret::kept_in(&tunnels).0, next);
        }
    }

    #[test]
    fn a_folder_that_takes_nothing_costs_the_secret_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let no_folder = folder.path().join("file");
        std::fs::write(&no_folder, "").unwrap();
        assert_ne!(
            ResetSecret::kept_in(&no_folder).0,
            ResetSecret::kept_in(&no_folder).0
        );
    }

    #[test]
    fn the_next_process_knows_the_ids_of_the_one_before_and_no_others() {
        let secret = ResetSecret::default();
        let ids = |secret: &ResetSecret| MarkedIds(secret.key(b"ids"));
        let (mut before, after, other) = (ids(&secret), ids(&secret), ids(&ResetSecret::default()));
        for _ in 0..100 {
            let id = before.generate_cid();
            assert_eq!(id.len(), after.cid_len());
            assert!(after.validate(&id).is_ok());
            assert!(other.validate(&id).is_err(), "but once in 16 million");
        }
        for length in 0..=20 {
            assert!(after.validate(&ConnectionId::new(&vec![0; length])).is_err());
        }
    }
}
