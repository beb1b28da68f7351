//! The command line: what was typed, before anything is looked up.
//!
//! Offline commands first; the others need a context, which `penstock login` makes. The same word means the
//! same thing everywhere (DESIGN: one word for one thing).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use penstock_policy::model::PublicKey;

use crate::exit;

/// Zones and conduits as code, enforced at the edge, proved by evidence.
///
/// Works offline first: check, explain, diff, reach, graph, compile and signing need no coordinator.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, propagate_version = true, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// For people, or JSON for programs (`penstock schema COMMAND` describes it).
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, env = "PENSTOCK_OUTPUT")]
    pub output: Format,
    /// When to colour; NO_COLOR is respected.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// Which login to use, as `penstock context list` names it; the chosen one unless said.
    #[arg(long, global = true, value_name = "NAME", env = "PENSTOCK_CONTEXT")]
    pub context: Option<String>,
}

/// Who reads the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A person.
    Text,
    /// A program.
    Json,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a small commented plant document to start from, and a first approver's key
    #[command(after_help = "Example:\n  penstock init waterworks && penstock check waterworks")]
    Init(Init),
    /// Check a plant document: all its faults at once, and whether its plans are safe to live with
    #[command(
        after_help = "Examples:\n  penstock check plant.yaml\n  penstock check plant/ --strict --output json"
    )]
    Check(Check),
    /// Print the JSON Schema of the plant document, or of a command's JSON output
    #[command(after_help = "Examples:\n  penstock schema > plant.schema.json\n  penstock schema check")]
    Schema(Schema),
    /// Say whether a connection would pass, by which rule, or what came closest; or what a code means
    #[command(
        after_help = "Examples:\n  penstock explain plant/ --from hmi-1 --to plc-7 --service tcp/502\n  \
                      penstock explain plant/ --from 10.1.0.9 --to plc-7 --service modbus-tcp --gateway gw-works-a\n  \
                      penstock explain PS0123"
    )]
    Explain(Explain),
    /// Say in words what changes for whom between two plant documents
    #[command(
        after_help = "Examples:\n  penstock diff old/ new/\n  penstock diff plant/ --against HEAD~1      what changed since that revision of git\n  \
                      penstock diff plant/ --against-current      against what the coordinator enforces now"
    )]
    Diff(Diff),
    /// Say by which conduits, and with which operations at most, one zone can act on another
    #[command(after_help = "Example:\n  penstock reach plant/ --from office --to safety")]
    Reach(Reach),
    /// Draw zones and conduits as an SVG picture
    #[command(after_help = "Example:\n  penstock graph plant/ -o plant.svg")]
    Graph(Graph),
    /// Say what a plant would have done with recorded traffic, per connection and per operation
    ///
    /// Ends with 1 if anything would have been refused or ended, or if a capture could not be read to its end.
    #[command(after_help = "Examples:\n  penstock replay --pcap monday.pcapng plant/\n  \
                      penstock replay --pcap a.pcap --pcap b.pcap plant.yaml --output json")]
    Replay(Replay),
    /// Propose the smallest conduits that let recorded traffic pass, as a plant document
    #[command(
        after_help = "Examples:\n  penstock learn --pcap monday.pcapng --plant plant/ -o plant/learned.yaml\n  \
                      penstock learn --pcap monday.pcapng --approver ed25519:... -o learned.yaml"
    )]
    Learn(Learn),
    /// Compile what one gateway would have to enforce, as the exact bytes of its plan
    #[command(after_help = "Example:\n  penstock compile plant/ --gateway gw-works-a > plan.json")]
    Compile(Compile),
    /// Make and show approvers' keys
    #[command(subcommand)]
    Key(Key),
    /// Propose, approve, list and verify releases
    #[command(subcommand)]
    Release(Release),
    /// Enrol this machine's user with a coordinator by a single-use token
    #[command(after_help = "Example:\n  penstock login --token operator.token")]
    Login(Login),
    /// Say who the coordinator thinks you are
    Whoami,
    /// List and choose logins
    #[command(subcommand)]
    Context(Context),
    /// List gateways, and make tokens to enrol them
    Gateways(Gateways),
    /// List and add operators of the coordinator
    #[command(subcommand)]
    Operators(Operators),
    /// Say how well each zone is guarded, and why
    #[command(after_help = "Examples:\n  penstock health\n  penstock health --watch")]
    Health(Health),
    /// Search and follow the audit trail
    #[command(subcommand)]
    Audit(Audit),
    /// Run a whole plant on this machine, in network namespaces, and check every promise as it is shown
    #[command(
        after_help = "Examples:\n  penstock demo\n  penstock demo --keep      leave the plant running to play with"
    )]
    Demo(Demo),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  penstock completions bash > /etc/bash_completion.d/penstock")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// `penstock demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Leave the plant running afterwards, until an interrupt.
    #[arg(long)]
    pub keep: bool,
    /// Python environment with pymodbus; beside the programs unless said.
    #[arg(long, value_name = "DIR")]
    pub peers: Option<PathBuf>,
    /// Enter the demo that was kept running under this process number: a shell, or the command that follows.
    #[arg(long, value_name = "PID")]
    pub enter: Option<u32>,
    /// The command to run inside it.
    #[arg(last = true, requires = "enter")]
    pub command: Vec<String>,
}

