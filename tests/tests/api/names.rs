//! What the trail says of an asset and of a time: names by the release in force then, and both clocks.

use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::Message as _;
use serde_json::Value;

use crate::person::Person;
use crate::why::refused_write;
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

#[tokio::test]
async fn each_filter_finds_its_records_pages_go_on_by_their_cursor_and_each_hit_names_its_rule() {
    let world = World::start().await;
    let mut people = people(&world).await;
    release(&mut people, &built(&document(2, 9), 1, None, "anna")).await;
    let now = now_ms();
    let events = vec![
        denied(now - 9_000, 1, "10.20.4.7"),
        denied(now - 8_000, 1, "10.20.9.9"),
        refused_write(now - 7_000, 1, (5, 9)),
        denied(now - 6_000, 1, "10.20.4.7"),
    ];
    report(&world, "gw-a", events).await;
    let viewer = Person::new(&world, "vic", "viewer", v1::Role::Viewer).await;
    let since = ["--since", "1h", "--clock", "source"];
    let search = async |options: &[&str]| {
        viewer
            .done(&[&["audit", "search", "--oldest-first"], options, &since].concat())
            .await
    };
    for (options, places) in [
        (&["--site", "works", "--kind", "verdict"][..], &[0, 1, 3][..]),
        (&["--zone", "safety"], &[1]),
        // Of the denials the event names no flow: the conduit is that between the zones.
        (&["--conduit", "watch"], &[0, 2, 3]),
        (&["--asset", "plc"], &[0, 2, 3]),
        (&["--asset", "10.20.9.9"], &[1]),
        (&["--operation", "write-single-register"], &[2]),
        (&["--value", "8-12"], &[2]),
        (&["--value", "10"], &[]),
        (
            &["--conduit", "watch", "--verdict", "deny", "--kind", "verdict"],
            &[0, 3],
        ),
    ] {
        let found = search(options).await;
        let records = found["records"].as_array().unwrap();
        let indexes: Vec<_> = records
            .iter()
            .map(|record| record["index"].as_u64().unwrap())
            .collect();
        assert_eq!(indexes, places, "{options:?}: {found}");
    }
    let by_anna = search(&["--operator", "anna", "--kind", "operator"]).await;
    let records = by_anna["records"].as_array().unwrap();
    assert!(!records.is_empty());
    assert!(
        records.iter().all(|record| record["event"]["operator"] == "anna"),
        "{by_anna}"
    );

    let denials = ["--decision", "deny", "--limit", "3"];
    let first = search(&denials).await;
    assert_eq!(first["records"].as_array().unwrap().len(), 3);
    let next = first["next"].as_str().unwrap();
    let second = search(&[&denials[..], &["--after", next]].concat()).await;
    assert_eq!(second["records"][0]["index"], 3);
    assert_eq!(second["next"], Value::Null);
    let other = viewer
        .run(&["audit", "search", "--decision", "allow", "--after", next])
        .await;
    let other = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(
        other.contains("belongs to a search with other filters"),
        "{other}"
    );

    let explained = search(&["--decision", "deny", "--explain"]).await;
    let explained = explained["records"].as_array().unwrap();
    assert_eq!(explained[0]["explained"]["flow"], "watch/poll");
    assert_eq!(explained[0]["explained"]["decision"], "deny");
    assert!(
        explained[0]["explained"]["differs"][0]
            .as_str()
            .unwrap()
            .contains("source"),
        "{explained:?}"
    );
    assert_eq!(explained[2]["explained"]["decision"], "deny");

    let counts = viewer
        .done(
            &[
                &[
                    "audit",
                    "counts",
                    "--per",
                    "hour",
                    "--by",
                    "conduit",
                    "--decision",
                    "deny",
                ][..],
                &since,
            ]
            .concat(),
        )
        .await;
    assert_eq!(counts["records"], 4);
    let of_watch = counts["counts"].as_array().unwrap().iter();
    let of_watch = of_watch.filter(|count| count["what"] == "watch");
    assert_eq!(
        of_watch
            .map(|count| count["records"].as_u64().unwrap())
            .sum::<u64>(),
        3
    );
    let denials = viewer
        .done(&[&["audit", "denials", "--order", "count"][..], &since].concat())
        .await;
    let lines = denials["denials"].as_array().unwrap();
    assert_eq!(lines.len(), 3);
    let to_plc = lines
        .iter()
        .find(|line| line["operation"] == Value::Null && line["destination"] == "10.20.4.7");
    let to_plc = to_plc.unwrap();
    assert_eq!(
        (&to_plc["times"], &to_plc["service"]),
        (&2.into(), &"tcp/502".into())
    );
    assert_eq!(
        (&to_plc["first_ms"], &to_plc["last_ms"]),
        (&(now - 9_000).into(), &(now - 6_000).into())
    );
    assert_eq!(to_plc["names"][1]["asset"], "plc");
}
