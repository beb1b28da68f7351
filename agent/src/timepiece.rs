//! What time it is, and how well that is known: for what ends by the clock (`crate::grants`). Nothing else of enforcement asks it.
//!
//! The kernel says whether its clock is synchronised: an NTP or PTP service tells it so, and it takes that back itself when the
//! service falls silent for hours, or when somebody sets the clock. Where the hypervisor keeps the clock right and tells the
//! kernel nothing, the configuration may say so instead (`clock.synchronised_by`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A moment by both of the machine's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// The time of day, milliseconds since 1970.
    pub wall_ms: u64,
    /// Whether that may be believed.
    pub synchronised: bool,
    /// Since the machine was started, also while it slept: nobody sets this one.
    pub boot: Duration,
}

/// Where the time comes from.
#[derive(Debug, Clone)]
pub enum Timepiece {
    /// The system's clock, believed while the kernel calls it synchronised.
    Kernel,
    /// The system's clock, believed always.
    Host,
    /// What a test says.
    Told(Arc<Mutex<Time>>),
}

impl Timepiece {
    /// The time now.
    pub fn now(&self) -> Time {
        match self {
            Self::Kernel => system(is_synchronised()),
            Self::Host => system(true),
            Self::Told(time) => *time.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// [`Time::boot`] alone.
pub fn since_boot() -> Duration {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(boot).unwrap_or_default()
}

fn system(synchronised: bool) -> Time {
    Time {
        wall_ms: crate::clock::now_ms(),
        synchronised,
        boot: since_boot(),
    }
}

/// Whether the kernel calls its clock synchronised. What cannot be asked is not.
#[allow(unsafe_code)] // One call for which no safe wrapper is at hand.
fn is_synchronised() -> bool {
    // SAFETY: all zeroes is a value of this structure of numbers, and asks to change nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in the structure, which is ours and lives on.
    let status = unsafe { libc::adjtimex(&raw mut state) };
    status >= 0 && status != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_clock_goes_forward_and_is_believed_where_the_host_keeps_it() {
        let (first, then) = (Timepiece::Host.now(), Timepiece::Host.now());
        assert!(first.synchronised && then.boot >= first.boot);
        assert_eq!(Timepiece::Kernel.now().synchronised, is_synchronised());
    }
}
