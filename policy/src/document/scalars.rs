//! Words that mean a value: text, yes and no, numbers.
//!
//! Each is read from the characters that were written, never from what a YAML reader would guess them to be:
//! `010`, `0x1f`, `1_000` and `12:30` are refused as numbers because readers disagree about them, `yes`, `no`,
//! `on` and `off` are booleans exactly where a boolean is expected, and `2.10` is text where text is.

use serde_json::{Value, json};

use super::node::{Kind, Node, excerpt, is_null};
use super::read::{Term, scalar};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;

/// Text for people, not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl Term for Text {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "text", faults)?;
        if text.trim().is_empty() {
            faults.add(
                Fault::new(Code::EmptyValue, node.place, "the text is empty")
                    .help("write it, or remove the key"),
            );
            return None;
        }
        let plain = matches!(node.kind, Kind::Scalar { plain: true, .. });
        warn_if_ambiguous(text, plain, node.place, faults);
        Some(Self(text.to_owned()))
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// Warns of unquoted text that YAML 1.1 or 1.2 readers take for a boolean or a number.
pub(crate) fn warn_if_ambiguous(text: &str, plain: bool, place: Place, faults: &mut Faults) {
    if !plain {
        return;
    }
    let Some(taken_for) = taken_for(text) else {
        return;
    };
    faults.add(
        Fault::new(
            Code::AmbiguousText,
            place,
            format!("other YAML readers take `{text}` for {taken_for}, not for text"),
        )
        .label("unquoted")
        .help(format!("write \"{text}\"")),
    );
}

/// What YAML readers take it for where it stands without quotes and is meant as text, if for something else.
pub fn taken_for(text: &str) -> Option<&'static str> {
    if as_boolean(text).is_some() || matches!(text, "y" | "Y" | "n" | "N") {
        Some("a yes or no")
    } else if looks_like_number(text) {
        Some("a number")
    } else if is_null(text) {
        Some("nothing")
    } else {
        None
    }
}

fn looks_like_number(text: &str) -> bool {
    let body = text.trim_start_matches(['+', '-']);
    let starts = body.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let based = ["0x", "0o", "0b"].iter().any(|prefix| body.starts_with(prefix));
    let sexagesimal = body.contains(':')
        && body
            .split(':')
            .all(|part| !part.is_empty() && part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit()));
    let digits = body.replace('_', "");
    starts && (based || sexagesimal || digits.parse::<f64>().is_ok())
        || matches!(body.to_ascii_lowercase().as_str(), ".inf" | ".nan")
}

/// The boolean of YAML 1.1 that is written so.
pub(crate) fn as_boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

impl Term for bool {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "yes or no", faults)?;
        let value = as_boolean(text);
        if value.is_none() {
            faults.add(
                Fault::new(
                    Code::NotABoolean,
                    node.place,
                    format!("`{}` is neither yes nor no", excerpt(text)),
                )
                .label("expected: yes or no")
                .help("write `yes` or `no` (also `true`, `false`, `on`, `off`)"),
            );
        }
        value
    }

    fn schema() -> Value {
        json!({ "enum": [true, false, "yes", "no", "on", "off"] })
    }
}

/// What a condition in the process is to read: on or off, or a text, as the question has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) text: String,
    pub(crate) plain: bool,
}

impl Term for Wanted {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a value", faults)?;
        if text.is_empty() {
            faults.add(
                Fault::new(Code::EmptyValue, node.place, "the value is empty")
                    .help("write the value that means safe"),
            );
            return None;
        }
        Some(Self {
            text: text.to_owned(),
            plain: matches!(node.kind, Kind::Scalar { plain: true, .. }),
        })
    }

    fn schema() -> Value {
        json!({ "anyOf": [bool::schema(), Text::schema()] })
    }
}

/// Why text is not a number of the plain decimal kind.
pub(crate) fn decimal(text: &str) -> Result<u32, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits && text.len() > 1 && text.starts_with('0') {
        return Err("a leading zero makes it octal for some readers: write it without");
    }
    if digits {
        return text.parse().map_err(|_| "it is far too large");
    }
    if text.contains(':') {
        return Err("with a colon it is a number in base 60 for some readers");
    }
    Err("write it in plain decimal digits")
}

/// A number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number<const MIN: u32, const MAX: u32>(pub(crate) u32);

impl<const MIN: u32, const MAX: u32> Term for Number<MIN, MAX> {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a number", faults)?;
        match decimal(text) {
            Ok(number) if (MIN..=MAX).contains(&number) => Some(Self(number)),
            Ok(number) => {
                faults.add(
                    Fault::new(
                        Code::OutOfRange,
                        node.place,
                        format!("{number} is not within {MIN}–{MAX}"),
                    )
                    .label(format!("expected: {MIN}–{MAX}")),
                );
                None
            }
            Err(reason) => {
                faults.add(
                    Fault::new(
                        Code::NotANumber,
                        node.place,
                        format!("`{}` is not a number", excerpt(text)),
                    )
                    .label(format!("expected: a number, {MIN}–{MAX}"))
                    .help(reason),
                );
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}
