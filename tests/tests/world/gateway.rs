//! A gateway: its machine (kernel, disk, spool, certificate), which stays, and its agent, which dies and comes again.
//!
//! The agent's deciders are the real ones: reconciler, session, renewal. What stands here in place of their shells is the part that
//! waits: it hands them what is due, and does what they say.

mod link;
mod policy;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use penstock_agent::audit::{Audit, record};
use penstock_agent::link::renew::machine::{CertificateFacts, Moment, RenewalMachine};
use penstock_agent::link::session::machine::SessionMachine;
use penstock_agent::reconcile::{PolicyView, Reconciler, TICK};
use penstock_agent::timepiece::{Time, Timepiece};
use penstock_proto::backoff::Backoff;
use penstock_proto::v1::{AuditEvent, PolicyOffer, Severity};
use tokio::sync::{mpsc, watch};

use super::chance::Chance;
use super::checkers::Checkers;
use super::coordinator::Coordinator;
use super::disk::{Disk, Mounted, RECORDS};
use super::kernel::{Reached, Table};
use super::life::Life;
use super::plant;
use super::site::{self, WorldSite};
use super::spool::Spool;
use super::wire::Wire;

/// How long a certificate is valid.
const CERTIFICATE: Duration = Duration::from_secs(3600);
/// How long an attempt at a connection takes that nobody answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type AgentReconciler = Reconciler<Reached, Mounted>;

/// What is around a gateway.
pub(crate) struct Surroundings<'a> {
    pub(crate) base: Instant,
    pub(crate) now: Duration,
    pub(crate) wires: &'a mut BTreeMap<u64, Wire>,
    pub(crate) next_wire: &'a mut u64,
    pub(crate) coordinator: &'a mut Coordinator,
    pub(crate) checkers: &'a mut Checkers,
}

/// What the reconciler does.
enum Task {
    Idle(Box<AgentReconciler>),
    Busy(Pin<Box<dyn Future<Output = Box<AgentReconciler>>>>),
    Gone,
}

/// How far the link is.
enum Link {
    Waiting(Duration),
    Connecting(Duration),
    Talking { wire: u64, machine: Box<SessionMachine> },
}

struct Agent {
    life: Life,
    time: Arc<Mutex<Time>>,
    task: Task,
    audit: Audit,
    recorded: mpsc::Receiver<AuditEvent>,
    view: watch::Receiver<PolicyView>,
    offered: Option<Arc<PolicyOffer>>,
    tick_at: Duration,
    /// A trial is not confirmed before.
    confirm_at: Duration,
    link: Link,
    connected: bool,
    backoff: Backoff,
    renewal: RenewalMachine,
    /// When the request for a certificate that is under way comes to something.
    asks_until: Option<Duration>,
    /// When its session was opened, on the boot's clock, as what judges a trial has it.
    session: Arc<Mutex<Option<Duration>>>,
    /// Neither kernel nor disk has failed since it started, and its first step is not over.
    starts_well: bool,
}

pub(crate) struct Gateway {
    pub(crate) index: usize,
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) kernel: Arc<Mutex<Table>>,
    pub(crate) spool: Spool,
    pub(crate) spool_broken_until: Duration,
    /// Things fail, most of all after a death.
    pub(crate) troubled: bool,
    /// Releases go on trial here, and what holds them is heeded.
    pub(crate) tries: bool,
    /// When it last had a session with the coordinator.
    in_session_at: Duration,
    /// No way to the coordinator.
    pub(crate) cut_off_until: Duration,
    /// The clock is wrong, and not synchronised, from when until when, and by how much.
    pub(crate) clock_wrong: (Duration, Duration, i64),
    booted_at: Duration,
    certificate: (Duration, Duration),
    agent: Option<Agent>,
    starts_at: Duration,
    chance: Chance,
    /// Steps of the reconciler that a death broke off.
    pub(crate) broken_off: u64,
    pub(crate) sessions: u64,
    pub(crate) renewals: u64,
}

impl Gateway {
    pub(crate) fn new(index: usize, seed: u64) -> Self {
        Self {
            index,
            disk: Arc::default(),
            kernel: Arc::default(),
            spool: Spool::new(),
            spool_broken_until: Duration::ZERO,
            troubled: true,
            tries: false,
            in_session_at: Duration::ZERO,
            cut_off_until: Duration::ZERO,
            clock_wrong: (Duration::ZERO, Duration::ZERO, 0),
            booted_at: Duration::ZERO,
            certificate: (Duration::ZERO, CERTIFICATE),
            agent: None,
            starts_at: Duration::ZERO,
            chance: Chance::new(seed),
            broken_off: 0,
            sessions: 0,
            renewals: 0,
        }
    }

