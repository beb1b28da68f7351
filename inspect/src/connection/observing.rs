//! Reading beside: what passes is followed after it has gone on, and found again where it was lost.

use penstock_policy::protocol::mqtt::MQTT;
use std::time::Duration;

use super::seek::{self, Begins};
use super::{Connection, Effect, FeedEnd, Machine, Output, Sender, Sink, pass};

impl Connection {
    /// Takes bytes that go on before they are read.
    pub(super) fn observe(&mut self, from: Sender, now: Duration, bytes: &[u8], out: &mut Sink<'_>) {
        let mut rest = bytes;
        if !self.gives_what_is_owed(from, now, &mut rest, out) {
            return;
        }
        self.settle(out);
        if let Machine::Mqtt(machine) = &mut self.machine {
            rest = machine.finish_refused(from, rest, out);
            // Answers of the gateway's own wait for the end of a packet that had begun to pass before it was enforced.
            if let Some((first, after)) = machine
                .answers_follow(from, rest)
                .and_then(|lacking| rest.split_at_checked(lacking))
            {
                let queue = machine.take_queue(from);
                pass(from, first, out);
                pass(from, &queue, out);
                self.follow(from, now, first, out);
                rest = after;
            }
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
        let owes = |machine: &Machine| matches!(machine, Machine::Mqtt(machine) if machine.owes(from));
        if !owes(&self.machine) {
            return true;
        }
        let Some(ending) = self.read(from, now, rest, out) else {
            return !owes(&self.machine);
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
        let ending = self.read(from, now, &mut { bytes }, &mut |output| match output {
            Output::ToServer(_) | Output::ToClient(_) | Output::Close { .. } => {}
            told => out(told),
        });
        match ending {
            None => match &mut self.machine {
                Machine::Modbus(machine) => machine.mark_passed(from),
                Machine::Mqtt(machine) => machine.mark_passed(from),
            },
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
        match seek::begins_packet(self.rules.protocol(), from, bytes) {
            None => {
                self.seeking.skip(from, bytes.len());
                return false;
            }
            Some(Begins::Mqtt(version)) if self.version_unknown => {
                self.version_unknown = false;
                self.resume(version);
            }
            Some(Begins::MqttConnect) => {
                self.version_unknown = false;
                self.seeking.end(from.other());
                self.begin_anew();
            }
            Some(_) => {}
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
        if let Machine::Mqtt(machine) = &mut self.machine {
            machine.forget_owed();
            machine.let_go(Sender::Server, &mut |output| {
                if let Output::ToClient(bytes) = output {
                    self.unsent.extend_from_slice(bytes);
                }
            });
        }
        self.begin_anew();
        for from in [Sender::Client, Sender::Server] {
            self.skip_to_boundary(from);
        }
        self.version_unknown = self.rules.protocol() == MQTT;
    }
}
