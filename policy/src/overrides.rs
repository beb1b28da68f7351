//! Overrides: what people in front of a gateway may change of what it enforces, for a while, when the approvers sleep and a device is
//! being replaced (break-glass; IEC 62443-2-1 CM 1.4, IEC 62443-3-3 SR 2.1 RE 3, NERC CIP-010).
//!
//! ```text
//! plan in force ─▶ request (what, how long, why; a number that is used once) ─▶ two people's signatures, or a sealed code
//!                                                                                     │
//!            plan as enforced ◀── overridden(plan, effects) ◀── journal, trail ◀── BreakGlass::permits
//! ```
//!
//! The signed plan says who may, for how long at most, and the digests of the codes that lie sealed in an envelope. An override has
//! few effects, each as small as the need that it serves. It adds no rule: it lets two ends be *observed* instead of refused, so that
//! what passes between them stays on record as what enforcing would refuse. It ends by itself; or when a release says the same
//! ([`Fit::Already`]), or leaves nothing to override ([`Fit::Nothing`]).
//!
//! Pure. What a gateway keeps of overrides is in its agent.

mod apply;
mod code;
mod permit;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::apply::{Fit, fit, overridden};
pub use self::code::{Code, NoCode};
pub use self::permit::{Authority, OverrideRefused, Signed, Warrant};
pub use crate::break_glass::{BreakGlass, LONGEST, PEOPLE_NEEDED, SHORTEST};
use crate::ids::{Digest, GatewayId, PlantId};
use crate::terms::Mac;
use crate::text::is_hidden;

/// The format that this code writes and reads.
pub const OVERRIDE_FORMAT: &str = "penstock-override/1";
/// The type of the payload that people sign.
pub const PAYLOAD_TYPE: &str = "application/vnd.penstock.override+json";
/// Longest request, bytes.
pub const BYTES_MAX: usize = 16 * 1024;
/// Most effects of one override.
pub const EFFECTS_MAX: usize = 16;
/// Longest reason, and longest ticket, bytes.
pub const TEXT_BYTES_MAX: usize = 400;

/// What an override changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Effect {
    /// Another device has this address now; on a bridged gateway, which knows devices by their MAC address.
    Device {
        /// The address.
        address: IpAddr,
        /// The MAC address of the device that has it now.
        mac: Mac,
    },
    /// What crosses between these two is reported where it would be refused, and passes; so does what either of them exchanges with
    /// whoever observes anyhow. On a bridged gateway their sides are then sides on which somebody observes (`docs/overrides.md`).
    Observe {
        /// One end: addresses of one side of the gateway.
        one: IpNet,
        /// The other: addresses of another side.
        other: IpNet,
    },
    /// The process is not asked before a change (`safe_to_change`), because what would answer is gone.
    Unasked,
}

impl Effect {
    fn has_host_bits(&self) -> bool {
        matches!(self, Self::Observe { one, other } if [one, other].into_iter().any(|end| *end != end.trunc()))
    }
}

/// Whether what these effects do together would depend on their order; they are sorted.
fn is_divided(effects: &[Effect]) -> bool {
    effects.windows(2).any(|pair| {
        matches!(pair, [Effect::Device { address: one, .. }, Effect::Device { address: next, .. }] if one == next)
    })
}

/// `192.0.2.10 is the device 02:00:00:00:00:01`, and so on: what is so while it lasts.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { address, mac } => write!(f, "{address} is the device {mac}"),
            Self::Observe { one, other } => {
                write!(f, "nothing is refused between {one} and {other}, only reported")
            }
            Self::Unasked => f.write_str("the process is not asked before a change"),
        }
    }
}

/// What is asked of one gateway, and signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Always [`OVERRIDE_FORMAT`].
    pub format: String,
    /// The plant.
    pub plant: PlantId,
    /// The gateway.
    pub gateway: GatewayId,
    /// The statement of the release in force when it was asked for: on another one, it would be another change.
    pub release: Digest,
    /// A random number that the gateway made, and takes once.
    pub number: Digest,
    /// How long it lasts, seconds.
    pub seconds: u32,
    /// Why.
    pub reason: String,
    /// What a change management calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// What it changes; sorted, none twice, at least one.
    pub effects: Vec<Effect>,
}

/// Why bytes are no override.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    /// Not JSON of its shape.
    #[error("the override cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// It says something that no override may, or not in its one form.
    #[error("the override is not well formed: {0}")]
    Malformed(&'static str),
}

impl Override {
    /// The exact bytes that are signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers have no way to fail; no bytes would be refused as unreadable.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads an override strictly; nobody's permission is judged here.
    ///
    /// # Errors
    /// The bytes are not an override, not its one form, or say what none may.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OverrideError> {
        if bytes.len() > BYTES_MAX {
            return Err(OverrideError::Malformed("it is longer than 16 KiB"));
        }
        let read: Self = serde_json::from_slice(bytes).map_err(OverrideError::Unreadable)?;
        let seconds = Duration::from_secs(read.seconds.into());
        let text = [Some(&read.reason), read.ticket.as_ref()];
        let is_text = |text: &String| {
            !text.trim().is_empty()
                && text.len() <= TEXT_BYTES_MAX
                && !text.chars().any(|c| c.is_control() || is_hidden(c))
        };
        let is_all_text = text.into_iter().flatten().all(is_text);
        let fault = if read.format != OVERRIDE_FORMAT {
            "its format is not `penstock-override/1`"
        } else if !(SHORTEST..=LONGEST).contains(&seconds) {
            "it lasts less than a minute or more than seven days"
        } else if !is_all_text {
            "its reason or ticket is empty, too long, or has characters that cannot be seen"
        } else if read.effects.is_empty() || read.effects.len() > EFFECTS_MAX {
            "it has no effect, or more than 16"
        } else if !read.effects.is_sorted_by(|one, next| one < next) {
            "its effects are not in order, or one stands there twice"
        } else if read.effects.iter().any(Effect::has_host_bits) {
            "it names a network with bits set beyond its prefix"
        } else if is_divided(&read.effects) {
            "two of its effects say what device has one address"
        } else if read.to_bytes() != bytes {
            "it is not in its one form"
        } else {
            return Ok(read);
        };
        Err(OverrideError::Malformed(fault))
    }
}
