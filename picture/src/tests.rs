//! What must hold of every picture, for plants of all shapes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::*;
use penstock_policy::model::*;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::*;
use penstock_policy::terms::{PortRange, Transport};
use proptest::prelude::*;

use super::scene::{PositionedBlock, Scene};
use super::shape::{Area, Shape};
use super::*;

#[path = "../benches/picture/documents.rs"]
mod documents;
mod marks;
mod views;

const KINDS: [ZoneKind; 9] = [
    ZoneKind::Enterprise,
    ZoneKind::Dmz,
    ZoneKind::Operations,
    ZoneKind::Control,
    ZoneKind::Safety,
    ZoneKind::Wireless,
    ZoneKind::RemoteAccess,
    ZoneKind::Transient,
    ZoneKind::External,
];

/// A plant with zones of these kinds, so many assets in each, and conduits between the zones so numbered.
pub(crate) fn plant(title: &str, zones: &[(ZoneKind, usize)], conduits: &[(usize, usize, usize)]) -> Plant {
    let zone_id = |n: usize| ZoneId::new(format!("zone-{n}")).unwrap();
    let mut plant = Plant {
        id: PlantId::new("example").unwrap(),
        title: title.to_owned(),
        owner: Some(Owner {
            organisation: title.to_owned(),
            contact: Some("ot@example.org".into()),
        }),
        approvers: ApproverSet {
            emergency_threshold: None,
            threshold: 1,
            people: BTreeMap::new(),
        },
        sites: BTreeMap::new(),
        gateways: BTreeMap::new(),
        zones: BTreeMap::new(),
        assets: BTreeMap::new(),
        conduits: BTreeMap::new(),
        remote_access: BTreeMap::new(),
        break_glass: None,
        compensating_controls: BTreeMap::new(),
        risk: Vec::new(),
        accepted: Vec::new(),
    };
    let level = |n: usize| (n % 5) as u8;
    for (n, (kind, assets)) in zones.iter().enumerate() {
        let vector = SlVector {
            iac: level(n),
            uc: level(n + 1),
            si: level(n),
            dc: level(n),
            rdf: level(n),
            tre: level(n),
            ra: 1,
        };
        plant.zones.insert(
            zone_id(n),
            Zone {
                title: format!("{title} {n}"),
                kind: *kind,
                parent: (n > 3).then(|| zone_id(0)),
                sl_target: (n % 4 != 3).then_some(vector),
                networks: vec![format!("10.{n}.0.0/16").parse().unwrap()],
                consequence: None,
                accountable: Some(title.to_owned()),
                boundary: None,
                requirements: Vec::new(),
                assumptions: Vec::new(),
                enforcement: if n % 3 == 2 {
                    Enforcement::Observe
                } else {
                    Enforcement::Enforce
                },
            },
        );
        for a in 0..*assets {
            plant.assets.insert(
                AssetId::new(format!("asset-{n}-{a}-with-a-name")).unwrap(),
                Asset {
                    title: None,
                    tag: None,
                    zone: zone_id(n),
                    addresses: vec![format!("10.{n}.0.{}", a + 1).parse().unwrap()],
                    mac: None,
                    role: Some(["plc", "hmi", "historian", "flow sensor"][a % 4].to_owned()),
                    vendor: None,
                    model: None,
                    firmware: None,
                    criticality: (a % 3 == 0).then(|| "high".to_owned()),
                    sl_capability: None,
                    identity: None,
                },
            );
        }
    }
    for (n, (from, to, flows)) in conduits.iter().enumerate() {
        let (from, to) = (from % zones.len(), to % zones.len());
        if from == to {
            continue;
        }
        let flows = (0..*flows).map(|f| {
            let service = [
                ("modbus-tcp", 502),
                ("tcp/44818", 44818),
                ("mqtt", 1883),
                ("opc-ua", 4840),
            ][f % 4];
            let service = Service {
                name: service.0.to_owned(),
                protocol: None,
                transport: Transport::Tcp(vec![PortRange::single(service.1 + (f / 4) as u16)]),
            };
            let flow = Flow {
                title: None,
                sources: vec![FlowEnd::Zone(
                    zone_id(from),
                    plant.zones[&zone_id(from)].networks.clone(),
                )],
                destinations: vec![FlowEnd::Zone(
                    zone_id(to),
                    plant.zones[&zone_id(to)].networks.clone(),
                )],
                operations: (f % 2 == 0).then(|| Operations::from(Vec::<MqttOperation>::new())),
                must_flow: (n + f) % 3 == 0,
                on_refusal: penstock_policy::terms::OnRefusal::default(),
                roles: None,
                answers: penstock_policy::terms::Answers::Strict,
                tls: (f % 4 == 2).then(Default::default),
                bridge_source: (f % 5 == 4).then(|| BridgeSource {
                    service: service.clone(),
                    tls: None,
                }),
                service,
            };
            (FlowName::new(format!("flow-{f}")).unwrap(), flow)
        });
        plant.conduits.insert(
            ConduitId::new(format!("conduit-{n}")).unwrap(),
            Conduit {
                title: if n % 2 == 0 {
                    format!("{title} watched and steered")
                } else {
                    format!("conduit-{n}")
                },
                from: zone_id(from),
                to: zone_id(to),
                via: (0..n % 4)
                    .map(|g| GatewayId::new(format!("gw-{g}")).unwrap())
                    .collect::<BTreeSet<_>>(),
                enforced_by: penstock_policy::model::Enforcer::default(),
                sl_target: None,
                on_agent_loss: if n % 2 == 0 {
                    OnAgentLoss::Pass
                } else {
                    OnAgentLoss::Block
                },
                tunnel: n % 3 == 0,
                only_by_grant: n % 5 == 0,
                minimum_assurance: None,
                accountable: None,
                flows: flows.collect(),
                frames: BTreeMap::new(),
            },
        );
    }
    plant
}

