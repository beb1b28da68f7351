//! What a plant looks like from its sides: `diff`, `reach`, `graph` and `compile`.

use std::process::Command;

use crate::said::{altered, ends, examples, json, works};

#[test]
fn diff_says_in_words_what_changes_for_whom() {
    let folder = works();
    altered(folder.path(), "less", "addresses: 0-199", "addresses: 0-99");
    let said = ends(folder.path(), 0, &["diff", "plant", "less"]).out;
    assert!(
        said.contains("▼ narrowed  flow control-room-to-pumps/polling"),
        "{said}"
    );
    assert!(
        said.contains("plans: gw-works (changed); untouched: 1 gateway"),
        "{said}"
    );
    assert!(!said.contains("did not pass before"));
    let back = json(&ends(folder.path(), 0, &["diff", "less", "plant", "--output", "json"]).out);
    assert_eq!(back["may_widen"], true);
    assert_eq!(back["changes"][0]["effect"], "widened");
    assert!(
        ends(folder.path(), 0, &["diff", "plant", "plant"])
            .out
            .contains("nothing changes")
    );
}

#[test]
fn diff_compares_with_a_revision_of_git() {
    let folder = works();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(folder.path())
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(arguments);
        assert!(git.output().unwrap().status.success(), "{arguments:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "plant"]);
    git(&["commit", "-qm", "first"]);
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("addresses: 0-199", "addresses: 0-99")).unwrap();
    for document in ["plant", "plant/plant.yaml"] {
        let said = ends(folder.path(), 0, &["diff", document, "--against", "HEAD"]).out;
        assert!(
            said.contains("▼ narrowed  flow control-room-to-pumps/polling"),
            "{said}"
        );
    }
    let said = ends(folder.path(), 6, &["diff", "plant", "--against", "nowhere"]);
    assert!(
        said.err.contains("git cannot show plant at nowhere"),
        "{}",
        said.err
    );
    ends(folder.path(), 6, &["diff", "plant", "--against=--output=x"]);
}

#[test]
fn a_hook_of_git_compares_the_same_files_as_a_person_does() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = works();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(folder.path())
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(arguments);
        let output = git.output().unwrap();
        assert!(output.status.success(), "{arguments:?} {output:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "plant"]);
    git(&["commit", "-qm", "first"]);
    let hook = folder.path().join(".git/hooks/pre-commit");
    let penstock = env!("CARGO_BIN_EXE_penstock");
    let script = format!("#!/bin/sh\nexec {penstock} diff plant --against HEAD > said\n");
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("addresses: 0-199", "addresses: 0-99")).unwrap();
    // `-a` gives the hook an index of its own, in its environment.
    git(&["commit", "-qam", "second"]);
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
    assert!(
        said.contains("▼ narrowed  flow control-room-to-pumps/polling"),
        "{said}"
    );
}

#[test]
fn reach_follows_conduits_and_says_what_can_be_done_at_most() {
    let folder = works();
    let said = ends(
        folder.path(),
        0,
        &["reach", "plant", "--from", "office", "--to", "safety"],
    )
    .out;
    assert!(said.contains("office → operations → safety"), "{said}");
    assert!(said.contains("· read-coils (unit 1, addresses 0-15)"), "{said}");
    let none = json(
        &ends(
            folder.path(),
            0,
            &["reach", "plant", "--from", "safety", "--output", "json"],
        )
        .out,
    );
    assert_eq!(none["reaches"].as_array().unwrap().len(), 0);
    ends(folder.path(), 2, &["reach", "plant", "--from", "nowhere"]);
}

#[test]
fn every_example_can_be_drawn_and_is_drawn_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    for example in std::fs::read_dir(examples()).unwrap() {
        let path = example.unwrap().path();
        let path = path.to_str().unwrap();
        let first = ends(folder.path(), 0, &["graph", path]).out;
        assert!(first.starts_with("<svg ") && first.ends_with("</svg>\n"));
        assert!(first.contains("prefers-color-scheme:dark"));
        assert_eq!(first, ends(folder.path(), 0, &["graph", path]).out);
        ends(folder.path(), 0, &["graph", path, "-o", "plant.svg"]);
        assert_eq!(
            std::fs::read_to_string(folder.path().join("plant.svg")).unwrap(),
            first
        );
    }
}

