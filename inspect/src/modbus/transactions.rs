//! Which forwarded requests wait for an answer: bounded, matched by transaction identifier and unit.
//!
//! The standard wants a new identifier for each request in flight; real masters use one twice, and some use always the
//! same. Their servers answer in order, so requests of one identifier form a *line*:
//!
//! - A request of whose length servers may think otherwise ([`is_open_ended`]) stands alone: until it is answered nothing
//!   follows it, and if it is not answered within [`TransactionLimits::reuse_after`], nothing at all.
//! - An answer belongs to the first request of its line (and unit) that it fits; those before it were passed over.
//! - Servers without units behind them often answer under unit 0 or 255, or answer those under a unit of their own. If the
//!   line has one request and the answer fits it, it belongs to it: the transaction identifier alone tells which of
//!   the client's requests it answers, and which server answers is settled by the connection. With several requests in
//!   the line, which may be for several devices behind one address, the units must be equal.
//! - An answer whose transaction identifier (or other unit) nobody waits for may still fit the one request that waits
//!   ([`Kinship::Order`]). Whether that is enough the caller says. Never after a request that stands alone.
//! - The gateway's own refusal waits for its turn in the line. Told at once it would be taken for the answer to
//!   the request before it, and that one's answer for the refused one's.
//! - A request that had no answer for [`TransactionLimits::reuse_after`] when its identifier is used again was given up by its
//!   master, and is forgotten. A late answer to it then belongs to nothing, and is withheld.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::framings::is_open_ended;
use super::operation::Span;
use super::request::{Files, Request, Values};
use super::response::{Expectation, Response, ResponseError};
use crate::connection::TransactionLimits;
use crate::judge::Reason;

/// A request that its client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outstanding {
    pub(crate) transaction: u16,
    pub(crate) unit: u8,
    /// When it was sent, or when the one before it in its line was answered.
    pub(crate) since: Duration,
    pub(crate) awaits: Awaits,
    /// It was sent before a request of whose length servers may think otherwise: its answer says nothing of that one.
    pub(crate) earlier: bool,
    /// What it reads, to be judged again under other rules; `None`: it was not permitted when it was sent, and only
    /// observed.
    pub(crate) reads: Option<Reads>,
    /// Other rules no longer permit it: its answer is not the client's.
    pub(crate) revoked: bool,
    /// How many requests of the connection came before it; of one that another process has read it is 0.
    pub(crate) number: u64,
}

/// The addresses that a request reads, with its sub-function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reads {
    /// Sub-function or MEI type.
    pub sub_function: Option<u16>,
    /// Data addresses.
    pub span: Option<Span>,
}

impl Reads {
    /// Those of a request.
    pub(crate) fn of(request: &Request<'_>) -> Self {
        Self {
            sub_function: request.sub_function,
            span: request.read,
        }
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Awaits {
    /// The server's answer.
    Answer(Expectation),
    /// Its turn to be told that it was refused.
    Turn(RefusalAnswer),
}

/// A request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The request's transaction identifier.
    pub transaction: u16,
    /// The request's unit.
    pub unit: u8,
    /// What its answer must look like.
    pub expectation: Expectation,
    /// Whether it does.
    pub answer: Result<Response, ResponseError>,
    /// What the two have in common.
    pub kinship: Kinship,
}

/// By what an answer belongs to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// The transaction identifier and the unit, as far as it is one.
    Identifiers,
    /// Only that it follows this request, which waits alone.
    Order,
}

/// A refused request's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalAnswer {
    /// Function code.
    pub code: u8,
    /// Exception code.
    pub exception: u8,
}

/// Why a request cannot be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// As many as the limit are in flight.
    Full(usize),
    /// A request that stands alone is in flight.
    Alone(u8),
}

