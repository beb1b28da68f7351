//! Who gets a seat, who loses one, and that neither seats nor bytes are ever more than they may be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

const START: Duration = Duration::from_secs(1000);

fn limits(connections_max: usize, connections_per_client_max: usize) -> SeatLimits {
    SeatLimits {
        connections_max,
        connections_per_client_max,
        held_bytes_max: 64 * 1024,
    }
}

fn holder(client: u8, flow: u32, class: Class) -> Holder {
    Holder {
        client: IpAddr::from([10, 0, 0, client]),
        flow: Some(FlowId(flow)),
        class,
    }
}

fn lost(seat: &mut Seat) -> Option<ConnectionEnd> {
    match seat.poll_lost(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(end) => Some(end),
        Poll::Pending => None,
    }
}

#[test]
fn a_seat_is_free_again_when_its_connection_ends() {
    let seats = Seats::new(limits(3, 2));
    let [one, two] = [1, 2].map(|client| holder(client, 1, Class::Ordinary));
    let first = seats.take(one, 20_000, START).unwrap();
    let _second = seats.take(one, 20_000, START).unwrap();
    assert_eq!(seats.take(one, 1, START).unwrap_err(), Full::Client(2));
    let _third = seats.take(two, 20_000, START).unwrap();
    assert_eq!(seats.take(two, 1, START).unwrap_err(), Full::All(3));
    let at = |client: u8| SocketAddr::new(IpAddr::from([10, 0, 0, client]), 20_000);
    assert!(seats.is_used(at(1)) && seats.is_used(at(2)));
    drop(first);
    assert!(seats.is_used(at(1)), "it has a second one to another server");
    assert_eq!(seats.taken(), 2);
    assert!(seats.take(one, 2, START).is_ok());
}

#[test]
fn a_client_that_holds_all_seats_idle_keeps_neither_others_nor_its_own_other_flow_out() {
    let seats = Seats::new(limits(16, 16));
    let greedy = holder(1, 1, Class::Ordinary);
    let mut held: Vec<_> = (0..14)
        .map(|port| seats.take(greedy, port, START).unwrap())
        .collect();
    // The rest is kept for what must flow.
    assert_eq!(seats.take(greedy, 99, START).unwrap_err(), Full::All(16));
    held[0].works();
    let _other = seats.take(holder(2, 1, Class::Ordinary), 1, START).unwrap();
    let _own = seats.take(holder(1, 2, Class::Ordinary), 1, START).unwrap();
    let ended: Vec<_> = held.iter_mut().map(lost).collect();
    assert_eq!(
        ended[..4],
        [
            None,
            Some(ConnectionEnd::Crowded),
            Some(ConnectionEnd::Crowded),
            None
        ]
    );
    // Its own next one waits until one of them has been idle for long.
    assert!(seats.take(greedy, 100, START).is_err());
    assert!(seats.take(greedy, 100, START + IDLE_MAX).is_ok());
    let words = seats
        .shortage(START + IDLE_MAX)
        .unwrap()
        .words(|holder| holder.client.to_string());
    assert!(
        words.contains("3 declared connections were reset") && words.contains("10.0.0.1"),
        "{words}"
    );
    assert!(
        seats.shortage(START + Duration::from_secs(3600)).is_none(),
        "it is over"
    );
}

#[test]
fn what_must_flow_gets_a_seat_before_what_need_not_and_keeps_it_once_it_worked() {
    let seats = Seats::new(limits(8, 8));
    let must = |client| holder(client, 9, Class::MustFlow);
    let mut ordinary: Vec<_> = (0..7)
        .map(|port| seats.take(holder(1, 1, Class::Ordinary), port, START).unwrap())
        .collect();
    for seat in &mut ordinary {
        seat.works();
    }
    let mut standing: Vec<_> = (0..8)
        .map(|port| seats.take(must(2), port, START).unwrap())
        .collect();
    assert_eq!(ordinary.iter_mut().filter_map(lost).count(), 7);
    for seat in &mut standing {
        seat.works();
    }
    assert!(seats.take(must(3), 1, START + IDLE_MAX).is_err());
    assert!(
        seats
            .take(holder(1, 1, Class::Ordinary), 1, START + IDLE_MAX)
            .is_err()
    );
    assert!(standing.iter_mut().filter_map(lost).next().is_none());
}

/// A client, and what the policy says of its connections in the second of its flows.
fn claim(pass: bool, observed: bool) -> SeatClaim {
    SeatClaim {
        flow: Some(FlowId(2)),
        must_flow: false,
        observed,
        pass,
    }
}

#[test]
fn a_client_does_not_switch_the_inspection_of_its_flow_off_by_taking_all_of_its_own_share() {
    let at = |client: u8| SocketAddr::new(IpAddr::from([10, 0, 0, client]), 20_000);
    let seats = Seats::new(limits(8, 2));
    let own = holder(1, 1, Class::Ordinary);
    let mut held = [1, 2].map(|port| seats.take(own, port, START).unwrap());
    held.iter_mut().for_each(Seat::works);
    let refused = seats.take_or_pass(at(1), claim(true, false), START);
    assert_eq!(refused.unwrap_err(), Full::Client(2));
    // Where it is only observed, it passes all the same.
    let (observed, _) = seats.take_or_pass(at(1), claim(true, true), START).unwrap();
    assert!(observed.is_observed());
    // Others took the seats: that is not its doing.
    let seats = Seats::new(limits(2, 2));
    let mut held = [2, 3].map(|client| seats.take(holder(client, 1, Class::MustFlow), 1, START).unwrap());
    held.iter_mut().for_each(Seat::works);
    let (unread, full) = seats.take_or_pass(at(1), claim(true, false), START).unwrap();
    assert!(unread.is_unread() && !unread.is_observed());
    assert_eq!(full, Some(Full::All(2)));
}

