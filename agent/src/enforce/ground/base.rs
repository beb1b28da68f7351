//! The base rules: between boot and the agent's first plan nothing is forwarded from or to a guarded interface, and only
//! the management's peers reach the gateway itself.
//!
//! The names of the guarded interfaces and the management's peers are kept in a file that every applied plan rewrites. At boot, before the network
//! comes up, the base rules are loaded for them (`penstock-agent base`). They take the place of the table's name, so
//! that a table which is there already, a living one above all, is left alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use penstock_policy::terms::GatewayMode;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::enforce::nft::names::{MARK_GUARDED, MARK_ROUTED, TABLE};
use crate::enforce::nft::readback::{RulesetReader, base_seal};
use crate::enforce::nft::render;
use crate::enforce::nft::run::{Nft, NftError};
use crate::enforce::shape::structure::{Input, is_interface_name};

/// The chain that accepts who manages the gateway.
const MANAGEMENT: &str = "management";

/// The permission bits of the file.
const MODE: u32 = 0o644;

/// What the base rules guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Routed or bridged.
    pub mode: GatewayMode,
    /// Names of the guarded interfaces.
    pub interfaces: BTreeSet<String>,
    /// Who may reach the gateway itself; `None` in a file of an agent that left it open at boot: then nobody does by a
    /// guarded interface, and who does by another is not known.
    #[serde(default)]
    pub input: Option<Input>,
}

/// What loading the base rules came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseOutcome {
    /// They are in the kernel.
    Denying,
    /// There were rules of ours already, which stay.
    LeftAlone,
}