impl Busy {
    /// It in words; it is answered with exception 6, server device busy.
    pub fn reason(self) -> Reason {
        match self {
            Self::Full(limit) => {
                let limit = u32::try_from(limit).unwrap_or(u32::MAX);
                let text = "{} requests are in flight, the limit for one connection";
                Reason::about(text, [limit, 0], 6)
            }
            Self::Alone(code) => {
                let text = "function {} is in flight, after which nothing may follow until it is answered";
                Reason::about(text, [code.into(), 0], 6)
            }
        }
    }
}

/// Whether a unit identifier says that the server itself is meant, and no device behind it (V1.0b, section 4.4.2.2: 255, 0
/// is accepted too).
fn is_the_server_itself(unit: u8) -> bool {
    matches!(unit, 0 | 255)
}

/// Why nothing may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldUp {
    /// It has to wait.
    Busy(Busy),
    /// This function was not answered in time: nobody knows where its server reads on.
    Unanswered(u8),
}

/// More refusals wait for their turn than the limit: a client that sends on and on under one identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// The requests in flight of one connection, in the order in which they were sent.
#[derive(Debug)]
pub struct Transactions {
    limits: TransactionLimits,
    in_flight: Vec<Outstanding>,
    /// How many of them wait for their turn.
    refused: usize,
}

impl Transactions {
    /// None yet.
    pub fn new(limits: TransactionLimits) -> Self {
        Self {
            limits,
            in_flight: Vec::new(),
            refused: 0,
        }
    }

    /// Those that waited elsewhere, in their order, within the limits; `None` if requests cannot wait so.
    pub(crate) fn of(limits: TransactionLimits, in_flight: Vec<Outstanding>) -> Option<Self> {
        let before = |at: usize, entry: &Outstanding| {
            let mut earlier = in_flight.iter().take(at);
            earlier.any(|earlier| earlier.is_sent() && earlier.transaction == entry.transaction)
        };
        let could_be = |(at, entry): (usize, &Outstanding)| match entry.awaits {
            Awaits::Answer(expectation) => expectation.could_be(),
            Awaits::Turn(_) => before(at, entry),
        };
        if !in_flight.iter().enumerate().all(could_be) {
            return None;
        }
        let refused = in_flight.iter().filter(|entry| !entry.is_sent()).count();
        Some(Self {
            limits,
            in_flight,
            refused,
        })
    }

    /// Why nothing may be sent now, whatever it is.
    pub fn held_up(&self, now: Duration) -> Option<HeldUp> {
        self.in_flight.iter().find_map(|entry| match entry.awaits {
            Awaits::Answer(expectation) if is_open_ended(expectation.code()) => {
                let code = expectation.code();
                Some(if self.is_stale(now, entry) {
                    HeldUp::Unanswered(code)
                } else {
                    HeldUp::Busy(Busy::Alone(code))
                })
            }
            _ => None,
        })
    }

    /// Gives up what was not answered in time and stands alone.
    pub fn give_up(&mut self, now: Duration) {
        let reuse_after = self.limits.reuse_after;
        self.in_flight.retain(|entry| match entry.awaits {
            Awaits::Answer(expectation) => {
                !is_open_ended(expectation.code()) || now.saturating_sub(entry.since) < reuse_after
            }
            Awaits::Turn(_) => true,
        });
    }

    /// Notes a request that is about to be forwarded.
    ///
    /// # Errors
    /// As many requests are in flight as there may be, or one after which nothing may follow.
    pub fn sent(
        &mut self,
        now: Duration,
        transaction: u16,
        unit: u8,
        expectation: Expectation,
        reads: Option<Reads>,
    ) -> Result<(), Busy> {
        self.forget(now, transaction);
        if self.len() >= self.limits.outstanding_max {
            let given_up = |entry: &Outstanding| entry.is_sent() && self.is_stale(now, entry);
            let Some(at) = self.in_flight.iter().position(given_up) else {
                return Err(Busy::Full(self.len()));
            };
            self.in_flight.remove(at);
        }
        if is_open_ended(expectation.code()) {
            for before in &mut self.in_flight {
                before.earlier = true;
            }
        }
        self.in_flight.push(Outstanding {
            transaction,
            unit,
            since: now,
            awaits: Awaits::Answer(expectation),
            earlier: false,
            reads,
            revoked: false,
            number: 0,
        });
        Ok(())
    }

