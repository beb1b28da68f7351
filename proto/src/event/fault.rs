//! A fault that health shows under the same code: it began, it ended, or it was found when it was over.

use serde_json::{Value, json};

use super::{Described, KindDescription, Writer};
use crate::fault::flows_in_words;
use crate::v1::{FaultEvent, NamedAddress, Severity};

pub(super) const KIND: KindDescription = KindDescription {
    word: "fault",
    bit: 8,
    writer: Writer::Gateway,
    meaning: "a fault that health shows under the same code began, ended, or was found when it was over",
    severities: &[
        (Severity::Alarm, "it stops a must-flow or opens the gateway"),
        (Severity::Warning, "any other that began or was found"),
        (Severity::Notice, "it ended"),
    ],
};

impl Described for FaultEvent {
    /// Whether a flow is a must-flow its writer knows.
    fn severity(&self) -> Severity {
        match self.step.as_str() {
            "ended" => Severity::Notice,
            _ => Severity::Warning,
        }
    }

    fn texts(&self) -> Vec<&str> {
        let own = [&self.step, &self.code, &self.message].into_iter();
        own.chain(&self.zones)
            .chain(&self.flows)
            .map(String::as_str)
            .collect()
    }

    fn flows(&self) -> Vec<&str> {
        self.flows.iter().map(String::as_str).collect()
    }

    fn zones(&self) -> Vec<&str> {
        self.zones.iter().map(String::as_str).collect()
    }

    fn sentence(&self, _: &[NamedAddress]) -> String {
        format!(
            "fault {} {}: {}{}",
            self.code,
            self.step,
            self.message,
            flows_in_words(&self.flows, self.further_flows)
        )
    }

    fn fields(&self) -> Value {
        json!({
            "step": self.step, "code": self.code, "message": self.message, "first_ms": self.first_ms,
            "last_ms": self.last_ms, "zones": self.zones, "flows": self.flows, "further_flows": self.further_flows,
        })
    }
}
