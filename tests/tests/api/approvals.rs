//! Proposals side by side, how they end, and what a signature names.

use penstock_proto::refusal::Reason;
use penstock_proto::v1;

use crate::world::{Built, Control, World, built, document, people, refused, release};

async fn states(control: &mut Control) -> Vec<(u64, v1::ReleaseState)> {
    let listed = control
        .list_releases(v1::ListReleasesRequest { limit: 0 })
        .await
        .unwrap();
    let releases = listed.into_inner().releases;
    releases.iter().map(|r| (r.revision, r.state())).collect()
}

async fn propose(control: &mut Control, release: &Built) {
    control.propose_release(release.request.clone()).await.unwrap();
}

#[tokio::test]
async fn proposals_wait_side_by_side_each_under_its_own_number_and_the_first_that_is_approved_overtakes_the_others()
 {
    use v1::ReleaseState::{Current, Overtaken, Proposed};
    let world = World::start().await;
    let mut people = people(&world).await;
    let one = built(&document(2, 100), 1, None, "anna");
    let other_one = built(&document(2, 50), 1, None, "anna");
    let two = built(&document(2, 50), 2, None, "anna");
    propose(&mut people.engineer, &one).await;
    people.bob.approve_release(one.approval("bob")).await.unwrap();
    // The signed, waiting one is not replaced.
    let taken = people.engineer.propose_release(other_one.request.clone()).await;
    refused(taken, Reason::RevisionTaken);
    refused(
        people.bob.approve_release(other_one.approval("bob")).await,
        Reason::DigestMismatch,
    );
    propose(&mut people.engineer, &two).await;
    assert_eq!(states(&mut people.bob).await, [(2, Proposed), (1, Proposed)]);
    people.bob.approve_release(two.approval("bob")).await.unwrap();
    people.carol.approve_release(two.approval("carol")).await.unwrap();
    assert_eq!(states(&mut people.bob).await, [(2, Current), (1, Overtaken)]);
    let late = people.carol.approve_release(one.approval("carol")).await;
    assert!(refused(late, Reason::NotProposed).contains("overtaken"));
    // Its number stays used, and so does the current one's.
    for number in [1, 2] {
        let again = built(
            &document(2, 7),
            number,
            (number > 1).then(|| two.digest()),
            "anna",
        );
        let again = people.engineer.propose_release(again.request).await;
        assert!(again.is_err(), "{number}");
    }
    let three = built(&document(2, 7), 3, Some(two.digest()), "anna");
    release(&mut people, &three).await;
}

#[tokio::test]
async fn of_two_proposals_that_get_their_last_signature_at_once_one_becomes_current() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let rivals = [1, 2].map(|number| built(&document(2, 100 + number), u64::from(number), None, "anna"));
    for rival in &rivals {
        propose(&mut people.engineer, rival).await;
        people.bob.approve_release(rival.approval("bob")).await.unwrap();
    }
    let (mut one, mut two) = (people.carol.clone(), people.carol.clone());
    let (first, second) = tokio::join!(
        one.approve_release(rivals[0].approval("carol")),
        two.approve_release(rivals[1].approval("carol"))
    );
    assert_ne!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
    let current = states(&mut people.bob).await;
    let count = current
        .iter()
        .filter(|(_, state)| *state == v1::ReleaseState::Current)
        .count();
    assert_eq!(count, 1, "{current:?}");
}

