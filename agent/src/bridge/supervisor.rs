//! Runs the bridges that the policy in force names, and no others.
//!
//! Level-triggered: it compares what runs with the plan at each change and every [`LOOK`]. It needs no coordinator. A
//! bridge that the plan no longer names stops at once; its messages may not be delivered any more, so they are counted,
//! told as a loss and removed, and both brokers are told to forget its session. A bridge whose addresses, topics or TLS
//! changed is begun anew over the same queue; another source or destination makes it another bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_policy::plan::{Bridge, Plan};
use penstock_proto::event::AgentStep;
use penstock_proto::v1::Fault;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::keeper::REPORTED_WITHIN;
use super::losses::{self, LOSSES_UNKNOWN};
use super::queue;
use super::report::{BridgeState, REFUSED, Reporter, flow};
use super::run::{BridgeSettings, STOP_TIMEOUT, Setup, queue_folder};
use crate::audit::{Audit, record};
use crate::durable;
use crate::identity::Identity;
use crate::reconcile::PolicyView;

/// How often what runs is compared with the plan although nothing changed, and its state reported (`BridgeSettings::look`).
pub const LOOK: Duration = Duration::from_secs(5);
/// The file that `status` reads.
const STATE_FILE: &str = "state.json";
/// Its permission bits.
const STATE_MODE: u32 = 0o644;
const STATE_BYTES_MAX: u64 = 1024 * 1024;
/// A backlog whose oldest message is older than this is told in health.
const LATE_MS: u64 = 60_000;

