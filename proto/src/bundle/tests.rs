#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::keys::FileKey;

struct Root(CertifiedIssuer<'static, KeyPair>);

impl Root {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn key(&self) -> Key {
        let pem = self.0.key().serialize_pem();
        FileKey::from_pem(pem.as_bytes(), "a root").unwrap().into()
    }

    fn in_phase(&self, phase: Phase) -> BundleRoot {
        BundleRoot::new(&self.der(), phase)
    }
}

fn plant() -> PlantId {
    "water".parse().unwrap()
}

fn signed(bundle: &Bundle, by: &[&Root]) -> SignedBundle {
    let mut signed = SignedBundle::unsigned(bundle);
    for root in by {
        signed.sign(&root.key()).unwrap();
    }
    signed
}

/// The whole way from one root to another: prepare, activate, retire.
fn rotation(old: &Root, new: &Root) -> Vec<SignedBundle> {
    let steps: [(Vec<BundleRoot>, &[&Root]); 3] = [
        (
            vec![old.in_phase(Phase::Active), new.in_phase(Phase::Next)],
            &[old],
        ),
        (
            vec![old.in_phase(Phase::Retiring), new.in_phase(Phase::Active)],
            &[old, new],
        ),
        (vec![new.in_phase(Phase::Active)], &[new]),
    ];
    let mut held = Trusted::first(&[old.der()]);
    let mut bundles = Vec::new();
    for (roots, by) in steps {
        let bundle = signed(&Bundle::following(&held, &plant(), 1, roots, []).unwrap(), by);
        held = held.take(&bundle, &plant()).unwrap().unwrap();
        bundles.push(bundle);
    }
    bundles
}

#[test]
fn whoever_holds_a_root_of_the_bundle_before_follows_to_the_next_one_also_after_a_dark_time() {
    let (old, new) = (Root::new(), Root::new());
    let bundles = rotation(&old, &new);
    let first = Trusted::first(&[old.der()]);
    // One after the other, or all at once.
    let (last, _) = first.take_all(&bundles, &plant()).unwrap().unwrap();
    assert_eq!((last.number, last.certificates()), (3, vec![new.der()]));
    let one = first.take(&bundles[0], &plant()).unwrap().unwrap();
    assert_eq!(one.phase(&new.der()), Some(Phase::Next));
    assert_eq!(
        one.take(&bundles[0], &plant()).unwrap(),
        None,
        "it is held already"
    );
    assert_eq!(one.take_all(&bundles, &plant()).unwrap().unwrap().0, last);
    assert_eq!(last.take_all(&bundles, &plant()).unwrap(), None);
    // Who enrolled later holds the new root alone, and passes over what only the old one signed.
    let newcomer = Trusted::first(&[new.der()]);
    assert_eq!(newcomer.take_all(&bundles, &plant()).unwrap().unwrap().0, last);
    // The last one alone says nothing to whoever knows the old root alone.
    assert!(matches!(
        first.take_all(&bundles[2..], &plant()),
        Err(BundleError::Signature)
    ));
}

#[test]
fn a_bundle_of_a_stranger_of_another_plant_of_a_number_that_is_over_or_given_twice_changes_nothing() {
    let (old, new, thief) = (Root::new(), Root::new(), Root::new());
    let bundles = rotation(&old, &new);
    let held = Trusted::first(&[old.der()])
        .take(&bundles[0], &plant())
        .unwrap()
        .unwrap();
    let roots = || vec![old.in_phase(Phase::Active), thief.in_phase(Phase::Next)];
    let next = Bundle::following(&held, &plant(), 1, roots(), []).unwrap();
    let wrong = |bundle: &SignedBundle| held.take(bundle, &plant()).unwrap_err();
    // Signed by nobody, and by the root that it brings itself.
    assert!(matches!(
        wrong(&SignedBundle::unsigned(&next)),
        BundleError::Signature
    ));
    assert!(matches!(wrong(&signed(&next, &[&thief])), BundleError::Signature));
    let elsewhere = Bundle {
        plant: "steel".parse().unwrap(),
        ..next.clone()
    };
    assert!(matches!(
        wrong(&signed(&elsewhere, &[&old])),
        BundleError::Plant(_)
    ));
    let twin = Bundle {
        number: 1,
        ..next.clone()
    };
    assert!(matches!(wrong(&signed(&twin, &[&old])), BundleError::Forked(1)));
    let twins = [signed(&twin, &[&old]), bundles[1].clone()];
    assert!(matches!(
        held.take_all(&twins, &plant()),
        Err(BundleError::Forked(1))
    ));
    let (last, _) = held.take_all(&bundles, &plant()).unwrap().unwrap();
    let older = signed(
        &Bundle {
            number: 2,
            ..next.clone()
        },
        &[&new],
    );
    assert!(matches!(
        last.take(&older, &plant()),
        Err(BundleError::Older { number: 2, held: 3 })
    ));
    for (change, words) in [
        (
            Bundle {
                number: 0,
                ..next.clone()
            },
            "number is 0",
        ),
        (
            Bundle {
                roots: Vec::new(),
                ..next.clone()
            },
            "exactly one",
        ),
        (
            Bundle {
                roots: vec![old.in_phase(Phase::Active), new.in_phase(Phase::Active)],
                ..next.clone()
            },
            "exactly one",
        ),
        (
            Bundle {
                roots: vec![old.in_phase(Phase::Active), old.in_phase(Phase::Retiring)],
                ..next.clone()
            },
            "twice",
        ),
        (
            Bundle {
                roots: (0..5).map(|_| old.in_phase(Phase::Active)).collect(),
                ..next.clone()
            },
            "at most 4",
        ),
        (
            Bundle {
                withdrawn: (0..65_u8).map(|n| Digest([n; 32])).collect(),
                ..next.clone()
            },
            "at most 4 and 64",
        ),
        (
            Bundle {
                format: "penstock-trust/2".to_owned(),
                ..next.clone()
            },
            "this program reads",
        ),
    ] {
        let refused = wrong(&signed(&change, &[&old])).to_string();
        assert!(refused.contains(words), "{words}: {refused}");
    }
}

#[test]
fn a_withdrawn_issuing_certificate_stays_withdrawn() {
    let root = Root::new();
    let first = Trusted::first(&[root.der()]);
    let stolen = Digest([7; 32]);
    let roots = || vec![root.in_phase(Phase::Active)];
    let withdrawing = Bundle::following(&first, &plant(), 1, roots(), [stolen]).unwrap();
    let held = first
        .take(&signed(&withdrawing, &[&root]), &plant())
        .unwrap()
        .unwrap();
    assert!(held.withdrawn.contains(&stolen));
    let next = Bundle::following(&held, &plant(), 1, roots(), []).unwrap();
    assert!(next.withdrawn.contains(&stolen));
    let back = Bundle {
        withdrawn: BTreeSet::new(),
        ..next
    };
    let refused = held
        .take(&signed(&back, &[&root]), &plant())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("takes back"), "{refused}");
}

