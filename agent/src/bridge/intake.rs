//! The side that takes: a subscriber at one broker that acknowledges only what is durable here.
//!
//! This side never publishes. What no rule permits is acknowledged in its turn, so that the broker does not send it
//! for ever, and goes nowhere. A broker that sends what cannot be understood loses its connection; what it had not
//! handed over, it still has. Memory is bounded by not reading on while a batch waits, not by trust in the receive
//! maximum: Mosquitto 2.0 sends a resumed session's whole queue at once, whatever it was told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_inspect::mqtt::packet::kind;
use penstock_proto::v1::Severity;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{ConnectionError, Incoming, Outgoing, reason_text};
use super::keeper::{Ack, IntakeBatch, IntakeEntry};
use super::layout::Message;
use super::packet::{self, Incoming as Packet, Publication};
use super::report::{BridgeSide, Reporter};
use super::rules::PublicationRules;
use super::side::{BrokerPeer, Pulse, Retry};
use crate::{clock, durable};

/// How many publications at QoS 1 and 2 we ask the broker to have under way to us at most.
pub const RECEIVE_MAXIMUM: u16 = 128;
/// Batches whose acknowledgements may wait to be written; far fewer can be under way, since one waits for the next.
const ACKS_MAX: usize = 64;
/// A batch of this size is not read on to.
pub(super) const BATCH_BYTES: u64 = 64 * 1024;
/// What an entry without a message counts for in a batch.
const ENTRY_BYTES: u64 = 64;
const SUBSCRIBE_ID: u16 = 1;
const UNSUBSCRIBE_ID: u16 = 2;
/// The largest list of filters in a plan is far below.
const FILTERS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The taking side of one bridge.
pub struct Intake {
    /// The broker.
    pub peer: BrokerPeer,
    /// What may cross.
    pub permitted: Arc<PublicationRules>,
    /// To the queue.
    pub batches: mpsc::Sender<IntakeBatch>,
    /// The bridge's voice.
    pub reporter: Reporter,
    /// Where the filters that the broker's session has are noted.
    pub filters_path: PathBuf,
    /// The bridge is revoked: the broker shall forget it.
    pub revoked: Arc<AtomicBool>,
}

/// What was taken over one connection and not handed on yet.
struct PendingEntries {
    entries: Vec<IntakeEntry>,
    bytes: u64,
    subscribed: bool,
}

