//! The shell of rollouts: what is decided by the machines is stored first, in one change with its event in the trail, and only then
//! given to the sessions that it concerns.
//!
//! ```text
//! gateways that stand otherwise, the time, what operators want ─▶ desk (machines) ─ store ─▶ sessions, watchers
//! ```
//!
//! One pass after the other: while the store fails, nothing comes of a step, further facts are taken in, and it is tried again;
//! where the store has something else than was written here, all is read again from there. What operators want is tried on a copy
//! and stored before it counts. The freeze is a record of the plant: it is read first, and beats everything.
//!
//! What a gateway should have where no rollout asks for more is the *baseline*: the release that the last completed rollout carried.
//! Its rollout stays in memory, and gives it to whoever comes without it, on trial. Of rollouts that are over, the newest 50 stay
//! in the store; the trail has all.

mod begin;
mod desk;
mod live;
mod operators;
mod standing;
mod store;
mod stored;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_policy::release::Statement;
use penstock_proto::backoff::Backoff;
use penstock_proto::refusal::Refusal;
use serde::Deserialize;
use tokio::sync::{Mutex, watch};

use self::desk::Desk;
pub use self::operators::{Freeze, Start, Steer};
pub use self::stored::Who;
use crate::clock;
use crate::journal::Journal;
use crate::releases::{CurrentRelease, Releases};
use crate::sessions::Fleet;
use crate::store::Store;

/// What becomes of a release when it is approved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterApproval {
    /// Nothing, before somebody starts its rollout.
    #[default]
    Wait,
    /// Its rollout starts by itself, by the default plan.
    DefaultPlan,
    /// Every gateway gets it at once, on no trial: for laboratories and tests.
    AtOnce,
}

impl AfterApproval {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::DefaultPlan => "default-plan",
            Self::AtOnce => "at-once",
        }
    }
}

impl std::str::FromStr for AfterApproval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Wait, Self::DefaultPlan, Self::AtOnce];
        let found = all.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| "is not `wait`, `default-plan` or `at-once`".to_owned())
    }
}

/// How long after a step that the store did not take it is tried again, at first, ...
const STORE_AGAIN: Duration = Duration::from_millis(250);
/// ... and after many times.
const STORE_AGAIN_MAX: Duration = Duration::from_secs(10);
/// What happens within this time becomes one step.
const GATHER: Duration = Duration::from_millis(5);

/// All rollouts of a plant.
#[derive(Clone)]
pub struct Rollouts {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    journal: Journal,
    releases: Releases,
    fleet: Arc<Fleet>,
    after_approval: AfterApproval,
    desk: Mutex<Desk>,
    /// The release whose zones health is judged by.
    in_force: watch::Sender<Option<Arc<CurrentRelease>>>,
    /// What holds for the whole plant, in words.
    notes: watch::Sender<Vec<String>>,
    /// Counts what those who watch may want to see.
    changes: watch::Sender<u64>,
}

/// Whether a release was signed as an emergency: it skips shadow, soak and the start, never signatures.
fn is_emergency(statement: &Statement) -> bool {
    statement.emergency
}

impl Rollouts {
    /// What happens when a release is approved.
    pub fn after_approval(&self) -> AfterApproval {
        self.shared.after_approval
    }

