//! What an override makes of any plan, as properties; who may make one, by an example of each refusal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod code;
mod examples;
mod form;
mod permits;

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::{DICE, connection_near, plans};
use crate::change::{AskedFrom, Condition, Interlock};
use crate::plan::{Capability, Hardware, Observing, Plan, PlanInterface};
use crate::terms::{Enforcement, GatewayMode};
use crate::verdict::{Carried, Connection, Decision, decide};
use crate::waterworks::id;

/// A plan that has something of all that an override changes: MAC addresses on a bridged gateway, and now and then a question.
fn any_plan() -> impl Strategy<Value = Plan> {
    (plans(), any::<u8>()).prop_map(|(mut plan, dice)| {
        if plan.mode == GatewayMode::Bridged {
            for side in &mut plan.interfaces {
                let declared = side
                    .networks
                    .iter()
                    .filter(|network| usize::from(dice) % 3 > 0 || is_host(network));
                let mut hardware: Vec<_> = declared
                    .zip(1..)
                    .map(|(network, number)| device(network.addr(), number))
                    .collect();
                hardware.sort_unstable();
                side.hardware = hardware;
            }
        }
        if dice % 2 == 0 {
            plan.requires.insert(Capability::of(Capability::CHANGE_CONTROL));
            plan.interlock = Some(Interlock {
                asset: id("plc"),
                address: id("192.0.2.7"),
                port: 502,
                from: AskedFrom::Interface("eth0".to_owned()),
                condition: Condition::Coil {
                    unit: 1,
                    coil: 1,
                    is: true,
                },
            });
        }
        plan
    })
}

fn is_host(network: &IpNet) -> bool {
    network.prefix_len() == network.max_prefix_len()
}

fn device(address: IpAddr, number: u8) -> Hardware {
    Hardware {
        address,
        mac: Mac([2, 0, 0, 0, 0, number]),
    }
}

/// Addresses of a side: all of a network, a half of it, or one address.
fn end(plan: &Plan, [side, network, part]: [u8; 3]) -> IpNet {
    let side = &plan.interfaces[usize::from(side) % plan.interfaces.len()];
    let Some(network) = side
        .networks
        .get(usize::from(network) % side.networks.len().max(1))
    else {
        return id("198.51.100.0/24");
    };
    match part % 6 {
        0 | 1 => network.trunc(),
        2 => network
            .subnets((network.prefix_len() + 1).min(network.max_prefix_len()))
            .unwrap()
            .next()
            .unwrap(),
        3 => network.broadcast().into(),
        4 => network.addr().into(),
        _ => id("198.51.100.0/24"),
    }
}

fn effect(plan: &Plan, [what, a, b, c, d, e, f]: [u8; 7]) -> Effect {
    match what % 5 {
        0 => Effect::Unasked,
        1 => Effect::Device {
            address: end(plan, [a, b, c]).addr(),
            mac: Mac([2, 0, 0, 0, 0, d % 4]),
        },
        _ => Effect::Observe {
            one: end(plan, [a, b, c]),
            other: end(plan, [d, e, f]),
        },
    }
}

/// Effects as an override may have them together.
fn effects(plan: &Plan, dice: &[[u8; 7]]) -> Vec<Effect> {
    let mut effects: Vec<_> = dice.iter().map(|dice| effect(plan, *dice)).collect();
    effects.sort_unstable();
    effects.dedup_by(|next, one| match (next, one) {
        (Effect::Device { address: next, .. }, Effect::Device { address: one, .. }) => next == one,
        (next, one) => next == one,
    });
    effects
}

/// Whether an end of a connection observes on its side; where the plan does not name its interface, it has no say.
fn observes(plan: &Plan, interface: &str, address: IpAddr) -> bool {
    let side = plan.interfaces.iter().find(|side| side.name == interface);
    side.is_none_or(|side| side.observing.mode(Some(address)) == Enforcement::Observe)
}

/// Any connection between two ends, entering and leaving by their sides.
fn between(plan: &Plan, one: &IpNet, other: &IpNet) -> Connection {
    let side = |end: &IpNet| {
        let side = plan
            .interfaces
            .iter()
            .find(|side| side.networks.iter().any(|network| network.contains(end)));
        side.unwrap().name.clone()
    };
    Connection {
        ingress: side(one),
        egress: side(other),
        source: one.addr(),
        destination: other.broadcast(),
        transport: Carried::Tcp(31_337),
    }
}

