//! What goes to disk in one sync, who hears of it, and what is given up where there is no room: a pure machine. It has no
//! disk and no clock; [`keeper`](super) is the shell that has.
//!
//! ```text
//! take (batches) ─▶ commit (records) ─▶ the queue ─┬─▶ kept: acknowledgements
//!      questions ─▶        ▲                       └─▶ not kept ─┐
//!                          └─────────── records wait ◀───────────┘
//! ```
//!
//! `To` is where the acknowledgements of a connection go. While records wait no other batch is taken
//! ([`is_stuck`](KeeperMachine::is_stuck)), so that what waits is bounded by [`COMMIT_BYTES`] and one batch.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Ack, IntakeEntry, Question};
use crate::bridge::layout::{QueueRecord, Snapshot, Unreleased};
use crate::bridge::losses::LossSum;

/// The most bytes of entries in one sync.
pub const COMMIT_BYTES: u64 = 512 * 1024;
/// For how long it is said that there was no room, where nothing waits for it.
const SHED_SAID: Duration = Duration::from_secs(5);

/// What is owed to each connection for what is durable.
pub type Owed<To> = Vec<(To, Vec<Ack>)>;

/// What one sync is to make durable.
#[derive(Debug)]
pub struct Commit {
    /// In their order: positions and receipts, then what was taken.
    pub records: Vec<QueueRecord>,
    /// So many of them are positions and receipts.
    pub positions: usize,
}

impl Commit {
    /// Leaves out what would change nothing, and, where the room for state is used up, receipts: at worst a message comes twice,
    /// while a broker that gives receipts and forgets them for ever fills no disk.
    pub fn spare(&mut self, state: &Snapshot, room_is_spent: bool) {
        let receipt = |record: &QueueRecord| matches!(record, QueueRecord::Received(_));
        let nothing_received = state.received.is_empty() && !self.records.iter().any(receipt);
        let before = self.records.len();
        self.records.retain(|record| match record {
            QueueRecord::ReceiverForgot => !nothing_received,
            QueueRecord::Received(_) => !room_is_spent,
            _ => true,
        });
        self.positions -= before - self.records.len();
    }
}

/// What waits between the two sides and the disk.
#[derive(Debug)]
pub struct KeeperMachine<To> {
    records: Vec<QueueRecord>,
    owed: Owed<To>,
    bytes: u64,
    finished: u64,
    /// What of it the last commit was to write, and what was written.
    finished_committed: u64,
    finished_written: u64,
    problem: Option<String>,
    /// When a publication at QoS 0 last found no room.
    shed: Option<Instant>,
}

impl<To> KeeperMachine<To> {
    /// Over a queue in which everything below `finished` is done.
    pub fn new(finished: u64) -> Self {
        Self {
            records: Vec::new(),
            owed: Vec::new(),
            bytes: 0,
            finished,
            finished_committed: finished,
            finished_written: finished,
            problem: None,
            shed: None,
        }
    }

    /// Records wait for room: nothing more is taken.
    pub fn is_stuck(&self) -> bool {
        !self.records.is_empty()
    }

    /// One sync's worth waits.
    pub fn is_full(&self) -> bool {
        self.bytes >= COMMIT_BYTES
    }

    /// What waits, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything below is done.
    pub fn finished(&self) -> u64 {
        self.finished
    }

    /// Everything below is done, and the disk says so.
    pub fn finished_written(&self) -> u64 {
        self.finished_written
    }

    /// Why messages are not taken now, if so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Turns what came over one connection into records. A message at QoS 2 that is kept already is only acknowledged
    /// again. `unreleased` are the packet identifiers of those on disk.
    ///
    /// Under an identifier that was not released another message may come all the same: after one that expired on its way, or
    /// from a session that is new without this disk saying so. A conforming broker says of what it repeats that it came before,
    /// and repeats it as it was.
    pub fn take(&mut self, entries: Vec<IntakeEntry>, to: To, unreleased: &BTreeMap<u16, Unreleased>) {
        let mut known = None;
        let mut acks = Vec::new();
        for entry in entries {
            self.bytes += entry.cost();
            let record = match entry {
                IntakeEntry::Keep { message, ack, again } => {
                    acks.extend(ack);
                    if message.origin != 0 && again {
                        let known = known.get_or_insert_with(|| self.identifiers(unreleased));
                        if known.get(&message.origin).is_some_and(|one| one.is(&message)) {
                            continue;
                        }
                    }
                    QueueRecord::Message(message)
                }
                IntakeEntry::Skip(ack) => {
                    acks.push(ack);
                    continue;
                }
                // What changes nothing takes no room on disk, however often a broker says it.
                IntakeEntry::Release(ack) => {
                    acks.push(ack);
                    let known = known.get_or_insert_with(|| self.identifiers(unreleased));
                    if !known.contains_key(&ack.identifier) {
                        continue;
                    }
                    QueueRecord::Released(ack.identifier)
                }
                IntakeEntry::Forgot => {
                    let known = known.get_or_insert_with(|| self.identifiers(unreleased));
                    if known.is_empty() {
                        continue;
                    }
                    QueueRecord::SenderForgot
                }
            };
            if let Some(known) = &mut known {
                note(known, &record);
            }
            self.records.push(record);
        }
        self.owed.push((to, acks));
    }

