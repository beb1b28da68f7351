//! From traffic to the smallest conduits that would have let it pass, as a plant document.
//!
//! Only what was seen and worked is proposed: who opened a connection to whom, and inside a protocol that is read which
//! operations with which ranges. What was refused, not answered or malformed is listed apart ([`answers`], [`attempts`]). Beside an existing plant only what that plant does not yet permit is proposed, and each such
//! line says that it widens it. Traffic proves what happens, not what should: a person reads the proposal. What a grant of remote
//! access can permit is never proposed, whenever it was seen: a conduit that stands open is no answer to it.
//!
//! ```text
//! recorded frames ─▶ Learner ──────────────────────────────────┐
//! live frames ─▶ Learner (of a gateway) ─ talks as events ─────┴▶ Learned ─ beside a plant ─▶ document
//! ```
//!
//! Of UDP nothing is read inside but what machines claim of themselves: a conversation is proposed as such, from the end that opened it, as
//! [`capture::conversations`](crate::capture::conversations) tells it.
//!
//! The [`Learner`] follows connections, [`answers`] waits for what became of each operation, [`talk`] keeps what they do by the lines that can say it ([`entry`]), [`document`] writes
//! them down. Of who sends a frame itself, [`macs`] keeps the MAC address, and [`claims`] what it says of itself.

mod answers;
pub mod attempts;
mod beside;
pub mod claims;
pub mod days;
pub mod document;
pub mod entry;
mod followed;
pub mod frames;
pub mod macs;
mod room;
mod sets;
pub mod talk;
mod turned;
pub mod vendors;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::document::services::protocol_at;
use penstock_policy::verdict::Carried;

use self::followed::FollowedConnection;
use crate::capture::direction::{Declarations, NoDeclarations, Opening};
use crate::capture::{
    Conversation, Conversations, Envelope, FlowKey, Flows, Fragments, Frame, Happening, Segment, SkipReason,
    Transport, flows, link,
};
use crate::connection;
use crate::judge::Rules;
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
    /// Operations of one connection that wait for their answer. With none, each counts as carried out as soon as it is asked.
    pub waiting_max: usize,
    /// What is kept of what they do.
    pub learned: talk::TalkLimits,
}

impl Default for LearnLimits {
    fn default() -> Self {
        Self {
            flows: flows::FlowLimits::default(),
            connection: connection::ConnectionLimits::default(),
            held_bytes_max: usize::MAX,
            waiting_max: 256,
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
    ignores_tags: bool,
    gathering: Gathering<'p>,
}

/// What is known of the connections that are followed, and what they brought.
#[derive(Debug)]
struct Gathering<'p> {
    plans: Option<&'p Plans>,
    limits: connection::ConnectionLimits,
    waiting_max: usize,
    running: HashMap<flows::FlowNumber, FollowedConnection>,
    held_bytes: usize,
    learned: Learned,
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
            ignores_tags: false,
            gathering: Gathering {
                plans,
                limits: limits.connection,
                waiting_max: limits.waiting_max,
                running: HashMap::new(),
                held_bytes: 0,
                learned: Learned::within(limits.learned),
            },
        }
    }

    /// The same, where who recorded has added the tags: frames are learned without them.
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
        self.gathering.learned.packets += 1;
        self.gathering.learned.days.add(frame.at);
        self.gathering.learned.macs.frame(frame);
        if frame.number == 1 {
            self.conversations.recording_begins(frame.at);
        }
        // What it held of a packet that is whole now is read from it, while the others wait.
        let mut fragments = std::mem::take(&mut self.fragments);
        match fragments.transport(frame) {
            Ok(Some(Transport::Tcp(segment))) => {
                self.came_in(segment.envelope);
                self.gathering.learned.claimed(|claims| claims.segment(&segment));
                self.segment(frame.at, &segment);
            }
            Ok(Some(Transport::Udp(datagram))) => {
                self.came_in(datagram.envelope);
                if claims::may_claim(datagram.source) {
                    self.gathering.learned.claimed(|claims| claims.datagram(frame));
                }
                let gathering = &mut self.gathering;
                let declared = declared(gathering.plans);
                self.conversations
                    .datagram(frame.at, &datagram, declared, &mut |over| {
                        gathering.conversation(&over);
                    });
            }
            Ok(None) => {}
            Err(reason) => {
                match reason {
                    SkipReason::NotIp(_) => {
                        self.gathering.learned.frames.frame(frame, self.ignores_tags);
                        self.gathering.learned.claimed(|claims| claims.frame(frame));
                    }
                    SkipReason::Group => self.gathering.learned.claimed(|claims| claims.datagram(frame)),
                    _ => {}
                }
                self.gathering.learned.left_aside(match self.ignores_tags {
                    true => reason.without_tags(),
                    false => reason,
                });
            }
        }
        self.fragments = fragments;
    }

    /// Counts the tags that a packet came with, unless they are the recorder's.
    fn came_in(&mut self, envelope: Envelope) {
        if !self.ignores_tags {
            self.gathering.learned.came_in(envelope);
        }
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
            if let Some(running) = self.begin(key, opening) {
                self.running.insert(number, running);
            }
            return;
        }
        let ended = matches!(happening, Happening::Ends { .. });
        let Some(flow) = self.running.get_mut(&number) else {
            return;
        };
        let held_before = flow.held_bytes();
        flow.happened(&mut self.learned, at, happening);
        let held = if ended { 0 } else { flow.held_bytes() };
        self.held_bytes = (self.held_bytes + held).saturating_sub(held_before);
        if ended {
            self.running.remove(&number);
        }
    }

    fn begin(&mut self, key: FlowKey, opening: Opening) -> Option<FollowedConnection> {
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
                let stranger = self
                    .plans
                    .and_then(|plans| plans.stranger(key.client.ip(), key.server.ip()));
                stranger.into_iter().for_each(|one| learned.strangers.add(one));
                return None;
            }
            PlantAnswer::Shut(rules) => (false, rules),
            PlantAnswer::Inspected(rules) => (true, Some(rules)),
        };
        let inspected = rules.is_some();
        let known = protocol_at(key.server.port());
        let rules = rules.or_else(|| known.and_then(Rules::nothing).map(Arc::new));
        let ends = Ends {
            client: key.client.ip(),
            server: key.server,
            carrier: PortCarrier::Tcp,
        };
        let limits = (self.limits, self.waiting_max);
        Some(FollowedConnection::new(ends, opening, limits).read_by(rules, passes, inspected))
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
            let stranger = plans.stranger(over.client.ip(), over.server.ip());
            stranger
                .into_iter()
                .for_each(|one| self.learned.strangers.add(one));
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
        talk.opened = u64::from(over.opening == Opening::Recorded);
        talk.answered = Some(u64::from(answered > 0));
        for at in [over.first, over.last] {
            talk.days.add(at);
        }
        self.learned.add(ends, talk);
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
