//! The one long-lived stream to the coordinator: Hello and Welcome, then offers in, state, health and audit out.
//!
//! A session ends at the first thing that is not as it should be — silence, a message that means nothing, an
//! acknowledgement that does not come — and the next one begins after a jittered wait. Every queue is bounded; an
//! offer that nobody has looked at yet is overtaken by the next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::backoff::{Backoff, jitter};
use penstock_proto::channel::{Address, COORDINATOR_MESSAGE_BYTES_MAX, ConnectError};
use penstock_proto::refusal::explain;
use penstock_proto::tls::TlsError;
use penstock_proto::v1::coordinator_message::Message as Inbound;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::gateway_message::Message as Outbound;
use penstock_proto::v1::{AuditAck, CoordinatorMessage, Fault, GatewayMessage, Hello, Severity, Welcome};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::connect::{self, LinkError};
use super::upload::Upload;
use crate::audit::{Audit, AuditError, record};
use crate::bridge::{report::BridgeState, supervisor};
use crate::health::{self, HealthInputs};
use crate::identity::Identity;
use crate::jitter::random;
use crate::kernel::Kernel;
use crate::reconcile::{OfferSlot, PolicyView};

/// How long the coordinator has for its Welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message may wait for room on the way out.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an audit block may wait for its acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages under way out of this process.
const OUTBOUND_MAX: usize = 8;
/// The bounds of the report interval that a coordinator may ask for.
const REPORT_INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// How often the session looks after itself.
const TICK: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The identity cannot be used.
    #[error("the identity of this gateway cannot be used for TLS")]
    Tls(#[from] TlsError),
    /// No coordinator could be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator refused or the stream broke.
    #[error("{}", explain(.0).message)]
    Status(Box<Status>),
    /// The coordinator ended the stream in good order.
    #[error("the coordinator ended the session")]
    Ended,
    /// No Welcome, or something else first.
    #[error("the coordinator did not say Welcome within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
    /// A message that means nothing.
    #[error("the coordinator sent {0}")]
    Protocol(&'static str),
    /// It does not take what is sent.
    #[error("the coordinator is not accepting messages")]
    Stuck,
    /// It does not acknowledge audit.
    #[error("the coordinator has not acknowledged audit for {} s", ACK_TIMEOUT.as_secs())]
    NoAck,
    /// The spool cannot say what it holds.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The identity was renewed: the next session begins at once.
    #[error("the certificate was renewed")]
    Renewed,
    /// The agent stops.
    #[error("the agent stops")]
    Stopping,
}

impl From<LinkError> for SessionEnd {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Tls(error) => error.into(),
            LinkError::Connect(error) => error.into(),
        }
    }
}

