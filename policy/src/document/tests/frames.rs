//! Frames other than IP in a document: what comes of them in a plan, and what is refused.

use super::{BASE, codes, load_text};
use crate::check::check;
use crate::compile::compile_all;
use crate::diagnostics::Code;
use crate::diff::{Effect, Subject, diff};
use crate::plan::{Capability, Plan};
use crate::reach::{Permit, Steps};
use crate::terms::FrameSeen;
use crate::verdict::{FrameVerdict, decide_frame};

/// The gateway of the base document as it routes, ...
const ROUTED: &str = "    mode: routed\n    interfaces:\n      eth1: { zone: office, address: 10.1.0.1/24 }\n      \
                      eth2: { zone: ops, behind: cells, address: 10.2.0.1/24 }\n      eth3: { zone: safety, address: 10.3.0.1/24 }\n";
/// ... and as a bridge each side of which is one zone.
const BRIDGED: &str = "    mode: bridged\n    interfaces:\n      eth1: { zone: office }\n      eth2: { zone: ops }\n      eth3: { zone: safety }\n";
const FLOWS: &str = "      web: { source: clerk, destination: hmi, service: https }\n";
/// Frames as they are written.
pub(super) const IO: &str = "io: { from: office, ethertype: goose, vlan: 10, to_mac: \"01:0c:cd:01:00:00/40\", appid: 0x0001-0x0004 }\n";

/// The base document at a bridge, with these frames from the office to the operations zone.
pub(super) fn bridged(frames: &str) -> String {
    assert!(BASE.contains(ROUTED) && BASE.contains(FLOWS));
    BASE.replace(ROUTED, BRIDGED)
        .replace(FLOWS, &format!("{FLOWS}    frames:\n      {frames}"))
}

fn plan_of(text: &str) -> Plan {
    let loaded = load_text(text);
    let plant = loaded
        .plant
        .as_ref()
        .unwrap_or_else(|| panic!("{:?}", codes(&loaded)));
    let plans = compile_all(plant).unwrap();
    assert!(
        check(plant, &plans, None)
            .iter()
            .all(|finding| finding.code != "PC0113"),
        "the plan is faithful"
    );
    let plan = plans.into_values().next().unwrap();
    assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
    plan
}

fn seen(vlan: Option<u16>, last: u8, appid: u16) -> FrameSeen {
    FrameSeen {
        destination: [1, 0x0c, 0xcd, 1, 0, last],
        vlan,
        ether_type: 0x88b8,
        appid: Some(appid),
    }
}

#[test]
fn what_a_document_permits_beside_ip_passes_by_its_plan_and_nothing_else_does() {
    let plan = plan_of(&bridged(IO));
    assert!(plan.requires.contains(&Capability::of(Capability::FRAMES)));
    let passes = |ways, frame: &FrameSeen| decide_frame(&plan, ways, frame).passes();
    assert!(passes(["eth1", "eth2"], &seen(Some(10), 5, 4)));
    for (ways, frame) in [
        (["eth2", "eth1"], seen(Some(10), 5, 4)),
        (["eth1", "eth3"], seen(Some(10), 5, 4)),
        (["eth1", "eth0"], seen(Some(10), 5, 4)),
        (["eth1", "eth2"], seen(Some(0), 5, 4)),
        (["eth1", "eth2"], seen(None, 5, 4)),
        (["eth1", "eth2"], seen(Some(10), 5, 5)),
        (
            ["eth1", "eth2"],
            FrameSeen {
                ether_type: 0x88ba,
                ..seen(Some(10), 5, 4)
            },
        ),
        (
            ["eth1", "eth2"],
            FrameSeen {
                destination: [1, 0x0c, 0xcd, 1, 1, 5],
                ..seen(Some(10), 5, 4)
            },
        ),
        (
            ["eth1", "eth2"],
            FrameSeen {
                appid: None,
                ..seen(Some(10), 5, 4)
            },
        ),
    ] {
        assert!(!passes(ways, &frame), "{ways:?} {frame:?}");
    }
    let both = plan_of(&bridged("io: { from: ops, both: yes, ethertype: 0x88B8 }\n"));
    for ways in [["eth1", "eth2"], ["eth2", "eth1"]] {
        let verdict = decide_frame(&both, ways, &seen(Some(0), 1, 7));
        assert!(matches!(verdict, FrameVerdict::Permitted(_)), "{verdict:?}");
    }
}

