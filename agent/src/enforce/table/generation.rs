//! Numbers of the generations of the kernel's rules: each transaction, anybody's, makes the next one.

use super::super::EnforceError;
use super::blocking;
use crate::enforce::nft::readback::RulesetReader;

/// The one in force.
///
/// # Errors
/// The kernel could not be asked.
pub(super) async fn generation() -> Result<u32, EnforceError> {
    blocking(RulesetReader::generation).await
}

/// Whether one comes after another: they grow and wrap.
pub(super) fn is_newer(generation: u32, than: u32) -> bool {
    generation.wrapping_sub(than).cast_signed() > 0
}
