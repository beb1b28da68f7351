//! What an override makes of a plan.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Effect;
use crate::plan::{Hardware, Observing, Plan, PlanInterface};
use crate::terms::{GatewayMode, Mac};

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
            let bound: Vec<Mac> = bound(plan, *address).map(|bound| bound.mac).collect();
            if plan.mode == GatewayMode::Routed && bound.is_empty() {
                return Fit::Nothing(
                    "this gateway routes, and knows no device by its MAC address".to_owned(),
                );
            }
            if !plan.interfaces.iter().any(|side| side.holds(*address)) {
                return Fit::Nothing(format!("{address} is on no side of this gateway"));
            }
            // Two ports of a bridge in one zone have the same assets.
            let mut sides = plan
                .interfaces
                .iter()
                .filter(|side| declares(side, *address))
                .peekable();
            if sides.peek().is_none() && bound.is_empty() {
                return Fit::Nothing(format!("no MAC address is declared for {address}"));
            }
            if sides.all(|side| declared(side, *address).eq([*mac])) && bound.iter().all(|bound| bound == mac)
            {
                Fit::Already
            } else {
                Fit::Changes
            }
        }
        Effect::Observe { one, other } => {
            if one.addr().is_ipv4() != other.addr().is_ipv4() {
                return Fit::Nothing(format!(
                    "{one} and {other} are of two families of addresses: nothing passes between them"
                ));
            }
            let [these, those] = [one, other].map(|end| sides(plan, end));
            for (end, found) in [(one, &these), (other, &those)] {
                if found.is_empty() {
                    return Fit::Nothing(format!(
                        "{end} is not within the networks of one side of this gateway"
                    ));
                }
            }
            // Two ports of a bridge in one zone are the same side to its hosts.
            if let Some(same) = these
                .iter()
                .find(|side| those.iter().any(|other| other.name == side.name))
            {
                return Fit::Nothing(format!(
                    "{one} and {other} are on the same side, {}: nothing between them crosses this gateway",
                    same.name
                ));
            }
            let already =
                |(sides, end): (&[&PlanInterface], &IpNet)| sides.iter().all(|side| observes(side, end));
            if [(&*these, one), (&*those, other)].into_iter().all(already) {
                Fit::Already
            } else {
                Fit::Changes
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
                for side in plan.interfaces.iter_mut().filter(|side| declares(side, *address)) {
                    side.hardware.retain(|declared| declared.address != *address);
                    side.hardware.push(Hardware {
                        address: *address,
                        mac: *mac,
                    });
                    side.hardware.sort_unstable();
                }
                let bound = plan.bound.values_mut().flatten();
                for bound in bound.filter(|bound| bound.address == *address) {
                    bound.mac = *mac;
                }
            }
            Effect::Observe { one, other } => {
                for end in [one, other] {
                    for side in plan.interfaces.iter_mut().filter(|side| spans(side, end)) {
                        let enforces = side.observing == Observing::Nothing;
                        side.observing = with(&side.observing, end);
                        // All that observes there does so by an override.
                        if let Observing::Only(networks) = &side.observing
                            && (enforces || plan.excepted.contains_key(&side.name))
                        {
                            plan.excepted.insert(side.name.clone(), networks.clone());
                        }
                    }
                }
            }
            Effect::Unasked => plan.interlock = None,
        }
    }
    plan
}

/// What holds an address to a MAC address on each packet.
fn bound(plan: &Plan, address: IpAddr) -> impl Iterator<Item = &Hardware> {
    let bound = plan.bound.values().flatten();
    bound.filter(move |bound| bound.address == address)
}

fn declared(side: &PlanInterface, address: IpAddr) -> impl Iterator<Item = Mac> {
    let hardware = side.hardware.iter();
    hardware
        .filter(move |declared| declared.address == address)
        .map(|declared| declared.mac)
}

fn declares(side: &PlanInterface, address: IpAddr) -> bool {
    declared(side, address).next().is_some()
}

/// The sides on which all of `end` may be seen.
fn sides<'a>(plan: &'a Plan, end: &IpNet) -> Vec<&'a PlanInterface> {
    plan.interfaces.iter().filter(|side| spans(side, end)).collect()
}

fn spans(side: &PlanInterface, end: &IpNet) -> bool {
    side.networks.iter().any(|network| network.contains(end))
}

fn observes(side: &PlanInterface, end: &IpNet) -> bool {
    match &side.observing {
        Observing::Nothing => false,
        Observing::Everything => true,
        Observing::Only(networks) => networks.iter().any(|network| network.contains(end)),
    }
}

/// Those that observe, and `end` with them: disjoint, sorted, each within a network of the side, as a plan has them.
fn with(observing: &Observing, end: &IpNet) -> Observing {
    let mut networks = match observing {
        Observing::Everything => return Observing::Everything,
        Observing::Nothing => Vec::new(),
        Observing::Only(networks) => networks.clone(),
    };
    if networks.iter().any(|network| network.contains(end)) {
        return Observing::Only(networks);
    }
    let end = end.trunc();
    networks.retain(|network| !end.contains(network));
    networks.push(end);
    networks.sort_unstable();
    Observing::Only(networks)
}
