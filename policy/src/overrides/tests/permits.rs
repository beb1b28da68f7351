//! Who may make an override: an example of each refusal.

use std::collections::BTreeSet;

use super::form::request;
use super::*;
use crate::compile::compile;
use crate::ids::ApproverId;
use crate::overrides::{Authority, BreakGlass, Code, OverrideRefused};
use crate::plan::{Observing, PlanInterface};
use crate::release::{Signable, Signature};
use crate::waterworks::{gateway, key, waterworks};

fn release() -> Digest {
    Digest::of(b"release")
}

fn code() -> Code {
    Code::from_random([3; 26])
}

/// The works' plan, whose two first sides enforce, which two of three people may override, or a code.
fn plan() -> Plan {
    let mut plan = compile(&waterworks(), &gateway()).unwrap();
    for side in &mut plan.interfaces {
        side.observing = Observing::Nothing;
    }
    plan.requires.insert(Capability::of(Capability::OVERRIDES));
    plan.break_glass = Some(BreakGlass {
        longest_s: 8 * 3600,
        people: [("kim", 21), ("lee", 22), ("max", 23)]
            .map(|(name, seed)| (id(name), key(seed).public()))
            .into(),
        codes: [code().digest(&plan.plant, &plan.gateway)].into(),
    });
    plan
}

fn asked(plan: &Plan) -> Override {
    let network = |side: &PlanInterface| *side.networks.first().unwrap();
    Override {
        plant: plan.plant.clone(),
        gateway: plan.gateway.clone(),
        release: release(),
        effects: vec![Effect::Observe {
            one: network(&plan.interfaces[0]),
            other: network(&plan.interfaces[1]),
        }],
        ..request()
    }
}

fn signed(payload: Vec<u8>, people: &[(&str, u8)]) -> Signed {
    let mut signed = Signed {
        payload,
        signatures: Vec::new(),
    };
    for (name, seed) in people {
        signed.sign(id(name), &key(*seed)).unwrap();
    }
    signed
}

fn judged(plan: &Plan, signed: &Signed) -> Result<Authority, OverrideRefused> {
    let warrant = Warrant::Signatures(&signed.signatures);
    BreakGlass::permits((plan, release()), &signed.payload, warrant, &BTreeSet::new()).map(|(_, by)| by)
}

fn too_few(result: Result<Authority, OverrideRefused>) -> Vec<ApproverId> {
    match result {
        Err(OverrideRefused::TooFew(people)) => people,
        other => panic!("{other:?}"),
    }
}

const TWO: &[(&str, u8)] = &[("lee", 22), ("kim", 21)];

#[test]
fn two_people_permit_it_together_and_are_named() {
    let plan = plan();
    let authority = judged(&plan, &signed(asked(&plan).to_bytes(), TWO)).unwrap();
    assert_eq!(authority, Authority::People(vec![id("kim"), id("lee")]));
    assert_eq!(authority.to_string(), "kim and lee");
}

#[test]
fn fewer_than_two_people_with_keys_of_the_plan_are_too_few() {
    let plan = plan();
    let bytes = asked(&plan).to_bytes();
    assert_eq!(too_few(judged(&plan, &signed(bytes.clone(), &[]))), []);
    assert_eq!(
        too_few(judged(&plan, &signed(bytes.clone(), &[("kim", 21)]))),
        [id("kim")]
    );
    let strangers = signed(bytes.clone(), &[("kim", 21), ("eve", 99), ("max", 99)]);
    assert_eq!(
        too_few(judged(&plan, &strangers)),
        [id("kim")],
        "an unknown name, and another key"
    );
    let mut again = signed(bytes, &[("kim", 21)]);
    again.signatures.push(again.signatures[0].clone());
    assert_eq!(too_few(judged(&plan, &again)), [id("kim")], "one signature twice");
}

#[test]
fn one_person_with_two_names_is_one_person() {
    let mut plan = plan();
    let people = &mut plan.break_glass.as_mut().unwrap().people;
    people.insert(id("kim-too"), key(21).public());
    let both = signed(asked(&plan).to_bytes(), &[("kim", 21), ("kim-too", 21)]);
    let refused = judged(&plan, &both).unwrap_err().to_string();
    assert!(
        refused.ends_with("kim and kim-too have signed it with one key"),
        "{refused}"
    );
    let refused = Plan::from_bytes(&plan.to_bytes()).unwrap_err().to_string();
    assert!(
        refused.contains("the same key"),
        "and no such plan is taken: {refused}"
    );
}

#[test]
fn every_altered_byte_takes_the_signatures_away_or_makes_it_no_override() {
    let plan = plan();
    let whole = signed(asked(&plan).to_bytes(), TWO);
    for place in 0..whole.payload.len() {
        let mut altered = whole.clone();
        altered.payload[place] ^= 1;
        assert!(judged(&plan, &altered).is_err(), "byte {place}");
    }
    for place in 0..64 {
        let mut altered = whole.clone();
        let signature = &altered.signatures[0];
        let mut bytes = signature.bytes().to_vec();
        bytes[place] ^= 1;
        altered.signatures[0] = Signature::new(signature.approver.clone(), "", &bytes).unwrap();
        assert_eq!(too_few(judged(&plan, &altered)), [id("kim")], "byte {place}");
    }
}

