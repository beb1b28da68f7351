//! What a release carries beside the policy: the list of withdrawn keys and the trust bundles, as far as they went when it was proposed. Its
//! statement names both, so that approvers sign them; here it is seen to that they are the plant's own.
//!
//! It rests as one blob, the very bytes that stand behind a [`v1::PolicyOffer`] on the wire: fields of one message may follow each other in any order.

use bytes::Bytes;
use penstock_policy::ids::Digest;
use penstock_policy::release::{Anchor, Statement};
use penstock_proto::bundle::SignedBundle;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use penstock_proto::withdrawn::SNAPSHOT_BYTES_MAX;
use prost::Message as _;

use super::{RecordedRelease, Releases};
use crate::ca::Authority;
use crate::subjects::PublishedList;

/// Trust bundles go with a release as far back as this reaches, bytes: who was dark for longer takes them from a session or a file.
const BUNDLES_BYTES_MAX: usize = 64 * 1024;

/// What goes with the statement, as it is now.
///
/// # Errors
/// The statement names another list or bundle than this coordinator has now.
pub(crate) fn carried(
    statement: &Statement,
    list: &PublishedList,
    authority: &Authority,
) -> Result<Bytes, Refusal> {
    let trusted = authority.trusted();
    let own = [
        Anchor {
            number: list.held.number,
            digest: list.held.digest,
        },
        Anchor {
            number: trusted.number,
            digest: trusted.digest,
        },
    ];
    for ((what, named), own) in statement.anchors().into_iter().zip(own) {
        if named.is_some_and(|named| named != own) {
            return Err(Refusal::new(
                Reason::StatementMismatch,
                format!("the {what} is another one than when the release was built, number {} here: propose it again", own.number),
            )
            .field("statement", format!("the {what} has number {} here", own.number)));
        }
    }
    let mut offer = v1::PolicyOffer::default();
    if statement.withdrawn.is_some() {
        let snapshot = list.snapshot();
        if snapshot.len() <= SNAPSHOT_BYTES_MAX {
            offer.withdrawn = snapshot.into();
        }
    }
    if statement.trust.is_some() {
        let all = authority.bundles_since(&v1::TrustHeld::default());
        offer.trust = Some(newest(all).into());
    }
    Ok(offer.encode_to_vec().into())
}

/// The newest of these that are not too long together.
fn newest(bundles: &[SignedBundle]) -> &[SignedBundle] {
    let mut bytes = 0_usize;
    let fits = bundles.iter().rev().take_while(|bundle| {
        let signatures: usize = bundle.signatures.iter().map(Vec::len).sum();
        bytes = bytes
            .saturating_add(bundle.payload.len())
            .saturating_add(signatures);
        bytes <= BUNDLES_BYTES_MAX
    });
    let count = fits.count();
    bundles
        .get(bundles.len().saturating_sub(count)..)
        .unwrap_or_default()
}

impl Releases {
    /// What a release carries; empty: nothing.
    pub(super) async fn carried(&self, recorded: &RecordedRelease) -> Result<Bytes, Refusal> {
        let carried: Option<Digest> = recorded.record.carried;
        match carried {
            Some(digest) => Ok(self.stored(digest).await?.into()),
            None => Ok(Bytes::new()),
        }
    }
}

/// A release that carries nothing.
#[cfg(test)]
pub(crate) fn nothing(_: &Statement) -> Result<Bytes, Refusal> {
    Ok(Bytes::new())
}
