//! Releases against interruptions, against each other, and over changes of their approvers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::Duration;

use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::{CoordinatorId, OperatorId};
use penstock_policy::model::ApproverSet;
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{
    DocumentFile, Draft, Link, OfferRefused, Trust, build, document_digest, follow, verify_release,
};
use proptest::prelude::*;
use prost::Message as _;

mod wire;

use super::take_up::REFRESH_AGAIN;
use super::*;
use crate::journal::Journal;

const PEOPLE: [&str; 4] = ["bob", "carol", "dora", "erin"];

fn key(person: &str) -> ApproverKey {
    ApproverKey::from_seed(&Digest::of(person.as_bytes()).0)
}

/// A plant of one gateway, of which so many of these people approve releases.
fn document(threshold: usize, approvers: &[&str], title: &str) -> String {
    let person = |name: &&str| {
        format!(
            "    {name}: {{ key: \"{}\" }}\n",
            String::from(key(name).public())
        )
    };
    let people: String = approvers.iter().map(person).collect();
    format!(
        "plant: riverside
approvers:
  threshold: {threshold}
  people:
{people}sites:
  works: {{ title: {title}, timezone: UTC }}
gateways:
  gw-a:
    site: works
    mode: routed
    interfaces:
      eth1: {{ zone: operations, address: 10.20.1.1/24 }}
      eth2: {{ zone: control, address: 10.20.4.1/24 }}
zones:
  operations: {{ title: Operations, kind: operations, networks: [10.20.1.0/24] }}
  control: {{ title: Control, kind: control, networks: [10.20.4.0/24] }}
assets:
  hmi: {{ zone: operations, address: 10.20.1.21 }}
"
    )
}

struct Proposal {
    text: String,
    statement: Vec<u8>,
    revision: u64,
}

impl Proposal {
    fn new(text: String, revision: u64, parent: Option<Digest>) -> Self {
        let source = SourceFile {
            name: "plant.yaml".to_owned(),
            text: text.clone(),
        };
        let plant = penstock_policy::load(&[source], jiff::civil::date(2026, 1, 1))
            .plant
            .unwrap();
        let draft = Draft {
            emergency: false,
            withdrawn: None,
            trust: None,
            trails: None,
            revision: Revision(revision),
            parent,
            replaces: Vec::new(),
            document_digest: document_digest(&[DocumentFile {
                name: "plant.yaml",
                content: text.as_bytes(),
            }]),
            author: OperatorId::new("anna").unwrap(),
            ticket: None,
            reason: "test".to_owned(),
            created_ms: 1,
        };
        Self {
            statement: build(&plant, draft).unwrap().statement.to_bytes(),
            text,
            revision,
        }
    }

    fn small(revision: u64, parent: Option<Digest>) -> Self {
        Self::new(document(1, &["bob"], &format!("W{revision}")), revision, parent)
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.statement)
    }

    fn signature(&self, person: &str) -> Signature {
        key(person)
            .sign(ApproverId::new(person).unwrap(), &self.statement)
            .unwrap()
    }

    async fn propose(&self, releases: &Releases) -> Result<RecordedRelease, Refusal> {
        let documents = vec![v1::DocumentFile {
            name: "plant.yaml".to_owned(),
            content: self.text.clone().into_bytes().into(),
        }];
        let author = OperatorId::new("anna").unwrap();
        let journal = journal(&releases.store);
        let deed = journal.deed("anna", "engineer", "propose-release");
        releases
            .propose(&author, &self.statement, documents, nothing, deed, 1)
            .await
    }

    async fn approve(&self, releases: &Releases, person: &str) -> Result<RecordedRelease, Refusal> {
        let request = v1::ApproveReleaseRequest {
            revision: self.revision,
            statement_digest: self.digest().0.to_vec().into(),
            signature: Some(v1::Signature {
                approver: person.to_owned(),
                signature: self.signature(person).bytes().to_vec().into(),
                ..Default::default()
            }),
            brought: false,
        };
        let journal = journal(&releases.store);
        let deed = journal.deed(person, "approver", "approve-release");
        releases
            .approve(&OperatorId::new(person).unwrap(), &request, deed, 2)
            .await
    }

    async fn withdraw(&self, releases: &Releases) -> Result<RecordedRelease, Refusal> {
        let request = v1::EndReleaseRequest {
            revision: self.revision,
            statement_digest: self.digest().0.to_vec().into(),
            reason: "test".to_owned(),
        };
        let author = OperatorId::new("anna").unwrap();
        let journal = journal(&releases.store);
        let deed = journal.deed("anna", "engineer", "withdraw-release");
        releases
            .end(ProposalEndKind::Withdrawn, &author, &request, deed, 3)
            .await
    }
}

