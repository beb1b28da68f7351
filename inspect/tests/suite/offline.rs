//! What was learned from traffic is a plant document that lets exactly that traffic pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_inspect::capture::Frames;
use penstock_inspect::learn::{Ends, EntryKey, EntrySeen, Learned, Learner, PortCarrier, Talk, document};
use penstock_inspect::replay::{Occurrences, Plans, Replay, Report};
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::{SourceFile, Style};
use penstock_policy::model::Plant;
use penstock_policy::protocol::LimitSet;
use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::terms::NumberRange;

pub(crate) const KEY: &str = "ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";

fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures/modbus")
        .join(name)
}

fn learn(name: &str, plans: Option<&Plans>) -> Learned {
    let bytes = fs::read(capture(name)).unwrap();
    let mut learner = Learner::new(plans);
    for frame in Frames::open(&bytes).unwrap().flatten() {
        learner.frame(&frame);
    }
    learner.finish()
}

fn replay(name: &str, plans: &Plans) -> Report {
    let bytes = fs::read(capture(name)).unwrap();
    let mut replay = Replay::new(plans);
    for frame in Frames::open(&bytes).unwrap().flatten() {
        replay.frame(&frame);
    }
    replay.finish()
}

pub(crate) fn clock(at: Duration) -> String {
    format!("{} s", at.as_secs())
}

pub(crate) fn load(texts: &[&str]) -> Plant {
    let files: Vec<SourceFile> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| SourceFile::new(format!("{at}.yaml"), *text))
        .collect();
    let loaded = penstock_policy::load(&files, "2026-06-01".parse().unwrap());
    let drawn = loaded.diagnostics.render(Style::Graphical {
        colour: false,
        width: 120,
    });
    loaded.plant.unwrap_or_else(|| panic!("{drawn}\n{texts:?}"))
}

pub(crate) fn plans(plant: &Plant) -> Plans {
    Plans::new(compile_all(plant).unwrap().into_values().collect()).unwrap()
}

/// Whether operations of that name were asked in vain: a device refused them, or did not answer.
fn in_vain(learned: &Learned, operation: &str) -> bool {
    let mut failed = learned.talks.values().flat_map(|talk| talk.failed.keys());
    failed.any(|(_, key)| operation.starts_with(&key.operation))
}

#[test]
fn a_learned_document_is_valid_and_permits_all_well_formed_traffic_it_was_learned_from() {
    for name in [
        "modbus_test_data_part2.pcap",
        "modicon_test.pcap",
        "modbus_test.pcap",
    ] {
        let learned = learn(name, None);
        let text = document::write(&learned, None, Some(KEY), &clock);
        let plant = load(&[&text]);
        let plans = plans(&plant);
        let report = replay(name, &plans);
        let mut judged = 0;
        for flow in &report.flows {
            for treatment in &flow.treatments {
                assert!(
                    treatment.connection.allowed,
                    "{name}: {} {:?}\n{text}",
                    flow.client, treatment.connection
                );
                for operation in &treatment.operations {
                    let malformed = operation.answer.because.starts_with("it is malformed");
                    let busy = operation.answer.because.starts_with("transaction");
                    assert!(
                        operation.answer.allowed
                            || malformed
                            || busy
                            || in_vain(&learned, &operation.operation),
                        "{name}: {operation:?}\n{text}"
                    );
                    judged += usize::from(treatment.gateway.is_some());
                }
            }
        }
        assert!(judged > 0, "{name}: nothing was judged\n{text}");
        let again = learn(name, Some(&plans));
        let rest: Vec<_> = again
            .talks
            .values()
            .filter(|talk| talk.has_operations())
            .collect();
        assert!(rest.is_empty(), "{name}: {rest:?}");
    }
}

