use std::collections::BTreeSet;

use super::*;
use crate::v1::{OperationEvent, OperatorEvent, Proof, VerdictEvent};

#[test]
fn words_and_bits_are_unique_and_a_word_leads_back_to_its_kind() {
    let bits: BTreeSet<u32> = EventKind::ALL.iter().map(|kind| kind.bit()).collect();
    assert_eq!(bits.len(), EventKind::ALL.len());
    for kind in EventKind::ALL {
        assert_eq!(EventKind::of_word(kind.word()), Some(*kind));
    }
    for step in AgentStep::ALL {
        assert_eq!(AgentStep::of_word(step.word()), Some(*step));
    }
}

#[test]
fn a_stored_bit_keeps_its_meaning() {
    let bits: Vec<_> = EventKind::ALL
        .iter()
        .map(|kind| (kind.word(), kind.bit()))
        .collect();
    assert_eq!(
        bits,
        [
            ("verdict", 1),
            ("policy", 2),
            ("drift", 4),
            ("loss", 8),
            ("agent", 16),
            ("operator", 32),
            ("operation", 64),
            ("learned", 128),
            ("fault", 256),
            ("trail", 512),
            ("identity", 1024),
            ("seal", 2048),
            ("alarm", 1 << 20),
        ]
    );
}

#[test]
fn what_the_coordinator_alone_knows_no_gateway_may_write() {
    let of_gateways: Vec<_> = EventKind::ALL
        .iter()
        .filter(|kind| kind.may_be_written_by("gw-a"))
        .map(|kind| kind.word())
        .collect();
    assert_eq!(
        of_gateways,
        [
            "verdict",
            "policy",
            "drift",
            "loss",
            "agent",
            "operation",
            "learned",
            "fault",
            "seal"
        ]
    );
    assert!(
        EventKind::ALL
            .iter()
            .all(|kind| kind.may_be_written_by("coordinator/c1"))
    );
}

#[test]
fn a_refused_operation_reads_as_what_was_asked_of_whom_by_whom() {
    let event = OperationEvent {
        subject: "operation".into(),
        decision: Decision::Deny as i32,
        operation: "write-single-register 40 of unit 1".into(),
        reason: "no rule permits the function".into(),
        flow: "supply/polling".into(),
        client: "10.1.0.5".into(),
        client_name: "hmi-1".into(),
        server: "10.2.0.9".into(),
        server_name: "plc-7".into(),
        port: 502,
        count: 3,
        ..OperationEvent::default()
    };
    assert_eq!(
        event.sentence(&[]),
        "deny write-single-register 40 of unit 1 on plc-7 (10.2.0.9:502) by hmi-1 (10.1.0.5) ×3 \
         [supply/polling]: no rule permits the function"
    );
    let known = OperationEvent {
        client_proof: Proof::PlantCertificate.into(),
        server_proof: Proof::Address.into(),
        ..event
    };
    assert!(
        known.sentence(&[]).ends_with(
            "no rule permits the function; the client is known by a certificate of the plant (D4), the server by its address \
             only (D0)"
        ),
        "{}",
        known.sentence(&[])
    );
    let fields = known.fields();
    assert_eq!(fields["client_proof"]["assurance"], "D4");
    assert_eq!(fields["server_proof"]["proof"], "address");
    let ended = OperationEvent {
        subject: "session".into(),
        operation: "connection reset by the server".into(),
        client: "fd00:1::5".into(),
        server: "fd00:2::9".into(),
        port: 1883,
        count: 1,
        ..OperationEvent::default()
    };
    assert_eq!(
        ended.sentence(&[]),
        "connection reset by the server on [fd00:2::9]:1883 by fd00:1::5"
    );
}

#[test]
fn a_denial_reads_as_a_sentence_with_its_reason_and_the_names_of_its_ends() {
    let event = VerdictEvent {
        decision: Decision::Deny as i32,
        source: "10.1.0.9".into(),
        destination: "10.20.4.7".into(),
        protocol: 6,
        port: 502,
        count: 4,
        reason: "no rule matches".into(),
        ..VerdictEvent::default()
    };
    assert_eq!(
        event.sentence(&[]),
        "deny 10.1.0.9 → 10.20.4.7 tcp/502 ×4: no rule matches"
    );
    let named = |address: &str, asset: &str, zone: &str| NamedAddress {
        address: address.into(),
        asset: asset.into(),
        zone: zone.into(),
    };
    let names = [
        named("10.1.0.9", "", "office"),
        named("10.20.4.7", "plc-7", "control"),
    ];
    assert_eq!(
        event.sentence(&names),
        "deny 10.1.0.9 (zone office) → plc-7 (10.20.4.7) tcp/502 ×4: no rule matches"
    );
    assert_eq!(event.fields().get("decision"), Some(&Value::from("deny")));
}

