//! One thread of the inspector: accepts connections and carries them, alone with its own run time.
//!
//! Everything here is single-threaded: the connections, their tallies and the shared buffers need no lock. The thread
//! learns of another policy by [`Regime`], and says by its `applied` number when all its connections are under it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;

use super::handover::{self, Frozen, Parcel};
use super::leg::Leg;
use super::lookup::{Found, Policy};
use super::seats::Seat;
use super::session::{End, Inspection, Scratch, Session};
use super::tally::{Subject, Tally, Told, Tuple};
use super::{OperationSeen, Shared, now, socket};
use crate::clock;
use crate::enforce::{LossCause, Observed};

/// How often due events are handed on.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two looks after half-closed connections.
const LOOK_TICKS: u64 = 30;
/// A server that has not answered in this time counts as unreachable.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A connection waits so long for a policy that is just being put in force.
const POLICY_MAX: Duration = Duration::from_secs(10);
/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Tuples that a thread counts apart.
const TALLIES_MAX: usize = 4096;

/// The policy as the threads know it.
#[derive(Debug, Clone, Default)]
pub(super) struct Regime {
    /// The one in force.
    pub policy: Option<Arc<Policy>>,
    /// The kernel is being brought to this one: new connections wait, and what it does not permit ends.
    pub coming: Option<Arc<Policy>>,
    /// Grows with each change.
    pub number: u64,
}

/// What a thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Go on with connections that another process left. The policy is there.
    Adopt(Vec<Parcel>),
    /// Stop carrying, and give all connections.
    Freeze(oneshot::Sender<Vec<Parcel>>),
}

/// A connection whose server is being asked; its leg is taken when both stand, or to be handed over.
#[derive(Debug)]
struct Opening {
    client: SocketAddr,
    server: SocketAddr,
    leg: Option<Leg>,
}

/// The state of one thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// The policy that all connections of this thread are under; none while the kernel is being changed.
    settled: watch::Sender<Option<Arc<Policy>>>,
    policy: RefCell<Option<Arc<Policy>>>,
    sessions: RefCell<HashMap<u64, Rc<RefCell<Session>>>>,
    openings: RefCell<HashMap<u64, Rc<RefCell<Opening>>>>,
    tallies: RefCell<HashMap<Tuple, Rc<RefCell<Tally>>>>,
    scratch: RefCell<Scratch>,
    next: Cell<u64>,
}

/// Runs a thread's work until nobody can command it any more.
pub(super) async fn run(
    shared: Arc<Shared>,
    regime: watch::Receiver<Regime>,
    listeners: Vec<TcpListener>,
    applied: watch::Sender<u64>,
    mut commands: mpsc::Receiver<Command>,
) -> io::Result<()> {
    let worker = Rc::new(Worker {
        shared,
        policy: RefCell::new(None),
        settled: watch::channel(None).0,
        sessions: RefCell::default(),
        openings: RefCell::default(),
        tallies: RefCell::default(),
        scratch: RefCell::default(),
        next: Cell::new(0),
    });
    let mut tasks = tokio::task::JoinSet::new();
    let mut accepting = Vec::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.push(tasks.spawn_local(Rc::clone(&worker).accept(listener)));
    }
    tasks.spawn_local(Rc::clone(&worker).follow(regime, applied));
    tasks.spawn_local(Rc::clone(&worker).tick());
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Adopt(parcels)) => worker.adopt(parcels),
                Some(Command::Freeze(answer)) => {
                    for task in &accepting {
                        task.abort();
                    }
                    let _ = answer.send(worker.freeze());
                    worker.tell_all();
                }
                None => break,
            },
            // None of these ends by itself; one that failed takes the thread with it, and the thread is begun anew.
            ended = tasks.join_next() => match ended {
                Some(Err(error)) if !error.is_cancelled() => return Err(io::Error::other(error)),
                _ => {}
            },
        }
    }
    worker.tell_all();
    Ok(())
}

