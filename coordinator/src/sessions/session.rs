//! One session, from its first message to its end.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use penstock_policy::ids::{CoordinatorId, GatewayId};
use penstock_proto::backoff::Backoff;
use penstock_proto::convert::PolicyMark;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_message::Message as Up;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::adapters::Map;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Fleet, SessionLimits};
use crate::clock;
use crate::enrolment::update_gateway;
use crate::ingest::{Ingest, WaitingBlock};
use crate::releases::Releases;
use crate::store::{Store, StoreError};

/// Messages to a gateway that may wait for it.
const OUT_MAX: usize = 8;
/// Audit blocks of one gateway that may wait for the store.
const BLOCKS_MAX: usize = 32;
/// Longest first pause before blocks are stored again.
const STORE_RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest pause between two attempts to store blocks. At each the gateway hears that its session lives.
const STORE_RETRY_MAX: Duration = Duration::from_secs(10);

/// The gateway at the other end, by its certificate.
#[derive(Debug, Clone)]
pub struct GatewayPeer {
    /// Its name.
    pub gateway: GatewayId,
    /// When its certificate expires, milliseconds since 1970.
    pub certificate_expires_ms: u64,
}

/// Opens sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// Ourselves.
    pub coordinator: CoordinatorId,
    /// What is known of gateways.
    pub fleet: Arc<Fleet>,
    /// What is offered.
    pub releases: Releases,
    /// Where audit goes.
    pub ingest: Ingest,
    /// For the time at which a gateway was last seen.
    pub store: Store,
    /// How sessions behave.
    pub limits: SessionLimits,
    /// The coordinator is stopping.
    pub stopping: CancellationToken,
}

/// How often it is looked whether there is room again for a trail that waits.
const ROOM_LOOK: Duration = Duration::from_secs(60);

/// What goes to a gateway: a message, or why its session ends.
type ToGateway = Result<v1::CoordinatorMessage, Status>;
/// In boxes: a queue keeps room for many at once, and almost always holds none.
type Out = mpsc::Sender<Box<ToGateway>>;
/// The stream to a gateway.
pub type Outbound = Map<ReceiverStream<Box<ToGateway>>, fn(Box<ToGateway>) -> ToGateway>;

/// What a session's parts share.
struct Session<'a> {
    all: &'a Sessions,
    gateway: GatewayId,
    number: u64,
    out: Out,
}

impl Sessions {
    /// Begins a session; what is returned is the stream to the gateway.
    pub fn open(&self, peer: GatewayPeer, inbound: Streaming<v1::GatewayMessage>) -> Outbound {
        let (out, stream) = mpsc::channel(OUT_MAX);
        let all = self.clone();
        tokio::spawn(async move { all.run(peer, inbound, out).await });
        ReceiverStream::new(stream).map(|told| *told)
    }

