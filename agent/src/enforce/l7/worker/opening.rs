//! From an accepted connection to one whose both legs stand: the limits, the policy, the server.
//!
//! Until then, whatever goes wrong is a reset to the client, and is told.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::{Listed, Worker};
use crate::enforce::l7::leg::Leg;
use crate::enforce::l7::lookup::{Found, Policy};
use crate::enforce::l7::seats::Seat;
use crate::enforce::l7::session::{End, Inspection, Session};
use crate::enforce::l7::socket;
use crate::enforce::l7::tally::Tuple;

/// A server that has not answered in this time counts as unreachable.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A connection waits so long for a policy that is just being put in force.
const POLICY_MAX: Duration = Duration::from_secs(10);
/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose server is being asked; its leg is taken when both stand, or to be handed over.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) leg: Option<Leg>,
}

impl Worker {
    pub(super) async fn accept(self: Rc<Self>, listener: tokio::net::TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => self.arrived(stream, client),
                Err(error) => {
                    // Out of descriptors or memory, as a rule: a pause lets connections end.
                    tracing::warn!(%error, "an inspected connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn arrived(self: &Rc<Self>, stream: TcpStream, client: SocketAddr) {
        let Ok(server) = self.shared.way.destination(&stream) else {
            return;
        };
        let tuple = Tuple {
            client: client.ip(),
            server,
        };
        let seat = match self.shared.seats.take(client.ip()) {
            Ok(seat) => seat,
            Err(full) => {
                Leg::plain(stream).reset_on_close();
                self.note(tuple, &full.to_string());
                return;
            }
        };
        spawn_local(Rc::clone(self).serve(stream, client, tuple, seat));
    }

    pub(super) async fn serve(
        self: Rc<Self>,
        stream: TcpStream,
        client: SocketAddr,
        tuple: Tuple,
        seat: Seat,
    ) {
        // Until both legs stand, whatever goes wrong is a reset to the client.
        let settled = socket::settle(&SockRef::from(&stream));
        let opening = Rc::new(RefCell::new(Opening {
            client,
            server: tuple.server,
            leg: Some(Leg::plain(stream)),
        }));
        let id = self.next_id();
        self.openings.borrow_mut().insert(id, Rc::clone(&opening));
        let listed = Listed::Opening(&self, id);
        let opened = match settled {
            Ok(()) => self.open(client, tuple).await,
            Err(error) => Err(format!("connection reset: {error}")),
        };
        drop(listed);
        // Without the leg, another process goes on with it.
        let Some(leg) = opening.borrow_mut().leg.take() else {
            return;
        };
        match opened {
            Ok((server, policy)) => {
                let found = policy.find(tuple.client, tuple.server);
                let mode = policy.mode(tuple.client, tuple.server.ip());
                let inspection = match &found {
                    Found::Only(set) => Ok(Session::inspection(set, mode)),
                    Found::Anything => Ok(Inspection::Passing),
                    // It was permitted when the server was asked.
                    Found::Nothing | Found::Unusable(_) => Err(End::Revoked),
                };
                let legs = (leg, Leg::plain(server));
                if let Some(session) = self.begin((client, tuple), legs, inspection, seat) {
                    self.note(tuple, "connection opened");
                    self.carry(session).await;
                }
            }
            Err(why) => {
                leg.reset_on_close();
                self.note(tuple, &why);
            }
        }
    }

    /// A session, unless nothing may pass: then both sides are reset, and it is told.
    pub(super) fn begin(
        &self,
        (client, tuple): (SocketAddr, Tuple),
        legs: (Leg, Leg),
        inspection: Result<Inspection, End>,
        seat: Seat,
    ) -> Option<Session> {
        let reset = |(client, server): &(Leg, Leg)| {
            client.reset_on_close();
            server.reset_on_close();
        };
        let inspection = match inspection {
            Ok(inspection) => inspection,
            Err(end) => {
                reset(&legs);
                self.note(tuple, end.words());
                return None;
            }
        };
        let Some(tally) = self.tally(tuple) else {
            reset(&legs);
            self.untold();
            return None;
        };
        Some(Session::new((client, tuple), legs, inspection, tally, seat))
    }

    /// Asks the policy, and the server.
    async fn open(&self, client: SocketAddr, tuple: Tuple) -> Result<(TcpStream, Arc<Policy>), String> {
        let refused = |found: &Found| match found {
            Found::Nothing => Some("connection reset: no flow permits it".to_owned()),
            Found::Unusable(error) => Some(format!("connection reset: {error}")),
            Found::Anything | Found::Only(_) => None,
        };
        let policy = self.settled_policy().await?;
        if let Some(refused) = refused(&policy.find(tuple.client, tuple.server)) {
            return Err(refused);
        }
        let server = tuple.server;
        let socket = self
            .shared
            .way
            .towards(client, server)
            .map_err(|error| format!("connection reset: no socket towards the server: {error}"))?;
        let connected = tokio::time::timeout(CONNECT_MAX, socket.connect(server)).await;
        match connected {
            Ok(Ok(stream)) => Ok((stream, self.settled_policy().await?)),
            Ok(Err(error)) => Err(format!(
                "connection reset, as the server cannot be reached: {error}"
            )),
            Err(_) => Err(format!(
                "connection reset, as the server did not answer for {} s",
                CONNECT_MAX.as_secs()
            )),
        }
    }

    /// The policy in force; while it is being changed, what comes after.
    async fn settled_policy(&self) -> Result<Arc<Policy>, String> {
        let mut settled = self.settled.subscribe();
        let waiting = settled.wait_for(Option::is_some);
        match tokio::time::timeout(POLICY_MAX, waiting).await {
            Ok(Ok(policy)) => policy.clone().ok_or_else(String::new),
            _ => Err("connection reset: no policy is in force".to_owned()),
        }
    }
}
