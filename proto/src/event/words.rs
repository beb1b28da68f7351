//! The words of decisions and severities, and small pieces of sentences.

use crate::v1::{Decision, Severity};

/// `allow`, `deny`, `would-deny`; `unknown` of any other number.
pub fn decision_word(decision: i32) -> &'static str {
    match Decision::try_from(decision) {
        Ok(Decision::Allow) => "allow",
        Ok(Decision::Deny) => "deny",
        Ok(Decision::WouldDeny) => "would-deny",
        Ok(Decision::Unspecified) | Err(_) => "unknown",
    }
}

/// `info`, `notice`, `warning`, `alarm`; `unknown` of any other number.
pub fn severity_word(severity: i32) -> &'static str {
    match Severity::try_from(severity) {
        Ok(Severity::Info) => "info",
        Ok(Severity::Notice) => "notice",
        Ok(Severity::Warning) => "warning",
        Ok(Severity::Alarm) => "alarm",
        Ok(Severity::Unspecified) | Err(_) => "unknown",
    }
}

/// `text` behind `mark`; nothing where there is no text.
pub(super) fn behind(mark: &str, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("{mark}{text}")
    }
}

/// `text` in its brackets, behind a space; nothing where there is no text.
pub(super) fn bracketed([open, close]: [char; 2], text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" {open}{text}{close}")
    }
}

/// " ×3"; nothing of what was once.
pub(super) fn times(count: u64) -> String {
    if count > 1 {
        format!(" ×{count}")
    } else {
        String::new()
    }
}
