//! How gateways' tunnels stand, by what they report: bounded, and as metrics.

use std::collections::BTreeSet;

use penstock_policy::ids::GatewayId;
use penstock_policy::terms::TUNNELS_MAX;
use penstock_proto::v1;

/// Bytes of the name of a peer, and of why a tunnel does not stand.
const NAME_BYTES_MAX: usize = 63;
const PROBLEM_BYTES_MAX: usize = 500;

/// The tunnels in a report: as many as a gateway may have, each to a gateway that can be.
pub(super) fn taken(report: &v1::HealthReport) -> Vec<v1::TunnelHealth> {
    let tunnels = report
        .tunnels
        .iter()
        .filter(|tunnel| tunnel.peer.len() <= NAME_BYTES_MAX && tunnel.peer.parse::<GatewayId>().is_ok());
    let bounded = tunnels.take(TUNNELS_MAX).map(|tunnel| {
        let mut tunnel = tunnel.clone();
        let end = tunnel.problem.floor_char_boundary(PROBLEM_BYTES_MAX);
        tunnel.problem.truncate(end);
        tunnel
    });
    bounded.collect()
}

/// The series of tunnels, by gateway and peer.
#[derive(Debug, Default)]
pub struct TunnelSeries {
    shown: BTreeSet<[String; 2]>,
    now: BTreeSet<[String; 2]>,
}

impl TunnelSeries {
    /// Sets those of a gateway. While it is not connected nothing is known of its tunnels.
    pub fn of(&mut self, gateway: &GatewayId, is_connected: bool, tunnels: &[v1::TunnelHealth]) {
        for tunnel in tunnels.iter().filter(|_| is_connected) {
            let key = [gateway.to_string(), tunnel.peer.clone()];
            set(&key, tunnel);
            self.now.insert(key);
        }
    }

    /// Takes down those that were not set since the last time.
    pub fn end(&mut self) {
        for gone in self.shown.difference(&self.now) {
            set(gone, &v1::TunnelHealth::default());
        }
        self.shown = std::mem::take(&mut self.now);
    }
}

fn set([gateway, peer]: &[String; 2], tunnel: &v1::TunnelHealth) {
    let gauge = |name: &'static str, value: f64| {
        metrics::gauge!(name, "gateway" => gateway.clone(), "peer" => peer.clone()).set(value);
    };
    gauge("penstock_tunnel_up", if tunnel.stands { 1.0 } else { 0.0 });
    gauge(
        "penstock_tunnel_round_trip_seconds",
        tunnel.round_trip_us as f64 / 1e6,
    );
    gauge("penstock_tunnel_sent_packets", tunnel.sent_packets as f64);
    gauge("penstock_tunnel_sent_bytes", tunnel.sent_bytes as f64);
    gauge("penstock_tunnel_received_packets", tunnel.received_packets as f64);
    gauge("penstock_tunnel_received_bytes", tunnel.received_bytes as f64);
    gauge("penstock_tunnel_dropped_packets", tunnel.dropped_packets as f64);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tunnel(peer: &str) -> v1::TunnelHealth {
        v1::TunnelHealth {
            peer: peer.to_owned(),
            stands: true,
            problem: "\u{fc}".repeat(PROBLEM_BYTES_MAX),
            sent_packets: 7,
            ..v1::TunnelHealth::default()
        }
    }

    #[test]
    fn of_a_gateways_word_no_more_tunnels_and_words_are_taken_than_there_can_be() {
        let report = v1::HealthReport {
            tunnels: vec![tunnel("gw-b"); 10 * TUNNELS_MAX],
            ..v1::HealthReport::default()
        };
        let tunnels = taken(&report);
        assert_eq!(tunnels.len(), TUNNELS_MAX);
        assert!(
            tunnels
                .iter()
                .all(|one| one.problem.len() <= PROBLEM_BYTES_MAX && one.sent_packets == 7)
        );
        let report = v1::HealthReport {
            tunnels: vec![
                tunnel(""),
                tunnel("no gateway\n"),
                tunnel(&"g".repeat(64)),
                tunnel("gw-c"),
            ],
            ..v1::HealthReport::default()
        };
        let peers: Vec<String> = taken(&report).into_iter().map(|one| one.peer).collect();
        assert_eq!(peers, ["gw-c"]);
    }

    #[test]
    fn a_tunnel_that_is_no_longer_reported_is_not_shown_as_up() {
        let handle = crate::metrics::install().unwrap();
        let line =
            |value: u8| format!("penstock_tunnel_up{{gateway=\"gw-of-this-test\",peer=\"gw-b\"}} {value}");
        let mut series = TunnelSeries::default();
        let gateway: GatewayId = "gw-of-this-test".parse().unwrap();
        series.of(&gateway, true, &[tunnel("gw-b")]);
        series.end();
        assert!(handle.render().contains(&line(1)), "{}", handle.render());
        series.of(&gateway, false, &[tunnel("gw-b")]);
        series.end();
        assert!(handle.render().contains(&line(0)), "{}", handle.render());
    }
}
