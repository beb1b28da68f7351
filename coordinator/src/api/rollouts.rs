//! Rollouts as operators call them: what they ask is read and judged here, done by [`crate::rollout::run`], and shown to whoever
//! watches, folded, at each change and every few seconds.

use std::time::Duration;

use penstock_policy::ids::{GatewayId, Revision};
use penstock_policy::rollout::RolloutPlan;
use penstock_proto::convert;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::answers::{Frames, Nothing, carried, framed};
use super::control::ControlService;
use super::gate::{Action, Caller};
use crate::frame::frame;
use crate::rollout::Command;
use crate::rollout::run::{Freeze, Rollouts, Start, Steer, Who};

/// Longest plan of a rollout, bytes.
const PLAN_BYTES_MAX: usize = 1 << 20;
/// Longest reason and ticket, bytes.
const REASON_BYTES_MAX: usize = 1024;
const TICKET_BYTES_MAX: usize = 128;
/// Shortest time between two answers to one who watches, and the longest while nothing changes.
const LOOK: Duration = Duration::from_millis(500);
const BEAT: Duration = Duration::from_secs(5);
/// Rollouts in one list if nothing is said, and at most.
const LIST: (usize, usize) = (20, 50);

fn bad(field: &str, what: impl Into<String>) -> Refusal {
    let what = what.into();
    Refusal::new(Reason::BadRequest, format!("{field}: {what}")).field(field, what)
}

/// Who does it and why. A change of what runs in a plant has a reason.
fn who(caller: &Caller, because: Option<&v1::Because>) -> Result<Who, Refusal> {
    let because = because.cloned().unwrap_or_default();
    let (reason, ticket) = (because.reason.trim(), because.ticket.trim());
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        return Err(bad(
            "because.reason",
            format!(
                "has to be given, in at most {REASON_BYTES_MAX} bytes: it stands in the trail and in the rollout's record"
            ),
        ));
    }
    if ticket.len() > TICKET_BYTES_MAX {
        return Err(bad(
            "because.ticket",
            format!("has more than {TICKET_BYTES_MAX} bytes"),
        ));
    }
    Ok(Who {
        by: caller.operator.to_string(),
        reason: reason.to_owned(),
        ticket: ticket.to_owned(),
    })
}

fn why(who: &Who) -> String {
    match who.ticket.as_str() {
        "" => who.reason.clone(),
        ticket => format!("{} (ticket {ticket})", who.reason),
    }
}

