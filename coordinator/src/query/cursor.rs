//! Where a search goes on: behind which event, of which block, of which search.
//!
//! A cursor names its block twice, by the store's own place and by what the block is: in another coordinator's store, or in one that was
//! restored from a backup, another block stands at that place. And it names what the search is about, without its times, which people
//! give as spans back from now. So a cursor goes on exactly where it was made, or is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use penstock_proto::refusal::{Reason, Refusal};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::filter::Filter;
use crate::store::{Cursor, Store, StoreError, StoredBlock};

/// The first byte of each cursor.
const FORM: u8 = 1;
/// Longest cursor, bytes.
const BYTES_MAX: usize = 128;

/// What a search is about, briefly.
pub(super) fn about(filter: &Filter) -> [u8; 4] {
    let [one, two, three, four, ..] = <[u8; 32]>::from(Sha256::digest(filter.subject.encode_to_vec()));
    [one, two, three, four]
}

/// What a block is, briefly.
fn identity(block: &StoredBlock) -> [u8; 8] {
    let hash = Sha256::new()
        .chain_update(block.source.as_bytes())
        .chain_update([0])
        .chain_update(block.epoch.to_be_bytes())
        .chain_update(block.sequence.to_be_bytes())
        .chain_update(block.received_ms.to_be_bytes())
        .finalize();
    let mut first = [0; 8];
    first.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    first
}

/// Behind the event of this number in `block`, in a search about this.
pub(super) fn behind(about: [u8; 4], block: &StoredBlock, index: u32) -> String {
    let mut bytes = vec![FORM];
    bytes.extend(about);
    bytes.extend(identity(block));
    bytes.extend(index.to_be_bytes());
    bytes.extend(block.end.form());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn refused(what: &str) -> Refusal {
    let sentence = format!("the cursor {what}; begin the search again without it");
    Refusal::new(Reason::BadRequest, sentence).field("after", what)
}

/// The block that the filter's cursor stands in, and the number of the event there that was given last; `None`: the search begins.
pub(super) async fn read(store: &Store, filter: &Filter) -> Result<Option<(StoredBlock, u32)>, Refusal> {
    if filter.after.is_empty() {
        return Ok(None);
    }
    let bytes = Some(filter.after.as_str())
        .filter(|text| text.len() <= BYTES_MAX)
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or_else(|| refused("is none that a search gave"))?;
    let (Some(&FORM), Some(searched), Some(block), Some(index), Some(place)) = (
        bytes.first(),
        bytes.get(1..5),
        bytes.get(5..13),
        bytes.get(13..17),
        bytes.get(17..),
    ) else {
        return Err(refused("is none that a search gave"));
    };
    if searched != about(filter) {
        return Err(refused(
            "belongs to a search with other filters or in the other order",
        ));
    }
    let gone = "stands at an event that this coordinator does not have: retention removed it, or another coordinator gave the cursor";
    let held = match store.block_before(Cursor::new(place.to_vec())).await {
        Ok(held) => held,
        Err(StoreError::ForeignCursor) => None,
        Err(error) => return Err(error.into()),
    };
    let held = held
        .filter(|held| identity(held) == block)
        .ok_or_else(|| refused(gone))?;
    let index = index.try_into().map_or(0, u32::from_be_bytes);
    Ok(Some((held, index)))
}
