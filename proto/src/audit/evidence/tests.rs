//! Heads that others hold, against a tree that was rewritten by somebody with the coordinator's keys.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use penstock_policy::ids::{ApproverId, Digest, PlantId, Revision};
use penstock_policy::merkle::growing::{self, NodeAt};
use penstock_policy::merkle::leaf_hash;
use penstock_policy::model::{Approver, ApproverSet};
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{STATEMENT_FORMAT, STATEMENT_FORMAT_TRAILS, Statement, TrailsAnchor};
use proptest::prelude::*;

use super::*;
use crate::audit::note::{Note, NoteSignature};
use crate::audit::verify::NotedHeads;
use crate::keys::{FileKey, Key, KeyKind};
use crate::v1;

/// A tree whose leaves are these.
struct Grown(BTreeMap<NodeAt, Hash>);

impl Grown {
    fn of(leaves: &[u64]) -> Self {
        let nodes = RefCell::new(BTreeMap::new());
        for (index, leaf) in (0..).zip(leaves) {
            let get = |at| Ok::<_, Infallible>(nodes.borrow()[&at]);
            let put = |at, hash| {
                nodes.borrow_mut().insert(at, hash);
                Ok(())
            };
            growing::append(index, leaf_hash(&leaf.to_be_bytes()), get, put).unwrap();
        }
        Self(nodes.into_inner())
    }

    fn state(&self, size: u64) -> TreeState {
        let root = growing::root(size, |at| Ok::<_, Infallible>(self.0[&at])).unwrap();
        TreeState { size, root }
    }

    fn proof(&self, earlier: u64, size: u64) -> Vec<Hash> {
        let proof = growing::consistency(earlier, size, |at| Ok::<_, Infallible>(self.0[&at]));
        proof.unwrap().unwrap()
    }
}

fn plant() -> PlantId {
    "works".parse().unwrap()
}

fn key(person: &str) -> ApproverKey {
    ApproverKey::from_seed(&Digest::of(person.as_bytes()).0)
}

fn approvers(people: &[&str]) -> ApproverSet {
    let people = people.iter().map(|name| {
        let approver = Approver {
            key: key(name).public(),
            role: None,
        };
        (ApproverId::new(*name).unwrap(), approver)
    });
    ApproverSet {
        threshold: 2,
        emergency_threshold: None,
        people: people.collect(),
    }
}

/// A release of `anna`'s, signed by these two.
fn release(
    revision: u64,
    parent: Option<&v1::SignedRelease>,
    head: Option<TrailsAnchor>,
    (people, signers): (&[&str], &[&str]),
) -> v1::SignedRelease {
    let statement = Statement {
        format: head
            .map_or(STATEMENT_FORMAT, |_| STATEMENT_FORMAT_TRAILS)
            .to_owned(),
        plant: plant(),
        revision: Revision(revision),
        parent: parent.map(|parent| Digest::of(&parent.statement)),
        replaces: Vec::new(),
        document_digest: Digest::of(b"document"),
        plans_root: Digest::of(b"plans"),
        gateways: 1,
        approvers: approvers(people),
        author: "anna".parse().unwrap(),
        ticket: None,
        reason: "test".to_owned(),
        created_ms: 1_000 * revision,
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: head,
    }
    .to_bytes();
    let signatures = signers.iter().map(|person| {
        let name = ApproverId::new(*person).unwrap();
        v1::Signature::from(&key(person).sign(name, &statement).unwrap())
    });
    v1::SignedRelease {
        signatures: signatures.collect(),
        statement: statement.into(),
    }
}

const OLD: &[&str] = &["bob", "carol"];
const NEW: &[&str] = &["carol", "dora"];

fn anchor(tree: TreeState) -> Option<TrailsAnchor> {
    Some(TrailsAnchor {
        size: tree.size,
        root: Digest(tree.root),
        again: false,
    })
}

