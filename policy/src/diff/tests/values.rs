//! What an approver sees of a change: what it was, what it becomes, and whether it opens something.

use super::{diff, flow, gateway, id, said, waterworks};
use crate::change::Condition;
use crate::model::{Gateway, ManagementAccess, Plant, SafeToChange, Window};

/// The change of the works' gateway, in words.
fn of_gateway(change: impl FnOnce(&mut Gateway)) -> String {
    let text = said(|plant: &mut Plant| change(plant.gateways.get_mut(&gateway()).unwrap()));
    text.lines().next().unwrap_or_default().to_owned()
}

fn peers(gateway: &mut Gateway, peers: &[&str]) {
    gateway.management.as_mut().unwrap().peers = peers.iter().map(|peer| id(peer)).collect();
}

#[test]
fn management_that_opens_to_more_peers_is_widened_and_shown_before_and_after() {
    assert_eq!(
        of_gateway(|gateway| peers(gateway, &["192.0.2.0/24"])),
        "gateway gw-works widened: management: by eth0 from 192.0.2.0/24 (was by eth0 from 192.0.2.10)"
    );
    assert_eq!(
        of_gateway(|gateway| peers(gateway, &["192.0.2.11/32"])),
        "gateway gw-works altered: management: by eth0 from 192.0.2.11 (was by eth0 from 192.0.2.10)"
    );
    assert_eq!(
        of_gateway(|gateway| gateway.management = None),
        "gateway gw-works narrowed: can no longer be reached over the network (was: by eth0 from 192.0.2.10)"
    );
    assert_eq!(
        of_gateway(|gateway| {
            gateway.management = Some(ManagementAccess {
                interface: "eth7".to_owned(),
                peers: gateway.management.take().unwrap().peers,
            });
        }),
        "gateway gw-works altered: management: by eth7 from 192.0.2.10 (was by eth0 from 192.0.2.10)"
    );
}

#[test]
fn every_change_of_a_gateway_shows_its_values() {
    assert_eq!(
        of_gateway(|gateway| {
            gateway.windows = vec![Window {
                weekday: 0,
                start_minute: 120,
                end_minute: 240,
            }];
        }),
        "gateway gw-works narrowed: may be changed: Mon 02:00-04:00 (was: at any time)"
    );
    assert_eq!(
        of_gateway(|gateway| gateway.interfaces.get_mut("eth1").unwrap().behind = vec![id("safety")]),
        "gateway gw-works altered: interfaces eth1 behind: safety (was none)"
    );
}

#[test]
fn the_same_connections_by_a_vaguer_service_are_shown_as_such() {
    let text = said(|plant| {
        let polling = flow(plant, "control-room-to-pumps", "polling");
        polling.service.name = "tcp/502".to_owned();
        polling.service.protocol = None;
        polling.operations = None;
    });
    assert!(
        text.starts_with("flow control-room-to-pumps/polling widened: anything is permitted (before: only "),
        "{text}"
    );
    assert!(text.contains("service: tcp/502 (was modbus-tcp)"), "{text}");
}

#[test]
fn the_plant_itself_and_its_people_are_shown_before_and_after() {
    let text = said(|plant| {
        plant.title = "Water".to_owned();
        plant.owner = Some(crate::model::Owner {
            organisation: "Works".to_owned(),
            contact: None,
        });
        plant.approvers.people.values_mut().next().unwrap().role = Some("operations".to_owned());
    });
    for words in [
        "plant recorded: title: Water (was ",
        "owner: ",
        "role of a.silva: operations (was none)",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// The works, whose gateway has addresses and asks for this coil.
fn asking(coil: Option<u16>) -> Plant {
    let mut plant = waterworks();
    let gateway = plant.gateways.get_mut(&gateway()).unwrap();
    gateway.interfaces.get_mut("eth3").unwrap().addresses = vec![id("10.20.4.1/24")];
    gateway.safe_to_change = coil.map(|coil| SafeToChange {
        asset: id("plc-7"),
        port: 502,
        condition: Condition::Coil {
            unit: 1,
            coil,
            is: true,
        },
    });
    plant
}

#[test]
fn leave_to_change_that_is_given_or_taken_away_is_shown_with_what_was_and_what_comes() {
    let said = |old: &Plant, new: &Plant| {
        let text = diff(Some(old), new).unwrap().to_string();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let with = |plant: &Plant, windows: &[(u8, u16, u16)]| {
        let mut plant = plant.clone();
        let windows = windows.iter().map(|(weekday, start_minute, end_minute)| Window {
            weekday: *weekday,
            start_minute: *start_minute,
            end_minute: *end_minute,
        });
        plant.gateways.get_mut(&gateway()).unwrap().windows = windows.collect();
        plant
    };
    let (quiet, asks) = (asking(None), asking(Some(12)));
    assert_eq!(
        said(&quiet, &asks),
        "gateway gw-works narrowed: safe to change: coil 12 (unit 1) is on at plc-7 (was: nothing is asked)"
    );
    assert_eq!(
        said(&asks, &quiet),
        "gateway gw-works widened: safe to change: nothing is asked (was: coil 12 (unit 1) is on at plc-7)"
    );
    assert_eq!(
        said(&asks, &asking(Some(13))),
        "gateway gw-works altered: safe to change: coil 13 (unit 1) is on at plc-7 (was: coil 12 (unit 1) is on at plc-7)"
    );
    let sunday = with(&quiet, &[(6, 120, 240)]);
    assert_eq!(
        said(&sunday, &with(&quiet, &[(6, 120, 180)])),
        "gateway gw-works narrowed: may be changed: Sun 02:00-03:00 (was: Sun 02:00-04:00)"
    );
    assert_eq!(
        said(&sunday, &with(&quiet, &[(6, 180, 300)])),
        "gateway gw-works altered: may be changed: Sun 03:00-05:00 (was: Sun 02:00-04:00)"
    );
    assert_eq!(
        said(&sunday, &quiet),
        "gateway gw-works widened: may be changed: at any time (was: Sun 02:00-04:00)"
    );
    // The same minutes, written as two windows: nothing that anyone would notice.
    let written_as_two = said(&sunday, &with(&quiet, &[(6, 120, 180), (6, 180, 240)]));
    assert!(
        written_as_two.starts_with("gateway gw-works recorded: "),
        "{written_as_two}"
    );
}

#[test]
fn another_clock_of_a_site_is_another_time_to_change_for_gateways_with_windows() {
    let moved = |windows: Vec<Window>| {
        let mut old = waterworks();
        old.gateways.get_mut(&gateway()).unwrap().windows = windows;
        let mut new = old.clone();
        new.sites.values_mut().next().unwrap().timezone = "UTC".to_owned();
        diff(Some(&old), &new).unwrap()
    };
    let text = moved(vec![Window {
        weekday: 6,
        start_minute: 120,
        end_minute: 240,
    }]);
    let change = text.changes.first().unwrap();
    assert_eq!(change.effect, crate::diff::Effect::Altered, "{text}");
    assert!(
        change.details[0].contains("by which the change windows of gw-works are read"),
        "{text}"
    );
    assert_eq!(text.touched().count(), 1);
    let text = moved(Vec::new());
    assert_eq!(
        text.changes.first().unwrap().effect,
        crate::diff::Effect::Recorded
    );
    assert_eq!(text.touched().count(), 0);
}
