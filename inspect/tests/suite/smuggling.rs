//! Servers that go by the function: nothing that is permitted becomes, in their reading, what is not.
//!
//! [`Server`] is such a server, as plain as can be. It answers what it does not know by an exception of its own, and reads
//! on right behind the function code.

use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Output, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use proptest::prelude::*;

use crate::modbus_connection::adu;
use crate::recorder::{Record, connection, cut, function, modbus, range, run};

/// A server that goes by the function, and all that it carried out.
struct Server {
    masks: bool,
    unread: Vec<u8>,
    /// Functions carried out, with the first address of what each writes.
    carried_out: Vec<(u8, u16)>,
    registers: [u16; 16],
}

impl Server {
    fn new(masks: bool) -> Self {
        Self {
            masks,
            unread: Vec::new(),
            carried_out: Vec::new(),
            registers: [0; 16],
        }
    }

    /// Takes bytes; what it answers.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(bytes);
        let mut answers = Vec::new();
        while self.unread.len() >= 8 {
            let code = self.unread[7];
            let mut body = match code {
                0..=6 => 4,
                15 | 16 => 5,
                22 if self.masks => 6,
                23 => 9,
                _ => 0,
            };
            if self.unread.len() < 8 + body {
                break;
            }
            if matches!(code, 15 | 16 | 23) {
                body += usize::from(self.unread[7 + body]);
            }
            if self.unread.len() < 8 + body {
                break;
            }
            let request: Vec<u8> = self.unread.drain(..8 + body).collect();
            let head = [request[0], request[1], 0, 0];
            let answer = self.carry_out(code, &request[8..]);
            answers.extend(head);
            answers.extend([0, u8::try_from(answer.len() + 1).unwrap(), request[6]]);
            answers.extend(answer);
        }
        answers
    }

    fn carry_out(&mut self, code: u8, body: &[u8]) -> Vec<u8> {
        let word = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        match code {
            1..=4 => {
                let count = word(2);
                if count == 0 || count > 100 {
                    return vec![code | 0x80, 3];
                }
                self.carried_out.push((code, word(0)));
                let bytes = if code < 3 {
                    usize::from(count).div_ceil(8)
                } else {
                    2 * usize::from(count)
                };
                [vec![code, u8::try_from(bytes).unwrap()], vec![0; bytes]].concat()
            }
            5 | 6 => self.write(code, word(0), word(2), &body[..4]),
            22 if self.masks => self.write(code, word(0), word(4), body),
            // It believes the byte count, whatever the quantity.
            15 | 16 => self.write(code, word(0), u16::from(*body.get(5).unwrap_or(&1)), &body[..4]),
            23 => self.write(code, word(4), 1, &[2, 0, 0]),
            17 => {
                self.carried_out.push((code, 0));
                vec![17, 2, 1, 255]
            }
            _ => vec![code | 0x80, 1],
        }
    }

    fn write(&mut self, code: u8, address: u16, value: u16, echo: &[u8]) -> Vec<u8> {
        self.carried_out.push((code, address));
        if let Some(register) = self.registers.get_mut(usize::from(address)) {
            *register = value;
        }
        [&[code], echo].concat()
    }
}

/// Everything that is open-ended, and everything that only reads.
fn open_ended() -> Operations {
    let names = [
        "read-only",
        "diagnostics",
        "canopen-general-reference",
        "function-65",
        "function-90",
        "read-file-record",
    ];
    modbus(names.map(function).to_vec())
}

/// The same, and some writes: of registers 0 to 3 only.
fn with_writes() -> Operations {
    let mut list = ModbusOperation::list(&open_ended()).unwrap();
    for name in [
        "write-multiple-registers",
        "mask-write-register",
        "write-single-register",
    ] {
        list.push(ModbusOperation {
            addresses: Some(vec![range(0, 3)]),
            ..function(name)
        });
    }
    Operations::from(list)
}

