//! Which operations the broker has answered, and which of them it refused: by who learns from traffic, what was refused is not
//! taken for needed. Nothing that is enforced rests on it.
//!
//! Bounded: of more than [`WAITING_MAX`] that wait the oldest are forgotten, and count as never refused.

use std::collections::VecDeque;

use crate::connection::{Output, Sink};
use crate::mqtt::packet::{Packet, kind};

/// Packets whose answer is waited for.
const WAITING_MAX: usize = 64;

/// What is asked of a broker and has not been answered.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    /// Operations judged so far.
    judged: u64,
    /// The number of the first of a packet's operations, how many it has, and what its answer will name: nothing names a CONNECT.
    waiting: VecDeque<(Option<u16>, u64, u64)>,
}

impl Unconfirmed {
    /// So many operations were judged, and are answered together under this identifier.
    pub(super) fn asked(&mut self, identifier: Option<u16>, count: u64) {
        // One that is sent again is answered once.
        self.waiting.retain(|(known, ..)| *known != identifier);
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((identifier, self.judged + 1, count));
        self.judged += count;
    }

    /// So many operations were judged that are not answered.
    pub(super) fn passed(&mut self, count: u64) {
        self.judged += count;
    }

    /// Takes a packet of the broker's, and tells what it answers.
    pub(super) fn answered(&mut self, packet: &Packet<'_>, out: &mut Sink<'_>) {
        match packet {
            Packet::ConnAck(answer) => self.tell(None, &[answer.code], out),
            Packet::Subscribed {
                kind: kind::SUBACK,
                identifier,
                codes,
                ..
            } => self.tell(Some(*identifier), codes, out),
            Packet::Acknowledge {
                kind: kind::PUBACK | kind::PUBREC,
                identifier,
                reason,
            } => self.tell(Some(*identifier), &[*reason], out),
            _ => {}
        }
    }

    /// `codes`: of each operation; the last also of those that have none of their own.
    fn tell(&mut self, identifier: Option<u16>, codes: &[u8], out: &mut Sink<'_>) {
        let of_it = |(known, ..): &(Option<u16>, u64, u64)| *known == identifier;
        let Some(at) = self.waiting.iter().position(of_it) else {
            return;
        };
        let Some((_, first, count)) = self.waiting.remove(at) else {
            return;
        };
        let codes = codes.iter().copied().chain(std::iter::repeat(codes.last().copied().unwrap_or(0)));
        for (number, code) in (first..first + count).zip(codes) {
            // CONNACK of 3.1.1 counts from 1, everything else from 0x80.
            let refused = code >= 0x80 || (identifier.is_none() && code > 0);
            out(Output::Answered {
                behind: self.judged.saturating_sub(number),
                refused,
            });
        }
    }
}
