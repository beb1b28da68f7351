//! What the inspector ended or let pass unread of late because it had no room: for health, which is degraded by it.

use std::time::Duration;

use super::Holder;
use crate::inspector::session::ConnectionEnd;

/// A shortage is over when nothing happened for so long.
const LATELY: Duration = Duration::from_secs(300);

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::inspector) enum SeatFate {
    /// It was reset as it came.
    Reset,
    /// It was ended, for its seat was another's.
    Ended,
    /// It was ended for the bytes that it held.
    Heavy,
    /// It is carried unread.
    Unread,
}

impl SeatFate {
    /// What is reported of a connection that ends so.
    pub(in crate::inspector) fn of(end: ConnectionEnd) -> Self {
        match end {
            ConnectionEnd::Heavy => Self::Heavy,
            _ => Self::Ended,
        }
    }
}

/// How much, since it began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::inspector) struct Shortage {
    reset: u64,
    ended: u64,
    heavy: u64,
    unread: u64,
    last: Option<Duration>,
    /// Who held the most seats then, and how many.
    pub(in crate::inspector) most: Option<(Holder, usize)>,
    /// Whose connections were ended last for what they held.
    pub(in crate::inspector) heaviest: Option<Holder>,
}

impl Shortage {
    /// Counts one.
    pub(in crate::inspector) fn note(
        &mut self,
        whose: &Holder,
        fate: SeatFate,
        most: Option<(Holder, usize)>,
        now: Duration,
    ) {
        if self.lately(now).is_none() {
            *self = Self::default();
        }
        self.last = Some(now);
        match fate {
            SeatFate::Reset => self.reset += 1,
            SeatFate::Ended => self.ended += 1,
            SeatFate::Heavy => self.heavy += 1,
            SeatFate::Unread => self.unread += 1,
        }
        match fate {
            SeatFate::Heavy => self.heaviest = Some(*whose),
            _ => self.most = most.or(self.most),
        }
    }

    /// One that was counted as ended goes on after all.
    pub(in crate::inspector) fn spared(&mut self, fate: SeatFate) {
        let count = match fate {
            SeatFate::Heavy => &mut self.heavy,
            _ => &mut self.ended,
        };
        *count = count.saturating_sub(1);
    }

    /// What there was, unless it is over.
    pub(in crate::inspector) fn lately(&self, now: Duration) -> Option<Self> {
        let last = self.last?;
        (now.saturating_sub(last) < LATELY).then(|| self.clone())
    }

    /// In words, with names for holders.
    pub(in crate::inspector) fn words(&self, name: impl Fn(&Holder) -> String) -> String {
        let mut words = Vec::new();
        let because = |most: &Option<(Holder, usize)>| {
            most.as_ref().map_or_else(String::new, |(holder, count)| {
                format!("; {} held the most, {count}", name(holder))
            })
        };
        if self.reset + self.ended > 0 {
            words.push(format!(
                "{} declared connections were reset in the last minutes because all seats of the inspector are taken, {} of them \
                 idle ones or of whoever held the most{}: end what holds them, or raise inspect.connections_max in agent.toml",
                self.reset + self.ended,
                self.ended,
                because(&self.most)
            ));
        }
        if self.unread > 0 {
            words.push(format!(
                "{} connections pass unread because the inspector has no room for them (inspect.connections_max and \
                 inspect.held_bytes_max in agent.toml){}",
                self.unread,
                because(&self.most)
            ));
        }
        if self.heavy > 0 {
            let whose = self
                .heaviest
                .as_ref()
                .map_or_else(String::new, |holder| format!(", the last of {}", name(holder)));
            words.push(format!(
                "{} connections were reset in the last minutes because they held the most of what the inspector may hold of \
                 unfinished packets{whose}: end what sends them, or raise inspect.held_bytes_max in agent.toml",
                self.heavy
            ));
        }
        words.join("; ")
    }
}
