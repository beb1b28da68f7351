//! What a thread leaves to the next process before a planned restart, and takes up after one.

use std::rc::Rc;
use std::time::Duration;

use penstock_inspect::connection::Mode;
use tokio::task::spawn_local;

use super::{Worker, now};
use crate::inspector::handover::{self, Each, FrozenConnection, Parcel};
use crate::inspector::leg::Leg;
use crate::inspector::lookup::TupleRules;
use crate::inspector::session::Session;
use crate::inspector::tuple::Tuple;

/// Connections inside TLS, which are not handed over, have this long to end.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Pause between two looks whether they have.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

impl Worker {
    /// Goes on with connections that another process left.
    pub(super) fn adopt(self: &Rc<Self>, parcels: Vec<Parcel>) {
        for parcel in parcels {
            let FrozenConnection {
                client,
                server,
                relay,
            } = parcel.frozen;
            let tuple = Tuple {
                client: client.ip(),
                server,
                device: None,
                role: None,
            };
            let opened = self
                .seat(client, server)
                .map_err(|full| format!("connection reset: {full}"));
            let sockets = handover::stream(parcel.client)
                .and_then(|client| Ok((client, parcel.server.map(handover::stream).transpose()?)))
                .map_err(|error| format!("connection lost with the restart: {error}"));
            let (mut seat, unread, sockets) =
                match opened.and_then(|(seat, unread)| Ok((seat, unread, sockets?))) {
                    Ok(parts) => parts,
                    Err(why) => {
                        self.note(&tuple, &why);
                        continue;
                    }
                };
            if let Some(full) = unread {
                self.note(&tuple, &format!("connection passes unread: {full}"));
            }
            match (sockets, relay) {
                ((stream, None), _) => drop(spawn_local(Rc::clone(self).serve(stream, client, tuple, seat))),
                ((stream, Some(towards)), Some(relay)) => {
                    let policy = self.policy.borrow().clone();
                    let (found, mode) = match &policy {
                        Some(policy) => {
                            let mode = policy.mode(tuple.client, server.ip());
                            (policy.find_for(&tuple), mode)
                        }
                        None => (TupleRules::Nothing, Mode::Enforce),
                    };
                    let thawed = Session::thawed(&found, mode, relay.connection.as_deref());
                    let (inspection, held) = match thawed {
                        Ok((inspection, held)) => (Ok(inspection), held),
                        Err(end) => (Err(end), Each::default()),
                    };
                    let legs = (Leg::plain(stream), Leg::plain(towards));
                    // Nobody knows any more whether something was asked on it: a restart takes nobody's seat away.
                    seat.works();
                    if let Some(session) = self.begin((client, tuple), legs, inspection, seat) {
                        self.note(&session.tuple, "connection goes on after the agent's restart");
                        session.foretell(&found, mode);
                        let mut session = session.before(held).thaw(relay);
                        session.review(&found, mode);
                        session.stop_reading();
                        spawn_local(Rc::clone(self).carry(session));
                    }
                }
                // Legs and state fit together, or they would not be a parcel.
                ((_, Some(_)), None) => {}
            }
        }
    }

    /// Ends what is inside TLS, in order: its keys cannot be handed over.
    pub(super) async fn drain(&self) {
        let begun = now();
        while self.is_inside_tls() && now().saturating_sub(begun) < DRAIN_MAX {
            // What came before this is carried first, which takes a look at the sockets.
            tokio::time::sleep(DRAIN_LOOK).await;
            for session in self.sessions.borrow().values() {
                let mut session = session.borrow_mut();
                if session.is_inside_tls() {
                    session.drain();
                }
            }
        }
    }

    /// Whether a session is.
    fn is_inside_tls(&self) -> bool {
        let sessions = self.sessions.borrow();
        sessions.values().any(|session| session.borrow().is_inside_tls())
    }

    /// Stops everything that is carried, and gives it.
    pub(super) fn freeze(&self) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        for session in self.sessions.borrow().values() {
            let mut session = session.borrow_mut();
            let (client, server) = (session.client_address(), session.tuple.server);
            match session.freeze() {
                Ok(Some((relay, to_client, to_server))) => parcels.push(Parcel {
                    frozen: FrozenConnection {
                        client,
                        server,
                        relay: Some(relay),
                    },
                    client: to_client,
                    server: Some(to_server),
                }),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, %client, %server, "a connection cannot be handed over"),
            }
        }
        for opening in self.openings.borrow().values() {
            let mut opening = opening.borrow_mut();
            let (client, server) = (opening.client, opening.server);
            let Some(leg) = opening.leg.take() else { continue };
            match leg.socket() {
                Ok(socket) => parcels.push(Parcel {
                    frozen: FrozenConnection {
                        client,
                        server,
                        relay: None,
                    },
                    client: socket,
                    server: None,
                }),
                Err(error) => tracing::warn!(%error, %client, %server, "a connection cannot be handed over"),
            }
        }
        parcels
    }
}
