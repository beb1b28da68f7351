//! Codes that lie sealed in an envelope, and are good for one override each.

use std::fmt;

use super::Digest;
use crate::ids::{GatewayId, PlantId};

/// Crockford's base 32: no I, L, O, U, which people take for others.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 130 bits: nobody tries them all, so that their digest may stand in a document.
const LENGTH: usize = 26;

/// A code.
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; LENGTH]);

/// What is not a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a code: a code has 26 letters and digits, with or without hyphens; look for one that was left out or doubled"
)]
pub struct NoCode;

impl Code {
    /// The code of these random bytes, of each of which five bits count.
    pub fn from_random(random: [u8; LENGTH]) -> Self {
        Self(random.map(|byte| ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or(b'0')))
    }

    /// Reads what a person typed: capitals or not, with hyphens and blanks or not, O for 0, I and L for 1.
    ///
    /// # Errors
    /// It has another length, or other signs.
    pub fn parse(text: &str) -> Result<Self, NoCode> {
        let signs = text.bytes().filter(|byte| !b"- \r\n\t".contains(byte));
        let read = signs.map(|byte| match byte.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        });
        let code: Vec<u8> = read.take(LENGTH + 1).collect();
        let code: [u8; LENGTH] = code.try_into().map_err(|_| NoCode)?;
        if code.iter().all(|sign| ALPHABET.contains(sign)) {
            Ok(Self(code))
        } else {
            Err(NoCode)
        }
    }

    /// What stands in the document: it opens this gateway and no other.
    pub fn digest(&self, plant: &PlantId, gateway: &GatewayId) -> Digest {
        let mut bytes = format!("penstock-override-code/1\n{plant}\n{gateway}\n").into_bytes();
        bytes.extend_from_slice(&self.0);
        Digest::of(&bytes)
    }
}

/// In groups of five, for paper.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, group) in self.0.chunks(5).enumerate() {
            if place > 0 {
                f.write_str("-")?;
            }
            for sign in group {
                write!(f, "{}", char::from(*sign))?;
            }
        }
        Ok(())
    }
}

/// Shows nothing of itself.
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}