impl From<Status> for SessionEnd {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Whether the link is up, for status and logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkState {
    /// The coordinator's name while connected.
    pub coordinator: Option<String>,
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
    /// Where offers go.
    pub offers: OfferSlot,
    /// The policy's state.
    pub policy: watch::Receiver<PolicyView>,
    /// What is wrong with the certificate.
    pub certificate: watch::Receiver<Option<Fault>>,
    /// Why nothing is learned where zones observe, if so.
    pub faults: watch::Receiver<Vec<Fault>>,
    /// The bridges, for health.
    pub bridges: watch::Receiver<Vec<BridgeState>>,
    /// For capabilities and counters.
    pub kernel: Arc<K>,
    /// When the agent started.
    pub started: Instant,
    /// Whether the link is up.
    pub state: watch::Sender<LinkState>,
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
            let mut lived = Duration::ZERO;
            let end = self.session(&identity, &stop, &mut lived).await;
            let connected = self.state.borrow().coordinator.is_some();
            let problem = end.to_string();
            if connected {
                self.audit
                    .record(Severity::Info, record::agent("disconnected", &problem));
            }
            self.state.send_replace(LinkState {
                coordinator: None,
                problem: Some(problem.clone()),
            });
            let (wait, asked) = match &end {
                SessionEnd::Stopping => return,
                SessionEnd::Renewed => continue,
                SessionEnd::Status(status) => (backoff.ended(lived, random()), explain(status).retry_after),
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
            }
        }
    }

    /// One session, until it ends.
    async fn session(
        &mut self,
        identity: &Identity,
        stop: &CancellationToken,
        lived: &mut Duration,
    ) -> SessionEnd {
        tokio::select! {
            () = stop.cancelled() => SessionEnd::Stopping,
            ended = async {
                let (stream, outbound, welcome) = match self.open(identity).await {
                    Ok(opened) => opened,
                    Err(end) => return end,
                };
                let since = Instant::now();
                let end = self.talk(stream, outbound, welcome).await;
                *lived = since.elapsed();
                end.err().unwrap_or(SessionEnd::Ended)
            } => ended,
        }
    }

    async fn open(
        &mut self,
        identity: &Identity,
    ) -> Result<
        (
            Streaming<CoordinatorMessage>,
            mpsc::Sender<GatewayMessage>,
            Welcome,
        ),
        SessionEnd,
    > {
        let addresses = if self.coordinators.is_empty() {
            identity.enrolment.coordinators.clone()
        } else {
            self.coordinators.clone()
        };
        let connected = connect::connect(addresses, identity).await?;
        if let Some(fell_back) = connected.fell_back {
            tracing::warn!("{fell_back}");
            self.audit.record(
                Severity::Warning,
                record::agent("certificate-refused", &fell_back),
            );
        }
        let connection = connected.channel;
        let mut client =
            GatewayLinkClient::new(connection).max_decoding_message_size(COORDINATOR_MESSAGE_BYTES_MAX);
        let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
        let hello = Hello {
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: self.kernel.capabilities().into_iter().map(|c| c.0).collect(),
            boot_id: health::boot_id(),
            policy: Some(self.policy.borrow_and_update().state.clone()),
            spool: Some(self.audit.state().borrow().spool),
        };
        send(&outbound, Outbound::Hello(hello)).await?;
        let opened = async {
            let mut stream = client.session(ReceiverStream::new(messages)).await?.into_inner();
            match stream.message().await? {
                Some(CoordinatorMessage {
                    message: Some(Inbound::Welcome(welcome)),
                }) => Ok((stream, welcome)),
                Some(_) => Err(SessionEnd::NoWelcome),
                None => Err(SessionEnd::Ended),
            }
        };
        let (stream, welcome) = tokio::time::timeout(WELCOME_TIMEOUT, opened)
            .await
            .map_err(|_| SessionEnd::NoWelcome)??;
        Ok((stream, outbound, welcome))
    }

    async fn talk(
        &mut self,
        mut stream: Streaming<CoordinatorMessage>,
        outbound: mpsc::Sender<GatewayMessage>,
        welcome: Welcome,
    ) -> Result<(), SessionEnd> {
        let coordinator = record::bounded(&welcome.coordinator);
        tracing::info!(%coordinator, "connected");
        self.audit
            .record(Severity::Info, record::agent("connected", &coordinator));
        self.state.send_replace(LinkState {
            coordinator: Some(coordinator),
            problem: None,
        });
        let interval = Duration::from_millis(u64::from(welcome.health_interval_ms))
            .clamp(REPORT_INTERVAL.0, REPORT_INTERVAL.1);
        let held = welcome.audit.unwrap_or_default();
        let mut upload = self.take_up(&held).await?;
        let mut audit_state = self.audit.state();
        let mut report_at = Instant::now();
        let mut reported = self.fault_codes();
        let mut ack_due = Instant::now() + ACK_TIMEOUT;
        let mut tick = tokio::time::interval(TICK);
        loop {
            if let Some(upload) = &mut upload {
                if !upload.is_waiting() {
                    ack_due = Instant::now() + ACK_TIMEOUT;
                }
                self.pump(upload, &outbound).await?;
            }
            tokio::select! {
                message = stream.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    match message.message {
                        Some(Inbound::Offer(offer)) => {
                            self.offers.send_replace(Some(Arc::new(offer)));
                        }
                        Some(Inbound::AuditAck(ack)) => {
                            // Also one that says nothing new: the coordinator has no room for the trail, and lives.
                            ack_due = Instant::now() + ACK_TIMEOUT;
                            if let Some(upload) = &mut upload
                                && let Some(to) = upload.acknowledged(&ack)
                            {
                                self.audit.acknowledge(to).await;
                            }
                        }
                        Some(Inbound::Welcome(_)) => return Err(SessionEnd::Protocol("a second Welcome")),
                        None => return Err(SessionEnd::Protocol("a message that this agent does not know")),
                    }
                }
                changed = self.policy.changed() => {
                    if changed.is_err() {
                        return Err(SessionEnd::Stopping);
                    }
                    let state = self.policy.borrow_and_update().state.clone();
                    send(&outbound, Outbound::Policy(state)).await?;
                }
                changed = audit_state.changed() => {
                    if changed.is_err() {
                        return Err(AuditError::Closed.into());
                    }
                    audit_state.mark_unchanged();
                }
                changed = self.identity.changed() => {
                    return Err(if changed.is_ok() { SessionEnd::Renewed } else { SessionEnd::Stopping });
                }
                () = tokio::time::sleep_until(report_at) => {
                    report_at = Instant::now() + interval - interval / 10 + jitter(interval / 5, random());
                    let report = self.report().await;
                    send(&outbound, Outbound::Health(report)).await?;
                }
                _ = tick.tick() => {
                    // A gateway that no longer does all of its part says so at once.
                    let codes = self.fault_codes();
                    if codes != reported {
                        (reported, report_at) = (codes, Instant::now());
                    }
                    if upload.is_none() {
                        upload = self.take_up(&held).await?;
                    }
                    if upload.as_ref().is_some_and(Upload::is_waiting) && Instant::now() >= ack_due {
                        return Err(SessionEnd::NoAck);
                    }
                }
            }
        }
    }

    /// The upload from where the coordinator's trail ends. `None`: the spool is out of order for now, which does not
    /// keep offers and health from passing.
    async fn take_up(&self, held: &AuditAck) -> Result<Option<Upload>, SessionEnd> {
        match self.audit.resume(held.clone()).await {
            Ok(from) => Ok(Some(Upload::new(from))),
            Err(AuditError::Closed) => Err(AuditError::Closed.into()),
            Err(AuditError::Unavailable(_)) => Ok(None),
        }
    }

    /// Sends what the window and the queue allow, without waiting.
    async fn pump(
        &self,
        upload: &mut Upload,
        outbound: &mpsc::Sender<GatewayMessage>,
    ) -> Result<(), SessionEnd> {
        let next = self.audit.state().borrow().next;
        while upload.is_behind(next)
            && outbound.capacity() > 1
            && let Some((from, count, bytes)) = upload.wants()
        {
            // One place stays free for what is not audit.
            let count = count.min(outbound.capacity().saturating_sub(1));
            let blocks = match self.audit.read(from, count, bytes).await {
                Ok(blocks) => blocks,
                Err(AuditError::Closed) => return Err(AuditError::Closed.into()),
                // It is opened anew by itself; the next tick asks again.
                Err(AuditError::Unavailable(_)) => return Ok(()),
            };
            if blocks.is_empty() {
                return Ok(());
            }
            for block in blocks {
                upload.sent(&block);
                send(outbound, Outbound::Audit(block)).await?;
            }
        }
        Ok(())
    }

    /// Of which kinds the data plane's faults are.
    fn fault_codes(&self) -> BTreeSet<String> {
        self.kernel.faults().into_iter().map(|fault| fault.code).collect()
    }

    async fn report(&self) -> penstock_proto::v1::HealthReport {
        let counters = self.kernel.counters().await.ok();
        let policy = self.policy.borrow().clone();
        let audit = self.audit.state().borrow().clone();
        let time_ms = crate::clock::now_ms();
        let mut faults = self.kernel.faults();
        faults.extend(self.certificate.borrow().iter().cloned());
        faults.extend(self.faults.borrow().iter().cloned());
        faults.extend(supervisor::faults(&self.bridges.borrow(), time_ms));
        health::report(HealthInputs {
            policy: &policy,
            audit: &audit,
            kernel: counters,
            uptime: self.started.elapsed(),
            resident_bytes: health::resident_bytes(),
            time_ms,
            faults,
        })
    }
}

async fn send(outbound: &mpsc::Sender<GatewayMessage>, message: Outbound) -> Result<(), SessionEnd> {
    let message = GatewayMessage {
        message: Some(message),
    };
    match tokio::time::timeout(SEND_TIMEOUT, outbound.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(SessionEnd::Ended),
        Err(_) => Err(SessionEnd::Stuck),
    }
}
