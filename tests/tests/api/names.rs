//! What the trail says of an asset and of a time: names by the release in force then, and both clocks.

use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::Message as _;
use serde_json::Value;

use crate::person::Person;
use crate::world::{World, built, document, now_ms, people, release};

/// A refused connection to that address.
pub fn denied(time_ms: u64, revision: u64, destination: &str) -> v1::AuditEvent {
    v1::AuditEvent {
        time_ms,
        severity: v1::Severity::Warning.into(),
        revision,
        kind: Some(v1::audit_event::Kind::Verdict(v1::VerdictEvent {
            decision: v1::Decision::Deny.into(),
            ingress: "eth1".to_owned(),
            egress: "eth2".to_owned(),
            source: "10.20.1.77".to_owned(),
            destination: destination.to_owned(),
            protocol: 6,
            port: 502,
            count: 1,
            first_ms: time_ms,
            last_ms: time_ms,
            reason: "no rule matches".to_owned(),
            ..v1::VerdictEvent::default()
        })),
    }
}

/// Sends the events of `gateway` as the first block of a new trail, until the coordinator has them.
pub async fn report(world: &World, gateway: &str, events: Vec<v1::AuditEvent>) {
    let body = v1::AuditBlockBody { events }.encode_to_vec();
    let mut session = world.session(gateway, v1::PolicyState::default()).await;
    let block = v1::AuditBlock {
        epoch: 1,
        sequence: 0,
        previous_digest: GENESIS.to_vec().into(),
        body: body.clone().into(),
    };
    assert_ne!(block_digest(&GENESIS, 1, 0, &body), GENESIS);
    session.send(Up::Audit(block)).await;
    while !matches!(session.next().await.unwrap(), Down::AuditAck(ack) if ack.next_sequence == 1) {}
}

fn field<'v>(found: &'v Value, name: &str) -> Vec<&'v str> {
    let records = found["records"].as_array().unwrap();
    records
        .iter()
        .map(|record| record[name].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_denial_is_found_by_the_name_that_its_address_had_in_the_release_in_force_then() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let zone = |text: String| text.replace("timezone: UTC", "timezone: Asia/Kathmandu");
    let first = built(&zone(document(2, 9)), 1, None, "anna");
    release(&mut people, &first).await;
    // The controller moves, and what comes to its place is another asset.
    let moved = zone(document(2, 9)).replace(
        "  plc: { zone: control, address: 10.20.4.7 }",
        "  plc: { zone: control, address: 10.20.4.8 }\n  heater: { zone: control, address: 10.20.4.7 }",
    );
    let second = built(&moved, 2, Some(first.digest()), "anna");
    release(&mut people, &second).await;
    let at = 1_700_000_000_000;
    report(
        &world,
        "gw-a",
        vec![
            denied(at, 1, "10.20.4.7"),
            denied(at, 2, "10.20.4.7"),
            denied(at, 0, "10.20.4.7"),
        ],
    )
    .await;

    let viewer = Person::new(&world, "vic", "viewer", v1::Role::Viewer).await;
    let search = [
        "audit",
        "search",
        "--kind",
        "verdict",
        "--oldest-first",
        "--since",
        "2023-11-15",
    ];
    let found = viewer.done(&[&search[..], &["PLC"]].concat()).await;
    let named = "deny 10.20.1.77 (zone operations) → plc (10.20.4.7) tcp/502: no rule matches";
    assert_eq!(field(&found, "summary"), [named]);
    // In the time of the site, in which the day was read too.
    assert_eq!(field(&found, "time"), ["2023-11-15T03:58:20+05:45"]);
    let found = viewer.done(&[&search[..], &["heater"]].concat()).await;
    assert_eq!(field(&found, "summary"), [named.replace("plc", "heater")]);
    // By address all are found, also the one from before any release.
    let found = viewer.done(&[&search[..], &["10.20.4.7"]].concat()).await;
    assert_eq!(field(&found, "summary").len(), 3);
    let utc = [&search[..], &["heater", "--time-zone", "UTC"]].concat();
    assert_eq!(field(&viewer.done(&utc).await, "time"), ["2023-11-14T22:13:20Z"]);
}

#[tokio::test]
async fn a_wrong_clock_of_a_source_hides_nothing_from_a_search_by_time() {
    let world = World::start().await;
    let now = now_ms();
    let (slow, fast) = (86_400_000, now + 40 * 86_400_000);
    let events = [slow, fast, now].map(|time_ms| denied(time_ms, 0, "10.20.4.7"));
    report(&world, "gw-a", events.to_vec()).await;
    let viewer = Person::new(&world, "vic", "viewer", v1::Role::Viewer).await;
    let times = async |options: &[&str]| {
        let search = ["audit", "search", "--kind", "verdict", "--oldest-first"];
        let found = viewer.done(&[&search[..], options].concat()).await;
        let records = found["records"].as_array().unwrap().clone();
        records
            .iter()
            .map(|record| record["time_ms"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        times(&["--since", "1h", "--until", "0s"]).await,
        [slow, fast, now]
    );
    assert_eq!(
        times(&["--since", "1h", "--clock", "received"]).await,
        [slow, fast, now]
    );
    assert_eq!(times(&["--since", "1h", "--clock", "source"]).await, [fast, now]);
    // By the source's clock it is still found where that clock stood.
    assert_eq!(times(&["--until", "1970-01-02"]).await, [slow]);
    // What cannot be meant is refused before anybody is asked.
    for stretch in [
        ["--since", "2026-11-28T15:00:00"],
        ["--until", "2026-11-28 16:00"],
    ] {
        let asked = [&["audit", "search"], &stretch[..]].concat();
        assert_eq!(viewer.fails(&asked).await, "usage", "{stretch:?}");
    }
}
