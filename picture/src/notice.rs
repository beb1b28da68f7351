//! How it is said, in the picture, that something is not as it should be: a sign, and words beside it.

use std::collections::BTreeMap;

use penstock_policy::text::shortened;

use super::facts::Notice;
use super::marks;
use super::shape::{Line, Shape};
use super::text::{self, Face};

/// Sentences in a tooltip.
const SENTENCES_MAX: usize = 5;

/// Bytes of one of them: some name all zones beside one, and each of these names it.
const SENTENCE_BYTES_MAX: usize = 400;

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

/// `observes only; needs attention: PC0151`, in a sentence that describes the picture; `None` where there is nothing to say.
pub(super) fn in_short<'n>(observes: bool, notices: impl IntoIterator<Item = &'n Notice>) -> Option<String> {
    let observes = observes.then(|| "observes only".to_owned());
    let wrong = summary(notices).map(|(error, words)| match error {
        true => format!("must be mended: {words}"),
        false => format!("needs attention: {words}"),
    });
    let said: Vec<String> = observes.into_iter().chain(wrong).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// The first of their sentences.
pub(super) fn sentences<'n>(notices: impl IntoIterator<Item = &'n Notice>) -> String {
    let mut notices = notices.into_iter();
    let mut said = String::new();
    for notice in notices.by_ref().take(SENTENCES_MAX) {
        let sentence = shortened(&notice.sentence, SENTENCE_BYTES_MAX);
        said.push_str(&format!(" {}: {sentence}.", notice.words));
    }
    match notices.count() {
        0 => said,
        more => format!("{said} And {more} more."),
    }
}

/// Draws its sign.
pub(super) fn sign(error: bool, x: f64, y: f64, shapes: &mut Vec<Shape>) {
    let (mark, line) = match error {
        true => (&marks::ALARM, "alarm-line"),
        false => (&marks::WARN, "warn-line"),
    };
    shapes.push(Shape::Glyph {
        x,
        y,
        scale: 0.72,
        d: mark.d(),
        class: format!("mark {line} {}", mark.class),
    });
}

/// The style class of its words.
pub(super) fn ink(error: bool) -> &'static str {
    match error {
        true => "alarm-text",
        false => "warn-text",
    }
}

/// Draws a line of it, 14 high, in a room so wide.
pub(super) fn draw((error, words): (bool, &str), x: f64, y: f64, room: f64, shapes: &mut Vec<Shape>) {
    sign(error, x, y + 1.0, shapes);
    let words = text::fit(words, room - 16.0, 10.5, Face::Bold);
    shapes.push(Shape::Text(Line::new(
        x + 16.0,
        y + 10.5,
        10.5,
        Face::Bold,
        ink(error),
        words,
    )));
}
