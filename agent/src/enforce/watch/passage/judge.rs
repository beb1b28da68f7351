//! From what the machine is like to what a person should know of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use penstock_policy::terms::TUNNEL_PREFIX;
use rustix::io::Errno;

use super::facts::{InterfaceFacts, MachineFacts, NoWay};
use super::scope::{Crossing, Expectations, GuardedSide};
use crate::observed::Condition;

/// What keeps packets from crossing. `had` are the addresses that interfaces had when the policy was put in force, or got since.
pub(super) fn judge(
    scope: &Expectations,
    facts: &MachineFacts,
    had: &BTreeMap<String, BTreeSet<IpAddr>>,
    lost: &[(&Crossing, NoWay)],
) -> Vec<Condition> {
    let mut found = Vec::new();
    let mut silenced: BTreeSet<&str> = BTreeSet::new();
    for side in &scope.sides {
        let link = facts.links.get(&side.name).and_then(Option::as_ref);
        let fault = match link {
            None => Some(missing(side, facts.renamed.get(&side.name))),
            Some(link) => {
                down(side, link).or_else(|| scope.bridged.then(|| unbridged(side, link, facts)).flatten())
            }
        };
        if fault.is_some() {
            silenced.insert(&side.name);
        }
        found.extend(fault);
    }
    if scope.bridged {
        found.extend(apart(scope, facts));
        return found;
    }
    let parameters = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
    let mut off = [false; 2];
    for (number, concern) in scope.families.iter().enumerate() {
        let (Some(concern), Some(false), Some(parameter)) =
            (concern, facts.forwards.get(number), parameters.get(number))
        else {
            continue;
        };
        let family = if number == 0 { "IPv4" } else { "IPv6" };
        if let Some(off) = off.get_mut(number) {
            *off = true;
        }
        found.push(concern.fault(
            "forwarding-off",
            family,
            format!(
                "no {family} packet crosses this gateway: {parameter} is 0 (`sysctl -w {parameter}=1`, and find out which program set it)"
            ),
        ));
    }
    let [off4, off6] = off;
    for side in &scope.sides {
        if !off4 && scope.families[0].is_some() && facts.held_back.contains(&side.name) {
            silenced.insert(&side.name);
            found.push(side.concern.fault(
                "forwarding-off",
                &side.name,
                format!(
                    "IPv4 packets from zone {} do not cross: net.ipv4.conf.{}.forwarding is 0",
                    side.zone, side.name
                ),
            ));
        }
        let now = facts.addresses.get(&side.name);
        let gone: Vec<String> = had
            .get(&side.name)
            .into_iter()
            .flatten()
            .filter(|address| now.is_none_or(|now| !now.contains(address)))
            .map(ToString::to_string)
            .collect();
        if !gone.is_empty() && !silenced.contains(side.name.as_str()) {
            found.push(side.concern.fault(
                "address-changed",
                &side.name,
                format!(
                    "interface {} (zone {}) no longer has {}, which it had: hosts that send to other zones by that address do not reach this \
                     gateway. If that is as it should be, restart the agent",
                    side.name,
                    side.zone,
                    gone.join(", ")
                ),
            ));
        }
    }
    for (crossing, why) in lost {
        let known_off = if crossing.to.1.is_ipv4() { off4 } else { off6 };
        let known = [&crossing.from.0, &crossing.to.0]
            .iter()
            .any(|name| silenced.contains(name.as_str()));
        if !known_off && !known {
            found.push(astray(crossing, why));
        }
    }
    found
}

fn missing(side: &GuardedSide, renamed: Option<&String>) -> Condition {
    let called = renamed.map_or_else(String::new, |name| format!("; it is called {name} now"));
    side.concern.fault(
        "interface-missing",
        &side.name,
        format!(
            "this gateway has no interface {} (zone {}), so nothing crosses to or from it here{called}; it is guarded as soon as \
             it appears. If it has another name now, correct the name or the document",
            side.name, side.zone
        ),
    )
}

fn down(side: &GuardedSide, link: &InterfaceFacts) -> Option<Condition> {
    let (code, why) = match (link.up, link.carrier) {
        (true, true) => return None,
        (false, _) => (
            "link-down",
            format!("is switched off (`ip link set {} up`)", side.name),
        ),
        (true, false) if side.name.starts_with(TUNNEL_PREFIX) => (
            "no-carrier",
            "has no carrier: that tunnel to another gateway does not stand".to_owned(),
        ),
        (true, false) => (
            "no-carrier",
            "has no carrier: look at its cable and at what is at the other end".to_owned(),
        ),
    };
    Some(side.concern.fault(
        code,
        &side.name,
        format!(
            "nothing crosses to or from zone {} here: interface {} {why}",
            side.zone, side.name
        ),
    ))
}

fn unbridged(side: &GuardedSide, link: &InterfaceFacts, facts: &MachineFacts) -> Option<Condition> {
    let why = match facts.bridges.get(&link.master) {
        None => format!(
            "port {} is in no bridge (`ip link set {} master BRIDGE`)",
            side.name, side.name
        ),
        Some(bridge) if !bridge.up => {
            format!(
                "bridge {} is switched off (`ip link set {} up`)",
                bridge.name, bridge.name
            )
        }
        Some(_) => return None,
    };
    Some(side.concern.fault(
        "not-bridged",
        &side.name,
        format!("nothing crosses to or from zone {} here: {why}", side.zone),
    ))
}

/// Ports that are in another bridge than most.
fn apart(scope: &Expectations, facts: &MachineFacts) -> Vec<Condition> {
    let master = |side: &GuardedSide| {
        let link = facts.links.get(&side.name)?.as_ref()?;
        facts.bridges.get(&link.master)
    };
    let mut ports: BTreeMap<u32, usize> = BTreeMap::new();
    for bridge in scope.sides.iter().filter_map(master) {
        *ports.entry(bridge.index).or_default() += 1;
    }
    let Some((most, _)) = ports
        .iter()
        .max_by_key(|(bridge, count)| (**count, std::cmp::Reverse(**bridge)))
    else {
        return Vec::new();
    };
    let home = facts.bridges.get(most).map_or("", |bridge| bridge.name.as_str());
    let strays = scope.sides.iter().filter_map(|side| Some((side, master(side)?)));
    strays
        .filter(|(_, bridge)| bridge.index != *most)
        .map(|(side, bridge)| {
            side.concern.fault(
                "not-bridged",
                &side.name,
                format!(
                    "nothing crosses to or from zone {} here: port {} is in bridge {}, the others are in {home}",
                    side.zone, side.name, bridge.name
                ),
            )
        })
        .collect()
}

fn astray(crossing: &Crossing, why: &NoWay) -> Condition {
    let (from, to) = (&crossing.from, &crossing.to);
    let why = match why {
        NoWay::Astray(link) => format!("its route leads out of {link}, not {}", to.0),
        NoWay::Refused(error) if *error == Errno::XDEV.raw_os_error() => {
            format!(
                "the way back to {} does not lead out of {} (rp_filter)",
                from.1, from.0
            )
        }
        NoWay::Refused(error) => format!(
            "the kernel does not forward it ({}); look at the routes to both ends (`ip route get {} from {} iif {}`)",
            std::io::Error::from_raw_os_error(*error),
            to.1,
            from.1,
            from.0
        ),
    };
    crossing.concern.fault(
        "no-way",
        &format!("{} {}", from.1, to.1),
        format!("a packet from {} to {} does not cross: {why}", from.1, to.1),
    )
}

#[cfg(test)]
mod tests;