/// All texts of a block with what they cover, at the block's place.
fn texts(placed: &PositionedBlock) -> Vec<(String, Area)> {
    placed
        .block
        .shapes
        .iter()
        .filter_map(|shape| match shape {
            Shape::Text(line) => Some((line.content.clone(), line.bounds().moved(placed.x, placed.y))),
            _ => None,
        })
        .collect()
}

fn area(placed: &PositionedBlock) -> Area {
    Area::new(placed.x, placed.y, placed.block.w, placed.block.h)
}

/// The scene of a view.
fn scene(plant: &Plant, view: &View) -> Scene {
    let plans = compile_all(plant).unwrap_or_default();
    scene::compose(plant, &plans, Some(&Digest::of(b"x")), view)
}

/// Draws every zone and every conduit, and holds it against every rule of the module's documentation.
fn assert_sound(plant: &Plant) {
    let scene = scene(plant, &View::Whole);
    assert_eq!(scene.rooms.len(), plant.zones.len());
    assert_eq!(scene.cards.len(), plant.conduits.len());
    assert_scene_sound(&scene);
}

/// Every rule of the module's documentation.
fn assert_scene_sound(scene: &Scene) {
    let view = Area::new(0.0, 0.0, scene.w, scene.h);
    assert_eq!(scene.wires.len(), 2 * scene.cards.len());

    let boxes: Vec<Area> = scene.rooms.iter().chain(&scene.cards).map(area).collect();
    for (at, a) in boxes.iter().enumerate() {
        for b in &boxes[at + 1..] {
            assert!(!a.overlaps(b), "boxes overlap: {a:?} {b:?}");
        }
    }
    for placed in scene
        .rooms
        .iter()
        .chain(&scene.cards)
        .chain(&scene.frame)
        .chain(&scene.bands)
    {
        assert!(
            view.holds(&area(placed)),
            "{} leaves the picture",
            placed.block.title
        );
    }
    for placed in scene.rooms.iter().chain(&scene.cards).chain(&scene.frame) {
        let lines = texts(placed);
        for (at, (words, a)) in lines.iter().enumerate() {
            assert!(
                area(placed).holds(a),
                "`{words}` leaves its box: {a:?} in {:?}",
                area(placed)
            );
            for (other, b) in &lines[at + 1..] {
                assert!(!a.overlaps(b), "`{words}` touches `{other}`: {a:?} {b:?}");
            }
        }
    }
    assert_wires_apart(scene, &view, &boxes);
}

