#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::Cell;
use std::io::Write as _;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

const SHORT: Duration = Duration::from_micros(40);
const LONG: Duration = Duration::from_millis(5);

/// A pace after these turns, each so long after the one before; and the time then.
fn after(turns: &[(Sender, Duration)]) -> (Pace, Duration) {
    let mut now = Duration::from_secs(1000);
    let mut pace = Pace::default();
    for (side, gap) in turns {
        now += *gap;
        pace.heard(*side, now);
    }
    (pace, now)
}

fn is_awaited(turns: &[(Sender, Duration)], later: Duration) -> bool {
    let (pace, last) = after(turns);
    pace.is_awaited(last, || last + later)
}

/// `count` requests with their answers.
fn exchange(count: usize, request: Duration, answer: Duration) -> Vec<(Sender, Duration)> {
    [(Sender::Client, request), (Sender::Server, answer)].repeat(count)
}

#[test]
fn a_controller_that_takes_its_time_is_never_awaited_awake_however_quick_its_client_is() {
    for count in 1..20 {
        let answered = exchange(count, SHORT, LONG);
        let asked = [&answered[..], &[(Sender::Client, SHORT)]].concat();
        assert!(!is_awaited(&asked, Duration::ZERO), "the controller");
        let take_turns = answered.len() >= usize::from(TURNS_MIN);
        assert_eq!(
            is_awaited(&answered, Duration::ZERO),
            take_turns,
            "the client's next block"
        );
    }
}

#[test]
fn a_server_that_became_slow_costs_one_window() {
    let mut turns = exchange(10, LONG, SHORT);
    turns.push((Sender::Client, LONG));
    assert!(is_awaited(&turns, WINDOW - Duration::from_nanos(1)));
    assert!(!is_awaited(&turns, WINDOW));
    turns.extend([(Sender::Server, LONG), (Sender::Client, LONG)]);
    assert!(!is_awaited(&turns, Duration::ZERO));
}

#[test]
fn in_a_stream_nothing_is_awaited() {
    let mut turns = exchange(10, SHORT, SHORT);
    turns.push((Sender::Client, SHORT));
    assert!(is_awaited(&turns, Duration::ZERO));
    turns.push((Sender::Client, SHORT));
    assert!(!is_awaited(&turns, Duration::ZERO));
}

#[test]
fn a_thread_stays_awake_for_none_but_the_connection_that_it_heard_last() {
    let (pace, heard) = after(&exchange(10, SHORT, SHORT));
    assert!(pace.is_awaited(heard, || heard));
    assert!(!pace.is_awaited(heard + Duration::from_nanos(1), || heard));
}

#[test]
fn a_thread_whose_processor_others_want_sleeps_as_they_do_and_tries_again_ever_more_seldom() {
    let mut contention = Contention::default();
    let mut now = Duration::from_secs(1000);
    let mut rests = Vec::new();
    for _ in 0..9 {
        contention.offered(now, now + LONG);
        let rested = contention.until;
        rests.push(rested - now - LONG);
        assert!(!contention.is_over(rested - Duration::from_nanos(1)) && contention.is_over(rested));
        now = rested;
    }
    assert_eq!(rests[..3], [REST_MIN, 2 * REST_MIN, 4 * REST_MIN]);
    assert_eq!(rests[8], REST_MAX);
    // A processor that is given back at once is awaited on, and after a while without contention all is as at first.
    contention.offered(now, now + SHORT);
    assert!(contention.is_over(now + SHORT));
    now += REST_MAX;
    contention.offered(now, now + SHORT);
    contention.offered(now, now + LONG);
    assert_eq!(contention.until, now + LONG + REST_MIN);
}

/// Mostly in turns, and mostly quick.
fn turns() -> impl Strategy<Value = Vec<(Sender, Duration)>> {
    let turn = (
        prop::bool::weighted(0.95),
        prop_oneof![9 => Just(SHORT), 1 => Just(LONG), 1 => Just(WINDOW)],
    );
    prop::collection::vec(turn, 0..40).prop_map(|turns| {
        let mut side = Sender::Server;
        let in_order = |(changes, gap)| {
            if changes {
                side = side.other();
            }
            (side, gap)
        };
        turns.into_iter().map(in_order).collect()
    })
}

proptest! {
    #[test]
    fn a_side_is_awaited_for_a_window_if_its_last_turn_was_quick_and_the_sides_took_turns(
        turns in turns(),
        later in 0..3 * WINDOW.as_nanos() as u64,
    ) {
        let later = Duration::from_nanos(later);
        // Each of the latest turns was of another side than the one before it; the client begins.
        let sides: Vec<Sender> = std::iter::once(Sender::Server).chain(turns.iter().map(|turn| turn.0)).collect();
        let take_turns = turns.len() >= usize::from(TURNS_MIN)
            && sides
                .windows(2)
                .rev()
                .take(usize::from(TURNS_MIN))
                .all(|pair| pair[0] != pair[1]);
        // The first turn of all follows nothing.
        let is_quick = turns.len() > 2 && turns[turns.len() - 2].1 < WINDOW;
        let expected = take_turns && is_quick && later < WINDOW;
        prop_assert_eq!(is_awaited(&turns, later), expected);
    }
}

#[test]
fn other_tasks_get_their_packets_while_one_stays_awake() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let came = Rc::new(Cell::new(false));
    let looks = Rc::new(Cell::new(0));
    let contention = Cell::default();
    let awake = {
        let (came, looks) = (Rc::clone(&came), Rc::clone(&looks));
        std::future::poll_fn(move |cx| {
            if came.get() {
                return std::task::Poll::Ready(());
            }
            looks.set(looks.get() + 1);
            // The thread is awake already when the packet is sent.
            if looks.get() == 1000 {
                far.write_all(b"x").unwrap();
            }
            stay_awake(cx, &contention, || Duration::ZERO);
            std::task::Poll::Pending
        })
    };
    let other = async move {
        let near = tokio::net::UnixStream::from_std(near).unwrap();
        near.readable().await.unwrap();
        came.set(true);
    };
    let local = tokio::task::LocalSet::new();
    local.spawn_local(other);
    local.block_on(&runtime, awake);
    assert!(looks.get() < 1010, "seen after {} looks", looks.get());
}
