//! Alarms as operators call them: what they ask is read and judged here, and done by [`crate::alarms`].

use std::time::Duration;

use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::answers::{Frames, Nothing, framed};
use super::control::ControlService;
use super::gate::Action;
use crate::alarms::AlarmKey;
use crate::alarms::machine::{Author, Command};

/// Longest reason, bytes.
const REASON_BYTES_MAX: usize = 1024;

fn bad(field: &str, what: impl Into<String>) -> Refusal {
    let what = what.into();
    Refusal::new(Reason::BadRequest, format!("{field}: {what}")).field(field, what)
}

/// What is wanted, and the action that it is.
fn command(request: &v1::ChangeAlarmRequest) -> Result<(Command, Action), Refusal> {
    use v1::change_alarm_request::Change;
    let wanted = request.change.as_ref();
    Ok(match wanted.ok_or_else(|| bad("change", "is missing"))? {
        Change::Acknowledge(true) => (Command::Acknowledge, Action::AcknowledgeAlarm),
        Change::ShelveMinutes(minutes) => {
            let time = Duration::from_secs(u64::from(*minutes) * 60);
            (Command::Shelve(time), Action::ShelveAlarm)
        }
        Change::Unshelve(true) => (Command::Unshelve, Action::ShelveAlarm),
        Change::OutOfService(true) => (Command::TakeOutOfService, Action::ShelveAlarm),
        Change::ReturnToService(true) => (Command::ReturnToService, Action::ShelveAlarm),
        _ => return Err(bad("change", "is false: say what is wanted, or nothing")),
    })
}

impl ControlService {
    pub(super) async fn alarms_watched(
        &self,
        request: Request<v1::WatchAlarmsRequest>,
    ) -> Result<Response<Nothing<v1::PlantAlarms>>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::WatchAlarms)
            .await?;
        let answer = self.watches.begin(&caller.operator, request.extensions())?;
        let states = WatchStream::new(self.alarms.published()).map(|alarms| Ok(alarms.frame()));
        let frames = match request.get_ref().once {
            true => Frames::new(states.take(1)),
            false => Frames::new(states),
        };
        Ok(framed(frames, answer))
    }

    pub(super) async fn alarm_changed(
        &self,
        request: Request<v1::ChangeAlarmRequest>,
    ) -> Result<Response<v1::Alarm>, Status> {
        let read = command(request.get_ref());
        let action = read.as_ref().map_or(Action::ShelveAlarm, |(_, action)| *action);
        let caller = self.gate.operator(request.extensions(), action).await?;
        let message = request.into_inner();
        let target = format!("{}/{}", message.zone, message.cause);
        let outcome = match read {
            Ok((command, _)) => self.alarm_done(&message, command, caller.operator.as_str()).await,
            Err(refusal) => Err(refusal),
        };
        let changed = self.gate.judged(&caller, &target, outcome).await?;
        Ok(Response::new(changed))
    }

    async fn alarm_done(
        &self,
        message: &v1::ChangeAlarmRequest,
        command: Command,
        operator: &str,
    ) -> Result<v1::Alarm, Refusal> {
        let key = AlarmKey::of_words(&message.zone, &message.cause).ok_or_else(|| {
            bad(
                "cause",
                format!(
                    "`{}` of `{}` is not an alarm: a zone, and one of the seven causes",
                    message.cause, message.zone
                ),
            )
        })?;
        let reason = message.reason.trim();
        if reason.len() > REASON_BYTES_MAX {
            return Err(bad("reason", format!("has more than {REASON_BYTES_MAX} bytes")));
        }
        let by = Author {
            name: operator.to_owned(),
            by_topic: false,
        };
        self.alarms.change(&key, (command, &by, reason)).await
    }
}
