//! What a bridge tells: events for the trail, and its state for health and status.
//!
//! A hostile broker decides how often something is refused and how often it ends a connection. So refusals and losses are told at
//! once the first time and then summed up over [`TELL_INTERVAL`], and of outages the first few. A loss is always told by its exact number, as a loss record: until that is durable in
//! the trail, [`Reporter::unreported`] has it for the disk ([`losses`](super::losses)).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use penstock_policy::plan::Bridge;
use penstock_proto::event::AgentStep;
use penstock_proto::v1::{Decision, Proof, VerdictEvent, audit_event::Kind};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::losses::{LossSum, LossSums};
use crate::audit::{Audit, record};
use crate::clock;

/// What became of the publications that a broker kept in a session which it no longer has.
const SESSION_LOST: &str = "messages that were published while the bridge was away are lost unless they were retained: \
                            the broker no longer had this bridge's session";
/// How long refusals and losses are summed up before they are told again.
pub const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// How many outages of one broker are told one by one in [`TELL_INTERVAL`].
const OUTAGES_TOLD: u32 = 4;

/// Which of its two brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeSide {
    /// The one that messages are taken from.
    From,
    /// The one that they are given to.
    To,
}

/// What a side of a bridge reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Its broker is connected.
    Up,
    /// Its broker is not connected, for this reason.
    Down(String),
    /// Something is not as it should be with a broker that is connected.
    Problem(String),
    /// The sending broker's session is new, though it had been given one.
    SessionLost,
    /// A publication may not cross; why.
    Refused(String),
    /// Messages will not arrive.
    Lost {
        /// As in a loss record.
        cause: &'static str,
        /// How many.
        count: u64,
        /// When the first came, milliseconds since 1970.
        first_ms: u64,
        /// When the last came.
        last_ms: u64,
    },
}

/// The connection to one broker, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideState {
    /// The broker's asset.
    pub broker: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Why it is not, or what is not as it should be.
    pub problem: Option<String>,
}

/// One bridge, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeState {
    /// `conduit/flow`.
    pub flow: String,
    /// Its loss hurts the process.
    pub must_flow: bool,
    /// Where messages come from.
    pub from: SideState,
    /// Where they go.
    pub to: SideState,
    /// Messages that wait on disk.
    pub backlog: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// When the oldest of them came, milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// Why no message is taken now.
    pub full: Option<String>,
}

/// The name of refusals in the file of losses.
pub(super) const REFUSED: &str = "refused";
/// The reason shown for refusals that the agent before this one counted.
const REFUSED_BEFORE: &str = "counted before the agent was restarted";

#[derive(Debug, Default)]
struct RepeatedEvent {
    sum: LossSum,
    example: String,
    told: Option<Instant>,
    /// What was handed to the trail and not seen to be durable there, with the number of its last event ([`Audit::settled`]).
    giving: Option<(u64, LossSum)>,
}

/// The connections to one broker that ended.
#[derive(Debug, Default)]
struct Outages {
    /// Since when they are counted, and how many were told since.
    since: Option<Instant>,
    told: u32,
    /// How many were not told, and the reason for the last of them.
    untold: u64,
    problem: String,
}

#[derive(Debug, Default)]
struct Sums {
    /// With the broker that messages are taken from, and with the other.
    outages: [Outages; 2],
    refused: RepeatedEvent,
    lost: BTreeMap<String, RepeatedEvent>,
}

/// One bridge's voice; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reporter {
    audit: Audit,
    bridge: Arc<Bridge>,
    sums: Arc<Mutex<Sums>>,
    state: Arc<watch::Sender<BridgeState>>,
}

impl RepeatedEvent {
    /// Hands the trail the sum that is due, if there is one, as the event that `event` makes of it and of an example. If the trail
    /// has no room, the sum is kept and offered again later.
    fn tell(
        &mut self,
        audit: &Audit,
        whatever: bool,
        event: impl FnOnce(LossSum, &str) -> Kind,
    ) -> Option<LossSum> {
        let now = Instant::now();
        let waited = self
            .told
            .is_none_or(|told| now.duration_since(told) >= TELL_INTERVAL);
        if self.sum.count == 0 || !(waited || whatever) {
            return None;
        }
        let place = audit.offer_event(|| audit.now(event(self.sum, &self.example)))?;
        let before = self.unsettled(audit.settled());
        let sum = std::mem::take(&mut self.sum);
        self.giving = Some((place, before.and(sum)));
        self.told = Some(now);
        Some(sum)
    }

    /// What the trail was given, and does not have durable.
    fn unsettled(&self, settled: u64) -> LossSum {
        let giving = self.giving.filter(|(place, _)| *place > settled);
        giving.map(|(_, sum)| sum).unwrap_or_default()
    }
}

