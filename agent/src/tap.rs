//! Learning in zones that only observe: what asks what of whom, from copies of packets, for `penstock learn`.
//!
//! ```text
//! plan in force ─▶ scope ─▶ filter ─▶ socket (packets in, nothing out) ─▶ gather (follows, bounds) ─▶ tell ─▶ audit
//! ```
//!
//! Invariants:
//! - nothing is ever sent, answered, delayed or altered: the kernel hands out copies of packets that it has received;
//! - only interfaces behind which the plan in force has a zone that observes are looked at, and there only what crosses between two such zones, on
//!   the ports of protocols that are read;
//! - memory ([`gather`]) and time ([`Budget`]) are bounded; what is missed is counted by the kernel and reported as a loss;
//! - the connections of the gateway itself to servers in the plain are nobody's talk ([`legs`]);
//! - it needs CAP_NET_RAW, and Ethernet. Without them everything else works, and a fault in the health report names what is missing.
//!
//! The same code follows recorded traffic (`inspect::learn`): lost packets are holes in a stream there and here, and
//! reading goes on where a sender begins a packet. Who talks to whom on other ports, and over UDP, the kernel's verdicts tell
//! already: neither is tapped, so nothing is counted twice.

pub mod filter;
pub mod gather;
pub mod legs;
pub mod scope;
pub(crate) mod socket;
pub mod trail;

use std::time::Duration;

use penstock_proto::event::AgentStep;
use penstock_proto::v1::{Fault, audit_event::Kind};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::gather::Gather;
use self::legs::OwnLegs;
use self::scope::TapScope;
use self::socket::PacketSocket;
use crate::audit::{Audit, record};
use crate::clock;
use crate::reconcile::PolicyView;

/// How often the interfaces, and the kernel's count of missed packets, are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Packets read at most before other tasks have their turn.
const BATCH: usize = 64;
/// The longest packet that is read whole: what segmentation offload makes of many.
const PACKET_BYTES_MAX: usize = 65_535 + 22;
/// Of each [`WINDOW`], how long packets are read at most: a quarter of one processor.
const SHARE: Duration = Duration::from_millis(25);
const WINDOW: Duration = Duration::from_millis(100);

/// What the configuration says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapSettings {
    /// Whether to learn at all.
    pub enabled: bool,
    /// How often news goes to the trail.
    pub interval: Duration,
}

/// Learns for as long as the agent runs.
#[derive(Debug)]
pub struct Tap {
    /// What the configuration says.
    pub settings: TapSettings,
    /// The plan in force.
    pub policy: watch::Receiver<PolicyView>,
    /// Where what was learned goes.
    pub audit: Audit,
    /// Why nothing is learned, if so.
    pub faults: watch::Sender<Vec<Fault>>,
}

/// A tap that is open.
#[derive(Debug)]
struct Tapping {
    socket: PacketSocket,
    indices: Vec<u32>,
    gather: Gather,
    left_out: u64,
    looked_ms: u64,
}

impl Tap {
    /// Runs until `stop` is cancelled; level-triggered by the plan in force.
    pub async fn run(mut self, stop: CancellationToken) {
        if !self.settings.enabled {
            return;
        }
        let mut tapping: Option<Tapping> = None;
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut budget = Budget::default();
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let rest = budget.rest_until(Instant::now());
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.policy.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.look(&mut tapping);
                }
                _ = tick.tick() => {
                    self.look(&mut tapping);
                    if let Some(tapping) = &mut tapping {
                        tapping.tell(&self.audit, false);
                    }
                }
                () = tokio::time::sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => {}
                readable = readable(tapping.as_ref()), if rest.is_none() => {
                    let failed = match (&mut tapping, readable) {
                        (Some(tapping), Ok(())) => {
                            let begun = Instant::now();
                            let read = tapping.read(&mut buffer);
                            budget.spend(begun, Instant::now());
                            read.err()
                        }
                        (_, readable) => readable.err(),
                    };
                    if let Some(error) = failed {
                        // An interface that went down says so here. Reopening is never wrong.
                        tracing::debug!(%error, "the tap is reopened");
                        self.close(&mut tapping);
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
        }
        self.close(&mut tapping);
    }

