//! `penstock why` as somebody on shift asks it.

use std::collections::BTreeMap;

use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::GatewayId;
use penstock_policy::model::Plant;
use penstock_policy::verdict::{Connection, Decision, Permissions, decide, permitted};
use penstock_proto::v1;
use serde_json::Value;

use crate::names::{denied, report};
use crate::person::Person;
use crate::world::{World, built, document, now_ms, people, release};

fn plant(text: &str) -> Plant {
    let file = SourceFile {
        name: "plant.yaml".to_owned(),
        text: text.to_owned(),
    };
    let loaded = penstock_policy::load(&[file], jiff::civil::date(2026, 1, 1));
    loaded
        .plant
        .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics.iter().collect::<Vec<_>>()))
}

/// The document with the lines of the proposed text put where their keys already are.
fn with(document: &str, flow: &str) -> String {
    let mut lines: Vec<String> = document.lines().map(str::to_owned).collect();
    let mut place = 0;
    for line in flow.lines() {
        let depth = line.len() - line.trim_start().len();
        let is_key = depth <= 4 && line.ends_with(':');
        match lines.iter().position(|own| is_key && own == line) {
            Some(known) => place = known + 1,
            None => {
                lines.insert(place, line.to_owned());
                place += 1;
            }
        }
    }
    lines.join("\n") + "\n"
}

/// A write that was refused, of values from one to another.
pub fn refused_write(time_ms: u64, revision: u64, values: (u32, u32)) -> v1::AuditEvent {
    v1::AuditEvent {
        time_ms,
        severity: v1::Severity::Warning.into(),
        revision,
        kind: Some(v1::audit_event::Kind::Operation(v1::OperationEvent {
            subject: "operation".to_owned(),
            decision: v1::Decision::Deny.into(),
            operation: "write-single-register 40 of unit 1".to_owned(),
            reason: "no rule permits the function".to_owned(),
            flow: "watch/poll".to_owned(),
            protocol: "modbus-tcp".to_owned(),
            client: "10.20.1.21".to_owned(),
            client_name: "hmi".to_owned(),
            server: "10.20.4.7".to_owned(),
            server_name: "plc".to_owned(),
            port: 502,
            count: 2,
            first_ms: time_ms,
            last_ms: time_ms,
            values: Some(v1::LearnedRange {
                first: values.0,
                last: values.1,
            }),
            ..v1::OperationEvent::default()
        })),
    }
}

fn connection(source: &str) -> Connection {
    Connection {
        ingress: "eth1".to_owned(),
        egress: "eth2".to_owned(),
        source: source.parse().unwrap(),
        destination: "10.20.4.7".parse().unwrap(),
        transport: "tcp/502".parse().unwrap(),
    }
}

#[tokio::test]
async fn the_shift_learns_what_was_refused_who_may_whom_to_ask_and_which_flow_would_permit_it() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let text = document(2, 9)
        .replace("timezone: UTC", "timezone: Asia/Kathmandu")
        .replace("kind: control,", "kind: control, accountable: Pump crew,")
        .replace(
            "sites:\n",
            "owner: { organisation: Riverside Water, contact: ot@riverside.example }\nsites:\n",
        );
    release(&mut people, &built(&text, 1, None, "anna")).await;
    let now = now_ms();
    let old = now - 3 * 86_400_000;
    let events = vec![
        denied(now - 2_000, 1, "10.20.4.7"),
        denied(now - 1_000, 1, "10.20.4.7"),
        refused_write(now - 500, 1, (7, 7)),
        refused_write(now - 400, 1, (5, 5)),
        // Of another asset, whose address begins alike.
        denied(now, 1, "10.20.4.77"),
    ];
    report(&world, "gw-a", events).await;
    report(&world, "gw-b", vec![denied(old, 1, "10.20.4.7")]).await;

    let viewer = Person::new(&world, "vic", "viewer", v1::Role::Viewer).await;
    let asks = async |subject: &str, code: i32| -> Value {
        let output = viewer.run(&["why", subject, "--since", "1h"]).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}{complained}");
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"))
    };
    let answer = asks("plc", 1).await;
    assert_eq!(answer["schema"], "penstock.why/1");
    let refused = answer["refused"].as_array().unwrap();
    // The record of gw-b came late: it was received now, and is about three days ago.
    let by: BTreeMap<&str, &Value> = refused
        .iter()
        .map(|refused| {
            (
                refused["operation"]
                    .as_str()
                    .unwrap_or(refused["gateway"].as_str().unwrap()),
                refused,
            )
        })
        .collect();
    let write = by["write-single-register 40 of unit 1"];
    assert_eq!(
        (&write["count"], &write["values"]),
        (&4.into(), &serde_json::json!([5, 7]))
    );
    assert_eq!(write["source"]["asset"], "hmi");
    let opened = by["gw-a"];
    assert_eq!((&opened["count"], &opened["revision"]), (&3.into(), &1.into()));
    assert_eq!(
        opened["source"],
        serde_json::json!({ "address": "10.20.1.77", "asset": null, "zone": "operations" })
    );
    assert_eq!(
        opened["permitted_to"],
        serde_json::json!([{ "source": "hmi", "flow": "watch/poll" }])
    );
    assert_eq!(
        opened["ask"]["accountable"],
        serde_json::json!(["Pump crew (zone control)"])
    );
    assert_eq!(opened["ask"]["owner"], "Riverside Water, ot@riverside.example");
    assert_eq!(
        (
            &opened["ask"]["threshold"],
            opened["ask"]["approvers"].as_array().unwrap().len()
        ),
        (&2.into(), 3)
    );
    assert!(opened["last"].as_str().unwrap().ends_with("+05:45"), "{opened}");

    // The text permits what was refused, and leaves everything else refused.
    let gateway = GatewayId::new("gw-a").unwrap();
    let plan = |text: &str| penstock_policy::compile::compile(&plant(text), &gateway).unwrap();
    let wider = with(&text, opened["flow"]["text"].as_str().unwrap());
    let (before, after) = (plan(&text), plan(&wider));
    let passes = |plan, source| decide(plan, &connection(source)).decision == Decision::Allow;
    assert!(
        !passes(&before, "10.20.1.77") && passes(&after, "10.20.1.77"),
        "{wider}"
    );
    assert!(!passes(&after, "10.20.1.78"));
    assert_eq!(after.rules.len(), before.rules.len() + 1);
    let wider = with(&text, write["flow"]["text"].as_str().unwrap());
    let after = plan(&wider);
    let Permissions::Only(listed) = permitted(&after, &connection("10.20.1.21")) else {
        panic!("{wider}")
    };
    let phrases: Vec<String> = listed
        .iter()
        .flat_map(|(_, operations)| operations.phrases())
        .collect();
    let exact = |phrase: &String| {
        ["write-single-register", "unit 1", "40", "5-7"]
            .iter()
            .all(|part| phrase.contains(part))
    };
    assert!(phrases.iter().any(exact), "{phrases:?}");

    // By address it is the same; nothing of a neighbour is mixed in; and a typing error is no all-clear.
    assert_eq!(
        asks("10.20.4.7", 1).await["refused"].as_array().unwrap().len(),
        refused.len()
    );
    assert_eq!(
        asks("10.20.4.77", 1).await["refused"].as_array().unwrap().len(),
        1
    );
    assert!(
        asks("10.20.4.99", 0).await["refused"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(viewer.fails(&["why", "plcc"]).await, "usage");
}
