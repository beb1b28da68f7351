//! ADUs off a stream: what is whole is judged, what is not waits, and what goes on goes in runs.

use std::time::Duration;

use super::{Fate, Modbus};
use crate::connection::buffer::SideBuffer;
use crate::connection::machine::{FeedEnd, Machine};
use crate::connection::{Output, Sender, Sink, half_through, pass};
use crate::modbus::deviation::ModbusDeviation;
use crate::modbus::frame::{self, ADU_BYTES_MAX, Frame, FrameError, PREFIX_BYTES};
use crate::modbus::judge::ModbusRules;

fn lost(error: FrameError) -> FeedEnd {
    FeedEnd::Lost(ModbusDeviation::Frame(error).into())
}

impl Modbus {
    /// Takes bytes.
    pub(super) fn take(
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
                    return Some(lost(error));
                }
            };
            let after = rest.get(frame.adu_bytes..).unwrap_or_default();
            let mut waiting = run.get(..run_bytes).unwrap_or_default();
            let fate = self.adu(rules, from, now, frame, &mut |output| {
                // Bytes first: an answer to a later request must not overtake them.
                let tells = matches!(
                    output,
                    Output::Judged { .. } | Output::Exception { .. } | Output::Answered { .. }
                );
                if !tells {
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
                Err(error) => return Err(lost(error)),
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
}
