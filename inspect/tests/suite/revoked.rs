//! Other rules under a standing MQTT client: what it has is judged again at once, and nothing of it is completed.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use proptest::prelude::*;

use crate::mqtt_packets::{connack, connect, packet, publication, subscription, text};
use crate::recorder::{Record, connection, publish, subscribe};

const CLIENT: Sender = Sender::Client;
const SERVER: Sender = Sender::Server;

fn only(client: &str) -> MqttOperation {
    MqttOperation::Connect {
        client_ids: Some(vec![client.to_owned()]),
        users: None,
    }
}

/// All that the client does here.
fn wide() -> Vec<MqttOperation> {
    vec![
        publish(&["status/#", "line/#"], (0, 2), true),
        subscribe(&["line/#"]),
    ]
}

/// CONNECT of `c` with a will on that topic.
fn with_will(version: u8, topic: &str) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    let body = [
        &text("MQTT")[..],
        &[version, 0x06, 0, 60],
        properties,
        &text("c"),
        properties,
        &text(topic),
        &text("gone"),
    ]
    .concat();
    packet(0x10, &body)
}

/// A connection that stands under [`wide`], what it did before, and what came out since.
struct Standing {
    connection: Connection,
    record: Record,
}

impl Standing {
    fn new(version: u8, opening: &[u8], style: OnRefusal) -> Self {
        let mut standing = Self {
            connection: connection(&Operations::from(wide()), Mode::Enforce, style),
            record: Record::default(),
        };
        standing.feed(CLIENT, opening);
        standing.feed(SERVER, &connack(version));
        standing
    }

    fn feed(&mut self, from: Sender, bytes: &[u8]) {
        let record = &mut self.record;
        self.connection
            .feed(from, Duration::ZERO, bytes, &mut |output| record.take(output));
    }

    /// What is told at once under other rules, although nobody sends anything.
    fn under(&mut self, rules: Vec<MqttOperation>) -> Record {
        self.record = Record::default();
        let rules = Rules::compile(&Operations::from(rules)).unwrap();
        self.connection.set_rules(Arc::new(rules));
        let record = &mut self.record;
        self.connection.review(&mut |output| record.take(output));
        self.record.clone()
    }
}

#[test]
fn a_silent_client_that_may_no_longer_be_connected_is_cut_at_once_and_its_will_with_it() {
    for (version, to_client) in [(4, vec![]), (5, vec![0xe0, 2, 0x87, 0])] {
        let mut standing = Standing::new(version, &with_will(version, "status/c"), OnRefusal::Answer);
        let told = standing.under(vec![only("other"), publish(&["status/#"], (0, 2), true)]);
        assert_eq!(told.to_server, [0xe0, 0], "MQTT {version}");
        assert_eq!((told.to_client, told.closed), (to_client, Some(false)));
        assert!(told.noted[0].contains("no longer permits this client to be connected"));
    }
}

#[test]
fn a_will_that_is_still_permitted_is_left_to_the_broker() {
    for (version, to_server) in [(4, vec![]), (5, vec![0xe0, 1, 4])] {
        let mut standing = Standing::new(version, &with_will(version, "status/c"), OnRefusal::Answer);
        standing.feed(CLIENT, &subscription(version, &[("line/1", 0)]));
        let told = standing.under(vec![publish(&["status/#"], (0, 2), true), subscribe(&["line/2"])]);
        assert!(
            told.noted[0].contains("a subscription of this client"),
            "{:?}",
            told.noted
        );
        assert_eq!(
            (told.to_server, told.closed),
            (to_server, Some(false)),
            "MQTT {version}"
        );
    }
}

#[test]
fn what_is_still_permitted_goes_on() {
    let mut standing = Standing::new(5, &with_will(5, "status/c"), OnRefusal::Answer);
    standing.feed(CLIENT, &subscription(5, &[("line/1", 0), ("line/2", 1)]));
    let unsubscribe = packet(0xa2, &[&[0, 9, 0][..], &text("line/1")].concat());
    standing.feed(CLIENT, &unsubscribe);
    let told = standing.under(vec![publish(&["status/+"], (0, 2), true), subscribe(&["line/2"])]);
    assert_eq!(told, Record::default());
    let told = standing.under(vec![publish(&["status/c"], (0, 1), true), subscribe(&["line/3"])]);
    assert_eq!(told.closed, Some(false));
}

#[test]
fn a_will_that_is_no_longer_permitted_is_enough() {
    let mut standing = Standing::new(4, &with_will(4, "status/c"), OnRefusal::Answer);
    let told = standing.under(vec![publish(&["line/#"], (0, 2), true)]);
    assert!(told.noted[0].contains("this client's will"), "{:?}", told.noted);
    assert_eq!((told.to_server, told.closed), (vec![0xe0, 0], Some(false)));
}

