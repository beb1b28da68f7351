//! Strict readers of the formats, written after their specifications and not after our writers.

use std::collections::BTreeMap;

/// A message of RFC 5424.
#[derive(Debug, Default)]
pub(super) struct Syslog {
    pub(super) data: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) text: String,
}

/// RFC 5424 §6, each rule of its grammar; all of the message.
pub(super) fn syslog(message: &str) -> Option<Syslog> {
    let rest = message.strip_prefix('<')?;
    let (pri, rest) = rest.split_once('>')?;
    let _ = pri.parse::<u16>().ok().filter(|pri| *pri <= 191)?;
    let mut rest = rest.strip_prefix("1 ")?;
    for (field, max) in [
        ("time", 32),
        ("host", 255),
        ("app", 48),
        ("process", 128),
        ("kind", 32),
    ] {
        let (value, behind) = rest.split_once(' ')?;
        let is_graphic = value.bytes().all(|byte| (33..=126).contains(&byte));
        (is_graphic && (1..=max).contains(&value.len())).then_some(field)?;
        rest = behind;
    }
    let mut read = Syslog::default();
    while let Some(element) = rest.strip_prefix('[') {
        let (id, mut behind) = name(element)?;
        let mut values = BTreeMap::new();
        while let Some(param) = behind.strip_prefix(' ') {
            let (key, value) = name(param)?;
            let (value, after) = quoted(value.strip_prefix("=\"")?)?;
            values.insert(key.to_owned(), value).is_none().then_some(())?;
            behind = after;
        }
        read.data.insert(id.to_owned(), values).is_none().then_some(())?;
        rest = behind.strip_prefix(']')?;
    }
    read.text = rest.strip_prefix(" \u{feff}")?.to_owned();
    Some(read)
}

/// SD-NAME, and what stands behind it.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find([' ', '=', ']', '"'])?;
    let (name, rest) = text.split_at(end);
    let is_name = (1..=32).contains(&name.len()) && name.bytes().all(|byte| (33..=126).contains(&byte));
    is_name.then_some((name, rest))
}

/// PARAM-VALUE up to its quotation mark, and what stands behind that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            // Has to be escaped.
            ']' => return None,
            '\\' => value.push(
                chars
                    .next()
                    .map(|(_, c)| c)
                    .filter(|c| matches!(c, '"' | '\\' | ']'))?,
            ),
            c => value.push(c),
        }
    }
    None
}

/// Messages of a stream by RFC 5425 §4.3: counted octets.
pub(super) fn frames(mut stream: &[u8]) -> Option<Vec<String>> {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        let space = stream.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&stream[..space]).ok()?.parse().ok()?;
        let message = stream.get(space + 1..space + 1 + length)?;
        messages.push(String::from_utf8(message.to_vec()).ok()?);
        stream = &stream[space + 1 + length..];
    }
    Some(messages)
}

/// A line of CEF.
#[derive(Debug)]
pub(super) struct Cef {
    /// Version, vendor, product, its version, ID, name, severity.
    pub(super) header: Vec<String>,
    pub(super) extension: BTreeMap<String, String>,
}

/// CEF:0, all of the line.
pub(super) fn cef(line: &str) -> Option<Cef> {
    let mut rest = line.strip_prefix("CEF:")?;
    let mut header = Vec::new();
    while header.len() < 7 {
        let (field, behind) = unescaped(rest, '|', &['\\', '|'])?;
        header.push(field);
        rest = behind;
    }
    let severity: u8 = header[6].parse().ok()?;
    (severity <= 10).then_some(())?;
    let mut extension = BTreeMap::new();
    // A key is the word before an `=` that nothing escapes.
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=')?;
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_key.then_some(())?;
        let (raw, after) = match next_key(behind) {
            Some(at) => (&behind[..at], &behind[at + 1..]),
            None => (behind, ""),
        };
        let value = values(raw)?;
        extension.insert(key.to_owned(), value).is_none().then_some(())?;
        rest = after;
    }
    Some(Cef { header, extension })
}

/// Where the space before the next key is.
fn next_key(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'=' => return text[..at].rfind(' '),
            _ => at += 1,
        }
    }
    None
}

fn values(raw: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                c @ ('\\' | '=') => c,
                _ => return None,
            }),
            '=' => return None,
            c => value.push(c),
        }
    }
    Some(value)
}

/// Up to `end`, with only these escapes, and what stands behind.
fn unescaped<'t>(text: &'t str, end: char, escapes: &[char]) -> Option<(String, &'t str)> {
    let mut field = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == end {
            return Some((field, &text[at + c.len_utf8()..]));
        }
        field.push(match c {
            '\\' => chars.next().map(|(_, c)| c).filter(|c| escapes.contains(c))?,
            c => c,
        });
    }
    None
}
