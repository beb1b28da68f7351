//! How many more denials a release may bring, by what its shadow foretold. Pure, and bounded.

use std::time::Duration;

use crate::last_minute::LastMinute;

/// How many more than foretold are allowed in a minute: this, ...
const MARGIN: u64 = 60;
/// ... and this part of what was foretold.
const MARGIN_PART: u64 = 2;

/// What a shadow foretold.
#[derive(Debug, Default)]
pub(super) struct Foretold {
    /// Which shadow.
    since_ms: u64,
    would: LastMinute,
    /// The most in any minute; `None`: it was not there for one yet.
    most: Option<u64>,
}

impl Foretold {
    /// The shadow that is there since `since_ms` would have denied so many by now.
    pub(super) fn see(&mut self, at: Duration, since_ms: u64, would: u64) {
        if self.since_ms != since_ms {
            *self = Self {
                since_ms,
                ..Self::default()
            };
        }
        self.would.see(at, would);
        if self.would.is_whole() {
            self.most = self.most.max(Some(self.would.count()));
        }
    }

    /// How many more than before may be denied in a minute; `None`: any, since nothing was foretold.
    pub(super) fn bound(&self) -> Option<u64> {
        let most = self.most?;
        Some(most.saturating_add(most / MARGIN_PART).saturating_add(MARGIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_a_minute_of_shadow_nothing_is_bounded_and_then_its_worst_minute_and_a_margin_is() {
        let mut foretold = Foretold::default();
        assert_eq!(foretold.bound(), None);
        for second in 0..60 {
            foretold.see(SECOND * second, 1, u64::from(second) * 2);
            assert_eq!(foretold.bound(), None, "{second}");
        }
        foretold.see(SECOND * 60, 1, 120);
        assert_eq!(foretold.bound(), Some(120 + 60 + MARGIN));
        for second in 61..300 {
            foretold.see(SECOND * second, 1, 120);
        }
        assert_eq!(
            foretold.bound(),
            Some(120 + 60 + MARGIN),
            "a quiet minute is not its worst"
        );
        foretold.see(SECOND * 300, 2, 0);
        assert_eq!(foretold.bound(), None, "another shadow");
    }
}
