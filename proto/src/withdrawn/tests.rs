#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa};

use super::*;
use crate::keys::{FileKey, KeyKind};

fn plant() -> PlantId {
    "water".parse().unwrap()
}

fn device(number: u8) -> Subject {
    format!("device/plc-{number}").parse().unwrap()
}

/// What happens to a coordinator and some gateways.
#[derive(Debug, Clone)]
enum Deed {
    /// A life of a subject is over.
    Withdraw(u8, u32),
    /// A gateway gets what it lacks.
    Bring(usize),
    /// A list that was sent once arrives at a gateway, once more or late.
    Repeat(usize, usize),
    /// The coordinator is kept as a backup.
    Keep,
    /// It is restored from its backup.
    Restore,
    /// It learns back what a gateway holds.
    Ask(usize),
}

const GATEWAYS: usize = 3;

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..6_u8, 1..6_u32).prop_map(|(subject, from)| Deed::Withdraw(subject, from)),
        4 => (0..GATEWAYS).prop_map(Deed::Bring),
        2 => (0..GATEWAYS, 0..64_usize).prop_map(|(gateway, list)| Deed::Repeat(gateway, list)),
        1 => Just(Deed::Keep),
        1 => Just(Deed::Restore),
        1 => (0..GATEWAYS).prop_map(Deed::Ask),
    ]
}

fn says_at_least(one: &Withdrawn, other: &Withdrawn) -> bool {
    (0..6).all(|number| one.from(&device(number)) >= other.from(&device(number)))
}

proptest! {
    #[test]
    fn whoever_is_brought_what_they_lack_knows_all_of_it_and_nobody_ever_unlearns(deeds in prop::collection::vec(deed(), 1..60)) {
        let mut coordinator = Withdrawn::default();
        let mut backup = Withdrawn::default();
        let mut gateways = vec![Withdrawn::default(); GATEWAYS];
        let mut sent: Vec<List> = Vec::new();
        for deed in deeds {
            let before = gateways.clone();
            match deed {
                Deed::Withdraw(subject, from) => {
                    let known = coordinator.from(&device(subject));
                    let is_new = coordinator.withdraw(&device(subject), Epoch(from));
                    prop_assert_eq!(is_new, known.is_none_or(|known| known < Epoch(from)));
                }
                Deed::Bring(at) => {
                    if let Some(list) = coordinator.since(gateways[at].held(), &plant(), 0) {
                        gateways[at].take(&list).unwrap();
                        sent.push(list);
                    }
                    prop_assert!(says_at_least(&gateways[at], &coordinator));
                }
                Deed::Repeat(at, list) => {
                    if let Some(list) = sent.get(list) {
                        let _ = gateways[at].take(list);
                    }
                }
                Deed::Keep => backup = coordinator.clone(),
                Deed::Restore => coordinator = backup.clone(),
                Deed::Ask(at) => {
                    if let Some(all) = gateways[at].since(Withdrawn::default().held(), &plant(), 0) {
                        coordinator.take(&all).unwrap();
                    }
                    prop_assert!(says_at_least(&coordinator, &gateways[at]));
                }
            }
            for (before, after) in before.iter().zip(&gateways) {
                prop_assert!(says_at_least(after, before));
                prop_assert!(after.held().number >= before.held().number);
            }
        }
    }
}

#[test]
fn one_more_in_a_long_list_is_brought_in_less_than_a_kilobyte() {
    let mut coordinator = Withdrawn::default();
    for number in 0..100_000 {
        let gateway = format!("gateway/gw-{number}").parse().unwrap();
        coordinator.withdraw(&gateway, Epoch(2));
    }
    let gateway = coordinator.clone();
    coordinator.withdraw(&device(1), Epoch(1));
    let list = coordinator
        .since(gateway.held(), &plant(), 1_800_000_000_000)
        .unwrap();
    let (authority, _) = authority(KeyKind::EcdsaP384, "root");
    let signed = SignedList::sign(&list, &authority).unwrap();
    let bytes = signed.payload.len() + signed.signature.len();
    assert!(bytes < 1024, "{bytes}");
}

