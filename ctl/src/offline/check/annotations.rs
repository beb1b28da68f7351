//! What `check` found in the forms that other programs show at the line: SARIF 2.1.0 for code scanning and editors, and GitHub's
//! workflow commands.
//!
//! Both are written from the same list, so that neither says what the other does not. Lines and columns count from 1, columns in
//! characters. Accepted findings are in SARIF as suppressed, with their reason; as annotations they are left out.

use std::fmt::Write as _;

use penstock_policy::check::finding_code;
use penstock_policy::diagnostics::{Code, Diagnostics, Severity};
use penstock_policy::text;
use serde_json::{Value, json};

use super::{AcceptedLine, Checked};
use crate::args::CheckReport;

/// One thing that was found, whoever found it.
struct Item<'a> {
    code: String,
    level: Level,
    message: String,
    region: Option<Region<'a>>,
    related: Vec<(Region<'a>, &'a str)>,
    accepted: Option<&'a AcceptedLine>,
}

/// How grave, in both forms' own words.
#[derive(Clone, Copy)]
enum Level {
    Error,
    Warning,
    Note,
}

impl Level {
    fn sarif(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }

    fn github(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "notice",
        }
    }
}

/// A stretch of a file; without an end only where it begins.
struct Region<'a> {
    file: &'a str,
    start: (usize, usize),
    end: Option<(usize, usize)>,
}

/// All that was found, in the form that is asked for, with its last line end.
pub(crate) fn written(form: CheckReport, checked: &Checked, diagnostics: &Diagnostics) -> String {
    let items = items(checked, diagnostics);
    match form {
        CheckReport::Sarif => sarif(&items),
        CheckReport::Github => github(&items),
    }
}

fn items<'a>(checked: &'a Checked, diagnostics: &'a Diagnostics) -> Vec<Item<'a>> {
    let faults = diagnostics.iter().map(|one| Item {
        code: one.code.to_string(),
        level: match one.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
        },
        message: match &one.help {
            Some(help) => format!("{}. Help: {help}", one.message),
            None => one.message.clone(),
        },
        region: one.location.as_ref().map(region),
        related: one
            .related
            .iter()
            .map(|other| (region(&other.location), other.note.as_str()))
            .collect(),
        accepted: None,
    });
    let findings = checked.findings.iter().map(|finding| Item {
        code: finding.code.clone(),
        level: match finding.severity.as_str() {
            "error" => Level::Error,
            "warning" => Level::Warning,
            _ => Level::Note,
        },
        message: match &finding.gateway {
            Some(gateway) => format!("{gateway}: {}. Help: {}", finding.message, finding.help),
            None => format!("{}. Help: {}", finding.message, finding.help),
        },
        region: finding
            .file
            .as_deref()
            .zip(finding.line)
            .map(|(file, line)| Region {
                file,
                start: (line, finding.column.unwrap_or(1)),
                end: None,
            }),
        related: Vec::new(),
        accepted: finding.accepted.as_ref(),
    });
    faults.chain(findings).collect()
}

fn region(location: &penstock_policy::diagnostics::Location) -> Region<'_> {
    Region {
        file: &location.file,
        start: (location.line, location.column),
        end: Some((location.end_line, location.end_column)),
    }
}

