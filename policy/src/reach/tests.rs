#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{DICE, connection_near, plants};
use crate::compile::compile_all;
use crate::plan::Plan;
use crate::verdict::{Decision, Reason, decide};
use crate::waterworks::{bridge, grant_visit, id, waterworks, with_brokers};

fn many() -> NonZeroUsize {
    NonZeroUsize::new(1000).unwrap()
}

fn reach(plant: &Plant, from: &ZoneId, to: &ZoneId) -> Result<Reach, UnknownZone> {
    Steps::of(plant).reach(from, to, many())
}

/// The zones of each path.
fn routes(reach: &Reach) -> Vec<Vec<&str>> {
    fn route(path: &[Step]) -> Vec<&str> {
        let first = path.first().map(|step| step.from.as_str());
        let zones = first.into_iter().chain(path.iter().map(|step| step.to.as_str()));
        zones.collect()
    }
    reach.paths.iter().map(|path| route(path)).collect()
}

#[test]
fn the_office_reaches_the_pumps_only_over_the_control_room_and_with_its_operations() {
    let reach = reach(&waterworks(), &id("office"), &id("control")).unwrap();
    assert_eq!(routes(&reach), [["office", "operations", "control"]]);
    assert_eq!(reach.not_shown, None);
    let acts: Vec<String> = reach.acts().map(ToString::to_string).collect();
    assert_eq!(
        acts,
        [
            "control-room-to-pumps/polling: historian and hmi-1 to plc-7 by tcp/502, \
             only: read-holding-registers (unit 1, addresses 0-199)",
            "control-room-to-pumps/setpoints: hmi-1 to plc-7 by tcp/502, \
             only: write-single-register (unit 1, addresses 40-41)",
        ]
    );
}

#[test]
fn a_step_that_hangs_on_a_grant_is_possible_and_says_when() {
    let mut plant = waterworks();
    grant_visit(&mut plant, "control-room-to-pumps");
    let reach = reach(&plant, &id("office"), &id("control")).unwrap();
    assert!(reach.is_possible());
    let words =
        "only during a grant of remote access: visit (Carla, 2026-12-01T08:00:00Z to 2026-12-01T16:00:00Z)";
    let acts: Vec<String> = reach.acts().map(ToString::to_string).collect();
    assert!(
        acts.len() == 2 && acts.iter().all(|act| act.ends_with(words)),
        "{acts:?}"
    );
}

#[test]
fn what_no_conduit_leads_to_is_not_reached() {
    let plant = waterworks();
    for (from, to) in [
        ("office", "safety"),
        ("control", "office"),
        ("control", "control"),
    ] {
        let reach = reach(&plant, &id(from), &id(to)).unwrap();
        assert!(!reach.is_possible(), "{from} {to}");
        assert_eq!(reach.not_shown, None);
    }
    assert_eq!(Steps::of(&plant).all(None, None, many()).reaches.len(), 3);
}

#[test]
fn a_bridge_leads_one_way_and_with_its_publications_only() {
    let plant = with_brokers(bridge);
    let up = reach(&plant, &id("control"), &id("operations")).unwrap();
    let acts: Vec<String> = up.acts().map(ToString::to_string).collect();
    assert_eq!(
        acts,
        ["telemetry/upwards: broker-pumps to broker-works by tcp/1883, \
             only these messages, carried by the gateway one way: publish pumps/+/pressure (qos 0-1, not retained)"]
    );
    let mut alone = plant.clone();
    alone.conduits.retain(|name, _| name.as_str() == "telemetry");
    assert!(
        !reach(&alone, &id("operations"), &id("control"))
            .unwrap()
            .is_possible()
    );
}

#[test]
fn two_zones_that_only_observe_are_a_step_whatever_lies_beside_them() {
    let mut plant = waterworks();
    for zone in ["operations", "safety"] {
        plant.zones.get_mut(&id(zone)).unwrap().enforcement = Enforcement::Observe;
    }
    let reach = reach(&plant, &id("office"), &id("safety")).unwrap();
    let acts: Vec<String> = reach.acts().map(ToString::to_string).collect();
    assert_eq!(acts, ["anything, as both zones only observe at gw-works"]);
}

