//! What a request carries beside its addresses: the values that it writes, the records of files that it touches.

use crate::bytes::Reader;
use crate::modbus::operation::Span;

/// What a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values<'a> {
    /// Nothing.
    None,
    /// One value: a register, or 0 or 1 for a coil.
    One(u16),
    /// So many coils, the first in the lowest bit of the first byte.
    Coils(&'a [u8], u16),
    /// Registers, big-endian.
    Registers(&'a [u8]),
    /// `(current AND and) OR (or AND NOT and)`: what results depends on the device (section 6.16).
    Mask {
        /// AND mask.
        and: u16,
        /// OR mask.
        or: u16,
    },
}

/// The sub-requests of a file function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files<'a> {
    records: &'a [u8],
    with_data: bool,
}

/// One sub-request of a file function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRecord<'a> {
    /// File number, 1–65535.
    pub file: u16,
    /// First record, 0–9999.
    pub record: u16,
    /// Registers.
    pub registers: u16,
    /// What is written, big-endian registers; empty for a read.
    pub data: &'a [u8],
}

impl<'a> Values<'a> {
    /// Each value written, until `keep_on` says no; `true` if it never did. A mask has no single value.
    pub fn all(self, mut keep_on: impl FnMut(u16) -> bool) -> bool {
        match self {
            Self::None | Self::Mask { .. } => true,
            Self::One(value) => keep_on(value),
            Self::Coils(bytes, count) => (0..count).all(|at| {
                let byte = bytes.get(usize::from(at / 8)).copied().unwrap_or(0);
                keep_on(u16::from((byte >> (at % 8)) & 1))
            }),
            Self::Registers(bytes) => registers(bytes).all(keep_on),
        }
    }

    pub(super) fn hull(self) -> Option<Span> {
        if let Self::Mask { and, or } = self {
            return Some(Span {
                first: or & !and,
                last: and | or,
            });
        }
        let mut hull: Option<Span> = None;
        self.all(|value| {
            let one = Span {
                first: value,
                last: value,
            };
            hull = Some(hull.map_or(one, |hull| hull.hull(one)));
            true
        });
        hull
    }
}

/// The least value from `from` on that a mask can leave behind: bits of `and` are the device's, which are not
/// known, all others are those of `or`.
pub fn least_mask_result(and: u16, or: u16, from: u16) -> Option<u16> {
    let greatest = and | or;
    if greatest < from {
        return None;
    }
    // From the highest of the device's bits down: each is 0 unless the result would then be below `from`.
    let bits = (0..u16::BITS).rev().map(|place| 1 << place);
    Some(bits.filter(|bit| and & bit != 0).fold(greatest, |least, bit| {
        if least & !bit >= from { least & !bit } else { least }
    }))
}

fn registers(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |value, byte| (value << 8) | u16::from(*byte)))
}

impl<'a> Files<'a> {
    pub(crate) const NONE: Files<'static> = Files {
        records: &[],
        with_data: false,
    };

    /// Sub-requests as they stand in a PDU (section 6.14, 6.15).
    pub(crate) fn of(records: &'a [u8], with_data: bool) -> Self {
        Self { records, with_data }
    }

    /// The sub-requests in the order they were written.
    pub fn iter(self) -> impl Iterator<Item = FileRecord<'a>> {
        let mut reader = Reader::new(self.records);
        std::iter::from_fn(move || next_record(&mut reader, self.with_data))
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.records.is_empty()
    }

    /// Whether every register written is one that `keep_on` takes.
    pub fn all_values(self, mut keep_on: impl FnMut(u16) -> bool) -> bool {
        self.iter().all(|record| registers(record.data).all(&mut keep_on))
    }
}

pub(super) fn next_record<'a>(reader: &mut Reader<'a>, with_data: bool) -> Option<FileRecord<'a>> {
    let _reference_type = reader.u8()?;
    let (file, record, registers) = (reader.u16()?, reader.u16()?, reader.u16()?);
    let data = if with_data {
        reader.take(usize::from(registers) * 2)?
    } else {
        &[]
    };
    Some(FileRecord {
        file,
        record,
        registers,
        data,
    })
}
