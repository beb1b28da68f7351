//! The Modbus half of [`super::Connection`].

mod frozen;

use std::time::Duration;

use super::{Ending, Mode, Note, Output, Sender, Sink, Terms, pass};
use crate::judge::modbus::ModbusRules;
use crate::judge::refusal::{OnRefusal, modbus_exception, modbus_exception_code};
use crate::judge::{Refusal, Verdict, Why};
use crate::modbus::frame::{self, ADU_BYTES_MAX, Frame, PREFIX_BYTES};
use crate::modbus::response::{Expectation, Response};
use crate::modbus::transactions::{Overflow, Refused, Transactions};
use crate::modbus::{Operation, Request};
use crate::operation::Operation as AnyOperation;

pub(super) use self::frozen::FrozenModbus;

/// State of one Modbus connection.
#[derive(Debug)]
pub(super) struct Modbus {
    terms: Terms,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    transactions: Transactions,
}

/// What becomes of one ADU.
enum Fate {
    Forward,
    Withhold,
    End(Ending),
}

impl Modbus {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            from_client: Vec::new(),
            from_server: Vec::new(),
            transactions: Transactions::new(terms.limits.transactions),
        }
    }

    pub(super) fn terms(&self) -> Terms {
        self.terms
    }

    pub(super) fn terms_mut(&mut self) -> &mut Terms {
        &mut self.terms
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.from_client.len() + self.from_server.len()
    }

    pub(super) fn within_packet(&self, from: Sender) -> bool {
        match from {
            Sender::Client => !self.from_client.is_empty(),
            Sender::Server => !self.from_server.is_empty(),
        }
    }

    pub(super) fn release(&mut self, from: Sender) -> Vec<u8> {
        std::mem::take(self.held(from))
    }

    fn held(&mut self, from: Sender) -> &mut Vec<u8> {
        match from {
            Sender::Client => &mut self.from_client,
            Sender::Server => &mut self.from_server,
        }
    }

    /// Takes bytes; on an ending also says which of them were not used.
    pub(super) fn feed<'b>(
        &mut self,
        rules: &ModbusRules,
        from: Sender,
        now: Duration,
        bytes: &'b [u8],
        out: &mut Sink<'_>,
    ) -> Option<(Ending, &'b [u8])> {
        let mut rest = bytes;
        if self.within_packet(from) {
            let mut held = std::mem::take(self.held(from));
            let result = self.complete(rules, from, now, &mut held, &mut rest, out);
            *self.held(from) = held;
            match result {
                Ok(true) => {}
                Ok(false) => return None,
                Err(ending) => return Some((ending, rest)),
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
                    self.held(from).extend_from_slice(rest);
                    return None;
                }
                Err(error) => {
                    pass(from, run.get(..run_bytes).unwrap_or_default(), out);
                    return Some((Ending::Lost(Note::Frame(error)), rest));
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
                    return Some((ending, rest));
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
        held: &mut Vec<u8>,
        rest: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> Result<bool, Ending> {
        loop {
            match frame::next(held) {
                Err(error) => return Err(Ending::Lost(Note::Frame(error))),
                Ok(Some(frame)) => {
                    match self.adu(rules, from, now, frame, out) {
                        Fate::Forward => pass(from, held, out),
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
            let wanted = match held.get(4..PREFIX_BYTES) {
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
            held.extend_from_slice(more);
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
            Sender::Server => self.response(now, frame, out),
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
                rules.judge(&request),
                Expectation::of(&request, pdu),
            ),
            Err(error) => (
                opaque(unit, pdu),
                Verdict::Refuse(Refusal {
                    why: Why::Malformed(error),
                    nearest: None,
                }),
                Expectation::anything(pdu),
            ),
        };
        let observe = self.terms.mode == Mode::Observe;
        let busy = |busy| {
            Verdict::Refuse(Refusal {
                why: Why::Busy(busy),
                nearest: None,
            })
        };
        if verdict.allows()
            && let Some(why) = self.transactions.held_up(now)
        {
            verdict = busy(why);
        }
        if (verdict.allows() || observe)
            && let Err(why) = self.transactions.sent(now, transaction, unit, expectation)
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
            self.tell_due(out);
            return Fate::Forward;
        };
        if forwarded {
            return Fate::Forward;
        }
        match self.terms.on_refusal {
            OnRefusal::Answer | OnRefusal::Acknowledge => {
                let refused = Refused {
                    code: operation.code,
                    exception: modbus_exception_code(refusal.why),
                };
                if let Err(Overflow) = self.transactions.refused(now, transaction, unit, refused) {
                    out(Output::Noted(Note::Overflow));
                    return Fate::End(Ending::Close { reset: true });
                }
                self.tell_due(out);
                Fate::Withhold
            }
            OnRefusal::Drop => Fate::Withhold,
            OnRefusal::Disconnect => Fate::End(Ending::Close { reset: false }),
            OnRefusal::Reset => Fate::End(Ending::Close { reset: true }),
        }
    }

    /// Tells the refusals whose turn has come.
    fn tell_due(&mut self, out: &mut Sink<'_>) {
        while let Some((transaction, unit, refused)) = self.transactions.due() {
            out(Output::ToClient(&modbus_exception(
                transaction,
                unit,
                refused.code,
                refused.exception,
            )));
        }
    }

    fn response(&mut self, now: Duration, frame: Frame<'_>, out: &mut Sink<'_>) -> Fate {
        let Frame {
            transaction,
            unit,
            pdu,
            ..
        } = frame;
        let observe = self.terms.mode == Mode::Observe;
        let withhold = if observe { Fate::Forward } else { Fate::Withhold };
        let Some((expectation, answer)) = self.transactions.match_answer(transaction, unit, pdu) else {
            out(Output::Noted(Note::Unasked { transaction, unit }));
            return withhold;
        };
        // Refusals that waited only for requests that the server passed over come before this answer.
        self.tell_due(out);
        self.transactions.answered(now, transaction, unit);
        match answer {
            Ok(Response::Normal) => Fate::Forward,
            Ok(Response::Exception(exception)) => {
                out(Output::Exception {
                    code: expectation.code(),
                    exception,
                });
                Fate::Forward
            }
            Err(error) => {
                out(Output::Noted(Note::Response(error)));
                if !observe {
                    // 4, server device failure: what the device sent cannot be understood.
                    out(Output::ToClient(&modbus_exception(
                        transaction,
                        unit,
                        expectation.code(),
                        4,
                    )));
                }
                withhold
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