#[test]
fn a_document_without_frames_makes_the_plans_that_it_made_before() {
    let text = String::from_utf8(plan_of(&BASE.replace(ROUTED, BRIDGED)).to_bytes()).unwrap();
    assert!(!text.contains("frames"), "{text}");
}

#[test]
fn a_conduit_of_frames_alone_is_one_and_a_conduit_of_nothing_is_not() {
    let alone = bridged(IO).replace(&format!("    flows:\n{FLOWS}    frames:"), "    frames:");
    assert!(!alone.contains(FLOWS));
    assert_eq!(plan_of(&alone).frames.len(), 1);
    let neither = BASE.replace(&format!("    flows:\n{FLOWS}"), "");
    assert_eq!(codes(&load_text(&neither)), [Code::MissingKey]);
}

#[test]
fn frames_that_nobody_could_hold_to_their_conduit_are_refused() {
    let io = bridged(IO);
    let grant = io.replace("    conduit: maintain\n", "    conduit: reports\n");
    for (text, code) in [
        // A router.
        (
            BASE.replace(FLOWS, &format!("{FLOWS}    frames:\n      {IO}")),
            Code::FramesNotBridged,
        ),
        // Another zone on the same side.
        (
            io.replace("eth2: { zone: ops }", "eth2: { zone: ops, behind: cells }"),
            Code::FramesUnfit,
        ),
        (
            io.replace(
                "    from: office\n    to: ops\n    sl_target: 1\n    accountable: it\n    flows:",
                "    from: office\n    to: ops\n    only_by_grant: yes\n    flows:",
            ),
            Code::NotByGrant,
        ),
        (grant, Code::NotByGrant),
        (
            io.replace(
                "    from: office\n    to: ops\n",
                "    minimum_assurance: D1\n    from: office\n    to: ops\n",
            ),
            Code::FramesUnfit,
        ),
        (
            io.replace("from: office, ethertype", "from: safety, ethertype"),
            Code::EndOutsideConduit,
        ),
        (
            io.replace("from: office, ethertype", "from: nowhere, ethertype"),
            Code::UnknownName,
        ),
        (
            io.replace("ethertype: goose", "ethertype: profinet-rt"),
            Code::FramesUnfit,
        ),
        (io.replace("      io: {", "      web: {"), Code::FramesUnfit),
        (
            io.replace("ethertype: goose", "ethertype: 0x0800"),
            Code::NotAnEtherType,
        ),
        (
            io.replace("ethertype: goose", "ethertype: ipv4"),
            Code::NotAnEtherType,
        ),
        (
            io.replace("ethertype: goose", "ethertype: 35000"),
            Code::NotAnEtherType,
        ),
        (io.replace("vlan: 10", "vlan: 4095"), Code::OutOfRange),
        (io.replace("vlan: 10", "vlan: []"), Code::EmptyList),
        (io.replace("00:00/40", "00:01/40"), Code::NotAHardwareAddress),
        (io.replace("0x0001-0x0004", "0x0004-0x0001"), Code::NotARange),
        (io.replace("0x0001-0x0004", "1"), Code::NotARange),
    ] {
        let loaded = load_text(&text);
        assert!(loaded.plant.is_none(), "{code} is an error");
        assert!(
            codes(&loaded).contains(&code),
            "{code} is not among {:?}",
            codes(&loaded)
        );
    }
}