fn journal(store: &Store) -> Journal {
    Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap())
}

async fn open(store: &Store) -> Releases {
    Releases::open(store.clone(), PlantId::new("riverside").unwrap())
        .await
        .unwrap()
}

async fn begin() -> (tempfile::TempDir, Store, Releases) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s.db")).unwrap();
    let releases = open(&store).await;
    (folder, store, releases)
}

fn reason<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> Reason {
    outcome.unwrap_err().reason
}

/// A release gets its last signature, and a coordinator of older software fails before it takes it up.
async fn half_approve(proposal: &Proposal, releases: &Releases, store: &Store) {
    let signed = |recorded: &mut RecordedRelease| {
        let signature = proposal.signature("bob").to_text();
        recorded
            .record
            .signatures
            .insert(ApproverId::new("bob").unwrap(), signature);
        Ok(Change::silent(Silent::Prepared))
    };
    let recorded = releases
        .change(Revision(proposal.revision), proposal.digest(), signed)
        .await
        .unwrap();
    let change = Change::silent(Silent::Prepared);
    let revision = Revision(proposal.revision);
    store
        .apply(history::add(change, revision, &recorded.record).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn of_two_proposals_only_one_becomes_current_also_when_the_first_was_not_taken_up() {
    let (_folder, store, releases) = begin().await;
    let (one, two) = (Proposal::small(1, None), Proposal::small(2, None));
    one.propose(&releases).await.unwrap();
    two.propose(&releases).await.unwrap();
    half_approve(&one, &releases, &store).await;
    assert_eq!(releases.now().map(|current| current.revision()), None);
    assert_eq!(reason(two.approve(&releases, "bob").await), Reason::NotProposed);
    assert_eq!(releases.now().unwrap().revision(), Revision(1));
    assert_eq!(reason(two.withdraw(&releases).await), Reason::NotProposed);
}

#[tokio::test]
async fn a_release_that_could_not_be_taken_up_is_tried_again_without_another_change() {
    let (_folder, store, releases) = begin().await;
    let one = Proposal::small(1, None);
    let recorded = one.propose(&releases).await.unwrap();
    let follower = releases.clone();
    let following = tokio::spawn(async move { follower.follow().await });
    // For a moment a plan is not there, as when the disk cannot be read.
    let plan = releases
        .detail(&recorded)
        .await
        .unwrap()
        .plans
        .into_values()
        .next()
        .unwrap();
    let bytes = store.blob(plan).await.unwrap().unwrap();
    store.drop_blobs(vec![plan]).await.unwrap();
    half_approve(&one, &releases, &store).await;
    tokio::time::sleep(REFRESH_AGAIN / 2).await;
    assert!(releases.now().is_none());
    let mut untaken = releases.untaken();
    let why = untaken.borrow_and_update().clone().unwrap();
    assert!(why.contains("missing from the store"), "{why}");
    store.put_blobs(vec![bytes]).await.unwrap();
    let mut current = releases.current();
    tokio::time::timeout(REFRESH_AGAIN * 30, current.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap();
    let taken = untaken.wait_for(Option::is_none);
    tokio::time::timeout(REFRESH_AGAIN, taken).await.unwrap().unwrap();
    following.abort();
}

#[tokio::test]
async fn nothing_is_swept_while_it_is_decided_what_becomes_current() {
    let (_folder, store, releases) = begin().await;
    let one = Proposal::small(1, None);
    one.propose(&releases).await.unwrap();
    // The sweep of the start is over, or waits too.
    *releases.kept.lock().unwrap() = Some(BTreeSet::new());
    let deciding = releases.deciding.lock().await;
    let rest = vec![7; 100];
    store.put_blobs(vec![rest.clone()]).await.unwrap();
    let sweep = tokio::time::timeout(Duration::from_millis(200), releases.sweep());
    assert!(sweep.await.is_err());
    assert!(store.blob(Digest::of(&rest)).await.unwrap().is_some());
    drop(deciding);
    one.approve(&releases, "bob").await.unwrap();
    releases.sweep().await.unwrap();
    assert_eq!(store.blob(Digest::of(&rest)).await.unwrap(), None);
    assert_eq!(open(&store).await.now().unwrap().revision(), Revision(1));
}

#[tokio::test]
async fn a_history_whose_making_was_interrupted_is_completed() {
    let (_folder, store, releases) = begin().await;
    let mut parent = None;
    for revision in 1..=3 {
        let next = Proposal::small(revision, parent);
        next.propose(&releases).await.unwrap();
        next.approve(&releases, "bob").await.unwrap();
        parent = Some(next.digest());
    }
    let links = store.list(history::PREFIX).await.unwrap();
    // Links are made the oldest first, so that it is the newest ones that are missing.
    for (key, link) in &links[1..] {
        store.delete_if(key, link.revision).await.unwrap();
    }
    let again = open(&store).await;
    assert_eq!(store.list(history::PREFIX).await.unwrap().len(), 3);
    assert_eq!(again.now().unwrap().revision(), Revision(3));
}

#[tokio::test]
async fn proposals_that_wait_are_counted_also_behind_many_that_ended() {
    let (_folder, _store, releases) = begin().await;
    let next = async |revision: u64| {
        let next = Proposal::small(revision, None);
        let outcome = next.propose(&releases).await;
        outcome.map(|_| next)
    };
    for revision in 1..=8 {
        next(revision).await.unwrap();
    }
    for revision in 9..=41 {
        next(revision).await.unwrap().withdraw(&releases).await.unwrap();
    }
    for revision in 42..=49 {
        next(revision).await.unwrap();
    }
    assert_eq!(reason(next(50).await.map(|_| ())), Reason::TooManyProposals);
}

#[tokio::test]
async fn names_that_cannot_be_looked_up_now_are_no_release_without_names_and_many_who_ask_read_it_once() {
    let (_folder, _store, releases) = begin().await;
    Proposal::small(1, None).propose(&releases).await.unwrap();
    let turn = releases.compiling.turn().await.unwrap();
    let wait = |count: usize| {
        let releases = releases.clone();
        let tasks = (0..count).map(move |_| {
            let releases = releases.clone();
            tokio::spawn(async move { releases.directory(Revision(1)).await })
        });
        tasks.collect::<Vec<_>>()
    };
    // More than may wait to compile, and they wait for one.
    let readers = wait(20);
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(turn);
    for reader in readers {
        let found = reader.await.unwrap().unwrap();
        assert!(found.name("10.20.1.21".parse().unwrap()).is_some());
    }
    // Nobody's turn comes: that is an error, and is not kept as a release without names.
    Proposal::small(2, None).propose(&releases).await.unwrap();
    let turn = releases.compiling.turn().await.unwrap();
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let compiling = releases.compiling.clone();
            tokio::spawn(async move { compiling.turn().await.map(drop) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        reason(releases.directory(Revision(2)).await),
        Reason::TooManyProposals
    );
    drop(turn);
    for one in crowd {
        // Some were refused, the others come to their turn.
        let _ = one.await.unwrap();
    }
    let found = releases.directory(Revision(2)).await.unwrap();
    assert!(found.name("10.20.1.21".parse().unwrap()).is_some());
    assert!(
        releases
            .directory(Revision(9))
            .await
            .unwrap()
            .name("10.20.1.21".parse().unwrap())
            .is_none()
    );
}

// ---- changes of approvers -----------------------------------------------------------------------------------

/// One change: who approves from then on and how many of them it takes, and who signs it, one after another.
type Step = (BTreeSet<usize>, usize, Vec<usize>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let people = || prop::collection::btree_set(0..PEOPLE.len(), 1..=3);
    let signers = Just((0..PEOPLE.len()).collect::<Vec<_>>()).prop_shuffle();
    prop::collection::vec((people(), 1..=3_usize, signers), 1..6)
}

fn trust(approvers: ApproverSet) -> Trust {
    Trust {
        plant: PlantId::new("riverside").unwrap(),
        gateway: GatewayId::new("gw-a").unwrap(),
        approvers,
        floor: Revision(0),
        current: None,
    }
}

/// What a gateway that believes `held` makes of the release that it is offered.
fn offered(current: &Arc<CurrentRelease>, held: &Trust) -> Result<Trust, OfferRefused> {
    let offer = Offer::new(current.clone(), held.gateway.clone(), held.current);
    let pieces: Vec<_> = offer.pieces().unwrap().collect();
    assert!(
        pieces.iter().all(|piece| piece.len() < 64 * 1024),
        "one is held of what is not read"
    );
    let bytes: Vec<u8> = pieces.into_iter().flatten().collect();
    let message = v1::CoordinatorMessage::decode(&bytes[5..]).unwrap();
    let Some(v1::coordinator_message::Message::Offer(offer)) = message.message else {
        panic!("{message:?}");
    };
    assert_eq!(offer.plan, current.release.plan(&held.gateway).unwrap().plan);
    let chain = offer.chain;
    let signatures: Vec<_> = chain.iter().map(wire::signatures).collect();
    let links: Vec<_> = chain
        .iter()
        .zip(&signatures)
        .map(|(signed, signatures)| Link {
            statement: &signed.statement,
            signatures,
        })
        .collect();
    let statement = current.recorded.record.statement.as_bytes();
    let reached = follow(held, &links, statement)?;
    verify_release(&reached, statement, &current.recorded.signatures()).map(|verified| verified.next)
}

async fn over_changes(steps: Vec<Step>) {
    let (_folder, store, mut releases) = begin().await;
    let first = Proposal::new(document(1, &["bob"], "W"), 1, None);
    first.propose(&releases).await.unwrap();
    first.approve(&releases, "bob").await.unwrap();
    let initial = releases.now().unwrap().recorded.statement.approvers.clone();
    // What gateways hold that went along up to each release, and then slept.
    let mut sleepers = vec![offered(&releases.now().unwrap(), &trust(initial)).unwrap()];
    let (mut in_force, mut threshold) = (BTreeSet::from([0]), 1);
    let mut revision = 1;
    for (people, wanted, signers) in steps {
        let current = releases.now().unwrap().recorded.digest;
        let names: Vec<_> = people.iter().map(|person| PEOPLE[*person]).collect();
        let next_threshold = wanted.min(names.len());
        revision += 1;
        let text = document(next_threshold, &names, &format!("W{revision}"));
        let next = Proposal::new(text.clone(), revision, Some(current));
        next.propose(&releases).await.unwrap();
        // Another one beside it, that will be overtaken.
        revision += 1;
        let beside = Proposal::new(text, revision, Some(current));
        beside.propose(&releases).await.unwrap();
        let mut counted = 0;
        for signer in signers {
            let outcome = next.approve(&releases, PEOPLE[signer]).await;
            if counted == threshold {
                // It is decided, by those who counted then.
                assert_eq!(reason(outcome), Reason::NotProposed);
            } else if in_force.contains(&signer) {
                counted += 1;
                let approved = outcome.unwrap().record.approved_ms.is_some();
                assert_eq!(approved, counted == threshold);
            } else {
                // Who is not an approver, not yet, or not any more.
                assert_eq!(reason(outcome), Reason::NotAnApprover);
            }
        }
        let now = releases.now().unwrap();
        assert_eq!(now.recorded.digest, next.digest());
        assert_eq!(
            now.recorded.record.signatures.len(),
            threshold,
            "what was signed before stays"
        );
        // A fork: what was proposed on the same release, and what somebody proposes on it now.
        let signer = PEOPLE[*in_force.first().unwrap()];
        assert_eq!(
            reason(beside.approve(&releases, signer).await),
            Reason::NotProposed
        );
        revision += 1;
        let late = Proposal::new(document(1, &names, "late"), revision, Some(current));
        assert_eq!(reason(late.propose(&releases).await), Reason::ParentMismatch);
        let held = sleepers.last().unwrap().clone();
        let along = offered(&now, &held).unwrap();
        let forged: Vec<_> = PEOPLE.iter().map(|person| late.signature(person)).collect();
        assert!(verify_release(&along, &late.statement, &forged).is_err());
        // The new approvers' signatures do not replace those of the ones who had to sign.
        let strangers: Vec<_> = people
            .difference(&in_force)
            .map(|one| next.signature(PEOPLE[*one]))
            .collect();
        assert!(verify_release(&held, &next.statement, &strangers).is_err());
        sleepers.push(along);
        (in_force, threshold) = (people, next_threshold);
        // From wherever a gateway stood it comes to the same, also from a coordinator that restarted.
        releases = open(&store).await;
        let now = releases.now().unwrap();
        let (newest, before) = sleepers.split_last().unwrap();
        for sleeper in before {
            assert_eq!(&offered(&now, sleeper).unwrap(), newest);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 32))]
    #[test]
    fn over_any_changes_of_approvers_each_release_is_decided_by_those_in_force_and_by_nobody_else(steps in steps()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(over_changes(steps));
    }
}
