//! An MQTT connection under any interleaving of both sides.
//!
//! Promises: however it is cut or frozen the same comes out; whatever reaches the broker is readable, and everything
//! it makes the broker do in the eyes of [`super::mqtt_reference`] one rule permits; what is held is bounded.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{ConnectionLimits, Mode, Sender};
use penstock_inspect::judge::Rules;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;

use super::mqtt_reference::{Deed, Message, deeds, examples, matches};
use super::play::{Input, Script, Step, mode, on_refusal};

/// Small, so that the fuzzer reaches them.
const CONTROL_BYTES_MAX: usize = 400;
const QUEUED_BYTES_MAX: usize = 40;

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn publish(topics: &[&str], qos: (u32, u32), retain: bool) -> MqttOperation {
    MqttOperation::Publish {
        topics: strings(topics),
        qos: NumberRange {
            first: qos.0,
            last: qos.1,
        },
        retain,
    }
}

fn subscribe(topics: &[&str], last: u32) -> MqttOperation {
    MqttOperation::Subscribe {
        topics: strings(topics),
        qos: NumberRange { first: 0, last },
    }
}

/// The lists of rules that a script chooses from.
pub fn lists() -> Vec<Vec<MqttOperation>> {
    vec![
        vec![
            publish(&["a/+"], (0, 1), false),
            subscribe(&["b/#", "$share/g/jobs/+"], 1),
        ],
        vec![
            publish(&["#"], (0, 2), true),
            subscribe(&["#", "$SYS/#", "$share/+/#"], 2),
        ],
        vec![
            MqttOperation::Connect {
                client_ids: Some(strings(&["c", "d"])),
                users: None,
            },
            publish(&["a/b", "a/+/c", "+/x"], (2, 2), true),
            publish(&["a/b"], (0, 0), false),
            subscribe(&["+/b", "a/#"], 2),
        ],
        vec![subscribe(&["+/+"], 0)],
    ]
}

const TOPICS: &[&str] = &[
    "a/b",
    "a/",
    "a",
    "a/b/c",
    "",
    "$SYS/x",
    "a/+",
    "#",
    "b/#",
    "b",
    "$share/g/jobs/1",
    "$share/g/#",
    "+/x",
    "x/x",
];

fn text(text: &str) -> Vec<u8> {
    [
        &u16::try_from(text.len()).unwrap().to_be_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut packet, mut length) = (vec![first], body.len());
    while length > 127 {
        packet.push(u8::try_from(length % 128).unwrap() | 0x80);
        length /= 128;
    }
    packet.push(u8::try_from(length).unwrap());
    packet.extend(body);
    packet
}

fn topic(number: u8) -> &'static str {
    TOPICS[usize::from(number) % TOPICS.len()]
}

/// PUBLISH with flags, topic, alias and the length of its payload from the script.
fn publication(input: &mut Input<'_>, five: bool) -> Vec<u8> {
    let flags = input.byte() & 15;
    let mut body = text(topic(input.byte()));
    if flags & 6 != 0 {
        body.extend([0, input.byte() & 3]);
    }
    if five {
        match input.byte() & 15 {
            0 => body.push(0),
            alias => body.extend([3, 35, 0, alias - 1]),
        }
    }
    body.extend(vec![b'x'; usize::from(input.byte()) * 3]);
    packet(0x30 | flags, &body)
}

fn subscription(input: &mut Input<'_>, five: bool) -> Vec<u8> {
    let mut body = vec![0, input.byte() & 3];
    if five {
        body.push(0);
    }
    for _ in 0..input.byte() % 5 {
        body.extend(text(topic(input.byte())));
        body.push(input.byte());
    }
    packet(0x82, &body)
}

/// SUBACK with codes from the script.
fn answer(input: &mut Input<'_>, five: bool) -> Vec<u8> {
    let mut body = vec![0, input.byte() & 3];
    if five {
        body.push(0);
    }
    for _ in 0..input.byte() % 5 {
        body.push([0, 1, 2, 0x80][usize::from(input.byte() & 3)]);
    }
    packet(0x90, &body)
}

fn connect(input: &mut Input<'_>, five: bool) -> Vec<u8> {
    let flags = input.byte();
    let mut body = [&text("MQTT")[..], &[if five { 5 } else { 4 }, flags, 0, 60]].concat();
    if five {
        body.extend([3, 34, 0, 8]);
    }
    body.extend(text(["c", "d", "", "e"][usize::from(input.byte() & 3)]));
    if flags & 4 != 0 {
        if five {
            body.push(0);
        }
        body.extend(text(topic(input.byte())));
        body.extend(text("gone"));
    }
    if flags & 0x80 != 0 {
        body.extend(text("user"));
    }
    if flags & 0x40 != 0 {
        body.extend(text("secret"));
    }
    packet(0x10, &body)
}

