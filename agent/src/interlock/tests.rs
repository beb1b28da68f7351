//! The question to the process: when it is asked, and that nothing but a fresh "safe" of the right asset is one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use penstock_policy::plan::Plan;
use penstock_proto::v1::AuditEvent;
use penstock_proto::v1::audit_event::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::asking::{EVERY, WANTED_FOR};
use super::*;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn wanted(port: u16, condition: Condition) -> Wanted {
    Wanted {
        asset: "plc-1".parse().unwrap(),
        address: LOCAL,
        port,
        from: AskedFrom::Address(LOCAL),
        condition,
    }
}

pub(crate) fn coil(port: u16, coil: u16) -> Wanted {
    let condition = Condition::Coil {
        unit: 7,
        coil,
        is: true,
    };
    wanted(port, condition)
}

fn topic(port: u16) -> Wanted {
    let condition = Condition::Topic {
        topic: "line/1/safe".to_owned(),
        is: "yes".to_owned(),
        tls: None,
    };
    wanted(port, condition)
}

fn question(wanted: Wanted) -> Question {
    Question {
        gateway: "gw-1".parse().unwrap(),
        wanted,
    }
}

fn asker() -> (Asker, Interlocks, mpsc::Receiver<AuditEvent>) {
    let (audit, events) = Audit::without_spool();
    let identity = watch::channel(None).1;
    let (asker, interlocks) = Asker::new(Arc::default(), identity, audit, Timepiece::Kernel);
    (asker, interlocks, events)
}

/// One question, and what comes of it; that there is no answer says why.
async fn said(asker: &Asker, question: &Question) -> Answer {
    asker.ask(question).await.unwrap_or_else(Answer::NotSafe)
}