fn authority(kind: KeyKind, name: &str) -> (Key, CertificateDer<'static>) {
    let key = Key::new(FileKey::generate(kind).unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = params.self_signed(&key).unwrap().der().clone();
    (key, root)
}

#[test]
fn a_list_is_taken_from_the_plants_authority_alone_and_as_it_was_signed() {
    let mut coordinator = Withdrawn::default();
    coordinator.withdraw(&device(1), Epoch(3));
    let list = coordinator
        .since(Withdrawn::default().held(), &plant(), 5)
        .unwrap();
    for kind in [KeyKind::EcdsaP384, KeyKind::EcdsaP256, KeyKind::Ed25519] {
        let ((key, root), (_, other)) = (authority(kind, "root"), authority(kind, "other"));
        let signed = SignedList::sign(&list, &key).unwrap();
        assert_eq!(
            signed.verify(&plant(), &[other.clone(), root.clone()]).unwrap(),
            list
        );
        assert!(matches!(
            signed.verify(&plant(), &[other]),
            Err(ListError::Signature)
        ));
        assert!(matches!(signed.verify(&plant(), &[]), Err(ListError::Signature)));
        assert!(matches!(
            signed.verify(&"gas".parse().unwrap(), std::slice::from_ref(&root)),
            Err(ListError::Plant(_))
        ));
        for at in 0..signed.payload.len() {
            let mut altered = signed.clone();
            altered.payload[at] ^= 1;
            assert!(matches!(
                altered.verify(&plant(), std::slice::from_ref(&root)),
                Err(ListError::Signature)
            ));
        }
        for at in 0..signed.signature.len() {
            let mut altered = signed.clone();
            altered.signature[at] ^= 1;
            assert!(altered.verify(&plant(), std::slice::from_ref(&root)).is_err());
        }
        let bare = key.sign(&signed.payload).unwrap();
        let untyped = SignedList {
            signature: bare,
            ..signed.clone()
        };
        assert!(untyped.verify(&plant(), &[root]).is_err());
    }
}

#[test]
fn what_came_after_something_else_is_not_taken_for_all() {
    let mut coordinator = Withdrawn::default();
    coordinator.withdraw(&device(1), Epoch(3));
    let held = coordinator.held();
    coordinator.withdraw(&device(2), Epoch(3));
    let later = coordinator.since(held, &plant(), 0).unwrap();
    let mut stranger = Withdrawn::default();
    stranger.withdraw(&device(4), Epoch(9));
    let before = stranger.clone();
    assert!(matches!(stranger.take(&later), Err(ListError::Gap { since: 1 })));
    assert_eq!(stranger, before);
    let all = coordinator.since(stranger.held(), &plant(), 0).unwrap();
    assert_eq!(stranger.take(&all).unwrap(), [device(1), device(2)]);
    assert!(stranger.is_over(&device(4), Epoch(8)) && !stranger.is_over(&device(4), Epoch(9)));
}

#[test]
fn what_is_said_after_a_number_that_others_hold_is_new_to_them() {
    let mut lost = Withdrawn::default();
    for number in 0..5 {
        lost.withdraw(&device(number), Epoch(1));
    }
    // A backup from before: the gateway holds more than the coordinator.
    let mut gateway = lost.clone();
    let mut coordinator = Withdrawn::default();
    coordinator.withdraw(&device(0), Epoch(1));
    coordinator.go_past(gateway.held().number);
    coordinator.withdraw(&device(9), Epoch(4));
    assert_eq!(coordinator.held().number, 6);
    let news = coordinator.since(gateway.held(), &plant(), 0).unwrap();
    assert_eq!(gateway.take(&news).unwrap(), [device(9)]);
    assert!(
        gateway.is_over(&device(3), Epoch(0)),
        "what only the gateway knew stays"
    );
    coordinator.go_past(2);
    assert_eq!(coordinator.held().number, 6);
}
