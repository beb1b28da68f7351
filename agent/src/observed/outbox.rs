//! The way out for what was observed, straight to the trail: bounded, never waits, and counts what finds no room.
//!
//! What the trail's queue has no room for waits here; what is beyond is counted, and reported as a loss as soon as there is
//! room. What was handed on stays [pending](Outbox::pending) until it is durable: nothing is marked as reported before.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::sides::SideCounts;
use super::{LossCause, Observation};

/// What waits for a trail that is slow: as many verdicts as the kernel's events follow at once.
pub(crate) const WAITING_MAX: usize = 8192;
/// Drift reports that wait on top of that.
const DRIFTS_MAX: usize = 64;
/// What was handed on is told apart in so many pieces until it is durable; further ones count with the last.
const HANDED_MAX: usize = 1024;

/// Where observations go: the trail; in tests a channel.
pub trait Sink: fmt::Debug + Send + Sync + 'static {
    /// Takes what was observed, and numbers it; `None`: there is no room now.
    fn offer(&self, observed: &Observation) -> Option<u64>;

    /// All that was taken up to this number is durable, or its loss is.
    fn settled(&self) -> u64;
}

impl Sink for mpsc::Sender<Observation> {
    fn offer(&self, observed: &Observation) -> Option<u64> {
        self.try_reserve().ok()?.send(observed.clone());
        Some(0)
    }

    fn settled(&self) -> u64 {
        0
    }
}

#[derive(Debug)]
pub(crate) struct Outbox {
    sink: Box<dyn Sink>,
    backlog: Mutex<Backlog>,
    /// What was refused on each side, also where the trail has no room for it.
    pub(crate) sides: SideCounts,
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<Observation>,
    /// What found no room here either, and of it what the kernel had counted.
    lost: u64,
    lost_of_kernel: KernelPackets,
    handed: Handed,
}

impl Outbox {
    pub(crate) fn new(sink: impl Sink) -> Self {
        Self {
            sink: Box::new(sink),
            backlog: Mutex::default(),
            sides: SideCounts::default(),
        }
    }

    /// Hands `observed` on, or keeps it until there is room. What finds no room here either is counted.
    pub(crate) fn put(&self, observed: Observation) {
        self.sides.count(&observed);
        let mut backlog = self.lock();
        // What waits goes first.
        if backlog.waiting.is_empty() && self.hand_on(&mut backlog, &observed, KernelPackets::of(&observed)) {
            return;
        }
        let (room, counts) = weight(&observed);
        if backlog.waiting.len() < room {
            backlog.waiting.push_back(observed);
        } else {
            backlog.lost = backlog.lost.saturating_add(counts);
            backlog.lost_of_kernel = backlog.lost_of_kernel.and(KernelPackets::of(&observed));
        }
    }

    /// Tries again with what waits.
    pub(crate) fn flush(&self) {
        let mut backlog = self.lock();
        while let Some(observed) = backlog.waiting.pop_front() {
            if !self.hand_on(&mut backlog, &observed, KernelPackets::of(&observed)) {
                backlog.waiting.push_front(observed);
                return;
            }
        }
        if backlog.lost > 0 {
            let lost = Observation::Lost {
                packets: backlog.lost,
                cause: LossCause::ReceiverSlow,
            };
            let of_kernel = backlog.lost_of_kernel;
            if self.hand_on(&mut backlog, &lost, of_kernel) {
                (backlog.lost, backlog.lost_of_kernel) = (0, KernelPackets::default());
            }
        }
    }

    /// How many packets that the kernel logged wait here, were counted as lost and not reported yet, or are on their way to the
    /// disk.
    pub(crate) fn pending(&self) -> u64 {
        self.pending_of_kernel().logged
    }

    /// The same of packets that the kernel's limit left out of its log.
    pub(crate) fn pending_left_out(&self) -> u64 {
        self.pending_of_kernel().left_out
    }

    fn pending_of_kernel(&self) -> KernelPackets {
        let mut backlog = self.lock();
        let handed = backlog.handed.packets(self.sink.settled());
        let waiting = backlog.waiting.iter().map(KernelPackets::of);
        waiting.fold(backlog.lost_of_kernel.and(handed), KernelPackets::and)
    }

    fn hand_on(&self, backlog: &mut Backlog, observed: &Observation, packets: KernelPackets) -> bool {
        let Some(number) = self.sink.offer(observed) else {
            return false;
        };
        backlog.handed.push(number, packets, self.sink.settled());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was handed on and is not durable yet: number and packets.
#[derive(Debug, Default)]
struct Handed(VecDeque<(u64, KernelPackets)>);

impl Handed {
    fn push(&mut self, number: u64, packets: KernelPackets, settled: u64) {
        self.settle(settled);
        if packets == KernelPackets::default() || number <= settled {
            return;
        }
        let full = self.0.len() >= HANDED_MAX;
        match self.0.back_mut() {
            Some(last) if full => *last = (number, last.1.and(packets)),
            _ => self.0.push_back((number, packets)),
        }
    }

    fn packets(&mut self, settled: u64) -> KernelPackets {
        self.settle(settled);
        let packets = self.0.iter().map(|(_, packets)| *packets);
        packets.fold(KernelPackets::default(), KernelPackets::and)
    }

    fn settle(&mut self, settled: u64) {
        while self.0.pop_front_if(|(number, _)| *number <= settled).is_some() {}
    }
}

/// Up to how many of its like may wait, and what it counts where it is lost.
fn weight(observed: &Observation) -> (usize, u64) {
    match observed {
        Observation::Verdict(verdict) => (WAITING_MAX, verdict.count),
        Observation::Operation(seen) => (WAITING_MAX, seen.count),
        Observation::Lost { packets, .. } => (WAITING_MAX, *packets),
        // The oldest reports tell when it began.
        Observation::Drift { .. } | Observation::Condition(_) | Observation::Start { .. } => {
            (WAITING_MAX + DRIFTS_MAX, 1)
        }
    }
}

/// Packets that the kernel counted, and that a report is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct KernelPackets {
    /// Those that it logged.
    logged: u64,
    /// Those that its limit left out of the log.
    left_out: u64,
}

impl KernelPackets {
    /// Those that this reports.
    fn of(observed: &Observation) -> Self {
        match observed {
            Observation::Lost {
                packets,
                cause: LossCause::RateLimit,
            } => Self {
                logged: 0,
                left_out: *packets,
            },
            other => Self {
                logged: logged(other),
                left_out: 0,
            },
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            logged: self.logged.saturating_add(other.logged),
            left_out: self.left_out.saturating_add(other.left_out),
        }
    }
}

/// How many packets that the kernel logged it reports. Those that the kernel's limit left out were never logged.
fn logged(observed: &Observation) -> u64 {
    match observed {
        Observation::Verdict(verdict) => verdict.count,
        Observation::Lost {
            cause: LossCause::RateLimit,
            ..
        } => 0,
        Observation::Lost { packets, .. } => *packets,
        Observation::Operation(_)
        | Observation::Drift { .. }
        | Observation::Condition(_)
        | Observation::Start { .. } => 0,
    }
}

#[cfg(test)]
mod tests;
