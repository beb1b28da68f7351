//! What a record holds, and how it rests in a file: one spelling, read strictly.

use serde::{Deserialize, Serialize};

use crate::ids::{ApproverId, Digest, GatewayId, OperatorId, PlantId};
use crate::release::envelope::{opened, written};
use crate::release::signing::ApproverKey;
use crate::release::{EnvelopeError, Signable, Signature};
use crate::rollout::RolloutPlan;

/// The format that this code reads and writes.
pub const RECORD_FORMAT: &str = "penstock-change-record/1";
/// The type of the payload in the envelope.
pub const RECORD_TYPE: &str = "application/vnd.penstock.change-record+json";
/// The largest record that is read, bytes: 100,000 gateways take a half of it.
pub const RECORD_BYTES_MAX: usize = 96 << 20;

/// A change-control record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRecord {
    /// Always [`RECORD_FORMAT`].
    pub format: String,
    /// The plant.
    pub plant: PlantId,
    /// Who made the record from what the coordinator said.
    pub made_by: OperatorId,
    /// When, milliseconds since 1970 by their machine.
    pub made_ms: u64,
    /// The coordinator that said it.
    pub coordinator: String,
    /// What held before; `None`: nothing.
    pub baseline: Option<RecordedStatement>,
    /// The statements between the baseline and the release, the oldest first.
    pub between: Vec<RecordedStatement>,
    /// Who allowed what.
    pub authorisation: Authorisation,
    /// How it was carried out.
    pub implementation: Implementation,
    /// What came of it.
    pub verification: Verification,
    /// The release that holds now, by the digest of its statement; `None`: the change was not completed.
    pub new_baseline: Option<Digest>,
}

/// A release's statement with its signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedStatement {
    /// The exact text that was signed.
    pub statement: String,
    /// Signatures over it.
    pub signatures: Vec<StatementSignature>,
}

/// A signature over a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementSignature {
    /// Who says to have signed.
    pub approver: ApproverId,
    /// Hexadecimal, after its algorithm and a colon where that is not `ed25519`.
    pub signature: String,
}

/// Who allowed what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorisation {
    /// The release: author, reason, ticket, digests and approvers stand in its statement.
    pub release: RecordedStatement,
    /// When the last signature came that was needed, milliseconds since 1970.
    pub approved_ms: u64,
    /// What it changes against the baseline, in the words that approvers were shown.
    pub preview: String,
}

/// How it was carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Implementation {
    /// By which plan.
    pub plan: RolloutPlan,
    /// Who started it; empty: the coordinator by its settings.
    pub started_by: String,
    /// Why.
    pub reason: String,
    /// Where it was agreed.
    pub ticket: String,
    /// When it was started, milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, milliseconds since 1970; 0: it had not.
    pub ended_ms: u64,
    /// How far it had come, as a stable word.
    pub stage: String,
    /// What was done and by whom, the oldest first.
    pub events: Vec<RecordedEvent>,
    /// What gateways said of their policy meanwhile, with where it stands in their trails.
    pub trail: Vec<TrailEntry>,
    /// There was more of it than a record holds.
    pub trail_is_cut: bool,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedEvent {
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// An operator or a gateway; empty: the coordinator by the plan.
    pub by: String,
    /// Stable word.
    pub what: String,
    /// In words.
    pub message: String,
    /// Why, where a person did it.
    pub reason: String,
    /// Where it was agreed.
    pub ticket: String,
}

/// What a gateway said, and where: any copy of its trail can be held against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailEntry {
    /// The gateway.
    pub source: String,
    /// Its chain.
    pub epoch: u64,
    /// The block in it.
    pub sequence: u64,
    /// The event in that.
    pub index: u32,
    /// When, by the gateway's clock, milliseconds since 1970.
    pub time_ms: u64,
    /// When the coordinator received it, milliseconds since 1970.
    pub received_ms: u64,
    /// `offered`, `staged`, `effective`, …
    pub step: String,
    /// Of which release.
    pub revision: u64,
    /// In words.
    pub message: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// When it was so, milliseconds since 1970.
    pub time_ms: u64,
    /// Every gateway of the release, in the order of their names.
    pub gateways: Vec<GatewayRecord>,
    /// The zones' health.
    pub zones: Vec<ZoneRecord>,
}

/// One gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayRecord {
    /// Its name.
    pub name: GatewayId,
    /// Digest of the plan that the release has for it.
    pub plan_digest: Digest,
    /// Its wave, from 1; 0: none.
    pub wave: u32,
    /// Its state in the rollout, as a stable word.
    pub state: String,
    /// Whether it was connected.
    pub connected: bool,
    /// What it has verified and stored.
    pub staged: Option<HeldPolicy>,
    /// What its kernel holds.
    pub effective: Option<HeldPolicy>,
    /// How it stands to the release, in words; empty: nothing more.
    pub standing: String,
}

