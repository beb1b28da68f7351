//! What a client asks for: every public function decoded strictly (V1.1b3, section 6).
//!
//! The PDU must have exactly the length that its function, quantities and byte counts say; zero quantities,
//! quantities above the standard's, spans past address 65535 and reserved fields are errors. Codes that no
//! standard defines are taken whole, as opaque: only their code and unit can be judged.

mod data;

use std::fmt;

use self::data::next_record;
pub use self::data::{FileRecord, Files, Values, least_mask_result};
use super::operation::{self, ADDRESSES, READ_ADDRESSES, Span, function_name};
use crate::bytes::Reader;
use crate::judge::Reason;
use crate::operation::{Operation, SUB_FUNCTIONS, VALUES};

/// The function that has sub-functions.
const DIAGNOSTICS: u8 = 8;

/// A decoded request; borrows what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Unit identifier.
    pub unit: u8,
    /// Function code, 1–127.
    pub code: u8,
    /// Sub-function (diagnostics) or MEI type.
    pub sub_function: Option<u16>,
    /// Data addresses it reads.
    pub read: Option<Span>,
    /// Data addresses it writes.
    pub write: Option<Span>,
    /// What it writes.
    pub values: Values<'a>,
    /// Sub-requests of a file function, already checked.
    pub files: Files<'a>,
}

/// Why a PDU is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// A response's or no function's code.
    Code(u8),
    /// A type of encapsulated interface that the standard reserves.
    Interface(u8),
    /// Shorter or longer than the function says.
    Length {
        /// Function code.
        code: u8,
        /// PDU bytes that were sent.
        bytes: usize,
    },
    /// Zero, or more than the function can carry, or not what the byte count says.
    Quantity {
        /// Function code.
        code: u8,
        /// Quantity or byte count as sent.
        quantity: u16,
    },
    /// The last address would be above 65535 (a file's record: above 9999).
    Address {
        /// Function code.
        code: u8,
        /// First address as sent.
        first: u16,
    },
    /// A field has a value that the standard does not give it.
    Reserved {
        /// Function code.
        code: u8,
        /// The field as sent.
        value: u16,
    },
}

impl RequestError {
    /// It in words, with the exception code that answers it (section 7): 1 illegal function, 2 illegal address, 3 illegal value.
    pub fn reason(self) -> Reason {
        match self {
            Self::Code(code) => {
                let text = "{} is not a request's function code";
                Reason::about(text, [code.into(), 0], 1)
            }
            Self::Interface(kind) => {
                let text = "encapsulated interface type {} is reserved";
                Reason::about(text, [kind.into(), 0], 1)
            }
            Self::Length { code, bytes } => {
                let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                let text = "function {} does not have {} bytes here";
                Reason::about(text, [code.into(), bytes], 3)
            }
            Self::Quantity { code, quantity } => {
                let text = "function {} cannot have quantity {}";
                Reason::about(text, [code.into(), quantity.into()], 3)
            }
            Self::Address { code, first } => {
                let text = "function {} from address {} runs past the last address";
                Reason::about(text, [code.into(), first.into()], 2)
            }
            Self::Reserved { code, value } => {
                let text = "function {} has {x} in a field where the standard has no such value";
                Reason::about(text, [code.into(), value.into()], 3)
            }
        }
    }

    /// The exception code that answers it.
    pub fn exception(self) -> u8 {
        self.reason().code()
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason().fmt(f)
    }
}

impl std::error::Error for RequestError {}

impl<'a> Request<'a> {
    /// Decodes the PDU of a request to `unit`.
    ///
    /// # Errors
    /// The PDU is not a request in the form that its function has.
    pub fn decode(unit: u8, pdu: &'a [u8]) -> Result<Self, RequestError> {
        let (&code, body) = pdu.split_first().ok_or(RequestError::Code(0))?;
        let fields = Fields {
            code,
            pdu_bytes: pdu.len(),
            reader: Reader::new(body),
        };
        let mut request = Request {
            unit,
            code,
            sub_function: None,
            read: None,
            write: None,
            values: Values::None,
            files: Files::NONE,
        };
        fields.fill(&mut request)?;
        Ok(request)
    }

