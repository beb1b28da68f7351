//! What is given to somebody who verifies it: with the plant's real authority and store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_proto::audit::event_proof::{PROOF_BYTES_MAX, from_file, to_file, verify};
use penstock_proto::audit::evidence::EvidenceReader;
use penstock_proto::audit::keys::SealKeys;
use penstock_proto::audit::seal::BlocksSince;
use penstock_proto::audit::{GENESIS, Head, block_digest};
use penstock_proto::keys::{FileKey, Key, KeyKind};
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AgentEvent, AuditBlock, AuditBlockBody, AuditEvent, ProveEventRequest};
use prost::Message as _;

use super::*;
use crate::ca::{Authority, Lifetimes};
use crate::store::NewBlock;
use crate::summary::summarize;

const NOW_MS: u64 = 1_790_000_000_000;

struct Plant {
    _folder: tempfile::TempDir,
    name: PlantId,
    authority: Authority,
    store: Store,
    evidence: Evidence,
    head: Head,
    since: BlocksSince,
}

impl Plant {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name: PlantId = "works".parse().unwrap();
        let lifetimes = Lifetimes::all(Duration::from_secs(86_400));
        let authority = Authority::create(folder.path(), name.clone(), lifetimes, NOW_MS).unwrap();
        let coordinator = CoordinatorId::new("c1").unwrap();
        let key: Key = FileKey::generate(KeyKind::EcdsaP256).unwrap().into();
        let subject = Subject::Coordinator(coordinator.clone());
        let own = authority
            .issue_own((&subject, Epoch::default()), &ServerNames::default(), key, NOW_MS)
            .unwrap();
        let store = Store::open(&folder.path().join("s.db")).unwrap();
        let credentials = ServerCredentials::new(&own).unwrap();
        let trails = (origin(&name, coordinator.as_str()), store.clone());
        let witnesses = Witnesses::new(&[], folder.path(), trails, credentials.clone());
        let evidence = Evidence::new((store.clone(), witnesses), (&name, &coordinator), credentials);
        Self {
            _folder: folder,
            name,
            authority,
            store,
            evidence,
            head: Head {
                epoch: 1,
                next_sequence: 0,
                digest: GENESIS,
            },
            since: BlocksSince::new(0),
        }
    }

    /// Stores a block of gateway `gw-a`, received at this time.
    async fn block(&mut self, received_ms: u64, severity: i32, kinds: Vec<Kind>) {
        let is_seal = matches!(kinds.first(), Some(Kind::Seal(_)));
        let events = kinds.into_iter().map(|kind| AuditEvent {
            severity,
            kind: Some(kind),
            ..AuditEvent::default()
        });
        let body = AuditBlockBody {
            events: events.collect(),
        };
        let summary = summarize(&body);
        let Head {
            epoch,
            next_sequence: sequence,
            digest,
        } = self.head;
        let block = AuditBlock {
            epoch,
            sequence,
            previous_digest: digest.to_vec().into(),
            body: body.encode_to_vec().into(),
        };
        self.head.digest = block_digest(&digest, epoch, sequence, &block.body);
        self.head.next_sequence += 1;
        if !is_seal {
            self.since
                .take(severity.unsigned_abs() as usize, &self.head.digest);
        }
        let new = NewBlock {
            block,
            summary,
            received_ms,
        };
        self.store.append("gw-a", vec![new]).await.unwrap();
    }

    async fn event(&mut self, received_ms: u64, severity: i32) {
        let message = format!("at {received_ms}");
        let event = AgentEvent {
            step: "tick".to_owned(),
            message,
            ..AgentEvent::default()
        };
        let other = AgentEvent::default();
        self.block(
            received_ms,
            severity,
            vec![Kind::Agent(other), Kind::Agent(event)],
        )
        .await;
    }

    async fn seal(&mut self, keys: &mut SealKeys) {
        let (_, seal) = keys.seal("works/gw-a", self.head, self.since.named(), NOW_MS);
        *keys = keys.advanced().unwrap();
        self.since = BlocksSince::new(self.head.next_sequence);
        self.block(NOW_MS, 1, vec![Kind::Seal(seal)]).await;
    }

    async fn given(&self, from_ms: u64, until_ms: u64) -> Vec<v1::EvidencePiece> {
        let (out, mut pieces) = mpsc::channel(1000);
        let asked = v1::GetEvidenceRequest {
            from_ms,
            until_ms,
            ..v1::GetEvidenceRequest::default()
        };
        self.evidence.give(&asked, &out).await.unwrap();
        drop(out);
        let mut all = Vec::new();
        while let Some(piece) = pieces.recv().await {
            all.push(piece.unwrap());
        }
        all
    }

    async fn proof(&self, sequence: u64, index: u32) -> Result<v1::EventEvidence, Status> {
        let asked = ProveEventRequest {
            source: "gw-a".to_owned(),
            epoch: 1,
            sequence,
            index,
        };
        self.evidence.prove_event(&asked).await
    }
}