    /// Brings the tap to what the plan in force wants.
    fn look(&mut self, tapping: &mut Option<Tapping>) {
        let plan = self.policy.borrow_and_update().plan.clone();
        let scope = plan.map(|plan| (TapScope::of(&plan), OwnLegs::of(&plan)));
        let Some((scope, legs)) = scope.filter(|(scope, _)| scope.observes()) else {
            self.close(tapping);
            self.tell_fault(None);
            return;
        };
        let indices = scope.indices();
        let brought = match tapping {
            Some(open) => {
                open.gather.set_scope((scope.clone(), legs));
                if open.indices == indices {
                    Ok(())
                } else {
                    let program = filter::program(&indices);
                    open.socket.filter(&program).map(|()| open.indices = indices)
                }
            }
            None => PacketSocket::open(&filter::program(&indices)).map(|socket| {
                tracing::info!(interfaces = ?scope.names(), "learning, passively, what observing zones do");
                *tapping = Some(Tapping {
                    socket,
                    indices,
                    gather: Gather::new((scope.clone(), legs), self.settings.interval, Instant::now()),
                    left_out: 0,
                    looked_ms: clock::now_ms(),
                });
            }),
        };
        self.tell_fault(match (brought, tapping) {
            (Err(error), _) => Some(fault(&error)),
            (Ok(()), Some(tapping)) => unread(&tapping.socket, &scope),
            (Ok(()), None) => None,
        });
    }

    fn close(&self, tapping: &mut Option<Tapping>) {
        if let Some(mut tapping) = tapping.take() {
            tapping.tell(&self.audit, true);
        }
    }

    fn tell_fault(&self, fault: Option<Fault>) {
        let faults: Vec<Fault> = fault.into_iter().collect();
        self.faults.send_if_modified(|told| {
            let news = *told != faults;
            if let Some(fault) = faults.first().filter(|_| news) {
                tracing::warn!(code = fault.code, "{}", fault.message);
                self.audit
                    .note(record::agent(AgentStep::NotLearning, &fault.message));
            }
            *told = faults;
            news
        });
    }
}

/// Why nothing is learned, for the health report.
fn fault(error: &std::io::Error) -> Fault {
    if error.kind() == std::io::ErrorKind::PermissionDenied
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
    {
        return Fault {
            code: "tap-not-permitted".to_owned(),
            message: "the operations of observing zones are not learned: the agent may not open packet sockets. Install \
                      penstock-agent-tap.conf beside the unit (it adds CAP_NET_RAW and AF_PACKET), or set \
                      `tap.enabled = false`; enforcement and verdicts are not affected"
                .to_owned(), ..Fault::default() };
    }
    Fault {
        code: "tap-failed".to_owned(),
        message: format!(
            "the operations of observing zones are not learned: the packet socket cannot be used: {error}; it is tried \
             again every second"
        ),
        ..Fault::default()
    }
}

/// Which observing interfaces are of a kind that is not read.
fn unread(socket: &PacketSocket, scope: &TapScope) -> Option<Fault> {
    let is_other = |name: &&str| socket.link_type(name).is_ok_and(|kind| kind != filter::ETHERNET);
    let others: Vec<&str> = scope.names().into_iter().filter(is_other).collect();
    (!others.is_empty()).then(|| Fault {
        code: "tap-not-ethernet".to_owned(),
        message: format!(
            "the operations that come in by {} are not learned: only Ethernet links are read. Who talks \
             to whom there is learned from the verdicts; for the operations record the traffic elsewhere, and read it \
             with `penstock learn --pcap`",
            others.join(", ")
        ), ..Fault::default() })
}

async fn readable(tapping: Option<&Tapping>) -> std::io::Result<()> {
    match tapping {
        Some(tapping) => tapping.socket.readable().await,
        None => std::future::pending().await,
    }
}

impl Tapping {
    /// Reads what is there, at most a batch.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        for _ in 0..BATCH {
            match self.socket.receive(buffer) {
                Ok(bytes) => {
                    let at = Duration::from_millis(clock::now_ms());
                    self.gather
                        .frame(at, buffer.get(..bytes).unwrap_or(buffer), bytes);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reports what is due, or `all`, and what was missed.
    fn tell(&mut self, audit: &Audit, all: bool) {
        for event in self.gather.due(Instant::now(), all) {
            audit.note(Kind::Learned(event));
        }
        let left_out = self.gather.left_out();
        let missed = u64::from(self.socket.take_missed()) + (left_out - self.left_out);
        self.left_out = left_out;
        let (since_ms, now_ms) = (self.looked_ms, clock::now_ms());
        self.looked_ms = now_ms;
        if missed > 0 {
            audit.note(record::lost("tap-overrun", missed, since_ms, now_ms));
        }
    }
}

/// How long packets may be read: [`SHARE`] of each [`WINDOW`]. Meanwhile the kernel keeps what fits its buffer.
#[derive(Debug, Default)]
struct Budget {
    window_ends: Option<Instant>,
    spent: Duration,
}

impl Budget {
    fn spend(&mut self, begun: Instant, ended: Instant) {
        if self.window_ends.is_none_or(|ends| begun >= ends) {
            self.window_ends = Some(begun + WINDOW);
            self.spent = Duration::ZERO;
        }
        self.spent += ended.saturating_duration_since(begun);
    }

    /// Until when nothing may be read, if the window's share is used up.
    fn rest_until(&self, now: Instant) -> Option<Instant> {
        self.window_ends.filter(|ends| self.spent >= SHARE && now < *ends)
    }
}

#[cfg(test)]
mod tests;
