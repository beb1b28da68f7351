//! Inline inspection: carries connections whose flows name operations, and lets only those operations pass.
//!
//! ```text
//! kernel ── tproxy ──▶ worker (thread) ── session ── leg ──▶ client
//!                        │  ▲               │  └──── leg ──▶ server, from the client's address
//!                        │  └ regime (policy in force)
//!                        │        └ lookup (rules by tuple)
//!                        └─ tally ──▶ Observation::Operation
//! ```
//!
//! Invariants: nothing of a followed connection passes that was not judged by the policy in force; both ends see each
//! other's address; a refusal, a reset and the end of a connection on one side are what the other side sees; every
//! buffer, queue and number of connections has a bound.
//!
//! When the policy changes ([`Inspector::hold`], the kernel, [`Inspector::put`]): connections that the coming policy no
//! longer permits are reset, while the kernel still lets the reset through; new connections wait; standing ones are
//! judged by the policy before until the kernel has changed, then by the new one from the next request on. So nothing
//! passes that neither policy permits, and nothing is refused that both permit. A standing connection whose operations
//! are no longer limited goes on here, unlimited, until it ends.
//!
//! A planned restart hands all connections to the next agent (`handover`), but for those inside TLS: they are ended
//! between two packets. After a crash, peers open new ones.
//!
//! A thread sleeps while nothing comes, but for moments in which a quick peer is about to answer (`polling`).
//!
//! Where a flow's TLS ends here (`handshake`), the client proves by certificate which device it is before the server is
//! asked, and the server which asset it is. A connection ends when the key of either is withdrawn (`session/lives`). Nothing is carried on in the plain but to
//! a server of which the plan says that it speaks no TLS; what no operation limits goes there unread. Between zones that only
//! observe, TLS ends here before such a server alone: all other connections pass unread, and the trail says so.
//!
//! Not here: which packets the kernel hands over (`intercept`, `lower`), and what an operation is (`penstock_inspect`).

mod forecast;
mod handover;
mod handshake;
mod identity;
mod leg;
mod lookup;
mod polling;
pub mod pulse;
mod seats;
mod session;
mod shadow;
mod socket;
mod tally;
mod threads;
mod tuple;
mod worker;

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_inspect::connection::Memory;
use penstock_inspect::judge::RulesError;
use penstock_policy::ids::Revision;
use penstock_policy::plan::Plan;
use penstock_proto::tls::handshakes::Handshakes;
use penstock_proto::tls::socket::HANDSHAKE_BYTES_MAX;
use penstock_proto::withdrawn::Withdrawn;
use tokio::sync::{mpsc, oneshot, watch};

use self::forecast::Forecasts;
use self::handover::{Estate, Parcel};
pub use self::identity::IdentityFault;
use self::identity::OwnIdentity;
pub use self::lookup::InspectionPolicy;
use self::pulse::Pulse;
pub use self::seats::SeatLimits;
use self::seats::{CONNECTION_BYTES, Seats};
use self::shadow::InspectedShadow;
pub(crate) use self::shadow::InspectedShadowCounts;
pub use self::socket::Redirect;
use self::tally::{ALLOWED_ALL_MAX, SENTENCES_ALL_MAX, TEXT_BYTES_MAX};
use self::threads::{Starter, Thread, keep};
use self::worker::{Command, Regime, TALLIES_MAX};
use crate::clock;
use crate::identity::Identity;
use crate::intercept::InspectorPorts;
use crate::observed::outbox::Outbox;
use crate::service_manager::{ServiceManager, StoredDescriptor};

/// Threads that carry connections: more would not be faster, since each connection has few bytes.
const THREADS_MAX: usize = 2;
/// How long a change of policy waits for the threads to say that they follow it.
const APPLIED_MAX: Duration = Duration::from_secs(1);
/// How long a hand-over waits for the threads to give their connections, and to end those that cannot be given.
const FROZEN_MAX: Duration = Duration::from_secs(3);
/// TLS handshakes under way at once.
const HANDSHAKES_MAX: usize = 256;
/// A handshake takes no longer.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// What a tally takes beside its entries, and an entry beside its texts, bytes.
const TALLY_BYTES: usize = 512;
const SENTENCE_BYTES: usize = 192;

/// Why a plan's operations cannot be enforced.
#[derive(Debug, thiserror::Error)]
#[error("flow {flow}: its operations cannot be inspected")]
pub struct OperationsError {
    /// The flow.
    pub flow: String,
    /// Why.
    #[source]
    pub source: RulesError,
}

