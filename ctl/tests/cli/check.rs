//! `check` and the command line itself: what is wrong, where, and the schemas that every answer keeps to.

use crate::said::{altered, ends, json, said_with, works};

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

#[test]
fn a_document_with_errors_is_answered_in_the_same_schema_as_one_without() {
    let folder = works();
    altered(folder.path(), "bad", "kind: control", "kind: contrl");
    let said = ends(folder.path(), 3, &["check", "bad", "--output", "json"]);
    let checked = json(&said.out);
    assert_eq!(checked["schema"], "penstock.check/1");
    assert_eq!(checked["plant"], serde_json::Value::Null);
    assert_eq!(checked["errors"], 1);
    assert_eq!(checked["diagnostics"][0]["code"], "PS0207");
    assert!(
        checked["document_digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
}

#[test]
fn a_finding_says_what_it_names_and_where_that_stands_and_is_accepted_by_that() {
    let folder = works();
    // Any client may connect.
    altered(
        folder.path(),
        "open",
        "          - connect: { client_ids: plc-7 }      # or it could take over another client's session\n",
        "",
    );
    let found = |said: &str| {
        let checked = json(said);
        let all = checked["findings"].as_array().unwrap().clone();
        all.into_iter()
            .find(|finding| finding["code"] == "PC0120")
            .unwrap()
    };
    let checked = ends(
        folder.path(),
        1,
        &["check", "open", "--strict", "--output", "json"],
    );
    let finding = found(&checked.out);
    let text = std::fs::read_to_string(folder.path().join("open/plant.yaml")).unwrap();
    let line = text
        .lines()
        .position(|line| line.trim_start().starts_with("telemetry:"))
        .unwrap()
        + 1;
    assert_eq!(finding["line"], line);
    assert!(finding["file"].as_str().unwrap().ends_with("open/plant.yaml"));
    let names: Vec<&str> = finding["where"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let entry = format!(
        "accepted:\n  - {{ code: PC0120, where: [{}], by: a.silva, reason: The broker is replaced in May., expires: 2999-05-31 }}\n",
        names.join(", ")
    );
    std::fs::write(folder.path().join("open/accepted.yaml"), entry).unwrap();
    let accepted = ends(
        folder.path(),
        0,
        &["check", "open", "--strict", "--output", "json"],
    );
    assert_eq!(found(&accepted.out)["accepted"]["by"], "a.silva");
    let page = ends(folder.path(), 0, &["check", "open", "--strict"]).out;
    assert!(
        page.contains("accepted by a.silva until 2999-05-31: The broker is replaced in May."),
        "{page}"
    );
}

#[test]
fn what_is_found_is_written_for_code_scanning_and_for_workflows_too() {
    let folder = works();
    altered(folder.path(), "bad", "kind: control", "kind: contrl");
    let log = json(&ends(folder.path(), 3, &["check", "bad", "--report", "sarif"]).out);
    assert_eq!(log["version"], "2.1.0");
    let result = &log["runs"][0]["results"][0];
    assert_eq!(
        (result["ruleId"].as_str(), result["level"].as_str()),
        (Some("PS0207"), Some("error"))
    );
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "bad/plant.yaml");
    let text = std::fs::read_to_string(folder.path().join("bad/plant.yaml")).unwrap();
    let line = text.lines().position(|line| line.contains("contrl")).unwrap() + 1;
    assert_eq!(place["region"]["startLine"], line);
    let said = ends(folder.path(), 3, &["check", "bad", "--report", "github"]).out;
    assert!(
        said.starts_with(&format!("::error file=bad/plant.yaml,line={line},col=11,")),
        "{said}"
    );
    let clean = json(&ends(folder.path(), 0, &["check", "plant", "--report", "sarif"]).out);
    assert!(
        clean["runs"][0]["results"]
            .as_array()
            .unwrap()
            .iter()
            .all(|result| result["level"] == "note")
    );
}

#[test]
fn standard_input_is_checked_like_a_file() {
    let folder = works();
    let text = std::fs::read_to_string(folder.path().join("plant/plant.yaml")).unwrap();
    let said = said_with(folder.path(), &["check", "-"], &text);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("✓ riverside-water"), "{}", said.out);
    let said = said_with(folder.path(), &["check", "-"], "plant: works\nzonse: {}\n");
    assert_eq!(said.code, 3);
    assert!(
        said.err.contains("<stdin>") && said.err.contains("zonse"),
        "{}",
        said.err
    );
}

#[test]
fn files_are_laid_out_with_their_comments_and_a_hook_says_which_are_not() {
    let folder = works();
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    ends(folder.path(), 0, &["fmt", "plant", "--check"]);
    let wide = text.replace("\n  ", "\n    ").replace("{ zone: ", "{zone: ");
    std::fs::write(&path, &wide).unwrap();
    let said = ends(folder.path(), 1, &["fmt", "plant", "--check"]);
    assert!(said.out.contains("plant/plant.yaml"), "{}", said.out);
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        wide,
        "nothing is written"
    );
    ends(folder.path(), 0, &["fmt", "plant"]);
    let laid_out = std::fs::read_to_string(&path).unwrap();
    assert!(laid_out.contains("# or it could take over another client's session"));
    ends(folder.path(), 0, &["fmt", "plant", "--check"]);
    let piped = said_with(folder.path(), &["fmt", "-"], "a:\n    b: {c: 1}\n");
    assert_eq!((piped.code, piped.out.as_str()), (0, "a:\n  b: { c: 1 }\n"));
    let broken = said_with(folder.path(), &["fmt", "-"], "a: [1\n");
    assert_eq!((broken.code, broken.out.as_str()), (3, ""));
}

