//! The gateways: each connects, says hello, reports, takes what it is offered, and comes back when its session ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use penstock_policy::release::Statement;
use penstock_proto::channel::{self, Address};
use penstock_proto::tls::client::ClientTls;
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::PATIENCE;
use super::coordinator::Coordinator;
use super::document::gateway;
use super::upload::Trail;

/// How often each looks whether it is to upload.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Counts {
    connected: AtomicU32,
    lost: AtomicU64,
    reports: AtomicU64,
    /// The newest release that each gateway was offered: one that comes back is offered it again.
    offered: Vec<AtomicU64>,
    /// When each was offered that, microseconds since the fleet was started.
    offered_at: Vec<AtomicU64>,
    /// All upload audit as fast as it is taken.
    pub(super) uploads: AtomicBool,
    /// Events that the coordinator acknowledged.
    acknowledged: AtomicU64,
    /// When the last session of each ended, microseconds since the fleet was started; 0: none did.
    ended: Vec<AtomicU64>,
}

pub(super) struct Fleet {
    counts: Arc<Counts>,
    began: Instant,
    gateways: JoinSet<()>,
}

/// Each gateway's own TLS.
pub(super) fn identities(coordinator: &Coordinator, size: u32) -> Vec<ClientTls> {
    (0..size)
        .map(|number| {
            let credentials = coordinator.certificate(&format!("gateway/{}", gateway(number)));
            coordinator.profile(Some(credentials)).config().unwrap()
        })
        .collect()
}

impl Fleet {
    /// Starts them all at once.
    pub(super) fn start(coordinator: &Coordinator, identities: Vec<ClientTls>) -> Self {
        let counts = Arc::new(Counts {
            offered: identities.iter().map(|_| AtomicU64::new(0)).collect(),
            offered_at: identities.iter().map(|_| AtomicU64::new(0)).collect(),
            ended: identities.iter().map(|_| AtomicU64::new(0)).collect(),
            ..Counts::default()
        });
        let began = Instant::now();
        let mut gateways = JoinSet::new();
        for (number, tls) in (0..).zip(identities) {
            let (address, counts) = (coordinator.address.clone(), Arc::clone(&counts));
            gateways.spawn(async move {
                // Kept as an agent keeps it on its disk.
                let mut ticket = Bytes::new();
                loop {
                    let line = (&address, &tls, began);
                    if session(line, &mut ticket, number, &counts).await.is_some() {
                        counts.ended[number as usize].store(since(began), Ordering::Relaxed);
                    }
                    // Between half a second and a second and a half, as an agent's first wait.
                    tokio::time::sleep(Duration::from_millis(500 + u64::from(number) * 7919 % 1000)).await;
                }
            });
        }
        Self {
            counts,
            began,
            gateways,
        }
    }

    pub(super) fn connected(&self) -> u32 {
        self.counts.connected.load(Ordering::Relaxed)
    }

    /// How long after `since` the session of this gateway ended.
    pub(super) async fn ended(&self, number: u32, since: Instant) -> Duration {
        let since = since.duration_since(self.began);
        loop {
            let ended = self.counts.ended[number as usize].load(Ordering::Relaxed);
            if let Some(after) = Duration::from_micros(ended).checked_sub(since) {
                return after;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    pub(super) fn reports(&self) -> u64 {
        self.counts.reports.load(Ordering::Relaxed)
    }

    /// How many gateways it has.
    pub(super) fn size(&self) -> usize {
        self.counts.offered.len()
    }

    /// How many gateways were offered this release, or a later one.
    pub(super) fn offered(&self, revision: u64) -> usize {
        let newest = self
            .counts
            .offered
            .iter()
            .map(|newest| newest.load(Ordering::Relaxed));
        newest.filter(|newest| *newest >= revision).count()
    }

    /// How long after `since` each gateway was offered the release that it was offered last.
    pub(super) fn offered_after(&self, since: Instant) -> Vec<Duration> {
        let since = since.duration_since(self.began);
        let offered = self.counts.offered_at.iter();
        let offered = offered.map(|at| Duration::from_micros(at.load(Ordering::Relaxed)));
        offered.map(|at| at.saturating_sub(since)).collect()
    }

    /// All upload audit from now on, or no more.
    pub(super) fn upload(&self, uploads: bool) {
        self.counts.uploads.store(uploads, Ordering::Relaxed);
    }

    /// Events that were uploaded and acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.counts.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!(
                "never {what}: {} are connected, {} sessions were lost",
                self.connected(),
                self.lost()
            );
        }
    }

