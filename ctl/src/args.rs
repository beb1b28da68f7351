//! The command line: what was typed, before anything is looked up.
//!
//! Offline commands stand here; the others ([`online`]) need a context, which `penstock login` makes. The same word
//! means the same thing everywhere (DESIGN: one word for one thing).

mod alarms;
mod audit;
mod devices;
mod early;
mod key;
mod login;
mod names;
mod online;
mod overrides;
mod release;
mod requests;
mod rollout;
mod traffic;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use jiff::tz::TimeZone;
use penstock_policy::model::PublicKey;

pub use self::alarms::{Alarms, AlarmsCommand, WhichAlarm};
pub use self::audit::{AspectArg, Audit, AuditFilter, ClockArg, DecisionArg, OrderArg, PerArg, SeverityArg};
pub use self::devices::Devices;
pub use self::early::{Early, parse};
pub use self::key::Key;
pub use self::login::{Login, SignIn};
pub use self::online::*;
pub use self::overrides::Override;
pub use self::release::{EndRelease, Release};
pub use self::requests::{Requests, RequestsCommand};
pub use self::rollout::{Because, Rollout, SteerRollout, StopRollout};
pub use self::traffic::{Learn, Replay};
use crate::{exit, times};

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
    /// Which login to use, as `penstock context list` names it; default: the chosen one.
    #[arg(long, global = true, value_name = "NAME", env = "PENSTOCK_CONTEXT")]
    pub context: Option<String>,
    /// Say on standard error what else is done, such as a login's certificate that is renewed.
    #[arg(long, short = 'v', global = true)]
    pub verbose: bool,
    /// The time zone of times, such as Europe/Berlin; default: that of the plant's sites, if it is one, else UTC.
    #[arg(long, global = true, value_name = "ZONE", env = "PENSTOCK_TIME_ZONE", value_parser = times::zone_named)]
    pub time_zone: Option<TimeZone>,
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
    /// Write a small commented plant document to start from, with keys of its approvers for trying out
    #[command(after_help = "Example:\n  penstock init waterworks && penstock check waterworks")]
    Init(Init),
    /// Check a plant document: all its faults at once, and whether its plans are safe to live with
    #[command(
        after_help = "Examples:\n  penstock check plant.yaml\n  penstock check plant/ --strict --output json\n  \
                      penstock check plant/ --report sarif > plant.sarif"
    )]
    Check(Check),
    /// Lay out the files of a plant document: indentation, spaces and blank lines; comments and meaning stay
    #[command(
        after_help = "Examples:\n  penstock fmt plant/\n  penstock fmt plant/ --check      for a hook: ends with 1 if a file differs\n  \
                      penstock fmt - < plant.yaml"
    )]
    Fmt(Fmt),
    /// Print a plant document with its templates filled in and its groups written out, as if by hand
    #[command(
        after_help = "Examples:\n  penstock expand plant/ -o whole.yaml\n  penstock expand plant/ --station ps-017"
    )]
    Expand(Expand),
    /// Print the JSON Schema of the plant document, or of a command's JSON output
    #[command(
        after_help = "Examples:\n  penstock schema > plant.schema.json\n  penstock schema --part > part.schema.json\n  penstock schema check"
    )]
    Schema(Schema),
    /// Say whether a connection would pass, by which rule, or what came closest; or what a code means
    #[command(
        after_help = "Examples:\n  penstock explain plant/ --from hmi-1 --to plc-7 --service tcp/502\n  \
                      penstock explain plant/ --from 10.1.0.9 --to plc-7 --service modbus-tcp --gateway gw-works-a\n  \
                      penstock explain PS0123\n  penstock explain flows.tls"
    )]
    Explain(Explain),
    /// Say in words what changes for whom between two plant documents, and what follows from it
    #[command(
        after_help = "Examples:\n  penstock diff old/ new/\n  penstock diff plant/ --against HEAD~1      what changed since that revision of git\n  \
                      penstock diff plant/ --against-current      against what the coordinator enforces now"
    )]
    Diff(Diff),
    /// Say by which paths of conduits, and with which operations at most, one zone can act on another
    #[command(
        after_help = "Examples:\n  penstock reach plant/ --from office --to safety\n  \
                      penstock reach plant/ --to safety --paths 100     more than the shortest ones"
    )]
    Reach(Reach),
    /// Draw zones and conduits as an SVG picture
    ///
    /// A plant that fits on a sheet (40 zones, 80 conduits) is drawn whole; a larger one as an overview of its sites, in which equal sites share a
    /// card. The picture says what it leaves out. Red and amber are only for what is not as it should be.
    #[command(
        after_help = "Examples:\n  penstock graph plant/ -o plant.svg\n  penstock graph plant/ --site ps-017 -o ps-017.svg\n  \
                      penstock graph plant/ --zone control -o control.svg      a zone and its neighbours"
    )]
    Graph(Graph),
    /// Say what a plant would have done with recorded traffic, per connection and per operation
    ///
    /// UDP is reported per client, server and port: its conversations are parted by silence (30 s, or 120 s once both ends have
    /// talked on), as a gateway's connection tracking parts them, and opened by the sender of the first datagram. Of what stood before the
    /// recording began, the plant and the ports tell who opened it; where they do not, that is a guess and marked as one.
    ///
    /// Ends with 1 if anything would have been refused or ended, and if anything could not be judged: that is said first, with its share.
    #[command(after_help = "Examples:\n  penstock replay --pcap monday.pcapng plant/\n  \
                      penstock replay --pcap a.pcap --pcap b.pcap plant.yaml --output json")]
    Replay(Replay),
    /// Propose the smallest conduits that let seen traffic pass, as a plant document
    ///
    /// From capture files, or from what the gateways of observing zones learned and counted.
    #[command(
        after_help = "Examples:\n  penstock learn --pcap monday.pcapng --plant plant/ -o plant/learned.yaml\n  \
                      penstock learn --from-gateways --since 14d --plant plant/ -o plant/learned.yaml\n  \
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
    /// Carry an approved release to its gateways, step by step, and stop that at any time
    #[command(subcommand)]
    Rollout(Rollout),
    /// Override a gateway in front of it for a while (break-glass): seal a code, read a request, sign it
    #[command(subcommand)]
    Override(Override),
    /// Enrol this machine's user with a coordinator by a single-use token, or through the plant's identity provider
    #[command(
        after_help = "Examples:\n  penstock login --token operator.token\n  penstock login --oidc\n  \
                      penstock login --oidc --plant works --coordinator 10.0.0.5:7643 --root sha256:..."
    )]
    Login(Login),
    /// Say who the coordinator thinks you are
    Whoami,
    /// List and choose logins
    #[command(subcommand)]
    Context(Context),
    /// List gateways, and make tokens to enrol them
    Gateways(Gateways),
    /// Issue certificates to devices and brokers that hold a key of their own
    #[command(subcommand)]
    Devices(Devices),
    /// List and add operators of the coordinator
    #[command(subcommand)]
    Operators(Operators),
    /// See, confirm and reject what one admin alone may not do
    ///
    /// A token for a gateway, an admin or an approver, and a device's certificate for a new key, wait for a second person as soon as there is
    /// another admin or approver.
    Requests(Requests),
    /// Say how well each zone is guarded, and why
    #[command(after_help = "Examples:\n  penstock health\n  penstock health --watch\n  \
                      penstock health --severity degraded --gateway gw-works-a")]
    Health(Health),
    /// Say what needs somebody on shift now, and that you saw it
    ///
    /// One alarm for each zone and cause. Ends with 1 if any asks for somebody. Acknowledging and shelving change nothing that is enforced.
    Alarms(Alarms),
    /// Say what was refused lately to or by an asset, whom to ask, and the smallest flow that would permit it
    ///
    /// By the release in force then, worst first. Ends with 1 if anything was refused.
    #[command(
        after_help = "Examples:\n  penstock why plc-7\n  penstock why 10.20.4.7 --since 2h --output json"
    )]
    Why(Why),
    /// Say what would stop if a zone that observes were enforced, what to declare, and when it was quiet for long enough
    ///
    /// By what the gateways saw and the current release. Nothing is changed. Ends with 1 if the zone is not ready.
    #[command(
        after_help = "Examples:\n  penstock adopt filtration\n  penstock adopt filtration --since 60d --quiet-days 30 --output json"
    )]
    Adopt(Adopt),
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
    /// Python environment with pymodbus; default: beside the programs.
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
    /// The folder to write into; created if it does not exist.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// The plant's name; default: the folder's.
    #[arg(long)]
    pub plant: Option<String>,
    /// Name of an approver, whose key is made for trying out; repeat for several.
    #[arg(long, default_values = ["approver-1", "approver-2"])]
    pub approver: Vec<String>,
}

