//! Large plants: what each view shows, what it leaves out and says so, and that it is sound.

use std::collections::BTreeSet;

use penstock_policy::model::{ManagementAccess, RemoteAccess};
use penstock_policy::terms::Enforcement;
use proptest::prelude::*;

use super::documents::{Stations, flat, read, stations};
use super::*;

/// Boxes and conduits' cards of the largest sheet that is not asked for as a whole.
const BOXES_MAX: usize = 60;

fn site(name: &str) -> View {
    View::Site(name.parse().unwrap())
}

fn zone(name: &str) -> View {
    View::Zone(name.parse().unwrap())
}

/// Draws it soundly.
fn sound(plant: &Plant, view: &View) -> Scene {
    let scene = scene(plant, view);
    assert_scene_sound(&scene);
    scene
}

/// All words of a scene's blocks.
fn words(scene: &Scene) -> String {
    let blocks = scene.rooms.iter().chain(&scene.cards).chain(&scene.frame);
    let lines = blocks.flat_map(texts).map(|(words, _)| words);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_hundred_equal_stations_are_one_card_with_their_number() {
    let plant = read(stations(100, 20, Stations::Equal));
    let scene = sound(&plant, &View::Fitting);
    let said = words(&scene);
    assert!(said.contains("× 100"), "{said}");
    assert!(said.contains("each 1 zone · 1 gateway · 20 assets"), "{said}");
    assert!(said.contains("100 conduits, 100 flows"), "{said}");
    assert!(said.contains("Overview of 101 sites"), "{said}");
    // The stations, the centre, and the carrier's network, which lies at no site.
    assert_eq!((scene.rooms.len(), scene.cards.len()), (3, 1));
}

#[test]
fn one_station_that_permits_more_than_the_others_is_not_hidden_among_them() {
    let equal = stations(100, 4, Stations::Equal);
    for (what, with) in [
        ("service: modbus-tcp, allow: any", "service: tcp/22"),
        (", must_flow: yes", ""),
        ("source: scada", "source: zone:centre"),
    ] {
        let at = equal.find("  s-0041.watch:").unwrap();
        let (before, after) = equal.split_at(at);
        let plant = read(format!("{before}{}", after.replacen(what, with, 1)));
        let said = words(&scene(&plant, &View::Overview));
        assert!(
            said.contains("× 99") && said.contains("Station 41"),
            "{what}: {said}"
        );
    }
}

#[test]
fn one_station_that_more_people_reach_that_changes_at_another_hour_or_that_a_grant_opens_is_not_hidden_either()
 {
    let equal = read(stations(100, 4, Stations::Equal));
    let said = words(&scene(&equal, &View::Overview));
    assert!(said.contains("\u{d7} 100"), "{said}");
    let id = |name: &str| -> penstock_policy::ids::ConduitId { name.parse().unwrap() };
    let conduit = equal
        .conduits
        .keys()
        .find(|conduit| **conduit == id("s-0041.watch"))
        .unwrap()
        .clone();
    let gateway = equal.conduits[&conduit]
        .via
        .iter()
        .find(|gateway| gateway.as_str().contains("0041"))
        .unwrap()
        .clone();
    type Change<'a> = &'a dyn Fn(&mut Plant);
    let changes: [(&str, Change<'_>); 3] = [
        ("management", &|plant| {
            let management = ManagementAccess {
                interface: "eth9".to_owned(),
                peers: vec!["10.0.0.0/8".parse().unwrap()],
            };
            plant.gateways.get_mut(&gateway).unwrap().management = Some(management);
        }),
        ("time zone", &|plant| {
            let site = plant.gateways[&gateway].site.clone();
            plant.sites.get_mut(&site).unwrap().timezone = "Asia/Tokyo".to_owned();
        }),
        ("grant", &|plant| {
            let grant = RemoteAccess {
                person: "vendor".to_owned(),
                conduit: conduit.clone(),
                reason: "pump".to_owned(),
                from: String::new(),
                until: String::new(),
                from_ms: 1,
                until_ms: 2,
                approved_by: plant.approvers.people.keys().next().unwrap().clone(),
            };
            for other in plant.conduits.values_mut() {
                other.only_by_grant = true;
            }
            plant.remote_access.insert("visit".parse().unwrap(), grant);
        }),
    ];
    for (what, change) in changes {
        let mut plant = equal.clone();
        change(&mut plant);
        let said = words(&scene(&plant, &View::Overview));
        assert!(said.contains("\u{d7} 99"), "{what}: {said}");
    }
}

#[test]
fn one_station_that_is_open_to_another_zone_is_not_equal_to_those_that_are_not() {
    let observing = |text: String| {
        let mut plant = read(text);
        for (id, zone) in &mut plant.zones {
            if id.as_str().starts_with("s-") || id.as_str() == "centre" {
                zone.enforcement = Enforcement::Observe;
            }
        }
        plant
    };
    let equal = observing(stations(30, 4, Stations::Equal));
    let said = words(&scene(&equal, &View::Overview));
    assert!(said.contains("\u{d7} 30"), "{said}");
    // The centre lies behind the carrier's network at each station; at one it no longer does.
    let mut plant = equal;
    let gateway = plant
        .gateways
        .keys()
        .find(|id| id.as_str() == "gw-s-0007")
        .unwrap()
        .clone();
    let sides = &mut plant.gateways.get_mut(&gateway).unwrap().interfaces;
    let mut other = sides
        .values()
        .find(|side| side.zone.as_str() == "s-0007")
        .unwrap()
        .clone();
    other.zone = plant
        .zones
        .keys()
        .find(|id| id.as_str() == "s-0008")
        .unwrap()
        .clone();
    other.addresses.clear();
    sides.insert("eth9".parse().unwrap(), other);
    let said = words(&scene(&plant, &View::Overview));
    assert!(!said.contains("\u{d7} 30"), "{said}");
}

#[test]
fn what_is_left_out_is_true_of_sites_without_a_zone_and_of_conduits_elsewhere() {
    let text = stations(3, 2, Stations::Equal).replace(
        "sites:\n",
        "sites:\n  depot: { title: Depot, timezone: UTC }\n  store: { title: Store, timezone: UTC }\n",
    );
    let plant = read(text);
    let overview = words(&scene(&plant, &View::Overview));
    assert!(
        overview.contains("2 sites have no zone of their own, and no card (depot, store)."),
        "{overview}"
    );
    let one = words(&scene(&plant, &site("s-0001")));
    assert!(
        one.contains("2 conduits that neither begin nor end in it."),
        "{one}"
    );
    let none = words(&scene(&plant, &site("depot")));
    assert!(none.contains("No zone lies at this site alone"), "{none}");
    assert!(
        none.contains("One site has no zone of its own, and no card (store)."),
        "{none}"
    );
}

#[test]
fn the_description_says_what_observes_and_what_is_not_as_it_should_be() {
    let mut plant = read(stations(3, 2, Stations::Equal));
    for zone in plant.zones.values_mut() {
        zone.enforcement = Enforcement::Observe;
    }
    let said = scene(&plant, &View::Whole).description;
    assert!(said.contains("Zone centre (operations, SL-T 2, "), "{said}");
    assert!(said.contains(", observes only"), "{said}");
    assert!(said.contains("It observes only"), "{said}");
    // However many zones lie beside one, a tooltip names some.
    let mut plant = read(stations(60, 1, Stations::Equal));
    for zone in plant.zones.values_mut() {
        zone.enforcement = Enforcement::Observe;
    }
    let svg = draw(&plant, None, &View::Whole).svg;
    assert!(
        svg.contains("s-0004 and 55 more passes"),
        "no tooltip is shortened"
    );
    let longest = svg
        .split("<title>")
        .skip(1)
        .map(|rest| rest.split("</title>").next().unwrap().len())
        .max();
    assert!(longest < Some(1000), "{longest:?}");
}

#[test]
fn names_titles_and_addresses_alone_make_no_station_another_one() {
    let text = stations(30, 4, Stations::Equal);
    let text = text
        .replace("s-0007", "mill-lane")
        .replace("Station 7,", "Mill Lane,");
    let said = words(&scene(&read(text), &View::Overview));
    assert!(said.contains("× 30"), "{said}");
}

#[test]
fn stations_that_all_differ_stand_in_a_list_in_which_each_is_named() {
    let plant = read(stations(300, 9, Stations::Different));
    let scene = sound(&plant, &View::Fitting);
    let said = words(&scene);
    assert!(scene.rooms.len() + scene.cards.len() <= BOXES_MAX);
    for n in 0..300 {
        assert!(said.contains(&format!("Station {n}")), "station {n} is missing");
    }
}

#[test]
fn one_site_shows_its_zones_and_what_they_lead_to_and_says_what_is_left_out() {
    let plant = read(stations(200, 9, Stations::Different));
    let said = words(&sound(&plant, &site("s-0003")));
    assert!(said.contains("Site s-0003: Station 3"), "{said}");
    for shown in ["Station 3", "Shutdown 3", "Control centre", "s-0003.a0"] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    assert!(!said.contains("s-0004.a0"), "{said}");
    assert!(
        said.contains("Not drawn: 199 sites that no conduit joins with it (s-0000, s-0001"),
        "{said}"
    );
    let centre = sound(&plant, &site("centre"));
    assert!(centre.rooms.len() + centre.cards.len() <= BOXES_MAX);
}

#[test]
fn one_zone_shows_its_neighbours_and_says_what_is_left_out() {
    let plant = read(stations(200, 9, Stations::Different));
    let said = words(&sound(&plant, &zone("s-0003-sis")));
    assert!(
        said.contains("Shutdown 3") && said.contains("Station 3"),
        "{said}"
    );
    assert!(!said.contains("Control centre"), "{said}");
    assert!(said.contains("zones that no conduit joins with it"), "{said}");
    let hub = sound(&plant, &zone("centre"));
    assert!(hub.rooms.len() + hub.cards.len() <= BOXES_MAX);
    assert!(words(&hub).contains("Its 200 neighbours are drawn as cards"));
}

#[test]
fn a_site_with_very_many_zones_has_an_overview_of_zones() {
    let plant = read(flat(300));
    let scene = sound(&plant, &View::Fitting);
    assert!(scene.rooms.len() <= BOXES_MAX, "{}", scene.rooms.len());
    let said = words(&scene);
    assert!(said.contains("Overview of 300 zones"), "{said}");
    for n in 0..300 {
        assert!(said.contains(&format!("Cell {n}")), "cell {n} is missing");
    }
}

#[test]
fn everything_on_one_sheet_is_sound_where_wires_have_to_run_beside_the_rows() {
    for plant in [read(flat(150)), read(stations(120, 3, Stations::Different))] {
        let scene = sound(&plant, &View::Whole);
        assert_eq!(scene.rooms.len(), plant.zones.len());
        assert_eq!(scene.cards.len(), plant.conduits.len());
        // Some share a trunk: they meet their box at one place.
        let ends = scene.wires.iter().map(|(wire, _)| wire.points.last().unwrap());
        let ends: Vec<String> = ends.map(|end| format!("{end:?}")).collect();
        assert!(ends.iter().collect::<BTreeSet<_>>().len() < ends.len());
    }
}

#[test]
fn one_more_asset_moves_no_room_to_another_row_or_order() {
    let plant = large();
    let order = |plant: &Plant| {
        let mut rooms: Vec<(i64, i64, String)> = scene(plant, &View::Whole)
            .rooms
            .into_iter()
            .map(|placed| (placed.y as i64, placed.x as i64, placed.block.title))
            .collect();
        rooms.sort();
        let names = rooms
            .iter()
            .map(|(_, _, title)| title.split(':').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let mut more = plant.clone();
    let mut asset = more.assets.values().next().unwrap().clone();
    asset.addresses.clear();
    more.assets.insert("one-more".parse().unwrap(), asset);
    assert_eq!(order(&plant), order(&more));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn every_view_of_any_plant_is_sound(plant in penstock_policy::arbitrary::plants()) {
        assert_scene_sound(&scene(&plant, &View::Overview));
        for id in plant.sites.keys() {
            assert_scene_sound(&scene(&plant, &View::Site(id.clone())));
        }
        for id in plant.zones.keys() {
            assert_scene_sound(&scene(&plant, &View::Zone(id.clone())));
        }
    }

    #[test]
    fn the_overview_of_plants_of_all_shapes_is_sound(plant in plants()) {
        assert_scene_sound(&scene(&plant, &View::Overview));
        for id in plant.zones.keys().take(3) {
            assert_scene_sound(&scene(&plant, &View::Zone(id.clone())));
        }
    }
}
