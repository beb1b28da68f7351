//! Open Cybersecurity Schema Framework, version 1.5.0: one JSON object a line.
//!
//! | kind | class |
//! |---|---|
//! | verdict, operation, learned | Network Activity (4001), verdicts and operations with the profile `security_control` |
//! | operator | API Activity (6003) |
//! | identity | Authentication (3002) |
//! | policy | Device Config State Change (5019) |
//! | agent | Application Lifecycle (6002) |
//! | fault, drift, loss, trail, export, foreign, unknown | Detection Finding (2004) |
//!
//! `metadata.uid` is the position, `metadata.log_provider` the source, `metadata.logged_time` when the coordinator had it,
//! `metadata.tenant_uid` the plant. The event's own fields are whole under `unmapped`. Severity: info *Informational*, notice *Low*,
//! warning *Medium*, alarm *High*.

use std::net::IpAddr;

use penstock_policy::text;
use serde_json::{Map, Value, json};

use super::record::signed;
use super::{End, ExportRecord, PRODUCT, VERSION};
use crate::v1::{Decision, Severity};

/// The schema's version.
pub const SCHEMA_VERSION: &str = "1.5.0";
/// "Other", of any enumeration.
const OTHER: u32 = 99;

/// What a class asks for: its number, the activity, and its own attributes.
struct Class {
    uid: u32,
    activity_id: u32,
    activity_name: String,
    own: Value,
}

/// The record as one line, without its end.
pub fn line(record: &ExportRecord) -> String {
    let class = class(record);
    let (severity_id, severity) = match record.severity {
        Severity::Unspecified => (0, "Unknown"),
        Severity::Info => (1, "Informational"),
        Severity::Notice => (2, "Low"),
        Severity::Warning => (3, "Medium"),
        Severity::Alarm => (4, "High"),
    };
    let position = &record.position;
    let mut object = json!({
        "class_uid": class.uid,
        "category_uid": class.uid / 1000,
        "activity_id": class.activity_id,
        "activity_name": class.activity_name,
        "type_uid": class.uid * 100 + class.activity_id,
        "severity_id": severity_id,
        "severity": severity,
        "time": signed(record.time_ms),
        "message": record.sentence,
        "metadata": {
            "version": SCHEMA_VERSION,
            "product": { "name": PRODUCT, "vendor_name": PRODUCT, "version": VERSION },
            "uid": position.to_string(),
            "sequence": signed(position.sequence),
            "log_name": "audit",
            "log_provider": position.source,
            "logged_time": signed(record.received_ms),
            "event_code": record.kind,
            "tenant_uid": record.plant,
        },
        "unmapped": {
            "epoch": position.epoch, "index": position.index, "revision": record.revision, "kind": record.kind,
            "event": record.fields,
        },
    });
    if let (Value::Object(object), Value::Object(own)) = (&mut object, class.own) {
        object.extend(own);
    }
    if record.decision != Decision::Unspecified
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("profiles".to_owned(), json!(["security_control"]));
    }
    text::json(&object.to_string()).into_owned()
}

fn class(record: &ExportRecord) -> Class {
    match record.kind {
        "verdict" | "operation" | "learned" => network(record),
        "operator" => api(record),
        "identity" => authentication(record),
        "policy" => other(
            5019,
            record.text("step"),
            json!({ "device": { "type_id": 9, "type": "Firewall", "hostname": record.position.source } }),
        ),
        "agent" => agent(record),
        _ => finding(record),
    }
}

/// An activity that the class has no number for.
fn other(uid: u32, what: Option<&str>, own: Value) -> Class {
    Class {
        uid,
        activity_id: OTHER,
        activity_name: what.unwrap_or("Other").to_owned(),
        own,
    }
}

fn network(record: &ExportRecord) -> Class {
    let (activity_id, activity_name) = match record.decision {
        Decision::Deny => (5, "Refuse"),
        Decision::Allow | Decision::WouldDeny | Decision::Unspecified => (6, "Traffic"),
    };
    let mut own = Map::new();
    let [first, second] = record.ends.clone().unwrap_or_default();
    own.insert(
        "src_endpoint".to_owned(),
        endpoint(&first, record.text("client_name"), None),
    );
    let port = record.number("port");
    own.insert(
        "dst_endpoint".to_owned(),
        endpoint(&second, record.text("server_name"), port),
    );
    for (name, field) in [
        ("count", "count"),
        ("start_time", "first_ms"),
        ("end_time", "last_ms"),
    ] {
        if let Some(value) = record.number(field) {
            own.insert(name.to_owned(), signed(value).into());
        }
    }
    // Operations are inside TCP connections.
    let number = record.number("protocol").unwrap_or(6);
    let mut connection = json!({ "direction_id": 0, "protocol_num": number });
    let name = match number {
        1 => Some("icmp"),
        6 => Some("tcp"),
        17 => Some("udp"),
        58 => Some("ipv6-icmp"),
        _ => None,
    };
    if let (Some(name), Some(connection)) = (name, connection.as_object_mut()) {
        connection.insert("protocol_name".to_owned(), name.into());
    }
    own.insert("connection_info".to_owned(), connection);
    let app = record.text("protocol").or_else(|| record.text("application"));
    if let Some(app) = app {
        own.insert("app_name".to_owned(), app.into());
    }
    if let Some((action, disposition)) = decided(record.decision) {
        own.insert("action_id".to_owned(), action.into());
        own.insert("disposition_id".to_owned(), disposition.into());
        if let Some(flow) = record.text("flow") {
            own.insert("firewall_rule".to_owned(), json!({ "name": flow }));
        }
        if let Some(reason) = record.text("reason") {
            own.insert("status_detail".to_owned(), reason.into());
        }
    }
    Class {
        uid: 4001,
        activity_id,
        activity_name: activity_name.to_owned(),
        own: Value::Object(own),
    }
}