#[test]
fn a_signature_for_a_release_is_none_for_an_override() {
    let plan = plan();
    let payload = asked(&plan).to_bytes();
    let as_release = Signable::release(&payload);
    let signatures: Vec<Signature> = TWO
        .iter()
        .map(|(name, seed)| key(*seed).sign_payload(id(name), &as_release))
        .collect();
    assert_eq!(too_few(judged(&plan, &Signed { payload, signatures })), []);
}

#[test]
fn what_is_asked_of_another_gateway_release_or_plan_is_refused_by_name() {
    let plan = plan();
    let refused = |spoil: &dyn Fn(&mut Override)| {
        let mut asked = asked(&plan);
        spoil(&mut asked);
        judged(&plan, &signed(asked.to_bytes(), TWO)).unwrap_err().code()
    };
    assert_eq!(refused(&|it| it.plant = id("elsewhere")), "other-gateway");
    assert_eq!(refused(&|it| it.gateway = id("gw-9")), "other-gateway");
    assert_eq!(
        refused(&|it| it.release = Digest::of(b"the release before")),
        "other-release"
    );
    assert_eq!(refused(&|it| it.seconds = 8 * 3600 + 1), "too-long");
    assert_eq!(refused(&|it| it.effects = vec![Effect::Unasked]), "no-effect");
    assert_eq!(
        judged(&plan, &signed(asked(&plan).to_bytes(), TWO))
            .err()
            .map(|e| e.code()),
        None
    );
    let mut closed = plan.clone();
    closed.break_glass = None;
    let none = judged(&closed, &signed(asked(&plan).to_bytes(), TWO)).unwrap_err();
    assert_eq!(none.code(), "not-permitted");
    let nonsense = Signed {
        payload: b"{}".to_vec(),
        signatures: Vec::new(),
    };
    assert_eq!(judged(&plan, &nonsense).unwrap_err().code(), "unreadable");
    assert!(
        nonsense.clone().sign(id("kim"), &key(21)).is_err(),
        "and nobody signs it"
    );
}

#[test]
fn an_effect_that_the_plan_has_already_is_refused_so_that_none_is_signed_in_vain() {
    let plan = plan();
    let asked = asked(&plan);
    let made = overridden(&plan, &asked.effects);
    let refused = judged(&made, &signed(asked.to_bytes(), TWO)).unwrap_err();
    assert!(
        refused.to_string().contains("by the plan in force already"),
        "{refused}"
    );
}

#[test]
fn a_code_permits_it_alone_once_and_only_at_its_gateway() {
    let plan = plan();
    let payload = asked(&plan).to_bytes();
    let by = |code: &Code, spent: &BTreeSet<Digest>| {
        BreakGlass::permits((&plan, release()), &payload, Warrant::Code(code), spent).map(|(_, by)| by)
    };
    let digest = code().digest(&plan.plant, &plan.gateway);
    assert_eq!(by(&code(), &BTreeSet::new()).unwrap(), Authority::Code(digest));
    assert_eq!(by(&code(), &[digest].into()).unwrap_err().code(), "spent-code");
    let other = Code::from_random([4; 26]);
    assert_eq!(by(&other, &BTreeSet::new()).unwrap_err().code(), "wrong-code");
    let mut elsewhere = plan.clone();
    elsewhere.break_glass.as_mut().unwrap().codes = [code().digest(&plan.plant, &id("gw-9"))].into();
    let there = BreakGlass::permits(
        (&elsewhere, release()),
        &payload,
        Warrant::Code(&code()),
        &BTreeSet::new(),
    );
    assert_eq!(there.unwrap_err().code(), "wrong-code");
}

#[test]
fn a_plan_that_nobody_may_override_or_whose_agent_would_not_end_it_is_not_taken() {
    let refused = |spoil: &dyn Fn(&mut Plan)| {
        let mut plan = plan();
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
        spoil(&mut plan);
        Plan::from_bytes(&plan.to_bytes()).unwrap_err().to_string()
    };
    let of = |spoil: &dyn Fn(&mut BreakGlass)| refused(&|plan| spoil(plan.break_glass.as_mut().unwrap()));
    let needed = Capability::of(Capability::OVERRIDES);
    assert!(
        refused(&|plan| {
            plan.requires.remove(&needed);
        })
        .contains("does not require `overrides`")
    );
    for longest in [0, 59, 7 * 24 * 3600 + 1] {
        assert!(of(&|it| it.longest_s = longest).contains("too short or too long"));
    }
    assert!(
        of(&|it| {
            it.codes.clear();
            it.people.clear();
        })
        .contains("nobody may override it")
    );
    let alone = |it: &mut BreakGlass| {
        it.codes.clear();
        it.people.retain(|name, _| name.as_str() == "kim");
    };
    assert!(of(&alone).contains("nobody may override it"));
}
