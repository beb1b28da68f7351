//! How a connection ends that the policy, and nothing that was sent, brings to its end.

use super::machine::FeedEnd;
use super::{Connection, Output, Sender, Sink};

impl Connection {
    /// Ends the connection if the rules in force no longer permit what its client has. To be asked after other rules or
    /// terms: the next feed would ask too, but a silent peer sends nothing.
    pub fn review(&mut self, out: &mut Sink<'_>) {
        if self.is_closed || self.is_guessed {
            return;
        }
        if let Some(ending) = self.machine.review(out) {
            self.end_by(&ending, out);
        }
    }

    /// Ends the connection, which is permitted nothing any more.
    pub fn revoke(&mut self, out: &mut Sink<'_>) {
        if self.is_guessed {
            return self.leave_unfollowed(out);
        }
        if !self.is_closed {
            let ending = self.machine.revoke(out);
            self.end_by(&ending, out);
        }
    }

    /// Ends a connection that was not followed from its beginning to here. Where its client's packets are read, its server is taken
    /// leave of at the end of one, if the protocol has a way to.
    pub fn leave_unfollowed(&mut self, out: &mut Sink<'_>) {
        if !self.is_closed {
            let is_read = self.seeking.of(Sender::Client).is_none();
            let ending = self.machine.leave_unfollowed(is_read, out);
            self.end_by(&ending, out);
        }
    }

    /// Takes leave of the peers of a connection that other terms or other rules closed, or names what it leaves behind: to be asked
    /// at once where [`Self::is_closed`] says so after a change.
    pub fn leave_closed(&mut self, out: &mut Sink<'_>) {
        let ending = self.machine.leave(out);
        self.end_by(&ending, out);
    }

    /// Whether its peers are to be taken leave of before it ends.
    pub fn takes_leave(&self) -> bool {
        self.machine.takes_leave()
    }

    fn end_by(&mut self, ending: &FeedEnd, out: &mut Sink<'_>) {
        self.is_closed = true;
        let reset = matches!(ending, FeedEnd::Close { reset: true });
        out(Output::Close { reset });
    }
}
