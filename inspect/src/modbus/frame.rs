//! The MBAP header and one ADU off a stream (MODBUS Messaging on TCP/IP V1.0b, section 3.1.3).
//!
//! ```text
//! transaction u16 | protocol u16 = 0 | length u16 = 2..=254 | unit u8 | PDU (length - 1 bytes)
//! ```
//!
//! A header that breaks these rules leaves no way to know where the next ADU begins: the connection ends.

use crate::bytes::Reader;

/// Bytes of transaction, protocol and length.
pub const PREFIX_BYTES: usize = 6;
/// The longest ADU: prefix, unit and a PDU of 253 bytes.
pub const ADU_BYTES_MAX: usize = 260;
/// The longest PDU.
pub const PDU_BYTES_MAX: usize = 253;

/// One ADU, borrowed from the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Transaction identifier, chosen by the client and echoed by the server.
    pub transaction: u16,
    /// Unit identifier.
    pub unit: u8,
    /// Function code and data; 1–253 bytes.
    pub pdu: &'a [u8],
    /// Length of the whole ADU in bytes.
    pub adu_bytes: usize,
}

/// A header after which the stream cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else than Modbus, or a header that was meant to be read as something else.
    #[error("the protocol identifier is {0}, Modbus has 0")]
    Protocol(u16),
    /// No PDU at all, or more than one can hold.
    #[error("the MBAP length is {0}, it must be 2 to 254")]
    Length(u16),
}

/// The first ADU of `bytes`; `None` while it is not whole. A bad header is told as soon as its field is there.
pub fn next(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let mut reader = Reader::new(bytes);
    let (Some(transaction), Some(protocol)) = (reader.u16(), reader.u16()) else {
        return Ok(None);
    };
    if protocol != 0 {
        return Err(FrameError::Protocol(protocol));
    }
    let Some(length) = reader.u16() else {
        return Ok(None);
    };
    if !(2..=254).contains(&length) {
        return Err(FrameError::Length(length));
    }
    let body_bytes = usize::from(length);
    let Some((&unit, pdu)) = reader.take(body_bytes).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    Ok(Some(Frame {
        transaction,
        unit,
        pdu,
        adu_bytes: PREFIX_BYTES + body_bytes,
    }))
}
