//! An offer as it goes out to a gateway: in pieces, each made when the gateway takes it.
//!
//! A plan may be as large as a message, and so may the history before it, which a gateway asks for by the release that it says it
//! verified last. So the plan goes out of the release itself, and the history link by link: of what a gateway does not read,
//! one piece is held for it.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use penstock_policy::ids::{Digest, GatewayId};
use penstock_proto::channel::COORDINATOR_MESSAGE_BYTES_MAX;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use prost::{Message as _, encode_length_delimiter, length_delimiter_len};

use super::CurrentRelease;

/// About what is made at once, bytes: also over a slow line, it goes out in seconds.
const PIECE_BYTES: usize = 16 * 1024;

/// `CoordinatorMessage.offer`, `PolicyOffer.plan` and `PolicyOffer.chain` on the wire: the number, and that a length follows.
const OFFER_KEY: u8 = 2 << 3 | 2;
const PLAN_KEY: u8 = 2 << 3 | 2;
const CHAIN_KEY: u8 = 5 << 3 | 2;

/// A release, for one gateway that verified another one last.
#[derive(Debug, Clone)]
pub struct Offer {
    release: Arc<CurrentRelease>,
    gateway: GatewayId,
    verified: Option<Digest>,
    order: Option<v1::Order>,
}

/// A plan where it lies.
struct PlanBytes(Arc<CurrentRelease>, GatewayId);

impl AsRef<[u8]> for PlanBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.release.plan(&self.1).map_or(&[], |plan| plan.plan)
    }
}

fn begin_field(out: &mut BytesMut, key: u8, length: usize) {
    out.put_u8(key);
    // There is room, which is the only way in which it fails.
    let _ = encode_length_delimiter(length, out);
}

fn field_bytes(length: usize) -> usize {
    1 + length_delimiter_len(length) + length
}

impl Offer {
    /// `verified`: the release that the gateway verified last, if any.
    pub fn new(release: Arc<CurrentRelease>, gateway: GatewayId, verified: Option<Digest>) -> Self {
        Self {
            release,
            gateway,
            verified,
            order: None,
        }
    }

    /// With how far the gateway may go with it.
    pub fn with_order(self, order: Option<v1::Order>) -> Self {
        Self { order, ..self }
    }

    /// The pieces of the message, in the order in which they go out.
    ///
    /// # Errors
    /// The release has no plan for the gateway, or all of it is larger than a message may be.
    pub fn pieces(self) -> Result<impl Iterator<Item = Bytes> + Send + use<>, Refusal> {
        let Self {
            release,
            gateway,
            verified,
            order,
        } = self;
        let Some(plan) = release.release.plan(&gateway) else {
            return Err(Refusal::new(
                Reason::Internal,
                format!("the release has no plan for {gateway}"),
            ));
        };
        let head = v1::PolicyOffer {
            release: Some(release.recorded.signed()),
            leaf_index: plan.leaf_index,
            inclusion_proof: plan.proof.iter().map(|hash| hash.to_vec().into()).collect(),
            plan: Bytes::new(),
            chain: Vec::new(),
            order,
            withdrawn: Bytes::new(),
            trust: None,
        };
        let carried = release.carried.clone();
        let plan = Bytes::from_owner(PlanBytes(release.clone(), gateway));
        let mut links = release.history.between(verified);
        let chain_bytes: usize = links
            .clone()
            .filter_map(|at| release.history.link(at))
            .map(|link| field_bytes(link.encoded_len()))
            .sum();
        let offer_bytes = head.encoded_len() + field_bytes(plan.len()) + chain_bytes + carried.len();
        let message_bytes = field_bytes(offer_bytes);
        let length = u32::try_from(message_bytes)
            .ok()
            .filter(|_| message_bytes <= COORDINATOR_MESSAGE_BYTES_MAX);
        let length = length.ok_or_else(|| {
            Refusal::new(
                Reason::Internal,
                format!("the offer has {message_bytes} bytes; the limit is {COORDINATOR_MESSAGE_BYTES_MAX}"),
            )
        })?;
        let mut first = BytesMut::new();
        // Not compressed; the length.
        first.put_u8(0);
        first.put_u32(length);
        begin_field(&mut first, OFFER_KEY, offer_bytes);
        let _ = head.encode(&mut first);
        begin_field(&mut first, PLAN_KEY, plan.len());
        let plan = in_pieces(plan);
        let chain = std::iter::from_fn(move || {
            let mut piece = BytesMut::new();
            while piece.len() < PIECE_BYTES
                && let Some(link) = links.next().and_then(|at| release.history.link(at))
            {
                begin_field(&mut piece, CHAIN_KEY, link.encoded_len());
                let _ = link.encode(&mut piece);
            }
            (!piece.is_empty()).then(|| piece.freeze())
        });
        let all = std::iter::once(first.freeze()).chain(plan).chain(chain);
        Ok(all.chain(in_pieces(carried)))
    }
}

fn in_pieces(bytes: Bytes) -> impl Iterator<Item = Bytes> + Send {
    let end = bytes.len();
    (0..end)
        .step_by(PIECE_BYTES)
        .map(move |at| bytes.slice(at..end.min(at + PIECE_BYTES)))
}
