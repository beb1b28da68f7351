//! A signed list as it travels in a file, to a site without a link: the standard's JSON envelope (DSSE) with one signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::{LIST_BYTES_MAX, PAYLOAD_TYPE, SignedList};

/// A file is not read beyond: the longest list in base64, and what is around it.
pub const FILE_BYTES_MAX: usize = LIST_BYTES_MAX / 3 * 4 + 64 * 1024;

/// Why a file is not a list of withdrawn keys.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is longer than any.
    #[error("it has {0} bytes, and a list of withdrawn keys has at most {FILE_BYTES_MAX}")]
    TooLong(usize),
    /// Not the standard's JSON.
    #[error("it is not a signed list of withdrawn keys: it cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// An envelope around something else.
    #[error("it holds `{0}` and not `{PAYLOAD_TYPE}`: it is not a list of withdrawn keys")]
    PayloadType(String),
    /// Other than one signature.
    #[error("it has {0} signatures; a list of withdrawn keys has exactly one, by the plant's authority")]
    Signatures(usize),
    /// A field that is not base64.
    #[error("its {0} is not base64: the file was altered or cut")]
    Base64(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileJson {
    payload_type: String,
    payload: String,
    signatures: Vec<SignatureJson>,
    /// The issuing certificate whose key signed, where it is not a root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    sig: String,
}

impl SignedList {
    /// The list as JSON, to be written to a file.
    pub fn to_json(&self) -> String {
        let json = FileJson {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: BASE64.encode(&self.payload),
            signatures: vec![SignatureJson {
                sig: BASE64.encode(&self.signature),
            }],
            certificate: self.issuing.as_ref().map(|issuing| BASE64.encode(issuing)),
        };
        // Strings have no way to fail; an empty file would be refused as unreadable.
        serde_json::to_string_pretty(&json).unwrap_or_default()
    }

    /// Reads what [`Self::to_json`] wrote. Neither list nor signature is judged here.
    ///
    /// # Errors
    /// The text is not such an envelope, holds something else, or more than a list can have.
    pub fn from_json(text: &str) -> Result<Self, FileError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(FileError::TooLong(text.len()));
        }
        let json: FileJson = serde_json::from_str(text).map_err(FileError::Unreadable)?;
        if json.payload_type != PAYLOAD_TYPE {
            return Err(FileError::PayloadType(json.payload_type));
        }
        let [signature] = json.signatures.as_slice() else {
            return Err(FileError::Signatures(json.signatures.len()));
        };
        let decoded = |text: &str, what| BASE64.decode(text).map_err(|_| FileError::Base64(what));
        Ok(Self {
            payload: decoded(&json.payload, "payload")?,
            signature: decoded(&signature.sig, "signature")?,
            issuing: json
                .certificate
                .map(|issuing| decoded(&issuing, "certificate"))
                .transpose()?,
            held: None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn list(payload: &[u8]) -> SignedList {
        SignedList {
            payload: payload.to_vec(),
            signature: b"signature".to_vec(),
            issuing: None,
            held: None,
        }
    }

    proptest! {
        #[test]
        fn a_list_comes_back_from_its_file_as_it_was_and_any_other_text_is_refused(payload in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            let mut written = list(&payload);
            written.issuing = payload.first().map(|_| payload.clone());
            prop_assert_eq!(SignedList::from_json(&written.to_json()).unwrap(), written);
            prop_assert!(SignedList::from_json(&text).is_err());
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let good = list(b"{}").to_json();
        let read = |text: &str| SignedList::from_json(text).unwrap_err().to_string();
        for (wrong, told) in [
            (
                good.replace("withdrawn+json", "release+json"),
                "not a list of withdrawn keys",
            ),
            (good.replace("\"e30=\"", "\"e3\""), "payload is not base64"),
            (good.replace("\"sig\"", "\"sign\""), "cannot be read"),
            (
                good.replace("\"signatures\"", "\"extra\": 1, \"signatures\""),
                "cannot be read",
            ),
            (
                good.replacen("{\n      \"sig\"", "{ \"sig\": \"\" }, {\n      \"sig\"", 1),
                "2 signatures",
            ),
            (" ".repeat(FILE_BYTES_MAX + 1), "at most"),
        ] {
            assert!(read(&wrong).contains(told), "{told}: {}", read(&wrong));
        }
        assert!(LIST_BYTES_MAX.div_ceil(3) * 4 < FILE_BYTES_MAX);
    }
}
