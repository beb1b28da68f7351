//! Which MAC address was seen behind which address, as a running agent leaves it for `penstock-agent status` and for the next agent.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use penstock_policy::terms::Mac;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::durable::{self, FileError};

/// The folder, below the agent's state.
pub const FOLDER: &str = "bindings";
const FILE: &str = "state.json";
/// Of as many as are kept, each with long names.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Lines that people are shown; programs get all.
const SHOWN_MAX: usize = 32;
/// For whoever may see the agent's status.
const MODE: u32 = 0o640;

/// An address, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The address.
    pub address: IpAddr,
    /// The asset that has it by the plan; none: the plan names none.
    pub asset: Option<String>,
    /// The MAC address behind it.
    pub mac: Mac,
    /// The interface at which it was seen.
    pub interface: String,
    /// The MAC address that the document says it has, where the plan holds it to one.
    pub declared: Option<Mac>,
    /// When it was first seen behind this MAC address at this interface, milliseconds since 1970.
    pub first_ms: u64,
    /// When it was last seen there.
    pub last_ms: u64,
    /// How often the MAC address or the interface changed.
    pub changes: u64,
    /// The MAC address before.
    pub previous: Option<Mac>,
    /// When the trail was last given it.
    #[serde(default)]
    pub told_ms: u64,
}

impl Binding {
    /// Whether a person should look at it.
    pub fn is_odd(&self) -> bool {
        self.declared.is_some_and(|declared| declared != self.mac) || self.changes > 0
    }
}

/// `10.1.0.7 (plc-1) 00:1d:9c:00:47:07 at eth1, since …, last seen …`.
impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(asset) = &self.asset {
            write!(f, " ({asset})")?;
        }
        write!(
            f,
            " {} at {}, since {}, last seen {}",
            self.mac,
            self.interface,
            clock::utc(self.first_ms),
            clock::utc(self.last_ms)
        )?;
        match self.declared {
            Some(declared) if declared != self.mac => write!(f, "; the document says {declared}")?,
            Some(_) => write!(f, "; as the document says")?,
            None => {}
        }
        match (self.changes, self.previous) {
            (0, _) => Ok(()),
            (changes, Some(previous)) => write!(f, "; changed {changes} times, {previous} before"),
            (changes, None) => write!(f, "; changed {changes} times"),
        }
    }
}

/// For people, a line each: those first of which something changed, and of assets before others.
///
/// # Errors
/// What they are written to takes nothing.
pub fn list(bindings: &[Binding], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut all: Vec<&Binding> = bindings.iter().collect();
    all.sort_by_key(|binding| !binding.is_odd());
    for binding in all.iter().take(SHOWN_MAX) {
        writeln!(f, "mac          {binding}")?;
    }
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => writeln!(
            f,
            "             {more} more: `penstock-agent status --json` has all"
        ),
    }
}

/// Leaves them below `folder`; without any, only where some were left before.
///
/// # Errors
/// The folder or the file cannot be written.
pub(super) fn write(folder: &Path, bindings: &[Binding]) -> Result<(), FileError> {
    let path = folder.join(FILE);
    if bindings.is_empty() && !path.exists() {
        return Ok(());
    }
    let text = serde_json::to_vec(bindings).unwrap_or_default();
    durable::create_folder(folder)?;
    durable::show(&path, &text, MODE)
}

/// As an agent last left them below `folder`.
pub fn read(folder: &Path) -> Vec<Binding> {
    durable::read(&folder.join(FILE), BYTES_MAX)
        .ok()
        .flatten()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}
