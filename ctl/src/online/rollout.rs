//! `rollout …` against a coordinator: started, followed, steered and stopped. What a command does is said in words before it is sent, from
//! what the coordinator said last; what only stops asks no question.

mod effects;
#[cfg(test)]
mod fixture;
mod gather;
mod start;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use penstock_policy::ids::GatewayId;
use penstock_proto::v1::steer_rollout_request::Command;
use penstock_proto::v1::{
    Because, FreezeRolloutsRequest, ListRolloutsRequest, SteerRolloutRequest, WatchRolloutRequest,
};
use schemars::JsonSchema;
use serde::Serialize;

pub use self::gather::RecordWritten;
pub use self::view::{EventLine, FreezeLine, GatewayState, RolloutList, RolloutView, WaitLine};

use super::releases::fetched_plant;
use super::{Online, malformed, refused};
use crate::args;
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline::rollout as plans;
use crate::output::{Output, Page, Report, Tone};

/// Longest reason and ticket that a coordinator takes, bytes.
const REASON_BYTES_MAX: usize = 1024;
const TICKET_BYTES_MAX: usize = 128;

/// What became of a freeze.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Freeze {
    /// Who stopped the line of the whole plant; absent: nobody.
    pub frozen: Option<FreezeLine>,
}

impl Report for Freeze {
    const SCHEMA: &'static str = "penstock.rollout-freeze/1";
    fn page(&self, page: &mut Page) {
        match &self.frozen {
            Some(frozen) => {
                let done = page.paint(Tone::Good, "✓");
                let words = page.paint(Tone::Strong, &format!("the plant is frozen {}", frozen.words()));
                page.line(format!("{done} {words}"));
                page.line("  lift it with: penstock rollout thaw --reason REASON");
            }
            None => {
                let done = page.paint(Tone::Good, "✓");
                page.line(format!("{done} nothing is frozen"));
            }
        }
    }
}

/// Why, as it is sent.
fn because(args: &args::Because) -> Result<Because, Failure> {
    let reason = args.reason.trim();
    if reason.is_empty() {
        return Err(
            Failure::usage("--reason says nothing").help("write why, in a sentence: it stands in the trail")
        );
    }
    let ticket = args.ticket.as_deref().unwrap_or_default();
    if reason.len() > REASON_BYTES_MAX || ticket.len() > TICKET_BYTES_MAX {
        return Err(Failure::usage(format!(
            "a reason has at most {REASON_BYTES_MAX} bytes, a ticket {TICKET_BYTES_MAX}"
        )));
    }
    Ok(Because {
        reason: reason.to_owned(),
        ticket: ticket.to_owned(),
    })
}

