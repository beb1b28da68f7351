//! Connections near a plan's rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::plan::{Endpoint, Plan, Rule};
use crate::terms::{PortRange, Transport};
use crate::verdict::{Carried, Connection};

/// How many random numbers make one connection.
pub const DICE: usize = 12;

/// Interfaces that no random plan names.
pub const UNGUARDED: [&str; 2] = ["unguarded8", "unguarded9"];

/// Random numbers, taken one after the other.
struct Dice<'a>(std::slice::Iter<'a, u32>);

impl Dice<'_> {
    /// A number below `sides`, 0 when the dice are used up.
    fn roll(&mut self, sides: usize) -> usize {
        let number = self.0.next().copied().unwrap_or(0) as usize;
        number.checked_rem(sides).unwrap_or(0)
    }

    fn pick<'b, T>(&mut self, items: &'b [T]) -> Option<&'b T> {
        items.get(self.roll(items.len()))
    }
}

/// The connection that these random numbers mean for `plan`: most are near one of its rules, and enter and
/// leave where their addresses live.
pub fn connection_near(plan: &Plan, dice: &[u32; DICE]) -> Connection {
    let mut dice = Dice(dice.iter());
    let rule = dice.pick(&plan.rules);
    let (source, destination) = match rule {
        Some(rule) if dice.roll(8) > 0 => {
            let source = near(&mut dice, &networks(&rule.sources));
            let same_family: Vec<IpNet> = networks(&rule.destinations)
                .into_iter()
                .filter(|network| network.addr().is_ipv4() == source.is_ipv4())
                .collect();
            (source, near_or_anywhere(&mut dice, &same_family, plan, source))
        }
        _ => {
            let source = near(&mut dice, &side_networks(plan));
            (source, near_or_anywhere(&mut dice, &[], plan, source))
        }
    };
    let transport = transport_near(&mut dice, rule);
    let ingress = interface_of(&mut dice, plan, source);
    let egress = interface_of(&mut dice, plan, destination);
    // Seldom neither end is at a guarded interface.
    let egress = if ingress == UNGUARDED[0] && dice.roll(3) == 1 {
        UNGUARDED[1].to_owned()
    } else {
        egress
    };
    Connection {
        ingress,
        egress,
        source,
        destination,
        transport,
    }
}

fn networks(ends: &[Endpoint]) -> Vec<IpNet> {
    ends.iter().map(|end| end.network).collect()
}

fn side_networks(plan: &Plan) -> Vec<IpNet> {
    plan.interfaces
        .iter()
        .flat_map(|interface| interface.networks.iter().copied())
        .collect()
}

/// An address in one of `networks`, else somewhere in the plan, of the family of `source`.
fn near_or_anywhere(dice: &mut Dice<'_>, networks: &[IpNet], plan: &Plan, source: IpAddr) -> IpAddr {
    if networks.is_empty() {
        let anywhere: Vec<IpNet> = side_networks(plan)
            .into_iter()
            .filter(|network| network.addr().is_ipv4() == source.is_ipv4())
            .collect();
        if anywhere.is_empty() {
            return source;
        }
        return near(dice, &anywhere);
    }
    near(dice, networks)
}

/// The first or last address of a network, one beside them, or one within.
fn near(dice: &mut Dice<'_>, networks: &[IpNet]) -> IpAddr {
    let Some(network) = dice.pick(networks).copied() else {
        return IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    };
    let (first, last) = (network.network(), network.broadcast());
    match dice.roll(12) {
        0 | 1 => first,
        2 | 3 => last,
        4 => moved(first, -1),
        5 => moved(last, 1),
        by => moved(first, by as i64 * 3 - 17).clamp(first, last),
    }
}

fn moved(address: IpAddr, by: i64) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits().wrapping_add_signed(by as i32))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(
            v6.to_bits().wrapping_add_signed(i128::from(by)),
        )),
    }
}

fn transport_near(dice: &mut Dice<'_>, rule: Option<&Rule>) -> Carried {
    let ports = match rule.map(|rule| &rule.transport) {
        Some(Transport::Tcp(ports) | Transport::Udp(ports)) => ports.as_slice(),
        _ => &[],
    };
    let port = port_near(dice, ports);
    match (dice.roll(10), rule.map(|rule| &rule.transport)) {
        (0, _) => Carried::IcmpEcho,
        (1, _) => Carried::Udp(port),
        (2, _) => Carried::Tcp(port),
        (_, Some(Transport::Udp(_))) => Carried::Udp(port),
        (_, Some(Transport::IcmpEcho)) => Carried::IcmpEcho,
        _ => Carried::Tcp(port),
    }
}

/// A port at or beside the edges of one of the ranges; never 0, which no socket can have.
fn port_near(dice: &mut Dice<'_>, ports: &[PortRange]) -> u16 {
    let range = dice.pick(ports).copied().unwrap_or(PortRange::single(502));
    match dice.roll(6) {
        0 => range.first.saturating_sub(1),
        1 => range.last.saturating_add(1),
        2 | 3 => range.first,
        4 => range.last,
        _ => range.first + (range.last - range.first) / 2,
    }
    .max(1)
}

/// Mostly the interface on whose side the address lives, sometimes another, seldom one that is not guarded.
fn interface_of(dice: &mut Dice<'_>, plan: &Plan, address: IpAddr) -> String {
    let own = plan.interfaces.iter().find(|interface| interface.holds(address));
    let roll = dice.roll(20);
    match own {
        Some(own) if roll > 2 => own.name.clone(),
        _ if roll == 0 => UNGUARDED[0].to_owned(),
        _ => plan
            .interfaces
            .get(roll % plan.interfaces.len().max(1))
            .map_or_else(|| UNGUARDED[0].to_owned(), |interface| interface.name.clone()),
    }
}
