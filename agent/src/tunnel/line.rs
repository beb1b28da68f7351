//! One tunnel: its device, the connection that carries it, and what is said of both.
//!
//! Two tasks: one takes packets from the device at all times, and drops them while there is no connection, so that none waits and comes late; the other finds
//! the connection, carries what comes on it to the device, and ends it when the peer's key is withdrawn.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use penstock_policy::ids::GatewayId;
use penstock_policy::plan::Tunnel;
use penstock_proto::backoff::Backoff;
use penstock_proto::event::AgentStep;
use penstock_proto::withdrawn::{WatchedLife, WithdrawnView};
use quinn::{Connection, ConnectionError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::device::Device;
use super::offload::{self, Joined};
use super::piece::{Joiner, Packed, pack};
use super::shown::{Carriage, TunnelPath, TunnelState};
use super::station::{Arrivals, NO_ANSWER, Station, in_words, life};
use crate::audit::{Audit, record};
use crate::clock;
use crate::identity::Identity;
use crate::jitter::random;

/// How long is waited before the peer is tried again: shortly first, since a gateway whose agent restarts is back within a second.
const BACKOFF: Backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(5));
/// How often a peer that does not answer may only be restarting.
const PROMPT_ATTEMPTS: u32 = 4;
/// How long a first attempt may take: what was sent to a gateway whose agent did not run yet is lost, and sent again ever later. Each further one may take
/// as much longer, up to [`super::HANDSHAKE_MAX`]: three round trips by satellite take longer than this.
const PROMPT: Duration = Duration::from_secs(1);
/// Datagrams that become frames together, at most.
const AT_ONCE_MAX: usize = 64;
/// How long a packet may wait for room in the tunnel.
const LATE_MAX: Duration = Duration::from_millis(20);
/// Connections of a peer that wait to be taken.
const ARRIVALS_MAX: usize = 2;

/// How long the peer has to answer this attempt; the first is 1.
fn patience(attempt: u32) -> Duration {
    PROMPT.saturating_mul(attempt).min(super::HANDSHAKE_MAX)
}

/// How a tunnel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineState {
    /// The gateway at the other end.
    pub peer: GatewayId,
    /// Where it is, while the tunnel stands.
    pub at: Option<SocketAddr>,
    /// Since when it stands, or does not; milliseconds since 1970.
    pub since_ms: u64,
    /// Why it does not stand; none while it does, and before that is known.
    pub problem: Option<String>,
}

/// What went through a tunnel, and what did not.
#[derive(Debug, Default)]
pub(super) struct LineCounters {
    /// Packets that went into it.
    pub sent: AtomicU64,
    /// Their bytes.
    pub sent_bytes: AtomicU64,
    /// Packets that came out of it.
    pub received: AtomicU64,
    /// Their bytes.
    pub received_bytes: AtomicU64,
    /// Packets that went nowhere, since it did not stand or did not take them.
    pub dropped: AtomicU64,
}

/// What a line needs of others.
pub(super) struct Setup {
    pub(super) tunnel: Tunnel,
    pub(super) station: Arc<Station>,
    pub(super) identity: watch::Receiver<Option<Arc<Identity>>>,
    pub(super) withdrawn: WithdrawnView,
    pub(super) audit: Audit,
}

