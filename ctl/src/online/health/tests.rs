use super::*;
use penstock_proto::v1::{FlowsByAssurance, ZoneHealth};

fn view(state: ZoneState) -> Health {
    let zone = ZoneHealth {
        zone: "control".into(),
        state: state as i32,
        reasons: vec!["gw-a was last heard 3 min ago".into()],
        gateways: vec!["gw-a".into()],
        assurance: vec![FlowsByAssurance {
            assurance: "D0".into(),
            flows: 2,
        }],
        denied_flows: 1,
    };
    Health::of(
        "riverside",
        PlantHealth {
            time_ms: 1,
            current_revision: 2,
            zones: vec![zone],
            ..PlantHealth::default()
        },
    )
}

#[test]
fn only_what_changed_is_said_again() {
    let (before, same, after) = (
        view(ZoneState::Enforcing),
        view(ZoneState::Enforcing),
        view(ZoneState::Stale),
    );
    let all = HealthFilter::default();
    assert_eq!(same.changes(Some(&before), &all).count(), 0);
    assert_eq!(after.changes(Some(&before), &all).count(), 1);
    assert_eq!(before.changes(None, &all).count(), 1);
}

#[test]
fn a_zone_that_was_grave_is_said_to_be_well_again_and_one_that_never_was_is_not_said() {
    let (well, bad) = (view(ZoneState::Enforcing), view(ZoneState::Stale));
    let grave = HealthFilter {
        gravity_min: gravity("degraded"),
        ..HealthFilter::default()
    };
    assert_eq!(well.changes(None, &grave).count(), 0);
    assert_eq!(bad.changes(Some(&well), &grave).count(), 1);
    let again: Vec<&str> = well
        .changes(Some(&bad), &grave)
        .map(|zone| zone.state.as_str())
        .collect();
    assert_eq!(again, ["enforcing"]);
}

#[test]
fn a_fault_of_the_coordinator_is_said_when_it_begins_and_when_it_ends() {
    let fault = |message: &str| CoordinatorFault {
        code: "disk-full".to_owned(),
        message: message.to_owned(),
    };
    let (well, mut bad, mut worse) = (
        view(ZoneState::Enforcing),
        view(ZoneState::Enforcing),
        view(ZoneState::Enforcing),
    );
    bad.coordinator.push(fault("10 MiB are free"));
    worse.coordinator.push(fault("none is free"));
    let changes = |now: &Health, before: &Health| -> Vec<(bool, String)> {
        now.fault_changes(Some(before))
            .map(|(begun, fault)| (begun, fault.message.clone()))
            .collect()
    };
    assert_eq!(changes(&bad, &well), [(true, "10 MiB are free".to_owned())]);
    assert_eq!(changes(&worse, &bad), [(true, "none is free".to_owned())]);
    assert_eq!(changes(&well, &worse), [(false, "none is free".to_owned())]);
    assert!(changes(&bad, &bad).is_empty());
}

#[test]
fn what_holds_for_the_whole_plant_is_shown_said_once_when_it_begins_and_once_when_it_ends() {
    let calm = view(ZoneState::Enforcing);
    let mut stopped = calm.clone();
    stopped.notes.push("anna stopped the line (CHG-1)".to_owned());
    let changes = |now: &Health, before: &Health| -> Vec<(bool, String)> {
        let changes = now.note_changes(Some(before));
        changes.map(|(begun, note)| (begun, note.to_owned())).collect()
    };
    let note = || stopped.notes[0].clone();
    assert_eq!(changes(&stopped, &calm), [(true, note())]);
    assert!(changes(&stopped, &stopped).is_empty());
    assert_eq!(changes(&calm, &stopped), [(false, note())]);
    let mut page = Page::new(crate::output::Style {
        color: false,
        width: 80,
        wrap: true,
    });
    stopped.page(&mut page);
    let page = page.finish();
    assert!(page.contains("▲ anna stopped the line (CHG-1)"), "{page}");
    assert!(stopped.is_well(), "nothing is wrong");
}

#[test]
fn a_state_that_is_not_known_here_is_not_well() {
    let mut strange = view(ZoneState::Enforcing);
    assert!(strange.is_well());
    for zone in &mut strange.zones {
        zone.state = "unknown".to_owned();
    }
    assert!(!strange.is_well());
    assert!(!view(ZoneState::Unspecified).is_well() && !view(ZoneState::Degraded).is_well());
}
