//! What a policy would have done with recorded traffic: per connection and per operation, with the rule that decided.
//!
//! The network's verdict is the oracle's ([`penstock_policy::verdict`]); operations are judged by the machine that
//! judges live ones, observing. A connection that crosses several gateways is judged by each. So is UDP ([`datagrams`]), in
//! which no operation is read. Grants of remote access count by the recording's own time ([`moment`]).

pub mod datagrams;
mod frames;
pub mod moment;
mod policy;
mod portless;
mod track;

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_policy::document::services::protocol_at;
use penstock_policy::terms::NumberRange;
use serde::Serialize;

use self::datagrams::Datagrams;
pub use self::datagrams::{DatagramsReport, Judgement};
use self::frames::{Fate, OtherTraffic};
pub use self::moment::When;
pub use self::policy::{Gate, OtherFrames, Plans, PlansError, Track};
use self::portless::Portless;
use self::track::RunningTrack;
use crate::capture::direction::Opening;
use crate::capture::flows::Unopened;
use crate::capture::{
    Conversation, Conversations, Envelope, FlowKey, Flows, Fragments, Frame, Happening, SkipReason,
    Transport, flows, link,
};
use crate::connection::{Effect, Sender};

/// Distinct operations kept for one connection at one gateway; what is beyond is counted together.
pub const OPERATIONS_MAX: usize = 10_000;

/// Distinct deviations kept for one connection at one gateway; what is beyond is counted together.
const DEVIATIONS_MAX: usize = 100;

/// How often something happened, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Occurrences {
    /// How often.
    pub count: u64,
    /// First time, since 1970.
    pub first: Duration,
    /// Last time.
    pub last: Duration,
}

impl Occurrences {
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
    /// Those of them that would have been refused.
    pub further_refused: u64,
    /// Payload bytes that the gateway would have judged and this could not: the recording lacks them, or they cannot be read.
    pub unjudged_bytes: u64,
    /// No rule permits it; it passes because the zones only observe.
    pub observed: bool,
    /// The gateway would have ended it: it carried what cannot be read as the protocol.
    pub ended: bool,
    /// It goes on past the grant of remote access that opened it: what the gateway says of it from then on. It would have ended
    /// it, or only `observed` does; what came after is not looked at.
    pub over: Option<String>,
    /// Whether a gateway stands between is not known: an end lies on no side of any.
    pub stranger: bool,
    /// What else than refused operations the gateway would not have let pass.
    pub deviations: Vec<DeviationSeen>,
    /// What else was seen on it, in words.
    pub notes: BTreeMap<String, Occurrences>,
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
    pub seen: Occurrences,
}

/// An operation of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JudgedOperation {
    /// In the field's words.
    pub operation: String,
    /// What the policy says.
    pub answer: Answer,
    /// How often and when.
    pub seen: Occurrences,
    /// The values that it wrote, if it writes any: ranges, at most 16.
    pub values: Vec<NumberRange>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowReport {
    /// `address:port` of who opened it.
    pub client: String,
    /// `address:port` of whom it was opened to.
    pub server: String,
    /// Times of its first and last packet.
    pub seen: Occurrences,
    /// Its opening is not in the capture.
    pub midway: bool,
    /// And nothing tells who opened it: that `client` did is a guess.
    pub guessed: bool,
    /// Payload bytes of client and server.
    pub bytes: [u64; 2],
    /// Payload bytes that the capture lacks.
    pub missing_bytes: u64,
    /// Bytes that a retransmission brought with other content.
    pub conflicting_bytes: u64,
    /// Nothing was ever said on it: why.
    pub unopened: Option<Unopened>,
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
    /// Packets left aside in which there is nothing to judge, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Packets that could not be judged, by reason.
    pub unread: BTreeMap<String, u64>,
    /// Packets without ports, to many at once, or that are not IP, which a gateway would have refused, by their kind.
    pub refused: BTreeMap<String, u64>,
    /// The same that pass only because their zones observe.
    pub observed: BTreeMap<String, u64>,
    /// Those without ports, or IP, that pass, and those without ports that are only observed; `skipped` and `observed` have them by their kind.
    pub passed: u64,
    /// Packets of TCP and UDP that came with tags or labels, by these.
    pub enveloped: BTreeMap<String, u64>,
    /// What stopped reading a file early.
    pub cut: Vec<String>,
}

/// Replays frames against a policy.
#[derive(Debug)]
pub struct Replay<'p> {
    plans: &'p Plans,
    fragments: Fragments,
    flows: Flows,
    running: Vec<ReplayedFlow>,
    conversations: Conversations,
    datagrams: Datagrams,
    packets: u64,
    skipped: BTreeMap<SkipReason, u64>,
    portless: Portless,
    others: OtherTraffic,
    enveloped: BTreeMap<Envelope, u64>,
    ignores_tags: bool,
    cut: Vec<String>,
}

