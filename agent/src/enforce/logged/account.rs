//! How many log messages of the kernel were reported, kept on disk, so that an agent that comes back knows how many came while
//! nobody listened. A mark says that a connection was logged; it does not say that anybody heard it.
//!
//! The number is the kernel's counter `logged` of all our tables; beside it stands how many packets their log's limit left out, as far as that was
//! reported, so that the next agent does not report those of standing tables once more. What is kept is never ahead of what is durable in the trail. After a
//! crash it is up to ten seconds old, so that too much may be reported then; what lay in the socket, logged and not yet taken, is
//! missing from it. That nobody had heard is kept as soon as its report is durable, so that an agent that is killed again and again
//! does not report the same messages each time.

use std::path::{Path, PathBuf};

use crate::{boot, durable};

/// The permission bits of the file.
const MODE: u32 = 0o600;

/// The account.
#[derive(Debug)]
pub(in crate::enforce) struct Account {
    path: PathBuf,
    /// This boot of the machine: with another one all counters began at 0.
    boot: String,
    /// Messages that were reported, durably or not; `None`: not known.
    reported: Option<u64>,
    /// Packets that the log's limit left out, by the counters of the tables that stand, as far as they were reported.
    left_out: u64,
    /// What is on the disk: both.
    kept: Option<(u64, u64)>,
    /// It was reported that nobody had heard, and that is not kept yet.
    is_owed: bool,
}

impl Account {
    /// As it was left.
    pub(in crate::enforce) fn read(path: &Path) -> Self {
        Self::read_in(path, boot::id())
    }

    /// As it was left, in this boot.
    fn read_in(path: &Path, boot: String) -> Self {
        let kept = std::fs::read_to_string(path).ok().and_then(|text| {
            let mut words = text.split_whitespace();
            // Agents from before kept the first number alone, or the two, and did not say in which boot.
            let reported = words.next()?.parse().ok()?;
            let left_out = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
            let is_of_this = words.next().is_none_or(|of| of == boot);
            is_of_this.then_some((reported, left_out))
        });
        Self {
            path: path.to_owned(),
            boot,
            reported: kept.map(|(reported, _)| reported),
            left_out: kept.map_or(0, |(_, left_out)| left_out),
            kept,
            is_owed: false,
        }
    }

    /// Of `logged` messages all were heard.
    pub(in crate::enforce) fn heard(&mut self, logged: u64) {
        self.reported = Some(logged);
    }

    /// How many of `logged` messages nobody heard: all that came since the last that was reported. From now on they are.
    /// Counters of tables that were made since begin at 0.
    pub(in crate::enforce) fn unheard(&mut self, logged: u64) -> u64 {
        let before = self.reported.filter(|reported| *reported <= logged);
        self.reported = Some(logged);
        let unheard = logged - before.unwrap_or(0);
        self.is_owed |= unheard > 0;
        unheard
    }

    /// Whether what nobody had heard was reported, and that is not kept yet.
    pub(in crate::enforce) fn is_owed(&self) -> bool {
        self.is_owed
    }

    /// Of `left_out` packets that the log of the tables which an agent before left has left out, how many that agent reported. Counters
    /// of tables that were made since begin at 0.
    pub(in crate::enforce) fn left_out_before(&self, left_out: u64) -> u64 {
        Some(self.left_out)
            .filter(|before| *before <= left_out)
            .unwrap_or(0)
    }

    /// So many of the standing tables' are reported.
    pub(in crate::enforce) fn left_out_reported(&mut self, left_out: u64) {
        self.left_out = left_out;
    }

    /// Keeps what was reported, but for the `pending` messages and packets left out whose report is not durable: if this agent ends now, they
    /// are lost.
    pub(in crate::enforce) fn keep(&mut self, (pending, pending_left_out): (u64, u64)) {
        let Some(reported) = self.reported else { return };
        // Also where the disk refuses: it is tried again as always.
        self.is_owed = false;
        let durable = (
            reported.saturating_sub(pending),
            self.left_out.saturating_sub(pending_left_out),
        );
        if self.kept == Some(durable) {
            return;
        }
        let text = format!("{} {} {}\n", durable.0, durable.1, self.boot);
        match durable::replace(&self.path, text.as_bytes(), MODE) {
            Ok(()) => self.kept = Some(durable),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "how many verdicts were logged is not kept: after a restart too many may be reported as lost"
            ),
        }
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
        assert_eq!(Account::read(&path).unheard(7), 7, "no number was kept");
        let mut account = Account::read(&path);
        account.heard(7);
        account.keep((0, 0));
        assert_eq!(Account::read(&path).unheard(7), 0);
        assert_eq!(Account::read(&path).unheard(12), 5);
        assert_eq!(Account::read(&path).unheard(3), 3, "the tables were replaced");
    }

    #[test]
    fn what_nobody_heard_is_reported_once_and_kept_only_when_its_report_is_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logged");
        let mut account = Account::read(&path);
        assert_eq!(account.unheard(31), 31);
        account.keep((31, 0));
        assert_eq!(Account::read(&path).unheard(31), 31, "the next agent reports it");
        assert_eq!(account.unheard(31), 0, "this one does not do it again");
        assert!(!account.is_owed(), "it was tried, and waits for the next time");
        assert_eq!(account.unheard(32), 1);
        assert!(account.is_owed());
        account.keep((0, 0));
        assert!(!account.is_owed());
        assert_eq!(Account::read(&path).unheard(32), 0);
    }

    #[test]
    fn what_the_log_left_out_is_kept_once_its_report_is_durable_and_counts_from_zero_in_new_tables() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logged");
        let mut account = Account::read(&path);
        assert_eq!(account.left_out_before(5), 0, "nothing was kept");
        account.heard(1);
        account.left_out_reported(900);
        account.keep((0, 900));
        assert_eq!(
            Account::read(&path).left_out_before(900),
            0,
            "nothing is durable yet"
        );
        account.keep((0, 0));
        assert_eq!(Account::read(&path).left_out_before(1000), 900);
        assert_eq!(
            Account::read(&path).left_out_before(20),
            0,
            "the tables were replaced"
        );
        // After another boot the counters begin at 0, however far they come before they are looked at.
        let mut rebooted = Account::read_in(&path, "another boot".to_owned());
        assert_eq!(rebooted.left_out_before(2000), 0);
        assert_eq!(rebooted.unheard(2), 2);
        std::fs::write(&path, "31\n").unwrap();
        let mut before = Account::read(&path);
        assert_eq!(
            (before.unheard(31), before.left_out_before(9)),
            (0, 0),
            "of an agent from before"
        );
    }
}
