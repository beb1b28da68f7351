//! What an external witness says of a checkpoint (<https://c2sp.org/tlog-cosignature>, `cosignature/v1`), and how it is asked
//! (<https://c2sp.org/tlog-witness>): forms only, pure.
//!
//! ```text
//! old 4711                                 the size that the witness cosigned last
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j…   consistency proof, a hash a line
//!
//! works/coordinator/c1                     the checkpoint, signed by the log's key
//! …
//! ```
//!
//! A witness vouches that each tree that it cosigned begins with the one before, as of a time by its own clock. The key by which the log signs is Ed25519 (note
//! type 1), as witnesses know no other; the coordinator's own signature stands beside it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use penstock_policy::merkle::Hash;
use sha2::Digest as _;

use super::note::{Note, NoteSignature, ed25519_id};

/// Proof lines of one request.
pub const PROOF_LINES_MAX: usize = 63;
/// The type of an Ed25519 cosigner's key.
const COSIGNER: u8 = 4;
/// The type of an Ed25519 log's key.
const LOG: u8 = 1;
/// A time, and a signature.
const BYTES: usize = 8 + 64;

/// A witness, by its name and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    public: [u8; 32],
}

/// Why a text is not a witness's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WitnessKeyError {
    /// It has another form.
    #[error("it is not a verifier key of a witness: NAME+NUMBER+BASE64, as its operator publishes it")]
    Form,
    /// It is of another kind.
    #[error(
        "it is a key of another kind: an Ed25519 cosigner's is asked for (type 4), not a log's (type 1) or one of ML-DSA-44 (type 6)"
    )]
    Kind,
    /// Its number is not that of the key.
    #[error("its number does not fit its name and key: it was altered, or copied in part")]
    Number,
}

impl FromStr for WitnessKey {
    type Err = WitnessKeyError;

    fn from_str(text: &str) -> Result<Self, WitnessKeyError> {
        let mut parts = text.trim().splitn(3, '+');
        let mut part = || parts.next().ok_or(WitnessKeyError::Form);
        let (name, number, key) = (part()?, part()?, part()?);
        let key = BASE64_STANDARD.decode(key).map_err(|_| WitnessKeyError::Form)?;
        let (kind, public) = key.split_first().ok_or(WitnessKeyError::Form)?;
        if *kind != COSIGNER {
            return Err(WitnessKeyError::Kind);
        }
        let found = Self {
            name: name.to_owned(),
            public: public.try_into().map_err(|_| WitnessKeyError::Form)?,
        };
        let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
        if !is_name || VerifyingKey::from_bytes(&found.public).is_err() {
            return Err(WitnessKeyError::Form);
        }
        match number == in_hex(found.id()) {
            true => Ok(found),
            false => Err(WitnessKeyError::Number),
        }
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&verifier_key(&self.name, self.id(), COSIGNER, &self.public))
    }
}