/// Connects a client to the server; what reached it is carried out at once, and answered at once or later.
fn served(operations: &Operations, server: &mut Server, chunks: &[(Vec<u8>, bool)]) -> Record {
    let mut connection = connection(operations, Mode::Enforce, OnRefusal::Answer);
    let (mut record, mut now, mut answers) = (Record::default(), Duration::ZERO, Vec::new());
    let mut feed = |connection: &mut Connection, from, now, bytes: &[u8]| {
        let mut reached = Vec::new();
        connection.feed(from, now, bytes, &mut |output| {
            if let Output::ToServer(bytes) = output {
                reached.extend_from_slice(bytes);
            }
            record.take(output);
        });
        reached
    };
    for (bytes, at_once) in chunks {
        let reached = feed(&mut connection, Sender::Client, now, bytes);
        answers.extend(server.take(&reached));
        if *at_once && !answers.is_empty() {
            feed(
                &mut connection,
                Sender::Server,
                now,
                &std::mem::take(&mut answers),
            );
        }
        now += Duration::from_millis(60);
    }
    record
}

/// A request that carries others in its data, in every place.
fn carrier() -> impl Strategy<Value = Vec<u8>> {
    let head = prop::sample::select(vec![
        &[8_u8, 0, 0][..],
        &[8, 0, 1],
        &[8],
        &[90],
        &[65],
        &[43, 13],
        &[43],
        &[20],
        &[24],
        &[21],
    ]);
    (
        head,
        0_usize..8,
        inner(),
        prop::collection::vec(any::<u8>(), 0..5),
    )
        .prop_map(|(head, skip, inner, tail)| [head, &inner[skip.min(inner.len())..], &tail].concat())
}

fn inner() -> impl Strategy<Value = Vec<u8>> {
    (any::<u16>(), 0_u8..3, plain()).prop_map(|(transaction, unit, pdu)| adu(transaction, unit, &pdu))
}

fn plain() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (0_u8..12, any::<u8>()).prop_map(|(at, value)| vec![6, 0, at, 0, value]),
        1 => (0_u8..12, any::<[u8; 2]>()).prop_map(|(at, [high, low])| vec![16, 0, at, 0, 1, 2, high, low]),
        1 => (0_u8..12, any::<[u8; 4]>()).prop_map(|(at, masks)| [&[22, 0, at][..], &masks].concat()),
        1 => (any::<u8>(), 0_u8..3).prop_map(|(at, count)| vec![3, 0, at, 0, count]),
        1 => Just(vec![17]),
    ]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let pdu = prop_oneof![
        3 => carrier(),
        2 => plain(),
        1 => prop::sample::select(vec![vec![8, 0, 0, 0, 0], vec![8, 0, 0, 6, 6], vec![43, 14, 1, 0], vec![24, 0, 6], vec![20, 7, 6, 0, 1, 0, 0, 0, 6]]),
    ];
    // Identifiers that would be a function's code, were they read in that place.
    (
        prop::sample::select(vec![6_u16, 0x0600, 0x1006, 1, 0x0610]),
        0_u8..2,
        pdu,
    )
        .prop_map(|(transaction, unit, pdu)| adu(transaction, unit, &pdu))
}

proptest! {
    #[test]
    fn no_permitted_request_makes_a_server_that_goes_by_the_function_write_what_is_not(
        requests in prop::collection::vec((request(), any::<bool>()), 1..8), masks in any::<bool>(), writing in any::<bool>()
    ) {
        let (operations, permitted) = if writing { (with_writes(), 4) } else { (open_ended(), 0) };
        let mut server = Server::new(masks);
        let record = served(&operations, &mut server, &requests);
        for (code, address) in &server.carried_out {
            prop_assert!(
                !matches!(code, 5 | 6 | 15 | 16 | 22 | 23) || *address < permitted,
                "function {} of {} was carried out; {:02x?} came", code, address, record.to_server
            );
        }
    }

    #[test]
    fn however_a_stream_with_carriers_is_cut_the_same_comes_out(
        requests in prop::collection::vec(request(), 1..6), cuts in prop::collection::vec(any::<usize>(), 0..8)
    ) {
        let begin = || connection(&with_writes(), Mode::Enforce, OnRefusal::Answer);
        let chunks = [(Sender::Client, requests.concat())];
        let (whole, _) = run(begin(), &chunks);
        let (pieces, _) = run(begin(), &cut(&chunks, &cuts));
        prop_assert_eq!(whole, pieces);
    }
}

