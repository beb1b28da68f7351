//! How a connection ends that the policy, and nothing that was sent, brings to its end.

use super::{Connection, Ending, Machine, Output, Sink};

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
            _ => Some(Ending::Close { reset: true }),
        };
        self.end_by(ending, out);
    }

    fn end_by(&mut self, ending: Option<Ending>, out: &mut Sink<'_>) {
        if let Some(Ending::Close { reset }) = ending {
            self.is_closed = true;
            out(Output::Close { reset });
        }
    }
}
