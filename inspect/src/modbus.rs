//! Modbus/TCP as the standard writes it, and nothing else (MODBUS Application Protocol V1.1b3, MODBUS
//! Messaging on TCP/IP V1.0b).
//!
//! - [`frame`]: MBAP header, one ADU off a stream.
//! - [`framings`]: how servers that go by the function cut the same bytes.
//! - [`request`]: what a client asks for, every length and quantity checked.
//! - [`response`]: whether an answer fits its request.
//! - [`transactions`]: which requests wait for an answer.
//! - [`operation`]: what a request does, in the field's words.
//! - [`judge`]: which rule permits it; `refusal`: what a refusal looks like on the wire.
//! - `machine`: one connection, from bytes to what becomes of them.
//!
//! Nothing is repaired or normalised: a request either has exactly the shape the standard gives it, or it is
//! an error that names the field. So what a destination executes is what was judged.

pub mod frame;
pub mod framings;
pub mod judge;
pub(crate) mod machine;
pub mod operation;
pub(crate) mod refusal;
pub mod request;
pub mod response;
pub mod transactions;

pub use frame::{Frame, FrameError};
pub use operation::{Operation, Span};
pub use request::{Request, RequestError};
