//! Nothing but a fresh answer to the same question counts, whatever happens in whatever order.

#![allow(clippy::unwrap_used)]

use penstock_policy::plan::{AskedFrom, Condition};
use proptest::prelude::*;

use super::*;

fn question(coil: u16) -> Question {
    Question {
        gateway: "gw-1".parse().unwrap(),
        wanted: Interlock {
            asset: "plc-1".parse().unwrap(),
            address: "10.3.0.7".parse().unwrap(),
            port: 502,
            from: AskedFrom::Address("10.3.0.1".parse().unwrap()),
            condition: Condition::Coil {
                unit: 7,
                coil,
                is: true,
            },
        },
    }
}

/// What happens around the machine.
#[derive(Debug, Clone)]
enum Step {
    Wanted(u16),
    Look,
    Answered(bool),
    Passes(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2_u16).prop_map(Step::Wanted),
        Just(Step::Look),
        any::<bool>().prop_map(Step::Answered),
        prop_oneof![0..1500_u64, 0..10_000_u64].prop_map(Step::Passes),
    ]
}

proptest! {
    #[test]
    fn no_answer_counts_but_a_fresh_one_to_this_question_and_none_is_asked_for_twice_at_once(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut asking = Asking::default();
        let mut now = Duration::from_secs(100);
        let (mut under_way, mut began): (Option<(Question, Duration)>, Option<Duration>) = (None, None);
        let mut last_wanted: Option<(u16, Duration)> = None;
        let mut known: Option<(Question, Duration, Answer)> = None;
        for step in steps {
            match step {
                Step::Passes(ms) => now += Duration::from_millis(ms),
                Step::Wanted(number) => {
                    let asked = question(number);
                    let said = asking.wanted(asked.clone(), now);
                    let expected = known.as_ref().filter(|(question, at, _)| {
                        *question == asked && now - *at <= FRESH
                    });
                    let expected = expected.map(|(.., answer)| answer.clone());
                    prop_assert_eq!(&said, &expected);
                    if said == Some(Answer::Safe) {
                        (known, last_wanted) = (None, None);
                    } else {
                        last_wanted = Some((number, now));
                    }
                }
                Step::Look => match asking.next(now) {
                    Next::Ask(asked) => {
                        prop_assert!(under_way.is_none(), "two at once");
                        prop_assert!(began.is_none_or(|began| now - began >= EVERY), "too soon");
                        let (number, at) = last_wanted.unwrap();
                        prop_assert_eq!(&asked, &question(number));
                        prop_assert!(now - at <= WANTED_FOR, "nobody wants to know");
                        under_way = Some((asked, now));
                        began = Some(now);
                    }
                    Next::Wait(wait) => prop_assert!(wait <= EVERY && !wait.is_zero()),
                    Next::Idle => {
                        let is_due = last_wanted.is_some_and(|(_, at)| now - at <= WANTED_FOR);
                        prop_assert!(!is_due || under_way.is_some(), "nobody is asked");
                        if !is_due && under_way.is_none() {
                            last_wanted = None;
                        }
                    }
                },
                Step::Answered(is_safe) => {
                    let answer = if is_safe { Answer::Safe } else { Answer::NotSafe("no".to_owned()) };
                    asking.answered(answer.clone());
                    if let Some((asked, at)) = under_way.take() {
                        let is_wanted = last_wanted.is_some_and(|(number, _)| question(number) == asked);
                        known = is_wanted.then_some((asked, at, answer));
                    }
                }
            }
        }
    }
}
