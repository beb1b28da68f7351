//! The one long-lived stream to the coordinator: Hello and Welcome, then offers, orders and what is asked of trials in, state, health
//! and audit out.
//!
//! A session ends at the first thing that is not as it should be — silence, a message that means nothing, an
//! acknowledgement that does not come — and the next one begins after a jittered wait. Every queue is bounded; an
//! offer that nobody has looked at yet is overtaken by the next.
//!
//! A session that was opened before a release went on trial shows nothing of the trial's rules. So it ends then, and the next one is
//! opened at once, by a new connection; what was not acknowledged of the trail is sent again there.
//!
//! A certificate that has ended by the coordinator's clock opens no session: the next one that is held and ends later is shown at once, and if
//! none does, another one is asked for at once ([`super::renew`]). A session that stands ends with the certificate that opened it.
//!
//! What is decided within a session is decided by [`machine`]. Here is the shell around it: the connection, the timers, and what
//! the machine has done by the trail, the reconciler and the kernel.

mod end;
mod given;
pub mod machine;
mod talk;
mod witness;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::release::STATEMENT_FORMATS;
use penstock_proto::backoff::Backoff;
use penstock_proto::channel::{Address, COORDINATOR_MESSAGE_BYTES_MAX};
use penstock_proto::event::AgentStep;
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::gateway_message::Message as Outbound;
use penstock_proto::v1::{self, Fault, GatewayMessage, Hello, PolicyState, RevisionDigest};
use penstock_proto::withdrawn::WithdrawnView;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub use self::end::SessionEnd;
use self::machine::{Action, SessionFault, SessionMachine};
use self::talk::{Done, Talk};
use super::connect::{self, LinkChannel, Shown};
use super::standing;
use crate::audit::{Audit, AuditError, record};
use crate::boot;
use crate::bridge::{report::BridgeState, supervisor};
use crate::identity::Identity;
use crate::jitter::random;
use crate::kernel::Kernel;
use crate::known_time::KnownTime;
use crate::reconcile::{CommandRefused, Inlet, PolicyView, StandingState};
use crate::ticket::TicketKeeper;
use crate::timepiece;
use crate::trails::TrailsKeeper;
use crate::trust::TrustKeeper;
use crate::tunnel::shown::TunnelState;
use crate::withdrawn::{Coordinators, WithdrawnKeeper, coordinators_of};

/// Messages under way out of this process.
const OUTBOUND_MAX: usize = 8;
/// What says that this agent obeys orders, and knows trials.
pub const TRIALS: &str = "trials";

/// Whether the link is up, for status and logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkState {
    /// The coordinator's name while connected.
    pub coordinator: Option<String>,
    /// When the session was opened, on the boot's clock, while connected: before the first packet of its connection.
    pub opened: Option<Duration>,
    /// When the last connection was begun that an address of a coordinator answered, whatever came of it, on that clock.
    pub answered: Option<Duration>,
    /// Why it is not, in words.
    pub problem: Option<String>,
}

/// What a session needs of the others.
pub struct Link<K> {
    /// The newest identity.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Coordinators instead of those in the enrolment; empty: those.
    pub coordinators: Vec<Address>,
    /// The trail.
    pub audit: Audit,
    /// Where offers, orders and commands go.
    pub inlet: Inlet,
    /// The policy's state.
    pub policy: watch::Receiver<PolicyView>,
    /// What is wrong with the certificate.
    pub certificate: watch::Receiver<Option<Fault>>,
    /// Why nothing is learned where zones observe, why nobody can steer this gateway locally, enrol through it, read its registers or see it at the
    /// SCADA's broker, and what is wrong with whom it believes, if so.
    pub faults: [watch::Receiver<Vec<Fault>>; 12],
    /// Whose keys no longer count.
    pub withdrawn: Arc<WithdrawnKeeper>,
    /// By what a second user of this gateway's key is noticed.
    pub tickets: TicketKeeper,
    /// Which roots are trusted.
    pub trust: Arc<TrustKeeper>,
    /// What was seen of the coordinator's trails.
    pub trails: Arc<TrailsKeeper>,
    /// The bridges, for health.
    pub bridges: watch::Receiver<Vec<BridgeState>>,
    /// The tunnels, for health.
    pub tunnels: watch::Receiver<Vec<TunnelState>>,
    /// For capabilities and counters.
    pub kernel: Arc<K>,
    /// When the agent started.
    pub started: Instant,
    /// Whether the link is up.
    pub state: watch::Sender<LinkState>,
    /// What is known of the time.
    pub time: KnownTime,
    /// The coordinator says that the certificate has ended.
    pub ended: Arc<Notify>,
    /// Which certificate is shown first.
    pub from: Shown,
    /// Since when the kernel has the release on trial for which a session was ended.
    pub shown: Option<Duration>,
}

