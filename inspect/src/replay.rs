//! What a policy would have done with recorded traffic: per connection and per operation, with the rule that decided.
//!
//! The network's verdict is the oracle's ([`penstock_policy::verdict`]); operations are judged by the machine that
//! judges live ones, observing. A connection that crosses several gateways is judged by each. So is UDP ([`datagrams`]), in
//! which no operation is read.

pub mod datagrams;
mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::model::{OnRefusal, Protocol};
use serde::Serialize;

use self::datagrams::Datagrams;
pub use self::datagrams::{DatagramsReport, Judgement};
pub use self::policy::{Gate, Plans, PlansError, Track};
use crate::capture::{
    Conversations, FlowKey, Flows, Fragments, Frame, Happening, SkipReason, Transport, flows,
};
use crate::connection::{Effect, Sender};
use crate::follow::{Finding, Follower};
use crate::judge::Rules;

/// Distinct operations kept for one connection at one gateway; what is beyond is counted together.
pub const OPERATIONS_MAX: usize = 10_000;

/// Distinct deviations kept for one connection at one gateway; what is beyond is counted together.
const DEVIATIONS_MAX: usize = 100;

/// The ports of protocols that are read, for connections that no rule names.
pub const KNOWN_PORTS: &[(u16, Protocol)] = &[(502, Protocol::ModbusTcp), (1883, Protocol::Mqtt)];

/// How often something happened, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// How often.
    pub count: u64,
    /// First time, since 1970.
    pub first: Duration,
    /// Last time.
    pub last: Duration,
}

impl Seen {
    /// Once, then.
    pub fn once(at: Duration) -> Self {
        Self {
            count: 1,
            first: at,
            last: at,
        }
    }

    /// Once more.
    pub fn again(&mut self, at: Duration) {
        self.count += 1;
        self.first = self.first.min(at);
        self.last = self.last.max(at);
    }

    /// As often more, over the time of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

/// What the policy says of an operation, or of a whole connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Answer {
    /// It would have passed.
    pub allowed: bool,
    /// Which rule decided, or why none did.
    pub because: String,
}

/// One connection as one gateway would have treated it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Treatment {
    /// The gateway; `None` if the connection crosses none.
    pub gateway: Option<String>,
    /// What it says of the connection as such.
    pub connection: Answer,
    /// Operations in words, with what it says of each.
    pub operations: Vec<JudgedOperation>,
    /// Operations beyond [`OPERATIONS_MAX`].
    pub further_operations: u64,
    /// No rule permits it; it passes because the zones only observe.
    pub observed: bool,
    /// The gateway would have ended it: it carried what cannot be read as the protocol.
    pub ended: bool,
    /// What else than refused operations the gateway would not have let pass.
    pub deviations: Vec<DeviationSeen>,
    /// What else was seen on it, in words.
    pub notes: BTreeMap<String, Seen>,
}

/// What enforcing would have changed of a connection beside refusing operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviationSeen {
    /// In words.
    pub what: String,
    /// What the gateway would have made of it.
    pub effect: Effect,
    /// The option of the flow that would let it pass.
    pub remedy: Option<&'static str>,
    /// How often and when.
    pub seen: Seen,
}

/// An operation of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JudgedOperation {
    /// In the field's words.
    pub operation: String,
    /// What the policy says.
    pub answer: Answer,
    /// How often and when.
    pub seen: Seen,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowReport {
    /// `address:port` of who opened it.
    pub client: String,
    /// `address:port` of whom it was opened to.
    pub server: String,
    /// Times of its first and last packet.
    pub seen: Seen,
    /// Its opening is not in the capture.
    pub midway: bool,
    /// Payload bytes of client and server.
    pub bytes: [u64; 2],
    /// Payload bytes that the capture lacks.
    pub missing_bytes: u64,
    /// Bytes that a retransmission brought with other content.
    pub conflicting_bytes: u64,
    /// What each gateway on its way would have done.
    pub treatments: Vec<Treatment>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Report {
    /// Connections in the order they began.
    pub flows: Vec<FlowReport>,
    /// UDP by client, server and port, in the order they began.
    pub datagrams: Vec<DatagramsReport>,
    /// Packets read.
    pub packets: u64,
    /// Packets left aside, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// What stopped reading a file early.
    pub cut: Vec<String>,
}

/// Replays frames against a policy.
#[derive(Debug)]
pub struct Replay<'p> {
    plans: &'p Plans,
    fragments: Fragments,
    flows: Flows,
    running: Vec<Running>,
    conversations: Conversations,
    datagrams: Datagrams,
    packets: u64,
    skipped: BTreeMap<SkipReason, u64>,
    cut: Vec<String>,
}

