//! One Modbus connection: what of a stream of ADUs goes on, is withheld or answered.

mod certainty;
mod frozen;

use std::time::Duration;

use penstock_policy::terms::Answers;

use crate::connection::buffer::SideBuffer;
use crate::connection::{Deviation, Effect, FeedEnd, Mode, Output, Sender, Sink, Terms, half_through, pass};
use crate::judge::{Objection, OnRefusal, Refusal, Verdict};
use crate::modbus::frame::{self, ADU_BYTES_MAX, Frame, PREFIX_BYTES};
use crate::modbus::framings::StreamPosition;
use crate::modbus::judge::ModbusRules;
use crate::modbus::refusal::{exception_adu, exception_code};
use crate::modbus::response::{Expectation, Response};
use crate::modbus::transactions::{HeldUp, Kinship, Match, Overflow, Reads, RefusalAnswer, Transactions};
use crate::modbus::{Operation, Request};
use crate::operation::Operation as AnyOperation;

pub(crate) use self::frozen::FrozenModbus;

/// State of one Modbus connection.
#[derive(Debug)]
pub(crate) struct Modbus {
    terms: Terms,
    from_client: SideBuffer,
    from_server: SideBuffer,
    transactions: Transactions,
    /// Where else its server may be reading.
    standing: StreamPosition,
    /// Functions on whose length servers do not agree, and that this one has carried out: at most 127.
    carried_out: Vec<u8>,
    /// Of the server's ADU that is judged so many bytes have gone on: nothing of the gateway's own may come before its end.
    begun: usize,
    /// Requests may be in flight that were not read: an answer to nothing known is no deviation.
    is_midway: bool,
}

/// What becomes of one ADU.
enum Fate {
    Forward,
    Withhold,
    End(FeedEnd),
}

