//! What an approver sees of a change: what it was, what it becomes, and whether it opens something.

use super::{flow, gateway, id, said};
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
        of_gateway(|gateway| {
            gateway.safe_to_change = Some(SafeToChange {
                asset: id("plc-7"),
                port: 502,
                condition: Condition::Coil {
                    unit: 1,
                    coil: 12,
                    is: true,
                },
            });
        }),
        "gateway gw-works narrowed: safe to change: coil 12 (unit 1) is on at plc-7 (was: nothing is asked)"
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
