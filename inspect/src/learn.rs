//! From traffic to the smallest conduits that would have let it pass, as a plant document.
//!
//! Only what was seen is proposed: who opened a connection to whom, and inside a protocol that is read which
//! operations with which ranges. Beside an existing plant only what that plant does not yet permit is proposed, and each such
//! line says that it widens it. Traffic proves what happens, not what should: a person reads the proposal. What a grant of remote
//! access can permit is never proposed, whenever it was seen: a conduit that stands open is no answer to it.
//!
//! ```text
//! recorded frames ─▶ Learner ──────────────────────────────────┐
//! live frames ─▶ Learner (of a gateway) ─ talks as events ─────┴▶ Learned ─ beside a plant ─▶ document
//! ```
//!
//! Of UDP nothing is read inside: a conversation is proposed as such, from the end that opened it, as
//! [`capture::conversations`](crate::capture::conversations) tells it.
//!
//! The [`Learner`] follows connections, [`talk`] keeps what they do by the lines that can say it ([`entry`]), [`document`] writes
//! them down. Of who sends a frame itself, [`macs`] keeps the MAC address.

mod beside;
pub mod document;
pub mod entry;
pub mod macs;
mod ranges;
mod sets;
pub mod talk;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::document::services::protocol_at;
use penstock_policy::protocol::Protocol;
use penstock_policy::verdict::Carried;

use crate::capture::direction::{Declarations, NoDeclarations, Opening};
use crate::capture::{
    Conversation, Conversations, FlowKey, Flows, Fragments, Frame, Happening, Segment, SkipReason, Transport,
    flows, link,
};
use crate::connection::{self, DeviationKind};
use crate::follow::{Follower, StreamFinding};
use crate::judge::{Objection, Refusal, Rules, Verdict};
use crate::replay::{Gate, Occurrences, Plans, Track, When};
pub use beside::Asking;
pub use entry::{EntryKey, EntrySeen, Lesson};
pub use sets::LimitSets;
pub use talk::{Ends, Learned, PortCarrier, Talk};

/// Bounds of everything that a learner holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnLimits {
    /// Connections, and what of each waits to be put in order.
    pub flows: flows::FlowLimits,
    /// What of each waits to become a whole packet.
    pub connection: connection::ConnectionLimits,
    /// Both for all connections together; the connection that goes beyond is followed no longer.
    pub held_bytes_max: usize,
    /// What is kept of what they do.
    pub learned: talk::TalkLimits,
}

impl Default for LearnLimits {
    fn default() -> Self {
        Self {
            flows: flows::FlowLimits::default(),
            connection: connection::ConnectionLimits::default(),
            held_bytes_max: usize::MAX,
            learned: talk::TalkLimits::default(),
        }
    }
}

/// Gathers from frames.
#[derive(Debug)]
pub struct Learner<'p> {
    fragments: Fragments,
    flows: Flows,
    conversations: Conversations,
    held_bytes_max: usize,
    gathering: Gathering<'p>,
}

/// What is known of the connections that are followed, and what they brought.
#[derive(Debug)]
struct Gathering<'p> {
    plans: Option<&'p Plans>,
    limits: connection::ConnectionLimits,
    running: HashMap<flows::FlowNumber, LearnedFlow>,
    held_bytes: usize,
    learned: Learned,
}

#[derive(Debug)]
struct LearnedFlow {
    ends: Ends,
    protocol: Protocol,
    /// The connection itself passes today.
    passes: bool,
    /// Its operations are limited today, or it has none to limit.
    inspected: bool,
    follower: Follower,
}

impl<'p> Learner<'p> {
    /// Nothing learned yet, with the limits of recorded traffic. With `plans`, what they permit is left out.
    pub fn new(plans: Option<&'p Plans>) -> Self {
        Self::within(LearnLimits::default(), plans)
    }

    /// The same, within other limits.
    pub fn within(limits: LearnLimits, plans: Option<&'p Plans>) -> Self {
        Self {
            fragments: Fragments::default(),
            flows: Flows::new(limits.flows),
            conversations: Conversations::default(),
            held_bytes_max: limits.held_bytes_max,
            gathering: Gathering {
                plans,
                limits: limits.connection,
                running: HashMap::new(),
                held_bytes: 0,
                learned: Learned::within(limits.learned),
            },
        }
    }

    /// Looks at a packet that will be taken later: it may tell who opened what stood before.
    pub fn survey(&mut self, frame: &Frame<'_>) {
        if let Ok(segment) = link::segment(frame) {
            self.flows.survey(&segment);
        }
    }