/// With a will, a publication goes on when it is whole, so that a DISCONNECT can come before it.
#[test]
fn half_a_publication_does_not_keep_a_will_alive() {
    let whole = publication(4, 0, "line/1", None, &[7; 3000]);
    let mut standing = Standing::new(4, &with_will(4, "status/c"), OnRefusal::Answer);
    standing.feed(CLIENT, &whole[..2000]);
    assert_eq!(standing.record.to_server, with_will(4, "status/c"));
    let told = standing.under(vec![publish(&["line/#"], (0, 2), true)]);
    assert_eq!(told.to_server, [0xe0, 0]);
    // And it is forwarded as it came once it is whole.
    let mut standing = Standing::new(4, &with_will(4, "status/c"), OnRefusal::Answer);
    for piece in whole.chunks(7) {
        standing.feed(CLIENT, piece);
    }
    assert_eq!(
        standing.record.to_server,
        [with_will(4, "status/c"), whole].concat()
    );
}

/// A broker publishes no will of a client that is connected: so the cut can wait for where it can be taken back.
#[test]
fn a_large_publication_that_is_still_permitted_ends_before_its_client_is_cut_off_without_its_will() {
    for version in [4, 5] {
        let large = publication(version, 0, "line/1", None, &vec![7; 100_000]);
        let next = publication(version, 0, "line/1", None, b"8");
        for behind in [&next[..], &[]] {
            let mut standing = Standing::new(version, &with_will(version, "status/c"), OnRefusal::Answer);
            standing.feed(CLIENT, &large[..90_000]);
            let told = standing.under(vec![publish(&["line/#"], (0, 2), true)]);
            assert_eq!(told, Record::default());
            standing.feed(SERVER, &[0xd0, 0]);
            standing.feed(CLIENT, &large[90_000..90_100]);
            assert_eq!(standing.record.closed, None);
            standing.feed(CLIENT, &[&large[90_100..], behind].concat());
            let record = &standing.record;
            assert_eq!(record.to_server, [&large[90_000..], &[0xe0, 0]].concat());
            assert_eq!(record.closed, Some(false));
            assert!(
                record.noted[0].contains("this client's will"),
                "{:?}",
                record.noted
            );
            assert_eq!(record.noted.len(), 1);
        }
    }
}

/// Where a will cannot be taken back, that is told.
#[test]
fn a_cut_within_a_large_publication_that_is_not_permitted_names_the_will_as_does_a_client_that_is_gone() {
    let large = publication(4, 0, "line/1", None, &vec![7; 100_000]);
    let within = || {
        let mut standing = Standing::new(4, &with_will(4, "status/c"), OnRefusal::Answer);
        standing.feed(CLIENT, &large[..90_000]);
        standing
    };
    for narrower in [
        vec![publish(&["line/2"], (0, 2), true)],
        vec![only("other"), publish(&["line/#", "status/#"], (0, 2), true)],
    ] {
        let told = within().under(narrower);
        assert!(told.to_server.is_empty(), "a broker would take it for payload");
        assert_eq!(told.closed, Some(true));
        assert!(
            told.noted[1].contains("the broker may publish this client's will"),
            "{:?}",
            told.noted
        );
    }
    let mut standing = within();
    standing.under(vec![publish(&["line/#"], (0, 2), true)]);
    let record = &mut standing.record;
    standing.connection.end(CLIENT, &mut |output| record.take(output));
    assert!(
        record.noted[1].contains("the broker may publish this client's will"),
        "{:?}",
        record.noted
    );
}

#[test]
fn a_publication_that_is_passing_is_judged_again_in_both_directions() {
    let long = |topic| publication(5, 0, topic, None, &[7; 3000]);
    let mut standing = Standing::new(5, &connect(5, "c"), OnRefusal::Answer);
    standing.feed(CLIENT, &long("line/1")[..100]);
    let told = standing.under(vec![publish(&["line/1"], (0, 2), true)]);
    assert_eq!(told, Record::default());
    let told = standing.under(vec![publish(&["line/2"], (0, 2), true)]);
    assert!(
        told.noted[0].contains("the publication that is passing"),
        "{:?}",
        told.noted
    );
    assert!(told.to_server.is_empty());
    assert_eq!(told.closed, Some(true));
    let mut standing = Standing::new(5, &connect(5, "c"), OnRefusal::Answer);
    standing.feed(SERVER, &long("line/1")[..100]);
    let told = standing.under(vec![subscribe(&["line/2"])]);
    assert!(
        told.noted[0].contains("the delivery that is passing"),
        "{:?}",
        told.noted
    );
    assert_eq!((told.to_server, told.to_client), (vec![0xe0, 0], vec![]));
}

