//! The file of a key that a TPM holds: "TSS2 PRIVATE KEY" in PEM, as the TPM providers of OpenSSL read and write it (draft-bottomley-tpm2-keys).
//!
//! ```text
//! TPMKey ::= SEQUENCE {
//!   type       OBJECT IDENTIFIER,            2.23.133.10.1.3: loadable
//!   emptyAuth  [0] EXPLICIT BOOLEAN,         true
//!   parent     INTEGER,                      TPM_RH_OWNER: the storage key of the owner's hierarchy
//!   pubkey     OCTET STRING,                 TPM2B_PUBLIC
//!   privkey    OCTET STRING }                TPM2B_PRIVATE, encrypted by that storage key
//! ```
//!
//! A file is read if it is one that this module writes, in the only DER that there is for it; others are refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::wire::{RH_OWNER, Reader, WrappedKey, point};

const LABEL: &str = "TSS2 PRIVATE KEY";
const BEGIN: &str = "-----BEGIN TSS2 PRIVATE KEY-----";
const END: &str = "-----END TSS2 PRIVATE KEY-----";
/// Characters in a line of PEM.
const LINE: usize = 64;

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
/// Type, emptyAuth and parent, whole: they are always the same.
const LOADABLE: [u8; 8] = [0x06, 0x06, 0x67, 0x81, 0x05, 0x0A, 0x01, 0x03];
const EMPTY_AUTH: [u8; 5] = [0xA0, 0x03, 0x01, 0x01, 0xFF];
const PARENT: [u8; 6] = {
    let [a, b, c, d] = RH_OWNER.to_be_bytes();
    [0x02, 0x04, a, b, c, d]
};

/// Whether this is the file of a key in a TPM, whole or not.
pub(super) fn is_one(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains(LABEL)
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut element = vec![tag];
    match u8::try_from(length) {
        Ok(short @ ..=0x7F) => element.push(short),
        Ok(one) => element.extend([0x81, one]),
        // A key's halves are some hundred bytes: two bytes of length hold them.
        Err(_) => {
            let two = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            element.push(0x82);
            element.extend(two);
        }
    }
    element.extend(content);
    element
}

fn sized(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), content].concat()
}

fn der(wrapped: &WrappedKey) -> Vec<u8> {
    let fields = [
        &LOADABLE[..],
        &EMPTY_AUTH,
        &PARENT,
        &element(OCTETS, &sized(&wrapped.public)),
        &element(OCTETS, &sized(&wrapped.private)),
    ];
    element(SEQUENCE, &fields.concat())
}

/// The file of this key.
pub(super) fn to_pem(wrapped: &WrappedKey) -> String {
    let text = STANDARD.encode(der(wrapped));
    let mut pem = format!("{BEGIN}\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + END + "\n"
}

/// The key of this file; `None`: it is not one that this module wrote.
pub(super) fn from_pem(pem: &[u8]) -> Option<WrappedKey> {
    let text = std::str::from_utf8(pem).ok()?.trim();
    let body: String = text
        .strip_prefix(BEGIN)?
        .strip_suffix(END)?
        .split_ascii_whitespace()
        .collect();
    let bytes = STANDARD.decode(body).ok()?;
    let (content, rest) = split(SEQUENCE, &bytes)?;
    let content = content.strip_prefix(&LOADABLE)?.strip_prefix(&EMPTY_AUTH)?;
    let (public, content) = split(OCTETS, content.strip_prefix(&PARENT)?)?;
    let (private, content) = split(OCTETS, content)?;
    let wrapped = WrappedKey {
        public: whole(public)?,
        private: whole(private)?,
    };
    let is_key = rest.is_empty() && content.is_empty() && point(&wrapped.public).is_some();
    // Written again, it is the same: there is one form of each length.
    (is_key && der(&wrapped) == bytes).then_some(wrapped)
}

/// The content of the element that `bytes` begin with, and what follows it.
fn split(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = match *bytes {
        [own, short @ ..=0x7F, ref rest @ ..] if own == tag => (usize::from(short), rest),
        [own, 0x81, one, ref rest @ ..] if own == tag => (usize::from(one), rest),
        [own, 0x82, high, low, ref rest @ ..] if own == tag => {
            (usize::from(u16::from_be_bytes([high, low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(count)
}

fn whole(sized: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::of(sized);
    let content = reader.sized()?.to_vec();
    reader.end()?;
    Some(content)
}
