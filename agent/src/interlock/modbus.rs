//! Reads one coil of a Modbus/TCP device: function 1 (MODBUS Application Protocol V1.1b3, 6.1), and nothing else ever.

use penstock_inspect::modbus::frame::{self, ADU_BYTES_MAX, FrameError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::jitter::random;

const READ_COILS: u8 = 1;
const EXCEPTION: u8 = 0x80;

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum ModbusError {
    /// The stream broke.
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    /// It ended.
    #[error("the connection ended before the answer was whole")]
    Ended,
    /// It is no Modbus.
    #[error("the answer cannot be read")]
    Frame(#[from] FrameError),
    /// It has the form of an answer, to something else.
    #[error("the answer is not one to this question: {0}")]
    Other(&'static str),
    /// The device says why not.
    #[error("the device answers with exception {code}, {words}", code = .0, words = exception_text(*.0))]
    Exception(u8),
}

/// What an exception means (V1.1b3, section 7).
fn exception_text(code: u8) -> &'static str {
    match code {
        1 => "illegal function: it has no coils to read",
        2 => "illegal data address: it has no such coil",
        3 => "illegal data value",
        4 => "its own failure",
        5 => "accepted, but not done",
        6 => "it is busy",
        10 => "the gateway to the unit has no way there",
        11 => "the unit behind the gateway does not answer",
        _ => "which the standard does not have",
    }
}

/// Whether the coil is on. Reads one answer, no more than an ADU's bytes; how long it takes is the caller's to bound.
pub(super) async fn read_coil(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    unit: u8,
    coil: u16,
) -> Result<bool, ModbusError> {
    let [high, low, ..] = random().to_be_bytes();
    let transaction = u16::from_be_bytes([high, low]);
    stream.write_all(&request(transaction, unit, coil)).await?;
    stream.flush().await?;
    let mut held = Vec::with_capacity(ADU_BYTES_MAX + 1);
    loop {
        if let Some(answer) = answer(&held, transaction, unit)? {
            return Ok(answer);
        }
        // An ADU is at most so long, and one that is not whole was complained of above or has room.
        let mut room = (&mut stream).take(u64::try_from(ADU_BYTES_MAX + 1 - held.len()).unwrap_or_default());
        if room.read_buf(&mut held).await? == 0 {
            return Err(ModbusError::Ended);
        }
    }
}

/// The ADU that asks for one coil.
fn request(transaction: u16, unit: u8, coil: u16) -> [u8; 12] {
    let [t1, t0] = transaction.to_be_bytes();
    let [c1, c0] = coil.to_be_bytes();
    [t1, t0, 0, 0, 0, 6, unit, READ_COILS, c1, c0, 0, 1]
}

/// The coil of what was read so far; `None`: it is not whole.
fn answer(held: &[u8], transaction: u16, unit: u8) -> Result<Option<bool>, ModbusError> {
    let Some(frame) = frame::next(held)? else {
        return Ok(None);
    };
    if frame.transaction != transaction {
        return Err(ModbusError::Other("it has another transaction identifier"));
    }
    if frame.unit != unit {
        return Err(ModbusError::Other("it is of another unit"));
    }
    if held.len() > frame.adu_bytes {
        return Err(ModbusError::Other("more than one answer came"));
    }
    match frame.pdu {
        // Of eight places one was asked for, and the others are 0.
        [READ_COILS, 1, 0] => Ok(Some(false)),
        [READ_COILS, 1, 1] => Ok(Some(true)),
        [code, exception] if *code == READ_COILS | EXCEPTION => Err(ModbusError::Exception(*exception)),
        _ => Err(ModbusError::Other("it is not the value of one coil")),
    }
}