    /// Takes up what the store has.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn open(
        store: Store,
        journal: Journal,
        releases: Releases,
        fleet: Arc<Fleet>,
        after_approval: AfterApproval,
    ) -> Result<Self, Refusal> {
        let desk = store::open(&store, after_approval).await?;
        let rollouts = Self {
            shared: Arc::new(Shared {
                store,
                journal,
                releases,
                fleet,
                after_approval,
                desk: Mutex::new(desk),
                in_force: watch::Sender::new(None),
                notes: watch::Sender::new(Vec::new()),
                changes: watch::Sender::new(0),
            }),
        };
        if after_approval == AfterApproval::AtOnce {
            tracing::warn!(
                "each approved release goes to all gateways at once, on no trial and without a way back by itself: for laboratories only"
            );
        }
        let mut desk = rollouts.shared.desk.lock().await;
        rollouts.shared.take_up(&mut desk).await?;
        rollouts.shared.show_in_force(&desk);
        drop(desk);
        Ok(rollouts)
    }

    /// Carries releases to gateways, until the coordinator stops.
    pub async fn follow(&self) {
        let shared = &self.shared;
        let mut current = shared.releases.current();
        let mut pause = Backoff::between(STORE_AGAIN, STORE_AGAIN_MAX);
        let mut is_new = true;
        loop {
            let next = {
                let mut desk = shared.desk.lock().await;
                let passed = shared.pass(&mut desk, std::mem::take(&mut is_new)).await;
                match passed {
                    Ok(()) => {
                        pause.worked();
                        desk.deadline()
                            .map(|at| at.saturating_duration_since(Instant::now()))
                    }
                    Err(refusal) => {
                        tracing::error!(%refusal, "a step of a rollout is not stored; nothing comes of it, and it is tried again");
                        Some(pause.failed(getrandom::u64().unwrap_or(0)))
                    }
                }
            };
            let next = next.unwrap_or(Duration::from_secs(3600)).max(GATHER);
            tokio::select! {
                () = shared.fleet.has_moved() => {}
                changed = current.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    is_new = true;
                }
                () = tokio::time::sleep(next) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// What holds for the whole plant, in words.
    pub fn notes(&self) -> watch::Receiver<Vec<String>> {
        self.shared.notes.subscribe()
    }

    /// The release whose zones health is judged by: the newest that any gateway was let activate; before that, what is approved.
    pub fn in_force(&self) -> watch::Receiver<Option<Arc<CurrentRelease>>> {
        self.shared.in_force.subscribe()
    }
}

impl Shared {
    /// Takes in what happened, steps, stores, and gives sessions what came of it; `is_new`: another release may be current.
    async fn pass(&self, desk: &mut Desk, is_new: bool) -> Result<(), Refusal> {
        self.settle_doubt(desk).await?;
        desk.hear(&self.fleet);
        if self.after_approval == AfterApproval::AtOnce {
            return self.at_once(desk, is_new).await;
        }
        if self.after_approval == AfterApproval::DefaultPlan {
            self.start_by_itself(desk).await;
        }
        self.settle_baseline(desk).await?;
        desk.step(clock::now_ms(), false);
        self.save(desk, None).await?;
        self.publish(desk);
        Ok(())
    }

    /// Reads again what the store may have although it failed.
    async fn settle_doubt(&self, desk: &mut Desk) -> Result<(), Refusal> {
        if desk.is_doubtful {
            self.read_again(desk).await?;
        }
        Ok(())
    }

    fn show_in_force(&self, desk: &Desk) {
        let at_once = (self.after_approval == AfterApproval::AtOnce).then(|| {
            "every approved release goes to all gateways at once, on no trial (rollouts.after_approval is at-once): for laboratories only"
                .to_owned()
        });
        let freeze = &desk.freeze;
        let frozen = freeze.frozen.then(|| {
            format!(
                "{} stopped the line ({}): no gateway activates a release",
                freeze.by, freeze.because.reason
            )
        });
        let notes: Vec<String> = at_once.into_iter().chain(frozen).collect();
        self.notes.send_if_modified(|held| {
            let is_other = *held != notes;
            *held = notes;
            is_other
        });
        let current = self.releases.now();
        let in_force = match self.after_approval {
            AfterApproval::AtOnce => current,
            AfterApproval::Wait | AfterApproval::DefaultPlan => desk.in_force().or(current),
        };
        self.in_force.send_if_modified(|held| {
            let revision = |release: &Option<Arc<CurrentRelease>>| {
                release.as_ref().map(|release| release.recorded.digest)
            };
            let is_other = revision(held) != revision(&in_force);
            *held = in_force;
            is_other
        });
    }

    /// Gives sessions what came of steps, all of which are stored.
    fn publish(&self, desk: &mut Desk) {
        desk.prune();
        self.releases.keep(desk.releases());
        desk.publish(&self.fleet);
        self.show_in_force(desk);
        self.changes.send_modify(|changes| *changes += 1);
    }
}

#[cfg(test)]
mod tests;
