//! What people do about alarms, and what of it is refused: nobody shelves what somebody's safety depends on alone.

use std::time::Duration;

use super::super::Cause;
use super::{
    AlarmKey, AlarmRecord, AlarmState, Author, Condition, Machine, SHELF_MAX, Step, ms, refreshed, step,
    uncovered,
};

/// What somebody does about an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Acknowledge,
    Shelve(Duration),
    Unshelve,
    TakeOutOfService,
    ReturnToService,
}

/// Why that is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("there is no such alarm: {0} is normal")]
    Normal(AlarmKey),
    #[error("the release in force has no place {0} that could have an alarm")]
    NoPlace(AlarmKey),
    #[error("{key} is {state}, which cannot be {wanted}")]
    State {
        key: AlarmKey,
        state: &'static str,
        wanted: &'static str,
    },
    #[error(
        "{0} is of a safety zone: nobody shelves its alarms or takes them out of service alone. Acknowledge it, and have the cause mended"
    )]
    Safety(AlarmKey),
    #[error("an alarm is shelved for 1 to {} minutes, no longer than a shift", SHELF_MAX.as_secs() / 60)]
    TooLong,
    #[error(
        "a reason has to be given for this: it stands in the trail, and whoever takes the shift over reads it"
    )]
    NoReason,
}

impl Machine {
    /// What somebody wants done about an alarm, as a step.
    pub(crate) fn command(
        &self,
        key: &AlarmKey,
        condition: Option<&Condition>,
        (command, by, reason): (Command, &Author, &str),
        now_ms: u64,
    ) -> Result<Step, CommandError> {
        let held = self.records.get(key);
        let sign = match condition {
            Some(Condition::Stands(sign)) => Some(sign),
            Some(_) => None,
            None if held.is_none() => return Err(CommandError::NoPlace(key.clone())),
            None => None,
        };
        // By what it was raised as, and by what the document says of its zone today: whichever asks for more.
        let is_safety = held.is_some_and(|held| held.is_safety) || sign.is_some_and(|sign| sign.is_safety);
        let needs_reason = matches!(command, Command::Shelve(_) | Command::TakeOutOfService);
        if needs_reason && is_safety {
            return Err(CommandError::Safety(key.clone()));
        }
        if needs_reason && reason.is_empty() {
            return Err(CommandError::NoReason);
        }
        let wrong = |wanted| match held {
            None => CommandError::Normal(key.clone()),
            Some(held) => CommandError::State {
                key: key.clone(),
                state: held.state.as_str(),
                wanted,
            },
        };
        let state = held.map(|held| held.state);
        let shown = matches!(
            state,
            Some(AlarmState::Unacknowledged | AlarmState::Acknowledged | AlarmState::Returned)
        );
        let by_hand = |held: &AlarmRecord, state, until_ms| AlarmRecord {
            state,
            since_ms: now_ms,
            until_ms,
            by: by.clone(),
            reason: reason.to_owned(),
            ..refreshed(held, sign)
        };
        // Of a trail also what was seen already: a fault of its seals ends by an operator's word, and by nothing else.
        let is_once_more =
            state == Some(AlarmState::Acknowledged) && key.cause == Cause::Trail && !by.by_topic;
        let (word, after, before) = match (command, held) {
            (Command::Acknowledge, Some(held))
                if held.state == AlarmState::Unacknowledged || is_once_more =>
            {
                (
                    "acknowledged",
                    // Of what was shown: what is more of it by now is raised again.
                    Some(AlarmRecord {
                        subjects: held.subjects.clone(),
                        ..by_hand(held, AlarmState::Acknowledged, 0)
                    }),
                    held,
                )
            }
            (Command::Acknowledge, Some(held)) if held.state == AlarmState::Returned => {
                ("acknowledged", None, held)
            }
            (Command::Acknowledge, _) => return Err(wrong("acknowledged")),
            (Command::Shelve(time), _) if time.is_zero() || time > SHELF_MAX => {
                return Err(CommandError::TooLong);
            }
            (Command::Shelve(time), Some(held)) if shown => {
                let until_ms = now_ms.saturating_add(ms(time));
                (
                    "shelved",
                    Some(by_hand(held, AlarmState::Shelved, until_ms)),
                    held,
                )
            }
            (Command::Shelve(_), _) => return Err(wrong("shelved")),
            (Command::Unshelve, Some(held)) if held.state == AlarmState::Shelved => {
                let after = uncovered(held, condition, now_ms);
                ("unshelved", after, held)
            }
            (Command::Unshelve, _) => return Err(wrong("unshelved")),
            (Command::TakeOutOfService, Some(held)) if held.state != AlarmState::OutOfService => (
                "out-of-service",
                Some(by_hand(held, AlarmState::OutOfService, 0)),
                held,
            ),
            (Command::TakeOutOfService, _) => return Err(wrong("taken out of service")),
            (Command::ReturnToService, Some(held)) if held.state == AlarmState::OutOfService => {
                ("returned-to-service", uncovered(held, condition, now_ms), held)
            }
            (Command::ReturnToService, _) => return Err(wrong("returned to service")),
        };
        Ok(Step {
            by: by.clone(),
            reason: reason.to_owned(),
            ..step(key, word, after, before)
        })
    }
}
