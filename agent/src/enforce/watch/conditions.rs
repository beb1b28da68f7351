//! What health shows of the data plane while it is so, and what of it goes to the trail: a pure machine.
//!
//! A condition is known by its code and its subject. It is reported once it has held for [`HELD`], and as over once it has been
//! absent for [`ABSENT`]: one that comes and goes each second is one condition; one that could not be looked at stays as it is. At most
//! [`KNOWN_MAX`] are known at once, and [`ALARMS_MAX`] more alarms; further ones wait for room, the alarms first.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observed::{Condition, ConditionSeen, ConditionStep};

/// How long a condition holds before it is reported.
const HELD: Duration = Duration::from_secs(2);
/// How long it is absent before it is over.
const ABSENT: Duration = Duration::from_secs(5);
/// Conditions at once.
const KNOWN_MAX: usize = 64;
/// Alarms that find room beyond these.
const ALARMS_MAX: usize = 64;

/// What is known of one.
#[derive(Debug)]
struct KnownCondition {
    condition: Condition,
    since: Duration,
    since_ms: u64,
    /// When it was last seen.
    seen: Duration,
    seen_ms: u64,
    told: bool,
}

/// All that is known.
#[derive(Debug, Default)]
pub(in crate::enforce) struct Conditions {
    known: BTreeMap<(&'static str, String), KnownCondition>,
}

impl Conditions {
    /// Takes in what is so at this moment (`now` of the monotonic clock, `now_ms` since 1970); gives what the trail should have.
    /// A condition whose code was not `looked` for does not end.
    pub(in crate::enforce) fn see(
        &mut self,
        mut present: Vec<Condition>,
        looked: impl Fn(&str) -> bool,
        now: Duration,
        now_ms: u64,
    ) -> Vec<ConditionSeen> {
        present.sort_by_key(|condition| !condition.alarm);
        for condition in present {
            let key = (condition.code, condition.subject.clone());
            let room = if condition.alarm {
                KNOWN_MAX + ALARMS_MAX
            } else {
                KNOWN_MAX
            };
            let full = self.known.len() >= room;
            match self.known.get_mut(&key) {
                Some(known) => {
                    known.condition = condition;
                    (known.seen, known.seen_ms) = (now, now_ms);
                }
                None if full => {}
                None => {
                    let known = KnownCondition {
                        condition,
                        since: now,
                        since_ms: now_ms,
                        seen: now,
                        seen_ms: now_ms,
                        told: false,
                    };
                    self.known.insert(key, known);
                }
            }
        }
        let mut news = Vec::new();
        self.known.retain(|(code, _), known| {
            let over = looked(code) && now.saturating_sub(known.seen) >= ABSENT;
            let held = known.seen.saturating_sub(known.since) >= HELD;
            if over && known.told {
                news.push(known.news(ConditionStep::Ended, known.seen_ms));
            } else if held && !known.told {
                known.told = true;
                news.push(known.news(ConditionStep::Began, 0));
            }
            !over
        });
        news
    }

    /// What is so, the alarms first.
    pub(in crate::enforce) fn current(&self) -> Vec<Condition> {
        let mut current: Vec<_> = self.known.values().map(|known| known.condition.clone()).collect();
        current.sort_by_key(|condition| !condition.alarm);
        current
    }