    /// Notes a request that is not forwarded: [`Self::due`] says when to tell so.
    ///
    /// # Errors
    /// As many refusals wait for their turn as there may be.
    pub fn refused(
        &mut self,
        now: Duration,
        transaction: u16,
        unit: u8,
        refused: RefusalAnswer,
    ) -> Result<(), Overflow> {
        self.forget(now, transaction);
        if self.refused >= self.limits.outstanding_max {
            return Err(Overflow);
        }
        self.refused += 1;
        self.in_flight.push(Outstanding {
            transaction,
            unit,
            since: now,
            awaits: Awaits::Turn(refused),
            earlier: false,
            reads: None,
            revoked: false,
            number: 0,
        });
        Ok(())
    }

    /// The request that was noted last was the one with this number.
    pub(crate) fn numbered(&mut self, number: u64) {
        if let Some(last) = self.in_flight.last_mut() {
            last.number = number;
        }
    }

    /// Nobody is told any more that it was refused: from here on servers answer for themselves.
    pub fn forget_refused(&mut self) {
        self.in_flight.retain(Outstanding::is_sent);
        self.refused = 0;
    }

    /// Whether any refusal waits for its turn.
    pub fn holds_refusals(&self) -> bool {
        self.refused > 0
    }

    /// The next refusal whose turn has come: no request before it in its line waits for an answer.
    pub fn due(&mut self) -> Option<(u16, u8, RefusalAnswer)> {
        if self.refused == 0 {
            return None;
        }
        let first_of_line = |at: usize, entry: &Outstanding| {
            let before = self.in_flight.iter().take(at);
            before
                .into_iter()
                .all(|earlier| earlier.transaction != entry.transaction)
        };
        let (at, transaction, unit, refused) =
            self.in_flight
                .iter()
                .enumerate()
                .find_map(|(at, entry)| match entry.awaits {
                    Awaits::Turn(refused) if first_of_line(at, entry) => {
                        Some((at, entry.transaction, entry.unit, refused))
                    }
                    _ => None,
                })?;
        self.in_flight.remove(at);
        self.refused -= 1;
        Some((transaction, unit, refused))
    }

    /// Finds the request that an answer belongs to, and forgets those that it passed over. The request waits on until
    /// [`Self::answered`].
    pub fn match_answer(&mut self, now: Duration, transaction: u16, unit: u8, pdu: &[u8]) -> Option<Match> {
        let line = || {
            self.in_flight
                .iter()
                .filter_map(|entry| entry.expects(transaction, unit))
        };
        let Some(first) = line().next() else {
            return self.of_other_identifiers(now, transaction, unit, pdu);
        };
        let of = |expectation, answer| Match {
            transaction,
            unit,
            expectation,
            answer,
            kinship: Kinship::Identifiers,
        };
        let found = match first.check(pdu) {
            Ok(response) => return Some(of(first, Ok(response))),
            Err(error) => line()
                .enumerate()
                .find_map(|(place, expectation)| Some((place, expectation, expectation.check(pdu).ok()?)))
                .ok_or(error),
        };
        match found {
            Err(error) => Some(of(first, Err(error))),
            Ok((place, expectation, response)) => {
                for _ in 0..place {
                    self.remove_first(transaction, unit);
                }
                Some(of(expectation, Ok(response)))
            }
        }
    }