/// What the inspector may hold at most: for its connections' state, what it holds for them, handshakes under way, and what
/// it counts; bytes.
pub fn bounds(limits: &SeatLimits) -> [u64; 4] {
    let bytes = |count: usize, each: usize| u64::try_from(count.saturating_mul(each)).unwrap_or(u64::MAX);
    let tallies = TALLIES_MAX * TALLY_BYTES
        + SENTENCES_ALL_MAX * (2 * TEXT_BYTES_MAX + SENTENCE_BYTES)
        + ALLOWED_ALL_MAX * SENTENCE_BYTES;
    [
        // Inspected; unread, since their flow goes on without an inspector; unread, since they are only observed.
        bytes(limits.connections_max, 3 * CONNECTION_BYTES),
        bytes(limits.held_bytes_max, 1),
        bytes(HANDSHAKES_MAX, 2 * HANDSHAKE_BYTES_MAX),
        bytes(THREADS_MAX, tallies),
    ]
}

/// What all threads share.
#[derive(Debug)]
pub struct InspectorState {
    way: Redirect,
    own: OwnIdentity,
    seats: Arc<Seats>,
    /// Accepted connections may lack what their listener has now.
    settles_each: bool,
    /// Where TLS that ends here is met.
    handshakes: Handshakes,
    /// How long after its first use something is reported first.
    report_after: Duration,
    outbox: Arc<Outbox>,
    /// By which the kernel knows that the threads work.
    pulse: Pulse,
    /// How often a thread ended that should not have.
    failures: AtomicU64,
    /// Connections that ended by a fault of our own.
    broken: AtomicU64,
    /// Connections that were refused for want of a descriptor.
    turned_away: AtomicU64,
    /// What of clients outlives their connections.
    memory: Arc<Memory>,
    /// Operations that were refused, framing attacks among them, ...
    denied: AtomicU64,
    /// ... and those that enforcing would refuse.
    would_deny: AtomicU64,
    /// What enforcing would change.
    foretold: Mutex<Forecasts>,
    /// A descriptor that is let go to turn a client away with when no other is left.
    reserve: tokio::sync::Mutex<Option<File>>,
}

impl InspectorState {
    /// By which the kernel knows that the threads work.
    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }
}

/// The running inspector. Dropping it ends the connections that it carries.
#[derive(Debug)]
pub struct Inspector {
    shared: Arc<InspectorState>,
    ports: InspectorPorts,
    regime: watch::Sender<Regime>,
    /// Empty when the inspector ends.
    threads: Arc<Mutex<Vec<Thread>>>,
    listeners: Arc<Vec<TcpListener>>,
    /// Connections that the process before left, until a policy says what becomes of them.
    inherited: Mutex<Vec<Parcel>>,
}

/// New connections wait for as long as this lives, or until the policy is put.
#[derive(Debug)]
pub struct Hold<'a>(&'a Inspector);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0
            .regime
            .send_if_modified(|regime| regime.coming.take().is_some());
    }
}

