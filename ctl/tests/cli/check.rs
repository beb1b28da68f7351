//! `check` and the command line itself: what is wrong, where, and the schemas that every answer keeps to.

use crate::said::{altered, ends, json, works};

#[test]
fn the_water_works_pass_a_strict_check() {
    let folder = works();
    let said = ends(folder.path(), 0, &["check", "--strict", "plant"]);
    assert!(
        said.out
            .contains("✓ riverside-water: 4 zones, 3 conduits, 5 flows, 2 gateways, 5 assets"),
        "{}",
        said.out
    );
    assert!(said.out.contains("nothing to object to"));
    let checked = json(&ends(folder.path(), 0, &["check", "plant", "--output", "json"]).out);
    assert_eq!(checked["schema"], "penstock.check/1");
    assert_eq!(checked["plant"]["flows"], 5);
    assert_eq!(checked["warnings"], 0);
}

#[test]
fn a_wrong_document_tells_every_fault_with_its_place_and_ends_with_3() {
    let folder = works();
    altered(
        folder.path(),
        "bad",
        "kind: control",
        "kind: contrl\n    colour: red",
    );
    let said = ends(folder.path(), 3, &["check", "bad"]);
    assert!(said.out.is_empty());
    assert!(
        said.err.contains("contrl") && said.err.contains("colour"),
        "{}",
        said.err
    );
    assert!(said.err.contains("plant.yaml"));
    assert!(!said.err.contains('\u{1b}'), "no colours where nobody sees them");
    let said = ends(folder.path(), 3, &["check", "bad", "--output", "json"]);
    let error = json(&said.err);
    assert_eq!(error["schema"], "penstock.error/1");
    assert_eq!(error["error"]["code"], "document-errors");
    let diagnostics = error["error"]["diagnostics"].as_array().unwrap();
    assert!(diagnostics.len() >= 2, "all at once");
    assert!(
        diagnostics
            .iter()
            .all(|d| d["location"]["line"].as_u64().unwrap() > 0)
    );
    for command in [["graph", "bad"], ["reach", "bad"]] {
        ends(folder.path(), 3, &command);
    }
}

#[test]
fn a_command_line_that_cannot_be_understood_ends_with_2_in_json_too() {
    let folder = tempfile::tempdir().unwrap();
    ends(folder.path(), 2, &["chekc"]);
    let said = ends(folder.path(), 2, &["chekc", "--output", "json"]);
    assert_eq!(json(&said.err)["error"]["code"], "usage");
    let help = ends(folder.path(), 0, &["--help"]).out;
    assert!(help.contains("Exit codes:"));
}

#[test]
fn every_answer_has_a_schema_that_its_json_keeps_to() {
    let folder = works();
    let answers: [(&str, &[&str]); 7] = [
        ("check", &["check", "plant"]),
        ("diff", &["diff", "plant", "plant"]),
        (
            "explain",
            &[
                "explain",
                "plant",
                "--from",
                "hmi-1",
                "--to",
                "plc-7",
                "--service",
                "tcp/502",
            ],
        ),
        ("explain-code", &["explain", "PS0204"]),
        ("reach", &["reach", "plant"]),
        ("key", &["key", "show", "j.meyer.key"]),
        ("graph", &["graph", "plant", "-o", "p.svg"]),
    ];
    for (command, arguments) in answers {
        let schema = json(&ends(folder.path(), 0, &["schema", command]).out);
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let answer = json(&ends(folder.path(), 0, &all).out);
        assert_eq!(
            answer["schema"], schema["properties"]["schema"]["const"],
            "{command}"
        );
        for required in schema["required"].as_array().unwrap() {
            assert!(
                answer.get(required.as_str().unwrap()).is_some(),
                "{command}: {required} is missing"
            );
        }
        for key in answer.as_object().unwrap().keys() {
            assert!(
                schema["properties"].get(key).is_some(),
                "{command}: {key} is not described"
            );
        }
    }
    let plant = json(&ends(folder.path(), 0, &["schema"]).out);
    assert_eq!(plant["title"], "Penstock plant document");
    ends(folder.path(), 2, &["schema", "nonsense"]);
}

#[test]
fn completions_exist_for_the_usual_shells() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            ends(folder.path(), 0, &["completions", shell])
                .out
                .contains("explain")
        );
    }
}

#[test]
fn without_a_login_online_commands_say_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["health"][..],
        &["gateways"],
        &["whoami"],
        &["release", "list"],
        &["audit", "tail"],
    ] {
        let said = ends(folder.path(), 6, arguments);
        assert!(said.err.contains("penstock login --token FILE"), "{}", said.err);
    }
    std::fs::write(folder.path().join("t"), "penstock-token-1.AAAA").unwrap();
    ends(folder.path(), 6, &["login", "--token", "t"]);
}
