//! A broker that does what it likes, on a line that stands: each time it is left, with little of what it sent taken, and once it behaves it has the newest
//! state, and its acknowledgements count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::{CoordinatorId, PlantId, ZoneId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::alarms::desk::AlarmSettings;
use crate::alarms::machine::{AlarmRecord, AlarmState, Delays};
use crate::alarms::{AlarmKey, Cause, Priority};
use crate::journal::Journal;
use crate::scada::outbox::Topics;
use crate::scada::settings::ScadaFile;
use crate::store::{Change, Expect, Store};

const WELCOME: &[u8] = &[0x20, 0x03, 0, 0, 0];
const ACK_TOPIC: &str = "penstock/works/alarm/boiler/stale/ack";
const ALARM_TOPIC: &str = "penstock/works/alarm/boiler/stale";
/// What a broker may send beyond what the line takes: the buffers of two sockets, and the packets that one connection may bring.
const TAKEN_MAX: usize = 24 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

/// What a broker sends first, and then for ever.
struct Misdeed {
    what: &'static str,
    first: Vec<u8>,
    again: Vec<u8>,
    /// A byte of it at a time, with a pause.
    is_slow: bool,
}

fn field(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        out.push((length % 128) as u8 | more);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// A message at QoS 1.
fn message(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = field(topic.as_bytes());
    body.extend_from_slice(&[0, 7, 0]);
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

fn misdeeds() -> Vec<Misdeed> {
    let misdeed = |what, first: &[u8], again: Vec<u8>| Misdeed {
        what,
        first: first.to_vec(),
        again,
        is_slow: false,
    };
    let welcomed = |more: &[u8]| [WELCOME, more].concat();
    vec![
        // All that acknowledgements may cost is used up by then, and comes back a second later.
        misdeed(
            "acknowledgements without an end",
            WELCOME,
            message("penstock/works/alarm/kiln/stale/ack", br#"{"user": "mallory"}"#),
        ),
        misdeed("garbage instead of a welcome", &[], vec![0xff; 4096]),
        misdeed(
            "a welcome of 256 MB",
            &[0x20, 0xff, 0xff, 0xff, 0x7f],
            vec![0; 4096],
        ),
        misdeed("a length without an end", &[0x20], vec![0x80; 4096]),
        Misdeed {
            is_slow: true,
            ..misdeed("a welcome that does not end", &[0x20, 0xff, 0x7f], vec![0])
        },
        misdeed("garbage behind the welcome", WELCOME, vec![0xff; 4096]),
        misdeed(
            "a message of 256 MB",
            &welcomed(&[0x32, 0xff, 0xff, 0xff, 0x7f]),
            vec![b'a'; 4096],
        ),
        misdeed(
            "the largest messages without an end",
            WELCOME,
            message(ACK_TOPIC, &vec![b'a'; 16_000]),
        ),
        misdeed("answers to no question", WELCOME, vec![0xd0, 0]),
        misdeed(
            "refusals of subscriptions without an end",
            WELCOME,
            packet(0x90, &[0, 1, 0, 0x87]),
        ),
        misdeed(
            "answers to what was not sent",
            WELCOME,
            packet(0x40, &[0x77, 0x77]),
        ),
        misdeed(
            "topics by numbers",
            WELCOME,
            packet(0x30, &[field(b""), vec![3, 0x23, 0, 9], b"{}".to_vec()].concat()),
        ),
        misdeed("a second welcome, and more", WELCOME, WELCOME.to_vec()),
        misdeed("its end at once", &welcomed(&[0xe0, 0]), vec![0xe0, 0]),
    ]
}

impl Misdeed {
    /// Does it until the line has left; how many bytes went out.
    async fn done(&self, mut stream: TcpStream) -> usize {
        let (mut reads, mut writes) = stream.split();
        let gone = async {
            let mut sink = vec![0; 64 * 1024];
            while reads.read(&mut sink).await.is_ok_and(|bytes| bytes > 0) {}
        };
        let mut sent = 0;
        let sending = async {
            if writes.write_all(&self.first).await.is_err() {
                return;
            }
            loop {
                match writes.write(&self.again).await {
                    Ok(bytes) => sent += bytes,
                    Err(_) => return,
                }
                if self.is_slow {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        tokio::select! {
            () = gone => {}
            () = sending => {}
        }
        sent
    }
}

/// The next packet of whoever connected: its first byte and what is in it.
async fn next(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await.ok()?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = stream.read_u8().await.ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}

/// A broker that keeps what is retained, until `is_enough`.
async fn behave(
    stream: &mut TcpStream,
    held: &mut BTreeMap<String, String>,
    is_enough: impl Fn(&BTreeMap<String, String>) -> bool,
) {
    while !is_enough(held) {
        let (kind, body) = next(stream).await.expect("the line stands");
        let answer = match kind >> 4 {
            1 => WELCOME.to_vec(),
            8 => packet(0x90, &[body[0], body[1], 0, 1]),
            12 => vec![0xd0, 0],
            3 => {
                let (length, rest) = body.split_at(2);
                let (topic, rest) = rest.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
                let topic = String::from_utf8(topic.to_vec()).unwrap();
                // Behind the number of the packet no properties.
                assert_eq!(rest[2], 0);
                held.insert(topic, String::from_utf8(rest[3..].to_vec()).unwrap());
                packet(0x40, &rest[..2])
            }
            _ => continue,
        };
        stream.write_all(&answer).await.unwrap();
    }
}

/// A plant with one alarm.
async fn alarms(folder: &std::path::Path) -> Alarms {
    let store = Store::open(&folder.join("s.db")).unwrap();
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    let record = AlarmRecord {
        state: AlarmState::Unacknowledged,
        priority: Priority::Low,
        is_safety: false,
        since_ms: 1_790_000_000_000,
        raised_ms: 1_790_000_000_000,
        until_ms: 0,
        message: "no word of gw-a".to_owned(),
        subjects: BTreeSet::new(),
        gateways: BTreeSet::new(),
        by: Author::default(),
        reason: String::new(),
    };
    let key = AlarmKey::of_zone(&ZoneId::new("boiler").unwrap(), Cause::Stale);
    let change =
        Change::silent(crate::store::Silent::Prepared).json(&format!("alarm/{key}"), Expect::Absent, &record);
    store.apply(change.unwrap()).await.unwrap();
    let settings = AlarmSettings {
        delays: Delays {
            on: Duration::ZERO,
            off: Duration::ZERO,
        },
        dark: Duration::ZERO,
        dark_zones: BTreeMap::new(),
    };
    Alarms::open(store, journal, settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_what_it_likes_is_left_each_time_and_has_all_news_once_it_behaves() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = ScadaFile {
        broker: format!("mqtt://{}", listener.local_addr().unwrap()),
        acknowledge: true,
        ..ScadaFile::default()
    };
    let settings = file.check().unwrap().unwrap();
    let topics = Topics::new(
        &settings,
        &PlantId::new("works").unwrap(),
        &CoordinatorId::new("c1").unwrap(),
    );
    let health = PublishedHealth::new(penstock_proto::v1::PlantHealth::default());
    let (_told, health) = watch::channel(Arc::new(health));
    let alarms = alarms(folder.path()).await;
    let stopping = CancellationToken::new();
    let line = Line {
        client: "penstock-works-coordinator-c1".to_owned(),
        settings,
        pace: LinePace {
            again: (Duration::from_millis(1), Duration::from_millis(20)),
            connect_seconds: 1,
        },
        alarms: alarms.clone(),
        health,
        stopping: stopping.clone(),
    };
    let followed = tokio::spawn(async move { follow(&line, Box::new(topics)).await });
    let accepted = async || {
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
        accepted.expect("the line is tried again").unwrap().0
    };
    for misdeed in misdeeds() {
        let stream = accepted().await;
        let done = tokio::time::timeout(PATIENCE, misdeed.done(stream)).await;
        let taken = done.unwrap_or_else(|_| unreachable!("{}: the line stays", misdeed.what));
        assert!(taken < TAKEN_MAX, "{}: {taken} bytes are taken", misdeed.what);
    }
    assert!(!followed.is_finished());
    let mut stream = accepted().await;
    let mut held = BTreeMap::new();
    let has = |state: &'static str| {
        move |held: &BTreeMap<String, String>| {
            held.get(ALARM_TOPIC)
                .is_some_and(|text| text.contains(&format!("\"{state}\"")))
        }
    };
    let whole = async {
        behave(&mut stream, &mut held, has("unacknowledged")).await;
        let seen = message(ACK_TOPIC, br#"{"user": "rosa", "reason": "seen at the panel"}"#);
        stream.write_all(&seen).await.unwrap();
        behave(&mut stream, &mut held, has("acknowledged")).await;
    };
    tokio::time::timeout(PATIENCE, whole)
        .await
        .expect("all news come, and what is acknowledged counts");
    assert!(held[ALARM_TOPIC].contains("rosa"), "{held:?}");
    assert!(held.contains_key("penstock/works/coordinator/c1/online"));
    stopping.cancel();
    drop(stream);
    tokio::time::timeout(PATIENCE, followed).await.unwrap().unwrap();
}
