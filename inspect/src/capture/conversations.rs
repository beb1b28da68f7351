//! All UDP of a capture, parted into conversations as a gateway's connection tracking would part it: who opened each, and
//! how much each end sent.
//!
//! The kernel judges a datagram by how its conversation was opened, so a conversation here is an entry there
//! (`nf_conntrack_proto_udp.c`):
//! - the first datagram between two ends opens it, from its source; what either end sends then belongs to it;
//! - it ends after [`UNREPLIED`] of silence. Once the other end has answered and it is older than [`STREAM_AFTER`], after
//!   [`STREAM`]. These are the kernel's defaults, which no part of Penstock changes.
//!
//! In a kernel a refused datagram leaves no entry. Here what answers it belongs to it all the same: it would not have been
//! sent either.
//!
//! UDP has no SYN, so a recording does not show whether an entry stood before it began. None does from [`STREAM`] on: then
//! the sender of the first datagram is who opened, without doubt. Before, that datagram may be an answer. It is one if the plant
//! permits the conversation from the other end only (and it goes to no service, or is answered), and none if from this end only. Where that tells nothing, it is none if it goes
//! to the port of a service. Else it is taken for one (the conversation is [`Opening::Told`], its server spoke first) if its source
//! 1. was opened to in another conversation, and its destination was not; or, where this tells nothing,
//! 2. has the port of a service, or else the only one that the plant names, and both ends were heard: who is never answered, as
//!    those who send syslog, is no server.
//!
//! Where nothing tells and both ends were heard, the first sender is taken for the opener, which is marked as a guess.
//!
//! Where both ports are the same (NTP and BACnet/IP among peers) either end may open, to the kernel as well: the first
//! sender did. A server that sends from a service's port to a client's, so long after the two have talked that the entry is
//! gone, makes an entry that no flow is meant for: such a conversation is [`Opening::Late`].
//!
//! Bounds: [`PAIRS_MAX`] pairs of ends, as many conversations in doubt, and ends that were opened to. Pairs whose
//! conversation is over make room for others; where there is none, datagrams are counted and left out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

pub use super::direction::Opening;
use super::direction::{Declarations, KnownServers, NoDeclarations, PortCarrier, is_service};
use super::envelope::{BothEnds, Envelope, Lanes};
use super::link::Datagram;

/// Silence that ends a conversation (`nf_conntrack_udp_timeout`).
pub const UNREPLIED: Duration = Duration::from_secs(30);
/// Silence that ends one in which both ends have talked on (`nf_conntrack_udp_timeout_stream`).
pub const STREAM: Duration = Duration::from_secs(120);
/// From which age on that is so.
pub const STREAM_AFTER: Duration = Duration::from_secs(2);
/// Pairs of ends that are known at a time.
pub const PAIRS_MAX: usize = 65_536;
/// How often at most it is looked whether pairs can make room.
const SWEEP_DISTANCE: Duration = Duration::from_secs(1);

/// What two ends said to each other without longer silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    /// Who opened it.
    pub client: SocketAddr,
    /// To whom.
    pub server: SocketAddr,
    /// Time of the first datagram.
    pub first: Duration,
    /// Time of the last.
    pub last: Duration,
    /// Datagrams of client and server.
    pub datagrams: [u64; 2],
    /// Their payload bytes.
    pub bytes: [u64; 2],
    /// Datagrams of the client, and their payload bytes, before the server sent its first.
    pub unanswered: [u64; 2],
    /// How it is known who opened.
    pub opening: Opening,
    /// The tags and labels of its packets: what has equal addresses in two VLANs is two conversations.
    pub envelope: Envelope,
}

/// Takes conversations that are over.
pub type Sink<'s> = dyn FnMut(Conversation) + 's;

/// The conversations of a capture.
#[derive(Debug, Default)]
pub struct Conversations {
    recorded_since: Option<Duration>,
    pairs: HashMap<BothEnds, Pair>,
    lanes: Lanes,
    /// Over, and who opened them is told at the end.
    doubtful: Vec<Conversation>,
    /// Ends to which conversations were opened without doubt, and not by what may be a late answer.
    served: KnownServers,
    sweep_at: Duration,
    left_out: u64,
}