#[derive(Debug)]
struct Running {
    report: FlowReport,
    tracks: Vec<RunningTrack>,
}

#[derive(Debug)]
struct RunningTrack {
    track: Track,
    follower: Option<Follower>,
    operations: BTreeMap<(String, Answer), Seen>,
    further: u64,
    ended: bool,
    deviations: BTreeMap<(Effect, String, Option<&'static str>), Seen>,
    notes: BTreeMap<String, Seen>,
}

impl<'p> Replay<'p> {
    /// Nothing replayed yet.
    pub fn new(plans: &'p Plans) -> Self {
        let ports: Vec<u16> = KNOWN_PORTS.iter().map(|(port, _)| *port).collect();
        Self {
            plans,
            fragments: Fragments::default(),
            flows: Flows::new(flows::Limits::default(), &ports),
            running: Vec::new(),
            conversations: Conversations::default(),
            datagrams: Datagrams::default(),
            packets: 0,
            skipped: BTreeMap::new(),
            cut: Vec::new(),
        }
    }

    /// Takes a packet.
    pub fn frame(&mut self, frame: &Frame<'_>) {
        self.packets += 1;
        if frame.number == 1 {
            self.conversations.recording_begins(frame.at);
        }
        let plans = self.plans;
        match self.fragments.transport(frame) {
            Ok(Some(Transport::Tcp(segment))) => {
                let running = &mut self.running;
                self.flows
                    .segment(frame.at, &segment, &mut |number, key, at, happening| {
                        happened(plans, running, number, key, at, happening);
                    });
            }
            Ok(Some(Transport::Udp(datagram))) => {
                let datagrams = &mut self.datagrams;
                self.conversations
                    .datagram(frame.at, &datagram, &mut |over| datagrams.add(plans, &over));
            }
            Ok(None) => {}
            Err(reason) => *self.skipped.entry(reason).or_default() += 1,
        }
    }

    /// A file could not be read further, or at all.
    pub fn cut_short(&mut self, what: String) {
        self.cut.push(what);
    }

    /// The end of all captures.
    pub fn finish(mut self) -> Report {
        let (plans, running) = (self.plans, &mut self.running);
        self.flows.finish(&mut |number, key, at, happening| {
            happened(plans, running, number, key, at, happening);
        });
        let conversations_left_out = self.conversations.left_out();
        let datagrams = &mut self.datagrams;
        self.conversations.finish(&mut |over| datagrams.add(plans, &over));
        let mut skipped: BTreeMap<String, u64> = self
            .skipped
            .into_iter()
            .chain(self.fragments.finish())
            .map(|(reason, count)| (reason.to_string(), count))
            .collect();
        for (left_out, of) in [
            (self.flows.left_out(), "connections"),
            (conversations_left_out, "conversations over UDP"),
        ] {
            if left_out > 0 {
                skipped.insert(format!("more {of} at a time than are followed"), left_out);
            }
        }
        Report {
            flows: self.running.into_iter().map(Running::report).collect(),
            datagrams: self.datagrams.finish(),
            packets: self.packets,
            skipped,
            cut: self.cut,
        }
    }
}

fn happened(
    plans: &Plans,
    running: &mut Vec<Running>,
    number: usize,
    key: FlowKey,
    at: Duration,
    happening: Happening<'_>,
) {
    if let Happening::Begins { midway } = happening {
        running.push(Running::new(plans, key, at, midway));
        return;
    }
    if let Some(flow) = running.get_mut(number) {
        flow.happened(at, happening);
    }
}

impl Running {
    fn new(plans: &Plans, key: FlowKey, at: Duration, midway: bool) -> Self {
        let tracks = plans.tracks(key.client, key.server);
        let protocol_of_port = KNOWN_PORTS
            .iter()
            .find(|(port, _)| *port == key.server.port())
            .map(|(_, protocol)| *protocol);
        let running = |track: Track| {
            let (rules, on_refusal) = match &track.gate {
                Gate::Inspected {
                    rules, on_refusal, ..
                } => (Some(Arc::clone(rules)), *on_refusal),
                _ => {
                    let nothing = |protocol| Arc::new(Rules::nothing(protocol));
                    (protocol_of_port.map(nothing), OnRefusal::Answer)
                }
            };
            RunningTrack {
                track,
                follower: rules.map(|rules| Follower::new(rules, midway).refusing(on_refusal)),
                operations: BTreeMap::new(),
                further: 0,
                ended: false,
                deviations: BTreeMap::new(),
                notes: BTreeMap::new(),
            }
        };
        Self {
            report: FlowReport {
                client: key.client.to_string(),
                server: key.server.to_string(),
                seen: Seen::once(at),
                midway,
                bytes: [0; 2],
                missing_bytes: 0,
                conflicting_bytes: 0,
                treatments: Vec::new(),
            },
            tracks: tracks.into_iter().map(running).collect(),
        }
    }

