//! Which UDP rules lead to a server, by its address: asked for every datagram that the kernel logs, and so not by a walk over the
//! plan. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use penstock_policy::plan::{Endpoint, Plan};
use penstock_policy::terms::Transport;

/// The UDP rules of one plan.
#[derive(Debug)]
pub(super) struct Servers {
    /// Places in the plan, by destination.
    rules: HashMap<IpNet, Vec<usize>>,
    /// The lengths of these networks' prefixes.
    lengths: BTreeSet<u8>,
}

impl Servers {
    /// Of the rules that permit anything now.
    pub(super) fn of(plan: &Plan) -> Self {
        let mut servers = Self {
            rules: HashMap::new(),
            lengths: BTreeSet::new(),
        };
        for (place, rule) in plan.rules.iter().enumerate() {
            if !matches!(rule.transport, Transport::Udp(_)) || !plan.is_open(&rule.conduit) {
                continue;
            }
            for end in &rule.destinations {
                servers.lengths.insert(end.network.prefix_len());
                let rules = servers.rules.entry(end.network.trunc()).or_default();
                if rules.last() != Some(&place) {
                    rules.push(place);
                }
            }
        }
        servers
    }

    /// Whether one of them permits a datagram; `plan` is theirs.
    pub(super) fn permit(&self, plan: &Plan, source: IpAddr, destination: IpAddr, port: u16) -> bool {
        let holds = |ends: &[Endpoint]| ends.iter().any(|end| end.network.contains(&source));
        let networks = self
            .lengths
            .iter()
            .filter_map(|length| IpNet::new(destination, *length).ok());
        let rules = networks.filter_map(|network| self.rules.get(&network.trunc()));
        rules
            .flatten()
            .filter_map(|place| plan.rules.get(*place))
            .any(|rule| {
                let Transport::Udp(ranges) = &rule.transport else {
                    return false;
                };
                let mut ranges = ranges.iter();
                ranges.any(|range| (range.first..=range.last).contains(&port)) && holds(&rule.sources)
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
        #[test]
        fn the_rules_that_are_looked_up_permit_what_the_rules_one_by_one_permit(
            plan in penstock_policy::arbitrary::plans(),
        ) {
            let servers = Servers::of(&plan);
            let mut ends = BTreeSet::from([IpAddr::from([192, 0, 2, 1])]);
            let mut ports = BTreeSet::from([9]);
            for rule in &plan.rules {
                let networks = rule.sources.iter().chain(&rule.destinations).map(|end| end.network);
                ends.extend(networks.flat_map(|network| [network.network(), network.broadcast()]));
                if let Transport::Udp(ranges) = &rule.transport {
                    ports.extend(ranges.iter().flat_map(|range| [range.first, range.last]));
                }
            }
            let holds = |ends: &[Endpoint], address: &IpAddr| ends.iter().any(|end| end.network.contains(address));
            for source in &ends {
                for destination in &ends {
                    for port in &ports {
                        let permitted = plan.open_rules().any(|rule| match &rule.transport {
                            Transport::Udp(ranges) => {
                                ranges.iter().any(|range| (range.first..=range.last).contains(port))
                                    && holds(&rule.sources, source)
                                    && holds(&rule.destinations, destination)
                            }
                            Transport::Tcp(_) | Transport::IcmpEcho => false,
                        });
                        prop_assert_eq!(
                            servers.permit(&plan, *source, *destination, *port),
                            permitted,
                            "{} {} {}", source, destination, port
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_datagram_is_asked_of_its_servers_rules_alone() {
        let bytes = include_bytes!("../../../../../policy/fixtures/plan-format-1.json");
        let Ok(mut plan) = Plan::from_bytes(bytes) else {
            panic!("the fixture is a plan")
        };
        let Some(mut rule) = plan.rules.first().cloned() else {
            panic!("the fixture has rules")
        };
        rule.transport = Transport::Udp(vec![penstock_policy::terms::PortRange::single(161)]);
        plan.grants.clear();
        plan.rules = (0..2000_u32)
            .map(|number| {
                let mut rule = rule.clone();
                let server = IpAddr::from((0x0a02_0000 + number).to_be_bytes());
                rule.destinations.truncate(1);
                rule.destinations
                    .iter_mut()
                    .for_each(|end| end.network = server.into());
                rule
            })
            .collect();
        let servers = Servers::of(&plan);
        assert_eq!(servers.lengths.len(), 1);
        assert!(servers.rules.values().all(|rules| rules.len() == 1));
    }
}
