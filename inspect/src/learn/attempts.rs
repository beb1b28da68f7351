//! Connections on which nothing was ever said: refused, not answered, or closed again at once. None of them is proposed.

use std::time::Duration;

use crate::capture::flows::Unopened;
use crate::replay::Occurrences;

/// How often one address tried a port of another, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// All of them, and when.
    pub seen: Occurrences,
    /// Those that the server refused.
    pub refused: u64,
    /// Those that nobody answered.
    pub unanswered: u64,
    /// Those that were opened, and closed again without a byte.
    pub silent: u64,
}

impl Attempts {
    /// The first one.
    pub fn once(at: Duration, how: Unopened) -> Self {
        let mut attempts = Self {
            seen: Occurrences::once(at),
            refused: 0,
            unanswered: 0,
            silent: 0,
        };
        attempts.count(how);
        attempts
    }

    /// One more.
    pub fn again(&mut self, at: Duration, how: Unopened) {
        self.seen.again(at);
        self.count(how);
    }

    fn count(&mut self, how: Unopened) {
        *match how {
            Unopened::Refused => &mut self.refused,
            Unopened::Unanswered => &mut self.unanswered,
            Unopened::Silent => &mut self.silent,
        } += 1;
    }
}
