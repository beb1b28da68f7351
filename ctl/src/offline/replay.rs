//! `replay`: what a plant would have done with recorded traffic, and by which rule.

mod datagrams;
mod recordings;
pub(crate) mod unread;

use std::collections::{BTreeMap, BTreeSet};

use penstock_inspect::connection::Effect;
use penstock_inspect::replay::{self, FlowReport, Plans};
use schemars::JsonSchema;
use serde::Serialize;

use self::datagrams::{Counts, Datagrams};
pub(crate) use self::recordings::{Pass, read};
use self::unread::Unread;
use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading::{self, LoadedPlant};
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// What became of the recorded traffic.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Replayed {
    /// Packets read.
    pub packets: u64,
    /// Operations that would have passed a gateway.
    pub allowed: u64,
    /// Operations that would have been refused.
    pub refused: u64,
    /// Packets that are no operation and would have been withheld: answers that do not fit what was asked.
    pub withheld: u64,
    /// Operations on connections that cross no known gateway: nothing judges them.
    pub unjudged: u64,
    /// UDP datagrams, in which no operation is read.
    pub datagrams: Counts,
    /// What could not be judged; the rest of the answer is about the rest of the traffic.
    pub unread: Unread,
    /// Packets without ports that would have been refused, by their kind.
    pub portless_refused: BTreeMap<String, u64>,
    /// Packets that bring nothing to judge, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Files that could not be read to their end, and why.
    pub cut: Vec<String>,
    /// Connections in the order they began.
    pub connections: Vec<Connection>,
    /// UDP by client, server and port, in the order it began.
    pub udp: Vec<Datagrams>,
}

/// One connection as one gateway would have treated it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Connection {
    /// Who opened it.
    pub client: String,
    /// To whom.
    pub server: String,
    /// First packet, RFC 3339.
    pub first: String,
    /// Its opening is not in the capture.
    pub midway: bool,
    /// And nothing tells who opened it: that `client` did is a guess.
    pub guessed: bool,
    /// Payload bytes that the capture lacks.
    pub missing_bytes: u64,
    /// Payload bytes that the gateway would have judged, and that could not be judged here.
    pub unread_bytes: u64,
    /// Bytes that a retransmission brought with other content.
    pub conflicting_bytes: u64,
    /// The gateway, if one stands between.
    pub gateway: Option<String>,
    /// Whether the connection as such passes.
    pub allowed: bool,
    /// By which rule, or why not.
    pub because: String,
    /// No rule permits it, or none any more; it passes because the zones only observe.
    pub observed: bool,
    /// The gateway would have ended it: it carries what cannot be read as the protocol, or outlasts the grant of remote access
    /// that opened it.
    pub ended: bool,
    /// Whether a gateway stands between is not known: an end lies on no side of any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stranger: bool,
    /// Its operations.
    pub operations: Vec<Operation>,
    /// What enforcing would have changed of it beside refusing operations.
    pub deviations: Vec<Deviation>,
    /// What else was seen on it, with how often.
    pub notes: Vec<Noted>,
}

/// An operation of a connection.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Operation {
    /// In the field's words.
    pub operation: String,
    /// Whether it passes.
    pub allowed: bool,
    /// By which rule, or why not.
    pub because: String,
    /// How often.
    pub count: u64,
}

/// Something that is no operation, and that enforcing would not have let pass.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deviation {
    /// What.
    pub what: String,
    /// What would have become of it: `withheld`, or the connection `ended`.
    pub effect: String,
    /// What to write at the flow to let it pass, where that is possible.
    pub option: Option<String>,
    /// How often.
    pub count: u64,
}

/// Something that is no operation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Noted {
    /// What.
    pub what: String,
    /// How often.
    pub count: u64,
}

