//! How a session takes its gateway's audit trail in, decided: a part of the session's [machine](super).
//!
//! Blocks wait in memory, few and with leave, until the store has them; what is acknowledged is what the store said that it
//! holds. A store that fails is asked again with the same blocks. Where there is no room, in memory or for this trail, the
//! blocks are let go: the gateway has them, the rest of its session goes on, and once there is room a new session resumes the
//! trail. While nothing is stored the gateway hears again and again up to where its trail is held, so that it does not take
//! the session for dead.

use std::time::{Duration, Instant};

use penstock_proto::audit::chain::SealFault;
use penstock_proto::backoff::Backoff;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1::{AuditAck, AuditBlock};

use super::{Action, Answer, Question};
use crate::ingest::{IngestReport, Room, room_kib};
use crate::sessions::facts::News;
use crate::store::StoreError;

/// Audit blocks of one gateway that may wait behind those which are being stored.
pub(super) const BLOCKS_MAX: usize = 32;
/// Longest first pause before blocks are stored again.
const STORE_RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest pause between two attempts to store blocks, and between two signs of life to a gateway whose trail waits.
const STORE_RETRY_MAX: Duration = Duration::from_secs(10);
/// How often the store is asked whether there is room again for a trail that waits.
const ROOM_LOOK: Duration = Duration::from_secs(60);

/// The trail of one session.
#[derive(Debug)]
pub(super) struct Intake {
    /// Up to where the store has the trail.
    held: AuditAck,
    /// Whether the gateway has to hear it.
    acknowledges: bool,
    /// A block that came, and for which there may be no room in memory.
    coming: Option<AuditBlock>,
    /// Blocks that have room, in the order in which they came.
    waiting: Vec<AuditBlock>,
    work: Work,
    pause: Backoff,
    /// Draws the pauses: one number for each session keeps sessions from coming back in step.
    random: u64,
    /// Whether health knows of something wrong with the trail.
    faulty: bool,
    /// What it heard last.
    reported: Option<String>,
    /// What was heard last of its seals.
    unproved: Option<Option<SealFault>>,
    let_go: Option<LetGo>,
}

/// What is being done about the trail; one thing at a time.
#[derive(Debug)]
enum Work {
    Nothing,
    /// The store was asked to take these.
    Stores(Vec<AuditBlock>),
    /// It failed, and is asked again.
    Pauses {
        blocks: Vec<AuditBlock>,
        until: Instant,
    },
    /// It is written down that the trail waits.
    Notes,
    /// The store was asked whether there is room.
    Looks,
}

/// Blocks are not held any more: they come again in a new session.
#[derive(Debug)]
struct LetGo {
    /// Not before is the store asked for room.
    look: Instant,
    /// When the gateway hears again that its session lives.
    sign: Instant,
}

/// How long a trail waits for which there is no room; `None`: the store failed, and is tried again.
fn no_room(error: &StoreError) -> Option<Duration> {
    match error {
        StoreError::TooFast { after, .. } => Some(*after),
        StoreError::Reserved { .. } | StoreError::HoldsItsPart { .. } => Some(ROOM_LOOK),
        _ => None,
    }
}

impl Intake {
    /// Of a trail of which nothing is known yet.
    pub(super) fn new(random: u64) -> Self {
        Self {
            held: AuditAck::default(),
            acknowledges: false,
            coming: None,
            waiting: Vec::new(),
            work: Work::Nothing,
            pause: Backoff::between(STORE_RETRY_MIN, STORE_RETRY_MAX),
            random,
            faulty: false,
            reported: None,
            unproved: None,
            let_go: None,
        }
    }

    /// The store has the trail up to there, which the welcome says.
    pub(super) fn starts(&mut self, held: AuditAck) {
        self.held = held;
    }

    /// Whether the gateway has to hear up to where its trail is held.
    pub(super) fn acknowledges(&self) -> bool {
        self.acknowledges
    }

    /// The gateway hears it.
    pub(super) fn acknowledged(&mut self) -> AuditAck {
        self.acknowledges = false;
        let witness = self.held.witness.take();
        AuditAck {
            witness,
            ..self.held.clone()
        }
    }

    /// Whether one more block can be taken. If not, the gateway's stream fills up behind those that are here, and no other's.
    pub(super) fn takes_more(&self) -> bool {
        self.coming.is_none() && self.waiting.len() < BLOCKS_MAX
    }

