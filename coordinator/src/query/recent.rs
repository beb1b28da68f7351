//! What came lately, for whoever follows trails on and must not miss what came while nobody followed.

use tonic::Status;

use super::names::Names;
use super::{Filter, PAGE, events, record};
use crate::releases::Releases;
use crate::store::{BlockFilter, Store};

/// What was received since then and is asked for, the oldest first; of at most `blocks_max` blocks. It looks back from the newest block and ends at the
/// first one that is older, so that it takes no longer where the trail is long.
///
/// # Errors
/// The store or a block cannot be read.
pub(crate) async fn recent(
    store: &Store,
    releases: &Releases,
    filter: &Filter,
    since_ms: u64,
    blocks_max: usize,
) -> Result<Vec<penstock_proto::v1::AuditRecord>, Status> {
    let all = BlockFilter {
        newest_first: true,
        ..BlockFilter::default()
    };
    let (mut after, mut blocks, mut names) = (None, Vec::new(), Names::default());
    loop {
        let page = store.page(all.clone(), after, PAGE).await.map_err(Status::from)?;
        let is_last = !page.more || page.blocks.iter().any(|block| block.received_ms < since_ms);
        blocks.extend(
            page.blocks
                .into_iter()
                .filter(|block| block.received_ms >= since_ms),
        );
        if is_last || blocks.len() >= blocks_max {
            break;
        }
        after = Some(page.end);
    }
    let mut found = Vec::new();
    for block in blocks.iter().rev() {
        events(block, (filter, releases), &mut names, &mut |met| {
            found.push(record(&met))
        })
        .await?;
    }
    Ok(found)
}
