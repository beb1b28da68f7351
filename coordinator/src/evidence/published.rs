//! The head of the trails that gateways see: the same for all of them, signed once an hour and whenever another release is current. Each
//! gateway holds it against the one that it saw before, and writes it into its own trail; so a coordinator that rewrites its trails, or shows
//! different people different ones, contradicts machines that it cannot sign for.
//!
//! Bounded: one head is held, and what a gateway gets is the newest. Nothing waits for it: a head that cannot be signed is tried at the next turn.

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::merkle::growing::TreeState;
use penstock_proto::v1;
use tokio_util::sync::CancellationToken;

use super::{Evidence, hashes};
use crate::releases::Releases;

/// How often a head is published, if nothing happens.
const EACH: Duration = Duration::from_secs(3600);

/// A head that is shown to all gateways.
#[derive(Debug)]
pub(super) struct PublishedHead {
    tree: TreeState,
    /// Without a proof.
    signed: v1::EvidenceHead,
}

/// What a gateway was shown of the trails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ShownHead {
    /// Its software knows nothing of them.
    #[default]
    Unasked,
    /// It saw so many blocks before this session.
    Before(u64),
    /// So many in this session.
    Here(u64),
}

impl ShownHead {
    /// What a hello says.
    pub(crate) fn of(hello: &v1::Hello) -> Self {
        hello.trails_size.map_or(Self::Unasked, Self::Before)
    }
}

impl Evidence {
    /// Publishes heads until the coordinator stops.
    pub(crate) async fn publish(self, releases: Releases, stopping: CancellationToken) {
        let mut current = releases.current();
        loop {
            current.mark_unchanged();
            if let Err(error) = self.publish_now().await {
                tracing::warn!(%error, "no head of the trails is shown to gateways for now");
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(EACH) => {}
                changed = current.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn publish_now(&self) -> Result<(), tonic::Status> {
        let tree = self.store.tree().await?;
        let is_shown = self
            .published
            .borrow()
            .as_ref()
            .is_some_and(|shown| shown.tree == tree);
        if tree.size == 0 || is_shown {
            return Ok(());
        }
        let signed = self.head(tree, 0).await?;
        self.published
            .send_replace(Some(Arc::new(PublishedHead { tree, signed })));
        Ok(())
    }

    /// The newest head for a gateway that was shown this much, with the proof that it begins with that; `None`: there is nothing new. A
    /// gateway's first one of a session comes in any case, so that it notices where there is less by now.
    pub(crate) async fn news(&self, shown: ShownHead) -> Option<(ShownHead, Box<v1::EvidenceHead>)> {
        let newest = self.published.borrow().clone()?;
        let size = newest.tree.size;
        let before = match shown {
            ShownHead::Unasked => return None,
            ShownHead::Here(before) if before == size => return None,
            ShownHead::Here(before) | ShownHead::Before(before) => before,
        };
        // What cannot be read now accuses nobody, and is tried with the next answer; nor does a head that is only older than what a release named.
        if before > size && self.store.tree().await.ok()?.size >= before {
            return None;
        }
        // Without a proof the gateway says what that means.
        let proof = self.store.consistency(before, size).await.ok()?;
        let head = v1::EvidenceHead {
            consistency: hashes(proof.unwrap_or_default()),
            ..newest.signed.clone()
        };
        Some((ShownHead::Here(size), Box::new(head)))
    }
}
