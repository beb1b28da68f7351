//! How a connection ends that the policy, and nothing that was sent, brings to its end.

use penstock_policy::protocol::mqtt::MQTT;

use super::{Connection, FeedEnd, Machine, Output, Sender, Sink};

impl Connection {
    /// Ends the connection if the rules in force no longer permit what its client has. To be asked after other rules or
    /// terms: the next feed would ask too, but a silent peer sends nothing.
    pub fn review(&mut self, out: &mut Sink<'_>) {
        let ending = match &mut self.machine {
            Machine::Mqtt(machine) if !self.is_closed && !self.is_guessed => machine.review(out),
            _ => None,
        };
        self.end_by(ending, out);
    }

    /// Ends the connection, which is permitted nothing any more.
    pub fn revoke(&mut self, out: &mut Sink<'_>) {
        let ending = match &mut self.machine {
            _ if self.is_closed => None,
            Machine::Mqtt(machine) if !self.is_guessed => Some(machine.revoke(out)),
            _ => return self.leave_unfollowed(out),
        };
        self.end_by(ending, out);
    }

    /// Ends a connection that was not followed from its beginning to here. Where packets of an MQTT client are read, its broker gets
    /// a DISCONNECT at the end of one: nobody knows what its will would be.
    pub fn leave_unfollowed(&mut self, out: &mut Sink<'_>) {
        let is_read = self.seeking.of(Sender::Client).is_none() && !self.version_unknown;
        let ending = match &mut self.machine {
            _ if self.is_closed => None,
            Machine::Mqtt(machine) => Some(machine.leave_unfollowed(is_read, out)),
            Machine::Modbus(_) => Some(FeedEnd::Close { reset: true }),
        };
        self.end_by(ending, out);
    }

    /// Takes leave of the peers of a connection that other terms or other rules closed, or names the will that it leaves: to be asked
    /// at once where [`Self::is_closed`] says so after a change.
    pub fn leave_closed(&mut self, out: &mut Sink<'_>) {
        let reset = match &mut self.machine {
            Machine::Mqtt(machine) => {
                let is_permitted = self.rules.protocol() == MQTT && machine.permits_will();
                matches!(machine.leave(is_permitted, out), FeedEnd::Close { reset: true })
            }
            Machine::Modbus(_) => true,
        };
        out(Output::Close { reset });
    }

    fn end_by(&mut self, ending: Option<FeedEnd>, out: &mut Sink<'_>) {
        if let Some(FeedEnd::Close { reset }) = ending {
            self.is_closed = true;
            out(Output::Close { reset });
        }
    }
}
