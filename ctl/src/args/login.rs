//! `login`: by a token, through the identity provider, or again.

use std::path::PathBuf;

use clap::Args;

/// `penstock login`.
#[derive(Debug, Args)]
pub struct Login {
    /// The token's file; `-` for standard input.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["renew", "oidc"])]
    pub token: Option<PathBuf>,
    /// Renew the certificate of this login now, for the same key. By itself that happens in the last third of its life, with any
    /// command that asks a coordinator.
    #[arg(long, conflicts_with = "token")]
    pub renew: bool,
    /// Sign in through the plant's identity provider instead of with a token.
    #[command(flatten)]
    pub sign_in: SignIn,
}

/// `penstock login --oidc`.
#[derive(Debug, Args)]
pub struct SignIn {
    /// Sign in through the plant's identity provider, in the browser: to this login again, or, with --plant, for the first time. The first time
    /// an admin links the account with an operator (penstock operators accounts); then sign in once more.
    #[arg(long, conflicts_with_all = ["token", "renew"])]
    pub oidc: bool,
    /// For the first time: the plant.
    #[arg(long, value_name = "NAME", requires_all = ["oidc", "coordinator", "root"])]
    pub plant: Option<String>,
    /// Where the coordinators are; default: those of this login.
    #[arg(long, value_name = "HOST:PORT", requires = "oidc")]
    pub coordinator: Vec<String>,
    /// For the first time: the digest of the plant's root, which an admin tells (`penstock context list --output json`).
    #[arg(long, value_name = "DIGEST", requires = "plant")]
    pub root: Option<String>,
    /// Sign in by a code at another machine, where this one has no browser and the coordinator offers it.
    #[arg(long, requires = "oidc")]
    pub device: bool,
    /// Only show the address, and do not open a browser.
    #[arg(long, requires = "oidc", conflicts_with = "device")]
    pub no_browser: bool,
    /// Sign in with a new key, where the login's own was withdrawn. The one before then counts no longer.
    #[arg(long, requires = "oidc")]
    pub new_key: bool,
}
