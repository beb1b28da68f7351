//! How servers tell where a request ends, and what those that do not go by its length make of its data.
//!
//! The standard says it by the length in the header, and most servers read it so (pymodbus, umodbus, FreeModbus over lwIP,
//! the controllers themselves). The others go by the function:
//!
//! | function | bytes after the function code, by the function |
//! |---|---|
//! | 0–6 | 4 |
//! | 15, 16 | 5, and as many as the fifth says |
//! | 23 | 9, and as many as the ninth says |
//! | 22 | 6 for libmodbus 3.1, none for 3.0 |
//! | all others | none |
//!
//! For 1–7, 11, 12, 15–17 and 23 both ways agree, since [`super::request`] takes no other length. For the rest they do not
//! ([`is_open_ended`]): a server that goes by the function, and answers one that it does not know by an exception of its
//! own, takes the data for the next request. libmodbus's own exception throws away what has arrived; a program's does not.
//! On a serial line behind a gateway the data may in the same way be taken for a frame, if its check sum is right.
//!
//! [`StreamPosition`] keeps where in its stream such a server may be; nothing is forwarded that it would take for a write
//! which no rule permits.

use serde::{Deserialize, Serialize};

use super::request::Request;

/// Transaction, protocol, length and unit.
const HEADER_BYTES: usize = 7;
/// Servers that go by the function give up on longer requests.
const ADU_BYTES_MAX: usize = 260;
/// Places in the stream at which a server may be that are told apart.
pub(crate) const PLACES_MAX: usize = 8;

/// A way of going by the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Framing {
    /// libmodbus 3.0: without mask-write-register.
    Libmodbus30,
    /// libmodbus 3.1.
    Libmodbus31,
}

const FRAMINGS: [Framing; 2] = [Framing::Libmodbus30, Framing::Libmodbus31];

/// Whether servers that go by the function may read another length than the header says.
pub fn is_open_ended(code: u8) -> bool {
    FRAMINGS.iter().any(|framing| !framing.knows(code)) && !matches!(code, 11 | 12)
}

/// Whether it writes process data.
fn writes(code: u8) -> bool {
    matches!(code, 5 | 6 | 15 | 16 | 22 | 23)
}

impl Framing {
    /// Whether it carries the function out; every other one is answered by an exception.
    pub(crate) fn knows(self, code: u8) -> bool {
        matches!(code, 1..=7 | 15..=17 | 23) || (code == 22 && self == Self::Libmodbus31)
    }

    /// The bytes of the first request at the beginning of `bytes`; `None` while it is not whole.
    pub(crate) fn request_bytes(self, bytes: &[u8]) -> Option<usize> {
        let code = *bytes.get(HEADER_BYTES)?;
        let fixed = match code {
            0..=6 => 4,
            15 | 16 => 5,
            22 if self == Self::Libmodbus31 => 6,
            23 => 9,
            _ => 0,
        };
        let fixed_end = HEADER_BYTES + 1 + fixed;
        let data = match code {
            15 | 16 | 23 => usize::from(*bytes.get(fixed_end - 1)?),
            _ => 0,
        };
        if fixed_end + data > ADU_BYTES_MAX {
            // It takes no more, and gives up on what it took.
            return Some(fixed_end);
        }
        (bytes.len() >= fixed_end + data).then_some(fixed_end + data)
    }
}

/// What a server would do that reads bytes by the function.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Reading {
    /// A write that is not permitted.
    forbidden: Option<u8>,
    /// Anything that it carries out, and answers so.
    carried_out: Option<u8>,
    /// The beginning of a request that is not whole.
    unread: Vec<u8>,
}

fn read(framing: Framing, bytes: &[u8], permits: &dyn Fn(&Request<'_>) -> bool) -> Reading {
    let mut reading = Reading::default();
    let mut rest = bytes;
    while let Some(count) = framing.request_bytes(rest) {
        let (request, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        rest = after;
        let (Some(&unit), Some(pdu)) = (request.get(HEADER_BYTES - 1), request.get(HEADER_BYTES..)) else {
            break;
        };
        let code = pdu.first().copied().unwrap_or(0);
        if !framing.knows(code) {
            continue;
        }
        let request = Request::decode(unit, pdu);
        // Old versions do not compare quantity and byte count, others take any value for a coil.
        if request.is_ok() || writes(code) {
            reading.carried_out.get_or_insert(code);
        }
        if writes(code) && !request.is_ok_and(|request| permits(&request)) {
            reading.forbidden.get_or_insert(code);
        }
    }
    reading.unread = rest.to_vec();
    reading
}

/// A write in `data` that a serial line's frame could be, with a right check sum, and that is not permitted.
fn serial_write(data: &[u8], permits: &dyn Fn(&Request<'_>) -> bool) -> Option<u8> {
    (0..data.len()).find_map(|at| {
        let frame = data.get(at..)?;
        let (unit, code) = (*frame.first()?, *frame.get(1)?);
        if !writes(code) {
            return None;
        }
        // The same lengths as by the function, after one byte of address instead of a header.
        let padded = [&[0; HEADER_BYTES - 1][..], frame].concat();
        let bytes = Framing::Libmodbus31.request_bytes(&padded)? + 1 - HEADER_BYTES;
        let [low, high] = *frame.get(bytes..)?.first_chunk::<2>()?;
        let frame = frame.get(..bytes)?;
        if check_sum(frame) != u16::from_le_bytes([low, high]) {
            return None;
        }
        let permitted = Request::decode(unit, frame.get(1..)?).is_ok_and(|request| permits(&request));
        (!permitted).then_some(code)
    })
}

/// CRC-16 of a serial line (MODBUS over Serial Line V1.02, section 6.2.2).
fn check_sum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte), |sum, _| {
            if sum & 1 == 0 {
                sum >> 1
            } else {
                (sum >> 1) ^ 0xa001
            }
        })
    })
}