    pub(super) fn stop(mut self) {
        self.gateways.abort_all();
    }
}

fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap()
}

/// `None`: it never stood.
async fn session(
    (address, tls, began): (&Address, &ClientTls, Instant),
    ticket: &mut Bytes,
    number: u32,
    counts: &Counts,
) -> Option<()> {
    let channel = channel::connect(vec![address.clone()], tls.clone()).await.ok()?;
    let (up, messages) = mpsc::channel(8);
    let mut client =
        GatewayLinkClient::new(channel).max_decoding_message_size(channel::COORDINATOR_MESSAGE_BYTES_MAX);
    let hello = v1::Hello {
        ticket: Some(ticket.clone()),
        ..v1::Hello::default()
    };
    let _ = up.send(message(Up::Hello(hello))).await;
    let mut stream = client
        .session(ReceiverStream::new(messages))
        .await
        .ok()?
        .into_inner();
    let welcome = match stream.message().await {
        Ok(Some(v1::CoordinatorMessage {
            message: Some(Down::Welcome(welcome)),
        })) => welcome,
        _ => return None,
    };
    assert_eq!(welcome.twin, None, "each key has one user");
    if !welcome.ticket.is_empty() {
        ticket.clone_from(&welcome.ticket);
        let _ = up.send(message(Up::TicketHeld(welcome.ticket))).await;
    }
    let mut trail = Trail::after(welcome.audit.as_ref());
    let interval = Duration::from_millis(u64::from(welcome.health_interval_ms));
    counts.connected.fetch_add(1, Ordering::Relaxed);
    let first = interval * (number % 100) / 100;
    let mut report = tokio::time::interval_at(tokio::time::Instant::now() + first, interval);
    let mut look = tokio::time::interval(LOOK);
    let mut policy = v1::PolicyState::default();
    loop {
        tokio::select! {
            message = stream.message() => match message {
                Ok(Some(message)) => match message.message {
                    Some(Down::Offer(offer)) => {
                        policy = took(&offer);
                        let revision = policy.effective.as_ref().map_or(0, |mark| mark.revision);
                        counts.offered_at[number as usize].store(since(began), Ordering::Relaxed);
                        counts.offered[number as usize].fetch_max(revision, Ordering::Relaxed);
                        let _ = up.send(self::message(Up::Policy(policy.clone()))).await;
                    }
                    Some(Down::AuditAck(ack)) => {
                        let events = trail.acknowledge(&ack);
                        counts.acknowledged.fetch_add(events, Ordering::Relaxed);
                        trail.send(&up, counts).await;
                    }
                    _ => {}
                },
                _ => break,
            },
            _ = look.tick() => trail.send(&up, counts).await,
            _ = report.tick() => {
                let health = v1::HealthReport { policy: Some(policy.clone()), ..v1::HealthReport::default() };
                let _ = up.send(self::message(Up::Health(health))).await;
                counts.reports.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    counts.connected.fetch_sub(1, Ordering::Relaxed);
    counts.lost.fetch_add(1, Ordering::Relaxed);
    Some(())
}

/// As if the offer were in force at once.
fn took(offer: &v1::PolicyOffer) -> v1::PolicyState {
    let statement = &offer.release.as_ref().unwrap().statement;
    let digest = |bytes: &[u8]| penstock_policy::ids::Digest::of(bytes).0.to_vec();
    v1::PolicyState {
        effective: Some(v1::RevisionDigest {
            revision: Statement::from_bytes(statement).unwrap().revision.0,
            plan_digest: digest(&offer.plan).into(),
            statement_digest: digest(statement).into(),
        }),
        ..v1::PolicyState::default()
    }
}

pub(super) fn message(message: Up) -> v1::GatewayMessage {
    v1::GatewayMessage {
        message: Some(message),
    }
}