#[test]
fn graph_draws_an_overview_one_site_or_one_zone_and_says_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let plant = examples().join("pumping-stations");
    let plant = plant.to_str().unwrap();
    let draw = |more: &[&str]| {
        let all: Vec<&str> = ["graph", plant, "-o", "p.svg"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        let said = ends(folder.path(), 0, &all).out;
        (
            std::fs::read_to_string(folder.path().join("p.svg")).unwrap(),
            said,
        )
    };
    // Two of the hundred have another Modbus unit.
    let (overview, said) = draw(&[]);
    assert!(
        overview.contains(">× 98<") && overview.contains(">× 2<"),
        "{said}"
    );
    assert!(
        said.contains("Overview of 101 sites")
            && said.contains("Not drawn one by one: 101 zones of the sites"),
        "{said}"
    );
    assert_eq!(overview, draw(&["--overview"]).0);

    let (site, said) = draw(&["--site", "ps-017"]);
    assert!(site.contains("ps-017.plc") && site.contains("Control centre") && !site.contains("ps-016.plc"));
    assert!(
        said.contains("Site ps-017: Weir Court") && said.contains("99 sites that no conduit joins"),
        "{said}"
    );

    let (zone, said) = draw(&["--zone", "centre", "--output", "json"]);
    assert!(zone.contains(">× 98<") && zone.contains("scada-1"));
    let said = json(&said);
    assert!(
        said["shows"]
            .as_str()
            .unwrap()
            .starts_with("Zone centre: Control centre")
    );
    assert!(!said["left_out"].as_array().unwrap().is_empty());

    let (all, _) = draw(&["--all"]);
    assert!((1..=100).all(|n| all.contains(&format!("ps-{n:03}.plc"))));

    for (what, wrong, right) in [("--site", "ps-17", "ps-017"), ("--zone", "center", "centre")] {
        let said = ends(folder.path(), 2, &["graph", plant, what, wrong]).err;
        assert!(said.contains(&format!("`{wrong}`")), "{said}");
        assert!(said.contains(&format!("did you mean `{right}`?")), "{said}");
    }
    ends(
        folder.path(),
        2,
        &["graph", plant, "--site", "centre", "--zone", "centre"],
    );
}

#[test]
fn compile_gives_the_exact_bytes_of_the_plan() {
    use penstock_policy::plan::Plan;
    let folder = works();
    let bytes = ends(folder.path(), 0, &["compile", "plant", "--gateway", "gw-works"]).out;
    let plan = Plan::from_bytes(bytes.as_bytes()).unwrap();
    assert_eq!(plan.to_bytes(), bytes.as_bytes());
    assert_eq!(plan.gateway.as_str(), "gw-works");
    let said = ends(folder.path(), 2, &["compile", "plant", "--gateway", "gw-none"]);
    assert!(said.err.contains("it knows: gw-office, gw-works"), "{}", said.err);
}

#[test]
fn diff_shows_what_follows_from_a_change_in_words_and_as_data() {
    let folder = works();
    altered(folder.path(), "less", "addresses: 0-199", "addresses: 0-99");
    let said = ends(folder.path(), 0, &["diff", "plant", "less"]).out;
    for words in [
        "1 flow that must flow at risk",
        "control-room-to-pumps/polling must flow, and is narrowed at gw-works: ",
        "▼ operations and office can do less to control; before:",
        "1 new finding",
        "as before: `penstock check` shows them",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let back = json(&ends(folder.path(), 0, &["diff", "less", "plant", "--output", "json"]).out);
    assert_eq!(back["must_flows"], serde_json::json!([]));
    assert_eq!(back["closed"]["pairs"], serde_json::json!([]));
    let opened = back["opened"]["pairs"].as_array().unwrap();
    assert!(
        opened
            .iter()
            .all(|pair| pair["to"] == "control" && pair["entirely"] == false)
    );
    assert_eq!(opened.len(), 2);
    let same = json(&ends(folder.path(), 0, &["diff", "plant", "plant", "--output", "json"]).out);
    assert_eq!(same["findings"]["new"], serde_json::json!([]));
    assert_eq!(same["opened"]["pairs"], serde_json::json!([]));
}

#[test]
fn recorded_traffic_is_asked_for_only_where_a_coordinator_is() {
    let folder = works();
    for with in [&["plant"][..], &["--against", "HEAD"]] {
        let asked = [&["diff", "plant", "--recorded", "3d"], with].concat();
        let said = ends(folder.path(), 2, &asked);
        assert!(said.err.contains("--recorded"), "{}", said.err);
    }
}
