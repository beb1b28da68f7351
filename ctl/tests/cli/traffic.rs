//! `learn` and `replay` on traffic that real devices sent.

mod unread;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::said::{ends, json};

const KEY: &str = "ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";

/// A recorded file; `inspect/tests/captures/README.md` says whence.
fn capture(name: &str) -> String {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inspect/tests/captures");
    let files = ["modbus", "udp", "unseen"].map(|folder| captures.join(folder).join(name));
    let file = files.iter().find(|file| file.exists()).unwrap();
    file.display().to_string()
}

/// A folder with `learned.yaml`, a whole document learned from a capture.
fn learned(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let capture = capture(name);
    let said = ends(
        folder.path(),
        0,
        &[
            "learn",
            "--pcap",
            &capture,
            "--approver",
            KEY,
            "-o",
            "learned.yaml",
        ],
    );
    let beyond = "▲ no flow can permit ";
    assert!(
        said.err.lines().all(|line| line.starts_with(beyond)),
        "{}",
        said.err
    );
    let document = folder.path().join("learned.yaml");
    // What no recording tells, and the proposal asks for.
    let text = fs::read_to_string(&document).unwrap();
    let managed = "gw-1:\n    management: { interface: eth0, peers: [192.0.2.10] }\n";
    assert!(text.contains("gw-1:\n"), "{text}");
    fs::write(&document, text.replace("gw-1:\n", managed)).unwrap();
    (folder, document)
}

