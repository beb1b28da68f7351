//! A second definition of the verdict, by exhaustion: slow, and written in other words than the first.

use super::*;

/// One permitted triple as plain numbers: family, source, destination, transport, ports, rule, exactness, whether it hangs on no
/// grant, how much it is limited.
struct Triple {
    v4: (bool, bool),
    source: (u128, u128),
    destination: (u128, u128),
    transport: u8,
    ports: (u16, u16),
    rule: usize,
    exact: bool,
    stands: bool,
    limits: u8,
    open: bool,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn span(network: &IpNet) -> (u128, u128) {
    let bits = u32::from(network.max_prefix_len() - network.prefix_len());
    let size = if bits == 128 {
        u128::MAX
    } else {
        (1_u128 << bits) - 1
    };
    let first = number(network.addr()) & !size;
    (first, first + size)
}

/// A second definition of the verdict, by exhaustion: every rule unfolded into triples of number ranges. The
/// number of the rule that decides, or why there is none.
pub(super) fn naive(plan: &Plan, connection: &Connection) -> Result<usize, (Decision, &'static str)> {
    let side = |name: &str| plan.interfaces.iter().find(|side| side.name == name);
    let ends = [side(&connection.ingress), side(&connection.egress)];
    let observed = |side: &crate::plan::PlanInterface, address: IpAddr| match &side.observing {
        Observing::Everything => true,
        Observing::Nothing => false,
        Observing::Only(networks) => networks.iter().any(|network| {
            let (first, last) = span(network);
            network.addr().is_ipv4() == address.is_ipv4() && (first..=last).contains(&number(address))
        }),
    };
    let enforced = ends
        .into_iter()
        .zip([connection.source, connection.destination])
        .any(|(side, address)| side.is_some_and(|side| !observed(side, address)));
    let refused = if enforced {
        Decision::Deny
    } else {
        Decision::WouldDeny
    };
    let lives = |address: IpAddr, networks: &[IpNet]| {
        networks.iter().any(|network| {
            let (first, last) = span(network);
            network.addr().is_ipv4() == address.is_ipv4() && (first..=last).contains(&number(address))
        })
    };
    let [Some(near), Some(far)] = ends else {
        if ends != [None, None] {
            return Err((refused, "unguarded"));
        }
        let sides_of = |address: IpAddr| -> Vec<_> {
            let sides = plan.interfaces.iter();
            sides.filter(|side| lives(address, &side.networks)).collect()
        };
        let [here, there] = [connection.source, connection.destination].map(sides_of);
        if here.is_empty() || there.is_empty() || here.iter().any(|side| there.contains(side)) {
            return Err((Decision::NotGuarded, "not guarded"));
        }
        let all_observe = here.iter().all(|side| observed(side, connection.source))
            && there.iter().all(|side| observed(side, connection.destination));
        let refused = if all_observe {
            Decision::WouldDeny
        } else {
            Decision::Deny
        };
        return Err((refused, "around"));
    };
    if !lives(connection.source, &near.networks) || !lives(connection.destination, &far.networks) {
        return Err((refused, "misplaced"));
    }
    let zones = |side: &crate::plan::PlanInterface| {
        let mut zones = side.behind.clone();
        zones.push(side.zone.clone());
        zones
    };
    if zones(near) == zones(far) && zones(near).len() == 1 {
        return Err((Decision::Allow, "same zone"));
    }
    let mut triples = Vec::new();
    for (rule, permitted) in plan.rules.iter().enumerate() {
        let (transport, ports) = match &permitted.transport {
            Transport::Tcp(ports) => (6, ports.iter().map(|range| (range.first, range.last)).collect()),
            Transport::Udp(ports) => (17, ports.iter().map(|range| (range.first, range.last)).collect()),
            Transport::IcmpEcho => (1, vec![(0, 0)]),
        };
        for source in &permitted.sources {
            for destination in &permitted.destinations {
                for ports in &ports {
                    let (source, destination) = (&source.network, &destination.network);
                    let (from, to) = (span(source), span(destination));
                    triples.push(Triple {
                        v4: (source.addr().is_ipv4(), destination.addr().is_ipv4()),
                        source: from,
                        destination: to,
                        transport,
                        ports: *ports,
                        rule,
                        exact: from.0 == from.1 && to.0 == to.1 && ports.0 == ports.1,
                        stands: !plan.grants.contains_key(&permitted.conduit),
                        limits: match &permitted.operations {
                            None => 0,
                            Some(_) if permitted.on_agent_loss == OnAgentLoss::Block => 1,
                            Some(_) => 2,
                        },
                        open: plan.grants.get(&permitted.conduit).is_none_or(|grants| {
                            let begun = grants.iter().filter(|grant| grant.from_ms <= GRANTED_MS);
                            begun.map(|grant| grant.until_ms).any(|until| GRANTED_MS < until)
                        }),
                    });
                }
            }
        }
    }
    let (transport, port) = match connection.transport {
        Carried::Tcp(port) => (6, port),
        Carried::Udp(port) => (17, port),
        Carried::IcmpEcho => (1, 0),
        Carried::Other(_) => return Err((refused, "no rule")),
    };
    let fitting: Vec<&Triple> = triples
        .iter()
        .filter(|triple| {
            triple.v4 == (connection.source.is_ipv4(), connection.destination.is_ipv4())
                && (triple.source.0..=triple.source.1).contains(&number(connection.source))
                && (triple.destination.0..=triple.destination.1).contains(&number(connection.destination))
                && triple.transport == transport
                && (triple.ports.0..=triple.ports.1).contains(&port)
        })
        .collect();
    // What stands open goes before what a grant opens, unless that permits more.
    let open = || fitting.iter().filter(|triple| triple.open);
    let least = open().map(|triple| triple.limits).min();
    let enough = |triple: &&&Triple| Some(triple.limits) == least;
    let stands = open()
        .filter(|triple| triple.stands)
        .any(|triple| enough(&triple));
    let open = open().filter(|triple| triple.stands == stands && (stands || enough(triple)));
    match open.min_by_key(|triple| (!triple.exact, triple.rule)) {
        Some(triple) => Ok(triple.rule),
        None if fitting.is_empty() => Err((refused, "no rule")),
        None => Err((refused, "closed")),
    }
}
