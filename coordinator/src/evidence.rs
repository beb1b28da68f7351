//! What the coordinator gives somebody who will not take its word: whole blocks of the trails, each with its way to the head of the tree
//! over all of them, and that head signed by the coordinator's own key (IEC 62443-3-3 SR 6.1, SR 3.9).
//!
//! One event alone is proved in [`event`]. The head is that of the moment of asking; what comes later is not in it. Memory is bounded by a few blocks,
//! however long the answer. Gateways see heads of certain moments (`published`).

mod event;
mod published;

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_policy::merkle::growing::TreeState;
use penstock_policy::release::Statement;
use penstock_proto::audit::tree_head::{TreeHead, origin};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::v1;
use penstock_proto::v1::evidence_piece::Piece;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use self::published::PublishedHead;
pub(crate) use self::published::ShownHead;
use crate::clock;
use crate::store::{BlockFilter, BlockInTree, Clock, Store};
use crate::witnesses::Witnesses;

/// Blocks read at once.
const PAGE: usize = 32;
/// Proofs in one answer.
const PROOFS_MAX: usize = 256;
/// How long a reader may take for the next piece.
const READER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where pieces go.
type Out = mpsc::Sender<Result<v1::EvidencePiece, Status>>;

/// Gives evidence.
#[derive(Debug, Clone)]
pub struct Evidence {
    store: Store,
    plant: PlantId,
    origin: String,
    credentials: Arc<ServerCredentials>,
    published: watch::Sender<Option<Arc<PublishedHead>>>,
    witnesses: Witnesses,
}

impl Evidence {
    /// Of the trails in `store`, signed with what the coordinator is served with.
    pub fn new(
        (store, witnesses): (Store, Witnesses),
        (plant, coordinator): (&PlantId, &CoordinatorId),
        credentials: Arc<ServerCredentials>,
    ) -> Self {
        Self {
            store,
            plant: plant.clone(),
            origin: origin(plant, coordinator.as_str()),
            credentials,
            published: watch::Sender::new(None),
            witnesses,
        }
    }

    /// Gives the head, then the blocks that are asked for.
    ///
    /// # Errors
    /// The store cannot be read, the own key does not sign, or nobody takes the answer.
    pub(crate) async fn give(&self, asked: &v1::GetEvidenceRequest, out: &Out) -> Result<(), Status> {
        let tree = self.store.tree().await?;
        send(out, Piece::Head(self.head(tree, asked.seen_size).await?)).await?;
        let all = BlockFilter {
            source: (!asked.source.is_empty()).then(|| asked.source.clone()),
            ..BlockFilter::default()
        };
        // Behind the first one that came then, all follow: a gap in a chain is one of the trail, and none of this answer.
        let first = BlockFilter {
            from_ms: asked.from_ms,
            clock: Clock::Received,
            ..all.clone()
        };
        let mut page = self.store.page(first.clone(), None, 1).await?;
        // It ends with the last one that came until then, in the order in which they came: a clock that was wrong for a while ends nothing.
        let last = match asked.until_ms {
            0 => None,
            until_ms => {
                let last = BlockFilter {
                    until_ms,
                    newest_first: true,
                    ..first
                };
                let last = self.store.page(last, None, 1).await?.blocks.pop();
                let Some(last) = last else {
                    return end(out, 0).await;
                };
                Some((last.source, last.epoch, last.sequence))
            }
        };
        let mut blocks = 0;
        loop {
            for stored in &page.blocks {
                let place = (stored.epoch, stored.sequence);
                let found = self.store.block_at(&stored.source, place.0, place.1).await?;
                let Some(found) = found else {
                    return Err(overtaken());
                };
                if found.index.is_some_and(|index| index >= tree.size) {
                    return end(out, blocks).await;
                }
                send(out, Piece::Block(self.block(found, tree.size).await?)).await?;
                blocks += 1;
                let is_last = |(source, epoch, sequence): &(String, u64, u64)| {
                    *source == stored.source && (*epoch, *sequence) == place
                };
                if last.as_ref().is_some_and(is_last) {
                    return end(out, blocks).await;
                }
            }
            if !page.more {
                return end(out, blocks).await;
            }
            if self.store.removed_behind(page.end.clone()).await?.is_some() {
                return Err(overtaken());
            }
            page = tokio::select! {
                page = self.store.page(all.clone(), Some(page.end), PAGE) => page?,
                () = out.closed() => return Ok(()),
            };
        }
    }

