//! To add a protocol takes one file, one folder and two lines: a toy is added to a copy of the libraries, which are built with it, and
//! its own tests run there.
//!
//! What it has to do without a line elsewhere stands in `toy/inspector/tests.rs`: document, plan, phrases, diff, check and reach;
//! inspection, refusal, freezing, explanation and learning.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

const TOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protocols/toy");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The two lines: in which file, and the line that they go behind.
const LINES: [(&str, &str, &str); 2] = [
    ("policy/src/protocol.rs", "    mqtt,\n", "    toy,\n"),
    ("inspect/src/lib.rs", "    mqtt,\n", "    toy,\n"),
];

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
        return;
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "target" {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    }
}

/// The folder of built things that this test's own program is in: what others wrote is not built again.
fn built() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().to_path_buf()
}

#[test]
fn a_protocol_is_added_by_one_file_one_folder_and_two_lines() {
    let dir = tempfile::tempdir().unwrap();
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "policy",
        "inspect",
        "docs",
        "deploy/examples",
        "scripts",
    ] {
        let from = Path::new(ROOT).join(part);
        if from.exists() {
            copy(&from, &dir.path().join(part));
        }
    }
    let manifest = dir.path().join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let members = text.lines().find(|line| line.starts_with("members = ")).unwrap();
    let two = text.replace(members, r#"members = ["policy", "inspect"]"#);
    std::fs::write(&manifest, two).unwrap();

    copy(
        &Path::new(TOY).join("vocabulary.rs"),
        &dir.path().join("policy/src/protocol/toy.rs"),
    );
    copy(
        &Path::new(TOY).join("inspector.rs"),
        &dir.path().join("inspect/src/toy.rs"),
    );
    copy(
        &Path::new(TOY).join("inspector"),
        &dir.path().join("inspect/src/toy"),
    );
    for (file, behind, line) in LINES {
        let path = dir.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.matches(behind).count(),
            1,
            "{file} has one list of protocols"
        );
        std::fs::write(&path, text.replace(behind, &format!("{behind}{line}"))).unwrap();
    }

    let ran = Command::new(env!("CARGO"))
        .args([
            "test",
            "--offline",
            "--package",
            "penstock-inspect",
            "--lib",
            "toy::",
        ])
        .current_dir(dir.path())
        .env("CARGO_TARGET_DIR", built())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{out}\n{err}");
    let passed = out
        .lines()
        .find(|line| line.starts_with("test result: ok."))
        .unwrap();
    assert!(!passed.contains(" 0 passed"), "{passed}");
}