/// The plant that the recordings in `unseen` are about; its controller listens at `port`.
fn pumps(port: &str) -> String {
    format!(
        "plant: pumps
title: Pumps
approvers: {{ threshold: 1, people: {{ first: {{ key: \"{KEY}\" }} }} }}
sites: {{ site: {{ title: Site, timezone: UTC }} }}
gateways:
  gw-1: {{ site: site, mode: bridged, interfaces: {{ eth1: {{ zone: operations }}, eth2: {{ zone: control }} }}, management: {{ interface: eth0, peers: [192.0.2.10] }} }}
zones:
  operations: {{ title: Operations, kind: operations, networks: 10.20.1.0/24, enforcement: enforce }}
  control: {{ title: Control, kind: control, networks: 10.20.4.0/24, enforcement: enforce }}
assets:
  hmi-1: {{ zone: operations, address: 10.20.1.21 }}
  plc-1: {{ zone: control, address: 10.20.4.7 }}
conduits:
  pumps:
    from: operations
    to: control
    flows:
      polling: {{ source: hmi-1, destination: plc-1, service: \"modbus-tcp{port}\", allow: [{{ read-holding-registers: {{ units: 1, addresses: 0-199 }} }}] }}
      drive: {{ source: hmi-1, destination: plc-1, service: ethernet-ip }}
"
    )
}

/// Every operation of a replay in JSON.
fn operations(replayed: &Value) -> impl Iterator<Item = &Value> {
    let connections = replayed["connections"].as_array().unwrap().iter();
    connections.flat_map(|connection| connection["operations"].as_array().unwrap())
}

#[test]
fn what_is_learned_passes_the_check_and_a_replay_refuses_nothing_that_worked() {
    for name in ["modbus_test_data_part1.pcap", "modbus_test.pcap"] {
        let (folder, document) = learned(name);
        let said = ends(folder.path(), 0, &["check", "learned.yaml"]);
        assert!(said.out.contains("learned: 2 zones, "), "{}", said.out);
        let arguments = [
            "replay",
            "--pcap",
            &capture(name),
            "learned.yaml",
            "--output",
            "json",
        ];
        let text = fs::read_to_string(document).unwrap();
        let in_vain = |operation: &Value| {
            let name = operation["operation"]
                .as_str()
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            text.contains(&format!("# not proposed: - {name}"))
        };
        let code = i32::from(text.contains("# not proposed: - "));
        let replayed = json(&ends(folder.path(), code, &arguments).out);
        assert_eq!(replayed["schema"], "penstock.replay/1");
        assert!(replayed["allowed"].as_u64() > Some(10), "{name}");
        for operation in operations(&replayed) {
            assert!(
                operation["allowed"] == true || in_vain(operation),
                "{name}: {operation}"
            );
        }
        let stopped = |connection: &&Value| connection["allowed"] == false || connection["ended"] == true;
        assert!(
            !replayed["connections"]
                .as_array()
                .unwrap()
                .iter()
                .any(|connection| stopped(&connection))
        );
    }
}

#[test]
fn a_policy_that_only_reads_refuses_the_writes_and_names_flow_and_reason() {
    let name = "modbus_test_data_part1.pcap";
    let (folder, document) = learned(name);
    let text = fs::read_to_string(&document).unwrap();
    let reading: Vec<&str> = text.lines().filter(|line| !line.contains("- write-")).collect();
    assert_eq!(text.lines().count(), reading.len() + 2);
    fs::write(&document, reading.join("\n")).unwrap();
    let said = ends(
        folder.path(),
        1,
        &["replay", "--pcap", &capture(name), "learned.yaml"],
    );
    let told = "\
✓ 10.0.0.9:3082 → 10.0.0.3:502 at gw-1, 2004-08-26T12:12:06Z
  learned-operations-control/host-10-0-0-9-to-host-10-0-0-3-502, each operation on its own
    ✗ refused: no rule permits the function
          1 × write-single-coil 1 of unit 10 = 0
          1 × write-single-coil 2 of unit 10 = 0
          1 × write-single-register 5 of unit 10 = 11
    ✓ permitted by operation 1 (read-coils, units 10, addresses 0, 2-3)
          1 × read-coils 0 of unit 10
          1 × read-coils 2–3 of unit 10
    ✓ permitted by operation 2 (read-holding-registers, units 10, addresses 5-6)
          1 × read-holding-registers 5–6 of unit 10
";
    assert!(said.out.contains(told), "{}", said.out);
    // Three more the device itself refused, so that they were not proposed.
    let sum = "\n✗ 118 packets in 5 connections\n  operations: 12 allowed, 6 refused\n";
    assert!(said.out.ends_with(sum), "{}", said.out);
}

#[test]
fn a_connection_that_no_rule_names_is_refused_or_said_to_be_only_observed() {
    let name = "modbus_test_data_part1.pcap";
    let (folder, document) = learned(name);
    let text = fs::read_to_string(&document).unwrap();
    let conduits = text.find("\nconduits:").unwrap();
    let replay = ["replay", "--pcap", &capture(name), "learned.yaml"];
    fs::write(&document, &text[..conduits]).unwrap();
    let said = ends(folder.path(), 0, &replay);
    assert!(
        said.out
            .contains("▲ 10.0.0.9:3082 → 10.0.0.3:502 at gw-1, 2004-08-26T12:12:06Z\n  would be refused"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains(
            "\n✓ 118 packets in 5 connections\n  5 connections only observed, to be refused once the zones enforce\n"
        ),
        "{}",
        said.out
    );
    fs::write(&document, text[..conduits].replace("observe", "enforce")).unwrap();
    let said = ends(folder.path(), 1, &replay);
    assert!(
        said.out.contains(
            "✗ refused: 10.0.0.9:3082 → 10.0.0.3:502 at gw-1, 2004-08-26T12:12:06Z\n  no rule matches\n"
        ),
        "{}",
        said.out
    );
}

#[test]
fn beside_a_plant_only_what_it_lacks_is_proposed_and_afterwards_nothing() {
    let name = "modbus_test_data_part1.pcap";
    let (folder, document) = learned(name);
    let text = fs::read_to_string(&document).unwrap();
    fs::create_dir(folder.path().join("plant")).unwrap();
    let reading: Vec<&str> = text.lines().filter(|line| !line.contains("- write-")).collect();
    fs::write(folder.path().join("plant/plant.yaml"), reading.join("\n")).unwrap();
    let learn = ["learn", "--pcap", &capture(name), "--plant", "plant"];
    let to = |file| [&learn[..], &["-o", file]].concat();
    ends(folder.path(), 0, &to("plant/learned.yaml"));
    let proposal = fs::read_to_string(folder.path().join("plant/learned.yaml")).unwrap();
    let rules: Vec<&str> = proposal.lines().filter(|line| line.contains("- ")).collect();
    assert_eq!(rules.len(), 2, "{proposal}");
    assert!(
        rules
            .iter()
            .all(|rule| rule.contains("- write-single-") && rule.contains("# widens: ")),
        "{proposal}"
    );
    ends(folder.path(), 0, &["check", "plant"]);
    let said = ends(folder.path(), 1, &["replay", "--pcap", &capture(name), "plant"]);
    let refused = "✗ refused: the sub-function is not permitted; closest is operation 1 (diagnostics, units 10, sub-functions 1, 10)\n          \
                   3 × diagnostics 4 (force-listen-only-mode) of unit 10\n";
    assert!(
        said.out.contains(refused) && said.out.ends_with("15 allowed, 3 refused\n"),
        "{}",
        said.out
    );
    let said = ends(folder.path(), 0, &learn);
    assert!(
        said.out.contains("# Nothing is proposed") && !said.out.contains("conduits:"),
        "{}",
        said.out
    );
}

#[test]
fn a_replay_lists_only_what_is_refused_or_nothing_and_its_sums_and_its_json_stay_those_of_all() {
    let name = "modbus_test_data_part1.pcap";
    let (folder, document) = learned(name);
    let text = fs::read_to_string(&document).unwrap();
    let reading: Vec<&str> = text.lines().filter(|line| !line.contains("- write-")).collect();
    fs::write(&document, reading.join("\n")).unwrap();
    let replay = ["replay", "--pcap", &capture(name), "learned.yaml"];
    let said = |more: &[&str]| ends(folder.path(), 1, &[&replay[..], more].concat()).out;
    let whole = said(&[]);
    let (refused, summary) = (said(&["--refused"]), said(&["--summary"]));
    let sums = |text: &str| text[text.rfind("\n\u{2717} ").unwrap()..].to_owned();
    assert_eq!(sums(&refused), sums(&whole));
    assert_eq!(
        format!("\n{}", summary.trim_start()),
        sums(&whole),
        "nothing but the sums"
    );
    let operations = |text: &str| {
        text.lines()
            .filter(|line| line.contains(" \u{d7} "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (few, all) = (operations(&refused), operations(&whole));
    assert!(!few.is_empty() && few.len() < all.len(), "{refused}");
    assert!(few.iter().all(|line| all.contains(line)));
    assert!(refused.contains("\u{2717} refused: "), "{refused}");
    assert!(!refused.contains("    \u{2713} "), "{refused}");
    assert_eq!(
        said(&["--refused", "--output", "json"]),
        said(&["--output", "json"])
    );
    ends(
        folder.path(),
        2,
        &[&replay[..], &["--refused", "--summary"]].concat(),
    );
}

#[test]
fn udp_is_learned_as_a_flow_that_permits_it_and_judged_by_the_rule_that_is_closest() {
    let name = "bacnet_test.pcap";
    let (folder, document) = learned(name);
    let text = fs::read_to_string(&document).unwrap();
    let flow = "      # Datagrams 26 times, from 2015-03-31T17:29:43Z to 2015-03-31T17:30:05Z, in 5 conversations.\n      \
                host-10-1-1-167-to-host-10-1-1-165-47808:\n        source: host-10-1-1-167\n        \
                destination: host-10-1-1-165\n        service: udp/47808\n";
    assert!(text.contains(flow), "{text}");
    ends(folder.path(), 0, &["check", "learned.yaml"]);
    let replay = ["replay", "--pcap", &capture(name), "learned.yaml"];
    let said = ends(folder.path(), 0, &replay);
    let told = "\
✓ 10.1.1.167 → 10.1.1.165:47808 over UDP at gw-1, 2015-03-31T17:29:43Z
  learned-operations-control/host-10-1-1-167-to-host-10-1-1-165-47808
    26 datagrams (11 of the server) in 5 conversations

✓ 26 packets in 0 connections
  operations: 0 allowed, 0 refused
  UDP datagrams: 26 allowed, 0 refused
";
    assert_eq!(said.out.trim_start(), told);
    // Of another port the rule is close, and that is all.
    fs::write(&document, text.replace("udp/47808", "udp/47809")).unwrap();
    let said = ends(folder.path(), 0, &replay);
    let observed = "  5 UDP conversations only observed, to be refused once the zones enforce\n";
    assert!(said.out.contains(observed), "{}", said.out);
    let enforced = text
        .replace("udp/47808", "udp/47809")
        .replace("observe", "enforce");
    fs::write(&document, enforced).unwrap();
    let because = "no rule matches; closest is learned-operations-control/host-10-1-1-167-to-host-10-1-1-165-47808: \
                   port 47808 is not 47809";
    let replayed = json(&ends(folder.path(), 1, &[&replay[..], &["--output", "json"]].concat()).out);
    assert_eq!(
        replayed["datagrams"],
        serde_json::json!({ "allowed": 0, "refused": 26, "unjudged": 0 })
    );
    assert_eq!(
        replayed["udp"],
        serde_json::json!([{
            "client": "10.1.1.167", "server": "10.1.1.165:47808",
            "first": "2015-03-31T17:29:43Z", "last": "2015-03-31T17:30:05Z",
            "count": 26, "answers": 11, "bytes": 424, "conversations": 5,
            "gateway": "gw-1", "allowed": false, "because": because, "observed": false, "notes": [],
        }])
    );
    let said = ends(folder.path(), 1, &replay);
    assert!(
        said.out
            .contains("\n✗ 26 packets in 0 connections\n  5 UDP conversations refused\n"),
        "{}",
        said.out
    );
}

#[test]
fn what_is_left_aside_is_told_by_reason_in_a_proposal_and_in_a_replay() {
    let name = "EIP-RemoteModeChangeAttempt.pcap";
    let (folder, document) = learned(name);
    let text = fs::read_to_string(document).unwrap();
    for told in [
        "# Packets left aside: 3, ARP.\n",
        " packets (1 %): UDP to a multicast or broadcast address\n",
        "(LLC 0x42)\n",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
    let arguments = [
        "replay",
        "--pcap",
        &capture(name),
        "learned.yaml",
        "--output",
        "json",
    ];
    // Who asks for an address has none yet, so that nothing tells on which side it is.
    let replayed = json(&ends(folder.path(), 1, &arguments).out);
    assert_eq!(replayed["skipped"]["ARP"], 3);
    let unread = replayed["unread"]["packets"].as_object().unwrap();
    assert_eq!(unread.values().collect::<Vec<_>>(), [2], "{unread:?}");
    // The zones of a proposal only observe: what no flow can permit passes so far.
    let observed = replayed["portless_observed"].as_object().unwrap();
    let counts: u64 = observed.values().filter_map(Value::as_u64).sum();
    assert_eq!(counts, 156, "{observed:?}");
    assert_eq!(replayed["datagrams"]["allowed"], 4);
}

#[test]
fn a_proposal_that_is_there_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("plant")).unwrap();
    fs::write(folder.path().join("plant/plant.yaml"), pumps(":1502")).unwrap();
    let file = folder.path().join("plant/learned.yaml");
    let learn = |code, name: &str, out: &str| {
        let arguments = ["learn", "--pcap", &capture(name), "--plant", "plant", "-o", out];
        ends(folder.path(), code, &arguments)
    };
    // A file that holds nothing yet has nothing to lose.
    fs::write(&file, "").unwrap();
    learn(0, "mpls.pcap", "plant/learned.yaml");
    let first = fs::read_to_string(&file).unwrap();
    assert!(first.contains("write-single-register"), "{first}");
    let said = learn(0, "mpls.pcap", "plant/learned.yaml");
    assert!(
        said.err.contains("plant/learned.yaml stays as it is"),
        "{}",
        said.err
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), first);
    // What somebody took out of it is proposed again, and not into it.
    let kept: Vec<&str> = first
        .lines()
        .filter(|line| !line.contains("addresses: [40]"))
        .collect();
    let edited = kept.join("\n") + "\n";
    assert_ne!(edited, first);
    fs::write(&file, &edited).unwrap();
    let said = learn(6, "mpls.pcap", "plant/learned.yaml");
    assert!(
        said.err.contains("exists already and is not overwritten"),
        "{}",
        said.err
    );
    assert!(said.err.contains("`-o plant/learned-2.yaml`"), "{}", said.err);
    assert_eq!(fs::read_to_string(&file).unwrap(), edited);
    learn(0, "mpls.pcap", "plant/learned-2.yaml");
    learn(0, "mpls.pcap", "plant/learned.yaml");
    ends(folder.path(), 0, &["check", "plant"]);
    // A whole document likewise, and a document that a picture is to be written over.
    let whole = |code, name: &str| {
        ends(
            folder.path(),
            code,
            &["learn", "--pcap", &capture(name), "-o", "whole.yaml"],
        )
    };
    whole(0, "mpls.pcap");
    whole(0, "mpls.pcap");
    whole(6, "n-mid-enip.pcap");
    for out in ["plant/plant.yaml", "plant/../plant/plant.yaml"] {
        ends(folder.path(), 2, &["graph", "plant", "-o", out]);
        ends(
            folder.path(),
            2,
            &["compile", "plant", "--gateway", "gw-1", "-o", out],
        );
    }
}

#[test]
fn a_proposal_without_an_approver_says_that_it_is_not_valid_yet() {
    let folder = tempfile::tempdir().unwrap();
    let learn = [
        "learn",
        "--pcap",
        &capture("modbus_test_data_part1.pcap"),
        "-o",
        "learned.yaml",
    ];
    let said = ends(folder.path(), 0, &learn);
    assert!(said.err.contains("--approver KEY"), "{}", said.err);
    let text = fs::read_to_string(folder.path().join("learned.yaml")).unwrap();
    assert!(text.contains("# Not valid yet: name who approves."), "{text}");
    let said = ends(folder.path(), 3, &["check", "learned.yaml"]);
    assert!(said.err.contains("`approvers` is missing"), "{}", said.err);
}

#[test]
fn the_last_fifth_of_a_recording_is_tried_on_what_the_rest_proposes_or_the_proposal_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let learn = |names: &[&str]| {
        let captures: Vec<String> = names.iter().map(|name| capture(name)).collect();
        let captures = captures.iter().map(String::as_str);
        let arguments: Vec<&str> = ["learn", "--approver", KEY].into_iter().chain(captures).collect();
        ends(folder.path(), 0, &arguments)
    };
    let said = learn(&["modbus_test_data_part1.pcap", "modbus_test_data_part2.pcap"]);
    let refused = "  192.168.66.235 to 166.161.16.230 tcp/502: function-125, read-coils";
    assert!(said.err.lines().any(|line| line == refused), "{}", said.err);
    assert!(said.out.contains(&format!("# {refused}\n")), "{}", said.out);

    let said = learn(&["modbus_test_2.pcap"]);
    let tried = "# Tried on the last fifth of the packets (980, ";
    let line = said.out.lines().find(|line| line.starts_with(tried));
    assert!(
        line.is_some_and(|line| line.contains(
            "only of TCP and UDP between two machines: not on other frames, multicast and what could not be read (0 packets)."
        ) && line.ends_with("nothing that worked would have been refused.")),
        "{}",
        said.out
    );
    assert_eq!(said.err, "");

    let said = learn(&["modicon_test.pcap"]);
    assert!(
        said.out
            .contains("# Not tried on a part that was held out: 0 s of recording are too short"),
        "{}",
        said.out
    );
}