/// Two ends and their last conversation.
#[derive(Debug)]
struct Pair {
    conversation: Conversation,
    /// It may have begun before the recording.
    doubtful: bool,
    /// When it is over, unless another datagram comes before.
    over_at: Duration,
    /// Who opened the last conversation that was not late.
    opener: SocketAddr,
}

/// Whether the ports say that a datagram answers another.
fn is_like_answer(source: SocketAddr, destination: SocketAddr) -> bool {
    is_service(source.port()) && !is_service(destination.port())
}

impl Conversations {
    /// A recording begins: what was before it, nobody saw.
    pub fn recording_begins(&mut self, at: Duration) {
        self.recorded_since = Some(at);
    }

    /// Takes a datagram; `declared` tells of conversations that may have begun before.
    pub fn datagram(
        &mut self,
        at: Duration,
        datagram: &Datagram,
        declared: &dyn Declarations,
        out: &mut Sink<'_>,
    ) {
        let ends = (datagram.source, datagram.destination);
        let ends = self
            .lanes
            .ends(ends, datagram.envelope, |ends| self.pairs.contains_key(ends));
        if let Some(pair) = self.pairs.get_mut(&ends)
            && at < pair.over_at
        {
            pair.take(at, datagram);
            return;
        }
        let before = self.pairs.remove(&ends);
        if before.is_none() && self.pairs.len() >= PAIRS_MAX && !self.make_room(at, declared, out) {
            self.left_out += 1;
            return;
        }
        let opener = before.as_ref().map(|pair| {
            if pair.doubtful {
                self.settled(pair.conversation, &NoDeclarations).client
            } else {
                pair.opener
            }
        });
        let pair = self.begin(at, datagram, opener);
        self.pairs.insert(ends, pair);
        if let Some(before) = before {
            self.end(before, declared, out);
        }
    }

    /// Datagrams left out because there were too many pairs at a time.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The end of all captures.
    pub fn finish(mut self, declared: &dyn Declarations, out: &mut Sink<'_>) {
        self.end_all(|_| true, declared, out);
        let (answered, unanswered): (Vec<_>, Vec<_>) = std::mem::take(&mut self.doubtful)
            .into_iter()
            .partition(|conversation| conversation.datagrams.iter().all(|count| *count > 0));
        // Who is known to serve by having been asked and answered helps to tell what was only answered.
        for part in [answered, unanswered] {
            let settled: Vec<_> = part.into_iter().map(|one| self.settled(one, declared)).collect();
            for one in settled.iter().filter(|one| one.opening != Opening::Guessed) {
                self.served.add(one.server);
            }
            settled.into_iter().for_each(&mut *out);
        }
    }

    fn begin(&mut self, at: Duration, datagram: &Datagram, opener: Option<SocketAddr>) -> Pair {
        let (client, server) = (datagram.source, datagram.destination);
        let recorded_since = *self.recorded_since.get_or_insert(at);
        let doubtful = at.saturating_sub(recorded_since) < STREAM;
        let like_answer = is_like_answer(client, server);
        let late = !doubtful && like_answer && opener == Some(server);
        if !doubtful && !like_answer {
            self.served.add(server);
        }
        let mut pair = Pair {
            conversation: Conversation {
                client,
                server,
                first: at,
                last: at,
                datagrams: [0; 2],
                bytes: [0; 2],
                unanswered: [0; 2],
                opening: if late { Opening::Late } else { Opening::Recorded },
                envelope: datagram.envelope,
            },
            doubtful,
            over_at: at,
            opener: if late { server } else { client },
        };
        pair.take(at, datagram);
        pair
    }

