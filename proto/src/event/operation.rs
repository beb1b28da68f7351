//! Operations inside inspected connections, or what happened to those connections, aggregated over an interval.

use serde_json::{Map, Value, json};

use super::ends::{end, with_port};
use super::words::{behind, bracketed, decision_word, known, proof_field, times};
use super::{Described, KindDescription, Writer};
use crate::v1::{Decision, LearnedRange, NamedAddress, OperationEvent, Severity};

pub(super) const KIND: KindDescription = KindDescription {
    word: "operation",
    bit: 6,
    writer: Writer::Gateway,
    meaning: "what a client did on a server inside inspected connections, what was decided, and how those connections began and ended",
    severities: &[
        (Severity::Warning, "denied"),
        (
            Severity::Notice,
            "would be denied if its zones enforced, or worth a second look",
        ),
        (Severity::Info, "allowed, and the life of a connection"),
    ],
};

impl Described for OperationEvent {
    fn severity(&self) -> Severity {
        match Described::decision(self) {
            Decision::Deny => Severity::Warning,
            Decision::WouldDeny => Severity::Notice,
            Decision::Allow => Severity::Info,
            Decision::Unspecified if self.subject == "session" => Severity::Info,
            Decision::Unspecified => Severity::Notice,
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![
            self.role.as_deref().unwrap_or_default(),
            &self.operation,
            &self.client,
            &self.client_name,
            &self.server,
            &self.server_name,
            &self.flow,
            &self.protocol,
            &self.reason,
        ]
    }

    /// "deny write-single-register 40 of unit 1 on plc-7 (10.2.0.9:502) by hmi-1 (10.1.0.5) ×3 [supply/polling]: why".
    fn sentence(&self, names: &[NamedAddress]) -> String {
        let decision = match Described::decision(self) {
            Decision::Unspecified => String::new(),
            _ => format!("{} ", decision_word(self.decision)),
        };
        format!(
            "{decision}{} on {} by {}{}{}{}{}{}{}",
            self.operation,
            end(
                &self.server_name,
                &self.server,
                &with_port(&self.server, self.port),
                names
            ),
            end(&self.client_name, &self.client, &self.client, names),
            self.role.as_deref().map(role_words).unwrap_or_default(),
            self.values.as_ref().map(values_words).unwrap_or_default(),
            times(self.count),
            bracketed(['[', ']'], &self.flow),
            behind(": ", &self.reason),
            known(["client", "server"], [self.client_proof, self.server_proof]),
        )
    }

    fn fields(&self) -> Value {
        let mut fields = json!({
            "subject": self.subject, "operation": self.operation, "reason": self.reason, "flow_id": self.flow_id,
            "flow": self.flow, "protocol": self.protocol, "client": self.client, "client_name": self.client_name,
            "server": self.server, "server_name": self.server_name, "port": self.port, "count": self.count,
            "first_ms": self.first_ms, "last_ms": self.last_ms, "client_proof": proof_field(self.client_proof),
            "server_proof": proof_field(self.server_proof),
        });
        if let Value::Object(fields) = &mut fields {
            self.add_decision_and_values(fields);
        }
        fields
    }

    fn addresses(&self) -> Option<[&str; 2]> {
        Some([&self.client, &self.server])
    }

    fn decision(&self) -> Decision {
        Decision::try_from(self.decision).unwrap_or_default()
    }

    fn flows(&self) -> Vec<&str> {
        Some(self.flow.as_str())
            .filter(|flow| !flow.is_empty())
            .into_iter()
            .collect()
    }

    fn ends(&self) -> Vec<&str> {
        let named = [self.client_name.as_str(), self.server_name.as_str()];
        named.into_iter().filter(|name| !name.is_empty()).collect()
    }

    fn operation(&self) -> Option<&str> {
        (self.subject == "operation").then_some(self.operation.as_str())
    }

    fn values(&self) -> Option<LearnedRange> {
        self.values
    }

    fn times(&self) -> u64 {
        self.count
    }
}

impl OperationEvent {
    /// Of what is not an operation, and of one that writes nothing, neither is a field.
    fn add_decision_and_values(&self, fields: &mut Map<String, Value>) {
        if let Some(role) = &self.role {
            fields.insert("role".to_owned(), role.as_str().into());
        }
        if let Some(values) = &self.values {
            let values = json!({ "first": values.first, "last": values.last });
            fields.insert("values".to_owned(), values);
        }
        if Described::decision(self) != Decision::Unspecified {
            fields.insert("decision".to_owned(), decision_word(self.decision).into());
        }
    }
}

/// " as operator", " without a role".
fn role_words(role: &str) -> String {
    match role {
        "" => " without a role".to_owned(),
        role => format!(" as {role}"),
    }
}

/// " with value 5", " with values 5–9".
fn values_words(values: &LearnedRange) -> String {
    if values.first == values.last {
        format!(" with value {}", values.first)
    } else {
        format!(" with values {}\u{2013}{}", values.first, values.last)
    }
}
