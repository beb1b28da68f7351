//! What is done about servers that do not go by the length in the header (see [`crate::modbus::framings`]).
//!
//! - A request of whose length servers may think otherwise is refused if its data could be read as a write that no rule
//!   permits, whatever the server.
//! - After it, until a request was carried out, its server may read on within that data. What follows is only forwarded
//!   if it does no harm at any place where the server may be; else the connection ends.
//! - An answer that nobody asked for, or that does not fit, says that it is so: the connection ends.
//! - What passes only because it is observed is not kept account of: after it a server may have the beginning of a write unread, which
//!   what is permitted would complete. Where its server has not proved otherwise, the connection ends when enforcing
//!   begins ([`Unproven`]).
//! - A server that has carried the function out on this connection knows it, and reads its requests to their end: they
//!   leave no doubt.

use serde::{Deserialize, Serialize};

use super::{Fate, Modbus};
use crate::connection::machine::FeedEnd;
use crate::connection::{Effect, Mode, Output, Sink};
use crate::judge::{Refusal, Verdict};
use crate::modbus::deviation::ModbusDeviation;
use crate::modbus::frame::Frame;
use crate::modbus::framings::{Doubt, StreamPosition, is_open_ended, write_within};
use crate::modbus::judge::ModbusRules;
use crate::modbus::objection;
use crate::modbus::request::Request;

/// What passed while it was only observed, and after which the server may read on within it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Unproven {
    #[default]
    Nothing,
    /// Requests of this function, to whose length servers that know it keep.
    Function(u8),
    /// Anything.
    Anything,
}

impl Unproven {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

const RESET: Fate = Fate::End(FeedEnd::Close { reset: true });

impl Modbus {
    /// What the rules say of a request, however its server cuts it.
    pub(super) fn judge(&self, rules: &ModbusRules, request: &Request<'_>, frame: Frame<'_>) -> Verdict {
        let verdict = rules.judge(request);
        if !verdict.allows() || !is_open_ended(request.code) {
            return verdict;
        }
        let refuse = |why| Verdict::Refuse(Refusal { why, nearest: None });
        // Function, sub-function and one word: servers that know the function and go by it read no more.
        if (request.code, request.sub_function) == (8, Some(0)) && frame.pdu.len() != 5 {
            return refuse(objection::ECHO);
        }
        if self.carried_out.contains(&request.code) {
            return verdict;
        }
        let permits = |request: &Request<'_>| rules.judge(request).allows();
        write_within(frame.adu, &permits).map_or(verdict, |code| refuse(objection::within(code)))
    }

    /// Where the server may be after this request, if that is not where everybody thinks it is.
    pub(super) fn standing_after(
        &self,
        rules: &ModbusRules,
        frame: Frame<'_>,
    ) -> Result<Option<StreamPosition>, ModbusDeviation> {
        let code = frame.pdu.first().copied().unwrap_or(0);
        let doubtful = is_open_ended(code) && !self.carried_out.contains(&code);
        if self.standing.is_certain() && !doubtful {
            return Ok(None);
        }
        let permits = |request: &Request<'_>| rules.judge(request).allows();
        match self.standing.after(frame.adu, doubtful, &permits) {
            Ok(standing) => Ok(Some(standing)),
            Err(Doubt::Function(code)) => Err(ModbusDeviation::Ambiguous(Some(code))),
            Err(Doubt::Places) => Err(ModbusDeviation::Ambiguous(None)),
        }
    }

    /// Nobody knows how the server would read on. Enforcing, that is the end; observing, everything begins anew.
    pub(super) fn uncertain(&mut self, what: ModbusDeviation, out: &mut Sink<'_>) -> Option<Fate> {
        let done = self.terms.mode == Mode::Enforce;
        out(Output::Deviation {
            what: what.into(),
            effect: Effect::Ended,
            done,
        });
        self.standing = StreamPosition::default();
        self.unproven = Unproven::Anything;
        done.then_some(RESET)
    }

    /// A request passed that enforcing would have withheld.
    pub(super) fn passed_observed(&mut self, code: u8, is_malformed: bool) {
        let is_doubtful = is_open_ended(code) && !self.carried_out.contains(&code);
        self.unproven = match self.unproven {
            _ if is_malformed || !self.standing.is_certain() => Unproven::Anything,
            known if !is_doubtful => known,
            Unproven::Nothing => Unproven::Function(code),
            Unproven::Function(known) if known == code => Unproven::Function(code),
            _ => Unproven::Anything,
        };
    }

    /// A request was carried out, and its answer fits.
    pub(super) fn answered_in_full(&mut self, earlier: bool, code: u8) {
        if !earlier {
            self.standing = StreamPosition::default();
        }
        if is_open_ended(code) && !self.carried_out.contains(&code) {
            self.carried_out.push(code);
        }
        if self.unproven == Unproven::Function(code) {
            self.unproven = Unproven::Nothing;
        }
    }

    /// An answer came that belongs to nothing, while the server may be anywhere.
    pub(super) fn end_if_uncertain(&self) -> Option<Fate> {
        (self.terms.mode == Mode::Enforce && !self.standing.is_certain()).then_some(RESET)
    }

    /// The server refused a request, and may have carried out what it read out of its data: its client gets the refusal,
    /// and nothing that would come after it.
    pub(super) fn end_after_exception(&self, frame: Frame<'_>, out: &mut Sink<'_>) -> Option<Fate> {
        (self.terms.mode == Mode::Enforce && self.standing.may_answer()).then(|| {
            out(Output::ToClient(frame.adu.get(self.begun..).unwrap_or_default()));
            Fate::End(FeedEnd::Close { reset: false })
        })
    }
}
