//! What becomes of a request, and of the answer to it.

use std::time::Duration;

use penstock_policy::terms::Answers;

use super::{Fate, Modbus};
use crate::connection::machine::FeedEnd;
use crate::connection::{Deviation, Effect, Mode, Output, Sink};
use crate::judge::{Objection, OnRefusal, Refusal, Verdict};
use crate::modbus::Request;
use crate::modbus::deviation::ModbusDeviation;
use crate::modbus::frame::Frame;
use crate::modbus::judge::ModbusRules;
use crate::modbus::operation::function_name;
use crate::modbus::operation::opaque;
use crate::modbus::refusal::{exception_adu, exception_code};
use crate::modbus::response::{Expectation, Response};
use crate::modbus::transactions::{
    Busy, HeldUp, Kinship, Match, Outstanding, Overflow, Reads, RefusalAnswer,
};

impl Modbus {
    pub(super) fn request(
        &mut self,
        rules: &ModbusRules,
        now: Duration,
        frame: Frame<'_>,
        out: &mut Sink<'_>,
    ) -> Fate {
        let Frame {
            transaction,
            unit,
            pdu,
            ..
        } = frame;
        let decoded = Request::decode(unit, pdu);
        let is_malformed = decoded.is_err();
        let (operation, mut verdict, expectation, reads) = match decoded {
            Ok(request) => (
                request.operation(),
                self.judge(rules, &request, frame),
                Expectation::of(&request, pdu),
                Some(Reads::of(&request)),
            ),
            Err(error) => (
                opaque(unit, pdu),
                Verdict::Refuse(Refusal {
                    why: Objection::Malformed(error.reason()),
                    nearest: None,
                }),
                Expectation::anything(pdu),
                None,
            ),
        };
        let code = pdu.first().copied().unwrap_or(0);
        let observe = self.terms.mode == Mode::Observe;
        let busy = |busy: Busy| {
            Verdict::Refuse(Refusal {
                why: Objection::Busy(busy.reason()),
                nearest: None,
            })
        };
        let mut standing = None;
        if verdict.allows() {
            match self.transactions.held_up(now) {
                Some(HeldUp::Busy(why)) => verdict = busy(why),
                Some(HeldUp::Unanswered(code)) => {
                    if let Some(end) = self.uncertain(ModbusDeviation::Unanswered(code), out) {
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
        self.judged += 1;
        if verdict.allows() || observe {
            let reads = reads.filter(|_| verdict.allows());
            let sent = self.transactions.sent(now, transaction, unit, expectation, reads);
            match sent {
                Ok(()) => self.transactions.numbered(self.judged),
                Err(why) if verdict.allows() => verdict = busy(why),
                Err(_) => {}
            }
        }
        let forwarded = verdict.allows() || observe;
        out(Output::Judged {
            operation: &operation,
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
            self.passed_observed(code, is_malformed);
            return Fate::Forward;
        }
        match self.terms.on_refusal {
            OnRefusal::Answer | OnRefusal::Acknowledge => {
                let refused = RefusalAnswer {
                    code,
                    exception: exception_code(refusal.why),
                };
                if let Err(Overflow) = self.transactions.refused(now, transaction, unit, refused) {
                    out(Output::Deviation {
                        what: Deviation::OVERFLOW,
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
    pub(super) fn tell_due(&mut self, out: &mut Sink<'_>) {
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

    /// Tells which request has its answer.
    fn tell_answered(&self, asked: Option<Outstanding>, refused: bool, out: &mut Sink<'_>) {
        if let Some(asked) = asked.filter(|asked| asked.number > 0) {
            out(Output::Answered {
                behind: self.judged.saturating_sub(asked.number),
                refused,
            });
        }
    }

    pub(super) fn response(
        &mut self,
        answers: Answers,
        now: Duration,
        frame: Frame<'_>,
        out: &mut Sink<'_>,
    ) -> Fate {
        let Frame {
            transaction,
            unit,
            pdu,
            ..
        } = frame;
        let observe = self.terms.mode == Mode::Observe;
        let withhold = |what: ModbusDeviation, out: &mut Sink<'_>| {
            out(Output::Deviation {
                what: what.into(),
                effect: Effect::Withheld,
                done: !observe,
            });
            if observe { Fate::Forward } else { Fate::Withhold }
        };
        let Some(found) = self.transactions.match_answer(now, transaction, unit, pdu) else {
            return match self.is_midway {
                true => Fate::Forward,
                false => {
                    let fate = withhold(ModbusDeviation::Unasked { transaction, unit }, out);
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
                let asked = self.transactions.answered(now, asked_transaction, asked_unit);
                self.tell_answered(asked, matches!(answer, Ok(Response::Exception(_))), out);
            }
            let what = ModbusDeviation::Identifiers {
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
        self.tell_answered(asked, matches!(answer, Ok(Response::Exception(_))), out);
        match answer {
            Ok(Response::Normal) => {
                let earlier = asked.is_some_and(|asked| asked.earlier);
                self.answered_in_full(earlier, expectation.code());
                if !asked.is_some_and(|asked| asked.revoked) {
                    return Fate::Forward;
                }
                let fate = withhold(ModbusDeviation::NoLonger(expectation.code()), out);
                if !observe && self.begun == 0 {
                    let exception = exception_adu(transaction, unit, expectation.code(), 1);
                    out(Output::ToClient(&exception));
                }
                fate
            }
            Ok(Response::Exception(exception)) => {
                out(Output::Exception {
                    asked: function_name(expectation.code(), None),
                    refusal: &format!("exception {exception}"),
                });
                self.end_after_exception(frame, out).unwrap_or(Fate::Forward)
            }
            Err(error) => {
                let fate = withhold(ModbusDeviation::Response(error), out);
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
