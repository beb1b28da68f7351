//! An event in one sentence, with its fields: the addresses in it by the names that they had.

use penstock_proto::fault::flows_in_words;
use penstock_proto::learned;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{
    AuditEvent, Decision, LearnedEvent, LearnedRange, NamedAddress, OperationEvent, VerdictEvent,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::own;

/// An address by the names that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Named {
    /// The address.
    pub address: String,
    /// The asset that has it; absent: only the zone's networks hold it.
    pub asset: Option<String>,
    /// The zone.
    pub zone: String,
}

impl From<NamedAddress> for Named {
    fn from(named: NamedAddress) -> Self {
        Self {
            address: named.address,
            asset: (!named.asset.is_empty()).then_some(named.asset),
            zone: named.zone,
        }
    }
}

/// `plc-7 (10.2.0.9)`; of an address that no asset has, `10.2.0.8 (zone control)`.
pub(super) fn end(own: &str, address: &str, shown: String, names: &[Named]) -> String {
    let named = names.iter().find(|named| named.address == address);
    match (own, named) {
        (
            "",
            Some(Named {
                asset: Some(asset), ..
            }),
        ) => format!("{asset} ({shown})"),
        ("", Some(Named { zone, .. })) => format!("{shown} (zone {zone})"),
        ("", None) => shown,
        (own, _) => format!("{own} ({shown})"),
    }
}

pub(super) fn decision_word(decision: i32) -> &'static str {
    match Decision::try_from(decision) {
        Ok(Decision::Allow) => "allow",
        Ok(Decision::Deny) => "deny",
        Ok(Decision::WouldDeny) => "would-deny",
        Ok(Decision::Unspecified) | Err(_) => "unknown",
    }
}

/// Kind, sentence and fields of an event.
pub(super) fn tell(event: AuditEvent, names: &[Named]) -> (&'static str, String, serde_json::Value) {
    use serde_json::json;
    let with = |kind, (said, fields)| (kind, said, fields);
    match event.kind {
        None => (
            "unknown",
            "an event of a kind that this version does not know".to_owned(),
            json!({}),
        ),
        Some(Kind::Verdict(e)) => {
            let fields = json!({
                "decision": decision_word(e.decision), "flow_id": e.flow_id, "flow": e.flow, "ingress": e.ingress,
                "egress": e.egress, "source": e.source, "destination": e.destination, "protocol": e.protocol,
                "port": e.port, "count": e.count, "first_ms": e.first_ms, "last_ms": e.last_ms, "reason": e.reason,
            });
            ("verdict", verdict_words(&e, names), fields)
        }
        Some(Kind::Operation(e)) => {
            let mut fields = json!({
                "subject": e.subject, "operation": e.operation, "reason": e.reason, "flow_id": e.flow_id,
                "flow": e.flow, "protocol": e.protocol, "client": e.client, "client_name": e.client_name,
                "server": e.server, "server_name": e.server_name, "port": e.port, "count": e.count,
                "first_ms": e.first_ms, "last_ms": e.last_ms,
            });
            if let (Some(values), Some(fields)) = (&e.values, fields.as_object_mut()) {
                fields.insert(
                    "values".to_owned(),
                    json!({ "first": values.first, "last": values.last }),
                );
            }
            if let (true, Some(fields)) = (e.decision() != Decision::Unspecified, fields.as_object_mut()) {
                fields.insert("decision".to_owned(), decision_word(e.decision).into());
            }
            ("operation", operation_words(&e, names), fields)
        }
        Some(Kind::Policy(e)) => {
            let mut said = format!("policy r{} {}", e.revision, e.step);
            if !e.message.is_empty() {
                said.push_str(&format!(": {}", e.message));
            }
            let digest: String = e.plan_digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let fields = json!({
                "step": e.step, "revision": e.revision, "plan_digest": format!("sha256:{digest}"), "code": e.code,
                "message": e.message,
            });
            ("policy", said, fields)
        }
        Some(Kind::Drift(e)) => {
            let by = if e.process.is_empty() {
                String::new()
            } else {
                format!(" by {}", e.process)
            };
            let said = format!("drift {}{by}: {}", e.step, e.message);
            (
                "drift",
                said,
                json!({ "step": e.step, "message": e.message, "process": e.process }),
            )
        }
        Some(Kind::Loss(e)) => {
            let what = if e.cause == "tap-overrun" {
                "packets were not learned from"
            } else {
                "events were shed"
            };
            let said = format!("{} {what} ({})", e.events, e.cause);
            let fields =
                json!({ "events": e.events, "first_ms": e.first_ms, "last_ms": e.last_ms, "cause": e.cause });
            ("loss", said, fields)
        }
        Some(Kind::Agent(e)) => {
            let more = if e.message.is_empty() {
                String::new()
            } else {
                format!(": {}", e.message)
            };
            (
                "agent",
                format!("agent {}{more}", e.step),
                json!({ "step": e.step, "message": e.message }),
            )
        }
        Some(Kind::Operator(e)) => with("operator", own::operator(&e)),
        Some(Kind::Trail(e)) => with("trail", own::trail(&e)),
        Some(Kind::Identity(e)) => with("identity", own::identity(&e)),
        Some(Kind::Learned(e)) => {
            let fields = json!({
                "source": e.source, "destination": e.destination, "protocol": e.protocol, "port": e.port,
                "application": e.application, "connections": e.connections, "first_ms": e.first_ms,
                "last_ms": e.last_ms, "operations": learned::words(&e).count(),
                "further": e.further, "unread": e.unread,
                "in_order": e.in_order, "misfits": e.misfits,
            });
            ("learned", learned_words(&e, names), fields)
        }
        Some(Kind::Fault(e)) => {
            let said = format!(
                "fault {} {}: {}{}",
                e.code,
                e.step,
                e.message,
                flows_in_words(&e.flows, e.further_flows)
            );
            let fields = json!({
                "step": e.step, "code": e.code, "message": e.message, "first_ms": e.first_ms, "last_ms": e.last_ms,
                "zones": e.zones, "flows": e.flows, "further_flows": e.further_flows,
            });
            ("fault", said, fields)
        }
    }
}

