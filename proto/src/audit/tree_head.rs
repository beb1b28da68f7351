//! The head of the tree over all trails of a coordinator, signed by its own key: a C2SP checkpoint (<https://c2sp.org/tlog-checkpoint>).
//!
//! ```text
//! works/coordinator/c1                            origin: plant and coordinator, and the name under which it signs
//! 4711                                            leaves
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    root
//! time 1790000000000                              the coordinator's clock, ms since 1970
//!
//! — works/coordinator/c1 …
//! ```
//!
//! Whoever holds one can tell later whether the coordinator still has all that it had: a later tree begins with this one, or something was taken away.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use penstock_policy::ids::PlantId;
use penstock_policy::merkle::growing::TreeState;
use rustls::pki_types::CertificateDer;

use super::note::{Note, NoteSignature};
use crate::keys::KeyError;
use crate::peer::{Certified, PeerIdentity, Subject};
use crate::tls::{Credentials, issuers};

const COORDINATOR: &str = "coordinator";

/// What a head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeHead {
    /// Whose tree it is.
    pub origin: String,
    /// How far it goes.
    pub tree: TreeState,
    /// When it was signed, by the coordinator's clock, milliseconds since 1970.
    pub time_ms: u64,
}

/// Why a head does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeHeadError {
    /// It has another form.
    #[error("it is not the signed head of a coordinator's tree")]
    Form,
    /// Who signed it is nobody of this plant.
    #[error(
        "the certificate of the key that signed it was not issued below a root that is trusted here, or does not belong to a coordinator of plant {0}"
    )]
    Stranger(PlantId),
    /// The key of the certificate did not sign it.
    #[error("the key of {0} did not sign it: it was altered")]
    Unsigned(PeerIdentity),
}

/// A head that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedHead {
    /// What it says.
    pub head: TreeHead,
    /// Whose key signed it.
    pub by: Certified,
}

impl VerifiedHead {
    /// Whether the certificate was valid when the head was signed, as the head says.
    pub fn is_in_time(&self) -> bool {
        let (from, until) = self.by.valid_ms;
        (from..=until).contains(&self.head.time_ms)
    }
}

impl fmt::Display for TreeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.origin, self.tree.size)?;
        writeln!(
            f,
            "{}\ntime {}",
            BASE64_STANDARD.encode(self.tree.root),
            self.time_ms
        )
    }
}

/// The origin of a coordinator's tree.
pub fn origin(plant: &PlantId, coordinator: &str) -> String {
    format!("{plant}/{COORDINATOR}/{coordinator}")
}

impl TreeHead {
    /// Reads a head's text in its only form; `None`: it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let mut line = || lines.next();
        let read = Self {
            origin: line()?.to_owned(),
            tree: TreeState {
                size: line()?.parse().ok()?,
                root: BASE64_STANDARD.decode(line()?).ok()?.try_into().ok()?,
            },
            time_ms: line()?.strip_prefix("time ")?.parse().ok()?,
        };
        // One spelling only: also of numbers.
        (read.to_string() == text).then_some(read)
    }

    /// The note with the signature of the coordinator that these are the credentials of.
    ///
    /// # Errors
    /// The key's holder cannot sign now, or the certificate cannot be read.
    pub fn sign(&self, credentials: &Credentials) -> Result<Note, KeyError> {
        let unread = || KeyError::Form("the certificate of the key that signs".to_owned());
        let leaf = credentials.chain().first().ok_or_else(unread)?;
        let text = self.to_string();
        let signature = NoteSignature::certified(&self.origin, credentials.key(), leaf, &text)?;
        Ok(Note {
            text,
            signatures: vec![signature],
        })
    }

    /// Reads a head that a coordinator of `plant` signed, with its certificates, its own first.
    ///
    /// # Errors
    /// It is something else, or nobody who is trusted signed it.
    pub fn verify(
        note: &[u8],
        certificates: &[CertificateDer<'static>],
        plant: &PlantId,
        roots: &[CertificateDer<'static>],
    ) -> Result<VerifiedHead, TreeHeadError> {
        let note = Note::parse(note).map_err(|_| TreeHeadError::Form)?;
        let head = Self::parse(&note.text).ok_or(TreeHeadError::Form)?;
        let stranger = || TreeHeadError::Stranger(plant.clone());
        let leaf = certificates.first().ok_or_else(stranger)?;
        let below = issuers(plant, certificates, roots).ok_or_else(stranger)?;
        // Nothing beside it that nobody looks at.
        if certificates.get(1..) != Some(&*below) {
            return Err(stranger());
        }
        let by = Certified::from_certificate(leaf).map_err(|_| stranger())?;
        let is_whose = matches!(&by.identity.subject, Subject::Coordinator(name)
            if by.identity.plant == *plant && head.origin == origin(plant, name.as_str()));
        if !is_whose {
            return Err(stranger());
        }
        note.verify_certified(&head.origin, leaf)
            .map_err(|_| TreeHeadError::Unsigned(by.identity.clone()))?;
        Ok(VerifiedHead { head, by })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_head_is_read_back_as_it_was_written_and_in_no_other_spelling(
            size in any::<u64>(), root in any::<[u8; 32]>(), time_ms in any::<u64>(), at in any::<prop::sample::Index>(), other in any::<char>(),
        ) {
            let head = TreeHead {
                origin: origin(&"works".parse().unwrap(), "c1"),
                tree: TreeState { size, root },
                time_ms,
            };
            let text = head.to_string();
            prop_assert_eq!(TreeHead::parse(&text), Some(head.clone()));
            let mut changed: Vec<char> = text.chars().collect();
            let place = at.index(changed.len());
            prop_assume!(changed[place] != other);
            changed[place] = other;
            let changed: String = changed.into_iter().collect();
            prop_assert_ne!(TreeHead::parse(&changed), Some(head.clone()));
            for longer in [format!("{text}\n"), format!("{text}more\n"), format!(" {text}")] {
                prop_assert_ne!(TreeHead::parse(&longer), Some(head.clone()));
            }
        }
    }
}
