//! What the repository promises about itself: direction of dependencies, files that say what they own, licences.
//!
//! Everything is read from the source tree as it is, so a promise in ARCHITECTURE.md that no longer holds fails here
//! with the file and line to mend.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod circles;
mod documents;
mod effects;
mod protocols;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use penstock_tests::tree::{files, root, text};

/// Lines of code of a file, without comments.
const FILE_LINES_MAX: usize = 500;
/// From this length on a file must say what it owns.
const FILE_DOC_LINES_MIN: usize = 20;

/// Which of our crates each crate may be built with.
const DIRECTION: &[(&str, &[&str])] = &[
    ("penstock-policy", &[]),
    ("penstock-inspect", &["penstock-policy"]),
    // A workspace of its own that runs the inspectors and nothing else.
    ("penstock-inspect-fuzz", &["penstock-policy", "penstock-inspect"]),
    ("penstock-proto", &["penstock-policy"]),
    (
        "penstock-agent",
        &["penstock-policy", "penstock-inspect", "penstock-proto"],
    ),
    (
        "penstock-coordinator",
        &["penstock-policy", "penstock-inspect", "penstock-proto"],
    ),
    ("penstock-picture", &["penstock-policy"]),
    ("penstock-lab", &[]),
    (
        "penstock",
        &[
            "penstock-policy",
            "penstock-inspect",
            "penstock-proto",
            "penstock-picture",
            "penstock-lab",
        ],
    ),
];

const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "Unlicense",
    "0BSD",
];

fn rust_files() -> Vec<(String, String)> {
    let found: Vec<_> = files()
        .into_iter()
        .filter(|file| file.ends_with(".rs"))
        .map(|file| {
            let text = text(&file).unwrap_or_else(|| panic!("{file} is not UTF-8"));
            (file, text)
        })
        .collect();
    assert!(found.len() > 10, "only {} Rust files were found", found.len());
    found
}

fn is_test(file: &str) -> bool {
    file.contains("/tests/")
        || file.starts_with("tests/")
        || file.contains("/benches/")
        || file.ends_with("/tests.rs")
}

