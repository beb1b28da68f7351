//! A TPM 2.0 as the holder of this gateway's key: born in it, sealed to it, and useless on any other machine (IEC 62443-3-3 SR 1.9 RE 1).
//!
//! ```text
//! key      what signs (`KeyHolder`); its file is a key wrapped by the TPM
//! form     that file: "TSS2 PRIVATE KEY", which OpenSSL's providers read, too
//! watch    what is reported when it does not sign
//! device   one thread that talks to the TPM, and callers that wait for it no longer than their deadline
//! session  the commands that are needed, one after another
//! wire     their bytes (TCG TPM 2.0 Library, Parts 2 and 3), strictly checked
//! ```
//!
//! A TPM is slow (a tenth of a second for a signature), and it can be gone, hung, or cleared by whoever owns the machine. Nothing
//! here holds up enforcement: only the thread that asks for a signature waits, for at most [`device::SIGN_DEADLINE`]. After that, every request fails at
//! once for a while, and sessions that stand go on. The library of the TCG's software stack is not linked: the agent stays one static program, and
//! a dozen commands are all that it needs.
//!
//! Commands are authorised by an empty password and not by an HMAC session. Nothing secret crosses the bus: the private key never does, and
//! what is signed is public. Who is on the bus, or is root on the live gateway, can have the key used, and cannot take it away.

pub mod device;
mod form;
mod key;
mod session;
pub mod watch;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use penstock_proto::v1::KeyHeld;
use serde::{Deserialize, Serialize};

pub use self::device::Tpm;
pub use self::key::TpmKey;
pub use self::session::TpmError;

/// Where a TPM is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TpmAddress {
    /// The kernel's device, with its resource manager: `/dev/tpmrm0`, which keeps what different programs load apart.
    Device(PathBuf),
    /// The socket of swtpm, a TPM in software, for tests and virtual machines.
    Socket(PathBuf),
}

impl Default for TpmAddress {
    fn default() -> Self {
        Self::Device(PathBuf::from("/dev/tpmrm0"))
    }
}

/// What the address of a software TPM begins with.
const SOCKET: &str = "swtpm:";

/// A text that is not the address of a TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the absolute path of a TPM's device behind the kernel's resource manager, such as /dev/tpmrm0 (/dev/tpm0 is the one without it, which keeps what programs leave loaded), or swtpm: and the absolute path of a socket"
)]
pub struct NotATpm;

impl FromStr for TpmAddress {
    type Err = NotATpm;

    fn from_str(text: &str) -> Result<Self, NotATpm> {
        let (path, make): (&str, fn(PathBuf) -> Self) = match text.strip_prefix(SOCKET) {
            Some(path) => (path, Self::Socket),
            None => (text, Self::Device),
        };
        let path = PathBuf::from(path);
        let address = make(path);
        address.is_one().then_some(address).ok_or(NotATpm)
    }
}

impl TpmAddress {
    fn is_one(&self) -> bool {
        match self {
            Self::Device(path) => {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                let number = name.strip_prefix("tpmrm").unwrap_or_default();
                path.is_absolute() && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
            }
            Self::Socket(path) => path.is_absolute(),
        }
    }
}

impl fmt::Display for TpmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "{}", path.display()),
            Self::Socket(path) => write!(f, "{SOCKET}{}", path.display()),
        }
    }
}

/// Where a new key of this gateway is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPlace {
    /// In a file that only the agent's user may read.
    #[default]
    File,
    /// In the TPM.
    Tpm,
}

impl From<KeyPlace> for KeyHeld {
    fn from(place: KeyPlace) -> Self {
        match place {
            KeyPlace::File => Self::File,
            KeyPlace::Tpm => Self::Tpm,
        }
    }
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Tpm => "tpm",
        })
    }
}

#[cfg(test)]
mod tests;
