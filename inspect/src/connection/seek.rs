//! Which sides of a stream that was lost or is met midway are not read yet. A side is read from the next segment on whose first bytes
//! read strictly as a packet of its protocol ([`super::machine::Machine::begins`]). Segments are where senders begin packets, so that is where the search looks.
//!
//! Only what observes seeks. The place is a guess, a good one, on which nothing is ever enforced.

use super::Sender;

/// Bytes skipped so far of each side whose next packet is looked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seeking([Option<u64>; 2]);

fn place(from: Sender) -> usize {
    match from {
        Sender::Client => 0,
        Sender::Server => 1,
    }
}

impl Seeking {
    /// How many bytes of a side were skipped, if its next packet is looked for.
    pub(super) fn of(&self, from: Sender) -> Option<u64> {
        self.0.get(place(from)).copied().flatten()
    }

    pub(super) fn begin(&mut self, from: Sender) {
        if let Some(side) = self.0.get_mut(place(from)) {
            side.get_or_insert(0);
        }
    }

    pub(super) fn skip(&mut self, from: Sender, bytes: usize) {
        if let Some(Some(skipped)) = self.0.get_mut(place(from)) {
            *skipped = skipped.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }

    /// A side's packet was found, or is looked for no more.
    pub(super) fn end(&mut self, from: Sender) -> Option<u64> {
        self.0.get_mut(place(from)).and_then(Option::take)
    }
}
