//! How a statement is signed and how it rests in a file: DSSE (Dead Simple Signing Envelope, v1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::signature::{EnvelopeError, PAYLOAD_TYPE, SIGNATURES_MAX, Signature};
use super::statement::STATEMENT_BYTES_MAX;
use crate::ids::ApproverId;

/// A signed statement as it rests in a file and travels between people: the standard's JSON envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The statement's exact bytes.
    pub statement: Vec<u8>,
    /// Signatures so far; may be none yet.
    pub signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EnvelopeJson {
    payload_type: String,
    payload: String,
    signatures: Vec<SignatureJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    keyid: ApproverId,
    sig: String,
    /// Not there for `ed25519`: software from before refuses the file whole where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    algorithm: String,
}

impl Envelope {
    /// The envelope as JSON, to be written to a file.
    pub fn to_json(&self) -> String {
        written(PAYLOAD_TYPE, &self.statement, &self.signatures)
    }

    /// Reads an envelope. Neither statement nor signatures are judged here.
    ///
    /// # Errors
    /// The text is not an envelope, holds something other than a release, or more than a release can have.
    pub fn from_json(text: &str) -> Result<Self, EnvelopeError> {
        let (statement, signatures) = opened(text, PAYLOAD_TYPE, STATEMENT_BYTES_MAX)?;
        Ok(Self {
            statement,
            signatures,
        })
    }

    /// Puts a signature in, in place of an earlier one of the same person.
    pub fn add(&mut self, signature: Signature) {
        put(&mut self.signatures, signature);
    }
}

/// Puts a signature among others, in place of an earlier one of the same person.
pub(crate) fn put(signatures: &mut Vec<Signature>, signature: Signature) {
    signatures.retain(|earlier| earlier.approver != signature.approver);
    signatures.push(signature);
}

/// A payload with its signatures as the standard's JSON.
pub(crate) fn written(payload_type: &str, payload: &[u8], signatures: &[Signature]) -> String {
    let json = EnvelopeJson {
        payload_type: payload_type.to_owned(),
        payload: BASE64.encode(payload),
        signatures: signatures
            .iter()
            .map(|signature| SignatureJson {
                keyid: signature.approver.clone(),
                sig: BASE64.encode(signature.bytes()),
                algorithm: signature.algorithm().written().to_owned(),
            })
            .collect(),
    };
    // Strings have no way to fail; an empty file would be refused as unreadable.
    serde_json::to_string_pretty(&json).unwrap_or_default()
}

/// The payload and the signatures of an envelope that holds this type, unjudged.
pub(crate) fn opened(
    text: &str,
    payload_type: &'static str,
    bytes_max: usize,
) -> Result<(Vec<u8>, Vec<Signature>), EnvelopeError> {
    if text.len() > bytes_max.saturating_mul(2) {
        return Err(EnvelopeError::TooLarge(bytes_max));
    }
    let json: EnvelopeJson = serde_json::from_str(text).map_err(EnvelopeError::Unreadable)?;
    if json.payload_type != payload_type {
        return Err(EnvelopeError::PayloadType {
            found: json.payload_type,
            expected: payload_type,
        });
    }
    if json.signatures.len() > SIGNATURES_MAX {
        return Err(EnvelopeError::TooLarge(bytes_max));
    }
    let payload = BASE64
        .decode(&json.payload)
        .map_err(|_| EnvelopeError::Encoding {
            field: "the payload",
            expected: "base64",
        })?;
    let signatures = json
        .signatures
        .into_iter()
        .map(|signature| {
            let bytes = BASE64
                .decode(&signature.sig)
                .map_err(|_| EnvelopeError::Encoding {
                    field: "a signature",
                    expected: "base64",
                })?;
            Signature::new(signature.keyid, &signature.algorithm, &bytes)
        })
        .collect::<Result<_, _>>()?;
    Ok((payload, signatures))
}
