//! From an accepted connection to one whose both legs stand: the limits, the policy, the server.
//!
//! Until then, whatever goes wrong is a reset to the client, and is told. Where TLS ends here, there is more to it:
//! `inside_tls`.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use penstock_inspect::connection::Mode;
use penstock_policy::terms::Tls;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::{ListEntry, Worker, now};
use crate::inspector;
use crate::inspector::leg::Leg;
use crate::inspector::lookup::{InspectionPolicy, TupleRules};
use crate::inspector::seats::{Full, Seat};
use crate::inspector::session::{ConnectionEnd, Inspection, Lives, Session, UNREAD_FROM_HERE};
use crate::inspector::socket;
use crate::inspector::tuple::Tuple;

/// A server that has not answered in this time counts as unreachable.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A connection waits so long for a policy that is just being put in force.
const POLICY_MAX: Duration = Duration::from_secs(10);
/// So long a client between zones that only observe may take to show that it speaks TLS, where that ends here.
const FIRST_MAX: Duration = Duration::from_secs(1);
/// Time between two looks.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// What is told of a connection for which there was no descriptor.
const NO_DESCRIPTOR: &str =
    "connection reset: the agent has no file descriptor left (LimitNOFILE of its unit)";
/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose server is being asked; its leg is taken when both stand, or to be handed over.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) leg: Option<Leg>,
}

/// What a policy says of a connection.
#[derive(Debug)]
pub(super) struct PolicyAnswer {
    policy: Arc<InspectionPolicy>,
    mode: Mode,
    found: TupleRules,
}

impl PolicyAnswer {
    pub(super) fn of(policy: Arc<InspectionPolicy>, tuple: &Tuple) -> Self {
        Self {
            mode: policy.mode(tuple.client, tuple.server.ip()),
            found: policy.find_for(tuple),
            policy,
        }
    }

    /// What the policy says of its TLS, where that ends here. Between zones that only observe it does so only before a server that could
    /// not answer it, and if the client really speaks TLS: who does not passes as ever.
    async fn tls(&self, opening: &RefCell<Opening>) -> Option<Arc<Tls>> {
        let TupleRules::Only(set) = &self.found else {
            return None;
        };
        let tls = set.tls.as_ref()?;
        let ends = match self.mode {
            Mode::Enforce => true,
            Mode::Observe => tls.plain_port.is_some() && begins_tls(opening).await,
        };
        ends.then(|| Arc::clone(tls))
    }
}

