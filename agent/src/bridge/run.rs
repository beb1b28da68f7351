//! One bridge: its queue, its two sides, and what begins and ends them together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use penstock_policy::ids::{GatewayId, PlantId};
use penstock_policy::plan::{Bridge, Broker};
use penstock_proto::backoff::Backoff;
use penstock_proto::event::AgentStep;
use sha2::Digest as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::delivery::Delivery;
use super::intake::{Intake, RECEIVE_MAXIMUM};
use super::keeper::{Depth, Keeper, WAITING_MAX};
use super::layout::QueueId;
use super::losses::{self, LOSSES_UNKNOWN, LossFile};
use super::queue::{Queue, QueueError, QueueLimits, Recovery};
use super::report::{BridgeSide, Reporter, flow};
use super::rules::PublicationRules;
use super::side::{BrokerPeer, Login};
use crate::identity::Identity;
use crate::jitter::random;
use penstock_policy::text::sentence;

/// A packet may be larger than its payload by topic and properties.
const HEAD_ROOM_BYTES: u32 = 1024;
/// What a broker that is only published to may send at once.
const ANSWER_BYTES_MAX: u32 = 64 * 1024;

/// What this machine adds to the plan.
#[derive(Debug, Clone)]
pub struct BridgeSettings {
    /// The folder of all bridges.
    pub folder: PathBuf,
    /// Quota of each queue, and what stays free.
    pub limits: QueueLimits,
    /// The largest payload that is taken, bytes.
    pub message_bytes_max: u32,
    /// How often the supervisor looks, and tells.
    pub look: Duration,
    /// How long is waited before a broker, or the queue, is tried again.
    pub backoff: Backoff,
    /// How to log in, by broker.
    pub logins: Arc<std::collections::BTreeMap<String, Login>>,
}

/// Everything that one bridge needs.
pub struct Setup {
    /// The plant.
    pub plant: PlantId,
    /// This gateway.
    pub gateway: GatewayId,
    /// The bridge.
    pub bridge: Arc<Bridge>,
    /// This machine's part.
    pub settings: BridgeSettings,
    /// The gateway's certificate.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Its voice.
    pub reporter: Reporter,
    /// It is revoked: nothing of it stays.
    pub revoked: Arc<AtomicBool>,
}

/// Which queue belongs to which bridge: the same names, the same messages. Addresses, topics and TLS may change.
pub fn queue_id(plant: &PlantId, bridge: &Bridge) -> QueueId {
    let names = format!(
        "penstock bridge 1\n{plant}\n{}\n{}\n{}\n",
        flow(bridge),
        bridge.from.asset,
        bridge.to.asset
    );
    let whole: [u8; 32] = sha2::Sha256::digest(names.as_bytes()).into();
    let mut short = [0; 16];
    short.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    short
}

/// The folder of a bridge's queue.
pub fn queue_folder(folder: &Path, plant: &PlantId, bridge: &Bridge) -> PathBuf {
    folder.join(hex::encode(queue_id(plant, bridge)))
}

