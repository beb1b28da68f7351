#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{DICE, GRANTED_MS, connection_near, plants};
use crate::check::check;
use crate::compile::compile_all;
use crate::ids::GatewayId;
use crate::model::Plant;
use crate::terms::{Enforcement, Proof};
use crate::verdict::{Decision, Reason, decide};

const ASKED: [Option<Assurance>; 5] = [
    None,
    Some(Assurance::D0),
    Some(Assurance::D1),
    Some(Assurance::D3),
    Some(Assurance::D4),
];

/// The plant, with what its conduits ask for by `asked`, and the MAC addresses of its assets by `macs`.
fn asking(plant: &Plant, asked: &[usize], macs: &[bool]) -> Plant {
    let mut plant = plant.clone();
    for (conduit, asked) in plant.conduits.values_mut().zip(asked.iter().cycle()) {
        conduit.minimum_assurance = ASKED[*asked];
    }
    for ((number, asset), has) in (0_u8..).zip(plant.assets.values_mut()).zip(macs.iter().cycle()) {
        asset.mac = has.then(|| format!("02:00:00:00:00:{number:02x}"));
    }
    plant
}

fn asked() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..ASKED.len(), 1..6)
}

fn macs() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(prop::bool::weighted(0.7), 1..6)
}

fn plans_of(plant: &Plant) -> BTreeMap<GatewayId, Plan> {
    let plans = compile_all(plant).unwrap();
    let at = plans
        .into_iter()
        .map(|(gateway, plan)| (gateway, plan.at(Some(GRANTED_MS))));
    at.collect()
}

