#![allow(clippy::unwrap_used)]
use penstock_policy::terms::Enforcement;
use penstock_proto::v1::AuditEvent;

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

fn zone(name: &str) -> ZoneId {
    ZoneId::new(name).unwrap()
}

fn gateway() -> GatewayId {
    GatewayId::new("gw-1").unwrap()
}

fn zones() -> BTreeMap<ZoneId, Boundary> {
    let boundary = |is_safety| Boundary {
        enforcement: Enforcement::Enforce,
        gateways: vec![gateway()],
        neighbours: None,
        assurance: None,
        consequence: None,
        is_safety,
        must_flows: BTreeSet::new(),
    };
    BTreeMap::from([
        (zone("control"), boundary(false)),
        (zone("safety"), boundary(true)),
    ])
}

fn record(source: &str, received_ms: u64, kind: Kind) -> AuditRecord {
    let named = |address: &str, asset: &str, zone: &str| NamedAddress {
        address: address.to_owned(),
        asset: asset.to_owned(),
        zone: zone.to_owned(),
    };
    AuditRecord {
        source: source.to_owned(),
        received_ms,
        names: vec![
            named("10.0.1.5", "hmi", "operations"),
            named("10.0.1.99", "", "operations"),
            named("10.0.2.7", "plc", "control"),
            named("10.0.9.7", "trip", "safety"),
        ],
        event: Some(AuditEvent {
            kind: Some(kind),
            ..AuditEvent::default()
        }),
        ..AuditRecord::default()
    }
}

fn refused(operation: &str, client: &str, server: &str) -> AuditRecord {
    let event = OperationEvent {
        subject: "operation".to_owned(),
        decision: Decision::Deny.into(),
        operation: operation.to_owned(),
        protocol: "modbus-tcp".to_owned(),
        client: client.to_owned(),
        server: server.to_owned(),
        ..OperationEvent::default()
    };
    record("gw-1", NOW_MS, Kind::Operation(event))
}

#[test]
fn refused_writes_into_safety_zones_count_and_into_others_those_of_strangers() {
    let (hmi, stranger, plc, trip) = ("10.0.1.5", "10.0.1.99", "10.0.2.7", "10.0.9.7");
    for (operation, client, server, counts) in [
        ("write-single-register 40 of unit 1", hmi, trip, true),
        ("write-single-register 40 of unit 1", stranger, plc, true),
        ("write-single-register 40 of unit 1", hmi, plc, false),
        ("read-holding-registers 0-9 of unit 1", stranger, trip, false),
        ("diagnostics 1 of unit 1", hmi, trip, true),
        ("function-90 of unit 1", hmi, trip, true),
        ("write-file-record 1 of unit 1", hmi, trip, true),
        ("write-single-coil 1 of unit 1", stranger, "10.9.9.9", false),
    ] {
        let mut sightings = Sightings::default();
        sightings.take(&refused(operation, client, server), &zones());
        let seen = ["control", "safety"].map(|name| sightings.refused(&zone(name), NOW_MS).is_some());
        assert_eq!(
            seen,
            [counts && server == plc, counts && server == trip],
            "{operation} {client} {server}"
        );
    }
    let mut permitted = refused("write-single-register 40 of unit 1", hmi, trip);
    if let Some(Kind::Operation(event)) = &mut permitted.event.as_mut().unwrap().kind {
        event.decision = Decision::WouldDeny.into();
    }
    let mut sightings = Sightings::default();
    sightings.take(&permitted, &zones());
    assert!(sightings.refused(&zone("safety"), NOW_MS).is_none());
}

