//! What a policy would have done with packets that have no ports: ICMP echo as its flows say, requests and replies each in
//! their own direction; other protocols, tunnels among them, no flow can permit.

use std::collections::BTreeMap;

use penstock_policy::verdict::Carried;

use super::{Gate, Plans, Track, When};
use crate::capture::link::Icmp;
use crate::capture::{Frame, SkipReason, link};

/// Packets of what has no ports, between two ends that a gateway stands between.
#[derive(Debug, Default)]
pub(super) struct Portless {
    /// They pass.
    pub(super) allowed: BTreeMap<String, u64>,
    /// They pass only because their zones observe.
    pub(super) observed: BTreeMap<String, u64>,
    /// They do not.
    pub(super) refused: BTreeMap<String, u64>,
    /// Errors of ICMP may pass or not: the kernel asks for the connection that they quote.
    pub(super) unjudged: BTreeMap<String, u64>,
}

impl Portless {
    /// Counts a packet, if a gateway stands in its way.
    pub(super) fn crosses(&mut self, plans: &Plans, frame: &Frame<'_>, protocol: u8) -> bool {
        let Some((source, destination)) = link::ends(frame).filter(|(_, to)| !link::is_group(*to)) else {
            return false;
        };
        if link::is_discovery(frame) {
            return false;
        }
        let what = SkipReason::Protocol(protocol);
        let icmp = link::icmp(frame);
        // What answers an echo has its ends turned round.
        let (client, server) = match icmp {
            Some(Icmp::EchoReply) => (destination, source),
            _ => (source, destination),
        };
        let carried = match icmp {
            Some(Icmp::EchoRequest | Icmp::EchoReply) => Carried::IcmpEcho,
            _ => Carried::Other(protocol),
        };
        let tracks = plans.between(client, server, carried, When::At(frame.at));
        let unknown = matches!(protocol, 1 | 58) && icmp.is_none();
        let (list, what) = match tracks.as_slice() {
            [
                Track {
                    gate: Gate::Stranger { .. },
                    ..
                },
            ] => (
                &mut self.unjudged,
                format!(
                    "{what}: an end is on no side of a gateway, so that it is not known whether one stands between"
                ),
            ),
            [Track { gateway: None, .. }] => return false,
            tracks if tracks.iter().all(|track| track.gate.permits()) => {
                (&mut self.allowed, format!("{what}: passes"))
            }
            tracks if tracks.iter().all(|track| track.gate.answer().allowed) => (
                &mut self.observed,
                format!(
                    "{what}: no flow permits it between its ends; it passes only because the zones observe"
                ),
            ),
            _ if icmp == Some(Icmp::Error) => (
                &mut self.unjudged,
                format!("{what}: an error, which passes by the connection that it quotes"),
            ),
            _ if unknown => (
                &mut self.unjudged,
                format!("{what}: its type is not in the recording"),
            ),
            _ if carried == Carried::IcmpEcho => (
                &mut self.refused,
                format!("{what}: no flow permits an echo between its ends"),
            ),
            _ => (&mut self.refused, format!("{what}: no flow can permit it")),
        };
        *list.entry(what).or_default() += 1;
        true
    }
}
