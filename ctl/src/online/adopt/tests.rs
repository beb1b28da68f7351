#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_proto::v1::{OperationEvent, VerdictEvent};

use super::*;
use crate::online::fixture::{fetched, loaded, record, riverside};
use crate::output::{Page, Report as _, Style};

const PLANT: &str = riverside!(
    "assets:
  hmi: { zone: operations, address: 10.20.1.21 }
  plc: { zone: control, address: 10.20.4.7 }
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
          - read-holding-registers: { units: 1, addresses: 0-9 }
"
);

/// 2026-11-30T00:00:00Z.
const NOW_MS: u64 = 1_795_996_800_000;

fn ago(days: u64) -> u64 {
    NOW_MS - days * DAY_MS
}

fn would_deny(source: &str, days: u64) -> AuditRecord {
    let kind = Kind::Verdict(VerdictEvent {
        decision: Decision::WouldDeny.into(),
        ingress: "eth1".into(),
        egress: "eth2".into(),
        source: source.into(),
        destination: "10.20.4.7".into(),
        protocol: 6,
        port: 502,
        count: 3,
        first_ms: ago(days),
        reason: "no flow permits it".into(),
        ..VerdictEvent::default()
    });
    at(record("gw-a", 1, kind), days)
}

fn operation(said: &str, reason: &str, days: u64) -> AuditRecord {
    let kind = Kind::Operation(OperationEvent {
        decision: Decision::WouldDeny.into(),
        operation: said.into(),
        client: "10.20.1.21".into(),
        server: "10.20.4.7".into(),
        port: 502,
        count: 1,
        first_ms: ago(days),
        reason: reason.into(),
        ..OperationEvent::default()
    });
    at(record("gw-a", 1, kind), days)
}

fn at(mut record: AuditRecord, days: u64) -> AuditRecord {
    record.event.as_mut().unwrap().time_ms = ago(days);
    for (address, zone) in [("10.20.1.", "operations"), ("10.20.4.", "control")] {
        for last in [7, 21, 77, 99] {
            record.names.push(penstock_proto::v1::NamedAddress {
                address: format!("{address}{last}"),
                zone: zone.to_owned(),
                ..Default::default()
            });
        }
    }
    record
}

fn watcher() -> ZoneWatch {
    ZoneWatch {
        gateway: "gw-a".to_owned(),
        connected: true,
        last_seen_ms: NOW_MS,
        since_ms: Some(ago(30)),
        missed: 0,
    }
}

/// What is answered for the zone of the PLC, of fourteen quiet days.
fn answer(records: Vec<AuditRecord>, watch: Vec<ZoneWatch>) -> Adoption {
    let zone = ZoneId::new("control").unwrap();
    let mut refusals = Refusals::of(subject(&loaded(PLANT).plant, &zone, ["gw-a".to_owned()].iter()));
    records.into_iter().for_each(|record| refusals.take(record));
    let current = Judging::of(fetched(PLANT));
    let found = Found::by(refusals, &current, NOW_MS);
    let asked = Asked {
        zone: &zone,
        since_ms: ago(30),
        quiet_days: 14,
        limit: 5,
        now_ms: NOW_MS,
    };
    asked.answer((&current, found), watch, (false, Vec::new()))
}

#[test]
fn what_passes_only_since_the_zone_observes_is_listed_with_its_flow_and_what_is_declared_by_now_is_only_counted()
 {
    let adoption = answer(
        vec![
            would_deny("10.20.1.77", 3),
            operation("read-holding-registers 4 of unit 1", "no flow permitted it", 20),
            operation(
                "read-holding-registers 40 of unit 1",
                "no rule permits the function",
                20,
            ),
        ],
        vec![watcher()],
    );
    assert_eq!(adoption.declared, 1);
    let listed: Vec<_> = adoption
        .would_stop
        .iter()
        .map(|refused| {
            (
                refused.source.address.as_str(),
                refused.flow.as_ref().unwrap().text.as_str(),
            )
        })
        .collect();
    assert_eq!(listed.len(), 2);
    assert!(
        listed[0].0 == "10.20.1.77" && listed[0].1.contains("host-10-20-1-77"),
        "{listed:?}"
    );
    assert!(listed[1].1.contains("addresses: 40"), "{listed:?}");
    assert_eq!(adoption.last_undeclared_ms, Some(ago(3)));
    assert_eq!(
        adoption.not_yet,
        ["1 thing that would stop was seen within 14 days"]
    );
}