impl<K: Kernel> Link<K> {
    /// Keeps a session until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut last_problem = String::new();
        while !stop.is_cancelled() {
            let Some(identity) = self.identity.borrow_and_update().clone() else {
                // Not enrolled: nothing to do until somebody enrols.
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = self.identity.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                }
                continue;
            };
            let (mut lived, mut shown) = (Duration::ZERO, Shown::default());
            let end = self.session(&identity, &stop, (&mut lived, &mut shown)).await;
            let in_force = self.policy.borrow().state.effective.clone();
            let connected = self.state.borrow().coordinator.is_some();
            let problem = end.to_string();
            if connected {
                self.audit.note(record::agent(AgentStep::Disconnected, &problem));
            }
            self.state.send_modify(|state| {
                (state.coordinator, state.opened) = (None, None);
                state.problem = Some(problem.clone());
            });
            if self.shows_another(&identity, &end, shown) {
                continue;
            }
            let (wait, asked) = match &end {
                SessionEnd::Stopping => return,
                SessionEnd::Renewed | SessionEnd::OnTrial | SessionEnd::Reviewed => continue,
                SessionEnd::Status(status) => {
                    let refusal = explain(status);
                    self.withdrawn.turned_away(&refusal);
                    (backoff.ended(lived, random()), refusal.retry_after)
                }
                _ => (backoff.ended(lived, random()), None),
            };
            let wait = Backoff::at_least(wait, asked);
            // The same problem again and again is one line.
            if problem == last_problem {
                tracing::debug!(%problem, ?wait, "no session");
            } else {
                tracing::warn!(%problem, ?wait, "no session with the coordinator");
                last_problem = problem;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                _ = self.identity.changed() => {}
                // What kept it from connecting may be what was in force then.
                () = changes(&mut self.policy, &in_force) => backoff.worked(),
            }
        }
    }

    /// One session, until it ends.
    async fn session(
        &mut self,
        identity: &Identity,
        stop: &CancellationToken,
        (lived, shown): (&mut Duration, &mut Shown),
    ) -> SessionEnd {
        tokio::select! {
            () = stop.cancelled() => SessionEnd::Stopping,
            ended = async {
                // Before the first packet of the connection: it is no newer than this.
                let mut talk = Talk::open(timepiece::since_boot(), self.audit.clone());
                // By what the coordinator is judged as the connection is made, or by less.
                let list = self.withdrawn.view();
                let judged_by = coordinators_of(&list.now());
                let connected = self.connect(identity).await;
                if is_answered(&connected) {
                    self.state.send_modify(|state| state.answered = Some(talk.opened));
                }
                let channel = match connected {
                    Ok(connected) => {
                        *shown = connected.shown;
                        talk.certificate = connected.validity_ms;
                        connected.channel
                    }
                    Err(end) => return end,
                };
                let trail_end = self.audit.state().borrow().next;
                let mut machine = SessionMachine::new(self.hello(identity, talk.opened), trail_end, now());
                let judged = (list, judged_by);
                let end = self.converse((channel, identity), &mut talk, &mut machine, judged).await;
                *lived = machine.lived(now());
                end.err().unwrap_or(SessionEnd::Ended)
            } => ended,
        }
    }

    /// Whether another certificate is to be shown at once, since the one that was shown has ended.
    fn shows_another(&mut self, identity: &Identity, end: &SessionEnd, shown: Shown) -> bool {
        let has_ended =
            matches!(end, SessionEnd::Status(status) if explain(status).is(Reason::CertificateEnded));
        let next = shown.later_of(identity).filter(|_| has_ended);
        self.from = next.unwrap_or_default();
        if has_ended && next.is_none() {
            self.ended.notify_one();
        }
        if next.is_some() {
            tracing::warn!(why = %end, "another certificate of this gateway is shown");
            self.audit
                .note(record::agent(AgentStep::CertificateRefused, &end.to_string()));
        }
        next.is_some()
    }

    async fn connect(&mut self, identity: &Identity) -> Result<LinkChannel, SessionEnd> {
        let addresses = if self.coordinators.is_empty() {
            identity.enrolment.coordinators.clone()
        } else {
            self.coordinators.clone()
        };
        let connected = connect::connect(addresses, identity, self.from).await?;
        if let Some(fell_back) = &connected.fell_back {
            tracing::warn!("{fell_back}");
            self.audit
                .note(record::agent(AgentStep::CertificateRefused, fell_back));
        }
        Ok(connected)
    }

    fn hello(&mut self, identity: &Identity, opened: Duration) -> Hello {
        let enforces = self
            .kernel
            .capabilities()
            .into_iter()
            .map(|capability| capability.0);
        Hello {
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: enforces
                .chain([TRIALS.to_owned()])
                .chain(STATEMENT_FORMATS.map(str::to_owned))
                .collect(),
            boot_id: boot::id(),
            policy: Some(as_sent(&self.policy.borrow_and_update(), opened)),
            spool: Some(self.audit.state().borrow().spool),
            withdrawn: Some(self.withdrawn.held()),
            ticket: Some(self.tickets.shown(identity)),
            trust: self.trust.held(),
            key_held: v1::KeyHeld::from(identity.key_place()).into(),
            trails_size: Some(self.trails.greet()),
        }
    }

    /// Passes on what comes and goes until the stream or the machine ends it.
    async fn converse(
        &mut self,
        (channel, identity): (Channel, &Identity),
        talk: &mut Talk,
        machine: &mut SessionMachine,
        (mut list, judged_by): (WithdrawnView, Coordinators),
    ) -> Result<(), SessionEnd> {
        let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
        let mut client =
            GatewayLinkClient::new(channel).max_decoding_message_size(COORDINATOR_MESSAGE_BYTES_MAX);
        // The queue is empty: Hello finds room.
        if let Some(hello) = machine.outgoing(now()) {
            let _ = outbound.try_send(as_message(hello));
        }
        let opening = client.session(ReceiverStream::new(messages));
        let mut stream = tokio::time::timeout_at(machine.deadline().into(), opening)
            .await
            .map_err(|_| SessionFault::NoWelcome)??
            .into_inner();
        let mut audit_state = self.audit.state();
        loop {
            if self.has_to_show(talk.opened) {
                return Err(SessionEnd::OnTrial);
            }
            while let Some(action) = machine.action(now()) {
                self.act(action, identity, talk, machine).await?;
            }
            // First of all: what waited only while this side was busy is not stuck.
            if machine.has_outgoing()
                && let Ok(room) = outbound.try_reserve()
            {
                if let Some(message) = machine.outgoing(now()) {
                    room.send(as_message(message));
                }
                continue;
            }
            tokio::select! {
                message = stream.message() => {
                    let Some(mut message) = message? else { return Ok(()) };
                    witness::take(&mut message.message, identity, &self.audit).await;
                    self.trails.take(&mut message.message, identity, now());
                    machine.received(message.message, now())?;
                }
                room = outbound.reserve(), if machine.has_outgoing() => {
                    let room = room.map_err(|_| SessionEnd::Ended)?;
                    if let Some(message) = machine.outgoing(now()) {
                        room.send(as_message(message));
                    }
                }
                changed = self.policy.changed() => {
                    changed.map_err(|_| SessionEnd::Stopping)?;
                    let state = as_sent(&self.policy.borrow_and_update(), talk.opened);
                    machine.policy_changed(state, now());
                }
                done = talk.done() => match done {
                    Done::Kept(ticket) => machine.holds(ticket, now()),
                    Done::Obeyed(done) => {
                        machine.obeyed();
                        match done {
                            // It is said again where the answer was not heard.
                            Ok(()) | Err(CommandRefused::InForce) => {}
                            Err(why) => tracing::warn!("what the coordinator asked for was not done: {why}"),
                        }
                    }
                },
                changed = audit_state.changed() => {
                    changed.map_err(|_| AuditError::Closed)?;
                    machine.trail_reaches(audit_state.borrow_and_update().next);
                }
                list = list.grown() => {
                    if coordinators_of(&list) != judged_by {
                        return Err(SessionEnd::Reviewed);
                    }
                }
                changed = self.identity.changed() => {
                    return Err(if changed.is_ok() { SessionEnd::Renewed } else { SessionEnd::Stopping });
                }
                () = tokio::time::sleep_until(machine.deadline().into()) => {
                    machine.wake(now(), self.fault_codes())?;
                }
            }
        }
    }

    /// Whether a release went on trial since this session was opened, and no session was ended for that yet.
    fn has_to_show(&mut self, opened: Duration) -> bool {
        let StandingState::Trial {
            confirmable_since: Some(since),
            ..
        } = self.policy.borrow().standing.state
        else {
            return false;
        };
        opened < since && self.shown.replace(since) != Some(since)
    }

    /// Does what the machine asks for, and hands it the answer.
    async fn act(
        &mut self,
        action: Action,
        identity: &Identity,
        talk: &mut Talk,
        machine: &mut SessionMachine,
    ) -> Result<(), SessionEnd> {
        match action {
            Action::Connected {
                coordinator,
                time_ms,
                ticket,
                twin,
                asks_withdrawn,
                asks_trust,
            } => {
                self.time.heard(time_ms, talk.certificate);
                tracing::info!(%coordinator, "connected");
                self.withdrawn.welcomed();
                self.withdrawn.two_users(twin.as_ref());
                if !ticket.is_empty() {
                    talk.keeps(self.tickets.keep(identity, ticket));
                }
                self.audit.note(record::agent(AgentStep::Connected, &coordinator));
                let asked = self.asked((asks_withdrawn, asks_trust)).await;
                asked
                    .into_iter()
                    .flatten()
                    .for_each(|answer| machine.gives(answer, now()));
                self.state.send_replace(LinkState {
                    coordinator: Some(coordinator),
                    opened: Some(talk.opened),
                    answered: Some(talk.opened),
                    problem: None,
                });
            }
            Action::Offer(offered) => talk.offered(offered, &self.inlet),
            Action::Order(order) => talk.ordered(&order, &self.inlet),
            Action::Trust(bundles) => self.trust.bring(bundles).await,
            Action::Withdrawn(list) => {
                if self.withdrawn.bring(list).await {
                    return Err(SessionEnd::Gap);
                }
            }
            Action::Obey(asked) => {
                if !talk.asked(&asked, &self.inlet) {
                    machine.obeyed();
                }
            }
            Action::Acknowledge(to) => self.audit.acknowledge(to).await,
            Action::Resume(held) => machine.resumed(if_available(self.audit.resume(held).await)?),
            Action::Read {
                from,
                count_max,
                bytes_max,
            } => {
                let blocks = self.audit.read(from, count_max, bytes_max).await;
                machine.read(if_available(blocks)?, now());
            }
            Action::Report => {
                let report = self.report(talk.opened).await;
                machine.reported(report, now(), random());
            }
        }
        Ok(())
    }

    /// Of which kinds the data plane's faults are.
    fn fault_codes(&self) -> BTreeSet<String> {
        self.kernel.faults().into_iter().map(|fault| fault.code).collect()
    }
}

/// What of the policy is sent now, in the session that was opened then.
fn as_sent(view: &PolicyView, opened: Duration) -> PolicyState {
    standing::policy_state(view, opened, timepiece::since_boot())
}

/// Waits until something else is in force.
async fn changes(policy: &mut watch::Receiver<PolicyView>, in_force: &Option<RevisionDigest>) {
    if policy
        .wait_for(|view| view.state.effective != *in_force)
        .await
        .is_err()
    {
        std::future::pending().await
    }
}

/// Whether packets went to a coordinator's address and came back.
fn is_answered(connected: &Result<LinkChannel, SessionEnd>) -> bool {
    match connected {
        Ok(_) => true,
        Err(SessionEnd::Connect(error)) => error.answered,
        Err(_) => false,
    }
}

/// The time by which the machine goes.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn as_message(message: Outbound) -> GatewayMessage {
    GatewayMessage {
        message: Some(message),
    }
}

/// A spool that is out of order is reopened by itself and asked again; one that is closed ends the session.
fn if_available<T>(answer: Result<T, AuditError>) -> Result<Option<T>, AuditError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(AuditError::Unavailable(_)) => Ok(None),
        Err(AuditError::Closed) => Err(AuditError::Closed),
    }
}
