//! Whether an answer fits the request that it answers (V1.1b3, section 6).
//!
//! An [`Expectation`] is all that is kept of a forwarded request: what its answer must look like. An answer
//! that does not fit never reaches the client, who could read it as something else.

use serde::{Deserialize, Serialize};

use super::request::Request;
use crate::bytes::Reader;

/// What the answer to one request must look like; a few bytes, no borrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    code: u8,
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Body {
    /// A byte count of exactly this, and as many bytes.
    Counted(u8),
    /// The request's own bytes after the function code, or the first of them.
    Echo { bytes: [u8; 6], length: u8 },
    /// The request's whole length again (its data need not be kept to know the shape).
    SameLength { pdu_bytes: u8 },
    /// Diagnostics: the sub-function, then as many bytes as were sent.
    Diagnostic { sub_function: u16, pdu_bytes: u8 },
    /// Exactly so many bytes.
    Exactly(u8),
    /// A byte count and as many bytes.
    SelfCounted,
    /// File records: each its own length and reference type, in all exactly this byte count.
    Files(u8),
    /// FIFO: byte count, then count of registers, at most 31.
    Fifo,
    /// Device identification: the object list.
    Identification,
    /// Encapsulated CANopen: the type again, then anything.
    Interface(u8),
    /// No standard says.
    Opaque,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// The request was carried out.
    Normal,
    /// It was refused by the device with this exception code (section 7).
    Exception(u8),
}

/// Why bytes do not answer the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The answer to something else.
    #[error("function {answered} answers function {asked}")]
    Function {
        /// What was asked.
        asked: u8,
        /// What came.
        answered: u8,
    },
    /// An exception has one byte, not zero.
    #[error("the exception to function {0} does not have exactly one code")]
    Exception(u8),
    /// The body is not what the request determines.
    #[error("the answer to function {0} does not have the shape that the request determines")]
    Shape(u8),
}

impl Expectation {
    /// What answers `request`, whose PDU is `pdu`.
    pub fn of(request: &Request<'_>, pdu: &[u8]) -> Self {
        let pdu_bytes = u8::try_from(pdu.len()).unwrap_or(u8::MAX);
        let span_bytes = |bytes_for: fn(u32) -> u32| {
            let count = request.read.map_or(0, |span| span.count());
            u8::try_from(bytes_for(count)).unwrap_or(u8::MAX)
        };
        let body = match request.code {
            1 | 2 => Body::Counted(span_bytes(|coils| coils.div_ceil(8))),
            3 | 4 | 23 => Body::Counted(span_bytes(|registers| registers * 2)),
            5 | 6 => Body::echo(pdu, 4),
            22 => Body::echo(pdu, 6),
            15 | 16 => Body::echo(pdu, 4),
            7 => Body::Exactly(1),
            11 => Body::Exactly(4),
            12 | 17 => Body::SelfCounted,
            8 => Body::Diagnostic {
                sub_function: request.sub_function.unwrap_or(0),
                pdu_bytes,
            },
            20 => Body::Files(
                request
                    .files
                    .iter()
                    .map(|record| record.registers.saturating_mul(2).saturating_add(2))
                    .fold(0, |sum: u16, bytes| sum.saturating_add(bytes))
                    .try_into()
                    .unwrap_or(u8::MAX),
            ),
            21 => Body::SameLength { pdu_bytes },
            24 => Body::Fifo,
            43 if request.sub_function == Some(14) => Body::Identification,
            43 => Body::Interface(13),
            _ => Body::Opaque,
        };
        Self {
            code: request.code,
            body,
        }
    }

    /// What answers a request that could not be decoded, and passed because it was only observed.
    pub fn anything(pdu: &[u8]) -> Self {
        Self {
            code: pdu.first().copied().unwrap_or(0) & 0x7f,
            body: Body::Opaque,
        }
    }

    /// The function code it waits for.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Whether some request has it: what was written down elsewhere may be damaged.
    pub(crate) fn could_be(&self) -> bool {
        self.code < 0x80 && !matches!(self.body, Body::Echo { length: 7.., .. })
    }

    /// Judges the PDU of an answer.
    ///
    /// # Errors
    /// The answer does not have the shape that its request determines.
    pub fn check(&self, pdu: &[u8]) -> Result<Response, ResponseError> {
        let (&code, body) = pdu.split_first().ok_or(ResponseError::Shape(self.code))?;
        if code == self.code | 0x80 {
            return match body {
                [exception] if *exception != 0 => Ok(Response::Exception(*exception)),
                _ => Err(ResponseError::Exception(self.code)),
            };
        }
        if code != self.code {
            return Err(ResponseError::Function {
                asked: self.code,
                answered: code,
            });
        }
        let fits = self.body.fits(body).unwrap_or(false);
        if fits {
            Ok(Response::Normal)
        } else {
            Err(ResponseError::Shape(self.code))
        }
    }
}

impl Body {
    fn echo(pdu: &[u8], length: u8) -> Self {
        let mut bytes = [0; 6];
        for (kept, sent) in bytes.iter_mut().zip(pdu.iter().skip(1)).take(usize::from(length)) {
            *kept = *sent;
        }
        Self::Echo { bytes, length }
    }

    /// `None`: the answer ends too soon.
    fn fits(&self, body: &[u8]) -> Option<bool> {
        let mut reader = Reader::new(body);
        Some(match *self {
            Self::Counted(count) => reader.u8()? == count && reader.rest().len() == usize::from(count),
            Self::Echo { bytes, length } => bytes.get(..usize::from(length))? == body,
            Self::SameLength { pdu_bytes } => body.len() + 1 == usize::from(pdu_bytes),
            Self::Diagnostic {
                sub_function,
                pdu_bytes,
            } => reader.u16()? == sub_function && body.len() + 1 == usize::from(pdu_bytes),
            Self::Exactly(count) => body.len() == usize::from(count),
            Self::SelfCounted => usize::from(reader.u8()?) == reader.rest().len(),
            Self::Files(count) => {
                reader.u8()? == count && reader.rest().len() == usize::from(count) && file_records(reader)?
            }
            Self::Fifo => {
                let (bytes, registers) = (reader.u16()?, reader.u16()?);
                registers <= 31
                    && bytes == 2 + registers * 2
                    && reader.rest().len() == usize::from(registers) * 2
            }
            Self::Identification => identification(reader)?,
            Self::Interface(mei_type) => reader.u8()? == mei_type && !reader.is_empty(),
            Self::Opaque => true,
        })
    }
}

/// Section 6.14: each record its length (reference type included), the reference type 6, the registers.
fn file_records(mut reader: Reader<'_>) -> Option<bool> {
    while !reader.is_empty() {
        let length = usize::from(reader.u8()?);
        if length == 0 || length % 2 == 0 || reader.u8()? != 6 {
            return Some(false);
        }
        reader.take(length - 1)?;
    }
    Some(true)
}

/// Section 6.21: type, code, conformity, more follows (00 or FF), next object, number of objects, objects.
fn identification(mut reader: Reader<'_>) -> Option<bool> {
    let (mei_type, code, _conformity) = (reader.u8()?, reader.u8()?, reader.u8()?);
    let (more_follows, _next, objects) = (reader.u8()?, reader.u8()?, reader.u8()?);
    if mei_type != 14 || !(1..=4).contains(&code) || !matches!(more_follows, 0x00 | 0xff) {
        return Some(false);
    }
    for _ in 0..objects {
        let (_id, length) = (reader.u8()?, reader.u8()?);
        reader.take(usize::from(length))?;
    }
    Some(reader.is_empty())
}
