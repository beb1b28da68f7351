//! Commands that need a coordinator, and those beside them that only sign or verify.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use penstock_proto::event::EventKind;

use super::names::{digits, revision};

/// `penstock release`.
#[derive(Debug, Subcommand)]
pub enum Release {
    /// Propose a plant document as the next release
    #[command(
        after_help = "Example:\n  penstock release propose plant/ --ticket CHG-4711 --reason 'Historian reads PLC 7'"
    )]
    Propose {
        /// A plant document.
        path: PathBuf,
        /// Where the change was agreed.
        #[arg(long)]
        ticket: Option<String>,
        /// Why, in a sentence.
        #[arg(long)]
        reason: String,
        /// As an emergency: it waits for no change window, no shadow and no wave, and needs the signatures of the approvers'
        /// `emergency_threshold`. The interlock and the trial on each gateway stay.
        #[arg(long)]
        emergency: bool,
        /// Also if the current release has exactly this document, and on top of what gateways and you hold that the
        /// coordinator does not know: after it was restored from a backup.
        #[arg(long)]
        again: bool,
        /// Your own copy of the document in force, to compare with where this machine has verified no release yet.
        #[arg(long, value_name = "PATH")]
        base: Option<PathBuf>,
        /// The days of recorded traffic.
        #[command(flatten)]
        recorded: super::RecordedSpan,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Compile a proposed release again here, show what it changes, and sign it with your key
    ///
    /// The change is shown against the release that you verified last on this machine, followed through the signatures of
    /// its approvers; never against what the coordinator merely says to be in force.
    #[command(
        after_help = "Examples:\n  penstock release approve 4 --digest 3fa9c1d2e5b0 --key ~/.config/penstock/a.silva.key\n  \
                      penstock release approve 4 --digest 3fa9c1d2e5b0 --signature r4.signed      made with release sign"
    )]
    Approve {
        /// The revision.
        #[arg(value_parser = revision)]
        revision: u64,
        /// The first digits of its digest, as whoever proposed it announced them; refused if it is another release.
        #[arg(long, value_name = "HEX", value_parser = digits)]
        digest: Option<String>,
        /// The approver's key; it stays on this machine.
        #[arg(
            long,
            value_name = "FILE",
            required_unless_present = "signature",
            conflicts_with = "signature"
        )]
        key: Option<PathBuf>,
        /// The key's passphrase.
        #[command(flatten)]
        unlock: super::Unlock,
        /// A signed release from `release sign`, whose signatures are brought instead of made here.
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
        /// Your own copy of the document in force, to compare with where this machine has verified no release yet.
        #[arg(long, value_name = "PATH")]
        base: Option<PathBuf>,
        /// The days of recorded traffic.
        #[command(flatten)]
        recorded: super::RecordedSpan,
        /// Do not ask; the digest has to be given.
        #[arg(long, short, requires = "digest")]
        yes: bool,
    },
    /// Reject a waiting proposal, as one of its approvers
    #[command(
        after_help = "Example:\n  penstock release reject 4 --digest 3fa9c1d2e5b0 --reason 'PLC 7 is not ours'"
    )]
    Reject(EndRelease),
    /// Withdraw a waiting proposal, as its author
    #[command(after_help = "Example:\n  penstock release withdraw 4 --digest 3fa9c1d2e5b0 --reason 'A typo'")]
    Withdraw(EndRelease),
    /// Releases, newest first
    List {
        /// At most this many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// One release: what it says, who signed, how far it has come
    Show {
        /// The revision; default: the current one.
        #[arg(value_parser = revision)]
        revision: Option<u64>,
        /// Also write its documents into this folder.
        #[arg(long, value_name = "DIR")]
        documents: Option<PathBuf>,
        /// Also write statement and signatures as a signed release (DSSE envelope), for `release verify`.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
        /// Also write the statement's exact bytes, for `release sign` on another machine.
        #[arg(long, value_name = "FILE")]
        statement: Option<PathBuf>,
        /// The days of recorded traffic.
        #[command(flatten)]
        recorded: super::RecordedSpan,
    },
    /// Propose the documents of an earlier release as a new one
    #[command(
        after_help = "Example:\n  penstock release revert 3 --ticket CHG-4712 --reason 'Back to before the trial'"
    )]
    Revert {
        /// The earlier revision whose documents are to hold again.
        #[arg(value_parser = revision)]
        revision: u64,
        /// Where the change was agreed.
        #[arg(long)]
        ticket: Option<String>,
        /// Why, in a sentence.
        #[arg(long)]
        reason: String,
        /// As an emergency: it waits for no change window, no shadow and no wave, and needs the signatures of the approvers'
        /// `emergency_threshold`. The interlock and the trial on each gateway stay.
        #[arg(long)]
        emergency: bool,
        /// Your own copy of the document in force, to compare with where this machine has verified no release yet.
        #[arg(long, value_name = "PATH")]
        base: Option<PathBuf>,
        /// The days of recorded traffic.
        #[command(flatten)]
        recorded: super::RecordedSpan,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// The release that you verified last on this machine, with its eight words; asks no coordinator
    #[command(after_help = "Example:\n  penstock release known      # and compare the words by telephone")]
    Known,
    /// Sign a statement without a coordinator, for instance on a machine that has no network
    #[command(
        after_help = "Example:\n  penstock release sign r4.statement --key a.silva.key --as a.silva --documents plant/ -o r4.signed"
    )]
    Sign {
        /// The statement's exact bytes, or a signed release to add a signature to.
        statement: PathBuf,
        /// The approver's key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The key's passphrase.
        #[command(flatten)]
        unlock: super::Unlock,
        /// The approver's name in the plant document.
        #[arg(long = "as", value_name = "APPROVER")]
        approver: String,
        /// The documents, to be compiled again and compared with the statement.
        #[arg(long, value_name = "PATH")]
        documents: PathBuf,
        /// Where the signed release goes; never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Verify a signed release without a coordinator: signatures, threshold, and that the documents compile to it
    #[command(
        after_help = "Example:\n  penstock release verify r4.signed --approvers plant-before/ --documents plant/"
    )]
    Verify {
        /// The signed release.
        file: PathBuf,
        /// The plant document whose approvers are to be believed: that of the release before, from your own disk.
        #[arg(long, value_name = "PATH")]
        approvers: PathBuf,
        /// The documents of the release, to be compiled and compared.
        #[arg(long, value_name = "PATH")]
        documents: Option<PathBuf>,
    },
}

