//! How it is said, in the picture, that something is not as it should be: a sign, and words beside it.

use std::collections::BTreeMap;

use super::facts::Notice;
use super::marks;
use super::shape::{Line, Shape};
use super::text::{self, Face};

/// Sentences in a tooltip.
const SENTENCES_MAX: usize = 5;

/// More different words than this are counted by their codes.
const WORDS_MAX: usize = 4;

/// `PC0151, PC0161 × 3`, and whether one of them is an error; `None` where all is well.
pub(super) fn summary<'n>(notices: impl IntoIterator<Item = &'n Notice>) -> Option<(bool, String)> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    let mut error = false;
    for notice in notices {
        *times.entry(&notice.words).or_default() += 1;
        error |= notice.error;
    }
    if times.len() > WORDS_MAX {
        let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
        for (words, times) in times {
            let code = words.split(" at ").next().unwrap_or(words);
            *codes.entry(code).or_default() += times;
        }
        times = codes;
    }
    let words = times.iter().map(|(words, times)| match times {
        1 => (*words).to_owned(),
        _ => format!("{words} × {times}"),
    });
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| (error, words.join(", ")))
}

/// The first of their sentences.
pub(super) fn sentences<'n>(notices: impl IntoIterator<Item = &'n Notice>) -> String {
    let mut notices = notices.into_iter();
    let mut said = String::new();
    for notice in notices.by_ref().take(SENTENCES_MAX) {
        said.push_str(&format!(" {}: {}.", notice.words, notice.sentence));
    }
    match notices.count() {
        0 => said,
        more => format!("{said} And {more} more."),
    }
}

/// Draws a line of it, 14 high, in a room so wide.
pub(super) fn draw((error, words): (bool, &str), x: f64, y: f64, room: f64, shapes: &mut Vec<Shape>) {
    let (mark, line, ink) = if error {
        (&marks::ALARM, "alarm-line", "alarm-text")
    } else {
        (&marks::WARN, "warn-line", "warn-text")
    };
    shapes.push(Shape::Glyph {
        x,
        y: y + 1.0,
        scale: 0.72,
        d: mark.d(),
        class: format!("mark {line} {}", mark.class),
    });
    let words = text::fit(words, room - 16.0, 10.5, Face::Bold);
    shapes.push(Shape::Text(Line::new(
        x + 16.0,
        y + 10.5,
        10.5,
        Face::Bold,
        ink,
        words,
    )));
}
