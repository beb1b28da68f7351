//! Recordings that show only a part: what was not read, who opened what stood before, and what is not a capture at all.

use std::fs;

use super::{capture, learned, pumps};
use crate::said::{ends, json};

#[test]
fn what_a_replay_could_not_judge_is_said_first_with_its_share_and_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plant.yaml"), pumps("")).unwrap();
    // An unknown kind of link, and no packet at all.
    let bytes = fs::read(capture("ppp.pcap")).unwrap();
    fs::write(folder.path().join("none.pcap"), &bytes[..24]).unwrap();
    let unknown = [&bytes[..20], &[147, 0, 0, 0], &bytes[24..]].concat();
    fs::write(folder.path().join("unknown.pcap"), unknown).unwrap();
    fs::write(folder.path().join("short.pcap"), &bytes[..bytes.len() - 100]).unwrap();
    for (file, first) in [
        (
            "unknown.pcap".to_owned(),
            "✗ Nothing was judged: in no packet a connection",
        ),
        (
            "none.pcap".to_owned(),
            "✗ Nothing was judged: the recording holds no packet.",
        ),
        (
            "short.pcap".to_owned(),
            "▲ not read to its end: short.pcap: the file ends within packet 11",
        ),
        (
            capture("cut.pcap"),
            "▲ not judged: 78 of 86 payload bytes (90 %) on connections whose operations",
        ),
        (
            capture("m-half-s.pcap"),
            "▲ not judged: 50 of 50 payload bytes (100 %) on connections whose operations",
        ),
    ] {
        let said = ends(folder.path(), 1, &["replay", "--pcap", &file, "plant.yaml"]).out;
        assert!(said.starts_with(first), "{file}\n{said}");
        assert!(
            !said.contains("withheld") && said.contains("\n✗ "),
            "{file}\n{said}"
        );
    }
    let said = ends(
        folder.path(),
        1,
        &[
            "replay",
            "--pcap",
            "unknown.pcap",
            "plant.yaml",
            "--output",
            "json",
        ],
    );
    let unread = &json(&said.out)["unread"];
    assert_eq!(unread["everything"], true);
    assert_eq!(unread["packets"]["link type 147 is not read"], 12);
    let said = ends(folder.path(), 1, &["learn", "--pcap", "unknown.pcap"]);
    assert!(
        said.err.contains("▲ 12 of 12 packets (100 %) could not be read"),
        "{}",
        said.err
    );
    assert!(
        said.out.contains("no connection that could be read"),
        "{}",
        said.out
    );
    // Behind tags and labels everything is read: of three operations two are refused. A bridged gateway lets none of it cross.
    for (file, label) in [
        ("hsr.pcap", "with an HSR tag"),
        ("mpls.pcap", "behind MPLS labels"),
    ] {
        let said = ends(
            folder.path(),
            1,
            &["replay", "--pcap", &capture(file), "plant.yaml"],
        )
        .out;
        assert!(
            said.starts_with("▲ ") && said.contains(label) && said.contains("`--ignore-tags`"),
            "{said}"
        );
        assert!(said.contains("operations: 0 allowed, 3 refused"), "{said}");
    }
    for file in ["hsr.pcap", "mpls.pcap", "ppp.pcap"] {
        let arguments = [
            "replay",
            "--pcap",
            &capture(file),
            "--ignore-tags",
            "plant.yaml",
            "--output",
            "json",
        ];
        let replayed = json(&ends(folder.path(), 1, &arguments).out);
        assert_eq!(
            (&replayed["allowed"], &replayed["refused"]),
            (&1.into(), &2.into()),
            "{file}"
        );
    }
}

