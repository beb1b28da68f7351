#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn mac(last: u8) -> Mac {
    Mac([0, 0x1d, 0x9c, 0, 0, last])
}

fn seen(host: u16, last: u8, interface: &str, at_ms: u64) -> Sighting {
    let [high, low] = host.to_be_bytes();
    Sighting {
        address: IpAddr::from([10, 1, high, low]),
        mac: mac(last),
        interface: interface.to_owned(),
        at_ms,
    }
}

/// Two sides of one network; address 10.1.0.7 is an asset's, and declared to have MAC address 7.
fn table() -> Table {
    let networks: Vec<IpNet> = vec!["10.1.0.0/16".parse().unwrap()];
    Table {
        sides: BTreeMap::from([
            ("eth1".to_owned(), networks.clone()),
            ("eth2".to_owned(), networks),
        ]),
        named: BTreeMap::from([(
            IpAddr::from([10, 1, 0, 7]),
            Named {
                asset: Some("plc".to_owned()),
                declared: Some(mac(7)),
            },
        )]),
        ..Table::default()
    }
}

fn bindings(events: &[LearnedEvent]) -> Vec<&LearnedBinding> {
    events
        .iter()
        .map(|event| event.binding.as_ref().unwrap())
        .collect()
}

#[test]
fn an_address_is_told_of_once_and_again_when_another_machine_has_it_or_it_moves() {
    let mut table = table();
    let events = table.take(vec![seen(7, 7, "eth1", 10)], 10);
    let first = bindings(&events)[0];
    assert_eq!(
        (first.asset.as_str(), first.previous_mac.as_str(), first.changes),
        ("plc", "", 0)
    );
    assert!(table.take(vec![seen(7, 7, "eth1", 500)], 500).is_empty());
    let events = table.take(vec![seen(7, 9, "eth1", 70_000)], 70_000);
    let changed = bindings(&events)[0];
    assert_eq!(changed.previous_mac, mac(7).to_string());
    assert_eq!((changed.first_ms, changed.last_ms, changed.changes), (10, 500, 1));
    let events = table.take(vec![seen(7, 9, "eth2", 200_000)], 200_000);
    let moved = bindings(&events)[0];
    assert_eq!(
        (moved.previous_mac == moved.mac, moved.previous_interface.as_str()),
        (true, "eth1")
    );
    let shown = table.shown();
    assert_eq!(
        (shown[0].previous, shown[0].changes, shown[0].is_odd()),
        (Some(mac(7)), 2, true)
    );
}

#[test]
fn two_machines_that_claim_one_address_in_turn_are_counted_and_told_of_once_a_minute() {
    let mut table = table();
    let mut told = 0;
    for second in 0..600_u64 {
        let at = second * 1_000;
        told += table
            .take(vec![seen(7, (second % 2) as u8, "eth1", at)], at)
            .len();
    }
    assert_eq!(told, 11, "the first, and ten changes in ten minutes");
    assert_eq!(table.shown()[0].changes, 599);
}

#[test]
fn a_change_within_a_minute_of_another_is_reported_when_the_minute_is_over_against_what_the_trail_has() {
    let mut table = table();
    table.take(vec![seen(7, 7, "eth1", 1_000)], 1_000);
    assert_eq!(table.take(vec![seen(7, 8, "eth1", 2_000)], 2_000).len(), 1);
    assert!(table.take(vec![seen(7, 9, "eth1", 3_000)], 3_000).is_empty());
    assert!(table.take(Vec::new(), 61_999).is_empty());
    let events = table.take(Vec::new(), 62_000);
    let owed = bindings(&events)[0];
    assert_eq!(
        (&owed.mac, &owed.previous_mac),
        (&mac(9).to_string(), &mac(8).to_string())
    );
    assert!(table.take(Vec::new(), 200_000).is_empty());
}

#[test]
fn what_stays_as_it_is_is_reported_once_a_day_while_it_is_seen_also_by_the_next_agent() {
    let mut table = table();
    let day = u64::try_from(DAY.as_millis()).unwrap();
    let mut told = 0;
    for hour in 0..=72 {
        let at = hour * 3_600_000;
        told += table.take(vec![seen(7, 7, "eth1", at)], at).len();
        let kept = Table::of(table.shown());
        table.bindings = kept.bindings;
    }
    assert_eq!(told, 4);
    assert!(table.take(Vec::new(), 90 * day).is_empty(), "nobody saw it since");
}