fn sarif(items: &[Item<'_>]) -> String {
    let mut codes: Vec<&str> = items.iter().map(|item| item.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| rule(code)).collect();
    let results: Vec<Value> = items.iter().map(result).collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "penstock", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    text::json(&format!("{log:#}")).into_owned() + "\n"
}

/// A code with what `penstock explain` says of it.
fn rule(code: &str) -> Value {
    let known = Code::parse(code)
        .map(|code| (code.meaning(), code.explanation()))
        .or_else(|| finding_code(code).map(|known| (known.meaning, known.explanation)));
    let (meaning, explanation) = known.unwrap_or_default();
    json!({ "id": code, "shortDescription": { "text": meaning }, "fullDescription": { "text": explanation } })
}

fn result(item: &Item<'_>) -> Value {
    let mut result = json!({
        "ruleId": item.code,
        "level": item.level.sarif(),
        "message": { "text": item.message },
    });
    let Some(object) = result.as_object_mut() else {
        return result;
    };
    if let Some(region) = &item.region {
        object.insert(
            "locations".to_owned(),
            json!([{ "physicalLocation": physical(region) }]),
        );
    }
    if !item.related.is_empty() {
        let related = item.related.iter().map(
            |(region, note)| json!({ "physicalLocation": physical(region), "message": { "text": note } }),
        );
        object.insert("relatedLocations".to_owned(), related.collect());
    }
    if let Some(AcceptedLine { by, expires, reason }) = item.accepted {
        let why = format!("accepted by {by} until {expires}: {reason}");
        object.insert(
            "suppressions".to_owned(),
            json!([{ "kind": "inSource", "status": "accepted", "justification": why }]),
        );
    }
    result
}

fn physical(region: &Region<'_>) -> Value {
    let (line, column) = region.start;
    let mut shown = json!({ "startLine": line, "startColumn": column });
    if let (Some((end_line, end_column)), Some(shown)) = (region.end, shown.as_object_mut()) {
        shown.insert("endLine".to_owned(), json!(end_line));
        shown.insert("endColumn".to_owned(), json!(end_column));
    }
    json!({ "artifactLocation": { "uri": uri(region.file) }, "region": shown })
}

/// A path as a relative reference (RFC 3986): with `/` and everything else that means something there escaped.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.trim_start_matches("./").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte))
            }
            // Writing to a string cannot fail.
            byte => _ = write!(uri, "%{byte:02X}"),
        }
    }
    uri
}

fn github(items: &[Item<'_>]) -> String {
    let mut text = String::new();
    for item in items.iter().filter(|item| item.accepted.is_none()) {
        let mut properties = Vec::new();
        if let Some(region) = &item.region {
            let (line, column) = region.start;
            properties.push(format!("file={}", property(region.file.trim_start_matches("./"))));
            properties.push(format!("line={line}"));
            // A column only counts where the annotation ends on the line on which it begins.
            match region.end {
                Some((end_line, end_column)) if end_line == line => {
                    properties.push(format!("col={column},endColumn={}", end_column.max(column)));
                }
                Some((end_line, _)) => properties.push(format!("endLine={end_line}")),
                None => properties.push(format!("col={column}")),
            }
        }
        properties.push(format!("title={}", property(&item.code)));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "::{} {}::{}",
            item.level.github(),
            properties.join(","),
            message(&item.message)
        );
    }
    text
}

/// A message as workflow commands want it.
fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property's value likewise.
fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn item(file: &str) -> Item<'_> {
        Item {
            code: "PS0201".to_owned(),
            level: Level::Warning,
            message: "50 % of it,\nwrong: all".to_owned(),
            region: Some(Region {
                file,
                start: (7, 3),
                end: Some((7, 9)),
            }),
            related: Vec::new(),
            accepted: None,
        }
    }

    #[test]
    fn no_name_and_no_message_can_end_a_workflow_command() {
        let text = github(&[item("./a,b:c.yaml")]);
        assert_eq!(
            text,
            "::warning file=a%2Cb%3Ac.yaml,line=7,col=3,endColumn=9,title=PS0201::50 %25 of it,%0Awrong: all\n"
        );
    }

    #[test]
    fn a_result_names_its_rule_its_place_and_who_accepted_it() {
        let accepted = AcceptedLine {
            by: "anna".to_owned(),
            expires: "2027-06-30".to_owned(),
            reason: "known".to_owned(),
        };
        let log: Value = serde_json::from_str(&sarif(&[Item {
            accepted: Some(&accepted),
            ..item("a b/plant.yaml")
        }]))
        .unwrap();
        let run = &log["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"][0]["id"], "PS0201");
        let result = &run["results"][0];
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "a%20b/plant.yaml");
        assert_eq!(place["region"]["endColumn"], 9);
        assert_eq!(
            result["suppressions"][0]["justification"],
            "accepted by anna until 2027-06-30: known"
        );
    }
}
