//! Why a command could not do its work, as a person and as a script are told: what, where, why, what to do next.

use penstock_policy::text;
use serde::Serialize;

use crate::exit::Exit;

/// A failure on its way to the terminal.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Decides the exit code.
    #[serde(skip)]
    pub exit: Exit,
    /// Stable code for scripts (`file-unreadable`, `WRONG_ROLE`, …).
    pub code: Box<str>,
    /// What happened, to what.
    pub message: String,
    /// Why: causes, faulty fields, conditions that do not hold; outermost first.
    pub because: Vec<String>,
    /// What to do next.
    pub help: Vec<String>,
    /// Text that is shown as it is (drawn diagnostics of a document); not part of JSON.
    #[serde(skip)]
    pub drawn: Option<Box<str>>,
    /// Diagnostics of a document, for JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Box<serde_json::Value>>,
}

impl Failure {
    /// A failure with its code and sentence.
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.into(),
            message: message.into(),
            because: Vec::new(),
            help: Vec::new(),
            drawn: None,
            diagnostics: None,
        }
    }

    /// Something on this machine.
    pub fn local(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Local, code, message)
    }

    /// A command line that says two things at once, or too little.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// Signatures, digests or plans that are not what they should be.
    pub fn altered(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Altered, code, message)
    }

    /// Adds a reason.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.because.push(why.into());
        self
    }

    /// Adds an error and all its sources as reasons.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        for sentence in text::causes(error) {
            if !self.because.iter().any(|said| said.contains(&sentence)) {
                self.because.push(sentence);
            }
        }
        self
    }

    /// Adds a piece of advice.
    #[must_use]
    pub fn help(mut self, advice: impl Into<String>) -> Self {
        self.help.push(advice.into());
        self
    }
}

/// Standard output was closed by its reader (`| head`): nothing to say, nobody to say it to.
pub(crate) const PIPE_CLOSED: &str = "pipe-closed";
