//! Words about approvers' keys.

use std::path::PathBuf;

use clap::Subcommand;

use super::Unlock;

/// `penstock key`.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make an approver's key: the secret half into FILE (readable only by you), the public half to the terminal
    ///
    /// FILE is PKCS #8 PEM, which OpenSSL reads, too. At a terminal you are asked for a passphrase that locks it. A key that `ssh-keygen`
    /// made (`-t ed25519`, or `-t ed25519-sk` in hardware) is as good, and needs no other.
    #[command(after_help = "Example:\n  penstock key new ~/.config/penstock/j.meyer.key")]
    New {
        /// Where the secret half goes; never overwritten.
        file: PathBuf,
        /// The passphrase.
        #[command(flatten)]
        unlock: Unlock,
        /// Do not ask for a passphrase: whoever reads the file can sign.
        #[arg(long, conflicts_with = "passphrase_file")]
        no_passphrase: bool,
    },
    /// Show the public half of a key, as the plant document wants it
    Show {
        /// The key's file.
        file: PathBuf,
        /// The passphrase.
        #[command(flatten)]
        unlock: Unlock,
    },
    /// Lock a key with a new passphrase, or with none; the key stays the same
    #[command(after_help = "Example:\n  penstock key passphrase ~/.config/penstock/j.meyer.key")]
    Passphrase {
        /// The key's file.
        file: PathBuf,
        /// The old passphrase.
        #[command(flatten)]
        unlock: Unlock,
        /// The file whose first line is the new passphrase; default: asked at the terminal.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
        /// Take the passphrase away: whoever reads the file can sign.
        #[arg(long, conflicts_with = "new_passphrase_file")]
        no_passphrase: bool,
    },
}
