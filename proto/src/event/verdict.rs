//! Packets or connections with one verdict of the kernel, aggregated over an interval.

use serde_json::{Value, json};

use super::ends::end;
use super::words::{behind, bracketed, decision_word, known, proof_field, times};
use super::{Described, KindDescription, Writer};
use crate::v1::{Decision, NamedAddress, Severity, VerdictEvent};

pub(super) const KIND: KindDescription = KindDescription {
    word: "verdict",
    bit: 0,
    writer: Writer::Gateway,
    meaning: "packets or connections that the rules let through, dropped, or would drop where zones only observe; and messages that a bridge between brokers refused",
    severities: &[
        (Severity::Warning, "denied"),
        (
            Severity::Notice,
            "passed, and would be denied if its zones enforced",
        ),
        (Severity::Info, "allowed"),
    ],
};

impl Described for VerdictEvent {
    fn severity(&self) -> Severity {
        match Described::decision(self) {
            Decision::Deny => Severity::Warning,
            Decision::WouldDeny => Severity::Notice,
            Decision::Allow | Decision::Unspecified => Severity::Info,
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![
            &self.source,
            &self.destination,
            &self.flow,
            &self.ingress,
            &self.egress,
            &self.reason,
        ]
    }

    fn sentence(&self, names: &[NamedAddress]) -> String {
        let port = match self.port {
            0 => String::new(),
            port => format!("/{port}"),
        };
        let protocol = match self.protocol {
            1 | 58 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            other => format!("ip protocol {other}"),
        };
        format!(
            "{} {} → {} {protocol}{port}{}{}{}{}",
            decision_word(self.decision),
            end("", &self.source, &self.source, names),
            end("", &self.destination, &self.destination, names),
            times(self.count),
            bracketed(['[', ']'], &self.flow),
            behind(": ", &self.reason),
            known(
                ["source", "destination"],
                [self.source_proof, self.destination_proof]
            ),
        )
    }

    fn fields(&self) -> Value {
        json!({
            "decision": decision_word(self.decision), "flow_id": self.flow_id, "flow": self.flow,
            "ingress": self.ingress, "egress": self.egress, "source": self.source, "destination": self.destination,
            "protocol": self.protocol, "port": self.port, "count": self.count, "first_ms": self.first_ms,
            "last_ms": self.last_ms, "reason": self.reason,
            "source_proof": proof_field(self.source_proof), "destination_proof": proof_field(self.destination_proof),
        })
    }

    fn addresses(&self) -> Option<[&str; 2]> {
        Some([&self.source, &self.destination])
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

    fn times(&self) -> u64 {
        self.count
    }
}
