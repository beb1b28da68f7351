//! A block as it went over the wire and was stored when the format was made, with an event of each kind there was: it is read for ever,
//! its digest stays, and of today the same bytes are written.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use prost::Message as _;

use super::{GENESIS, block_digest, read_body};
use crate::v1::audit_event::Kind;
use crate::v1::{
    AgentEvent, AuditBlock, AuditBlockBody, AuditEvent, Decision, DriftEvent, FaultEvent, IdentityEvent,
    LearnedEvent, LossEvent, OperationEvent, OperatorEvent, PolicyEvent, Severity, TrailEvent, VerdictEvent,
};

const TIME_MS: u64 = 1_790_000_000_000;

fn kinds() -> Vec<Kind> {
    vec![
        Kind::Verdict(VerdictEvent {
            decision: Decision::Deny.into(),
            flow_id: 7,
            flow: "polling/read".to_owned(),
            ingress: "eth1".to_owned(),
            egress: "eth2".to_owned(),
            source: "10.1.20.9".to_owned(),
            destination: "10.20.4.7".to_owned(),
            protocol: 6,
            port: 502,
            count: 3,
            first_ms: TIME_MS,
            last_ms: TIME_MS + 900,
            reason: "no rule matches".to_owned(),
            source_proof: 2,
            ..VerdictEvent::default()
        }),
        Kind::Policy(PolicyEvent {
            step: "effective".to_owned(),
            message: "r8".to_owned(),
            ..PolicyEvent::default()
        }),
        Kind::Drift(DriftEvent {
            step: "repaired".to_owned(),
            ..DriftEvent::default()
        }),
        Kind::Loss(LossEvent {
            events: 31,
            first_ms: TIME_MS,
            last_ms: TIME_MS + 1,
            cause: "spool-full".to_owned(),
            blocks: 2,
        }),
        Kind::Agent(AgentEvent {
            step: "started".to_owned(),
            message: "0.1.0".to_owned(),
            ..AgentEvent::default()
        }),
        Kind::Operator(OperatorEvent {
            operator: "anna".to_owned(),
            role: "engineer".to_owned(),
            action: "propose-release".to_owned(),
            target: "r8".to_owned(),
            allowed: true,
            message: String::new(),
        }),
        Kind::Operation(OperationEvent {
            subject: "operation".to_owned(),
            decision: Decision::Deny.into(),
            operation: "write-single-register 40 of unit 1".to_owned(),
            protocol: "modbus-tcp".to_owned(),
            client: "10.1.20.9".to_owned(),
            server: "10.20.4.7".to_owned(),
            port: 502,
            count: 1,
            ..OperationEvent::default()
        }),
        Kind::Learned(LearnedEvent {
            source: "10.1.20.9".to_owned(),
            destination: "10.20.4.7".to_owned(),
            protocol: 6,
            port: 502,
            application: "modbus-tcp".to_owned(),
            connections: 4,
            ..LearnedEvent::default()
        }),
        Kind::Fault(FaultEvent {
            step: "began".to_owned(),
            code: "no-carrier".to_owned(),
            message: "eth2 has no carrier".to_owned(),
            first_ms: TIME_MS,
            zones: vec!["control".to_owned()],
            ..FaultEvent::default()
        }),
        Kind::Trail(TrailEvent {
            step: "gap".to_owned(),
            source: "gw-1".to_owned(),
            epoch: 1,
            sequence: 9,
            blocks: 2,
            message: "2 blocks were never delivered".to_owned(),
        }),
        Kind::Identity(IdentityEvent {
            step: "enrolled".to_owned(),
            subject: "gateway/gw-1".to_owned(),
            address: "192.0.2.21".to_owned(),
            ..IdentityEvent::default()
        }),
    ]
}

fn block() -> AuditBlock {
    let event = |(kind, number): (Kind, u64)| AuditEvent {
        time_ms: TIME_MS + number,
        severity: Severity::Warning.into(),
        revision: 8,
        kind: Some(kind),
    };
    let events = kinds().into_iter().zip(0..).map(event).collect();
    AuditBlock {
        epoch: 3,
        sequence: 0,
        previous_digest: GENESIS.to_vec().into(),
        body: AuditBlockBody { events }.encode_to_vec().into(),
    }
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_block_of_this_format_is_read_for_ever_and_its_digest_stays() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/audit-block-1.hex");
    let written = block().encode_to_vec();
    if !path.exists() && std::env::var_os("PENSTOCK_FIXTURES").is_some_and(|how| how == "write") {
        let lines: Vec<_> = written.chunks(32).map(in_hex).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    let bytes = digits.chunks(2).map(String::from_iter);
    let kept: Vec<u8> = bytes.map(|pair| u8::from_str_radix(&pair, 16).unwrap()).collect();
    let read = AuditBlock::decode(kept.as_slice()).unwrap();
    let events = read_body(&read.body).unwrap().events;
    let read_kinds: Vec<_> = events.into_iter().filter_map(|event| event.kind).collect();
    assert_eq!(read_kinds, kinds());
    assert_eq!(kept, written, "what is written today is other bytes");
    assert_eq!(
        in_hex(&block_digest(&GENESIS, read.epoch, read.sequence, &read.body)),
        "ae8030b4190003ba5264ad147cd8c9ea7336dfaf2e8aba324ac07cb1a22f208a"
    );
}