fn plan(bytes: &[u8]) -> Result<Option<RolloutPlan>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() > PLAN_BYTES_MAX {
        return Err(bad("plan", format!("has more than {PLAN_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(bytes).map(Some).map_err(|error| {
        bad(
            "plan",
            format!("is not a rollout plan ({error}); `penstock rollout plan` writes one"),
        )
    })
}

/// What is wanted of a rollout, its word, and the role that it needs.
fn command(request: &v1::SteerRolloutRequest) -> Result<(Command, &'static str, Action), Refusal> {
    use v1::steer_rollout_request::Command as Wire;
    let because = request.because.as_ref();
    let why = because
        .map(|because| because.reason.trim().to_owned())
        .unwrap_or_default();
    let wanted = request.command.as_ref();
    let (command, word, action) = match wanted.ok_or_else(|| bad("command", "is missing"))? {
        Wire::Pause(true) => (Command::Pause { why }, "paused", Action::StopRollout),
        Wire::Resume(true) => (Command::Resume, "resumed", Action::ResumeRollout),
        Wire::Halt(true) => (Command::Halt { why }, "halted", Action::StopRollout),
        Wire::Revert(true) => (Command::Revert, "reverted", Action::StopRollout),
        Wire::Cancel(true) => (Command::Cancel, "cancelled", Action::StopRollout),
        Wire::Pass(true) => (Command::Pass, "passed", Action::ResumeRollout),
        Wire::Skip(gateway) => {
            let gateway = GatewayId::new(gateway.as_str()).map_err(|error| bad("skip", error.to_string()))?;
            (Command::Skip { gateway }, "skipped", Action::ResumeRollout)
        }
        Wire::Complete(true) => (Command::Complete, "completed", Action::ResumeRollout),
        _ => return Err(bad("command", "is false: say what is wanted, or nothing")),
    };
    Ok((command, word, action))
}

impl ControlService {
    pub(super) async fn start(
        &self,
        request: Request<v1::StartRolloutRequest>,
    ) -> Result<Response<v1::Rollout>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::StartRollout)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let message = request.into_inner();
        let revision = Revision(message.revision);
        let mut target = format!("rollout of {revision}");
        let read = || {
            let statement = convert::digest("statement_digest", &message.statement_digest)
                .map_err(|error| bad("statement_digest", error.to_string()))?;
            let who = who(&caller, message.because.as_ref())?;
            Ok::<_, Refusal>(Start {
                revision,
                statement,
                plan: plan(&message.plan)?,
                who,
            })
        };
        let outcome = match read() {
            Ok(start) => {
                target = format!("{target} {}", start.statement);
                let event = self.gate.deed(&caller).event(&target, &why(&start.who));
                self.rollouts.start(start, event).await
            }
            Err(refusal) => Err(refusal),
        };
        let started = self.gate.judged(&caller, &target, outcome).await?;
        Ok(carried(started, answer))
    }

    pub(super) async fn steer(
        &self,
        request: Request<v1::SteerRolloutRequest>,
    ) -> Result<Response<v1::Rollout>, Status> {
        // What it needs depends on what is wanted; what cannot be read needs the most.
        let read = command(request.get_ref());
        let action = read
            .as_ref()
            .map_or(Action::ResumeRollout, |(_, _, action)| *action);
        let caller = self.gate.operator(request.extensions(), action).await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let message = request.into_inner();
        let revision = Revision(message.revision);
        let target = format!("rollout of {revision}");
        let read = read.and_then(|(command, what, _)| {
            Ok(Steer {
                revision,
                command,
                what,
                who: who(&caller, message.because.as_ref())?,
            })
        });
        let outcome = match read {
            Ok(steer) => {
                let whom = match &steer.command {
                    Command::Skip { gateway } => format!(" {gateway}"),
                    _ => String::new(),
                };
                let words = format!("{}{whom}: {}", steer.what, why(&steer.who));
                let event = self.gate.deed(&caller).event(&target, &words);
                self.rollouts.steer(steer, event).await
            }
            Err(refusal) => Err(refusal),
        };
        let steered = self.gate.judged(&caller, &target, outcome).await?;
        Ok(carried(steered, answer))
    }

    pub(super) async fn freeze(
        &self,
        request: Request<v1::FreezeRolloutsRequest>,
    ) -> Result<Response<v1::FreezeState>, Status> {
        let action = match request.get_ref().frozen {
            true => Action::FreezeRollouts,
            false => Action::ThawRollouts,
        };
        let caller = self.gate.operator(request.extensions(), action).await?;
        let message = request.into_inner();
        let outcome = match who(&caller, message.because.as_ref()) {
            Ok(who) => {
                let event = self.gate.deed(&caller).event("all rollouts", &why(&who));
                let frozen = message.frozen;
                self.rollouts.freeze(Freeze { frozen, who }, event).await
            }
            Err(refusal) => Err(refusal),
        };
        let state = self.gate.judged(&caller, "all rollouts", outcome).await?;
        Ok(Response::new(state))
    }

    pub(super) async fn watch(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Nothing<v1::Rollout>>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::WatchRollout)
            .await?;
        let answer = self
            .rollout_watches
            .begin(&caller.operator, request.extensions())?;
        let asked = request.into_inner();
        let first = self
            .rollouts
            .show(Revision(asked.revision), asked.gateways)
            .await?;
        // One waits while the one before is read: who reads slowly sees fewer, and who reads nothing is cut off.
        let (out, shown) = mpsc::channel(1);
        let (rollouts, stopping) = (self.rollouts.clone(), self.stopping.clone());
        tokio::spawn(async move {
            let _ = tokio::select! {
                end = show(&rollouts, &asked, first, &out) => end,
                () = stopping.cancelled() => {
                    out.send(Err(Refusal::new(Reason::Stopping, "the coordinator is stopping").into())).await.map_err(drop)
                }
            };
        });
        let frames = ReceiverStream::new(shown)
            .map(|shown: Result<v1::Rollout, Status>| shown.map(|shown| frame(&shown)));
        Ok(framed(Frames::new(frames), answer))
    }

    pub(super) async fn list(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ListRollouts)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let limit = match request.into_inner().limit as usize {
            0 => LIST.0,
            limit => limit.min(LIST.1),
        };
        Ok(carried(self.rollouts.list(limit).await?, answer))
    }
}

/// Shows a rollout as long as somebody reads.
async fn show(
    rollouts: &Rollouts,
    asked: &v1::WatchRolloutRequest,
    first: v1::Rollout,
    out: &mpsc::Sender<Result<v1::Rollout, Status>>,
) -> Result<(), ()> {
    let mut changes = rollouts.changes();
    changes.mark_unchanged();
    let mut held = v1::Rollout {
        time_ms: 0,
        ..first.clone()
    };
    out.send(Ok(first)).await.map_err(drop)?;
    if asked.once {
        return Ok(());
    }
    let mut sent = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let is_beat = tokio::select! {
            changed = changes.changed() => {
                changed.map_err(drop)?;
                false
            }
            () = tokio::time::sleep_until(sent + BEAT) => true,
            () = out.closed() => return Err(()),
        };
        let room = out.reserve().await.map_err(drop)?;
        match rollouts.show(Revision(asked.revision), asked.gateways).await {
            Ok(shown) => {
                let now = v1::Rollout {
                    time_ms: 0,
                    ..shown.clone()
                };
                if is_beat || now != held {
                    held = now;
                    room.send(Ok(shown));
                    sent = tokio::time::Instant::now();
                }
            }
            Err(refusal) => {
                room.send(Err(refusal.into()));
                return Ok(());
            }
        }
    }
}
