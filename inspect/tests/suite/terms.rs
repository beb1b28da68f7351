//! A connection that stands while the terms it is judged under change.

use std::time::Duration;

use penstock_inspect::connection::{Connection, Mode, Sender};
use penstock_inspect::judge::refusal::OnRefusal;

use crate::recorder::{Record, connection, function, modbus};

const READ: [u8; 12] = [0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
const WRITE: [u8; 12] = [0, 2, 0, 0, 0, 6, 1, 6, 0, 40, 0, 9];

fn read_only(mode: Mode) -> Connection {
    connection(&modbus(vec![function("read-only")]), mode, OnRefusal::Answer)
}

fn feed(connection: &mut Connection, bytes: &[u8]) -> Record {
    let mut record = Record::default();
    connection.feed(Sender::Client, Duration::ZERO, bytes, &mut |output| {
        record.take(output)
    });
    record
}

#[test]
fn a_zone_that_begins_to_enforce_does_so_from_the_next_request_on() {
    let mut connection = read_only(Mode::Observe);
    assert_eq!(feed(&mut connection, &WRITE).to_server, WRITE);
    assert!(feed(&mut connection, &READ[..5]).to_server.is_empty());
    connection.set_terms(Mode::Enforce, OnRefusal::Answer);
    // The request that was half there is still whole.
    assert_eq!(feed(&mut connection, &READ[5..]).to_server, READ);
    let refused = feed(&mut connection, &[&[0, 3], &WRITE[2..]].concat());
    assert_eq!((refused.to_server.len(), refused.to_client.len()), (0, 9));
    connection.set_terms(Mode::Observe, OnRefusal::Answer);
    let passed = feed(&mut connection, &[&[0, 4], &WRITE[2..]].concat());
    assert_eq!(passed.to_server.len(), 12);
}

#[test]
fn a_stream_that_was_lost_while_observing_ends_where_enforcing_begins() {
    let mut connection = read_only(Mode::Observe);
    let lost = feed(&mut connection, b"GET / HTTP/1.1\r\n");
    assert_eq!(lost.to_server, b"GET / HTTP/1.1\r\n");
    connection.set_terms(Mode::Enforce, OnRefusal::Answer);
    assert!(connection.is_closed());
    assert_eq!(feed(&mut connection, &WRITE), Record::default());
}

#[test]
fn what_was_held_at_the_end_of_a_side_passes_only_while_observing() {
    for (mode, passes) in [(Mode::Observe, true), (Mode::Enforce, false)] {
        let mut connection = read_only(mode);
        feed(&mut connection, &READ[..7]);
        let mut record = Record::default();
        connection.end(Sender::Client, &mut |output| record.take(output));
        let expected: &[u8] = if passes { &READ[..7] } else { &[] };
        assert_eq!(record.to_server, expected);
    }
}
