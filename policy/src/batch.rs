//! Batches: gateways that are to be enrolled at once, as two people sign them (`penstock-batch/1`).
//!
//! ```text
//! list of gateways ─▶ batch (which, for how long, each with its key where it is known) ─▶ two approvers' signatures ─▶ a token for each
//! ```
//!
//! What is signed is DSSE with a payload type of its own, so that a signature over a batch is never one over a release. A batch is good for
//! its plant and until its end, and names each gateway once.
//!
//! Pure. Who of its gateways may be enrolled is for the coordinator to say.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{ApproverId, Digest, GatewayId, PlantId};
use crate::model::ApproverSet;
use crate::release::signing::ApproverKey;
use crate::release::{EnvelopeError, SIGNATURES_MAX, Signable, Signature, envelope};

/// The type of the payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.penstock.batch+json";
/// What its first field says.
pub const FORMAT: &str = "penstock-batch/1";
/// The most gateways of one batch.
pub const GATEWAYS_MAX: usize = 10_000;
/// The most bytes of one batch.
pub const BYTES_MAX: usize = 4 << 20;
/// For how long a batch is good at most, milliseconds.
pub const VALID_MS_MAX: u64 = 30 * 86_400_000;
/// The people whose signatures it takes, each with a key of their own.
pub const SIGNERS_NEEDED: usize = 2;
const ID_BYTES_MAX: usize = 64;

/// Gateways to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    format: String,
    /// Of this plant.
    pub plant: PlantId,
    /// Used once.
    pub id: String,
    /// When it was made, milliseconds since 1970.
    pub made_at_ms: u64,
    /// Until when it is good, and its tokens are, milliseconds since 1970.
    pub until_ms: u64,
    /// Each once.
    pub gateways: Vec<BatchGateway>,
}

/// A gateway of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchGateway {
    /// Its name.
    pub gateway: GatewayId,
    /// The only key that may enrol as it; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
}

/// Why something is not a batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Not its JSON.
    #[error("the batch cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Another format.
    #[error("the batch has the format `{0}`, and `{FORMAT}` is expected")]
    Format(String),
    /// Larger than one may be.
    #[error(
        "the batch is larger than the {GATEWAYS_MAX} gateways and {BYTES_MAX} bytes that one may have: make several"
    )]
    TooLarge,
    /// It names nobody.
    #[error("the batch names no gateway")]
    Empty,
    /// A gateway twice.
    #[error("the batch names {0} twice")]
    Twice(GatewayId),
    /// A name that is none.
    #[error(
        "the batch's id is empty, longer than {ID_BYTES_MAX} bytes, or has other characters than a-z, 0-9 and -"
    )]
    Id,
    /// A span that is none.
    #[error("the batch ends before it begins, or more than 30 days after it was made")]
    Span,
}

impl Batch {
    /// A batch of these gateways.
    ///
    /// # Errors
    /// It would not be one: no gateway, one of them twice, too many, or a span that is too long.
    pub fn new(
        plant: PlantId,
        id: String,
        (made_at_ms, until_ms): (u64, u64),
        gateways: Vec<BatchGateway>,
    ) -> Result<Self, BatchError> {
        let batch = Self {
            format: FORMAT.to_owned(),
            plant,
            id,
            made_at_ms,
            until_ms,
            gateways,
        };
        batch.check()?;
        Ok(batch)
    }

    /// Reads one.
    ///
    /// # Errors
    /// The bytes are not a batch.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() > BYTES_MAX {
            return Err(BatchError::TooLarge);
        }
        let batch: Self = serde_json::from_slice(bytes).map_err(BatchError::Unreadable)?;
        batch.check()?;
        Ok(batch)
    }

    /// Its bytes, which are signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Names, numbers and digests cannot fail to be JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), BatchError> {
        if self.format != FORMAT {
            return Err(BatchError::Format(self.format.clone()));
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.id.is_empty() || self.id.len() > ID_BYTES_MAX || !self.id.chars().all(fits) {
            return Err(BatchError::Id);
        }
        let span = self.until_ms.checked_sub(self.made_at_ms);
        if span.is_none_or(|span| span == 0 || span > VALID_MS_MAX) {
            return Err(BatchError::Span);
        }
        if self.gateways.is_empty() {
            return Err(BatchError::Empty);
        }
        if self.gateways.len() > GATEWAYS_MAX {
            return Err(BatchError::TooLarge);
        }
        let mut seen = BTreeSet::new();
        match self.gateways.iter().find(|one| !seen.insert(&one.gateway)) {
            Some(again) => Err(BatchError::Twice(again.gateway.clone())),
            None => Ok(()),
        }
    }
}

/// A batch with its signatures so far, as it rests in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBatch {
    /// The batch's exact bytes.
    pub payload: Vec<u8>,
    /// May be none yet.
    pub signatures: Vec<Signature>,
}

impl SignedBatch {
    /// As JSON, to be written to a file.
    pub fn to_json(&self) -> String {
        envelope::written(PAYLOAD_TYPE, &self.payload, &self.signatures)
    }

    /// Reads a file. Neither batch nor signatures are judged here.
    ///
    /// # Errors
    /// The text is not an envelope, or holds something else.
    pub fn from_json(text: &str) -> Result<Self, EnvelopeError> {
        let (payload, signatures) = envelope::opened(text, PAYLOAD_TYPE, BYTES_MAX)?;
        Ok(Self { payload, signatures })
    }