/// A tunnel that runs.
pub(super) struct Line {
    pub(super) tunnel: Tunnel,
    pub(super) arrivals: Arrivals,
    pub(super) state: watch::Receiver<LineState>,
    pub(super) counters: Arc<LineCounters>,
    carried: Arc<Carried>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Line {
    /// Makes the device, and begins.
    pub(super) fn begin(setup: Setup) -> std::io::Result<Self> {
        let device = Arc::new(Device::make(&setup.tunnel.device)?);
        let (arrivals, arriving) = mpsc::channel(ARRIVALS_MAX);
        let (state_in, state) = watch::channel(LineState {
            peer: setup.tunnel.peer.clone(),
            at: None,
            since_ms: clock::now_ms(),
            problem: None,
        });
        let stop = CancellationToken::new();
        let counters = Arc::new(LineCounters::default());
        let tunnel = setup.tunnel.clone();
        let carried = Arc::new(Carried {
            device,
            current: Mutex::default(),
            counters: counters.clone(),
        });
        let runner = Runner {
            carried: carried.clone(),
            setup,
            arriving,
            state: state_in,
            said: false,
        };
        let task = tokio::spawn(runner.run(stop.clone()));
        Ok(Self {
            tunnel,
            arrivals,
            state,
            counters,
            carried,
            stop,
            task,
        })
    }

    /// How it stands, for people.
    pub(super) fn shown(&self) -> TunnelState {
        let state = self.state.borrow().clone();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let connection = self.carried.current();
        let path = connection.as_ref().map(|connection| TunnelPath {
            rtt_us: u64::try_from(connection.rtt().as_micros()).unwrap_or(u64::MAX),
            datagram_bytes_max: connection.max_datagram_size().unwrap_or_default(),
        });
        TunnelState {
            peer: state.peer,
            device: self.tunnel.device.clone(),
            at: state.at,
            since_ms: state.since_ms,
            problem: state.problem,
            path,
            sent: Carriage::of(count(&self.counters.sent), count(&self.counters.sent_bytes)),
            received: Carriage::of(
                count(&self.counters.received),
                count(&self.counters.received_bytes),
            ),
            dropped: count(&self.counters.dropped),
        }
    }

    /// Whether it ended by itself.
    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it, and its device.
    pub(super) async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, device = self.tunnel.device, "internal error in a tunnel");
        }
    }
}

/// What both tasks have.
struct Carried {
    device: Arc<Device>,
    current: Mutex<Option<Connection>>,
    counters: Arc<LineCounters>,
}

impl Carried {
    fn current(&self) -> Option<Connection> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The connection that carries from now on.
    fn carry(&self, connection: Option<Connection>) {
        let stands = connection.is_some();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = connection;
        if let Err(error) = self.device.carrier(stands) {
            tracing::warn!(%error, device = self.device.name(), "the carrier of a tunnel's device cannot be set");
        }
    }

    /// Takes what goes into the tunnel, for ever.
    async fn pump(&self) -> std::io::Error {
        let mut buffer = vec![0; offload::FRAME_BYTES_MAX];
        let mut way = Way::default();
        let mut packets = Vec::new();
        loop {
            let frame = match self.device.receive(&mut buffer).await {
                Ok(length) => buffer.get_mut(..length).unwrap_or_default(),
                Err(error) => return error,
            };
            let connection = self.current();
            let room = connection.as_ref().and_then(Connection::max_datagram_size);
            let whole = offload::divide(frame, |packet| {
                way.number = way.number.wrapping_add(1);
                let packed = room.map_or(Packed::TooLarge, |room| pack(packet, room, way.number));
                packets.push((packet.len(), packed));
            });
            add(&self.counters.dropped, usize::from(whole.is_none()));
            for (length, packed) in packets.drain(..) {
                let is_sent = match &connection {
                    Some(connection) => way.send(connection, packed).await,
                    None => false,
                };
                if is_sent {
                    add(&self.counters.sent, 1);
                    add(&self.counters.sent_bytes, length);
                } else {
                    add(&self.counters.dropped, 1);
                }
            }
        }
    }

    /// Gives the device what came out of the tunnel: this datagram, and those that are there already.
    fn deliver(&self, connection: &Connection, first: Bytes, joiner: &mut Joiner, joined: &mut Joined) {
        let mut send = |frame: &[u8], packets: usize| {
            if self.device.send(frame).is_ok() {
                add(&self.counters.received, packets);
                add(
                    &self.counters.received_bytes,
                    frame.len().saturating_sub(offload::HEAD_BYTES),
                );
            } else {
                add(&self.counters.dropped, packets);
            }
        };
        let mut next = Some(first);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..AT_ONCE_MAX {
            let Some(datagram) = next.take() else { break };
            if let Some(packet) = joiner.take(datagram) {
                joined.take(&packet, &mut send);
            }
            // An error shows again when it is waited for.
            if let Poll::Ready(Ok(datagram)) = pin!(connection.read_datagram()).poll(&mut context) {
                next = Some(datagram);
            }
        }
        if let Some(packet) = next.and_then(|datagram| joiner.take(datagram)) {
            joined.take(&packet, &mut send);
        }
        joined.flush(&mut send);
    }
}