/// Whose it is (gate, and where it meets its box), whether it is vertical, the line that it runs on, from, to.
type Segment = ((usize, (f64, f64)), bool, f64, f64, f64);

/// No wire crosses a box, leaves the picture, or runs upon one that does not share its trunk, and so meets the box at the same place.
fn assert_wires_apart(scene: &Scene, view: &Area, boxes: &[Area]) {
    let mut segments: Vec<Segment> = Vec::new();
    for (wire, _) in &scene.wires {
        for pair in wire.points.windows(2) {
            let ((x1, y1), (x2, y2)) = (pair[0], pair[1]);
            assert!(x1 == x2 || y1 == y2, "a wire runs aslant: {pair:?}");
            let run = Area::new(x1.min(x2), y1.min(y2), (x1 - x2).abs(), (y1 - y2).abs());
            assert!(view.holds(&run));
            for a in boxes {
                // Ends touch the edge of their box; nothing goes inside.
                let inside = Area::new(a.x + 0.1, a.y + 0.1, a.w - 0.2, a.h - 0.2);
                assert!(
                    !inside.overlaps(&run),
                    "a wire of gate {} crosses a box: {run:?} {a:?}",
                    wire.gate
                );
            }
            let who = (wire.gate, *wire.points.last().unwrap());
            if x1 == x2 {
                segments.push((who, true, x1, run.y, run.y + run.h));
            } else {
                segments.push((who, false, y1, run.x, run.x + run.w));
            }
        }
    }
    for (at, a) in segments.iter().enumerate() {
        for b in &segments[at + 1..] {
            let upon = a.1 == b.1 && (a.2 - b.2).abs() < 1.0 && a.3 < b.4 - 0.1 && b.3 < a.4 - 0.1;
            let one = a.0.0 == b.0.0 || a.0.1 == b.0.1;
            assert!(!upon || one, "wires lie upon one another: {a:?} {b:?}");
        }
    }
}

fn plants() -> impl Strategy<Value = Plant> {
    (
        proptest::collection::vec((0..9_usize, 0..24_usize), 1..14),
        proptest::collection::vec((0..14_usize, 0..14_usize, 1..9_usize), 0..32),
        "[A-Za-zäß<&\"' 漢]{0,60}",
    )
        .prop_map(|(zones, conduits, title)| {
            let zones: Vec<_> = zones
                .into_iter()
                .map(|(kind, assets)| (KINDS[kind], assets))
                .collect();
            plant(&title, &zones, &conduits)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 3))]
    #[test]
    fn no_picture_overlaps_overflows_or_lies_outside_its_view_box(plant in plants()) {
        assert_sound(&plant);
    }

    #[test]
    fn the_same_plant_gives_the_same_bytes(plant in plants()) {
        prop_assert_eq!(draw(&plant, None, &View::Whole), draw(&plant.clone(), None, &View::Whole));
    }

    #[test]
    fn every_picture_is_well_formed_and_no_name_becomes_markup(plant in plants()) {
        let svg = draw(&plant, None, &View::Whole).svg;
        let mut open: Vec<String> = Vec::new();
        let mut rest = svg.as_str();
        while let Some(at) = rest.find('<') {
            let end = rest[at..].find('>').unwrap() + at;
            let tag = &rest[at + 1..end];
            if let Some(name) = tag.strip_prefix('/') {
                prop_assert_eq!(open.pop(), Some(name.to_owned()));
            } else if !tag.ends_with('/') {
                let name = tag.split([' ', '\n']).next().unwrap();
                prop_assert!(["svg", "g", "title", "desc", "style", "text"].contains(&name), "<{}>", tag);
                open.push(name.to_owned());
            }
            rest = &rest[end + 1..];
        }
        prop_assert!(open.is_empty());
    }
}

