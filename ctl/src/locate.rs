//! On which line of a document a conduit or flow stands, for answers that name rules.
//!
//! A small look at the indentation of block YAML, not a parser: where a document is written in another style, the
//! line of the nearest thing around it is given, or none.

use serde::Serialize;

use schemars::JsonSchema;

use crate::documents::Documents;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Line {
    /// The file, as a person finds it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Where the flow of a conduit stands.
pub fn flow(documents: &Documents, conduit: &str, flow: &str) -> Option<Line> {
    documents.files.iter().find_map(|file| {
        let text = std::str::from_utf8(&file.content).ok()?;
        let line = descend(text, &["conduits", conduit, "flows", flow])?;
        Some(Line {
            file: file.shown.clone(),
            line,
        })
    })
}

/// The line of the last key of `path` that is found, if at least the second one is.
fn descend(text: &str, path: &[&str]) -> Option<usize> {
    let mut lines = text.lines().enumerate().map(|(at, line)| {
        let trimmed = line.trim_start();
        (at + 1, line.len() - trimmed.len(), trimmed)
    });
    let mut found = None;
    let mut parent: Option<usize> = None;
    // A key deeper than the first child is a grandchild, whatever its name.
    let mut child: Option<usize> = None;
    let mut keys = path.iter().enumerate();
    let (mut depth, mut key) = keys.next()?;
    for (line, indent, content) in &mut lines {
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if parent.is_some_and(|parent| indent <= parent) {
            break;
        }
        if indent != *child.get_or_insert(indent) || !is_key(content, key) {
            continue;
        }
        if depth > 0 {
            found = Some(line);
        }
        parent = Some(indent);
        child = None;
        match keys.next() {
            Some(next) => (depth, key) = next,
            None => break,
        }
    }
    found
}

fn is_key(content: &str, key: &str) -> bool {
    let unquoted = content.trim_start_matches(['"', '\'']);
    unquoted
        .strip_prefix(key)
        .map(|rest| rest.trim_start_matches(['"', '\'']))
        .is_some_and(|rest| rest.trim_start().starts_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
plant: x
zones:
  pumps: { kind: control }
conduits:
  # the first
  status:
    flows:
      polling:
        service: modbus-tcp
  pumps:
    from: a
    flows:
      polling:
        source: b
      'writing':
        source: b
  short: { flows: { polling: {} } }
";

    #[test]
    fn a_flow_is_found_in_its_own_conduit() {
        assert_eq!(
            descend(TEXT, &["conduits", "pumps", "flows", "polling"]),
            Some(13)
        );
        assert_eq!(
            descend(TEXT, &["conduits", "pumps", "flows", "writing"]),
            Some(15)
        );
        assert_eq!(
            descend(TEXT, &["conduits", "status", "flows", "polling"]),
            Some(8)
        );
    }

    #[test]
    fn what_is_written_on_one_line_is_found_as_that_line_and_what_is_not_there_is_not_found() {
        assert_eq!(
            descend(TEXT, &["conduits", "short", "flows", "polling"]),
            Some(17)
        );
        assert_eq!(descend(TEXT, &["conduits", "none", "flows", "polling"]), None);
        assert_eq!(descend("plant: x\n", &["conduits", "pumps"]), None);
    }
}
