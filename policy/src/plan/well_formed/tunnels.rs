//! What must hold of the tunnels in a plan.

use std::collections::BTreeSet;

use super::requires;
use crate::plan::{Capability, Plan, Tunnel};
use crate::terms::{GatewayMode, TUNNEL_PREFIX};

/// Only an agent that carries tunnels may take a plan that has them; and each has a side of its own, on a gateway that routes.
pub(super) fn check(plan: &Plan) -> Result<(), String> {
    let Some(tunnels) = &plan.tunnels else {
        return Ok(());
    };
    let needed = Capability::TUNNEL;
    if !requires(plan, needed) {
        return Err(format!(
            "tunnels end at it, but the plan does not require `{needed}`"
        ));
    }
    if plan.mode != GatewayMode::Routed {
        return Err("tunnels end at a gateway that is bridged".to_owned());
    }
    let is_side = |name: &String| plan.interfaces.iter().any(|side| side.name == *name);
    let mut devices = BTreeSet::from([&tunnels.interface]);
    let mut peers = BTreeSet::from([&plan.gateway]);
    if !is_side(&tunnels.interface) || tunnels.port == 0 || tunnels.peers.is_empty() {
        return Err("its tunnels have no end, or no peer".to_owned());
    }
    for Tunnel {
        device,
        peer,
        connect,
        vouched,
    } in &tunnels.peers
    {
        if !is_side(device) || !device.starts_with(TUNNEL_PREFIX) || !devices.insert(device) {
            return Err(format!("the tunnel to {peer} has no side of its own: `{device}`"));
        }
        if !peers.insert(peer) || connect.is_some_and(|at| at.port() == 0 || at.ip().is_unspecified()) {
            return Err(format!(
                "the tunnel to {peer} leads nowhere, or twice to the same gateway"
            ));
        }
        if !vouched.iter().is_sorted() {
            return Err(format!(
                "what is bound beyond the tunnel to {peer} is not in order"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::compile::compile;
    use crate::plan::Tunnels;
    use crate::waterworks::{gateway, waterworks};

    /// The works' plan with a tunnel in it, spoilt.
    fn tunnelled(spoil: impl Fn(&mut Plan, &mut Tunnels)) -> Result<Plan, String> {
        let mut plan = compile(&waterworks(), &gateway()).unwrap();
        plan.requires.insert(Capability::of(Capability::TUNNEL));
        let mut side = plan.interfaces[0].clone();
        side.name = "pst-gw-9".to_owned();
        side.networks.clear();
        plan.interfaces.push(side);
        let mut tunnels = Tunnels {
            interface: plan.interfaces[0].name.clone(),
            port: 4433,
            peers: vec![Tunnel {
                vouched: Vec::new(),
                device: "pst-gw-9".to_owned(),
                peer: "gw-9".parse().unwrap(),
                connect: None,
            }],
        };
        spoil(&mut plan, &mut tunnels);
        plan.tunnels = Some(tunnels);
        Plan::from_bytes(&plan.to_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_tunnel_that_nobody_would_carry_or_that_leads_nowhere_is_refused() {
        assert!(tunnelled(|_, _| ()).is_ok());
        let because = |spoil: &dyn Fn(&mut Plan, &mut Tunnels)| tunnelled(spoil).unwrap_err();
        let unasked =
            |plan: &mut Plan, _: &mut Tunnels| plan.requires.retain(|one| one.0 != Capability::TUNNEL);
        assert!(because(&unasked).contains("does not require `tunnel`"));
        assert!(because(&|plan, _| plan.mode = GatewayMode::Bridged).contains("bridged"));
        assert!(because(&|_, tunnels| tunnels.peers.clear()).contains("no peer"));
        assert!(because(&|_, tunnels| tunnels.port = 0).contains("no end"));
        assert!(because(&|_, tunnels| tunnels.interface = "eth9".to_owned()).contains("no end"));
        assert!(because(&|plan, _| drop(plan.interfaces.pop())).contains("no side of its own"));
        let clear = |_: &mut Plan, tunnels: &mut Tunnels| tunnels.peers[0].device = tunnels.interface.clone();
        assert!(because(&clear).contains("no side of its own"));
        let own = |plan: &mut Plan, tunnels: &mut Tunnels| tunnels.peers[0].peer = plan.gateway.clone();
        assert!(because(&own).contains("leads nowhere"));
        let nowhere = |_: &mut Plan, tunnels: &mut Tunnels| {
            tunnels.peers[0].connect = Some("0.0.0.0:4433".parse().unwrap())
        };
        assert!(because(&nowhere).contains("leads nowhere"));
    }
}