    /// SHA-256 of the batch's bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.payload)
    }

    /// Signs it, in place of an earlier signature of the same person; nobody signs what is not a batch.
    ///
    /// # Errors
    /// What it holds is not a batch.
    pub fn sign(&mut self, person: ApproverId, key: &ApproverKey) -> Result<(), BatchError> {
        Batch::from_bytes(&self.payload)?;
        let signature = key.sign_payload(person, &self.signable());
        self.add(signature);
        Ok(())
    }

    /// What is signed.
    pub fn signable(&self) -> Signable<'_> {
        Signable::new(PAYLOAD_TYPE, &self.payload)
    }

    /// Puts a signature in, in place of an earlier one of the same person.
    pub fn add(&mut self, signature: Signature) {
        envelope::put(&mut self.signatures, signature);
    }

    /// Which of these approvers signed it, each by a key of their own: who has the key of another counts once.
    pub fn signers(&self, approvers: &ApproverSet) -> Vec<ApproverId> {
        let signed = self.signable();
        let mut signers: Vec<(&ApproverId, _)> = Vec::new();
        for signature in self.signatures.iter().take(SIGNATURES_MAX) {
            if let Some((name, person)) = approvers.people.get_key_value(&signature.approver)
                && signature.verifies(&signed, &person.key)
                && signers
                    .iter()
                    .all(|(other, point)| *other != name && *point != person.key.point())
            {
                signers.push((name, person.key.point()));
            }
        }
        signers.into_iter().map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Approver;

    fn gateway(name: &str) -> BatchGateway {
        BatchGateway {
            gateway: GatewayId::new(name).unwrap(),
            key: None,
        }
    }

    fn batch(gateways: Vec<BatchGateway>) -> Result<Batch, BatchError> {
        let plant = PlantId::new("water").unwrap();
        Batch::new(plant, "b-1".to_owned(), (1_000, 2_000), gateways)
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_a_batch_is_refused_with_the_reason() {
        let bound = BatchGateway {
            key: Some(Digest::of(b"key")),
            ..gateway("gw-b")
        };
        let good = batch(vec![gateway("gw-a"), bound]).unwrap();
        assert_eq!(Batch::from_bytes(&good.to_bytes()).unwrap(), good);
        assert!(matches!(batch(Vec::new()), Err(BatchError::Empty)));
        let twice = batch(vec![gateway("gw-a"), gateway("gw-a")]);
        assert!(matches!(twice, Err(BatchError::Twice(_))));
        let many = (0..=GATEWAYS_MAX).map(|n| gateway(&format!("gw-{n}"))).collect();
        assert!(matches!(batch(many), Err(BatchError::TooLarge)));
        let altered = |change: &dyn Fn(&mut Batch)| {
            let mut batch = good.clone();
            change(&mut batch);
            Batch::from_bytes(&batch.to_bytes()).unwrap_err()
        };
        for id in ["", "B", "a b", &"a".repeat(65)] {
            let error = altered(&|batch| id.clone_into(&mut batch.id));
            assert!(matches!(error, BatchError::Id), "{id}");
        }
        for until in [0, 1_000, 1_001 + VALID_MS_MAX] {
            let error = altered(&|batch| batch.until_ms = until);
            assert!(matches!(error, BatchError::Span), "{until}");
        }
        let error = altered(&|batch| batch.format = "penstock-batch/2".to_owned());
        assert!(matches!(error, BatchError::Format(_)));
        assert!(matches!(Batch::from_bytes(b"{}"), Err(BatchError::Unreadable(_))));
    }

    #[test]
    fn two_approvers_with_a_key_each_are_two_and_neither_one_twice_nor_a_signature_over_anything_else_counts()
    {
        let key = |seed: u8| ApproverKey::from_seed(&[seed; 32]);
        let name = |text: &str| ApproverId::new(text).unwrap();
        let person = |seed| Approver {
            key: key(seed).public(),
            role: None,
        };
        let approvers = ApproverSet {
            threshold: 2,
            emergency_threshold: None,
            people: BTreeMap::from([
                (name("bob"), person(1)),
                (name("carol"), person(2)),
                (name("twin"), person(1)),
            ]),
        };
        let mut signed = SignedBatch {
            payload: batch(vec![gateway("gw-a")]).unwrap().to_bytes(),
            signatures: Vec::new(),
        };
        signed.sign(name("bob"), &key(1)).unwrap();
        signed.sign(name("twin"), &key(1)).unwrap();
        signed.sign(name("mallory"), &key(3)).unwrap();
        signed.sign(name("carol"), &key(3)).unwrap();
        assert_eq!(signed.signers(&approvers), [name("bob")]);
        signed.sign(name("carol"), &key(2)).unwrap();
        assert_eq!(signed.signers(&approvers), [name("bob"), name("carol")]);
        let read = SignedBatch::from_json(&signed.to_json()).unwrap();
        assert_eq!(read, signed);
        let mut other = read;
        other.payload = batch(vec![gateway("gw-b")]).unwrap().to_bytes();
        assert_eq!(other.signers(&approvers), []);
    }
}
