//! One thread of the inspector: accepts connections and carries them, alone with its own run time.
//!
//! Everything here is single-threaded: the connections, their tallies and the shared buffers need no lock. The thread
//! learns of another policy by [`Regime`], and says by its `applied` number when all its connections are under it.

mod inside_tls;
mod opening;
mod restart;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use penstock_policy::verdict::Decision;
use penstock_proto::withdrawn::Withdrawn;
use tokio::sync::{mpsc, oneshot, watch};

use self::opening::Opening;
use super::handover::Parcel;
use super::lookup::{InspectionPolicy, TupleRules};
use super::session::{Scratch, Session};
use super::shadow::InspectedShadow;
use super::tally::{Tally, TallyReport, TallyRoom};
use super::tuple::Tuple;
use super::{InspectorState, now, polling};
use crate::clock;
use crate::observed::{LossCause, Observation, OperationSeen, Subject};

/// A thread gives its sign of life, and hands on due events, no less often.
const TICK_MAX: Duration = Duration::from_secs(1);
/// Time between two looks after half-closed connections.
const LOOK: Duration = Duration::from_secs(30);
/// Tuples that a thread counts apart.
pub(super) const TALLIES_MAX: usize = 4096;

/// The policy as the threads know it.
#[derive(Debug, Clone, Default)]
pub(super) struct Regime {
    /// The one in force.
    pub policy: Option<Arc<InspectionPolicy>>,
    /// The kernel is being brought to this one: new connections wait, and what it does not permit ends.
    pub coming: Option<Arc<InspectionPolicy>>,
    /// All connections are judged by this one, too, and nothing that it says is done.
    pub next: Option<Arc<InspectedShadow>>,
    /// Whose keys no longer count.
    pub withdrawn: Arc<Withdrawn>,
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
    /// Fail, as a fault in the code would make it.
    #[cfg(test)]
    Fail,
}

/// The state of one thread.
pub(super) struct Worker {
    shared: Arc<InspectorState>,
    /// The policy that all connections of this thread are under; none while the kernel is being changed.
    settled: watch::Sender<Option<Arc<InspectionPolicy>>>,
    policy: RefCell<Option<Arc<InspectionPolicy>>>,
    next_policy: RefCell<Option<Arc<InspectedShadow>>>,
    sessions: RefCell<HashMap<u64, Rc<RefCell<Session>>>>,
    openings: RefCell<HashMap<u64, Rc<RefCell<Opening>>>>,
    tallies: RefCell<HashMap<Tuple, Rc<RefCell<Tally>>>>,
    room: Rc<TallyRoom>,
    scratch: RefCell<Scratch>,
    contention: Cell<polling::Contention>,
    next: Cell<u64>,
}

/// Runs a thread's work until nobody can command it any more.
pub(super) async fn run(
    number: usize,
    shared: Arc<InspectorState>,
    regime: watch::Receiver<Regime>,
    listeners: Vec<TcpListener>,
    applied: watch::Sender<u64>,
    mut commands: mpsc::Receiver<Command>,
) -> io::Result<()> {
    let worker = Rc::new(Worker {
        room: Rc::new(TallyRoom::new(shared.report_after)),
        shared,
        policy: RefCell::new(None),
        next_policy: RefCell::new(None),
        settled: watch::channel(None).0,
        sessions: RefCell::default(),
        openings: RefCell::default(),
        tallies: RefCell::default(),
        scratch: RefCell::default(),
        contention: Cell::default(),
        next: Cell::new(0),
    });
    let mut tasks = tokio::task::JoinSet::new();
    let mut accepting = Vec::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.push(tasks.spawn_local(Rc::clone(&worker).accept(listener)));
    }
    tasks.spawn_local(Rc::clone(&worker).follow(regime, applied));
    tasks.spawn_local(Rc::clone(&worker).tick(number));
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Adopt(parcels)) => worker.adopt(parcels),
                Some(Command::Freeze(answer)) => {
                    for task in &accepting {
                        task.abort();
                    }
                    worker.drain().await;
                    let _ = answer.send(worker.freeze());
                    worker.tell_all();
                }
                #[cfg(test)]
                #[allow(clippy::panic)]
                Some(Command::Fail) => panic!("asked to"),
                None => break,
            },
            // None of these ends by itself; one that failed takes the thread with it, and the thread is restarted.
            ended = tasks.join_next() => {
                if let Some(Err(error)) = ended
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    worker.tell_all();
    Ok(())
}

