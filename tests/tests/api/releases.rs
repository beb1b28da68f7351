//! Releases over the wire: what is taken, what is not, and who may sign.

use penstock_policy::ids::Digest;
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::v1;

use crate::bounds::until;
use crate::world::{PATIENCE, World, built, document, mark, people, refused, release};

#[tokio::test]
async fn a_release_that_is_approved_and_cannot_be_read_is_not_shown_as_history_and_is_offered_once_it_can() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    let proposal = first.request.clone();
    people.engineer.propose_release(proposal).await.unwrap();
    people.bob.approve_release(first.approval("bob")).await.unwrap();
    let database = rusqlite::Connection::open(world.config.data.join("penstock.db")).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    let moved = "CREATE TABLE away AS SELECT * FROM blob; DELETE FROM blob;";
    database.execute_batch(moved).unwrap();
    let last = first.approval("carol");
    let approved = people.carol.approve_release(last).await.unwrap().into_inner();
    assert_eq!(approved.state(), v1::ReleaseState::Proposed);
    assert_eq!((approved.approved_by.len(), approved.threshold), (2, 2));
    let listed = async || {
        let asked = v1::ListReleasesRequest { limit: 1 };
        let answer = world.admin().list_releases(asked).await.unwrap();
        answer.into_inner().releases[0].state()
    };
    assert_eq!(listed().await, v1::ReleaseState::Proposed);
    let back = "INSERT INTO blob SELECT * FROM away; DROP TABLE away;";
    database.execute_batch(back).unwrap();
    until(async || (listed().await == v1::ReleaseState::Current).then_some(())).await;
}

