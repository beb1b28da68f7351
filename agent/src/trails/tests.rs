//! Heads of a coordinator's trails as a gateway sees them, signed by a coordinator of the plant and by others.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use penstock_policy::ids::{Digest, PlantId, Revision};
use penstock_policy::merkle::growing::{self, NodeAt, TreeState};
use penstock_policy::merkle::{Hash, leaf_hash};
use penstock_policy::model::ApproverSet;
use penstock_policy::release::{STATEMENT_FORMAT_TRAILS, TrailsAnchor};
use penstock_proto::audit::tree_head::origin;
use penstock_proto::tls::{Credentials, certificates_to_pem};
use penstock_proto::v1::{AuditAck, AuditEvent, Welcome, audit_event::Kind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::sync::mpsc;

use super::*;
use crate::identity::{Enrolment, IdentityFolder};

fn plant() -> PlantId {
    "works".parse().unwrap()
}

/// A plant's root, below which a coordinator signs and a gateway believes.
struct Root(CertifiedIssuer<'static, KeyPair>);

impl Root {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certified(&self, subject: &str) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let name = format!("spiffe://works/{subject}").try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(name));
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        // Whoever shows a certificate shows those above it.
        (
            certificates_to_pem(&[leaf.der(), self.0.der()]),
            key.serialize_pem(),
        )
    }

    fn coordinator(&self) -> Credentials {
        let (chain, key) = self.certified("coordinator/c1");
        Credentials::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn identity(&self, folder: &Path) -> Identity {
        let (chain, key) = self.certified("gateway/gw");
        let files = folder.join("identity");
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("chain.pem"), chain).unwrap();
        std::fs::write(files.join("roots.pem"), certificates_to_pem(&[self.0.der()])).unwrap();
        std::fs::write(files.join("key.pem"), key).unwrap();
        let enrolment = Enrolment {
            plant: plant(),
            gateway: "gw".parse().unwrap(),
            coordinators: Vec::new(),
            root_digest: Digest::of(self.0.der()),
            approvers: ApproverSet {
                emergency_threshold: None,
                threshold: 1,
                people: BTreeMap::new(),
            },
        };
        IdentityFolder::new(folder).load(enrolment).unwrap()
    }
}

/// A tree that grew by these leaves.
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

    /// The head of so many leaves, with the proof since `shown`.
    fn head(&self, by: &Credentials, (shown, size): (u64, u64)) -> EvidenceHead {
        let head = TreeHead {
            origin: origin(&plant(), "c1"),
            tree: self.state(size),
            time_ms: size * 1_000,
        };
        let proof = growing::consistency(shown, size, |at| Ok::<_, Infallible>(self.0[&at]));
        let proof = proof.unwrap().unwrap_or_default();
        EvidenceHead {
            note: head.sign(by).unwrap().to_bytes().into(),
            certificates: by.chain().iter().map(|der| der.to_vec().into()).collect(),
            consistency: proof.iter().map(|hash| hash.to_vec().into()).collect(),
            has_end: false,
        }
    }
}

struct Gateway {
    folder: tempfile::TempDir,
    identity: Identity,
    keeper: TrailsKeeper,
    events: mpsc::Receiver<AuditEvent>,
}

impl Gateway {
    fn of(root: &Root) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (audit, events) = Audit::without_spool();
        Self {
            identity: root.identity(folder.path()),
            keeper: TrailsKeeper::open(folder.path(), audit),
            folder,
            events,
        }
    }

    fn takes(&self, head: EvidenceHead) {
        let ack = AuditAck {
            trails: Some(head),
            ..AuditAck::default()
        };
        let mut message = Some(Inbound::AuditAck(ack));
        self.keeper.take(&mut message, &self.identity, Instant::now());
        assert_eq!(message, Some(Inbound::AuditAck(AuditAck::default())));
    }

    /// The steps in the trail since the last time.
    fn steps(&mut self) -> Vec<String> {
        let mut steps = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            let Some(Kind::Agent(agent)) = event.kind else {
                continue;
            };
            assert!(
                TreeHead::parse(
                    &String::from_utf8_lossy(&agent.trails_head)
                        .split("\n\n")
                        .next()
                        .map(|text| format!("{text}\n"))
                        .unwrap()
                )
                .is_some()
            );
            steps.push(agent.step);
        }
        steps
    }

    fn is_well(&self) -> bool {
        self.keeper.faults().borrow().is_empty()
    }
}

