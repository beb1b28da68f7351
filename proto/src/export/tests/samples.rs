//! One record of each kind of event, and of what is none.

use super::*;
use crate::audit::Head;
use crate::audit::seal::{NamedBlocks, SealKey, SealText};
use crate::v1::{
    AgentEvent, AlarmEvent, DriftEvent, FaultEvent, IdentityEvent, LearnedModbus, LearnedRange, LossEvent,
    OperationEvent, PolicyEvent, SealEvent, TrailEvent,
};

pub(super) fn records() -> Vec<ExportRecord> {
    let mut records: Vec<ExportRecord> = kinds()
        .into_iter()
        .zip(0..)
        .map(|((source, kind), sequence)| {
            let event = AuditEvent {
                time_ms: 1_800_000_000_000 + sequence * 1000,
                severity: kind.described().severity().into(),
                revision: 4,
                kind: Some(kind),
            };
            record(source, sequence, event)
        })
        .collect();
    records.push(record("gw-a", 90, AuditEvent::default()));
    let why = "retention removed them before they were sent";
    records.push(ExportRecord::missing("works", "siem", 1_800_000_000_000, 12, why));
    records
}

fn record(source: &str, sequence: u64, event: AuditEvent) -> ExportRecord {
    let named = |address: &str, asset: &str, zone: &str| NamedAddress {
        address: address.to_owned(),
        asset: asset.to_owned(),
        zone: zone.to_owned(),
    };
    let names = vec![
        named("10.1.2.9", "", "office"),
        named("10.20.4.7", "plc-7", "control"),
    ];
    let record = AuditRecord {
        source: source.to_owned(),
        epoch: 1,
        sequence,
        index: 0,
        received_ms: 1_800_000_060_000,
        event: Some(event),
        names,
        ..AuditRecord::default()
    };
    ExportRecord::of("works", &record)
}

fn kinds() -> Vec<(&'static str, Kind)> {
    let verdict = |decision: Decision| VerdictEvent {
        decision: decision.into(),
        ingress: "eth1".into(),
        egress: "eth2".into(),
        source: "10.1.2.9".into(),
        destination: "10.20.4.7".into(),
        protocol: 6,
        port: 502,
        count: 4,
        first_ms: 1_799_999_990_000,
        last_ms: 1_799_999_999_000,
        reason: "no rule matches".into(),
        ..VerdictEvent::default()
    };
    let operator = || {
        Kind::Operator(OperatorEvent {
            operator: "anna".into(),
            role: "engineer".into(),
            action: "propose-release".into(),
            target: "r7".into(),
            allowed: true,
            message: "the new line | phase = 2 [\"north\"]\nand its \\ drives".into(),
        })
    };
    vec![
        ("gw-a", Kind::Verdict(verdict(Decision::Deny))),
        (
            "gw-a",
            Kind::Verdict(VerdictEvent {
                flow_id: 3,
                flow: "supply/polling".into(),
                ..verdict(Decision::Allow)
            }),
        ),
        (
            "gw-a",
            Kind::Verdict(VerdictEvent {
                source: "fd00:1::9".into(),
                destination: "fd00:2::7".into(),
                protocol: 17,
                ..verdict(Decision::WouldDeny)
            }),
        ),
        (
            "gw-a",
            Kind::Operation(OperationEvent {
                subject: "operation".into(),
                decision: Decision::Deny.into(),
                operation: "write-single-register 40 of unit 1".into(),
                reason: "no rule permits the function".into(),
                flow_id: 3,
                flow: "supply/polling".into(),
                protocol: "modbus-tcp".into(),
                client: "10.1.2.9".into(),
                client_name: "hmi-1".into(),
                server: "10.20.4.7".into(),
                server_name: "plc-7".into(),
                port: 502,
                count: 3,
                values: Some(LearnedRange { first: 5, last: 9 }),
                role: Some("operator".into()),
                ..OperationEvent::default()
            }),
        ),
        (
            "gw-a",
            Kind::Policy(PolicyEvent {
                step: "effective".into(),
                revision: 4,
                plan_digest: vec![7; 32].into(),
                ..PolicyEvent::default()
            }),
        ),
        (
            "gw-a",
            Kind::Drift(DriftEvent {
                step: "found".into(),
                message: "1 rule is missing".into(),
                process: "nft".into(),
            }),
        ),
        (
            "gw-a",
            Kind::Loss(LossEvent {
                events: 12,
                cause: "spool-full".into(),
                blocks: 2,
                ..LossEvent::default()
            }),
        ),
        (
            "gw-a",
            Kind::Agent(AgentEvent {
                step: "started".into(),
                message: "9.8.7".into(),
                ..AgentEvent::default()
            }),
        ),
        (
            "gw-a",
            Kind::Learned(LearnedEvent {
                source: "10.1.2.9".into(),
                destination: "10.20.4.7".into(),
                protocol: 6,
                port: 502,
                application: "modbus-tcp".into(),
                connections: 2,
                modbus: vec![LearnedModbus {
                    unit: 1,
                    function: "read-coils".into(),
                    count: 9,
                    ..LearnedModbus::default()
                }],
                ..LearnedEvent::default()
            }),
        ),
        (
            "gw-a",
            Kind::Fault(FaultEvent {
                step: "began".into(),
                code: "no-carrier".into(),
                message: "eth2 has no carrier".into(),
                first_ms: 1_800_000_000_000,
                zones: vec!["control".into()],
                flows: vec!["supply/polling".into()],
                ..FaultEvent::default()
            }),
        ),
        ("coordinator/c1", operator()),
        (
            "coordinator/c1",
            Kind::Identity(IdentityEvent {
                step: "refused".into(),
                subject: "gateway/gw-a".into(),
                address: "192.0.2.7".into(),
                message: "its key was withdrawn".into(),
            }),
        ),
        (
            "coordinator/c1",
            Kind::Alarm(AlarmEvent {
                step: "acknowledged".into(),
                zone: "control".into(),
                cause: "unprotected".into(),
                state: "acknowledged".into(),
                priority: "high".into(),
                message: "zone control is not protected".into(),
                by: "silva".into(),
                by_topic: true,
                reason: "the gateway is being replaced".into(),
                until_ms: 0,
            }),
        ),
        ("gw-a", Kind::Seal(seal())),
        (
            "coordinator/c1",
            Kind::Trail(TrailEvent {
                step: "gap".into(),
                source: "gw-a".into(),
                epoch: 1,
                sequence: 9,
                blocks: 2,
                message: "2 blocks of gw-a were never delivered".into(),
            }),
        ),
        // It may not write such an event.
        ("gw-a", operator()),
    ]
}

/// A seal by a key that everybody knows.
fn seal() -> SealEvent {
    let head = Head {
        epoch: 1,
        next_sequence: 9,
        digest: [7; 32],
    };
    let (_, note) = SealKey::new(&[1; 32]).seal(SealText {
        name: "works/gw-a".to_owned(),
        head,
        time_ms: 1_800_000_000_000,
        blocks: NamedBlocks {
            since: 4,
            classes: vec![(1, 5, [9; 32])],
        },
        number: 3,
        key: [0; 32],
        next_key: [2; 32],
    });
    SealEvent {
        note: note.to_bytes().into(),
        certificates: Vec::new(),
    }
}
