//! The command line of `penstock rollout`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use penstock_policy::model::PublicKey;

use super::names::revision;
use super::public_key;

/// Why somebody does something to a rollout.
#[derive(Debug, Clone, Args)]
pub struct Because {
    /// Why, in a sentence: it stands in the trail and in the change-control record.
    #[arg(long)]
    pub reason: String,
    /// Where the change was agreed.
    #[arg(long)]
    pub ticket: Option<String>,
}

/// `penstock rollout pause | halt`: what only stops asks no question.
#[derive(Debug, Clone, Args)]
pub struct StopRollout {
    /// The release; default: that of the newest rollout.
    #[arg(value_parser = revision)]
    pub revision: Option<u64>,
    /// Why.
    #[command(flatten)]
    pub because: Because,
}

/// `penstock rollout resume | revert | cancel | pass | complete`.
#[derive(Debug, Clone, Args)]
pub struct SteerRollout {
    /// The release; default: that of the newest rollout.
    #[arg(value_parser = revision)]
    pub revision: Option<u64>,
    /// Why.
    #[command(flatten)]
    pub because: Because,
    /// Do not ask; the release has to be named.
    #[arg(long, short, requires = "revision")]
    pub yes: bool,
}

/// `penstock rollout`.
#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Write the default plan for a release's gateways, with the reasons for its values and whom each wave chooses
    #[command(
        after_help = "Examples:\n  penstock rollout plan --from my-plant > r4.rollout.yaml\n  \
                      penstock rollout plan --revision 4 -o r4.rollout.yaml"
    )]
    Plan {
        /// For the gateways of this plant document.
        #[arg(
            long,
            value_name = "DOCUMENT",
            required_unless_present = "revision",
            conflicts_with = "revision"
        )]
        from: Option<PathBuf>,
        /// For the gateways of this release.
        #[arg(long, value_name = "REVISION", value_parser = revision)]
        revision: Option<u64>,
        /// What percentages are drawn with; default: from the digest of the documents.
        #[arg(long)]
        seed: Option<u64>,
        /// Where to write; default: standard output.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Judge a rollout plan, and show whom each wave chooses
    ///
    /// Without a document or a release, only what the plan says by itself is judged. Ends with 1 if the plan cannot be carried out.
    #[command(
        after_help = "Examples:\n  penstock rollout check r4.rollout.yaml my-plant\n  \
                      penstock rollout check r4.rollout.yaml --revision 4"
    )]
    Check {
        /// The plan.
        plan: PathBuf,
        /// For the gateways of this plant document.
        #[arg(conflicts_with = "revision")]
        document: Option<PathBuf>,
        /// For the gateways of this release.
        #[arg(long, value_name = "REVISION", value_parser = revision)]
        revision: Option<u64>,
        /// Fail on warnings too.
        #[arg(long)]
        strict: bool,
    },
    /// Begin to carry an approved release to its gateways
    ///
    /// The release's documents are compiled again here, and the plan is judged for their gateways, before anything is sent.
    #[command(
        after_help = "Examples:\n  penstock rollout start 4 --reason 'Historian reads PLC 7' --ticket CHG-4711\n  \
                      penstock rollout start 4 --plan r4.rollout.yaml --reason 'Night shift informed'"
    )]
    Start {
        /// The release.
        #[arg(value_parser = revision)]
        revision: u64,
        /// The plan; default: as `rollout plan` writes it.
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// Why.
        #[command(flatten)]
        because: Because,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Follow a rollout until it is over: who waits for what, and who failed
    ///
    /// Redrawn in place on a terminal, a line for each change elsewhere; with --output json, one object for each change. Ends with 0 when
    /// all gateways enforce the release, with 1 when it is over in any other way.
    Watch {
        /// The release; default: that of the newest rollout.
        #[arg(value_parser = revision)]
        revision: Option<u64>,
    },
    /// Show how far a rollout is, who waits for what, who failed, and what was done by whom
    Show {
        /// The release; default: that of the newest rollout.
        #[arg(value_parser = revision)]
        revision: Option<u64>,
        /// Name each gateway.
        #[arg(long)]
        gateways: bool,
    },
    /// Rollouts, newest first
    List {
        /// At most this many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=50))]
        limit: u32,
    },
    /// Open nothing more, for now; what is on trial is still confirmed
    Pause(StopRollout),
    /// Open and confirm nothing more: what is on trial goes back by itself when its time is over
    Halt(StopRollout),
    /// Go on after a pause or a halt
    Resume(SteerRollout),
    /// Bring back what is on trial now, and open nothing more
    Revert(SteerRollout),
    /// End it before any gateway enforces the release
    Cancel(SteerRollout),
    /// Let the wave go on without those that are left of it
    Pass(SteerRollout),
    /// Let the wave go on without one gateway
    Skip {
        /// The gateway.
        gateway: String,
        /// The release; default: that of the newest rollout.
        #[arg(long, value_name = "REVISION", value_parser = revision)]
        revision: Option<u64>,
        /// Why.
        #[command(flatten)]
        because: Because,
        /// Do not ask; the release has to be named.
        #[arg(long, short, requires = "revision")]
        yes: bool,
    },
    /// Wait no longer for gateways that are absent; whoever comes back still gets the release
    Complete(SteerRollout),
    /// Stop the line: no gateway of the plant activates any release until somebody thaws it
    #[command(
        after_help = "Example:\n  penstock rollout freeze --reason 'Line 2 stopped, looking for the cause'"
    )]
    Freeze(Because),
    /// Lift a freeze
    Thaw {
        /// Why.
        #[command(flatten)]
        because: Because,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Write the change-control record of a rollout: one file that can be verified without a coordinator
    ///
    /// Baseline, authorisation, implementation, verification and new baseline (IEC 62443-2-1, NERC CIP-010). Sign it with your own key, so
    /// that nobody can alter it afterwards.
    #[command(
        after_help = "Examples:\n  penstock rollout record 4 --key ~/.config/penstock/j.meyer.key -o r4.record\n  \
                      penstock rollout verify r4.record --approvers plant-before/ --documents my-plant"
    )]
    Record {
        /// The release.
        #[arg(value_parser = revision)]
        revision: u64,
        /// Where the record goes; never overwritten. Default: standard output.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Your key; it stays on this machine. Without one the record is not signed.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The key's passphrase.
        #[command(flatten)]
        unlock: super::Unlock,
    },
    /// Verify a change-control record without a coordinator, and say what it proves and what it does not
    Verify {
        /// The record.
        file: PathBuf,
        /// The plant document whose approvers are to be believed: that of the baseline, from your own disk.
        #[arg(long, value_name = "PATH")]
        approvers: Option<PathBuf>,
        /// The documents of the release, to be compiled and compared.
        #[arg(long, value_name = "PATH")]
        documents: Option<PathBuf>,
        /// The public key of who made the record, where the plant document does not have it.
        #[arg(long, value_name = "KEY", value_parser = public_key)]
        maker: Option<PublicKey>,
    },
}