/// The way into the tunnel.
#[derive(Debug, Default)]
struct Way {
    /// Of the last packet.
    number: u32,
    /// There was no room for [`LATE_MAX`]: nothing waits until there is plenty again.
    is_stalled: bool,
}

impl Way {
    async fn send(&mut self, connection: &Connection, packed: Packed) -> bool {
        match packed {
            Packed::Whole(whole) => self.send_one(connection, whole).await,
            Packed::Halves(first, second) => {
                self.send_one(connection, first).await && self.send_one(connection, second).await
            }
            Packed::TooLarge => false,
        }
    }

    /// Waits for room, since what is divided here comes faster than it is sealed. Not for long: on a path that carries nothing for a while, what waits would
    /// come late, so that the newest takes the place of the oldest then.
    async fn send_one(&mut self, connection: &Connection, datagram: Bytes) -> bool {
        let space = connection.datagram_send_buffer_space();
        if space >= super::SEND_BYTES_MAX / 2 {
            self.is_stalled = false;
        }
        if self.is_stalled || space > datagram.len() {
            return connection.send_datagram(datagram).is_ok();
        }
        match tokio::time::timeout(LATE_MAX, connection.send_datagram_wait(datagram)).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                self.is_stalled = true;
                false
            }
        }
    }
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(u64::try_from(more).unwrap_or_default(), Ordering::Relaxed);
}

/// Why a connection carries no longer.
enum LineEnd {
    Stopped,
    Replaced(Connection),
    Withdrawn,
    Lost(ConnectionError),
    /// The plan's peer is not who is at the other end.
    Nobody,
}

struct Runner {
    carried: Arc<Carried>,
    setup: Setup,
    arriving: mpsc::Receiver<Connection>,
    state: watch::Sender<LineState>,
    /// Whether that it does not stand was said already.
    said: bool,
}

impl Runner {
    async fn run(mut self, stop: CancellationToken) {
        let carried = self.carried.clone();
        let pump = tokio::spawn(async move { carried.pump().await });
        let mut pump = std::pin::pin!(pump);
        tokio::select! {
            () = self.hold(&stop) => {}
            ended = &mut pump => {
                let why = ended.map_or_else(|error| error.to_string(), |error| error.to_string());
                self.down(format!("its device cannot be read: {why}"));
            }
        }
        pump.abort();
        if let Some(connection) = self.carried.current() {
            connection.close(0_u32.into(), b"the tunnel is no longer wanted");
        }
        // The device ends with the last who has it.
        drop(pump.await);
    }

