use penstock_proto::event::EventKind;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditEvent, VerdictEvent};

use super::*;

#[test]
fn a_record_has_its_sentence_its_fields_and_the_names_of_its_addresses() {
    let event = AuditEvent {
        time_ms: 1_700_000_000_000,
        severity: Severity::Warning as i32,
        revision: 3,
        kind: Some(Kind::Verdict(VerdictEvent {
            decision: Decision::Deny as i32,
            source: "10.1.0.9".into(),
            destination: "10.20.4.7".into(),
            protocol: 6,
            port: 502,
            count: 4,
            reason: "no rule matches".into(),
            ..VerdictEvent::default()
        })),
    };
    let record = Record::from(AuditRecord {
        source: "gw-a".into(),
        event: Some(event),
        names: vec![NamedAddress {
            address: "10.1.0.9".into(),
            asset: String::new(),
            zone: "office".into(),
        }],
        ..AuditRecord::default()
    });
    assert_eq!(
        record.summary,
        "deny 10.1.0.9 (zone office) → 10.20.4.7 tcp/502 ×4: no rule matches"
    );
    assert_eq!(
        (record.kind.as_str(), record.severity.as_str()),
        ("verdict", "warning")
    );
    assert_eq!(record.event.get("decision"), Some(&serde_json::json!("deny")));
    assert_eq!(record.names.first().and_then(|named| named.asset.clone()), None);
}

#[test]
fn an_event_of_the_future_is_shown_rather_than_hidden() {
    let record = Record::from(AuditRecord {
        event: Some(AuditEvent::default()),
        ..AuditRecord::default()
    });
    assert_eq!(
        (record.kind.as_str(), record.severity.as_str()),
        ("unknown", "unknown")
    );
    assert!(!record.summary.is_empty());
}

#[test]
fn the_schema_names_each_kind_of_event() {
    let schema = serde_json::to_string(&schemars::schema_for!(Record)).unwrap_or_default();
    for kind in EventKind::ALL {
        assert!(schema.contains(&format!("`{}`", kind.word())), "{kind:?}");
    }
}
