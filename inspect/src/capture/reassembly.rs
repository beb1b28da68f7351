//! One direction of one TCP connection, put in order from what a capture holds.
//!
//! Segments arrive doubled, late, overlapping and not at all. Each byte is handed on once, in order. A second
//! copy of a byte that differs from the first is a conflict: two readers could have seen two things, and that is
//! told. A byte that the peer acknowledged but the capture never held is a gap.

use std::collections::BTreeMap;

/// What comes out, in stream order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next bytes.
    Data(&'a [u8]),
    /// So many bytes are not in the capture.
    Gap(u64),
    /// A retransmission brought other bytes for the same place: so many differ.
    Conflict(usize),
}

/// Pieces that wait for earlier ones, at most: each takes room beside its bytes.
const PIECES_MAX: usize = 4_096;
/// A piece that follows another becomes part of it up to so many bytes.
const PIECE_BYTES_MAX: usize = 65_536;

/// Bounds of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReassemblyLimits {
    /// Bytes that wait for earlier ones. Above it, what is missing counts as a gap.
    pub waiting_bytes_max: usize,
    /// Bytes remembered after they were handed on, to compare retransmissions with.
    pub remembered_bytes_max: usize,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        Self {
            waiting_bytes_max: 1 << 20,
            remembered_bytes_max: 1 << 16,
        }
    }
}

/// One direction.
#[derive(Debug)]
pub struct Stream {
    limits: ReassemblyLimits,
    /// Sequence number of stream position 0; `None` before the first segment.
    origin: Option<u32>,
    /// Position of the next byte to hand on.
    next: u64,
    /// The last bytes handed on, ending at `next`; cleared by a gap.
    remembered: Vec<u8>,
    /// Later bytes by position; no two pieces overlap.
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_bytes: usize,
}

impl Stream {
    /// Nothing seen yet.
    pub fn new(limits: ReassemblyLimits) -> Self {
        Self {
            limits,
            origin: None,
            next: 0,
            remembered: Vec::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
        }
    }

    /// Whether a segment of this direction was seen.
    pub fn has_begun(&self) -> bool {
        self.origin.is_some()
    }

    /// The first byte will have this sequence number.
    pub fn begin(&mut self, sequence: u32) {
        self.origin.get_or_insert(sequence);
    }

