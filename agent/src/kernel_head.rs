//! The newest sealed head of the trail, kept in the kernel for as long as the machine runs: a disk that is set back meanwhile, with the spool on it, does not
//! take it along (DESIGN §8; IEC 62443-3-3 SR 3.4, SR 3.9).
//!
//! ```text
//! a seal is durable ─▶ its head into the kernel (`table inet penstock_witness`), at most once a minute
//! an agent starts ─▶ the kernel's head beyond the trail on the disk, or another block at its place ─▶ fault and alarm `spool-set-back`
//! ```
//!
//! What is kept is never ahead of what is durable, so that no power cut looks like a disk that was set back; a boot forgets it. Nothing that is enforced depends
//! on it, and the tables that judge are not touched. Root can remove it; then nothing is known, as after a boot.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use penstock_proto::audit::{BODY_BYTES_MAX, Head, block_digest};
use penstock_proto::event::AgentStep;
use penstock_proto::v1::{AuditBlock, Fault};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::{Audit, Position, record};
use crate::kernel::Kernel;

/// How often at most the kernel's head is replaced.
const EACH: Duration = Duration::from_secs(60);
const FORM: &str = "penstock trail";
/// The fault's code, which is the event's step too.
const SET_BACK: &str = "spool-set-back";

/// Keeps it.
pub struct KernelHead<K> {
    kernel: Arc<K>,
    audit: Audit,
    faults: watch::Sender<Vec<Fault>>,
}

/// As it stands in the kernel.
fn in_words(head: &Head) -> String {
    let digest = BASE64_STANDARD.encode(head.digest);
    format!("{FORM} {} {} {digest}", head.epoch, head.next_sequence)
}

/// Reads it in its only form; `None`: it is something else.
fn parse(text: &str) -> Option<Head> {
    let mut words = text.strip_prefix(FORM)?.strip_prefix(' ')?.split(' ');
    let head = Head {
        epoch: words.next()?.parse().ok()?,
        next_sequence: words.next()?.parse().ok()?,
        digest: BASE64_STANDARD.decode(words.next()?).ok()?.try_into().ok()?,
    };
    (in_words(&head) == text).then_some(head)
}

fn place(head: &Head) -> Position {
    Position {
        epoch: head.epoch,
        sequence: head.next_sequence,
    }
}

/// What is wrong with a trail that ends before `end`, and whose block at the place of the kernel's head is `block`, if it is still there.
fn judge(kept: &Head, end: Position, block: Option<&AuditBlock>) -> Option<String> {
    let what = |what: String| {
        format!(
            "the kernel holds a head of this gateway's audit trail from the same boot, and {what}: the disk was set back to an earlier state while the machine ran, \
             or its audit spool was removed or altered. What is enforced stays as it is. If somebody did this on purpose, `nft delete table inet penstock_witness` \
             forgets it, and so does a boot; if nobody did, keep the disk as it is"
        )
    };
    if end < place(kept) {
        return Some(what(format!(
            "the trail on the disk ends at {}/{}, before the sealed {}/{}",
            end.epoch, end.sequence, kept.epoch, kept.next_sequence
        )));
    }
    let block = block?;
    let previous = block.previous_digest.as_ref().try_into().unwrap_or_default();
    let digest = block_digest(&previous, block.epoch, block.sequence, &block.body);
    (digest != kept.digest).then(|| {
        what(format!(
            "block {}/{} on the disk is another one than was sealed",
            block.epoch, block.sequence
        ))
    })
}

impl<K: Kernel> KernelHead<K> {
    /// Of this kernel and this trail, with what will be wrong.
    pub fn new(kernel: Arc<K>, audit: Audit) -> (Self, watch::Receiver<Vec<Fault>>) {
        let (faults, shown) = watch::channel(Vec::new());
        let keeper = Self {
            kernel,
            audit,
            faults,
        };
        (keeper, shown)
    }

    /// Compares, then keeps it until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(self) {
        let mut state = self.audit.state();
        if state
            .wait_for(|state| state.next != Position::default())
            .await
            .is_err()
        {
            return;
        }
        let end = state.borrow_and_update().next;
        let mut beyond = self.compare(end).await;
        let mut kept = None;
        loop {
            let newest = state.borrow_and_update().seal.as_ref().map(|seal| seal.head);
            // What the disk lost stays until the trail has passed it.
            let newest =
                newest.filter(|head| Some(*head) != kept && beyond.is_none_or(|lost| place(head) > lost));
            if let Some(head) = newest {
                match self.kernel.keep_head(in_words(&head)).await {
                    Ok(true) => {
                        kept = Some(head);
                        if beyond.take().is_some() {
                            self.faults.send_replace(Vec::new());
                        }
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the head of the audit trail is not kept in the kernel")
                    }
                }
                tokio::time::sleep(EACH).await;
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// Compares the trail with what the kernel holds; answers with what is beyond it.
    async fn compare(&self, end: Position) -> Option<Position> {
        let kept = parse(&self.kernel.kept_head().await?)?;
        let block = match kept.next_sequence.checked_sub(1) {
            Some(sequence) => {
                let at = Position {
                    epoch: kept.epoch,
                    sequence,
                };
                let read = self.audit.read(at, 1, BODY_BYTES_MAX).await;
                let is_it = |block: &AuditBlock| (block.epoch, block.sequence) == (kept.epoch, sequence);
                read.ok().and_then(|blocks| blocks.into_iter().find(is_it))
            }
            None => None,
        };
        let message = judge(&kept, end, block.as_ref())?;
        tracing::error!("{message}");
        self.audit.note(record::agent(AgentStep::SpoolSetBack, &message));
        self.faults.send_replace(vec![Fault::new(SET_BACK, message)]);
        Some(place(&kept))
    }
}

#[cfg(test)]
mod tests;
