//! The head of the trail that the kernel keeps: what the data plane offers of it. When, and what it means, `kernel_head` says.

use super::{EnforceError, Enforcer};

impl Enforcer {
    /// Keeps a head of the trail in the kernel, in place of the one before; `false`: nothing of ours is there yet.
    ///
    /// # Errors
    /// The kernel, or `nft`, does not take it.
    pub async fn keep_head(&self, head: &str) -> Result<bool, EnforceError> {
        self.table.keep_head(head).await
    }

    /// The head of the trail that an agent of this boot kept there.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn kept_head(&self) -> Result<Option<String>, EnforceError> {
        self.table.kept_head().await
    }
}
