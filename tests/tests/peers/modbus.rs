//! Modbus servers of four kinds behind a read-only rule.
//!
//! The stacks differ in what they take for a request (pinned below), and the inspector must be as strict as the strictest
//! in every respect: whatever any of them would execute as a write must not reach it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use penstock_lab::{Daemon, Lab, sandbox, wait_until};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::terms::{NumberRange, OnRefusal};
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::relayed::{Traffic, connect, inspected, pieces, runner, straight};

/// libmodbus under a program that answers unknown functions by itself.
const OWN_EXCEPTIONS: &str = "libmodbus with its own exceptions";

/// A server, and what it now holds.
struct Stack {
    name: &'static str,
    port: u16,
    reader: TcpStream,
    _server: Daemon,
}

impl Stack {
    fn start(lab: &Lab, name: &'static str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/servers");
        let port = 502;
        let own_exceptions = name == OWN_EXCEPTIONS;
        let mut command = if name == "libmodbus" || own_exceptions {
            let program = lab.directory().join("libmodbus-server");
            let compiled = Command::new("cc")
                .args(["-O1", "-Wall", "-I/usr/include/modbus", "-o"])
                .arg(&program)
                .arg(format!("{folder}/libmodbus_server.c"))
                .args(["-lmodbus", "-lpthread"])
                .output()
                .unwrap();
            assert!(
                compiled.status.success(),
                "{}",
                String::from_utf8_lossy(&compiled.stderr)
            );
            Command::new(program)
        } else {
            let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/bin/python");
            let mut command = Command::new(python);
            command.arg(format!("{folder}/{name}_server.py"));
            command
        };
        command.args(["127.0.0.1", &port.to_string()]);
        if own_exceptions {
            command.arg("own-exceptions");
        }
        let server = Daemon::spawn(name, command, lab.directory()).unwrap();
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        wait_until(&format!("{name} to listen"), Duration::from_secs(60), listens)
            .unwrap_or_else(|error| panic!("{error}: {}", server.log()));
        Self {
            name,
            port,
            reader: connect(port),
            _server: server,
        }
    }

    /// All registers and all coils.
    fn holds(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        for (code, bytes) in [(3, 200), (1, 13)] {
            self.reader.write_all(&adu(1, 1, &[code, 0, 0, 0, 100])).unwrap();
            let mut answer = vec![0; 9 + bytes];
            self.reader.read_exact(&mut answer).unwrap();
            assert_eq!(answer[7], code, "{} reads: {answer:?}", self.name);
            all.extend_from_slice(&answer[9..]);
        }
        all
    }

    /// Whether `act` changed anything.
    fn changes(&mut self, act: impl FnOnce(u16)) -> bool {
        let before = self.holds();
        act(self.port);
        self.holds() != before
    }
}

fn adu(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut adu = transaction.to_be_bytes().to_vec();
    adu.extend([0, 0]);
    adu.extend(u16::try_from(pdu.len() + 1).unwrap().to_be_bytes());
    adu.push(unit);
    adu.extend(pdu);
    adu
}

fn function(name: &str) -> ModbusOperation {
    ModbusOperation {
        function: name.to_owned(),
        units: None,
        addresses: None,
        read_addresses: None,
        values: None,
        sub_functions: None,
    }
}

fn read_only() -> Operations {
    Operations::from(vec![function("read-only")])
}

/// What only reads, and every function that carries any data.
fn open_ended() -> Operations {
    let names = [
        "read-only",
        "diagnostics",
        "canopen-general-reference",
        "function-90",
        "function-65",
    ];
    Operations::from(names.map(function).to_vec())
}

/// Writes of every kind, reads, and functions that carry other bytes, which may be a whole write.
fn pdu() -> impl Strategy<Value = Vec<u8>> {
    let write = (0_u8..100, any::<[u8; 2]>()).prop_map(|(at, [high, low])| vec![6, 0, at, high, low]);
    let hidden = (
        prop::sample::select(vec![&[8_u8, 0, 0][..], &[90], &[43, 13], &[8], &[65], &[43]]),
        0_usize..4,
        0_u8..100,
        any::<u8>(),
    )
        .prop_map(|(head, skip, at, value)| {
            let write = adu(0, 1, &[6, 0, at, value, value]);
            [head, &write[skip..]].concat()
        });
    prop_oneof![
        4 => write,
        2 => (0_u8..90, any::<[u8; 4]>()).prop_map(|(at, data)| [&[16, 0, at, 0, 2, 4][..], &data].concat()),
        2 => (0_u8..100, any::<bool>()).prop_map(|(at, on)| vec![5, 0, at, if on { 255 } else { 0 }, 0]),
        1 => (0_u8..90, any::<u8>()).prop_map(|(at, bits)| vec![15, 0, at, 0, 8, 1, bits]),
        1 => (0_u8..100, any::<[u8; 4]>()).prop_map(|(at, masks)| [&[22, 0, at][..], &masks].concat()),
        1 => (0_u8..90, any::<[u8; 2]>()).prop_map(|(at, data)| [&[23, 0, 0, 0, 1, 0, at, 0, 1, 2][..], &data].concat()),
        3 => (0_u8..90, 1_u8..10).prop_map(|(at, count)| vec![3, 0, at, 0, count]),
        2 => hidden,
    ]
}

