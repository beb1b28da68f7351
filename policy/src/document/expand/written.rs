//! A document as text again, from its tree: what `penstock expand` prints.
//!
//! Comments are not part of the tree and are not here. What is read back is the same tree, to the letter and to the quotes.

use std::fmt::Write as _;

use super::super::node::{Entry, Kind, Node};

/// The longest list that is written on one line, in characters.
const LINE_MAX: usize = 100;

/// The tree as YAML, in block form, with a blank line between sections; `station` for what one station came to alone.
pub(crate) fn written(root: &Node, station: Option<usize>) -> String {
    let mut text = String::new();
    let Kind::Mapping(entries) = &root.kind else {
        return text;
    };
    for entry in entries {
        let of_station = station.map(|number| things_of(entry, number));
        let entry = match &of_station {
            None => entry,
            Some(Some(entry)) => entry,
            Some(None) => continue,
        };
        if !text.is_empty() && !matches!(entry.value.kind, Kind::Scalar { .. }) {
            text.push('\n');
        }
        write_entry(entry, 0, &mut text);
    }
    text
}

/// A section with the things of one station alone, if it has any.
fn things_of(section: &Entry, station: usize) -> Option<Entry> {
    let Kind::Mapping(things) = &section.value.kind else {
        return None;
    };
    let own: Vec<Entry> = things
        .iter()
        .filter(|thing| thing.key_place.station == Some(station))
        .cloned()
        .collect();
    (!own.is_empty()).then(|| Entry {
        key: section.key.clone(),
        key_plain: section.key_plain,
        key_place: section.key_place,
        value: Node {
            place: section.value.place,
            kind: Kind::Mapping(own),
        },
    })
}

fn write_entry(entry: &Entry, depth: usize, text: &mut String) {
    indent(depth, text);
    text.push_str(&scalar(&entry.key, entry.key_plain));
    text.push(':');
    write_value(&entry.value, depth, text);
}

/// What follows a key's colon or a list's dash, with its line end.
fn write_value(node: &Node, depth: usize, text: &mut String) {
    if let Some(line) = on_one_line(node) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, " {line}");
        return;
    }
    match &node.kind {
        Kind::Scalar { text: block, .. } => {
            text.push_str(" |\n");
            for line in block.lines() {
                if !line.is_empty() {
                    indent(depth + 1, text);
                }
                text.push_str(line);
                text.push('\n');
            }
        }
        Kind::List(items) => {
            text.push('\n');
            for item in items {
                indent(depth + 1, text);
                text.push('-');
                match &item.kind {
                    Kind::Mapping(entries) if on_one_line(item).is_none() => {
                        write_item(entries, depth + 2, text);
                    }
                    _ => write_value(item, depth + 1, text),
                }
            }
        }
        Kind::Mapping(entries) => {
            text.push('\n');
            for entry in entries {
                write_entry(entry, depth + 1, text);
            }
        }
        Kind::Broken => text.push('\n'),
    }
}

/// A mapping that begins on the line of its dash.
fn write_item(entries: &[Entry], depth: usize, text: &mut String) {
    let mut first = true;
    for entry in entries {
        if first {
            text.push(' ');
            text.push_str(&scalar(&entry.key, entry.key_plain));
            text.push(':');
            write_value(&entry.value, depth, text);
        } else {
            write_entry(entry, depth, text);
        }
        first = false;
    }
}

/// The value as one line, if it is short and holds nothing that needs several.
fn on_one_line(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Scalar { text, plain } => (!as_block(text)).then(|| scalar(text, *plain)),
        Kind::List(items) => {
            let items: Option<Vec<String>> = items.iter().map(in_flow).collect();
            fitting(format!("[{}]", items?.join(", ")))
        }
        Kind::Mapping(entries) => {
            let entries: Option<Vec<String>> = entries.iter().map(entry_in_flow).collect();
            let entries = entries?;
            if entries.is_empty() {
                return Some("{}".to_owned());
            }
            // What has many keys is read more easily one below the other.
            (entries.len() <= 5)
                .then(|| fitting(format!("{{ {} }}", entries.join(", "))))
                .flatten()
        }
        Kind::Broken => None,
    }
}

fn fitting(line: String) -> Option<String> {
    (line.len() <= LINE_MAX).then_some(line)
}

fn entry_in_flow(entry: &Entry) -> Option<String> {
    Some(format!(
        "{}: {}",
        scalar(&entry.key, entry.key_plain),
        in_flow(&entry.value)?
    ))
}

/// A value inside brackets.
fn in_flow(node: &Node) -> Option<String> {
    on_one_line(node)
}

/// Whether a text is written as a block of lines.
fn as_block(text: &str) -> bool {
    text.ends_with('\n')
        && !text.ends_with("\n\n")
        && text.len() > 1
        && !text.starts_with([' ', '\n'])
        && !text.contains('\t')
        && !text.contains('\r')
        && !text
            .lines()
            .any(|line| line.starts_with(' ') || line.ends_with(' '))
}

/// A word or text, with quotes where it had some or needs them.
fn scalar(text: &str, plain: bool) -> String {
    if plain && plain_is_safe(text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether every reader takes the text, without quotes and inside brackets, for itself.
fn plain_is_safe(text: &str) -> bool {
    let starts = text.starts_with(|c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '(' | '+' | '.' | '~' | '$')
    }) || text.starts_with(|c: char| c.is_alphabetic());
    starts
        && !text.contains(['\n', '\t', '\r', '{', '}', '[', ']', ',', '"', '\''])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([':', ' '])
}

fn indent(depth: usize, text: &mut String) {
    for _ in 0..depth {
        text.push_str("  ");
    }
}
