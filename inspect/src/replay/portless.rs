//! What a policy would have done with packets that have no ports: ICMP echo as its flows say; other protocols, tunnels among
//! them, no flow can permit.

use std::collections::BTreeMap;

use penstock_policy::verdict::Carried;

use super::{Plans, Track};
use crate::capture::{Frame, SkipReason, link};

/// Packets of what has no ports, between two ends that a gateway stands between.
#[derive(Debug, Default)]
pub(super) struct Portless {
    /// They pass, or are only observed.
    pub(super) allowed: BTreeMap<String, u64>,
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
        let carried = match protocol {
            1 | 58 => Carried::IcmpEcho,
            other => Carried::Other(other),
        };
        let passes = |from, to| {
            let tracks = plans.between(from, to, carried);
            match tracks.as_slice() {
                [Track { gateway: None, .. }] => None,
                tracks => Some(tracks.iter().all(|track| track.gate.answer().allowed)),
            }
        };
        let what = SkipReason::Protocol(protocol);
        // What answers an echo has its ends turned round.
        let verdict = (passes(source, destination), passes(destination, source));
        let (list, what) = match verdict {
            (None, _) => return false,
            (Some(true), _) | (_, Some(true)) => {
                (&mut self.allowed, format!("{what}: passes, or is only observed"))
            }
            _ if carried == Carried::IcmpEcho => (
                &mut self.unjudged,
                format!(
                    "{what}: no flow permits an echo between its ends, and an error passes by what it quotes"
                ),
            ),
            _ => (&mut self.refused, format!("{what}: no flow can permit it")),
        };
        *list.entry(what).or_default() += 1;
        true
    }
}
