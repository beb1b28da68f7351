//! The fuzzer's corpus, run through the fuzzer's targets: what it once found, or once needed to get on, still holds.
//!
//! A finding is kept as a file in `fuzz/findings/<target>/`, named by what went wrong; `fuzz/corpus/<target>/` is what
//! `make fuzz` has grown and minimised.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
mod fuzzed;

/// Runs every file of a target's folders; says which one breaks a promise.
fn replay(target: &str, run: fn(&[u8]), least: usize) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut files: Vec<PathBuf> = Vec::new();
    for kind in ["corpus", "findings"] {
        let folder = fuzz.join(kind).join(target);
        let entries = fs::read_dir(&folder).into_iter().flatten();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let outcome = std::panic::catch_unwind(|| run(&bytes));
        assert!(outcome.is_ok(), "{} breaks a promise (above)", file.display());
    }
    assert!(files.len() >= least, "only {} files for {target}", files.len());
}

#[test]
fn a_modbus_connection_keeps_its_promises_over_the_corpus() {
    replay("modbus", fuzzed::modbus::run, 40);
}

#[test]
fn an_mqtt_connection_keeps_its_promises_over_the_corpus() {
    replay("mqtt", fuzzed::mqtt::run, 40);
}

#[test]
fn a_capture_file_keeps_its_promises_over_the_corpus() {
    replay("capture", fuzzed::capture::run, 40);
}

#[test]
fn tcp_segments_keep_their_promises_over_the_corpus() {
    replay("segments", fuzzed::segments::run, 20);
}

#[test]
fn thawing_keeps_its_promises_over_the_corpus() {
    replay("thaw", fuzzed::thaw::run, 40);
}
