//! Services of the gateway itself that guarded sides may reach: where devices enrol, and what panels read. Not the plan's, but this
//! machine's configuration names them, and only addresses that this machine has are meant: what goes on to elsewhere is no input.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use penstock_policy::terms::GatewayMode;

use crate::enforce::shape::structure::{OwnClients, Structure};

/// Accepts what is for them from a guarded side, which `guarded` matches.
pub(super) fn input(script: &mut String, structure: &Structure, guarded: &str) {
    for (at, clients) in &structure.own {
        let (ip, port) = (family(at.ip()), at.port());
        let service = format!("{ip} daddr {} tcp dport {port} accept", at.ip());
        match clients {
            OwnClients::GuardedSides => {
                let _ = writeln!(script, "{guarded} {service}");
            }
            OwnClients::Only(clients) => {
                for (side, clients) in by_side(structure, at, clients) {
                    // On a bridge, each port holds its neighbours to their addresses already.
                    let side = match structure.mode {
                        GatewayMode::Routed => format!("iifname \"{side}\""),
                        GatewayMode::Bridged => guarded.to_owned(),
                    };
                    let _ = writeln!(script, "{side} {ip} saddr {{ {} }} {service}", clients.join(", "));
                }
            }
        }
    }
}

/// The clients of a service that can reach it, by the side where the plan has them. Of an address that no side has nothing is let in.
fn by_side<'a>(
    structure: &'a Structure,
    at: &SocketAddr,
    clients: &BTreeSet<IpAddr>,
) -> BTreeMap<&'a String, Vec<String>> {
    let mut sides: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let reaching = clients.iter().filter(|client| client.is_ipv4() == at.is_ipv4());
    for client in reaching {
        if let Some(side) = structure.side_of(*client) {
            sides.entry(side).or_default().push(client.to_string());
        }
    }
    sides
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::enforce::shape::structure::structure;

    fn structure_of(mode: &str) -> Structure {
        let side = |name: &str, networks: [&str; 2]| {
            serde_json::json!({
                "name": name, "zone": name, "behind": [], "networks": networks, "observing": "nothing",
                "routers": [], "hardware": []
            })
        };
        let plan = serde_json::json!({
            "format": "penstock-plan/2", "plant": "p", "gateway": "g", "mode": mode, "requires": [],
            "on_drift": "repair", "management": null, "rules": [], "bridges": [],
            "interfaces": [side("lan1", ["10.1.0.0/24", "fd01::/64"]), side("lan2", ["10.2.0.0/24", "fd02::/64"])]
        });
        let plan = penstock_policy::plan::Plan::from_bytes(plan.to_string().as_bytes()).unwrap();
        structure(&plan, None).unwrap().0
    }

    fn written(structure: &Structure) -> String {
        let mut script = String::new();
        input(&mut script, structure, "GUARDED");
        script
    }

    #[test]
    fn a_service_of_the_gateway_opens_its_address_and_port_to_guarded_sides_and_nothing_else() {
        let mut structure = structure_of("routed");
        assert_eq!(written(&structure), "");
        structure.own = ["10.0.0.1:9443", "[fd00::1]:9443"]
            .map(|at| (at.parse().unwrap(), OwnClients::GuardedSides))
            .into();
        assert_eq!(
            written(&structure),
            "GUARDED ip daddr 10.0.0.1 tcp dport 9443 accept\n\
             GUARDED ip6 daddr fd00::1 tcp dport 9443 accept\n"
        );
    }

    #[test]
    fn a_service_for_some_clients_opens_to_each_on_its_own_side_and_to_no_address_that_no_side_has() {
        let clients = [
            "10.1.0.8",
            "10.1.0.9",
            "10.2.0.9",
            "10.3.0.9",
            "192.0.2.1",
            "fd01::9",
        ];
        let clients = BTreeSet::from(clients.map(|client| client.parse().unwrap()));
        let mut structure = structure_of("routed");
        structure.own = [("10.1.0.1:502".parse().unwrap(), OwnClients::Only(clients.clone()))].into();
        assert_eq!(
            written(&structure),
            "iifname \"lan1\" ip saddr { 10.1.0.8, 10.1.0.9 } ip daddr 10.1.0.1 tcp dport 502 accept\n\
             iifname \"lan2\" ip saddr { 10.2.0.9 } ip daddr 10.1.0.1 tcp dport 502 accept\n"
        );
        structure.own = [(
            "[fd01::1]:502".parse().unwrap(),
            OwnClients::Only(clients.clone()),
        )]
        .into();
        assert_eq!(
            written(&structure),
            "iifname \"lan1\" ip6 saddr { fd01::9 } ip6 daddr fd01::1 tcp dport 502 accept\n"
        );
        let mut structure = structure_of("bridged");
        structure.own = [("10.1.0.1:502".parse().unwrap(), OwnClients::Only(clients))].into();
        assert_eq!(
            written(&structure),
            "GUARDED ip saddr { 10.1.0.8, 10.1.0.9 } ip daddr 10.1.0.1 tcp dport 502 accept\n\
             GUARDED ip saddr { 10.2.0.9 } ip daddr 10.1.0.1 tcp dport 502 accept\n"
        );
        structure.own = [("10.1.0.1:502".parse().unwrap(), OwnClients::Only(BTreeSet::new()))].into();
        assert_eq!(written(&structure), "", "nobody is not everybody");
    }
}
