//! What an approver reads against what the inspector then does: a list that is called narrower permits no operation
//! that the one before did not, and one that is called wider refuses none.

use penstock_inspect::judge::Rules;
use penstock_inspect::modbus::judge::ModbusRules;
use penstock_inspect::modbus::request::Request;
use penstock_inspect::mqtt::Operation;
use penstock_inspect::mqtt::judge::MqttRules;
use penstock_policy::diff::{Effect, diff_operations};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;
use proptest::prelude::*;

use crate::recorder::range;

fn ranges(greatest: u32) -> impl Strategy<Value = Option<Vec<NumberRange>>> + Clone {
    let one = (0..=greatest, 0..=greatest)
        .prop_map(move |(first, more)| range(first, (first + more).min(greatest)));
    prop::option::of(prop::collection::vec(one, 1..3))
}

pub(crate) fn modbus() -> impl Strategy<Value = ModbusOperation> + Clone {
    let names = prop::sample::select(vec![
        "read-holding-registers",
        "write-single-register",
        "mask-write-register",
        "read-write-multiple-registers",
        "diagnostics",
        "report-server-id",
        "canopen-general-reference",
        "read-device-identification",
        "function-65",
        "read-only",
        "read-write",
        "programming",
    ]);
    (names, ranges(2), ranges(12), ranges(12), ranges(4), ranges(16)).prop_map(
        |(name, units, addresses, read_addresses, values, sub_functions)| ModbusOperation {
            function: name.to_owned(),
            units,
            addresses,
            read_addresses,
            values,
            sub_functions,
        },
    )
}

pub(crate) fn mqtt() -> impl Strategy<Value = MqttOperation> + Clone {
    let filter = prop::sample::select(vec![
        "#",
        "+",
        "+/#",
        "a",
        "a/#",
        "a/+",
        "a/b",
        "+/b",
        "$SYS/#",
        "$share/g/a/#",
        "$share/+/a",
        "$share/g/#",
    ]);
    let topics = prop::collection::vec(filter, 1..3)
        .prop_map(|topics| topics.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let qos = (0..=2_u32, 0..=2_u32).prop_map(|(one, other)| range(one.min(other), one.max(other)));
    let names = prop::option::of(
        prop::collection::vec(prop::sample::select(vec!["pump", "fan"]), 1..3)
            .prop_map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>()),
    );
    prop_oneof![
        (topics.clone(), qos.clone(), any::<bool>()).prop_filter_map(
            "a share is no topic",
            |(topics, qos, retain)| {
                let shared = topics.iter().any(|topic| topic.starts_with("$share"));
                (!shared).then_some(MqttOperation::Publish { topics, qos, retain })
            }
        ),
        (topics, qos).prop_map(|(topics, qos)| MqttOperation::Subscribe { topics, qos }),
        (names.clone(), names).prop_map(|(client_ids, users)| MqttOperation::Connect { client_ids, users }),
    ]
}

/// Two lists that have much in common: the second is the first with some entries left out or taken from elsewhere.
fn related<T: Clone + std::fmt::Debug>(
    entry: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    let pairs = prop::collection::vec((entry.clone(), entry, 0..6_u8), 1..4);
    pairs.prop_map(|pairs| {
        let old: Vec<T> = pairs.iter().map(|(one, _, _)| one.clone()).collect();
        let mut new: Vec<T> = pairs
            .iter()
            .filter_map(|(one, other, how)| match how {
                0 => None,
                1 => Some(other.clone()),
                _ => Some(one.clone()),
            })
            .collect();
        if new.is_empty() {
            new.clone_from(&old);
        }
        (old, new)
    })
}

/// Either list may be the newer one.
fn either_way<T>((old, new): (Vec<T>, Vec<T>), turned: bool) -> (Vec<T>, Vec<T>) {
    if turned { (new, old) } else { (old, new) }
}

/// A judgement by the old list and by the new one, against what was said of the two.
fn holds(effect: Effect, before: bool, after: bool) -> bool {
    match effect {
        Effect::Narrowed => before || !after,
        Effect::Widened => after || !before,
        Effect::Recorded => before == after,
        Effect::Altered => true,
        Effect::Added | Effect::Removed => false,
    }
}