/// A plant with as many zones and conduits as one still likes to see on one page.
pub(crate) fn large() -> Plant {
    let zones = [
        (ZoneKind::External, 1),
        (ZoneKind::Enterprise, 3),
        (ZoneKind::Dmz, 3),
        (ZoneKind::RemoteAccess, 1),
        (ZoneKind::Operations, 6),
        (ZoneKind::Wireless, 2),
        (ZoneKind::Control, 5),
        (ZoneKind::Control, 4),
        (ZoneKind::Control, 9),
        (ZoneKind::Control, 2),
        (ZoneKind::Safety, 1),
        (ZoneKind::Safety, 2),
    ];
    let conduits = [
        (1, 2, 2),
        (0, 3, 1),
        (3, 2, 1),
        (2, 4, 3),
        (4, 2, 1),
        (1, 4, 1),
        (4, 6, 2),
        (4, 7, 4),
        (4, 8, 1),
        (4, 9, 2),
        (5, 6, 1),
        (5, 9, 1),
        (6, 7, 1),
        (7, 8, 2),
        (8, 9, 1),
        (6, 4, 1),
        (7, 4, 2),
        (8, 4, 1),
        (9, 4, 1),
        (6, 10, 1),
        (7, 10, 1),
        (8, 11, 2),
        (9, 11, 1),
        (4, 10, 1),
        (4, 11, 1),
        (2, 3, 1),
        (3, 9, 1),
        (10, 11, 1),
        (1, 5, 1),
        (2, 5, 5),
    ];
    plant("Filter and pump control", &zones, &conduits)
}

#[test]
fn a_large_plant_is_sound_and_crosses_few_wires() {
    let plant = large();
    assert_sound(&plant);
    let plans = compile_all(&plant).unwrap_or_default();
    let facts = facts::Facts::of(&plant, &plans);
    let diagram = sheet::Sheet::of(&facts, &View::Whole).diagram();
    let crossings = layout::arrange(&diagram).crossings();
    assert!(crossings <= 60, "{crossings} crossings");
    // For eyes: PENSTOCK_PICTURES=<folder> keeps the picture.
    if let Some(folder) = std::env::var_os("PENSTOCK_PICTURES") {
        let path = std::path::Path::new(&folder).join("large.svg");
        std::fs::write(path, draw(&plant, Some(&Digest::of(b"x")), &View::Whole).svg).unwrap();
    }
}

#[test]
fn wires_that_have_to_change_places_do_not_lie_upon_one_another() {
    use ZoneKind::*;
    let zones = [
        (Dmz, 5),
        (Operations, 5),
        (Control, 10),
        (Control, 0),
        (RemoteAccess, 0),
        (Operations, 10),
        (Control, 10),
        (Control, 0),
        (Operations, 5),
        (Enterprise, 0),
        (Operations, 0),
    ];
    #[rustfmt::skip]
    let conduits = [
        (0, 0, 1), (1, 5, 1), (5, 0, 1), (0, 2, 1), (1, 2, 1), (3, 7, 1), (6, 0, 1), (0, 8, 1), (1, 2, 1), (3, 5, 1),
        (5, 1, 1), (8, 3, 1), (0, 6, 1), (1, 9, 1), (10, 0, 1), (8, 0, 1), (0, 0, 1), (8, 0, 1), (0, 0, 1), (9, 4, 1),
        (2, 5, 1), (8, 0, 1), (3, 9, 1), (4, 1, 1),
    ];
    assert_sound(&plant("kp DG漢ßmßnM漢\"kßqY漢", &zones, &conduits));
}

#[test]
fn an_empty_plant_still_has_a_picture() {
    assert_sound(&plant("", &[], &[]));
}