    /// When it has to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let again = match &self.work {
            Work::Pauses { until, .. } => Some(*until),
            _ => None,
        };
        let sign = self.let_go.as_ref().map(|let_go| let_go.sign);
        [again, sign].into_iter().flatten().min()
    }

    /// Room in memory that its blocks take.
    pub(super) fn room_kib(&self) -> usize {
        let stored = match &self.work {
            Work::Stores(blocks) | Work::Pauses { blocks, .. } => blocks.as_slice(),
            Work::Nothing | Work::Notes | Work::Looks => &[],
        };
        let all = self.waiting.iter().chain(stored);
        all.map(|block| room_kib(block) as usize).sum()
    }

    /// A block came.
    pub(super) fn take(&mut self, block: AuditBlock, actions: &mut Vec<Action>) {
        // What follows a block that was let go has to come again after it.
        if self.let_go.is_some() {
            return;
        }
        actions.push(Action::AskRoom(room_kib(&block)));
        self.coming = Some(block);
    }

    /// Whether there is room in memory for the block that came.
    pub(super) fn room(&mut self, now: Instant, is_there: bool, actions: &mut Vec<Action>) {
        let Some(block) = self.coming.take() else {
            return;
        };
        if self.let_go.is_some() {
            return;
        }
        if is_there {
            self.waiting.push(block);
            self.store_waiting(actions);
        } else {
            self.let_go(now, STORE_RETRY_MAX);
        }
    }

    /// Blocks that nobody was asked about, where the store has those before them; the last of them only where there is room for it.
    pub(super) fn unjudged(&mut self, answer: Option<&Answer>, has_room: bool) -> Vec<AuditBlock> {
        let follows = match (&self.work, answer) {
            (Work::Stores(_), Some(Answer::Stored(Ok(report)))) => report.fault.is_none(),
            // Stored before those, they would make a gap of them, which the next session would take for delivered.
            (Work::Stores(_) | Work::Pauses { .. }, _) => false,
            (Work::Nothing | Work::Notes | Work::Looks, _) => true,
        };
        if !follows {
            return Vec::new();
        }
        let coming = self.coming.take().filter(|_| has_room && self.let_go.is_none());
        std::mem::take(&mut self.waiting)
            .into_iter()
            .chain(coming)
            .collect()
    }

    /// What the store answered.
    ///
    /// # Errors
    /// Why the session has to end.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        answer: Answer,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        match (std::mem::replace(&mut self.work, Work::Nothing), answer) {
            (Work::Stores(_), Answer::Stored(Ok(report))) => self.stored(report, actions)?,
            (Work::Stores(blocks), Answer::Stored(Err(error))) => self.failed(now, blocks, &error, actions),
            (Work::Notes, Answer::Noted) | (Work::Looks, Answer::Room(Room::NotInMemory)) => {}
            (Work::Looks, Answer::Room(Room::Yes)) => {
                return Err(Refusal::new(
                    Reason::StoreBusy,
                    "there is room for the trail again; a new session resumes it where it stopped",
                ));
            }
            (Work::Looks, Answer::Room(Room::NotInStore)) => {
                if let Some(let_go) = &mut self.let_go {
                    let_go.look = now + ROOM_LOOK;
                }
            }
            // Not what was asked.
            (work, _) => self.work = work,
        }
        self.store_waiting(actions);
        Ok(())
    }

    /// Does what is due.
    pub(super) fn look(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Pauses { blocks, until } if until <= now => self.store(blocks, false, actions),
            work => self.work = work,
        }
        let Some(let_go) = &mut self.let_go else {
            return;
        };
        if let_go.sign > now {
            return;
        }
        let_go.sign = now + STORE_RETRY_MAX;
        let looks = let_go.look <= now && matches!(self.work, Work::Nothing);
        self.acknowledges = true;
        if !self.faulty {
            let words = "its audit waits: the coordinator has no room for it, as the store takes nothing";
            self.report(words.to_owned(), actions);
        }
        if looks {
            self.work = Work::Looks;
            actions.push(Action::Ask(Question::Room));
        }
    }

    /// Stores all that wait at once, unless something else is being done.
    fn store_waiting(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.work, Work::Nothing) && !self.waiting.is_empty() {
            let blocks = std::mem::take(&mut self.waiting);
            self.store(blocks, true, actions);
        }
    }

    fn store(&mut self, blocks: Vec<AuditBlock>, first: bool, actions: &mut Vec<Action>) {
        let question = Question::Store {
            blocks: blocks.clone(),
            first,
        };
        self.work = Work::Stores(blocks);
        actions.push(Action::Ask(question));
    }

    fn stored(&mut self, report: IngestReport, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        self.pause.worked();
        if let Some(held) = report.ack {
            // A word that the gateway did not hear yet goes with the next acknowledgement.
            let witness = self.held.witness.take();
            self.held = held;
            self.held.witness = self.held.witness.take().or(witness);
            self.acknowledges = true;
        }
        if let Some(seals) = report.seals
            && self.unproved.as_ref() != Some(&seals.fault)
        {
            self.unproved = Some(seals.fault.clone());
            actions.push(Action::Learn(News::SealFault(seals.fault)));
        }
        if let Some(fault) = report.fault {
            // Behind a block that was refused, all are.
            self.waiting.clear();
            self.coming = None;
            // The gateway compares positions when it comes back, and begins a new epoch if it has to.
            self.report(format!("audit trail: {fault}"), actions);
            return Err(Refusal::new(Reason::AuditFork, fault));
        }
        if self.let_go.is_some() {
            return Ok(());
        }
        if self.faulty {
            (self.faulty, self.reported) = (false, None);
            actions.push(Action::Learn(News::TrailFault(None)));
        }
        Ok(())
    }

    /// The store took nothing. The gateway's zones are degraded with the reason, but offers go on: a full disk here does not
    /// keep a release from a gateway.
    fn failed(
        &mut self,
        now: Instant,
        blocks: Vec<AuditBlock>,
        error: &StoreError,
        actions: &mut Vec<Action>,
    ) {
        self.report(
            format!("its audit waits, the coordinator does not store it: {error}"),
            actions,
        );
        self.acknowledges = true;
        if let Some(wait) = no_room(error) {
            // What waits behind them is not stored before them.
            self.waiting.clear();
            self.let_go(now, wait);
            self.work = Work::Notes;
            actions.push(Action::Ask(Question::Note(error.to_string())));
        } else {
            let until = now + self.pause.failed(self.random);
            self.work = Work::Pauses { blocks, until };
        }
    }

    /// Takes no more blocks in this session, and asks for room not before `wait` is over.
    fn let_go(&mut self, now: Instant, wait: Duration) {
        self.let_go = Some(LetGo {
            look: now + wait,
            sign: now,
        });
    }

    fn report(&mut self, fault: String, actions: &mut Vec<Action>) {
        self.faulty = true;
        self.reported = Some(fault.clone());
        actions.push(Action::Learn(News::TrailFault(Some(fault))));
    }
}
