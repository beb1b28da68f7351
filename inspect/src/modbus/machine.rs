//! One Modbus connection: what of a stream of ADUs goes on, is withheld or answered.
//!
//! - [`stream`]: ADUs off the stream.
//! - [`exchange`]: what becomes of a request, and of its answer.
//! - [`certainty`]: servers that do not go by the length in the header.
//! - [`frozen`]: its state as bytes.

mod certainty;
mod exchange;
mod frozen;
mod stream;

use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};

use self::certainty::Unproven;
use crate::connection::buffer::SideBuffer;
use crate::connection::machine::{Beginning, FeedEnd, Machine, Terms};
use crate::connection::{Effect, Mode, Output, Sender, Sink};
use crate::judge::Rules;
use crate::modbus::Request;
use crate::modbus::deviation::ModbusDeviation;
use crate::modbus::frame;
use crate::modbus::framings::StreamPosition;
use crate::modbus::judge::ModbusRules;
use crate::modbus::transactions::Transactions;

pub(super) use self::frozen::{FrozenModbus, frozen_bytes_max};

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
    /// What passed while it was only observed, and its server may still be reading.
    unproven: Unproven,
    /// Of the server's ADU that is judged so many bytes have gone on: nothing of the gateway's own may come before its end.
    begun: usize,
    /// Requests may be in flight that were not read: an answer to nothing known is no deviation.
    is_midway: bool,
    /// Requests that were judged: an answer belongs to one of them or to none.
    judged: u64,
}

/// What becomes of one ADU.
enum Fate {
    Forward,
    Withhold,
    End(FeedEnd),
}

impl Modbus {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            from_client: SideBuffer::default(),
            from_server: SideBuffer::default(),
            transactions: Transactions::new(terms.limits.transactions),
            standing: StreamPosition::default(),
            carried_out: Vec::new(),
            unproven: Unproven::default(),
            begun: 0,
            is_midway: false,
            judged: 0,
        }
    }

    fn held(&mut self, from: Sender) -> &mut SideBuffer {
        match from {
            Sender::Client => &mut self.from_client,
            Sender::Server => &mut self.from_server,
        }
    }
}

impl Machine for Modbus {
    fn feed(
        &mut self,
        rules: &Rules,
        from: Sender,
        now: Duration,
        rest: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> Option<FeedEnd> {
        match rules.of() {
            Some(rules) => self.take(rules, from, now, std::mem::take(rest), out),
            None => self.take(&ModbusRules::nothing(), from, now, std::mem::take(rest), out),
        }
    }

    fn set_terms(&mut self, terms: Terms) -> bool {
        self.terms = terms;
        if terms.mode == Mode::Observe {
            self.transactions.forget_refused();
        }
        terms.mode == Mode::Enforce && self.unproven != Unproven::Nothing
    }

    fn rejudge(&mut self, rules: &Rules) {
        let rules = rules.of::<ModbusRules>();
        let permits = |request: &Request<'_>| rules.is_some_and(|rules| rules.judge(request).allows());
        self.transactions.rejudge(&permits);
    }

    fn held_bytes(&self) -> usize {
        self.from_client.len() + self.from_server.len()
    }

    fn held_memory(&self) -> usize {
        self.from_client.memory() + self.from_server.memory() + self.standing.memory()
    }

    fn within_packet(&self, from: Sender) -> bool {
        match from {
            Sender::Client => !self.from_client.is_empty(),
            Sender::Server => !self.from_server.is_empty(),
        }
    }

    fn let_go(&mut self, from: Sender, out: &mut Sink<'_>) {
        self.held(from).let_go(from, out);
    }

    fn mark_passed(&mut self, from: Sender) {
        self.held(from).mark_passed();
    }

    fn forget_held(&mut self, from: Sender) -> usize {
        std::mem::take(self.held(from)).len()
    }

    fn skip_to_boundary(&mut self, from: Sender) {
        self.forget_held(from);
        self.is_midway = true;
    }

    fn begins(&mut self, _rules: &Rules, from: Sender, bytes: &[u8]) -> Option<Beginning> {
        let frame = frame::next(bytes).ok()??;
        let code = *frame.pdu.first()?;
        let fits = match from {
            Sender::Client => Request::decode(frame.unit, frame.pdu).is_ok(),
            Sender::Server => code & 0x7f != 0 && (code < 0x80 || frame.pdu.len() == 2),
        };
        fits.then_some(Beginning::Packet)
    }

    fn leave(&mut self, out: &mut Sink<'_>) -> FeedEnd {
        if self.unproven != Unproven::Nothing {
            out(Output::Deviation {
                what: ModbusDeviation::Unproven.into(),
                effect: Effect::Ended,
                done: true,
            });
        }
        FeedEnd::Close { reset: true }
    }

    fn freeze(&self, now: Duration) -> serde_json::Result<Box<RawValue>> {
        to_raw_value(&self.frozen(now))
    }
}
