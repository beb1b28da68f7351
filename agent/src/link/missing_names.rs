//! Names that the policy in force needs in this gateway's certificate and that it lacks: when to ask for them, and what
//! to say when asking does not help. A pure machine, without clock and without randomness of its own.
//!
//! A need that is new is asked for at once, but not by all gateways of a release in the same moment. If the new
//! certificate lacks the names still, since the coordinator's newest release does not have them or it could not be asked,
//! it is a fault that health shows, and the next attempts are ever further apart.

use std::time::{Duration, Instant};

use penstock_proto::backoff::{Backoff, jitter};
use penstock_proto::event::AgentStep;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1::Fault;

use crate::audit::record;

/// Within what time a new need is asked for.
pub const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// The second attempt, after the first.
pub const AGAIN_MIN: Duration = Duration::from_secs(120);
/// The longest between two attempts.
pub const AGAIN_MAX: Duration = Duration::from_secs(4 * 3600);

/// What is missing, and since how many attempts.
#[derive(Debug)]
pub struct MissingNames {
    missing: ServerNames,
    attempts: Backoff,
    next: Option<Instant>,
    why: String,
}

impl Default for MissingNames {
    fn default() -> Self {
        Self {
            missing: ServerNames::default(),
            attempts: Backoff::between(AGAIN_MIN, AGAIN_MAX),
            next: None,
            why: String::new(),
        }
    }
}

impl MissingNames {
    /// Takes up what is missing now; `random` is any number.
    pub fn see(&mut self, missing: ServerNames, now: Instant, random: u64) {
        let is_new = !missing.missing_from(&self.missing).is_empty();
        self.missing = missing;
        if self.missing.is_empty() {
            *self = Self::default();
        } else if is_new {
            self.attempts.worked();
            self.next = Some(now + jitter(FIRST_WITHIN, random));
        }
    }

    /// When to ask; `None`: nothing is missing.
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// An attempt is over, and `why` says what kept the names from coming.
    pub fn asked(&mut self, why: &str, now: Instant, random: u64) {
        if self.missing.is_empty() {
            return;
        }
        self.next = Some(now + self.attempts.failed(random));
        why.clone_into(&mut self.why);
    }

    /// What a person should know, once asking did not help.
    pub fn fault(&self) -> Option<Fault> {
        (self.attempts.failures() > 0).then(|| Fault {
            code: AgentStep::CertificateNames.word().to_owned(),
            message: record::bounded(&format!(
                "TLS clients of {} cannot be served: this gateway's certificate does not name them, and {}; it is \
                 asked for again",
                self.missing, self.why
            )), ..Fault::default() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn names(written: &[&str]) -> ServerNames {
        let mut names = ServerNames::default();
        for name in written {
            names.add(name).unwrap();
        }
        names
    }

    #[test]
    fn a_new_need_is_asked_for_soon_and_met_it_leaves_nothing() {
        let now = Instant::now();
        let mut lack = MissingNames::default();
        lack.see(names(&["10.0.0.5"]), now, 7);
        assert!(lack.due().unwrap() <= now + FIRST_WITHIN && lack.fault().is_none());
        lack.see(ServerNames::default(), now, 7);
        assert!(lack.due().is_none() && lack.fault().is_none());
    }

    #[test]
    fn what_is_not_given_is_a_fault_and_only_a_further_need_is_asked_for_at_once() {
        let now = Instant::now();
        let mut lack = MissingNames::default();
        lack.see(names(&["10.0.0.5", "10.0.0.6"]), now, 7);
        lack.asked("the coordinator refused", now, 7);
        let told = lack.fault().unwrap().message;
        assert!(
            told.contains("10.0.0.5, 10.0.0.6") && told.contains("refused"),
            "{told}"
        );
        // Part of it came: the rest is no new need.
        lack.see(names(&["10.0.0.6"]), now, 7);
        assert!(lack.due().unwrap() >= now + AGAIN_MIN / 2);
        lack.see(names(&["10.0.0.6", "10.0.0.7"]), now, 7);
        assert!(lack.due().unwrap() <= now + FIRST_WITHIN && lack.fault().is_none());
    }

    proptest! {
        #[test]
        fn attempts_that_do_not_help_are_ever_further_apart_and_bounded(randoms in prop::collection::vec(any::<u64>(), 1..60)) {
            let now = Instant::now();
            let mut lack = MissingNames::default();
            lack.see(names(&["10.0.0.5"]), now, 0);
            let mut ceiling = AGAIN_MIN;
            for random in randoms {
                // A look between two attempts changes nothing.
                lack.see(names(&["10.0.0.5"]), now, random);
                lack.asked("no", now, random);
                let wait = lack.due().unwrap() - now;
                prop_assert!(wait >= ceiling / 2 && wait <= ceiling);
                ceiling = (ceiling * 2).min(AGAIN_MAX);
            }
        }
    }
}
