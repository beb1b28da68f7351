//! What a refusal looks like in Modbus: an exception, so that no client hangs.

use crate::judge::Objection;

/// The exception code for a refused request (V1.1b3, section 7).
pub(crate) fn exception_code(why: Objection) -> u8 {
    match why {
        Objection::Malformed(reason) | Objection::Busy(reason) | Objection::Own(reason) => reason.code(),
        Objection::Function | Objection::NotWithin(_) | Objection::Together => 1,
    }
}

/// The ADU that answers transaction, unit and function with an exception.
pub(crate) fn exception_adu(transaction: u16, unit: u8, code: u8, exception: u8) -> [u8; 9] {
    let [high, low] = transaction.to_be_bytes();
    [high, low, 0, 0, 0, 3, unit, code | 0x80, exception]
}