impl Setup {
    /// Runs until `stop`. What fails in itself begins anew, from the disk.
    pub async fn run(self, stop: CancellationToken) {
        let permitted = match PublicationRules::compile(&self.bridge.publications) {
            Ok(permitted) => Arc::new(permitted),
            Err(error) => {
                // Nothing is permitted then: the plan came from a newer document language.
                let text = format!("its publications cannot be enforced, so nothing crosses: {error}");
                self.reporter.down(BridgeSide::From, &text);
                self.reporter.down(BridgeSide::To, &text);
                stop.cancelled().await;
                return;
            }
        };
        let folder = queue_folder(&self.settings.folder, &self.plant, &self.bridge);
        match tokio::task::spawn_blocking(move || losses::read(&folder)).await {
            Ok(Ok(left)) => self.reporter.left(left),
            Ok(Err(problem)) => {
                let text = format!("{LOSSES_UNKNOWN}: {problem}");
                self.reporter.event(AgentStep::BridgeDamaged, &text);
            }
            Err(error) => tracing::error!(%error, "internal error while a bridge's losses were read"),
        }
        let mut backoff = self.settings.backoff;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            match self.open().await {
                Ok((queue, found)) => self.once(queue, &found, &permitted, &stop).await,
                Err(error) => {
                    let text = format!("the bridge's queue cannot be opened: {}", sentence(&error));
                    self.reporter.down(BridgeSide::From, &text);
                    self.reporter.down(BridgeSide::To, &text);
                }
            }
            let wait = backoff.ended(begun.elapsed(), random());
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn open(&self) -> Result<(Queue, Recovery), QueueError> {
        let folder = queue_folder(&self.settings.folder, &self.plant, &self.bridge);
        let id = queue_id(&self.plant, &self.bridge);
        let limits = self.settings.limits;
        let opened = tokio::task::spawn_blocking(move || Queue::open(&folder, id, limits)).await;
        opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Both sides over one opened queue.
    async fn once(
        &self,
        queue: Queue,
        found: &Recovery,
        permitted: &Arc<PublicationRules>,
        stop: &CancellationToken,
    ) {
        if found.damaged || found.foreign > 0 {
            let text = format!(
                "the queue on disk was damaged: what cannot be read is not delivered ({} messages known to be missing, \
                 {} segments of another bridge removed), and messages at QoS 2 may come twice",
                found.lost, found.foreign
            );
            self.reporter.event(AgentStep::BridgeDamaged, &text);
        }
        let (batches_in, batches) = mpsc::channel(1);
        let (requests_in, requests) = mpsc::channel(WAITING_MAX);
        let (depth_in, depth) = watch::channel(Depth {
            next: queue.state().next,
        });
        let keeper = Keeper {
            batches,
            requests,
            depth: depth_in,
            reporter: self.reporter.clone(),
            losses: LossFile::new(&queue_folder(&self.settings.folder, &self.plant, &self.bridge)),
        };
        let intake = Intake {
            peer: self.peer(
                &self.bridge.from,
                self.settings.message_bytes_max.saturating_add(HEAD_ROOM_BYTES),
                RECEIVE_MAXIMUM,
            ),
            permitted: permitted.clone(),
            batches: batches_in,
            reporter: self.reporter.clone(),
            filters_path: queue_folder(&self.settings.folder, &self.plant, &self.bridge).join("subscribed"),
            revoked: self.revoked.clone(),
        };
        let delivery = Delivery {
            peer: self.peer(&self.bridge.to, ANSWER_BYTES_MAX, 16),
            permitted: permitted.clone(),
            requests: requests_in,
            depth,
            reporter: self.reporter.clone(),
            clean_start: found.damaged,
            revoked: self.revoked.clone(),
        };
        let ended = stop.child_token();
        let either = ended.clone();
        let delivering = async {
            delivery.run(ended.clone()).await;
            either.cancel();
        };
        let taking = async {
            intake.run(ended.clone()).await;
            either.cancel();
        };
        let (kept, (), ()) = tokio::join!(keeper.run(queue), taking, delivering);
        if let Err(error) = kept {
            tracing::error!(%error, "internal error in a bridge's queue; it is reopened");
        }
    }

    fn peer(&self, broker: &Broker, packet_bytes_max: u32, receive_maximum: u16) -> BrokerPeer {
        BrokerPeer {
            broker: broker.clone(),
            client_id: format!("penstock-{}-{}", self.gateway, self.bridge.id),
            login: self.settings.logins.get(broker.asset.as_str()).cloned(),
            identity: self.identity.clone(),
            packet_bytes_max,
            receive_maximum,
            backoff: self.settings.backoff,
        }
    }
}

/// How long a bridge has to stop before it is cut off.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(4);
