//! A connection that stands when the policy changes: whether it may, under which terms, and what enforcing would do to it
//! where its zones only observe.

use std::sync::Arc;

use penstock_inspect::connection::{Connection, Mode, Output, Sender, Sink};
use penstock_policy::ids::FlowId;
use penstock_policy::terms::OnRefusal;
use penstock_proto::event::RECONNECTS;

use super::super::lookup::TupleRules;
use super::super::shadow::{Beside, InspectedShadow};
use super::{ConnectionEnd, Inspection, Session, UNREAD_FROM_HERE};
use crate::observed::Subject;

/// What enforcing would do to a connection that stands between zones that only observe, and why.
fn foretold(
    found: &TupleRules,
    mode: Mode,
    (inspection, inside_tls): (&Inspection, bool),
) -> Option<(&'static str, String)> {
    const RESET: &str = "the connection would be reset";
    match (found, inspection) {
        _ if mode == Mode::Enforce => None,
        (TupleRules::Only(set), Inspection::Passing) if inside_tls && set.rules.is_none() => None,
        (TupleRules::Only(set), Inspection::Passing)
            if !inside_tls && set.tls.as_ref().is_some_and(|tls| tls.plain_port.is_some()) =>
        {
            Some((
                "the client's connection would be refused",
                "it speaks in the plain where clients' TLS ends at this gateway, and passes unread since the zones only observe. \
                 Enforcing, the client has to speak TLS and to show a device's certificate"
                    .to_owned(),
            ))
        }
        (TupleRules::Only(set), Inspection::Passing) if !inside_tls && set.tls.is_some() => Some((
            "the client's TLS would end at this gateway",
            "the zones only observe: what is inside it passes unread. Enforcing, the client has to show a device's certificate, \
             and to trust this gateway's"
                .to_owned(),
        )),
        (TupleRules::Only(_), Inspection::Passing) => Some((
            RESET,
            format!("the policy limits its operations, and it was not followed from its beginning; {RECONNECTS}"),
        )),
        (TupleRules::Only(_), Inspection::Following(connection)) if connection.is_guessed() => Some((
            RESET,
            format!("it was not followed without a gap from its beginning; {RECONNECTS}"),
        )),
        (TupleRules::Unusable(error), _) => Some((RESET, error.to_string())),
        (TupleRules::Nothing, _) => Some((RESET, "no flow permits it".to_owned())),
        _ => None,
    }
}

impl Session {
    /// Ends it, at once; a broker gets a client's DISCONNECT first.
    pub(in super::super) fn revoke(&mut self) {
        self.revoke_as(ConnectionEnd::Revoked);
    }

    /// The same, as this end.
    pub(super) fn revoke_as(&mut self, end: ConnectionEnd) {
        match &mut self.inspection {
            Inspection::Passing => self.cut = Some(end),
            Inspection::Following(_) => self.take_leave(Connection::revoke, end),
        }
        self.wake();
    }

    /// What is only observed, or not limited, is not ended for want of room, but goes on unread; whether it does.
    pub(super) fn goes_on_unread(&mut self, end: ConnectionEnd) -> bool {
        let now = super::super::now();
        // On one of the seats for flows that go on without the inspector, it passes although it is enforced.
        let may = !self.seat.is_unread() && self.passes_at_once();
        let Some(seat) = may.then(|| self.seat.observed_instead(end, now)).flatten() else {
            return false;
        };
        self.seat = seat;
        self.stop_reading();
        self.tally
            .borrow_mut()
            .note(now, Subject::Session, UNREAD_FROM_HERE);
        // So that the new seat is asked, too.
        self.wake();
        true
    }

    /// What passes at once is no longer read, if it is on a seat of those that are not.
    pub(in super::super) fn stop_reading(&mut self) {
        let Inspection::Following(connection) = &mut self.inspection else {
            return;
        };
        if !connection.observes() || !self.seat.is_unread() {
            return;
        }
        // An answer that is completed for what was refused before has to go on as it is.
        for side in [Sender::Client, Sender::Server] {
            connection.end(side, &mut |output| match output {
                Output::ToServer(bytes) => self.server.backlog.extend_from_slice(bytes),
                Output::ToClient(bytes) => self.client.backlog.extend_from_slice(bytes),
                _ => {}
            });
        }
        self.inspection = Inspection::Passing;
    }

    /// Takes up what another process left, under the policy of now.
    pub(in super::super) fn review(&mut self, found: &TupleRules, mode: Mode) {
        self.unlimited = !matches!(found, TupleRules::Only(_));
        match self.stands_under(found, mode) {
            true => self.take_leave(Connection::review, ConnectionEnd::Revoked),
            false => self.revoke(),
        }
    }