impl Worker {
    async fn accept(self: Rc<Self>, listener: tokio::net::TcpListener) {
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

    async fn serve(self: Rc<Self>, stream: TcpStream, client: SocketAddr, tuple: Tuple, seat: Seat) {
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
    fn begin(
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

    /// Goes on with connections that another process left.
    fn adopt(self: &Rc<Self>, parcels: Vec<Parcel>) {
        for parcel in parcels {
            let Frozen {
                client,
                server,
                relay,
            } = parcel.frozen;
            let tuple = Tuple {
                client: client.ip(),
                server,
            };
            let opened = self
                .shared
                .seats
                .take(client.ip())
                .map_err(|full| full.to_string());
            let sockets = handover::stream(parcel.client)
                .and_then(|client| Ok((client, parcel.server.map(handover::stream).transpose()?)))
                .map_err(|error| format!("connection lost with the restart: {error}"));
            let (seat, sockets) = match opened.and_then(|seat| Ok((seat, sockets?))) {
                Ok(parts) => parts,
                Err(why) => {
                    self.note(tuple, &why);
                    continue;
                }
            };
            match (sockets, relay) {
                ((stream, None), _) => drop(spawn_local(Rc::clone(self).serve(stream, client, tuple, seat))),
                ((stream, Some(towards)), Some(relay)) => {
                    let policy = self.policy.borrow().clone();
                    let inspection = match &policy {
                        Some(policy) => {
                            let mode = policy.mode(tuple.client, server.ip());
                            let found = policy.find(tuple.client, server);
                            Session::thawed(&found, mode, relay.connection.as_deref())
                        }
                        None => Err(End::Revoked),
                    };
                    let legs = (Leg::plain(stream), Leg::plain(towards));
                    if let Some(session) = self.begin((client, tuple), legs, inspection, seat) {
                        self.note(tuple, "connection goes on after the agent's restart");
                        spawn_local(Rc::clone(self).carry(session.thaw(relay)));
                    }
                }
                // Legs and state fit together, or they would not be a parcel.
                ((_, Some(_)), None) => {}
            }
        }
    }

    /// Stops everything that is carried, and gives it.
    fn freeze(&self) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        for session in self.sessions.borrow().values() {
            let mut session = session.borrow_mut();
            let (client, server) = (session.client_address(), session.tuple.server);
            match session.freeze() {
                Ok(Some((relay, to_client, to_server))) => parcels.push(Parcel {
                    frozen: Frozen {
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
                    frozen: Frozen {
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

    fn next_id(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    fn untold(&self) {
        self.shared.outbox.put(Observed::Lost {
            packets: 1,
            cause: LossCause::TableFull,
        });
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

    /// Lists a session, so that the next change of policy finds it, and carries it to its end.
    fn carry(self: Rc<Self>, session: Session) -> impl Future<Output = ()> {
        let id = self.next_id();
        let tuple = session.tuple;
        let session = Rc::new(RefCell::new(session));
        self.sessions.borrow_mut().insert(id, Rc::clone(&session));
        async move {
            let _listed = Listed::Session(&self, id);
            let end =
                std::future::poll_fn(|cx| session.borrow_mut().poll(cx, &mut self.scratch.borrow_mut()))
                    .await;
            self.note(tuple, end.words());
        }
    }

    fn note(&self, tuple: Tuple, text: &str) {
        match self.tally(tuple) {
            Some(tally) => tally.borrow_mut().note(now(), Subject::Session, text),
            None => self.untold(),
        }
    }

    /// The tally of a tuple; `None` if too many are in use.
    fn tally(&self, tuple: Tuple) -> Option<Rc<RefCell<Tally>>> {
        let mut tallies = self.tallies.borrow_mut();
        if let Some(tally) = tallies.get(&tuple) {
            return Some(Rc::clone(tally));
        }
        if tallies.len() >= TALLIES_MAX {
            tallies.retain(|_, tally| Rc::strong_count(tally) > 1 || !tally.borrow().is_silent());
        }
        if tallies.len() >= TALLIES_MAX {
            return None;
        }
        let tally = Rc::new(RefCell::new(Tally::default()));
        if let Some(policy) = &*self.policy.borrow() {
            set_rules(&tally, policy, tuple);
        }
        tallies.insert(tuple, Rc::clone(&tally));
        Some(tally)
    }

    /// Brings standing connections under each new policy.
    async fn follow(self: Rc<Self>, mut regime: watch::Receiver<Regime>, applied: watch::Sender<u64>) {
        loop {
            let Regime {
                policy,
                coming,
                number,
            } = regime.borrow_and_update().clone();
            let same = match (&policy, &*self.policy.borrow()) {
                (Some(new), Some(old)) => Arc::ptr_eq(new, old),
                (None, None) => true,
                _ => false,
            };
            if !same {
                // What was counted was judged by the policy before.
                self.tell_all();
                self.policy.replace(policy.clone());
                if let Some(policy) = &policy {
                    for (tuple, tally) in self.tallies.borrow().iter() {
                        set_rules(tally, policy, *tuple);
                    }
                    for session in self.sessions.borrow().values() {
                        apply(&mut session.borrow_mut(), policy);
                    }
                }
            }
            // Once the kernel has it, a reset of what it does not permit would reach nobody.
            if let Some(coming) = &coming {
                self.settled.send_replace(None);
                for session in self.sessions.borrow().values() {
                    let mut session = session.borrow_mut();
                    let Tuple { client, server } = session.tuple;
                    if matches!(coming.find(client, server), Found::Nothing | Found::Unusable(_)) {
                        session.revoke();
                    }
                }
                // The sessions, woken, run before this goes on.
                tokio::task::yield_now().await;
            } else {
                self.settled.send_replace(policy);
            }
            applied.send_replace(number);
            if regime.changed().await.is_err() {
                return;
            }
        }
    }

    async fn tick(self: Rc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for count in 0_u64.. {
            tick.tick().await;
            self.tell(false);
            if count.is_multiple_of(LOOK_TICKS) {
                for session in self.sessions.borrow().values() {
                    session.borrow_mut().look_after();
                }
            }
        }
    }

    fn tell_all(&self) {
        self.tell(true);
    }

    fn tell(&self, all: bool) {
        let policy = self.policy.borrow();
        let Some(policy) = &*policy else { return };
        let (moment, clock_ms) = (now(), clock::now_ms());
        let mut told = Vec::new();
        for (tuple, tally) in self.tallies.borrow().iter() {
            tally.borrow_mut().take(moment, all, &mut told);
            if told.is_empty() {
                continue;
            }
            let (client_name, server_name) = policy.names(tuple.client, tuple.server);
            let ms = |at: Duration| {
                let ago = u64::try_from(moment.saturating_sub(at).as_millis()).unwrap_or(u64::MAX);
                clock_ms.saturating_sub(ago)
            };
            for told in told.drain(..) {
                let Told {
                    subject,
                    decision,
                    text,
                    reason,
                    flow,
                    protocol,
                    count,
                    first,
                    last,
                } = told;
                self.shared
                    .outbox
                    .put(Observed::Operation(Box::new(OperationSeen {
                        subject,
                        decision,
                        text,
                        reason,
                        flow,
                        protocol,
                        revision: policy.revision,
                        client: tuple.client,
                        client_name: client_name.clone(),
                        server: tuple.server,
                        server_name: server_name.clone(),
                        count,
                        first_ms: ms(first),
                        last_ms: ms(last),
                    })));
            }
        }
    }
}

/// A connection's place in a list, left however it ends.
enum Listed<'a> {
    Opening(&'a Worker, u64),
    Session(&'a Worker, u64),
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        match self {
            Self::Opening(worker, id) => drop(worker.openings.borrow_mut().remove(id)),
            Self::Session(worker, id) => drop(worker.sessions.borrow_mut().remove(id)),
        }
    }
}

fn set_rules(tally: &RefCell<Tally>, policy: &Policy, tuple: Tuple) {
    let set = match policy.find(tuple.client, tuple.server) {
        Found::Only(set) => Some(set),
        _ => None,
    };
    tally.borrow_mut().set_rules(set);
}

fn apply(session: &mut Session, policy: &Policy) {
    let Tuple { client, server } = session.tuple;
    session.apply(&policy.find(client, server), policy.mode(client, server.ip()));
}