/// One ADU, and what an attacker does to it.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let unit = prop::sample::select(vec![1_u8, 0, 255, 77]);
    (0_u16..4, unit, pdu(), 0_u8..16, any::<u16>(), pdu()).prop_map(
        |(transaction, unit, pdu, how, noise, other)| {
            let mut frame = adu(transaction, unit, &pdu);
            let [high, low] = noise.to_be_bytes();
            match how {
                0 => frame[3] = low.max(1),
                1 => frame[5] = frame[5].wrapping_add(1 + low % 8),
                2 => frame[5] = frame[5].saturating_sub(1 + low % 8),
                3 => frame[4] = high.max(1),
                4 => frame.extend(vec![0; usize::from(low % 9)]),
                5 => frame.truncate(frame.len().saturating_sub(1 + usize::from(low % 5))),
                6 => {
                    let at = usize::from(noise) % frame.len();
                    frame[at] ^= 1 << (high % 8);
                }
                7 => {
                    // The next write lies within what the length announces.
                    let inner = adu(transaction, unit, &other);
                    frame[5] = frame[5].saturating_add(u8::try_from(inner.len()).unwrap());
                    frame.extend(inner);
                }
                8 => frame[7] |= 0x80,
                9 => frame.insert(usize::from(noise) % frame.len(), high),
                _ => {}
            }
            frame
        },
    )
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let frames = prop::collection::vec(frame(), 1..8);
    (frames, prop::collection::vec(any::<usize>(), 0..5), 0_u64..4).prop_map(|(frames, cuts, pause)| {
        Traffic {
            pieces: pieces(&frames, &cuts),
            pause: Duration::from_millis(pause / 2 * 3),
        }
    })
}

fn no_bytes_change_a_register(name: &'static str, operations: &Operations, lab: &Lab) {
    let all = Config::default().cases / 2;
    let mut stack = Stack::start(lab, name);
    let (mut potent, mut cases) = (0, 0);
    let stack = std::cell::RefCell::new(&mut stack);
    let counted = std::cell::RefCell::new((&mut potent, &mut cases));
    runner(all)
        .run(&traffic(), |traffic| {
            let mut stack = stack.borrow_mut();
            let mut passed = Vec::new();
            let changed = stack.changes(|port| {
                passed = inspected(port, operations, OnRefusal::Answer, &traffic);
            });
            prop_assert!(
                !changed,
                "{} executed a write; what passed: {:02x?}",
                stack.name,
                passed
            );
            let mut counted = counted.borrow_mut();
            *counted.1 += 1;
            *counted.0 += u32::from(stack.changes(|port| straight(port, &traffic)));
            Ok(())
        })
        .unwrap();
    assert_eq!(cases, all);
    // Else this would prove nothing: the same bytes without the inspector do write.
    assert!(potent > all / 4, "only {potent} of {all} cases write at all");
    println!("{name}: {potent} of {all} cases write when they come straight, none through the inspector");
}

#[test]
fn with_a_read_only_rule_no_bytes_make_pymodbus_change_a_register() {
    sandbox::test(
        "modbus::with_a_read_only_rule_no_bytes_make_pymodbus_change_a_register",
        |lab| {
            no_bytes_change_a_register("pymodbus", &read_only(), lab);
        },
    )
    .unwrap();
}

#[test]
fn with_a_read_only_rule_no_bytes_make_umodbus_change_a_register() {
    sandbox::test(
        "modbus::with_a_read_only_rule_no_bytes_make_umodbus_change_a_register",
        |lab| {
            no_bytes_change_a_register("umodbus", &read_only(), lab);
        },
    )
    .unwrap();
}

#[test]
fn with_a_read_only_rule_no_bytes_make_libmodbus_change_a_register() {
    sandbox::test(
        "modbus::with_a_read_only_rule_no_bytes_make_libmodbus_change_a_register",
        |lab| {
            no_bytes_change_a_register("libmodbus", &read_only(), lab);
        },
    )
    .unwrap();
}

#[test]
fn with_every_open_ended_function_permitted_no_bytes_make_libmodbus_with_its_own_exceptions_change_a_register()
 {
    let name = "modbus::with_every_open_ended_function_permitted_no_bytes_make_libmodbus_with_its_own_exceptions_change_a_register";
    sandbox::test(name, |lab| {
        no_bytes_change_a_register(OWN_EXCEPTIONS, &open_ended(), lab);
    })
    .unwrap();
}

