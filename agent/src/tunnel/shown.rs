//! How the tunnels stand, as a running agent leaves it for `penstock-agent status`.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use penstock_policy::ids::GatewayId;
use penstock_proto::v1::TunnelHealth;
use serde::{Deserialize, Serialize};

use crate::audit::record;
use crate::clock;
use crate::durable::{self, FileError};

/// The tunnels' folder, below the agent's state.
pub const FOLDER: &str = "tunnels";
const FILE: &str = "state.json";
/// Of as many tunnels as a gateway may have, each with a long problem.
const BYTES_MAX: u64 = 1024 * 1024;
/// For whoever may see the agent's status.
const MODE: u32 = 0o640;

/// How a tunnel stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelState {
    /// The gateway at the other end.
    pub peer: GatewayId,
    /// The interface.
    pub device: String,
    /// Where the peer is, while the tunnel stands.
    pub at: Option<SocketAddr>,
    /// Since when it stands, or does not; milliseconds since 1970.
    pub since_ms: u64,
    /// Why it does not stand; none while it does, and before that is known.
    pub problem: Option<String>,
    /// What was measured of the path, while the tunnel stands.
    pub path: Option<TunnelPath>,
    /// What went into it since the agent started or the policy named it.
    pub sent: Carriage,
    /// What came out of it.
    pub received: Carriage,
    /// Packets that went nowhere, since it did not stand or did not take them.
    pub dropped: u64,
}

/// What was measured of a tunnel's path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelPath {
    /// There and back, microseconds.
    pub rtt_us: u64,
    /// The largest packet that the path carries in one datagram, bytes; larger ones go in two.
    pub datagram_bytes_max: usize,
}

/// Packets and their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carriage {
    /// How many.
    pub packets: u64,
    /// Without what the tunnel adds.
    pub bytes: u64,
}

impl Carriage {
    pub(super) fn of(packets: u64, bytes: u64) -> Self {
        Self { packets, bytes }
    }
}

impl From<&TunnelState> for TunnelHealth {
    fn from(state: &TunnelState) -> Self {
        Self {
            peer: state.peer.to_string(),
            stands: state.at.is_some(),
            since_ms: state.since_ms,
            problem: state.problem.as_deref().map(record::bounded).unwrap_or_default(),
            round_trip_us: state.path.as_ref().map_or(0, |path| path.rtt_us),
            sent_packets: state.sent.packets,
            sent_bytes: state.sent.bytes,
            received_packets: state.received.packets,
            received_bytes: state.received.bytes,
            dropped_packets: state.dropped,
        }
    }
}

/// `to gw-2 stands since …: 12 packets (840 bytes) in, …`.
impl fmt::Display for TunnelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = clock::utc(self.since_ms);
        match (&self.at, &self.problem) {
            (Some(at), _) => write!(f, "to {} at {at} stands since {since}", self.peer)?,
            (None, Some(problem)) => write!(f, "to {} does not stand since {since} ({problem})", self.peer)?,
            (None, None) => write!(f, "to {} is not there yet", self.peer)?,
        }
        if let Some(path) = &self.path {
            let ms = path.rtt_us as f64 / 1000.0;
            write!(
                f,
                ", {ms:.1} ms there and back, {} bytes a datagram",
                path.datagram_bytes_max
            )?;
        }
        write!(
            f,
            ", {} packets sent ({} bytes), {} received ({} bytes), {} dropped",
            self.sent.packets, self.sent.bytes, self.received.packets, self.received.bytes, self.dropped
        )
    }
}

/// Leaves the states below `folder`; without any, only where some were left before.
///
/// # Errors
/// The folder or the file cannot be written.
pub(super) fn write(folder: &Path, states: &[TunnelState]) -> Result<(), FileError> {
    let path = folder.join(FILE);
    if states.is_empty() && !path.exists() {
        return Ok(());
    }
    let text = serde_json::to_vec(states).unwrap_or_default();
    durable::create_folder(folder)?;
    durable::show(&path, &text, MODE)
}

/// The states as a running agent last left them below `folder`.
pub fn read(folder: &Path) -> Vec<TunnelState> {
    durable::read(&folder.join(FILE), BYTES_MAX)
        .ok()
        .flatten()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> TunnelState {
        TunnelState {
            peer: "gw-2".parse().unwrap(),
            device: "pst-gw-2".to_owned(),
            at: Some("203.0.113.2:4433".parse().unwrap()),
            since_ms: 0,
            problem: None,
            path: Some(TunnelPath {
                rtt_us: 1_250,
                datagram_bytes_max: 1_414,
            }),
            sent: Carriage::of(12, 840),
            received: Carriage::of(3, 200),
            dropped: 1,
        }
    }

    #[test]
    fn what_an_agent_left_of_its_tunnels_is_read_as_it_was_and_a_policy_without_tunnels_leaves_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).is_empty());
        write(folder.path(), &[state()]).unwrap();
        assert_eq!(read(folder.path()), [state()]);
        write(folder.path(), &[]).unwrap();
        assert!(read(folder.path()).is_empty());
    }

    #[test]
    fn a_tunnel_is_described_with_its_path_or_with_why_it_does_not_stand() {
        let stands = state().to_string();
        assert_eq!(
            stands,
            "to gw-2 at 203.0.113.2:4433 stands since 1970-01-01T00:00:00Z, 1.2 ms there and back, 1414 bytes a datagram, \
             12 packets sent (840 bytes), 3 received (200 bytes), 1 dropped"
        );
        let down = TunnelState {
            at: None,
            path: None,
            problem: Some("it does not answer".to_owned()),
            ..state()
        };
        assert!(
            down.to_string()
                .contains("does not stand since 1970-01-01T00:00:00Z (it does not answer)")
        );
    }
}
