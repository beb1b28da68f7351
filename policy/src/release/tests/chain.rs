//! Following the statements between what a gateway holds and what it is offered, and coordinators that lie about them.

use proptest::prelude::*;

use super::*;

type Signers = &'static [(&'static str, u8)];

/// A history: the first release, then one after another, each signed by the approvers that its parent names. At every
/// third one the approvers change.
fn history(length: u64) -> Vec<(Release, Signers)> {
    let sets: [(Signers, u8); 3] = [
        (TWO, 2),
        (&[("n.novak", 7)], 1),
        (&[("k.ito", 8), ("p.lund", 9), ("a.silva", 2)], 3),
    ];
    let mut releases: Vec<(Release, Signers)> = Vec::new();
    let mut plant = plant();
    let mut signers = TWO;
    for step in 0..length {
        let parent = releases.last().map(|(release, _)| release.statement.digest());
        let (next, threshold) = sets[usize::try_from(step / 3).unwrap() % sets.len()];
        plant.approvers = approvers(threshold, next);
        // Numbers are used up by proposals that nobody approves, too.
        let release = build(&plant, draft(1 + step * 2, parent)).unwrap();
        releases.push((release, signers));
        signers = next;
    }
    releases
}

fn signed((release, signers): &(Release, Signers)) -> (Vec<u8>, Vec<Signature>) {
    let bytes = release.statement.to_bytes();
    let signatures = sign(&bytes, signers);
    (bytes, signatures)
}

/// The newest release of a history, with everything before it as its chain.
fn offered(history: &[(Release, Signers)]) -> Parts {
    let ((newest, signers), before) = history.split_last().unwrap();
    Parts {
        chain: before.iter().map(signed).collect(),
        ..Parts::of(newest, &gateway(), signers)
    }
}

/// What a gateway believes that went along up to and with `history[at]`.
fn holding(history: &[(Release, Signers)], at: usize) -> Trust {
    offered(&history[..=at]).verify(&trust()).unwrap().release.next
}

#[test]
fn revisions_never_go_backwards_nor_sideways() {
    let one = first();
    let two = build(&plant(), draft(2, Some(one.statement.digest()))).unwrap();
    let after_one = good().verify(&trust()).unwrap().release.next;
    let after_two = Parts::of(&two, &gateway(), TWO)
        .verify(&after_one)
        .unwrap()
        .release
        .next;
    assert_eq!(good().refusal(&after_two), "older");

    let mut sideways = draft(2, Some(one.statement.digest()));
    sideways.reason = "Something else".to_owned();
    let other_two = build(&plant(), sideways).unwrap();
    assert_eq!(
        Parts::of(&other_two, &gateway(), TWO).refusal(&after_two),
        "number-reused"
    );

    let elsewhere = build(&plant(), draft(2, Some(Digest::of(b"another history")))).unwrap();
    assert_eq!(
        Parts::of(&elsewhere, &gateway(), TWO).refusal(&after_one),
        "forked"
    );

    // Enough signatures are not enough: what lies between has to be shown.
    let nine = build(&plant(), draft(9, Some(Digest::of(b"eight")))).unwrap();
    assert_eq!(
        Parts::of(&nine, &gateway(), TWO).refusal(&after_two),
        "chain-missing"
    );
    let parentless = build(&plant(), draft(9, None)).unwrap();
    assert_eq!(
        Parts::of(&parentless, &gateway(), TWO).refusal(&after_two),
        "chain-missing"
    );
    // Numbers that proposals used up which nobody approved are passed over.
    let four = build(&plant(), draft(4, after_two.current)).unwrap();
    Parts::of(&four, &gateway(), TWO).verify(&after_two).unwrap();
}

#[test]
fn a_change_of_approvers_is_signed_by_the_old_ones_and_binds_from_then_on() {
    let after_one = good().verify(&trust()).unwrap().release.next;
    let mut changed = plant();
    changed.approvers = approvers(1, &[("n.novak", 7)]);
    let two = build(&changed, draft(2, after_one.current)).unwrap();
    let new_only: &[(&str, u8)] = &[("n.novak", 7)];
    assert_eq!(
        Parts::of(&two, &gateway(), new_only).refusal(&after_one),
        "under-signed"
    );
    let after_two = Parts::of(&two, &gateway(), TWO)
        .verify(&after_one)
        .unwrap()
        .release
        .next;
    let three = build(&changed, draft(3, after_two.current)).unwrap();
    assert_eq!(
        Parts::of(&three, &gateway(), TWO).refusal(&after_two),
        "under-signed"
    );
    Parts::of(&three, &gateway(), new_only)
        .verify(&after_two)
        .unwrap();

    // One that was in the dark follows the releases one by one.
    let bytes = two.statement.to_bytes();
    let caught_up = verify_release(&after_one, &bytes, &sign(&bytes, TWO))
        .unwrap()
        .next;
    Parts::of(&three, &gateway(), new_only)
        .verify(&caught_up)
        .unwrap();
}

#[test]
fn a_gateway_that_slept_through_changes_of_approvers_follows_them_from_wherever_it_stood() {
    let history = history(12);
    let whole = offered(&history);
    for at in 0..history.len() {
        let verified = whole.verify(&holding(&history, at)).unwrap();
        assert_eq!(verified.release.next.floor, Revision(23), "from {at}");
        // Only what lies between is enough, too.
        let mut needed = whole.clone();
        needed.chain.drain(..(at + 1).min(history.len() - 1));
        needed.verify(&holding(&history, at)).unwrap();
    }
}