#[test]
fn what_is_only_observed_goes_on_when_it_loses_its_seat_and_is_not_told_as_reset() {
    let seats = Seats::new(limits(4, 4));
    let mut observed = seats.take(holder(1, 1, Class::Ordinary), 1, START).unwrap();
    let _second = seats.take(holder(1, 1, Class::Ordinary), 2, START).unwrap();
    let _others = [3, 4].map(|port| seats.take(holder(2, port, Class::MustFlow), 1, START).unwrap());
    let _must = seats.take(holder(3, 1, Class::MustFlow), 1, START).unwrap();
    let end = lost(&mut observed).unwrap();
    let unread = observed.observed_instead(end, START).unwrap();
    drop(observed);
    assert!(unread.is_observed());
    let words = seats
        .shortage(START)
        .unwrap()
        .words(|holder| holder.client.to_string());
    assert!(words.starts_with("1 connections pass unread"), "{words}");
    assert!(!words.contains("reset"), "{words}");
    // Who is inspected, and who passes since its flow goes on without an inspector, takes nothing from it.
    let mut unread = unread;
    for client in 10..20 {
        let _ = seats
            .take(holder(client, 1, Class::Unread), 1, START)
            .map(std::mem::forget);
    }
    unread.holds(1024 * 1024);
    assert_eq!(lost(&mut unread), None);
}

#[test]
fn the_heaviest_connection_of_the_heaviest_client_ends_when_too_much_is_held() {
    let seats = Seats::new(limits(8, 8));
    let mut one = seats.take(holder(1, 1, Class::Ordinary), 1, START).unwrap();
    let mut other: Vec<_> = (0..3)
        .map(|port| seats.take(holder(2, 1, Class::Ordinary), port, START).unwrap())
        .collect();
    one.holds(30 * 1024);
    for (seat, bytes) in other.iter_mut().zip([8, 20, 10]) {
        seat.holds(bytes * 1024);
    }
    assert_eq!(
        lost(&mut one),
        None,
        "one connection, but not the heaviest client"
    );
    assert_eq!(
        other.iter_mut().map(lost).collect::<Vec<_>>(),
        [None, Some(ConnectionEnd::Heavy), None]
    );
    // What the ended one still says changes nothing.
    other[1].holds(60 * 1024);
    one.holds(40 * 1024);
    assert_eq!(lost(&mut one), None);
    let words = seats
        .shortage(super::super::now())
        .unwrap()
        .words(|holder| holder.client.to_string());
    assert!(words.contains("the last of 10.0.0.2"), "{words}");
}

proptest! {
    #[test]
    fn seats_and_bytes_are_never_more_than_they_may_be_and_newcomers_beside_a_greedy_one_get_in(
        steps in prop::collection::vec((0_u8..4, 0_u32..3, 0_usize..4, 0_usize..40, 0_u8..5), 1..200),
    ) {
        let seats = Seats::new(limits(16, 12));
        let mut held: Vec<Seat> = Vec::new();
        for (at, (client, flow, class, kib, act)) in steps.into_iter().enumerate() {
            let now = START + Duration::from_secs(at as u64);
            held.retain_mut(|seat| lost(seat).is_none());
            let class = [Class::MustFlow, Class::Ordinary, Class::Unread, Class::Observed][class];
            let whose = holder(client, flow, class);
            match act {
                0 if !held.is_empty() => drop(held.swap_remove(kib % held.len())),
                1 if !held.is_empty() => {
                    let some = kib % held.len();
                    held[some].holds(kib * 1024);
                }
                2 if !held.is_empty() => {
                    let some = kib % held.len();
                    held[some].works();
                }
                _ => {
                    let ordinary: Vec<Holder> = held.iter().map(|seat| seat.holder).collect();
                    let of = |whose: &Holder| ordinary.iter().filter(|other| *other == whose).count();
                    let of_client = ordinary.iter().filter(|other| other.client == whose.client && other.class.is_inspected()).count();
                    let must = class == Class::Ordinary && of(&whose) == 0 && of_client < 12
                        && ordinary.iter().any(|other| other.class == Class::Ordinary && of(other) >= 2);
                    let got = seats.take(whose, 1, now);
                    prop_assert!(got.is_ok() || !must);
                    held.extend(got);
                }
            }
            held.retain_mut(|seat| lost(seat).is_none());
            let taken = seats.taken_mut();
            let counted: usize = taken.by_holder.values().map(BTreeMap::len).sum();
            prop_assert_eq!(taken.by_class.iter().sum::<usize>(), counted);
            prop_assert_eq!(counted, held.len());
            prop_assert!(taken.by_class[0] + taken.by_class[1] <= 16 && taken.by_class[2] <= 16 && taken.by_class[3] <= 16);
            prop_assert!(taken.by_class[1] <= 14);
            let bytes: usize = taken.by_holder.values().flat_map(BTreeMap::values).map(|held| held.bytes).sum();
            prop_assert!(taken.bytes == bytes && bytes <= 64 * 1024);
        }
    }
}
