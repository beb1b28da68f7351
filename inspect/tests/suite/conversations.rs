//! UDP is parted into conversations as the kernel's connection tracking parts it, and doubt about who opened one is settled
//! by the rules that `capture::conversations` states.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use penstock_inspect::capture::conversations::PAIRS_MAX;
use penstock_inspect::capture::direction::{NoDeclarations, Opening};
use penstock_inspect::capture::{Conversation, Conversations, Datagram, Envelope};
use proptest::prelude::*;

/// When, from whom, to whom.
type Sent = (Duration, SocketAddr, SocketAddr);

const MANAGER: &str = "10.1.0.5:50000";
const DEVICE: &str = "10.2.0.9:161";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sent(at_s: u64, from: &str, to: &str) -> Sent {
    (s(at_s), from.parse().unwrap(), to.parse().unwrap())
}

fn feed(conversations: &mut Conversations, all: &[Sent], out: &mut Vec<Conversation>) {
    for (at, source, destination) in all {
        let datagram = Datagram {
            source: *source,
            destination: *destination,
            payload_bytes: 10,
            envelope: Envelope::default(),
        };
        conversations.datagram(*at, &datagram, &NoDeclarations, &mut |over| out.push(over));
    }
}

/// The conversations of a recording that begins at 0, in the order they began.
fn conversations(all: &[Sent]) -> Vec<Conversation> {
    let mut conversations = Conversations::default();
    conversations.recording_begins(s(0));
    let mut out = Vec::new();
    feed(&mut conversations, all, &mut out);
    assert_eq!(conversations.left_out(), 0);
    conversations.finish(&NoDeclarations, &mut |over| out.push(over));
    out.sort_by_key(|over| (over.first, over.client, over.server));
    out
}

/// Who opened each, to whom, and how that is known.
fn openings(all: &[Sent]) -> Vec<(String, String, Opening)> {
    let all = conversations(all).into_iter();
    all.map(|over| (over.client.to_string(), over.server.to_string(), over.opening))
        .collect()
}

/// The kernel's table, slow and obvious: every entry that ever was.
struct Entry {
    opener: SocketAddr,
    answerer: SocketAddr,
    first: Duration,
    last: Duration,
    datagrams: [u64; 2],
    timeout_s: u64,
}

/// `nf_conntrack_udp_packet`, datagram by datagram.
fn kernel(all: &[Sent]) -> Vec<Entry> {
    let mut table: Vec<Entry> = Vec::new();
    for (at, source, destination) in all {
        let found = table.iter_mut().find(|entry| {
            let original = (entry.opener, entry.answerer) == (*source, *destination);
            let reply = (entry.answerer, entry.opener) == (*source, *destination);
            (original || reply) && *at < entry.last + s(entry.timeout_s)
        });
        match found {
            Some(entry) => {
                let seen_reply = entry.datagrams[1] > 0;
                let is_old = *at > entry.first + s(2);
                entry.timeout_s = if seen_reply && is_old { 120 } else { 30 };
                entry.last = *at;
                entry.datagrams[usize::from(entry.opener != *source)] += 1;
            }
            None => table.push(Entry {
                opener: *source,
                answerer: *destination,
                first: *at,
                last: *at,
                datagrams: [1, 0],
                timeout_s: 30,
            }),
        }
    }
    table
}

