//! How far an export certainly came: a pure machine over what was sent and what the receiver shows of it.
//!
//! A file that was synced and an answer of OTLP are certain at once. Syslog has no answer: the receiver's kernel acknowledges bytes
//! that its program may never read. So what was acknowledged there counts only when the same connection still stands a *hold*
//! later; a connection that ends takes everything younger with it, which is sent again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Places that wait for their hold; of more, each takes the one before with it.
const PLACES_MAX: usize = 256;

/// Places that were sent and do not count yet, the oldest first.
#[derive(Debug)]
pub(super) struct Window<P> {
    hold: Duration,
    waiting: VecDeque<(Instant, P)>,
}

impl<P> Window<P> {
    /// What is acknowledged counts after `hold`.
    pub(super) fn new(hold: Duration) -> Self {
        Self {
            hold,
            waiting: VecDeque::new(),
        }
    }

    /// All up to this place was acknowledged now.
    pub(super) fn acknowledged(&mut self, place: P, now: Instant) {
        if self.waiting.len() >= PLACES_MAX {
            // The later one is certain later than both.
            self.waiting.pop_back();
        }
        self.waiting.push_back((now, place));
    }

    /// The furthest place that counts by now.
    pub(super) fn settled(&mut self, now: Instant) -> Option<P> {
        let mut settled = None;
        while let Some((at, _)) = self.waiting.front()
            && now.saturating_duration_since(*at) >= self.hold
        {
            settled = self.waiting.pop_front().map(|(_, place)| place);
        }
        settled
    }

    /// When the next place counts.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at + self.hold)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_counts_before_its_hold_and_everything_does_after_it(
            gaps in prop::collection::vec(0_u64..20, 1..600), hold in 0_u64..100,
        ) {
            let hold = Duration::from_millis(hold);
            let mut window = Window::new(hold);
            let mut now = Instant::now();
            let (mut sent, mut counted) = (Vec::new(), None);
            for (gap, place) in gaps.into_iter().zip(0_usize..) {
                now += Duration::from_millis(gap);
                window.acknowledged(place, now);
                sent.push(now);
                if let Some(place) = window.settled(now) {
                    prop_assert!(now - sent[place] >= hold);
                    prop_assert!(Some(place) > counted);
                    counted = Some(place);
                }
                prop_assert!(window.waiting.len() <= PLACES_MAX);
            }
            let last = window.settled(now + hold).or(counted);
            prop_assert_eq!(last, Some(sent.len() - 1));
            prop_assert_eq!(window.due(), None);
        }
    }
}