#[tokio::test]
async fn a_release_becomes_current_when_enough_others_signed_and_stays_so_over_a_restart() {
    let mut world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    let proposed = people
        .engineer
        .propose_release(first.request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(proposed.state(), v1::ReleaseState::Proposed);
    assert_eq!((proposed.threshold, proposed.gateways), (2, 2));
    // The same again changes nothing.
    people
        .engineer
        .propose_release(first.request.clone())
        .await
        .unwrap();
    let one = people
        .bob
        .approve_release(first.approval("bob"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(one.state(), v1::ReleaseState::Proposed);
    let again = people
        .bob
        .approve_release(first.approval("bob"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        again.state(),
        v1::ReleaseState::Proposed,
        "one person counts once"
    );
    let two = people
        .carol
        .approve_release(first.approval("carol"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(two.state(), v1::ReleaseState::Current);
    refused(
        people.carol.approve_release(first.approval("carol")).await,
        Reason::NotProposed,
    );

    world.restart().await;
    let mut viewer = world.operator("vic", v1::Role::Viewer).await;
    let current = viewer
        .get_release(v1::GetReleaseRequest {
            revision: 0,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(current.signed.as_ref().unwrap().statement, first.statement);
    assert_eq!(current.documents, first.request.documents);
    let mut approved = current.release.unwrap().approved_by;
    approved.sort();
    assert_eq!(approved, ["bob", "carol"]);

    let mut people = crate::world::people(&world).await;
    let second = built(&document(2, 101), 2, Some(first.digest()), "anna");
    release(&mut people, &second).await;
    let listed = viewer
        .list_releases(v1::ListReleasesRequest { limit: 0 })
        .await
        .unwrap()
        .into_inner()
        .releases;
    let states: Vec<_> = listed.iter().map(|r| (r.revision, r.state())).collect();
    assert_eq!(
        states,
        [(2, v1::ReleaseState::Current), (1, v1::ReleaseState::Superseded)]
    );
}

#[tokio::test]
async fn proposals_that_do_not_fit_are_refused_each_with_its_reason() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let text = document(2, 100);
    let good = built(&text, 1, None, "anna");
    let other = built(&document(2, 7), 1, None, "anna");

    // A statement that claims other plans than its documents compile to.
    let mut claims = good.release.statement.clone();
    claims.plans_root = other.release.statement.plans_root;
    let mut lie = good.request.clone();
    lie.statement = claims.to_bytes().into();
    let status = people.engineer.propose_release(lie).await.unwrap_err();
    let explained = explain(&status);
    assert!(explained.is(Reason::StatementMismatch));
    assert!(
        explained
            .details
            .iter()
            .any(|(field, _)| field == "statement.plans_root"),
        "{status:?}"
    );

    let mut swapped = good.request.clone();
    swapped.documents = other.request.documents.clone();
    refused(
        people.engineer.propose_release(swapped).await,
        Reason::StatementMismatch,
    );

    let mut weakened = good.release.statement.clone();
    weakened.approvers.threshold = 1;
    let mut lie = good.request.clone();
    lie.statement = weakened.to_bytes().into();
    refused(
        people.engineer.propose_release(lie).await,
        Reason::StatementMismatch,
    );

    for (built, reason) in [
        (
            built(&text, 2, Some(Digest::of(b"x")), "anna"),
            Reason::ParentMismatch,
        ),
        (built(&text, 2_000_000, None, "anna"), Reason::RevisionTaken),
        (built(&text, 1, None, "bob"), Reason::AuthorMismatch),
        (
            built(
                &text.replace("plant: riverside", "plant: elsewhere"),
                1,
                None,
                "anna",
            ),
            Reason::StatementMismatch,
        ),
    ] {
        refused(people.engineer.propose_release(built.request).await, reason);
    }

    // A file that no folder would contribute, covered by the statement's digest.
    let mut hidden = good.request.clone();
    hidden.documents.push(v1::DocumentFile {
        name: "zones/.more.yaml".to_owned(),
        content: b"# nothing".to_vec().into(),
    });
    let file = |file: &v1::DocumentFile| (file.name.clone(), file.content.to_vec());
    let files: Vec<_> = hidden.documents.iter().map(file).collect();
    let files: Vec<_> = files
        .iter()
        .map(|(name, content)| penstock_policy::release::DocumentFile { name, content })
        .collect();
    let mut statement = good.release.statement.clone();
    statement.document_digest = penstock_policy::release::document_digest(&files);
    hidden.statement = statement.to_bytes().into();
    refused(people.engineer.propose_release(hidden).await, Reason::BadRequest);

    // A document with errors: each with its place.
    let broken = text.replace(
        "zone: control, address: 10.20.4.7",
        "zone: kontrol, address: 10.20.4.7",
    );
    let mut statement = good.release.statement.clone();
    statement.document_digest =
        penstock_policy::release::document_digest(&[penstock_policy::release::DocumentFile {
            name: "plant.yaml",
            content: broken.as_bytes(),
        }]);
    let request = v1::ProposeReleaseRequest {
        statement: statement.to_bytes().into(),
        documents: vec![v1::DocumentFile {
            name: "plant.yaml".into(),
            content: broken.into_bytes().into(),
        }],
    };
    let status = people.engineer.propose_release(request).await.unwrap_err();
    let explained = explain(&status);
    assert!(explained.is(Reason::DocumentErrors), "{status:?}");
    assert!(
        explained
            .details
            .iter()
            .any(|(place, what)| place.starts_with("plant.yaml:") && what.starts_with("PS0")),
        "{status:?}"
    );
    // Nothing of all that was recorded.
    let listed = people
        .engineer
        .list_releases(v1::ListReleasesRequest { limit: 0 })
        .await
        .unwrap();
    assert!(listed.into_inner().releases.is_empty());
}

#[tokio::test]
async fn signatures_that_must_not_count_are_refused() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let erin = world.operator("erin", v1::Role::Approver).await;
    // A second authority cannot be had by proposing and approving with one name, whatever the roles.
    let mut stranger = world.operator("mallory", v1::Role::Approver).await;
    let first = built(&document(2, 100), 1, None, "anna");
    people
        .engineer
        .propose_release(first.request.clone())
        .await
        .unwrap();

    let mut forged = first.approval("bob");
    forged.signature.as_mut().unwrap().signature = first.approval("carol").signature.unwrap().signature;
    refused(people.bob.approve_release(forged).await, Reason::BadSignature);

    refused(
        people.bob.approve_release(first.approval("carol")).await,
        Reason::NotAnApprover,
    );
    let mut own = first.approval("bob");
    own.signature.as_mut().unwrap().approver = "mallory".into();
    refused(stranger.approve_release(own).await, Reason::NotAnApprover);

    let mut short = first.approval("bob");
    short.signature.as_mut().unwrap().signature = vec![1; 63].into();
    refused(people.bob.approve_release(short).await, Reason::BadRequest);

    // A signature over another statement than the one that waits under the number, whatever digest goes with it.
    let other = built(&document(2, 55), 1, None, "anna");
    refused(
        people.bob.approve_release(other.approval("bob")).await,
        Reason::DigestMismatch,
    );
    let mut crossed = other.approval("bob");
    crossed.statement_digest = first.digest().0.to_vec().into();
    refused(people.bob.approve_release(crossed).await, Reason::BadSignature);

    // One who was an engineer when they proposed, and then was made an approver, is still the author.
    let erin_proposes = built(&document(2, 60), 2, None, "erin");
    let mut erin_engineer = world.operator("erin", v1::Role::Engineer).await;
    erin_engineer
        .propose_release(erin_proposes.request.clone())
        .await
        .unwrap();
    let mut erin_approver = world.operator("erin", v1::Role::Approver).await;
    refused(
        erin_approver
            .approve_release(erin_proposes.approval("erin"))
            .await,
        Reason::SelfApproval,
    );
    drop(erin);
    refused(
        people
            .bob
            .approve_release(v1::ApproveReleaseRequest {
                revision: 9,
                ..first.approval("bob")
            })
            .await,
        Reason::NotFound,
    );
    assert_eq!(mark(&first, "gw-a").revision, 1);
    let current = people
        .bob
        .get_release(v1::GetReleaseRequest {
            revision: 0,
            ..Default::default()
        })
        .await;
    refused(current, Reason::NotFound);
}

#[tokio::test]
async fn a_proposal_on_an_old_parent_is_refused_and_names_the_current_one() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let stale = built(&document(2, 5), 2, Some(Digest::of(b"another")), "anna");
    let status = people.engineer.propose_release(stale.request).await.unwrap_err();
    let explained = explain(&status);
    assert!(explained.is(Reason::ParentMismatch));
    assert!(
        explained
            .details
            .iter()
            .any(|(_, what)| *what == first.digest().to_string()),
        "{status:?}"
    );
    // The parent as it should be, and a number that is used.
    let again = built(&document(2, 5), 1, None, "anna");
    refused(
        people.engineer.propose_release(again.request).await,
        Reason::ParentMismatch,
    );
}