#[test]
fn whatever_bit_of_a_bundle_is_turned_it_is_not_taken() {
    let (old, new) = (Root::new(), Root::new());
    let bundle = rotation(&old, &new).remove(0);
    let held = Trusted::first(&[old.der()]);
    for at in 0..bundle.payload.len() {
        let mut altered = bundle.clone();
        altered.payload[at] ^= 1 << (at % 8);
        assert!(held.take(&altered, &plant()).is_err(), "{at}");
    }
}

proptest! {
    #[test]
    fn no_text_but_a_file_of_bundles_is_taken_for_one(text in ".{0,300}") {
        prop_assert!(from_json(&text).is_err());
    }
}

#[test]
fn bundles_come_back_from_their_file_in_the_order_of_their_numbers() {
    let (old, new) = (Root::new(), Root::new());
    let bundles = rotation(&old, &new);
    let mut mixed = bundles.clone();
    mixed.reverse();
    assert_eq!(from_json(&to_json(&mixed)).unwrap(), bundles);
    let good = to_json(&bundles);
    for (wrong, words) in [
        (good.replace("trust+json", "release+json"), "release+json"),
        (good.replace("\"sig\"", "\"sign\""), "unknown field"),
        (to_json(&[]), "0 bundles"),
        (to_json(&vec![bundles[0].clone(); BUNDLES_MAX + 1]), "65 bundles"),
        (" ".repeat(BUNDLE_FILE_BYTES_MAX + 1), "bytes"),
    ] {
        let refused = from_json(&wrong).unwrap_err().to_string();
        assert!(refused.contains(words), "{words}: {refused}");
    }
}
