//! What a release would refuse of recorded traffic, as whoever approves it sees it.

use penstock_proto::v1;
use serde_json::{Value, json};

use crate::names::{denied, report};
use crate::person::Person;
use crate::world::{World, built, document, now_ms, people, release};

fn passed(time_ms: u64, port: u32, decision: v1::Decision) -> v1::AuditEvent {
    let mut event = denied(time_ms, 1, "10.20.4.7");
    if let Some(v1::audit_event::Kind::Verdict(verdict)) = &mut event.kind {
        verdict.decision = decision.into();
        verdict.source = "10.20.1.21".to_owned();
        verdict.port = port;
        verdict.flow = "watch/poll".to_owned();
    }
    event
}

fn read(time_ms: u64) -> v1::AuditEvent {
    v1::AuditEvent {
        time_ms,
        severity: v1::Severity::Info.into(),
        revision: 1,
        kind: Some(v1::audit_event::Kind::Operation(v1::OperationEvent {
            subject: "operation".to_owned(),
            decision: v1::Decision::Allow.into(),
            operation: "read-holding-registers".to_owned(),
            protocol: "modbus-tcp".to_owned(),
            client: "10.20.1.21".to_owned(),
            server: "10.20.4.7".to_owned(),
            port: 502,
            count: 5,
            ..v1::OperationEvent::default()
        })),
    }
}

fn plain(text: &str) -> String {
    text.replace(
        "        service: modbus-tcp\n        allow:\n          - read-holding-registers: { units: 1, addresses: 0-9 }\n",
        "        service: tcp/4840\n        must_flow: yes\n",
    )
}

#[tokio::test]
async fn who_proposes_and_who_approves_sees_which_recorded_traffic_the_release_would_refuse() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 9), 1, None, "anna");
    release(&mut people, &first).await;
    let now = now_ms();
    let events = vec![
        passed(now - 3_000, 502, v1::Decision::Allow),
        passed(now - 2_000, 502, v1::Decision::Allow),
        read(now - 1_500),
        // Refused then, and permitted by the next release.
        passed(now - 1_000, 4840, v1::Decision::Deny),
    ];
    report(&world, "gw-a", events).await;

    let next = plain(&document(2, 9));
    let engineer = Person::new(&world, "eve", "engineer", v1::Role::Engineer).await;
    let file = engineer.home.join("plant.yaml");
    std::fs::write(&file, &next).unwrap();
    let path = file.to_str().unwrap();
    let judged = |answer: &Value| {
        let recorded = &answer["recorded"];
        let refused: Vec<Value> = recorded["refused"]
            .as_array()
            .unwrap_or_else(|| panic!("{answer}"))
            .iter()
            .map(|refused| {
                json!([
                    refused["client"]["asset"],
                    refused["server"]["zone"],
                    refused["service"],
                    refused["operation"],
                    refused["gateway"],
                    refused["count"]
                ])
            })
            .collect();
        assert_eq!(recorded["events"], 4, "{recorded}");
        assert_eq!(recorded["newly_permitted"]["count"], 1, "{recorded}");
        assert!(
            recorded["missing"]
                .to_string()
                .contains("gw-b was dark all the time"),
            "{recorded}"
        );
        refused
    };
    let lost = [
        json!(["hmi", "control", "tcp/502", null, "gw-a", 2]),
        json!(["hmi", "control", "tcp/502", "read-holding-registers", "gw-a", 5]),
    ];
    let sorted = |mut refused: Vec<Value>| {
        refused.sort_by_key(|refused| refused[5].as_u64());
        refused
    };
    let compared = engineer.done(&["diff", path, "--against-current"]).await;
    assert_eq!(sorted(judged(&compared)), lost);
    let without = engineer
        .done(&["diff", path, "--against-current", "--recorded", "0"])
        .await;
    assert_eq!(without.get("recorded"), None);
    let usage = ["diff", path, "--against-current", "--recorded", "soon"];
    assert_eq!(engineer.fails(&usage).await, "usage");
    let second = built(&next, 2, Some(first.digest()), "anna");
    people
        .engineer
        .propose_release(second.request.clone())
        .await
        .unwrap();
    let bob = Person::new(&world, "bob", "bobs", v1::Role::Approver).await;
    let approved = bob.approves(&second).await;
    assert_eq!(sorted(judged(&approved)), lost);
    let shown = bob.done(&["release", "show", "2"]).await;
    assert_eq!(sorted(judged(&shown)), lost);
    // What goes back to before is proposed with it, too: by the earlier release all of it passes.
    people
        .carol
        .approve_release(second.approval("carol"))
        .await
        .unwrap();
    let back = ["release", "revert", "1", "--reason", "Polling is missed", "--yes"];
    let reverted = engineer.done(&back).await;
    assert_eq!(reverted["recorded"]["refused"], json!([]), "{reverted}");
    assert_eq!(reverted["recorded"]["newly_permitted"]["count"], 0);
}
