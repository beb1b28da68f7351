//! EtherNet/IP ListIdentity: what a device answers of its product.

use super::{Attribute, Said};

pub(super) const PORT: u16 = 44_818;
const LIST_IDENTITY: u16 = 0x63;
const IDENTITY: u16 = 0x0c;
/// The vendor that ODVA numbers so.
const ROCKWELL: u16 = 1;

/// What one whole answer says.
pub(super) fn identity(bytes: &[u8]) -> Said {
    read(bytes).unwrap_or_default()
}

fn read(bytes: &[u8]) -> Option<Said> {
    // This protocol's numbers are little-endian.
    let word = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let is_whole = word(0)? == LIST_IDENTITY && bytes.len() == 24 + usize::from(word(2)?);
    // Behind the header one item: its type and length, the version of the encapsulation, and a socket's address.
    let is_identity =
        is_whole && word(24)? == 1 && word(26)? == IDENTITY && 30 + usize::from(word(28)?) == bytes.len();
    let vendor = word(48).filter(|_| is_identity)?;
    let (major, minor) = (bytes.get(54)?, bytes.get(55)?);
    let length = usize::from(*bytes.get(62)?);
    let name = bytes.get(63..63 + length)?;
    // And its state.
    let is_whole = bytes.len() == 64 + length;
    let mut claims = vec![
        (Attribute::Model, name.to_vec()),
        (Attribute::Firmware, format!("{major}.{minor}").into_bytes()),
    ];
    if vendor == ROCKWELL {
        claims.push((Attribute::Vendor, b"Rockwell Automation".to_vec()));
    }
    is_whole.then_some(claims)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    pub(in super::super) fn example() -> Vec<u8> {
        let name = b"1769-L33ER/A LOGIX5333ER";
        let mut item = vec![1, 0];
        item.extend([0, 2, 0xaf, 0x12, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        item.extend([1, 0, 14, 0, 107, 0, 30, 11, 0x60, 0x30, 1, 2, 3, 4]);
        item.push(24);
        item.extend(name);
        item.push(3);
        let length = u8::try_from(item.len()).unwrap_or(0);
        let mut bytes = vec![0x63, 0, length + 6, 0];
        bytes.extend([0; 20]);
        bytes.extend([1, 0, 0x0c, 0, length, 0]);
        bytes.extend(item);
        bytes
    }

    #[test]
    fn an_answer_names_the_product_and_its_revision() {
        assert_eq!(
            identity(&example()),
            [
                (Attribute::Model, b"1769-L33ER/A LOGIX5333ER".to_vec()),
                (Attribute::Firmware, b"30.11".to_vec()),
                (Attribute::Vendor, b"Rockwell Automation".to_vec()),
            ]
        );
        // The question has no item.
        let mut question = vec![0x63, 0, 0, 0];
        question.extend([0; 20]);
        assert!(identity(&question).is_empty());
    }
}