    /// The packet identifiers that are not released, counting what waits.
    fn identifiers(&self, unreleased: &BTreeMap<u16, Unreleased>) -> BTreeMap<u16, Unreleased> {
        let mut known = unreleased.clone();
        for record in &self.records {
            note(&mut known, record);
        }
        known
    }

    /// What is to be made durable now, with what the questions change. The position is written with other records, when it
    /// is asked for, or if `written_out` wants it by itself.
    pub fn commit<'a>(
        &mut self,
        questions: impl IntoIterator<Item = &'a Question>,
        mut written_out: bool,
    ) -> Commit {
        let mut records = Vec::new();
        for question in questions {
            match question {
                Question::Received(seq) => records.push(QueueRecord::Received(*seq)),
                Question::Finished(seq) => self.finished = self.finished.max(*seq),
                Question::Forgot => records.push(QueueRecord::ReceiverForgot),
                // A new connection begins where the queue says.
                Question::State => written_out = true,
                Question::Read { .. } => {}
            }
        }
        let written_out = written_out || self.is_stuck() || !records.is_empty();
        self.finished_committed = self.finished_written;
        if self.finished > self.finished_written && written_out {
            records.push(QueueRecord::Finished(self.finished));
            self.finished_committed = self.finished;
        }
        let positions = records.len();
        records.append(&mut self.records);
        Commit { records, positions }
    }

    /// All of this is durable. Gives what is owed now.
    #[must_use]
    pub fn kept(&mut self, commit: &Commit, now: Instant) -> Owed<To> {
        let message = |record: &QueueRecord| matches!(record, QueueRecord::Message(_));
        let shed_lately = |shed: Instant| now.saturating_duration_since(shed) <= SHED_SAID;
        if commit.records.iter().any(message) || !self.shed.is_some_and(shed_lately) {
            self.problem = None;
        }
        self.positions_kept();
        self.bytes = 0;
        std::mem::take(&mut self.owed)
    }

    /// The positions and receipts of the last [`commit`](Self::commit) are durable.
    pub fn positions_kept(&mut self) {
        self.finished_written = self.finished_committed;
    }

    /// None of it is durable. What was taken waits, but for publications at QoS 0: neither broker keeps them, so that they
    /// are lost. Gives what is owed nevertheless, and the positions and receipts, which are worth another attempt.
    #[must_use]
    pub fn not_kept(
        &mut self,
        mut commit: Commit,
        problem: String,
        now: Instant,
    ) -> (Owed<To>, Option<LossSum>, Vec<QueueRecord>) {
        self.problem = Some(problem);
        let waiting = commit.records.split_off(commit.positions);
        let (unkept, waiting): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|record| matches!(record, QueueRecord::Message(message) if message.qos == 0));
        self.records = waiting;
        let shed = self.shed(&unkept, now);
        let mut owed = Vec::new();
        if self.records.is_empty() {
            // What is left to acknowledge was refused, or was durable before.
            owed = std::mem::take(&mut self.owed);
            self.bytes = 0;
        }
        (owed, shed, commit.records)
    }

    /// The publications at QoS 0 for which there was no room.
    fn shed(&mut self, unkept: &[QueueRecord], now: Instant) -> Option<LossSum> {
        let times = unkept.iter().filter_map(|record| match record {
            QueueRecord::Message(message) => Some(message.time_ms),
            _ => None,
        });
        let shed = times.map(|came_ms| LossSum {
            count: 1,
            first_ms: came_ms,
            last_ms: came_ms,
        });
        let shed = shed.reduce(LossSum::and);
        if shed.is_some() {
            self.shed = Some(now);
        }
        shed
    }
}

fn note(unreleased: &mut BTreeMap<u16, Unreleased>, record: &QueueRecord) {
    match record {
        QueueRecord::Message(message) if message.origin != 0 => {
            unreleased.insert(message.origin, message.mark());
        }
        QueueRecord::Released(identifier) => {
            unreleased.remove(identifier);
        }
        QueueRecord::SenderForgot => unreleased.clear(),
        _ => {}
    }
}