impl Modbus {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            from_client: SideBuffer::default(),
            from_server: SideBuffer::default(),
            transactions: Transactions::new(terms.limits.transactions),
            standing: StreamPosition::default(),
            carried_out: Vec::new(),
            begun: 0,
            is_midway: false,
        }
    }

    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// Whether the connection cannot stand under these terms; never.
    pub(crate) fn set_terms(&mut self, mode: Mode, on_refusal: OnRefusal) -> bool {
        (self.terms.mode, self.terms.on_refusal) = (mode, on_refusal);
        if mode == Mode::Observe {
            self.transactions.forget_refused();
        }
        false
    }

    /// Other rules hold, also for what is in flight.
    pub(crate) fn rejudge(&mut self, rules: &ModbusRules) {
        self.transactions
            .rejudge(&|request| rules.judge(request).allows());
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.from_client.len() + self.from_server.len()
    }

    pub(crate) fn held_memory(&self) -> usize {
        self.from_client.memory() + self.from_server.memory()
    }

    pub(crate) fn within_packet(&self, from: Sender) -> bool {
        match from {
            Sender::Client => !self.from_client.is_empty(),
            Sender::Server => !self.from_server.is_empty(),
        }
    }

    pub(crate) fn let_go(&mut self, from: Sender, out: &mut Sink<'_>) {
        self.held(from).let_go(from, out);
    }

    pub(crate) fn mark_passed(&mut self, from: Sender) {
        self.held(from).mark_passed();
    }

    /// How many bytes it was.
    pub(crate) fn forget_held(&mut self, from: Sender) -> usize {
        std::mem::take(self.held(from)).len()
    }

    pub(crate) fn skip_to_boundary(&mut self, from: Sender) {
        self.forget_held(from);
        self.is_midway = true;
    }

    fn held(&mut self, from: Sender) -> &mut SideBuffer {
        match from {
            Sender::Client => &mut self.from_client,
            Sender::Server => &mut self.from_server,
        }
    }

    /// Takes bytes.
    pub(crate) fn feed(
        &mut self,
        rules: &ModbusRules,
        from: Sender,
        now: Duration,
        bytes: &[u8],
        out: &mut Sink<'_>,
    ) -> Option<FeedEnd> {
        let mut rest = bytes;
        if self.within_packet(from) {
            let mut held = std::mem::take(self.held(from));
            let result = self.complete(rules, from, now, &mut held, &mut rest, out);
            *self.held(from) = held;
            match result {
                Ok(true) => {}
                Ok(false) => return None,
                Err(ending) => return Some(ending),
            }
        }
        // What is forwarded goes out in runs as long as nothing comes between.
        let mut run = rest;
        let mut run_bytes = 0;
        loop {
            let frame = match frame::next(rest) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    pass(from, run.get(..run_bytes).unwrap_or_default(), out);
                    self.held(from).bytes.extend_from_slice(rest);
                    return None;
                }
                Err(error) => {
                    pass(from, run.get(..run_bytes).unwrap_or_default(), out);
                    return Some(FeedEnd::Lost(Deviation::Frame(error)));
                }
            };
            let after = rest.get(frame.adu_bytes..).unwrap_or_default();
            let mut waiting = run.get(..run_bytes).unwrap_or_default();
            let fate = self.adu(rules, from, now, frame, &mut |output| {
                // Bytes first: an answer to a later request must not overtake them.
                if !matches!(output, Output::Judged { .. } | Output::Exception { .. }) {
                    pass(from, std::mem::take(&mut waiting), out);
                }
                out(output);
            });
            let flushed = waiting.is_empty() && run_bytes > 0;
            rest = after;
            match fate {
                Fate::Forward if flushed => {
                    run = run.get(run_bytes..).unwrap_or_default();
                    run_bytes = frame.adu_bytes;
                }
                Fate::Forward => run_bytes += frame.adu_bytes,
                Fate::Withhold => {
                    pass(from, waiting, out);
                    (run, run_bytes) = (rest, 0);
                }
                Fate::End(ending) => {
                    pass(from, waiting, out);
                    return Some(ending);
                }
            }
            if from == Sender::Server && self.transactions.holds_refusals() {
                pass(from, run.get(..run_bytes).unwrap_or_default(), out);
                (run, run_bytes) = (rest, 0);
                self.tell_due(out);
            }
        }
    }

    /// Fills up the ADU that is held; `Ok(false)`: it is still not whole.
    fn complete(
        &mut self,
        rules: &ModbusRules,
        from: Sender,
        now: Duration,
        held: &mut SideBuffer,
        rest: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> Result<bool, FeedEnd> {
        loop {
            match frame::next(&held.bytes) {
                Err(error) => return Err(FeedEnd::Lost(Deviation::Frame(error))),
                Ok(Some(frame)) => {
                    if from == Sender::Server {
                        self.begun = held.passed();
                    }
                    let fate = self.adu(rules, from, now, frame, out);
                    self.begun = 0;
                    match fate {
                        Fate::Forward => held.let_go(from, out),
                        Fate::Withhold if held.passed() > 0 => {
                            out(half_through());
                            return Err(FeedEnd::Close { reset: true });
                        }
                        Fate::Withhold => {}
                        Fate::End(ending) => {
                            held.clear();
                            return Err(ending);
                        }
                    }
                    held.clear();
                    self.tell_due(out);
                    return Ok(true);
                }
                Ok(None) => {}
            }
            let wanted = match held.bytes.get(4..PREFIX_BYTES) {
                Some([high, low]) => PREFIX_BYTES + usize::from(u16::from_be_bytes([*high, *low])),
                _ => PREFIX_BYTES,
            };
            let take = wanted
                .min(ADU_BYTES_MAX)
                .saturating_sub(held.len())
                .min(rest.len());
            if take == 0 {
                return Ok(false);
            }
            let (more, after) = rest.split_at_checked(take).unwrap_or((rest, &[]));
            held.bytes.extend_from_slice(more);
            *rest = after;
        }
    }

    fn adu(
        &mut self,
        rules: &ModbusRules,
        from: Sender,
        now: Duration,
        frame: Frame<'_>,
        out: &mut Sink<'_>,
    ) -> Fate {
        match from {
            Sender::Client => self.request(rules, now, frame, out),
            Sender::Server => self.response(rules.answers, now, frame, out),
        }
    }

    fn request(&mut self, rules: &ModbusRules, now: Duration, frame: Frame<'_>, out: &mut Sink<'_>) -> Fate {
        let Frame {
            transaction,
            unit,
            pdu,
            ..
        } = frame;
        let (operation, mut verdict, expectation) = match Request::decode(unit, pdu) {
            Ok(request) => (
                request.operation(),
                self.judge(rules, &request, frame),
                Expectation::of(&request, pdu),
            ),
            Err(error) => (
                opaque(unit, pdu),
                Verdict::Refuse(Refusal {
                    why: Objection::Malformed(error),
                    nearest: None,
                }),
                Expectation::anything(pdu),
            ),
        };
        let reads = Some(Reads {
            sub_function: operation.sub_function,
            span: operation.read,
        });
        let observe = self.terms.mode == Mode::Observe;
        let busy = |busy| {
            Verdict::Refuse(Refusal {
                why: Objection::Busy(busy),
                nearest: None,
            })
        };
        let mut standing = None;
        if verdict.allows() {
            match self.transactions.held_up(now) {
                Some(HeldUp::Busy(why)) => verdict = busy(why),
                Some(HeldUp::Unanswered(code)) => {
                    if let Some(end) = self.uncertain(Deviation::Unanswered(code), out) {
                        return end;
                    }
                    self.transactions.give_up(now);
                }
                None => {}
            }
            match self.standing_after(rules, frame) {
                Ok(next) => standing = next,
                Err(what) => {
                    if let Some(end) = self.uncertain(what, out) {
                        return end;
                    }
                }
            }
        }
        if (verdict.allows() || observe)
            && let Err(why) = self.transactions.sent(
                now,
                transaction,
                unit,
                expectation,
                reads.filter(|_| verdict.allows()),
            )
            && verdict.allows()
        {
            verdict = busy(why);
        }
        let forwarded = verdict.allows() || observe;
        out(Output::Judged {
            operation: AnyOperation::Modbus(operation),
            verdict,
            forwarded,
        });
        let Verdict::Refuse(refusal) = verdict else {
            if let Some(standing) = standing {
                self.standing = standing;
            }
            self.tell_due(out);
            return Fate::Forward;
        };
        if forwarded {
            return Fate::Forward;
        }
        match self.terms.on_refusal {
            OnRefusal::Answer | OnRefusal::Acknowledge => {
                let refused = RefusalAnswer {
                    code: operation.code,
                    exception: exception_code(refusal.why),
                };
                if let Err(Overflow) = self.transactions.refused(now, transaction, unit, refused) {
                    out(Output::Deviation {
                        what: Deviation::Overflow,
                        effect: Effect::Ended,
                        done: true,
                    });
                    return Fate::End(FeedEnd::Close { reset: true });
                }
                self.tell_due(out);
                Fate::Withhold
            }
            OnRefusal::Drop => Fate::Withhold,
            OnRefusal::Disconnect => Fate::End(FeedEnd::Close { reset: false }),
            OnRefusal::Reset => Fate::End(FeedEnd::Close { reset: true }),
        }
    }

    /// Sends the refusals whose turn has come, but not within an answer of the server.
    fn tell_due(&mut self, out: &mut Sink<'_>) {
        if self.begun > 0 || self.from_server.passed() > 0 {
            return;
        }
        while let Some((transaction, unit, refused)) = self.transactions.due() {
            out(Output::ToClient(&exception_adu(
                transaction,
                unit,
                refused.code,
                refused.exception,
            )));
        }
    }

    fn response(&mut self, answers: Answers, now: Duration, frame: Frame<'_>, out: &mut Sink<'_>) -> Fate {
        let Frame {
            transaction,
            unit,
            pdu,
            ..
        } = frame;
        let observe = self.terms.mode == Mode::Observe;
        let withhold = |what: Deviation, out: &mut Sink<'_>| {
            out(Output::Deviation {
                what,
                effect: Effect::Withheld,
                done: !observe,
            });
            if observe { Fate::Forward } else { Fate::Withhold }
        };
        let Some(found) = self.transactions.match_answer(now, transaction, unit, pdu) else {
            return match self.is_midway {
                true => Fate::Forward,
                false => {
                    let fate = withhold(Deviation::Unasked { transaction, unit }, out);
                    self.end_if_uncertain().unwrap_or(fate)
                }
            };
        };
        let Match {
            transaction: asked_transaction,
            unit: asked_unit,
            expectation,
            answer,
            kinship,
        } = found;
        // Where its server may be elsewhere, only what it names belongs to a request.
        if kinship == Kinship::Order && (answers == Answers::Strict || !self.standing.is_certain()) {
            if self.is_midway {
                return Fate::Forward;
            }
            if observe {
                self.transactions.answered(now, asked_transaction, asked_unit);
            }
            let what = Deviation::Identifiers {
                transaction: transaction != asked_transaction,
                unit: unit != asked_unit,
            };
            let fate = withhold(what, out);
            return self.end_if_uncertain().unwrap_or(fate);
        }
        self.is_midway = false;
        // Refusals that waited only for requests that the server passed over come before this answer.
        self.tell_due(out);
        let asked = self.transactions.answered(now, asked_transaction, asked_unit);
        match answer {
            Ok(Response::Normal) => {
                let earlier = asked.is_some_and(|asked| asked.earlier);
                self.answered_in_full(earlier, expectation.code());
                if !asked.is_some_and(|asked| asked.revoked) {
                    return Fate::Forward;
                }
                let fate = withhold(Deviation::NoLonger(expectation.code()), out);
                if !observe && self.begun == 0 {
                    let exception = exception_adu(transaction, unit, expectation.code(), 1);
                    out(Output::ToClient(&exception));
                }
                fate
            }
            Ok(Response::Exception(exception)) => {
                out(Output::Exception {
                    code: expectation.code(),
                    exception,
                });
                self.end_after_exception(frame, out).unwrap_or(Fate::Forward)
            }
            Err(error) => {
                let fate = withhold(Deviation::Response(error), out);
                if let Some(end) = self.end_if_uncertain() {
                    return end;
                }
                if !observe && self.begun == 0 {
                    // 4, server device failure: what the device sent cannot be understood.
                    out(Output::ToClient(&exception_adu(
                        transaction,
                        unit,
                        expectation.code(),
                        4,
                    )));
                }
                fate
            }
        }
    }
}

/// What can be said of a request that is not one.
fn opaque(unit: u8, pdu: &[u8]) -> Operation {
    Operation {
        unit,
        code: pdu.first().copied().unwrap_or(0),
        sub_function: None,
        read: None,
        write: None,
        files: None,
        values: None,
    }
}
