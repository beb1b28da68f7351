//! TCP segments of one direction in any order, doubled, overlapping, lost, acknowledged.
//!
//! Promises: every byte comes at most once and in order; where no segment lied about a byte, what comes is what was
//! sent, place by place; gaps account for all the rest; what is held is bounded.

use penstock_inspect::capture::reassembly::{Piece, ReassemblyLimits, Stream};

use super::play::Input;

const WAITING_BYTES_MAX: usize = 300;
const REMEMBERED_BYTES_MAX: usize = 100;

/// The byte that was sent at a place.
fn sent(place: u64) -> u8 {
    u8::try_from(place * 7 % 251).unwrap()
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let origin = u32::from_be_bytes([input.byte(), input.byte(), input.byte(), input.byte()]);
    let mut stream = Stream::new(ReassemblyLimits {
        waiting_bytes_max: WAITING_BYTES_MAX,
        remembered_bytes_max: REMEMBERED_BYTES_MAX,
    });
    stream.begin(origin);
    let (mut next, mut lied, mut conflicts) = (0_u64, false, 0);
    while !input.is_empty() {
        let kind = input.byte();
        let place = u32::from(input.byte()) << (kind >> 5 & 3);
        let sequence = origin.wrapping_add(place);
        let length = u32::from(input.byte());
        lied |= kind % 4 == 1 && kind & 0x10 != 0 && length > 0;
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Data(bytes) => {
                for byte in bytes {
                    assert!(lied || *byte == sent(next), "another byte at {next}");
                    next += 1;
                }
            }
            Piece::Gap(bytes) => next += bytes,
            Piece::Conflict(bytes) => conflicts += bytes,
        };
        match kind % 4 {
            0 | 1 => {
                let mut bytes: Vec<u8> = (place..place + length)
                    .map(|place| sent(u64::from(place)))
                    .collect();
                if kind % 4 == 1 && kind & 0x10 != 0 && length > 0 {
                    bytes[0] ^= 1;
                }
                stream.segment(sequence, &bytes, &mut take);
            }
            2 => stream.acknowledged(sequence, &mut take),
            _ => stream.lost(sequence, usize::try_from(length).unwrap(), &mut take),
        }
        let held = stream.held_bytes();
        assert!(
            held <= WAITING_BYTES_MAX + REMEMBERED_BYTES_MAX * 3 / 2 + 256,
            "{held} bytes held"
        );
    }
    let mut end = next;
    stream.finish(&mut |piece| match piece {
        Piece::Data(bytes) => {
            for byte in bytes {
                assert!(lied || *byte == sent(end), "another byte at {end}");
                end += 1;
            }
        }
        Piece::Gap(bytes) => end += bytes,
        Piece::Conflict(_) => {}
    });
    assert!(lied || conflicts == 0, "conflicts where nobody lied");
}
