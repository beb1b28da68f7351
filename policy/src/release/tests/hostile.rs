//! Offers that a hostile coordinator or a bad link may send: nothing of it is ever obeyed.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]
    #[test]
    fn one_flipped_bit_anywhere_is_refused(part in 0..5_u8, at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut parts = good();
        let flip = |bytes: &mut [u8]| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        };
        match part {
            0 => flip(&mut parts.statement),
            1 => flip(&mut parts.plan),
            2 => {
                let which = at.index(parts.signatures.len());
                flip(&mut parts.signatures[which].bytes);
            }
            3 => {
                let which = at.index(parts.proof.len());
                flip(&mut parts.proof[which]);
            }
            _ => parts.leaf_index ^= 1 << (at.index(64)),
        }
        prop_assert!(parts.verify(&trust()).is_err());
    }

    #[test]
    fn anything_cut_is_refused(part in 0..4_u8, at in any::<prop::sample::Index>()) {
        let mut parts = good();
        match part {
            0 => parts.statement.truncate(at.index(parts.statement.len())),
            1 => parts.plan.truncate(at.index(parts.plan.len())),
            2 => parts.signatures.truncate(at.index(parts.signatures.len())),
            _ => parts.proof.truncate(at.index(parts.proof.len())),
        }
        prop_assert!(parts.verify(&trust()).is_err());
    }

    #[test]
    fn parts_of_two_releases_do_not_fit_together(which in 1..15_u8) {
        let mut changed = plant();
        changed.conduits.remove(&id("office-to-historian"));
        let other = build(&changed, draft(1, None)).unwrap();
        let (one, two) = (good(), Parts::of(&other, &gateway(), TWO));
        let from = |bit: u8| if which & (1 << bit) == 0 { &one } else { &two };
        let mixed = Parts {
            statement: from(0).statement.clone(),
            signatures: from(1).signatures.clone(),
            plan: from(2).plan.clone(),
            leaf_index: one.leaf_index,
            proof: from(3).proof.clone(),
            chain: Vec::new(),
        };
        prop_assert!(mixed.verify(&trust()).is_err(), "{which:04b}");
    }

    #[test]
    fn rubbish_is_refused_and_never_panics(
        statement in prop::collection::vec(any::<u8>(), 0..300),
        plan in prop::collection::vec(any::<u8>(), 0..300),
        leaf_index: u64, proof in prop::collection::vec(any::<[u8; 32]>(), 0..70), bytes: [u8; 32],
    ) {
        let mut parts = good();
        parts.plan = plan;
        parts.proof = proof;
        parts.leaf_index = leaf_index;
        prop_assert!(parts.verify(&trust()).is_err());
        parts.signatures[0].bytes[..32].copy_from_slice(&bytes);
        prop_assert!(parts.verify(&trust()).is_err());
        parts.statement = statement;
        prop_assert!(parts.verify(&trust()).is_err());
    }

    #[test]
    fn building_twice_gives_the_same_bytes_and_parts_give_the_release_again(plant in crate::arbitrary::plants()) {
        let (one, two) = (build(&plant, draft(1, None)).unwrap(), build(&plant, draft(1, None)).unwrap());
        prop_assert_eq!(one.statement.to_bytes(), two.statement.to_bytes());
        prop_assert_eq!(&Statement::from_bytes(&one.statement.to_bytes()).unwrap(), &two.statement);
        prop_assert_eq!(&build(&plant, Draft::of(&one.statement)).unwrap().statement, &one.statement);
        let again = Release::from_parts(one.statement.clone(), one.plans.clone()).unwrap();
        prop_assert!(one.offers().eq(again.offers()));
        let mut spoilt = one.plans.clone();
        spoilt.pop_first();
        prop_assert!(Release::from_parts(one.statement, spoilt).is_none());
    }
}