/// `penstock release reject | withdraw`.
#[derive(Debug, Args)]
pub struct EndRelease {
    /// The revision.
    #[arg(value_parser = revision)]
    pub revision: u64,
    /// The first digits of its digest; refused if it is another release.
    #[arg(long, value_name = "HEX", value_parser = digits)]
    pub digest: Option<String>,
    /// Why, in a sentence: it stands in the trail.
    #[arg(long)]
    pub reason: String,
    /// Do not ask; the digest has to be given.
    #[arg(long, short, requires = "digest")]
    pub yes: bool,
}

/// `penstock login`.
#[derive(Debug, Args)]
pub struct Login {
    /// The token's file; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub token: PathBuf,
}

/// `penstock context`.
#[derive(Debug, Subcommand)]
pub enum Context {
    /// Logins on this machine
    List,
    /// Choose the login to use when none is named
    Use {
        /// Its name.
        name: String,
    },
}

/// `penstock gateways`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  penstock gateways\n  penstock gateways token gw-works-a plant/ -o gw-works-a.token"
)]
pub struct Gateways {
    /// Without one: list them.
    #[command(subcommand)]
    pub command: Option<GatewaysCommand>,
}

/// `penstock gateways …`.
#[derive(Debug, Subcommand)]
pub enum GatewaysCommand {
    /// Gateways and what each enforces
    List,
    /// Make a single-use token that enrols a gateway
    ///
    /// The approvers in it come from the plant document on this machine, never from the coordinator: a gateway must
    /// not learn from the coordinator whose signatures to believe.
    Token {
        /// The gateway.
        gateway: String,
        /// The plant document whose approvers the gateway shall believe.
        path: PathBuf,
        /// Where the token goes (readable only by you); never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// How many hours it may be used.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
        hours: u32,
        /// Where the gateway finds coordinators; default: those of this login.
        #[arg(long, value_name = "HOST:PORT")]
        coordinator: Vec<String>,
    },
}

