//! Spaces around brackets and commas, on the lines where they stand.
//!
//! Only what the YAML parser takes for a mapping or list in brackets is touched, and nothing within a scalar or comment.

use std::ops::Range;

use saphyr_parser::{Event, Parser, Span};

use super::super::parse::Offsets;

/// The text with one space inside the braces of mappings, none inside the brackets of lists, and one after a comma at least. `None` if
/// it is not YAML.
pub(super) fn spaced(text: &str) -> Option<String> {
    let (collections, scalars) = ranges(text)?;
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut at = 0;
    for collection in collections {
        if collection.start < at {
            // Within the one before.
            continue;
        }
        out.push_str(text.get(at..collection.start)?);
        collection_into(text, collection.clone(), &scalars, &mut out)?;
        at = collection.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// Stretches of the text, in its order.
type Ranges = Vec<Range<usize>>;

/// The collections in brackets, outer before inner, and the scalars, both in the order of the text.
fn ranges(text: &str) -> Option<(Ranges, Ranges)> {
    let offsets = Offsets::new(text);
    let byte = |index: usize| offsets.byte(text, index);
    let mut open: Vec<Option<usize>> = Vec::new();
    let (mut collections, mut scalars) = (Vec::new(), Vec::new());
    for event in Parser::new_from_str(text) {
        let (event, Span { start, end }) = event.ok()?;
        match event {
            Event::Scalar(..) => scalars.push(byte(start.index())..byte(end.index())),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                let start = byte(start.index());
                let bracketed = text.get(start..).is_some_and(|rest| rest.starts_with(['{', '[']));
                open.push(bracketed.then_some(start));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Some(start)) = open.pop() {
                    collections.push(start..byte(end.index()));
                }
            }
            _ => {}
        }
    }
    collections.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    Some((collections, scalars))
}

/// Writes one collection, with those in it.
fn collection_into(
    text: &str,
    collection: Range<usize>,
    scalars: &[Range<usize>],
    out: &mut String,
) -> Option<()> {
    let mut next = scalars.partition_point(|scalar| scalar.end <= collection.start);
    let mut at = collection.start;
    while at < collection.end {
        if let Some(scalar) = scalars.get(next).filter(|scalar| scalar.start <= at) {
            let end = scalar.end.min(collection.end);
            if end > at {
                out.push_str(text.get(at..end)?);
                at = end;
            }
            next += 1;
            continue;
        }
        let rest = text.get(at..collection.end)?;
        let c = rest.chars().next()?;
        let after = rest.get(c.len_utf8()..)?;
        let on_line = after.trim_start_matches(' ');
        at += c.len_utf8();
        match c {
            '#' if out.ends_with([' ', '\n', '\t']) => {
                let line = rest.split('\n').next().unwrap_or(rest);
                out.push_str(line);
                at += line.len() - c.len_utf8();
                next += scalars
                    .get(next..)?
                    .iter()
                    .take_while(|scalar| scalar.start < at)
                    .count();
            }
            '{' => {
                out.push('{');
                if on_line.starts_with('}') {
                    at += after.len() - on_line.len();
                } else if !after.starts_with([' ', '\n']) {
                    out.push(' ');
                }
            }
            '}' => {
                if !out.ends_with([' ', '\n', '{']) {
                    out.push(' ');
                }
                out.push('}');
            }
            '[' => {
                out.push('[');
                if !on_line.starts_with(['\n', '#']) {
                    at += after.len() - on_line.len();
                }
            }
            ']' => {
                let kept = out.trim_end_matches(' ').len();
                if !out.get(..kept)?.ends_with('\n') {
                    out.truncate(kept);
                }
                out.push(']');
            }
            ',' => {
                out.push(',');
                if !after.starts_with([' ', '\n', '\t']) && !after.is_empty() {
                    out.push(' ');
                }
            }
            c => out.push(c),
        }
    }
    Some(())
}