    /// The wire of its session.
    pub(crate) fn wire(&self) -> Option<u64> {
        match &self.agent.as_ref()?.link {
            Link::Talking { wire, .. } => Some(*wire),
            Link::Waiting(_) | Link::Connecting(_) => None,
        }
    }

    /// Its agent ends after so many seams; `None`: at once.
    pub(crate) fn kill(&mut self, seams: Option<u64>, around: &mut Surroundings<'_>) {
        match (seams, &self.agent) {
            (Some(seams), Some(agent)) => agent.life.dies_in(seams),
            _ => self.die(around),
        }
    }

    /// The machine loses power.
    pub(crate) fn reboot(&mut self, around: &mut Surroundings<'_>) {
        self.die(around);
        self.booted_at = around.now;
        self.kernel.lock().unwrap().boot();
    }

    /// The time as its machine has it.
    fn time(&self, now: Duration) -> Time {
        let (since, until, by_ms) = self.clock_wrong;
        let is_wrong = since <= now && now < until;
        Time {
            wall_ms: wall_ms(now).saturating_add_signed(if is_wrong { by_ms } else { 0 }),
            synchronised: !is_wrong,
            boot: now - self.booted_at,
        }
    }

    /// No death that was planned comes any more.
    pub(crate) fn spare(&mut self) {
        if let Some(agent) = &self.agent {
            agent.life.spare();
        }
    }