#[derive(Debug)]
struct ReplayedFlow {
    key: FlowKey,
    report: FlowReport,
    tracks: Vec<RunningTrack>,
    /// When the gateways are asked again, as a grant of remote access begins or ends.
    turn: Option<Duration>,
}

impl<'p> Replay<'p> {
    /// Nothing replayed yet.
    pub fn new(plans: &'p Plans) -> Self {
        Self {
            plans,
            fragments: Fragments::default(),
            flows: Flows::new(flows::FlowLimits::default()),
            running: Vec::new(),
            conversations: Conversations::default(),
            datagrams: Datagrams::default(),
            packets: 0,
            skipped: BTreeMap::new(),
            portless: Portless::default(),
            others: OtherTraffic::default(),
            enveloped: BTreeMap::new(),
            ignores_tags: false,
            cut: Vec::new(),
        }
    }

    /// What comes with tags or labels is judged as if it came without: who recorded it has added them.
    #[must_use]
    pub fn ignoring_tags(mut self) -> Self {
        self.ignores_tags = true;
        self
    }

    /// Looks at a packet that will be taken later: it may tell who opened what stood before.
    pub fn survey(&mut self, frame: &Frame<'_>) {
        if let Ok(segment) = link::segment(frame) {
            self.flows.survey(&segment);
        }
    }

    /// Takes a packet.
    pub fn frame(&mut self, frame: &Frame<'_>) {
        self.packets += 1;
        if frame.number == 1 {
            self.conversations.recording_begins(frame.at);
        }
        let (plans, ignores_tags) = (self.plans, self.ignores_tags);
        self.others.sender(frame);
        match self.fragments.transport(frame) {
            Ok(Some(Transport::Tcp(segment))) => {
                count_tags(&mut self.enveloped, segment.envelope);
                let running = &mut self.running;
                let mut happened = |number, key, at, happening: Happening<'_>| {
                    happened(plans, running, (number, key, ignores_tags), at, happening);
                };
                self.flows.segment(frame.at, &segment, plans, &mut happened);
            }
            Ok(Some(Transport::Udp(datagram))) => {
                count_tags(&mut self.enveloped, datagram.envelope);
                let datagrams = &mut self.datagrams;
                self.conversations
                    .datagram(frame.at, &datagram, plans, &mut |over| {
                        datagrams.add(plans, &without_tags(over, ignores_tags));
                    });
            }
            Ok(None) => {}
            Err(SkipReason::NotIp(what)) => self.others.frame(frame, what, ignores_tags),
            Err(reason @ (SkipReason::Group | SkipReason::Protocol(_)))
                if let Some(source) = link::group_sender(frame) =>
            {
                self.others.group(plans, reason, source);
            }
            Err(SkipReason::Protocol(protocol)) if self.portless.crosses(plans, frame, protocol) => {}
            Err(reason) => *self.skipped.entry(reason).or_default() += 1,
        }
    }

    /// A file could not be read further, or at all.
    pub fn cut_short(&mut self, what: String) {
        self.cut.push(what);
    }

    /// The end of all captures.
    pub fn finish(mut self) -> Report {
        let (plans, running, ignores_tags) = (self.plans, &mut self.running, self.ignores_tags);
        self.flows.finish(&mut |number, key, at, happening| {
            happened(plans, running, (number, key, ignores_tags), at, happening);
        });
        let conversations_left_out = self.conversations.left_out();
        let datagrams = &mut self.datagrams;
        self.conversations.finish(plans, &mut |over| {
            datagrams.add(plans, &without_tags(over, ignores_tags))
        });
        let (mut skipped, mut unread) = (BTreeMap::new(), BTreeMap::new());
        for (reason, count) in self.skipped.into_iter().chain(self.fragments.finish()) {
            let of = if reason.is_unread() {
                &mut unread
            } else {
                &mut skipped
            };
            *of.entry(reason.to_string()).or_default() += count;
        }
        let Portless {
            allowed,
            mut observed,
            mut refused,
            unjudged,
        } = self.portless;
        let mut passed: u64 = allowed.values().chain(observed.values()).sum();
        for (fate, what, count) in self.others.finish(plans).into_iter() {
            let of = match fate {
                Fate::Stays => &mut skipped,
                Fate::Permitted => {
                    passed += count;
                    &mut skipped
                }
                Fate::Observed => &mut observed,
                Fate::Unknown => &mut unread,
                Fate::Dropped => &mut refused,
            };
            *of.entry(what).or_default() += count;
        }
        for (list, more) in [(&mut skipped, allowed), (&mut unread, unjudged)] {
            for (what, count) in more {
                *list.entry(what).or_default() += count;
            }
        }
        for (left_out, of) in [
            (self.flows.left_out(), "connections"),
            (conversations_left_out, "conversations over UDP"),
        ] {
            if left_out > 0 {
                unread.insert(format!("more {of} at a time than are followed"), left_out);
            }
        }
        Report {
            flows: self.running.into_iter().map(ReplayedFlow::report).collect(),
            datagrams: self.datagrams.finish(),
            packets: self.packets,
            skipped,
            unread,
            refused,
            observed,
            passed,
            enveloped: in_words(self.enveloped),
            cut: self.cut,
        }
    }
}