proptest! {
    #[test]
    fn what_an_override_makes_of_a_plan_is_a_plan_in_which_its_effects_change_nothing_more(
        plan in any_plan(), dice in prop::collection::vec(any::<[u8; 7]>(), 1..8),
    ) {
        let effects = effects(&plan, &dice);
        let made = overridden(&plan, &effects);
        // What is excepted by overrides is no part of a plan's bytes.
        let read = Plan::from_bytes(&made.to_bytes()).expect("a plan");
        prop_assert!(read.excepted.is_empty());
        let excepted = made.excepted.clone();
        prop_assert_eq!(&Plan { excepted, ..read }, &made);
        for (side, networks) in &made.excepted {
            let enforces = |plan: &&PlanInterface| plan.name == *side && plan.observing == Observing::Nothing;
            prop_assert!(plan.interfaces.iter().any(|side| enforces(&side)), "{}", side);
            let observing = Observing::Only(networks.clone());
            prop_assert!(made.interfaces.iter().any(|one| one.name == *side && one.observing == observing));
        }
        for effect in &effects {
            prop_assert_ne!(fit(&made, effect), Fit::Changes, "{}", effect);
        }
        let fitting = effects.iter().any(|effect| fit(&plan, effect) == Fit::Changes);
        prop_assert_eq!(made != plan, fitting);
        prop_assert_eq!(&overridden(&made, &effects), &made);
    }

    #[test]
    fn the_order_of_effects_makes_no_difference(
        plan in any_plan(), dice in prop::collection::vec(any::<[u8; 7]>(), 1..8), turn in any::<prop::sample::Index>(),
    ) {
        let mut effects = effects(&plan, &dice);
        let made = overridden(&plan, &effects);
        effects.reverse();
        prop_assert_eq!(&overridden(&plan, &effects), &made);
        let turn = turn.index(effects.len());
        effects.rotate_left(turn);
        prop_assert_eq!(&overridden(&plan, &effects), &made);
    }

    /// What `docs/overrides.md` says of `--observe`, in the same order.
    #[test]
    fn observing_two_ends_lets_pass_only_what_has_one_of_them_and_at_its_other_end_the_other_or_whoever_observes_anyhow(
        plan in any_plan(), dice in any::<[u8; 6]>(), near in prop::collection::vec(any::<[u32; DICE]>(), 24),
    ) {
        let [a, b, c, d, e, f] = dice;
        let (one, other) = (end(&plan, [a, b, c]), end(&plan, [d, e, f]));
        let effect = Effect::Observe { one, other };
        let made = overridden(&plan, &[effect]);
        let named = |address: &IpAddr| one.contains(address) || other.contains(address);
        let mut connections: Vec<_> = near.iter().map(|dice| connection_near(&plan, dice)).collect();
        if fit(&plan, &effect) == Fit::Changes {
            prop_assert_eq!(one.addr().is_ipv4(), other.addr().is_ipv4());
            connections.extend([between(&plan, &one, &other), between(&plan, &other, &one)]);
            for side in &plan.interfaces {
                for network in &side.networks {
                    connections.extend([between(&plan, &one, network), between(&plan, network, &other)]);
                }
            }
            let refused = decide(&plan, &between(&plan, &one, &other)).decision;
            let after = decide(&made, &between(&plan, &one, &other)).decision;
            prop_assert_eq!(after, if refused == Decision::Deny { Decision::WouldDeny } else { refused });
        }
        for connection in connections {
            let (before, after) = (decide(&plan, &connection), decide(&made, &connection));
            if before == after {
                continue;
            }
            prop_assert_eq!((before.decision, after.decision), (Decision::Deny, Decision::WouldDeny));
            prop_assert_eq!(before.reason, after.reason);
            let ends = [(&connection.ingress, connection.source), (&connection.egress, connection.destination)];
            prop_assert!(ends.iter().any(|(_, address)| named(address)), "{connection:?}");
            for (interface, address) in ends {
                prop_assert!(named(&address) || observes(&plan, interface, address), "{connection:?}");
            }
        }
    }

    #[test]
    fn another_device_at_one_address_changes_no_other_addresss_mac_and_nothing_else(
        plan in any_plan(), dice in any::<[u8; 4]>(),
    ) {
        let [a, b, c, number] = dice;
        let address = end(&plan, [a, b, c]).addr();
        let effect = Effect::Device { address, mac: Mac([2, 0, 0, 0, 1, number]) };
        let made = overridden(&plan, &[effect]);
        let without = |plan: &Plan| {
            let mut plan = plan.clone();
            for side in &mut plan.interfaces {
                side.hardware.retain(|declared| declared.address != address);
            }
            plan
        };
        prop_assert_eq!(without(&made), without(&plan));
        let macs = |plan: &Plan| -> Vec<Mac> {
            let all = plan.interfaces.iter().flat_map(|side| &side.hardware);
            all.filter(|declared| declared.address == address).map(|declared| declared.mac).collect()
        };
        match fit(&plan, &effect) {
            Fit::Changes => prop_assert!(!macs(&made).is_empty() && macs(&made).iter().all(|mac| *mac == Mac([2, 0, 0, 0, 1, number]))),
            _ => prop_assert_eq!(macs(&made), macs(&plan)),
        }
    }
}