    /// Has the connection say what is to be said now, although no side sent anything.
    fn take_leave(&mut self, ask: fn(&mut Connection, &mut Sink<'_>), end: ConnectionEnd) {
        let Self {
            inspection: Inspection::Following(connection),
            client,
            server,
            tally,
            unlimited,
            ..
        } = self
        else {
            return;
        };
        let (now, mut closed) = (super::super::now(), None);
        ask(connection, &mut |output| match output {
            Output::ToServer(bytes) => server.backlog.extend_from_slice(bytes),
            Output::ToClient(bytes) => client.backlog.extend_from_slice(bytes),
            Output::Close { reset } => closed = Some(reset),
            // The policy permits it still.
            Output::Deviation { .. } if matches!(end, ConnectionEnd::Withdrawn(_)) => {}
            told if !*unlimited => super::tell(&mut tally.borrow_mut(), now, &told),
            _ => {}
        });
        match closed {
            None => {}
            Some(true) => self.cut = Some(end),
            Some(false) if self.closing.is_none() => self.close_as(end),
            Some(false) => {}
        }
    }

    /// Whether a policy that says this lets it go on: between zones that only observe, whatever it says. It says it of this connection
    /// as it is: whose TLS ends elsewhere, or before a server that is known by something else, is another connection.
    pub(in super::super) fn stands_under(&self, found: &TupleRules, mode: Mode) -> bool {
        match found {
            _ if mode == Mode::Observe => true,
            // The kernel lets nothing of it by.
            TupleRules::Nothing | TupleRules::Unusable(_) => false,
            TupleRules::Anything => true,
            TupleRules::Only(set) if self.seat.is_unread() => set.passes_unread(mode),
            TupleRules::Only(set) => set.tls == self.tls,
        }
    }

    /// From the next read on, what the policy says now holds.
    pub(in super::super) fn apply(&mut self, found: &TupleRules, mode: Mode) {
        if !self.stands_under(found, mode) {
            return self.revoke();
        }
        let (client, server) = (&mut self.client, &mut self.server);
        let mut let_go = |output: Output<'_>| match output {
            Output::ToServer(bytes) => server.backlog.extend_from_slice(bytes),
            Output::ToClient(bytes) => client.backlog.extend_from_slice(bytes),
            _ => {}
        };
        match (found, &mut self.inspection) {
            (TupleRules::Nothing | TupleRules::Anything | TupleRules::Unusable(_), Inspection::Passing) => {}
            (TupleRules::Only(set), Inspection::Passing) if set.rules.is_none() => {}
            // It is followed on, so that a later policy may limit it again.
            (
                TupleRules::Nothing | TupleRules::Anything | TupleRules::Unusable(_),
                Inspection::Following(connection),
            ) => {
                connection.set_terms(Mode::Observe, OnRefusal::Answer, &mut let_go);
                self.unlimited = true;
            }
            (TupleRules::Only(_), Inspection::Passing) if mode == Mode::Observe || self.seat.is_unread() => {}
            (TupleRules::Only(_), Inspection::Passing) => self.cut = Some(ConnectionEnd::Unfollowed),
            (TupleRules::Only(_), Inspection::Following(connection))
                if mode == Mode::Enforce && connection.is_guessed() =>
            {
                self.unlimited = false;
                self.take_leave(Connection::leave_unfollowed, ConnectionEnd::Unfollowed);
            }
            (TupleRules::Only(set), Inspection::Following(connection)) => {
                connection.set_terms(mode, set.on_refusal, &mut let_go);
                let Some(rules) = &set.rules else {
                    // As where nothing is limited.
                    connection.set_terms(Mode::Observe, OnRefusal::Answer, &mut let_go);
                    self.unlimited = true;
                    return self.wake();
                };
                connection.set_rules(Arc::clone(rules));
                // Of another protocol, they give up what was held to be completed.
                connection.settle(&mut let_go);
                self.unlimited = false;
                if connection.is_closed() && self.closing.is_none() && self.cut.is_none() {
                    self.take_leave(Connection::leave_closed, ConnectionEnd::Revoked);
                }
                self.take_leave(Connection::review, ConnectionEnd::Revoked);
            }
        }
        if mode == Mode::Observe
            && self.seat.is_unread()
            && let Some(seat) = self.seat.observed(super::super::now())
        {
            self.seat = seat;
        }
        self.foretell(found, mode);
        self.wake();
    }

    /// Judges it by the next plan too, or no longer; `flow` is the one in force.
    pub(in super::super) fn shadow(&mut self, next: Option<&Arc<InspectedShadow>>, flow: Option<FlowId>) {
        let judged = match &self.inspection {
            Inspection::Following(connection) => Some(connection),
            Inspection::Passing => None,
        };
        let carried = (judged, self.tls.as_ref(), self.seat.is_unread());
        let beside = next.and_then(|next| Beside::begin(next, (&self.tuple, flow), carried));
        self.beside = beside.map(Box::new);
    }

    /// Foretells what enforcing would do to it.
    pub(in super::super) fn foretell(&self, found: &TupleRules, mode: Mode) {
        let carried = (&self.inspection, self.is_inside_tls());
        if let Some((what, why)) = foretold(found, mode, carried) {
            self.tally.borrow_mut().would_end(super::super::now(), what, &why);
        }
    }
}
