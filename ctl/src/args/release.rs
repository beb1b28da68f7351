//! `penstock release`: what is said of a release at the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
        /// The approver's key; it stays on this machine. Of an OpenSSH key in hardware or in an agent, `ssh-keygen` signs.
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
        /// A signed release from `release sign`, or a signature over the statement by `ssh-keygen -Y sign -n penstock-release`, which is
        /// brought instead of made here.
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
