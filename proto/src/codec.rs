//! How messages become bytes on a stream: tonic's own codec for prost, with small buffers to begin with.
//!
//! Each call holds one for each direction as long as it lasts, and of ten thousand gateways each has one call that lasts for
//! months. A message that is larger makes its buffer grow.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// A buffer to begin with, bytes: a report of a gateway that is well fits.
const BUFFER_BYTES: usize = 512;
/// Messages that are ready go out together up to this, as by tonic's own settings.
const TOGETHER_BYTES: usize = 32 * 1024;

/// The codec of all services.
#[derive(Debug, Clone)]
pub struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, TOGETHER_BYTES)
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(settings())
    }
}
