//! A copy of a replicated store: its writer decides on the copy, and a log stands between the decision and the commit.
//!
//! A transaction is decided behind the last message of the log that is known, and its entry is put directly behind that one. Once it
//! stands there, the transaction is committed here; if another entry stands there, the transaction is undone, the other entry is
//! applied, and the same commands are decided anew. If nobody answers in time, the transaction is undone, too; the entry may
//! stand in the log all the same, and then it comes back from there as anybody's does.
//!
//! What is durable is the log. The copy may fall behind it when the power fails, and follows again from where it is.
//!
//! Not here: what carries the log, and how entries travel in messages (`store/log`).

mod place;
mod put;
mod standing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::Digest;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

pub(super) use self::place::{Place, is_unused, place, prepare};
use self::place::{apply, move_place};
use self::put::Put;
pub(super) use self::standing::Standing;
use super::command::{Command, Outcome};
use super::state;
use super::writer::Worker;
use crate::store::StoreError;
use crate::store::log::entry::{Assembly, ENTRY_BYTES_MAX, Effect, Entry, EntryError};
use crate::store::log::{Log, LogError, Message, NotPut, Patience};
use crate::store::state::RecordChange;

/// What two programs on one file come to.
const OTHER_PROGRAM: &str = "another program writes to this copy's file";
/// How long after a failure of the copy's own disk it tries again.
const RETRY: Duration = Duration::from_secs(1);
/// About what is put into one entry, bytes, where it is more than one command.
const ENTRY_BYTES: u64 = 8 << 20;
/// Most entries in one transaction, and about what they may hold together, bytes.
const APPLIED_MAX: usize = 256;
const APPLIED_BYTES: usize = 8 << 20;

/// An entry that is to be applied: the number of its last message, and its bytes.
struct Whole {
    number: u64,
    bytes: Vec<u8>,
}

/// The writer of a copy.
pub(super) struct Replica {
    worker: Worker,
    log: Box<dyn Log>,
    patience: Patience,
    /// The coordinator's.
    name: String,
    /// What the copy holds.
    place: Place,
    /// The last message that is known; what stands between it and the place is in the two below.
    seen: u64,
    assembly: Assembly,
    whole: VecDeque<Whole>,
    /// Why it takes no writes any more.
    lost: Option<StoreError>,
    standing: Arc<Standing>,
}

impl Replica {
    pub(super) fn new(
        worker: Worker,
        log: Box<dyn Log>,
        name: String,
        place: Place,
        standing: Arc<Standing>,
    ) -> Self {
        Self {
            worker,
            patience: log.patience(),
            log,
            name,
            place,
            seen: place.number,
            assembly: Assembly::default(),
            whole: VecDeque::new(),
            lost: None,
            standing,
        }
    }

