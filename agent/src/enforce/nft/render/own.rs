//! Services of the gateway itself that guarded sides may reach: the place where devices enrol. Not the plan's, but this machine's
//! configuration names them, and only addresses that this machine has are meant: what goes on to elsewhere is no input.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::enforce::shape::structure::Structure;

/// Accepts what is for them from a guarded side, which `guarded` matches.
pub(super) fn input(script: &mut String, structure: &Structure, guarded: &str) {
    for at in &structure.own {
        let (ip, address, port) = match at {
            SocketAddr::V4(at) => ("ip", at.ip().to_string(), at.port()),
            SocketAddr::V6(at) => ("ip6", at.ip().to_string(), at.port()),
        };
        let _ = writeln!(script, "{guarded} {ip} daddr {address} tcp dport {port} accept");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::enforce::shape::structure::structure;

    #[test]
    fn a_service_of_the_gateway_opens_its_address_and_port_to_guarded_sides_and_nothing_else() {
        let plan = serde_json::json!({
            "format": "penstock-plan/1", "plant": "p", "gateway": "g", "mode": "routed", "requires": [],
            "on_drift": "repair", "interfaces": [], "management": null, "rules": [], "bridges": []
        });
        let plan = penstock_policy::plan::Plan::from_bytes(plan.to_string().as_bytes()).unwrap();
        let (mut structure, _) = structure(&plan, None).unwrap();
        let written = |structure: &Structure| {
            let mut script = String::new();
            input(&mut script, structure, "iifname @guarded");
            script
        };
        assert_eq!(written(&structure), "");
        structure.own = ["10.0.0.1:9443", "[fd00::1]:9443"]
            .map(|at| at.parse().unwrap())
            .into();
        assert_eq!(
            written(&structure),
            "iifname @guarded ip daddr 10.0.0.1 tcp dport 9443 accept\n\
             iifname @guarded ip6 daddr fd00::1 tcp dport 9443 accept\n"
        );
    }
}
