//! `penstock override`: what people do away from a gateway for an override of it.

use std::path::PathBuf;

use clap::Subcommand;

use super::Unlock;

/// `penstock override`.
#[derive(Debug, Subcommand)]
pub enum Override {
    /// Make a one-time code for the envelope beside a gateway, and the line of its digest for the document
    ///
    /// The code is shown once and stored nowhere. Copy it onto paper, seal it, and put the line under `break_glass`, `sealed`.
    #[command(after_help = "Example:\n  penstock override seal --plant plant/ --gateway gw-works-a")]
    Seal {
        /// The plant document.
        #[arg(long, value_name = "PATH")]
        plant: PathBuf,
        /// The gateway that the code is to open.
        #[arg(long)]
        gateway: String,
    },
    /// Say in words what a request for an override asks, for how long and why, and who has signed it
    #[command(after_help = "Examples:\n  penstock override show gw-works-a.override\n  \
                      penstock override show gw-works-a.override --documents plant/      and whether that is enough")]
    Show {
        /// The request, as `penstock-agent override request` wrote it.
        file: PathBuf,
        /// The documents of the release in force there, to judge by them who may. Ends with 1 if it is not enough.
        #[arg(long, value_name = "PATH")]
        documents: Option<PathBuf>,
    },
    /// Sign a request for an override, as one of the two people that it takes
    #[command(
        after_help = "Example:\n  penstock override sign gw-works-a.override --key k.lang.key --as k.lang"
    )]
    Sign {
        /// The request.
        file: PathBuf,
        /// Your key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The key's passphrase.
        #[command(flatten)]
        unlock: Unlock,
        /// Your name under `break_glass`.
        #[arg(long = "as", value_name = "NAME")]
        person: String,
        /// The documents of the release in force there: nothing is signed that they do not let you.
        #[arg(long, value_name = "PATH")]
        documents: Option<PathBuf>,
        /// Where the signed request goes, never overwritten; default: into the request itself.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}