    /// The request without its data, for events.
    pub fn operation(&self) -> Operation<'static> {
        let mut files: Option<Span> = None;
        let mut values = self.values.hull();
        for record in self.files.iter() {
            let file = Span {
                first: record.file,
                last: record.file,
            };
            files = Some(files.map_or(file, |files| files.hull(file)));
            if let Some(written) = Values::Registers(record.data).hull() {
                values = Some(values.map_or(written, |values| values.hull(written)));
            }
        }
        let (addresses, read_addresses) = match self.write {
            Some(write) => (Some(write), self.read),
            None => (self.read.or(files), None),
        };
        // That of the encapsulated interface is in its name.
        let sub_function = self.sub_function.filter(|_| self.code == DIAGNOSTICS);
        let sub_function = sub_function.map(|sub| Span {
            first: sub,
            last: sub,
        });
        Operation::new(
            operation::MODBUS_TCP,
            function_name(self.code, self.sub_function),
            [
                operation::units(self.unit),
                operation::fact(ADDRESSES, addresses),
                operation::fact(READ_ADDRESSES, read_addresses),
                operation::fact(VALUES, values),
                operation::fact(SUB_FUNCTIONS, sub_function),
            ],
        )
    }
}

/// The fields of one PDU while they are read.
struct Fields<'a> {
    code: u8,
    pdu_bytes: usize,
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    fn fill(mut self, request: &mut Request<'a>) -> Result<(), RequestError> {
        match self.code {
            1 | 2 => request.read = Some(self.span(2000)?),
            3 | 4 => request.read = Some(self.span(125)?),
            5 => {
                request.write = Some(self.single()?);
                request.values = Values::One(match self.word()? {
                    0xff00 => 1,
                    0x0000 => 0,
                    value => return Err(self.reserved(value)),
                });
            }
            6 => {
                request.write = Some(self.single()?);
                request.values = Values::One(self.word()?);
            }
            7 | 11 | 12 | 17 => {}
            8 => request.sub_function = Some(self.diagnostic()?),
            15 => {
                let span = self.span(1968)?;
                let count = self.counted(span)?;
                let bytes = self.byte_counted(usize::from(count).div_ceil(8))?;
                request.write = Some(span);
                request.values = Values::Coils(bytes, count);
            }
            16 => {
                let span = self.span(123)?;
                let count = self.counted(span)?;
                request.write = Some(span);
                request.values = Values::Registers(self.byte_counted(usize::from(count) * 2)?);
            }
            20 => request.files = self.files(false)?,
            21 => request.files = self.files(true)?,
            22 => {
                request.write = Some(self.single()?);
                request.values = Values::Mask {
                    and: self.word()?,
                    or: self.word()?,
                };
            }
            23 => {
                request.read = Some(self.span(125)?);
                let span = self.span(121)?;
                let count = self.counted(span)?;
                request.write = Some(span);
                request.values = Values::Registers(self.byte_counted(usize::from(count) * 2)?);
            }
            24 => request.read = Some(self.single()?),
            43 => request.sub_function = Some(self.interface()?),
            0 | 128.. => return Err(RequestError::Code(self.code)),
            // Reserved and user-defined: their data has no standard shape.
            _ => return Ok(()),
        }
        if self.reader.is_empty() {
            Ok(())
        } else {
            Err(self.length())
        }
    }

    fn length(&self) -> RequestError {
        RequestError::Length {
            code: self.code,
            bytes: self.pdu_bytes,
        }
    }

    fn reserved(&self, value: u16) -> RequestError {
        RequestError::Reserved {
            code: self.code,
            value,
        }
    }

    fn word(&mut self) -> Result<u16, RequestError> {
        self.reader.u16().ok_or(self.length())
    }

    fn byte(&mut self) -> Result<u8, RequestError> {
        self.reader.u8().ok_or(self.length())
    }

    fn single(&mut self) -> Result<Span, RequestError> {
        let first = self.word()?;
        Ok(Span { first, last: first })
    }

    fn span(&mut self, quantity_max: u16) -> Result<Span, RequestError> {
        let (first, quantity) = (self.word()?, self.word()?);
        if !(1..=quantity_max).contains(&quantity) {
            return Err(RequestError::Quantity {
                code: self.code,
                quantity,
            });
        }
        Span::of(first, quantity).ok_or(RequestError::Address {
            code: self.code,
            first,
        })
    }

    /// The quantity of a span that [`Self::span`] made: at most 2000.
    fn counted(&self, span: Span) -> Result<u16, RequestError> {
        u16::try_from(span.count()).map_err(|_| self.length())
    }

    fn byte_counted(&mut self, bytes: usize) -> Result<&'a [u8], RequestError> {
        let count = self.byte()?;
        if usize::from(count) != bytes {
            return Err(RequestError::Quantity {
                code: self.code,
                quantity: u16::from(count),
            });
        }
        self.reader.take(bytes).ok_or(self.length())
    }

    /// Section 6.8: the echo carries any words, everything else exactly one, mostly zero.
    fn diagnostic(&mut self) -> Result<u16, RequestError> {
        let sub_function = self.word()?;
        if sub_function == 0 {
            let data = self.reader.rest();
            if data.is_empty() || !data.len().is_multiple_of(2) {
                return Err(self.length());
            }
            self.reader.take(data.len());
            return Ok(sub_function);
        }
        let data = self.word()?;
        let fits = match sub_function {
            1 => matches!(data, 0x0000 | 0xff00),
            3 => data & 0x00ff == 0,
            2 | 4 | 10..=18 | 20 => data == 0,
            _ => true,
        };
        if fits {
            Ok(sub_function)
        } else {
            Err(self.reserved(data))
        }
    }

    /// Sections 6.19–6.21: CANopen carries its own protocol, identification a code and an object.
    fn interface(&mut self) -> Result<u16, RequestError> {
        let mei_type = self.byte()?;
        match mei_type {
            13 => {
                let data = self.reader.rest();
                if data.is_empty() {
                    return Err(self.length());
                }
                self.reader.take(data.len());
            }
            14 => {
                let code = self.byte()?;
                if !(1..=4).contains(&code) {
                    return Err(self.reserved(u16::from(code)));
                }
                self.byte()?;
            }
            other => return Err(RequestError::Interface(other)),
        }
        Ok(u16::from(mei_type))
    }

    /// Sections 6.14 and 6.15: reference type 6, files from 1, records 0–9999, and for a read an answer
    /// that fits a PDU.
    fn files(&mut self, with_data: bool) -> Result<Files<'a>, RequestError> {
        let code = self.code;
        let count = self.byte()?;
        let (least, greatest) = if with_data { (9, 251) } else { (7, 245) };
        if !(least..=greatest).contains(&count) {
            return Err(RequestError::Quantity {
                code,
                quantity: u16::from(count),
            });
        }
        let records = self.reader.take(usize::from(count)).ok_or(self.length())?;
        let mut reader = Reader::new(records);
        let mut answer_bytes = 2;
        while !reader.is_empty() {
            let reference_type = reader.rest().first().copied().unwrap_or(0);
            let record = next_record(&mut reader, with_data).ok_or(self.length())?;
            if reference_type != 6 {
                return Err(self.reserved(u16::from(reference_type)));
            }
            if record.file == 0 {
                return Err(self.reserved(0));
            }
            let last = u32::from(record.record) + u32::from(record.registers);
            if last > 10_000 {
                return Err(RequestError::Address {
                    code,
                    first: record.record,
                });
            }
            answer_bytes += 2 + usize::from(record.registers) * 2;
            if record.registers == 0 || (!with_data && answer_bytes > super::frame::PDU_BYTES_MAX) {
                return Err(RequestError::Quantity {
                    code,
                    quantity: record.registers,
                });
            }
        }
        Ok(Files::of(records, with_data))
    }
}
