//! When the process is asked, and for how long its answer counts. Pure: the time is an argument.

use std::time::Duration;

use penstock_policy::ids::GatewayId;
use penstock_policy::plan::Interlock;

/// How long an answer counts, from when it was asked for.
pub(super) const FRESH: Duration = Duration::from_secs(5);
/// No two questions begin within this.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// How long somebody who wanted to know is taken to want it: a held change looks each second.
pub(super) const WANTED_FOR: Duration = Duration::from_secs(3);

/// Who is asked what, by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// The gateway that asks.
    pub(super) gateway: GatewayId,
    /// The question, and the answer that means safe.
    pub(super) wanted: Interlock,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is safe.
    Safe,
    /// It is not, or there was no answer; why.
    NotSafe(String),
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask this, and say what came of it.
    Ask(Question),
    /// Look again after this long.
    Wait(Duration),
    /// Look again when somebody wants to know.
    Idle,
}

/// An answer, and when it was asked for.
#[derive(Debug)]
struct Known {
    question: Question,
    asked: Duration,
    answer: Answer,
}

/// Who wants to know, and what is known. All times are of the boot's clock.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// The question that somebody wants answered, and when they last did.
    wanted: Option<(Question, Duration)>,
    /// The one that is under way, and since when.
    under_way: Option<(Question, Duration)>,
    /// When the last one began.
    last: Option<Duration>,
    known: Option<Known>,
    /// What the trail has: the question, and whether it was safe.
    told: Option<(Question, bool)>,
}

impl Asking {
    /// Somebody wants this answered; the answer, if there is one that counts. A yes is given once: with it the change begins, and the next
    /// one asks again.
    pub(super) fn wanted(&mut self, question: Question, now: Duration) -> Option<Answer> {
        let known = self.known.as_ref().filter(|known| {
            // A clock that went back tells nothing of how old it is.
            let age = now.checked_sub(known.asked);
            known.question == question && age.is_some_and(|age| age <= FRESH)
        });
        let answer = known.map(|known| known.answer.clone());
        if answer == Some(Answer::Safe) {
            self.known = None;
            self.wanted = None;
        } else {
            self.wanted = Some((question, now));
        }
        answer
    }

    /// What is to be done.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        if self.under_way.is_some() {
            return Next::Idle;
        }
        let Some((question, since)) = &self.wanted else {
            return Next::Idle;
        };
        if now.saturating_sub(*since) > WANTED_FOR {
            self.wanted = None;
            return Next::Idle;
        }
        let waited = self.last.and_then(|last| now.checked_sub(last));
        match waited {
            Some(waited) if waited < EVERY => Next::Wait(EVERY - waited),
            _ => {
                let question = question.clone();
                self.last = Some(now);
                self.under_way = Some((question.clone(), now));
                Next::Ask(question)
            }
        }
    }

    /// The question that is under way has this answer. Gives it back if the trail is to have it: the first of its
    /// question, and whenever it turns.
    pub(super) fn answered(&mut self, answer: Answer) -> Option<Answer> {
        let (question, asked) = self.under_way.take()?;
        let is_safe = answer == Answer::Safe;
        let turned = self.told.as_ref() != Some(&(question.clone(), is_safe));
        let told = turned.then(|| answer.clone());
        if turned {
            self.told = Some((question.clone(), is_safe));
        }
        // What nobody waits for any more is not kept for the next change.
        let is_wanted = self
            .wanted
            .as_ref()
            .is_some_and(|(wanted, _)| *wanted == question);
        self.known = is_wanted.then_some(Known {
            question,
            asked,
            answer,
        });
        told
    }
}

#[cfg(test)]
mod tests;