    /// An answer that names no request: the one that waits alone, if it fits that.
    fn of_other_identifiers(&self, now: Duration, transaction: u16, unit: u8, pdu: &[u8]) -> Option<Match> {
        let sent = || self.in_flight.iter().filter(|entry| entry.is_sent());
        let alone = |(entry, kinship): (&Outstanding, Kinship)| match entry.awaits {
            Awaits::Answer(expectation) if !is_open_ended(expectation.code()) => Some(Match {
                transaction: entry.transaction,
                unit: entry.unit,
                expectation,
                answer: Ok(expectation.check(pdu).ok()?),
                kinship,
            }),
            _ => None,
        };
        let mut line = sent().filter(|entry| entry.transaction == transaction);
        if let (Some(entry), None) = (line.next(), line.next())
            && [unit, entry.unit].iter().any(|unit| is_the_server_itself(*unit))
        {
            return alone((entry, Kinship::Identifiers));
        }
        // Who asks again has given up what waits long.
        let last = sent().next_back()?;
        let others = sent().filter(|entry| !std::ptr::eq(*entry, last));
        let waits_alone = others.into_iter().all(|entry| self.is_stale(now, entry));
        waits_alone.then(|| alone((last, Kinship::Order))).flatten()
    }

    /// Other rules hold: answers to what they do not permit to read are not the client's any more.
    pub(crate) fn rejudge(&mut self, permits: &dyn Fn(&Request<'_>) -> bool) {
        for entry in &mut self.in_flight {
            let (Awaits::Answer(expectation), Some(reads)) = (entry.awaits, entry.reads) else {
                continue;
            };
            let code = expectation.code();
            // What only writes has no answer that tells anything.
            if matches!(code, 5 | 6 | 15 | 16 | 21 | 22) {
                continue;
            }
            entry.revoked = !permits(&Request {
                unit: entry.unit,
                code,
                sub_function: reads.sub_function,
                read: reads.span,
                write: None,
                values: Values::None,
                files: Files::NONE,
            });
        }
    }

    /// The first request of that line and unit has its answer; gives it.
    pub(crate) fn answered(&mut self, now: Duration, transaction: u16, unit: u8) -> Option<Outstanding> {
        let asked = self.remove_first(transaction, unit);
        // Servers work on one request after another, so the next one's time begins here.
        for entry in &mut self.in_flight {
            if entry.transaction == transaction {
                entry.since = now;
            }
        }
        asked
    }

    fn remove_first(&mut self, transaction: u16, unit: u8) -> Option<Outstanding> {
        let first = |entry: &Outstanding| entry.expects(transaction, unit).is_some();
        let at = self.in_flight.iter().position(first)?;
        Some(self.in_flight.remove(at))
    }

    /// An identifier is used again: what waits too long under it was given up.
    fn forget(&mut self, now: Duration, transaction: u16) {
        let stale = |entry: &Outstanding| entry.transaction == transaction && self.is_stale(now, entry);
        if !self.in_flight.iter().any(stale) {
            return;
        }
        let reuse_after = self.limits.reuse_after;
        self.in_flight.retain(|entry| {
            entry.transaction != transaction || now.saturating_sub(entry.since) < reuse_after
        });
        self.refused = self.in_flight.iter().filter(|entry| !entry.is_sent()).count();
    }

    fn is_stale(&self, now: Duration, entry: &Outstanding) -> bool {
        now.saturating_sub(entry.since) >= self.limits.reuse_after
    }

    /// How many forwarded requests wait for an answer.
    pub fn len(&self) -> usize {
        self.in_flight.len() - self.refused
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that wait, in their order.
    pub(crate) fn outstanding(&self) -> &[Outstanding] {
        &self.in_flight
    }
}

impl Outstanding {
    fn is_sent(&self) -> bool {
        matches!(self.awaits, Awaits::Answer(_))
    }

    fn expects(&self, transaction: u16, unit: u8) -> Option<Expectation> {
        match self.awaits {
            Awaits::Answer(expectation) if self.transaction == transaction && self.unit == unit => {
                Some(expectation)
            }
            _ => None,
        }
    }
}
