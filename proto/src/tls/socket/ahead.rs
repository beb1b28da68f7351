//! Reading ahead: the TLS library asks for 4 KiB at a time, a quarter of a record. Where the peer fills that, more of what it sent is read at
//! once and handed on from here; a stream that rests holds nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// What is read at once: two records.
const AHEAD_BYTES: usize = 32 * 1024;

/// What was read and not handed on yet.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Empty: nothing is read ahead.
    bytes: Box<[u8]>,
    /// Those of it that stand there and wait.
    waits: std::ops::Range<usize>,
    /// The last read filled what it was given, so that there may be more.
    is_filled: bool,
}

impl Ahead {
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Hands on what waits, or else reads.
    pub(super) fn poll_read(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.waits.is_empty() {
            if !self.is_filled || buffer.remaining() >= AHEAD_BYTES {
                return self.poll_directly(stream, cx, buffer);
            }
            if self.bytes.is_empty() {
                self.bytes = vec![0; AHEAD_BYTES].into_boxed_slice();
            }
            let mut all = ReadBuf::new(&mut self.bytes);
            let read = stream.poll_read(cx, &mut all);
            let count = all.filled().len();
            if !matches!(read, Poll::Ready(Ok(()))) || count == 0 {
                self.rest();
            }
            ready!(read)?;
            self.waits = 0..count;
        }
        let waits = self.bytes.get(self.waits.clone()).unwrap_or_default();
        let count = waits.len().min(buffer.remaining());
        buffer.put_slice(waits.get(..count).unwrap_or_default());
        self.waits.start += count;
        Poll::Ready(Ok(()))
    }

    fn poll_directly(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = stream.poll_read(cx, buffer);
        self.rest();
        self.is_filled = read.is_ready() && buffer.filled().len() > before && buffer.remaining() == 0;
        read
    }

    /// Nothing more comes for now.
    fn rest(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// What a peer sends: so many bytes at a time, and 0 where nothing is there yet.
    struct Arriving {
        next: u8,
        chunks: VecDeque<usize>,
        reads: usize,
    }

    impl AsyncRead for Arriving {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads += 1;
            let Some(there) = self.chunks.pop_front() else {
                return Poll::Ready(Ok(()));
            };
            if there == 0 {
                return Poll::Pending;
            }
            let count = there.min(buffer.remaining());
            if there > count {
                self.chunks.push_front(there - count);
            }
            for _ in 0..count {
                buffer.put_slice(&[self.next]);
                self.next = self.next.wrapping_add(1);
            }
            Poll::Ready(Ok(()))
        }
    }

    /// Reads to the end, so many bytes at a time; what came, and by how many reads of the stream.
    fn read(chunks: Vec<usize>, mut sizes: impl Iterator<Item = usize>) -> (Vec<u8>, usize) {
        let (mut ahead, mut came) = (Ahead::default(), Vec::new());
        let mut stream = Arriving {
            next: 0,
            chunks: chunks.into(),
            reads: 0,
        };
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut room = vec![0; sizes.next().unwrap_or(4096)];
            let mut buffer = ReadBuf::new(&mut room);
            match ahead.poll_read(Pin::new(&mut stream), &mut cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => break,
                Poll::Ready(Ok(())) => came.extend_from_slice(buffer.filled()),
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => assert_eq!(ahead.held_bytes(), 0, "a stream that rests holds nothing"),
            }
        }
        assert_eq!(ahead.held_bytes(), 0);
        (came, stream.reads)
    }

    proptest! {
        #[test]
        fn what_is_read_ahead_is_handed_on_whole_and_in_order(
            chunks in prop::collection::vec(prop_oneof![Just(0), 1_usize..100, 1_usize..100_000], 0..20),
            sizes in prop::collection::vec(prop_oneof![Just(4096), 1_usize..70_000], 1..20),
        ) {
            let sent: usize = chunks.iter().sum();
            let (came, _) = read(chunks, sizes.into_iter().cycle());
            prop_assert_eq!(came.len(), sent);
            prop_assert!(came.iter().zip((0..=255).cycle()).all(|(came, sent)| *came == sent));
        }
    }

    #[test]
    fn much_is_read_in_few_reads_and_little_in_one() {
        let (_, reads) = read(vec![1 << 20], std::iter::repeat(4096));
        assert!(reads < 40, "{reads}");
        let (_, reads) = read(vec![100, 0, 100, 0], std::iter::repeat(4096));
        assert_eq!(reads, 5);
    }
}
