//! Every refusal by its code, and what is accepted. Random hostility is in `hostile`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod anchored;
mod chain;
mod emergency;
mod hostile;
mod kept;
mod ssh;

use std::collections::BTreeSet;

use super::*;
use crate::ids::{Digest, GatewayId, Revision};
use crate::merkle::Hash;
use crate::model::{ApproverSet, Plant};
use crate::plan::{Capability, Plan};
use crate::waterworks::{approvers, gateway, id, key, waterworks};

/// Three gateways with the same sides, so that proofs have a length.
fn plant() -> Plant {
    let mut plant = waterworks();
    for name in ["gw-east", "gw-west", "gw-yard"] {
        let copy = plant.gateways[&gateway()].clone();
        plant.gateways.insert(id(name), copy);
        for conduit in plant.conduits.values_mut() {
            conduit.via.insert(id(name));
        }
    }
    plant
}

fn draft(revision: u64, parent: Option<Digest>) -> Draft {
    Draft {
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        revision: Revision(revision),
        parent,
        replaces: Vec::new(),
        document_digest: document_digest(&[DocumentFile {
            name: "plant.yaml",
            content: b"plant: riverside-water",
        }]),
        author: id("e.okafor"),
        ticket: Some("CHG-1042".to_owned()),
        reason: "Poll the new pump".to_owned(),
        created_ms: 1_790_000_000_000,
    }
}

fn first() -> Release {
    build(&plant(), draft(1, None)).unwrap()
}

fn trust() -> Trust {
    Trust {
        plant: id("riverside-water"),
        gateway: gateway(),
        approvers: waterworks().approvers,
        floor: Revision(0),
        current: None,
    }
}

fn all_capabilities() -> BTreeSet<Capability> {
    [Capability::KERNEL, "inspect:modbus-tcp"]
        .map(|name| Capability(name.to_owned()))
        .into()
}

/// An offer in parts that a test can spoil.
#[derive(Debug, Clone)]
struct Parts {
    statement: Vec<u8>,
    signatures: Vec<Signature>,
    plan: Vec<u8>,
    leaf_index: u64,
    proof: Vec<Hash>,
    /// Statements that go before, with their signatures.
    chain: Vec<(Vec<u8>, Vec<Signature>)>,
}

impl Parts {
    fn of(release: &Release, gateway: &GatewayId, signers: &[(&str, u8)]) -> Self {
        let statement = release.statement.to_bytes();
        let released = release.plan(gateway).unwrap();
        Self {
            signatures: sign(&statement, signers),
            statement,
            plan: released.plan.to_vec(),
            leaf_index: released.leaf_index,
            proof: released.proof,
            chain: Vec::new(),
        }
    }

    fn verify(&self, trust: &Trust) -> Result<VerifiedOffer, OfferRefused> {
        let chain: Vec<_> = self
            .chain
            .iter()
            .map(|(statement, signatures)| Link {
                statement,
                signatures,
            })
            .collect();
        let offer = Offer {
            statement: &self.statement,
            signatures: &self.signatures,
            chain: &chain,
            plan: &self.plan,
            leaf_index: self.leaf_index,
            proof: &self.proof,
        };
        verify_offer(trust, &all_capabilities(), &offer)
    }

    fn refusal(&self, trust: &Trust) -> &'static str {
        self.verify(trust).expect_err("this offer must be refused").code()
    }
}

fn sign(statement: &[u8], signers: &[(&str, u8)]) -> Vec<Signature> {
    signers
        .iter()
        .map(|(person, seed)| key(*seed).sign(id(person), statement).unwrap())
        .collect()
}

const TWO: &[(&str, u8)] = &[("j.meyer", 1), ("a.silva", 2)];

fn good() -> Parts {
    Parts::of(&first(), &gateway(), TWO)
}

#[test]
fn what_enough_approvers_signed_is_accepted_and_moves_the_floor() {
    let release = first();
    let verified = good().verify(&trust()).unwrap();
    assert_eq!(verified.plan.gateway, gateway());
    assert_eq!(verified.plan_digest, verified.plan.digest());
    assert_eq!(verified.release.signers, [id("a.silva"), id("j.meyer")]);
    assert_eq!(verified.release.next.floor, Revision(1));
    assert_eq!(verified.release.next.current, Some(release.statement.digest()));
}

