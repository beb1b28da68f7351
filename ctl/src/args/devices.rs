//! `penstock devices`: certificates of devices that hold a key of their own.

use std::path::PathBuf;

use clap::Subcommand;
use penstock_policy::ids::{Digest, RoleName};

use super::online::Grounds;

/// `penstock devices`.
#[derive(Debug, Subcommand)]
pub enum Devices {
    /// Issue a certificate to a device, for the key in its request or for a key that is made here
    ///
    /// It says `device/<asset>`, and carries the asset's addresses: all of it comes from the current release, nothing
    /// from the request. To renew it, issue it again. For another key than it had, or another role, a second person confirms it, as soon as
    /// there is one; then the same command, typed again, writes the certificate.
    #[command(
        after_help = "Examples:\n  penstock devices issue broker --request broker.csr --out broker.pem\n  \
                      penstock devices issue plc-7 --new-key plc-7.key --out plc-7.pem      if the device cannot make a key\n  \
                      penstock devices issue hmi-1 --request hmi-1.csr --role operator --out hmi-1.pem"
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
        /// The role that the certificate gives it (Modbus/TCP Security): what it may do where a flow tells roles apart. Never
        /// the request's; default: as it is.
        #[arg(long, value_name = "NAME", conflicts_with = "no_role", value_parser = role_name)]
        role: Option<RoleName>,
        /// Give it no role any longer.
        #[arg(long)]
        no_role: bool,
        /// Where the certificate goes, PEM; never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// Wait until a second person has confirmed it, where one has to (penstock requests).
        #[arg(long)]
        wait: bool,
    },
    /// Make a single-use token with which a device gets its certificate by itself (EST)
    ///
    /// The device logs in with the asset's name and with what is in the file, at a coordinator that listens for devices or at a gateway.
    /// It gets its certificate as soon as a release that names the asset is approved.
    #[command(
        after_help = "Examples:\n  penstock devices token plc-7 -o plc-7.password\n  \
                      penstock devices token plc-7 --key sha256:… -o plc-7.password      for this key alone"
    )]
    Token {
        /// The asset, as the plant document names it.
        asset: String,
        /// SHA-256 of the only public key that it serves; default: the first that comes.
        #[arg(long, value_name = "DIGEST", value_parser = key_digest)]
        key: Option<Digest>,
        /// The role that the certificate gives it (Modbus/TCP Security): what it may do where a flow tells roles apart. Never
        /// the request's; default: as it is.
        #[arg(long, value_name = "NAME", conflicts_with = "no_role", value_parser = role_name)]
        role: Option<RoleName>,
        /// Give it no role any longer.
        #[arg(long)]
        no_role: bool,
        /// Where the password goes (readable only by you); never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// How many hours it may be used.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
        hours: u32,
        /// Wait until a second person has confirmed it, where one has to (penstock requests).
        #[arg(long)]
        wait: bool,
    },
    /// Devices that got a certificate, and which key of each counts
    List,
    /// Withdraw the key of a device: it was stolen, or may have been copied
    ///
    /// Each gateway refuses it as soon as it has the list, and ends what it has open through TLS that ends there. Other traffic of the
    /// device is not concerned. A certificate for a new key brings it back.
    #[command(
        after_help = "Examples:\n  penstock devices revoke plc-7 --reason \"its key was copied\" --ticket INC-7\n  \
                      penstock devices revoke plc-7 --earlier --reason \"the new key is in place\""
    )]
    Revoke {
        /// The asset, as the plant document names it.
        asset: String,
        /// Only keys before the one that it has now: gateways accept these until then, so that a new certificate can be carried there.
        #[arg(long)]
        earlier: bool,
        /// Why.
        #[command(flatten)]
        because: Grounds,
    },
    /// Print the certificate of the plant's authority, PEM: what devices and brokers have to trust
    ///
    /// It comes from your login, which pinned it, not from the network.
    #[command(after_help = "Example:\n  penstock devices authority > ca.pem")]
    Authority,
}

/// The digest of a public key, as it is typed.
fn key_digest(text: &str) -> Result<Digest, String> {
    Digest::try_from(text.to_owned()).map_err(|error| {
        format!("{error}; the digest of a request's key: see the runbook, \"A device enrols by itself\"")
    })
}

/// A role as it is typed.
fn role_name(text: &str) -> Result<RoleName, String> {
    RoleName::new(text).map_err(|error| error.to_string())
}
