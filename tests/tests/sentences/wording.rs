//! How texts that users read are worded: the five patterns of translated English that came back most often (CONTRIBUTING,
//! "How texts read") stand in no message, help, schema, configuration or document.
//!
//! Everything is read from the source tree: string literals of the programs, help and schema texts in doc comments, and
//! documents. Comments and tests are not looked at.

use std::fs;

use penstock_tests::tree::{files, root};

/// What a file has whose doc comments are shown: help of the programs, descriptions in the schema.
const SHOWN_COMMENTS: [&str; 2] = ["clap::", "record! {"];

/// A text of fewer words is a name or a part of one.
const WORDS_MIN: usize = 2;

/// A text that somebody may read, and where it begins.
struct Shown {
    file: String,
    line: usize,
    text: String,
}

/// The string literals of a Rust source, with the lines that they begin on. Comments are passed over.
fn literals(source: &str) -> Vec<(usize, String)> {
    let bytes: Vec<char> = source.chars().collect();
    let at = |i: usize| bytes.get(i).copied().unwrap_or('\0');
    let (mut i, mut line, mut found) = (0, 1, Vec::new());
    while i < bytes.len() {
        let here = at(i);
        if here == '\n' {
            line += 1;
            i += 1;
        } else if here == '/' && at(i + 1) == '/' {
            while i < bytes.len() && at(i) != '\n' {
                i += 1;
            }
        } else if here == '\'' {
            // A character, or a lifetime.
            i += match (at(i + 1), at(i + 2)) {
                ('\\', _) => (2..12).find(|n| at(i + n) == '\'' && *n > 2).map_or(1, |n| n + 1),
                (_, '\'') => 3,
                _ => 1,
            };
        } else if here == '"' || here == 'r' && matches!(at(i + 1), '"' | '#') && !name(at(i.wrapping_sub(1)))
        {
            let hashes = (i + 1..).take_while(|n| here == 'r' && at(*n) == '#').count();
            let raw = here == 'r';
            let begin = if raw { i + hashes + 1 } else { i };
            if at(begin) != '"' {
                i += 1;
                continue;
            }
            let (first, mut text) = (line, String::new());
            i = begin + 1;
            while i < bytes.len() {
                let c = at(i);
                if c == '\n' {
                    line += 1;
                }
                if !raw && c == '\\' {
                    if at(i + 1) == '\n' {
                        line += 1;
                    }
                    text.push(if matches!(at(i + 1), '\n' | 'n') {
                        ' '
                    } else {
                        at(i + 1)
                    });
                    i += 2;
                } else if c == '"' && (0..hashes).all(|n| at(i + 1 + n) == '#') {
                    break;
                } else {
                    text.push(c);
                    i += 1;
                }
            }
            i += hashes + 1;
            found.push((first, text));
        } else {
            i += 1;
        }
    }
    found
}

fn name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The part of a Rust file that is not a test.
fn code(source: &str) -> &str {
    let test = source.match_indices("#[cfg(test)]").find(|(at, mark)| {
        let rest = source.get(at + mark.len()..).unwrap_or_default().trim_start();
        rest.starts_with("mod ") && rest.lines().next().is_some_and(|line| line.ends_with('{'))
    });
    source
        .get(..test.map_or(source.len(), |(at, _)| at))
        .unwrap_or_default()
}

fn shown_in(file: &str, text: &str) -> Vec<Shown> {
    let shown = |(line, text): (usize, String)| Shown {
        file: file.to_owned(),
        line,
        text,
    };
    let numbered = text
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim()));
    if file.ends_with(".rs") {
        let comments =
            numbered.filter_map(|(number, line)| Some((number, line.strip_prefix("///")?.to_owned())));
        let mut all: Vec<Shown> = literals(code(text)).into_iter().map(shown).collect();
        if SHOWN_COMMENTS.iter().any(|mark| text.contains(mark)) {
            all.extend(comments.map(shown));
        }
        return all;
    }
    // A sentence goes on over lines: each line is read with the one after it.
    let lines: Vec<&str> = text.lines().collect();
    numbered
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            let next = lines.get(number).map_or("", |next| next.trim());
            let first = next.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            shown((number, format!("{line} {first}")))
        })
        .collect()
}