struct RunningBridge {
    bridge: Arc<Bridge>,
    folder: PathBuf,
    state: watch::Receiver<BridgeState>,
    stop: CancellationToken,
    revoked: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// The task that runs all bridges.
pub struct Supervisor {
    settings: BridgeSettings,
    policy: watch::Receiver<PolicyView>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    audit: Audit,
    states: watch::Sender<Vec<BridgeState>>,
    running: BTreeMap<PathBuf, RunningBridge>,
}

impl Supervisor {
    /// A supervisor, and where the state of its bridges can be watched.
    pub fn new(
        settings: BridgeSettings,
        policy: watch::Receiver<PolicyView>,
        identity: watch::Receiver<Option<Arc<Identity>>>,
        audit: Audit,
    ) -> (Self, watch::Receiver<Vec<BridgeState>>) {
        let (states, seen) = watch::channel(Vec::new());
        let supervisor = Self {
            settings,
            policy,
            identity,
            audit,
            states,
            running: BTreeMap::new(),
        };
        (supervisor, seen)
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut look = tokio::time::interval(self.settings.look);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let plan = self.policy.borrow_and_update().plan.clone();
            if let Some(plan) = plan {
                self.bring_about(&plan).await;
            }
            self.show().await;
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.policy.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                _ = look.tick() => {}
            }
        }
        // All at once: a broker that does not answer holds up nobody else's goodbye.
        for running in self.running.values() {
            running.stop.cancel();
        }
        for (_, running) in std::mem::take(&mut self.running) {
            ended(running).await;
        }
    }

    async fn bring_about(&mut self, plan: &Arc<Plan>) {
        let wanted: BTreeMap<PathBuf, &Bridge> = plan
            .bridges
            .iter()
            .map(|bridge| (queue_folder(&self.settings.folder, &plan.plant, bridge), bridge))
            .collect();
        let outdated: Vec<_> = self
            .running
            .iter()
            .filter(|(folder, running)| {
                wanted
                    .get(*folder)
                    .is_none_or(|bridge| **bridge != *running.bridge)
                    || running.task.is_finished()
            })
            .map(|(folder, _)| folder.clone())
            .collect();
        for folder in &outdated {
            if let Some(running) = self.running.get(folder) {
                running
                    .revoked
                    .store(!wanted.contains_key(folder), Ordering::Release);
                running.stop.cancel();
            }
        }
        for folder in outdated {
            if let Some(running) = self.running.remove(&folder) {
                let name = flow(&running.bridge);
                ended(running).await;
                if !wanted.contains_key(&folder) {
                    self.purge(&folder, &name).await;
                }
            }
        }
        // Left over from bridges that were revoked while no agent ran.
        let known: BTreeSet<_> = wanted.keys().cloned().collect();
        for folder in folders(&self.settings.folder) {
            if !known.contains(&folder) {
                self.purge(&folder, "a bridge that the policy no longer names")
                    .await;
            }
        }
        for (folder, bridge) in wanted {
            if !self.running.contains_key(&folder) {
                self.begin(plan, folder, bridge);
            }
        }
    }

    fn begin(&mut self, plan: &Plan, folder: PathBuf, bridge: &Bridge) {
        let bridge = Arc::new(bridge.clone());
        let (reporter, state) = Reporter::new(self.audit.clone(), bridge.clone());
        let (stop, revoked) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let setup = Setup {
            plant: plan.plant.clone(),
            gateway: plan.gateway.clone(),
            bridge: bridge.clone(),
            settings: self.settings.clone(),
            identity: self.identity.clone(),
            reporter,
            revoked: revoked.clone(),
        };
        let task = tokio::spawn(setup.run(stop.clone()));
        self.running.insert(
            folder.clone(),
            RunningBridge {
                bridge,
                folder,
                state,
                stop,
                revoked,
                task,
            },
        );
    }

    /// Removes what nobody may deliver any more, after it stands in the trail; a trail that takes nothing holds it up for no longer than
    /// [`REPORTED_WITHIN`], since its disk may want the room.
    async fn purge(&self, folder: &Path, name: &str) {
        let read = folder.to_owned();
        let read = tokio::task::spawn_blocking(move || (queue::undelivered(&read), losses::read(&read)));
        let Ok((left, unreported)) = read.await else {
            return tracing::error!(
                "internal error while what a revoked bridge left was read; it is tried again"
            );
        };
        let (count, first_ms, last_ms) = left.known.unwrap_or_default();
        let mut text =
            format!("{name}: the policy no longer permits it; {count} undelivered messages are removed");
        if left.damaged {
            text += ", and those that cannot be read: the queue on disk is damaged";
        }
        if let Err(problem) = &unreported {
            text += &format!("; {LOSSES_UNKNOWN}: {problem}");
        }
        let unreported = unreported.unwrap_or_default();
        if let Some(refused) = unreported.get(REFUSED) {
            text += &format!(
                "; {} refused publications were not reported before",
                refused.count
            );
        }
        self.audit.note(record::agent(AgentStep::BridgeRevoked, &text));
        if count > 0 {
            self.audit
                .note(record::lost("bridge-revoked", count, first_ms, last_ms));
        }
        for (cause, sum) in unreported.iter().filter(|(cause, _)| *cause != REFUSED) {
            self.audit
                .note(record::lost(cause, sum.count, sum.first_ms, sum.last_ms));
        }
        self.audit.recorded(REPORTED_WITHIN).await;
        let folder = folder.to_owned();
        let purged = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder));
        if let Ok(Err(error)) = purged.await {
            tracing::warn!(%error, "what a revoked bridge left could not be removed; it is tried again");
        }
    }

    /// Leaves the state for health and for `status`.
    async fn show(&mut self) {
        let states: Vec<_> = self
            .running
            .values()
            .map(|running| running.state.borrow().clone())
            .collect();
        let changed = self.states.send_if_modified(|current| {
            let changed = *current != states;
            current.clone_from(&states);
            changed
        });
        if !changed {
            return;
        }
        let path = self.settings.folder.join(STATE_FILE);
        let left = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&states).unwrap_or_default();
            let folder = path.parent().unwrap_or(Path::new("/"));
            durable::create_folder(folder).and_then(|()| durable::show(&path, &text, STATE_MODE))
        });
        if let Ok(Err(error)) = left.await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the state of the bridges was not left for `status`"
            );
        }
    }
}