#[test]
fn what_is_not_in_the_plant_yet_is_proposed_beside_it_and_said_to_widen_it() {
    let mut small = learn("modbus_test_data_part2.pcap", None);
    // A plant that knows the ends and the conduit, but of one talk only the first of several operations.
    let talk = small
        .talks
        .values_mut()
        .find(|talk| talk.operations.len() > 1)
        .unwrap();
    let kept = talk.operations.pop_first().unwrap();
    talk.operations.clear();
    talk.operations.insert(kept.0.clone(), kept.1.clone());
    let first = document::write(&small, None, Some(KEY), &clock);
    let plant = load(&[&first]);
    let proposal = document::write(
        &learn("modbus_test_data_part2.pcap", Some(&plans(&plant))),
        Some(&plant),
        None,
        &clock,
    );
    assert!(
        proposal.contains("WIDENS") && proposal.contains("# widens: "),
        "{proposal}"
    );
    assert!(
        !proposal.contains(&format!("- {}:", kept.0.operation)),
        "{proposal}"
    );
    assert!(!proposal.contains("\nplant:"));
    let all = learn("modbus_test_data_part2.pcap", None);
    let together = load(&[&first, &proposal]);
    let report = replay("modbus_test_data_part2.pcap", &plans(&together));
    for operation in report
        .flows
        .iter()
        .flat_map(|flow| &flow.treatments)
        .flat_map(|treatment| &treatment.operations)
    {
        let malformed = operation.answer.because.starts_with("it is malformed");
        let in_vain = in_vain(&all, &operation.operation);
        assert!(operation.answer.allowed || malformed || in_vain, "{operation:?}");
    }
}

#[test]
fn what_gateways_learned_is_not_proposed_again_once_the_plant_permits_it() {
    for name in [
        "modbus_test.pcap",
        "modbus_test_2.pcap",
        "modbus_test_data_part2.pcap",
        "modicon_test.pcap",
        "fragmented.pcap",
    ] {
        let mut learned = learn(name, None);
        let text = document::write(&learned, None, Some(KEY), &clock);
        learned.leave_out(&plans(&load(&[&text])));
        let rest: Vec<_> = learned
            .talks
            .values()
            .filter(|talk| talk.has_operations())
            .map(|talk| &talk.operations)
            .collect();
        assert!(rest.is_empty(), "{name}: {rest:?}\n{text}");
    }
}

fn one(at: u32) -> NumberRange {
    NumberRange { first: at, last: at }
}

/// What a gateway tells of writes to one place, with these values.
fn written(function: &str, place: u32, values: &[NumberRange]) -> Learned {
    let files = function.contains("file");
    let key = EntryKey {
        numbers: vec![("units", 1)],
        operation: function.to_owned(),
        texts: Vec::new(),
        written: (!files).then_some(one(place)),
    };
    let seen = EntrySeen {
        seen: Occurrences::once(Duration::ZERO),
        sets: BTreeMap::from([
            ("addresses", LimitSet::Numbers(vec![one(place)])),
            ("values", LimitSet::Numbers(values.to_vec())),
        ])
        .into(),
    };
    let mut talk = Talk::new(Duration::ZERO, Some(MODBUS_TCP));
    talk.operations.insert(key, seen);
    let ends = Ends {
        client: [10, 1, 0, 5].into(),
        server: "10.2.0.9:502".parse().unwrap(),
        carrier: PortCarrier::Tcp,
    };
    let mut learned = Learned::default();
    learned.add(ends, talk);
    learned
}

