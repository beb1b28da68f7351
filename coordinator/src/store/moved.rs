//! Where a store lives: alone, or as one of the copies that follow a log. It is moved from one to the other while no coordinator runs on it, and
//! what it holds is counted before and after.

use std::path::Path;

use super::StoreError;
pub use super::contents::Contents;
use super::jetstream::NatsSettings;
use super::room::DiskReserve;
use super::sqlite::{Sqlite, moved};

/// Brings the store at `path`, which stands alone and which nobody has open, to servers that replicate it; it is a copy from then on. What stands
/// there is read back and compared before anything is changed here.
///
/// # Errors
/// It is no store that stands alone; the servers cannot be reached, or hold a log already; or what was read back is not what was sent.
pub async fn replicate(path: &Path, servers: NatsSettings) -> Result<Contents, StoreError> {
    drop(Sqlite::open(path, DiskReserve::default())?);
    let before = moved::contents(path)?;
    let mut id = [0; 32];
    getrandom::fill(&mut id).map_err(|error| StoreError::Unreachable {
        words: format!("no random numbers: {error}"),
    })?;
    let base = path.with_extension("base");
    let back = path.with_extension("base-back");
    // Of an earlier attempt.
    for left in [&base, &back] {
        moved::remove(left);
    }
    moved::base(path, &base, id)?;
    let sent = servers.begin_from(&base, &back).await;
    let read_back = sent.and_then(|()| moved::contents(&back));
    for left in [&base, &back] {
        moved::remove(left);
    }
    let after = read_back?;
    if after != before {
        return Err(StoreError::Unusable {
            words: format!("what was read back is not what was sent: {after}; here: {before}"),
        });
    }
    servers.claim(id).await?;
    moved::follow_from(path, id)?;
    Ok(before)
}

/// Makes the copy at `path`, which nobody has open, a store that stands alone, as it is. The servers keep what they have.
///
/// # Errors
/// It cannot be written.
pub fn stand_alone(path: &Path) -> Result<Contents, StoreError> {
    moved::stand_alone(path)?;
    moved::contents(path)
}