/// `penstock init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The folder to write into; made if need be.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// The plant's name; the folder's unless said.
    #[arg(long)]
    pub plant: Option<String>,
    /// The first approver's name.
    #[arg(long, default_value = "approver-1")]
    pub approver: String,
}

/// `penstock check`.
#[derive(Debug, Args)]
pub struct Check {
    /// A plant document: a YAML file, or a folder of them.
    pub path: PathBuf,
    /// Fail on warnings too.
    #[arg(long)]
    pub strict: bool,
}

/// `penstock schema`.
#[derive(Debug, Args)]
pub struct Schema {
    /// A command, for the schema of its JSON output; the plant document unless said.
    pub command: Option<String>,
}

/// `penstock explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// A plant document, or the code of a diagnostic (PS0123).
    pub subject: String,
    /// Who opens the connection: an asset or an address.
    #[arg(long, value_name = "ASSET|ADDRESS")]
    pub from: Option<String>,
    /// To whom: an asset or an address.
    #[arg(long, value_name = "ASSET|ADDRESS")]
    pub to: Option<String>,
    /// What for: tcp/502, udp/47808, icmp-echo, or a service that the document knows by name.
    #[arg(long)]
    pub service: Option<String>,
    /// Only this gateway; all that stand between the two unless said.
    #[arg(long)]
    pub gateway: Option<String>,
}

/// `penstock diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The older document; with --against or --against-current: the newer one, and the only one.
    pub old: PathBuf,
    /// The newer document.
    #[arg(required_unless_present_any = ["against", "against_current"], conflicts_with_all = ["against", "against_current"])]
    pub new: Option<PathBuf>,
    /// Compare with this revision of git.
    #[arg(long, value_name = "REV")]
    pub against: Option<String>,
    /// Compare with the coordinator's current release.
    #[arg(long, conflicts_with = "against")]
    pub against_current: bool,
}

/// `penstock reach`.
#[derive(Debug, Args)]
pub struct Reach {
    /// A plant document.
    pub path: PathBuf,
    /// Only from this zone.
    #[arg(long, value_name = "ZONE")]
    pub from: Option<String>,
    /// Only to this zone.
    #[arg(long, value_name = "ZONE")]
    pub to: Option<String>,
}

/// `penstock graph`.
#[derive(Debug, Args)]
pub struct Graph {
    /// A plant document.
    pub path: PathBuf,
    /// Where to write; standard output unless said.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `penstock replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// A capture file, pcap or pcapng; repeat for several, in the order of time.
    #[arg(long, value_name = "FILE", required = true)]
    pub pcap: Vec<PathBuf>,
    /// A plant document.
    pub path: PathBuf,
}