#[tokio::test]
async fn a_proposal_ends_by_an_approvers_rejection_or_its_authors_withdrawal_and_the_trail_says_which_and_why()
 {
    use v1::ReleaseState::{Rejected, Withdrawn};
    let world = World::start().await;
    let mut people = people(&world).await;
    let mut other_engineer = world.operator("dora", v1::Role::Engineer).await;
    let mut stranger = world.operator("mallory", v1::Role::Approver).await;
    let one = built(&document(2, 100), 1, None, "anna");
    propose(&mut people.engineer, &one).await;
    let no = |reason: &str| one.end(reason);
    refused(people.engineer.reject_release(no("x")).await, Reason::WrongRole);
    refused(stranger.reject_release(no("x")).await, Reason::NotAnApprover);
    refused(people.bob.reject_release(no("  ")).await, Reason::BadRequest);
    let mut another = no("x");
    another.statement_digest = vec![7; 32].into();
    refused(people.bob.reject_release(another).await, Reason::DigestMismatch);
    refused(
        other_engineer.withdraw_release(no("x")).await,
        Reason::AuthorMismatch,
    );
    let rejected = people
        .bob
        .reject_release(no("PLC 7 is not ours"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((rejected.state(), rejected.ended_by.as_str()), (Rejected, "bob"));
    let late = people.carol.approve_release(one.approval("carol")).await;
    assert!(refused(late, Reason::NotProposed).contains("rejected by bob: PLC 7 is not ours"));

    let two = built(&document(2, 101), 2, None, "anna");
    propose(&mut people.engineer, &two).await;
    let withdrawn = people.engineer.withdraw_release(two.end("a typo")).await.unwrap();
    assert_eq!(withdrawn.into_inner().state(), Withdrawn);
    let trail: Vec<_> = world
        .trail("coordinator/c1")
        .await
        .into_iter()
        .filter_map(|record| match record.event?.kind? {
            v1::audit_event::Kind::Operator(event) if event.allowed => Some((event.action, event.target)),
            _ => None,
        })
        .collect();
    for (action, release, reason) in [
        ("reject-release", &one, "PLC 7 is not ours"),
        ("withdraw-release", &two, "a typo"),
    ] {
        let number = release.release.statement.revision;
        let target = format!("{number} {}: {reason}", release.digest());
        assert!(
            trail.contains(&(action.to_owned(), target.clone())),
            "{target}: {trail:?}"
        );
    }
    // None of the numbers comes back.
    let again = built(&document(2, 103), 2, None, "anna");
    refused(
        people.engineer.propose_release(again.request).await,
        Reason::RevisionTaken,
    );
    release(&mut people, &built(&document(2, 103), 3, None, "anna")).await;
}

#[tokio::test]
async fn an_approval_stands_in_the_trail_with_the_digest_that_was_signed_also_where_it_was_refused() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let one = built(&document(2, 100), 1, None, "anna");
    let other = built(&document(2, 7), 1, None, "anna");
    propose(&mut people.engineer, &one).await;
    people.bob.approve_release(one.approval("bob")).await.unwrap();
    refused(
        people.carol.approve_release(other.approval("carol")).await,
        Reason::DigestMismatch,
    );
    people.carol.approve_release(one.approval("carol")).await.unwrap();
    let said: Vec<_> = world
        .trail("coordinator/c1")
        .await
        .into_iter()
        .filter_map(|record| match record.event?.kind? {
            v1::audit_event::Kind::Operator(event) if event.action == "approve-release" => {
                Some((event.operator, event.target, event.allowed))
            }
            _ => None,
        })
        .collect();
    let expected = [
        ("bob", format!("r1 {}", one.digest()), true),
        ("carol", format!("r1 {}", other.digest()), false),
        ("carol", format!("r1 {}, now current", one.digest()), true),
    ]
    .map(|(who, target, allowed)| (who.to_owned(), target, allowed));
    for line in expected {
        assert!(said.contains(&line), "{line:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_signature_made_offline_is_brought_by_another_approver_who_is_named_beside_it() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let one = built(&document(2, 100), 1, None, "anna");
    propose(&mut people.engineer, &one).await;
    people.bob.approve_release(one.approval("bob")).await.unwrap();
    let brought = |person: &str| v1::ApproveReleaseRequest {
        brought: true,
        ..one.approval(person)
    };
    // Not by whoever happens to be logged in, and not as one's own.
    refused(
        people.engineer.approve_release(brought("carol")).await,
        Reason::WrongRole,
    );
    refused(
        people.bob.approve_release(one.approval("carol")).await,
        Reason::NotAnApprover,
    );
    // Bringing makes no signature better.
    let mut forged = brought("carol");
    forged.signature.as_mut().unwrap().signature = one.approval("bob").signature.unwrap().signature;
    refused(people.bob.approve_release(forged).await, Reason::BadSignature);
    refused(
        people.bob.approve_release(brought("mallory")).await,
        Reason::NotAnApprover,
    );
    let done = people
        .bob
        .approve_release(brought("carol"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(done.state(), v1::ReleaseState::Current);
    let trail = world.trail("coordinator/c1").await;
    let named = trail.iter().any(|record| {
        matches!(&record.event.as_ref().unwrap().kind, Some(v1::audit_event::Kind::Operator(event))
            if event.operator == "bob" && event.target.contains("brought the signature of carol"))
    });
    assert!(named, "{trail:?}");
}

#[tokio::test]
async fn what_nobody_could_approve_is_not_proposed_since_the_author_does_not_count() {
    let world = World::start().await;
    let mut people = people(&world).await;
    // Three approvers of whom three have to sign: none of them can be the author.
    let mut bob = world.operator("bob", v1::Role::Engineer).await;
    let by_bob = built(&document(3, 100), 1, None, "bob");
    let said = refused(bob.propose_release(by_bob.request).await, Reason::SelfApproval);
    assert!(said.contains("nobody could approve it"), "{said}");
    propose(&mut people.engineer, &built(&document(3, 100), 1, None, "anna")).await;
}

#[tokio::test]
async fn more_proposals_than_are_kept_are_refused_until_one_of_them_ends() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let mut waiting = Vec::new();
    for number in 1..=16 {
        let one = built(&document(2, 100), number, None, "anna");
        propose(&mut people.engineer, &one).await;
        waiting.push(one);
    }
    let more = built(&document(2, 100), 17, None, "anna");
    refused(
        people.engineer.propose_release(more.request.clone()).await,
        Reason::TooManyProposals,
    );
    people
        .engineer
        .withdraw_release(waiting[3].end("enough"))
        .await
        .unwrap();
    propose(&mut people.engineer, &more).await;
}
