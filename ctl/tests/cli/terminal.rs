//! The terminal and the environment: colours, the ends of lines, variables that say nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::said::{altered, ends, works};

/// Runs a command line of a shell on a terminal of so many columns; what the terminal shows.
fn on_a_terminal(folder: &Path, columns: u32, command: &str) -> String {
    let command = format!(
        "stty cols {columns}; {}",
        command.replace("penstock", env!("CARGO_BIN_EXE_penstock"))
    );
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("XDG_CONFIG_HOME", folder.join("home"))
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn colours_are_for_the_terminal_and_only_where_they_are_wanted() {
    let folder = works();
    altered(folder.path(), "bad", "kind: control", "kind: contrl");
    let shown = |command: &str| on_a_terminal(folder.path(), 100, command);
    let coloured = |text: &str| text.contains('\u{1b}');
    assert!(coloured(&shown("penstock check bad")) && coloured(&shown("penstock --help")));
    for command in [
        "penstock check bad 2>errors; cat errors",
        "penstock check bad --color never",
        "penstock --color never --help",
        "penstock check --help --color=never",
        "penstock --color never chek",
        "TERM=dumb penstock check bad",
        "TERM=dumb penstock --help",
        "NO_COLOR=1 penstock check bad",
        "NO_COLOR=1 penstock --help",
    ] {
        let text = shown(command);
        assert!(text.len() > 40 && !coloured(&text), "{command}: {text}");
    }
    // The other way round, too: a failure is coloured on the terminal while the answer goes to a file.
    assert!(coloured(&shown("penstock check bad >answer")));
}

#[test]
fn at_the_edge_of_a_terminal_lines_end_between_words() {
    let folder = works();
    let wide = ends(
        folder.path(),
        1,
        &[
            "explain",
            "plant",
            "--from",
            "plc-7",
            "--to",
            "hmi-1",
            "--service",
            "modbus-tcp",
        ],
    );
    let words: Vec<&str> = wide
        .out
        .split_whitespace()
        .filter(|word| word.chars().count() <= 40)
        .collect();
    let narrow = on_a_terminal(
        folder.path(),
        40,
        "penstock explain plant --from plc-7 --to hmi-1 --service modbus-tcp --color never",
    );
    assert!(narrow.lines().any(|line| line.chars().count() > 25), "{narrow}");
    for line in narrow.lines() {
        let line = line.trim_end();
        assert!(
            line.chars().count() <= 40 || line.split_whitespace().count() == 1,
            "{line}"
        );
        for word in line.split_whitespace().filter(|word| word.chars().count() <= 40) {
            assert!(words.contains(&word), "`{word}` is a part of a word in\n{narrow}");
        }
    }
}

#[test]
fn a_variable_of_the_environment_that_is_empty_says_nothing() {
    let folder = works();
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["key", "show", "j.meyer.key"])
        .current_dir(folder.path())
        .env("PENSTOCK_OUTPUT", "")
        .env("PENSTOCK_CONTEXT", "")
        .env("PENSTOCK_PASSPHRASE_FILE", "")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("ed25519:"), "{text}");
}
