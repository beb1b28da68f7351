//! The one task that writes the trail: collects events for at most 20 ms, commits them together, and serves the
//! uploader in between.
//!
//! What a failed commit held is counted as lost (perhaps too much: a commit may have reached the disk before
//! the failure showed), never retried: memory stays bounded, and order stays true.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_proto::event::AgentStep;
use penstock_proto::v1::Fault;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::engine::{Engine, Failure, TRAIL_AHEAD};
use super::layout::Cause;
use super::opening::EpochReason;
use super::record;
use super::resume::Resume;
use super::sealer::{self, Sealer};
use super::spool::SpoolLimits;
use super::waiting::WaitingEvent;
use super::{AuditError, AuditState, Command, Overflow, Progress};
use crate::clock;

/// How long an event waits for company.
const COMMIT_DELAY: Duration = Duration::from_millis(20);
/// Events in one commit.
const COMMIT_EVENTS_MAX: usize = 4096;
/// How often the spool is looked after when nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// Blocks moved to a new epoch between two commits.
const MOVE_BLOCKS: usize = 64;
/// Percent of the quota from which a person should know.
const HIGH_WATER_PERCENT: u64 = 80;

pub(super) struct Writer {
    folder: PathBuf,
    engine: Engine,
    /// Lives on where the spool is opened again.
    sealer: Arc<Mutex<Sealer>>,
    overflow: Arc<Overflow>,
    progress: Arc<Progress>,
    /// Events of the queue that were taken to be committed and are not durable, nor is their loss.
    unsettled: u64,
    state: watch::Sender<AuditState>,
    /// Why the coordinator's trail cannot be followed, since the last time that it was asked for.
    ahead: Option<Failure>,
    /// Lost in failed commits, not yet in the spool's account: events, first and last time.
    failed: (u64, u64, u64),
}

