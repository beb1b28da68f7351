//! The room that what was learned may take, and how an entry finds a place in it.

use std::collections::BTreeMap;

use super::entry::{EntryKey, EntrySeen, Failure};

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TalkLimits {
    /// Pairs of ends.
    pub talks_max: usize,
    /// Distinct things of one pair: operations, separate ranges, topics, names of clients.
    pub distinct_max: usize,
    /// Distinct things of all pairs together.
    pub things_max: usize,
    /// Bytes of one topic or name.
    pub text_bytes_max: usize,
    /// Bytes of all of them.
    pub texts_bytes_max: usize,
    /// Whether what is not proposed is kept too, for the list of it: what came to nothing, what is only inferred, and users.
    pub keeps_apart: bool,
}

impl Default for TalkLimits {
    fn default() -> Self {
        Self {
            talks_max: 65_536,
            distinct_max: 10_000,
            things_max: 1_000_000,
            text_bytes_max: 65_535,
            texts_bytes_max: 64 << 20,
            keeps_apart: true,
        }
    }
}

/// What is left of the limits.
pub(super) struct TalkRoom<'r> {
    pub(super) limits: TalkLimits,
    pub(super) things: &'r mut usize,
    pub(super) texts_bytes: &'r mut usize,
}

impl TalkRoom<'_> {
    /// Takes room for `things` more of a talk that has `distinct`, and for a text; whether there was.
    pub(super) fn take(&mut self, distinct: &mut usize, things: usize, text_bytes: usize) -> bool {
        let fits = *distinct + things <= self.limits.distinct_max
            && *self.things + things <= self.limits.things_max
            && text_bytes <= self.limits.text_bytes_max
            && *self.texts_bytes + text_bytes <= self.limits.texts_bytes_max;
        if fits {
            *distinct += things;
            *self.things += things;
            *self.texts_bytes += text_bytes;
        }
        fits
    }

    /// Gives back the room of `things` that have met.
    fn give(&mut self, distinct: &mut usize, things: usize) {
        *distinct = distinct.saturating_sub(things);
        *self.things = self.things.saturating_sub(things);
    }
}

/// What has a text or several, and a place among those of its kind.
pub(super) trait HasTexts: Ord {
    fn texts_bytes(&self) -> usize;
}

impl HasTexts for EntryKey {
    fn texts_bytes(&self) -> usize {
        EntryKey::texts_bytes(self)
    }
}

impl HasTexts for (Failure, EntryKey) {
    fn texts_bytes(&self) -> usize {
        self.1.texts_bytes()
    }
}

/// Adds what was seen of an entry; whether there was room.
pub(super) fn add_entry<K: HasTexts>(
    known: &mut BTreeMap<K, EntrySeen>,
    key: K,
    seen: &EntrySeen,
    (things, room): (&mut usize, &mut TalkRoom<'_>),
) -> bool {
    let (before, texts_before) = match known.get_mut(&key) {
        Some(known) if known.holds(seen) => {
            known.seen = known.seen.and(seen.seen);
            return true;
        }
        Some(known) => (known.things(), key.texts_bytes() + known.texts_bytes()),
        None => (0, 0),
    };
    let together = match known.get(&key) {
        Some(known) => known.and(seen),
        None => seen.in_order(),
    };
    let after = together.things();
    let text_bytes = (key.texts_bytes() + together.texts_bytes()).saturating_sub(texts_before);
    if !room.take(things, after.saturating_sub(before), text_bytes) {
        return false;
    }
    // Ranges that were separate have met.
    room.give(things, before.saturating_sub(after));
    known.insert(key, together.compact());
    true
}