/// Datagrams among a few ends, with silence of any length between them.
fn traffic(begin_s: u64) -> impl Strategy<Value = Vec<Sent>> {
    let ends: Vec<SocketAddr> = [
        MANAGER,
        DEVICE,
        "10.1.0.5:161",
        "10.2.0.9:50000",
        "10.2.0.9:5000",
        "10.3.0.1:161",
    ]
    .map(|end| end.parse().unwrap())
    .to_vec();
    let silence = prop_oneof![0..3_u64, 28..32_u64, 110..125_u64].prop_map(s);
    let one = (silence, prop::sample::subsequence(ends, 2), any::<bool>());
    prop::collection::vec(one, 1..60).prop_map(move |all| {
        let mut now = s(begin_s);
        all.into_iter()
            .map(|(silence, ends, turned)| {
                now += silence;
                let (one, other) = (ends[0], ends[1]);
                if turned {
                    (now, other, one)
                } else {
                    (now, one, other)
                }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn once_nothing_can_stand_from_before_conversations_are_the_entries_of_the_kernels_table(all in traffic(120)) {
        let mut expected: Vec<_> = kernel(&all)
            .into_iter()
            .map(|entry| (entry.first, entry.opener, entry.answerer, entry.last, entry.datagrams))
            .collect();
        expected.sort();
        let mut ours: Vec<_> = conversations(&all)
            .into_iter()
            .map(|over| (over.first, over.client, over.server, over.last, over.datagrams))
            .collect();
        ours.sort();
        prop_assert_eq!(ours, expected);
    }

    #[test]
    fn doubt_changes_who_opened_and_nothing_else(all in traffic(0)) {
        let key = |one: SocketAddr, other: SocketAddr, first, last, [of_one, of_other]: [u64; 2]| {
            if one < other {
                (one, other, first, last, of_one, of_other)
            } else {
                (other, one, first, last, of_other, of_one)
            }
        };
        let entries = kernel(&all).into_iter();
        let mut expected: Vec<_> = entries
            .map(|entry| key(entry.opener, entry.answerer, entry.first, entry.last, entry.datagrams))
            .collect();
        expected.sort();
        let conversations = conversations(&all);
        let mut ours: Vec<_> = conversations
            .iter()
            .map(|over| key(over.client, over.server, over.first, over.last, over.datagrams))
            .collect();
        ours.sort();
        prop_assert_eq!(ours, expected);
        for over in conversations {
            if over.first >= s(120) {
                prop_assert_ne!(over.opening, Opening::Told);
            } else {
                prop_assert_ne!(over.opening, Opening::Late);
            }
            if over.opening == Opening::Told {
                prop_assert_ne!(over.client.port(), over.server.port());
            }
            prop_assert_eq!(over.bytes, over.datagrams.map(|count| 10 * count));
        }
    }
}

#[test]
fn a_recording_that_begins_with_an_answer_has_the_asking_end_as_client() {
    let all = [
        sent(0, DEVICE, MANAGER),
        sent(9, MANAGER, DEVICE),
        sent(9, DEVICE, MANAGER),
    ];
    let over = conversations(&all)[0];
    assert_eq!(
        (over.client.to_string(), over.opening),
        (MANAGER.to_owned(), Opening::Told)
    );
    assert_eq!((over.datagrams, over.bytes), ([1, 2], [10, 20]));
}

#[test]
fn who_is_never_answered_is_no_server_though_it_sends_from_a_services_port() {
    let all = [sent(3, "10.2.0.9:514", "10.1.0.5:1514")];
    let expected = ("10.2.0.9:514".into(), "10.1.0.5:1514".into(), Opening::Recorded);
    assert_eq!(openings(&all), [expected]);
}

#[test]
fn an_answer_alone_is_known_by_what_others_ask_of_its_sender() {
    let asked_later = [
        sent(1, DEVICE, MANAGER),
        sent(4, "10.1.0.6:50001", DEVICE),
        sent(4, DEVICE, "10.1.0.6:50001"),
    ];
    let without_doubt = [sent(1, DEVICE, MANAGER), sent(140, "10.1.0.6:50001", DEVICE)];
    // A port that no service is known for: what is asked without doubt is what tells.
    let unknown_port = [
        sent(1, "10.2.0.9:7000", MANAGER),
        sent(140, "10.1.0.6:50001", "10.2.0.9:7000"),
    ];
    for all in [&asked_later[..], &without_doubt, &unknown_port] {
        let first = &openings(all)[0];
        assert_eq!((first.0.as_str(), first.2), (MANAGER, Opening::Told), "{all:?}");
    }
}

#[test]
fn peers_on_one_port_are_opened_by_whoever_speaks_first() {
    let (one, other) = ("10.1.0.5:123", "10.2.0.9:123");
    let all = [
        sent(5, other, one),
        sent(5, one, other),
        sent(200, one, other),
        sent(200, other, one),
        sent(300, other, one),
    ];
    let told = |from: &str, to: &str| (from.to_owned(), to.to_owned(), Opening::Recorded);
    assert_eq!(
        openings(&all),
        [told(other, one), told(one, other), told(other, one)]
    );
}

#[test]
fn after_two_minutes_of_recording_the_first_sender_opened_whatever_its_port() {
    assert_eq!(
        openings(&[sent(120, DEVICE, MANAGER)]),
        [(DEVICE.into(), MANAGER.into(), Opening::Recorded)]
    );
    let all = [sent(119, DEVICE, MANAGER), sent(119, MANAGER, DEVICE)];
    assert_eq!(openings(&all), [(MANAGER.into(), DEVICE.into(), Opening::Told)]);
}

#[test]
fn an_answer_after_the_entrys_end_is_late_and_the_next_request_is_not() {
    let all = [
        sent(200, MANAGER, DEVICE),
        sent(231, DEVICE, MANAGER),
        sent(300, DEVICE, MANAGER),
        sent(400, MANAGER, DEVICE),
    ];
    let request = (MANAGER.to_owned(), DEVICE.to_owned(), Opening::Recorded);
    let late = (DEVICE.to_owned(), MANAGER.to_owned(), Opening::Late);
    assert_eq!(
        openings(&all),
        [request.clone(), late.clone(), late, request.clone()]
    );
    // The other way round the first was the odd one: nobody takes a request for a late answer.
    let all = [sent(200, DEVICE, MANAGER), sent(240, MANAGER, DEVICE)];
    assert_eq!(openings(&all)[1], request);
}

#[test]
fn a_second_recording_brings_the_doubt_again() {
    let mut conversations = Conversations::default();
    let mut out = Vec::new();
    conversations.recording_begins(s(0));
    feed(&mut conversations, &[sent(200, MANAGER, DEVICE)], &mut out);
    conversations.recording_begins(s(90_000));
    feed(&mut conversations, &[sent(90_001, DEVICE, MANAGER)], &mut out);
    conversations.finish(&NoDeclarations, &mut |over| out.push(over));
    assert_eq!(out.len(), 2);
    assert!(
        out.iter().all(|over| over.client.to_string() == MANAGER),
        "{out:?}"
    );
}

#[test]
fn times_that_no_clock_shows_and_that_go_backwards_harm_nothing() {
    let ends = |at| (at, MANAGER.parse().unwrap(), DEVICE.parse().unwrap());
    let all = [Duration::MAX, Duration::ZERO, s(7), Duration::MAX].map(ends);
    let over = conversations(&all);
    let datagrams: u64 = over.iter().flat_map(|over| over.datagrams).sum();
    assert_eq!(datagrams, 4, "{over:?}");
}

#[test]
fn pairs_take_no_more_than_their_room_and_what_is_over_makes_some() {
    let mut conversations = Conversations::default();
    conversations.recording_begins(s(0));
    let mut out = Vec::new();
    let pair = |at_s, number: usize| {
        let port = u16::try_from(number % 60_000 + 1).unwrap();
        let host = u8::try_from(number / 60_000).unwrap();
        let client = SocketAddr::from(([10, 1, 0, host], port));
        (s(at_s), client, DEVICE.parse().unwrap())
    };
    let many: Vec<Sent> = (0..PAIRS_MAX + 5).map(|number| pair(130, number)).collect();
    feed(&mut conversations, &many, &mut out);
    assert_eq!((conversations.left_out(), out.len()), (5, 0));
    // Known pairs go on, others have to wait until some are over.
    feed(
        &mut conversations,
        &[pair(140, 7), pair(159, PAIRS_MAX + 6)],
        &mut out,
    );
    assert_eq!((conversations.left_out(), out.len()), (6, 0));
    feed(&mut conversations, &[pair(161, PAIRS_MAX + 6)], &mut out);
    assert_eq!((conversations.left_out(), out.len()), (6, PAIRS_MAX - 1));
    conversations.finish(&NoDeclarations, &mut |over| out.push(over));
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for over in &out {
        *counts.entry(over.datagrams[0]).or_default() += 1;
    }
    assert_eq!(counts, BTreeMap::from([(1, PAIRS_MAX), (2, 1)]));
}