    /// Takes a packet.
    pub fn frame(&mut self, frame: &Frame<'_>) {
        self.gathering.learned.packets += 1;
        self.gathering.learned.macs.frame(frame);
        if frame.number == 1 {
            self.conversations.recording_begins(frame.at);
        }
        // What it held of a packet that is whole now is read from it, while the others wait.
        let mut fragments = std::mem::take(&mut self.fragments);
        match fragments.transport(frame) {
            Ok(Some(Transport::Tcp(segment))) => self.segment(frame.at, &segment),
            Ok(Some(Transport::Udp(datagram))) => {
                let gathering = &mut self.gathering;
                let declared = declared(gathering.plans);
                self.conversations
                    .datagram(frame.at, &datagram, declared, &mut |over| {
                        gathering.conversation(&over);
                    });
            }
            Ok(None) => {}
            Err(reason) => *self.gathering.learned.skipped.entry(reason).or_default() += 1,
        }
        self.fragments = fragments;
    }

    /// Takes a packet's TCP segment.
    pub fn segment(&mut self, at: Duration, segment: &Segment<'_>) {
        let gathering = &mut self.gathering;
        let declared = declared(gathering.plans);
        let mut happened = |number, key, at, happening: Happening<'_>| {
            gathering.happened(number, key, at, happening);
        };
        self.flows.segment(at, segment, declared, &mut happened);
        if self.held_bytes() > self.held_bytes_max {
            let gathering = &mut self.gathering;
            self.flows
                .give_up(at, segment, &mut |number, key, at, happening| {
                    gathering.happened(number, key, at, happening);
                });
        }
    }

    /// Bytes that wait to be put in order, or to become a whole packet.
    pub fn held_bytes(&self) -> usize {
        self.flows.held_bytes() + self.gathering.held_bytes
    }

    /// What was learned and not taken yet.
    pub fn learned(&mut self) -> &mut Learned {
        &mut self.gathering.learned
    }

    /// Packets of connections and conversations that were not followed.
    pub fn left_out(&self) -> u64 {
        self.flows.left_out() + self.conversations.left_out() + self.gathering.learned.left_out
    }

    /// The end of all captures.
    pub fn finish(mut self) -> Learned {
        let gathering = &mut self.gathering;
        self.flows.finish(&mut |number, key, at, happening| {
            gathering.happened(number, key, at, happening);
        });
        let left_out = self.flows.left_out() + self.conversations.left_out();
        self.conversations.finish(declared(gathering.plans), &mut |over| {
            gathering.conversation(&over)
        });
        let mut learned = self.gathering.learned;
        learned.left_out += left_out;
        learned.skipped.extend(self.fragments.finish());
        learned
    }
}

/// What the plant tells of two ends, where there is one.
fn declared(plans: Option<&Plans>) -> &dyn Declarations {
    plans.map_or(&NoDeclarations, |plans| plans as &dyn Declarations)
}

impl Gathering<'_> {
    fn happened(&mut self, number: flows::FlowNumber, key: FlowKey, at: Duration, happening: Happening<'_>) {
        if let Happening::Begins { opening } = happening {
            if let Some(running) = self.begin(key, at, opening) {
                self.running.insert(number, running);
            }
            return;
        }
        let ended = matches!(happening, Happening::Ends { .. });
        let Some(flow) = self.running.get_mut(&number) else {
            return;
        };
        let held_before = flow.follower.held_bytes();
        flow.happened(&mut self.learned, at, happening);
        let held = if ended { 0 } else { flow.follower.held_bytes() };
        self.held_bytes = (self.held_bytes + held).saturating_sub(held_before);
        if ended {
            self.running.remove(&number);
        }
    }

    fn begin(&mut self, key: FlowKey, at: Duration, opening: Opening) -> Option<LearnedFlow> {
        let learned = &mut self.learned;
        let tracks = |when| {
            self.plans
                .map(|plans| plans.tracks(key.client, key.server, when))
                .unwrap_or_default()
        };
        let standing_then = standing(tracks(When::Ever));
        if self.plans.is_some_and(Plans::have_grants) && standing_then.passes() {
            learned.by_grant += u64::from(!standing(tracks(When::Never)).passes());
        }
        let (passes, rules) = match standing_then {
            // There is nothing to propose.
            PlantAnswer::Uncrossed | PlantAnswer::Open => {
                learned.permitted_already += 1;
                return None;
            }
            PlantAnswer::Shut(rules) => (false, rules),
            PlantAnswer::Inspected(rules) => (true, Some(rules)),
        };
        let inspected = rules.is_some();
        let known = protocol_at(key.server.port());
        let rules = rules.or_else(|| known.and_then(Rules::nothing).map(Arc::new));
        let protocol = rules.as_ref().map(|rules| rules.protocol());
        let ends = Ends {
            client: key.client.ip(),
            server: key.server,
            carrier: PortCarrier::Tcp,
        };
        if let Some(talk) = learned.talk(ends, at, protocol) {
            if talk.connections.count == 0 {
                talk.connections.first = at;
            }
            talk.connections.again(at);
            talk.guessed += u64::from(opening == Opening::Guessed);
        }
        Some(LearnedFlow {
            ends,
            protocol: protocol?,
            passes,
            inspected,
            follower: Follower::within(self.limits, rules?, opening != Opening::Recorded),
        })
    }
}