/// A policy that a gateway holds, as it reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldPolicy {
    /// Of which release.
    pub revision: u64,
    /// Digest of the plan.
    pub plan_digest: Digest,
    /// Digest of the release's statement; `None` from an agent that does not report it.
    pub statement_digest: Option<Digest>,
}

/// One zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneRecord {
    /// Its name.
    pub zone: String,
    /// How well it is guarded, as a stable word.
    pub state: String,
    /// Why.
    pub reasons: Vec<String>,
}

/// A record with signatures of who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRecord {
    /// The record's exact bytes.
    pub record: Vec<u8>,
    /// Signatures over it; may be none.
    pub signatures: Vec<Signature>,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Longer than any honest one.
    #[error("the record has {0} bytes, at most {RECORD_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not JSON of the record's shape.
    #[error("the record cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Made for other software.
    #[error("the record has format `{0}`, this software reads `{RECORD_FORMAT}`")]
    Format(String),
    /// The same content, spelt differently.
    #[error("the record is not in its canonical form: it was altered, or written by other software")]
    NotCanonical,
    /// Not the envelope of a record.
    #[error("this is not a signed change-control record")]
    Envelope(#[from] EnvelopeError),
}

impl ChangeRecord {
    /// The exact bytes that are signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings, numbers and lists has no way to fail; an empty text is read nowhere.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record strictly.
    ///
    /// # Errors
    /// The bytes are too many, not a record of a known format, or not in its one spelling.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Claimed {
            format: String,
        }
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong(bytes.len()));
        }
        let record: Self = match serde_json::from_slice(bytes) {
            Ok(record) => record,
            Err(error) => {
                let claimed = serde_json::from_slice::<Claimed>(bytes).ok();
                let other = claimed.filter(|claimed| claimed.format != RECORD_FORMAT);
                return Err(other.map_or(RecordError::Unreadable(error), |claimed| {
                    RecordError::Format(claimed.format)
                }));
            }
        };
        if record.format != RECORD_FORMAT {
            return Err(RecordError::Format(record.format));
        }
        if record.to_bytes() != bytes {
            return Err(RecordError::NotCanonical);
        }
        Ok(record)
    }
}

impl RecordedStatement {
    /// From a statement as it is stored and sent.
    pub fn new(statement: &[u8], signatures: &[Signature]) -> Self {
        Self {
            statement: String::from_utf8_lossy(statement).into_owned(),
            signatures: signatures
                .iter()
                .map(|signature| StatementSignature {
                    approver: signature.approver.clone(),
                    signature: signature.to_text(),
                })
                .collect(),
        }
    }

    /// The signatures over it, unjudged.
    ///
    /// # Errors
    /// One is not hexadecimal, of an unknown algorithm, or does not have the length that its algorithm has.
    pub fn signatures(&self) -> Result<Vec<Signature>, EnvelopeError> {
        let read = |signature: &StatementSignature| {
            Signature::from_text(signature.approver.clone(), &signature.signature)
        };
        self.signatures.iter().map(read).collect()
    }

    /// The digest of the statement.
    pub fn digest(&self) -> Digest {
        Digest::of(self.statement.as_bytes())
    }
}

impl SignedRecord {
    /// Around a record, with no signature yet.
    ///
    /// # Errors
    /// The record does not read back as it is written, so that nobody could verify it.
    pub fn new(record: &ChangeRecord) -> Result<Self, RecordError> {
        let bytes = record.to_bytes();
        ChangeRecord::from_bytes(&bytes)?;
        Ok(Self {
            record: bytes,
            signatures: Vec::new(),
        })
    }

    /// Signs it as `name`.
    pub fn sign(&mut self, name: ApproverId, key: &ApproverKey) {
        let signature = key.sign_payload(name, &self.signable());
        self.signatures.push(signature);
    }

    /// What its signatures are over.
    pub fn signable(&self) -> Signable<'_> {
        Signable::new(RECORD_TYPE, &self.record)
    }

    /// As it rests in a file.
    pub fn to_json(&self) -> String {
        written(RECORD_TYPE, &self.record, &self.signatures)
    }

    /// Reads it; neither record nor signatures are judged here.
    ///
    /// # Errors
    /// The text is not an envelope around a record, or larger than any.
    pub fn from_json(text: &str) -> Result<Self, RecordError> {
        let (record, signatures) = opened(text, RECORD_TYPE, RECORD_BYTES_MAX)?;
        Ok(Self { record, signatures })
    }
}
