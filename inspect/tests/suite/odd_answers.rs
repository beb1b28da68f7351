//! Recorded servers that answer otherwise than the standard says: what replay foretells, and what learning proposes.

use std::time::Duration;

use penstock_inspect::capture::Frame;
use penstock_inspect::connection::{Effect, Sender};
use penstock_inspect::learn::{Learned, Learner, document};
use penstock_inspect::replay::{Plans, Replay};

use crate::modbus_connection::adu;
use crate::offline::{KEY, clock, load, plans};

/// A whole connection from 10.1.0.5 to 10.2.0.9:502 as packets: opened, spoken, ended in order.
fn recorded(talk: &[(Sender, Vec<u8>)]) -> Vec<Vec<u8>> {
    const FIN: u8 = 0x11;
    let (mut client, mut server) = (1000_u32, 9000_u32);
    let mut packets = Vec::new();
    let mut segment = |from: Sender, flags: u8, payload: &[u8]| {
        let sent = payload.len() as u32 + u32::from(flags & 3 != 0);
        let (ports, seq, ack, ends) = match from {
            Sender::Client => ([50_000_u16, 502], client, server, [[10, 1, 0, 5], [10, 2, 0, 9]]),
            Sender::Server => ([502, 50_000], server, client, [[10, 2, 0, 9], [10, 1, 0, 5]]),
        };
        match from {
            Sender::Client => client += sent,
            Sender::Server => server += sent,
        }
        let length = u16::try_from(40 + payload.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 6, 0, 0];
        packet.extend(ends.concat());
        packet.extend(ports.map(u16::to_be_bytes).concat());
        packet.extend(seq.to_be_bytes());
        packet.extend(ack.to_be_bytes());
        packet.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        packets.push(packet);
    };
    segment(Sender::Client, 2, b"");
    segment(Sender::Server, 0x12, b"");
    segment(Sender::Client, 0x10, b"");
    for (from, payload) in talk {
        segment(*from, 0x18, payload);
    }
    segment(Sender::Client, FIN, b"");
    segment(Sender::Server, FIN, b"");
    segment(Sender::Client, 0x10, b"");
    packets
}

fn frames(packets: &[Vec<u8>]) -> impl Iterator<Item = Frame<'_>> {
    (1..).zip(packets).map(|(number, bytes)| Frame {
        number,
        link_type: 101,
        at: Duration::from_millis(20 * number),
        bytes,
        wire_bytes: bytes.len(),
    })
}

fn learned(packets: &[Vec<u8>]) -> Learned {
    let mut learner = Learner::new(None);
    frames(packets).for_each(|frame| learner.frame(&frame));
    learner.finish()
}

/// What the plant would have withheld or ended, with the option that helps.
fn foretold(packets: &[Vec<u8>], plans: &Plans) -> Vec<(Effect, String, Option<&'static str>)> {
    let mut replay = Replay::new(plans);
    frames(packets).for_each(|frame| replay.frame(&frame));
    let report = replay.finish();
    let treatments = report.flows.iter().flat_map(|flow| &flow.treatments);
    let deviations = treatments.flat_map(|treatment| &treatment.deviations);
    deviations
        .map(|deviation| (deviation.effect, deviation.what.clone(), deviation.remedy))
        .collect()
}

fn asked_and(answer: Vec<u8>) -> Vec<Vec<u8>> {
    let ask = adu(5, 1, &[3, 0, 0, 0, 1]);
    recorded(&[(Sender::Client, ask), (Sender::Server, answer)])
}

#[test]
fn a_server_that_counts_by_itself_is_proposed_with_answers_in_order_under_which_nothing_is_foretold() {
    let packets = asked_and(adu(6, 1, &[3, 2, 0, 7]));
    let text = document::write(&learned(&packets), None, Some(KEY), &clock);
    assert!(
        text.contains("        answers: in-order # its server answers under other"),
        "{text}"
    );
    assert_eq!(foretold(&packets, &plans(&load(&[&text]))), []);
    let strict = text.replace("        answers: in-order", "        #");
    let what = "an answer carries another transaction identifier than the request that it follows".to_owned();
    let told = foretold(&packets, &plans(&load(&[&strict])));
    assert_eq!(told, [(Effect::Withheld, what, Some("answers: in-order"))]);
}

#[test]
fn an_answer_that_fits_no_request_is_foretold_by_replay_and_said_where_its_flow_is_proposed() {
    for (answer, effect, told) in [
        (
            adu(5, 1, &[3, 4, 0, 7, 0, 7]),
            Effect::Withheld,
            "does not have the shape",
        ),
        (
            [adu(5, 1, &[3, 2, 0, 7]), adu(5, 1, &[3, 2, 0, 7])].concat(),
            Effect::Withheld,
            "which nobody asked",
        ),
        (
            adu(5, 1, &[3, 2, 0, 7])[..9].to_vec(),
            Effect::Withheld,
            "a packet is not whole",
        ),
        (
            vec![1, 3, 2, 0, 7, 0xf9, 0x86],
            Effect::Ended,
            "the protocol identifier",
        ),
    ] {
        let packets = asked_and(answer);
        let text = document::write(&learned(&packets), None, Some(KEY), &clock);
        let said = text.contains("# Some of its answers fit no request")
            || text.contains("# Some of it could not be read");
        assert_eq!(said, !told.contains("whole"), "{text}");
        let found = foretold(&packets, &plans(&load(&[&text])));
        assert!(
            found.len() == 1 && found[0].0 == effect && found[0].1.contains(told),
            "{found:?}"
        );
    }
}

#[test]
fn answers_to_what_was_asked_before_the_recording_began_are_not_foretold_to_be_withheld() {
    let ask = |transaction| (Sender::Client, adu(transaction, 1, &[3, 0, 0, 0, 1]));
    let answer = |transaction| (Sender::Server, adu(transaction, 1, &[3, 2, 0, 7]));
    let whole = recorded(&[ask(1), answer(1), ask(2), answer(2), ask(3), answer(3)]);
    let text = document::write(&learned(&whole), None, Some(KEY), &clock);
    let plans = plans(&load(&[&text]));
    for begins in 3..whole.len() {
        assert_eq!(foretold(&whole[begins..], &plans), [], "from packet {begins} on");
        assert_eq!(foretold(&whole[..begins], &plans), [], "up to packet {begins}");
    }
}
