//! `penstock audit`: what to look for in the trail, and how to show it.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use penstock_policy::ids::PlantId;
use penstock_proto::audit::cosignature::WitnessKey;
use penstock_proto::event::EventKind;
use penstock_proto::export::{Format as ExportFormat, Position};

/// `penstock audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Find records
    #[command(
        after_help = "Examples:\n  penstock audit search --decision deny --since 2h\n  \
                      penstock audit search --asset plc-7 --since 2026-11-28 --explain\n  \
                      penstock audit search --conduit supply --operation write-single-register --value 80-120\n  \
                      penstock audit search --kind policy --source gw-works-a --output json"
    )]
    Search {
        /// What to look for.
        #[command(flatten)]
        filter: AuditFilter,
        /// Until when: RFC 3339 with its offset, a day (all of it), or a span back from now.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// At most this many at once; `--after` goes on behind them.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Oldest first; default: the newest first.
        #[arg(long)]
        oldest_first: bool,
        /// Go on behind the last record of this search, by the cursor that it gave.
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
        /// Say of each verdict and operation which rule of the release in force then decided it.
        #[arg(long)]
        explain: bool,
    },
    /// Count records over time
    ///
    /// By the hour or the day of the source's site.
    #[command(
        after_help = "Examples:\n  penstock audit counts --since 7d --by decision\n  \
                      penstock audit counts --since 24h --per hour --by conduit --decision deny"
    )]
    Counts {
        /// What to look for.
        #[command(flatten)]
        filter: AuditFilter,
        /// Until when: RFC 3339 with its offset, a day (all of it), or a span back from now.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// For each hour or each day.
        #[arg(long, value_enum, default_value_t = PerArg::Day)]
        per: PerArg,
        /// Apart by this.
        #[arg(long, value_enum)]
        by: Option<AspectArg>,
    },
    /// List what was refused, or would have been: who to whom, how often, first and last
    #[command(after_help = "Examples:\n  penstock audit denials --since 24h\n  \
                      penstock audit denials --since 30d --order count --zone control")]
    Denials {
        /// What to look for.
        #[command(flatten)]
        filter: AuditFilter,
        /// Until when: RFC 3339 with its offset, a day (all of it), or a span back from now.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
        /// The last one first, or the most frequent one.
        #[arg(long, value_enum, default_value_t = OrderArg::Last)]
        order: OrderArg,
    },
    /// Write records in a format that programs of others read
    #[command(
        after_help = "The coordinator also exports continuously: [[export]] in its configuration (docs/export.md).\n\nExamples:\n  \
                      penstock audit export --since 2026-11-28 --until 2026-11-28 --out day.jsonl\n  \
                      penstock audit export --format ocsf --decision deny --since 7d\n  \
                      penstock audit export --from-position gw-works-a/3/1200/0"
    )]
    Export {
        /// What to look for.
        #[command(flatten)]
        filter: AuditFilter,
        /// Until when: RFC 3339 with its offset, a day (all of it), or a span back from now.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// The format.
        #[arg(long, default_value = "jsonl", value_parser = formats())]
        format: ExportFormat,
        /// From this record on, as its source has them: SOURCE/EPOCH/SEQUENCE/INDEX, as each record has it.
        #[arg(long, value_name = "POSITION")]
        from_position: Option<Position>,
        /// Where it goes; never overwritten; default: standard output.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Take trails with what proves them into one file, for somebody who will verify it without the coordinator
    #[command(
        after_help = "Example:\n  penstock audit evidence november.evidence --since 2026-11-01 --until 2026-11-30\n\n\
                      What the file proves is said when it is written. This login remembers how far the coordinator's trails went: if it\n\
                      later shows trails that do not begin with that, the command says so (trail-rewritten)."
    )]
    Evidence {
        /// The file; it must not be there.
        file: PathBuf,
        /// Only from this gateway, or `coordinator/<name>`.
        #[arg(long)]
        source: Option<String>,
        /// From the first block that the coordinator received then: RFC 3339 with its offset, a day, or a span back from now.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Until before the first one behind it that it received later than this; a day: all of it.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Prove one event: a file of a few KiB that anybody verifies without the coordinator
    #[command(
        after_help = "Example:\n  penstock audit prove gw-works-a/3/1200/0 -o refused-write.proof\n\n\
                      The position is the source and what `penstock audit search` prints in brackets. `penstock audit verify` reads the file."
    )]
    Prove {
        /// The event: SOURCE/EPOCH/SEQUENCE/INDEX.
        #[arg(value_name = "POSITION")]
        position: Position,
        /// The file; it must not be there.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Verify a file of evidence, or the proof of one event, without a coordinator, and say what it proves and what it does not
    Verify {
        /// The file.
        file: PathBuf,
        /// The plant's root certificates (PEM), from a hand that you trust. Default: those of the login.
        #[arg(long, value_name = "FILE")]
        roots: Option<PathBuf>,
        /// The plant, where no login says it.
        #[arg(long, requires = "roots")]
        plant: Option<PlantId>,
        /// A plant document whose approvers are to be believed, from a hand that you trust: one of the releases in the file has to be signed by them.
        /// Default, without --roots: the release that you verified last on this machine.
        #[arg(long, value_name = "PATH")]
        approvers: Option<PathBuf>,
        /// The key of an external witness, as its operator publishes it (NAME+NUMBER+BASE64): it has to have cosigned a head in the file. May be given
        /// several times.
        #[arg(long, value_name = "KEY")]
        witness: Vec<WitnessKey>,
    },
    /// Follow the trail as records become durable
    Tail {
        /// What to look for.
        #[command(flatten)]
        filter: AuditFilter,
    },
}

