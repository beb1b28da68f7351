//! Reading beside: what passes is followed after it has gone on, and found again where it was lost.

use std::time::Duration;

use super::machine::{Beginning, FeedEnd};
use super::{Connection, Effect, Output, Sender, Sink, pass};

impl Connection {
    /// Takes bytes that go on before they are read.
    pub(super) fn observe(&mut self, from: Sender, now: Duration, bytes: &[u8], out: &mut Sink<'_>) {
        let mut rest = bytes;
        if !self.gives_what_is_owed(from, now, &mut rest, out) {
            return;
        }
        self.settle(out);
        rest = self.machine.finish_refused(from, rest, out);
        // Answers of the gateway's own wait for the end of a packet that had begun to pass before it was enforced.
        if let Some((count, answers)) = self.machine.answers_within(from, rest)
            && let Some((first, after)) = rest.split_at_checked(count)
        {
            pass(from, first, out);
            pass(from, &answers, out);
            self.follow(from, now, first, out);
            rest = after;
        }
        pass(from, rest, out);
        self.follow(from, now, rest, out);
    }

    /// Observing: has the server's packets completed for what was refused of the client's while it was enforced. Whether that
    /// is done, and `rest` passes as it is.
    pub(super) fn gives_what_is_owed(
        &mut self,
        from: Sender,
        now: Duration,
        rest: &mut &[u8],
        out: &mut Sink<'_>,
    ) -> bool {
        if !self.machine.owes(from) {
            return true;
        }
        let Some(ending) = self.machine.feed(&self.rules, from, now, rest, out) else {
            return !self.machine.owes(from);
        };
        self.told_lost(ending, out);
        self.lose();
        self.settle(out);
        pass(from, rest, out);
        false
    }

    /// Observing, tells the first time that the stream cannot be followed.
    fn told_lost(&mut self, ending: FeedEnd, out: &mut Sink<'_>) {
        if let FeedEnd::Lost(what) = ending
            && !self.is_lost
        {
            out(Output::Deviation {
                what,
                effect: Effect::Ended,
                done: false,
            });
        }
    }

    /// Reads bytes that have passed already.
    pub(super) fn follow(&mut self, from: Sender, now: Duration, bytes: &[u8], out: &mut Sink<'_>) {
        if !self.finds_packet(from, bytes, out) {
            return;
        }
        let mut told = |output: Output<'_>| match output {
            Output::ToServer(_) | Output::ToClient(_) | Output::Close { .. } => {}
            told => out(told),
        };
        let ending = self
            .machine
            .feed(&self.rules, from, now, &mut { bytes }, &mut told);
        match ending {
            None => self.machine.mark_passed(from),
            Some(ending) => {
                self.told_lost(ending, out);
                self.lose();
            }
        }
    }

    /// Whether a side is being read, from these bytes on if it was not.
    fn finds_packet(&mut self, from: Sender, bytes: &[u8], out: &mut Sink<'_>) -> bool {
        if self.seeking.of(from).is_none() {
            return true;
        }
        match self.machine.begins(&self.rules, from, bytes) {
            None => {
                self.seeking.skip(from, bytes.len());
                return false;
            }
            Some(Beginning::Connection) => {
                self.seeking.end(from.other());
                self.begin_anew();
            }
            Some(Beginning::Packet) => {}
        }
        if let Some(skipped_bytes) = self.seeking.end(from) {
            out(Output::Resynchronised { from, skipped_bytes });
        }
        true
    }

    /// Observing, the stream cannot be followed here.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
        self.seek();
    }

    pub(super) fn seek(&mut self) {
        let unsent = &mut self.unsent;
        self.machine.give_up_owed(&mut |output| {
            if let Output::ToClient(bytes) = output {
                unsent.extend_from_slice(bytes);
            }
        });
        self.begin_anew();
        for from in [Sender::Client, Sender::Server] {
            self.skip_to_boundary(from);
        }
        self.machine.met_midway();
    }
}
