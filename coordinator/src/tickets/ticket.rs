//! What a ticket is: a number, something random, and a seal by which the coordinators of a plant know it as theirs.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use penstock_policy::ids::Digest;
use serde::{Deserialize, Serialize};

/// Bytes of a ticket: the number, what is random, the seal.
pub(super) const TICKET_BYTES: usize = 32;
/// Bytes of the key that seals.
pub(super) const SEALING_BYTES: usize = 32;
const SEAL_BYTES: usize = 16;

/// What is recorded of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ticket {
    /// Rises with each that one key was given and held.
    pub number: u64,
    /// Two that were given after the same one differ by it.
    pub random: u64,
}

impl Ticket {
    /// As it is given to the holder of this key.
    pub(super) fn sealed(self, sealing: &hmac::Key, key: Digest) -> [u8; TICKET_BYTES] {
        let mut bytes = [0; TICKET_BYTES];
        let seal = seal(sealing, key, self);
        let all = self
            .number
            .to_be_bytes()
            .into_iter()
            .chain(self.random.to_be_bytes());
        for (to, from) in bytes.iter_mut().zip(all.chain(seal)) {
            *to = from;
        }
        bytes
    }

    /// The ticket that these bytes are, given to the holder of this key by a coordinator with this sealing key; `None`: they are none.
    pub(super) fn read(sealing: &hmac::Key, key: Digest, bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; TICKET_BYTES] = bytes.try_into().ok()?;
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let (random, shown) = rest.split_first_chunk::<8>()?;
        let ticket = Self {
            number: u64::from_be_bytes(*number),
            random: u64::from_be_bytes(*random),
        };
        verify_slices_are_equal(&seal(sealing, key, ticket), shown).ok()?;
        Some(ticket)
    }
}

fn seal(sealing: &hmac::Key, key: Digest, ticket: Ticket) -> [u8; SEAL_BYTES] {
    let mut text = b"penstock session ticket 1\0".to_vec();
    text.extend(key.0);
    text.extend(ticket.number.to_be_bytes());
    text.extend(ticket.random.to_be_bytes());
    let tag = hmac::sign(sealing, &text);
    let mut seal = [0; SEAL_BYTES];
    for (to, from) in seal.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    seal
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_ticket_is_read_by_who_sealed_it_for_its_key_alone_and_no_byte_of_it_can_be_changed() {
        let sealing = |byte| hmac::Key::new(hmac::HMAC_SHA256, &[byte; SEALING_BYTES]);
        let key = |byte: u8| Digest::of(&[byte]);
        let ticket = Ticket {
            number: 7,
            random: 0xabcd,
        };
        let bytes = ticket.sealed(&sealing(1), key(1));
        assert_eq!(Ticket::read(&sealing(1), key(1), &bytes), Some(ticket));
        assert_eq!(Ticket::read(&sealing(2), key(1), &bytes), None);
        assert_eq!(Ticket::read(&sealing(1), key(2), &bytes), None);
        assert_eq!(Ticket::read(&sealing(1), key(1), &bytes[..31]), None);
        assert_eq!(Ticket::read(&sealing(1), key(1), b""), None);
        for at in 0..TICKET_BYTES {
            let mut altered = bytes;
            altered[at] ^= 1;
            assert_eq!(Ticket::read(&sealing(1), key(1), &altered), None, "byte {at}");
        }
    }
}