pub(super) fn verdict_words(event: &VerdictEvent, names: &[Named]) -> String {
    let port = if event.port == 0 {
        String::new()
    } else {
        format!("/{}", event.port)
    };
    let protocol = match event.protocol {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => format!("ip protocol {other}"),
    };
    let times = if event.count > 1 {
        format!(" ×{}", event.count)
    } else {
        String::new()
    };
    let flow = if event.flow.is_empty() {
        String::new()
    } else {
        format!(" [{}]", event.flow)
    };
    let reason = if event.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", event.reason)
    };
    format!(
        "{} {} → {} {protocol}{port}{times}{flow}{reason}",
        decision_word(event.decision),
        end("", &event.source, event.source.clone(), names),
        end("", &event.destination, event.destination.clone(), names),
    )
}

/// "deny write-single-register 40 of unit 1 on plc-7 (10.2.0.9:502) by hmi-1 (10.1.0.5) ×3 [supply/polling]: why".
pub(super) fn operation_words(event: &OperationEvent, names: &[Named]) -> String {
    let port = event.port;
    let server = match event.server.contains(':') {
        true => format!("[{}]:{port}", event.server),
        false => format!("{}:{port}", event.server),
    };
    let decision = match event.decision() {
        Decision::Unspecified => String::new(),
        _ => format!("{} ", decision_word(event.decision)),
    };
    let mut said = format!(
        "{decision}{} on {} by {}",
        event.operation,
        end(&event.server_name, &event.server, server, names),
        end(&event.client_name, &event.client, event.client.clone(), names)
    );
    if let Some(values) = &event.values {
        said.push_str(&values_words(values));
    }
    if event.count > 1 {
        said.push_str(&format!(" ×{}", event.count));
    }
    if !event.flow.is_empty() {
        said.push_str(&format!(" [{}]", event.flow));
    }
    if !event.reason.is_empty() {
        said.push_str(&format!(": {}", event.reason));
    }
    said
}

/// " with value 5", " with values 5–9".
fn values_words(values: &LearnedRange) -> String {
    if values.first == values.last {
        format!(" with value {}", values.first)
    } else {
        format!(" with values {}\u{2013}{}", values.first, values.last)
    }
}

/// What was learned, with its first few operations. Topics are a client's words.
fn learned_words(event: &LearnedEvent, names: &[Named]) -> String {
    const NAMED: usize = 3;
    let all: Vec<String> = learned::words(event).collect();
    let mut named: Vec<&str> = all.iter().take(NAMED).map(String::as_str).collect();
    let more = format!("{} more", all.len().saturating_sub(NAMED));
    if all.len() > NAMED {
        named.push(&more);
    }
    let said = if named.is_empty() {
        "no operation".to_owned()
    } else {
        named.join(", ")
    };
    format!(
        "learned {} → {} port {}: {said}",
        end("", &event.source, event.source.clone(), names),
        end("", &event.destination, event.destination.clone(), names),
        event.port
    )
}
