//! Tunnels that a release begins, ends or changes: the gateways at both ends of one have to activate it together, since what one of them tunnels, the
//! other does not take in the clear.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::ids::GatewayId;
use crate::plan::Plan;

use super::fleet::Fleet;
use super::plan::{Selector, Span, Wave};

/// Waves of gateways that activate together, at most: where there are more groups, several share one.
const WAVES_MAX: usize = 16;

/// The line, the port of its own, and what lies beyond.
type End<'a> = ((&'a str, Option<SocketAddr>), (&'a str, u16), &'a [IpNet]);

/// What of a gateway's plan makes its end of the tunnel to `peer`: that, the port of its own, and what lies beyond.
fn end<'a>(plan: &'a Plan, peer: &GatewayId) -> Option<End<'a>> {
    let tunnels = plan.tunnels.as_ref()?;
    let tunnel = tunnels.peers.iter().find(|tunnel| tunnel.peer == *peer)?;
    let side = plan.interfaces.iter().find(|side| side.name == tunnel.device);
    let beyond = side.map(|side| side.networks.as_slice()).unwrap_or_default();
    Some((
        (&tunnel.device, tunnel.connect),
        (&tunnels.interface, tunnels.port),
        beyond,
    ))
}

fn peers(plan: Option<&Plan>) -> impl Iterator<Item = &GatewayId> {
    let tunnels = plan.and_then(|plan| plan.tunnels.as_ref());
    tunnels
        .into_iter()
        .flat_map(|tunnels| &tunnels.peers)
        .map(|tunnel| &tunnel.peer)
}

/// The pairs of gateways both of which change their end of the tunnel between them, from the plans that they hold to those that they get. Where only
/// one of them still has to, it cannot come too early.
pub fn joined(
    held: &BTreeMap<GatewayId, Plan>,
    released: &BTreeMap<GatewayId, Plan>,
) -> BTreeSet<(GatewayId, GatewayId)> {
    let changes = |gateway: &GatewayId, peer: &GatewayId| {
        let [before, after] =
            [held, released].map(|plans| plans.get(gateway).and_then(|plan| end(plan, peer)));
        before != after
    };
    let mut joined = BTreeSet::new();
    for (gateway, plan) in released {
        for peer in peers(held.get(gateway)).chain(peers(Some(plan))) {
            let both = released.contains_key(peer) && changes(gateway, peer) && changes(peer, gateway);
            if gateway < peer && both {
                joined.insert((gateway.clone(), peer.clone()));
            }
        }
    }
    joined
}

/// The gateways that hang together by tunnels that change, by their places; each group of at least two.
fn groups(fleet: &Fleet) -> Vec<BTreeSet<u32>> {
    let mut groups: Vec<BTreeSet<u32>> = Vec::new();
    for (one, other) in fleet.joined() {
        let mut group = BTreeSet::from([*one, *other]);
        groups.retain(|known| {
            let is_apart = known.is_disjoint(&group);
            if !is_apart {
                group.extend(known);
            }
            is_apart
        });
        groups.push(group);
    }
    groups.sort();
    groups
}

/// The waves in which they activate, each with room for all of its gateways at once.
pub(super) fn waves(fleet: &Fleet, soak: Span) -> Vec<Wave> {
    let groups = groups(fleet);
    let shared = groups.len().div_ceil(WAVES_MAX).max(1);
    let chunks: Vec<_> = groups.chunks(shared).collect();
    let name = |number: usize| match chunks.len() {
        1 => "tunnels".to_owned(),
        _ => format!("tunnels-{}", number + 1),
    };
    let wave = |(number, chunk): (usize, &&[BTreeSet<u32>])| {
        let mut in_cell: BTreeMap<u32, u32> = BTreeMap::new();
        let members: BTreeSet<u32> = chunk.iter().flatten().copied().collect();
        for at in &members {
            *in_cell.entry(fleet.cell(*at)).or_default() += 1;
        }
        Wave {
            name: name(number),
            gateways: Selector::List(
                members
                    .iter()
                    .filter_map(|at| Some(fleet.member(*at)?.id.clone()))
                    .collect(),
            ),
            per_cell: in_cell.into_values().max().unwrap_or(1),
            soak,
        }
    };
    chunks.iter().enumerate().map(wave).collect()
}