impl Gathering<'_> {
    /// Takes a conversation over UDP that is over.
    fn conversation(&mut self, over: &Conversation) {
        let ends = Ends {
            client: over.client.ip(),
            server: over.server,
            carrier: PortCarrier::Udp,
        };
        let [asked, answered] = over.datagrams;
        if over.opening == Opening::Late {
            *self.learned.skipped.entry(SkipReason::Late).or_default() += asked + answered;
            return;
        }
        let passes = |plans: &Plans, when| {
            let standing_between = |client: SocketAddr, server: SocketAddr| {
                let carried = Carried::Udp(server.port());
                standing(plans.between(client.ip(), server.ip(), carried, when)).passes()
            };
            // What the plant permits from the other end passes as soon as that end has spoken.
            standing_between(over.client, over.server)
                || (answered > 0 && standing_between(over.server, over.client))
        };
        if let Some(plans) = self.plans.filter(|plans| passes(plans, When::Ever)) {
            self.learned.permitted_already += 1;
            self.learned.by_grant += u64::from(!passes(plans, When::Never));
            return;
        }
        let seen = |count| Occurrences {
            count,
            first: over.first,
            last: over.last,
        };
        let mut talk = Talk::new(over.first, None);
        talk.connections = seen(1);
        talk.packets = Some(seen(asked + answered));
        talk.guessed = u64::from(over.opening == Opening::Guessed);
        self.learned.add(ends, talk);
    }
}

impl LearnedFlow {
    fn happened(&mut self, learned: &mut Learned, at: Duration, happening: Happening<'_>) {
        let Self {
            ends,
            protocol,
            passes,
            inspected,
            follower,
        } = self;
        let mut found = |finding: StreamFinding<'_>| match finding {
            StreamFinding::Judged { operation, verdict } => {
                let malformed = matches!(
                    verdict,
                    Verdict::Refuse(Refusal {
                        why: Objection::Malformed(_) | Objection::Busy(_),
                        ..
                    })
                );
                if *passes && (!*inspected || verdict.would_allow_alone()) {
                    learned.permitted_already += 1;
                } else if !malformed {
                    learned.operation(*ends, Some(*protocol), at, operation);
                }
            }
            StreamFinding::NeverFollowed { .. } => {
                if let Some(talk) = learned.talk(*ends, at, Some(*protocol)) {
                    talk.unread = true;
                }
            }
            // What the plant permits already is not proposed again for the sake of its answers.
            StreamFinding::Deviation { what, .. } if !*passes => {
                if let Some(talk) = learned.talk(*ends, at, Some(*protocol)) {
                    match what.kind() {
                        DeviationKind::Unreadable => talk.unread = true,
                        DeviationKind::OtherIdentifiers => talk.in_order = true,
                        DeviationKind::Misfit => talk.misfits = true,
                        DeviationKind::Other => {}
                    }
                }
            }
            _ => {}
        };
        match happening {
            Happening::Data(from, bytes) => follower.data(from, at, bytes, &mut found),
            Happening::Gap(from, _) => follower.gap(from),
            Happening::Ends { seen } => follower.finish(seen, &mut found),
            Happening::Begins { .. } | Happening::Conflict(..) => {}
        }
    }
}

/// What a plant says of two ends today.
enum PlantAnswer {
    /// No gateway stands between them.
    Uncrossed,
    /// Everything between them passes.
    Open,
    /// Nothing does; a gateway that lets some of it pass may say which protocol it is.
    Shut(Option<Arc<Rules>>),
    /// What these rules permit does.
    Inspected(Arc<Rules>),
}

impl PlantAnswer {
    /// Whether anything between them passes.
    fn passes(&self) -> bool {
        !matches!(self, Self::Shut(_))
    }
}

/// The gates on the way, taken together; none were asked without a plant, and then nothing passes yet.
fn standing(tracks: Vec<Track>) -> PlantAnswer {
    let gates = || tracks.iter().map(|track| &track.gate);
    if gates().any(|gate| matches!(gate, Gate::Uncrossed | Gate::Stranger { .. })) {
        return PlantAnswer::Uncrossed;
    }
    let rules = gates().find_map(|gate| match gate {
        Gate::Inspected { rules, .. } => Some(Arc::clone(rules)),
        _ => None,
    });
    if tracks.is_empty() || gates().any(|gate| matches!(gate, Gate::Shut { .. })) {
        return PlantAnswer::Shut(rules);
    }
    rules.map_or(PlantAnswer::Open, PlantAnswer::Inspected)
}
