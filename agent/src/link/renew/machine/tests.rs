#![allow(clippy::unwrap_used)]

mod clocks;

use proptest::prelude::*;

use super::*;
use crate::link::missing_names::{AGAIN_MIN, FIRST_WITHIN};

proptest! {
    #[test]
    fn a_certificate_is_renewed_after_half_and_before_three_quarters_of_its_life(
        from in 0u64..4_000_000_000_000, life in 100_000u64..100_000_000_000, spread: u64,
    ) {
        let validity = (from, from + life);
        prop_assert!(!is_due(validity, from + life / 2, spread));
        prop_assert!(is_due(validity, from + life / 4 * 3, spread));
        prop_assert!(is_due(validity, u64::MAX, spread), "an expired one is due, too");
        // A later one that is held already is waited for, but not to the last.
        let wants = |at| wants_another(validity, from + life * 2, at, spread);
        prop_assert!(!wants(from + life / 4 * 3) && wants(from + life / 100 * 95) && wants(u64::MAX));
        prop_assert!(wants_another(validity, from + life, from + life / 4 * 3, spread));
    }
}

/// A machine, its clock, and what it was answered.
struct Run {
    machine: RenewalMachine,
    began: Instant,
    at: Moment,
    asked: usize,
}

impl Run {
    fn new() -> Self {
        let now = Instant::now();
        let at = Moment {
            now,
            time_ms: 1_800_000_000_000,
            random: 7,
        };
        Self {
            machine: RenewalMachine::new(at),
            began: now,
            at,
            asked: 0,
        }
    }

    /// Lets time pass up to `until` after the beginning; `answer` is the certificate that comes of asking.
    fn pass(
        &mut self,
        until: Duration,
        held: &mut CertificateFacts,
        answer: impl Fn(&CertificateFacts) -> Result<CertificateFacts, &'static str>,
    ) {
        let until = self.began + until;
        while self.machine.deadline() <= until {
            let next = self.machine.deadline();
            assert!(next > self.at.now, "it would spin");
            self.at.time_ms += (next - self.at.now).as_millis() as u64;
            self.at.now = next;
            if self.machine.look(held, self.at) {
                self.asked += 1;
                match answer(held) {
                    Ok(issued) => {
                        *held = issued;
                        self.machine.renewed(held, self.at);
                    }
                    Err(why) => self.machine.failed(why, self.at),
                }
            }
        }
    }
}

fn names(written: &[&str]) -> ServerNames {
    let mut names = ServerNames::default();
    for name in written {
        names.add(name).unwrap();
    }
    names
}

/// Valid for ninety days from a moment on.
fn fresh(from_ms: u64) -> CertificateFacts {
    let until = from_ms + 90 * 24 * 3_600_000;
    CertificateFacts {
        validity_ms: Some((from_ms, until)),
        newest_until_ms: until,
        missing: ServerNames::default(),
    }
}

#[test]
fn an_agent_without_a_certificate_waits_between_its_looks_and_asks_for_none() {
    let mut run = Run::new();
    run.pass(Duration::from_secs(600), &mut CertificateFacts::default(), |_| {
        Err("never asked")
    });
    assert_eq!(run.asked, 0);
}

#[test]
fn names_that_the_coordinator_does_not_give_are_asked_for_once_soon_and_then_a_fault_that_ends_with_the_need()
{
    let mut run = Run::new();
    let mut held = CertificateFacts {
        missing: names(&["10.0.0.6"]),
        ..fresh(run.at.time_ms)
    };
    let unhelpful = |held: &CertificateFacts| Ok(held.clone());
    assert!(!run.machine.look(&held, run.at) && run.machine.fault().is_none());
    run.pass(FIRST_WITHIN + AGAIN_MIN / 3, &mut held, unhelpful);
    assert_eq!(run.asked, 1);
    let fault = run.machine.fault().unwrap();
    assert!(
        fault.message.contains("TLS clients of 10.0.0.6 cannot be served"),
        "{fault:?}"
    );
    // Ever more seldom.
    run.pass(Duration::from_secs(24 * 3600), &mut held, unhelpful);
    assert!(run.asked > 5 && run.asked < 25, "{}", run.asked);
    held.missing = ServerNames::default();
    run.machine.look(&held, run.at);
    assert_eq!(run.machine.fault(), None);
}

#[test]
fn names_that_come_with_the_new_certificate_leave_no_fault() {
    let mut run = Run::new();
    let mut held = CertificateFacts {
        missing: names(&["10.0.0.5", "fd00::5"]),
        ..fresh(run.at.time_ms)
    };
    run.pass(Duration::from_secs(3600), &mut held, |held| {
        Ok(CertificateFacts {
            missing: ServerNames::default(),
            ..held.clone()
        })
    });
    assert_eq!((run.asked, run.machine.fault()), (1, None));
}

#[test]
fn a_coordinator_that_is_away_is_asked_each_minute_and_one_whose_certificates_are_old_each_hour() {
    let old = Run::new().at.time_ms - 80 * 24 * 3_600_000;
    let mut away = Run::new();
    away.pass(Duration::from_secs(3600), &mut fresh(old), |_| Err("away"));
    assert!(away.asked >= 45 && away.asked <= 60, "{}", away.asked);
    let mut unhelpful = Run::new();
    unhelpful.pass(Duration::from_secs(10 * 3600), &mut fresh(old), |held| {
        Ok(held.clone())
    });
    assert!(
        unhelpful.asked >= 8 && unhelpful.asked <= 10,
        "{}",
        unhelpful.asked
    );
    let mut helpful = Run::new();
    let now = helpful.at.time_ms;
    helpful.pass(Duration::from_secs(10 * 3600), &mut fresh(old), |_| {
        Ok(fresh(now))
    });
    assert_eq!(helpful.asked, 1);
}

#[test]
fn where_the_coordinator_says_that_the_certificate_has_ended_another_is_asked_for_at_once_and_not_without_end()
 {
    let mut away = Run::new();
    let mut held = fresh(away.at.time_ms);
    // By the clock here it is good.
    assert!(!away.machine.look(&held, away.at));
    away.machine.ended();
    assert!(away.machine.deadline() <= away.at.now);
    assert!(away.machine.look(&held, away.at));
    away.machine.failed("away", away.at);
    away.pass(Duration::from_secs(3600), &mut held, |_| Err("away"));
    assert!(away.asked >= 45 && away.asked <= 60, "{}", away.asked);

    // One that comes and is said to have ended, too: it is the coordinator that is wrong.
    let mut unhelpful = Run::new();
    let mut asked = 0;
    for _ in 0..1_000 {
        unhelpful.machine.ended();
        if unhelpful.machine.look(&held, unhelpful.at) {
            asked += 1;
            unhelpful.machine.renewed(&held, unhelpful.at);
        }
        unhelpful.at.now += Duration::from_secs(30);
    }
    assert!((8..=10).contains(&asked), "{asked}");
}
