//! What one request is answered: functions 3 and 4 read, whatever else is refused. Pure (MODBUS Application Protocol V1.1b3).

use penstock_inspect::modbus::frame::Frame;

use super::registers::Image;

/// The longest answer: header, function, count, 125 registers.
pub(super) const ANSWER_BYTES_MAX: usize = 7 + 2 + 2 * COUNT_MAX as usize;

/// Holding registers and input registers are the same here.
const READ: [u8; 2] = [3, 4];
/// The most registers of one request.
const COUNT_MAX: u16 = 125;
/// Set in the function code of an exception.
const EXCEPTION: u8 = 0x80;
const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_ADDRESS: u8 = 2;
const ILLEGAL_VALUE: u8 = 3;

/// One answer, in a buffer that serves for all of a connection's.
#[derive(Debug)]
pub(super) struct Answer {
    bytes: [u8; ANSWER_BYTES_MAX],
    length: usize,
}

impl Answer {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; ANSWER_BYTES_MAX],
            length: 0,
        }
    }

    /// Writes the answer to `request` over the one before.
    pub(super) fn write(&mut self, request: &Frame<'_>, image: &Image) -> &[u8] {
        self.length = 0;
        self.put(&request.transaction.to_be_bytes());
        // Protocol 0; the length follows at the end.
        self.put(&[0, 0, 0, 0, request.unit]);
        match read(request.pdu, image) {
            Ok((function, registers)) => {
                // At most 250, by the greatest count.
                self.put(&[function, (2 * registers.len()) as u8]);
                for register in registers {
                    self.put(&register.to_be_bytes());
                }
            }
            Err((function, code)) => self.put(&[function | EXCEPTION, code]),
        }
        let length = u16::try_from(self.length - 6).unwrap_or(u16::MAX);
        for (place, byte) in self.bytes.iter_mut().skip(4).zip(length.to_be_bytes()) {
            *place = byte;
        }
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) {
        let places = self.bytes.iter_mut().skip(self.length);
        places.zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.length += bytes.len();
    }
}

/// The registers that a request asks for, or its exception; with its function.
fn read<'a>(pdu: &[u8], image: &'a Image) -> Result<(u8, &'a [u16]), (u8, u8)> {
    let (function, body) = pdu.split_first().unwrap_or((&0, &[]));
    if !READ.contains(function) {
        return Err((*function, ILLEGAL_FUNCTION));
    }
    let &[a, b, c, d] = body else {
        return Err((*function, ILLEGAL_VALUE));
    };
    let (first, count) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if !(1..=COUNT_MAX).contains(&count) {
        return Err((*function, ILLEGAL_VALUE));
    }
    let registers = image.read(first, count).ok_or((*function, ILLEGAL_ADDRESS))?;
    Ok((*function, registers))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use penstock_inspect::modbus::frame;
    use proptest::prelude::*;

    use super::super::registers::{MAGIC, REGISTERS};
    use super::*;

    fn answer(pdu: &[u8]) -> Vec<u8> {
        let length = u16::try_from(pdu.len() + 1).unwrap().to_be_bytes();
        let adu = [&[0x12, 0x34, 0, 0], &length[..], &[0x11], pdu].concat();
        let request = frame::next(&adu).unwrap().unwrap();
        let written = Answer::new().write(&request, &Image::unknown()).to_vec();
        assert_eq!(written[..4], [0x12, 0x34, 0, 0], "it is for this request");
        assert_eq!(written[6], 0x11);
        let whole = frame::next(&written).unwrap().unwrap();
        assert_eq!(whole.adu_bytes, written.len());
        whole.pdu.to_vec()
    }

    #[test]
    fn registers_are_read_by_both_functions_and_what_else_is_asked_is_an_exception() {
        let [high, low] = MAGIC.to_be_bytes();
        assert_eq!(answer(&[3, 0, 0, 0, 2]), [3, 4, high, low, 0, 1]);
        assert_eq!(answer(&[4, 0, 0, 0, 1]), [4, 2, high, low]);
        for (request, exception) in [
            (&[6, 0, 0, 0, 1][..], [0x86, 1]),
            (&[16, 0, 0, 0, 1, 2, 0, 7], [0x90, 1]),
            (&[5, 0, 0, 0xff, 0], [0x85, 1]),
            (&[1, 0, 0, 0, 1], [0x81, 1]),
            (&[43, 14, 1, 0], [0xab, 1]),
            (&[0x83, 2], [0x83, 1]),
            (&[3, 0x10, 0x68, 0, 1], [0x83, 2]),
            (&[3, 0x10, 0x67, 0, 2], [0x83, 2]),
            (&[4, 0xff, 0xff, 0, 125], [0x84, 2]),
            (&[3, 0, 0, 0, 0], [0x83, 3]),
            (&[3, 0, 0, 0, 126], [0x83, 3]),
            (&[3, 0, 0, 0], [0x83, 3]),
            (&[3, 0, 0, 0, 1, 0], [0x83, 3]),
        ] {
            assert_eq!(answer(request), exception, "{request:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_request_has_one_answer_that_is_its_registers_or_an_exception(
            function in prop_oneof![Just(3_u8), Just(4_u8), any::<u8>()],
            body in prop_oneof![prop::collection::vec(any::<u8>(), 0..252), prop::collection::vec(any::<u8>(), 4)],
        ) {
            let said = answer(&[&[function], &body[..]].concat());
            prop_assert!(said.len() + 7 <= ANSWER_BYTES_MAX);
            match said.split_first().unwrap() {
                (read, rest) if *read == function && READ.contains(&function) => {
                    let asked = body.chunks(2).map(|word| u16::from_be_bytes([word[0], word[1]]));
                    let asked: Vec<u16> = asked.collect();
                    prop_assert!(body.len() == 4 && u32::from(asked[0]) + u32::from(asked[1]) <= u32::from(REGISTERS));
                    prop_assert_eq!(usize::from(rest[0]), 2 * usize::from(asked[1]));
                    prop_assert_eq!(rest.len(), 1 + usize::from(rest[0]));
                }
                (refused, code) => {
                    prop_assert_eq!(*refused, function | EXCEPTION);
                    prop_assert!(matches!(code, [1..=3]));
                }
            }
        }
    }
}
