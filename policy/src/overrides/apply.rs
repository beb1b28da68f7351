//! What an override makes of a plan.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Effect;
use crate::plan::{Hardware, Observing, Plan, PlanInterface};
use crate::terms::{Enforcement, GatewayMode};

/// How an effect fits a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It changes the plan.
    Changes,
    /// The plan says so by itself: nothing is left to override.
    Already,
    /// The plan has nothing that it could change, in words.
    Nothing(String),
}

/// How `effect` fits `plan`.
pub fn fit(plan: &Plan, effect: &Effect) -> Fit {
    match effect {
        Effect::Device { address, mac } => {
            if plan.mode == GatewayMode::Routed {
                return Fit::Nothing(
                    "this gateway routes, and knows no device by its MAC address".to_owned(),
                );
            }
            let Some(side) = plan.interfaces.iter().find(|side| side.holds(*address)) else {
                return Fit::Nothing(format!("{address} is on no side of this gateway"));
            };
            let declared: Vec<_> = declared(side, *address).collect();
            match declared.as_slice() {
                [] => Fit::Nothing(format!("no MAC address is declared for {address}")),
                [only] if only == mac => Fit::Already,
                _ => Fit::Changes,
            }
        }
        Effect::Observe { one, other } => {
            let [first, second] =
                [one, other].map(|end| plan.interfaces.iter().find(|side| spans(side, end)));
            match (first, second) {
                (None, _) => Fit::Nothing(format!("{one} is on no side of this gateway")),
                (_, None) => Fit::Nothing(format!("{other} is on no side of this gateway")),
                (Some(first), Some(second)) if first.name == second.name => Fit::Nothing(format!(
                    "{one} and {other} are on the same side, {}: nothing between them crosses this gateway",
                    first.name
                )),
                (Some(first), Some(second)) if observes(first, one) && observes(second, other) => {
                    Fit::Already
                }
                (Some(_), Some(_)) => Fit::Changes,
            }
        }
        Effect::Unasked => match plan.interlock {
            Some(_) => Fit::Changes,
            None => Fit::Nothing("this gateway asks nobody before a change".to_owned()),
        },
    }
}

/// `plan` with these effects; those that do not fit change nothing.
pub fn overridden(plan: &Plan, effects: &[Effect]) -> Plan {
    let mut plan = plan.clone();
    for effect in effects {
        if fit(&plan, effect) != Fit::Changes {
            continue;
        }
        match effect {
            Effect::Device { address, mac } => {
                for side in plan.interfaces.iter_mut().filter(|side| side.holds(*address)) {
                    side.hardware.retain(|declared| declared.address != *address);
                    side.hardware.push(Hardware {
                        address: *address,
                        mac: *mac,
                    });
                    side.hardware.sort_unstable();
                }
            }
            Effect::Observe { one, other } => {
                for end in [one, other] {
                    for side in plan.interfaces.iter_mut().filter(|side| spans(side, end)) {
                        side.observing = with(&side.observing, end);
                    }
                }
            }
            Effect::Unasked => plan.interlock = None,
        }
    }
    plan
}

fn declared(side: &PlanInterface, address: IpAddr) -> impl Iterator<Item = crate::terms::Mac> {
    let hardware = side.hardware.iter();
    hardware
        .filter(move |declared| declared.address == address)
        .map(|declared| declared.mac)
}

/// Whether all of `end` may be seen on this side.
fn spans(side: &PlanInterface, end: &IpNet) -> bool {
    side.networks.iter().any(|network| network.contains(end))
}

fn observes(side: &PlanInterface, end: &IpNet) -> bool {
    match &side.observing {
        Observing::Only(networks) => networks.iter().any(|network| network.contains(end)),
        all => all.mode(Some(end.addr())) == Enforcement::Observe,
    }
}

fn with(observing: &Observing, end: &IpNet) -> Observing {
    let mut networks = match observing {
        Observing::Everything => return Observing::Everything,
        Observing::Nothing => Vec::new(),
        Observing::Only(networks) => networks.clone(),
    };
    networks.push(end.trunc());
    let mut networks = IpNet::aggregate(&networks);
    networks.sort_unstable();
    Observing::Only(networks)
}
