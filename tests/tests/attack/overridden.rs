//! What an override that observes opens of a bridged gateway's neighbours: the ends that it names, and nothing else of their sides.

use penstock_policy::overrides::{Effect, overridden};
use penstock_policy::plan::Plan;
use penstock_policy::verdict::Carried;

use super::learning::{claims, datagram, declared, learned};
use super::neighbours::{ALL, arp, bridged, discovery};
use super::plans::SIDES;
use super::table::{Attempt, Must, attempt, hold};
use super::wire::{Mac, Part, Probe};
use super::world::World;

/// The device that the override is for, one beside it that it does not name, and whom it may speak with.
const NEW: [u8; 4] = [10, 2, 0, 50];
const NEW_MAC: Mac = [2, 0, 0, 0, 8, 1];
const OTHER_MAC: Mac = [2, 0, 0, 0, 8, 2];
const DESK: [u8; 4] = [10, 3, 0, 7];

const FORTH: (&str, &str) = ("lan2", "lan3");
const BACK: (&str, &str) = ("lan3", "lan2");

/// The same plan, where nothing is refused between these two.
fn observed(plan: &Plan, one: &str, other: &str) -> Plan {
    let effect = Effect::Observe {
        one: one.parse().unwrap(),
        other: other.parse().unwrap(),
    };
    let plan = overridden(plan, &[effect]);
    assert!(!plan.excepted.is_empty());
    plan
}

/// From an address of side 2 to the desk.
fn sent(world: &World, source: &str, mac: Mac, number: u16) -> Vec<u8> {
    let probe = Probe {
        source: source.parse().unwrap(),
        destination: DESK.into(),
        transport: Carried::Udp(4050),
        number,
        dscp: 0,
    };
    let mut frame = super::table::carried(world, FORTH, &probe.packet(Part::Opening));
    frame[6..12].copy_from_slice(&mac);
    frame
}

/// What stays refused on the sides of an override's ends.
fn still_refused(world: &World) -> Vec<Attempt> {
    let [_, two, three] = SIDES.map(|side| world.sides[side].mac);
    let other = [2, 0, 0, 0, 7, 9];
    let [another, another6] = claims(
        world,
        Must::Stop("which the document declares to have"),
        Must::Stop("another MAC address than its own"),
    );
    vec![
        attempt(
            "a device beside it that is not named",
            FORTH,
            sent(world, "10.2.0.51", OTHER_MAC, 11),
            Must::Stop("no flow permits it"),
        ),
        attempt(
            "a frame of another type",
            FORTH,
            [&three[..], &[2, 0, 0, 0, 8, 3], &[0x88, 0x92], &[7; 60]].concat(),
            Must::Stop("0x8892"),
        ),
        another,
        another6,
        attempt(
            "ARP of the device with 1,400 bytes",
            FORTH,
            arp((NEW_MAC, ALL), 1, NEW_MAC, NEW, DESK, 1400),
            Must::Stop("could carry data"),
        ),
        attempt(
            "the device names another MAC than the one that it sends from",
            FORTH,
            arp((NEW_MAC, ALL), 1, other, NEW, DESK, 46),
            Must::Stop("another MAC address than its own"),
        ),
        attempt(
            "a router advertisement",
            BACK,
            discovery(
                (three, two),
                "fe80::7",
                "ff02::1",
                134,
                &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            Must::Stop("no router of that address is declared"),
        ),
    ]
}

#[test]
fn an_override_that_observes_opens_the_ends_that_it_names_and_no_neighbour_check_of_their_sides() {
    bridged(
        "overridden::an_override_that_observes_opens_the_ends_that_it_names_and_no_neighbour_check_of_their_sides",
        async |world, mut agent| {
            let three = world.sides["lan3"].mac;
            let plan = declared(world);
            agent.apply(&plan, 1).await;
            let refused = [attempt(
                "a device that nobody named",
                FORTH,
                sent(world, "10.2.0.50", NEW_MAC, 1),
                Must::Stop("no flow permits it"),
            )];
            hold(world, &mut agent, &refused).await;
            assert_eq!(learned(world, NEW_MAC), None);
            agent
                .apply(&observed(&plan, "10.2.0.50/32", "10.3.0.7/32"), 1)
                .await;
            let passing = [
                attempt(
                    "it asks for the desk",
                    FORTH,
                    arp((NEW_MAC, ALL), 1, NEW_MAC, NEW, DESK, 46),
                    Must::PassTold("no flow joins"),
                ),
                attempt(
                    "the desk answers",
                    BACK,
                    arp((three, NEW_MAC), 2, three, DESK, NEW, 46),
                    Must::PassTold("no flow joins"),
                ),
                attempt(
                    "it sends to the desk",
                    FORTH,
                    sent(world, "10.2.0.50", NEW_MAC, 2),
                    Must::PassTold("no flow permits it"),
                ),
            ];
            hold(world, &mut agent, &passing).await;
            assert_eq!(learned(world, NEW_MAC).as_deref(), Some("lan2"));
            hold(world, &mut agent, &still_refused(world)).await;
            assert_eq!(learned(world, OTHER_MAC), None);
            // What the flows permit goes on.
            let flow = ("lan1", "lan2");
            let through = [attempt(
                "a client",
                flow,
                datagram(world, flow, "10.1.0.6", [2, 0, 0, 0, 8, 4], 3),
                Must::Pass,
            )];
            hold(world, &mut agent, &through).await;
            agent.apply(&plan, 1).await;
            let over = [attempt(
                "when it is over",
                FORTH,
                sent(world, "10.2.0.50", NEW_MAC, 4),
                Must::Stop("no flow permits it"),
            )];
            hold(world, &mut agent, &over).await;
        },
    );
}

#[test]
fn a_named_end_may_have_another_mac_address_than_it_is_declared_to_have_and_that_is_recorded() {
    bridged(
        "overridden::a_named_end_may_have_another_mac_address_than_it_is_declared_to_have_and_that_is_recorded",
        async |world, mut agent| {
            let plan = declared(world);
            let (declared, own) = (
                "which the document declares to have",
                "another MAC address than its own",
            );
            agent
                .apply(&observed(&plan, "10.2.0.9/32", "10.3.0.7/32"), 1)
                .await;
            // Only the address that is named.
            let rows = claims(world, Must::PassTold(declared), Must::Stop(own));
            hold(world, &mut agent, &rows).await;
            agent
                .apply(&observed(&plan, "fd00:2::9/128", "fd00:3::7/128"), 1)
                .await;
            let rows = claims(world, Must::Stop(declared), Must::PassTold(own));
            hold(world, &mut agent, &rows).await;
        },
    );
}
