//! How a gateway's tunnel to another one stands, by its last report.

use penstock_proto::v1::TunnelHealth;
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::Tone;
use crate::words;

/// A tunnel. Counts are since the agent started, or the policy named it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TunnelLine {
    /// The gateway at the other end.
    pub peer: String,
    /// Whether it stands.
    pub stands: bool,
    /// Since when it does, or does not, milliseconds since 1970.
    pub since_ms: u64,
    /// Why it does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
    /// There and back, microseconds; 0: not known.
    pub round_trip_us: u64,
    /// Packets that went into it.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that came out of it.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets that went nowhere, since it did not stand or did not take them.
    pub dropped_packets: u64,
}

impl From<TunnelHealth> for TunnelLine {
    fn from(tunnel: TunnelHealth) -> Self {
        Self {
            peer: tunnel.peer,
            stands: tunnel.stands,
            since_ms: tunnel.since_ms,
            problem: tunnel.problem,
            round_trip_us: tunnel.round_trip_us,
            sent_packets: tunnel.sent_packets,
            sent_bytes: tunnel.sent_bytes,
            received_packets: tunnel.received_packets,
            received_bytes: tunnel.received_bytes,
            dropped_packets: tunnel.dropped_packets,
        }
    }
}

impl TunnelLine {
    /// `tunnel to gw-b stands since …`, or why it does not.
    pub(super) fn words(&self, now_ms: u64) -> (Tone, String) {
        let (peer, since) = (&self.peer, words::when(self.since_ms, now_ms));
        let lost = match self.dropped_packets {
            0 => String::new(),
            dropped => format!(", {dropped} packets dropped"),
        };
        if !self.stands {
            let why = match self.problem.as_str() {
                "" => "it has not been there yet",
                why => why,
            };
            return (
                Tone::Bad,
                format!("tunnel to {peer} down since {since}: {why}{lost}"),
            );
        }
        let ms = self.round_trip_us as f64 / 1000.0;
        let (sent, received) = (self.sent_packets, self.received_packets);
        (
            Tone::Dim,
            format!(
                "tunnel to {peer} up since {since}, {ms:.1} ms there and back, {sent} packets sent, {received} received{lost}"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_that_is_down_is_shown_with_its_reason_and_what_it_cost() {
        let mut tunnel = TunnelLine::from(TunnelHealth {
            peer: "gw-b".to_owned(),
            stands: true,
            since_ms: 1,
            round_trip_us: 1_260,
            sent_packets: 7,
            ..TunnelHealth::default()
        });
        let (_, up) = tunnel.words(1);
        assert!(
            up.ends_with("1.3 ms there and back, 7 packets sent, 0 received"),
            "{up}"
        );
        (tunnel.stands, tunnel.dropped_packets) = (false, 3);
        tunnel.problem = "it does not answer".to_owned();
        let (_, down) = tunnel.words(1);
        assert!(
            down.ends_with(": it does not answer, 3 packets dropped"),
            "{down}"
        );
    }
}
