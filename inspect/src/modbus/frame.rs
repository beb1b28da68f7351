//! The MBAP header and one ADU off a stream (MODBUS Messaging on TCP/IP V1.0b, section 3.1.3).
//!
//! ```text
//! transaction u16 | protocol u16 = 0 | length u16 = 2..=254 | unit u8 | PDU (length - 1 bytes)
//! ```
//!
//! Functions that no standard defines may be longer, up to [`OPAQUE_LENGTH_MAX`]: Schneider's 90 is (modicon_test.pcap
//! has a length of 255 from both sides, where the device announced 253 bytes of content; newer ones announce 1,021).
//! Servers that end at 260 bytes do not know such a function; nothing follows it unanswered (see `transactions`).
//!
//! A header that breaks these rules leaves no way to know where the next ADU begins: the connection ends.

use crate::bytes::Reader;

/// Bytes of transaction, protocol and length.
pub const PREFIX_BYTES: usize = 6;
/// The longest PDU of a function that the standard defines.
pub const PDU_BYTES_MAX: usize = 253;
/// The greatest length field of a function that the standard defines: unit and PDU.
const LENGTH_MAX: u16 = 254;
/// The greatest length field of any other function: unit, function code and 1,021 bytes.
pub const OPAQUE_LENGTH_MAX: u16 = 1023;
/// The longest ADU: prefix, and what the greatest length counts.
pub const ADU_BYTES_MAX: usize = PREFIX_BYTES + OPAQUE_LENGTH_MAX as usize;

/// One ADU, borrowed from the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Transaction identifier, chosen by the client and echoed by the server.
    pub transaction: u16,
    /// Unit identifier.
    pub unit: u8,
    /// Function code and data; 1–253 bytes, or 1–1,022 if the standard does not define the function.
    pub pdu: &'a [u8],
    /// The whole ADU.
    pub adu: &'a [u8],
    /// Its length in bytes.
    pub adu_bytes: usize,
}

/// A header after which the stream cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else than Modbus, or a header that was meant to be read as something else.
    #[error("the protocol identifier is {0}, Modbus has 0")]
    Protocol(u16),
    /// No PDU at all, or more than one can hold.
    #[error(
        "the MBAP length is {0}, it must be 2 to {LENGTH_MAX} ({OPAQUE_LENGTH_MAX} for functions outside the standard)"
    )]
    Length(u16),
}

/// The first ADU of `bytes`; `None` while it is not whole. A bad header is told as soon as its field is there.
///
/// ```
/// use penstock_inspect::modbus::frame;
///
/// // Transaction 1, protocol 0, length 6; the last byte has not come yet.
/// let bytes = [0, 1, 0, 0, 0, 6, 1, 3, 0, 40, 0, 2];
/// assert!(frame::next(&bytes[..11]).unwrap().is_none());
/// assert!(frame::next(&bytes).unwrap().is_some());
/// assert!(frame::next(&[0, 1, 0, 7]).is_err(), "not Modbus");
/// ```
///
/// # Errors
/// The header is not one of Modbus/TCP.
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
    if !(2..=OPAQUE_LENGTH_MAX).contains(&length) {
        return Err(FrameError::Length(length));
    }
    if length > LENGTH_MAX {
        match bytes.get(PREFIX_BYTES + 1) {
            None => return Ok(None),
            Some(code) if is_standard(code & 0x7f) => return Err(FrameError::Length(length)),
            Some(_) => {}
        }
    }
    let body_bytes = usize::from(length);
    let Some((&unit, pdu)) = reader.take(body_bytes).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    Ok(Some(Frame {
        transaction,
        unit,
        pdu,
        adu: bytes.get(..PREFIX_BYTES + body_bytes).unwrap_or(bytes),
        adu_bytes: PREFIX_BYTES + body_bytes,
    }))
}

/// Whether V1.1b3 defines the function, and so its greatest length.
fn is_standard(code: u8) -> bool {
    matches!(code, 1..=8 | 11 | 12 | 15..=17 | 20..=24 | 43)
}