/// `penstock learn`.
#[derive(Debug, Args)]
pub struct Learn {
    /// A capture file, pcap or pcapng; repeat for several, in the order of time.
    #[arg(long, value_name = "FILE", required = true)]
    pub pcap: Vec<PathBuf>,
    /// A plant document that the proposal is to stand beside; what it permits is left out.
    #[arg(long, value_name = "PLANT")]
    pub plant: Option<PathBuf>,
    /// The public key of the first approver, for a whole document.
    #[arg(long, value_name = "KEY", conflicts_with = "plant", value_parser = public_key)]
    pub approver: Option<PublicKey>,
    /// Where to write; standard output unless said.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `penstock compile`.
#[derive(Debug, Args)]
pub struct Compile {
    /// A plant document.
    pub path: PathBuf,
    /// The gateway.
    #[arg(long)]
    pub gateway: String,
    /// Where to write; standard output unless said.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `penstock key`.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make an approver's key: the secret half into FILE (readable only by you), the public half to the terminal
    #[command(after_help = "Example:\n  penstock key new ~/.config/penstock/j.meyer.key")]
    New {
        /// Where the secret half goes; never overwritten.
        file: PathBuf,
    },
    /// Show the public half of a key, as the plant document wants it
    Show {
        /// The key's file.
        file: PathBuf,
    },
}

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
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Compile a proposed release again here, show what it changes, and sign it with your key
    #[command(after_help = "Example:\n  penstock release approve 4 --key ~/.config/penstock/a.silva.key")]
    Approve {
        /// The revision.
        #[arg(value_parser = revision)]
        revision: u64,
        /// The approver's key; it stays on this machine.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Releases, newest first
    List {
        /// At most so many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// One release: what it says, who signed, how far it has come
    Show {
        /// The revision; the current one unless said.
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
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
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
        /// Where the gateway finds coordinators; those of this login unless said.
        #[arg(long, value_name = "HOST:PORT")]
        coordinator: Vec<String>,
    },
}

/// `penstock operators`.
#[derive(Debug, Subcommand)]
pub enum Operators {
    /// Operators and their roles
    List,
    /// Add an operator: make the single-use token with which they log in
    #[command(after_help = "Example:\n  penstock operators add a.silva --role approver -o a.silva.token")]
    Add {
        /// The operator's name. An approver's must be the one in the plant document.
        name: String,
        /// What they may do; each role includes those before it.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Where the token goes (readable only by you); never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// How many hours it may be used.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
        hours: u32,
        /// Where they find coordinators; those of this login unless said.
        #[arg(long, value_name = "HOST:PORT")]
        coordinator: Vec<String>,
    },
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Looks.
    Viewer,
    /// Proposes releases.
    Engineer,
    /// Signs releases.
    Approver,
    /// Adds gateways and operators.
    Admin,
}

/// `penstock health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Keep watching; redrawn in place on a terminal, a line for each change elsewhere.
    #[arg(long, short)]
    pub watch: bool,
}

/// `penstock audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Find records
    #[command(
        after_help = "Examples:\n  penstock audit search --decision deny --since 2h\n  \
                      penstock audit search --kind policy --source gw-works-a --output json"
    )]
    Search {
        /// What to look for.
        #[command(flatten)]
        filter: AuditFilter,
        /// Until when: RFC 3339, a date, or a span back from now.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Oldest first; the newest first unless said.
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
    /// Words within addresses, flow, reason or message.
    pub text: Option<String>,
    /// Only from this gateway, or `coordinator/<name>`.
    #[arg(long)]
    pub source: Option<String>,
    /// Only this kind; may be given several times.
    #[arg(long, value_enum)]
    pub kind: Vec<KindArg>,
    /// Only verdicts with this decision.
    #[arg(long, value_enum)]
    pub decision: Option<DecisionArg>,
    /// Only this severity and worse.
    #[arg(long, value_enum)]
    pub severity: Option<SeverityArg>,
    /// Since when: RFC 3339, a date, or a span back from now (2h).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

/// Kinds of audit events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum KindArg {
    Verdict,
    /// Operations inside inspected connections.
    Operation,
    Policy,
    Drift,
    Loss,
    Agent,
    Operator,
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

/// `ed25519:` and 64 hexadecimal digits.
fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::try_from(text.to_owned())
        .map_err(|error| format!("{error}; `penstock key new FILE` makes a key and shows it"))
}

/// `4` or `r4`.
fn revision(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('r').unwrap_or(text);
    match digits.parse() {
        Ok(0) | Err(_) => Err(format!(
            "`{text}` is no revision: write a number from 1, as `release list` shows it"
        )),
        Ok(n) => Ok(n),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed_and_every_command_says_what_it_does() {
        let command = Cli::command();
        command.clone().debug_assert();
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands() {
                assert!(sub.get_about().is_some(), "{} says nothing", sub.get_name());
                for argument in sub.get_arguments() {
                    assert!(
                        argument.get_help().is_some() || argument.is_global_set(),
                        "{}: {}",
                        sub.get_name(),
                        argument.get_id()
                    );
                }
                check(sub);
            }
        }
        check(&command);
    }

    #[test]
    fn a_revision_is_written_with_or_without_its_letter() {
        assert_eq!(revision("r4").unwrap(), 4);
        assert_eq!(revision("4").unwrap(), 4);
        assert!(revision("0").is_err() && revision("x").is_err());
    }
}