/// Whether a client's first bytes begin TLS. One that says nothing for a while waits for its server, which TLS never does.
async fn begins_tls(opening: &RefCell<Opening>) -> bool {
    let seen = async {
        loop {
            let begins = opening.borrow().leg.as_ref().map(Leg::begins_tls);
            match begins {
                // Another process goes on with it.
                None => return false,
                Some(Some(begins)) => return begins,
                Some(None) => tokio::time::sleep(FIRST_LOOK).await,
            }
        }
    };
    tokio::time::timeout(FIRST_MAX, seen).await.unwrap_or(false)
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Worker {
    pub(super) async fn accept(self: Rc<Self>, listener: tokio::net::TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => self.arrived(stream, client),
                Err(error) if is_out_of_descriptors(&error) => self.turn_away(&listener).await,
                Err(error) => {
                    // Out of memory, as a rule: a pause lets connections end.
                    tracing::warn!(%error, "an inspected connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Resets the connection that comes next, by the descriptor in reserve: a client learns at once that there is no room,
    /// instead of waiting where nobody will read its request.
    async fn turn_away(&self, listener: &tokio::net::TcpListener) {
        let mut reserve = self.shared.reserve.lock().await;
        drop(reserve.take());
        // Another thread may have been quicker with what came.
        if let Ok(Ok((stream, client))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
            self.shared.turned_away.fetch_add(1, Ordering::Relaxed);
            let server = self.shared.way.destination(&stream);
            Leg::plain(stream).reset_on_close();
            if let Ok(server) = server {
                let tuple = Tuple {
                    client: client.ip(),
                    server,
                    device: None,
                    role: None,
                };
                self.note(&tuple, NO_DESCRIPTOR);
            }
        }
        *reserve = inspector::reserve();
        if reserve.is_none() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    fn arrived(self: &Rc<Self>, stream: TcpStream, client: SocketAddr) {
        let Ok(server) = self.shared.way.destination(&stream) else {
            return;
        };
        let tuple = Tuple {
            client: client.ip(),
            server,
            device: None,
            role: None,
        };
        match self.seat(client, server) {
            Ok((seat, unread)) => {
                if let Some(full) = unread {
                    self.note(&tuple, &format!("connection passes unread: {full}"));
                }
                spawn_local(Rc::clone(self).serve(stream, client, tuple, seat));
            }
            Err(full) => {
                Leg::plain(stream).reset_on_close();
                self.note(&tuple, &format!("connection reset: {full}"));
            }
        }
    }

    /// A seat for a connection; where there is none and the policy lets the flow go on without the inspector, one to be carried
    /// on unread, and why.
    pub(super) fn seat(&self, client: SocketAddr, server: SocketAddr) -> Result<(Seat, Option<Full>), Full> {
        let policy = self.policy.borrow();
        let claim = policy.as_ref().map(|policy| policy.claim(client.ip(), server));
        let claim = claim.unwrap_or_default();
        let seats = &self.shared.seats;
        seats.take_or_pass(client, claim, now())
    }

    pub(super) async fn serve(
        self: Rc<Self>,
        stream: TcpStream,
        client: SocketAddr,
        tuple: Tuple,
        mut seat: Seat,
    ) {
        let settled = match self.shared.settles_each {
            true => socket::settle(&SockRef::from(&stream)),
            false => Ok(()),
        };
        let opening = Rc::new(RefCell::new(Opening {
            client,
            server: tuple.server,
            leg: Some(Leg::plain(stream)),
        }));
        let id = self.next_id();
        self.openings.borrow_mut().insert(id, Rc::clone(&opening));
        let listed = ListEntry::Opening(&self, id);
        let asked = match settled {
            Ok(()) => self.ask(&tuple).await,
            Err(error) => Err(format!("connection reset: {error}")),
        };
        let take = |opening: &RefCell<Opening>| opening.borrow_mut().leg.take();
        let tls = match &asked {
            Ok(said) => said.tls(&opening).await,
            Err(_) => None,
        };
        let (opened, said) = match asked {
            Ok(_) if seat.is_unread() && tls.as_ref().is_some_and(|tls| tls.plain_port.is_some()) => {
                // Nobody but this gateway could answer it.
                (Err(ConnectionEnd::Crowded.words().into_owned()), None)
            }
            Ok(said) if let Some(tls) = tls.filter(|_| !seat.is_unread()) => {
                drop(listed);
                let policy = said.policy;
                if let Some(stream) = take(&opening).and_then(Leg::into_plain) {
                    // Apart, so that connections in the plain have no room for it.
                    Box::pin(self.serve_inside_tls(stream, (client, tuple), (policy, tls), seat)).await;
                }
                return;
            }
            Ok(said) => (self.reach_seated((client, &tuple), &mut seat).await, Some(said)),
            Err(why) => (Err(why), None),
        };
        let opened = match opened {
            Ok(server) => self.settled_policy().await.map(|policy| (server, policy)),
            Err(why) => Err(why),
        };
        drop(listed);
        // Without the leg, another process goes on with it.
        let Some(leg) = take(&opening) else {
            return;
        };
        match opened {
            Ok((server, policy)) => {
                let legs = (leg, Leg::plain(server));
                // As a rule it is the same that was asked.
                let said = said.filter(|said| Arc::ptr_eq(&said.policy, &policy));
                let said = said.unwrap_or_else(|| PolicyAnswer::of(policy, &tuple));
                self.stand((client, tuple), legs, None, said, seat).await;
            }
            Err(why) => {
                leg.reset_on_close();
                self.note(&tuple, &why);
            }
        }
    }

    /// Carries a connection whose both legs stand, under the policy as it is now.
    pub(super) async fn stand(
        self: Rc<Self>,
        (client, tuple): (SocketAddr, Tuple),
        legs: (Leg, Leg),
        inside: Option<(Arc<Tls>, Box<Lives>)>,
        PolicyAnswer { mode, found, .. }: PolicyAnswer,
        seat: Seat,
    ) {
        let (tls, lives) = inside.unzip();
        let passes_by = tls.is_none() && mode == Mode::Observe;
        let inspection = match &found {
            TupleRules::Only(set) if seat.is_unread() && set.passes_unread(mode) => Ok(Inspection::Passing),
            TupleRules::Only(_) if seat.is_unread() => Err(ConnectionEnd::Crowded),
            TupleRules::Only(set) if set.tls == tls => Ok(Session::inspection(set, mode)),
            TupleRules::Anything if tls.is_none() => Ok(Inspection::Passing),
            _ if passes_by => Ok(Inspection::Passing),
            // It was permitted when the server was asked.
            _ => Err(ConnectionEnd::Revoked),
        };
        if let Some(session) = self.begin((client, tuple), legs, inspection, seat) {
            match tls.as_ref().and_then(|tls| tls.plain_port) {
                None => self.note(&session.tuple, "connection opened"),
                Some(port) => self.note(
                    &session.tuple,
                    &format!("connection opened: its TLS ends here, and it goes on in the plain to the server's port {port}"),
                ),
            }
            let mut session = session.inside(tls, lives);
            session.foretell(&found, mode);
            // A list may have come since the handshakes: from here on this thread's walk over its sessions finds it.
            if let Some(own) = self.shared.own.get() {
                session.heed(|life| own.ends(life), mode);
            }
            self.carry(session).await;
        }
    }

    /// A session, unless nothing may pass: then both sides are reset, and it is told.
    pub(super) fn begin(
        &self,
        (client, tuple): (SocketAddr, Tuple),
        legs: (Leg, Leg),
        inspection: Result<Inspection, ConnectionEnd>,
        seat: Seat,
    ) -> Option<Session> {
        let reset = |(client, server): &(Leg, Leg)| {
            client.reset_on_close();
            server.reset_on_close();
        };
        let inspection = match inspection {
            Ok(inspection) => inspection.remembering(&self.shared.memory, &tuple),
            Err(end) => {
                reset(&legs);
                self.note(&tuple, &end.words());
                return None;
            }
        };
        let observes =
            |policy: &Arc<InspectionPolicy>| policy.mode(tuple.client, tuple.server.ip()) == Mode::Observe;
        let (tally, inspection) = match self.tally(&tuple) {
            Some(tally) => (tally, inspection),
            // What is only observed goes on uncounted, for want of a place to count it.
            None if self.policy.borrow().as_ref().is_some_and(observes) => {
                self.untold();
                (Rc::default(), Inspection::Passing)
            }
            None => {
                reset(&legs);
                self.untold();
                return None;
            }
        };
        Some(Session::new((client, tuple), legs, inspection, tally, seat))
    }

    /// Asks the policy whether it may be opened.
    async fn ask(&self, tuple: &Tuple) -> Result<PolicyAnswer, String> {
        let said = PolicyAnswer::of(self.settled_policy().await?, tuple);
        match &said.found {
            // What only observes cuts nobody: also whom the kernel handed over by the policy before, and a client that is not ready
            // for TLS to end here.
            _ if said.mode == Mode::Observe => Ok(said),
            TupleRules::Nothing => Err("connection reset: no flow permits it".to_owned()),
            TupleRules::Unusable(error) => Err(format!("connection reset: {error}")),
            TupleRules::Anything | TupleRules::Only(_) => Ok(said),
        }
    }

    /// Reaches the server, unless the seat is lost meanwhile. What is only observed goes on unread then.
    async fn reach_seated(
        &self,
        (client, tuple): (SocketAddr, &Tuple),
        seat: &mut Seat,
    ) -> Result<TcpStream, String> {
        let mut reached = pin!(self.reach(client, tuple.server));
        loop {
            let end = tokio::select! {
                reached = &mut reached => return reached,
                end = seat.lost() => end,
            };
            let policy = self.policy.borrow().clone();
            let mode = policy.map(|policy| policy.mode(tuple.client, tuple.server.ip()));
            let other = (mode == Some(Mode::Observe)).then(|| seat.observed_instead(end, now()));
            match other.flatten() {
                Some(other) => *seat = other,
                None => return Err(end.words().into_owned()),
            }
            self.note(tuple, UNREAD_FROM_HERE);
        }
    }

    /// Reaches the server, from the client's address.
    pub(super) async fn reach(&self, client: SocketAddr, server: SocketAddr) -> Result<TcpStream, String> {
        let seats = &self.shared.seats;
        let socket = self
            .shared
            .way
            .towards(client, server, |from| seats.is_used(from))
            .map_err(|error| {
                if is_out_of_descriptors(&error) {
                    self.shared.turned_away.fetch_add(1, Ordering::Relaxed);
                    return NO_DESCRIPTOR.to_owned();
                }
                format!("connection reset: no socket to the server can be opened: {error}")
            })?;
        match tokio::time::timeout(CONNECT_MAX, socket.connect(server)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("connection reset: the server cannot be reached: {error}")),
            Err(_) => Err(format!(
                "connection reset: the server did not answer for {} s",
                CONNECT_MAX.as_secs()
            )),
        }
    }

    /// The policy in force; while it is being changed, what comes after.
    pub(super) async fn settled_policy(&self) -> Result<Arc<InspectionPolicy>, String> {
        if let Some(policy) = &*self.settled.borrow() {
            return Ok(Arc::clone(policy));
        }
        let mut settled = self.settled.subscribe();
        let waiting = settled.wait_for(Option::is_some);
        match tokio::time::timeout(POLICY_MAX, waiting).await {
            Ok(Ok(policy)) => policy.clone().ok_or_else(String::new),
            _ => Err("connection reset: no policy is in force".to_owned()),
        }
    }
}
