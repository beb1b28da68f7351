//! `penstock requests`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `penstock requests`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  penstock requests\n  penstock requests confirm 3f9a1c2d my-plant/\n  \
                  penstock requests reject 3f9a1c2d --reason \"nobody ordered a gateway\""
)]
pub struct Requests {
    /// Without one: list them.
    #[command(subcommand)]
    pub command: Option<RequestsCommand>,
}

/// `penstock requests …`.
#[derive(Debug, Subcommand)]
pub enum RequestsCommand {
    /// What waits for a second person, and what was decided and not fetched
    List,
    /// One request, with all that is to be known before it is confirmed
    Show {
        /// The request.
        id: String,
    },
    /// Confirm what another person asked for: an admin or an approver does, with a login of their own
    ///
    /// Shows what it is and asks. Whoever asked for it gets it by typing the same command again.
    Confirm {
        /// The request.
        id: String,
        /// Your own copy of the plant document, for a gateway's token: refused unless its approvers are those in the request.
        plant: Option<PathBuf>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Reject a request, or take your own back
    Reject {
        /// The request.
        id: String,
        /// Why, for the trail and for whoever asked.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}