#[test]
fn a_gateway_that_tells_of_thousands_of_ranges_in_one_entry_gets_them_proposed_and_the_proposal_says_why() {
    let text = document::write(
        &written("write-single-register", 40, &[one(0)]),
        None,
        Some(KEY),
        &clock,
    );
    let plans = plans(&load(&[&text]));
    let told = |ranges: u32| {
        let mut learned = written("read-write-multiple-registers", 40, &[one(0)]);
        // Sorted from the last to the first, and each twice.
        let many = (0..ranges).rev().flat_map(|n| [one(3 * n), one(3 * n)]);
        let many: Vec<_> = many.collect();
        let key = EntryKey {
            numbers: vec![("units", 1)],
            operation: "read-write-multiple-registers".to_owned(),
            ..EntryKey::default()
        };
        let sets = ["addresses", "read_addresses"].map(|limit| (limit, LimitSet::Numbers(many.clone())));
        let seen = EntrySeen {
            seen: Occurrences::once(Duration::ZERO),
            sets: sets.into_iter().collect(),
        };
        let (ends, mut talk) = learned.talks.pop_first().unwrap();
        talk.operations = BTreeMap::from([(key, seen)]);
        let mut learned = Learned::default();
        learned.add(ends, talk);
        learned.leave_out(&plans);
        learned
    };
    for (ranges, unasked) in [(100, 0), (4_000, 1)] {
        let learned = told(ranges);
        assert_eq!(learned.unasked, unasked, "{ranges}");
        let kept = learned.talks.values().flat_map(|talk| talk.operations.values());
        let kept: Vec<_> = kept.map(|seen| seen.ranges("addresses").len()).collect();
        assert_eq!(kept, [usize::try_from(ranges).unwrap()]);
        let proposal = document::write(&learned, None, Some(KEY), &clock);
        assert_eq!(
            proposal.contains("too many separate ranges"),
            unasked > 0,
            "{proposal}"
        );
    }
    // More than is kept of one pair of ends is left out, by number.
    let learned = told(6_000);
    assert!(
        learned
            .talks
            .values()
            .all(|talk| !talk.has_operations() && talk.further == 1)
    );
}

#[test]
fn values_are_held_against_the_rules_for_the_place_where_they_were_written() {
    let seen = [
        written("write-single-register", 40, &[one(0), one(100)]),
        written(
            "write-single-register",
            50,
            &[NumberRange {
                first: 1000,
                last: 2000,
            }],
        ),
        written("write-file-record", 1, &[one(5)]),
        written("write-file-record", 3, &[one(6)]),
        written("read-file-record", 7, &[]),
    ];
    let mut all = Learned::default();
    for (ends, talk) in seen.into_iter().flat_map(|learned| learned.talks) {
        all.add(ends, talk);
    }
    let proposal = document::write(&all, None, Some(KEY), &clock);
    let text = &proposal;
    for line in [
        "- write-single-register: { units: 1, addresses: [40], values: [0, 100] }",
        "- write-single-register: { units: 1, addresses: [50], values: [1000-2000] }",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let plans = plans(&load(&[text]));
    let proposed = |mut learned: Learned| {
        learned.leave_out(&plans);
        learned.talks.values().any(Talk::has_operations)
    };
    assert!(!proposed(all), "{text}");
    for (function, place, value, again) in [
        ("write-single-register", 40, 100, false),
        ("write-single-register", 40, 50, true),
        ("write-single-register", 50, 1500, false),
        ("write-single-register", 50, 100, true),
        ("write-single-register", 41, 0, true),
        ("write-file-record", 3, 5, false),
        ("write-file-record", 2, 5, true),
        ("write-file-record", 3, 7, true),
        ("read-file-record", 7, 0, false),
        ("read-file-record", 8, 0, true),
    ] {
        let values: &[NumberRange] = if function.starts_with("read") {
            &[]
        } else {
            &[one(value)]
        };
        assert_eq!(
            proposed(written(function, place, values)),
            again,
            "{function} {place} {value}\n{text}"
        );
    }
}

#[test]
fn packets_that_were_not_read_are_told_in_the_proposal() {
    let mut bytes = fs::read(capture("modbusSmall.pcap")).unwrap();
    // The first packet becomes a fragment that has more behind it.
    bytes[24 + 16 + 14 + 6] |= 0x20;
    let mut learner = Learner::new(None);
    for frame in Frames::open(&bytes).unwrap().flatten() {
        learner.frame(&frame);
    }
    let text = document::write(&learner.finish(), None, Some(KEY), &clock);
    let told = "# Packets left aside: 1, fragments of an IP packet of which others are missing.";
    assert!(text.lines().any(|line| line == told), "{text}");
}