fn received(pieces: &[v1::EvidencePiece]) -> Vec<u64> {
    let blocks = pieces.iter().filter_map(|piece| match &piece.piece {
        Some(Piece::Block(block)) => Some(block.received_ms),
        _ => None,
    });
    blocks.collect()
}

#[tokio::test]
async fn a_clock_that_was_wrong_for_a_while_ends_no_evidence_before_its_time() {
    let mut plant = Plant::new();
    for received_ms in [10, 20, 9_000, 30, 40, 90] {
        plant.event(received_ms, 1).await;
    }
    assert_eq!(received(&plant.given(0, 50).await), [10, 20, 9_000, 30, 40]);
    assert_eq!(received(&plant.given(15, 30).await), [20, 9_000, 30]);
    assert_eq!(received(&plant.given(0, 0).await).len(), 6);
    assert!(received(&plant.given(9_001, 0).await).is_empty());
    assert!(received(&plant.given(0, 5).await).is_empty());
    // Each says that it is whole, and one that was cut off does not.
    let roots = plant.authority.roots();
    let read = |pieces: &[v1::EvidencePiece]| {
        let mut pieces = pieces.iter().cloned();
        let mut reader = EvidenceReader::begin(pieces.next()?, &plant.name, &roots).ok()?;
        pieces.try_for_each(|piece| reader.take(piece)).ok()?;
        reader.report().ok()
    };
    for pieces in [plant.given(0, 50).await, plant.given(0, 5).await] {
        assert!(read(&pieces).unwrap().has_end);
        for end in 1..pieces.len() {
            assert!(read(&pieces[..end]).is_none(), "{end}");
        }
        let mut longer = pieces.clone();
        longer.push(pieces.last().unwrap().clone());
        assert!(read(&longer).is_none());
    }
    // A file of an older coordinator promises nothing.
    let mut older = plant.given(0, 50).await;
    older.pop();
    if let Some(Piece::Head(head)) = &mut older[0].piece {
        head.has_end = false;
    }
    let report = read(&older).unwrap();
    assert!(report.is_sound() && !report.has_end);
}

#[tokio::test]
async fn each_event_is_proved_by_a_small_file_with_the_seal_that_covers_it_where_it_fits() {
    let mut plant = Plant::new();
    let mut keys = SealKeys::begin().unwrap();
    for severity in [1, 3, 1, 1, 3] {
        plant.event(NOW_MS, severity).await;
    }
    plant.seal(&mut keys).await;
    for _ in 0..40 {
        plant.event(NOW_MS, 1).await;
    }
    plant.seal(&mut keys).await;
    plant.event(NOW_MS, 1).await;
    let roots = plant.authority.roots();
    let total = plant.head.next_sequence;
    for sequence in 0..total {
        let count = if [5, 46].contains(&sequence) { 1 } else { 2 };
        for index in 0..count {
            let file = to_file(&plant.proof(sequence, index).await.unwrap());
            assert!(file.len() <= PROOF_BYTES_MAX, "{}", file.len());
            let proved = verify(&from_file(&file).unwrap(), &plant.name, &roots).unwrap();
            let place = (proved.block.epoch, proved.block.sequence, proved.index);
            assert_eq!(place, (1, sequence, u64::from(index)));
            let seal = match sequence {
                0..=4 => Some(0),
                // The others there are too many to be named one by one.
                45 => Some(1),
                _ => None,
            };
            assert_eq!(proved.seal.map(|seal| seal.number), seal, "{sequence}");
        }
        assert!(plant.proof(sequence, count).await.is_err());
    }
    let missing = plant.proof(total, 0).await.unwrap_err();
    assert!(missing.message().contains("is not proved"), "{missing}");
}