#[test]
fn a_source_that_tries_all_day_is_one_that_counts_until_an_hour_after_its_last_attempt_and_many_are_bounded()
{
    let mut sightings = Sightings::default();
    let write = |client: &str| refused("write-single-register 40 of unit 1", client, "10.0.9.7");
    for _ in 0..1000 {
        sightings.take(&write("10.0.1.5"), &zones());
    }
    let seen = sightings
        .refused(&zone("safety"), NOW_MS + COUNTS_MS - 1)
        .unwrap();
    assert_eq!(seen.subjects, BTreeSet::from(["10.0.1.5".to_owned()]));
    assert!(sightings.refused(&zone("safety"), NOW_MS + COUNTS_MS).is_none());
    for number in 0..1000 {
        sightings.take(
            &write(&format!("10.1.{}.{}", number / 250, number % 250)),
            &zones(),
        );
    }
    let seen = sightings.refused(&zone("safety"), NOW_MS).unwrap();
    assert_eq!(seen.subjects.len(), CLIENTS_MAX);
    sightings.forget(&zones(), NOW_MS + COUNTS_MS);
    assert_eq!(sightings, Sightings::default());
}

#[test]
fn a_gap_counts_unless_a_loss_record_accounts_for_it_whichever_comes_first() {
    let gap = |blocks| {
        let event = TrailEvent {
            step: "gap".to_owned(),
            source: "gw-1".to_owned(),
            blocks,
            ..TrailEvent::default()
        };
        record("coordinator/c1", NOW_MS, Kind::Trail(event))
    };
    let loss = |blocks| {
        let event = LossEvent {
            blocks,
            ..LossEvent::default()
        };
        record("gw-1", NOW_MS, Kind::Loss(event))
    };
    for (records, counts) in [
        (vec![gap(3)], true),
        (vec![gap(3), loss(3)], false),
        (vec![loss(3), gap(3)], false),
        (vec![gap(3), loss(2)], true),
        (vec![loss(2), gap(3), loss(1)], false),
    ] {
        let mut sightings = Sightings::default();
        for record in &records {
            sightings.take(record, &zones());
        }
        let seen = sightings.trails(&[gateway()], NOW_MS);
        assert_eq!(seen.is_some(), counts, "{records:?}");
    }
    // What a gateway says of another's trail is no finding.
    let mut sightings = Sightings::default();
    let mut foreign = gap(3);
    foreign.source = "gw-2".to_owned();
    sightings.take(&foreign, &zones());
    assert!(sightings.trails(&[gateway()], NOW_MS).is_none());
}

#[test]
fn what_seals_show_counts_and_nothing_counts_for_longer_because_a_clock_was_ahead() {
    let trail = |step: &str, at_ms| {
        let event = TrailEvent {
            step: step.to_owned(),
            source: "gw-1".to_owned(),
            blocks: 3,
            ..TrailEvent::default()
        };
        record("coordinator/c1", at_ms, Kind::Trail(event))
    };
    for (step, counts) in [
        ("seals", true),
        ("refused", true),
        ("sealed", false),
        ("expired", false),
    ] {
        let mut sightings = Sightings::default();
        sightings.take(&trail(step, NOW_MS), &zones());
        let seen = sightings.trails(&[gateway()], NOW_MS);
        assert_eq!(seen.is_some(), counts, "{step}");
    }
    let mut sightings = Sightings::default();
    let far_ms = NOW_MS + 1000 * COUNTS_MS;
    sightings.take(&trail("gap", far_ms), &zones());
    sightings.take(&trail("seals", far_ms), &zones());
    sightings.forget(&zones(), NOW_MS);
    assert!(sightings.trails(&[gateway()], NOW_MS).is_some());
    sightings.forget(&zones(), NOW_MS + COUNTS_MS);
    assert_eq!(sightings, Sightings::default());
}

#[test]
fn a_loss_of_long_ago_hides_no_gap() {
    let mut sightings = Sightings::default();
    let loss = LossEvent {
        blocks: u64::MAX,
        ..LossEvent::default()
    };
    sightings.take(&record("gw-1", NOW_MS, Kind::Loss(loss)), &zones());
    let later_ms = NOW_MS + COUNTS_MS;
    sightings.forget(&zones(), later_ms);
    let gap = TrailEvent {
        step: "gap".to_owned(),
        source: "gw-1".to_owned(),
        blocks: 1,
        ..TrailEvent::default()
    };
    sightings.take(&record("coordinator/c1", later_ms, Kind::Trail(gap)), &zones());
    assert!(sightings.trails(&[gateway()], later_ms).is_some());
}
