//! Bytes of each format that the agent keeps, as they were when the format was made: what agents of today write must still be
//! these, and be read.
//!
//! A fixture that differs means that the format changed: then it gets a new number, and both are read. With
//! `PENSTOCK_FIXTURES=write` one that is missing is made.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

/// The bytes of the fixture `name`, which must be what is written today.
pub(crate) fn kept(name: &str, written: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    if !path.exists() && std::env::var_os("PENSTOCK_FIXTURES").is_some_and(|how| how == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, in_hex(written)).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(in_hex(written), text, "{name} is not what is written today");
    read(name)
}

/// The bytes of the fixture `name`, of a format that is not written any more.
pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap())
        .collect()
}

fn in_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}