    fn end(&mut self, pair: Pair, declared: &dyn Declarations, out: &mut Sink<'_>) {
        if !pair.doubtful {
            out(pair.conversation);
        } else if self.doubtful.len() < PAIRS_MAX {
            self.doubtful.push(pair.conversation);
        } else {
            out(self.settled(pair.conversation, declared));
        }
    }

    /// Ends those pairs that `wanted` says, in the order they began.
    fn end_all(&mut self, wanted: impl Fn(&Pair) -> bool, declared: &dyn Declarations, out: &mut Sink<'_>) {
        let ended = self.pairs.extract_if(|_, pair| wanted(pair));
        let mut ended: Vec<Pair> = ended.map(|(_, pair)| pair).collect();
        ended.sort_by_key(|Pair { conversation, .. }| {
            (conversation.first, conversation.client, conversation.server)
        });
        for pair in ended {
            self.end(pair, declared, out);
        }
    }

    /// Lets go of the pairs whose conversation is over; whether there is room then.
    fn make_room(&mut self, now: Duration, declared: &dyn Declarations, out: &mut Sink<'_>) -> bool {
        if now < self.sweep_at {
            return false;
        }
        self.end_all(|pair| pair.over_at <= now, declared, out);
        let next = self.pairs.values().map(|pair| pair.over_at).min();
        self.sweep_at = next.unwrap_or(now).max(now.saturating_add(SWEEP_DISTANCE));
        self.pairs.len() < PAIRS_MAX
    }

    /// A conversation that was in doubt, with the end that more probably opened it as its client.
    fn settled(&self, conversation: Conversation, declared: &dyn Declarations) -> Conversation {
        let Conversation { client, server, .. } = conversation;
        let answered = conversation.datagrams.iter().all(|count| *count > 0);
        let permits = |client, server| declared.permits(PortCarrier::Udp, client, server);
        let names = |end: SocketAddr| declared.names(PortCarrier::Udp, end.port());
        let was_answer = match (permits(client, server), permits(server, client)) {
            (true, false) => Some(false),
            // What goes to a service and is not answered may as well open a conversation that is not permitted.
            (false, true) if answered || !is_service(server.port()) => Some(true),
            _ if client.port() == server.port() || is_service(server.port()) => Some(false),
            _ => match (self.served.contains(client), self.served.contains(server)) {
                (true, false) => Some(true),
                (false, true) => Some(false),
                _ if !answered => Some(false),
                _ if is_service(client.port()) => Some(true),
                _ => match (names(client), names(server)) {
                    (true, false) => Some(true),
                    (false, true) => Some(false),
                    _ => None,
                },
            },
        };
        match was_answer {
            Some(true) => {}
            Some(false) => return conversation,
            None => {
                return Conversation {
                    opening: Opening::Guessed,
                    ..conversation
                };
            }
        }
        let turned = |[of_client, of_server]: [u64; 2]| [of_server, of_client];
        Conversation {
            client: server,
            server: client,
            datagrams: turned(conversation.datagrams),
            bytes: turned(conversation.bytes),
            // Nobody saw what the client sent before.
            unanswered: [0; 2],
            opening: Opening::Told,
            ..conversation
        }
    }
}

impl Pair {
    fn take(&mut self, at: Duration, datagram: &Datagram) {
        let conversation = &mut self.conversation;
        // The kernel asks before it counts this one.
        let [_, answers] = conversation.datagrams;
        let stream = answers > 0 && at.saturating_sub(conversation.first) > STREAM_AFTER;
        self.over_at = at.saturating_add(if stream { STREAM } else { UNREPLIED });
        conversation.last = conversation.last.max(at);
        let side = usize::from(datagram.source != conversation.client);
        if let (Some(count), Some(bytes)) = (
            conversation.datagrams.get_mut(side),
            conversation.bytes.get_mut(side),
        ) {
            *count += 1;
            *bytes += datagram.payload_bytes as u64;
        }
        if let ([count, 0], [bytes, _]) = (conversation.datagrams, conversation.bytes) {
            conversation.unanswered = [count, bytes];
        }
    }
}