/// Kinds of tags and labels that are counted apart.
const ENVELOPES_MAX: usize = 4_096;

/// Counts a packet that came with tags or labels.
fn count_tags(enveloped: &mut BTreeMap<Envelope, u64>, envelope: Envelope) {
    if !envelope.is_plain() && (enveloped.len() < ENVELOPES_MAX || enveloped.contains_key(&envelope)) {
        *enveloped.entry(envelope).or_default() += 1;
    }
}

fn in_words(enveloped: BTreeMap<Envelope, u64>) -> BTreeMap<String, u64> {
    let words = enveloped.into_iter();
    words
        .map(|(envelope, count)| (envelope.to_string(), count))
        .collect()
}

fn without_tags(over: Conversation, ignores_tags: bool) -> Conversation {
    match ignores_tags {
        true => Conversation {
            envelope: Envelope::default(),
            ..over
        },
        false => over,
    }
}

fn happened(
    plans: &Plans,
    running: &mut Vec<ReplayedFlow>,
    (number, mut key, ignores_tags): (usize, FlowKey, bool),
    at: Duration,
    happening: Happening<'_>,
) {
    if let Happening::Begins { opening } = happening {
        if ignores_tags {
            key.envelope = Envelope::default();
        }
        running.push(ReplayedFlow::new(plans, key, at, opening));
        return;
    }
    if let Some(flow) = running.get_mut(number) {
        flow.happened(plans, at, happening);
    }
}

impl ReplayedFlow {
    fn new(plans: &Plans, key: FlowKey, at: Duration, opening: Opening) -> Self {
        let midway = opening != Opening::Recorded;
        let tracks = plans.tracks(key.client, key.server, When::At(at)).into_iter();
        let tracks = tracks.map(|track| track.coming_in(key.envelope));
        let protocol_of_port = protocol_at(key.server.port());
        Self {
            key,
            turn: plans.next_turn(at),
            report: FlowReport {
                client: key.client.to_string(),
                server: key.server.to_string(),
                seen: Occurrences::once(at),
                midway,
                guessed: opening == Opening::Guessed,
                bytes: [0; 2],
                missing_bytes: 0,
                conflicting_bytes: 0,
                unopened: None,
                treatments: Vec::new(),
            },
            tracks: tracks
                .map(|track| RunningTrack::new(track, protocol_of_port, midway))
                .collect(),
        }
    }

    fn happened(&mut self, plans: &Plans, at: Duration, happening: Happening<'_>) {
        if self.turn.is_some_and(|turn| at >= turn) {
            self.turn = plans.next_turn(at);
            // The same gateways stand between the same two ends at any time.
            let now = plans
                .tracks(self.key.client, self.key.server, When::At(at))
                .into_iter();
            let now = now.map(|track| track.coming_in(self.key.envelope));
            for (track, now) in self.tracks.iter_mut().zip(now) {
                track.turned(&now.gate);
            }
        }
        self.report.seen.last = self.report.seen.last.max(at);
        let [client_bytes, server_bytes] = &mut self.report.bytes;
        match happening {
            Happening::Data(Sender::Client, bytes) => *client_bytes += bytes.len() as u64,
            Happening::Data(Sender::Server, bytes) => *server_bytes += bytes.len() as u64,
            Happening::Gap(_, bytes) => self.report.missing_bytes += bytes,
            Happening::Conflict(_, bytes) => self.report.conflicting_bytes += bytes as u64,
            Happening::Unopened(how) => self.report.unopened = Some(how),
            Happening::Begins { .. } | Happening::Ends { .. } => {}
        }
        let is_over = matches!(happening, Happening::Ends { .. });
        for track in &mut self.tracks {
            track.happened(at, &happening);
            if is_over {
                track.ended();
            }
        }
    }

    fn report(mut self) -> FlowReport {
        let [of_client, of_server] = self.report.bytes;
        if of_client == 0 && of_server > 0 {
            let tracks = self.tracks.iter_mut();
            tracks.for_each(|track| track.only_answers(of_server));
        }
        FlowReport {
            treatments: self.tracks.into_iter().map(RunningTrack::treatment).collect(),
            ..self.report
        }
    }
}