/// Why there are no base rules.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The file that names the interfaces cannot be read, written or understood.
    #[error("cannot {verb} {path}")]
    File {
        /// The operation.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel did not take the rules.
    #[error("the base rules were not loaded")]
    Kernel(#[from] NftError),
}

impl Base {
    /// Reads what a plan left at `path`; `None` on a gateway that never had one.
    ///
    /// # Errors
    /// The file is there and cannot be read, is not what a plan writes, or names an interface that none can have.
    pub fn read(path: &Path) -> Result<Option<Self>, BaseError> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let base: Self =
                    serde_json::from_slice(&bytes).map_err(|e| file("understand", path, e.into()))?;
                let management = base.input.iter().filter_map(|input| input.interface.as_ref());
                let mut names = base.interfaces.iter().chain(management);
                match names.find(|name| !is_interface_name(name)) {
                    None => Ok(Some(base)),
                    Some(name) => Err(file(
                        "understand",
                        path,
                        std::io::Error::other(format!("interface `{name}`")),
                    )),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("read", path, error)),
        }
    }

    /// Writes it to `path`, whole or not at all.
    ///
    /// # Errors
    /// The new file cannot be written, synced or put in the old one's place; the old one then stays.
    pub fn write(&self, path: &Path) -> Result<(), BaseError> {
        if Self::read(path).is_ok_and(|there| there.as_ref() == Some(self)) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(self).map_err(|error| file("write", path, error.into()))?;
        durable::replace(path, &bytes, MODE).map_err(|error| file(error.verb, &error.path, error.source))
    }

    /// There is to be no file at `path`, and so no base rules at the next boot.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub fn remove(path: &Path) -> Result<(), BaseError> {
        let removed = match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => path
                .parent()
                .map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all()),
        };
        removed.map_err(|error| file("remove", path, error))
    }

    /// The script. It creates its tables, so it fails whole where one exists.
    pub fn script(&self) -> String {
        let names: Vec<String> = self.interfaces.iter().map(|name| format!("\"{name}\"")).collect();
        let names = names.join(", ");
        let mut script = format!("create table inet {TABLE}\n");
        if self.mode == GatewayMode::Bridged {
            script += &format!("create table bridge {TABLE}\n");
        }
        script += &self.own_input();
        if names.is_empty() {
            return script;
        }
        let ways = format!("iifname {{ {names} }} drop\noifname {{ {names} }} drop");
        script += &match self.mode {
            GatewayMode::Routed => format!(
                "table inet {TABLE} {{
                 chain forward {{
                 type filter hook forward priority filter; policy accept;
                 {ways}
                 }}
                 }}
                "
            ),
            // As in the agent's own tables, what is routed off or onto the bridge is told by its mark.
            GatewayMode::Bridged => format!(
                "table inet {TABLE} {{
                 chain forward {{
                 type filter hook forward priority filter; policy accept;
                 meta mark & {MARK_GUARDED:#x} != 0 drop
                 meta mark set meta mark | {MARK_ROUTED:#x}
                 }}
                 }}
                 table bridge {TABLE} {{
                 chain forward {{
                 type filter hook forward priority -200; policy accept;
                 {ways}
                 }}
                 chain own {{
                 type filter hook input priority -200; policy accept;
                 iifname {{ {names} }} meta mark set {MARK_GUARDED:#x}
                 }}
                 chain sent {{
                 type filter hook output priority -200; policy accept;
                 oifname {{ {names} }} meta mark & {MARK_ROUTED:#x} != 0 drop
                 }}
                 }}
                "
            ),
        };
        script
    }

    /// The guard of the gateway's own ports.
    fn own_input(&self) -> String {
        let guarded: Vec<String> = match self.mode {
            GatewayMode::Routed => {
                let drop = |name| format!("iifname \"{name}\" drop\n");
                self.interfaces.iter().map(drop).collect()
            }
            GatewayMode::Bridged => vec![format!("meta mark & {MARK_GUARDED:#x} != 0 drop\n")],
        };
        let rest = match &self.input {
            Some(input) => {
                let accept = format!("jump {MANAGEMENT}");
                let managed = render::from_management(input, &accept);
                format!("{managed}{}{}drop\n", guarded.concat(), render::LEASES)
            }
            None => guarded.concat(),
        };
        let peers = self.input.as_ref().map(render::peers).unwrap_or_default();
        format!(
            "table inet {TABLE} {{
             chain {MANAGEMENT} {{
             {peers}{leases}}}
             chain input {{
             type filter hook input priority filter; policy accept;
             {answers}{rest}}}
             }}
            ",
            leases = render::LEASES,
            answers = render::ANSWERS,
        )
    }

    /// Loads the base rules, unless rules of ours are there.
    ///
    /// # Errors
    /// `nft` cannot be run, did not end in time, or the kernel rejected the rules. Rules of ours that are there
    /// already are not an error.
    pub async fn load(&self, nft: &Nft) -> Result<BaseOutcome, BaseError> {
        match nft.load(&self.script()).await {
            Ok(()) => {
                Self::seal(nft).await?;
                Ok(BaseOutcome::Denying)
            }
            Err(NftError::Refused { exists: true, .. }) => Ok(BaseOutcome::LeftAlone),
            Err(error) => Err(error.into()),
        }
    }

    /// Marks the base rules as such, so that the agent knows them from what somebody else put into a table of that name.
    pub(in crate::enforce) async fn seal(nft: &Nft) -> Result<(), BaseError> {
        let held = tokio::task::spawn_blocking(|| RulesetReader::open().and_then(|reader| reader.held()));
        let described = match held.await.map_err(std::io::Error::other).flatten() {
            Ok(held) => held.structure,
            // They deny all the same; that they were here from the boot on will not be known.
            Err(error) => {
                tracing::warn!(%error, "the base rules cannot be read back");
                return Ok(());
            }
        };
        let script = format!(
            "add chain inet {TABLE} seal {{ comment \"{}\"; }}\n",
            base_seal(described)
        );
        Ok(nft.load(&script).await?)
    }
}

fn file(verb: &'static str, path: &Path, source: std::io::Error) -> BaseError {
    BaseError::File {
        verb,
        path: path.to_owned(),
        source,
    }
}