#[test]
fn what_widens_frames_is_said_to_widen() {
    let load = |text: &str| load_text(text).plant.unwrap();
    let without = load(&BASE.replace(ROUTED, BRIDGED));
    let io = load(&bridged(IO));
    let effect = |old: &crate::model::Plant, new: &crate::model::Plant| {
        let diff = diff(Some(old), new).unwrap();
        let mut frames = diff.changes.iter();
        let change = frames
            .find(|change| matches!(change.subject, Subject::Frames { .. }))
            .unwrap();
        assert_eq!(
            diff.touched().count(),
            usize::from(change.effect != Effect::Recorded)
        );
        change.effect
    };
    assert_eq!(effect(&without, &io), Effect::Added);
    assert_eq!(effect(&io, &without), Effect::Removed);
    for (from, to, expected) in [
        ("vlan: 10", "vlan: [0, 10]", Effect::Widened),
        ("vlan: 10", "vlan: 20", Effect::Altered),
        ("00:00/40", "00:00/41", Effect::Narrowed),
        ("0x0001-0x0004", "[0x0001, 0x0003]", Effect::Narrowed),
        (", appid: 0x0001-0x0004", "", Effect::Widened),
        ("from: office", "from: ops", Effect::Altered),
        ("from: office", "from: office, both: yes", Effect::Widened),
        ("from: office", "from: office, title: Trips", Effect::Recorded),
    ] {
        let other = load(&bridged(&IO.replace(from, to)));
        assert_eq!(effect(&io, &other), expected, "{to}");
        let back = match expected {
            Effect::Widened => Effect::Narrowed,
            Effect::Narrowed => Effect::Widened,
            same => same,
        };
        assert_eq!(effect(&other, &io), back, "back from {to}");
    }
}

#[test]
fn what_frames_can_do_counts_as_anything_in_reach() {
    let plant = load_text(&bridged(IO)).plant.unwrap();
    let steps = Steps::of(&plant);
    let acts = |from: &str, to: &str| {
        let many = std::num::NonZeroUsize::new(100).unwrap();
        let reach = steps
            .reach(&from.parse().unwrap(), &to.parse().unwrap(), many)
            .unwrap();
        reach.acts().any(|way| matches!(way, Permit::Frames { .. }))
    };
    assert!(acts("office", "ops"));
    assert!(!acts("ops", "office"), "one way");
}

#[test]
fn frames_that_go_to_another_zone_are_other_frames_whichever_way_they_pass() {
    let text = bridged(&IO.replace("from: office", "from: office, both: yes"));
    let before = load_text(&text).plant.unwrap();
    for both in [true, false] {
        let mut after = before.clone();
        for flow in after
            .conduits
            .values_mut()
            .flat_map(|conduit| conduit.frames.values_mut())
        {
            (flow.to, flow.both) = ("safety".parse().unwrap(), both);
        }
        let diff = diff(Some(&before), &after).unwrap();
        let mut changes = diff.changes.iter();
        let of_frames = changes.find(|change| matches!(change.subject, Subject::Frames { .. }));
        assert_eq!(of_frames.map(|change| change.effect), Some(Effect::Altered));
    }
}

#[test]
fn a_gateway_has_no_more_frames_than_its_plan_may_hold_and_that_is_found_in_the_document() {
    let many = |count: usize, ids: usize| -> String {
        let entry = |number: usize| {
            let ids: Vec<String> = (0..ids).map(|id| format!("{:#06x}", 2 * id)).collect();
            let appid = if ids.is_empty() {
                String::new()
            } else {
                format!(", appid: [{}]", ids.join(", "))
            };
            format!("io-{number}: {{ from: office, ethertype: goose, vlan: {number}{appid} }}\n      ")
        };
        bridged(&format!(
            "{}\n",
            (1..=count).map(entry).collect::<String>().trim_end()
        ))
    };
    for (count, ids, fits) in [(256, 0, true), (257, 0, false), (20, 200, true), (21, 200, false)] {
        let loaded = load_text(&many(count, ids));
        assert_eq!(
            codes(&loaded).contains(&Code::FramesUnfit),
            !fits,
            "{count} {ids} {:?}",
            codes(&loaded)
        );
        if let Some(plant) = loaded.plant.filter(|_| fits) {
            for plan in compile_all(&plant).unwrap().into_values() {
                assert!(Plan::from_bytes(&plan.to_bytes()).is_ok());
            }
        }
    }
}
