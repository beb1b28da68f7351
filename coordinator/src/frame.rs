//! A message of the API as bytes on the wire: what goes to many is made once.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// A part of a message as it goes out, or why there are no more messages.
pub(crate) type Framed = Result<Bytes, tonic::Status>;

/// A message as it goes out: made once for all who get it.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(length.saturating_add(5));
    // Not compressed; the length.
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room, which is the only way in which it fails.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}
