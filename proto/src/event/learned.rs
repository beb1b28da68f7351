//! What one address asked of a port of another, as a gateway that observes learned it from copies of packets; and behind which MAC address a gateway
//! sees an address.

use serde_json::{Value, json};

use super::ends::end;
use super::{Described, KindDescription, Writer};
use crate::learned;
use crate::v1::{LearnedBinding, LearnedEvent, NamedAddress, Severity};

/// Operations that the sentence names.
const NAMED_MAX: usize = 3;

pub(super) const KIND: KindDescription = KindDescription {
    word: "learned",
    bit: 7,
    writer: Writer::Gateway,
    meaning: "who asks what of whom where zones only observe, learned from copies of packets; which MAC address is behind an address",
    severities: &[
        (
            Severity::Warning,
            "an asset's address is behind another MAC address than before, or than is declared",
        ),
        (
            Severity::Notice,
            "the same of an address of no asset, or at another interface",
        ),
        (Severity::Info, "everything else"),
    ],
};

impl Described for LearnedEvent {
    fn severity(&self) -> Severity {
        self.binding
            .as_ref()
            .map_or(Severity::Info, LearnedBinding::severity)
    }

    fn texts(&self) -> Vec<&str> {
        let ends = [&self.source, &self.destination].into_iter();
        let binding = self.binding.iter().flat_map(|binding| {
            [
                &binding.mac,
                &binding.previous_mac,
                &binding.asset,
                &binding.interface,
            ]
        });
        let own = ends.chain(binding).map(String::as_str);
        own.chain(learned::texts(self)).collect()
    }

    /// What was learned, with its first few operations. Topics are a client's words.
    fn sentence(&self, names: &[NamedAddress]) -> String {
        if let Some(binding) = &self.binding {
            return binding.sentence(&end(&binding.asset, &self.source, &self.source, names));
        }
        format!(
            "learned {} → {} port {}: {}",
            end("", &self.source, &self.source, names),
            end("", &self.destination, &self.destination, names),
            self.port,
            self.operations_in_words()
        )
    }

    fn fields(&self) -> Value {
        let mut fields = json!({
            "source": self.source, "destination": self.destination, "protocol": self.protocol, "port": self.port,
            "application": self.application, "connections": self.connections, "guessed": self.guessed,
            "first_ms": self.first_ms, "last_ms": self.last_ms,
            "operations": learned::count(self), "further": self.further,
            "unread": self.unread, "in_order": self.in_order, "misfits": self.misfits,
        });
        if let (Some(binding), Some(fields)) = (&self.binding, fields.as_object_mut()) {
            fields.insert("binding".to_owned(), binding.fields());
        }
        fields
    }

    fn addresses(&self) -> Option<[&str; 2]> {
        let other = match &self.binding {
            Some(_) => &self.source,
            None => &self.destination,
        };
        Some([&self.source, other])
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

impl LearnedBinding {
    fn severity(&self) -> Severity {
        let is_other = !self.previous_mac.is_empty() && self.previous_mac != self.mac;
        match (is_other || self.differs(), self.asset.is_empty()) {
            (true, false) => Severity::Warning,
            (true, true) => Severity::Notice,
            (false, _) if self.previous_mac.is_empty() => Severity::Info,
            (false, _) => Severity::Notice,
        }
    }

    /// Whether it has another one than the document says.
    fn differs(&self) -> bool {
        !self.declared_mac.is_empty() && self.declared_mac != self.mac
    }

    fn sentence(&self, who: &str) -> String {
        let (mac, interface) = (&self.mac, &self.interface);
        let seen = match (self.previous_mac.as_str(), self.previous_interface.as_str()) {
            ("", _) => format!("{who} is behind {mac} at {interface}"),
            (before, at) if before == mac => format!("{who}, {mac}, is at {interface} now; before, at {at}"),
            (before, at) => format!(
                "{who} is behind {mac} at {interface} now, and was behind {before} at {at}: another machine may have its address"
            ),
        };
        match self.differs() {
            true => format!("{seen}; declared is {}", self.declared_mac),
            false => seen,
        }
    }

    fn fields(&self) -> Value {
        json!({
            "mac": self.mac, "interface": self.interface, "previous_mac": self.previous_mac,
            "previous_interface": self.previous_interface, "asset": self.asset, "declared_mac": self.declared_mac,
            "first_ms": self.first_ms, "last_ms": self.last_ms, "changes": self.changes,
        })
    }
}
