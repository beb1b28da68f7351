//! What one address asked of a port of another, as a gateway that observes learned it from copies of packets.

use serde_json::{Value, json};

use super::ends::end;
use super::{Described, KindDescription, Writer};
use crate::learned;
use crate::v1::{LearnedEvent, NamedAddress, Severity};

/// Operations that the sentence names.
const NAMED_MAX: usize = 3;

pub(super) const KIND: KindDescription = KindDescription {
    word: "learned",
    bit: 7,
    writer: Writer::Gateway,
    meaning: "who asks what of whom where zones only observe, learned from copies of packets",
    severities: &[(Severity::Info, "always")],
};

impl Described for LearnedEvent {
    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn texts(&self) -> Vec<&str> {
        let ends = [&self.source, &self.destination].into_iter();
        ends.map(String::as_str).chain(learned::texts(self)).collect()
    }

    /// What was learned, with its first few operations. Topics are a client's words.
    fn sentence(&self, names: &[NamedAddress]) -> String {
        format!(
            "learned {} → {} port {}: {}",
            end("", &self.source, &self.source, names),
            end("", &self.destination, &self.destination, names),
            self.port,
            self.operations_in_words()
        )
    }

    fn fields(&self) -> Value {
        json!({
            "source": self.source, "destination": self.destination, "protocol": self.protocol, "port": self.port,
            "application": self.application, "connections": self.connections, "guessed": self.guessed,
            "first_ms": self.first_ms, "last_ms": self.last_ms,
            "operations": learned::count(self), "further": self.further,
            "unread": self.unread, "in_order": self.in_order, "misfits": self.misfits,
        })
    }

    fn addresses(&self) -> Option<[&str; 2]> {
        Some([&self.source, &self.destination])
    }
}

impl LearnedEvent {
    fn operations_in_words(&self) -> String {
        let mut all: Vec<String> = learned::words(self).take(NAMED_MAX).collect();
        let further = learned::count(self).saturating_sub(all.len());
        if further > 0 {
            all.push(format!("{further} more"));
        }
        if all.is_empty() {
            return "no operation".to_owned();
        }
        all.join(", ")
    }
}
