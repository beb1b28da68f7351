#![allow(clippy::unwrap_used)]

mod indexed;

use super::*;
use crate::summary::summarize;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{
    AgentEvent, AuditBlockBody, AuditEvent, OperatorEvent, SearchAuditRequest, VerdictEvent,
};
use proptest::prelude::*;

/// An empty block.
pub(super) fn block(source: &str, received_ms: u64) -> StoredBlock {
    StoredBlock {
        source: source.to_owned(),
        epoch: 1,
        sequence: 0,
        received_ms,
        body: bytes::Bytes::new(),
        end: crate::store::Cursor::new(vec![0; 8]),
    }
}

fn event() -> impl Strategy<Value = AuditEvent> {
    (
        0u64..50,
        0i32..5,
        0i32..4,
        prop::sample::select(vec!["plc", "HMI", "Ärger", ""]),
    )
        .prop_map(|(time_ms, severity, decision, text)| AuditEvent {
            time_ms,
            severity,
            revision: 1,
            kind: Some(if decision == 0 {
                Kind::Agent(AgentEvent {
                    step: "started".to_owned(),
                    message: text.to_owned(),
                    ..AgentEvent::default()
                })
            } else {
                Kind::Verdict(VerdictEvent {
                    decision,
                    reason: text.to_owned(),
                    ..VerdictEvent::default()
                })
            }),
        })
}

fn request() -> impl Strategy<Value = SearchAuditRequest> {
    (
        (0u64..50, 0u64..50, any::<bool>()),
        prop::sample::subsequence(vec!["verdict", "agent", "loss"], 0..3),
        (0i32..5, 0i32..3),
        0i32..4,
        prop::sample::select(vec!["", "PLC", "hmi", "ÄRGER", "nowhere"]),
        (
            1u32..30,
            any::<bool>(),
            prop::sample::select(vec!["", "gw-1", "gw-2"]),
        ),
    )
        .prop_map(
            |(
                (from, more, bounded),
                kinds,
                (severity_min, clock),
                decision,
                text,
                (limit, newest_first, source),
            )| {
                SearchAuditRequest {
                    source: source.to_owned(),
                    from_ms: from,
                    until_ms: if bounded { from + more } else { 0 },
                    kinds: kinds.into_iter().map(str::to_owned).collect(),
                    severity_min,
                    decision,
                    text: text.to_owned(),
                    limit,
                    newest_first,
                    clock,
                    ..SearchAuditRequest::default()
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 5))]
    /// The block summaries may only skip what the event filter would have skipped anyway.
    #[test]
    fn a_search_finds_exactly_what_a_look_at_every_event_finds(
        blocks in prop::collection::vec((any::<bool>(), 0u64..50, prop::collection::vec(event(), 1..5)), 1..20),
        request in request(),
    ) {
        use penstock_proto::audit::{GENESIS, Head};
        use penstock_proto::v1::AuditBlock;
        use prost::Message as _;
        let filter = Filter::try_from(request.clone()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (expected, found) = runtime.block_on(async {
            let store = Store::open(&dir.path().join("s.db")).unwrap();
            let plant = penstock_policy::ids::PlantId::new("riverside").unwrap();
            let releases = Releases::open(store.clone(), plant).await.unwrap();
            let mut expected = Vec::new();
            for (first, received_ms, events) in &blocks {
                let source = if *first { "gw-1" } else { "gw-2" };
                let head = store.head(source).await.unwrap()
                    .unwrap_or(Head { epoch: 1, next_sequence: 0, digest: GENESIS });
                let body = AuditBlockBody { events: events.clone() };
                store.append(source, vec![crate::store::NewBlock {
                    block: AuditBlock {
                        epoch: head.epoch,
                        sequence: head.next_sequence,
                        previous_digest: head.digest.to_vec().into(),
                        body: body.encode_to_vec().into(),
                    },
                    summary: summarize(&body),
                    received_ms: *received_ms,
                }]).await.unwrap();
                for (index, event) in (0u32..).zip(events) {
                    let wanted = filter.matches(source, *received_ms, event);
                    if wanted && filter.reads(source, event, &Names::default()) {
                        expected.push((source.to_owned(), head.next_sequence, index));
                    }
                }
            }
            if request.newest_first { expected.reverse(); }
            expected.truncate(request.limit as usize);
            let (out, mut answers) = mpsc::channel(1000);
            search(&store, &releases, &filter, &out).await.unwrap();
            drop(out);
            let mut found = Vec::new();
            while let Some(record) = answers.recv().await {
                let record = record.unwrap();
                found.push((record.source, record.sequence, record.index));
            }
            (expected, found)
        });
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn what_a_gateway_wrote_in_the_coordinators_stead_is_not_found_as_the_coordinators() {
    let event = |kind| AuditEvent {
        kind: Some(kind),
        ..AuditEvent::default()
    };
    let (approval, started) = (
        event(Kind::Operator(OperatorEvent::default())),
        event(Kind::Agent(AgentEvent::default())),
    );
    let filter = |kinds: &[&str]| {
        Filter::try_from(SearchAuditRequest {
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            ..SearchAuditRequest::default()
        })
        .unwrap()
    };
    assert!(filter(&["operator"]).matches("coordinator/c1", 0, &approval));
    assert!(!filter(&["operator"]).matches("gw-1", 0, &approval));
    // Whoever asks for all sees it, with its source.
    assert!(filter(&[]).matches("gw-1", 0, &approval));
    assert!(filter(&["agent"]).matches("gw-1", 0, &started));
}

#[test]
fn a_search_that_makes_no_sense_names_the_field() {
    for (request, field) in [
        (
            SearchAuditRequest {
                kinds: vec!["verdicts".into()],
                ..Default::default()
            },
            "kinds",
        ),
        (
            SearchAuditRequest {
                limit: LIMIT_MAX + 1,
                ..Default::default()
            },
            "limit",
        ),
        (
            SearchAuditRequest {
                from_ms: 5,
                until_ms: 4,
                ..Default::default()
            },
            "until_ms",
        ),
        (
            SearchAuditRequest {
                text: "x".repeat(257),
                ..Default::default()
            },
            "text",
        ),
        (
            SearchAuditRequest {
                decision: 9,
                ..Default::default()
            },
            "decision",
        ),
        (
            SearchAuditRequest {
                severity_min: -1,
                ..Default::default()
            },
            "severity_min",
        ),
    ] {
        assert_eq!(Filter::try_from(request).unwrap_err().field, field);
    }
}