impl Writer {
    pub(super) fn new(
        folder: PathBuf,
        limits: SpoolLimits,
        seal_name: watch::Receiver<Option<String>>,
        (overflow, progress): (Arc<Overflow>, Arc<Progress>),
        state: watch::Sender<AuditState>,
    ) -> Self {
        Self {
            sealer: Arc::new(Mutex::new(Sealer::new(&folder, seal_name))),
            folder: folder.clone(),
            engine: Engine::new(folder, limits),
            overflow,
            progress,
            unsettled: 0,
            state,
            ahead: None,
            failed: (0, 0, 0),
        }
    }

    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<WaitingEvent>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut batch = Vec::new();
        let mut due: Option<Instant> = None;
        self.tick().await;
        loop {
            let wait = due.unwrap_or_else(|| Instant::now() + TICK);
            let room = COMMIT_EVENTS_MAX.saturating_sub(batch.len());
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Close(done)) => {
                        while let Ok(event) = events.try_recv() {
                            batch.push(event);
                        }
                        self.commit_queued(std::mem::take(&mut batch)).await;
                        self.seal().await;
                        self.engine.close().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.serve(command).await,
                    None => return,
                },
                () = tokio::time::sleep_until(wait) => {
                    due = None;
                    self.tick().await;
                    self.commit_queued(std::mem::take(&mut batch)).await;
                }
                received = events.recv_many(&mut batch, room), if room > 0 => {
                    if received > 0 && due.is_none() {
                        due = Some(Instant::now() + COMMIT_DELAY);
                    }
                    if batch.len() >= COMMIT_EVENTS_MAX {
                        due = Some(Instant::now());
                    }
                }
            }
        }
    }

    /// Opens what is closed, moves what has to move.
    async fn tick(&mut self) {
        if let Some(begun) = self.engine.open(Instant::now()).await {
            let (step, message) = match begun {
                EpochReason::First => (
                    AgentStep::TrailBegun,
                    "the first audit trail of this gateway".to_owned(),
                ),
                EpochReason::Lost(why) => (AgentStep::TrailLost, why),
            };
            self.say(step, &message).await;
        }
        let sealer = self.sealer.clone();
        let moved = self
            .engine
            .with(move |spool| {
                if spool.has_blocks_to_move() {
                    spool.move_blocks(MOVE_BLOCKS)?;
                    locked(&sealer).grew(MOVE_BLOCKS as u64, false);
                }
                Ok(())
            })
            .await;
        if moved.is_err() {
            self.publish().await;
        }
    }

    async fn say(&mut self, step: AgentStep, message: &str) {
        let said = record::agent(step, message);
        let event = record::event(clock::now_ms(), step.severity(), 0, said);
        self.commit(vec![event.into()]).await;
    }

    /// Commits what came through the queue.
    async fn commit_queued(&mut self, batch: Vec<WaitingEvent>) {
        self.progress
            .left(batch.iter().map(WaitingEvent::held_bytes).sum());
        self.unsettled = self.unsettled.saturating_add(batch.len() as u64);
        self.commit(batch).await;
    }

    async fn commit(&mut self, batch: Vec<WaitingEvent>) {
        let now_ms = clock::now_ms();
        let (count, first_ms, last_ms) = span(&batch);
        let dropped = self.overflow.events.swap(0, Ordering::Relaxed);
        let dropped_first = self.overflow.first_ms.load(Ordering::Relaxed);
        let dropped_last = self.overflow.last_ms.load(Ordering::Relaxed);
        let failed = std::mem::take(&mut self.failed);
        let sealer = self.sealer.clone();
        let written = self
            .engine
            .with(move |spool| {
                if failed.0 > 0 {
                    spool.count_lost(Cause::DiskError, failed.0, failed.1, failed.2);
                }
                if dropped > 0 {
                    spool.count_lost(Cause::QueueFull, dropped, dropped_first, dropped_last);
                }
                let mut sealer = locked(&sealer);
                let (is_due, has_grave) = (sealer.is_due(&batch), batch.iter().any(WaitingEvent::is_grave));
                let order = if is_due { sealer.order() } else { None };
                if batch.is_empty() && !spool.owes_loss_record(now_ms) && order.is_none() {
                    // A full disk stays a fault until it has room again, also while nothing happens.
                    spool.require_free_space()?;
                    spool.keep_mark(now_ms, false);
                    return Ok(false);
                }
                match spool.append_sealed(batch, now_ms, order) {
                    Ok(appended) => {
                        sealer.grew(appended.blocks, has_grave);
                        if let Some(text) = appended.seal {
                            sealer.sealed(text);
                        }
                        Ok(true)
                    }
                    // The spool lives on and keeps what was counted above; only this batch is lost.
                    Err(error) => {
                        spool.count_lost(Cause::DiskError, count, first_ms, last_ms);
                        Err(error)
                    }
                }
            })
            .await;
        if written == Ok(true) {
            self.progress.settle(std::mem::take(&mut self.unsettled));
        }
        if written.is_err() && !self.engine.is_open() {
            let first = [(failed.0, failed.1), (dropped, dropped_first), (count, first_ms)];
            self.failed = (
                failed.0 + dropped + count,
                first
                    .iter()
                    .filter(|(events, _)| *events > 0)
                    .map(|(_, first)| *first)
                    .min()
                    .unwrap_or(0),
                failed.2.max(last_ms).max(dropped_last),
            );
        }
        self.publish().await;
    }

    /// Seals what no seal covers yet, at the end.
    async fn seal(&mut self) {
        let sealer = self.sealer.clone();
        let now_ms = clock::now_ms();
        let sealed = self.engine.with(move |spool| {
            let mut sealer = locked(&sealer);
            if !sealer.has_unsealed() {
                return Ok(());
            }
            let order = sealer.order();
            let appended = spool.append_sealed(Vec::new(), now_ms, order)?;
            if let Some(text) = appended.seal {
                sealer.sealed(text);
            }
            Ok(())
        });
        if sealed.await.is_ok() {
            self.publish().await;
        }
    }

    async fn serve(&mut self, command: Command) {
        match command {
            Command::Resume(ack, answer) => {
                let resumed = self.engine.with(move |spool| spool.resume(&ack)).await;
                let position = match resumed {
                    Ok(resumed) => {
                        self.ahead = None;
                        match resumed {
                            Resume::From(at) => Ok(at),
                            Resume::Reseated(at, why) => {
                                let sealer = self.sealer.clone();
                                let begun =
                                    tokio::task::spawn_blocking(move || locked(&sealer).begin_again());
                                // The thread ends otherwise only with the program.
                                let _ = begun.await;
                                self.say(AgentStep::TrailForked, &why).await;
                                Ok(at)
                            }
                        }
                    }
                    Err(failure) => {
                        // It is asked again each second: what is news is said, once.
                        if failure.code == TRAIL_AHEAD && self.ahead.as_ref() != Some(&failure) {
                            self.say(AgentStep::TrailAhead, &failure.message).await;
                            self.ahead = Some(failure.clone());
                            self.publish().await;
                        }
                        Err(AuditError::Unavailable(failure.message))
                    }
                };
                let _ = answer.send(position);
            }
            Command::Read {
                from,
                count_max,
                bytes_max,
                answer,
            } => {
                let blocks = self
                    .engine
                    .with(move |spool| spool.read(from, count_max, bytes_max))
                    .await;
                let _ = answer.send(blocks.map_err(|failure| AuditError::Unavailable(failure.message)));
            }
            Command::Acknowledge(to) => {
                let _ = self
                    .engine
                    .with(move |spool| {
                        spool.acknowledge(to);
                        Ok(())
                    })
                    .await;
            }
            Command::Witness(word) => {
                let folder = self.folder.clone();
                let kept = tokio::task::spawn_blocking(move || sealer::keep_witness(&folder, &word));
                if let Ok(Err(error)) = kept.await {
                    tracing::warn!(%error, "the coordinator's word for the audit trail is not kept");
                }
            }
            // Handled by the loop, which ends with it.
            Command::Close(done) => drop(done),
        }
    }

    async fn publish(&mut self) {
        let known = self
            .engine
            .look(|spool| (spool.state(), spool.next(), spool.mark_fault().map(str::to_owned)))
            .await
            .unwrap_or_else(|| {
                let last = self.state.borrow();
                (last.spool, last.next, None)
            });
        let (mut spool, next, mark_fault) = known;
        let (seal, seal_fault) = {
            let sealer = locked(&self.sealer);
            (sealer.newest().cloned(), sealer.fault().map(seal_failed))
        };
        spool.lost_events = spool.lost_events.saturating_add(self.failed.0);
        let fault = self
            .engine
            .failure()
            .or(self.ahead.as_ref())
            .map(|failure| Fault {
                code: failure.code.to_owned(),
                message: failure.message.clone(),
                ..Fault::default()
            })
            .or_else(|| fills(&spool))
            .or_else(|| mark_fault.map(mark_failed))
            .or(seal_fault);
        let state = AuditState {
            spool,
            next,
            seal,
            fault,
        };
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }
}

