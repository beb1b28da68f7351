//! Which forwarded requests wait for an answer: bounded, matched by transaction identifier.
//!
//! Two requests in flight under one identifier could be answered the wrong way round without anybody seeing
//! it, so the second is refused. But a master that gave up waiting may use the identifier again (many use
//! always the same): after [`Limits::reuse_after`] the earlier one counts as abandoned. A late answer to it
//! then belongs to nothing and is withheld.

use std::time::Duration;

use super::response::Expectation;

/// Bounds of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight; the standard's servers take 1–16.
    pub outstanding_max: usize,
    /// After this long a request without an answer may be forgotten.
    pub reuse_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outstanding_max: 32,
            reuse_after: Duration::from_millis(250),
        }
    }
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
struct Outstanding {
    transaction: u16,
    unit: u8,
    expectation: Expectation,
    sent: Duration,
}

/// Why a request cannot be sent now; it is answered with exception 6, server device busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Its identifier is in flight.
    #[error("transaction {0} is still in flight")]
    Duplicate(u16),
    /// As many as the limit are in flight.
    #[error("{0} requests are in flight, which is the most that one connection may have")]
    Full(usize),
}

/// The requests in flight of one connection.
#[derive(Debug)]
pub struct Transactions {
    limits: Limits,
    in_flight: Vec<Outstanding>,
}

impl Transactions {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_flight: Vec::new(),
        }
    }

    /// Notes a request that is about to be forwarded.
    pub fn sent(
        &mut self,
        now: Duration,
        transaction: u16,
        unit: u8,
        expectation: Expectation,
    ) -> Result<(), Busy> {
        let stale = |entry: &Outstanding| now.saturating_sub(entry.sent) >= self.limits.reuse_after;
        if let Some(at) = self
            .in_flight
            .iter()
            .position(|entry| entry.transaction == transaction)
        {
            if !self.in_flight.get(at).is_some_and(stale) {
                return Err(Busy::Duplicate(transaction));
            }
            self.in_flight.remove(at);
        }
        if self.in_flight.len() >= self.limits.outstanding_max {
            let Some(at) = self.in_flight.iter().position(stale) else {
                return Err(Busy::Full(self.in_flight.len()));
            };
            self.in_flight.remove(at);
        }
        self.in_flight.push(Outstanding {
            transaction,
            unit,
            expectation,
            sent: now,
        });
        Ok(())
    }

    /// Takes the request that an answer belongs to: same identifier, same unit.
    pub fn answered(&mut self, transaction: u16, unit: u8) -> Option<Expectation> {
        let at = self
            .in_flight
            .iter()
            .position(|entry| entry.transaction == transaction && entry.unit == unit)?;
        Some(self.in_flight.remove(at).expectation)
    }

    /// How many are in flight.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether none is in flight.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }
}
