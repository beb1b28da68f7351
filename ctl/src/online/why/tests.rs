#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditRecord, LearnedRange, OperationEvent, VerdictEvent};

use super::*;
use crate::online::fixture::{fetched, record, riverside};

const PLANT: &str = riverside!(
    "assets:
  hmi: { zone: operations, address: 10.20.1.21 }
  twin: { zone: operations, addresses: [10.20.1.30, 10.20.1.31] }
  plc: { zone: control, address: 10.20.4.7 }
  broker: { zone: control, address: 10.20.4.9 }
  store: { zone: control, address: 10.20.4.11 }
conduits:
  watch:
    title: Watch
    from: operations
    to: control
    flows:
      poll:
        source: hmi
        destination: plc
        service: modbus-tcp
        allow:
          - write-single-register: { units: 1, addresses: 40, values: [0-5, 9] }
      tell:
        source: hmi
        destination: broker
        service: mqtt
        allow:
          - publish: { topics: [a/b], qos: 0 }
          - connect: { client_ids: [panel] }
      files:
        source: hmi
        destination: store
        service: tcp/9000-9009
"
);

fn release() -> Judging {
    release_of(PLANT)
}

fn release_of(plant: &str) -> Judging {
    Judging::of(fetched(plant))
}

fn operation(server: &str, port: u32, said: &str, values: Option<(u32, u32)>) -> AuditRecord {
    record(
        "gw-a",
        1,
        Kind::Operation(OperationEvent {
            decision: Decision::Deny.into(),
            operation: said.into(),
            client: "10.20.1.21".into(),
            server: server.into(),
            port,
            count: 1,
            values: values.map(|(first, last)| LearnedRange { first, last }),
            ..OperationEvent::default()
        }),
    )
}

fn connection(ends: [&str; 2], egress: &str, port: u32) -> AuditRecord {
    record(
        "gw-a",
        1,
        Kind::Verdict(VerdictEvent {
            decision: Decision::Deny.into(),
            ingress: "eth1".into(),
            egress: egress.into(),
            source: ends[0].into(),
            destination: ends[1].into(),
            protocol: 6,
            port,
            count: 1,
            ..VerdictEvent::default()
        }),
    )
}

/// What is said of records of one thing.
fn said(subject: &str, records: Vec<AuditRecord>) -> Refused {
    said_by(&release(), subject, records, 0)
}

fn said_by(release: &Judging, subject: &str, records: Vec<AuditRecord>, now_ms: u64) -> Refused {
    let mut refusals = Refusals::of(Subject::Asset(gather::normal(subject)));
    records.into_iter().for_each(|record| refusals.take(record));
    let mut groups = refusals.worst_first();
    assert_eq!(groups.len(), 1, "{groups:?}");
    judged(groups.remove(0), None, Some(release), now_ms)
}

fn write(values: Option<(u32, u32)>) -> AuditRecord {
    operation("10.20.4.7", 502, "write-single-register 40 of unit 1", values)
}

#[test]
fn a_write_is_permitted_now_only_if_each_of_its_values_is() {
    for (values, permitted) in [((1, 5), true), ((9, 9), true), ((5, 9), false), ((0, 7), false)] {
        let refused = said("10.20.4.7", vec![write(Some(values))]);
        assert_eq!(refused.permitted_now, permitted, "{values:?}");
        assert_eq!(refused.flow.is_none(), permitted, "{values:?}");
    }
    let text = said("10.20.4.7", vec![write(Some((6, 8)))]).flow.unwrap();
    assert!(text.text.contains("values: 6-8"), "{text:?}");
    assert!(text.remark.unwrap().contains("permits them all"));
}

#[test]
fn a_write_whose_values_are_not_all_known_is_neither_called_permitted_nor_given_a_flow_for_any_value() {
    for records in [vec![write(None)], vec![write(Some((3, 3))), write(None)]] {
        let refused = said("10.20.4.7", records);
        assert!(!refused.permitted_now && refused.flow.is_none(), "{refused:?}");
        assert!(refused.no_flow.unwrap().contains("exactly enough"));
    }
}

#[test]
fn words_that_do_not_read_back_as_they_were_are_not_made_into_a_flow() {
    for (server, port, words) in [
        // Would read as the sub-function 0.
        ("10.20.4.7", 502, "diagnostics 2 of unit 1"),
        ("10.20.4.9", 1883, "publish a/b/(c) at QoS 0"),
        ("10.20.4.9", 1883, "publish a\\u{7f}b at QoS 0"),
        ("10.20.4.9", 1883, "connect as a b"),
    ] {
        let refused = said(server, vec![operation(server, port, words, None)]);
        assert!(refused.flow.is_none(), "{words}: {:?}", refused.flow);
        assert!(refused.no_flow.is_some(), "{words}");
    }
}

