#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa};

use super::*;
use crate::keys::{FileKey, KeyKind};

fn subject(number: u32) -> Subject {
    format!("gateway/gw-{number:05}").parse().unwrap()
}

fn listed(entries: &[(u8, u32)]) -> Withdrawn {
    let mut list = Withdrawn::default();
    for (number, from) in entries {
        list.withdraw(&subject(u32::from(*number)), Epoch(*from));
    }
    list
}

fn entries() -> impl Strategy<Value = Vec<(u8, u32)>> {
    prop::collection::vec((0..8_u8, 1..6_u32), 0..12)
}

proptest! {
    #[test]
    fn a_list_comes_back_from_its_snapshot_and_no_other_bytes_are_one(said in entries(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let list = listed(&said);
        let bytes = list.snapshot();
        let back = Withdrawn::from_snapshot(&bytes, list.held()).unwrap();
        prop_assert_eq!(back.held(), list.held());
        prop_assert!(back.entries().eq(list.entries()));
        let mut altered = bytes.clone();
        altered[at.index(bytes.len())] ^= 1 << bit;
        prop_assert!(Withdrawn::from_snapshot(&altered, list.held()).is_err());
        // Neither with a digest of their own, unless they are another list in its one form.
        let own = Held { number: 1, digest: Digest::of(&altered) };
        if let Ok(other) = Withdrawn::from_snapshot(&altered, own) {
            prop_assert_eq!(other.snapshot(), altered);
        }
    }

    #[test]
    fn two_lists_put_together_say_what_each_said_and_whoever_held_one_hears_of_the_other(one in entries(), other in entries()) {
        let (before, other) = (listed(&one), listed(&other));
        let mut all = before.clone();
        let news = all.merge(&other);
        for number in 0..8 {
            let subject = subject(number);
            prop_assert_eq!(all.from(&subject), before.from(&subject).max(other.from(&subject)));
            prop_assert_eq!(news.contains(&subject), all.from(&subject) != before.from(&subject));
        }
        prop_assert!(all.held().number >= before.held().number.max(other.held().number));
        let mut holder = before.clone();
        if let Some(list) = all.since(before.held(), &"water".parse().unwrap(), 0) {
            holder.take(&list).unwrap();
        }
        prop_assert_eq!(holder.held(), all.held());
        prop_assert!(all.merge(&other).is_empty());
    }
}

#[test]
fn a_snapshot_that_approvers_or_the_authority_vouch_for_holds_two_thousand_names_within_what_a_release_carries()
 {
    let mut list = Withdrawn::default();
    for number in 0..2_500 {
        list.withdraw(&subject(number), Epoch(2));
    }
    let bytes = list.snapshot().len();
    assert!(bytes <= SNAPSHOT_BYTES_MAX, "{bytes}");
    for number in 2_500..100_000 {
        list.withdraw(&subject(number), Epoch(2));
    }
    // What a gateway sends back of the longest list that it keeps is a message still.
    let all = list.snapshot().len();
    assert!(
        all > SNAPSHOT_BYTES_MAX && all + 64 * 1024 <= crate::channel::GATEWAY_MESSAGE_BYTES_MAX,
        "{all}"
    );
}

#[test]
fn how_far_a_list_goes_counts_by_the_authority_of_its_plant_alone() {
    let root = |name: &str| {
        let key = Key::new(FileKey::generate(KeyKind::EcdsaP384).unwrap());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        (key, certificate)
    };
    let ((key, own), (_, strange)) = (root("a"), root("b"));
    let held = listed(&[(1, 2)]).held();
    let plant: PlantId = "water".parse().unwrap();
    let signed = SignedHeld::sign(held, &plant, &key).unwrap();
    assert_eq!(
        signed.verify(&plant, &[strange.clone(), own.clone()]).unwrap(),
        held
    );
    assert!(matches!(
        signed.verify(&plant, &[strange]),
        Err(ListError::Signature)
    ));
    let other = "steel".parse().unwrap();
    assert!(matches!(
        signed.verify(&other, std::slice::from_ref(&own)),
        Err(ListError::Plant(_))
    ));
    let mut altered = signed;
    altered.payload[3] ^= 1;
    assert!(matches!(
        altered.verify(&plant, &[own]),
        Err(ListError::Signature)
    ));
}
