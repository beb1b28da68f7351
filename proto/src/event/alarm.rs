//! A step of an alarm of the control room: it was raised, somebody acknowledged or shelved it, or it is over (ISA-18.2).

use serde_json::{Value, json};

use super::words::behind;
use super::{Described, KindDescription, Writer};
use crate::v1::{AlarmEvent, NamedAddress, Severity};

pub(super) const KIND: KindDescription = KindDescription {
    word: "alarm",
    // Stored. Those between are free.
    bit: 20,
    writer: Writer::Coordinator,
    meaning: "an alarm of the control room was raised, acknowledged, shelved, taken out of service, or is over",
    severities: &[
        (Severity::Alarm, "raised, with a priority of high"),
        (
            Severity::Warning,
            "raised with another priority, shelved, or taken out of service",
        ),
        (Severity::Notice, "any other step"),
    ],
};

impl Described for AlarmEvent {
    fn severity(&self) -> Severity {
        match (self.step.as_str(), self.priority.as_str()) {
            ("raised" | "raised-again", "high") => Severity::Alarm,
            ("raised" | "raised-again" | "shelved" | "out-of-service", _) => Severity::Warning,
            _ => Severity::Notice,
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![
            &self.step,
            &self.zone,
            &self.cause,
            &self.state,
            &self.priority,
            &self.message,
            &self.by,
            &self.reason,
        ]
    }

    fn zones(&self) -> Vec<&str> {
        Some(self.zone.as_str())
            .filter(|zone| !zone.is_empty())
            .into_iter()
            .collect()
    }

    /// Whoever acknowledged it by topic is nobody who was proved.
    fn operator(&self) -> Option<&str> {
        Some(self.by.as_str()).filter(|by| !by.is_empty() && !self.by_topic)
    }

    fn sentence(&self, _: &[NamedAddress]) -> String {
        let place = match self.zone.as_str() {
            "" => "the plant",
            zone => zone,
        };
        let by = match (self.by.as_str(), self.by_topic) {
            ("", _) => String::new(),
            (by, false) => format!(" by {by}"),
            (by, true) => format!(" by topic, as {by}"),
        };
        format!(
            "alarm {} of {place} {}{by}, {} (priority {}){}{}",
            self.cause,
            self.step,
            self.state,
            self.priority,
            behind(": ", &self.message),
            behind("; ", &self.reason),
        )
    }

    fn fields(&self) -> Value {
        json!({
            "step": self.step, "zone": self.zone, "cause": self.cause, "state": self.state, "priority": self.priority,
            "message": self.message, "by": self.by, "by_topic": self.by_topic, "reason": self.reason, "until_ms": self.until_ms,
        })
    }
}