#[test]
fn every_gateway_of_a_release_gets_its_own_plan_and_no_other() {
    let release = first();
    assert_eq!(release.offers().count(), 4);
    for (own, released) in release.offers() {
        assert_eq!(release.plan(own).unwrap(), released);
        for (other, _) in release.offers() {
            let parts = Parts::of(&release, own, TWO);
            let trust = Trust {
                gateway: other.clone(),
                ..trust()
            };
            if own == other {
                parts.verify(&trust).unwrap();
            } else {
                assert_eq!(parts.refusal(&trust), "wrong-gateway");
            }
        }
    }
}

#[test]
fn the_same_release_offered_again_is_no_step_back() {
    let after = good().verify(&trust()).unwrap().release.next;
    assert_eq!(good().verify(&after).unwrap().release.next, after);
}

#[test]
fn signatures_in_another_order_or_of_strangers_beside_change_nothing() {
    let mut parts = good();
    parts.signatures.reverse();
    parts
        .signatures
        .extend(sign(&parts.statement, &[("m.stranger", 9)]));
    assert_eq!(parts.verify(&trust()).unwrap(), good().verify(&trust()).unwrap());
}

#[test]
fn signatures_are_counted_by_different_people_with_different_keys() {
    let refusal = |signers: &[(&str, u8)]| Parts::of(&first(), &gateway(), signers).refusal(&trust());
    assert_eq!(refusal(&[]), "unsigned");
    assert_eq!(refusal(&[("j.meyer", 1)]), "under-signed");
    assert_eq!(
        refusal(&[("j.meyer", 1), ("j.meyer", 1), ("j.meyer", 1)]),
        "under-signed"
    );
    assert_eq!(refusal(&[("m.stranger", 9), ("n.stranger", 8)]), "under-signed");
    assert_eq!(refusal(&[("m.stranger", 2), ("j.meyer", 1)]), "under-signed");
    // A known name with another's key is no signature of either.
    assert_eq!(refusal(&[("j.meyer", 1), ("a.silva", 3)]), "altered");

    let one_key_twice = Trust {
        approvers: approvers(2, &[("j.meyer", 1), ("j.meyer-2", 1), ("a.silva", 2)]),
        ..trust()
    };
    let twice = Parts::of(&first(), &gateway(), &[("j.meyer", 1), ("j.meyer-2", 1)]);
    assert_eq!(twice.refusal(&one_key_twice), "under-signed");
}

#[test]
fn the_authors_own_signature_counts_under_none_of_their_names() {
    let mut plant = plant();
    plant.approvers = approvers(
        2,
        &[
            ("e.okafor", 1),
            ("e.okafor-home", 1),
            ("a.silva", 2),
            ("k.ito", 3),
        ],
    );
    let trust = Trust {
        approvers: plant.approvers.clone(),
        ..trust()
    };
    let release = build(&plant, draft(1, None)).unwrap();
    let offered = |signers: &[(&str, u8)]| Parts::of(&release, &gateway(), signers);
    assert_eq!(
        offered(&[("e.okafor", 1), ("a.silva", 2)]).refusal(&trust),
        "self-approved"
    );
    assert_eq!(
        offered(&[("e.okafor-home", 1), ("a.silva", 2)]).refusal(&trust),
        "self-approved"
    );
    offered(&[("e.okafor", 1), ("k.ito", 3), ("a.silva", 2)])
        .verify(&trust)
        .unwrap();
}

#[test]
fn a_trust_with_threshold_zero_still_wants_a_signature() {
    let nobody = Trust {
        approvers: ApproverSet {
            threshold: 0,
            ..trust().approvers
        },
        ..trust()
    };
    assert_eq!(Parts::of(&first(), &gateway(), &[]).refusal(&nobody), "unsigned");
    assert_eq!(
        Parts::of(&first(), &gateway(), &[("m.stranger", 9)]).refusal(&nobody),
        "under-signed"
    );
}

#[test]
fn another_plants_release_is_refused_even_with_the_same_approvers() {
    let elsewhere = Trust {
        plant: id("hillside-water"),
        ..trust()
    };
    assert_eq!(good().refusal(&elsewhere), "wrong-plant");
}

