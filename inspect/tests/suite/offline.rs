//! What was learned from traffic is a plant document that lets exactly that traffic pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_inspect::capture::Frames;
use penstock_inspect::learn::{Learned, Learner, document};
use penstock_inspect::replay::{Plans, Replay, Report};
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::{SourceFile, Style};
use penstock_policy::model::Plant;

const KEY: &str = "ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";

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

fn clock(at: Duration) -> String {
    format!("{} s", at.as_secs())
}

fn load(texts: &[&str]) -> Plant {
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

fn plans(plant: &Plant) -> Plans {
    Plans::new(compile_all(plant).unwrap().into_values().collect()).unwrap()
}

#[test]
fn a_learned_document_is_valid_and_permits_all_well_formed_traffic_it_was_learned_from() {
    for name in [
        "modbus_test_data_part2.pcap",
        "modicon_test.pcap",
        "modbus_test.pcap",
    ] {
        let text = document::write(&learn(name, None), None, Some(KEY), &clock);
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
                        operation.answer.allowed || malformed || busy,
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
        .find(|talk| talk.modbus.len() > 1)
        .unwrap();
    let kept = talk.modbus.pop_first().unwrap();
    talk.modbus.clear();
    talk.modbus.insert(kept.0.clone(), kept.1.clone());
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
        !proposal.contains(&format!("- {}:", kept.0.function)),
        "{proposal}"
    );
    assert!(!proposal.contains("\nplant:"));
    let together = load(&[&first, &proposal]);
    let report = replay("modbus_test_data_part2.pcap", &plans(&together));
    for operation in report
        .flows
        .iter()
        .flat_map(|flow| &flow.treatments)
        .flat_map(|treatment| &treatment.operations)
    {
        let malformed = operation.answer.because.starts_with("it is malformed");
        assert!(operation.answer.allowed || malformed, "{operation:?}");
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
    let told = "# Packets left aside: 1, a fragment of an IP packet, which is not put together.";
    assert!(text.lines().any(|line| line == told), "{text}");
}