#[test]
fn a_gateway_fresh_from_enrolment_begins_where_the_approvers_of_its_token_signed() {
    let history = history(9);
    offered(&history).verify(&trust()).unwrap();
    let enrolled_late = Trust {
        approvers: approvers(1, &[("n.novak", 7)]),
        ..trust()
    };
    offered(&history).verify(&enrolled_late).unwrap();
    let strangers = Trust {
        approvers: approvers(1, &[("m.stranger", 6)]),
        ..trust()
    };
    assert_eq!(offered(&history).refusal(&strangers), "under-signed");
}

#[test]
fn a_chain_of_hundreds_of_releases_is_within_the_limits() {
    let history = history(600);
    offered(&history).verify(&holding(&history, 0)).unwrap();
}

#[test]
fn a_chain_beyond_its_limits_is_refused_before_anything_in_it_is_read() {
    let mut parts = good();
    parts.chain = vec![(Vec::new(), Vec::new()); CHAIN_LINKS_MAX + 1];
    assert_eq!(parts.refusal(&trust()), "too-large");
    parts.chain = vec![(vec![b'x'; CHAIN_BYTES_MAX + 1], Vec::new())];
    assert_eq!(parts.refusal(&trust()), "too-large");
}

#[test]
fn a_release_on_top_of_one_that_nobody_approved_is_refused_however_well_it_is_signed_itself() {
    let mut history = history(4);
    // The third is marked as current by a coordinator, with no signature, or with its parent's.
    let newest = offered(&history);
    for lie in [Vec::new(), signed(&history[1]).1] {
        let mut parts = newest.clone();
        parts.chain[2].1 = lie;
        assert!(matches!(
            parts.refusal(&holding(&history, 1)),
            "unsigned" | "altered"
        ));
    }
    // And the whole set of approvers replaced by the liar's own in it.
    let mut own = plant();
    own.approvers = approvers(1, &[("m.mallory", 66)]);
    let parent = Some(history[1].0.statement.digest());
    let takeover = build(&own, draft(5, parent)).unwrap();
    let next = build(&own, draft(7, Some(takeover.statement.digest()))).unwrap();
    history.truncate(2);
    history.push((takeover, &[("m.mallory", 66)]));
    history.push((next, &[("m.mallory", 66)]));
    assert_eq!(offered(&history).refusal(&holding(&history, 1)), "under-signed");
}

#[test]
fn a_thief_with_one_approvers_key_gets_no_link_of_the_chain_past_a_gateway() {
    let history = history(3);
    for stolen in [&[("j.meyer", 1)], &[("a.silva", 2)]] {
        let mut own = plant();
        own.approvers = approvers(1, stolen);
        let parent = history[1].0.statement.digest();
        let takeover = build(&own, draft(5, Some(parent))).unwrap();
        let next = build(&own, draft(7, Some(takeover.statement.digest()))).unwrap();
        let mut lie = history[..2].to_vec();
        lie.push((takeover, stolen));
        lie.push((next, stolen));
        assert_eq!(offered(&lie).refusal(&holding(&history, 1)), "under-signed");
        // Nor as what replaces the history that the gateway holds.
        let mut replacing = draft(9, None);
        replacing.replaces = vec![parent];
        let replacing = build(&own, replacing).unwrap();
        let alone = Parts::of(&replacing, &gateway(), stolen);
        assert_eq!(alone.refusal(&holding(&history, 1)), "under-signed");
    }
}

#[test]
fn an_older_chain_is_no_way_back_and_another_history_is_named() {
    let history = history(6);
    let older = offered(&history[..3]);
    assert_eq!(older.refusal(&holding(&history, 4)), "older");
    // The coordinator was restored from a backup after the third: its numbers begin anew from there.
    let mut forked = history[..3].to_vec();
    for revision in [7, 9, 11, 13, 15] {
        let (last, _) = forked.last().unwrap();
        let mut draft = draft(revision, Some(last.statement.digest()));
        draft.reason = "another history".to_owned();
        let plant = Plant {
            approvers: last.statement.approvers.clone(),
            ..plant()
        };
        forked.push((build(&plant, draft).unwrap(), TWO));
    }
    let held = holding(&history, 4);
    assert_eq!(offered(&forked[..5]).refusal(&held), "number-reused");
    assert_eq!(offered(&forked[..6]).refusal(&held), "chain-missing");
    let mut bare = offered(&forked[..6]);
    bare.chain.clear();
    assert_eq!(bare.refusal(&held), "chain-missing");
    // What names the head that the gateway holds leads it on, in the middle of a chain too.
    let mut draft = draft(13, Some(forked[4].0.statement.digest()));
    draft.replaces = vec![held.current.unwrap()];
    let plant = Plant {
        approvers: held.approvers.clone(),
        ..plant()
    };
    forked.truncate(5);
    // Signed by the approvers that the gateway's own head names.
    let signers: Signers = &[("n.novak", 7)];
    forked.push((build(&plant, draft).unwrap(), signers));
    offered(&forked).verify(&held).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn whichever_link_is_left_out_or_exchanged_the_chain_is_refused(
        from in 0..8_usize, at in any::<prop::sample::Index>(), exchanged: bool,
    ) {
        let history = history(10);
        let held = holding(&history, from);
        let mut parts = offered(&history);
        let needed = from + 1..history.len() - 1;
        let at = needed.start + at.index(needed.len());
        if exchanged {
            parts.chain.swap(at, at - 1);
        } else {
            drop(parts.chain.remove(at));
        }
        let code = parts.refusal(&held);
        prop_assert!(
            ["chain-missing", "older", "forked", "under-signed", "number-reused"].contains(&code),
            "{code}"
        );
    }
}
