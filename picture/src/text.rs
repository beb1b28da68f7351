//! How wide text is, where it must be cut, and how it is escaped.
//!
//! An SVG names no font file, so the viewer's own sans-serif is drawn. Widths here are those of DejaVu Sans,
//! the widest of the usual ones (Helvetica, Arial, Segoe, Roboto and Liberation are all narrower), so that text
//! which fits by this measure fits everywhere. A character outside ASCII counts as a full square.

/// Which face a text is set in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    /// Regular weight.
    Regular,
    /// Bold.
    Bold,
    /// Fixed width, for addresses and digests.
    Mono,
}

/// Advance widths of U+0020..=U+007E in thousandths of the size.
const REGULAR: [u16; 95] = [
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636,
    636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295,
    295, 656, 557, 863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838,
    500, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521,
    392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
];

/// The same for the bold face.
const BOLD: [u16; 95] = [
    348, 456, 521, 838, 696, 1002, 872, 306, 457, 457, 523, 838, 380, 415, 380, 365, 696, 696, 696, 696, 696,
    696, 696, 696, 696, 696, 400, 400, 838, 838, 838, 580, 1000, 774, 762, 734, 830, 683, 683, 821, 837, 372,
    372, 775, 637, 995, 837, 850, 733, 850, 770, 720, 682, 812, 774, 1103, 771, 724, 725, 457, 365, 457, 838,
    500, 500, 675, 716, 593, 716, 678, 435, 716, 712, 343, 343, 665, 343, 1042, 712, 687, 716, 716, 493, 595,
    478, 712, 652, 924, 645, 652, 582, 712, 365, 712, 838,
];

/// The advance of one character in thousandths of the size.
fn advance(character: char, face: Face) -> u32 {
    let table = match face {
        Face::Regular => &REGULAR,
        Face::Bold => &BOLD,
        Face::Mono => return if (character as u32) < 0x2e80 { 602 } else { 1204 },
    };
    let code = character as u32;
    let known = code.checked_sub(0x20).and_then(|at| table.get(at as usize));
    match known {
        Some(width) => u32::from(*width),
        // Latin letters with marks, Greek and Cyrillic stay below 0.9; the rest is taken as square or wider.
        None if code < 0x2e80 => 900,
        None => 1150,
    }
}

/// The width of `text` at `size`, rounded up.
pub(super) fn width(text: &str, size: f64, face: Face) -> f64 {
    let thousandths: u32 = text.chars().map(|c| advance(c, face)).sum();
    (f64::from(thousandths) * size / 1000.0).ceil()
}

/// `text` if it fits into `room`, else as much of it as fits with an ellipsis behind.
pub(super) fn fit(text: &str, room: f64, size: f64, face: Face) -> String {
    if width(text, size, face) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for character in text.chars() {
        let longer = format!("{kept}{character}…");
        if width(&longer, size, face) > room {
            break;
        }
        kept.push(character);
    }
    format!("{}…", kept.trim_end())
}

/// `text` in at most `lines_max` lines no wider than `room`, broken at spaces and hyphens; the last is cut if need be.
pub(super) fn wrap(text: &str, room: f64, size: f64, face: Face, lines_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut words = pieces(text).into_iter().peekable();
    while let Some(word) = words.next() {
        let mut line = word;
        while let Some(next) = words.peek() {
            if width(format!("{line}{next}").trim_end(), size, face) > room {
                break;
            }
            line.push_str(next);
            words.next();
        }
        if lines.len() + 1 >= lines_max {
            // The last line that there is room for takes all the rest, and is cut.
            line.extend(words);
            lines.push(fit(line.trim_end(), room, size, face));
            return lines;
        }
        lines.push(fit(line.trim_end(), room, size, face));
    }
    lines
}

/// Words with the space or hyphen that ends them.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for character in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        if let Some(last) = pieces.last_mut() {
            last.push(character);
        }
        if matches!(character, ' ' | '-' | '/') {
            pieces.push(String::new());
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// `text` as XML character data or attribute value. What XML 1.0 cannot carry becomes U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' | '\r' => escaped.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cut_text_fits_its_room_and_says_that_it_was_cut() {
        for room in 12..200 {
            let room = f64::from(room);
            let cut = fit("Filter and pump control, north", room, 12.0, Face::Bold);
            assert!(width(&cut, 12.0, Face::Bold) <= room, "{cut} in {room}");
        }
        assert!(fit("Filter and pump control", 60.0, 12.0, Face::Bold).ends_with('…'));
        assert_eq!(fit("short", 400.0, 12.0, Face::Bold), "short");
    }

    #[test]
    fn wrapped_lines_fit_and_lose_no_word_while_there_is_room() {
        let text = "The shutdown's state, to be seen and never touched";
        let lines = wrap(text, 180.0, 12.0, Face::Bold, 4);
        assert_eq!(lines.join(" "), text);
        assert!(lines.iter().all(|line| width(line, 12.0, Face::Bold) <= 180.0));
        let cut = wrap(text, 120.0, 12.0, Face::Bold, 2);
        assert_eq!(cut.len(), 2);
        assert!(cut.iter().all(|line| width(line, 12.0, Face::Bold) <= 120.0));
        assert!(cut.last().unwrap().ends_with('…'));
    }

    #[test]
    fn markup_in_a_name_stays_text() {
        assert_eq!(
            escape("<a b='\"&\u{1b}'>"),
            "&lt;a b=&#39;&quot;&amp;\u{fffd}&#39;&gt;"
        );
    }
}
