//! How many log messages the kernel has sent, kept on disk, so that an agent that comes back knows how many came while nobody
//! listened. A mark says that a connection was logged; it does not say that anybody heard it.
//!
//! The number is the kernel's counter `logged` of both tables. After a crash it is up to ten seconds old, so too much may be
//! reported then; what the agent had taken from the kernel and not yet recorded when it was killed is missing from it.

use std::path::Path;

use crate::durable;

/// The permission bits of the file.
const MODE: u32 = 0o600;

/// How many of `logged` messages nobody heard: all that came since the number was kept. Counters of tables that were made
/// since begin at 0.
pub(in crate::enforce) fn unheard(path: &Path, logged: u64) -> u64 {
    let kept = read(path).filter(|kept| *kept <= logged);
    logged - kept.unwrap_or(0)
}

/// Keeps the number, if it is another than the one that is kept.
pub(in crate::enforce) fn keep_if_changed(path: &Path, logged: u64) {
    if read(path) != Some(logged) {
        keep(path, logged);
    }
}

fn read(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Keeps the number.
pub(in crate::enforce) fn keep(path: &Path, logged: u64) {
    if let Err(error) = durable::replace(path, format!("{logged}\n").as_bytes(), MODE) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "how many verdicts were logged is not kept: after a restart too many may be reported as lost"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_logged_since_the_number_was_kept_was_heard_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logged");
        assert_eq!(unheard(&path, 7), 7, "no number was kept");
        keep(&path, 7);
        assert_eq!(unheard(&path, 7), 0);
        assert_eq!(unheard(&path, 12), 5);
        assert_eq!(unheard(&path, 3), 3, "the tables were made anew");
    }
}