    /// Whether one of this code was told and is not over.
    pub(in crate::enforce) fn holds(&self, code: &str) -> bool {
        self.known
            .iter()
            .any(|((known, _), what)| *known == code && what.told)
    }
}

impl KnownCondition {
    fn news(&self, step: ConditionStep, last_ms: u64) -> ConditionSeen {
        ConditionSeen {
            step,
            condition: self.condition.clone(),
            first_ms: self.since_ms,
            last_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(subject: usize, alarm: bool) -> Condition {
        Condition {
            subject: subject.to_string(),
            ..Condition::of_gateway("no-carrier", String::new(), alarm)
        }
    }

    fn see(
        conditions: &mut Conditions,
        present: Vec<Condition>,
        second: u64,
    ) -> Vec<(ConditionStep, u64, u64)> {
        let seen = conditions.see(present, |_| true, Duration::from_secs(second), second * 1000);
        seen.into_iter()
            .map(|seen| (seen.step, seen.first_ms, seen.last_ms))
            .collect()
    }

    #[test]
    fn a_condition_is_shown_at_once_told_when_it_holds_and_told_again_when_it_is_over() {
        let mut conditions = Conditions::default();
        let one = || vec![condition(1, true)];
        assert_eq!(see(&mut conditions, one(), 10), []);
        assert_eq!(conditions.current(), one());
        assert_eq!(
            see(&mut conditions, one(), 12),
            [(ConditionStep::Began, 10_000, 0)]
        );
        assert_eq!(see(&mut conditions, one(), 13), []);
        assert_eq!(see(&mut conditions, Vec::new(), 17), [], "it may come back");
        assert_eq!(
            see(&mut conditions, Vec::new(), 18),
            [(ConditionStep::Ended, 10_000, 13_000)]
        );
        assert_eq!(conditions.current(), []);
    }

    #[test]
    fn what_comes_and_goes_each_second_is_one_condition() {
        let mut conditions = Conditions::default();
        let mut told = Vec::new();
        for second in 0..600 {
            let present = if second % 2 == 0 {
                vec![condition(1, false)]
            } else {
                Vec::new()
            };
            told.extend(see(&mut conditions, present, second));
        }
        assert_eq!(told, [(ConditionStep::Began, 0, 0)]);
    }

    #[test]
    fn what_was_gone_before_it_was_told_is_not_told() {
        let mut conditions = Conditions::default();
        let mut told = see(&mut conditions, vec![condition(1, true)], 1);
        for second in 2..20 {
            told.extend(see(&mut conditions, Vec::new(), second));
        }
        assert_eq!(told, []);
    }

    #[test]
    fn what_could_not_be_looked_at_is_not_over() {
        let mut conditions = Conditions::default();
        let one = || vec![condition(1, true)];
        see(&mut conditions, one(), 1);
        assert_eq!(see(&mut conditions, one(), 3), [(ConditionStep::Began, 1000, 0)]);
        for second in 4..60 {
            let seen = conditions.see(Vec::new(), |_| false, Duration::from_secs(second), second * 1000);
            assert_eq!(seen, []);
        }
        assert_eq!(conditions.current(), one());
        assert_eq!(
            see(&mut conditions, Vec::new(), 60),
            [(ConditionStep::Ended, 1000, 3000)],
            "it was last seen then"
        );
    }

    #[test]
    fn an_alarm_that_comes_when_the_room_is_taken_finds_its_own_and_no_more() {
        let mut conditions = Conditions::default();
        let quiet = |from: usize, count| (from..from + count).map(|number| condition(number, false));
        let alarms = |count: usize| (1000..1000 + count).map(|number| condition(number, true));
        see(&mut conditions, quiet(0, KNOWN_MAX).collect(), 1);
        see(
            &mut conditions,
            quiet(0, KNOWN_MAX + 9).chain(alarms(1)).collect(),
            2,
        );
        assert!(conditions.current()[0].alarm);
        assert_eq!(conditions.current().len(), KNOWN_MAX + 1);
        see(&mut conditions, alarms(2 * ALARMS_MAX).collect(), 3);
        assert_eq!(conditions.current().len(), KNOWN_MAX + ALARMS_MAX);
    }

    #[test]
    fn at_the_bound_alarms_have_the_room() {
        let mut conditions = Conditions::default();
        let quiet = (0..KNOWN_MAX).map(|number| condition(number, false));
        let alarms = (1000..1010).map(|number| condition(number, true));
        see(&mut conditions, quiet.chain(alarms).collect(), 1);
        let current = conditions.current();
        assert_eq!(current.len(), KNOWN_MAX);
        assert_eq!(current.iter().filter(|condition| condition.alarm).count(), 10);
    }
}