#[test]
fn a_document_with_templates_is_written_out_and_so_is_one_station() {
    let folder = tempfile::tempdir().unwrap();
    let plant = crate::said::examples().join("pumping-stations");
    let plant = plant.to_str().unwrap();
    ends(folder.path(), 0, &["expand", plant, "-o", "whole.yaml"]);
    let compiled =
        |document: &str| ends(folder.path(), 0, &["compile", document, "--gateway", "gw-ps-017"]).out;
    assert_eq!(
        compiled("whole.yaml"),
        compiled(plant),
        "both give the same plan, byte for byte"
    );
    let one = ends(folder.path(), 0, &["expand", plant, "--station", "ps-017"]).out;
    assert!(one.contains("ps-017.plc:") && !one.contains("ps-018"), "{one}");
    let said = ends(folder.path(), 2, &["expand", plant, "--station", "ps-0017"]);
    assert!(said.err.contains("makes no station `ps-0017`"), "{}", said.err);
}

#[test]
fn whoever_must_not_widen_ends_with_1_where_something_may_pass_that_did_not() {
    let folder = works();
    altered(
        folder.path(),
        "wider",
        "addresses: [40, 41]",
        "addresses: [40, 41, 42]",
    );
    ends(folder.path(), 0, &["diff", "plant", "wider"]);
    ends(folder.path(), 1, &["diff", "plant", "wider", "--fail-on-widened"]);
    ends(folder.path(), 0, &["diff", "wider", "plant", "--fail-on-widened"]);
}

#[test]
fn whoever_watches_is_shown_each_change() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    let folder = works();
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["check", "plant", "--watch", "--output", "json"])
        .current_dir(folder.path())
        .env_clear()
        .env("XDG_CONFIG_HOME", folder.path().join("home"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut errors = || loop {
        let line = lines.next().unwrap().unwrap();
        if let Some(number) = line.trim().strip_prefix("\"errors\": ") {
            return number.trim_end_matches(',').to_owned();
        }
    };
    assert_eq!(errors(), "0");
    // As editors do: whoever looks sees the one or the other.
    let save = |text: &str| {
        let draft = folder.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, &path).unwrap();
    };
    save(&text.replace("kind: control", "kind: contrl"));
    assert_eq!(errors(), "1");
    save(&text);
    assert_eq!(errors(), "0");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_schema_for_one_of_several_files_asks_for_no_section() {
    let folder = tempfile::tempdir().unwrap();
    let whole = json(&ends(folder.path(), 0, &["schema"]).out);
    let part = json(&ends(folder.path(), 0, &["schema", "--part"]).out);
    assert!(whole["required"].as_array().unwrap().contains(&"zones".into()));
    assert!(part.get("required").is_none());
    assert_eq!(part["properties"], whole["properties"]);
}