impl Inspector {
    /// Opens the listeners and starts the threads, in the network namespace of the calling thread. Nothing passes before
    /// the first policy. Operations are reported first `report_after` their first use. `kept` is what the agent before left
    /// ([`Inspector::hand_over`]).
    pub(crate) fn start(
        way: Redirect,
        limits: SeatLimits,
        report_after: Duration,
        outbox: Arc<Outbox>,
        kept: Vec<StoredDescriptor>,
    ) -> io::Result<Self> {
        let Estate { listeners, parcels } = handover::inherit(&way, kept);
        // Connections may wait at one that an agent left which set nothing on it.
        let mut settles_each = false;
        for kept in &listeners {
            settles_each |= !socket::settle_listener(kept)?;
        }
        let mut old = listeners.into_iter();
        let mut listener =
            |v6: bool| match old.find(|old| old.local_addr().is_ok_and(|at| at.is_ipv6() == v6)) {
                Some(old) => Ok(old),
                None => way.listen(v6),
            };
        let v4 = listener(false)?;
        let v6 = match listener(true) {
            Ok(listener) => Some(listener),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => None,
            Err(error) => return Err(error),
        };
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        let v4_port = port(&v4)?;
        let ports = InspectorPorts {
            v4: v4_port,
            // A machine without IPv6 forwards none, so that nobody asks for the port.
            v6: v6.as_ref().map_or(Ok(v4_port), port)?,
        };
        let listeners = Arc::new([v4].into_iter().chain(v6).collect::<Vec<_>>());
        let count = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX));
        let pulse = Pulse::new(count, matches!(way, Redirect::Intercepted))?;
        let shared = Arc::new(InspectorState {
            way,
            own: OwnIdentity::default(),
            seats: Seats::new(limits),
            settles_each,
            handshakes: Handshakes::start(1, HANDSHAKES_MAX, HANDSHAKE_MAX)?,
            report_after,
            outbox,
            pulse,
            failures: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            memory: Arc::default(),
            denied: AtomicU64::new(0),
            would_deny: AtomicU64::new(0),
            foretold: Mutex::default(),
            reserve: tokio::sync::Mutex::new(reserve()),
        });
        let (regime, _) = watch::channel(Regime::default());
        let (ended_in, ended) = mpsc::channel(THREADS_MAX);
        let starter = Starter {
            shared: Arc::clone(&shared),
            listeners: Arc::clone(&listeners),
            regime: regime.clone(),
            ended: ended_in,
        };
        let threads: Vec<Thread> = (0..count)
            .map(|number| starter.begin(number))
            .collect::<io::Result<_>>()?;
        let threads = Arc::new(Mutex::new(threads));
        tokio::spawn(keep(starter, Arc::clone(&threads), ended));
        Ok(Self {
            shared,
            ports,
            regime,
            threads,
            listeners,
            inherited: Mutex::new(parcels),
        })
    }

    /// Stops carrying, and leaves all connections and listeners with the service manager for the agent that comes
    /// next; how many connections.
    pub(crate) async fn hand_over(&self, manager: &ServiceManager) -> io::Result<usize> {
        let mut parcels = std::mem::take(&mut *self.inherited.lock().unwrap_or_else(PoisonError::into_inner));
        let mut answers = Vec::new();
        for commands in self.commands() {
            let (answer, answered) = oneshot::channel();
            if commands.send(Command::Freeze(answer)).await.is_ok() {
                answers.push(answered);
            }
        }
        let until = tokio::time::Instant::now() + FROZEN_MAX;
        for answered in answers {
            if let Ok(Ok(frozen)) = tokio::time::timeout_at(until, answered).await {
                parcels.extend(frozen);
            }
        }
        handover::leave(manager, &self.listeners, parcels).await
    }

    /// Whether none of its threads has stood still for longer than it may.
    pub(crate) fn works(&self) -> bool {
        self.shared.pulse.stands_still(now()).is_none()
    }

    /// What its threads share.
    pub(crate) fn shared(&self) -> Arc<InspectorState> {
        Arc::clone(&self.shared)
    }

    fn commands(&self) -> Vec<mpsc::Sender<Command>> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().map(|thread| thread.commands.clone()).collect()
    }

    /// Where the kernel has to hand connections.
    pub fn ports(&self) -> InspectorPorts {
        self.ports
    }

    /// Who this gateway is, for the TLS that ends here: new connections are met with it from now on.
    pub fn identify(&self, identity: Option<Arc<Identity>>) {
        self.shared.own.replace(identity);
    }

    /// What is wrong with that identity under the policy in force.
    pub fn identity_fault(&self) -> Option<IdentityFault> {
        let policy = self.regime.borrow().policy.clone()?;
        self.shared.own.fault(&policy.plan, clock::now_ms())
    }

    /// Whether it goes on with connections that an agent before left.
    pub fn inherits(&self) -> bool {
        let inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        !inherited.is_empty()
    }

    /// How many operations were refused, and how many enforcing would have refused, since the agent began.
    pub fn refused(&self) -> [u64; 2] {
        [&self.shared.denied, &self.shared.would_deny].map(|count| count.load(Ordering::Relaxed))
    }

    /// How many connections are carried now.
    pub fn connections(&self) -> usize {
        self.shared.seats.taken()
    }

    /// What was reset or passes unread of late for want of room.
    pub fn shortage(&self) -> Option<String> {
        let shortage = self.shared.seats.shortage(now())?;
        let policy = self.regime.borrow().policy.clone();
        Some(shortage.words(|holder| {
            let flow = holder.flow.zip(policy.as_ref());
            let flow = flow.and_then(|(flow, policy)| policy.flow_name(flow));
            match flow {
                Some(flow) => format!("client {} on flow {flow}", holder.client),
                None => format!("client {}", holder.client),
            }
        }))
    }

    /// What enforcing would change of connections between zones that observe.
    pub fn foretold(&self) -> Option<String> {
        let revision = self.regime.borrow().policy.as_ref()?.revision;
        let foretold = self
            .shared
            .foretold
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        foretold.words(revision, clock::now_ms())
    }

    /// What a person should know of the threads.
    pub fn fault(&self) -> Option<String> {
        let InspectorState {
            failures,
            broken,
            turned_away,
            ..
        } = &*self.shared;
        let [failures, broken, turned_away] =
            [failures, broken, turned_away].map(|count| count.load(Ordering::Relaxed));
        let failed = (failures + broken > 0).then(|| {
            format!(
                "Internal error in the inspector: {failures} of its threads were restarted since the agent started; {broken} \
                 connections were reset"
            )
        });
        let lacked = (turned_away > 0).then(|| {
            format!(
                "{turned_away} connections were reset since the agent started, because it had no file descriptor left: raise \
                 LimitNOFILE of its unit, or lower inspect.connections_max in agent.toml"
            )
        });
        let faults: Vec<String> = failed
            .into_iter()
            .chain(lacked)
            .chain(self.shared.pulse.fault(now()))
            .collect();
        (!faults.is_empty()).then(|| faults.join("; "))
    }

    /// Makes a plan ready to be put.
    ///
    /// # Errors
    /// The operations of a flow cannot be made into rules; the error names the flow.
    pub fn prepare(plan: Arc<Plan>, revision: Revision) -> Result<Arc<InspectionPolicy>, OperationsError> {
        InspectionPolicy::new(plan, revision)
            .map(Arc::new)
            .map_err(|(flow, source)| OperationsError { flow, source })
    }

    /// The kernel is about to hold this policy: from now on new connections wait, and what it does not permit is reset.
    pub async fn hold(&self, coming: Arc<InspectionPolicy>) -> Hold<'_> {
        self.change(|regime| regime.coming = Some(coming)).await;
        Hold(self)
    }

    /// The kernel holds this policy now: so do all connections, when this returns.
    pub async fn put(&self, policy: Arc<InspectionPolicy>) {
        self.change(|regime| (regime.policy, regime.coming) = (Some(policy), None))
            .await;
        let mut inherited =
            std::mem::take(&mut *self.inherited.lock().unwrap_or_else(PoisonError::into_inner));
        let commands = self.commands();
        let share = inherited.len().div_ceil(commands.len().max(1));
        for commands in commands {
            let rest = inherited.split_off(share.min(inherited.len()));
            let parcels = std::mem::replace(&mut inherited, rest);
            if !parcels.is_empty() && commands.send(Command::Adopt(parcels)).await.is_err() {
                tracing::error!("connections that were handed over are lost with a thread of the inspector");
            }
        }
    }

    /// This policy holds instead of the one in force, at once, whatever the kernel is being brought to.
    pub(crate) async fn replace(&self, policy: Arc<InspectionPolicy>) {
        self.change(|regime| regime.policy = Some(policy)).await;
    }

    /// Judges all connections by this policy too, from the first packet of each that begins after this, and does nothing that it says;
    /// `None`: by no other than that in force.
    pub(crate) async fn shadow(&self, next: Option<Arc<InspectionPolicy>>) {
        let next = next.map(|policy| Arc::new(InspectedShadow::new(policy)));
        self.change(|regime| regime.next = next).await;
    }

    /// These keys no longer count: connections whose TLS ends here and that stand on one are ended when this returns.
    pub async fn heed(&self, withdrawn: Arc<Withdrawn>) {
        self.change(|regime| regime.withdrawn = withdrawn).await;
    }

    /// What that came to, if there is one.
    pub(crate) fn shadowed(&self) -> Option<InspectedShadowCounts> {
        self.regime.borrow().next.as_ref().map(|next| next.counts())
    }

    /// Changes what holds, and waits until all threads follow.
    async fn change(&self, change: impl FnOnce(&mut Regime)) {
        let mut number = 0;
        self.regime.send_modify(|regime| {
            change(regime);
            regime.number += 1;
            number = regime.number;
        });
        let applied: Vec<_> = {
            let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            threads.iter().map(|thread| thread.applied.clone()).collect()
        };
        let all = async {
            for mut applied in applied {
                // A thread that is gone comes back with the policy in force.
                let _ = applied.wait_for(|applied| *applied >= number).await;
            }
        };
        if tokio::time::timeout(APPLIED_MAX, all).await.is_err() {
            tracing::error!("a thread of the inspector does not follow the policy in time");
        }
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// A descriptor to hold in reserve, if there is one left.
fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

/// The monotonic clock, the same for all processes of one boot.
pub(crate) fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests;