impl Intake {
    /// Keeps a connection until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut retry = Retry::default();
        loop {
            let begun = Instant::now();
            let error = match self.session(&stop).await {
                Ok(()) => ConnectionError::Stopping,
                Err(error) => error,
            };
            let lived = begun.elapsed();
            if !retry
                .after(&error, lived, &self.reporter, BridgeSide::From, &stop)
                .await
            {
                return;
            }
        }
    }

    /// One connection, until it ends or the bridge stops.
    async fn session(&mut self, stop: &CancellationToken) -> Result<(), ConnectionError> {
        let connected = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connected = self.peer.connect(false) => connected?,
        };
        let (mut incoming, mut outgoing, welcome) = connected;
        let mut pulse = Pulse::new(&welcome);
        let mut taken = PendingEntries {
            entries: Vec::new(),
            bytes: 0,
            subscribed: false,
        };
        let before = noted(&self.filters_path);
        if !welcome.session_present {
            taken.entries.push(IntakeEntry::Forgot);
            if before.is_some() {
                let what = "messages that were published while the bridge was away are lost unless they were retained: the broker no longer had this bridge's session";
                self.reporter.event(Severity::Alarm, "bridge-session-lost", what);
            }
        }
        self.subscribe(&mut outgoing, before.unwrap_or_default()).await?;
        let (acks_in, mut acks) = mpsc::channel(ACKS_MAX);
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                permit = self.batches.reserve(), if !taken.entries.is_empty() => {
                    let Ok(permit) = permit else { break Err(ConnectionError::QueueClosed) };
                    taken.bytes = 0;
                    permit.send(IntakeBatch { entries: std::mem::take(&mut taken.entries), acks: acks_in.clone() });
                }
                read = self.read(&mut incoming, &mut taken), if taken.bytes < BATCH_BYTES => {
                    pulse.heard();
                    if let Err(error) = read {
                        break Err(error);
                    }
                }
                Some(owed) = acks.recv() => {
                    if let Err(error) = acknowledge(&mut outgoing, &mut acks, owed).await {
                        break Err(error);
                    }
                }
                beat = pulse.beat() => {
                    if taken.bytes >= BATCH_BYTES {
                        // We do not listen while there is no room.
                        pulse.heard();
                    } else if let Err(error) = beat {
                        break Err(error);
                    }
                    let mut out = Vec::new();
                    packet::ping(&mut out);
                    if let Err(error) = outgoing.write(&out).await {
                        break Err(error);
                    }
                }
            }
        };
        let reason = match &ended {
            Ok(()) => packet::REASON_NORMAL,
            Err(ConnectionError::Misbehaved(_) | ConnectionError::Packet(_)) => packet::REASON_PROTOCOL,
            Err(_) => return ended,
        };
        let revoked = ended.is_ok() && self.revoked.load(Ordering::Acquire);
        outgoing.leave(reason, revoked).await;
        ended
    }

    async fn subscribe(&self, outgoing: &mut Outgoing, before: Vec<String>) -> Result<(), ConnectionError> {
        let wanted = self.permitted.wanted();
        let mut gone = before;
        gone.retain(|filter| wanted.iter().all(|one| one.filter != *filter));
        let mut out = Vec::new();
        if !gone.is_empty() {
            packet::unsubscribe(&mut out, UNSUBSCRIBE_ID, &gone);
        }
        packet::subscribe(&mut out, SUBSCRIBE_ID, wanted);
        outgoing.write(&out).await
    }

    /// Takes one packet from the broker.
    async fn read(&self, incoming: &mut Incoming, taken: &mut PendingEntries) -> Result<(), ConnectionError> {
        let (header, body) = incoming.next().await?;
        match packet::read(header, body)? {
            Packet::Publish(publication) => self.take(&publication, taken),
            Packet::Acknowledge {
                kind: kind::PUBREL,
                identifier,
                ..
            } => {
                taken.bytes += ENTRY_BYTES;
                taken.entries.push(IntakeEntry::Release(Ack {
                    kind: kind::PUBCOMP,
                    identifier,
                }));
                Ok(())
            }
            Packet::Acknowledge { .. } => Err(ConnectionError::Misbehaved(
                "acknowledged what was never published to it",
            )),
            Packet::Subscribed {
                identifier: SUBSCRIBE_ID,
                reasons,
            } if !taken.subscribed => {
                taken.subscribed = true;
                self.subscribed(reasons)
            }
            Packet::Subscribed { .. } => Err(ConnectionError::Misbehaved(
                "answered a request that was never sent",
            )),
            Packet::Nothing => Ok(()),
            Packet::Disconnect(reason) => Err(ConnectionError::Disconnected(reason)),
        }
    }

    fn subscribed(&self, reasons: &[u8]) -> Result<(), ConnectionError> {
        let wanted = self.permitted.wanted();
        if reasons.len() != wanted.len() {
            return Err(ConnectionError::Misbehaved("answered for other subscriptions"));
        }
        let refused: Vec<_> = wanted
            .iter()
            .zip(reasons)
            .filter(|(_, reason)| **reason >= packet::REASON_FAILED)
            .collect();
        if let (Some((_, reason)), true) = (refused.first(), refused.len() == wanted.len()) {
            return Err(ConnectionError::NoSubscription(**reason));
        }
        note(&self.filters_path, wanted.iter().map(|one| one.filter.as_str()));
        self.reporter.up(BridgeSide::From);
        for (one, reason) in refused {
            let text = format!(
                "the broker refuses the subscription to {}: {}",
                one.filter,
                reason_text(*reason)
            );
            self.reporter.problem(BridgeSide::From, &text);
        }
        Ok(())
    }

    fn take(&self, publication: &Publication<'_>, taken: &mut PendingEntries) -> Result<(), ConnectionError> {
        let ack = match publication.qos {
            0 => None,
            1 => Some(kind::PUBACK),
            _ => Some(kind::PUBREC),
        }
        .map(|kind| Ack {
            kind,
            identifier: publication.identifier,
        });
        let judged = self
            .permitted
            .judge(publication.topic, publication.qos, publication.retain);
        if let Err(why) = judged {
            self.reporter.refused(&why);
            if let Some(ack) = ack {
                taken.bytes += ENTRY_BYTES;
                taken.entries.push(IntakeEntry::Skip(ack));
            }
            return Ok(());
        }
        let now = clock::now_ms();
        let message = Message {
            seq: 0,
            time_ms: now,
            expires_ms: publication
                .expiry_s
                .map_or(0, |seconds| now.saturating_add(u64::from(seconds) * 1000).max(1)),
            origin: if publication.qos == 2 {
                publication.identifier
            } else {
                0
            },
            qos: publication.qos,
            retain: publication.retain,
            topic: publication.topic.to_owned(),
            payload: publication.payload.to_vec(),
        };
        taken.bytes += message.cost();
        taken.entries.push(IntakeEntry::Keep(message, ack));
        Ok(())
    }
}

/// Writes what is owed, and what has become owed meanwhile.
async fn acknowledge(
    outgoing: &mut Outgoing,
    acks: &mut mpsc::Receiver<Vec<Ack>>,
    mut owed: Vec<Ack>,
) -> Result<(), ConnectionError> {
    while let Ok(more) = acks.try_recv() {
        owed.extend(more);
    }
    let mut out = Vec::with_capacity(owed.len() * 4);
    for ack in owed {
        packet::acknowledge(&mut out, ack.kind, ack.identifier);
    }
    outgoing.write(&out).await
}

/// The filters that the broker's session was last given; `None`: it never was.
fn noted(path: &Path) -> Option<Vec<String>> {
    let bytes = durable::read(path, FILTERS_BYTES_MAX).ok()??;
    serde_json::from_slice(&bytes).ok()
}

/// Without this note the broker would deliver what is no longer wanted, which is refused then: worth a try, no more.
fn note<'a>(path: &Path, filters: impl Iterator<Item = &'a str>) {
    let filters: Vec<_> = filters.collect();
    if noted(path).is_some_and(|before| before == filters) {
        return;
    }
    let text = serde_json::to_vec(&filters).unwrap_or_default();
    if let Err(error) = durable::replace(path, &text, 0o600) {
        tracing::warn!(%error, "a bridge's subscriptions were not recorded");
    }
}

/// How long the goodbye of a revoked bridge may take in all.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
