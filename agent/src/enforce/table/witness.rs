//! The newest sealed head of the trail, kept in the kernel beside the rules: a disk that goes back while the machine runs does not take it along.

use super::{Table, blocking};
use crate::enforce::EnforceError;
use crate::enforce::nft::render;

impl Table {
    /// Keeps it in place of the one before; `false`: there is no policy of ours yet, and nothing of ours is in the kernel.
    pub(in crate::enforce) async fn keep_head(&self, head: &str) -> Result<bool, EnforceError> {
        let mut state = self.state.lock().await;
        if state.loaded.is_none() {
            return Ok(false);
        }
        self.load_beside(&mut state, &render::witness(head)).await?;
        Ok(true)
    }

    /// The one that is kept, by whichever agent of this boot.
    pub(in crate::enforce) async fn kept_head(&self) -> Result<Option<String>, EnforceError> {
        blocking(|reader| reader.witness()).await
    }
}