#[test]
fn what_crosses_a_side_of_the_zone_counts_whatever_its_address_is_and_each_kind_of_frame_by_itself() {
    let crossed = |reason: &str, source: &str, interfaces: [&str; 2]| {
        let mut record = would_deny(source, 3);
        record.names.clear();
        if let Some(Kind::Verdict(verdict)) = &mut record.event.as_mut().unwrap().kind {
            [verdict.ingress, verdict.egress] = interfaces.map(str::to_owned);
            verdict.reason = reason.to_owned();
            if source.is_empty() {
                (verdict.destination, verdict.protocol, verdict.port) = (String::new(), 0, 0);
            }
        }
        record
    };
    let records = vec![
        crossed(
            "an address that does not belong to this side",
            "192.0.2.9",
            ["eth2", "eth1"],
        ),
        crossed("a frame of type 0x8892", "", ["eth2", "eth1"]),
        crossed("a frame of type 0x88b8", "", ["eth1", "eth2"]),
        crossed("a frame of type 0x88b8", "", ["eth1", ""]),
        crossed("a frame of type 0x88b8", "", ["eth7", "eth1"]),
    ];
    let adoption = answer(records, vec![watcher()]);
    let of_frames = adoption
        .would_stop
        .iter()
        .filter(|stops| stops.interfaces.is_some());
    let of_frames: Vec<_> = of_frames.map(|stops| stops.no_flow.clone().unwrap()).collect();
    assert_eq!(
        (adoption.would_stop.len(), of_frames.len()),
        (3, 2),
        "{:?}",
        adoption.would_stop
    );
    assert!(
        of_frames.iter().all(|why| why.contains("`frames`")),
        "{of_frames:?}"
    );
    let mut page = Page::new(Style {
        color: false,
        width: 100,
        wrap: true,
    });
    adoption.page(&mut page);
    let page = page.finish();
    assert!(
        page.contains("  interface eth2 → interface eth1\n  a frame of type 0x8892\n"),
        "{page}"
    );
}

#[test]
fn a_zone_is_ready_only_if_it_was_quiet_for_so_long_and_each_gateway_watched_all_of_it() {
    let quiet = vec![would_deny("10.20.1.77", 15)];
    assert!(answer(quiet.clone(), vec![watcher()]).ready);
    assert!(!answer(vec![would_deny("10.20.1.77", 13)], vec![watcher()]).ready);
    assert!(!answer(quiet.clone(), Vec::new()).ready, "nobody watched");
    type Spoil = fn(&mut ZoneWatch);
    let doubtful: [(Spoil, &str); 5] = [
        (|watch| watch.since_ms = None, "it saw nothing"),
        (
            |watch| watch.since_ms = Some(ago(13)),
            "has watched only since 2026-11-17",
        ),
        (|watch| watch.connected = false, "what it saw since 2026-11-30"),
        (
            |watch| (watch.connected, watch.last_seen_ms) = (false, 0),
            "was never connected",
        ),
        (|watch| watch.missed = 7, "could not report 7 verdicts"),
    ];
    for (spoil, why) in doubtful {
        let mut watch = watcher();
        spoil(&mut watch);
        let adoption = answer(quiet.clone(), vec![watcher(), watch]);
        assert!(
            !adoption.ready && adoption.not_yet[0].contains(why),
            "{:?}",
            adoption.not_yet
        );
    }
}

#[test]
fn a_connection_that_is_reset_once_is_foretold_and_keeps_no_zone_from_being_ready() {
    let reason =
        format!("the policy limits its operations, and it was not followed from its beginning; {RECONNECTS}");
    let adoption = answer(
        vec![operation("the connection would be reset", &reason, 1)],
        vec![watcher()],
    );
    assert!(adoption.ready, "{:?}", adoption.not_yet);
    assert_eq!((adoption.would_stop.len(), adoption.reset_once.len()), (0, 1));
    let adoption = answer(
        vec![operation(
            "the connection would be reset",
            "no flow permits it",
            1,
        )],
        vec![watcher()],
    );
    assert!(!adoption.ready);
}

#[test]
fn what_could_not_be_read_is_no_silence() {
    let zone = ZoneId::new("control").unwrap();
    let current = Judging::of(fetched(PLANT));
    let asked = Asked {
        zone: &zone,
        since_ms: ago(30),
        quiet_days: 14,
        limit: 5,
        now_ms: NOW_MS,
    };
    let ready = |cut, unread: &[&str]| {
        let unread = unread.iter().map(|part| (*part).to_owned()).collect();
        let answer = asked.answer((&current, Found::default()), vec![watcher()], (cut, unread));
        answer.ready
    };
    assert!(ready(false, &[]));
    assert!(!ready(true, &[]));
    assert!(!ready(false, &["the trail from one day to another"]));
}

#[test]
fn only_a_zone_that_observes_can_be_adopted_and_a_typing_error_gets_its_name() {
    let plant = loaded(PLANT).plant;
    let enforced = observing(&plant, "control").unwrap_err();
    assert!(enforced.message.contains("is enforced"), "{}", enforced.message);
    let unknown = observing(&plant, "contol").unwrap_err();
    assert!(
        format!("{unknown:?}").contains("did you mean control?"),
        "{unknown:?}"
    );
    let text = PLANT.replace("kind: control,", "kind: control, enforcement: observe,");
    let plant = loaded(&text).plant;
    assert_eq!(observing(&plant, "control").unwrap().as_str(), "control");
}

#[test]
fn the_page_says_first_whether_it_is_ready_and_last_what_to_do() {
    let shown = |adoption: &Adoption| {
        let mut page = Page::new(Style {
            color: false,
            width: 80,
            wrap: true,
        });
        adoption.page(&mut page);
        page.finish()
    };
    let ready = shown(&answer(Vec::new(), vec![watcher()]));
    assert!(
        ready.starts_with("✓ zone control: nothing undeclared was seen for 14 days by release r1\n"),
        "{ready}"
    );
    let not = shown(&answer(vec![would_deny("10.20.1.77", 3)], vec![watcher()]));
    assert!(
        not.starts_with("▲ zone control is not ready to be enforced by release r1\n"),
        "{not}"
    );
    assert!(not.lines().last().unwrap().ends_with("ask again"), "{not}");
    for line in not.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