/// The note of a head; who signed it is not asked here.
fn note(tree: TreeState) -> Vec<u8> {
    let head = TreeHead {
        origin: "works/coordinator/c1".to_owned(),
        tree,
        // What a coordinator says of its clock decides nothing.
        time_ms: 1,
    };
    let signature = NoteSignature {
        name: head.origin.clone(),
        key_id: [1; 4],
        bytes: vec![1],
    };
    Note {
        text: head.to_string(),
        signatures: vec![signature],
    }
    .to_bytes()
}

/// What comes of these releases, and of heads that gateways saw, in a file with this tree.
fn judged(
    file: &Grown,
    size: u64,
    releases: &[v1::SignedRelease],
    (seen, vouched): (&[(u64, Vec<u8>)], Option<Vouched>),
) -> Result<AnchorsReport, EvidenceError> {
    let mut anchors = Anchors::default();
    if let Some(vouched) = vouched {
        anchors.believe(vouched);
    }
    let heads = seen
        .iter()
        .map(|(revision, note)| (Revision(*revision), note.clone().into()));
    let noted = NotedHeads {
        heads: heads.collect(),
        further: 0,
    };
    anchors.seen("gw-a", noted);
    judged_of(anchors, file, size, releases, None)
}

/// The same, of heads that stand in these trails, of a file whose head this key signed.
fn judged_of(
    mut anchors: Anchors,
    file: &Grown,
    size: u64,
    releases: &[v1::SignedRelease],
    coordinator: Option<&CertificateDer<'_>>,
) -> Result<AnchorsReport, EvidenceError> {
    for release in releases {
        anchors.release(release, &plant())?;
    }
    for earlier in anchors.sizes() {
        if earlier <= size {
            anchors.proof(earlier, &file.proof(earlier, size), &file.state(size));
        }
    }
    Ok(anchors.report(coordinator))
}

proptest! {
    #[test]
    fn a_tree_that_was_rewritten_before_a_signed_head_contradicts_it_and_one_that_only_grew_does_not(
        named in 1_u64..40, more in 0_u64..20, rewritten in any::<prop::sample::Index>(), shorter in any::<bool>(), seen in any::<bool>(),
    ) {
        let leaves: Vec<u64> = (0..named + more).collect();
        let honest = Grown::of(&leaves);
        let at = rewritten.index(leaves.len());
        let mut other = leaves.clone();
        if shorter {
            other.remove(at);
        } else {
            other[at] = 1 << 40;
        }
        let forged = Grown::of(&other);
        let head = honest.state(named);
        let (releases, notes) = match seen {
            true => (vec![release(1, None, None, (OLD, OLD))], vec![(1, note(head))]),
            false => (vec![release(1, None, anchor(head), (OLD, OLD))], vec![]),
        };
        let size = leaves.len() as u64;
        let report = judged(&honest, size, &releases, (&notes, None)).unwrap();
        prop_assert!(report.is_sound());
        prop_assert_eq!(report.anchored + report.seen, 1);
        let report = judged(&forged, other.len() as u64, &releases, (&notes, None)).unwrap();
        // What came after the head may be rewritten: nobody vouched for it.
        let is_before = (at as u64) < named;
        prop_assert_eq!(report.is_sound(), !is_before, "{:?}", report);
    }
}

#[test]
fn a_head_without_a_proof_contradicts_and_one_that_its_approvers_gave_up_does_not() {
    let (honest, other) = (Grown::of(&[1, 2, 3, 4, 5]), Grown::of(&[1, 2, 9, 10, 11, 12]));
    let first = release(1, None, anchor(honest.state(4)), (OLD, OLD));
    let none = judged(&honest, 3, std::slice::from_ref(&first), (&[], None)).unwrap();
    assert!(
        !none.is_sound() && none.wrong[0].contains("nothing in the file proves"),
        "{none:?}"
    );
    // Another release after it, and then one that says that the trails begin again.
    let notes = [(1, note(honest.state(5))), (2, note(other.state(4)))];
    let silent = release(2, Some(&first), None, (OLD, OLD));
    let report = judged(&other, 6, &[first.clone(), silent], (&notes, None)).unwrap();
    assert_eq!((report.wrong.len(), report.doubted.len()), (1, 1), "{report:?}");
    let again = anchor(other.state(3)).map(|head| TrailsAnchor { again: true, ..head });
    let second = release(2, Some(&first), again, (OLD, OLD));
    let report = judged(&other, 6, &[first.clone(), second.clone()], (&notes, None)).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let (of, given_up) = report.again.clone().unwrap();
    assert_eq!((of.revision, given_up), (Revision(2), 2));
    assert_eq!((report.anchored, report.seen), (1, 1));
    // What is rewritten after that is no longer given up.
    let later = [(1, note(honest.state(5))), (2, note(honest.state(5)))];
    let report = judged(&other, 6, &[first, second], (&later, None)).unwrap();
    assert_eq!((report.wrong.len(), report.doubted.len()), (0, 1), "{report:?}");
}

