//! Verifying evidence (`cargo bench -p penstock-proto --bench verify`; the mark: a file of 10 million events in ≤ 20 s): a file of whole blocks of 100
//! gateways that seal as they do, each block with its path in one tree, read back and judged as `penstock audit verify` does.
//!
//! `PENSTOCK_EVENTS` sets how many events (10 million), `PENSTOCK_DIR` where the file is made and removed. Making it is not measured.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing
)]

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use penstock_policy::ids::PlantId;
use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::{self, NodeAt, TreeState};
use penstock_proto::audit::evidence::{EvidenceReader, MAGIC, Pieces, write_piece};
use penstock_proto::audit::keys::SealKeys;
use penstock_proto::audit::leaf::BlockLeaf;
use penstock_proto::audit::note::{Note, NoteSignature};
use penstock_proto::audit::seal::{BlocksSince, SealText, signer_name, word};
use penstock_proto::audit::tree_head::{TreeHead, origin};
use penstock_proto::audit::{GENESIS, Head, block_digest};
use penstock_proto::keys::{FileKey, Key, KeyKind};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::evidence_piece::Piece;
use penstock_proto::v1::{
    AuditBlock, AuditBlockBody, AuditEvent, Decision, EvidenceBlock, EvidenceEnd, EvidenceHead,
    EvidencePiece, Severity, VerdictEvent,
};
use prost::Message as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::CertificateDer;

const GATEWAYS: u64 = 100;
/// Events of one block, and blocks of a gateway between two seals.
const EVENTS: u64 = 200;
const SEALED_EVERY: u64 = 16;
const START_MS: u64 = 1_800_000_000_000;

struct Issuer(CertifiedIssuer<'static, KeyPair>);

struct Certified {
    key: Key,
    chain: Vec<CertificateDer<'static>>,
}

impl Issuer {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, subject: &str) -> Certified {
        let key: Key = FileKey::generate(KeyKind::EcdsaP256).unwrap().into();
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://works/{subject}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let leaf = params.signed_by(&key, &self.0).unwrap();
        Certified {
            key,
            chain: vec![leaf.der().clone(), self.0.der().clone()],
        }
    }
}

/// A gateway that writes a trail.
struct Source {
    name: String,
    identity: Certified,
    keys: SealKeys,
    head: Head,
    since: BlocksSince,
    blocks: u64,
    newest: Option<SealText>,
}

impl Source {
    fn new(number: u64, issuer: &Issuer) -> Self {
        let name = format!("gw-{number}");
        Self {
            identity: issuer.issue(&format!("gateway/{name}")),
            name,
            keys: SealKeys::begin().unwrap(),
            head: Head {
                epoch: 1,
                next_sequence: 0,
                digest: GENESIS,
            },
            since: BlocksSince::new(0),
            blocks: 0,
            newest: None,
        }
    }

    /// Its next block: a seal, the word for the first one, or events.
    fn next(&mut self, time_ms: u64) -> (AuditBlock, u64) {
        self.blocks += 1;
        let signer = signer_name("works", &self.name);
        let kinds = match &self.newest {
            Some(text) if self.blocks == SEALED_EVERY + 1 => {
                let (key, chain) = (&self.identity.key, &self.identity.chain);
                vec![Kind::Seal(word(&text.to_string(), &signer, key, chain).unwrap())]
            }
            _ if self.blocks.is_multiple_of(SEALED_EVERY) => {
                let (text, seal) = self.keys.seal(&signer, self.head, self.since.named(), time_ms);
                self.keys = self.keys.advanced().unwrap();
                self.since = BlocksSince::new(self.head.next_sequence);
                self.newest = Some(text);
                vec![Kind::Seal(seal)]
            }
            _ => (0..EVENTS).map(|number| verdict(self.blocks, number)).collect(),
        };
        let is_seal = matches!(kinds[0], Kind::Seal(_));
        let events = kinds.into_iter().map(|kind| AuditEvent {
            time_ms,
            severity: Severity::Info.into(),
            revision: 4,
            kind: Some(kind),
        });
        let body = AuditBlockBody {
            events: events.collect(),
        }
        .encode_to_vec();
        let Head {
            epoch,
            next_sequence: sequence,
            digest,
        } = self.head;
        self.head = Head {
            epoch,
            next_sequence: sequence + 1,
            digest: block_digest(&digest, epoch, sequence, &body),
        };
        if !is_seal {
            self.since.take(1, &self.head.digest);
        }
        let block = AuditBlock {
            epoch,
            sequence,
            previous_digest: digest.to_vec().into(),
            body: body.into(),
        };
        (block, if is_seal { 0 } else { EVENTS })
    }
}