#[test]
fn who_opened_what_stood_before_a_recording_is_told_by_plant_and_services_and_a_guess_is_marked() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("502.yaml"), pumps("")).unwrap();
    fs::write(folder.path().join("1502.yaml"), pumps(":1502")).unwrap();
    let replay =
        |code, file: &str, plant| ends(folder.path(), code, &["replay", "--pcap", &capture(file), plant]).out;
    let said = replay(0, "m-mid-1502.pcap", "1502.yaml");
    assert!(
        said.starts_with("✓ 10.20.1.21:1025 → 10.20.4.7:1502 at gw-1"),
        "{said}"
    );
    assert!(
        said.contains("6 × read-holding-registers 0–9 of unit 1"),
        "{said}"
    );
    for file in ["n-mid-enip.pcap", "n-mid-enip2.pcap"] {
        let said = replay(0, file, "502.yaml");
        assert!(
            said.starts_with("✓ 10.20.1.21:1100 → 10.20.4.7:44818 at gw-1"),
            "{said}"
        );
        assert!(!said.contains("guess"), "{said}");
    }
    // No flow has this port: where the plant's flows lead is a guess.
    let said = replay(1, "m-mid-1502.pcap", "502.yaml");
    assert!(
        said.starts_with("✗ refused: 10.20.1.21:1025 → 10.20.4.7:1502 at gw-1"),
        "{said}"
    );
    assert!(said.contains("▲ who opened it is a guess"), "{said}");
    let learned = ends(
        folder.path(),
        0,
        &["learn", "--pcap", &capture("n-mid-enip.pcap")],
    )
    .out;
    assert!(
        learned.contains("service: tcp/44818") && !learned.contains("guess"),
        "{learned}"
    );
}

#[test]
fn a_connection_that_carries_what_is_no_modbus_is_told_to_be_ended() {
    let (folder, _) = learned("modicon_test.pcap");
    let mut bytes = fs::read(capture("modicon_test.pcap")).unwrap();
    // One request becomes one of another protocol.
    let header = [0, 7, 0, 0, 0, 0xff, 0, 90];
    let at = bytes.windows(8).position(|window| window == header).unwrap();
    bytes[at + 3] = 1;
    fs::write(folder.path().join("other.pcap"), bytes).unwrap();
    let said = ends(
        folder.path(),
        1,
        &["replay", "--pcap", "other.pcap", "learned.yaml"],
    );
    assert!(
        said.out
            .contains("  ✗ ended by the gateway: the protocol identifier is 1, Modbus has 0\n"),
        "{}",
        said.out
    );
}

#[test]
fn captures_and_plants_that_cannot_be_read_have_their_error_and_exit_code() {
    let (folder, _) = learned("modbus_test_data_part1.pcap");
    let (folder, whole) = (folder.path(), capture("modbus_test_data_part1.pcap"));
    let bytes = fs::read(&whole).unwrap();
    fs::write(folder.join("empty.pcap"), b"").unwrap();
    fs::write(folder.join("header.pcap"), &bytes[..10]).unwrap();
    fs::write(folder.join("cut.pcap"), &bytes[..bytes.len() - 5]).unwrap();
    fs::write(folder.join("text.pcap"), b"no capture").unwrap();
    for (file, why) in [
        ("none.pcap", "No such file"),
        ("empty.pcap", "the file is empty"),
        ("header.pcap", "the file ends within its header"),
        ("text.pcap", "this is not a pcap or pcapng file"),
    ] {
        for command in [&["learn"][..], &["replay", "learned.yaml"]] {
            let said = ends(folder, 6, &[command, &["--pcap", file]].concat());
            let message = format!("error: the capture {file} cannot be read\n  because {why}");
            assert!(
                said.err.starts_with(&message) && said.out.is_empty(),
                "{}",
                said.err
            );
        }
    }
    // What was read of a truncated file counts, but nobody may take it for the whole.
    let cut = "not read to its end: cut.pcap: the file ends within packet 118";
    let said = ends(folder, 1, &["replay", "--pcap", "cut.pcap", "learned.yaml"]);
    assert!(
        said.out.contains("✗ 117 packets") && said.out.contains(cut),
        "{}",
        said.out
    );
    let said = ends(
        folder,
        0,
        &["learn", "--pcap", "cut.pcap", "--plant", "learned.yaml"],
    );
    assert!(
        said.err.contains(cut) && said.out.starts_with("# not read to its end"),
        "{}",
        said.out
    );
    let said = ends(folder, 6, &["replay", "--pcap", &whole, "nowhere"]);
    assert!(said.err.starts_with("error: cannot read nowhere"), "{}", said.err);
    ends(folder, 2, &["replay", "--pcap", &whole]);
    ends(folder, 2, &["replay", "learned.yaml"]);
    let said = ends(
        folder,
        2,
        &["learn", "--pcap", &whole, "--approver", "\" }\nzones: {}"],
    );
    assert!(said.err.contains("not a public key"), "{}", said.err);
}