/// Which of the five patterns a text has.
fn pattern(text: &str) -> Option<&'static str> {
    let lower = without_placeholders(&text.to_lowercase());
    let words: Vec<&str> = lower
        .split(|c: char| !name(c) && c != '\'')
        .filter(|word| !word.is_empty())
        .collect();
    if words.len() < WORDS_MIN {
        return None;
    }
    let two = |first: &str, second: &str| words.windows(2).any(|pair| pair == [first, second]);
    // With its punctuation: "the answer is no: …" is a sentence.
    let spaced: Vec<&str> = lower.split_whitespace().collect();
    let is_no = spaced.windows(3).enumerate().any(|(at, three)| {
        let before = at.checked_sub(1).and_then(|at| spaced.get(at));
        matches!(three[0], "is" | "are" | "was" | "were")
            && three[1] == "no"
            && three[2] != "longer"
            && before.is_none_or(|before| *before != "there")
    });
    if words.contains(&"told") {
        Some("`told`: reported, logged, shown")
    } else if two("in", "itself") {
        Some("`in itself`: internal error")
    } else if words.contains(&"anew") {
        Some("`anew`: again, restarted, reopened")
    } else if two("unless", "said") {
        Some("`unless said`: default")
    } else if is_no {
        Some("`is no X`: is not an X")
    } else {
        None
    }
}

/// A message without what is put into it.
fn without_placeholders(text: &str) -> String {
    let mut depth = 0_u32;
    text.chars()
        .filter(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect()
}

/// Of CONTRIBUTING, all but the list of the patterns themselves.
fn without_the_list(text: &str) -> String {
    let mut within = false;
    let kept = text.lines().map(|line| {
        if line.starts_with("## ") {
            within = line == "## How texts read";
        }
        if within { "" } else { line }
    });
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
fn no_text_that_users_read_has_one_of_the_five_worst_patterns_of_translated_english() {
    let (mut looked_at, mut faults) = (0, Vec::new());
    for file in files() {
        let programs = [
            "agent/src/",
            "coordinator/src/",
            "ctl/src/",
            "inspect/src/",
            "policy/src/",
            "proto/src/",
        ];
        let source = programs.iter().any(|folder| file.starts_with(folder))
            && file.ends_with(".rs")
            && !file.contains("/tests/")
            && !file.ends_with("/tests.rs");
        let document = [".md", ".toml", ".yaml", ".service", ".conf"]
            .iter()
            .any(|end| file.ends_with(end))
            && (file.starts_with("deploy/") || file.starts_with("docs/") || !file.contains('/'));
        if !source && !document {
            continue;
        }
        let Ok(text) = fs::read_to_string(root().join(&file)) else {
            continue;
        };
        let text = if file == "CONTRIBUTING.md" {
            without_the_list(&text)
        } else {
            text
        };
        for shown in shown_in(&file, &text) {
            looked_at += 1;
            if let Some(pattern) = pattern(&shown.text) {
                faults.push(format!(
                    "{}:{}: {pattern}\n    {}",
                    shown.file, shown.line, shown.text
                ));
            }
        }
    }
    assert!(looked_at > 4000, "only {looked_at} texts were found");
    assert!(
        faults.is_empty(),
        "{} texts:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn each_pattern_is_found_where_it_stands_and_nowhere_else() {
    for bad in [
        "the number is told to the operator",
        "the inspector failed in itself",
        "enrol the gateway anew",
        "at most five (unless said)",
        "`x` is no network",
        "these are no tokens",
    ] {
        assert!(pattern(bad).is_some(), "{bad}");
    }
    for good in [
        "there is no plan",
        "There are no gateways",
        "it is no longer known",
        "what would be foretold",
        "would_deny_told",
        "anew",
        "the answer is no: findings",
        "goto {anew}{told} next",
    ] {
        assert_eq!(pattern(good), None, "{good}");
    }
    let source = "// \"a comment is told\"\nlet x = '\"'; f(\"one \\\n  two\", r#\"three \"four\" five\"#, 'a', \"six\\\"\");";
    let texts: Vec<String> = literals(source).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert_eq!(texts[1], "three \"four\" five");
    assert_eq!(literals("a\nb(\"c d\")"), [(2, "c d".to_owned())]);
    let tested = "fn a() {}\n#[cfg(test)]\nmod tests;\nf(\"kept\")\n#[cfg(test)]\nmod more {\n\"not\"";
    assert!(code(tested).contains("kept") && !code(tested).contains("not"));
}
