//! `penstock learn` and `penstock replay`: recorded traffic.

use std::path::PathBuf;

use clap::Args;
use penstock_policy::model::PublicKey;

use super::public_key;

/// `penstock replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// A recording: pcap or pcapng, also compressed by gzip or zstd, a pattern (`'day-*.pcap'`), or `-` for standard input; repeat for
    /// several, in any order.
    #[arg(long, value_name = "FILE")]
    pub pcap: Vec<PathBuf>,
    /// Judge what comes with VLAN tags or other labels as if it came without: for recordings whose mirror port adds them.
    #[arg(long)]
    pub ignore_tags: bool,
    /// List only what would have been refused, withheld or ended; JSON has always all of it.
    #[arg(long, conflicts_with = "summary")]
    pub refused: bool,
    /// List no connections, only the sums and what is to be known of the recording; JSON has always all of it.
    #[arg(long)]
    pub summary: bool,
    /// A plant document, which ends in `.yaml` or is a folder, and further recordings.
    #[arg(required = true, value_name = "PLANT")]
    pub paths: Vec<PathBuf>,
}

/// `penstock learn`.
#[derive(Debug, Args)]
pub struct Learn {
    /// A recording: pcap or pcapng, also compressed by gzip or zstd, a pattern (`'day-*.pcap'`), or `-` for standard input; repeat for
    /// several, in any order.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["from_gateways", "recordings"])]
    pub pcap: Vec<PathBuf>,
    /// Further recordings.
    #[arg(value_name = "RECORDING", conflicts_with = "from_gateways")]
    pub recordings: Vec<PathBuf>,
    /// Propose frames as if they came without their VLAN tags or other labels: for recordings whose mirror port adds them.
    #[arg(long, conflicts_with = "from_gateways")]
    pub ignore_tags: bool,
    /// From the audit trail: what gateways learned in observing zones, and counted by their verdicts.
    #[arg(long, conflicts_with = "pcap")]
    pub from_gateways: bool,
    /// Since when: RFC 3339 with its offset, a day, or a span back from now (14d); default: since the trail began.
    #[arg(long, value_name = "TIME", requires = "from_gateways")]
    pub since: Option<String>,
    /// Until when: RFC 3339 with its offset, a day (all of it), or a span back from now.
    #[arg(long, value_name = "TIME", requires = "from_gateways")]
    pub until: Option<String>,
    /// Only from this gateway; repeat for several.
    #[arg(long, value_name = "GATEWAY", requires = "from_gateways")]
    pub gateway: Vec<String>,
    /// A plant document that the proposal is to stand beside; what it permits is left out.
    #[arg(long, value_name = "PLANT")]
    pub plant: Option<PathBuf>,
    /// The public key of the first approver, for a whole document.
    #[arg(long, value_name = "KEY", conflicts_with = "plant", value_parser = public_key)]
    pub approver: Option<PublicKey>,
    /// Where to write; default: standard output.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}
