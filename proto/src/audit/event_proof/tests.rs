//! Random trees, as large as they may be, and everything that somebody might do to a proof.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::OnceLock;

use penstock_policy::merkle::growing::{self, NodeAt};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};

use super::*;
use crate::audit::Head;
use crate::audit::keys::SealKeys;
use crate::audit::leaf::events;
use crate::audit::note::NoteSignature;
use crate::audit::seal::{BlocksSince, NamedBlocks};
use crate::audit::tree_head::origin;
use crate::keys::{FileKey, Key, KeyKind};
use crate::v1::audit_event::Kind;
use crate::v1::{AgentEvent, AuditBlockBody};

/// Names as long as the document takes them.
const COORDINATOR: &str = "a-coordinator-with-a-name-that-is-as-long-as-names-may-be-63-abc";

struct Plant {
    name: PlantId,
    roots: Vec<CertificateDer<'static>>,
    key: Key,
    chain: Vec<CertificateDer<'static>>,
}

fn plant() -> &'static Plant {
    static PLANT: OnceLock<Plant> = OnceLock::new();
    PLANT.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key: Key = FileKey::generate(KeyKind::EcdsaP256).unwrap().into();
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://works/coordinator/{}", &COORDINATOR[..63]);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let leaf = params.signed_by(&key, &root).unwrap();
        Plant {
            name: "works".parse().unwrap(),
            roots: vec![root.der().clone()],
            key,
            chain: vec![leaf.der().clone(), root.der().clone()],
        }
    })
}

fn sha(parts: &[&[u8]]) -> Hash {
    sha2::Sha256::digest(parts.concat()).into()
}

/// A tree of so many leaves, all alike but for one.
struct Large {
    size: u64,
    at: u64,
    leaf: Hash,
    alike: Vec<Hash>,
}

impl Large {
    fn new(size: u64, at: u64, leaf: Hash) -> Self {
        let mut alike = vec![[7; 32]];
        for level in 0..63 {
            alike.push(sha(&[&[1], &alike[level], &alike[level]]));
        }
        Self {
            size,
            at,
            leaf,
            alike,
        }
    }

    fn node(&self, node: NodeAt) -> Result<Hash, std::convert::Infallible> {
        Ok(match node.level {
            _ if self.at >> node.level != node.position => self.alike[usize::from(node.level)],
            0 => self.leaf,
            level => {
                let below = |position| {
                    self.node(NodeAt {
                        level: level - 1,
                        position,
                    })
                };
                let (left, right) = (below(2 * node.position)?, below(2 * node.position + 1)?);
                sha(&[&[1], &left, &right])
            }
        })
    }

    fn state(&self) -> TreeState {
        let root = growing::root(self.size, |at| self.node(at)).unwrap();
        TreeState {
            size: self.size,
            root,
        }
    }

    fn path(&self) -> Vec<Hash> {
        growing::inclusion(self.at, self.size, |at| self.node(at))
            .unwrap()
            .unwrap()
    }
}

fn body(count: usize) -> Vec<u8> {
    let event = |number: usize| AuditEvent {
        time_ms: 1_790_000_000_000 + number as u64,
        severity: 3,
        revision: 5,
        kind: Some(Kind::Agent(AgentEvent {
            step: "tick".to_owned(),
            message: format!("event {number} of its block"),
            ..AgentEvent::default()
        })),
    };
    AuditBlockBody {
        events: (0..count).map(event).collect(),
    }
    .encode_to_vec()
}

/// An event of a block of so many, in a tree of so many blocks.
fn proof(source: &str, (count, index): (usize, usize), (size, at): (u64, u64)) -> EventEvidence {
    let body = body(count);
    let block = BlockLeaf::new(source, (u64::MAX, u64::MAX), [9; 32], &body);
    let tree = Large::new(size, at, block.hash());
    let proof = EventProof {
        event: events(&body)[index].to_vec(),
        in_block: InTree::of_event(&body, index as u64).unwrap(),
        block,
        in_tree: InTree {
            index: at,
            path: tree.path(),
        },
    };
    let plant = plant();
    let head = TreeHead {
        origin: origin(&plant.name, &COORDINATOR[..63]),
        tree: tree.state(),
        time_ms: 1_790_000_000_000,
    };
    let text = head.to_string();
    let signature = NoteSignature::certified(&head.origin, &plant.key, &plant.chain[0], &text).unwrap();
    let note = Note {
        text,
        signatures: vec![signature],
    };
    evidence_of(note.to_bytes().into(), &plant.chain, proof)
}