async fn ended(running: RunningBridge) {
    let abort = running.task.abort_handle();
    if tokio::time::timeout(STOP_TIMEOUT, running.task).await.is_err() {
        tracing::warn!(folder = %running.folder.display(), "a bridge did not stop in time and is cut off");
        abort.abort();
    }
}

/// The queues' folders that exist.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// The states as a running agent last left them below `folder`.
pub fn read_states(folder: &Path) -> Vec<BridgeState> {
    durable::read(&folder.join(STATE_FILE), STATE_BYTES_MAX)
        .ok()
        .flatten()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// What of these states a person should know.
pub fn faults(states: &[BridgeState], now_ms: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    for state in states {
        let waiting = match state.oldest_ms {
            Some(oldest) => format!(
                "{} messages wait, the oldest for {} s",
                state.backlog,
                now_ms.saturating_sub(oldest) / 1000
            ),
            None => "no message waits".to_owned(),
        };
        let mut say = |code: &str, text: String| {
            faults.push(Fault {
                code: code.to_owned(),
                message: record::bounded(&format!("{}: {text}; {waiting}", state.flow)),
                ..Fault::default()
            });
        };
        for side in [&state.from, &state.to] {
            match (&side.problem, side.connected) {
                (Some(problem), false) => {
                    say(
                        "bridge-down",
                        format!("not connected to {}: {problem}", side.broker),
                    );
                }
                (Some(problem), true) => say("bridge-problem", problem.clone()),
                (None, _) => {}
            }
        }
        let late = state
            .oldest_ms
            .is_some_and(|oldest| now_ms.saturating_sub(oldest) > LATE_MS);
        if let Some(why) = &state.full {
            say("bridge-full", why.clone());
        } else if late && state.to.connected {
            say(
                "bridge-late",
                format!("{} takes messages too slowly", state.to.broker),
            );
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::audit::{self, SpoolLimits};
    use crate::bridge::losses::{LossFile, LossSum, LossSums};

    #[tokio::test]
    async fn what_a_revoked_bridge_held_and_lost_is_removed_only_once_it_stands_in_the_trail() {
        let (folder, trail) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bridge = folder.path().join("aa");
        std::fs::create_dir(&bridge).unwrap();
        let lost = LossSum {
            count: 5,
            first_ms: 10,
            last_ms: 20,
        };
        LossFile::new(&bridge).write(LossSums::from([("bridge-expired".to_owned(), lost)]));
        let (audit, unwritten) = audit::queue();
        let settings = BridgeSettings {
            folder: folder.path().to_owned(),
            limits: queue::QueueLimits {
                bytes_max: 1 << 20,
                free_bytes_min: 0,
            },
            message_bytes_max: 1024,
            look: LOOK,
            backoff: penstock_proto::backoff::Backoff::default(),
            logins: Arc::default(),
        };
        let (_policy, policy) = watch::channel(PolicyView::default());
        let (_identity, identity) = watch::channel(None);
        let (supervisor, _) = Supervisor::new(settings, policy, identity, audit.clone());
        let purged = supervisor.purge(&bridge, "readings/upwards");
        let written = async {
            tokio::time::sleep(REPORTED_WITHIN / 4).await;
            assert!(bridge.exists(), "nothing is durable yet");
            let limits = SpoolLimits {
                bytes_max: 1 << 20,
                block_bytes: audit::BLOCK_BYTES,
                free_bytes_min: 0,
            };
            let _writer = unwritten.write_to(trail.path().to_owned(), limits);
        };
        tokio::join!(purged, written);
        assert!(!bridge.exists());
        // The bridge's end, and its losses.
        while audit.settled() < 2 {
            tokio::time::sleep(REPORTED_WITHIN / 20).await;
        }
    }
}
