//! What follows from attempts at an override that are refused: a pause after a wrong code, and a trail that nobody floods. Pure.
//!
//! A code is what could be guessed. Nobody guesses a signature, so whoever brings signatures waits for nobody.

use std::time::Duration;

/// How long no further code is judged after a wrong one; twice as long after each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// And at most: who has the right paper waits no longer for those who have not.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Within each span of this length ...
pub(in crate::reconcile) const SPAN: Duration = Duration::from_secs(60);
/// ... so many refusals are recorded, besides those of wrong codes, which the pause bounds; the rest is counted.
pub(in crate::reconcile) const RECORDED_MAX: u32 = 8;

/// See the module. All times are on the boot's clock.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// No code is judged before this, and how long the next pause is.
    pause: (Duration, Duration),
    /// When the span began, and how many refusals were recorded in it.
    span: (Duration, u32),
    /// How many were not recorded in it.
    unrecorded: u32,
}

impl Refusals {
    /// Whether codes are not judged at the moment.
    pub(super) fn is_pausing(&self, boot: Duration) -> bool {
        boot < self.pause.0
    }

    /// A right code was typed.
    pub(super) fn code_was_right(&mut self) {
        self.pause = Default::default();
    }

    /// An attempt was refused, for a wrong code or for something else. Whether it is recorded by itself.
    pub(super) fn refused(&mut self, is_wrong_code: bool, boot: Duration) -> bool {
        if is_wrong_code {
            let length = self.pause.1.max(PAUSE);
            self.pause = (boot + length, (length * 2).min(PAUSE_MAX));
            return true;
        }
        let (began, recorded) = self.span;
        // What was counted before is reported first.
        let (began, recorded) = match boot >= began + SPAN && self.unrecorded == 0 {
            true => (boot, 0),
            false => (began, recorded),
        };
        let is_recorded = recorded < RECORDED_MAX;
        self.span = (began, recorded + u32::from(is_recorded));
        self.unrecorded = self.unrecorded.saturating_add(u32::from(!is_recorded));
        is_recorded
    }

    /// How many were not recorded, once the span is over in which that was so.
    pub(super) fn unrecorded(&mut self, boot: Duration) -> Option<u32> {
        let is_over = self.unrecorded > 0 && boot >= self.span.0 + SPAN;
        is_over.then(|| std::mem::take(&mut self.unrecorded))
    }
}
