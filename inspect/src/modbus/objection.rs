//! What stands against a request that only Modbus knows; the code of each is the exception that answers it (V1.1b3, section 7).
//!
//! Not here: what the standard itself does not permit (`request`), and what waits (`transactions`).

use crate::judge::{Objection, Reason};

/// Rules name the function, for other units.
pub const UNIT: Objection = own("the unit is not permitted", 1);
/// The sub-function is not among those permitted.
pub const SUB_FUNCTION: Objection = own("the sub-function is not permitted", 1);
/// Addresses or files outside those permitted.
pub const ADDRESS: Objection = own("the addresses are not within those permitted", 2);
/// A value outside those permitted.
pub const VALUE: Objection = own("the value is not within those permitted", 3);
/// An echo of more than one word.
pub const ECHO: Objection = own(
    "servers do not agree on the length of an echo of more than one word",
    3,
);

/// Its data holds a write, of this function, for servers that do not go by the length in the header.
pub fn within(function: u8) -> Objection {
    const TEXT: &str = "a server that goes by the function would read its data as a request of function {}, which is not permitted";
    Objection::Own(Reason::about(TEXT, [function.into(), 0], 3))
}

const fn own(text: &'static str, exception: u8) -> Objection {
    Objection::Own(Reason::new(text, exception))
}