#[test]
fn messages_that_a_bridge_lost_are_not_called_events() {
    let lost = |cause: &str| {
        let event = crate::v1::LossEvent {
            events: 5,
            cause: cause.into(),
            ..Default::default()
        };
        event.sentence(&[])
    };
    assert_eq!(lost("spool-full"), "5 events were shed (spool-full)");
    assert_eq!(
        lost("bridge-full"),
        "5 messages of a bridge will not arrive (bridge-full)"
    );
    assert_eq!(
        lost("tap-overrun"),
        "5 packets were not learned from (tap-overrun)"
    );
}

#[test]
fn what_a_source_may_not_write_is_shown_as_its_claim_and_believed_of_nobody() {
    let approval = AuditEvent {
        kind: Some(Kind::Operator(OperatorEvent {
            operator: "alice".into(),
            role: "approver".into(),
            action: "approve-release".into(),
            target: "r7".into(),
            allowed: true,
            ..OperatorEvent::default()
        })),
        ..AuditEvent::default()
    };
    let own = Reading::of("coordinator/c1", &approval, &[]);
    assert_eq!(
        (own.kind, own.sentence.as_str()),
        ("operator", "alice (approver) approve-release r7")
    );
    let forged = Reading::of("gw-a", &approval, &[]);
    assert_eq!(forged.kind, "foreign");
    assert!(
        forged.sentence.starts_with("NOT BELIEVED: gw-a may not write"),
        "{}",
        forged.sentence
    );
    assert!(!forged.fields.contains_key("operator"));
}

#[test]
fn an_event_of_the_future_is_shown_rather_than_hidden() {
    let reading = Reading::of("gw-a", &AuditEvent::default(), &[]);
    assert_eq!(reading.kind, "unknown");
    assert!(!reading.sentence.is_empty());
}

#[test]
fn of_what_was_learned_all_operations_are_counted_and_the_first_three_named() {
    let modbus = |unit| crate::v1::LearnedModbus {
        unit,
        function: "read-coils".into(),
        count: 2,
        ..Default::default()
    };
    let event = crate::v1::LearnedEvent {
        modbus: vec![modbus(1), modbus(2)],
        published: vec![crate::v1::LearnedMessages {
            topic: "works/a".into(),
            count: 1,
            ..Default::default()
        }],
        operations: vec![crate::v1::LearnedOperation {
            operation: "poll".into(),
            count: 7,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(event.fields().get("operations"), Some(&Value::from(4)));
    let sentence = event.sentence(&[]);
    let end = "read-coils of unit 1 \u{d7}2, read-coils of unit 2 \u{d7}2, publish works/a \u{d7}1, 1 more";
    assert!(sentence.ends_with(end), "{sentence}");
}

#[test]
fn a_mac_address_is_a_warning_where_somebody_else_may_have_an_assets_address() {
    let binding = |change: fn(&mut crate::v1::LearnedBinding)| {
        let mut binding = crate::v1::LearnedBinding {
            mac: "00:1d:9c:00:00:07".into(),
            interface: "eth1".into(),
            asset: "plc-7".into(),
            ..Default::default()
        };
        change(&mut binding);
        let event = crate::v1::LearnedEvent {
            source: "10.2.0.9".into(),
            binding: Some(binding),
            ..Default::default()
        };
        (event.severity(), event.sentence(&[]))
    };
    let (severity, sentence) = binding(|_| {});
    assert_eq!(severity, Severity::Info);
    assert_eq!(sentence, "plc-7 (10.2.0.9) is behind 00:1d:9c:00:00:07 at eth1");
    let (severity, sentence) = binding(|one| {
        one.previous_mac = "00:1d:9c:00:00:08".into();
        one.previous_interface = "eth1".into();
    });
    assert_eq!(severity, Severity::Warning);
    assert!(
        sentence.contains("was behind 00:1d:9c:00:00:08 at eth1: another machine"),
        "{sentence}"
    );
    let (severity, sentence) = binding(|one| one.declared_mac = "00:1d:9c:00:00:09".into());
    assert_eq!(severity, Severity::Warning);
    assert!(
        sentence.ends_with("; declared is 00:1d:9c:00:00:09"),
        "{sentence}"
    );
    let (severity, _) = binding(|one| {
        one.previous_mac.clone_from(&one.mac);
        one.previous_interface = "eth2".into();
    });
    assert_eq!(severity, Severity::Notice);
    let (severity, _) = binding(|one| {
        one.asset.clear();
        one.previous_mac = "00:1d:9c:00:00:08".into();
    });
    assert_eq!(severity, Severity::Notice, "of an address that no asset has");
}