#[test]
fn a_plan_that_needs_more_than_the_agent_can_do_is_refused_by_name() {
    let parts = good();
    let offer = Offer {
        statement: &parts.statement,
        signatures: &parts.signatures,
        chain: &[],
        plan: &parts.plan,
        leaf_index: parts.leaf_index,
        proof: &parts.proof,
    };
    let kernel_only = BTreeSet::from([Capability(Capability::KERNEL.to_owned())]);
    let refused = verify_offer(&trust(), &kernel_only, &offer).unwrap_err();
    assert_eq!(refused.code(), "unknown-capability");
    assert!(refused.to_string().contains("`inspect:modbus-tcp`"), "{refused}");
}

/// A release over plans that are not as the compiler makes them, signed nevertheless.
fn released_with(spoil: impl Fn(&mut Plan)) -> Parts {
    released_as(|bytes| {
        let mut plan = Plan::from_bytes(bytes).unwrap();
        spoil(&mut plan);
        *bytes = plan.to_bytes();
    })
}

fn released_as(rewrite: impl Fn(&mut Vec<u8>)) -> Parts {
    let mut plans = first().plans;
    plans.values_mut().for_each(rewrite);
    let mut statement = first().statement;
    let leaves = plans.iter().map(|(gateway, plan)| {
        crate::merkle::leaf_hash(&leaf_bytes(gateway, statement.revision, Digest::of(plan)))
    });
    statement.plans_root = Digest(crate::merkle::Tree::new(leaves.collect()).root());
    Parts::of(&Release::from_parts(statement, plans).unwrap(), &gateway(), TWO)
}

#[test]
fn a_signed_plan_that_makes_no_sense_is_refused_all_the_same() {
    let refusal = |spoil: &dyn Fn(&mut Plan)| released_with(spoil).refusal(&trust());
    assert_eq!(
        refusal(&|plan| plan.format = "penstock-plan/9".to_owned()),
        "unknown-format"
    );
    assert_eq!(refusal(&|plan| plan.plant = id("hillside-water")), "wrong-plant");
    assert_eq!(refusal(&|plan| plan.gateway = id("gw-yard")), "wrong-gateway");
    assert_eq!(refusal(&|plan| plan.rules[0].sources.clear()), "unreadable");
    assert_eq!(refusal(&|plan| plan.rules[0].id = plan.rules[1].id), "unreadable");
    released_with(|_| {}).verify(&trust()).unwrap();
}

#[test]
fn a_plan_of_the_format_before_is_verified_and_known_by_the_bytes_that_were_signed() {
    const STORED: &[u8] = include_bytes!("../../fixtures/plan-format-1.json");
    let offer = released_as(|bytes| *bytes = STORED.to_vec());
    let capabilities = Plan::from_bytes(STORED).unwrap().requires;
    let offer = Offer {
        statement: &offer.statement,
        signatures: &offer.signatures,
        chain: &[],
        plan: &offer.plan,
        leaf_index: offer.leaf_index,
        proof: &offer.proof,
    };
    let verified = verify_offer(&trust(), &capabilities, &offer).unwrap();
    assert_eq!(verified.plan_digest, Digest::of(STORED));
    assert_eq!(verified.plan, Plan::from_bytes(STORED).unwrap());
}

/// The statement spelt otherwise, and signed in that spelling.
fn respelt(respell: impl Fn(String) -> String) -> Parts {
    let mut parts = good();
    parts.statement = respell(String::from_utf8(parts.statement).unwrap()).into_bytes();
    let encoded = pre_authentication_encoding(&parts.statement);
    parts.signatures = TWO
        .iter()
        .map(|(person, seed)| {
            use ed25519_dalek::Signer as _;
            let signature = ed25519_dalek::SigningKey::from_bytes(&[*seed; 32]).sign(&encoded);
            Signature::new(id(person), "", &signature.to_bytes()).unwrap()
        })
        .collect();
    parts
}