/// What to look for in the trail.
#[derive(Debug, Args)]
pub struct AuditFilter {
    /// Words within addresses, names of assets and zones, flow, reason or message.
    pub text: Option<String>,
    /// Only from this gateway, or `coordinator/<name>`.
    #[arg(long)]
    pub source: Option<String>,
    /// Only this kind; may be given several times.
    #[arg(long, value_parser = kinds())]
    pub kind: Vec<EventKind>,
    /// Only verdicts and operations with this decision.
    #[arg(long, value_enum, visible_alias = "verdict")]
    pub decision: Option<DecisionArg>,
    /// Only from gateways of this site; may be given several times, as the other names.
    #[arg(long)]
    pub site: Vec<String>,
    /// Only where an end lies in this zone, or the record names it.
    #[arg(long)]
    pub zone: Vec<String>,
    /// Only of this conduit; where no flow is named, of what ran between its two zones.
    #[arg(long)]
    pub conduit: Vec<String>,
    /// Only where an end is this asset, by its name then or by its address.
    #[arg(long, value_name = "NAME|ADDRESS")]
    pub asset: Vec<String>,
    /// Only this operation inside inspected connections, or those that begin with these words.
    #[arg(long)]
    pub operation: Vec<String>,
    /// Only refused writes of this value, or of one of a range (80-120).
    #[arg(long, value_name = "VALUE", value_parser = values)]
    pub value: Option<(u32, u32)>,
    /// Only what this operator did.
    #[arg(long)]
    pub operator: Vec<String>,
    /// Only this severity and worse.
    #[arg(long, value_enum)]
    pub severity: Option<SeverityArg>,
    /// Since when: RFC 3339 with its offset, a day, or a span back from now (2h).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Which clock --since and --until mean: a source's may be wrong, and what it said while it was away is received late.
    #[arg(long, value_enum, default_value_t = ClockArg::Either)]
    pub clock: ClockArg,
}

/// `7` or `5-9`.
fn values(text: &str) -> Result<(u32, u32), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err("write a value, or the least and the greatest of a range: 80-120".to_owned()),
    }
}

/// Stretches of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum PerArg {
    Hour,
    Day,
}

/// By what records are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum AspectArg {
    Decision,
    Severity,
    Kind,
    Source,
    Conduit,
}

/// Orders of what was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum OrderArg {
    Last,
    Count,
}

/// Clocks by which a record has a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClockArg {
    /// Either of the two.
    Either,
    /// The source's.
    Source,
    /// The coordinator's, when it received the record.
    Received,
}

/// Kinds of audit events, by their words.
fn kinds() -> impl TypedValueParser<Value = EventKind> {
    let word = |kind: &EventKind| PossibleValue::new(kind.word()).help(kind.description().meaning);
    PossibleValuesParser::new(EventKind::ALL.iter().map(word))
        .try_map(|word| EventKind::of_word(&word).ok_or("not a kind of event"))
}

/// Formats of exports, by their words.
fn formats() -> impl TypedValueParser<Value = ExportFormat> {
    PossibleValuesParser::new(ExportFormat::ALL.iter().map(|format| format.word()))
        .try_map(|word| ExportFormat::of_word(&word).ok_or("not a format of exports"))
}

/// Decisions of verdict events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum DecisionArg {
    Allow,
    Deny,
    WouldDeny,
}

/// Severities of audit events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum SeverityArg {
    Info,
    Notice,
    Warning,
    Alarm,
}
