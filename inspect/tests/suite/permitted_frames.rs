//! Frames other than IP: replay says what a plant permits of them, and learning proposes the rest.

use penstock_inspect::capture::Frames;
use penstock_inspect::learn::{Learner, document};
use penstock_inspect::replay::{Replay, Report};

use crate::beyond_flows::{from_hmi, plant, polling};
use crate::learn_cases::learned;
use crate::offline::{KEY, clock, load, plans};
use crate::recording::Recording;

const HMI: [u8; 6] = [2; 6];
const PLC: [u8; 6] = [4; 6];
const GROUP: [u8; 6] = [0x01, 0x0c, 0xcd, 0x01, 0x00, 0x05];

/// A frame with `middle` between its addresses and what it carries.
fn frame(destination: [u8; 6], sender: [u8; 6], middle: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = [&destination[..], &sender, middle, content].concat();
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// PROFINET RT both ways, with a priority one way; GOOSE of two applications in VLAN 10 from the controller to a group.
fn cell() -> Recording {
    let mut recording = polling();
    for at in 0..5 {
        recording.frame(frame(PLC, HMI, &[0x88, 0x92], &[0x80, at]));
        recording.frame(frame(HMI, PLC, &[0x81, 0, 0xc0, 0, 0x88, 0x92], &[0x80, at]));
        recording.frame(frame(GROUP, PLC, &[0x81, 0, 0x80, 10, 0x88, 0xb8], &[0, at % 2]));
    }
    recording
}

fn replayed(recording: &Recording, files: &[&str]) -> Report {
    let plans = plans(&load(files));
    let mut replay = Replay::new(&plans);
    let bytes = recording.pcap();
    for frame in Frames::open(&bytes).unwrap().flatten() {
        replay.frame(&frame);
    }
    replay.finish()
}

fn proposed(recording: &Recording, text: &str) -> String {
    let plant = load(&[text]);
    let plans = plans(&plant);
    document::write(
        &learned(&recording.pcap(), Some(&plans)),
        Some(&plant),
        None,
        &clock,
    )
}

#[test]
fn what_a_replay_refuses_of_a_cell_passes_with_what_learning_proposes() {
    let (recording, text) = (cell(), plant("bridged", "enforce"));
    let before = replayed(&recording, &[&text]);
    assert_eq!(before.refused.values().sum::<u64>(), 15, "{:?}", before.refused);
    assert!(
        before
            .refused
            .keys()
            .all(|what| what.contains("no `frames` of a conduit permit it"))
    );
    let proposal = proposed(&recording, &text);
    let after = replayed(&recording, &[&text, &proposal]);
    assert!(after.refused.is_empty(), "{:?}\n{proposal}", after.refused);
    assert_eq!(after.passed, 15, "{proposal}");
    let by = |name: &str| {
        after
            .skipped
            .keys()
            .any(|what| what.contains(&format!("passes by learned-frames-control-operations/{name}")))
    };
    assert!(
        by("goose-vlan-10-from-control") && by("profinet-rt-from-operations"),
        "{:?}",
        after.skipped
    );
    // It permits what was seen, and nothing beside.
    for other in [
        frame(PLC, HMI, &[0x81, 0, 0, 10, 0x88, 0x92], &[0x80, 0]),
        frame(GROUP, PLC, &[0x88, 0xb8], &[0, 1]),
        frame(GROUP, PLC, &[0x81, 0, 0, 10, 0x88, 0xb8], &[0, 2]),
        frame(GROUP, HMI, &[0x81, 0, 0, 10, 0x88, 0xb8], &[0, 1]),
        frame(
            [1, 0x0c, 0xcd, 1, 0, 6],
            PLC,
            &[0x81, 0, 0, 10, 0x88, 0xb8],
            &[0, 1],
        ),
        frame(PLC, HMI, &[0x81, 0, 0, 0, 0x81, 0, 0, 0, 0x88, 0x92], &[0x80, 0]),
        frame(PLC, HMI, &[0x88, 0xa8, 0, 0, 0x88, 0x92], &[0x80, 0]),
    ] {
        let mut recording = polling();
        recording.frame(other.clone());
        let report = replayed(&recording, &[&text, &proposal]);
        assert_eq!(
            report.refused.values().sum::<u64>(),
            1,
            "{other:02x?} {:?}",
            report.skipped
        );
    }
    // A second look has nothing to add.
    let whole = format!("{text}{}", proposal.split_once("conduits:\n").unwrap().1);
    let again = proposed(&recording, &whole);
    assert!(!again.contains("frames:"), "{again}");
}

#[test]
fn the_sketch_of_a_proposal_permits_what_it_was_learned_from() {
    let recording = cell();
    let text = document::write(
        &learned(&recording.pcap(), None),
        None,
        Some(crate::offline::KEY),
        &clock,
    );
    let enforcing = text.replace("enforcement: observe", "enforcement: enforce");
    assert_ne!(text, enforcing);
    let report = replayed(&recording, &[&enforcing]);
    assert!(
        report.refused.is_empty() && report.observed.is_empty(),
        "{report:?}\n{text}"
    );
}

#[test]
fn what_nobody_can_place_is_named_and_not_proposed() {
    let mut recording = polling();
    // A sender without an address.
    recording.frame(frame(GROUP, [6; 6], &[0x88, 0xb8], &[0, 1]));
    // What no gateway could permit, and what stays on its cable.
    recording.frame(from_hmi(PLC, [0x88, 0xcc]));
    recording.frame(from_hmi([1, 0x80, 0xc2, 0, 0, 0x0e], [0x88, 0xf7]));
    let proposal = proposed(&recording, &plant("bridged", "enforce"));
    assert!(
        proposal.contains("# NOT PROPOSED of frames other than IP"),
        "{proposal}"
    );
    assert!(proposal.contains("from 06:06:06:06:06:06"), "{proposal}");
    assert!(!proposal.contains("frames:\n"), "{proposal}");
    // A router forwards nothing of the kind.
    let routed = proposed(&cell(), &plant("routed", "enforce"));
    assert!(!routed.contains("frames:\n"), "{routed}");
}

/// Where both ways are permitted, it makes no difference on which side a sender without an address is.
#[test]
fn frames_that_are_permitted_both_ways_pass_from_whomever_they_come() {
    let frames = "    frames: { io: { from: operations, both: yes, ethertype: profinet-rt } }\n";
    let text = plant("bridged", "enforce").replace("    flows:\n", &format!("{frames}    flows:\n"));
    let mut recording = polling();
    recording.frame(frame(GROUP, [6; 6], &[0x88, 0x92], &[0x80, 0]));
    let report = replayed(&recording, &[&text]);
    assert_eq!((report.passed, report.unread.len()), (1, 0), "{report:?}");
    let one_way = replayed(&recording, &[&text.replace("both: yes, ", "")]);
    assert_eq!(one_way.unread.values().sum::<u64>(), 1, "{one_way:?}");
}

#[test]
fn a_frame_for_a_machine_that_nobody_knows_is_judged_from_its_senders_side() {
    let frames = "    frames: { io: { from: operations, ethertype: profinet-rt } }\n";
    let text = plant("bridged", "enforce").replace("    flows:\n", &format!("{frames}    flows:\n"));
    for (sender, passed, unknown) in [(HMI, 1, 0), (PLC, 0, 1)] {
        let mut recording = polling();
        recording.frame(frame([6; 6], sender, &[0x88, 0x92], &[0x80, 0]));
        let report = replayed(&recording, &[&text]);
        assert_eq!(
            (report.passed, report.unread.values().sum::<u64>()),
            (passed, unknown),
            "{report:?}"
        );
    }
}

#[test]
fn names_of_proposed_frames_are_short_and_distinct_however_long_the_zones_are_and_each_frame_counts_once() {
    let text = plant("bridged", "enforce");
    let long = |end: &str| format!("a-zone-whose-name-has-as-many-letters-as-it-may-have-{end}");
    let text = text
        .replace("operations:", &format!("{}:", long("north")))
        .replace(": operations", &format!(": {}", long("north")))
        .replace(&format!("kind: {}", long("north")), "kind: operations")
        .replace("control:", &format!("{}:", long("south")))
        .replace(": control", &format!(": {}", long("south")))
        .replace(&format!("kind: {}", long("south")), "kind: control");
    let mut recording = polling();
    for _ in 0..5 {
        for (sender, receiver) in [(HMI, PLC), (PLC, HMI)] {
            let tagged = [0x81, 0, 0x0f, 0xa1, 0x88, 0xba];
            recording.frame(frame(receiver, sender, &tagged, &[0x40, 0]));
        }
    }
    let proposal = proposed(&recording, &text);
    assert!(
        proposal.contains("5 times") && !proposal.contains("10 times"),
        "{proposal}"
    );
    let after = replayed(&recording, &[&text, &proposal]);
    assert_eq!((after.passed, after.refused.len()), (10, 0), "{proposal}");
    assert_eq!(
        proposal.matches("# NOT LIMITED by to_mac").count(),
        2,
        "{proposal}"
    );
}

#[test]
fn frames_are_proposed_without_the_tags_that_only_the_recorder_added_if_that_is_said() {
    let bytes = cell().pcap();
    let learned = |learner: Learner<'_>| {
        let mut learner = learner;
        Frames::open(&bytes)
            .unwrap()
            .flatten()
            .for_each(|frame| learner.frame(&frame));
        document::write(&learner.finish(), None, Some(KEY), &clock)
    };
    assert!(learned(Learner::new(None)).contains("        vlan: 10 # if only the recording has this tag"));
    let text = learned(Learner::new(None).ignoring_tags());
    assert!(!text.contains("vlan"), "{text}");
    assert!(!text.contains("tagged"), "{text}");
    assert!(text.contains("      goose-from-control:\n"), "{text}");
    let before = replayed(&cell(), &[&text.replace("observe", "enforce")]);
    assert_eq!(
        before.refused.values().sum::<u64>(),
        5,
        "those in a VLAN, {:?}",
        before.refused
    );
}
