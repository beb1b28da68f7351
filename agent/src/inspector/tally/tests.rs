#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_inspect::judge::{Objection, Refusal};
use penstock_inspect::modbus::Request;

use super::*;

fn operation(code: u8, address: u16) -> Operation<'static> {
    let [high, low] = address.to_be_bytes();
    asked(&[code, high, low, 0, 1])
}

fn write(address: u16, value: u16) -> Operation<'static> {
    let ([high, low], [value_high, value_low]) = (address.to_be_bytes(), value.to_be_bytes());
    asked(&[6, high, low, value_high, value_low])
}

fn asked(pdu: &[u8]) -> Operation<'static> {
    Request::decode(1, pdu).unwrap().operation()
}

fn refused() -> Verdict {
    Verdict::Refuse(Refusal {
        why: Objection::Function,
        nearest: None,
    })
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn taken(tally: &mut Tally, now: Duration) -> Vec<(String, u64)> {
    let mut told = Vec::new();
    tally.take(now, false, &mut told);
    told.into_iter().map(|told| (told.text, told.count)).collect()
}

#[test]
fn a_poll_is_told_soon_and_then_ever_more_seldom() {
    let mut tally = Tally::default();
    let mut told = Vec::new();
    for second in 0..8000 {
        tally.judged(at(second), &operation(3, 0), Verdict::Allow(0), true);
        for (text, count) in taken(&mut tally, at(second)) {
            assert_eq!(text, "read-holding-registers");
            told.push((second, count));
        }
    }
    assert!(told.len() < 15, "{told:?}");
    assert_eq!(told[0].0, 1);
    let counted: u64 = told.iter().map(|(_, count)| count).sum();
    assert_eq!(counted, told.last().unwrap().0 + 1);
}

#[test]
fn a_refused_write_carries_the_values_that_were_refused_since_it_was_last_told() {
    let mut tally = Tally::default();
    for (second, values) in [(0, &[7, 40, 9][..]), (2, &[5])] {
        for value in values {
            tally.judged(at(second), &write(3, *value), refused(), false);
        }
        tally.judged(at(second), &operation(1, 0), refused(), false);
        let mut told = Vec::new();
        tally.take(at(second + 100), false, &mut told);
        let of = |function: &str| told.iter().find(|told| told.text.starts_with(function)).unwrap();
        let span = values.iter().min().zip(values.iter().max());
        let span = span.map(|(first, last)| NumberRange {
            first: (*first).into(),
            last: (*last).into(),
        });
        assert_eq!(of("write-single-register").values, span);
        assert_eq!(of("read-coils").values, None);
    }
}

#[test]
fn each_refused_operation_is_named_and_a_flood_of_different_ones_is_bounded() {
    let mut tally = Tally::default();
    for address in 0..10_000 {
        tally.judged(at(0), &operation(6, address), refused(), false);
    }
    let told = taken(&mut tally, at(1));
    assert_eq!(told.len(), SENTENCES_MAX + 1);
    assert_eq!(told[0], ("write-single-register 0 of unit 1".to_owned(), 1));
    let last = told.last().unwrap();
    assert_eq!(last.0, "write-single-register, and others of its kind");
    assert_eq!(told.iter().map(|(_, count)| count).sum::<u64>(), 10_000);
}

#[test]
fn what_is_silent_is_forgotten_and_everything_can_be_taken_at_once() {
    let mut tally = Tally::default();
    tally.note(at(0), Subject::Note, "odd");
    assert!(!tally.is_silent());
    assert_eq!(taken(&mut tally, at(1)), [("odd".to_owned(), 1)]);
    assert_eq!(taken(&mut tally, at(60)), []);
    assert!(tally.is_silent());
    tally.judged(at(61), &operation(6, 1), refused(), true);
    let mut told = Vec::new();
    tally.take(at(61), true, &mut told);
    assert_eq!(told[0].decision, Some(Decision::WouldDeny));
    assert!(tally.is_silent());
}

#[test]
fn a_stream_that_is_no_protocol_is_denied_with_its_reason_and_would_be_where_it_is_observed() {
    let malformed = Deviation::from(penstock_inspect::modbus::ModbusDeviation::Unasked {
        transaction: 7,
        unit: 1,
    });
    for (done, decision) in [(true, Decision::Deny), (false, Decision::WouldDeny)] {
        let mut tally = Tally::default();
        tally.deviates(at(0), &malformed, done);
        let mut told = Vec::new();
        tally.take(at(1), false, &mut told);
        assert_eq!(told[0].subject, Subject::Note);
        assert_eq!(told[0].decision, Some(decision));
        assert_eq!(told[0].text, malformed.to_string());
        assert!(told[0].reason.contains("is withheld"), "{}", told[0].reason);
    }
}

#[test]
fn what_is_told_of_long_topics_by_many_clients_takes_bounded_room() {
    let room = Rc::new(TallyRoom::default());
    let mut tallies: Vec<Tally> = (0..1000).map(|_| Tally::new(Rc::clone(&room))).collect();
    for (client, tally) in tallies.iter_mut().enumerate() {
        for attempt in 0..20 {
            let text = format!("publish {client}/{attempt}/{}", "é".repeat(30_000));
            tally.note(at(1), Subject::Note, text);
        }
    }
    let held = |tally: &Tally| {
        tally
            .sentences
            .iter()
            .map(|sentence| sentence.text.capacity())
            .sum::<usize>()
    };
    assert!(tallies.iter().map(held).sum::<usize>() <= SENTENCES_ALL_MAX * TEXT_BYTES_MAX + 1000 * 64);
    assert!(tallies[0].sentences[0].text.ends_with('…'));
    // Nothing is lost of the count.
    let told = tallies.iter_mut().flat_map(|tally| taken(tally, at(10)));
    assert_eq!(told.map(|(_, count)| count).sum::<u64>(), 20_000);
    drop(tallies);
    assert_eq!((room.sentences.get(), room.allowed.get()), (0, 0));
}
