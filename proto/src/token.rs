//! The enrolment token: what a person carries from the coordinator to a new gateway or operator, as one word.
//!
//! ```text
//! penstock-token-1.<base64url, no padding, of JSON>
//! ```
//! It says where the coordinators are, which root to expect (so that the first contact cannot be intercepted),
//! and holds the single-use secret. For gateways it also carries the approvers: *the operator's tool* puts
//! them in from the plant document on its own disk, never the coordinator, since a gateway must not learn
//! from the coordinator whose signatures to believe (DESIGN, promise 4).
//!
//! Reading is strict: unknown fields, other versions and surplus text are refused; only a byte order mark and white space around the
//! word are not part of it. A token is a secret; its `Debug` does not show the secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use penstock_policy::ids::{Digest, PlantId};
use penstock_policy::model::ApproverSet;
use serde::{Deserialize, Serialize};

use crate::channel::Address;
use crate::peer::Subject;

/// The word that begins every token.
pub const TOKEN_PREFIX: &str = "penstock-token-1.";

/// Longest token that is read, in characters.
pub const TOKEN_LENGTH_MAX: usize = 64 * 1024;

/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;

/// A single-use secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl TryFrom<String> for Secret {
    type Error = TokenError;
    fn try_from(text: String) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Secret)?;
        Ok(Self(bytes.try_into().map_err(|_| TokenError::Secret)?))
    }
}

impl TryFrom<&[u8]> for Secret {
    type Error = TokenError;
    fn try_from(bytes: &[u8]) -> Result<Self, TokenError> {
        Ok(Self(bytes.try_into().map_err(|_| TokenError::Secret)?))
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> String {
        URL_SAFE_NO_PAD.encode(secret.0)
    }
}

/// An enrolment token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The plant.
    pub plant: PlantId,
    /// Whom it enrols: a gateway or an operator.
    pub subject: Subject,
    /// Where to reach coordinators, never empty.
    pub coordinators: Vec<Address>,
    /// The single-use secret.
    pub secret: Secret,
    /// SHA-256 of the plant's root certificate (DER).
    pub root_digest: Digest,
    /// Who approves releases in this plant; needed by gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvers: Option<ApproverSet>,
    /// When it stops being accepted, milliseconds since 1970.
    pub expires_ms: u64,
}