pub(crate) fn requests() -> impl Iterator<Item = (u8, Vec<u8>)> {
    let mut pdus: Vec<Vec<u8>> = Vec::new();
    for first in 0..13 {
        for count in [1, 2, 6] {
            pdus.push(vec![3, 0, first, 0, count]);
            for write in [0, 5, 11] {
                pdus.push(vec![23, 0, first, 0, count, 0, write, 0, 1, 2, 0, count]);
            }
        }
        for value in 0..6 {
            pdus.push(vec![6, 0, first, 0, value]);
            pdus.push(vec![22, 0, first, 0, value, 0, 1]);
        }
    }
    pdus.extend((0..18).map(|sub| vec![8, 0, sub, 0, 0]));
    pdus.extend([
        vec![17],
        vec![43, 14, 1, 0],
        vec![43, 13, 0],
        vec![65, 1],
        vec![90, 0],
    ]);
    (0..4).flat_map(move |unit| pdus.clone().into_iter().map(move |pdu| (unit, pdu)))
}

pub(crate) fn messages() -> Vec<Operation<'static>> {
    let mut all = Vec::new();
    for topic in ["a", "b", "a/b", "a/b/c", "x", "$SYS/x", "a/$x"] {
        for qos in 0..3 {
            for retain in [false, true] {
                all.push(Operation::Publish {
                    topic: topic.into(),
                    qos,
                    retain,
                });
                all.push(Operation::Deliver {
                    topic: topic.into(),
                    qos,
                    retain,
                });
            }
        }
    }
    for filter in [
        "#",
        "a",
        "a/#",
        "a/+",
        "+/b",
        "$SYS/x",
        "$share/g/a",
        "$share/h/a",
        "$share/g/a/#",
    ] {
        for qos in 0..3 {
            all.push(Operation::Subscribe {
                filter: filter.into(),
                qos,
            });
        }
    }
    for client in ["pump", "fan", "other"] {
        for user in [None, Some("pump"), Some("other")] {
            all.push(Operation::Connect {
                client_id: client.into(),
                user: user.map(Into::into),
            });
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]
    #[test]
    fn what_is_called_narrower_permits_no_other_modbus_request(
        lists in related(modbus()), turned in any::<bool>(),
    ) {
        let (old, new) = either_way(lists, turned);
        let (old, new) = (Operations::from(old), Operations::from(new));
        let (effect, details) = diff_operations(&old, &new);
        prop_assert_eq!(effect == Effect::Recorded, details.is_empty(), "{:?}", details);
        let (old, new) = (Rules::compile(&old).unwrap(), Rules::compile(&new).unwrap());
        let (before, after) = (old.of::<ModbusRules>().unwrap(), new.of::<ModbusRules>().unwrap());
        for (unit, pdu) in requests() {
            let request = Request::decode(unit, &pdu).unwrap();
            let (before, after) = (before.judge(&request).allows(), after.judge(&request).allows());
            prop_assert!(holds(effect, before, after), "{:?}: {:?} {} → {}, but {:?}", details, request, before, after, effect);
        }
    }

    #[test]
    fn what_is_called_narrower_permits_no_other_mqtt_operation(
        lists in related(mqtt()), turned in any::<bool>(),
    ) {
        let (old, new) = either_way(lists, turned);
        let (old, new) = (Operations::from(old), Operations::from(new));
        let (effect, details) = diff_operations(&old, &new);
        prop_assert_eq!(effect == Effect::Recorded, details.is_empty(), "{:?}", details);
        let (old, new) = (Rules::compile(&old).unwrap(), Rules::compile(&new).unwrap());
        let (before, after) = (old.of::<MqttRules>().unwrap(), new.of::<MqttRules>().unwrap());
        for operation in messages() {
            let (before, after) = (before.judge(&operation).allows(), after.judge(&operation).allows());
            prop_assert!(holds(effect, before, after), "{:?}: {:?} {} → {}, but {:?}", details, operation, before, after, effect);
        }
    }
}

/// The property would hold of a comparison that called everything altered.
#[test]
fn related_lists_come_out_narrower_and_wider_often_enough_to_mean_something() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut told = 0;
    for _ in 0..200 {
        let (old, new) = related(mqtt()).new_tree(&mut runner).unwrap().current();
        let (effect, _) = diff_operations(&Operations::from(old), &Operations::from(new));
        told += u32::from(matches!(effect, Effect::Narrowed | Effect::Widened));
        let (old, new) = related(modbus()).new_tree(&mut runner).unwrap().current();
        let (effect, _) = diff_operations(&Operations::from(old), &Operations::from(new));
        told += u32::from(matches!(effect, Effect::Narrowed | Effect::Widened));
    }
    assert!(told > 60, "{told} of 400");
}
