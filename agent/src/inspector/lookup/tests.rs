#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use penstock_policy::arbitrary::plans_with_connections;
use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::verdict::{Carried, Connection, Decision, Permissions, decide, permitted};
use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn the_index_says_what_the_oracle_says((plan, connections) in plans_with_connections(24)) {
        let plan = Arc::new(plan);
        let policy = InspectionPolicy::new(Arc::clone(&plan), Revision(1)).unwrap();
        for connection in connections {
            // The index knows TCP alone: whatever was drawn, its ends are asked about by TCP.
            let port = match connection.transport {
                Carried::Tcp(port) | Carried::Udp(port) => port,
                _ => 502,
            };
            let connection = Connection { transport: Carried::Tcp(port), ..connection };
            let found = policy.find(connection.source, SocketAddr::new(connection.destination, port));
            match (permitted(&plan, &connection), found) {
                (Permissions::Nothing, TupleRules::Nothing) | (Permissions::Anything, TupleRules::Anything) => {}
                (Permissions::Only(listed), found) => {
                    let union = Rules::union(listed.iter().map(|(_, operations)| *operations));
                    match (union, found) {
                        (Ok((_, owners)), TupleRules::Only(set)) => {
                            let names: Vec<_> = listed.iter().map(|(rule, _)| name(rule)).collect();
                            let found: Vec<_> = set.flows.iter().map(|flow| flow.name.clone()).collect();
                            prop_assert_eq!(names, found);
                            prop_assert_eq!(owners, set.owners.clone());
                            prop_assert_eq!(listed[0].0.on_refusal, set.on_refusal);
                            let in_order = listed.iter().all(|(rule, _)| rule.answers == Answers::InOrder);
                            let found = format!("{:?}", set.rules).contains("answers: InOrder");
                            prop_assert_eq!(in_order && set.protocol() == Some(MODBUS_TCP), found);
                            prop_assert!(listed.iter().all(|(rule, _)| rule.tls == set.tls));
                        }
                        (Err(error), TupleRules::Unusable(found)) => prop_assert_eq!(Discord::Operations(error), found),
                        (Ok(_), TupleRules::Unusable(Discord::Tls)) => {
                            prop_assert!(listed.iter().any(|(rule, _)| rule.tls != listed[0].0.tls));
                        }
                        (union, found) => prop_assert!(false, "{:?} and {:?}", union, found),
                    }
                }
                (oracle, found) => prop_assert!(false, "{:?}: {:?} and {:?}", connection, oracle, found),
            }
        }
    }

    #[test]
    fn it_observes_where_the_oracle_would_only_record((plan, connections) in plans_with_connections(24)) {
        let plan = Arc::new(plan);
        let policy = InspectionPolicy::new(Arc::clone(&plan), Revision(1)).unwrap();
        for connection in connections {
            let sides = |address: IpAddr| plan.interfaces.iter().filter(|side| side.holds(address)).count();
            let named = |name: &str| plan.interfaces.iter().any(|side| side.name == name);
            let placed = decide(&plan, &Connection { transport: Carried::Other(99), ..connection.clone() });
            let unambiguous = sides(connection.source) == 1 && sides(connection.destination) == 1;
            if unambiguous
                && named(&connection.ingress)
                && named(&connection.egress)
                && matches!(placed.reason, penstock_policy::verdict::Reason::NoRule { .. })
            {
                let mode = policy.mode(connection.source, connection.destination);
                prop_assert_eq!(mode == Mode::Observe, placed.decision == Decision::WouldDeny);
            }
        }
    }
}