/// A point in time since 1970 as RFC 3339.
pub(crate) fn clock(at: std::time::Duration) -> String {
    words::instant(u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
}

/// The plans of a plant, ready to judge traffic.
pub(crate) fn plans(loaded: &LoadedPlant) -> Result<Plans, Failure> {
    let plans = penstock_policy::compile::compile_all(&loaded.plant).map_err(|error| {
        Failure::new(Exit::BadDocument, "not-compiled", "no plans can be made").caused_by(&error)
    })?;
    Plans::new(plans.into_values().collect()).map_err(|error| {
        Failure::new(Exit::BadDocument, "not-judged", "the plans cannot be judged by").caused_by(&error)
    })
}

/// `penstock replay`.
pub(crate) fn replay(out: &Output, args: &args::Replay) -> Result<Exit, Failure> {
    let loaded = loading::load(&args.path, out)?;
    let plans = plans(&loaded)?;
    let mut replay = replay::Replay::new(&plans);
    let cut = read(&args.pcap, |pass, frame| match pass {
        Pass::Survey => replay.survey(frame),
        Pass::Take => replay.frame(frame),
    })?;
    let report = replay.finish();
    let connections: Vec<Connection> = report.flows.iter().flat_map(connections).collect();
    let count = |taken: &dyn Fn(&Connection, &Operation) -> bool| {
        connections
            .iter()
            .flat_map(|connection| {
                let of = move |operation: &&Operation| taken(connection, operation);
                connection.operations.iter().filter(of)
            })
            .map(|operation| operation.count)
            .sum()
    };
    let further_refused: u64 = report
        .flows
        .iter()
        .flat_map(|flow| &flow.treatments)
        .map(|treatment| treatment.further_refused)
        .sum();
    let udp: Vec<Datagrams> = report.datagrams.iter().flat_map(datagrams::datagrams).collect();
    let replayed = Replayed {
        packets: report.packets,
        allowed: count(&|connection, operation| connection.gateway.is_some() && operation.allowed),
        refused: count(&|_, operation| !operation.allowed) + further_refused,
        withheld: connections
            .iter()
            .flat_map(|connection| &connection.deviations)
            .filter(|deviation| deviation.effect == Effect::Withheld.word())
            .map(|deviation| deviation.count)
            .sum(),
        unjudged: count(&|connection, operation| connection.gateway.is_none() && operation.allowed),
        datagrams: Counts::of(&udp),
        unread: Unread::of(&report),
        portless_refused: report.refused,
        skipped: report.skipped,
        cut,
        connections,
        udp,
    };
    out.show(&replayed)?;
    Ok(if replayed.is_whole_and_passes() {
        Exit::Done
    } else {
        Exit::Findings
    })
}

impl Replayed {
    /// Everything was read, and would have passed.
    fn is_whole_and_passes(&self) -> bool {
        let stopped = |connection: &Connection| {
            !connection.allowed || connection.ended || !connection.deviations.is_empty()
        };
        self.refused == 0
            && self.datagrams.refused == 0
            && self.portless_refused.is_empty()
            && self.cut.is_empty()
            && !self.unread.is_any()
            && !self.connections.iter().any(stopped)
    }
}

fn connections(flow: &FlowReport) -> impl Iterator<Item = Connection> + '_ {
    flow.treatments.iter().map(|treatment| {
        let mut notes: Vec<Noted> = treatment
            .notes
            .iter()
            .map(|(what, seen)| Noted {
                what: what.clone(),
                count: seen.count,
            })
            .collect();
        if treatment.further_operations > 0 {
            notes.push(Noted {
                what: "further operations".to_owned(),
                count: treatment.further_operations,
            });
        }
        if let Some(because) = &treatment.over {
            notes.push(Noted {
                what: format!(
                    "it goes on past the grant of remote access that opened it, and nothing of that was judged: {because}"
                ),
                count: 1,
            });
        }
        Connection {
            client: flow.client.clone(),
            server: flow.server.clone(),
            first: clock(flow.seen.first),
            midway: flow.midway,
            guessed: flow.guessed,
            missing_bytes: flow.missing_bytes,
            unread_bytes: treatment.unjudged_bytes,
            conflicting_bytes: flow.conflicting_bytes,
            gateway: treatment.gateway.clone(),
            allowed: treatment.connection.allowed,
            because: treatment.connection.because.clone(),
            observed: treatment.observed,
            ended: treatment.ended || (treatment.over.is_some() && !treatment.observed),
            stranger: treatment.stranger,
            operations: treatment
                .operations
                .iter()
                .map(|judged| Operation {
                    operation: judged.operation.clone(),
                    allowed: judged.answer.allowed,
                    because: judged.answer.because.clone(),
                    count: judged.seen.count,
                })
                .collect(),
            deviations: treatment
                .deviations
                .iter()
                .map(|deviation| Deviation {
                    what: deviation.what.clone(),
                    effect: deviation.effect.word().to_owned(),
                    option: deviation.remedy.map(str::to_owned),
                    count: deviation.seen.count,
                })
                .collect(),
            notes,
        }
    })
}