/// What stands above a file's own tests.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// Fails with all faults at once.
fn none(faults: Vec<String>) {
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// A word that this file itself has to name without containing it.
fn spelled(parts: &[&str]) -> String {
    parts.concat()
}

/// Rooms of a crate that know nothing of others, since both sides use them.
const BELOW: &[(&str, &[&str])] = &[
    ("agent/src/observed", &["enforce", "inspector"]),
    ("agent/src/intercept", &["enforce"]),
    ("agent/src/inspector", &["enforce"]),
    ("policy/src/terms", &["model", "plan", "document", "compile"]),
    ("policy/src/model", &["plan", "document", "compile"]),
];

#[test]
fn rooms_do_not_look_into_those_above_them() {
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for (file, text) in rust_files() {
        for (room, above) in BELOW {
            if !file.starts_with(&format!("{room}/")) && file != format!("{room}.rs") {
                continue;
            }
            seen.insert(*room);
            for (number, line) in code(&text).lines().enumerate() {
                let line = line.split("//").next().unwrap_or_default();
                if above
                    .iter()
                    .any(|module| line.contains(&format!("crate::{module}::")))
                {
                    faults.push(format!("{file}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert_eq!(seen.len(), BELOW.len(), "a room of this test's table is gone");
    none(faults);
}

#[test]
fn crates_depend_only_in_the_declared_direction() {
    let allowed: BTreeMap<&str, &[&str]> = DIRECTION.iter().copied().collect();
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for manifest in files().iter().filter(|file| file.ends_with("/Cargo.toml")) {
        let table: toml::Table = text(manifest).unwrap().parse().unwrap();
        let name = table["package"]["name"].as_str().unwrap().to_owned();
        if name == "penstock-tests" {
            continue;
        }
        let Some(allowed) = allowed.get(name.as_str()) else {
            faults.push(format!(
                "{manifest}: {name} is not in this test's table of directions"
            ));
            continue;
        };
        seen.insert(name.clone());
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let dependencies = table.get(section).and_then(toml::Value::as_table);
            for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
                if dependency.starts_with("penstock") && !allowed.contains(&dependency.as_str()) {
                    faults.push(format!(
                        "{manifest}: [{section}] {name} may not depend on {dependency}"
                    ));
                }
            }
        }
    }
    assert!(seen.len() >= 5, "only {seen:?} were looked at");
    none(faults);
}

#[test]
fn nothing_imports_the_module_that_wires_all() {
    let mut faults = Vec::new();
    for (file, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let imports = line.contains("crate::app::")
                || line.contains("crate::app;")
                || line.contains("super::app")
                || (line.starts_with("use ")
                    && (line.contains("::{app,") || line.contains("::{app:") || line.contains("{app}")));
            // A program's commands may have files of their own.
            let is_main = file.ends_with("/main.rs") || file.contains("/src/main/");
            if imports && !is_main && file != "tests/tests/tidy/main.rs" {
                faults.push(format!("{file}:{}: {line}", number + 1));
            }
        }
    }
    none(faults);
}

#[test]
fn only_one_room_of_the_coordinator_and_one_file_of_the_agent_know_their_database() {
    for (room, database) in [
        ("coordinator/src/store/sqlite", "rusqlite"),
        ("agent/src/database.rs", "sled"),
    ] {
        let database = spelled(&[database, "::"]);
        let (own, others): (Vec<_>, Vec<_>) = rust_files()
            .into_iter()
            .filter(|(file, text)| !is_test(file) && code(text).contains(&database))
            .partition(|(file, _)| file.starts_with(room));
        assert!(!own.is_empty(), "{room} is gone");
        none(others.into_iter().map(|(file, _)| file).collect());
    }
}

#[test]
fn no_folder_or_module_is_a_drawer_for_odds_and_ends() {
    let drawers = ["common", "util", "utils", "helper", "helpers", "misc"];
    let faults = files()
        .into_iter()
        .filter(|file| {
            Path::new(file).components().any(|part| {
                let part = part.as_os_str().to_string_lossy();
                drawers.contains(&part.trim_end_matches(".rs"))
            })
        })
        .collect();
    none(faults);
}

#[test]
fn a_module_is_a_file_beside_its_folder() {
    let faults = files()
        .into_iter()
        .filter(|file| Path::new(file).file_name().is_some_and(|name| name == "mod.rs"))
        .map(|file| format!("{file}: name it after its folder and put it beside that"))
        .collect();
    none(faults);
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    let faults = rust_files()
        .into_iter()
        // A module's own `tests.rs` owns the claims about the module that it lies in.
        .filter(|(file, text)| !file.ends_with("/tests.rs") && text.lines().count() > FILE_DOC_LINES_MIN)
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(file, _)| format!("{file}: opens without a `//!` sentence"))
        .collect();
    none(faults);
}

#[test]
fn no_file_grows_long() {
    let long = rust_files()
        .into_iter()
        .map(|(file, text)| (file, code(&text).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX);
    let faults = long.map(|(file, lines)| format!("{file}: {lines} lines; split it by what it owns"));
    none(faults.collect());
}

#[test]
fn nothing_is_left_to_be_done_later_in_a_comment() {
    let marks = [
        spelled(&["TO", "DO"]),
        spelled(&["FIX", "ME"]),
        spelled(&["XX", "X:"]),
        spelled(&["unimple", "mented!"]),
    ];
    let mut faults = Vec::new();
    for file in files() {
        if matches!(file.as_str(), "CONTRIBUTING.md" | "Cargo.lock" | "Cargo.toml") {
            continue; // The page that forbids them names them; `clippy::todo` stands in the manifest.
        }
        let Some(text) = text(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                faults.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(faults);
}

#[test]
fn the_policy_crate_touches_no_file_clock_or_network() {
    let banned = [
        "std::fs",
        "std::env",
        "std::net::Tcp",
        "std::net::Udp",
        "std::net::ToSocket",
        "std::process",
        "std::thread",
        "SystemTime",
        "Instant::now",
        "tokio",
        "getrandom",
        "std::os::unix::net",
        "async fn",
    ];
    let mut looked_at = 0;
    let mut faults = Vec::new();
    for (file, text) in rust_files() {
        if !file.starts_with("policy/src/") && !file.starts_with("inspect/src/") {
            continue;
        }
        looked_at += 1;
        // What stands below `#[cfg(test)]` is a test and may read its own data.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if file.ends_with("/tests.rs") || file.contains("/tests/") {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            if let Some(word) = banned.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    assert!(
        looked_at >= 5,
        "only {looked_at} files of the policy crate were found"
    );
    none(faults);
}

#[test]
fn every_random_test_draws_more_often_when_it_is_told_to() {
    let mut faults = Vec::new();
    for (file, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            for setting in [spelled(&["with_", "cases("]), spelled(&["cas", "es: "])] {
                let fixed = line
                    .split_once(&setting)
                    .is_some_and(|(_, count)| count.starts_with(|c: char| c.is_ascii_digit()));
                if fixed {
                    faults.push(format!(
                        "{file}:{}: say it as a part of ProptestConfig::default().cases: {}",
                        number + 1,
                        line.trim()
                    ));
                }
            }
        }
    }
    none(faults);
}

#[test]
fn no_file_names_a_path_of_one_persons_machine() {
    let paths = [
        spelled(&["/wo", "rk/"]),
        spelled(&["/ro", "ot/"]),
        spelled(&["/ho", "me/"]),
        spelled(&["/Us", "ers/"]),
    ];
    let mut faults = Vec::new();
    for file in files() {
        let Some(text) = text(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            // At the beginning of a word: `spiffe://plant/root/a` is none.
            let names = |path: &String| {
                line.match_indices(path.as_str())
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.'))
            };
            if paths.iter().any(names) {
                faults.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(faults);
}

#[test]
fn in_release_builds_too_an_overflow_stops_whatever_of_ours_met_it() {
    let manifest: toml::Table = text("Cargo.toml").unwrap().parse().unwrap();
    let checked = &manifest["profile"]["release"]["package"];
    let unchecked = |name: &str| {
        checked
            .get(name)
            .and_then(|package| package.get("overflow-checks"))
            .and_then(toml::Value::as_bool)
            != Some(true)
    };
    let ours = manifest["workspace"]["members"].as_array().unwrap();
    let ours = ours
        .iter()
        .map(|member| member.as_str().unwrap())
        .filter(|member| *member != "tests");
    let faults = ours.filter_map(|member| {
        let own: toml::Table = text(&format!("{member}/Cargo.toml")).unwrap().parse().unwrap();
        let name = own["package"]["name"].as_str().unwrap();
        unchecked(name)
            .then(|| format!("Cargo.toml: {name} has no overflow-checks in profile.release.package"))
    });
    none(faults.collect());
}

#[test]
fn every_linked_crate_has_a_licence_that_binaries_may_carry() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50);
    let faults = packages
        .iter()
        .filter(|package| !permitted(package["license"].as_str().unwrap_or("none stated")))
        .map(|package| format!("{}: {}", package["name"], package["license"]))
        .collect();
    none(faults);
}

/// Whether an SPDX expression can be met with [`LICENCES`] alone. Handles the `AND`, `OR` and brackets that crates use.
fn permitted(expression: &str) -> bool {
    let expression = expression.replace(" / ", " OR ").replace('/', " OR ");
    // `AND` binds more tightly than `OR`; brackets are taken out from the inside.
    if let Some(close) = expression.find(')') {
        let open = expression[..close].rfind('(').expect("brackets match");
        let inner = if permitted(&expression[open + 1..close]) {
            "MIT"
        } else {
            "refused"
        };
        return permitted(&format!(
            "{}{inner}{}",
            &expression[..open],
            &expression[close + 1..]
        ));
    }
    expression
        .split(" OR ")
        .any(|all| all.split(" AND ").all(|one| LICENCES.contains(&one.trim())))
}

#[test]
fn the_licence_reader_refuses_what_cannot_be_met() {
    assert!(permitted("MIT OR GPL-3.0"));
    assert!(permitted("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(permitted("MIT/Apache-2.0"));
    assert!(!permitted("GPL-3.0-only"));
    assert!(!permitted("MIT AND LGPL-2.1"));
    assert!(!permitted("(MIT AND GPL-2.0) OR AGPL-3.0"));
}