fn script(data: &[u8]) -> Script {
    let mut input = Input(data);
    let config = input.byte();
    let five = config & 0x80 != 0;
    let rules = lists()
        .into_iter()
        .map(|list| Arc::new(Rules::compile(&Operations::from(list)).unwrap()))
        .collect();
    let connack = if five {
        vec![0x20, 6, 0, 0, 3, 34, 0, 10]
    } else {
        vec![0x20, 2, 0, 0]
    };
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < 200 {
        let kind = input.byte();
        let side = if kind & 0x80 == 0 {
            Sender::Client
        } else {
            Sender::Server
        };
        match kind % 11 {
            0 => steps.push(Step::Feed(side, input.piece().to_vec())),
            1 => {
                let first = input.byte();
                steps.push(Step::Feed(side, packet(first, input.piece())));
            }
            2 | 3 => steps.push(Step::Feed(side, publication(&mut input, five))),
            4 => steps.push(Step::Feed(Sender::Client, subscription(&mut input, five))),
            5 => steps.push(Step::Feed(Sender::Client, connect(&mut input, five))),
            6 => steps.push(Step::Freeze),
            7 => steps.push(Step::Rules(usize::from(input.byte()))),
            8 if kind & 0x40 != 0 => steps.push(Step::Feed(Sender::Server, answer(&mut input, five))),
            8 => steps.push(Step::Feed(Sender::Server, connack.clone())),
            9 => {
                // Only the beginning of a publication, so that the other side comes within it.
                let whole = publication(&mut input, five);
                let at = usize::from(input.byte()).min(whole.len());
                steps.push(Step::Feed(side, whole[..at].to_vec()));
                if input.byte() & 1 == 0 {
                    steps.push(Step::Feed(Sender::Client, subscription(&mut input, five)));
                }
                steps.push(Step::Feed(side, whole[at..].to_vec()));
            }
            _ => steps.push(Step::Wait(Duration::from_millis(u64::from(input.byte())))),
        }
    }
    let mut limits = ConnectionLimits {
        packet_bytes_max: 2000,
        control_bytes_max: CONTROL_BYTES_MAX,
        queued_bytes_max: QUEUED_BYTES_MAX,
        refused_publications_max: 2,
        pending_filters_max: 6,
        ..ConnectionLimits::default()
    };
    limits.aliases.aliases_max = 3;
    limits.aliases.topic_bytes_max = 12;
    Script {
        rules,
        first_rules: usize::from(config & 3),
        mode: mode(config >> 2),
        on_refusal: on_refusal(config >> 3 & 7),
        limits,
        steps,
    }
}

pub fn run(data: &[u8]) {
    let script = script(data);
    let record = script.play(2 * (CONTROL_BYTES_MAX + 5 + QUEUED_BYTES_MAX));
    let (client, server) = (script.sent(Sender::Client), script.sent(Sender::Server));
    if script.mode == Mode::Observe {
        assert_eq!(record.to_server, client, "observing changes what a client sends");
        assert_eq!(record.to_client, server, "observing changes what a broker sends");
        assert_eq!(record.closed, None);
        return;
    }
    let lists = lists();
    let mut in_force = vec![script.first_rules];
    in_force.extend(script.steps.iter().filter_map(|step| match step {
        Step::Rules(at) => Some(*at),
        _ => None,
    }));
    let (deeds, _) = deeds(&record.to_server);
    for deed in deeds {
        let permitted = in_force.iter().any(|at| permits(&lists[at % lists.len()], &deed));
        assert!(permitted, "{deed:?} went on");
    }
}

fn permits(list: &[MqttOperation], deed: &Deed) -> bool {
    match deed {
        Deed::Connect { client_id, will } => {
            let connects: Vec<&MqttOperation> = list
                .iter()
                .filter(|rule| matches!(rule, MqttOperation::Connect { .. }))
                .collect();
            let named = connects.iter().any(|rule| match rule {
                MqttOperation::Connect { client_ids, .. } => {
                    client_ids.as_ref().is_none_or(|ids| ids.contains(client_id))
                }
                _ => false,
            });
            (connects.is_empty() || named) && will.as_ref().is_none_or(|will| publishes(list, will))
        }
        Deed::Publish(message) => publishes(list, message),
        Deed::Subscribe { filter, qos } => list.iter().any(|rule| match rule {
            MqttOperation::Subscribe {
                topics,
                qos: permitted,
            } => u32::from(*qos) <= permitted.last && topics.iter().any(|topic| covers(topic, filter)),
            _ => false,
        }),
    }
}

fn publishes(list: &[MqttOperation], message: &Message) -> bool {
    list.iter().any(|rule| match rule {
        MqttOperation::Publish { topics, qos, retain } => {
            (qos.first..=qos.last).contains(&u32::from(message.qos))
                && (*retain || !message.retain)
                && topics.iter().any(|filter| matches(filter, &message.topic))
        }
        _ => false,
    })
}

/// Whether the permitted filter matches all of what the wanted one matches, as far as examples show; a shared
/// subscription needs one that is written as shared.
fn covers(permitted: &str, wanted: &str) -> bool {
    fn parts(filter: &str) -> (Option<&str>, &str) {
        match filter
            .strip_prefix("$share/")
            .and_then(|rest| rest.split_once('/'))
        {
            Some((name, filter)) => (Some(name), filter),
            None => (None, filter),
        }
    }
    let ((share, permitted), (wanted_share, wanted)) = (parts(permitted), parts(wanted));
    let shared = match (share, wanted_share) {
        (None, None) | (Some("+"), Some(_)) => true,
        (one, other) => one == other,
    };
    let reachable = |topic: &String| matches(wanted, topic);
    shared
        && examples(wanted)
            .iter()
            .filter(|topic| reachable(topic))
            .all(|topic| matches(permitted, topic))
}
