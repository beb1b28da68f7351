//! What a code means: of a document's diagnostics (`PS0123`) or of the plan checker's findings (`PC0101`).

use penstock_policy::check::finding_code;
use penstock_policy::diagnostics::{Code, Severity};
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Page, Report, Tone};

/// What a code means.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CodeMeaning {
    /// The code.
    pub code: String,
    /// How grave at worst: `error`, `warning` or `note`.
    pub severity: String,
    /// In one line.
    pub meaning: String,
    /// Why it is so, and what to do about it.
    pub explanation: String,
}

impl Report for CodeMeaning {
    const SCHEMA: &'static str = "penstock.code/1";
    fn page(&self, page: &mut Page) {
        let tone = match self.severity.as_str() {
            "error" => Tone::Bad,
            "note" => Tone::Dim,
            _ => Tone::Warn,
        };
        let (code, meaning) = (
            page.paint(tone, &self.code),
            page.paint(Tone::Strong, &self.meaning),
        );
        page.line(format!("{code} ({}): {meaning}", self.severity));
        page.gap();
        page.paragraph(0, Tone::Plain, &self.explanation);
    }
}

impl CodeMeaning {
    /// The meaning of `subject`, if it is written like a code at all.
    pub(super) fn of(subject: &str) -> Result<Option<Self>, Failure> {
        if let Some(code) = Code::parse(subject) {
            return Ok(Some(Self {
                code: code.to_string(),
                severity: match code.severity() {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                }
                .to_owned(),
                meaning: code.meaning().to_owned(),
                explanation: code.explanation().to_owned(),
            }));
        }
        if let Some(code) = finding_code(subject) {
            return Ok(Some(Self {
                code: code.code.to_owned(),
                severity: code.severity.to_string(),
                meaning: code.meaning.to_owned(),
                explanation: code.explanation.to_owned(),
            }));
        }
        let upper = subject.to_ascii_uppercase();
        let digits = upper.strip_prefix("PS").or_else(|| upper.strip_prefix("PC"));
        if digits.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit())) {
            return Err(Failure::usage(format!("there is no code {subject}")));
        }
        Ok(None)
    }
}
