//! What operators want of rollouts: start, steer, freeze; and what they see.

use std::collections::BTreeMap;

use penstock_policy::ids::{Digest, Revision};
use penstock_policy::rollout::RolloutPlan;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use tokio::sync::watch;

use super::live::{Live, is_end};
use super::store::{expect, written_at};
use super::stored::{Because, FREEZE, FreezeRecord, PREFIX, StoredRollout, Who};
use super::{Rollouts, view};
use crate::clock;
use crate::rollout::{Command, HaltReason, SteerError};
use crate::store::{Change, OwnEvent};

/// A rollout to be started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Of this release.
    pub revision: Revision,
    /// By the digest of its statement.
    pub statement: Digest,
    /// How; `None`: by the default plan.
    pub plan: Option<RolloutPlan>,
    /// Who wants it.
    pub who: Who,
}

/// A rollout to be steered.
#[derive(Debug, Clone)]
pub struct Steer {
    /// The newest of this release.
    pub revision: Revision,
    /// How.
    pub command: Command,
    /// Stable word of that.
    pub what: &'static str,
    /// Who wants it.
    pub who: Who,
}

/// The line to be stopped, or to go on.
#[derive(Debug, Clone)]
pub struct Freeze {
    /// Stop it.
    pub frozen: bool,
    /// Who wants it.
    pub who: Who,
}

impl Rollouts {
    /// Starts the rollout of the newest approved release; what was started already with the same plan is answered with what there is.
    ///
    /// # Errors
    /// The release is not the one that is meant, not approved or not the newest; the plan has errors, each of which is named; another
    /// rollout is in the way; or the store does not take it.
    pub(crate) async fn start(&self, start: Start, event: OwnEvent) -> Result<v1::Rollout, Refusal> {
        let shared = &self.shared;
        shared.carries()?;
        let recorded = shared.releases.named(start.revision, start.statement).await?;
        let revision = recorded.statement.revision;
        if recorded.record.approved_ms.is_none() {
            return Err(Refusal::new(
                Reason::NotProposed,
                format!(
                    "{revision} is not approved; collect the missing signatures with `penstock release approve` first"
                ),
            ));
        }
        let current = shared.releases.now();
        let release = current.filter(|current| current.recorded.digest == start.statement).ok_or_else(|| {
            let newest = shared.releases.now().map(|current| current.revision().to_string());
            Refusal::new(
                Reason::NotProposed,
                format!(
                    "{revision} is not the newest approved release, which is {}: start that one; to go back to what an older one \
                     says, propose its documents again",
                    newest.unwrap_or_else(|| "not taken up yet".to_owned())
                ),
            )
        })?;
        let given = start.plan.is_some();
        let beginning = shared.prepare(release, start.plan).await?;
        let mut desk = shared.desk.lock().await;
        let same = desk
            .lives
            .iter()
            .rev()
            .find(|live| live.machine.revision() == revision);
        if let Some(live) = same {
            let stage = live.machine.stage();
            let is_same = *live.machine.plan() == beginning.plan;
            let goes_on = !is_end(stage) || live.is_carried();
            if goes_on && (is_same || !given) {
                return Ok(view::rollout(&desk, live, (&shared.fleet, true)));
            }
            if goes_on {
                return Err(Refusal::new(
                    Reason::AlreadyExists,
                    format!(
                        "the rollout of {revision} is {} by another plan; revert or cancel it before you start it with this one",
                        stage.word()
                    ),
                ));
            }
        }
        shared.begin(&mut desk, beginning, &start.who, event).await?;
        // What is shown is what it waits for, and not that it has looked at nobody yet. What fails here is tried again soon.
        if let Err(refusal) = shared.pass(&mut desk, false).await {
            tracing::warn!(%refusal, "the first look of a rollout");
        }
        desk.newest()
            .map(|live| view::rollout(&desk, live, (&shared.fleet, true)))
            .ok_or_else(gone)
    }

    /// Steers the newest rollout of a release.
    ///
    /// # Errors
    /// There is none, it cannot be done at this stage, or the store does not take it; nothing changed.
    pub(crate) async fn steer(&self, steer: Steer, event: OwnEvent) -> Result<v1::Rollout, Refusal> {
        let shared = &self.shared;
        shared.carries()?;
        let mut guard = shared.desk.lock().await;
        let desk = &mut *guard;
        // What happened before counts first: a hard event halts before a person goes on.
        shared.pass(desk, false).await?;
        let revision = steer.revision;
        let at = desk
            .lives
            .iter()
            .rposition(|live| live.machine.revision() == revision);
        let at = at.ok_or_else(|| {
            Refusal::new(
                Reason::NotFound,
                format!("no rollout of {revision} is under way here; `penstock rollout list` shows those that there are"),
            )
        })?;
        let now_ms = clock::now_ms();
        let now = desk.now(now_ms);
        let before: Vec<Live> = desk.lives.iter().map(Live::try_on).collect();
        let live = desk.lives.get_mut(at).ok_or_else(gone)?;
        let whom = match &steer.command {
            Command::Skip { gateway } => format!("{gateway} is "),
            _ => String::new(),
        };
        let words = format!("{whom}{} by {}", steer.what, steer.who.by);
        let actions = match live.machine.steer(now, steer.command) {
            Ok(actions) => actions,
            Err(error) => {
                desk.lives = before;
                return Err(refused(&error));
            }
        };
        live.say_because(&steer.who, steer.what, words, now_ms);
        let crossed = live.take(actions, &steer.who.by, now_ms);
        desk.pass_on(at, &crossed);
        shared
            .write_or_restore(desk, Change::noted(event), before)
            .await?;
        let shown = desk
            .lives
            .get(at)
            .map(|live| view::rollout(desk, live, (&shared.fleet, true)));
        shared.publish(desk);
        shared.fleet.look_again();
        shown.ok_or_else(gone)
    }