fn proved(evidence: &EventEvidence) -> Result<ProvedEvent, EventProofError> {
    verify(evidence, &plant().name, &plant().roots)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 5))]

    #[test]
    fn an_event_of_a_hundred_million_is_proved_by_a_few_kib_and_nothing_that_was_changed_is(
        size in 1_u64..=1 << 27, at: prop::sample::Index, count in 1_usize..300, index: prop::sample::Index,
        bit: prop::sample::Index,
    ) {
        let (at, index) = (((u128::from(size) * at.index(1 << 30) as u128) >> 30) as u64, index.index(count));
        let evidence = proof("gw-a", (count, index), (size, at));
        let file = to_file(&evidence);
        prop_assert!(file.len() <= PROOF_BYTES_MAX, "{} bytes", file.len());
        let read = proved(&from_file(&file).unwrap()).unwrap();
        prop_assert_eq!((read.block.source.as_str(), read.index, read.leaf), ("gw-a", index as u64, at));
        let Some(Kind::Agent(event)) = &read.event.kind else { panic!("another event") };
        prop_assert_eq!(&event.message, &format!("event {index} of its block"));
        let mut changed = file.clone();
        let bit = bit.index(file.len() * 8);
        changed[bit / 8] ^= 1 << (bit % 8);
        let still = from_file(&changed).and_then(|evidence| proved(&evidence));
        prop_assert!(still.is_err(), "bit {bit}: {still:?}");
    }
}

#[test]
fn beside_its_event_a_proof_is_as_large_as_promised_whatever_the_names_and_however_many_events_a_block_has() {
    let source = format!("coordinator/{}", &COORDINATOR[..63]);
    let evidence = proof(&source, (70_000, 69_999), (1 << 27, (1 << 27) - 1));
    // An issuing certificate stands beside the coordinator's own, and is as large.
    let beside = to_file(&evidence).len() - evidence.event.len() + evidence.certificates[0].len() + 4;
    assert!(beside <= PROOF_BYTES_MAX, "{beside}");
    assert!(proved(&evidence).is_ok());
}

#[test]
fn no_bit_of_a_file_can_be_changed_and_nothing_be_cut_off_or_added() {
    let file = to_file(&proof("gw-a", (3, 1), (12, 7)));
    for bit in 0..file.len() * 8 {
        let mut changed = file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let still = from_file(&changed).and_then(|evidence| proved(&evidence));
        assert!(still.is_err(), "bit {bit}");
    }
    for length in 0..file.len() {
        let cut = from_file(&file[..length]).and_then(|evidence| proved(&evidence));
        assert!(cut.is_err(), "{length}");
    }
    let longer = [file.as_slice(), &[0x82, 1, 0]].concat();
    assert_eq!(from_file(&longer), Err(EventProofError::Form));
    // By the root of another plant, nothing.
    let evidence = from_file(&file).unwrap();
    let other = verify(&evidence, &"other".parse().unwrap(), &plant().roots);
    assert!(matches!(other, Err(EventProofError::Head(_))));
}

#[test]
fn a_seal_covers_the_block_before_it_and_those_that_it_names_and_no_other() {
    let mut keys = SealKeys::begin().unwrap();
    let source_name = signer_name("works", "gw-a");
    let block = |sequence, digest| BlockLeaf::new("gw-a", (1, sequence), digest, b"");
    let mut since = BlocksSince::new(4);
    for (severity, digest) in [(1, 1), (3, 2), (1, 3), (3, 4)] {
        since.take(severity, &[digest; 32]);
    }
    let head = Head {
        epoch: 1,
        next_sequence: 8,
        digest: [4; 32],
    };
    let works: PlantId = "works".parse().unwrap();
    let (_, seal) = keys.seal(&source_name, head, since.named(), 77);
    let covers = |block: &BlockLeaf, named: &[Hash]| covering(&works, block, &seal.note, named).is_some();
    assert!(covers(&block(7, [4; 32]), &[]), "directly before");
    assert!(covers(&block(5, [2; 32]), &[[2; 32], [4; 32]]));
    assert!(
        !covers(&block(5, [3; 32]), &[[2; 32], [4; 32]]),
        "of another severity"
    );
    assert!(!covers(&block(6, [3; 32]), &[]), "not directly before");
    assert!(
        !covers(&block(3, [2; 32]), &[[2; 32], [4; 32]]),
        "before what it names"
    );
    assert!(!covers(&block(8, [2; 32]), &[[2; 32], [4; 32]]), "behind it");
    let elsewhere = BlockLeaf::new("gw-b", (1, 7), [4; 32], b"");
    assert!(!covers(&elsewhere, &[]), "another trail's");
    let later = BlockLeaf::new("gw-a", (2, 7), [4; 32], b"");
    assert!(!covers(&later, &[]), "another epoch's");
    let mut forged = seal.note.to_vec();
    let time = forged.windows(7).position(|bytes| bytes == b"time 77").unwrap();
    forged[time + 5] = b'8';
    assert_eq!(covering(&works, &block(7, [4; 32]), &forged, &[]), None);
    // In a file, it is said; one that does not cover the block makes it prove nothing.
    keys = keys.advanced().unwrap();
    let mut evidence = proof("gw-a", (3, 1), (12, 7));
    evidence.seal = seal.note;
    assert_eq!(proved(&evidence), Err(EventProofError::Seal));
    let none = NamedBlocks {
        since: 0,
        classes: Vec::new(),
    };
    let head = Head {
        epoch: u64::MAX,
        next_sequence: u64::MAX,
        digest: [9; 32],
    };
    let (_, past) = keys.seal(&source_name, head, none, 78);
    evidence.seal = past.note;
    assert_eq!(
        proved(&evidence),
        Err(EventProofError::Seal),
        "the last place of all has none behind it"
    );
}
