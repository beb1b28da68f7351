//! Read Device Identification (function 43/14): what a server answers of its maker, product and version.

use super::{Attribute, Said};
use crate::bytes::Reader;

const ENCAPSULATED: u8 = 0x2b;
const IDENTIFICATION: u8 = 0x0e;

/// What one whole answer says.
pub(super) fn identification(bytes: &[u8]) -> Said {
    read(bytes).unwrap_or_default()
}

fn read(bytes: &[u8]) -> Option<Said> {
    let mut reader = Reader::new(bytes);
    reader.u16()?;
    let protocol = reader.u16()?;
    let length = reader.u16()?;
    let is_whole = protocol == 0 && reader.rest().len() == usize::from(length);
    reader.u8().filter(|_| is_whole)?;
    let is_answer = reader.u8()? == ENCAPSULATED && reader.u8()? == IDENTIFICATION;
    // Which objects were asked, how far it conforms, whether more follow, and from which on.
    reader.take(4).filter(|_| is_answer)?;
    let objects = reader.u8()?;
    let mut claims = Vec::new();
    for _ in 0..objects {
        let object = reader.u8()?;
        let length = reader.u8()?;
        let text = reader.take(length.into())?.to_vec();
        let attribute = match object {
            0 => Attribute::Vendor,
            1 | 4 | 5 => Attribute::Model,
            2 => Attribute::Firmware,
            _ => continue,
        };
        claims.push((object, attribute, text));
    }
    // The name of its model says more than its product's name or code.
    let model = claims
        .iter()
        .filter(|(_, attribute, text)| *attribute == Attribute::Model && !text.is_empty())
        .map(|(object, ..)| *object)
        .max();
    claims.retain(|(object, attribute, _)| *attribute != Attribute::Model || Some(*object) == model);
    let claims = claims.into_iter().map(|(_, attribute, text)| (attribute, text));
    reader.is_empty().then(|| claims.collect())
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    pub(in super::super) fn example() -> Vec<u8> {
        let mut pdu = vec![1, ENCAPSULATED, IDENTIFICATION, 1, 1, 0, 0, 3];
        for (object, text) in [(0, "Schneider Electric"), (1, "TM221CE40R"), (2, "V1.10")] {
            pdu.push(object);
            pdu.push(u8::try_from(text.len()).unwrap_or(0));
            pdu.extend(text.as_bytes());
        }
        let length = u8::try_from(pdu.len()).unwrap_or(0);
        [&[0, 1, 0, 0, 0, length][..], &pdu].concat()
    }

    #[test]
    fn an_answer_names_maker_model_and_version() {
        assert_eq!(
            identification(&example()),
            [
                (Attribute::Vendor, b"Schneider Electric".to_vec()),
                (Attribute::Model, b"TM221CE40R".to_vec()),
                (Attribute::Firmware, b"V1.10".to_vec()),
            ]
        );
        assert!(identification(&[0, 1, 0, 0, 0, 5, 1, 0x2b, 0x0e, 1, 0]).is_empty());
    }
}
