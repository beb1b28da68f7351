//! What is kept of a connection: that it is counted, and what becomes of a connection for which there is no room.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Memory, Mode, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_policy::protocol::Operations;

use crate::mqtt_packets::{connack, connect, packet, publication, text};
use crate::recorder::{Record, publish};

const CLIENT: Sender = Sender::Client;
const SERVER: Sender = Sender::Server;

/// A connection of MQTT 3.1.1, of which at most two publications at QoS 2 are kept, that is open.
fn open(qos: u32, mode: Mode, client: &str) -> Connection {
    let limits = ConnectionLimits {
        refused_publications_max: 2,
        ..ConnectionLimits::default()
    };
    let mut connection = Connection::new(permitting(qos), mode, OnRefusal::Answer, limits).remembering(
        &Arc::<Memory>::default(),
        ([10, 0, 0, 1], 1883).into(),
        [10, 0, 0, 2].into(),
    );
    feed(&mut connection, CLIENT, &connect(4, client));
    feed(&mut connection, SERVER, &connack(4));
    connection
}

fn permitting(qos: u32) -> Arc<Rules> {
    let rules = Operations::from(vec![publish(&["status/#"], (0, qos), true)]);
    Arc::new(Rules::compile(&rules).unwrap())
}

fn feed(connection: &mut Connection, from: Sender, bytes: &[u8]) -> Record {
    let mut record = Record::default();
    connection.feed(from, Duration::ZERO, bytes, &mut |output| record.take(output));
    record
}

fn twice(identifier: u8) -> Vec<u8> {
    packet(0x34, &[&text("status/x")[..], &[0, identifier], b"1"].concat())
}

#[test]
fn what_is_published_beyond_what_is_kept_passes_while_observed_is_foretold_and_is_not_released_where_enforced()
 {
    let mut connection = open(2, Mode::Observe, "c");
    for (identifier, told) in [(1, 0), (2, 0), (3, 1)] {
        let record = feed(&mut connection, CLIENT, &twice(identifier));
        assert_eq!((&record.to_server, record.foretold), (&twice(identifier), told));
        assert_eq!((record.closed, record.noted.len()), (None, told));
    }
    connection.set_terms(Mode::Enforce, OnRefusal::Answer, &mut |_| {});
    connection.set_rules(permitting(1));
    let released = feed(&mut connection, CLIENT, &[0x62, 2, 0, 3]);
    assert!(released.to_server.is_empty(), "{released:?}");
    assert!(
        released.noted[0].contains("to be released"),
        "{:?}",
        released.noted
    );
    // Enforced from the beginning it ends, as was foretold.
    let mut connection = open(2, Mode::Enforce, "c");
    for identifier in [1, 2] {
        feed(&mut connection, CLIENT, &twice(identifier));
    }
    assert_eq!(feed(&mut connection, CLIENT, &twice(3)).closed, Some(false));
}

#[test]
fn the_topic_of_what_is_passing_and_the_names_of_clients_are_counted_as_held() {
    let long = "status/".to_owned() + &"x".repeat(60_000);
    let before = open(2, Mode::Enforce, "c").held_memory();
    let mut connection = open(2, Mode::Enforce, "c");
    let whole = publication(4, 0, &long, None, &[7; 5000]);
    feed(&mut connection, CLIENT, &whole[..61_000]);
    assert_eq!(connection.held_bytes(), 0);
    assert!(connection.held_memory() >= before + long.len());
    feed(&mut connection, CLIENT, &whole[61_000..]);
    assert!(connection.held_memory() < before + 1000);
    // It stands in the packet that connects, and in what is known beyond the connection.
    let named = open(2, Mode::Enforce, &"c".repeat(20_000)).held_memory();
    assert!(named >= before + 2 * 19_000, "{named} and {before}");
}

#[test]
fn subscribing_to_one_filter_again_and_again_is_quick_and_takes_no_more() {
    let rules = Operations::from(vec![crate::recorder::subscribe(&["#"])]);
    let mut connection = crate::recorder::connection(&rules, Mode::Enforce, OnRefusal::Answer);
    feed(&mut connection, CLIENT, &connect(4, "c"));
    feed(&mut connection, SERVER, &connack(4));
    let mut held = Vec::new();
    for _ in 0..2 {
        for number in 0..1024 {
            let filter = crate::mqtt_packets::subscription(4, &[(&format!("line/{number}"), 0)]);
            assert_eq!(feed(&mut connection, CLIENT, &filter).to_server, filter);
        }
        held.push(connection.held_memory());
    }
    assert_eq!(held[0], held[1]);
}
