//! The wall clock, in the one form that the rest uses. Pure code takes the time as an argument; shells ask here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970. A clock before that year reads as 0.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