impl WitnessKey {
    /// The one of this name with this public key.
    pub fn new(name: &str, public: [u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            public,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> [u8; 4] {
        let named = [self.name.as_bytes(), b"\n", &[COSIGNER], &self.public].concat();
        let [a, b, c, d, ..]: [u8; 32] = sha2::Sha256::digest(named).into();
        [a, b, c, d]
    }

    /// When this witness cosigned the note, seconds since 1970 by its clock; `None`: it did not.
    pub fn cosigned(&self, note: &Note) -> Option<u64> {
        let of_this = |one: &&NoteSignature| one.name == self.name && one.key_id == self.id();
        let found = note.signatures.iter().filter(of_this);
        let times = found.filter_map(|one| self.verify(&note.text, &one.bytes));
        times.max()
    }

    fn verify(&self, text: &str, bytes: &[u8]) -> Option<u64> {
        let (time, signature) = bytes.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        let key = VerifyingKey::from_bytes(&self.public).ok()?;
        let signature = Signature::from_slice(signature).ok()?;
        let is_it = bytes.len() == BYTES && i64::try_from(time).is_ok();
        let said = key.verify_strict(cosigned_text(time, text).as_bytes(), &signature);
        (is_it && said.is_ok()).then_some(time)
    }

    /// What of a witness's answer counts for the checkpoint of this note: its own cosignatures.
    pub fn of_answer(&self, note: &Note, answer: &str) -> Option<NoteSignature> {
        let lines = answer.lines().take(super::note::SIGNATURES_MAX);
        lines.filter_map(NoteSignature::parse).find(|one| {
            one.name == self.name && one.key_id == self.id() && self.verify(&note.text, &one.bytes).is_some()
        })
    }
}

/// What a witness signs.
pub fn cosigned_text(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// How whoever runs a witness knows the log: by the key that signs its checkpoints.
pub fn log_key(origin: &str, public: &[u8; 32]) -> String {
    verifier_key(origin, ed25519_id(origin, public), LOG, public)
}

fn verifier_key(name: &str, id: [u8; 4], kind: u8, public: &[u8; 32]) -> String {
    let key = [&[kind], public.as_slice()].concat();
    format!("{name}+{}+{}", in_hex(id), BASE64_STANDARD.encode(key))
}

fn in_hex(id: [u8; 4]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The body of an `add-checkpoint`, with the proof since what the witness cosigned last.
pub fn request(old: u64, proof: &[Hash], note: &Note) -> Vec<u8> {
    let mut body = format!("old {old}\n");
    for hash in proof.iter().take(PROOF_LINES_MAX) {
        body.push_str(&BASE64_STANDARD.encode(hash));
        body.push('\n');
    }
    body.push('\n');
    [body.into_bytes(), note.to_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;

    use super::*;

    fn cosign(key: &SigningKey, witness: &WitnessKey, time: u64, text: &str) -> NoteSignature {
        let signature = key.sign(cosigned_text(time, text).as_bytes());
        NoteSignature {
            name: witness.name.clone(),
            key_id: witness.id(),
            bytes: [time.to_be_bytes().as_slice(), &signature.to_bytes()].concat(),
        }
    }

    proptest! {
        #[test]
        fn a_cosignature_counts_for_its_own_text_time_and_key_alone(
            seed in any::<[u8; 32]>(), time in 0..=i64::MAX as u64, text in "[a-z]{1,9}\n[0-9]{1,5}\n", change in 0..4_u8, bit in 0..576_usize,
        ) {
            let key = SigningKey::from_bytes(&seed);
            let witness = WitnessKey::new("witness.example/w1", key.verifying_key().to_bytes());
            prop_assert_eq!(&witness.to_string().parse::<WitnessKey>().unwrap(), &witness);
            let mut note = Note { text: text.clone(), signatures: vec![cosign(&key, &witness, time, &text)] };
            prop_assert_eq!(witness.cosigned(&note), Some(time));
            let answer = String::from_utf8(note.to_bytes()).unwrap();
            let (_, lines) = answer.rsplit_once("\n\n").unwrap();
            let taken = witness.of_answer(&note, lines);
            prop_assert_eq!(taken.as_ref(), note.signatures.first());
            match change {
                0 => note.text.push('x'),
                1 => note.signatures[0].bytes[bit / 8] ^= 1 << (bit % 8),
                2 => note.signatures[0].name.push('x'),
                _ => note.signatures[0].bytes.push(0),
            }
            prop_assert_eq!(witness.cosigned(&note), None);
        }
    }

    #[test]
    fn a_witnesss_key_is_refused_for_what_it_is_not() {
        let witness = WitnessKey::new("w", SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes());
        let text = witness.to_string();
        let parse = |text: &str| text.parse::<WitnessKey>();
        assert_eq!(parse("w"), Err(WitnessKeyError::Form));
        assert_eq!(parse(&text.replacen('w', "v", 1)), Err(WitnessKeyError::Number));
        assert_eq!(parse(&log_key("w", &witness.public)), Err(WitnessKeyError::Kind));
        assert_eq!(parse(&text.replace('+', " ")), Err(WitnessKeyError::Form));
    }

    #[test]
    fn a_request_is_the_old_size_the_proof_and_the_checkpoint() {
        let note = Note {
            text: "works/coordinator/c1\n5\nroot\n".to_owned(),
            signatures: vec![NoteSignature {
                name: "works/coordinator/c1".to_owned(),
                key_id: [1, 2, 3, 4],
                bytes: vec![9],
            }],
        };
        let body = String::from_utf8(request(3, &[[0; 32], [255; 32]], &note)).unwrap();
        let expected = "old 3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n//////////////////////////////////////////8=\n\n\
                        works/coordinator/c1\n5\nroot\n\n\u{2014} works/coordinator/c1 AQIDBAk=\n";
        assert_eq!(body, expected);
    }
}
