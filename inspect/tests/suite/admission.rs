//! Flows that share a connection: a client may do what any flow permits that lets it connect, and no more.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Sender};
use penstock_inspect::judge::{OnRefusal, Rules, Verdict};
use penstock_inspect::mqtt::judge::MqttRules;
use penstock_inspect::mqtt::operation::Operation;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use proptest::prelude::*;

use crate::mqtt_packets::{connack, connect, publication};
use crate::narrower::{messages, mqtt};
use crate::recorder::{Record, publish, resumed};

/// Clients by identifier and user.
const CLIENTS: [(&str, Option<&str>); 5] = [
    ("pump", None),
    ("pump", Some("fan")),
    ("fan", Some("pump")),
    ("other", Some("fan")),
    ("other", None),
];

fn union(lists: &[Vec<MqttOperation>]) -> (Rules, Vec<usize>) {
    let lists: Vec<_> = lists.iter().cloned().map(Operations::from).collect();
    Rules::union(&lists).unwrap()
}

/// Each message, publications also as wills.
fn asked() -> impl Iterator<Item = Operation<'static>> {
    messages()
        .into_iter()
        .filter(|operation| !matches!(operation, Operation::Connect { .. }))
        .flat_map(|operation| {
            let will = match &operation {
                Operation::Publish { topic, qos, retain } => Some(Operation::Will {
                    topic: topic.clone(),
                    qos: *qos,
                    retain: *retain,
                }),
                _ => None,
            };
            std::iter::once(operation).chain(will)
        })
}

proptest! {
    #[test]
    fn an_operation_is_permitted_exactly_if_some_flow_alone_permits_it_and_the_clients_connect(
        lists in prop::collection::vec(prop::collection::vec(mqtt(), 1..4), 1..4)
    ) {
        let (rules, owners) = union(&lists);
        let rules: &MqttRules = rules.of().expect("lists of MQTT");
        let alone: Vec<MqttRules> = lists.iter().map(|list| MqttRules::compile(list).unwrap()).collect();
        for (client_id, user) in CLIENTS {
            let connect = Operation::Connect { client_id: client_id.into(), user: user.map(Into::into) };
            let letting: Vec<bool> = alone.iter().map(|rules| rules.judge(&connect).allows()).collect();
            let client = rules.admit(client_id, user);
            prop_assert_eq!(rules.judge_for(&client, &connect).allows(), letting.contains(&true));
            for operation in asked() {
                let permits = |at: usize| letting[at] && alone[at].judge(&operation).allows();
                let verdict = rules.judge_for(&client, &operation);
                // To end a subscription needs no rule.
                let expected = matches!(operation, Operation::Unsubscribe { .. }) || (0..alone.len()).any(permits);
                prop_assert_eq!(verdict.allows(), expected, "{:?} of {:?}: {:?}", operation, connect, verdict);
                if let Verdict::Allow(rule) = verdict {
                    prop_assert!(permits(owners[rule]), "{:?} by rule {}", operation, rule);
                }
            }
        }
    }
}

fn only(client: &str) -> MqttOperation {
    MqttOperation::Connect {
        client_ids: Some(vec![client.to_owned()]),
        users: None,
    }
}

/// Anyone reports; `client` also steers.
fn steered_by(client: &str) -> Arc<Rules> {
    let report = vec![publish(&["report/#"], (0, 2), true)];
    let steer = vec![only(client), publish(&["steer/#"], (0, 2), true)];
    Arc::new(union(&[report, steer]).0)
}

fn feed(connection: &mut Connection, from: Sender, bytes: &[u8]) -> Record {
    let mut record = Record::default();
    connection.feed(from, Duration::ZERO, bytes, &mut |output| record.take(output));
    record
}

fn opened(rules: &Arc<Rules>, client: &str) -> Connection {
    let mut connection = Connection::new(
        Arc::clone(rules),
        Mode::Enforce,
        OnRefusal::Answer,
        ConnectionLimits::default(),
    );
    assert_eq!(
        feed(&mut connection, Sender::Client, &connect(5, client)).to_server,
        connect(5, client)
    );
    feed(&mut connection, Sender::Server, &connack(5));
    connection
}

fn passes(connection: &mut Connection, topic: &str) -> bool {
    let record = feed(connection, Sender::Client, &publication(5, 0, topic, None, b"1"));
    assert_eq!(record.to_server.is_empty(), record.judged[0].contains("Refuse"));
    if record.to_server.is_empty() {
        assert!(
            record.judged[0].contains("client identifier or the user"),
            "{record:?}"
        );
    }
    !record.to_server.is_empty()
}

#[test]
fn a_flow_that_names_its_clients_limits_itself_and_not_the_flow_beside_it() {
    let rules = steered_by("plc-7");
    for (client, steers) in [("plc-7", true), ("hmi", false)] {
        let mut connection = opened(&rules, client);
        assert!(passes(&mut connection, "report/1"));
        assert_eq!(passes(&mut connection, "steer/1"), steers, "{client}");
    }
}

#[test]
fn a_changed_policy_and_a_restart_judge_the_client_that_is_connected_anew() {
    let mut connection = opened(&steered_by("plc-7"), "hmi");
    assert!(!passes(&mut connection, "steer/1"));
    connection.set_rules(steered_by("hmi"));
    assert!(passes(&mut connection, "steer/1"));

    let frozen = connection.freeze(Duration::ZERO);
    for (now, steers) in [("hmi", true), ("plc-7", false)] {
        let mut thawed = Connection::thaw(
            &frozen,
            Duration::ZERO,
            steered_by(now),
            Mode::Enforce,
            OnRefusal::Answer,
            ConnectionLimits::default(),
        )
        .unwrap();
        assert!(passes(&mut thawed, "report/1"));
        assert_eq!(passes(&mut thawed, "steer/1"), steers, "{now}");
    }

    let only_plc = Operations::from(vec![only("plc-7"), publish(&["steer/#"], (0, 2), true)]);
    connection.set_rules(Arc::new(Rules::compile(&only_plc).unwrap()));
    let record = feed(&mut connection, Sender::Client, &[0xc0, 0]);
    assert_eq!(record.closed, Some(false), "no flow lets it connect any more");
}

#[test]
fn of_a_client_whose_connect_was_not_seen_nothing_is_taken_for_granted_unless_observing() {
    for (mode, passed) in [(Mode::Enforce, false), (Mode::Observe, true)] {
        let mut resumed = resumed(steered_by("plc-7"), mode, 5);
        assert!(passes(&mut resumed, "report/1"));
        assert_eq!(passes(&mut resumed, "steer/1"), passed, "{mode:?}");
    }
    let mut resumed = resumed(steered_by("plc-7"), Mode::Observe, 5);
    resumed.set_terms(Mode::Enforce, OnRefusal::Answer, &mut |_| {});
    assert!(!passes(&mut resumed, "steer/1"));
}
