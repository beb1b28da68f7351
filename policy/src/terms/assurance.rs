//! How well an end of a flow proves who it is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Assurance of a peer's identity on the data path, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Assurance {
    /// Seen: only its address.
    D0,
    /// Bound: address and port or MAC.
    D1,
    /// A secret that it shares.
    D2,
    /// Its own certificate.
    D3,
    /// A certificate issued by the plant.
    D4,
    /// A key in hardware.
    D5,
}

impl Assurance {
    /// All of them, weakest first.
    pub const ALL: [Self; 6] = [Self::D0, Self::D1, Self::D2, Self::D3, Self::D4, Self::D5];
}

/// `D1`.
impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "D{}", *self as u8)
    }
}

/// What a gateway checks of an end of a flow, weakest first.
///
/// Only what the gateway itself checks of each connection counts, never what a record says that a device could show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The address, on its side of the gateway.
    Address,
    /// The address, at an interface where no other address may be seen.
    Port,
    /// The address in packets that come from its MAC address.
    Mac,
    /// The address, which the gateway at the other end of a tunnel binds.
    Tunnel,
    /// A certificate of an authority that the document names.
    ForeignCertificate,
    /// A certificate of the plant's own authority that names the asset.
    PlantCertificate,
}

impl Proof {
    /// All of them, weakest first.
    pub const ALL: [Self; 6] = [
        Self::Address,
        Self::Port,
        Self::Mac,
        Self::Tunnel,
        Self::ForeignCertificate,
        Self::PlantCertificate,
    ];

    /// What it is worth. No gateway checks a secret that devices share with somebody else (D2), and none can tell where a device keeps
    /// its key (D5).
    pub fn assurance(self) -> Assurance {
        match self {
            Self::Address => Assurance::D0,
            Self::Port | Self::Mac | Self::Tunnel => Assurance::D1,
            Self::ForeignCertificate => Assurance::D3,
            Self::PlantCertificate => Assurance::D4,
        }
    }
}

/// `by its address only (D0)`.
impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Address => "by its address only",
            Self::Port => "by its address, at an interface of its own",
            Self::Mac => "by its address and MAC address",
            Self::Tunnel => "by its address, bound at the other end of the tunnel",
            Self::ForeignCertificate => "by a certificate of its own authority",
            Self::PlantCertificate => "by a certificate of the plant",
        };
        write!(f, "{words} ({})", self.assurance())
    }
}