#[test]
fn a_zone_that_is_not_there_is_an_error() {
    assert_eq!(
        reach(&waterworks(), &id("attic"), &id("control")),
        Err(UnknownZone(id("attic")))
    );
}

/// Steps between zones that numbers name, each by one way.
fn steps(zones: &[ZoneId], pairs: impl IntoIterator<Item = (usize, usize)>) -> Steps<'_> {
    let mut steps = Steps {
        zones: zones.iter().collect(),
        onward: vec![BTreeMap::new(); zones.len()],
        back: vec![Vec::new(); zones.len()],
    };
    for (from, to) in pairs {
        let gateway = GatewayId::new("gw").unwrap();
        if from != to && !steps.onward[from].contains_key(&to) {
            steps.onward[from].insert(to, vec![Permit::Observed { gateway }]);
            steps.back[to].push(from);
        }
    }
    steps
}

fn zones(count: usize) -> Vec<ZoneId> {
    (0..count)
        .map(|number| ZoneId::new(format!("z{number:05}")).unwrap())
        .collect()
}

#[test]
fn a_path_over_a_jump_host_is_shown_beside_a_shorter_one() {
    // 0 the office, 1 the jump host, 2 the control room, 3 safety.
    let zones = zones(4);
    let steps = steps(&zones, [(0, 2), (0, 1), (1, 2), (2, 3), (2, 1)]);
    let reach = steps.reach(&zones[0], &zones[3], many()).unwrap();
    assert_eq!(
        routes(&reach),
        [
            vec!["z00000", "z00002", "z00003"],
            vec!["z00000", "z00001", "z00002", "z00003"]
        ]
    );
    let one = steps.reach(&zones[0], &zones[3], NonZeroUsize::MIN).unwrap();
    assert_eq!(routes(&one), [vec!["z00000", "z00002", "z00003"]]);
    assert_eq!(one.not_shown.unwrap().through, BTreeSet::from([zones[1].clone()]));
}

#[test]
fn a_plant_in_which_every_zone_leads_to_every_other_is_answered_within_bounds() {
    let zones = zones(60);
    let steps = steps(&zones, (0..60).flat_map(|from| (0..60).map(move |to| (from, to))));
    let reach = steps.reach(&zones[0], &zones[59], NonZeroUsize::MIN).unwrap();
    // The direct one, and one by each other zone.
    assert_eq!(reach.paths.len(), 59);
    assert!(reach.not_shown.is_some());
}

#[test]
fn of_more_pairs_than_are_answered_at_once_the_others_are_counted() {
    let zones = zones(102);
    let steps = steps(&zones, (1..102).flat_map(|spoke| [(0, spoke), (spoke, 0)]));
    let all = steps.all(None, None, many());
    assert_eq!(
        (all.reaches.len(), all.further_pairs),
        (PAIRS_MAX, 102 * 101 - PAIRS_MAX)
    );
    assert!(all.reaches.iter().all(|reach| reach.not_shown.is_none()));
    let one = steps.all(Some(&zones[101]), Some(&zones[100]), many());
    assert_eq!((one.reaches.len(), one.further_pairs), (1, 0));
}

#[test]
fn answers_that_are_long_together_are_bounded_by_their_steps() {
    let zones = zones(40);
    let steps = steps(&zones, (0..40).flat_map(|from| (0..40).map(move |to| (from, to))));
    let all = steps.all(None, None, many());
    let held =
        |reach: &Reach| -> usize { reach.paths.iter().flatten().map(|step| 1 + step.ways.len()).sum() };
    let (last, before) = all.reaches.split_last().unwrap();
    assert!(before.iter().map(held).sum::<usize>() < STEPS_MAX && held(last) > 0);
    assert_eq!(all.reaches.len() + all.further_pairs, 40 * 39);
    assert!(all.further_pairs > 0);
}

/// Every path that enters no zone twice, by trying each step.
fn every_path(steps: &Steps<'_>, path: &mut Vec<usize>, to: usize, found: &mut Vec<Vec<usize>>) {
    let last = *path.last().unwrap();
    if last == to {
        found.push(path.clone());
        return;
    }
    for next in steps.onward[last].keys() {
        if !path.contains(next) {
            path.push(*next);
            every_path(steps, path, to, found);
            path.pop();
        }
    }
}

