//! The way out for what was observed: bounded, never waits, and counts what finds no room.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::mpsc;

use super::{LossCause, Observed};

/// Drift reports that are kept for a receiver that is slow.
const KEPT_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Outbox {
    sender: mpsc::Sender<Observed>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    kept: VecDeque<Observed>,
    lost: u64,
}

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<Observed>) -> Self {
        Self {
            sender,
            waiting: Mutex::default(),
        }
    }

    /// Hands `observed` on. A verdict that finds no room is counted as lost, anything else waits its turn.
    pub(super) fn put(&self, observed: Observed) {
        let Err(mpsc::error::TrySendError::Full(observed)) = self.sender.try_send(observed) else {
            return;
        };
        let mut waiting = self
            .waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match observed {
            Observed::Verdict(verdict) => waiting.lost = waiting.lost.saturating_add(verdict.count),
            Observed::Operation(seen) => waiting.lost = waiting.lost.saturating_add(seen.count),
            Observed::Lost { packets, .. } => waiting.lost = waiting.lost.saturating_add(packets),
            drift if waiting.kept.len() < KEPT_MAX => waiting.kept.push_back(drift),
            // The oldest reports tell when it began; what comes on top of so many is counted.
            _ => waiting.lost = waiting.lost.saturating_add(1),
        }
    }

    /// Tries again with what waits.
    pub(super) fn flush(&self) {
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
            let lost = Observed::Lost {
                packets: waiting.lost,
                cause: LossCause::ReceiverSlow,
            };
            if self.sender.try_send(lost).is_ok() {
                waiting.lost = 0;
            }
        }
    }
}
