//! One type for every noun that has a name, so that a zone's name can never be passed for an asset's.
//!
//! A name is 1–63 characters of `a-z`, `0-9`, `.` and `-`, and begins and ends with a letter or digit. That
//! makes it safe as it stands in a file name, a URI path segment, a log prefix and a metric label.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("a name cannot be empty")]
    Empty,
    /// Longer than [`NAME_LENGTH_MAX`].
    #[error("a name has at most {NAME_LENGTH_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// A character outside `a-z 0-9 . -`, or `.`/`-` at an end.
    #[error("`{0}` is not a name: use a-z, 0-9, `.` and `-`, with a letter or digit at both ends")]
    Malformed(String),
}

/// The longest name, in characters: a DNS label.
pub const NAME_LENGTH_MAX: usize = 63;

/// Checks the form that all names share.
///
/// ```
/// use penstock_policy::ids::{ZoneId, check_name};
///
/// assert!(check_name("pump-hall").is_ok());
/// assert!(ZoneId::new("Pump Hall").is_err());
/// ```
///
/// # Errors
/// The text is empty, longer than [`NAME_LENGTH_MAX`] or holds other characters than a name may.
pub fn check_name(text: &str) -> Result<(), NameError> {
    let end_ok = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    match text.len() {
        0 => Err(NameError::Empty),
        n if n > NAME_LENGTH_MAX => Err(NameError::TooLong(n)),
        _ if text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-')
            && end_ok(text.chars().next())
            && end_ok(text.chars().next_back()) =>
        {
            Ok(())
        }
        _ => Err(NameError::Malformed(text.to_owned())),
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name, if `text` has the form of one.
            ///
            /// # Errors
            /// The text is not a name ([`check_name`]).
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check_name(&text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    )*};
}

names! {
    /// A plant: the trust domain of all identities and the scope of one document.
    PlantId;
    /// A place with its own clock and change windows.
    SiteId;
    /// An edge gateway that runs the agent.
    GatewayId;
    /// A zone (IEC 62443-3-2: grouping of assets with common security requirements).
    ZoneId;
    /// An asset inside a zone.
    AssetId;
    /// A conduit between two zones.
    ConduitId;
    /// A flow within a conduit; unique within it.
    FlowName;
    /// A person who may approve releases.
    ApproverId;
    /// A compensating control.
    ControlId;
    /// A remote-access grant.
    GrantId;
    /// An operator of the coordinator's API.
    OperatorId;
    /// A coordinator.
    CoordinatorId;
    /// A role that a device's certificate gives it (Modbus/TCP Security).
    RoleName;
}

/// A flow's number in the kernel (packet mark) and in events: stable for a `conduit/flow` across revisions.
///
/// 1 ..= [`FlowId::MAX`]; 0 means "no flow", and the four bits above are flags of the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FlowId(pub u32);

impl FlowId {
    /// The largest flow number: 28 bits.
    pub const MAX: u32 = 0x0fff_ffff;
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:07x}", self.0)
    }
}

/// The number of a release. Revisions never go backwards on a gateway (DESIGN, promise 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// A SHA-256 digest; written as `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").ok_or(DigestError)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(hex, &mut bytes).map_err(|_| DigestError)?;
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// A string that is not `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected `sha256:` and 64 hexadecimal digits")]
pub struct DigestError;
