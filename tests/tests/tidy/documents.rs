//! What the documents name exists: links, and paths in code style.

use std::collections::BTreeSet;

use penstock_tests::tree::{files, root, text};

use super::none;

/// Documents that say where something is, and so name paths of the repository.
const MAPS: &[&str] = &[
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "README.md",
    "deploy/runbook.md",
    "tests/README.md",
];

/// Look like paths of the repository and are others: what a build or a person's machine has, a placeholder, a format's name.
const ELSEWHERE: &[&str] = &[
    "cosigned/",
    "known/",
    "penstock-change-record/1",
    "penstock-document/1",
    "penstock-known/1",
    "penstock-rollout/1",
    "target/release",
    "x/",
];

#[test]
fn every_link_in_the_documents_leads_to_a_file() {
    let mut looked_at = 0;
    let mut faults = Vec::new();
    for file in files().into_iter().filter(|file| file.ends_with(".md")) {
        let folder = root().join(&file).parent().unwrap().to_path_buf();
        let text = text(&file).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            looked_at += 1;
            if !folder.join(path).exists() {
                faults.push(format!("{file}: {target} leads nowhere"));
            }
        }
    }
    assert!(looked_at > 5, "only {looked_at} links were found");
    none(faults);
}

/// `{a,b}` stands for two paths.
fn spread(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(before, rest)| {
        let (choices, after) = rest.split_once('}')?;
        Some((before, choices, after))
    }) {
        Some((before, choices, after)) => choices
            .split(',')
            .map(|choice| format!("{before}{choice}{after}"))
            .collect(),
        None => vec![path.to_owned()],
    }
}

/// What of a path stands before the first part that is a placeholder: `<protocol>`, `BENCH`, `*`.
fn fixed(path: &str) -> String {
    let placeholder = |part: &str| {
        part.contains(['<', '*']) || (part.len() > 1 && part.bytes().all(|byte| byte.is_ascii_uppercase()))
    };
    let parts: Vec<&str> = path.split('/').take_while(|part| !placeholder(part)).collect();
    parts.join("/").trim_end_matches('/').to_owned()
}

/// Whether a text in code style is meant as a path of the repository: parts between slashes, nothing else.
fn is_path(code: &str) -> bool {
    let part = |part: &str| {
        part.chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-*<>{},".contains(c))
    };
    let service = code
        .split_once('/')
        .is_some_and(|(protocol, _)| ["tcp", "udp"].contains(&protocol));
    let mask = code.starts_with("0x");
    code.contains('/') && !code.starts_with('/') && !service && !mask && code.split('/').all(part)
}

/// All files and folders under each name that a document may use: from any part on, with or without `src` and `.rs`.
fn names(files: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files {
        for written in [file.clone(), file.replace("/src/", "/")] {
            let parts: Vec<&str> = written.split('/').collect();
            for first in 0..parts.len() {
                for end in first + 1..=parts.len() {
                    let name = parts[first..end].join("/");
                    names.extend(name.strip_suffix(".rs").map(str::to_owned));
                    names.insert(name);
                }
            }
        }
    }
    names
}

/// Texts in code style, with their lines; blocks of code are passed over.
fn code_of(text: &str) -> Vec<(usize, &str)> {
    let mut within_block = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            within_block = !within_block;
        } else if !within_block {
            found.extend(line.split('`').skip(1).step_by(2).map(|code| (number + 1, code)));
        }
    }
    found
}

#[test]
fn every_path_that_the_maps_of_the_repository_name_exists() {
    let names = names(&files());
    let mut looked_at = 0;
    let mut faults = Vec::new();
    for map in MAPS {
        let text = text(map).unwrap();
        for (line, code) in code_of(&text) {
            if !is_path(code) || ELSEWHERE.contains(&code) {
                continue;
            }
            looked_at += 1;
            for path in spread(code).iter().map(|path| fixed(path)) {
                if !path.is_empty() && !names.contains(&path) {
                    faults.push(format!("{map}:{line}: `{code}`: there is no {path}"));
                }
            }
        }
    }
    assert!(looked_at > 100, "only {looked_at} paths were found");
    none(faults);
}

#[test]
fn where_a_question_is_tested_names_modules_that_exist() {
    let names = names(&files());
    let text = text("tests/README.md").unwrap();
    let table = text
        .split("## ")
        .find(|part| part.starts_with("Where X is tested"))
        .unwrap();
    let mut looked_at = 0;
    let mut faults = Vec::new();
    for row in table.lines().filter(|line| line.starts_with('|')) {
        for (_, code) in code_of(row.rsplit('|').nth(1).unwrap_or_default()) {
            looked_at += 1;
            if !names.contains(code.trim_end_matches('/')) {
                faults.push(format!("tests/README.md: `{code}` in {row}"));
            }
        }
    }
    assert!(looked_at > 50, "only {looked_at} modules were found");
    none(faults);
}

#[test]
fn a_path_that_does_not_exist_is_found_out() {
    let names = names(&[
        "agent/src/enforce/nft/render/icmp.rs".to_owned(),
        ".ci/run".to_owned(),
    ]);
    for there in [
        "agent/enforce",
        "enforce/nft/render/icmp",
        "agent/src/enforce/nft/render/icmp.rs",
        ".ci/run",
    ] {
        assert!(is_path(there) && names.contains(there), "{there}");
    }
    for gone in ["agent/enforcer", "enforce/icmp", "agent/src/enforce.rs", "ci/run"] {
        assert!(is_path(gone) && !names.contains(gone), "{gone}");
    }
    for other in [
        "tcp/502",
        "/etc/penstock/agent.toml",
        "spiffe://plant/device/hmi",
        "a / b",
        "app.rs",
        "0x30000000/0xf0000000",
    ] {
        assert!(!is_path(other), "{other}");
    }
    assert_eq!(spread("store/{state,trail}"), ["store/state", "store/trail"]);
    assert_eq!(fixed("tests/benches/BENCH/main.rs"), "tests/benches");
    assert_eq!(code_of("a `b` c\n```\n`d`\n```\n`e`"), [(1, "b"), (5, "e")]);
}
