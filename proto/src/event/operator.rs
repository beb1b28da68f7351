//! What an operator did, or was refused.

use serde_json::{Value, json};

use super::words::{behind, bracketed};
use super::{Described, KindDescription, Writer};
use crate::v1::{NamedAddress, OperatorEvent, Severity};

pub(super) const KIND: KindDescription = KindDescription {
    word: "operator",
    bit: 5,
    writer: Writer::Coordinator,
    meaning: "what an operator did, or was refused",
    severities: &[(Severity::Warning, "refused"), (Severity::Notice, "done")],
};

impl Described for OperatorEvent {
    fn severity(&self) -> Severity {
        if self.allowed {
            Severity::Notice
        } else {
            Severity::Warning
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![
            &self.operator,
            &self.role,
            &self.action,
            &self.target,
            &self.message,
        ]
    }

    fn sentence(&self, _: &[NamedAddress]) -> String {
        format!(
            "{}{} {}{}{}{}",
            self.operator,
            bracketed(['(', ')'], &self.role),
            self.action,
            behind(" ", &self.target),
            if self.allowed { "" } else { " was refused" },
            behind(": ", &self.message),
        )
    }

    fn operator(&self) -> Option<&str> {
        Some(&self.operator)
    }

    fn fields(&self) -> Value {
        json!({
            "operator": self.operator, "role": self.role, "action": self.action, "target": self.target,
            "allowed": self.allowed, "message": self.message,
        })
    }
}
