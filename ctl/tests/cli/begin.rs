//! How a plant begins: `init`, and what a new plant has from its first day.

use std::process::Command;

use crate::said::{ends, json};

#[test]
fn what_init_writes_passes_a_strict_check_and_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let started = json(&ends(folder.path(), 0, &["init", "My Works", "--output", "json"]).out);
    assert_eq!(started["plant"], "my-works");
    ends(folder.path(), 0, &["check", "--strict", "My Works"]);
    let document = std::fs::read_to_string(folder.path().join("My Works/plant.yaml")).unwrap();
    // Editors find the schema by the first line.
    assert!(document.starts_with("# yaml-language-server: $schema=plant.schema.json\n"));
    let schema = std::fs::read_to_string(folder.path().join("My Works/plant.schema.json")).unwrap();
    assert_eq!(schema, ends(folder.path(), 0, &["schema", "--part"]).out);
    for approver in ["approver-1", "approver-2"] {
        let shown = ends(
            folder.path(),
            0,
            &["key", "show", &format!("My Works/{approver}.key")],
        )
        .out;
        assert!(
            document.contains(shown.trim()),
            "the document has the key's public half"
        );
    }
    ends(folder.path(), 6, &["init", "My Works"]);
    assert_eq!(
        std::fs::read_to_string(folder.path().join("My Works/plant.yaml")).unwrap(),
        document
    );
}

#[test]
fn a_schema_that_is_there_keeps_a_plant_from_beginning_before_keys_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("plant.schema.json");
    std::fs::write(&schema, "mine").unwrap();
    let said = ends(folder.path(), 6, &["init", "."]);
    assert!(said.err.contains("plant.schema.json"), "{}", said.err);
    assert_eq!(std::fs::read_to_string(&schema).unwrap(), "mine");
    let there = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(there, 1, "nothing else was made");
}

#[test]
fn a_new_plant_needs_two_signatures_and_git_does_not_see_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "-q"]);
    let said = ends(folder.path(), 0, &["init", "My Works"]);
    let document = std::fs::read_to_string(folder.path().join("My Works/plant.yaml")).unwrap();
    assert!(document.contains("threshold: 2"), "{document}");
    std::fs::write(folder.path().join("My Works/gw-1.token"), "secret").unwrap();
    let seen = git(&["status", "--porcelain", "--untracked-files=all", "-z"]);
    let seen: Vec<_> = seen.split_terminator('\0').map(|line| &line[3..]).collect();
    assert_eq!(
        seen,
        [
            "My Works/.gitignore",
            "My Works/plant.schema.json",
            "My Works/plant.yaml"
        ]
    );
    // What it prints to go on with can be pasted as it is.
    let next: Vec<_> = said
        .out
        .lines()
        .filter(|line| line.starts_with("  penstock "))
        .collect();
    assert_eq!(next.len(), 3, "{}", said.out);
    for line in next {
        let command = line.replace("penstock", env!("CARGO_BIN_EXE_penstock"));
        let ended = Command::new("sh")
            .args(["-c", &command])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(
            ended.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}

#[test]
fn one_signature_that_is_enough_is_named_when_a_plant_begins_and_whenever_it_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let said = ends(folder.path(), 0, &["init", "works", "--approver", "a.silva"]);
    assert!(
        said.out
            .contains("▲ threshold 1: the key of a.silva alone decides"),
        "{}",
        said.out
    );
    let checked = ends(folder.path(), 1, &["check", "--strict", "works"]);
    assert!(checked.out.contains("PS0710"), "{}", checked.out);
}
