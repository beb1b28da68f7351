//! Recordings of a client's TLS that ends at a gateway before a server in the plain: in front of it nothing inside is seen, behind it
//! nobody's flow is.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use penstock_inspect::replay::{Gate, Plans, When};
use penstock_policy::plan::Plan;
use penstock_policy::protocol::{RoleOperations, Roles};
use penstock_policy::terms::{PortRange, Tls, Transport};

/// A plan whose one flow ends its clients' TLS before a server in the plain.
fn plan() -> Plan {
    let stored = include_bytes!("../../../policy/fixtures/plan-format-2.json");
    let mut plan = Plan::from_bytes(stored).unwrap();
    plan.rules.retain(|rule| rule.flow.as_str() == "polling");
    plan.rules[0].transport = Transport::Tcp(vec![PortRange::single(802)]);
    plan.rules[0].tls = Some(
        Tls {
            plain_port: Some(502),
            ..Tls::default()
        }
        .into(),
    );
    plan
}

/// What becomes of a connection to this port.
fn gate(plan: &Plan, client: &str, port: u16) -> Gate {
    let plans = Plans::new(vec![plan.clone()]).unwrap();
    let ends = [(client, 40_000), ("10.20.4.7", port)];
    let [client, server] = ends.map(|(address, port)| SocketAddr::new(address.parse().unwrap(), port));
    plans.tracks(client, server, When::Ever).remove(0).gate
}

#[test]
fn where_operations_go_by_the_clients_role_it_is_said_that_a_recording_shows_none() {
    let mut plan = plan();
    let by_role = BTreeMap::from([("engineer".parse().unwrap(), RoleOperations::All)]);
    plan.rules[0].roles = Some(
        Roles {
            by_role,
            default: None,
        }
        .into(),
    );
    let gate = gate(&plan, "10.20.1.21", 802);
    assert!(matches!(gate, Gate::Sealed { .. }), "{gate:?}");
    let because = gate.answer().because;
    assert!(
        because.contains("neither what is inside its TLS nor the client's role"),
        "{because}"
    );
}

#[test]
fn in_front_a_connection_is_judged_as_a_whole_and_behind_it_is_named_for_what_it_may_be() {
    let mut plan = plan();
    let limited = plan.rules[0].operations.clone();
    for operations in [limited, None] {
        plan.rules[0].operations = operations;
        let at = |client: &str, port: u16| gate(&plan, client, port);
        let front = at("10.20.1.21", 802);
        assert!(matches!(front, Gate::Sealed { .. }), "{front:?}");
        assert!(
            front
                .answer()
                .because
                .contains("does not show what is inside its TLS"),
            "{front:?}"
        );
        let behind = at("10.20.1.21", 502);
        assert!(matches!(behind, Gate::Shut { .. }), "{behind:?}");
        assert!(
            behind
                .answer()
                .because
                .contains("shows its own connection for control-room-to-pumps/polling"),
            "{behind:?}"
        );
        // Of another client's it is not.
        let other = at("10.20.1.99", 502);
        assert!(
            !other.answer().because.contains("its own connection"),
            "{other:?}"
        );
    }
}
