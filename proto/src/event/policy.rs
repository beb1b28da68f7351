//! A step in the life of a policy on its gateway.

use serde_json::{Value, json};

use super::words::behind;
use super::{Described, KindDescription, Writer};
use crate::v1::{NamedAddress, PolicyEvent, Severity};

pub(super) const KIND: KindDescription = KindDescription {
    word: "policy",
    bit: 1,
    writer: Writer::Gateway,
    meaning: "a release was verified, staged, put in force, or refused with a code",
    severities: &[
        (Severity::Warning, "refused"),
        (Severity::Notice, "in force"),
        (Severity::Info, "any other step"),
    ],
};

impl Described for PolicyEvent {
    fn severity(&self) -> Severity {
        match self.step.as_str() {
            "refused" => Severity::Warning,
            "effective" => Severity::Notice,
            _ => Severity::Info,
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![&self.step, &self.code, &self.message]
    }

    fn sentence(&self, _: &[NamedAddress]) -> String {
        format!(
            "policy r{} {}{}",
            self.revision,
            self.step,
            behind(": ", &self.message)
        )
    }

    fn fields(&self) -> Value {
        let digest: String = self
            .plan_digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        json!({
            "step": self.step, "revision": self.revision, "plan_digest": format!("sha256:{digest}"),
            "code": self.code, "message": self.message,
        })
    }
}