#[test]
fn who_signed_counts_by_the_approvers_of_the_release_before_and_by_those_whom_the_reader_knows() {
    let tree = Grown::of(&[1, 2, 3]);
    let first = release(1, None, anchor(tree.state(1)), (OLD, OLD));
    let second = release(2, Some(&first), anchor(tree.state(2)), (NEW, OLD));
    let third = release(3, Some(&second), anchor(tree.state(3)), (NEW, NEW));
    let chain = [first.clone(), second.clone(), third.clone()];
    let of = |releases: &[v1::SignedRelease], vouched| judged(&tree, 3, releases, (&[], vouched));
    let report = of(&chain, None).unwrap();
    assert_eq!((report.history, report.anchored), (History::OwnWord, 3));
    let newest = report.newest.unwrap();
    let signers: Vec<_> = newest.signers.iter().map(ToString::to_string).collect();
    assert_eq!(
        (newest.revision, signers),
        (Revision(3), vec!["carol".to_owned(), "dora".to_owned()])
    );
    // Signed by those who held before only, left out, or by strangers: no history.
    let forged = release(3, Some(&second), anchor(tree.state(3)), (NEW, OLD));
    for wrong in [
        vec![first.clone(), second.clone(), forged],
        vec![first, third.clone()],
    ] {
        assert!(matches!(
            of(&wrong, None),
            Err(EvidenceError::History { revision: 3, .. })
        ));
    }
    // Known by the first approvers, by the last ones, and by one release.
    let known = [
        Vouched::Approvers(approvers(OLD)),
        Vouched::Approvers(approvers(NEW)),
        Vouched::Release(Digest::of(&second.statement)),
    ];
    for vouched in known {
        assert_eq!(of(&chain, Some(vouched)).unwrap().history, History::Known);
    }
    let strangers = Vouched::Approvers(approvers(&["mallory", "trudy"]));
    let report = of(&chain, Some(strangers)).unwrap();
    assert!(!report.is_sound() && report.history == History::Others);
    let elsewhere = Vouched::Release(Digest::of(b"another"));
    assert_eq!(of(&chain, Some(elsewhere)).unwrap().history, History::OwnWord);
    // A file that begins later names no signers of its first release, and goes on from it.
    let report = of(&[second, third], None).unwrap();
    assert_eq!(report.anchored, 2);
}

/// A coordinator's key, and a certificate of it.
fn coordinator() -> (Key, CertificateDer<'static>) {
    let key: Key = FileKey::generate(KeyKind::EcdsaP256).unwrap().into();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    (key, certificate.der().clone())
}

