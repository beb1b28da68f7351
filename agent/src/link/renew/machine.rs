//! When to ask for a new certificate, as a pure machine: the certificate in use, the names that are missing in it, and time go in; whether
//! to ask, and the fault to show, come out.
//!
//! Level-triggered: whatever failed is tried again at the next look. Where a new certificate did not help, since the clocks here
//! and at the coordinator differ, the next one is asked for an hour later. Where the coordinator says that it has ended, another one is asked
//! for at once, whatever the clock here shows, and then as often as any other.

use std::time::{Duration, Instant};

use penstock_proto::backoff::jitter;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1::Fault;

use crate::link::missing_names::MissingNames;

/// How often the certificate is looked at, at least.
const LOOK: Duration = Duration::from_secs(60);
/// How long after one that is due again at once the next one is asked for.
const UNHELPFUL: Duration = Duration::from_secs(3600);
/// How often the clock is looked at: which certificate is good may have changed with it.
const CLOCK_LOOK: Duration = Duration::from_secs(5);

/// What there is to know of the certificate in use.
#[derive(Debug, Clone, Default)]
pub struct CertificateFacts {
    /// From when until when it is valid, milliseconds since 1970; `None`: it cannot be read.
    pub validity_ms: Option<(u64, u64)>,
    /// The end of the one among those held that ends last.
    pub newest_until_ms: u64,
    /// Names that the policy in force needs and that it lacks.
    pub missing: ServerNames,
}

/// A moment, by both clocks, and a random number for it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the clock that nobody sets.
    pub now: Instant,
    /// The time of day, milliseconds since 1970.
    pub time_ms: u64,
    /// Any number.
    pub random: u64,
}

/// When to ask.
#[derive(Debug)]
pub struct RenewalMachine {
    /// Differs from gateway to gateway, so that those enrolled together do not renew together.
    spread: u64,
    lack: MissingNames,
    look_at: Instant,
    clock_look_at: Instant,
    /// Not before, after one that did not help.
    again_at: Option<Instant>,
    /// The coordinator says that the one in use has ended.
    has_ended: bool,
    /// When another one is asked for at the earliest because of that.
    ended_at: Instant,
}

impl RenewalMachine {
    /// Begins with the agent.
    pub fn new(at: Moment) -> Self {
        Self {
            spread: at.random % 1000,
            lack: MissingNames::default(),
            look_at: next_look(at),
            clock_look_at: at.now + CLOCK_LOOK,
            again_at: None,
            has_ended: false,
            ended_at: at.now,
        }
    }

    /// When [`Self::look`] is due, if nothing happens before.
    pub fn deadline(&self) -> Instant {
        let look = self.look_at.min(self.clock_look_at);
        let ended = self.has_ended.then_some(self.ended_at);
        let all = [self.lack.due(), ended];
        all.into_iter().flatten().fold(look, Instant::min)
    }

    /// The coordinator says that the certificate in use has ended: [`Self::look`] is due.
    pub fn ended(&mut self) {
        self.has_ended = true;
    }

    /// Looks at the certificate in use: whether to ask for another one now.
    pub fn look(&mut self, certificate: &CertificateFacts, at: Moment) -> bool {
        self.clock_look_at = at.now + CLOCK_LOOK;
        self.lack.see(certificate.missing.clone(), at.now, at.random);
        let looks = self.look_at <= at.now;
        if looks {
            self.look_at = next_look(at);
        }
        let aged = looks
            && self.again_at.is_none_or(|again| again <= at.now)
            && certificate.validity_ms.is_some_and(|validity| {
                wants_another(validity, certificate.newest_until_ms, at.time_ms, self.spread)
            });
        let ended = self.has_ended && self.ended_at <= at.now;
        if ended {
            self.ended_at = next_look(at);
        }
        aged || ended || self.lack.due().is_some_and(|due| due <= at.now)
    }

    /// A new certificate is stored; `certificate` is the one in use from now on.
    pub fn renewed(&mut self, certificate: &CertificateFacts, at: Moment) {
        if std::mem::take(&mut self.has_ended) {
            // If it is said of the new one, too, another one would be no better.
            self.ended_at = at.now + UNHELPFUL;
        }
        let unhelpful = |validity| is_due(validity, at.time_ms, self.spread);
        self.again_at = certificate
            .validity_ms
            .is_some_and(unhelpful)
            .then(|| at.now + UNHELPFUL);
        self.lack.see(certificate.missing.clone(), at.now, at.random);
        self.lack.asked(
            "the coordinator's newest release does not give it them",
            at.now,
            at.random,
        );
    }

    /// None came, for this reason.
    pub fn failed(&mut self, why: &str, at: Moment) {
        self.lack.asked(why, at.now, at.random);
    }

    /// What a person should know.
    pub fn fault(&self) -> Option<Fault> {
        self.lack.fault()
    }
}

fn next_look(at: Moment) -> Instant {
    at.now + LOOK + jitter(LOOK / 4, at.random)
}

/// Whether a certificate valid in `validity_ms` is due at `now_ms`. `spread` (0–999) differs from gateway to gateway,
/// so that those enrolled together do not renew together.
pub fn is_due(validity_ms: (u64, u64), now_ms: u64, spread: u64) -> bool {
    let (from, until) = validity_ms;
    let life = until.saturating_sub(from);
    // Between 60 and 70 percent of its life.
    let due = from
        .saturating_add(life / 10 * 6)
        .saturating_add(life / 10_000 * (spread % 1000));
    now_ms >= due
}

/// Whether to ask for another one. Where the one issued last ends later, and its time has not come by the clock here, that is waited
/// for as long as the one in use has a tenth of its life: asking again would bring the same.
fn wants_another(in_use: (u64, u64), newest_until_ms: u64, now_ms: u64, spread: u64) -> bool {
    let (from, until) = in_use;
    let late = until.saturating_sub(now_ms) < until.saturating_sub(from) / 10;
    is_due(in_use, now_ms, spread) && (late || newest_until_ms <= until)
}

#[cfg(test)]
mod tests;
