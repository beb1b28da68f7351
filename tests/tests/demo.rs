//! `penstock demo` with the real programs: the whole plant, every step checked, in the time that it promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Seconds that the demo may take once everything is built.
const SECONDS_MAX: f64 = 60.0;
const STEPS: usize = 11;

/// The programs lie above the folder of test programs.
fn penstock() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().parent().unwrap().join("penstock");
    assert!(
        program.is_file(),
        "{} is not built: cargo build --workspace --bins",
        program.display()
    );
    program
}

#[test]
fn the_demo_of_a_whole_plant_holds_in_under_a_minute() {
    let output = Command::new(penstock())
        .args(["demo", "--output", "json"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (end, steps) = lines.split_last().unwrap();
    assert_eq!(steps.len(), STEPS, "{said}");
    assert!(
        steps
            .iter()
            .all(|step| step["ok"] == true && !step["evidence"].as_array().unwrap().is_empty())
    );
    let measured: Vec<f64> = steps
        .iter()
        .flat_map(|step| step["measured"].as_array().cloned().unwrap_or_default())
        .map(|measured| measured["value"].as_f64().unwrap())
        .collect();
    assert_eq!(measured.len(), 4, "two releases and two agents are measured");
    assert_eq!(end["ok"], true);
    assert!(end["seconds"].as_f64().unwrap() < SECONDS_MAX, "{end}");
}

#[test]
fn the_demo_says_what_it_lacks_instead_of_beginning() {
    let output = Command::new(penstock())
        .args(["demo", "--peers", "/nonexistent"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(complained.contains("make setup"), "{complained}");
}