impl Outages {
    /// Whether one more is told now; else it is counted.
    fn tells(&mut self, problem: &str) -> bool {
        let now = Instant::now();
        let over = |since| now.duration_since(since) >= TELL_INTERVAL;
        if self.untold == 0 && self.since.is_none_or(over) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.untold > 0 || self.told >= OUTAGES_TOLD {
            self.untold = self.untold.saturating_add(1);
            self.problem = record::bounded(problem);
            return false;
        }
        self.told += 1;
        true
    }

    /// How many were not told, and why the last of them, if it is time to tell that.
    fn due(&mut self, whatever: bool) -> Option<(u64, String)> {
        let over = |since: Instant| since.elapsed() >= TELL_INTERVAL;
        if self.untold == 0 || !(whatever || self.since.is_none_or(over)) {
            return None;
        }
        let all = std::mem::take(self);
        Some((all.untold, all.problem))
    }
}

impl Reporter {
    /// A voice for `bridge`, and where its state can be watched.
    pub fn new(audit: Audit, bridge: Arc<Bridge>) -> (Self, watch::Receiver<BridgeState>) {
        let side = |asset: &penstock_policy::ids::AssetId| SideState {
            broker: asset.to_string(),
            ..SideState::default()
        };
        let (state, seen) = watch::channel(BridgeState {
            flow: flow(&bridge),
            must_flow: bridge.must_flow,
            from: side(&bridge.from.asset),
            to: side(&bridge.to.asset),
            ..BridgeState::default()
        });
        let reporter = Self {
            audit,
            bridge,
            sums: Arc::default(),
            state: Arc::new(state),
        };
        (reporter, seen)
    }

    /// Something that happened to this bridge.
    pub fn event(&self, step: AgentStep, message: &str) {
        let text = format!("{}: {message}", flow(&self.bridge));
        self.audit.note(record::agent(step, &text));
    }

    /// What the machine of one side decided to report.
    pub fn notice(&self, side: BridgeSide, notice: Notice) {
        match notice {
            Notice::Up => self.up(side),
            Notice::Down(problem) => self.down(side, &problem),
            Notice::Problem(problem) => self.problem(side, &problem),
            Notice::SessionLost => self.event(AgentStep::BridgeSessionLost, SESSION_LOST),
            Notice::Refused(why) => self.refused(&why),
            Notice::Lost {
                cause,
                count,
                first_ms,
                last_ms,
            } => self.lost(
                cause,
                LossSum {
                    count,
                    first_ms,
                    last_ms,
                },
            ),
        }
    }

    /// A broker is connected.
    fn up(&self, side: BridgeSide) {
        let broker = self.broker(side);
        tracing::info!(flow = flow(&self.bridge), broker, "bridge connected");
        // While outages are only counted, that it is connected is told with their number.
        if self.outages(side, |outages| outages.untold == 0) {
            self.event(AgentStep::BridgeUp, &format!("connected to {broker}"));
        }
        self.state.send_modify(|state| {
            let of = of(state, side);
            of.connected = true;
            of.problem = None;
        });
    }

    /// A broker is not connected, for this reason. The same reason again and again is one event.
    pub fn down(&self, side: BridgeSide, problem: &str) {
        let broker = self.broker(side);
        let news = {
            let state = self.state.borrow();
            let of = match side {
                BridgeSide::From => &state.from,
                BridgeSide::To => &state.to,
            };
            of.connected || of.problem.as_deref() != Some(problem)
        };
        if news {
            tracing::warn!(flow = flow(&self.bridge), broker, %problem, "bridge not connected");
            if self.outages(side, |outages| outages.tells(problem)) {
                let text = format!("not connected to {broker}: {problem}");
                self.event(AgentStep::BridgeDown, &text);
            }
        }
        self.state.send_if_modified(|state| {
            let of = of(state, side);
            of.connected = false;
            of.problem = Some(record::bounded(problem));
            news
        });
    }

    /// Something is not as it should be with a broker that is connected.
    fn problem(&self, side: BridgeSide, problem: &str) {
        self.event(AgentStep::BridgeProblem, problem);
        self.state
            .send_modify(|state| of(state, side).problem = Some(record::bounded(problem)));
    }

    /// The queue's accounts.
    pub fn depth(&self, backlog: u64, bytes: u64, oldest_ms: Option<u64>, full: Option<String>) {
        let was_full = self.state.borrow().full.clone();
        match (&was_full, &full) {
            (None, Some(why)) => {
                let text = format!("no more messages are taken or acknowledged: {why}");
                self.event(AgentStep::BridgeFull, &text);
            }
            (Some(_), None) => self.event(AgentStep::BridgeRoom, "there is room again"),
            _ => {}
        }
        self.state.send_if_modified(|state| {
            let changed = (state.backlog, state.bytes, state.oldest_ms) != (backlog, bytes, oldest_ms)
                || state.full != full;
            state.backlog = backlog;
            state.bytes = bytes;
            state.oldest_ms = oldest_ms;
            state.full = full;
            changed
        });
    }