    /// Takes a segment's payload.
    pub fn segment(&mut self, sequence: u32, payload: &[u8], out: &mut dyn FnMut(Piece<'_>)) {
        if payload.is_empty() {
            return;
        }
        self.begin(sequence);
        let Some(position) = self.position(sequence) else {
            return;
        };
        let end = position + length(payload);
        // A keep-alive probe repeats the last byte's place with any byte at all (RFC 1122, 4.2.3.6).
        if payload.len() == 1 && end == self.next {
            return;
        }
        self.compare(position, payload, out);
        if end <= self.next {
            return;
        }
        if position > self.next {
            self.wait(position, payload, out);
            return;
        }
        let skip = usize::try_from(self.next - position).unwrap_or(usize::MAX);
        self.hand_on(payload.get(skip..).unwrap_or_default(), out);
        self.follow(out);
    }

    /// The peer acknowledged everything before `sequence`: what of it the capture does not hold is lost.
    pub fn acknowledged(&mut self, sequence: u32, out: &mut dyn FnMut(Piece<'_>)) {
        let Some(position) = self.position(sequence) else {
            return;
        };
        while position > self.next {
            let Some((&first, _)) = self.waiting.first_key_value() else {
                return;
            };
            if first >= position {
                return;
            }
            self.gap_until(first, out);
            self.follow(out);
        }
    }

    /// `missing` bytes after the last handed on were on the wire but not kept.
    pub fn lost(&mut self, sequence: u32, missing: usize, out: &mut dyn FnMut(Piece<'_>)) {
        let Some(position) = self.position(sequence) else {
            return;
        };
        let end = position + u64::try_from(missing).unwrap_or(u64::MAX);
        if position <= self.next && end > self.next {
            self.gap_until(end, out);
            self.follow(out);
        }
    }

    /// The connection is over: what waits is handed on after its gaps.
    pub fn finish(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        while let Some((&first, _)) = self.waiting.first_key_value() {
            self.gap_until(first, out);
            self.follow(out);
        }
    }

    /// Bytes held.
    pub fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.remembered.len()
    }

    /// Where in the stream a sequence number lies, near the next byte; `None` if it lies before the stream.
    fn position(&self, sequence: u32) -> Option<u64> {
        let origin = self.origin?;
        let low = u32::try_from(self.next & 0xffff_ffff).unwrap_or(0);
        // Sequence numbers wrap: the signed distance from the next byte tells which lap is meant.
        let distance = sequence.wrapping_sub(origin.wrapping_add(low));
        let distance = i64::from(i32::from_ne_bytes(distance.to_ne_bytes()));
        self.next.checked_add_signed(distance)
    }

    fn hand_on(&mut self, bytes: &[u8], out: &mut dyn FnMut(Piece<'_>)) {
        out(Piece::Data(bytes));
        self.next += length(bytes);
        self.remembered.extend_from_slice(bytes);
        let excess = self
            .remembered
            .len()
            .saturating_sub(self.limits.remembered_bytes_max);
        if excess >= self.limits.remembered_bytes_max / 2 {
            self.remembered.drain(..excess);
        }
    }

    fn gap_until(&mut self, position: u64, out: &mut dyn FnMut(Piece<'_>)) {
        if position > self.next {
            out(Piece::Gap(position - self.next));
            self.next = position;
            self.remembered.clear();
        }
    }

    fn follow(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() > self.next {
                return;
            }
            let (position, bytes) = entry.remove_entry();
            self.waiting_bytes -= bytes.len();
            let skip = usize::try_from(self.next - position).unwrap_or(usize::MAX);
            if let Some(new) = bytes.get(skip..).filter(|new| !new.is_empty()) {
                self.hand_on(new, out);
            }
        }
    }

    /// Keeps what is later than the next byte; where it overlaps what waits already, that counts.
    fn wait(&mut self, position: u64, payload: &[u8], out: &mut dyn FnMut(Piece<'_>)) {
        let (mut at, mut rest) = (position, payload);
        while !rest.is_empty() {
            let next = self.waiting.range(at..).next().map(|(next, _)| *next);
            let before = self.waiting.range_mut(..=at).next_back();
            let before = before.map(|(from, piece)| (from + length(piece), piece));
            let (end, skips) = match &before {
                Some((end, _)) if *end > at => (*end, true),
                _ => (next.unwrap_or(u64::MAX), false),
            };
            let count = usize::try_from(end.saturating_sub(at))
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (now, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            if !skips {
                self.waiting_bytes += now.len();
                match before {
                    Some((end, piece)) if end == at && piece.len() < PIECE_BYTES_MAX => {
                        piece.extend_from_slice(now);
                    }
                    _ => {
                        self.waiting.insert(at, now.to_vec());
                    }
                }
            }
            at += length(now);
            rest = after;
        }
        while self.waiting_bytes > self.limits.waiting_bytes_max || self.waiting.len() > PIECES_MAX {
            let Some((&first, _)) = self.waiting.first_key_value() else {
                return;
            };
            self.gap_until(first, out);
            self.follow(out);
        }
    }

    /// Compares with what was handed on or waits already.
    fn compare(&self, position: u64, payload: &[u8], out: &mut dyn FnMut(Piece<'_>)) {
        let remembered_at = self.next - length(&self.remembered);
        let mut differing = differing(remembered_at, &self.remembered, position, payload);
        let end = position + length(payload);
        let before = self.waiting.range(..position).next_back();
        for (at, bytes) in before.into_iter().chain(self.waiting.range(position..end)) {
            differing += self::differing(*at, bytes, position, payload);
        }
        if differing > 0 {
            out(Piece::Conflict(differing));
        }
    }

    /// Forgets what was handed on: a retransmission is not compared with it.
    pub fn forget(&mut self) {
        self.remembered = Vec::new();
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// How many bytes differ where two pieces overlap.
fn differing(one_at: u64, one: &[u8], other_at: u64, other: &[u8]) -> usize {
    let from = one_at.max(other_at);
    let skip =
        |at: u64, bytes: &[u8]| usize::try_from(from - at).map_or(bytes.len(), |skip| skip.min(bytes.len()));
    let (one, other) = (one.get(skip(one_at, one)..), other.get(skip(other_at, other)..));
    one.unwrap_or_default()
        .iter()
        .zip(other.unwrap_or_default())
        .filter(|(one, other)| one != other)
        .count()
}