/// `penstock rollout …`.
pub(crate) async fn rollout(
    out: &Output,
    context: Option<&str>,
    args: &args::Rollout,
) -> Result<Exit, Failure> {
    use args::Rollout as Asked;
    match args {
        Asked::Watch { revision } => watch::watch(out, context, *revision).await,
        Asked::Plan {
            revision,
            seed,
            out: file,
            ..
        } => {
            let revision = revision.unwrap_or(0);
            let mut online = Online::connect(context).await?;
            let fetched = start::plant(out, &mut online, revision).await?;
            let whose = format!("release r{} of {}", fetched.revision, fetched.loaded.plant.id);
            plans::plan(out, &fetched.loaded, &whose, *seed, file.as_deref())
        }
        Asked::Check {
            plan,
            revision,
            strict,
            ..
        } => {
            let mut online = Online::connect(context).await?;
            let fetched = start::plant(out, &mut online, revision.unwrap_or(0)).await?;
            plans::check(out, plan, Some(&plans::fleet(&fetched.loaded.plant)?), *strict)
        }
        Asked::Start {
            revision,
            plan,
            because: why,
            yes,
        } => {
            let asked = start::StartRequest {
                revision: *revision,
                plan: plan.as_deref(),
                because: because(why)?,
                yes: *yes,
            };
            let mut online = Online::connect(context).await?;
            start::start(out, &mut online, asked).await
        }
        Asked::Show { revision, gateways } => {
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            let view = online.rollout(*revision, *gateways).await?;
            out.show(&view)?;
            Ok(Exit::Done)
        }
        Asked::List { limit } => {
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            out.show(&online.rollouts(*limit).await?)?;
            Ok(Exit::Done)
        }
        Asked::Pause(args) => stop(out, context, args, Command::Pause(true)).await,
        Asked::Halt(args) => stop(out, context, args, Command::Halt(true)).await,
        Asked::Resume(args) => steered(out, context, args, Command::Resume(true)).await,
        Asked::Revert(args) => steered(out, context, args, Command::Revert(true)).await,
        Asked::Cancel(args) => steered(out, context, args, Command::Cancel(true)).await,
        Asked::Pass(args) => steered(out, context, args, Command::Pass(true)).await,
        Asked::Complete(args) => steered(out, context, args, Command::Complete(true)).await,
        Asked::Skip {
            gateway,
            revision,
            because: why,
            yes,
        } => {
            let gateway = GatewayId::new(gateway.as_str())
                .map_err(|error| Failure::usage(format!("this cannot be a gateway's name: {error}")))?;
            let args = args::SteerRollout {
                revision: *revision,
                because: why.clone(),
                yes: *yes,
            };
            steered(out, context, &args, Command::Skip(gateway.to_string())).await
        }
        Asked::Freeze(why) => {
            let why = because(why)?;
            let mut online = Online::connect(context).await?;
            say(out, &effects::freeze())?;
            freeze(out, &mut online, true, why).await
        }
        Asked::Thaw { because: why, yes } => {
            let why = because(why)?;
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            let list = online.rollouts(1).await?;
            let Some(frozen) = &list.frozen else {
                return Err(Failure::new(
                    Exit::Refused,
                    "NOT_FROZEN",
                    "nothing is frozen: there is nothing to lift",
                ));
            };
            let mut said = vec![format!("The plant is frozen {}.", frozen.words())];
            said.extend(effects::thaw(list.rollouts.first()));
            say(out, &said)?;
            ask::confirm(out, *yes, "Lift the freeze?")?;
            freeze(out, &mut online, false, why).await
        }
        Asked::Record {
            revision,
            out: file,
            key,
            unlock,
        } => {
            let asked = gather::RecordRequest {
                revision: *revision,
                out: file.as_deref(),
                key: key.as_deref(),
                passphrase_file: unlock.passphrase_file.as_deref(),
            };
            gather::record(out, context, &asked).await
        }
        Asked::Verify { .. } => Err(Failure::usage("a record is verified without a coordinator")),
    }
}

/// Shows what will be done, to people.
fn say(out: &Output, sentences: &[String]) -> Result<(), Failure> {
    if !out.for_people() {
        return Ok(());
    }
    let mut page = Page::new(out.style);
    page.paragraph(0, Tone::Plain, &sentences.join(" "));
    out.text(&page.finish())
}

async fn stop(
    out: &Output,
    context: Option<&str>,
    args: &args::StopRollout,
    command: Command,
) -> Result<Exit, Failure> {
    let why = because(&args.because)?;
    let mut online = Online::connect(context).await?;
    steer(out, &mut online, args.revision, command, why, None).await
}

async fn steered(
    out: &Output,
    context: Option<&str>,
    args: &args::SteerRollout,
    command: Command,
) -> Result<Exit, Failure> {
    let why = because(&args.because)?;
    let mut online = Online::connect(context).await?;
    steer(out, &mut online, args.revision, command, why, Some(args.yes)).await
}

/// The command as it is asked about.
fn verb(command: &Command) -> String {
    match command {
        Command::Pause(_) => "pause".to_owned(),
        Command::Resume(_) => "resume".to_owned(),
        Command::Halt(_) => "halt".to_owned(),
        Command::Revert(_) => "revert".to_owned(),
        Command::Cancel(_) => "cancel".to_owned(),
        Command::Pass(_) => "pass on the wave of".to_owned(),
        Command::Skip(gateway) => format!("go on without {gateway} in"),
        Command::Complete(_) => "complete".to_owned(),
    }
}