/// Else the property above would prove nothing.
#[test]
fn the_same_requests_straight_to_such_a_server_write() {
    let hidden = adu(
        1,
        1,
        &[&[8, 0, 0][..], &adu(0, 1, &[6, 0, 5, 0x77, 0x77])[2..]].concat(),
    );
    let mut server = Server::new(true);
    server.take(&hidden);
    assert_eq!(server.registers[5], 0x7777);
    let mut server = Server::new(true);
    let record = served(&open_ended(), &mut server, &[(hidden, true)]);
    assert_eq!(server.registers[5], 0);
    assert_eq!(record.to_client, adu(1, 1, &[0x88, 3]));
    assert!(record.to_server.is_empty());
}

/// The data of one request and the beginning of the next make up a write: each by itself is harmless.
#[test]
fn a_write_in_two_halves_ends_the_connection_before_its_second_half() {
    let first = adu(1, 1, &[24, 0, 1]);
    let mut server = Server::new(true);
    server.take(&[first.clone(), adu(7, 1, &[3, 0, 9, 0, 1])].concat());
    assert_eq!(server.carried_out, [(6, 0x0103)]);
    let mut server = Server::new(true);
    let record = served(
        &open_ended(),
        &mut server,
        &[(first.clone(), true), (adu(7, 1, &[3, 0, 9, 0, 1]), true)],
    );
    assert_eq!(server.carried_out, []);
    assert_eq!((record.to_server, record.closed), (first, Some(true)));
    assert!(
        record.noted[0].contains("may read function 6 out of this request"),
        "{:?}",
        record.noted
    );
}

