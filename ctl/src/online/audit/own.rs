//! The sentences of what a coordinator writes in its own trail: what operators did, which certificates were issued or
//! refused, what does not fit in the trails of gateways; and of events that their source may not write.

use penstock_proto::event::EventKind;
use penstock_proto::v1::{IdentityEvent, OperatorEvent, TrailEvent};
use serde_json::{Value, json};

/// Sentence and fields of one event.
pub(super) type Description = (String, Value);

fn behind(mark: &str, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("{mark}{text}")
    }
}

pub(super) fn operator(e: &OperatorEvent) -> Description {
    let verdict = if e.allowed { "" } else { " was refused" };
    let (on, more) = (behind(" ", &e.target), behind(": ", &e.message));
    let role = if e.role.is_empty() {
        String::new()
    } else {
        format!(" ({})", e.role)
    };
    let said = format!("{}{role} {}{on}{verdict}{more}", e.operator, e.action);
    let fields = json!({
        "operator": e.operator, "role": e.role, "action": e.action, "target": e.target, "allowed": e.allowed,
        "message": e.message,
    });
    (said, fields)
}

pub(super) fn trail(e: &TrailEvent) -> Description {
    let said = match e.step.as_str() {
        "gap" => format!("the trail of {} has a gap: {}", e.source, e.message),
        "refused" => format!("part of the trail of {} was not taken: {}", e.source, e.message),
        "rewound" => format!("the trail of {} was taken back: {}", e.source, e.message),
        "waits" | "expired" => e.message.clone(),
        other => format!("trail of {}, {other}: {}", e.source, e.message),
    };
    let fields = json!({
        "step": e.step, "source": e.source, "epoch": e.epoch, "sequence": e.sequence, "blocks": e.blocks,
        "message": e.message,
    });
    (said, fields)
}

pub(super) fn identity(e: &IdentityEvent) -> Description {
    let (from, more) = (behind(" from ", &e.address), behind(": ", &e.message));
    let said = match e.step.as_str() {
        "enrolled" => format!("{} was enrolled{from}{more}", e.subject),
        "renewed" => format!("the certificate of {} was renewed{from}{more}", e.subject),
        "refused" => format!("{} was refused{from}{more}", e.subject),
        other => format!("identity of {}, {other}{from}{more}", e.subject),
    };
    let fields = json!({ "step": e.step, "subject": e.subject, "address": e.address, "message": e.message });
    (said, fields)
}

/// An event of a kind that its source may not write: shown, and not believed.
pub(super) fn foreign(source: &str, kind: EventKind, claimed: &str, fields: &Value) -> Description {
    let word = kind.word();
    let said =
        format!("NOT BELIEVED: {source} may not write events of the kind `{word}`; it claims: {claimed}");
    (said, json!({ "claimed_kind": word, "claims": fields }))
}
