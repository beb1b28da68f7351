//! Chance for waits that must not fall together.

/// A random number for jitter. If the system has none to give, all wait alike.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}
