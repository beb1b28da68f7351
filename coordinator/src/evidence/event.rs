//! What proves one event: its two paths, and, where one stands near and fits, a seal of its source.

use bytes::Bytes;
use penstock_policy::merkle::Hash;
use penstock_proto::audit::chain::seals;
use penstock_proto::audit::event_proof::{PROOF_BYTES_MAX, SEALED_WITH_MAX, covering, evidence_of};
use penstock_proto::audit::leaf::{BlockLeaf, EventProof, InTree, events};
use penstock_proto::audit::note::Note;
use penstock_proto::audit::seal::SealText;
use penstock_proto::audit::verify::severity_of;
use penstock_proto::audit::{block_digest, read_body};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use tonic::Status;

use super::Evidence;
use crate::store::{BlockInTree, StoreError};

/// Blocks behind the event's own among which a seal is looked for.
const NEAR: u64 = 64;
/// Blocks before the seal that are read for what it names.
const NAMED_FROM_MAX: u64 = 256;

/// Seals of one block that are looked at, and all that are held against the blocks that they name: a source makes one with a commit.
const SEALS_LOOKED_AT: usize = 4;

impl Evidence {
    /// Proves an event.
    ///
    /// # Errors
    /// It is not there, or was stored before there was a tree; the store cannot be read, or the own key does not sign.
    pub(crate) async fn prove_event(
        &self,
        asked: &v1::ProveEventRequest,
    ) -> Result<v1::EventEvidence, Status> {
        let v1::ProveEventRequest {
            source,
            epoch,
            sequence,
            index,
        } = asked;
        let position = format!("{source}/{epoch}/{sequence}/{index}");
        let missing = |why: &str| Refusal::new(Reason::NotFound, format!("{position} is not proved: {why}"));
        let tree = self.store.tree().await?;
        let found = self.store.block_at(source, *epoch, *sequence).await?;
        let found = found.ok_or_else(|| {
            missing("no such block is stored here, or it was removed for its age; positions are SOURCE/EPOCH/SEQUENCE/INDEX, as each record has them")
        })?;
        let body = found.block.body.clone();
        let number = usize::try_from(*index).ok();
        let event = number.and_then(|number| events(&body).get(number).map(|event| event.to_vec()));
        let (Some(event), Some(in_block)) = (event, InTree::of_event(&body, u64::from(*index))) else {
            return Err(missing("its block has not so many events").into());
        };
        let Some(leaf) = found.index.filter(|leaf| *leaf < tree.size) else {
            return Err(missing(
                "its block was stored by software from before there was a tree over the trails; take `penstock audit evidence`, where the chain ties it to one",
            )
            .into());
        };
        let path = self.store.inclusion(leaf, tree.size).await?;
        let path = path.ok_or_else(|| missing("its block came just now: ask again"))?;
        let block = leaf_of(source, &found);
        let head = self.head(tree, tree.size).await?;
        let certificates: Vec<_> = head
            .certificates
            .iter()
            .map(|der| CertificateDer::from(der.to_vec()))
            .collect();
        let proof = EventProof {
            event,
            in_block,
            block: block.clone(),
            in_tree: InTree { index: leaf, path },
        };
        let proved = evidence_of(head.note, &certificates, proof);
        let Some((seal, named)) = self.seal_of(&block, severity(&body)).await? else {
            return Ok(proved);
        };
        let sealed = v1::EventEvidence {
            seal,
            sealed_with: named.concat().into(),
            ..proved.clone()
        };
        let is_small = sealed.encoded_len().saturating_sub(sealed.event.len()) <= PROOF_BYTES_MAX;
        Ok(if is_small { sealed } else { proved })
    }

    /// The note of a seal that covers the block, and what it takes to show that.
    async fn seal_of(
        &self,
        block: &BlockLeaf,
        severity: Option<usize>,
    ) -> Result<Option<(Bytes, Vec<Hash>)>, StoreError> {
        let mut tries = SEALS_LOOKED_AT;
        let behind = block.sequence.saturating_add(1)..=block.sequence.saturating_add(NEAR);
        for sequence in behind {
            let Some(found) = self.store.block_at(&block.source, block.epoch, sequence).await? else {
                continue;
            };
            let Ok(body) = read_body(&found.block.body) else {
                continue;
            };
            let own = seals(&body).filter(|seal| seal.certificates.is_empty());
            for seal in own.take(SEALS_LOOKED_AT) {
                if covering(&self.plant, block, &seal.note, &[]).is_some() {
                    return Ok(Some((seal.note.clone(), Vec::new())));
                }
                if tries == 0 {
                    return Ok(None);
                }
                tries -= 1;
                let named = self.named(block, severity, &seal.note).await?;
                if !named.is_empty() && covering(&self.plant, block, &seal.note, &named).is_some() {
                    return Ok(Some((seal.note.clone(), named)));
                }
            }
        }
        Ok(None)
    }

    /// The digests of the blocks that a seal names for this severity; none where there are too many to show.
    async fn named(
        &self,
        block: &BlockLeaf,
        severity: Option<usize>,
        seal: &[u8],
    ) -> Result<Vec<Hash>, StoreError> {
        let text = Note::parse(seal)
            .ok()
            .and_then(|note| SealText::parse(&note.text));
        let Some(text) = text else { return Ok(Vec::new()) };
        let (since, until) = (text.blocks.since, text.head.next_sequence);
        let is_named = (since..until).contains(&block.sequence) && until - since <= NAMED_FROM_MAX;
        let mut digests = Vec::new();
        for sequence in (since..until).filter(|_| is_named) {
            let found = self.store.block_at(&block.source, block.epoch, sequence).await?;
            let of_severity = found.filter(|found| self::severity(&found.block.body) == severity);
            digests.extend(of_severity.map(|found| leaf_of(&block.source, &found).digest));
            if digests.len() > SEALED_WITH_MAX {
                return Ok(Vec::new());
            }
        }
        Ok(digests)
    }
}

fn severity(body: &[u8]) -> Option<usize> {
    severity_of(&read_body(body).ok()?)
}

fn leaf_of(source: &str, found: &BlockInTree) -> BlockLeaf {
    let block = &found.block;
    let digest = block_digest(&found.previous, block.epoch, block.sequence, &block.body);
    BlockLeaf::new(source, (block.epoch, block.sequence), digest, &block.body)
}