#[tokio::test]
async fn heads_that_go_on_are_kept_and_written_down_and_one_that_does_not_is_a_fault_until_it_does() {
    let (root, honest) = (Root::new(), Grown::of(&[1, 2, 3, 4, 5, 6, 7, 8]));
    let (forged, coordinator) = (Grown::of(&[1, 2, 9, 4, 5, 6, 7, 8]), root.coordinator());
    let mut gateway = Gateway::of(&root);
    assert_eq!(gateway.keeper.greet(), 0);
    gateway.takes(honest.head(&coordinator, (0, 3)));
    gateway.takes(honest.head(&coordinator, (3, 5)));
    gateway.takes(honest.head(&coordinator, (5, 5)));
    assert_eq!(
        gateway.steps(),
        ["trails-seen", "trails-seen"],
        "the same again is no news"
    );
    // Whatever a session begins with.
    assert_eq!(gateway.keeper.greet(), 5);
    let welcome = Welcome {
        trails: Some(forged.head(&coordinator, (5, 7))),
        ..Welcome::default()
    };
    let mut message = Some(Inbound::Welcome(welcome));
    gateway
        .keeper
        .take(&mut message, &gateway.identity, Instant::now());
    assert_eq!(gateway.steps(), ["trails-rewritten"]);
    assert!(!gateway.is_well());
    // Fewer than were seen, and a proof that is none, are the same; in a session of its own each.
    assert_eq!(gateway.keeper.greet(), 5);
    gateway.takes(honest.head(&coordinator, (3, 3)));
    assert_eq!(gateway.keeper.greet(), 5);
    gateway.takes(honest.head(&coordinator, (4, 7)));
    assert_eq!(gateway.steps(), Vec::<String>::new(), "it is known");
    assert!(!gateway.is_well());
    assert_eq!(gateway.keeper.greet(), 5);
    gateway.takes(honest.head(&coordinator, (5, 8)));
    assert!(gateway.is_well());
    assert_eq!(gateway.steps(), ["trails-seen"]);
    // The next agent goes on from there.
    while gateway.keeper.unwritten.lock().unwrap().is_writing {
        tokio::task::yield_now().await;
    }
    let next = TrailsKeeper::open(gateway.folder.path(), Audit::without_spool().0);
    assert_eq!(next.greet(), 8);
}

#[tokio::test]
async fn what_a_stranger_signs_or_comes_too_often_is_not_looked_at_and_accuses_nobody() {
    let (root, tree) = (Root::new(), Grown::of(&(0..40).collect::<Vec<_>>()));
    let (coordinator, stranger) = (root.coordinator(), Root::new().coordinator());
    let mut gateway = Gateway::of(&root);
    gateway.takes(tree.head(&stranger, (0, 1)));
    // Behind it, the proofs begin with what was not seen.
    gateway.takes(tree.head(&coordinator, (1, 2)));
    assert_eq!((gateway.steps(), gateway.keeper.greet()), (Vec::new(), 0));
    for size in 1..40 {
        gateway.takes(tree.head(&coordinator, (size - 1, size)));
    }
    let written = gateway.steps().len();
    assert!(written < HEADS_AT_ONCE as usize, "{written}");
    assert!(gateway.is_well());
    assert_eq!(gateway.keeper.greet(), written as u64);
}

#[tokio::test]
async fn trails_begin_again_by_the_word_of_the_approvers_alone() {
    let (root, lost) = (Root::new(), Grown::of(&[1, 2, 3, 4, 5]));
    let (restored, coordinator) = (Grown::of(&[1, 2, 9, 10]), root.coordinator());
    let mut gateway = Gateway::of(&root);
    gateway.takes(lost.head(&coordinator, (0, 5)));
    gateway.takes(restored.head(&coordinator, (3, 3)));
    assert!(!gateway.is_well());
    let tree = restored.state(3);
    let statement = |again, revision| Statement {
        format: STATEMENT_FORMAT_TRAILS.to_owned(),
        plant: plant(),
        revision: Revision(revision),
        parent: None,
        replaces: Vec::new(),
        document_digest: Digest::of(b"document"),
        plans_root: Digest::of(b"plans"),
        gateways: 1,
        approvers: gateway.identity.enrolment.approvers.clone(),
        author: "anna".parse().unwrap(),
        ticket: None,
        reason: String::new(),
        // No clock decides: not the author's, nor the coordinator's.
        created_ms: 1,
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: Some(TrailsAnchor {
            size: tree.size,
            root: Digest(tree.root),
            again,
        }),
    };
    gateway.keeper.learn(&statement(false, 9));
    assert!(!gateway.is_well(), "it only names them");
    gateway.keeper.learn(&statement(true, 9));
    assert!(gateway.is_well());
    assert_eq!(gateway.keeper.greet(), 3);
    gateway.takes(restored.head(&coordinator, (3, 4)));
    for revision in [8, 9] {
        gateway.keeper.learn(&statement(true, revision));
        assert_eq!(gateway.keeper.greet(), 4, "it is from before what was seen");
    }
    assert!(gateway.is_well());
    assert_eq!(
        gateway.steps(),
        ["trails-seen", "trails-rewritten", "trails-seen"]
    );
    assert_eq!(gateway.keeper.greet(), 4);
}