#[test]
fn a_publication_at_qos_2_is_released_only_under_rules_that_permit_it() {
    let release = |identifier| vec![0x62, 2, 0, identifier];
    for (version, answer) in [(4, vec![0x70, 2, 0, 7]), (5, vec![0x70, 3, 0, 7, 0x92])] {
        let mut standing = Standing::new(version, &connect(version, "c"), OnRefusal::Answer);
        standing.feed(CLIENT, &publication(version, 4, "status/x", None, b"1"));
        let narrower = || vec![publish(&["line/#"], (0, 2), true), subscribe(&["line/#"])];
        let told = standing.under(narrower());
        assert_eq!(told, Record::default());
        standing.feed(CLIENT, &release(7));
        assert!(standing.record.to_server.is_empty());
        assert_eq!(standing.record.to_client, answer, "MQTT {version}");
        assert!(
            standing.record.judged[0].contains("publish status/x"),
            "{:?}",
            standing.record.judged
        );
        // The broker would take another of that identifier for the same, and release the first.
        standing.record = Record::default();
        standing.feed(CLIENT, &publication(version, 4, "line/1", None, b"2"));
        standing.feed(CLIENT, &release(7));
        assert!(standing.record.to_server.is_empty(), "{:?}", standing.record);
        assert!(standing.record.judged[0].contains("still holds a publication"));
        // Under rules that permit it again, it is.
        standing.under(wide());
        standing.feed(CLIENT, &release(7));
        assert_eq!(standing.record.to_server, release(7));
    }
}

/// Refused deliveries were acknowledged: who took over another's session emptied its queue.
#[test]
fn a_delivery_that_nobody_receives_is_acknowledged_by_nobody() {
    for style in [
        OnRefusal::Answer,
        OnRefusal::Acknowledge,
        OnRefusal::Drop,
        OnRefusal::Disconnect,
        OnRefusal::Reset,
    ] {
        for flags in [2, 4] {
            for version in [4, 5] {
                let mut standing = Standing::new(version, &connect(version, "c"), style);
                let before = standing.record.clone();
                standing.feed(SERVER, &publication(version, flags, "secret", None, b"1"));
                assert_eq!(
                    standing.record.to_server, before.to_server,
                    "{style:?}, flags {flags}"
                );
                assert_eq!(standing.record.to_client, before.to_client);
                assert_eq!(standing.record.closed, None);
            }
        }
    }
}

#[test]
fn a_flow_that_is_taken_away_whole_takes_every_will() {
    for version in [4, 5] {
        let mut standing = Standing::new(version, &with_will(version, "status/c"), OnRefusal::Answer);
        standing.record = Record::default();
        let record = &mut standing.record;
        standing.connection.revoke(&mut |output| record.take(output));
        assert_eq!(
            (&record.to_server[..], record.closed),
            (&[0xe0, 0][..], Some(false))
        );
    }
}

#[test]
fn all_of_that_survives_a_restart() {
    let thawed = |standing: &mut Standing| {
        let frozen = standing.connection.freeze(Duration::ZERO);
        let rules = Arc::new(Rules::compile(&Operations::from(wide())).unwrap());
        let limits = ConnectionLimits::default();
        standing.connection = Connection::thaw(
            &frozen,
            Duration::ZERO,
            rules,
            Mode::Enforce,
            OnRefusal::Answer,
            limits,
        )
        .unwrap();
    };
    let mut standing = Standing::new(4, &with_will(4, "status/c"), OnRefusal::Answer);
    standing.feed(CLIENT, &publication(4, 4, "status/x", None, b"1"));
    standing.feed(CLIENT, &subscription(4, &[("line/1", 0)]));
    thawed(&mut standing);
    standing.under(vec![
        publish(&["status/c", "line/#"], (0, 2), true),
        subscribe(&["line/1"]),
    ]);
    standing.feed(CLIENT, &[0x62, 2, 0, 7]);
    assert!(standing.record.to_server.is_empty());
    let told = standing.under(vec![publish(&["status/c"], (0, 2), true)]);
    assert_eq!(told.closed, Some(false));
    let mut standing = Standing::new(4, &connect(4, "c"), OnRefusal::Answer);
    standing.feed(CLIENT, &publication(4, 0, "line/1", None, &[7; 3000])[..100]);
    thawed(&mut standing);
    let told = standing.under(vec![publish(&["line/2"], (0, 2), true)]);
    assert_eq!(told.closed, Some(true));
}