/// One permitted `diagnostics` request carried a write: the server read one byte of it, and took the rest for the next one.
#[test]
fn one_permitted_diagnostics_request_carries_no_write() {
    sandbox::test(
        "modbus::one_permitted_diagnostics_request_carries_no_write",
        |lab| {
            let mut stack = Stack::start(lab, OWN_EXCEPTIONS);
            let write = |value| adu(0, 1, &[6, 0, 5, 0x77, value]);
            let attempts = [
                vec![adu(1, 1, &[&[8, 0, 0][..], &write(1)[2..]].concat())],
                vec![adu(1, 1, &[&[90][..], &write(2)].concat())],
                vec![adu(1, 1, &[&[43, 13][..], &write(3)[1..]].concat())],
                // Its data, and the beginning of the next request, which is a read.
                vec![adu(1, 1, &[24, 0, 1]), adu(7, 0, &[3, 0, 9, 0, 1])],
                vec![adu(1, 1, &[24, 0, 0]), adu(7, 0, &[3, 0x77, 0x77, 0, 1])],
            ];
            let all = attempts.len();
            let mut potent = 0;
            for pieces in attempts {
                let traffic = Traffic {
                    pieces,
                    pause: Duration::from_millis(30),
                };
                let changed = stack.changes(|port| {
                    inspected(port, &open_ended(), OnRefusal::Answer, &traffic);
                });
                assert!(!changed, "{:02x?}", traffic.pieces);
                potent += usize::from(stack.changes(|port| straight(port, &traffic)));
            }
            assert_eq!(potent, all, "each attempt writes when it comes straight");
        },
    )
    .unwrap();
}

/// What each stack executes of one write that is not quite right, straight from the wire.
fn doubtful() -> Vec<(&'static str, Traffic, [bool; 3])> {
    let write = |edit: fn(&mut Vec<u8>)| {
        let mut write = adu(9, 1, &[6, 0, 5, 0x77, 0x77]);
        edit(&mut write);
        Traffic {
            pieces: vec![write],
            pause: Duration::ZERO,
        }
    };
    let echo = adu(
        1,
        1,
        &[&[8, 0, 0][..], &adu(0, 1, &[6, 0, 5, 0x77, 0x77])[2..]].concat(),
    );
    let cut_echo = Traffic {
        pieces: vec![echo[..8].to_vec(), echo[8..].to_vec()],
        pause: Duration::from_millis(200),
    };
    // libmodbus, pymodbus, umodbus
    vec![
        ("as it should be", write(|_| {}), [true; 3]),
        ("protocol 1", write(|write| write[3] = 1), [true, false, true]),
        (
            "a length one short",
            write(|write| write[5] -= 1),
            [true, false, false],
        ),
        (
            "a byte too many, counted",
            write(|write| {
                write[5] += 1;
                write.push(0);
            }),
            [true, true, false],
        ),
        ("unit 0", write(|write| write[6] = 0), [true; 3]),
        ("unit 255", write(|write| write[6] = 255), [true; 3]),
        (
            "within an echo that comes in two pieces",
            cut_echo,
            [true, false, false],
        ),
    ]
}

#[test]
fn stacks_differ_in_what_they_execute_and_the_inspector_lets_none_of_it_through() {
    let name = "modbus::stacks_differ_in_what_they_execute_and_the_inspector_lets_none_of_it_through";
    sandbox::test(name, |lab| {
        let mut unit_1 = function("write-single-register");
        unit_1.units = Some(vec![NumberRange { first: 1, last: 1 }]);
        let permitted = Operations::from(vec![unit_1, function("read-only")]);
        for (at, stack) in ["libmodbus", "pymodbus", "umodbus"].into_iter().enumerate() {
            let mut stack = Stack::start(lab, stack);
            let before = stack.holds();
            let restore = adu(9, 1, &[&[6, 0, 5][..], &before[10..12]].concat());
            for (words, traffic, executes) in doubtful() {
                for operations in [&read_only(), &permitted] {
                    let right = words == "as it should be" && operations == &permitted;
                    let changed = stack.changes(|port| {
                        inspected(port, operations, OnRefusal::Answer, &traffic);
                    });
                    assert_eq!(changed, right, "{words}, through the inspector to {}", stack.name);
                    stack.reader.write_all(&restore).unwrap();
                    stack.reader.read_exact(&mut [0; 12]).unwrap();
                }
                let changed = stack.changes(|port| straight(port, &traffic));
                assert_eq!(changed, executes[at], "{words}, straight to {}", stack.name);
                stack.reader.write_all(&restore).unwrap();
                stack.reader.read_exact(&mut [0; 12]).unwrap();
            }
        }
    })
    .unwrap();
}
