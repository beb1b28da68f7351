//! The connection of one session: in order and whole, as TCP is, but late, stuck, or broken with what is under way.
//!
//! What was under way when it breaks, or when one side goes, comes in part: so the coordinator may still read an old session while
//! the gateway has begun the next one.

use std::collections::VecDeque;
use std::time::Duration;

use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_message::Message as Up;

use super::chance::Chance;

/// Messages under way in each direction at most.
const ROOM: usize = 8;

/// What comes to the gateway.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are messages.
pub(crate) enum ToGateway {
    Message(Down),
    /// The coordinator ends the session, and asks to be left alone for so long.
    End(Option<Duration>),
}

#[derive(Debug, Default)]
pub(crate) struct Wire {
    up: VecDeque<(Duration, Up)>,
    down: VecDeque<(Duration, ToGateway)>,
    /// Nothing comes through.
    pub(crate) stalled: bool,
    /// When both sides take a stalled one for dead.
    pub(crate) breaks_at: Option<Duration>,
    pub(crate) broken: bool,
    pub(crate) gateway_left: bool,
    pub(crate) coordinator_left: bool,
}

impl Wire {
    pub(crate) fn has_room_up(&self) -> bool {
        self.up.len() < ROOM
    }

    pub(crate) fn has_room_down(&self) -> bool {
        self.down.len() < ROOM
    }

    pub(crate) fn send_up(&mut self, message: Up, now: Duration, chance: &mut Chance) {
        let last = self.up.back().map_or(now, |(due, _)| *due);
        self.up.push_back((last.max(now + latency(chance)), message));
    }

    pub(crate) fn send_down(&mut self, message: ToGateway, now: Duration, chance: &mut Chance) {
        let last = self.down.back().map_or(now, |(due, _)| *due);
        self.down.push_back((last.max(now + latency(chance)), message));
    }

    pub(crate) fn receive_up(&mut self, now: Duration) -> Option<Up> {
        let flows = !self.stalled && self.up.front().is_some_and(|(due, _)| *due <= now);
        flows
            .then(|| self.up.pop_front())
            .flatten()
            .map(|(_, message)| message)
    }

    pub(crate) fn receive_down(&mut self, now: Duration) -> Option<ToGateway> {
        let flows = !self.stalled && self.down.front().is_some_and(|(due, _)| *due <= now);
        flows
            .then(|| self.down.pop_front())
            .flatten()
            .map(|(_, message)| message)
    }

    /// Whether the coordinator has read all that will ever come.
    pub(crate) fn is_read_out(&self) -> bool {
        self.up.is_empty() && (self.gateway_left || self.broken)
    }

    pub(crate) fn next_up(&self) -> Option<Duration> {
        self.up.front().filter(|_| !self.stalled).map(|(due, _)| *due)
    }

    pub(crate) fn next_down(&self) -> Option<Duration> {
        self.down.front().filter(|_| !self.stalled).map(|(due, _)| *due)
    }

    /// It is no more; some of what was under way to the coordinator still comes.
    pub(crate) fn tear(&mut self, chance: &mut Chance) {
        let comes = chance.below(self.up.len() as u64 + 1) as usize;
        self.up.truncate(comes);
        self.down.clear();
        self.stalled = false;
        self.broken = true;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.gateway_left && self.coordinator_left
    }
}

fn latency(chance: &mut Chance) -> Duration {
    match chance.once_in(50) {
        true => Duration::from_millis(chance.below(3000)),
        false => Duration::from_millis(1 + chance.below(120)),
    }
}
