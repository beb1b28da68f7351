//! The kernel's table is not what the agent put there.

use serde_json::{Value, json};

use super::words::behind;
use super::{Described, KindDescription, Writer};
use crate::v1::{DriftEvent, NamedAddress, Severity};

pub(super) const KIND: KindDescription = KindDescription {
    word: "drift",
    bit: 2,
    writer: Writer::Gateway,
    meaning: "somebody else changed the rules of Penstock in the kernel, and whether they were put back",
    severities: &[
        (Severity::Alarm, "found, or not put back"),
        (Severity::Notice, "put back"),
    ],
};

impl Described for DriftEvent {
    fn severity(&self) -> Severity {
        match self.step.as_str() {
            "repaired" => Severity::Notice,
            _ => Severity::Alarm,
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![&self.step, &self.message, &self.process]
    }

    fn sentence(&self, _: &[NamedAddress]) -> String {
        format!(
            "drift {}{}: {}",
            self.step,
            behind(" by ", &self.process),
            self.message
        )
    }

    fn fields(&self) -> Value {
        json!({ "step": self.step, "message": self.message, "process": self.process })
    }
}
