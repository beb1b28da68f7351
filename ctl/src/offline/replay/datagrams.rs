//! UDP in a replay: a client, a server and a port on each gateway's way, with the rule that decided on their datagrams.

use penstock_inspect::replay::DatagramsReport;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Noted, clock};
use crate::output::{Page, Tone};
use crate::words;

/// What a client said to a port of a server over UDP, and what came back, as one gateway would have treated it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Datagrams {
    /// The address of who opened conversations.
    pub client: String,
    /// `address:port` of whom they were opened to.
    pub server: String,
    /// First datagram, RFC 3339.
    pub first: String,
    /// Last datagram, RFC 3339.
    pub last: String,
    /// Datagrams of both.
    pub count: u64,
    /// Those of the server.
    pub answers: u64,
    /// Payload bytes of both.
    pub bytes: u64,
    /// Conversations, as a gateway's connection tracking parts them: by silence of 30 s, or 120 s once both have talked on.
    pub conversations: u64,
    /// The gateway, if one stands between.
    pub gateway: Option<String>,
    /// Whether they pass.
    pub allowed: bool,
    /// By which rule, or why not.
    pub because: String,
    /// No rule permits them; they pass because the zones only observe.
    pub observed: bool,
    /// Whether a gateway stands between is not known: an end lies on no side of any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stranger: bool,
    /// What is to be known of some conversations, with of how many.
    pub notes: Vec<Noted>,
}

/// How many datagrams passed; those that cross several gateways are counted at each.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Counts {
    /// Would have passed a gateway.
    pub allowed: u64,
    /// Would have been refused.
    pub refused: u64,
    /// No gateway is known to stand in their way: nothing judges them.
    pub unjudged: u64,
}

/// One entry for each gateway on the way.
pub(super) fn datagrams(report: &DatagramsReport) -> impl Iterator<Item = Datagrams> + '_ {
    let [_, answers] = report.datagrams;
    report.judgements.iter().map(move |judgement| Datagrams {
        client: report.client.clone(),
        server: report.server.clone(),
        first: clock(report.seen.first),
        last: clock(report.seen.last),
        count: report.seen.count,
        answers,
        bytes: report.bytes.iter().sum(),
        conversations: report.conversations,
        gateway: judgement.gateway.clone(),
        allowed: judgement.answer.allowed,
        because: judgement.answer.because.clone(),
        observed: judgement.observed,
        stranger: judgement.stranger,
        notes: notes(report),
    })
}

fn notes(report: &DatagramsReport) -> Vec<Noted> {
    let notes = [
        (
            report.midway,
            "the recording begins with an answer: it may be of a conversation that stood before",
        ),
        (
            report.guessed,
            "who opened it is a guess: it may have begun before the recording, and nothing tells",
        ),
        (
            report.early,
            "its server spoke first: a gateway refuses that until the client has spoken, but for the first minute of its tables",
        ),
        (
            report.late,
            "goes on with what the other end had opened, after a silence in which a gateway forgets it",
        ),
    ];
    let some = notes.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, what)| Noted {
        what: what.to_owned(),
        count,
    })
    .collect()
}

impl Counts {
    /// Adds up.
    pub(super) fn of(list: &[Datagrams]) -> Self {
        let sum = |taken: &dyn Fn(&Datagrams) -> bool| {
            let some = list.iter().filter(|datagrams| taken(datagrams));
            some.map(|datagrams| datagrams.count).sum()
        };
        Self {
            allowed: sum(&|datagrams| datagrams.gateway.is_some() && datagrams.allowed),
            refused: sum(&|datagrams| !datagrams.allowed),
            unjudged: sum(&|datagrams| datagrams.gateway.is_none() && datagrams.allowed),
        }
    }
}

impl Datagrams {
    pub(super) fn page(&self, page: &mut Page) {
        page.gap();
        let crosses = self.gateway.is_some() || self.stranger;
        let mark = super::mark(page, self.allowed, crosses, self.observed || self.stranger);
        let (client, server) = (
            page.paint(Tone::Name, &self.client),
            page.paint(Tone::Name, &self.server),
        );
        let at = super::at(self.gateway.as_deref());
        page.line(format!("{mark} {client} → {server} over UDP{at}, {}", self.first));
        page.paragraph(2, Tone::Dim, &self.because);
        let count = |n: u64, noun| words::count(usize::try_from(n).unwrap_or(usize::MAX), noun);
        page.line(format!(
            "    {} ({} of the server) in {}",
            count(self.count, "datagram"),
            self.answers,
            count(self.conversations, "conversation"),
        ));
        for note in &self.notes {
            page.paragraph(4, Tone::Warn, &format!("▲ {}", note.in_words()));
        }
    }
}