    pub(crate) fn view(&self) -> Option<PolicyView> {
        Some(self.agent.as_ref()?.view.borrow().clone())
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.connected)
    }

    pub(crate) fn certificate_is_good(&self, now: Duration) -> bool {
        now < self.certificate.1
    }

    fn die(&mut self, around: &mut Surroundings<'_>) {
        if let Some(agent) = self.agent.take() {
            self.broken_off += u64::from(matches!(agent.task, Task::Busy(_)));
            if let Link::Talking { wire, .. } = agent.link {
                hang_up(around.wires, wire, &mut self.chance);
            }
            around.checkers.died(self.index);
            self.starts_at = around.now + Duration::from_millis(500 + self.chance.below(4000));
        }
    }

    fn start(&mut self, around: &mut Surroundings<'_>) {
        let now = around.now;
        let rejects_until = now + Duration::from_millis(self.chance.below(60_000));
        if self.troubled && self.chance.once_in(6) {
            let mask = self.chance.below(1 << RECORDS.len());
            let until = now + Duration::from_millis(self.chance.below(30_000));
            self.disk.lock().unwrap().give_back_all_but(mask, until);
        }
        let mut kernel = self.kernel.lock().unwrap();
        kernel.rejects_next |= self.troubled && self.chance.once_in(12);
        kernel.start(rejects_until);
        drop(kernel);
        let life = Life::new(now, self.chance.number());
        let kernel = Reached {
            kernel: self.kernel.clone(),
            life: life.clone(),
        };
        let disk = Mounted {
            disk: self.disk.clone(),
            life: life.clone(),
        };
        let (audit, recorded) = Audit::without_spool();
        let time = Arc::new(Mutex::new(self.time(now)));
        let (reconciler, view) = Reconciler::new(
            Arc::new(kernel),
            disk,
            audit.clone(),
            Some(plant::first_trust(self.index)),
        );
        let mut reconciler = reconciler.with_timepiece(Timepiece::Told(time.clone()));
        let session = Arc::default();
        if self.tries {
            reconciler = reconciler.with_site(Arc::new(WorldSite {
                index: self.index,
                booted_at: self.booted_at,
                time: time.clone(),
                session: Arc::clone(&session),
            }));
        }
        let mut reconciler = Box::new(reconciler);
        audit.record(Severity::Notice, record::agent("started", ""));
        self.agent = Some(Agent {
            life,
            time,
            task: Task::Busy(Box::pin(async move {
                reconciler.start().await;
                reconciler
            })),
            audit,
            recorded,
            view,
            offered: None,
            tick_at: now + TICK,
            confirm_at: now,
            link: Link::Waiting(now),
            connected: false,
            backoff: Backoff::default(),
            renewal: RenewalMachine::new(moment(around, self.chance.number())),
            asks_until: None,
            session,
            starts_well: true,
        });
    }

    /// When something is to be done.
    pub(crate) fn next(&self, base: Instant, wires: &BTreeMap<u64, Wire>) -> Duration {
        let Some(agent) = &self.agent else {
            return self.starts_at;
        };
        let since = |at: Instant| at.saturating_duration_since(base);
        let task = match &agent.task {
            Task::Busy(_) => agent.life.waits_until(),
            _ if agent.offered.is_some() => Some(Duration::ZERO),
            Task::Idle(reconciler) => {
                let due = reconciler.due().map(|due| agent.life.now() + due);
                Some(due.map_or(agent.tick_at, |due| due.min(agent.tick_at)))
            }
            Task::Gone => None,
        };
        let link = match &agent.link {
            Link::Waiting(until) | Link::Connecting(until) => Some(*until),
            Link::Talking { wire, machine } => {
                let wire = &wires[wire];
                let at_once = wire.broken || (machine.has_outgoing() && wire.has_room_up());
                [
                    Some(since(machine.deadline())),
                    wire.next_down(),
                    at_once.then_some(Duration::ZERO),
                ]
                .into_iter()
                .flatten()
                .min()
            }
        };
        let renewal = agent
            .asks_until
            .unwrap_or_else(|| since(agent.renewal.deadline()));
        [task, link, Some(renewal)].into_iter().flatten().min().unwrap()
    }

    /// Does what is due.
    pub(crate) fn advance(&mut self, around: &mut Surroundings<'_>) -> Result<(), String> {
        around.checkers.granted(self, around.now)?;
        if self.agent.is_none() {
            if around.now < self.starts_at {
                return Ok(());
            }
            self.start(around);
        }
        self.reconcile(around)?;
        if self.agent.as_ref().is_some_and(|agent| agent.life.is_dead()) {
            self.die(around);
            return Ok(());
        }
        self.renew(around);
        self.link(around)?;
        self.write_trail(around)
    }

    /// Makes durable what was recorded.
    fn write_trail(&mut self, around: &mut Surroundings<'_>) -> Result<(), String> {
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        let mut events = Vec::new();
        while let Ok(event) = agent.recorded.try_recv() {
            around.checkers.recorded(self.index, &event);
            events.push(event);
        }
        if !events.is_empty() {
            self.spool.append(events);
        }
        if let Link::Talking { machine, .. } = &mut agent.link {
            machine.trail_reaches(self.spool.next());
            // What it does about it, it does now.
            return self.talk(around);
        }
        Ok(())
    }

    fn renew(&mut self, around: &mut Surroundings<'_>) {
        let (now, at) = (around.now, moment(around, self.chance.number()));
        let reaches =
            now >= self.cut_off_until && around.coordinator.is_up(now) && self.certificate_is_good(now);
        let Some(agent) = &mut self.agent else { return };
        let facts = |certificate: (Duration, Duration)| CertificateFacts {
            validity_ms: Some((wall_ms(certificate.0), wall_ms(certificate.1))),
            newest_until_ms: wall_ms(certificate.1),
            ..CertificateFacts::default()
        };
        if let Some(until) = agent.asks_until {
            if now < until {
                return;
            }
            agent.asks_until = None;
            if !reaches {
                agent.renewal.failed("away", at);
                return;
            }
            self.certificate = (now, now + CERTIFICATE);
            self.renewals += 1;
            agent.renewal.renewed(&facts(self.certificate), at);
            // The session with the old one gives way at once.
            if let Link::Talking { wire, .. } = agent.link {
                hang_up(around.wires, wire, &mut self.chance);
                agent.link = Link::Waiting(now);
                agent.connected = false;
            }
        } else if at.now >= agent.renewal.deadline() && agent.renewal.look(&facts(self.certificate), at) {
            let takes = match reaches {
                true => Duration::from_millis(self.chance.below(500)),
                false => CONNECT_TIMEOUT,
            };
            agent.asks_until = Some(now + takes);
        }
    }
}

/// The gateway's side of a connection goes.
fn hang_up(wires: &mut BTreeMap<u64, Wire>, wire: u64, chance: &mut Chance) {
    if let Some(wire) = wires.get_mut(&wire) {
        wire.tear(chance);
        wire.gateway_left = true;
    }
}

fn wall_ms(now: Duration) -> u64 {
    plant::WALL_MS + now.as_millis() as u64
}

fn moment(around: &Surroundings<'_>, random: u64) -> Moment {
    Moment {
        now: around.base + around.now,
        time_ms: wall_ms(around.now),
        random,
    }
}