    async fn run(self, peer: GatewayPeer, mut inbound: Streaming<v1::GatewayMessage>, out: Out) {
        let gateway = peer.gateway.clone();
        // What a session does once is in a box of its own while it lasts, so that ten thousand that are quiet have no room for it.
        let hello = match Box::pin(self.hello(&mut inbound)).await {
            Ok(hello) => hello,
            Err(refusal) => {
                tracing::warn!(%gateway, %refusal, "session refused");
                // The gateway may be gone already.
                let _ = out.send(Box::new(Err(refusal.into()))).await;
                return;
            }
        };
        let (number, replaced) = self.fleet.begin(&gateway);
        self.fleet.tell(&gateway, number, |facts| {
            let now_ms = clock::now_ms();
            facts.connected = true;
            facts.trail_fault = None;
            facts.certificate_expires_ms = peer.certificate_expires_ms;
            facts.last_seen_ms = now_ms;
            facts.reported_ms = Some(now_ms);
            facts.take_hello(&hello);
        });
        tracing::info!(%gateway, version = hello.software_version, "gateway connected");
        metrics::gauge!("penstock_gateways_connected").increment(1.0);
        let session = Session {
            all: &self,
            gateway: gateway.clone(),
            number,
            out: out.clone(),
        };
        let end = tokio::select! {
            end = session.work(inbound, hello.spool.map_or(0, |spool| spool.epoch)) => end,
            () = replaced.cancelled() => Err(Refusal::new(
                Reason::SessionReplaced,
                "a newer session of this gateway took over; are there two machines with one identity?",
            )),
            () = self.stopping.cancelled() => {
                Err(Refusal::new(Reason::Stopping, "the coordinator is stopping"))
            }
            () = out.closed() => Ok(()),
        };
        metrics::gauge!("penstock_gateways_connected").decrement(1.0);
        match end {
            Ok(()) => tracing::info!(%gateway, "gateway disconnected"),
            Err(refusal) => {
                tracing::warn!(%gateway, %refusal, "session ended");
                let _ = out.try_send(Box::new(Err(refusal.into())));
            }
        }
        if self.fleet.end(&gateway, number) {
            let now_ms = clock::now_ms();
            let remembered = update_gateway(&self.store, gateway.as_str(), |record| {
                record.last_seen_ms = now_ms;
                record.certificate_expires_ms = peer.certificate_expires_ms;
            });
            if let Err(error) = Box::pin(remembered).await {
                tracing::warn!(%gateway, error = %crate::chain(&error), "cannot remember when the gateway was seen");
            }
        }
    }

    async fn hello(&self, inbound: &mut Streaming<v1::GatewayMessage>) -> Result<v1::Hello, Refusal> {
        let protocol = |what: &str| Refusal::new(Reason::SessionProtocol, what);
        let first = tokio::time::timeout(self.limits.hello_timeout, inbound.message())
            .await
            .map_err(|_| protocol("the session's first message did not come in time"))?;
        match first {
            Ok(Some(v1::GatewayMessage {
                message: Some(Up::Hello(hello)),
            })) => Ok(hello),
            Ok(_) => Err(protocol("the first message of a session is a hello")),
            Err(status) => Err(protocol(&format!(
                "the session's first message cannot be read: {}",
                status.message()
            ))),
        }
    }
}

/// Blocks that are not held any more: they come again in a new session.
#[derive(Default)]
struct LetGo {
    /// Cancelled with the first of them.
    blocks: CancellationToken,
    /// Not before, where it is this trail for which there is no room.
    until: OnceLock<Instant>,
}

/// How long a trail waits for which there is no room; `None`: the store failed, and is tried again.
fn no_room(error: &StoreError) -> Option<Duration> {
    match error {
        StoreError::TooFast { after, .. } => Some(*after),
        StoreError::Reserved { .. } | StoreError::HoldsItsPart { .. } => Some(ROOM_LOOK),
        _ => None,
    }
}

