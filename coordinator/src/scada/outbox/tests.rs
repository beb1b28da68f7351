#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use penstock_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::alarms::view::PublishedAlarms;
use crate::health_watch::PublishedHealth;
use crate::scada::settings::ScadaFile;

fn topics(acknowledge: bool) -> Topics {
    let file = ScadaFile {
        broker: "mqtt://127.0.0.1:1883".to_owned(),
        acknowledge,
        ..ScadaFile::default()
    };
    let settings = file.check().unwrap().unwrap();
    Topics::new(
        &settings,
        &PlantId::new("works").unwrap(),
        &CoordinatorId::new("c1").unwrap(),
    )
}

/// A plant with zones in these states, one alarm of each whose state is odd.
fn state(zones: &BTreeMap<u8, u8>) -> PlantState {
    let name = |zone: &u8| format!("zone-{zone}");
    let health = v1::PlantHealth {
        current_revision: 3,
        zones: zones
            .iter()
            .map(|(zone, state)| v1::ZoneHealth {
                zone: name(zone),
                state: i32::from(state % 6) + 1,
                reasons: vec![format!("reason {state}")],
                ..v1::ZoneHealth::default()
            })
            .collect(),
        ..v1::PlantHealth::default()
    };
    let alarmed = zones.iter().filter(|(_, state)| **state % 2 == 1);
    let alarms = v1::PlantAlarms {
        alarms: alarmed
            .map(|(zone, state)| v1::Alarm {
                zone: name(zone),
                cause: "stale".to_owned(),
                state: "unacknowledged".to_owned(),
                priority: "low".to_owned(),
                message: format!("message {state}"),
                since_ms: 1_800_000_000_000,
                ..v1::Alarm::default()
            })
            .collect(),
        ..v1::PlantAlarms::default()
    };
    PlantState {
        health: Arc::new(PublishedHealth::new(health)),
        alarms: Arc::new(PublishedAlarms::new(alarms)),
    }
}

/// What a broker keeps of what it took.
fn deliver(topics: &mut Topics, broker: &mut BTreeMap<String, Bytes>, most: usize) {
    for _ in 0..most {
        let Some(next) = topics.next(0) else { return };
        topics.sent();
        match next.payload.is_empty() {
            true => broker.remove(&next.topic),
            false => broker.insert(next.topic, next.payload),
        };
    }
}

#[derive(Debug, Clone)]
enum Happening {
    Shown(BTreeMap<u8, u8>),
    Delivered(usize),
    /// The broker was away.
    Away(bool),
    /// So many went out and were lost with the connection.
    Lost(usize),
}

proptest! {
    /// Whatever happens on the way, and whether the broker keeps anything or begins empty: in the end it has the newest state of each
    /// topic, and nothing else.
    #[test]
    fn the_newest_state_of_each_topic_arrives_in_the_end_and_nothing_waits_twice(
        all in proptest::collection::vec(prop_oneof![
            3 => proptest::collection::btree_map(0..4_u8, 0..12_u8, 0..4).prop_map(Happening::Shown),
            3 => (0..40_usize).prop_map(Happening::Delivered),
            1 => any::<bool>().prop_map(Happening::Away),
            1 => (0..40_usize).prop_map(Happening::Lost),
        ], 1..40),
        last in proptest::collection::btree_map(0..4_u8, 0..12_u8, 0..4),
    ) {
        let (mut topics, mut broker) = (topics(false), BTreeMap::new());
        topics.connected();
        for happening in all {
            match happening {
                Happening::Shown(zones) => topics.show(&state(&zones), 0),
                Happening::Delivered(most) => deliver(&mut topics, &mut broker, most),
                Happening::Away(forgets) => {
                    if forgets {
                        broker.clear();
                    }
                    topics.connected();
                }
                Happening::Lost(most) => {
                    deliver(&mut topics, &mut BTreeMap::new(), most);
                    topics.connected();
                }
            }
            // One of each topic, six causes and health of four zones, the plant's own, the numbers, and who is online.
            prop_assert!(topics.new.len() <= 4 * 7 + 3);
        }
        topics.show(&state(&last), 0);
        topics.connected();
        deliver(&mut topics, &mut broker, usize::MAX);
        let mut expected = board("penstock/works", &state(&last));
        expected.insert("penstock/works/coordinator/c1/online".to_owned(), Bytes::from("true"));
        prop_assert_eq!(broker, expected);
    }

    /// A broker may bring anything: only an acknowledgement of an alarm of this plant is one.
    #[test]
    fn whatever_comes_by_topic_is_an_acknowledgement_of_one_alarm_or_nothing(topic in "[a-z/_+#]{0,40}", payload: Vec<u8>) {
        let mut topics = topics(true);
        prop_assert_eq!(topics.take(&topic, &payload, 0), None);
    }
}

#[test]
fn an_acknowledgement_names_one_alarm_of_this_plant_and_somebody_and_is_taken_only_where_that_is_configured()
{
    let topic = "penstock/works/alarm/boiler/must-flow/ack";
    let message = br#"{"user": " rosa ", "reason": "seen at the panel"}"#;
    let taken = topics(true).take(topic, message, 0).unwrap();
    assert_eq!(taken.key.to_string(), "boiler/must-flow");
    assert_eq!(
        (taken.user.as_str(), taken.reason.as_str()),
        ("rosa", "seen at the panel")
    );
    assert!(
        topics(true)
            .take("penstock/works/alarm/_plant/rollout/ack", message, 0)
            .is_some()
    );
    assert_eq!(topics(false).take(topic, message, 0), None);
    assert_eq!(topics(false).subscriptions(), [""; 0]);
    for other in [
        "penstock/other/alarm/boiler/must-flow/ack",
        "penstock/works/alarm/boiler/must-flow",
        "penstock/works/alarm/boiler/noise/ack",
        "penstock/works/alarm//must-flow/ack",
        "penstock/works/alarm/+/must-flow/ack",
        "penstock/works/alarm/boiler/must-flow/ack/ack",
    ] {
        assert_eq!(topics(true).take(other, message, 0), None, "{other}");
    }
    for other in [
        "{}",
        r#"{"user": ""}"#,
        r#"{"user": "rosa", "shelve": true}"#,
        "{\"user\": \"ro\\nsa\"}",
        &format!(r#"{{"user": "{}"}}"#, "r".repeat(65)),
        &format!(r#"{{"user": "rosa", "reason": "{}"}}"#, "r".repeat(2048)),
    ] {
        assert_eq!(topics(true).take(topic, other.as_bytes(), 0), None, "{other}");
    }
}