fn signed_note(
    tree: TreeState,
    time_ms: u64,
    (key, certificate): &(Key, CertificateDer<'static>),
) -> Vec<u8> {
    let head = TreeHead {
        origin: "works/coordinator/c1".to_owned(),
        tree,
        time_ms,
    };
    let text = head.to_string();
    let signature = NoteSignature::certified(&head.origin, key, certificate, &text).unwrap();
    Note {
        text,
        signatures: vec![signature],
    }
    .to_bytes()
}

/// Heads in a trail, each with the revision that was in force there.
type Heads = Vec<(u64, Vec<u8>)>;

fn noted(heads: &[(u64, Vec<u8>)]) -> NotedHeads {
    let heads = heads.iter();
    NotedHeads {
        heads: heads
            .map(|(revision, note)| (Revision(*revision), note.clone().into()))
            .collect(),
        further: 0,
    }
}

#[test]
fn what_one_gateway_made_up_is_a_finding_about_it_and_what_the_coordinator_signed_is_everybodys() {
    let (honest, other) = (Grown::of(&[1, 2, 3, 4]), Grown::of(&[1, 9, 3, 4]));
    let (ours, strange) = (coordinator(), coordinator());
    let of = |trails: &[(&str, Heads)], releases: &[v1::SignedRelease]| {
        let mut anchors = Anchors::default();
        for (source, heads) in trails {
            anchors.seen(source, noted(heads));
        }
        judged_of(anchors, &honest, 4, releases, Some(&ours.1)).unwrap()
    };
    let first = [release(1, None, None, (OLD, OLD))];
    let good = ("gw-good", vec![(1, signed_note(honest.state(3), 5, &ours))]);
    for made_up in [note(other.state(3)), signed_note(other.state(3), 5, &strange)] {
        let report = of(&[("gw-bad", vec![(1, made_up)]), good.clone()], &first);
        assert!(!report.is_sound() && report.wrong.is_empty(), "{report:?}");
        let doubted: Vec<_> = report.doubted.keys().map(String::as_str).collect();
        assert_eq!((doubted, report.seen), (vec!["gw-bad"], 1));
    }
    // Also where it claims the head of another root before the one who saw it, and where there are very many.
    let seen = signed_note(other.state(3), 5, &ours);
    let copied = [
        ("gw-bad", vec![(1, note(other.state(3)))]),
        ("gw-good", vec![(1, seen.clone())]),
    ];
    let report = of(&copied, &first);
    assert!(
        report.wrong[0].contains("gw-good") && report.doubted.is_empty(),
        "{report:?}"
    );
    let flood: Vec<_> = (0..20_500)
        .map(|number: u64| {
            let mut root = [0; 32];
            root[..8].copy_from_slice(&number.to_be_bytes());
            (1, note(TreeState { size: 3, root }))
        })
        .collect();
    let report = of(&[("gw-bad", flood), good], &first);
    assert_eq!(
        (report.seen, report.unjudged),
        (1, 500),
        "the other's place is not taken"
    );
    assert_eq!(report.doubted["gw-bad"].len(), 6);
    // What all gateways of a large plant saw takes the places of one of them, and many spellings of one head those of one.
    let everywhere: Heads = (0..1_000)
        .map(|number: u64| {
            let mut root = [1; 32];
            root[..8].copy_from_slice(&number.to_be_bytes());
            (1, note(TreeState { size: 3, root }))
        })
        .collect();
    let spellings: Heads = (1..=20_500)
        .map(|time_s| (1, signed_note(other.state(3), time_s, &strange)))
        .collect();
    let names: Vec<_> = (0..100).map(|number| format!("gw-{number}")).collect();
    let mut plant: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), everywhere.clone()))
        .collect();
    plant.push(("gw-bad", spellings));
    let report = of(&plant, &first);
    assert_eq!((report.unjudged, report.doubted.len()), (0, 101), "100,000 notes");
    // A head from before the trails began again, which a gateway says that it saw after.
    let again = anchor(honest.state(2)).map(|head| TrailsAnchor { again: true, ..head });
    let chain = [first[0].clone(), release(2, Some(&first[0]), again, (OLD, OLD))];
    let shown_again = [("gw-bad", vec![(2, seen.clone())]), ("gw-good", vec![(1, seen)])];
    let report = of(&shown_again, &chain);
    assert!(
        report.wrong.is_empty() && report.doubted.contains_key("gw-bad") && report.doubted.len() == 1,
        "{report:?}"
    );
    let after = signed_note(other.state(3), 2_001, &ours);
    let report = of(&[("gw-good", vec![(2, after)])], &chain);
    assert_eq!((report.wrong.len(), report.doubted.len()), (1, 0));
}
