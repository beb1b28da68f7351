//! The way out for what was observed: bounded, never waits, and counts what finds no room.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::mpsc;

use super::{LossCause, Observation};

/// What waits for a receiver that is slow: as many verdicts as the kernel's events follow at once.
pub(crate) const WAITING_MAX: usize = 8192;
/// Drift reports that wait on top of that.
const DRIFTS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Outbox {
    sender: mpsc::Sender<Observation>,
    waiting: Mutex<Backlog>,
}

#[derive(Debug, Default)]
struct Backlog {
    kept: VecDeque<Observation>,
    lost: u64,
}

impl Outbox {
    pub(crate) fn new(sender: mpsc::Sender<Observation>) -> Self {
        Self {
            sender,
            waiting: Mutex::default(),
        }
    }

    /// Hands `observed` on, or keeps it until the receiver has room. What finds no room here either is counted.
    pub(crate) fn put(&self, observed: Observation) {
        let mut waiting = self
            .waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // What waits goes first.
        let observed = if waiting.kept.is_empty() {
            match self.sender.try_send(observed) {
                Err(mpsc::error::TrySendError::Full(observed)) => observed,
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        } else {
            observed
        };
        let (max, counts) = match &observed {
            Observation::Verdict(verdict) => (WAITING_MAX, verdict.count),
            Observation::Operation(seen) => (WAITING_MAX, seen.count),
            Observation::Lost { packets, .. } => (WAITING_MAX, *packets),
            // The oldest reports tell when it began.
            Observation::Drift { .. } | Observation::Condition(_) | Observation::Start { .. } => {
                (WAITING_MAX + DRIFTS_MAX, 1)
            }
        };
        if waiting.kept.len() < max {
            waiting.kept.push_back(observed);
        } else {
            waiting.lost = waiting.lost.saturating_add(counts);
        }
    }

    /// How many packets' verdicts wait here, or were counted as lost and not reported yet.
    pub(crate) fn pending(&self) -> u64 {
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = waiting.kept.iter().map(|observed| match observed {
            Observation::Verdict(verdict) => verdict.count,
            Observation::Lost { packets, .. } => *packets,
            Observation::Operation(_)
            | Observation::Drift { .. }
            | Observation::Condition(_)
            | Observation::Start { .. } => 0,
        });
        waiting.lost + kept.sum::<u64>()
    }

    /// Tries again with what waits.
    pub(crate) fn flush(&self) {
        let mut waiting = self
            .waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        while let Some(observed) = waiting.kept.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(observed)) = self.sender.try_send(observed) {
                waiting.kept.push_front(observed);
                return;
            }
        }
        if waiting.lost > 0 {
            let lost = Observation::Lost {
                packets: waiting.lost,
                cause: LossCause::ReceiverSlow,
            };
            if self.sender.try_send(lost).is_ok() {
                waiting.lost = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::DriftStep;
    use super::*;

    fn lost(packets: u64) -> Observation {
        let cause = LossCause::RateLimit;
        Observation::Lost { packets, cause }
    }

    #[test]
    fn what_finds_no_room_at_once_waits_its_turn_and_what_is_beyond_is_counted() {
        let (sender, mut receiver) = mpsc::channel(16);
        let outbox = Outbox::new(sender);
        for number in 0..16 + WAITING_MAX + 5 {
            outbox.put(lost(number as u64 + 1));
        }
        outbox.put(Observation::Drift {
            step: DriftStep::Found,
            message: String::new(),
            process: None,
        });
        let (mut came, mut counted, mut drifts) = (Vec::new(), 0, 0);
        while counted == 0 {
            while let Ok(observed) = receiver.try_recv() {
                match observed {
                    Observation::Lost {
                        packets,
                        cause: LossCause::ReceiverSlow,
                    } => counted += packets,
                    Observation::Lost { packets, .. } => came.push(packets),
                    _ => drifts += 1,
                }
            }
            outbox.flush();
        }
        let waited = 16 + WAITING_MAX as u64;
        assert_eq!(came, (1..=waited).collect::<Vec<_>>(), "in their order");
        assert_eq!(counted, (waited + 1..=waited + 5).sum::<u64>());
        assert_eq!(drifts, 1);
    }
}
