#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use std::sync::Arc;

use penstock_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::alarms::view::PublishedAlarms;
use crate::health_watch::PublishedHealth;

fn state(zones: &[u8]) -> PlantState {
    let health = v1::PlantHealth {
        zones: zones
            .iter()
            .zip(0..)
            .map(|(state, zone)| v1::ZoneHealth {
                zone: format!("zone-{zone}"),
                state: i32::from(state % 6) + 1,
                ..v1::ZoneHealth::default()
            })
            .collect(),
        ..v1::PlantHealth::default()
    };
    PlantState {
        health: Arc::new(PublishedHealth::new(health)),
        alarms: Arc::new(PublishedAlarms::default()),
    }
}

fn node() -> Node {
    Node::new(SparkplugNode {
        group: "works".to_owned(),
        node: "penstock".to_owned(),
    })
}

fn rebirth() -> Vec<u8> {
    let payload = Payload {
        timestamp: Some(1),
        metrics: vec![Metric::new(REBIRTH, &Value::Boolean(true), Some(1))],
        seq: None,
    };
    payload.encode_to_vec()
}

/// What a host application knows, by the rules of the specification.
#[derive(Default)]
struct Host {
    values: BTreeMap<String, Option<payload::Wire>>,
    seq: Option<u64>,
    birth: Option<u64>,
}

impl Host {
    fn take(&mut self, message: &Outgoing) {
        let payload = Payload::decode(message.payload.as_ref()).unwrap();
        let birth = |payload: &Payload| {
            let own = payload
                .metrics
                .iter()
                .find(|metric| metric.name.as_deref() == Some(BIRTH_DEATH));
            own.map(|metric| match metric.value {
                Some(payload::Wire::Long(number)) => number,
                _ => panic!("{metric:?}"),
            })
        };
        let kind = message.topic.split('/').nth(2).unwrap();
        match kind {
            "NBIRTH" => {
                assert_eq!(payload.seq, Some(0));
                self.birth = birth(&payload);
                self.values.clear();
            }
            "NDATA" => {
                assert_eq!(
                    payload.seq,
                    self.seq.map(|seq| (seq + 1) % 256),
                    "nothing is missing"
                );
                for metric in &payload.metrics {
                    let name = metric.name.as_ref().unwrap();
                    assert!(self.values.contains_key(name), "{name} was in the birth");
                }
            }
            other => panic!("{other}"),
        }
        self.seq = payload.seq;
        for metric in payload.metrics {
            self.values.insert(metric.name.unwrap(), metric.value);
        }
    }
}

fn deliver(node: &mut Node, host: &mut Host, now_ms: u64, most: usize) {
    for _ in 0..most {
        let Some(next) = node.next(now_ms) else { return };
        assert_eq!(node.next(now_ms), Some(next.clone()), "until it is sent");
        node.sent();
        host.take(&next);
    }
}

proptest! {
    /// Zones come, go and change, hosts ask for births, connections break: a host that keeps the rules knows the newest value of each metric.
    #[test]
    fn a_host_knows_the_newest_value_of_each_metric_by_births_and_numbered_data(
        all in proptest::collection::vec((proptest::collection::vec(0..6_u8, 0..3), 0..4_u8, 0..5_usize), 1..60),
    ) {
        let (mut node, mut host) = (node(), Host::default());
        let mut now_ms = 1_800_000_000_000;
        node.will();
        node.connected();
        for (zones, happening, most) in &all {
            now_ms += 700;
            node.show(&state(zones), now_ms);
            match happening {
                0 => {
                    node.take("spBv1.0/works/NCMD/penstock", &rebirth(), now_ms);
                }
                1 => {
                    let will = Payload::decode(node.will().payload.as_ref()).unwrap();
                    node.connected();
                    host = Host::default();
                    deliver(&mut node, &mut host, now_ms, 1);
                    let number = will.metrics[0].value.clone();
                    prop_assert_eq!(number, host.birth.map(payload::Wire::Long), "the death is of this birth");
                }
                _ => {}
            }
            deliver(&mut node, &mut host, now_ms, *most);
        }
        deliver(&mut node, &mut host, now_ms, usize::MAX);
        let zones = &all.last().unwrap().0;
        for (name, value) in metrics(&state(zones)) {
            let wire = Metric::new("", &value, None).value;
            prop_assert_eq!(host.values.get(&name), Some(&wire), "{}", name);
        }
    }

    #[test]
    fn whatever_a_broker_brings_is_no_command_but_rebirth(topic in "[A-Za-z0-9./]{0,40}", payload: Vec<u8>) {
        let mut node = node();
        node.take(&topic, &payload, 1_800_000_000_000);
        prop_assert!(!node.is_birth_due && !node.is_birth_wanted);
    }
}

#[test]
fn births_that_are_asked_for_again_and_again_are_one_a_second() {
    let (mut node, mut host) = (node(), Host::default());
    node.will();
    node.connected();
    node.show(&state(&[1]), 10_000);
    deliver(&mut node, &mut host, 10_000, usize::MAX);
    let mut births = 0;
    for now_ms in 10_000..15_000 {
        node.take("spBv1.0/works/NCMD/penstock", &rebirth(), now_ms);
        if let Some(next) = node.next(now_ms) {
            node.sent();
            births += u32::from(next.topic.contains("NBIRTH"));
        }
    }
    assert_eq!(births, 4);
}
