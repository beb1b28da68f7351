//! Turns single log messages into few events: the same verdict on the same tuple is one event per interval. Pure.
//!
//! The first event of a tuple comes a second after its first packet (default), later ones at doubling distance up to ten
//! seconds. The table is bounded; where it is full, tuples of which nothing is left to tell make room, and what finds none
//! is counted, never dropped silently.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use super::nflog::LoggedPacket;
use crate::observed::outbox::WAITING_MAX;

/// The longest interval.
pub const INTERVAL_MAX: Duration = Duration::from_secs(10);
/// Tuples that are followed at once.
pub const TUPLES_MAX: usize = WAITING_MAX;

/// Packets with one verdict and tuple within one interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    /// What they have in common.
    pub packet: LoggedPacket,
    /// How many.
    pub count: u64,
    /// When the first was read.
    pub first: SystemTime,
    /// When the last was read.
    pub last: SystemTime,
}

#[derive(Debug)]
struct VerdictEntry {
    count: u64,
    first: SystemTime,
    last: SystemTime,
    interval: Duration,
    due: Instant,
}

/// The tuples that are followed.
#[derive(Debug)]
pub struct Aggregator {
    /// The first interval of a tuple.
    report_after: Duration,
    entries: HashMap<LoggedPacket, VerdictEntry>,
    overflow: u64,
    /// Of each entry something is left to tell.
    all_untold: bool,
}

impl Aggregator {
    /// Follows nothing yet. A tuple's first event comes `report_after` its first packet.
    pub fn new(report_after: Duration) -> Self {
        Self {
            report_after,
            entries: HashMap::new(),
            overflow: 0,
            all_untold: false,
        }
    }

    /// Counts one packet.
    pub fn record(&mut self, packet: LoggedPacket, now: Instant, clock: SystemTime) {
        if let Some(entry) = self.entries.get_mut(&packet) {
            if entry.count == 0 {
                entry.first = clock;
            }
            entry.count += 1;
            entry.last = clock;
            return;
        }
        if self.entries.len() >= TUPLES_MAX && !self.make_room() {
            self.overflow += 1;
            return;
        }
        let entry = VerdictEntry {
            count: 1,
            first: clock,
            last: clock,
            interval: self.report_after,
            due: now + self.report_after,
        };
        self.entries.insert(packet, entry);
    }

    /// Forgets the tuples of which everything was told; not again before more was.
    fn make_room(&mut self) -> bool {
        if self.all_untold {
            return false;
        }
        self.entries.retain(|_, entry| entry.count > 0);
        self.all_untold = true;
        self.entries.len() < TUPLES_MAX
    }

    /// What is due at `now`. Tuples that were silent for an interval are forgotten.
    pub fn due(&mut self, now: Instant) -> Vec<Aggregate> {
        let mut due = Vec::new();
        self.all_untold = false;
        self.entries.retain(|packet, entry| {
            if entry.due > now {
                return true;
            }
            if entry.count == 0 {
                return false;
            }
            due.push(take(packet, entry));
            entry.interval = (entry.interval * 2).min(INTERVAL_MAX);
            entry.due = now + entry.interval;
            true
        });
        due.sort_by_key(|aggregate| aggregate.first);
        due
    }

    /// Everything counted so far, due or not: the policy is about to change.
    pub fn all(&mut self) -> Vec<Aggregate> {
        let mut all: Vec<Aggregate> = self
            .entries
            .drain()
            .filter(|(_, entry)| entry.count > 0)
            .map(|(packet, mut entry)| take(&packet, &mut entry))
            .collect();
        all.sort_by_key(|aggregate| aggregate.first);
        all
    }

    /// How many packets are counted and not handed on yet.
    pub fn pending(&self) -> u64 {
        let counted: u64 = self.entries.values().map(|entry| entry.count).sum();
        counted + self.overflow
    }

    /// How many packets found no room since the last time this was asked.
    pub fn take_overflow(&mut self) -> u64 {
        std::mem::take(&mut self.overflow)
    }
}

fn take(packet: &LoggedPacket, entry: &mut VerdictEntry) -> Aggregate {
    let count = std::mem::take(&mut entry.count);
    Aggregate {
        packet: packet.clone(),
        count,
        first: entry.first,
        last: entry.last,
    }
}

#[cfg(test)]
mod tests;