fn verdict(block: u64, number: u64) -> Kind {
    let host = (block * EVENTS + number).wrapping_mul(2_654_435_761) % 250;
    Kind::Verdict(VerdictEvent {
        decision: Decision::Allow.into(),
        flow: format!("supply-{}/polling", number % 7),
        source: format!("192.0.2.{host}"),
        destination: "198.51.100.7".to_owned(),
        ..VerdictEvent::default()
    })
}

/// The tree over all blocks, in memory.
#[derive(Default)]
struct Nodes(RefCell<Vec<Vec<Hash>>>);

impl Nodes {
    fn get(&self, at: NodeAt) -> Result<Hash, Infallible> {
        Ok(self.0.borrow()[usize::from(at.level)][usize::try_from(at.position).unwrap()])
    }

    fn append(&self, index: u64, leaf: Hash) {
        let put = |at: NodeAt, hash| {
            let mut levels = self.0.borrow_mut();
            if levels.len() <= usize::from(at.level) {
                levels.push(Vec::new());
            }
            levels[usize::from(at.level)].push(hash);
            Ok(())
        };
        growing::append(index, leaf, |at| self.get(at), put).unwrap();
    }
}

/// Makes the file; how many events it has, and how many bytes.
fn make(path: &Path, issuer: &Issuer, events: u64) -> (u64, u64) {
    let mut sources: Vec<_> = (0..GATEWAYS).map(|number| Source::new(number, issuer)).collect();
    let nodes = Nodes::default();
    let (mut blocks, mut made, mut size) = (Vec::new(), 0, 0_u64);
    while made < events {
        let source = &mut sources[usize::try_from(size % GATEWAYS).unwrap()];
        let (block, holds) = source.next(START_MS + size);
        let leaf = BlockLeaf::new(
            &source.name,
            (block.epoch, block.sequence),
            source.head.digest,
            &block.body,
        );
        nodes.append(size, leaf.hash());
        blocks.push((source.name.clone(), block));
        (size, made) = (size + 1, made + holds);
    }
    let coordinator = issuer.issue("coordinator/c1");
    let works: PlantId = "works".parse().unwrap();
    let head = TreeHead {
        origin: origin(&works, "c1"),
        tree: TreeState {
            size,
            root: growing::root(size, |at| nodes.get(at)).unwrap(),
        },
        time_ms: START_MS,
    };
    let text = head.to_string();
    let signed = NoteSignature::certified(&head.origin, &coordinator.key, &coordinator.chain[0], &text);
    let note = Note {
        text,
        signatures: vec![signed.unwrap()],
    };
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    out.write_all(MAGIC).unwrap();
    let mut write = |piece: Piece| write_piece(&mut out, &EvidencePiece { piece: Some(piece) }).unwrap();
    write(Piece::Head(EvidenceHead {
        note: note.to_bytes().into(),
        certificates: coordinator.chain.iter().map(|der| der.to_vec().into()).collect(),
        has_end: true,
        ..EvidenceHead::default()
    }));
    for (index, (source, block)) in (0..).zip(blocks) {
        let path = growing::inclusion(index, size, |at| nodes.get(at))
            .unwrap()
            .unwrap();
        write(Piece::Block(EvidenceBlock {
            source,
            block: Some(block),
            received_ms: START_MS + index,
            index: Some(index),
            path: path.iter().map(|hash| hash.to_vec().into()).collect(),
        }));
    }
    write(Piece::End(EvidenceEnd { blocks: size }));
    out.flush().unwrap();
    (made, std::fs::metadata(path).unwrap().len())
}

fn main() {
    let asked = std::env::var("PENSTOCK_EVENTS").ok();
    let events = asked.map_or(10_000_000, |events| events.parse().unwrap());
    let folder = std::env::var_os("PENSTOCK_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("penstock-verify-{}.evidence", std::process::id()));
    let issuer = Issuer::new();
    let (events, bytes) = make(&path, &issuer, events);
    let works: PlantId = "works".parse().unwrap();
    let roots = vec![issuer.0.der().clone()];
    for round in 1..=3 {
        let began = Instant::now();
        let file = BufReader::with_capacity(1 << 20, File::open(&path).unwrap());
        let mut pieces = Pieces::of(file).unwrap();
        let mut reader = EvidenceReader::begin(pieces.read().unwrap().unwrap(), &works, &roots).unwrap();
        while let Some(piece) = pieces.read().unwrap() {
            reader.take(piece).unwrap();
        }
        let report = reader.report().unwrap();
        let took = began.elapsed();
        let proved: u64 = report.trails.values().map(|trail| trail.events).sum();
        assert!(
            report.is_sound() && proved == events,
            "{proved} of {events} events"
        );
        println!(
            "round {round}: {events} events in {} blocks, {} MB, verified in {:.1} s: {:.2} million events/s",
            report.blocks,
            bytes / 1_000_000,
            took.as_secs_f64(),
            events as f64 / took.as_secs_f64() / 1e6,
        );
    }
    std::fs::remove_file(&path).unwrap();
}