impl Session<'_> {
    async fn work(&self, inbound: Streaming<v1::GatewayMessage>, epoch: u64) -> Result<(), Refusal> {
        let source = self.gateway.as_str();
        let position = Box::pin(self.all.ingest.position(source, epoch)).await?;
        let position = position.unwrap_or_default();
        self.send(Down::Welcome(v1::Welcome {
            coordinator: self.all.coordinator.to_string(),
            time_ms: clock::now_ms(),
            health_interval_ms: u32::try_from(self.all.limits.health_interval.as_millis())
                .unwrap_or(u32::MAX),
            audit: Some(position.clone()),
        }))
        .await?;
        let (blocks, waiting) = mpsc::channel(BLOCKS_MAX);
        let let_go = LetGo::default();
        // Each runs until the session is over; the first to end ends it.
        tokio::select! {
            end = self.read(inbound, blocks, &let_go) => end,
            end = self.offer() => end,
            end = self.wait_for_room(&let_go, position.clone()) => end,
            end = self.take_audit(waiting, &let_go) => end,
        }
    }

    async fn read(
        &self,
        mut inbound: Streaming<v1::GatewayMessage>,
        blocks: mpsc::Sender<Box<WaitingBlock>>,
        let_go: &LetGo,
    ) -> Result<(), Refusal> {
        loop {
            let message = match inbound.message().await {
                Ok(Some(message)) => message.message,
                Ok(None) => return Ok(()),
                Err(status) => {
                    tracing::debug!(gateway = %self.gateway, %status, "the stream broke");
                    return Ok(());
                }
            };
            let now_ms = clock::now_ms();
            match message {
                Some(Up::Policy(policy)) => self.tell(|facts| {
                    facts.last_seen_ms = now_ms;
                    facts.reported_ms = Some(now_ms);
                    facts.take_policy(&policy);
                }),
                Some(Up::Health(report)) => self.tell(|facts| {
                    facts.last_seen_ms = now_ms;
                    facts.reported_ms = Some(now_ms);
                    facts.take_report(&report);
                }),
                Some(Up::Audit(block)) => {
                    self.all.fleet.seen(&self.gateway, self.number, now_ms);
                    // What follows a block that was let go has to come again after it.
                    if let_go.blocks.is_cancelled() {
                        continue;
                    }
                    // A full queue is back-pressure on this gateway's stream alone.
                    match self.all.ingest.admit(block).await {
                        Some(block) => {
                            if blocks.send(Box::new(block)).await.is_err() {
                                return Ok(());
                            }
                        }
                        None => let_go.blocks.cancel(),
                    }
                }
                Some(Up::Hello(_)) | None => {
                    return Err(Refusal::new(
                        Reason::SessionProtocol,
                        "a session has one hello, and no empty messages",
                    ));
                }
            }
        }
    }

    /// Offers the current release if the gateway is behind, and each one that becomes current.
    async fn offer(&self) -> Result<(), Refusal> {
        let mut current = self.all.releases.current();
        loop {
            let release = current.borrow_and_update().clone();
            if let Some(release) = release
                && let Some(wanted) = release.mark(&self.gateway)
            {
                let facts = self.all.fleet.facts(&self.gateway).unwrap_or_default();
                // One that is ahead would take nothing with a lower number; health says so.
                let holds = |mark: Option<PolicyMark>| {
                    mark.is_some_and(|m| m.is(&wanted) || m.revision > wanted.revision)
                };
                let held = facts.trusted.map(|(_, digest)| digest);
                if !holds(facts.effective)
                    && !holds(facts.staged)
                    && let Some(offer) = release.offer(&self.gateway, held)
                {
                    // Recorded first, so that an answer never comes before it.
                    self.tell(|facts| facts.offered = Some(wanted));
                    self.send(Down::Offer(offer)).await?;
                    metrics::counter!("penstock_offers_total").increment(1);
                }
            }
            if current.changed().await.is_err() {
                return Err(Refusal::new(Reason::Stopping, "the coordinator is stopping"));
            }
        }
    }

    /// After blocks were let go: keeps the session for all but the trail, until there is room for it again. Then a new
    /// session begins, in which the gateway sends what it lacks an acknowledgement for. Meanwhile it hears again up to where
    /// its trail was `held`, so that it does not take the session for dead.
    async fn wait_for_room(&self, let_go: &LetGo, held: v1::AuditAck) -> Result<(), Refusal> {
        let_go.blocks.cancelled().await;
        let mut look = let_go.until.get().copied().unwrap_or_else(Instant::now);
        loop {
            self.tell(|facts| {
                facts.trail_fault.get_or_insert_with(|| {
                    "its audit waits: the coordinator has no room for it, as the store takes nothing"
                        .to_owned()
                });
            });
            self.send(Down::AuditAck(held.clone())).await?;
            tokio::time::sleep(STORE_RETRY_MAX).await;
            if Instant::now() < look || !self.all.ingest.has_room() {
                continue;
            }
            if self.all.ingest.would_take(self.gateway.as_str()).await {
                break;
            }
            look = Instant::now() + ROOM_LOOK;
        }
        Err(Refusal::new(
            Reason::StoreBusy,
            "there is room for the trail again; a new session resumes it where it stopped",
        ))
    }

    /// Stores audit blocks as they come, all that wait at once, and acknowledges what is durable.
    async fn take_audit(
        &self,
        mut waiting: mpsc::Receiver<Box<WaitingBlock>>,
        let_go: &LetGo,
    ) -> Result<(), Refusal> {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, BLOCKS_MAX).await > 0 {
            if let_go.until.get().is_some() {
                batch.clear();
                continue;
            }
            let blocks = batch.iter().map(|waiting| waiting.block.clone()).collect();
            let ingested = Box::pin(self.store_blocks(blocks)).await;
            // Only now is their room free.
            batch.clear();
            let ingested = match ingested {
                Ok(ingested) => ingested,
                Err(wait) => {
                    let _ = let_go.until.set(Instant::now() + wait);
                    let_go.blocks.cancel();
                    continue;
                }
            };
            if let Some(ack) = ingested.ack {
                self.send(Down::AuditAck(ack)).await?;
            }
            if let Some(fault) = ingested.fault {
                // The gateway compares positions when it comes back, and begins a new epoch if it has to.
                self.tell(|facts| facts.trail_fault = Some(format!("audit trail: {fault}")));
                return Err(Refusal::new(Reason::AuditFork, fault));
            }
        }
        // The reader dropped its end: it has said why.
        std::future::pending().await
    }

    /// Tries until the store takes the blocks. Until then the gateway's stream fills up behind them, and its zones are
    /// degraded with the reason, but offers go on: a full disk here does not keep a release from a gateway.
    ///
    /// # Errors
    /// There is no room for this trail, and when it is worth trying again: the blocks are not held until then.
    async fn store_blocks(
        &self,
        blocks: Vec<v1::AuditBlock>,
    ) -> Result<crate::ingest::IngestReport, Duration> {
        let source = self.gateway.as_str();
        let ingest = &self.all.ingest;
        let mut pause = Backoff::between(STORE_RETRY_MIN, STORE_RETRY_MAX);
        let mut accepted = match ingest.afford(source, &blocks, clock::now_ms()) {
            Ok(()) => ingest.accept(source, blocks.clone(), clock::now_ms()).await,
            Err(error) => Err(error),
        };
        loop {
            let error = match accepted {
                Ok(ingested) => {
                    self.tell(|facts| facts.trail_fault = None);
                    return Ok(ingested);
                }
                Err(error) => error,
            };
            tracing::error!(gateway = %self.gateway, error = %crate::chain(&error), "cannot store audit");
            let words = format!("its audit waits, the coordinator does not store it: {error}");
            self.tell(|facts| facts.trail_fault = Some(words));
            if let Some(wait) = no_room(&error) {
                // With a disk that takes nothing at all, health alone says it.
                let _ = ingest.waits(source, &error.to_string()).await;
                return Err(wait);
            }
            tokio::time::sleep(pause.failed(getrandom::u64().unwrap_or(0))).await;
            accepted = ingest.accept(source, blocks.clone(), clock::now_ms()).await;
        }
    }

    fn tell(&self, change: impl FnOnce(&mut super::GatewayFacts)) {
        self.all.fleet.tell(&self.gateway, self.number, change);
    }

    /// In a box of its own while it lasts: a session that is quiet has no room for it in memory.
    async fn send(&self, message: Down) -> Result<(), Refusal> {
        Box::pin(self.send_in_time(message)).await
    }

    async fn send_in_time(&self, message: Down) -> Result<(), Refusal> {
        let message = v1::CoordinatorMessage {
            message: Some(message),
        };
        match tokio::time::timeout(self.all.limits.send_timeout, self.out.send(Box::new(Ok(message)))).await {
            Ok(Ok(())) => Ok(()),
            // The stream is gone; `run` sees that by itself.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => {
                metrics::counter!("penstock_slow_gateways_total").increment(1);
                Err(Refusal::new(
                    Reason::SlowConsumer,
                    "the gateway does not take what it is sent; the session ends so that others do not wait",
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_quiet_takes_little_memory() {
        fn size_of_future<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size_of_future(Sessions::run);
        assert!(bytes <= 7 * 1024, "{bytes}");
        // A queue keeps room for 32 of these.
        assert!(size_of::<Box<ToGateway>>() + size_of::<Box<WaitingBlock>>() <= 16);
    }
}
