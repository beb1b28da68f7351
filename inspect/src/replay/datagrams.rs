//! What a policy would have done with UDP: per client, server and port, as the kernel judges it, with the rule that decided.
//!
//! The kernel asks who opened a conversation, to whom and to which port, and gives every datagram of it, either way, the same
//! answer. So all conversations that agree in these three share one line; [`conversations`](crate::capture::conversations)
//! tells them apart.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use penstock_policy::verdict::Carried;
use serde::Serialize;

use super::{Answer, Gate, Occurrences, Plans, Track, When};
use crate::capture::Conversation;
use crate::capture::direction::Opening;

/// What a client sent to a port of a server over UDP, and what came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatagramsReport {
    /// The address of who opened conversations.
    pub client: String,
    /// `address:port` of whom they were opened to.
    pub server: String,
    /// Datagrams of both, and when.
    pub seen: Occurrences,
    /// Datagrams of client and server.
    pub datagrams: [u64; 2],
    /// Their payload bytes.
    pub bytes: [u64; 2],
    /// Conversations, as a gateway's connection tracking parts them.
    pub conversations: u64,
    /// Those of which the recording has no beginning: its first datagram was taken for an answer.
    pub midway: u64,
    /// Those that may have begun before the recording, and of which nothing tells who opened them: the client was heard first.
    pub guessed: u64,
    /// Those by which the client goes on with one that the server had opened, and that a gateway has forgotten.
    pub late: u64,
    /// Those in which the server of a flow spoke before its client had: these are its datagrams until then.
    pub early: u64,
    /// What each gateway on the way would have done with each datagram.
    pub judgements: Vec<Judgement>,
}

/// What a gateway would have done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Judgement {
    /// The gateway; `None` if none stands between.
    pub gateway: Option<String>,
    /// What it says.
    pub answer: Answer,
    /// No rule permits it; it passes because the zones only observe.
    pub observed: bool,
    /// Whether a gateway stands between is not known: an end lies on no side of any.
    pub stranger: bool,
}

/// Conversations by client and server, and by what became of them: grants of remote access begin and end.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    reports: BTreeMap<(IpAddr, SocketAddr, Vec<Judgement>), DatagramsReport>,
}

impl Datagrams {
    /// Adds a conversation that is over.
    ///
    /// The kernel judges by the end that the plant permits to open, as soon as that end has spoken (`enforce/nft/render/turned`):
    /// what the other sent before is refused, and nothing after it.
    pub(super) fn add(&mut self, plans: &Plans, over: &Conversation) {
        let (client, server) = (over.client, over.server);
        let [asked, answered] = over.datagrams;
        let permits = |client: SocketAddr, server: SocketAddr| {
            let carried = Carried::Udp(server.port());
            let tracks = plans.between(client.ip(), server.ip(), carried, When::At(over.first));
            tracks.iter().all(|track| track.gate.permits())
        };
        let turned = answered > 0 && !permits(client, server) && permits(server, client);
        if !turned {
            self.count(plans, over, false);
            return;
        }
        let [early, early_bytes] = over.unanswered;
        let [asked_bytes, answered_bytes] = over.bytes;
        self.count(
            plans,
            &Conversation {
                datagrams: [early, 0],
                bytes: [early_bytes, 0],
                ..*over
            },
            true,
        );
        self.count(
            plans,
            &Conversation {
                client: server,
                server: client,
                datagrams: [answered, asked.saturating_sub(early)],
                bytes: [answered_bytes, asked_bytes.saturating_sub(early_bytes)],
                opening: Opening::Recorded,
                ..*over
            },
            false,
        );
    }

    fn count(&mut self, plans: &Plans, over: &Conversation, early: bool) {
        let [asked, answered] = over.datagrams;
        let seen = Occurrences {
            count: asked + answered,
            first: over.first,
            last: over.last,
        };
        let (client, server) = (over.client.ip(), over.server);
        let judgements = judged(plans, over);
        let report = self
            .reports
            .entry((client, server, judgements.clone()))
            .or_insert_with(|| DatagramsReport {
                client: client.to_string(),
                server: server.to_string(),
                seen: Occurrences { count: 0, ..seen },
                datagrams: [0; 2],
                bytes: [0; 2],
                conversations: 0,
                midway: 0,
                guessed: 0,
                late: 0,
                early: 0,
                judgements,
            });
        report.seen = report.seen.and(seen);
        for (sums, more) in [
            (&mut report.datagrams, over.datagrams),
            (&mut report.bytes, over.bytes),
        ] {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum += more;
            }
        }
        report.conversations += 1;
        report.early += u64::from(early);
        match over.opening {
            Opening::Recorded => {}
            Opening::Told => report.midway += 1,
            Opening::Guessed => report.guessed += 1,
            Opening::Late => report.late += 1,
        }
    }

    /// All of them, in the order they began.
    pub(super) fn finish(self) -> Vec<DatagramsReport> {
        let mut reports: Vec<DatagramsReport> = self.reports.into_values().collect();
        reports.sort_by_key(|report| report.seen.first);
        reports
    }
}

/// What the gateways say of a conversation. One that outlasts a grant of remote access is not divided by the time of its datagrams: it is
/// refused as a whole, rather than counted as fine.
fn judged(plans: &Plans, over: &Conversation) -> Vec<Judgement> {
    let (client, server) = (over.client.ip(), over.server);
    let at = |at| {
        let tracks = plans.between(client, server.ip(), Carried::Udp(server.port()), When::At(at));
        let tracks = tracks.into_iter().map(|track| track.coming_in(over.envelope));
        tracks.map(Judgement::from)
    };
    let mut judgements: Vec<Judgement> = at(over.first).collect();
    let mut turn = plans.next_turn(over.first);
    while let Some(moment) = turn.filter(|turn| *turn <= over.last) {
        for (judgement, now) in judgements.iter_mut().zip(at(moment)) {
            if judgement.answer.allowed && !now.answer.allowed {
                *judgement = now;
            }
        }
        turn = plans.next_turn(moment);
    }
    judgements
}

impl From<Track> for Judgement {
    fn from(track: Track) -> Self {
        Self {
            answer: track.gate.answer(),
            observed: matches!(track.gate, Gate::Shut { observing: true, .. }),
            stranger: matches!(track.gate, Gate::Stranger { .. }),
            gateway: track.gateway,
        }
    }
}