proptest! {
    #[test]
    fn what_is_permitted_proves_what_its_conduit_asks_for_and_only_what_proves_less_is_denied(
        plant in plants(), asked in asked(), macs in macs(), dice in prop::collection::vec(any::<[u32; DICE]>(), 24),
    ) {
        let plant = asking(&plant, &asked, &macs);
        let bare = plans_of(&asking(&plant, &[0], &macs));
        for (gateway, plan) in plans_of(&plant) {
            for connection in dice.iter().map(|dice| connection_near(&bare[&gateway], dice)) {
                let verdict = decide(&plan, &connection);
                let before = decide(&bare[&gateway], &connection);
                match &verdict.reason {
                    Reason::Rule(name) => {
                        prop_assert_eq!(before.decision, Decision::Allow);
                        let rule = plan.rules.iter().find(|rule| rule.id == name.id).unwrap();
                        let asked = plant.conduits[&name.conduit].minimum_assurance.unwrap_or(Assurance::D0);
                        let conduit = &plant.conduits[&name.conduit];
                        if plant.spares(conduit, &conduit.flows[&name.flow]) {
                            continue;
                        }
                        for proof in plan.proofs(rule, connection.source, connection.destination) {
                            prop_assert!(proof.assurance() >= asked, "{proof} for {asked}: {connection}");
                        }
                    }
                    Reason::Unproven { minimum, weak, rule } => {
                        prop_assert!(matches!(before.reason, Reason::Rule(_) | Reason::Closed { .. }), "{:?}", before);
                        prop_assert_eq!(plant.conduits[&rule.conduit].minimum_assurance, Some(*minimum));
                        prop_assert!(weak.iter().all(|weak| weak.proof.assurance() < *minimum));
                    }
                    // Another flow's, which only a grant would open.
                    Reason::Closed { .. } => {}
                    _ => prop_assert!(!matches!(before.reason, Reason::Rule(_)), "{} {:?}", connection, verdict),
                }
            }
        }
    }

    #[test]
    fn between_zones_that_observe_what_would_not_pass_by_itself_stays_as_it_is(
        plant in plants(), asked in asked(), macs in macs(), plain in any::<bool>(),
    ) {
        let mut plant = plant;
        for zone in plant.zones.values_mut() {
            zone.enforcement = Enforcement::Observe;
        }
        let flows = plant.conduits.values_mut().flat_map(|conduit| conduit.flows.values_mut());
        for tls in flows.filter(|flow| !flow.is_bridge()).filter_map(|flow| flow.tls.as_mut()) {
            tls.plain_port = plain.then_some(102).or(tls.plain_port);
        }
        let bare = compile_all(&asking(&plant, &[0], &macs)).unwrap();
        let carried = |plan: &Plan| {
            let ends = plan.rules.iter().filter(|rule| rule.plain_port().is_some());
            (ends.cloned().collect::<Vec<_>>(), plan.bridges.clone())
        };
        let plant = asking(&plant, &asked, &macs);
        let plans = compile_all(&plant).unwrap();
        for (gateway, plan) in &plans {
            prop_assert_eq!(carried(plan), carried(&bare[gateway]));
        }
        let found = check(&plant, &plans, None);
        prop_assert!(!found.iter().any(|one| ["PC0113", "PC0114"].contains(&one.code)), "{found:?}");
    }

    #[test]
    fn a_lower_demand_denies_nothing_that_a_higher_one_permits(
        plant in plants(), asked in asked(), macs in macs(), lower in any::<prop::sample::Index>(),
        dice in prop::collection::vec(any::<[u32; DICE]>(), 16),
    ) {
        let lowered: Vec<usize> = asked.iter().map(|asked| lower.index(asked + 1)).collect();
        let high = plans_of(&asking(&plant, &asked, &macs));
        let low = plans_of(&asking(&plant, &lowered, &macs));
        for (gateway, plan) in &high {
            for connection in dice.iter().map(|dice| connection_near(plan, dice)) {
                if decide(plan, &connection).decision == Decision::Allow {
                    prop_assert_eq!(decide(&low[gateway], &connection).decision, Decision::Allow, "{}", connection);
                }
            }
        }
    }

    #[test]
    fn plans_that_weigh_assurance_are_read_as_they_were_written_and_stand_before_the_checker(
        plant in plants(), asked in asked(), macs in macs(),
    ) {
        let plant = asking(&plant, &asked, &macs);
        let plans = compile_all(&plant).unwrap();
        for plan in plans.values() {
            prop_assert_eq!(&Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
            let told = plan.requires.iter().any(|one| one.0 == "assurance");
            prop_assert_eq!(told, plan.weighs());
            // Whom a plan binds has that MAC address, and is where the gateway meets it itself.
            for (interface, bound) in &plan.bound {
                let side = plan.interfaces.iter().find(|side| side.name == *interface).unwrap();
                for one in bound {
                    prop_assert!(side.holds(one.address));
                    let mut assets = plant.assets.values().filter(|asset| asset.addresses.contains(&one.address));
                    prop_assert!(assets.all(|asset| asset.zone == side.zone && asset.mac == Some(one.mac.to_string())));
                }
            }
        }
        let unfaithful = check(&plant, &plans, None);
        let unfaithful = unfaithful.iter().filter(|finding| finding.code.starts_with("PC011"));
        prop_assert_eq!(unfaithful.map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    }

    #[test]
    fn a_plant_that_asks_for_no_assurance_has_the_plans_that_it_had_before_there_was_any(plant in plants(), macs in macs()) {
        for plan in compile_all(&asking(&plant, &[0, 1], &macs)).unwrap().values() {
            let text = String::from_utf8(plan.to_bytes()).unwrap();
            prop_assert!(!plan.weighs());
            prop_assert!(!["\"bound\"", "\"unproven\"", "\"vouched\"", "\"assurance\""].iter().any(|word| text.contains(word)));
        }
    }
}

/// Without this the properties above could hold for want of cases.
#[test]
fn random_plants_bind_permit_and_deny_by_assurance() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut bound, mut whole, mut in_part, mut proofs) = (0, 0, 0, BTreeSet::new());
    for _ in 0..300 {
        let case = (plants(), asked(), macs())
            .new_tree(&mut runner)
            .unwrap()
            .current();
        for plan in compile_all(&asking(&case.0, &case.1, &case.2)).unwrap().values() {
            bound += plan.bound.len();
            proofs.extend(plan.least_proofs().map(|(_, proof)| proof));
            for denied in &plan.unproven {
                let left = plan.rules.iter().any(|rule| rule.id == denied.id);
                in_part += usize::from(left);
                whole += usize::from(!left);
            }
        }
    }
    assert!(
        bound > 20 && whole > 50 && in_part > 5,
        "{bound} {whole} {in_part}"
    );
    assert!(
        proofs.contains(&Proof::Address) && proofs.contains(&Proof::PlantCertificate),
        "{proofs:?}"
    );
}