    /// Catches up, says so, and then does what it is asked and what others did, until nobody can ask any more.
    pub(super) fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        caught_up: oneshot::Sender<Result<(), StoreError>>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(caught_up.send(Err(StoreError::Thread(error)))),
        };
        runtime.block_on(async {
            let begun = self.catch_up().await;
            let goes_on = begun.is_ok();
            drop(caught_up.send(begun));
            if goes_on {
                self.serve(&mut commands).await;
            }
        });
    }

    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) {
        loop {
            if self.worker.waits() {
                let group = self.worker.gather(None, commands);
                self.write(group, commands.is_closed()).await;
                continue;
            }
            let behind = !self.whole.is_empty();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(came) => {
                        let group = self.worker.gather(Some(came), commands);
                        self.write(group, commands.is_closed()).await;
                    }
                    None => return,
                },
                // What cannot be applied holds back what follows.
                message = self.log.next(), if self.lost.is_none() && self.whole_bytes() < APPLIED_BYTES => {
                    let taken = match message {
                        Ok(message) => self.take(message).and_then(|()| self.apply()),
                        Err(error) => Err(self.lost_by(error)),
                    };
                    self.noted(taken);
                }
                () = tokio::time::sleep(RETRY), if behind && self.lost.is_none() => {
                    let applied = self.apply();
                    self.noted(applied);
                }
            }
        }
    }

    fn whole_bytes(&self) -> usize {
        self.whole.iter().map(|whole| whole.bytes.len()).sum()
    }

    /// Says what went wrong behind everybody's back.
    fn noted(&self, outcome: Result<(), StoreError>) {
        if let Err(error) = outcome {
            tracing::error!(error = %crate::chain(&error), "the copy of the replicated store does not follow its log");
        }
    }

    /// Applies all that stands in the log by now.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let newest = self.check_not_set_back().await?;
        while self.seen < newest {
            let next = tokio::time::timeout(self.patience.put, self.log.next()).await;
            match next {
                Ok(Ok(message)) => self.take(message)?,
                Ok(Err(error)) => return Err(self.lost_by(error)),
                Err(_) => {
                    return Err(StoreError::Unreachable {
                        words: format!("message {} does not come", self.seen + 1),
                    });
                }
            }
            if self.whole.len() >= APPLIED_MAX || self.whole_bytes() >= APPLIED_BYTES {
                self.apply()?;
            }
        }
        self.apply()
    }

    /// The log has all that was ever seen of it; gives its newest message.
    async fn check_not_set_back(&mut self) -> Result<u64, StoreError> {
        let newest = self.newest().await?;
        if newest < self.seen {
            let seen = self.seen;
            return Err(self.lose(format!(
                "the log ends with message {newest}, and this copy has followed it up to message {seen}"
            )));
        }
        Ok(newest)
    }

    async fn newest(&mut self) -> Result<u64, StoreError> {
        let newest = tokio::time::timeout(self.patience.put, self.log.newest()).await;
        match newest {
            Ok(Ok(newest)) => Ok(newest),
            Ok(Err(NotPut::Full(words) | NotPut::Unknown(words))) => Err(StoreError::Unreachable { words }),
            Ok(Err(NotPut::Behind)) | Err(_) => Err(StoreError::Unreachable {
                words: format!("no answer within {} s", self.patience.put.as_secs()),
            }),
        }
    }

    /// Takes a message that is new; one that is known, since this coordinator put it there, is passed over.
    fn take(&mut self, message: Message) -> Result<(), StoreError> {
        if message.number <= self.seen {
            return Ok(());
        }
        if message.number != self.seen + 1 {
            let what = format!(
                "behind message {} of the log stands message {}",
                self.seen, message.number
            );
            return Err(self.lose(what));
        }
        let taken = self.assembly.take(&message.payload);
        let taken = taken.map_err(|error| self.unfit(message.number, &error))?;
        self.seen = message.number;
        self.whole.extend(taken.map(|bytes| Whole {
            number: message.number,
            bytes,
        }));
        Ok(())
    }

    /// Applies the entries that are whole. What cannot be applied now stays, and is tried again.
    fn apply(&mut self) -> Result<(), StoreError> {
        if self.whole.is_empty() {
            return Ok(());
        }
        let applied = self.apply_whole();
        self.standing.takes(applied.is_ok());
        applied
    }

    fn apply_whole(&mut self) -> Result<(), StoreError> {
        while !self.whole.is_empty() {
            let mut bytes = 0_usize;
            let fits = |whole: &&Whole| {
                let first = bytes == 0;
                bytes = bytes.saturating_add(whole.bytes.len());
                first || bytes <= APPLIED_BYTES
            };
            let count = self.whole.iter().take(APPLIED_MAX).take_while(fits).count();
            let mut place = self.place;
            let mut entries = Vec::with_capacity(count);
            for Whole { number, bytes } in self.whole.iter().take(count) {
                let entry = match Entry::decode(bytes) {
                    Ok(entry) if entry.previous == place.digest => entry,
                    Ok(entry) => {
                        let what = format!(
                            "the entry of {} that ends with message {number} does not stand behind the one before it here",
                            entry.writer
                        );
                        return Err(self.lose(what));
                    }
                    Err(error) => return Err(self.unfit(*number, &error)),
                };
                place = Place {
                    number: *number,
                    digest: Digest::of(bytes).0,
                };
                entries.push(entry);
            }
            let from = self.place;
            let applied = self.worker.within(|ledger| {
                if !move_place(ledger, from, place)? {
                    return Ok(Err(OTHER_PROGRAM.to_owned()));
                }
                for effect in entries.iter().flat_map(|entry| &entry.effects) {
                    if !apply(ledger, effect)? {
                        return Ok(Err(format!(
                            "an entry up to message {} does not lead to what it led to at the coordinator that wrote it",
                            place.number
                        )));
                    }
                }
                Ok(Ok(()))
            })?;
            if let Err(what) = applied {
                self.worker.undo();
                return Err(self.lose(what));
            }
            self.worker.commit()?;
            self.worker.ledger.take_effects();
            self.place = place;
            self.whole.drain(..count);
            self.tell(&entries);
        }
        Ok(())
    }

    /// Says what was changed to those who watch.
    fn tell(&self, entries: &[Entry]) {
        let effects = || entries.iter().flat_map(|entry| &entry.effects);
        for effect in effects() {
            if let Effect::Record { key, revision, .. } = effect {
                self.worker.changed(RecordChange {
                    key: key.clone(),
                    revision: *revision,
                });
            }
        }
        if effects().any(|effect| matches!(effect, Effect::Block { .. })) {
            self.worker.appended();
        }
    }

    /// Does a group of commands, or answers why not.
    async fn write(&mut self, mut group: Vec<Command>, ends: bool) {
        if ends {
            // Nobody waits for these any more, and each could take as long as the servers do.
            group.retain(|command| !command.is_abandoned());
        }
        if let Some(lost) = &self.lost {
            return group.into_iter().for_each(|command| command.fail(lost.again()));
        }
        let mut rest = group;
        while !rest.is_empty() {
            let mut bytes = 0_u64;
            let fits = |command: &&Command| {
                let first = bytes == 0;
                bytes = bytes.saturating_add(command.bytes().max(1));
                first || bytes <= ENTRY_BYTES
            };
            let count = rest.iter().take_while(fits).count();
            let later = rest.split_off(count);
            match self.settle(&rest).await {
                Ok(outcomes) => self.worker.answer(rest, outcomes),
                Err(error) => self.worker.fail(rest, &error),
            }
            rest = later;
        }
    }

    async fn settle(&mut self, group: &[Command]) -> Result<Vec<Outcome>, StoreError> {
        let deadline = Instant::now() + self.patience.put;
        loop {
            self.wait_for_begun().await?;
            self.apply()?;
            self.check_fence()?;
            let outcomes = self
                .worker
                .decide(group)
                .inspect_err(|_| self.standing.takes(false))?;
            let effects = self.worker.ledger.take_effects();
            let held = place(&self.worker.ledger).map_err(|error| {
                self.worker.undo();
                self.worker.failed(&error)
            })?;
            if held != Some(self.place) {
                self.worker.undo();
                return Err(self.lose(OTHER_PROGRAM.to_owned()));
            }
            if effects.is_empty() {
                self.worker.undo();
                // What contradicts the copy may only be older than the log.
                if outcomes.iter().any(Outcome::contradicts) && self.newest().await? > self.seen {
                    if !self.look(deadline).await? && Instant::now() >= deadline {
                        return Err(StoreError::Unreachable {
                            words: format!("message {} does not come", self.seen + 1),
                        });
                    }
                    continue;
                }
                return Ok(outcomes);
            }
            let entry = Entry {
                previous: self.place.digest,
                writer: self.name.clone(),
                effects,
            };
            let bytes = entry.encode();
            if bytes.len() > ENTRY_BYTES_MAX {
                self.worker.undo();
                return Err(StoreError::TooLarge {
                    what: "what is to be written together".to_owned(),
                    bytes: bytes.len(),
                    bytes_max: ENTRY_BYTES_MAX,
                });
            }
            let digest = Digest::of(&bytes).0;
            match self.put(bytes, deadline).await {
                Ok(Put::There) => {
                    let place = Place {
                        number: self.seen,
                        digest,
                    };
                    return self.commit(place, outcomes);
                }
                Ok(Put::Behind) => self.worker.undo(),
                Err(error) => {
                    self.worker.undo();
                    return Err(error);
                }
            }
        }
    }

    /// Whether this coordinator may write. What is decided behind the last entry is decided by this as well: had another one taken over
    /// meanwhile, its entry would stand where ours should.
    fn check_fence(&self) -> Result<(), StoreError> {
        let fence = self.standing.fenced();
        let Some((key, revision)) = fence else {
            return Ok(());
        };
        let held = state::get(&self.worker.ledger, &key).map_err(|error| self.worker.failed(&error))?;
        match held {
            Some(held) if held.revision == revision => Ok(()),
            _ => Err(StoreError::Deposed),
        }
    }

    /// Commits what stands in the log. If the copy's own disk does not take it, it is applied from the log's bytes later.
    fn commit(&mut self, place: Place, outcomes: Vec<Outcome>) -> Result<Vec<Outcome>, StoreError> {
        let moved = move_place(&self.worker.ledger, self.place, place).map_err(|error| {
            self.worker.undo();
            self.worker.failed(&error)
        });
        moved
            .and_then(|_| self.worker.commit())
            .map_err(|error| StoreError::Unsettled {
                words: format!("it is in the log, and this coordinator's copy does not take it: {error}"),
            })?;
        self.place = place;
        self.whole.clear();
        self.standing.takes(true);
        Ok(outcomes)
    }

    /// An entry that another coordinator has begun is waited for, as long as it goes on.
    async fn wait_for_begun(&mut self) -> Result<(), StoreError> {
        while self.assembly.is_open() {
            match tokio::time::timeout(self.patience.courtesy, self.log.next()).await {
                Ok(Ok(message)) => self.take(message)?,
                Ok(Err(error)) => return Err(self.lost_by(error)),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Waits for the next message, and takes it; `false`: none came for a while.
    async fn look(&mut self, deadline: Instant) -> Result<bool, StoreError> {
        let until = deadline.min(Instant::now() + self.patience.look);
        let before = self.seen;
        loop {
            match timeout_at(until, self.log.next()).await {
                Ok(Ok(message)) => self.take(message)?,
                Ok(Err(error)) => return Err(self.lost_by(error)),
                Err(_) => return Ok(false),
            }
            if self.seen > before {
                return Ok(true);
            }
        }
    }

    fn unfit(&mut self, number: u64, error: &EntryError) -> StoreError {
        self.lose(format!("message {number} of the log cannot be read: {error}"))
    }

    fn lost_by(&mut self, error: LogError) -> StoreError {
        match error {
            LogError::Lost(what) => self.lose(what),
            LogError::Closed => {
                self.lost = Some(StoreError::Stopped);
                StoreError::Stopped
            }
        }
    }

    /// From here on no write is taken.
    fn lose(&mut self, what: String) -> StoreError {
        let lost = StoreError::LogLost {
            path: self.worker.path().to_owned(),
            what,
        };
        self.lost = Some(lost.again());
        self.standing.lose(&lost);
        lost
    }
}

#[cfg(test)]
pub(in crate::store) mod tests;