fn locked(sealer: &Mutex<Sealer>) -> std::sync::MutexGuard<'_, Sealer> {
    sealer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seal_failed(why: &str) -> Fault {
    Fault {
        code: "seal-key-unkept".to_owned(),
        message: format!(
            "the audit trail is written, and its seals do not hold against whoever takes this machine now: the key of the next seal cannot be made or \
             kept: {why}"
        ),
        ..Fault::default()
    }
}

fn mark_failed(message: String) -> Fault {
    Fault {
        code: "spool-mark-failed".to_owned(),
        message,
        ..Fault::default()
    }
}

fn fills(spool: &penstock_proto::v1::SpoolState) -> Option<Fault> {
    let percent = spool.bytes.saturating_mul(100).checked_div(spool.bytes_max)?;
    (percent >= HIGH_WATER_PERCENT).then(|| Fault {
        code: "spool-filling".to_owned(),
        message: format!(
            "the audit spool is {percent} % full: when it is full, acknowledged blocks are dropped first, then the least severe"
        ), ..Fault::default() })
}

fn span(batch: &[WaitingEvent]) -> (u64, u64, u64) {
    let times = || batch.iter().map(|event| event.time_ms);
    (
        batch.len() as u64,
        times().min().unwrap_or(0),
        times().max().unwrap_or(0),
    )
}