/// `penstock check`.
#[derive(Debug, Args)]
pub struct Check {
    /// A plant document: a YAML file, a folder of them, or `-` for standard input.
    pub path: PathBuf,
    /// Fail on warnings too.
    #[arg(long)]
    pub strict: bool,
    /// Check again whenever a file changes, until an interrupt.
    #[arg(long)]
    pub watch: bool,
    /// Print what was found for other programs, which show it at its line: SARIF 2.1.0, or GitHub's workflow commands.
    #[arg(long, value_enum, value_name = "FORM")]
    pub report: Option<CheckReport>,
}

/// A form in which other programs read what `check` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckReport {
    /// SARIF 2.1.0, for code scanning and editors.
    Sarif,
    /// Annotations of a GitHub workflow.
    Github,
}

/// `penstock fmt`.
#[derive(Debug, Args)]
pub struct Fmt {
    /// A plant document: a YAML file, a folder of them, or `-` for standard input, which is written to standard output.
    pub path: PathBuf,
    /// Write nothing; end with 1 if a file would be laid out differently.
    #[arg(long)]
    pub check: bool,
}

/// `penstock expand`.
#[derive(Debug, Args)]
pub struct Expand {
    /// A plant document.
    pub path: PathBuf,
    /// Only what this station came to.
    #[arg(long, value_name = "NAME")]
    pub station: Option<String>,
    /// The file to write; default: standard output.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `penstock schema`.
#[derive(Debug, Args)]
pub struct Schema {
    /// A command, for the schema of its JSON output; default: the plant document's.
    pub command: Option<String>,
    /// Of the plant document: for one of several files, in which no section has to be.
    #[arg(long, conflicts_with = "command")]
    pub part: bool,
}

/// `penstock explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// A plant document, the code of a diagnostic (PS0123) or finding (PC0101), or a key of the document (`behind`, `flows.tls`).
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
    /// One operation inside the protocol: "write-single-register 40 unit 1", "publish line4/a/temperature qos 1 retain".
    #[arg(long)]
    pub operation: Option<String>,
    /// Only this gateway; default: all that stand between the two.
    #[arg(long)]
    pub gateway: Option<String>,
    /// When it is opened (default: now); a conduit that grants of remote access open is closed at all other times.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// How much recorded traffic is judged by a release.
#[derive(Debug, Args)]
pub struct RecordedSpan {
    /// Since when traffic that passed is judged again by the release, to show what it would refuse (default: 7d; 0: not at all).
    #[arg(id = "recorded", long = "recorded", value_name = "TIME")]
    pub since: Option<String>,
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
    /// Since when traffic that passed is judged again by the newer document, to show what it would refuse (default: 7d; 0: not at
    /// all).
    #[arg(long, value_name = "TIME", requires = "against_current", conflicts_with_all = ["new", "against"])]
    pub recorded: Option<String>,
    /// End with 1 if anything may pass that did not pass before.
    #[arg(long)]
    pub fail_on_widened: bool,
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
    /// At most this many paths for each pair of zones, shortest first; beyond that, one for each zone from which the target is entered.
    #[arg(long, value_name = "NUMBER", default_value = "16")]
    pub paths: NonZeroUsize,
}

/// `penstock graph`.
#[derive(Debug, Args)]
pub struct Graph {
    /// A plant document.
    pub path: PathBuf,
    /// One site: its zones, and what its conduits lead to.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["zone", "overview", "all"])]
    pub site: Option<String>,
    /// One zone, and those that conduits join with it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["overview", "all"])]
    pub zone: Option<String>,
    /// The overview, also of a plant that fits on a sheet.
    #[arg(long, conflicts_with = "all")]
    pub overview: bool,
    /// Every zone and every conduit on one sheet, however many there are.
    #[arg(long)]
    pub all: bool,
    /// Where to write; default: standard output.
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
    /// Where to write; default: standard output.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// How a key that a passphrase locks is opened.
#[derive(Debug, Clone, Args)]
pub struct Unlock {
    /// The file whose first line is the key's passphrase, `-` for standard input; default: asked at the terminal.
    #[arg(long, value_name = "FILE", env = "PENSTOCK_PASSPHRASE_FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// A public key in any of its forms.
fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::try_from(text.to_owned())
        .map_err(|error| format!("{error}; `penstock key new FILE` makes a key and shows it"))
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
}