    /// A publication that may not cross; `why` names it.
    fn refused(&self, why: &str) {
        let now_ms = clock::now_ms();
        let one = LossSum {
            count: 1,
            first_ms: now_ms,
            last_ms: now_ms,
        };
        self.add_refused(why, one);
        self.tell_due(false);
    }

    fn add_refused(&self, why: &str, more: LossSum) {
        let refused = &mut self.sums().refused;
        if refused.sum.count == 0 {
            refused.example = record::bounded(why);
        }
        refused.sum = refused.sum.and(more);
    }

    /// Messages that will not arrive; `cause` as in a loss record.
    pub fn lost(&self, cause: &str, sum: LossSum) {
        if sum.count == 0 {
            return;
        }
        let mut sums = self.sums();
        let known = sums.lost.entry(cause.to_owned()).or_default();
        known.sum = known.sum.and(sum);
        drop(sums);
        self.tell_due(false);
    }

    /// What an agent before had counted and not reported.
    pub fn left(&self, sums: LossSums) {
        for (cause, sum) in sums {
            if cause == REFUSED {
                self.add_refused(REFUSED_BEFORE, sum);
            } else {
                self.lost(&cause, sum);
            }
        }
        self.tell_due(false);
    }

    /// What the trail does not have durable yet.
    pub fn unreported(&self) -> LossSums {
        let settled = self.audit.settled();
        let sums = self.sums();
        let refused = std::iter::once((REFUSED, &sums.refused));
        let lost = sums.lost.iter().map(|(cause, event)| (cause.as_str(), event));
        let all = refused.chain(lost);
        let waiting = all.map(|(cause, event)| (cause.to_owned(), event.unsettled(settled).and(event.sum)));
        waiting.filter(|(_, sum)| sum.count > 0).collect()
    }

    /// Tells what was summed up long enough; `whatever`: all of it.
    pub fn tell_due(&self, whatever: bool) {
        for side in [BridgeSide::From, BridgeSide::To] {
            let Some((count, problem)) = self.outages(side, |outages| outages.due(whatever)) else {
                continue;
            };
            let broker = self.broker(side);
            let text = format!("not connected to {broker} {count} more times, at last: {problem}");
            self.event(AgentStep::BridgeDown, &text);
            let connected = match side {
                BridgeSide::From => self.state.borrow().from.connected,
                BridgeSide::To => self.state.borrow().to.connected,
            };
            if connected {
                self.event(AgentStep::BridgeUp, &format!("connected to {broker}"));
            }
        }
        let mut sums = self.sums();
        sums.refused
            .tell(&self.audit, whatever, |sum, example| self.refusal(sum, example));
        for (cause, event) in &mut sums.lost {
            let record = |sum: LossSum, _: &str| record::lost(cause, sum.count, sum.first_ms, sum.last_ms);
            if let Some(sum) = event.tell(&self.audit, whatever, record) {
                let text = format!("{} messages will not arrive ({cause})", sum.count);
                self.event(AgentStep::BridgeLost, &text);
            }
        }
    }

    fn outages<T>(&self, side: BridgeSide, of: impl FnOnce(&mut Outages) -> T) -> T {
        let [from, to] = &mut self.sums().outages;
        of(match side {
            BridgeSide::From => from,
            BridgeSide::To => to,
        })
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, sum: LossSum, example: &str) -> Kind {
        Kind::Verdict(VerdictEvent {
            decision: Decision::Deny.into(),
            flow_id: self.bridge.id.0,
            flow: flow(&self.bridge),
            ingress: String::new(),
            egress: String::new(),
            source: self.bridge.from.address.to_string(),
            destination: self.bridge.to.address.to_string(),
            protocol: 6,
            port: u32::from(self.bridge.to.port),
            count: sum.count,
            first_ms: sum.first_ms,
            last_ms: sum.last_ms,
            reason: example.to_owned(),
            source_proof: Proof::from(self.bridge.from.proof()).into(),
            destination_proof: Proof::from(self.bridge.to.proof()).into(),
        })
    }

    fn broker(&self, side: BridgeSide) -> String {
        match side {
            BridgeSide::From => self.bridge.from.asset.to_string(),
            BridgeSide::To => self.bridge.to.asset.to_string(),
        }
    }
}

fn of(state: &mut BridgeState, side: BridgeSide) -> &mut SideState {
    match side {
        BridgeSide::From => &mut state.from,
        BridgeSide::To => &mut state.to,
    }
}

/// `conduit/flow`, as everywhere.
pub fn flow(bridge: &Bridge) -> String {
    format!("{}/{}", bridge.conduit, bridge.flow)
}
