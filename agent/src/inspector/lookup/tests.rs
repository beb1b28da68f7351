#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;

use penstock_inspect::judge::Verdict;
use penstock_inspect::modbus::{ModbusRules, Request};
use penstock_policy::arbitrary::plans_with_connections;
use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::protocol::{Permitted, Roles};
use penstock_policy::terms::NumberRange;
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

const CLIENT: &str = "127.0.0.1";

fn reads(first: u32, last: u32) -> Operations {
    let addresses = penstock_policy::protocol::LimitSet::Numbers(vec![NumberRange { first, last }]);
    let read = Permitted {
        operation: "read-holding-registers".to_owned(),
        limits: BTreeMap::from([("addresses", addresses)]),
    };
    Operations::of(MODBUS_TCP, [read])
}

/// Two flows that share their connections: the first tells roles apart, the second only says what anybody may do.
fn by_role(default: Option<&str>, with_second: bool) -> InspectionPolicy {
    let mut plan = crate::inspector::tests::plan(502, Some(reads(0, 99)), Enforcement::Enforce);
    let mut second = plan.rules[0].clone();
    let only = RoleOperations::Only(reads(40, 200));
    let by_role = BTreeMap::from([
        ("engineer".parse().unwrap(), RoleOperations::All),
        ("operator".parse().unwrap(), only),
    ]);
    let default = default.map(|role| role.parse().unwrap());
    plan.rules[0].roles = Some(Roles { by_role, default }.into());
    second.id = FlowId(8);
    second.flow = "second".parse().unwrap();
    second.operations = Some(reads(300, 309).into());
    plan.rules.extend(with_second.then_some(second));
    for rule in &mut plan.rules {
        rule.tls = Some(Arc::new(Tls {
            plain_port: Some(1502),
            ..Tls::default()
        }));
    }
    InspectionPolicy::new(Arc::new(plan), Revision(1)).unwrap()
}

/// Which of these registers a client may read, and by which flow.
fn readable(policy: &InspectionPolicy, certified: Option<Option<&str>>) -> Vec<(u16, String)> {
    let tuple = Tuple {
        client: CLIENT.parse().unwrap(),
        server: SocketAddr::new(CLIENT.parse().unwrap(), 502),
        device: certified.map(|_| std::rc::Rc::new("hmi".parse().unwrap())),
        role: certified.flatten().map(|role| role.parse().unwrap()),
    };
    let TupleRules::Only(set) = policy.find_for(&tuple) else {
        panic!("{certified:?}")
    };
    assert_eq!(set.by_role, certified.is_some());
    let rules = set.rules.as_ref().unwrap();
    let judge = rules.of::<ModbusRules>().unwrap();
    let read = |address: u16| {
        let [high, low] = address.to_be_bytes();
        let pdu = [3, high, low, 0, 1];
        match judge.judge(&Request::decode(1, &pdu).unwrap()) {
            Verdict::Allow(rule) => Some((address, set.flow(Some(rule)).unwrap().name.clone())),
            _ => None,
        }
    };
    [7, 45, 150, 305].into_iter().filter_map(read).collect()
}

#[test]
fn a_role_takes_away_what_it_does_not_have_and_nothing_of_another_flow() {
    let first = |register: u16| (register, "supply/polling".to_owned());
    let second = (305, "supply/second".to_owned());
    for (default, as_nobody) in [(None, vec![]), (Some("operator"), vec![first(45)])] {
        let (alone, shared) = (by_role(default, false), by_role(default, true));
        for (role, mut may) in [
            (Some("engineer"), vec![first(7), first(45)]),
            (Some("operator"), vec![first(45)]),
            (Some("guest"), vec![]),
            (None, as_nobody),
        ] {
            assert_eq!(readable(&alone, Some(role)), may, "{role:?}, else {default:?}");
            may.push(second.clone());
            assert_eq!(readable(&shared, Some(role)), may, "{role:?}, else {default:?}");
        }
        // Before a certificate was shown, the connection is the flow's.
        let all = vec![first(7), first(45), second.clone()];
        assert_eq!(readable(&shared, None), all);
    }
}

#[test]
fn a_role_that_cannot_be_read_keeps_nobody_out_where_no_role_counts_or_nothing_is_enforced() {
    let reading = |policy: &InspectionPolicy| {
        let server = SocketAddr::new(CLIENT.parse().unwrap(), 502);
        policy.role_reading(CLIENT.parse().unwrap(), server)
    };
    let policy = by_role(None, true);
    assert_eq!(reading(&policy), RoleReading::Strict);
    let changed = |change: fn(&mut Plan)| {
        let mut plan = (*policy.plan).clone();
        change(&mut plan);
        InspectionPolicy::new(Arc::new(plan), Revision(1)).unwrap()
    };
    let without = changed(|plan| plan.rules[0].roles = None);
    assert_eq!(reading(&without), RoleReading::Ignored);
    let observing = changed(|plan| plan.interfaces[0].observing = Enforcement::Observe.into());
    assert_eq!(reading(&observing), RoleReading::Ignored);
}