/// Action and disposition: allowed, blocked, or observed and only logged.
fn decided(decision: Decision) -> Option<(u32, u32)> {
    match decision {
        Decision::Allow => Some((1, 1)),
        Decision::Deny => Some((2, 2)),
        Decision::WouldDeny => Some((3, 17)),
        Decision::Unspecified => None,
    }
}

fn endpoint(end: &End, name: Option<&str>, port: Option<u64>) -> Value {
    let mut endpoint = Map::new();
    if end.address.parse::<IpAddr>().is_ok() {
        endpoint.insert("ip".to_owned(), end.address.clone().into());
    }
    let name = Some(end.asset.as_str())
        .filter(|asset| !asset.is_empty())
        .or(name);
    match name {
        Some(name) => drop(endpoint.insert("name".to_owned(), name.into())),
        None if endpoint.is_empty() => drop(endpoint.insert("name".to_owned(), "unknown".into())),
        None => {}
    }
    if !end.zone.is_empty() {
        endpoint.insert("zone".to_owned(), end.zone.clone().into());
    }
    if let Some(port) = port.filter(|port| *port <= 65_535) {
        endpoint.insert("port".to_owned(), port.into());
    }
    Value::Object(endpoint)
}

fn api(record: &ExportRecord) -> Class {
    let action = record.text("action").unwrap_or("unknown");
    let allowed = record.fields.get("allowed") == Some(&Value::Bool(true));
    let mut own = json!({
        "actor": { "user": { "name": record.text("operator").unwrap_or("unknown") } },
        "api": { "operation": action, "service": { "name": "penstock-coordinator" } },
        "src_endpoint": { "name": record.position.source },
        "status_id": if allowed { 1 } else { 2 },
    });
    if let (Some(target), Some(own)) = (record.text("target"), own.as_object_mut()) {
        own.insert("resources".to_owned(), json!([{ "name": target }]));
    }
    other(6003, Some(action), own)
}

fn authentication(record: &ExportRecord) -> Class {
    let step = record.text("step");
    let mut own = json!({
        "user": { "name": record.text("subject").unwrap_or("unknown") },
        "service": { "name": "penstock-coordinator" },
        "status_id": if step == Some("refused") { 2 } else { 1 },
    });
    let address = record
        .text("address")
        .filter(|address| address.parse::<IpAddr>().is_ok());
    if let (Some(address), Some(own)) = (address, own.as_object_mut()) {
        own.insert("src_endpoint".to_owned(), json!({ "ip": address }));
    }
    match step {
        Some("signed-in") => Class {
            uid: 3002,
            activity_id: 1,
            activity_name: "Logon".to_owned(),
            own,
        },
        step => other(3002, step, own),
    }
}

fn agent(record: &ExportRecord) -> Class {
    let app = json!({ "app": { "name": "penstock-agent", "vendor_name": PRODUCT } });
    let (activity_id, activity_name) = match record.text("step") {
        Some("started") => (3, "Start"),
        Some("stopped") => (4, "Stop"),
        step => return other(6002, step, app),
    };
    Class {
        uid: 6002,
        activity_id,
        activity_name: activity_name.to_owned(),
        own: app,
    }
}

fn finding(record: &ExportRecord) -> Class {
    let position = record.position.to_string();
    let is_fault = record.kind == "fault";
    // What begins and ends is one finding.
    let uid = match record.text("code").filter(|_| is_fault) {
        Some(code) => format!("{}/fault/{code}", record.position.source),
        None => position,
    };
    let (activity_id, activity_name, status_id) = match record.text("step").filter(|_| is_fault) {
        Some("ended") => (3, "Close", 4),
        _ => (1, "Create", 1),
    };
    let title = match record.text("code").or_else(|| record.text("step")) {
        Some(what) => format!("{} {what}", record.kind),
        None => record.kind.to_owned(),
    };
    Class {
        uid: 2004,
        activity_id,
        activity_name: activity_name.to_owned(),
        own: json!({
            "finding_info": { "uid": uid, "title": title, "desc": record.sentence },
            "status_id": status_id,
            "is_alert": record.severity >= Severity::Warning,
        }),
    }
}
