//! One connection of the toy: lines in, lines out.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::read;
use crate::connection::machine::{Beginning, FeedEnd, Machine, Terms};
use crate::connection::{Deviation, Mode, Output, Sender, Sink};
use crate::judge::sets::SetRules;
use crate::judge::{Objection, OnRefusal, Refusal, Rules, Verdict};

/// The longest line, bytes.
pub(super) const LINE_MAX: usize = 64;

/// One connection.
#[derive(Debug)]
pub(super) struct Toy {
    pub(super) terms: Terms,
    pub(super) held: Held,
}

/// What is not a whole line yet.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Held {
    client: Vec<u8>,
    server: Vec<u8>,
}

impl Held {
    fn of(&mut self, from: Sender) -> &mut Vec<u8> {
        match from {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        }
    }

    pub(super) fn into_both(self) -> [Vec<u8>; 2] {
        [self.client, self.server]
    }
}

impl Toy {
    /// Judges a whole line of the client's, and answers it if it is refused.
    fn line(&self, rules: Option<&SetRules>, line: &[u8], out: &mut Sink<'_>) -> Option<FeedEnd> {
        let Some(operation) = read(line) else {
            return Some(FeedEnd::Lost(Deviation::unreadable(&"a line that is no request")));
        };
        let verdict = match rules {
            Some(rules) => rules.judge(&operation),
            None => Verdict::Refuse(Refusal {
                why: Objection::Function,
                nearest: None,
            }),
        };
        let enforced = self.terms.mode == Mode::Enforce;
        let forwarded = verdict.allows() || !enforced;
        if verdict.allows() && enforced {
            out(Output::ToServer(line));
        }
        out(Output::Judged {
            operation: &operation,
            verdict,
            forwarded,
        });
        if forwarded {
            return None;
        }
        match self.terms.on_refusal {
            OnRefusal::Drop => None,
            OnRefusal::Reset => Some(FeedEnd::Close { reset: true }),
            OnRefusal::Disconnect => {
                out(Output::ToClient(b"ERR refused\n"));
                Some(FeedEnd::Close { reset: false })
            }
            OnRefusal::Answer | OnRefusal::Acknowledge => {
                out(Output::ToClient(b"ERR refused\n"));
                None
            }
        }
    }
}

impl Machine for Toy {
    fn feed(
        &mut self,
        rules: &Rules,
        from: Sender,
        _now: Duration,
        rest: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> Option<FeedEnd> {
        let mut held = std::mem::take(self.held.of(from));
        held.extend(std::mem::take(rest));
        let mut lines = held.as_slice();
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let (line, after) = lines.split_at(end + 1);
            lines = after;
            if line.len() > LINE_MAX {
                return Some(FeedEnd::Lost(Deviation::unreadable(&"a line that is too long")));
            }
            match from {
                Sender::Server if self.terms.mode == Mode::Observe => {}
                Sender::Server => out(Output::ToClient(line)),
                Sender::Client => {
                    if let Some(end) = self.line(rules.of(), line, out) {
                        return Some(end);
                    }
                }
            }
        }
        if lines.len() > LINE_MAX {
            return Some(FeedEnd::Lost(Deviation::unreadable(&"a line that is too long")));
        }
        *self.held.of(from) = lines.to_vec();
        None
    }

    fn set_terms(&mut self, terms: Terms) -> bool {
        self.terms = terms;
        false
    }

    fn rejudge(&mut self, _rules: &Rules) {}

    fn held_bytes(&self) -> usize {
        self.held.client.len() + self.held.server.len()
    }

    fn held_memory(&self) -> usize {
        self.held.client.capacity() + self.held.server.capacity()
    }

    fn within_packet(&self, from: Sender) -> bool {
        match from {
            Sender::Client => !self.held.client.is_empty(),
            Sender::Server => !self.held.server.is_empty(),
        }
    }

    fn let_go(&mut self, from: Sender, out: &mut Sink<'_>) {
        let held = std::mem::take(self.held.of(from));
        match from {
            _ if held.is_empty() => {}
            Sender::Client => out(Output::ToServer(&held)),
            Sender::Server => out(Output::ToClient(&held)),
        }
    }

    fn mark_passed(&mut self, _from: Sender) {}

    fn forget_held(&mut self, from: Sender) -> usize {
        std::mem::take(self.held.of(from)).len()
    }

    fn skip_to_boundary(&mut self, from: Sender) {
        self.held.of(from).clear();
    }

    fn begins(&mut self, _rules: &Rules, from: Sender, bytes: &[u8]) -> Option<Beginning> {
        let line = bytes.split_inclusive(|byte| *byte == b'\n').next()?;
        let fits = match from {
            Sender::Client => read(line).is_some(),
            Sender::Server => line.starts_with(b"OK") || line.starts_with(b"ERR"),
        };
        fits.then_some(Beginning::Packet)
    }

    fn freeze(&self, _now: Duration) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(&self.held)
    }
}