#[test]
fn a_side_full_of_strangers_takes_no_other_sides_places_and_its_silent_ones_make_room_after_a_day() {
    let mut table = table();
    let share = BINDINGS_MAX / 2;
    for host in (1_000..).take(share + 500) {
        table.take(vec![seen(host, 1, "eth1", 10)], 10);
    }
    assert_eq!(table.bindings.len(), share);
    assert_eq!(
        table.take(vec![seen(900, 2, "eth2", 20)], 20).len(),
        1,
        "the other side's"
    );
    assert!(table.take(vec![seen(901, 1, "eth1", 20)], 20).is_empty());
    let late = u64::try_from(DAY.as_millis()).unwrap() + 20;
    let events = table.take(vec![seen(901, 1, "eth1", late)], late);
    assert!(
        events.iter().any(|event| event.source == "10.1.3.133"),
        "{events:?}"
    );
    assert_eq!(table.bindings.len(), share + 1);
}

#[test]
fn what_the_kernel_remembers_from_before_changes_nothing_and_strangers_to_a_side_are_not_learned() {
    let mut table = table();
    table.take(vec![seen(7, 7, "eth1", 1_000)], 1_000);
    assert!(table.take(vec![seen(7, 9, "eth2", 900)], 2_000).is_empty());
    assert_eq!(table.shown()[0].mac, mac(7));
    let stranger = Sighting {
        address: "192.0.2.7".parse().unwrap(),
        ..seen(8, 8, "eth1", 1)
    };
    assert!(table.take(vec![stranger, seen(8, 8, "wan", 1)], 2_000).is_empty());
}

#[test]
fn where_all_places_are_taken_an_asset_gets_that_of_the_stranger_who_was_longest_silent() {
    let mut table = table();
    for (port, first) in [("eth1", 1_000), ("eth2", 10_000)] {
        for host in (first..).take(BINDINGS_MAX / 2) {
            table.take(vec![seen(host, 1, port, u64::from(host))], 20_000);
        }
    }
    assert_eq!(table.bindings.len(), BINDINGS_MAX);
    assert!(
        table.take(vec![seen(900, 1, "eth1", 19_999)], 20_000).is_empty(),
        "another stranger gets none"
    );
    assert_eq!(table.take(vec![seen(7, 7, "eth1", 19_999)], 20_000).len(), 1);
    assert_eq!(table.bindings.len(), BINDINGS_MAX);
    assert!(!table.bindings.contains_key(&seen(1_000, 1, "eth1", 0).address));
}

proptest! {
    #[test]
    fn whatever_is_seen_the_table_has_what_was_seen_last_and_tells_no_more_than_it_may(
        all in proptest::collection::vec((0..9_u16, 0..4_u8, any::<bool>()), 0..300),
    ) {
        let mut table = table();
        let mut last = BTreeMap::new();
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        for (second, (host, mac, port)) in all.into_iter().enumerate() {
            let at = second as u64 * 1_000;
            let one = seen(host, mac, if port { "eth1" } else { "eth2" }, at);
            last.insert(one.address, (one.mac, one.interface.clone()));
            for event in table.take(vec![one], at) {
                *told.entry(event.source).or_default() += 1;
            }
        }
        for binding in table.shown() {
            prop_assert_eq!(&last[&binding.address], &(binding.mac, binding.interface));
        }
        prop_assert_eq!(table.bindings.len(), last.len());
        // The first, one change at once, and one a minute.
        prop_assert!(told.values().all(|count| *count <= 2 + 300 / 60));
        // What the trail has last is what is so, once a minute has passed.
        for event in table.take(Vec::new(), 1_000_000) {
            let binding = event.binding.unwrap();
            prop_assert_eq!(&last[&event.source.parse().unwrap()], &(binding.mac.parse().unwrap(), binding.interface));
        }
        prop_assert!(table.changed.is_empty());
    }
}