impl Worker {
    fn next_id(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    fn untold(&self) {
        self.shared.outbox.put(Observation::Lost {
            packets: 1,
            cause: LossCause::TableFull,
        });
    }

    /// Lists a session, so that the next change of policy finds it, and carries it to its end.
    fn carry(self: Rc<Self>, mut session: Session) -> impl Future<Output = ()> {
        let id = self.next_id();
        self.shadow(&mut session);
        let tuple = session.tuple.clone();
        let session = Rc::new(RefCell::new(session));
        self.sessions.borrow_mut().insert(id, Rc::clone(&session));
        async move {
            let _listed = ListEntry::Session(&self, id);
            let end = std::future::poll_fn(|cx| {
                let (mut session, mut scratch) = (session.borrow_mut(), self.scratch.borrow_mut());
                let end = session.poll(cx, &mut scratch);
                if end.is_pending() && session.is_awaited(&scratch) {
                    polling::stay_awake(cx, &self.contention, now);
                }
                end
            })
            .await;
            self.note(&tuple, &session.borrow().last_words(end));
        }
    }

    /// Has a session judged by the next plan too, if there is one.
    fn shadow(&self, session: &mut Session) {
        let next = self.next_policy.borrow();
        // A new connection is not looked up again where nobody asks.
        let flow = next.as_ref().and_then(|_| {
            let Tuple { client, server, .. } = session.tuple;
            self.policy.borrow().as_ref()?.claim(client, server).flow
        });
        session.shadow(next.as_ref(), flow);
    }

    fn note(&self, tuple: &Tuple, text: &str) {
        match self.tally(tuple) {
            Some(tally) => tally.borrow_mut().note(now(), Subject::Session, text),
            None => self.untold(),
        }
    }

    /// The tally of a tuple; `None` if too many are in use.
    fn tally(&self, tuple: &Tuple) -> Option<Rc<RefCell<Tally>>> {
        let mut tallies = self.tallies.borrow_mut();
        if let Some(tally) = tallies.get(tuple) {
            return Some(Rc::clone(tally));
        }
        if tallies.len() >= TALLIES_MAX {
            tallies.retain(|_, tally| Rc::strong_count(tally) > 1 || !tally.borrow().is_silent());
        }
        if tallies.len() >= TALLIES_MAX {
            return None;
        }
        let tally = Rc::new(RefCell::new(Tally::new(Rc::clone(&self.room))));
        if let Some(policy) = &*self.policy.borrow() {
            set_rules(&tally, policy, tuple);
        }
        tallies.insert(tuple.clone(), Rc::clone(&tally));
        Some(tally)
    }

    /// Brings standing connections under each new policy.
    async fn follow(self: Rc<Self>, mut regime: watch::Receiver<Regime>, applied: watch::Sender<u64>) {
        loop {
            let Regime {
                policy,
                coming,
                next,
                withdrawn,
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
                        set_rules(tally, policy, tuple);
                    }
                    for session in self.sessions.borrow().values() {
                        apply(&mut session.borrow_mut(), policy);
                    }
                }
            }
            let is_shadowed = next.is_some();
            let before = self.next_policy.replace(next);
            let same_shadow = match (&before, &*self.next_policy.borrow()) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            // What is in force is another: so is what the next plan would change of it.
            if !same_shadow || !same && is_shadowed {
                for session in self.sessions.borrow().values() {
                    self.shadow(&mut session.borrow_mut());
                }
            }
            // Also under another policy: it may enforce from now on what was only observed.
            for session in self.sessions.borrow().values() {
                self.heed(&mut session.borrow_mut(), &withdrawn);
            }
            // Once the kernel has it, a reset of what it does not permit would reach nobody.
            if let Some(coming) = &coming {
                self.settled.send_replace(None);
                for session in self.sessions.borrow().values() {
                    let mut session = session.borrow_mut();
                    let mode = coming.mode(session.tuple.client, session.tuple.server.ip());
                    if !session.stands_under(&coming.find_for(&session.tuple), mode) {
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

    fn heed(&self, session: &mut Session, withdrawn: &Withdrawn) {
        let policy = self.policy.borrow();
        let Some(policy) = policy.as_ref().filter(|_| !withdrawn.is_empty()) else {
            return;
        };
        let mode = policy.mode(session.tuple.client, session.tuple.server.ip());
        session.heed(|life| life.is_over(withdrawn), mode);
    }

    async fn tick(self: Rc<Self>, number: usize) {
        let mut tick = tokio::time::interval(self.shared.report_after.min(TICK_MAX));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked = Duration::ZERO;
        loop {
            tick.tick().await;
            let now = now();
            self.shared.pulse.tick(number, now);
            self.tell(false);
            if now.saturating_sub(looked) >= LOOK {
                looked = now;
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
            // The role in its certificate; that there is none is said where one counts.
            let none = || tally.borrow().is_by_role().then(String::new);
            let role = tuple.role.as_ref().map(ToString::to_string).or_else(none);
            let (mut client_name, server_name) = policy.names(tuple.client, tuple.server);
            if let Some(device) = &tuple.device {
                client_name = format!("device/{device} by certificate");
            }
            let ms = |at: Duration| {
                let ago = u64::try_from(moment.saturating_sub(at).as_millis()).unwrap_or(u64::MAX);
                clock_ms.saturating_sub(ago)
            };
            for told in told.drain(..) {
                let TallyReport {
                    subject,
                    decision,
                    text,
                    values,
                    reason,
                    flow,
                    protocol,
                    count,
                    first,
                    last,
                } = told;
                let refused = match decision {
                    Some(Decision::Deny) => Some(&self.shared.denied),
                    Some(Decision::WouldDeny) => Some(&self.shared.would_deny),
                    Some(Decision::Allow | Decision::NotGuarded) | None => None,
                };
                if let Some(counted) = refused {
                    counted.fetch_add(count, Ordering::Relaxed);
                }
                if decision == Some(Decision::WouldDeny) {
                    let (client, server) = (
                        named(&client_name, tuple.client),
                        named(&server_name, tuple.server),
                    );
                    let ends = format!("{client} to {server}");
                    let foretold = &self.shared.foretold;
                    let mut foretold = foretold.lock().unwrap_or_else(PoisonError::into_inner);
                    foretold.note(policy.revision, ends, &text, ms(last));
                }
                let turned_away = (subject, decision) == (Subject::Session, Some(Decision::Deny));
                self.shared
                    .outbox
                    .put(Observation::Operation(Box::new(OperationSeen {
                        proofs: policy.proofs(tuple, turned_away),
                        subject,
                        decision,
                        text,
                        values,
                        reason,
                        flow,
                        protocol,
                        revision: policy.revision,
                        client: tuple.client,
                        client_name: client_name.clone(),
                        role: role.clone(),
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
enum ListEntry<'a> {
    Opening(&'a Worker, u64),
    Session(&'a Worker, u64),
}

impl Drop for ListEntry<'_> {
    fn drop(&mut self) {
        match self {
            Self::Opening(worker, id) => drop(worker.openings.borrow_mut().remove(id)),
            Self::Session(worker, id) => {
                if std::thread::panicking() {
                    worker.shared.broken.fetch_add(1, Ordering::Relaxed);
                }
                drop(worker.sessions.borrow_mut().remove(id));
            }
        }
    }
}

/// What the plan calls it, or its address.
fn named(name: &str, address: impl ToString) -> String {
    match name.is_empty() {
        true => address.to_string(),
        false => name.to_owned(),
    }
}

fn set_rules(tally: &RefCell<Tally>, policy: &InspectionPolicy, tuple: &Tuple) {
    let set = match policy.find_for(tuple) {
        TupleRules::Only(set) => Some(set),
        _ => None,
    };
    tally.borrow_mut().set_rules(set);
}

fn apply(session: &mut Session, policy: &InspectionPolicy) {
    let Tuple { client, server, .. } = session.tuple;
    session.apply(&policy.find_for(&session.tuple), policy.mode(client, server.ip()));
}