#[test]
fn a_signed_statement_has_one_spelling_and_every_field() {
    let refusal = |respell: &dyn Fn(String) -> String| respelt(respell).refusal(&trust());
    assert_eq!(refusal(&|text| text.replacen(':', ": ", 1)), "altered");
    assert_eq!(refusal(&|text| text.replace(r#""parent":null,"#, "")), "altered");
    assert_eq!(
        refusal(&|text| text.replacen('{', r#"{"allow":"all","#, 1)),
        "unreadable"
    );
    assert_eq!(
        refusal(&|text| text.replace(r#""gateways":4"#, r#""gateways":4,"gateways":4"#)),
        "unreadable"
    );
    assert_eq!(
        refusal(&|text| text.replace("penstock-release/1", "penstock-release/9")),
        "unknown-format"
    );
    assert_eq!(
        refusal(&|text| text.replace(r#""threshold":2"#, r#""threshold":0"#)),
        "contradictory"
    );
    assert_eq!(
        refusal(&|text| text.replace(r#""threshold":2"#, r#""threshold":4"#)),
        "contradictory"
    );
    assert_eq!(
        refusal(&|text| text.replace(r#""revision":1"#, r#""revision":0"#)),
        "contradictory"
    );
    let parent = format!(r#""parent":"{}""#, Digest::of(b"x"));
    assert_eq!(
        refusal(&|text| text.replace(r#""parent":null"#, &parent)),
        "contradictory"
    );
    let replaces = format!(r#""parent":null,"replaces":["{0}","{0}"]"#, Digest::of(b"x"));
    assert_eq!(
        refusal(&|text| text.replace(r#""parent":null"#, &replaces)),
        "contradictory"
    );
    assert_eq!(
        refusal(&|text| text.replace(r#""parent":null"#, r#""parent":null,"replaces":[]"#)),
        "altered"
    );
    assert_eq!(
        refusal(&|text| text + &" ".repeat(STATEMENT_BYTES_MAX)),
        "too-large"
    );
    respelt(|text| text).verify(&trust()).unwrap();
}

#[test]
fn what_every_gateway_would_refuse_is_not_built() {
    let mut nobody = plant();
    nobody.approvers.threshold = 9;
    assert!(matches!(
        build(&nobody, draft(1, None)),
        Err(BuildError::Refused(_))
    ));
    assert!(matches!(
        build(&plant(), draft(1, Some(Digest::of(b"x")))),
        Err(BuildError::Refused(_))
    ));
}

#[test]
fn what_is_signed_binds_type_and_lengths() {
    assert_eq!(
        pre_authentication_encoding(b"{}"),
        b"DSSEv1 37 application/vnd.penstock.release+json 2 {}"
    );
}

#[test]
fn nobody_signs_what_is_no_release() {
    assert!(key(1).sign(id("j.meyer"), b"{\"transfer\":\"all\"}").is_err());
}

#[test]
fn an_envelope_reads_back_and_takes_one_signature_of_each() {
    let parts = good();
    let mut envelope = Envelope {
        statement: parts.statement.clone(),
        signatures: Vec::new(),
    };
    for signature in parts.signatures.iter().chain(&parts.signatures) {
        envelope.add(signature.clone());
    }
    assert_eq!(envelope.signatures.len(), 2);
    let json = envelope.to_json();
    assert_eq!(Envelope::from_json(&json).unwrap(), envelope);
    assert!(Envelope::from_json(&json.replace("penstock.release", "other")).is_err());
    assert!(Envelope::from_json(&json.replacen('{', "{\"extra\": 1,", 1)).is_err());
    assert!(Envelope::from_json(&json[..json.len() / 2]).is_err());
}

#[test]
fn the_digest_of_a_document_knows_its_files_apart_and_not_their_order() {
    let digest = |files: &[(&str, &str)]| {
        let files: Vec<_> = files
            .iter()
            .map(|(name, content)| DocumentFile {
                name,
                content: content.as_bytes(),
            })
            .collect();
        document_digest(&files)
    };
    assert_eq!(
        digest(&[("a", "1"), ("b", "2")]),
        digest(&[("b", "2"), ("a", "1")])
    );
    let different = [
        digest(&[]),
        digest(&[("a", "1")]),
        digest(&[("a", "1"), ("b", "")]),
        digest(&[("a1", ""), ("b", "")]),
        digest(&[("a", "1b")]),
        digest(&[("a", "2"), ("b", "1")]),
    ];
    assert_eq!(different.iter().collect::<BTreeSet<_>>().len(), different.len());
}
