//! Where in the trails something came first, for whoever follows them on and must not miss what came while nobody followed.

use super::PAGE;
use crate::store::{BlockFilter, Cursor, Store, StoreError};

/// The place behind which everything stands that was received since then, looked for from the newest block back; whether it goes so far, or only
/// `blocks_max` blocks. One block at a time is kept of what is looked at.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn place_since(
    store: &Store,
    since_ms: u64,
    blocks_max: usize,
) -> Result<(Cursor, bool), StoreError> {
    let all = BlockFilter {
        newest_first: true,
        ..BlockFilter::default()
    };
    let (mut after, mut blocks) = (None, 0);
    loop {
        let page = store.page(all.clone(), after, PAGE).await?;
        for block in page.blocks {
            if block.received_ms < since_ms {
                return Ok((block.end, true));
            }
            blocks += 1;
            if blocks >= blocks_max {
                return Ok((block.end, false));
            }
        }
        if !page.more {
            return Ok((store.beginning().await?, true));
        }
        after = Some(page.end);
    }
}