/// Nobody knows the will of a client whose CONNECT was before the connection was read.
#[test]
fn a_client_that_was_met_midway_is_cut_off_with_a_disconnect_where_a_packet_of_its_ends_or_its_will_is_named()
{
    let long = publication(4, 0, "line/1", None, &[7; 3000]);
    let small = publication(4, 0, "line/1", None, b"7");
    for (pieces, at_an_end) in [
        (vec![&small[..]], true),
        (vec![&small[..], &long], true),
        (vec![&long[..2000]], false),
        (vec![&small[..], &small[..5]], false),
        (vec![&[0xff, 0xff][..]], false),
        (vec![], false),
    ] {
        for ask in [Connection::leave_unfollowed, Connection::revoke] {
            let observed = connection(&Operations::from(wide()), Mode::Observe, OnRefusal::Answer);
            let mut standing = Standing {
                connection: observed.met_midway(),
                record: Record::default(),
            };
            for piece in &pieces {
                standing.feed(CLIENT, piece);
            }
            assert_eq!(standing.record.to_server, pieces.concat());
            let mut record = Record::default();
            ask(&mut standing.connection, &mut |output| record.take(output));
            let unknown = record.noted.iter().any(|told| told.contains("never saw"));
            let expected: (&[u8], _) = if at_an_end {
                (&[0xe0, 0], Some(false))
            } else {
                (&[], Some(true))
            };
            assert_eq!((&record.to_server[..], record.closed), expected, "{pieces:?}");
            assert_eq!(unknown, !at_an_end, "{:?}", record.noted);
        }
    }
}

fn topic() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["status/c", "status/x", "line/1", "line/2"])
}

fn act() -> impl Strategy<Value = (Sender, Vec<u8>)> {
    prop_oneof![
        4 => (0_u8..3, topic(), 0_usize..300)
            .prop_map(|(qos, topic, bytes)| (CLIENT, publication(4, qos << 1, topic, None, &vec![7; bytes]))),
        2 => (0_u8..3, topic(), 0_usize..300)
            .prop_map(|(qos, topic, bytes)| (SERVER, publication(4, qos << 1, topic, None, &vec![7; bytes]))),
        2 => Just((CLIENT, vec![0x62, 2, 0, 7])),
        1 => topic().prop_map(|topic| (CLIENT, subscription(4, &[(topic, 0)]))),
    ]
}

/// What a broker publishes of a client's stream that ends there: each publication that is whole, at QoS 2 when it is released,
/// and the will unless there was a DISCONNECT.
fn published(stream: &[u8], will: &str) -> Vec<String> {
    let (mut rest, mut published, mut waits) = (stream, Vec::new(), None);
    let mut has_left = false;
    while rest.len() > 1 {
        let (mut length, mut header) = (0_usize, 1);
        loop {
            let byte = rest[header];
            length |= usize::from(byte & 127) << (7 * (header - 1));
            header += 1;
            if byte < 128 {
                break;
            }
        }
        let Some(body) = rest.get(header..header + length) else {
            break;
        };
        match rest[0] >> 4 {
            3 => {
                let end = 2 + usize::from(body[1]);
                let topic = String::from_utf8(body[2..end].to_vec()).unwrap();
                if rest[0] & 6 == 4 {
                    // What comes again under an identifier that waits is the same to it.
                    waits.get_or_insert(topic);
                } else {
                    published.push(topic);
                }
            }
            6 => published.extend(waits.take()),
            14 => has_left = true,
            _ => {}
        }
        rest = &rest[header + length..];
    }
    if !has_left {
        published.push(will.to_owned());
    }
    published
}

proptest! {
    #[test]
    fn after_a_change_the_broker_publishes_nothing_that_the_new_rules_do_not_permit(
        before in prop::collection::vec(act(), 0..6), after in prop::collection::vec(act(), 0..6),
        cut in 0_usize..400, permitted in topic(), will in topic(), subscribing in any::<bool>()
    ) {
        let mut standing = Standing::new(4, &with_will(4, will), OnRefusal::Answer);
        for (from, bytes) in &before {
            standing.feed(*from, bytes);
        }
        // In the middle of a publication.
        let half = publication(4, 0, "status/x", None, &[7; 300]);
        standing.feed(CLIENT, &half[..cut.min(half.len())]);
        let so_far = standing.record.to_server.clone();
        let already = published(&so_far, "").len() - 1;
        let mut rules = vec![publish(&[permitted], (0, 2), true)];
        if subscribing {
            rules.push(subscribe(&["line/#"]));
        }
        let told = standing.under(rules);
        let mut all = [so_far, told.to_server].concat();
        standing.record = Record { closed: told.closed, ..Record::default() };
        if told.closed.is_none() {
            standing.feed(CLIENT, half.get(cut..).unwrap_or_default());
            for (from, bytes) in &after {
                standing.feed(*from, bytes);
            }
            all.extend_from_slice(&standing.record.to_server);
        }
        for topic in &published(&all, will)[already..] {
            prop_assert_eq!(topic, permitted, "published after the change");
        }
    }
}