/// What a device answers that does not know the function, but goes by the length, is no reason to end anything.
#[test]
fn a_poll_goes_on_after_a_function_that_the_device_does_not_know() {
    let identify = adu(1, 1, &[43, 14, 1, 0]);
    let mut chunks = vec![
        (Sender::Client, identify),
        (Sender::Server, adu(1, 1, &[0xab, 1])),
    ];
    for transaction in 2..40 {
        chunks.push((Sender::Client, adu(transaction, 1, &[3, 0, 0, 0, 1])));
        chunks.push((Sender::Server, adu(transaction, 1, &[3, 2, 0, 7])));
        chunks.push((Sender::Client, adu(transaction, 1, &[8, 0, 0, 0, 0])));
        chunks.push((Sender::Server, adu(transaction, 1, &[0x88, 1])));
    }
    let (record, connection) = run(
        connection(&open_ended(), Mode::Enforce, OnRefusal::Answer),
        &chunks,
    );
    assert_eq!(
        (record.closed, record.noted.len()),
        (None, 0),
        "{:?}",
        record.noted
    );
    assert!(!connection.is_closed());
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_connection_after_an_open_ended_request_and_only_then() {
    let unasked = (Sender::Server, adu(0, 0, &[0x80, 1]));
    let echo = [
        (Sender::Client, adu(1, 1, &[8, 0, 0, 0, 7])),
        (Sender::Server, adu(1, 1, &[0x88, 1])),
    ];
    let begin = || connection(&open_ended(), Mode::Enforce, OnRefusal::Answer);
    let (record, _) = run(begin(), &[&echo[..], std::slice::from_ref(&unasked)].concat());
    assert_eq!(record.closed, Some(true));
    // A read that was carried out shows where the server stands.
    let read = [
        (Sender::Client, adu(2, 1, &[3, 0, 0, 0, 1])),
        (Sender::Server, adu(2, 1, &[3, 2, 0, 7])),
    ];
    let (record, _) = run(begin(), &[&echo[..], &read, &[unasked]].concat());
    assert_eq!((record.closed, record.noted.len()), (None, 1));
}

/// Schneider's tools program with function 90: its data holds whatever it holds, and a controller that speaks it says so first.
#[test]
fn what_a_server_has_carried_out_it_reads_to_its_end() {
    let hidden = |transaction| {
        let write = adu(0, 1, &[6, 0, 5, 0x77, 0x77]);
        adu(transaction, 1, &[&[90][..], &write].concat())
    };
    let begin = || connection(&open_ended(), Mode::Enforce, OnRefusal::Answer);
    let hello = |answer: &[u8]| {
        [
            (Sender::Client, adu(1, 1, &[90, 0, 2])),
            (Sender::Server, adu(1, 1, answer)),
            (Sender::Client, hidden(2)),
        ]
    };
    let (record, _) = run(begin(), &hello(&[90, 0, 0xfe]));
    assert!(record.to_server.ends_with(&hidden(2)));
    let (record, _) = run(begin(), &hello(&[0xda, 1]));
    assert!(record.to_client.ends_with(&adu(2, 1, &[0xda, 3])));
}

/// The answer to a read that was asked before is no proof of where the server reads on.
#[test]
fn an_earlier_answer_proves_nothing() {
    let chunks = [
        (Sender::Client, adu(9, 1, &[3, 0, 0, 0, 1])),
        (Sender::Client, adu(1, 1, &[24, 0, 1])),
        (Sender::Server, adu(1, 1, &[0x98, 1])),
        (Sender::Server, adu(9, 1, &[3, 2, 0, 7])),
        (Sender::Client, adu(7, 1, &[3, 0, 9, 0, 1])),
    ];
    let (record, _) = run(
        connection(&open_ended(), Mode::Enforce, OnRefusal::Answer),
        &chunks,
    );
    assert_eq!(record.closed, Some(true));
}

/// Behind a gateway to a serial line the data can be a frame of its own.
#[test]
fn a_serial_frame_with_its_check_sum_is_a_write_too() {
    let frame = [1, 6, 0, 5, 0x77, 0x77, 0xfe, 0x1d];
    for before in 0..4 {
        let hidden = adu(1, 1, &[&[90][..], &vec![0; before], &frame].concat());
        let (record, _) = run(
            connection(&open_ended(), Mode::Enforce, OnRefusal::Answer),
            &[(Sender::Client, hidden)],
        );
        assert_eq!(
            record.to_client,
            adu(1, 1, &[0xda, 3]),
            "{before} bytes before it"
        );
    }
}

#[test]
fn where_a_server_may_stand_survives_a_restart_and_a_state_without_it_is_read() {
    let rules = std::sync::Arc::new(Rules::compile(&open_ended()).unwrap());
    let (_, before) = run(
        connection(&open_ended(), Mode::Enforce, OnRefusal::Answer),
        &[
            (Sender::Client, adu(1, 1, &[24, 0, 1])),
            (Sender::Server, adu(1, 1, &[0x98, 1])),
        ],
    );
    let thaw = |frozen: &[u8]| {
        let rules = std::sync::Arc::clone(&rules);
        Connection::thaw(
            frozen,
            Duration::ZERO,
            rules,
            Mode::Enforce,
            OnRefusal::Answer,
            ConnectionLimits::default(),
        )
        .unwrap()
    };
    let frozen = before.freeze(Duration::ZERO);
    let (record, _) = run(thaw(&frozen), &[(Sender::Client, adu(7, 1, &[3, 0, 9, 0, 1]))]);
    assert_eq!(record.closed, Some(true));
    let old = br#"{"format":1,"state":{"modbus":{"from_client":"","from_server":"","in_flight":[{"transaction":1,"unit":1,"age":{"secs":0,"nanos":0},"awaits":{"answer":{"code":3,"body":{"counted":2}}}}]}}}"#;
    let (record, _) = run(thaw(old), &[(Sender::Server, adu(1, 1, &[3, 2, 0, 7]))]);
    assert_eq!(record.to_client, adu(1, 1, &[3, 2, 0, 7]));
}
