//! `penstock adopt` as an engineer asks it before a zone is enforced.

use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use serde_json::Value;

use crate::names::{denied, report};
use crate::person::Person;
use crate::world::{World, built, document, now_ms, people, release};

/// Passed, since both zones observe.
fn would_deny(time_ms: u64, source: &str) -> v1::AuditEvent {
    let mut event = denied(time_ms, 1, "10.20.4.7");
    if let Some(Kind::Verdict(verdict)) = &mut event.kind {
        verdict.decision = v1::Decision::WouldDeny.into();
        verdict.source = source.to_owned();
    }
    event
}

fn of(revision: u64, kind: Kind) -> v1::AuditEvent {
    v1::AuditEvent {
        time_ms: now_ms(),
        severity: v1::Severity::Notice.into(),
        revision,
        kind: Some(kind),
    }
}

#[tokio::test]
async fn an_engineer_sees_what_would_stop_which_flow_would_permit_it_and_why_it_is_too_early() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let text = document(2, 9)
        .replace("kind: operations,", "kind: operations, enforcement: observe,")
        .replace("kind: control,", "kind: control, enforcement: observe,");
    release(&mut people, &built(&text, 1, None, "anna")).await;
    let now = now_ms();
    let lost = v1::LossEvent {
        events: 12,
        cause: "kernel-rate-limit".to_owned(),
        first_ms: now,
        last_ms: now,
        ..v1::LossEvent::default()
    };
    let missed = v1::LossEvent {
        events: 70_000,
        cause: "tap-overrun".to_owned(),
        ..lost.clone()
    };
    let in_force = v1::PolicyEvent {
        step: "effective".to_owned(),
        revision: 1,
        ..v1::PolicyEvent::default()
    };
    let events = vec![
        of(1, Kind::Policy(in_force)),
        would_deny(now - 2_000, "10.20.1.77"),
        would_deny(now - 1_000, "10.20.1.78"),
        // What the release permits by now, and what another zone asked of another.
        would_deny(now - 900, "10.20.1.21"),
        of(1, Kind::Loss(lost)),
        of(1, Kind::Loss(missed)),
    ];
    report(&world, "gw-a", events).await;
    let viewer = Person::new(&world, "vic", "viewer", v1::Role::Viewer).await;
    let output = viewer.run(&["adopt", "control"]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["schema"], "penstock.adopt/1");
    assert_eq!(
        (&answer["ready"], &answer["declared"]),
        (&false.into(), &1.into()),
        "{answer}"
    );
    let stops: Vec<_> = answer["would_stop"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stops| {
            let flow = stops["flow"]["text"].as_str().unwrap();
            assert!(flow.contains("  watch:\n    flows:\n"), "{flow}");
            stops["source"]["address"].as_str().unwrap()
        })
        .collect();
    assert_eq!(stops, ["10.20.1.78", "10.20.1.77"]);
    let not_yet: Vec<_> = answer["not_yet"]
        .as_array()
        .unwrap()
        .iter()
        .map(|why| why.as_str().unwrap())
        .collect();
    assert!(
        matches!(not_yet.as_slice(), [seen, since, away, lost]
            if *seen == "2 things that would stop were seen within 14 days"
                && since.starts_with("gw-a has watched only since ")
                && away.starts_with("gw-a is not connected: what it saw since ")
                && lost.starts_with("gw-a could not report 12 verdicts: ")),
        "{not_yet:?}"
    );
    // A zone that is enforced, one that does not exist, and a look back that is too short.
    for asked in [
        &["adopt", "safety"][..],
        &["adopt", "contol"],
        &["adopt", "control", "--since", "7d"],
    ] {
        assert_eq!(viewer.fails(asked).await, "usage", "{asked:?}");
    }
}