/// Why a text is not a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It begins otherwise.
    #[error(
        "this is not an enrolment token: it must begin with `{TOKEN_PREFIX}`; copy the whole line that was printed"
    )]
    Prefix,
    /// Bytes of no text that is known here.
    #[error(
        "this is not an enrolment token: it is not text; save it as UTF-8, or copy the whole line that was printed"
    )]
    NotText,
    /// Longer than [`TOKEN_LENGTH_MAX`].
    #[error("this is not an enrolment token: {0} characters are too many")]
    TooLong(usize),
    /// Cut off or altered on the way.
    #[error(
        "the enrolment token is damaged (cut off, or with other characters in it); copy the whole line that was printed"
    )]
    Encoding(#[source] base64::DecodeError),
    /// Of another version or altered.
    #[error("the enrolment token cannot be read; was it made by another version?")]
    Content(#[source] serde_json::Error),
    /// Not a secret of the right length.
    #[error("the token's secret does not have {SECRET_BYTES} bytes")]
    Secret,
    /// Only gateways and operators enrol.
    #[error("a token enrols a gateway or an operator, not {0}")]
    Subject(Subject),
    /// Nowhere to go.
    #[error("the token names no coordinator")]
    NoCoordinator,
}

impl Token {
    /// Most bytes of a file that holds a token: as UTF-16, with its mark and an end of line.
    pub const FILE_BYTES_MAX: u64 = TOKEN_LENGTH_MAX as u64 * 2 + 16;

    /// The token in a file: UTF-8, or UTF-16 as some editors and shells save it, with or without a byte order mark.
    ///
    /// # Errors
    /// When it is no token.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenError> {
        let wide = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
            let (units, rest) = rest.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|bytes| unit(*bytes)).collect();
            rest.is_empty().then(|| String::from_utf16(&units).ok()).flatten()
        };
        let text = match bytes {
            [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
            [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
            bytes => String::from_utf8(bytes.to_vec()).ok(),
        };
        text.ok_or(TokenError::NotText)?.parse()
    }
}

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.len() > TOKEN_LENGTH_MAX {
            return Err(TokenError::TooLong(text.len()));
        }
        let encoded = text.strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Prefix)?;
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(TokenError::Encoding)?;
        let token: Self = serde_json::from_slice(&json).map_err(TokenError::Content)?;
        if !matches!(token.subject, Subject::Gateway(_) | Subject::Operator(_)) {
            return Err(TokenError::Subject(token.subject));
        }
        if token.coordinators.is_empty() {
            return Err(TokenError::NoCoordinator);
        }
        Ok(token)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Strings, numbers and maps with string keys cannot fail to be JSON.
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn token(secret: [u8; 32], expires_ms: u64) -> Token {
        Token {
            plant: PlantId::new("water").unwrap(),
            subject: "gateway/gw-1".parse().unwrap(),
            coordinators: vec![
                "10.0.0.1:7643".parse().unwrap(),
                "[fd00::1]:7643".parse().unwrap(),
            ],
            secret: Secret(secret),
            root_digest: Digest::of(&secret),
            approvers: None,
            expires_ms,
        }
    }

    proptest! {
        #[test]
        fn a_token_survives_being_written_and_read(secret: [u8; 32], expires_ms: u64) {
            let token = token(secret, expires_ms);
            let text = token.to_string();
            prop_assert_eq!(text.parse::<Token>().unwrap(), token.clone());
            prop_assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token);
        }

        #[test]
        fn a_token_cut_off_anywhere_is_refused(secret: [u8; 32], keep in 0.0f64..1.0) {
            let text = token(secret, 1).to_string();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let cut = (text.len() as f64 * keep) as usize;
            prop_assert!(text.get(..cut).unwrap().parse::<Token>().is_err());
        }
    }

    #[test]
    fn unknown_fields_and_wrong_subjects_are_refused() {
        let mut value = serde_json::to_value(token([7; 32], 1)).unwrap();
        let encode = |value: &serde_json::Value| {
            format!(
                "{TOKEN_PREFIX}{}",
                URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap())
            )
        };
        assert!(encode(&value).parse::<Token>().is_ok());
        value.as_object_mut().unwrap().insert("extra".into(), 1.into());
        assert!(matches!(
            encode(&value).parse::<Token>(),
            Err(TokenError::Content(_))
        ));
        value.as_object_mut().unwrap().remove("extra");
        value
            .as_object_mut()
            .unwrap()
            .insert("subject".into(), "coordinator/c1".into());
        assert!(matches!(
            encode(&value).parse::<Token>(),
            Err(TokenError::Subject(_))
        ));
        value
            .as_object_mut()
            .unwrap()
            .insert("subject".into(), "operator/eve".into());
        value
            .as_object_mut()
            .unwrap()
            .insert("coordinators".into(), serde_json::json!([]));
        assert!(matches!(
            encode(&value).parse::<Token>(),
            Err(TokenError::NoCoordinator)
        ));
    }

    #[test]
    fn a_token_is_read_from_a_file_however_an_editor_saved_it() {
        let token = token([7; 32], 1);
        let text = format!("{token}\r\n");
        let wide = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}"
                .encode_utf16()
                .chain(text.encode_utf16())
                .flat_map(unit)
                .collect()
        };
        for bytes in [
            text.clone().into_bytes(),
            format!("\u{feff}{text}").into_bytes(),
            wide(u16::to_le_bytes),
            wide(u16::to_be_bytes),
        ] {
            assert_eq!(Token::from_bytes(&bytes).unwrap(), token);
        }
        for bytes in [&[0xff, 0xfe, 0x70][..], &[0x80, 0x81], b"\0p\0e"] {
            assert!(Token::from_bytes(bytes).is_err());
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let token = token([7; 32], 1);
        let text = format!("{token:?}");
        assert!(!text.contains(&String::from(token.secret.clone())) && !text.contains("7, 7"));
    }
}