    /// Finds connections and carries on them until `stop`.
    async fn hold(&mut self, stop: &CancellationToken) {
        let mut backoff = BACKOFF;
        let mut next = None;
        loop {
            let begun = Instant::now();
            let connection = match next.take() {
                Some(connection) => connection,
                None => tokio::select! {
                    () = stop.cancelled() => return,
                    found = self.find(&mut backoff) => found,
                },
            };
            let end = self.serve(&connection, stop).await;
            self.carried.carry(None);
            let (why, words): (&[u8], String) = match end {
                LineEnd::Stopped => return connection.close(0_u32.into(), b"the tunnel is no longer wanted"),
                LineEnd::Replaced(newer) => {
                    connection.close(0_u32.into(), b"a newer connection takes its place");
                    next = Some(newer);
                    continue;
                }
                LineEnd::Withdrawn => (
                    b"withdrawn",
                    "the key of the other gateway was withdrawn".to_owned(),
                ),
                LineEnd::Nobody => (
                    b"nobody",
                    "the other end shows no certificate of a gateway".to_owned(),
                ),
                LineEnd::Lost(error) => (b"", in_words(&error)),
            };
            connection.close(0_u32.into(), why);
            self.down(words);
            if self.setup.tunnel.connect.is_some() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(backoff.ended(begun.elapsed(), random())) => {}
                }
            }
        }
    }

    /// The next connection: made, or come.
    async fn find(&mut self, backoff: &mut Backoff) -> Connection {
        let Some(at) = self.setup.tunnel.connect else {
            loop {
                let wait = tokio::time::sleep(super::HANDSHAKE_MAX);
                tokio::select! {
                    come = self.arriving.recv() => if let Some(connection) = come {
                        return connection;
                    } else {
                        std::future::pending::<()>().await;
                    },
                    () = wait => self.down("it does not connect to this gateway".to_owned()),
                }
            }
        };
        let mut attempts = 0_u32;
        loop {
            attempts = attempts.saturating_add(1);
            let patience = patience(attempts);
            let identity = self.setup.identity.borrow().clone();
            let problem = match identity {
                None => "this gateway is not enrolled (penstock-agent enrol)".to_owned(),
                Some(identity) => match self
                    .setup
                    .station
                    .connect(&self.setup.tunnel.peer, (at, patience), &identity)
                    .await
                {
                    Ok(connection) => return connection,
                    // While it may only be restarting, why the connection before ended says more.
                    Err(problem) if problem == NO_ANSWER && self.said && attempts < PROMPT_ATTEMPTS => {
                        tokio::time::sleep(backoff.failed(random())).await;
                        continue;
                    }
                    Err(problem) => format!("at {at}: {problem}"),
                },
            };
            self.down(problem);
            tokio::time::sleep(backoff.failed(random())).await;
        }
    }

    /// Carries on this connection until it ends.
    async fn serve(&mut self, connection: &Connection, stop: &CancellationToken) -> LineEnd {
        let Some(life) = life(connection) else {
            return LineEnd::Nobody;
        };
        let mut life = WatchedLife::new(life, self.setup.withdrawn.clone());
        if life.is_over() {
            return LineEnd::Withdrawn;
        }
        self.carried.carry(Some(connection.clone()));
        self.up(connection.remote_address());
        let (mut joiner, mut joined) = (Joiner::default(), Joined::default());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return LineEnd::Stopped,
                () = life.over() => return LineEnd::Withdrawn,
                Some(newer) = self.arriving.recv() => return LineEnd::Replaced(newer),
                datagram = connection.read_datagram() => match datagram {
                    Ok(datagram) => self.carried.deliver(connection, datagram, &mut joiner, &mut joined),
                    Err(error) => return LineEnd::Lost(error),
                },
            }
        }
    }

    fn up(&mut self, at: SocketAddr) {
        let at = SocketAddr::new(at.ip().to_canonical(), at.port());
        let stood = self.state.borrow().at;
        if stood == Some(at) {
            return;
        }
        self.said = false;
        let peer = &self.setup.tunnel.peer;
        tracing::info!(%peer, %at, "a tunnel stands");
        let text = format!("the tunnel to gateway {peer} at {at} stands");
        self.setup.audit.note(record::agent(AgentStep::TunnelUp, &text));
        self.state.send_replace(LineState {
            peer: peer.clone(),
            at: Some(at),
            since_ms: clock::now_ms(),
            problem: None,
        });
    }

    fn down(&mut self, problem: String) {
        let peer = self.setup.tunnel.peer.clone();
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(%peer, problem, "a tunnel does not stand");
            let text =
                format!("the tunnel to gateway {peer} does not stand, and nothing of it crosses: {problem}");
            self.setup
                .audit
                .note(record::agent(AgentStep::TunnelDown, &record::bounded(&text)));
        }
        self.state.send_modify(|state| {
            if state.at.take().is_some() {
                state.since_ms = clock::now_ms();
            }
            state.problem = Some(problem);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_beyond_a_satellite_is_waited_for_at_the_second_attempt_and_one_that_restarts_is_tried_again_soon()
     {
        let seconds = [1, 2, 3, 4, 5, 6, u32::MAX].map(|attempt| patience(attempt).as_secs());
        assert_eq!(seconds, [1, 2, 3, 4, 5, 5, 5]);
    }
}