/// Does one command; `asks`: `None` if it only stops, else whether the answer is yes already.
async fn steer(
    out: &Output,
    online: &mut Online,
    revision: Option<u64>,
    command: Command,
    because: Because,
    asks: Option<bool>,
) -> Result<Exit, Failure> {
    online.settle_zone().await;
    let before = online.rollout(revision, false).await?;
    let mut said = vec![format!(
        "Rollout of r{} ({}): {}.",
        before.revision,
        before.short(),
        before.stage_words()
    )];
    said.extend(effects::of(&command, &before));
    say(out, &said)?;
    if let Some(yes) = asks {
        let question = format!(
            "{} the rollout of r{}?",
            capital(&verb(&command)),
            before.revision
        );
        ask::confirm(out, yes, &question)?;
    }
    let request = SteerRolloutRequest {
        // The one that was shown, whatever is the newest by now.
        revision: before.revision,
        because: Some(because),
        command: Some(command),
    };
    let answer = online.client.steer_rollout(request).await;
    let after = RolloutView::of(answer.map_err(|status| refused(&status))?.into_inner())?;
    is_about(&after, &before)?;
    show_now(out, &after)?;
    Ok(Exit::Done)
}

/// Shows how a rollout is after something was done to it: its head to people, all of it to programs.
fn show_now(out: &Output, view: &RolloutView) -> Result<(), Failure> {
    if !out.for_people() {
        return out.show(view);
    }
    let mut page = Page::new(out.style);
    view.live(&mut page);
    out.text(&page.finish())
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Refuses an answer that is about another rollout.
fn is_about(after: &RolloutView, before: &RolloutView) -> Result<(), Failure> {
    if (after.revision, &after.statement_digest) == (before.revision, &before.statement_digest) {
        return Ok(());
    }
    Err(Failure::altered(
        "digest-mismatch",
        format!(
            "the coordinator's answer is about another rollout than that of r{}",
            before.revision
        ),
    )
    .because(format!("sent: r{} {}", before.revision, before.statement_digest))
    .because(format!(
        "answered: r{} {}",
        after.revision, after.statement_digest
    ))
    .help("it is at fault or hostile: tell whoever runs it"))
}

async fn freeze(out: &Output, online: &mut Online, frozen: bool, because: Because) -> Result<Exit, Failure> {
    online.settle_zone().await;
    let request = FreezeRolloutsRequest {
        frozen,
        because: Some(because),
    };
    let answer = online.client.freeze_rollouts(request).await;
    let state = answer.map_err(|status| refused(&status))?.into_inner();
    if state.frozen != frozen {
        return Err(malformed("it took the freeze, and says that nothing of it holds"));
    }
    out.show(&Freeze {
        frozen: FreezeLine::of(Some(state)),
    })?;
    Ok(Exit::Done)
}

impl Online {
    /// A rollout as it is now; `None`: the newest.
    async fn rollout(&mut self, revision: Option<u64>, gateways: bool) -> Result<RolloutView, Failure> {
        RolloutView::of(self.rollout_as_sent(revision, gateways).await?)
    }

    async fn rollout_as_sent(
        &mut self,
        revision: Option<u64>,
        gateways: bool,
    ) -> Result<penstock_proto::v1::Rollout, Failure> {
        let request = WatchRolloutRequest {
            revision: revision.unwrap_or(0),
            once: true,
            gateways,
        };
        let answer = self.client.watch_rollout(request).await;
        let mut stream = answer.map_err(|status| refused(&status))?.into_inner();
        let first = stream.message().await.map_err(|status| refused(&status))?;
        let first = first.ok_or_else(|| malformed("it is empty"))?;
        match revision {
            Some(asked) if asked != first.revision => Err(malformed(&format!(
                "asked for the rollout of r{asked}, got that of r{}",
                first.revision
            ))),
            _ => Ok(first),
        }
    }

    /// The newest rollouts, and whether the plant is frozen.
    async fn rollouts(&mut self, limit: u32) -> Result<RolloutList, Failure> {
        let answer = self.client.list_rollouts(ListRolloutsRequest { limit }).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        let rollouts = answer.rollouts.into_iter().take(limit as usize);
        Ok(RolloutList {
            frozen: FreezeLine::of(answer.freeze),
            rollouts: rollouts.map(RolloutView::of).collect::<Result<_, _>>()?,
        })
    }
}