/// What an asker makes of an asset that answers the first bytes it hears with these, and then goes on as it says.
async fn answered(
    with: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    then: Then,
    ask: fn(u16) -> Wanted,
) -> Answer {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 64];
        let read = stream.read(&mut asked).await.unwrap();
        asked.truncate(read);
        let _ = stream.write_all(&with(&asked)).await;
        match then {
            Then::Close => {}
            Then::Silence => std::future::pending().await,
            Then::Endless => while stream.write_all(&[0; 4096]).await.is_ok() {},
            // A byte now and then keeps no question open.
            Then::Drip(byte) => {
                while stream.write_all(&[byte]).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    let began = Instant::now();
    let (asker, ..) = asker();
    let answer = said(&asker, &question(ask(port))).await;
    assert!(
        began.elapsed() < ANSWER_WITHIN + Duration::from_secs(1),
        "{answer:?}"
    );
    server.abort();
    answer
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Close,
    Silence,
    Endless,
    Drip(u8),
}

/// An answer to a Modbus request, by its PDU.
fn adu(asked: &[u8], pdu: &[u8]) -> Vec<u8> {
    let length = u8::try_from(pdu.len() + 1).unwrap();
    [&asked[..2], &[0, 0, 0, length, asked[6]], pdu].concat()
}

fn why(answer: Answer) -> String {
    match answer {
        Answer::Safe => panic!("taken for safe"),
        Answer::NotSafe(why) => why,
    }
}

#[tokio::test]
async fn a_device_is_asked_for_one_coil_in_twelve_bytes_and_believed_at_its_word() {
    for (bits, expected) in [(1, true), (0, false)] {
        let answer = answered(
            move |asked| {
                assert_eq!(asked.len(), 12);
                assert_eq!(
                    asked[2..],
                    [0, 0, 0, 6, 7, 1, 1, 44, 0, 1],
                    "unit 7, one coil from 300"
                );
                adu(asked, &[1, 1, bits])
            },
            Then::Silence,
            |port| coil(port, 300),
        );
        let answer = answer.await;
        assert_eq!(answer == Answer::Safe, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn a_device_that_answers_anything_else_or_nothing_is_not_safe_and_soon() {
    type Reply = fn(&[u8]) -> Vec<u8>;
    let cases: Vec<(&str, Reply, Then)> = vec![
        ("within 2 s", |_| Vec::new(), Then::Silence),
        ("ended before", |_| Vec::new(), Then::Close),
        (
            "protocol identifier",
            |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            Then::Close,
        ),
        ("exception 2", |asked| adu(asked, &[0x81, 2]), Then::Silence),
        (
            "ended before",
            |asked| adu(asked, &[1, 1, 1])[..9].to_vec(),
            Then::Close,
        ),
        (
            "within 2 s",
            |asked| adu(asked, &[1, 1, 1])[..9].to_vec(),
            Then::Silence,
        ),
        (
            "another transaction",
            |asked| {
                let mut adu = adu(asked, &[1, 1, 1]);
                adu[1] ^= 1;
                adu
            },
            Then::Silence,
        ),
        (
            "another unit",
            |asked| {
                let mut adu = adu(asked, &[1, 1, 1]);
                adu[6] ^= 1;
                adu
            },
            Then::Silence,
        ),
        (
            "not the value of one coil",
            |asked| adu(asked, &[2, 1, 1]),
            Then::Silence,
        ),
        (
            "not the value of one coil",
            |asked| adu(asked, &[1, 2, 1, 1]),
            Then::Silence,
        ),
        (
            "not the value of one coil",
            |asked| adu(asked, &[1, 1, 0xff]),
            Then::Silence,
        ),
        (
            "not the value of one coil",
            |asked| adu(asked, &[1, 1]),
            Then::Silence,
        ),
        (
            "more than one answer",
            |asked| [adu(asked, &[1, 1, 1]), adu(asked, &[1, 1, 1])].concat(),
            Then::Silence,
        ),
        ("MBAP length", |_| Vec::new(), Then::Endless),
        // A length of 1,023 that never fills, byte by byte.
        (
            "within 2 s",
            |asked| [&asked[..2], &[0, 0, 3, 255, 7, 90]].concat(),
            Then::Drip(0),
        ),
        (
            "cannot be read",
            |asked| [&asked[..2], &[0, 0, 3, 255, 7, 90]].concat(),
            Then::Endless,
        ),
    ];
    let cases = cases.into_iter().map(|(expected, reply, then)| async move {
        let said = why(answered(reply, then, |port| coil(port, 1)).await);
        (said.contains(expected), expected, said)
    });
    let mut running: Vec<_> = cases.map(|case| tokio::spawn(case)).collect();
    let last = running.pop().unwrap().await.unwrap();
    // Another function of 1,022 bytes is read, and is not the answer.
    assert!(
        last.2.contains("not the value of one coil") || last.2.contains("more than one"),
        "{}",
        last.2
    );
    for case in running {
        let (good, expected, said) = case.await.unwrap();
        assert!(good, "{expected:?} in {said:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_safe_and_says_why() {
    let (asker, ..) = asker();
    let nobody = TcpListener::bind((LOCAL, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let refused = said(&asker, &question(coil(nobody, 1))).await;
    let refused = why(refused);
    assert!(
        refused.contains("cannot be reached") && refused.contains("refused"),
        "{refused}"
    );
    let from_elsewhere = Wanted {
        from: AskedFrom::Address("192.0.2.1".parse().unwrap()),
        ..coil(nobody, 1)
    };
    let astray = why(said(&asker, &question(from_elsewhere)).await);
    assert!(astray.contains("cannot leave from 192.0.2.1"), "{astray}");
    let through_nothing = Wanted {
        from: AskedFrom::Interface("nosuch0".to_owned()),
        ..coil(nobody, 1)
    };
    let astray = why(said(&asker, &question(through_nothing)).await);
    assert!(astray.contains("cannot leave from nosuch0"), "{astray}");
    let inside_tls = Wanted {
        condition: Condition::Topic {
            topic: "a".to_owned(),
            is: "b".to_owned(),
            tls: Some(penstock_policy::terms::Tls::default()),
        },
        ..topic(nobody)
    };
    // Refused before TLS begins: nobody listens.
    why(said(&asker, &question(inside_tls)).await);
}

/// CONNACK of MQTT 5, and SUBACK of packet 1.
const WELCOME: [u8; 5] = [0x20, 3, 0, 0, 0];
const SUBSCRIBED: [u8; 6] = [0x90, 4, 0, 1, 0, 0];

fn publish(flags: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let length = 2 + topic.len() + 1 + payload.len();
    let head = [
        0x30 | flags,
        u8::try_from(length).unwrap(),
        0,
        u8::try_from(topic.len()).unwrap(),
    ];
    [&head[..], topic.as_bytes(), &[0], payload].concat()
}

#[tokio::test]
async fn a_broker_that_keeps_another_message_or_none_or_misbehaves_is_not_safe() {
    const RETAINED: u8 = 1;
    let kept = |flags: u8, topic: &'static str, payload: &'static [u8]| {
        move |_: &[u8]| [&WELCOME[..], &SUBSCRIBED, &publish(flags, topic, payload)].concat()
    };
    let safe = answered(kept(RETAINED, "line/1/safe", b"yes"), Then::Silence, topic).await;
    assert_eq!(safe, Answer::Safe);
    let said = |flags, at, payload| async move {
        why(answered(kept(flags, at, payload), Then::Silence, topic).await)
    };
    assert!(
        said(RETAINED, "line/1/safe", b"no")
            .await
            .contains("is \"no\" at plc-1")
    );
    assert!(said(RETAINED, "line/1/safe", b"yes ").await.contains("\"yes \""));
    assert!(said(RETAINED, "line/1/safe", b"").await.contains("\"\""));
    let hidden = said(RETAINED, "line/1/safe", b"\x1b[31myes").await;
    assert!(!hidden.contains('\u{1b}'), "{hidden:?}");
    assert!(
        said(RETAINED, "line/2/safe", b"yes")
            .await
            .contains("not asked for")
    );
    assert!(
        said(0, "line/1/safe", b"yes")
            .await
            .contains("no retained message")
    );
    let refused = answered(|_| vec![0x20, 3, 0, 0x87, 0], Then::Silence, topic).await;
    assert!(why(refused).contains("not authorised"));
    let not_subscribed = answered(
        |_| [&WELCOME[..], &[0x90, 4, 0, 1, 0, 0x87]].concat(),
        Then::Silence,
        topic,
    );
    assert!(why(not_subscribed.await).contains("not authorised"));
    for (reply, then) in [
        (&b""[..], Then::Silence),
        (&b""[..], Then::Close),
        (&b""[..], Then::Endless),
        (&b"\xff\xff\xff\xff\xff"[..], Then::Silence),
        (&WELCOME[..], Then::Close),
        (&WELCOME[..], Then::Endless),
        // A packet of 256 MiB is announced, and not waited for.
        (
            &[0x20, 3, 0, 0, 0, 0x31, 0xff, 0xff, 0xff, 0x7f][..],
            Then::Endless,
        ),
    ] {
        why(answered(move |_| reply.to_vec(), then, topic).await);
    }
}

/// A plan that asks `wanted`.
fn plan(wanted: Option<Wanted>) -> Plan {
    Plan {
        format: penstock_policy::plan::PLAN_FORMAT.to_owned(),
        plant: "works".parse().unwrap(),
        gateway: "gw-1".parse().unwrap(),
        mode: penstock_policy::terms::GatewayMode::Routed,
        requires: Default::default(),
        on_drift: penstock_policy::terms::OnDrift::Repair,
        interfaces: Vec::new(),
        management: None,
        rules: Vec::new(),
        bridges: Vec::new(),
        grants: BTreeMap::new(),
        windows: None,
        interlock: wanted,
        break_glass: None,
        tunnels: None,
        bound: std::collections::BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: Default::default(),
        excepted: Default::default(),
    }
}

#[tokio::test]
async fn it_is_asked_while_somebody_wants_to_change_and_the_trail_has_what_turns() {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (state_in, state) = watch::channel(false);
    let (heard_in, mut heard) = mpsc::channel(100);
    let plc = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 12];
            stream.read_exact(&mut asked).await.unwrap();
            heard_in.send(Instant::now()).await.unwrap();
            let is_on = u8::from(*state.borrow());
            stream.write_all(&adu(&asked, &[1, 1, is_on])).await.unwrap();
        }
    });
    let (asker, interlocks, mut events) = asker();
    let stop = CancellationToken::new();
    let task = tokio::spawn(asker.run(stop.clone()));
    assert_eq!(interlocks.says(&plan(None)), Interlock::NotDeclared);
    let asks = plan(Some(coil(port, 1)));
    let until = |expected: Interlock| {
        let (interlocks, asks) = (interlocks.clone(), asks.clone());
        async move {
            let within = tokio::time::timeout(Duration::from_secs(30), async {
                while interlocks.says(&asks) != expected {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            within.await.unwrap();
        }
    };
    let Interlock::NotSafe(words) = interlocks.says(&asks) else {
        panic!("safe without an answer");
    };
    assert!(words.contains("is being asked"), "{words}");
    until(Interlock::NotSafe(format!(
        "coil 1 is off at plc-1 (127.0.0.1:{port})"
    )))
    .await;
    state_in.send_replace(true);
    until(Interlock::Safe).await;
    state_in.send_replace(false);
    until(Interlock::NotSafe(format!(
        "coil 1 is off at plc-1 (127.0.0.1:{port})"
    )))
    .await;
    let mut times = Vec::new();
    while let Ok(at) = heard.try_recv() {
        times.push(at);
    }
    let is_apart = |pair: &[Instant]| pair[1] - pair[0] > EVERY - Duration::from_millis(100);
    assert!(times.len() >= 3 && times.windows(2).all(is_apart), "{times:?}");
    // Nobody wants to know: nobody is asked.
    tokio::time::sleep(WANTED_FOR + EVERY + Duration::from_millis(500)).await;
    while heard.try_recv().is_ok() {}
    tokio::time::sleep(EVERY * 2).await;
    assert!(heard.try_recv().is_err(), "asked while nobody wants to know");
    stop.cancel();
    task.await.unwrap();
    plc.abort();
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let Some(Kind::Agent(agent)) = event.kind else {
            continue;
        };
        assert_eq!(agent.step, "interlock");
        told.push(agent.message);
    }
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].starts_with("not safe to change: coil 1 is off at plc-1"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("safe to change: coil 1 (unit 7) is on at plc-1"),
        "{told:?}"
    );
    assert!(told[2].starts_with("not safe to change"), "{told:?}");
}

#[test]
fn since_when_nobody_answers_is_said_until_somebody_does_and_of_each_question_apart() {
    let question = |port| Question {
        gateway: "gw-1".parse().unwrap(),
        wanted: coil(port, 1),
    };
    let mut silence = Silence::default();
    let mut asked = |port, answer: Result<Answer, &str>, now_ms| {
        let answer = answer.map_err(str::to_owned);
        match silence.heard(&question(port), answer, now_ms) {
            Answer::Safe => "safe".to_owned(),
            Answer::NotSafe(why) => why,
        }
    };
    let since_one = "it does not answer; no answer since 1970-01-01T00:00:01Z";
    assert_eq!(asked(1, Err("it does not answer"), 1_000), since_one);
    // The same words while it lasts: what holds a change is not news each second.
    assert_eq!(asked(1, Err("it does not answer"), 86_400_000), since_one);
    assert!(asked(2, Err("gone"), 3_000).ends_with("since 1970-01-01T00:00:03Z"));
    assert_eq!(
        asked(2, Ok(Answer::NotSafe("it runs".to_owned())), 4_000),
        "it runs"
    );
    assert!(asked(2, Err("gone"), 5_000).ends_with("since 1970-01-01T00:00:05Z"));
    assert_eq!(asked(2, Ok(Answer::Safe), 6_000), "safe");
}