#[test]
fn a_connection_by_mqtt_is_permitted_to_its_user_alone() {
    let flow = |words: &str| {
        let record = operation("10.20.4.9", 1883, words, None);
        said("10.20.4.9", vec![record]).flow.unwrap()
    };
    let named = flow("connect as pump-7 with user operator");
    let entry = "connect: { client_ids: [\"pump-7\"], users: [\"operator\"] }";
    assert!(named.text.contains(entry), "{named:?}");
    assert_eq!(named.remark, None);
    // A client that calls itself "pump-7 with user operator" is not taken for that one.
    let forged = flow("connect as \"pump-7 with user operator\"");
    assert!(
        forged
            .text
            .contains("client_ids: [\"pump-7 with user operator\"]"),
        "{forged:?}"
    );
    assert!(forged.remark.unwrap().contains("any"));
}

#[test]
fn a_flow_holds_the_port_that_was_refused_and_says_what_it_permits_beside() {
    let record = connection(["10.20.1.30", "10.20.4.11"], "eth2", 9005);
    let flow = said("10.20.4.11", vec![record]).flow.unwrap();
    assert!(flow.text.contains("service: tcp/9005\n"), "{flow:?}");
    assert!(flow.remark.unwrap().contains("twin has 2 addresses"));
    // Of an inspected connection that was refused whole nothing is known but that.
    let record = connection(["10.20.1.40", "10.20.4.7"], "eth2", 502);
    let flow = said("10.20.4.7", vec![record]).flow.unwrap();
    assert!(!flow.text.contains("read-only"), "{flow:?}");
    assert!(flow.remark.unwrap().contains("before its first request"));
}

#[test]
fn a_gateway_itself_and_an_address_in_no_zone_are_named_as_what_they_are() {
    for egress in ["", "eth1"] {
        let to_itself = connection(["10.20.1.21", "10.20.1.1"], egress, 22);
        let refused = said("10.20.1.1", vec![to_itself]);
        let why = refused.no_flow.unwrap();
        assert!(why.contains("gw-a itself") && why.contains("management"), "{why}");
        assert!(refused.flow.is_none() && !refused.permitted_now);
    }
    let nowhere = connection(["10.20.1.21", "192.0.2.7"], "", 80);
    let why = said("192.0.2.7", vec![nowhere]).no_flow.unwrap();
    assert!(why.contains("192.0.2.7 lies in no zone"), "{why}");
}

#[test]
fn an_address_is_found_however_it_is_written() {
    let record = connection(["fd00::9", "10.20.4.7"], "eth2", 502);
    for written in ["fd00::9", "FD00:0:0::0009"] {
        let mut refusals = Refusals::of(Subject::Asset(gather::normal(written)));
        refusals.take(record.clone());
        assert!(!refusals.is_empty(), "{written}");
    }
    assert_eq!(gather::normal("::ffff:10.20.4.7"), "10.20.4.7");
}

#[test]
fn where_the_answer_was_cut_there_is_no_all_clear() {
    let mut page = crate::output::Page::new(crate::output::Style {
        color: false,
        width: 100,
        wrap: false,
    });
    let why = Why {
        subject: "plc".to_owned(),
        since: "today".to_owned(),
        since_ms: 0,
        refused: Vec::new(),
        further: 0,
        cut: true,
        current_revision: 1,
        current_verified: false,
    };
    crate::output::Report::page(&why, &mut page);
    let text = page.finish();
    assert!(text.contains("not known") && !text.contains('✓'), "{text}");
}

#[test]
fn what_only_a_grant_of_remote_access_permits_gets_no_conduit_that_stands_open() {
    const VISIT_MS: u64 = 1_796_112_000_000;
    let conduit = "  maintain:
    from: operations
    to: control
    only_by_grant: yes
    flows:
      set: { source: [hmi, twin], destination: plc, service: modbus-tcp, allow: [{ write-single-register: { units: 1, addresses: 40 } }] }
";
    let visit = "remote_access:
  visit: { person: Carla, conduit: maintain, reason: Pumps, from: 2026-12-01T08:00:00Z, until: 2026-12-01T16:00:00Z, approved_by: bob }
";
    for (grants, opens) in [("", "and there is none"), (visit, "visit (Carla")] {
        let release = release_of(&format!("{PLANT}{conduit}{grants}"));
        // A connection, and an operation inside one that stands open.
        for record in [
            connection(["10.20.1.30", "10.20.4.7"], "eth2", 502),
            write(Some((7, 7))),
        ] {
            for now_ms in [0, VISIT_MS - 1, VISIT_MS + 8 * 3_600_000] {
                let refused = said_by(&release, "10.20.4.7", vec![record.clone()], now_ms);
                assert!(!refused.permitted_now && refused.flow.is_none(), "{refused:?}");
                let why = refused.no_flow.unwrap();
                assert!(
                    why.contains("only during a grant of remote access") && why.contains(opens),
                    "{why}"
                );
            }
        }
    }
}