/// The one zone on a side, if it is only one.
fn only_zone<'a>(plan: &'a Plan, interface: &str) -> Option<&'a ZoneId> {
    let side = plan.interfaces.iter().find(|side| side.name == interface)?;
    side.behind.is_empty().then_some(&side.zone)
}

proptest! {
    #[test]
    fn all_paths_are_found_or_the_shortest_and_every_way_in_with_the_zones_that_others_may_lead_through(
        pairs in prop::collection::vec((0_usize..7, 0_usize..7), 0..26), paths_max in 1_usize..9,
    ) {
        let zones = zones(7);
        let steps = steps(&zones, pairs);
        let paths_max = NonZeroUsize::new(paths_max).unwrap();
        for from in 0..7 {
            for to in (0..7).filter(|to| *to != from) {
                let mut expected = Vec::new();
                every_path(&steps, &mut vec![from], to, &mut expected);
                expected.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
                let found = steps.paths(from, to, paths_max.get());
                prop_assert_eq!(found.through.is_none(), expected.len() <= paths_max.get());
                let Some(through) = found.through else {
                    prop_assert_eq!(found.paths, expected);
                    continue;
                };
                // None of those wanted is missing for one that is longer.
                let lengths = |paths: &[Vec<usize>]| -> Vec<usize> {
                    paths.iter().map(Vec::len).take(paths_max.get()).collect()
                };
                prop_assert_eq!(lengths(&found.paths), lengths(&expected));
                prop_assert!(found.paths.iter().all(|path| expected.contains(path)));
                let enter = |paths: &[Vec<usize>]| -> BTreeSet<usize> {
                    paths.iter().map(|path| path[path.len() - 2]).collect()
                };
                prop_assert_eq!(enter(&found.paths), enter(&expected));
                let shown: BTreeSet<&usize> = found.paths.iter().flatten().collect();
                let missing = expected.iter().flatten().filter(|zone| !shown.contains(zone));
                prop_assert!(missing.clone().all(|zone| through.contains(zone)));
            }
        }
    }

    #[test]
    fn every_pair_of_which_one_can_act_on_the_other_is_answered_and_every_path_is_walkable(plant in plants()) {
        let steps = Steps::of(&plant);
        let all = steps.all(None, None, many());
        prop_assert_eq!(all.further_pairs, 0);
        for from in plant.zones.keys() {
            for to in plant.zones.keys() {
                let one = steps.reach(from, to, many()).unwrap();
                let listed = all.reaches.iter().find(|reach| (&reach.from, &reach.to) == (from, to));
                prop_assert_eq!(one.is_possible(), listed.is_some());
                prop_assert!(listed.is_none_or(|listed| *listed == one));
            }
        }
        for reach in &all.reaches {
            for path in &reach.paths {
                prop_assert_eq!(&path[0].from, &reach.from);
                prop_assert_eq!(&path.last().unwrap().to, &reach.to);
                prop_assert!(path.windows(2).all(|pair| pair[0].to == pair[1].from));
                prop_assert!(path.iter().all(|step| !step.ways.is_empty()));
            }
        }
    }

    /// The oracle lets nothing pass between zones that reach does not know of.
    #[test]
    fn what_passes_a_gateway_is_a_way_that_reach_knows(
        plant in plants(), dice in prop::collection::vec(any::<[u32; DICE]>(), 16),
    ) {
        for plan in compile_all(&plant).unwrap().values() {
            for dice in &dice {
                let connection = connection_near(plan, dice);
                let verdict = decide(plan, &connection);
                let zones = only_zone(plan, &connection.ingress).zip(only_zone(plan, &connection.egress));
                let Some((from, to)) = zones.filter(|(from, to)| from != to) else { continue };
                let reach = reach(&plant, from, to).unwrap();
                let known = match (verdict.decision, &verdict.reason) {
                    (Decision::Allow, Reason::Rule(rule)) => reach.acts().any(|way| {
                        matches!(way, Permit::Flow { conduit, flow, .. } if (conduit, flow) == (&rule.conduit, &rule.flow))
                    }),
                    (Decision::WouldDeny, _) => reach.acts().any(|way| matches!(way, Permit::Observed { .. })),
                    _ => true,
                };
                prop_assert!(known, "{}: {}", connection, verdict);
            }
        }
    }
}