    /// How far the tree goes, and that it begins with earlier ones.
    ///
    /// # Errors
    /// Too much is asked for, the store cannot be read, or the own key does not sign.
    pub(crate) async fn prove(&self, asked: &v1::ProveTrailsRequest) -> Result<v1::TrailsProof, Status> {
        if asked.earlier.len() > PROOFS_MAX {
            return Err(Refusal::new(
                Reason::BadRequest,
                format!("more than {PROOFS_MAX} proofs are not given at once: ask again for the rest"),
            )
            .field("earlier", format!("has {} sizes", asked.earlier.len()))
            .into());
        }
        let (size, head) = match asked.size {
            0 => {
                let tree = self.store.tree().await?;
                (tree.size, Some(self.head(tree, 0).await?))
            }
            size => (size, None),
        };
        let mut proofs = Vec::with_capacity(asked.earlier.len());
        for &earlier in &asked.earlier {
            if let Some(path) = self.store.consistency(earlier, size).await? {
                proofs.push(v1::TreeConsistency {
                    earlier,
                    path: hashes(path),
                });
            }
        }
        let cosigned = match head {
            Some(_) => self.witnesses.cosigned().await,
            None => Vec::new(),
        };
        Ok(v1::TrailsProof {
            head,
            proofs,
            cosigned: cosigned.into_iter().map(bytes::Bytes::from).collect(),
        })
    }

    /// Whether the tree begins with what a release says of it.
    ///
    /// # Errors
    /// It does not, or the store cannot be read.
    pub(crate) async fn holds(&self, statement: &[u8]) -> Result<(), Refusal> {
        // What is no statement is refused by whoever reads all of it.
        let named = Statement::from_bytes(statement).ok().and_then(|one| one.trails);
        let Some(named) = named else { return Ok(()) };
        if self.store.tree_at(named.size).await? == Some(named.tree()) {
            return Ok(());
        }
        let held = self.store.tree().await?.size;
        Err(Refusal::new(
            Reason::StatementMismatch,
            format!(
                "the release names a head of the trails over {} blocks, with which the {held} blocks here do not begin: propose it again",
                named.size
            ),
        )
        .field("statement.trails", format!("there are {held} blocks here")))
    }

    /// The signed head of this tree, with the proof that it begins with the one of `seen` leaves; none if it was larger.
    async fn head(&self, tree: TreeState, seen: u64) -> Result<v1::EvidenceHead, Status> {
        let credentials = self.credentials.held();
        let head = TreeHead {
            origin: self.origin.clone(),
            tree,
            time_ms: clock::now_ms(),
        };
        let note = head
            .sign(&credentials)
            .map_err(|error| Status::internal(format!("the coordinator's own key does not sign: {error}")))?;
        let proof = self.store.consistency(seen, tree.size).await?;
        Ok(v1::EvidenceHead {
            note: note.to_bytes().into(),
            certificates: credentials
                .chain()
                .iter()
                .map(|certificate| certificate.to_vec().into())
                .collect(),
            consistency: hashes(proof.unwrap_or_default()),
            has_end: true,
        })
    }

    /// A block with its way to the root of the first `size` leaves.
    async fn block(&self, found: BlockInTree, size: u64) -> Result<v1::EvidenceBlock, Status> {
        let BlockInTree {
            block,
            previous,
            index,
        } = found;
        let path = match index {
            Some(index) => self.store.inclusion(index, size).await?,
            None => None,
        };
        Ok(v1::EvidenceBlock {
            source: block.source,
            block: Some(v1::AuditBlock {
                epoch: block.epoch,
                sequence: block.sequence,
                previous_digest: previous.to_vec().into(),
                body: block.body,
            }),
            received_ms: block.received_ms,
            index,
            path: hashes(path.unwrap_or_default()),
        })
    }
}

/// A gap that retention made would look as if somebody had taken blocks out.
fn overtaken() -> Status {
    Status::aborted(
        "blocks that were asked for were removed for their age meanwhile: ask again, or from a later time on",
    )
}

fn hashes(hashes: Vec<[u8; 32]>) -> Vec<bytes::Bytes> {
    hashes.into_iter().map(|hash| hash.to_vec().into()).collect()
}

/// Says that this was all.
async fn end(out: &Out, blocks: u64) -> Result<(), Status> {
    send(out, Piece::End(v1::EvidenceEnd { blocks })).await
}

/// Gives a piece to a reader who takes it in time.
async fn send(out: &Out, piece: Piece) -> Result<(), Status> {
    let piece = v1::EvidencePiece { piece: Some(piece) };
    match out.send_timeout(Ok(piece), READER_TIMEOUT).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Status::deadline_exceeded("nobody takes the evidence")),
    }
}

#[cfg(test)]
mod tests;