/// A write that could be read out of an open-ended request's data, whatever the server: its function.
pub(crate) fn write_within(adu: &[u8], permits: &dyn Fn(&Request<'_>) -> bool) -> Option<u8> {
    let data = adu.get(HEADER_BYTES + 1..).unwrap_or_default();
    let by_function = |framing: &Framing| {
        let code = adu.get(HEADER_BYTES).copied().unwrap_or(0);
        let taken = if framing.knows(code) { data.len() } else { 0 };
        read(*framing, data.get(taken..).unwrap_or_default(), permits).forbidden
    };
    FRAMINGS
        .iter()
        .find_map(by_function)
        .or_else(|| serial_write(data, permits))
}

/// Where in its stream a server may be that goes by the function, other than at the end of what was forwarded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct StreamPosition {
    /// What it has not made a whole request of, one entry for each place.
    unread: Vec<(Framing, Vec<u8>)>,
    /// It may have carried out what it read there, and may answer that.
    answers: bool,
}

/// Why a request cannot be forwarded on a connection whose server may stand elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It would be read as this function.
    Function(u8),
    /// There are too many places where it may stand.
    Places,
}

impl StreamPosition {
    /// Those that were written down elsewhere; `None` if they cannot be.
    pub(crate) fn of(unread: Vec<(Framing, Vec<u8>)>, answers: bool) -> Option<Self> {
        let could_be = |(framing, bytes): &(Framing, Vec<u8>)| {
            !bytes.is_empty() && bytes.len() <= 2 * ADU_BYTES_MAX && framing.request_bytes(bytes).is_none()
        };
        (unread.len() <= PLACES_MAX && unread.iter().all(could_be)).then_some(Self { unread, answers })
    }

    /// Each place with what is unread there, and whether it may answer what nobody asked.
    pub(crate) fn parts(&self) -> (&[(Framing, Vec<u8>)], bool) {
        (&self.unread, self.answers)
    }

    /// What it takes of memory, bytes.
    pub(crate) fn memory(&self) -> usize {
        self.unread.iter().map(|(_, bytes)| bytes.capacity()).sum()
    }

    /// It is known to be at the end of what was forwarded.
    pub(crate) fn is_certain(&self) -> bool {
        self.unread.is_empty() && !self.answers
    }

    /// Whether it may answer what nobody asked.
    pub(crate) fn may_answer(&self) -> bool {
        self.answers
    }

    /// Where it may be after `adu`, of whose own length it may think otherwise (`doubtful`).
    pub(crate) fn after(
        &self,
        adu: &[u8],
        doubtful: bool,
        permits: &dyn Fn(&Request<'_>) -> bool,
    ) -> Result<Self, Doubt> {
        let mut next = Self {
            unread: Vec::new(),
            answers: self.answers,
        };
        for (framing, unread) in &self.unread {
            let reading = read(*framing, &[unread, adu].concat(), permits);
            // Permitted or not: its answer would pass for a proof that the server is where it is not.
            if let Some(code) = reading.carried_out {
                return Err(Doubt::Function(code));
            }
            next.add(*framing, reading.unread);
        }
        let code = adu.get(HEADER_BYTES).copied().unwrap_or(0);
        if doubtful {
            let data = adu.get(HEADER_BYTES + 1..).unwrap_or_default();
            for framing in FRAMINGS.into_iter().filter(|framing| !framing.knows(code)) {
                let reading = read(framing, data, permits);
                next.answers |= reading.carried_out.is_some();
                next.add(framing, reading.unread);
            }
        }
        if next.unread.len() > PLACES_MAX {
            return Err(Doubt::Places);
        }
        Ok(next)
    }

    fn add(&mut self, framing: Framing, unread: Vec<u8>) {
        let place = (framing, unread);
        if !place.1.is_empty() && !self.unread.contains(&place) {
            self.unread.push(place);
        }
    }
}
