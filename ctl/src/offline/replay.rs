//! `replay`: what a plant would have done with recorded traffic, and by which rule.

use std::path::PathBuf;

use penstock_inspect::capture::{Frame, Frames};
use penstock_inspect::replay::{self, FlowReport, Plans};
use schemars::JsonSchema;
use serde::Serialize;

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
    /// Operations that would have passed.
    pub allowed: u64,
    /// Operations that would have been refused.
    pub refused: u64,
    /// Packets that bring nothing to judge, by reason.
    pub skipped: std::collections::BTreeMap<String, u64>,
    /// Files that could not be read to their end, and why.
    pub cut: Vec<String>,
    /// Connections in the order they began.
    pub connections: Vec<Connection>,
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
    /// Payload bytes that the capture lacks.
    pub missing_bytes: u64,
    /// Bytes that a retransmission brought with other content.
    pub conflicting_bytes: u64,
    /// The gateway, if one stands between.
    pub gateway: Option<String>,
    /// Whether the connection as such passes.
    pub allowed: bool,
    /// By which rule, or why not.
    pub because: String,
    /// Its operations.
    pub operations: Vec<Operation>,
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
    jiff::SignedDuration::try_from(at)
        .and_then(|since| jiff::Timestamp::from_duration(jiff::SignedDuration::from_secs(since.as_secs())))
        .map_or_else(|_| "unknown".to_owned(), |time| time.to_string())
}

/// Reads captures one after another; each packet goes to `take`. What could not be read to its end is told.
pub(crate) fn read(files: &[PathBuf], mut take: impl FnMut(&Frame<'_>)) -> Result<Vec<String>, Failure> {
    let mut cut = Vec::new();
    for file in files {
        let unreadable = |error: &dyn std::fmt::Display| {
            Failure::local(
                "capture-unreadable",
                format!("the capture {} cannot be read", file.display()),
            )
            .because(error.to_string())
        };
        let bytes = std::fs::read(file).map_err(|error| unreadable(&error))?;
        for frame in Frames::open(&bytes).map_err(|error| unreadable(&error))? {
            match frame {
                Ok(frame) => take(&frame),
                Err(error) => cut.push(format!("{}: {error}", file.display())),
            }
        }
    }
    Ok(cut)
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
pub fn replay(out: &Output, args: &args::Replay) -> Result<Exit, Failure> {
    let loaded = loading::load(&args.path, out)?;
    let plans = plans(&loaded)?;
    let mut replay = replay::Replay::new(&plans);
    let cut = read(&args.pcap, |frame| replay.frame(frame))?;
    let report = replay.finish();
    let connections: Vec<Connection> = report.flows.iter().flat_map(connections).collect();
    let count = |allowed: bool| {
        connections
            .iter()
            .flat_map(|connection| &connection.operations)
            .filter(|operation| operation.allowed == allowed)
            .map(|operation| operation.count)
            .sum()
    };
    let replayed = Replayed {
        packets: report.packets,
        allowed: count(true),
        refused: count(false),
        skipped: report.skipped,
        cut,
        connections,
    };
    let refused = replayed.connections.iter().any(|connection| !connection.allowed) || replayed.refused > 0;
    out.show(&replayed)?;
    Ok(if refused { Exit::Findings } else { Exit::Done })
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
        Connection {
            client: flow.client.clone(),
            server: flow.server.clone(),
            first: clock(flow.seen.first),
            midway: flow.midway,
            missing_bytes: flow.missing_bytes,
            conflicting_bytes: flow.conflicting_bytes,
            gateway: treatment.gateway.clone(),
            allowed: treatment.connection.allowed,
            because: treatment.connection.because.clone(),
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
            notes,
        }
    })
}

impl Report for Replayed {
    const SCHEMA: &'static str = "penstock.replay/1";

    fn page(&self, page: &mut Page) {
        for connection in &self.connections {
            connection.page(page);
        }
        page.gap();
        page.line(format!(
            "{} in {}: {} allowed, {} refused",
            words::count(usize::try_from(self.packets).unwrap_or(usize::MAX), "packet"),
            words::count(self.connections.len(), "connection"),
            self.allowed,
            self.refused
        ));
        for (reason, count) in &self.skipped {
            page.paragraph(2, Tone::Dim, &format!("{count} packets: {reason}"));
        }
        for cut in &self.cut {
            page.paragraph(2, Tone::Warn, cut);
        }
    }
}

impl Connection {
    fn page(&self, page: &mut Page) {
        page.gap();
        let mark = |page: &Page, allowed: bool| {
            if allowed {
                page.paint(Tone::Good, "✓")
            } else {
                page.paint(Tone::Bad, "✗ refused:")
            }
        };
        let (done, client) = (mark(page, self.allowed), page.paint(Tone::Name, &self.client));
        let (server, gateway) = (
            page.paint(Tone::Name, &self.server),
            page.paint(Tone::Dim, self.gateway.as_deref().unwrap_or("no gateway")),
        );
        page.line(format!("{done} {client} → {server}  {gateway}"));
        page.paragraph(2, Tone::Dim, &self.because);
        for operation in &self.operations {
            let (done, what) = (
                mark(page, operation.allowed),
                page.paint(Tone::Plain, &operation.operation),
            );
            page.line(format!("    {done} {what}  ×{}", operation.count));
            page.paragraph(8, Tone::Dim, &operation.because);
        }
        let mut also: Vec<String> = self
            .notes
            .iter()
            .map(|note| format!("{} (×{})", note.what, note.count))
            .collect();
        if self.midway {
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
            page.paragraph(4, Tone::Warn, &note);
        }
    }
}
