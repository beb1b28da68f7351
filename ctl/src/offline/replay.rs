//! `replay`: what a plant would have done with recorded traffic, and by which rule.

mod connections;
mod datagrams;
mod recordings;
pub(crate) mod unread;

use std::collections::{BTreeMap, BTreeSet};

use penstock_inspect::connection::Effect;
use penstock_inspect::replay::{self, Plans};
use schemars::JsonSchema;
use serde::Serialize;

use self::connections::{Connection, Noted, Operation, at, connections, mark};
use self::datagrams::{Counts, Datagrams};
use self::recordings::parted;
pub(crate) use self::recordings::{Pass, read};
use self::unread::{Unread, share};
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
    /// Packets without ports, to many at once, or that are not IP, which would have been refused, by their kind.
    pub portless_refused: BTreeMap<String, u64>,
    /// The same that pass only because their zones observe.
    pub portless_observed: BTreeMap<String, u64>,
    /// Packets of TCP and UDP that came with tags or labels, by these. A bridged gateway lets none of them cross where the zones enforce.
    pub tagged: BTreeMap<String, u64>,
    /// What came with them was judged as if it came without: `--ignore-tags`.
    pub tags_ignored: bool,
    /// Packets that bring nothing to judge, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Files that could not be read to their end, and why.
    pub cut: Vec<String>,
    /// Connections in the order they began.
    pub connections: Vec<Connection>,
    /// UDP by client, server and port, in the order it began.
    pub udp: Vec<Datagrams>,
    #[serde(skip)]
    listed: Listed,
}

/// What people are shown of single connections; sums are always those of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    All,
    /// What would have been stopped, and of it only that.
    Stopped,
    None,
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
    let (plant, more) = parted(args.paths.clone())?;
    let recordings = [args.pcap.as_slice(), &more].concat();
    if recordings.is_empty() {
        return Err(Failure::usage("no recording is named").help(
            "write `penstock replay --pcap RECORDING PLANT`, or `penstock replay PLANT RECORDING...`",
        ));
    }
    let loaded = loading::load(&plant, out)?;
    let plans = plans(&loaded)?;
    let mut replay = replay::Replay::new(&plans);
    if args.ignore_tags {
        replay = replay.ignoring_tags();
    }
    let cut = read(&recordings, |pass, frame| match pass {
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
        portless_observed: report.observed,
        tagged: report.enveloped,
        tags_ignored: args.ignore_tags,
        skipped: report.skipped,
        cut,
        connections,
        udp,
        listed: match (args.refused, args.summary) {
            (true, _) => Listed::Stopped,
            (_, true) => Listed::None,
            _ => Listed::All,
        },
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
        self.refused == 0
            && self.datagrams.refused == 0
            && self.portless_refused.is_empty()
            && self.cut.is_empty()
            && !self.unread.is_any()
            && !self.connections.iter().any(Connection::is_stopped)
    }
}

impl Report for Replayed {
    const SCHEMA: &'static str = "penstock.replay/1";

    fn page(&self, page: &mut Page) {
        for cut in &self.cut {
            page.paragraph(0, Tone::Warn, &format!("▲ not read to its end: {cut}"));
        }
        self.unread.page(self.packets, page);
        for (what, count) in &self.portless_refused {
            let words = format!("✗ refused: {}: {what}", share(*count, self.packets, "packets"));
            page.paragraph(0, Tone::Bad, &words);
        }
        for (what, count) in &self.portless_observed {
            let words = format!(
                "▲ only observed: {}: {what}",
                share(*count, self.packets, "packets")
            );
            page.paragraph(0, Tone::Warn, &words);
        }
        for (what, count) in &self.tagged {
            let came = format!("{} came {what}", share(*count, self.packets, "packets"));
            let words = match self.tags_ignored {
                true => format!("▲ {came}; judged as if without (`--ignore-tags`)"),
                false => format!(
                    "▲ {came}: a bridged gateway lets IPv4, IPv6 and ARP cross only without them. If only the recording has this (some \
                     mirror ports add a tag), judge as if without it: `--ignore-tags`"
                ),
            };
            page.paragraph(0, Tone::Warn, &words);
        }
        for connection in &self.connections {
            match self.listed {
                Listed::All => connection.page(page, true),
                Listed::Stopped if connection.is_stopped() || connection.refuses() => {
                    connection.page(page, false);
                }
                Listed::Stopped | Listed::None => {}
            }
        }
        for datagrams in &self.udp {
            match self.listed {
                Listed::All => datagrams.page(page),
                Listed::Stopped if !datagrams.allowed => datagrams.page(page),
                Listed::Stopped | Listed::None => {}
            }
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
    }
}