impl Report for Replayed {
    const SCHEMA: &'static str = "penstock.replay/1";

    fn page(&self, page: &mut Page) {
        for cut in &self.cut {
            page.paragraph(0, Tone::Warn, &format!("▲ not read to its end: {cut}"));
        }
        self.unread.page(self.packets, page);
        for connection in &self.connections {
            connection.page(page);
        }
        for datagrams in &self.udp {
            datagrams.page(page);
        }
        page.gap();
        // A connection that crosses several gateways is told once for each of them.
        let ways: BTreeSet<_> = self
            .connections
            .iter()
            .map(|way| (&way.client, &way.server, &way.first))
            .collect();
        let count = |taken: &dyn Fn(&Connection) -> bool| {
            self.connections
                .iter()
                .filter(|connection| taken(connection))
                .count()
        };
        page.line(format!(
            "{} {} in {}",
            if self.is_whole_and_passes() {
                page.paint(Tone::Good, "✓")
            } else {
                page.paint(Tone::Bad, "✗")
            },
            words::count(usize::try_from(self.packets).unwrap_or(usize::MAX), "packet"),
            words::count(ways.len(), "connection"),
        ));
        let talked = |taken: &dyn Fn(&Datagrams) -> bool| {
            let some = self.udp.iter().filter(|datagrams| taken(datagrams));
            let conversations: u64 = some.map(|datagrams| datagrams.conversations).sum();
            usize::try_from(conversations).unwrap_or(usize::MAX)
        };
        const OBSERVED: &str = "only observed, to be refused once the zones enforce";
        let remarkable = [
            (count(&|one| !one.allowed), "connection", "refused"),
            (count(&|one| one.ended), "connection", "ended by the gateway"),
            (count(&|one| one.observed), "connection", OBSERVED),
            (talked(&|one| !one.allowed), "UDP conversation", "refused"),
            (talked(&|one| one.observed), "UDP conversation", OBSERVED),
        ];
        for (count, of, what) in remarkable.iter().filter(|(count, ..)| *count > 0) {
            page.line(format!("  {} {what}", words::count(*count, of)));
        }
        let counts = |what: &str, allowed: u64, refused: u64, unjudged: u64| {
            let unjudged = match unjudged {
                0 => String::new(),
                count if self.unread.strangers > 0 => format!(", {count} judged by no gateway"),
                count => format!(", {count} cross no gateway"),
            };
            format!("  {what}: {allowed} allowed, {refused} refused{unjudged}")
        };
        page.line(counts("operations", self.allowed, self.refused, self.unjudged));
        if self.withheld > 0 {
            let packets = usize::try_from(self.withheld).unwrap_or(usize::MAX);
            let packets = words::count(packets, "packet");
            page.line(format!(
                "  answers and anything else that is not a request: {packets} withheld"
            ));
        }
        if !self.udp.is_empty() {
            let Counts {
                allowed,
                refused,
                unjudged,
            } = self.datagrams;
            page.line(counts("UDP datagrams", allowed, refused, unjudged));
        }
        for (reason, count) in &self.skipped {
            let packets = words::count(usize::try_from(*count).unwrap_or(usize::MAX), "packet");
            page.paragraph(2, Tone::Dim, &format!("{packets} left aside: {reason}"));
        }
        for (what, count) in &self.portless_refused {
            let packets = words::count(usize::try_from(*count).unwrap_or(usize::MAX), "packet");
            page.paragraph(2, Tone::Bad, &format!("✗ {packets} refused: {what}"));
        }
    }
}