    fn happened(&mut self, at: Duration, happening: Happening<'_>) {
        self.report.seen.last = self.report.seen.last.max(at);
        let [client_bytes, server_bytes] = &mut self.report.bytes;
        match happening {
            Happening::Data(Sender::Client, bytes) => *client_bytes += bytes.len() as u64,
            Happening::Data(Sender::Server, bytes) => *server_bytes += bytes.len() as u64,
            Happening::Gap(_, bytes) => self.report.missing_bytes += bytes,
            Happening::Conflict(_, bytes) => self.report.conflicting_bytes += bytes as u64,
            Happening::Begins { .. } | Happening::Ends { .. } => {}
        }
        for track in &mut self.tracks {
            track.happened(at, &happening);
        }
    }

    fn report(self) -> FlowReport {
        let treatment = |track: RunningTrack| Treatment {
            connection: track.track.gate.answer(),
            observed: matches!(track.track.gate, Gate::Shut { observing: true, .. }),
            gateway: track.track.gateway,
            operations: track
                .operations
                .into_iter()
                .map(|((operation, answer), seen)| JudgedOperation {
                    operation,
                    answer,
                    seen,
                })
                .collect(),
            further_operations: track.further,
            ended: track.ended,
            deviations: track
                .deviations
                .into_iter()
                .map(|((effect, what, remedy), seen)| DeviationSeen {
                    what,
                    effect,
                    remedy,
                    seen,
                })
                .collect(),
            notes: track.notes,
        };
        FlowReport {
            treatments: self.tracks.into_iter().map(treatment).collect(),
            ..self.report
        }
    }
}

impl RunningTrack {
    fn happened(&mut self, at: Duration, happening: &Happening<'_>) {
        let Self {
            track,
            follower,
            operations,
            further,
            ended,
            deviations,
            notes,
        } = self;
        let Some(follower) = follower else { return };
        let rules = match &track.gate {
            Gate::Inspected { rules, .. } => Some(Arc::clone(rules)),
            _ => None,
        };
        let mut note = |words: String| {
            notes
                .entry(words)
                .and_modify(|seen| seen.again(at))
                .or_insert_with(|| Seen::once(at));
        };
        let mut found = |finding: Finding<'_>| match finding {
            Finding::Judged { operation, verdict } => {
                let answer = track.gate.answer_to(rules.as_deref(), &operation, verdict);
                let key = (operation.to_string(), answer);
                if let Some(seen) = operations.get_mut(&key) {
                    seen.again(at);
                } else if operations.len() < OPERATIONS_MAX {
                    operations.insert(key, Seen::once(at));
                } else {
                    *further += 1;
                }
            }
            Finding::Exception { code, exception } => {
                note(format!(
                    "the device answered function {code} with exception {exception}"
                ));
            }
            // Only who reads a connection can end it for what it carries.
            Finding::Deviation { what, .. } if rules.is_none() => note(what.to_string()),
            Finding::Deviation { what, effect } => {
                *ended |= effect == Effect::Ended;
                let kind = (effect, what.to_string(), what.remedy());
                let known = deviations.len() < DEVIATIONS_MAX || deviations.contains_key(&kind);
                let kind = match known {
                    true => kind,
                    false => (effect, "others of their kind".to_owned(), None),
                };
                deviations
                    .entry(kind)
                    .and_modify(|seen| seen.again(at))
                    .or_insert_with(|| Seen::once(at));
            }
            Finding::Resynchronised { from, skipped_bytes } => {
                if skipped_bytes > 0 {
                    note(format!(
                        "{} skipped to find the beginning of a packet",
                        of(from, skipped_bytes)
                    ));
                }
            }
            Finding::NeverFollowed { from, skipped_bytes } => {
                note(format!(
                    "{} could not be read as the protocol",
                    of(from, skipped_bytes)
                ));
            }
        };
        match happening {
            Happening::Data(from, bytes) => follower.data(*from, at, bytes, &mut found),
            Happening::Gap(from, _) => follower.gap(*from),
            Happening::Ends { seen } => follower.finish(*seen, &mut found),
            Happening::Begins { .. } | Happening::Conflict(..) => {}
        }
    }
}

fn of(from: Sender, bytes: u64) -> String {
    match from {
        Sender::Client => format!("{bytes} bytes of the client"),
        Sender::Server => format!("{bytes} bytes of the server"),
    }
}