/// `penstock devices`.
#[derive(Debug, Subcommand)]
pub enum Devices {
    /// Issue a certificate to a device, for the key in its request or for a key that is made here
    ///
    /// It says `device/<asset>`, and carries the asset's addresses: all of it comes from the current release, nothing
    /// from the request. To renew it, issue it again.
    #[command(
        after_help = "Examples:\n  penstock devices issue broker --request broker.csr --out broker.pem\n  \
                      penstock devices issue plc-7 --new-key plc-7.key --out plc-7.pem      if the device cannot make a key"
    )]
    Issue {
        /// The asset, as the plant document names it.
        asset: String,
        /// The device's certificate request (PKCS#10, PEM or DER); its key stays on the device.
        #[arg(
            long,
            value_name = "FILE",
            required_unless_present = "new_key",
            conflicts_with = "new_key"
        )]
        request: Option<PathBuf>,
        /// Make a key here (ECDSA P-256), into this file (readable only by you); never overwritten, never sent.
        #[arg(long, value_name = "FILE")]
        new_key: Option<PathBuf>,
        /// Where the certificate goes, PEM; never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the certificate of the plant's authority, PEM: what devices and brokers have to trust
    ///
    /// It comes from your login, which pinned it, not from the network.
    #[command(after_help = "Example:\n  penstock devices authority > ca.pem")]
    Authority,
}

/// `penstock operators`.
#[derive(Debug, Subcommand)]
pub enum Operators {
    /// Operators and their roles
    List,
    /// Add an operator: make the single-use token with which they log in
    ///
    /// Everybody may look. Roles exclude each other otherwise: an engineer proposes releases, an approver signs those of others,
    /// an admin hands out access and neither proposes nor signs.
    #[command(after_help = "Example:\n  penstock operators add a.silva --role approver -o a.silva.token")]
    Add {
        /// The operator's name. An approver's must be the one in the plant document.
        name: String,
        /// What they may do, besides looking.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Where the token goes (readable only by you); never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// How many hours it may be used.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
        hours: u32,
        /// Where they find coordinators; default: those of this login.
        #[arg(long, value_name = "HOST:PORT")]
        coordinator: Vec<String>,
    },
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Looks, and nothing else.
    Viewer,
    /// Proposes releases, and withdraws their own.
    Engineer,
    /// Signs or rejects releases that others proposed.
    Approver,
    /// Adds gateways, operators and devices; neither proposes nor signs.
    Admin,
}

/// `penstock health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Keep watching; redrawn in place on a terminal, a line for each change elsewhere.
    #[arg(long, short)]
    pub watch: bool,
    /// Only this zone; may be given several times.
    #[arg(long, value_name = "ZONE")]
    pub zone: Vec<String>,
    /// Only zones that depend on this gateway; may be given several times.
    #[arg(long, value_name = "GATEWAY")]
    pub gateway: Vec<String>,
    /// Only zones in this state or a worse one.
    #[arg(long, value_enum, value_name = "STATE")]
    pub severity: Option<StateArg>,
}

/// States of a zone, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum StateArg {
    Enforcing,
    Observing,
    Degraded,
    Stale,
    Unknown,
    Unprotected,
}

impl StateArg {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Observing => "observing",
            Self::Degraded => "degraded",
            Self::Stale => "stale",
            Self::Unknown => "unknown",
            Self::Unprotected => "unprotected",
        }
    }
}

/// `penstock why`.
#[derive(Debug, Args)]
pub struct Why {
    /// An asset by its name, or an address.
    pub subject: String,
    /// Since when: RFC 3339 with its offset, a day, or a span back from now.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub since: String,
    /// At most this many different refusals.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub limit: u32,
}

/// `penstock audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Find records
    #[command(
        after_help = "Examples:\n  penstock audit search --decision deny --since 2h\n  \
                      penstock audit search plc-7 --since 2026-11-28\n  \
                      penstock audit search --kind policy --source gw-works-a --output json"
    )]
    Search {
        /// What to look for.
        #[command(flatten)]
        filter: AuditFilter,
        /// Until when: RFC 3339 with its offset, a day (all of it), or a span back from now.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Oldest first; default: the newest first.
        #[arg(long)]
        oldest_first: bool,
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
    /// Only verdicts with this decision.
    #[arg(long, value_enum)]
    pub decision: Option<DecisionArg>,
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
