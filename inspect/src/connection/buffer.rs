//! The beginning of a packet that is not whole yet, and how much of it the receiver has already.
//!
//! Enforcing, nothing of it has gone on. Observing, all of it has, since bytes pass before they are read. Between the
//! two, when the terms change within a packet, the part that has gone on is not sent again.

use super::{Sender, Sink, pass};

/// Room that stays for the beginning of the next packet, bytes.
const KEPT_MAX: usize = 256;

/// What is kept of one side.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct SideBuffer {
    pub(crate) bytes: Vec<u8>,
    /// How many of them have gone on; never more than there are.
    passed: usize,
}

impl SideBuffer {
    /// `bytes`, of which so many have gone on; `None` if that cannot be.
    pub(crate) fn of(bytes: Vec<u8>, passed: usize) -> Option<Self> {
        (passed <= bytes.len()).then_some(Self { bytes, passed })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    /// What it takes of memory, bytes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// Keeps nothing, and of a long packet's room no more than [`KEPT_MAX`].
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_MAX);
        self.passed = 0;
    }

    /// Only the first `count` bytes.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.bytes.truncate(count);
        self.passed = self.passed.min(self.bytes.len());
    }

    /// Everything kept has gone on.
    pub(crate) fn mark_passed(&mut self) {
        self.passed = self.bytes.len();
    }

    /// Sends on what has not gone on yet.
    pub(crate) fn let_go(&mut self, from: Sender, out: &mut Sink<'_>) {
        pass(from, self.bytes.get(self.passed..).unwrap_or_default(), out);
        self.mark_passed();
    }
}