    /// Stops the line of the whole plant, or lets it go on.
    ///
    /// # Errors
    /// The store does not take it; nothing changed.
    pub(crate) async fn freeze(&self, freeze: Freeze, event: OwnEvent) -> Result<v1::FreezeState, Refusal> {
        let shared = &self.shared;
        let mut guard = shared.desk.lock().await;
        let desk = &mut *guard;
        shared.settle_doubt(desk).await?;
        if desk.freeze.frozen == freeze.frozen {
            return Ok(view::freeze(&desk.freeze));
        }
        let now_ms = clock::now_ms();
        let record = FreezeRecord {
            frozen: freeze.frozen,
            by: freeze.who.by.clone(),
            because: Because::of(&freeze.who),
            since_ms: now_ms,
        };
        // The record alone: it does not wait for what a rollout could not store.
        let change = Change::noted(event).json(FREEZE, expect(desk.freeze_at), &record)?;
        let written = match shared.store.apply(change).await {
            Ok(written) => written,
            Err(error) => {
                desk.is_doubtful = true;
                return Err(error.into());
            }
        };
        desk.freeze = record;
        desk.freeze_at = written_at(&written, FREEZE);
        let (what, words) = match freeze.frozen {
            true => ("frozen", "the line is stopped"),
            false => ("thawed", "the line goes on"),
        };
        for live in &mut desk.lives {
            if !is_end(live.machine.stage()) {
                live.say_because(&freeze.who, what, format!("{words} by {}", freeze.who.by), now_ms);
            }
        }
        let shown = view::freeze(&desk.freeze);
        if shared.after_approval == super::AfterApproval::AtOnce {
            shared.at_once(desk, true).await?;
            return Ok(shown);
        }
        desk.step(now_ms, true);
        match shared.save(desk, None).await {
            Ok(()) => shared.publish(desk),
            // It holds; the step is tried again by whoever follows.
            Err(refusal) => {
                tracing::error!(%refusal, "the step after a freeze is not stored; it is tried again")
            }
        }
        shared.fleet.look_again();
        Ok(shown)
    }

    /// One rollout as it is shown; revision 0: the newest.
    ///
    /// # Errors
    /// There is none, or the store cannot be read.
    pub(crate) async fn show(&self, revision: Revision, gateways: bool) -> Result<v1::Rollout, Refusal> {
        let desk = self.shared.desk.lock().await;
        let of = |live: &&Live| revision.0 == 0 || live.machine.revision() == revision;
        if let Some(live) = desk.lives.iter().rev().find(of) {
            return Ok(view::rollout(&desk, live, (&self.shared.fleet, gateways)));
        }
        let stored = self.stored().await?;
        let of = |stored: &&StoredRollout| revision.0 == 0 || stored.rollout.revision() == revision;
        let found = stored
            .iter()
            .rev()
            .find(of)
            .map(|stored| view::stored(&desk, stored));
        found.ok_or_else(|| {
            let what = match revision.0 {
                0 => "no rollout was started here yet".to_owned(),
                _ => format!("there is no rollout of {revision}"),
            };
            Refusal::new(
                Reason::NotFound,
                format!("{what}; start one with `penstock rollout start`"),
            )
        })
    }

    /// All that are kept, the newest first, at most `limit`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn list(&self, limit: usize) -> Result<v1::ListRolloutsResponse, Refusal> {
        let stored = self.stored().await?;
        let desk = self.shared.desk.lock().await;
        let rollouts = stored.iter().rev().take(limit).map(|stored| {
            let live = desk.lives.iter().find(|live| live.number() == stored.number);
            live.map_or_else(
                || view::stored(&desk, stored),
                |live| view::rollout(&desk, live, (&self.shared.fleet, false)),
            )
        });
        Ok(v1::ListRolloutsResponse {
            rollouts: rollouts.collect(),
            freeze: Some(view::freeze(&desk.freeze)),
        })
    }

    async fn stored(&self) -> Result<Vec<StoredRollout>, Refusal> {
        let records = self.shared.store.list_json::<StoredRollout>(PREFIX).await?;
        Ok(records.into_iter().map(|(_, stored, _)| stored).collect())
    }

    /// Rollouts that something else than a person halted, by their release, and why.
    pub(crate) async fn halted(&self) -> BTreeMap<String, String> {
        let desk = self.shared.desk.lock().await;
        let halted = desk.lives.iter().filter_map(|live| {
            let why = live
                .machine
                .halted()
                .filter(|why| !matches!(why, HaltReason::Person { .. }))?;
            let is_over = is_end(live.machine.stage());
            (!is_over).then(|| (format!("rollout of {}", live.machine.revision()), why.to_string()))
        });
        halted.collect()
    }

    /// Changes whenever there may be something else to see.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

fn gone() -> Refusal {
    Refusal::new(Reason::Internal, "the rollout is gone")
}

fn refused(error: &SteerError) -> Refusal {
    let reason = match error {
        SteerError::Unknown(_) => Reason::NotFound,
        SteerError::NotNow { .. } | SteerError::Activated(_) => Reason::NotProposed,
    };
    Refusal::new(reason, error.to_string())
}