/// What stands before the ends: what becomes of what they say.
fn mark(page: &Page, allowed: bool, crosses: bool, doubtful: bool) -> String {
    if !allowed {
        page.paint(Tone::Bad, "✗ refused:")
    } else if !crosses {
        page.paint(Tone::Dim, "·")
    } else if doubtful {
        page.paint(Tone::Warn, "▲")
    } else {
        page.paint(Tone::Good, "✓")
    }
}

/// Where: " at gw-1".
fn at(gateway: Option<&str>) -> String {
    gateway.map_or(String::new(), |gateway| format!(" at {gateway}"))
}

impl Deviation {
    fn in_words(&self) -> String {
        let times = match self.count {
            1 => String::new(),
            count => format!(" ({count} times)"),
        };
        let option = match &self.option {
            Some(option) => format!("; `{option}` at the flow lets it pass"),
            None => String::new(),
        };
        format!("{} by the gateway: {}{times}{option}", self.effect, self.what)
    }
}

impl Noted {
    fn in_words(&self) -> String {
        match self.count {
            1 => self.what.clone(),
            count => format!("{} ({count} times)", self.what),
        }
    }
}

impl Connection {
    fn page(&self, page: &mut Page) {
        page.gap();
        let doubtful = self.observed || self.ended || self.stranger || self.unread_bytes > 0;
        let crosses = self.gateway.is_some() || self.stranger;
        let mark = mark(page, self.allowed, crosses, doubtful);
        let (client, server) = (
            page.paint(Tone::Name, &self.client),
            page.paint(Tone::Name, &self.server),
        );
        let at = at(self.gateway.as_deref());
        page.line(format!("{mark} {client} → {server}{at}, {}", self.first));
        page.paragraph(2, Tone::Dim, &self.because);
        for deviation in &self.deviations {
            page.paragraph(2, Tone::Bad, &format!("✗ {}", deviation.in_words()));
        }
        self.operations(page);
        self.remarks(page);
    }

    /// Operations by the rule that decided, what is refused first.
    fn operations(&self, page: &mut Page) {
        let mut by_answer: BTreeMap<(bool, &str), Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            let because = self.shortened(&operation.because);
            by_answer
                .entry((operation.allowed, because))
                .or_default()
                .push(operation);
        }
        for ((allowed, because), operations) in by_answer {
            // What already stands above for the whole connection is not said again.
            if because != self.because {
                let (tone, words) = if allowed {
                    (Tone::Good, format!("✓ {because}"))
                } else {
                    (Tone::Bad, format!("✗ refused: {because}"))
                };
                page.paragraph(4, tone, &words);
            }
            for operation in operations {
                let what = page.paint(Tone::Plain, &operation.operation);
                page.line(format!("    {:>7} × {what}", operation.count));
            }
        }
    }

    /// A reason without the flow's name where the connection has just named it.
    fn shortened<'a>(&self, because: &'a str) -> &'a str {
        because
            .split_once(": ")
            .filter(|(flow, _)| {
                self.because
                    .strip_prefix(flow)
                    .is_some_and(|rest| rest.starts_with(", each operation"))
            })
            .map_or(because, |(_, rest)| rest)
    }

    /// What else there is to know.
    fn remarks(&self, page: &mut Page) {
        let mut also: Vec<String> = self.notes.iter().map(Noted::in_words).collect();
        if self.guessed {
            also.push(
                "who opened it is a guess: its opening is not in the capture, and neither the plant nor its ports tell".to_owned(),
            );
        } else if self.midway {
            also.push("its opening is not in the capture".to_owned());
        }
        if self.missing_bytes > 0 {
            also.push(format!(
                "{} payload bytes are not in the capture",
                self.missing_bytes
            ));
        }
        if self.conflicting_bytes > 0 {
            also.push(format!(
                "{} bytes were sent twice with other content",
                self.conflicting_bytes
            ));
        }
        for note in also {
            page.paragraph(4, Tone::Warn, &format!("▲ {note}"));
        }
    }
}
