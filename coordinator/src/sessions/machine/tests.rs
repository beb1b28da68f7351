//! Sessions of one gateway before a store that fails and comes back, in virtual time, with whatever schedule is drawn.

#![allow(clippy::unwrap_used, clippy::panic)]

mod claims;
mod targets;

use std::time::Duration;

use penstock_policy::ids::Revision;
use penstock_proto::v1::{HealthReport, RevisionDigest, SpoolState, WithdrawnHeld};
use proptest::prelude::*;

use super::intake::BLOCKS_MAX;
use super::*;
use crate::ingest::Room;

/// Blocks that a gateway has under way at once.
const WINDOW: u64 = 32;
/// How long a gateway waits for an acknowledgement before it takes its session for dead.
const PATIENCE: Duration = Duration::from_secs(30);

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
enum Happens {
    /// The gateway's trail grows.
    Recorded(u64),
    /// The gateway sends the next block.
    Block,
    /// It sends one of those that it has: again, or too early.
    OutOfOrder(u64),
    /// It says what it holds.
    Report,
    /// It sends what means nothing in a session.
    Noise(bool),
    /// It takes the next message.
    Takes,
    /// The store answers.
    Answer,
    /// An answer comes that nobody asked for.
    Unasked(u8),
    /// There is room in memory, or there is not.
    Room(bool),
    /// A release becomes current.
    Release,
    /// A key is withdrawn.
    Withdraws,
    /// The store is from now on so.
    Store(Mood),
    Later(u64),
    End(Ending),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Works,
    Fails,
    /// It stores, and fails afterwards.
    FailsLate,
    Full,
    TooFast,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Stopping,
    Replaced,
    Gone,
    Broken,
}

fn moods() -> impl Strategy<Value = Mood> {
    prop_oneof![
        3 => Just(Mood::Works),
        2 => Just(Mood::Fails),
        1 => Just(Mood::FailsLate),
        1 => Just(Mood::Full),
        1 => Just(Mood::TooFast),
    ]
}

fn happenings() -> impl Strategy<Value = Happens> {
    let ending = prop_oneof![
        Just(Ending::Stopping),
        Just(Ending::Replaced),
        Just(Ending::Gone),
        Just(Ending::Broken),
    ];
    prop_oneof![
        10 => (1_u64..60).prop_map(Happens::Recorded),
        40 => Just(Happens::Block),
        2 => (0_u64..80).prop_map(Happens::OutOfOrder),
        8 => Just(Happens::Report),
        1 => any::<bool>().prop_map(Happens::Noise),
        20 => Just(Happens::Takes),
        20 => Just(Happens::Answer),
        2 => any::<u8>().prop_map(Happens::Unasked),
        20 => prop::bool::weighted(0.95).prop_map(Happens::Room),
        4 => Just(Happens::Release),
        4 => Just(Happens::Withdraws),
        4 => moods().prop_map(Happens::Store),
        10 => (1_u64..20_000).prop_map(Happens::Later),
        1 => ending.prop_map(Happens::End),
    ]
}

/// A gateway, what the store has of it, and the session between them.
struct World {
    now: Instant,
    machine: Machine,
    question: Option<Question>,
    asked_for_room: bool,
    /// How the session ended; a new one begins with the next thing that happens.
    ended: Option<Result<(), Refusal>>,
    greeted: bool,
    welcomed: bool,
    /// The gateway sent blocks out of their order in this session.
    disordered: bool,
    mood: Mood,
    /// Blocks that are on the store's disk.
    durable: u64,
    recorded: u64,
    sent: u64,
    acknowledged: u64,
    current: u64,
    holds: u64,
    offered: u64,
    /// How far the list of withdrawn keys goes, here and there.
    withdrawn: u64,
    knows: u64,
    /// What it knew at its hello.
    knew: u64,
    /// When the gateway took something last.
    heard: Instant,
}

fn mark(revision: u64) -> PolicyMark {
    PolicyMark {
        revision: Revision(revision),
        plan: Digest::of(&revision.to_be_bytes()),
        statement: None,
    }
}

fn list(number: u64) -> Held {
    Held {
        number,
        digest: Digest::of(&number.to_be_bytes()),
    }
}

fn upto(next_sequence: u64) -> AuditAck {
    AuditAck {
        epoch: 1,
        next_sequence,
        ..AuditAck::default()
    }
}

fn message(message: Message) -> Fact {
    let message = Some(message);
    Fact::Message(Box::new(GatewayMessage { message }))
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            machine: Machine::new(SessionLimits::default(), 7, now),
            question: None,
            asked_for_room: false,
            ended: None,
            greeted: false,
            welcomed: false,
            disordered: false,
            mood: Mood::Works,
            durable: 0,
            recorded: 0,
            sent: 0,
            acknowledged: 0,
            current: 1,
            holds: 0,
            offered: 0,
            withdrawn: 0,
            knows: 0,
            knew: 0,
            heard: now,
        }
    }

    /// The gateway connects, and says hello.
    fn connect(&mut self) {
        self.leaves();
        self.machine = Machine::new(SessionLimits::default(), self.current, self.now);
        (self.question, self.asked_for_room, self.ended) = (None, false, None);
        (self.greeted, self.welcomed, self.disordered) = (false, false, false);
        self.offered = 0;
        self.heard = self.now;
        self.step(Fact::Target(Some(Wanted::at_once(mark(self.current)))));
        self.knew = self.knows;
        let hello = Hello {
            policy: Some(self.policy()),
            spool: Some(SpoolState {
                epoch: 1,
                ..SpoolState::default()
            }),
            withdrawn: Some(WithdrawnHeld {
                number: self.knows,
                digest: list(self.knows).digest.0.to_vec().into(),
                unproven: false,
            }),
            ..Hello::default()
        };
        self.step(message(Message::Hello(hello)));
        self.step(Fact::Withdrawn(list(self.withdrawn)));
        assert!(self.greeted, "a hello begins a session");
    }

    fn policy(&self) -> PolicyState {
        let effective = (self.holds > 0).then(|| RevisionDigest::from(mark(self.holds)));
        PolicyState {
            effective,
            ..PolicyState::default()
        }
    }

    fn step(&mut self, fact: Fact) {
        let was_over = self.ended.is_some();
        let actions = self.machine.step(self.now, fact);
        assert!(
            !was_over || actions.is_empty(),
            "what is over is over: {actions:?}"
        );
        for action in actions {
            assert!(self.ended.is_none(), "the end is the last: {action:?}");
            match action {
                Action::Begin(_) => assert!(!std::mem::replace(&mut self.greeted, true)),
                Action::Learn(_) => assert!(self.greeted),
                Action::Hold(_) | Action::Take(_) => panic!("it was given no ticket, and gives nothing"),
                Action::Ask(question) => {
                    assert!(self.question.is_none(), "one question at a time: {question:?}");
                    self.question = Some(question);
                }
                Action::AskRoom(kib) => {
                    assert!(kib == 1 && !std::mem::replace(&mut self.asked_for_room, true));
                }
                Action::End(end) => self.ended = Some(end),
            }
        }
        // Each of the blocks here takes one KiB.
        assert!(self.machine.room_kib() <= 2 * BLOCKS_MAX);
        let deadline = self.machine.deadline();
        assert!(
            deadline.is_none_or(|deadline| deadline > self.now),
            "what is due is done"
        );
        if self.ended.is_some() {
            assert!(!self.machine.reads() && deadline.is_none());
        }
        assert!(!self.machine.has_message() || self.ended.is_some() || deadline.is_some());
    }

    fn block(&mut self, sequence: u64) {
        if self.machine.reads() && self.welcomed {
            let block = AuditBlock {
                epoch: 1,
                sequence,
                ..AuditBlock::default()
            };
            self.step(message(Message::Audit(block)));
        }
    }

    /// The gateway sends its next block, if its window allows it.
    fn next_block(&mut self) {
        let window = self.recorded.min(self.acknowledged + WINDOW);
        if self.sent < window && self.machine.reads() && self.welcomed {
            self.block(self.sent);
            self.sent += 1;
        }
    }

    fn report(&mut self) {
        if self.machine.reads() && self.welcomed {
            let policy = Some(self.policy());
            self.step(message(Message::Health(HealthReport {
                policy,
                ..HealthReport::default()
            })));
        }
    }

    /// The gateway takes a message, if there is one.
    fn takes(&mut self) -> bool {
        let has_message = self.machine.has_message();
        let message = self.machine.message(self.now);
        assert_eq!(message.is_some(), has_message);
        match message {
            None => return false,
            Some(Outgoing::Welcome(held, _)) => {
                assert!(!std::mem::replace(&mut self.welcomed, true), "one welcome");
                assert!(held.next_sequence <= self.durable);
                (self.sent, self.acknowledged) = (held.next_sequence, held.next_sequence);
            }
            Some(Outgoing::Withdrawn(held)) => {
                assert!(self.welcomed && self.ended.is_none());
                assert_eq!(held, list(self.knew));
                assert!(self.knows < self.withdrawn, "it lacks something");
                self.knows = self.withdrawn;
            }
            Some(Outgoing::Offer { wanted, .. }) => {
                assert_eq!(self.knows, self.withdrawn, "first whose keys no longer count");
                assert!(self.welcomed && self.ended.is_none());
                assert_eq!(wanted, mark(self.current), "only what is current is offered");
                assert!(self.offered < self.current, "it is offered once");
                self.offered = self.current;
            }
            Some(other @ (Outgoing::Order | Outgoing::Word(_) | Outgoing::Trust(_))) => {
                panic!("nobody asked for it: {other:?}")
            }
            Some(Outgoing::Acknowledgement(held)) => {
                assert!(self.welcomed);
                assert!(
                    held.next_sequence <= self.durable,
                    "only what is durable is acknowledged"
                );
                assert!(held.next_sequence >= self.acknowledged, "nothing is taken back");
                self.acknowledged = held.next_sequence;
            }
        }
        self.heard = self.now;
        true
    }

    fn stored(&mut self, blocks: &[AuditBlock]) -> IngestReport {
        let mut fault = None;
        for block in blocks {
            if block.sequence == self.durable {
                self.durable += 1;
            } else if block.sequence > self.durable {
                assert!(self.disordered, "nothing is stored before what came before it");
                fault = Some(format!("block {} is too early", block.sequence));
                break;
            }
        }
        IngestReport {
            ack: Some(upto(self.durable)),
            fault,
            ..IngestReport::default()
        }
    }

    /// The store answers, if it was asked.
    fn answers(&mut self) {
        if let Some(question) = self.question.take() {
            let answer = self.answer_to(question);
            self.step(Fact::Answered(answer));
        }
    }

    fn answer_to(&mut self, question: Question) -> Answer {
        let held = upto(self.durable);
        match (question, self.mood) {
            (Question::Position { epoch, .. }, mood) => {
                assert_eq!(epoch, 1);
                let busy = Refusal::new(Reason::StoreBusy, "the store is busy");
                let fails = matches!(mood, Mood::Fails | Mood::FailsLate);
                Answer::Position(if fails {
                    Err(busy)
                } else {
                    Ok((Some(held), Box::default()))
                })
            }
            (Question::Store { blocks, .. }, Mood::Works) => Answer::Stored(Ok(self.stored(&blocks))),
            (Question::Store { blocks, .. }, Mood::FailsLate) => {
                self.stored(&blocks);
                Answer::Stored(Err(StoreError::Stopped))
            }
            (Question::Store { .. }, Mood::Fails) => Answer::Stored(Err(StoreError::Stopped)),
            (Question::Store { .. }, Mood::Full) => Answer::Stored(Err(StoreError::Reserved {
                path: "store.db".into(),
                free_bytes: 0,
                kept_bytes: 1,
            })),
            (Question::Store { .. }, Mood::TooFast) => Answer::Stored(Err(StoreError::TooFast {
                source_name: "gw".to_owned(),
                bytes_per_day: 1,
                after: Duration::from_secs(600),
            })),
            (Question::Note(_), _) => Answer::Noted,
            (Question::Room, Mood::Works) => Answer::Room(Room::Yes),
            (Question::Room, Mood::Fails) => Answer::Room(Room::NotInMemory),
            (Question::Room, _) => Answer::Room(Room::NotInStore),
        }
    }

    /// What a session took in that is over is judged, by a store that works again.
    fn leaves(&mut self) {
        let answer = self.question.take().map(|question| self.answer_to(question));
        let has_room = self.asked_for_room && self.durable.is_multiple_of(2);
        let blocks = self.machine.unjudged(answer.as_ref(), has_room);
        self.stored(&blocks);
    }

    fn room(&mut self, is_there: bool) {
        if std::mem::take(&mut self.asked_for_room) {
            self.step(Fact::Room(is_there));
        }
    }

    /// Time passes, and what becomes due meanwhile is looked at when it is.
    fn later(&mut self, by: Duration) {
        let then = self.now + by;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= then) {
            self.now = due;
            self.step(Fact::TimePassed);
        }
        self.now = then;
        self.step(Fact::TimePassed);
    }

    fn happens(&mut self, happens: Happens) {
        match happens {
            Happens::Recorded(blocks) => self.recorded += blocks,
            Happens::Block => self.next_block(),
            Happens::OutOfOrder(sequence) => {
                (self.disordered, self.recorded) = (true, self.recorded.max(sequence + 1));
                self.block(sequence);
            }
            Happens::Report => {
                self.holds = self.holds.max(self.offered);
                self.report();
            }
            Happens::Noise(hello) if self.machine.reads() && self.welcomed => {
                let noise = hello.then(|| Message::Hello(Hello::default()));
                self.step(Fact::Message(Box::new(GatewayMessage { message: noise })));
                let end = self.ended.clone().map(|end| end.unwrap_err().reason);
                assert_eq!(end, Some(Reason::SessionProtocol));
            }
            Happens::Noise(_) => {}
            Happens::Takes => drop(self.takes()),
            Happens::Answer => self.answers(),
            Happens::Unasked(which) if self.question.is_none() => {
                let answer = match which % 4 {
                    0 => Answer::Noted,
                    1 => Answer::Room(Room::Yes),
                    2 => Answer::Stored(Ok(IngestReport {
                        ack: Some(upto(u64::MAX)),
                        ..IngestReport::default()
                    })),
                    _ => Answer::Position(Ok((Some(upto(u64::MAX)), Box::default()))),
                };
                self.step(Fact::Answered(answer));
            }
            Happens::Unasked(_) => {}
            Happens::Room(is_there) => self.room(is_there),
            Happens::Release => {
                self.current += 1;
                self.step(Fact::Target(Some(Wanted::at_once(mark(self.current)))));
            }
            Happens::Withdraws => {
                self.withdrawn += 1;
                self.step(Fact::Withdrawn(list(self.withdrawn)));
            }
            Happens::Store(mood) => self.mood = mood,
            Happens::Later(ms) => self.later(Duration::from_millis(ms)),
            Happens::End(ending) => {
                let was_over = self.ended.is_some();
                self.step(match ending {
                    Ending::Stopping => Fact::Stopping,
                    Ending::Replaced => Fact::Replaced,
                    Ending::Gone => Fact::Gone,
                    Ending::Broken => Fact::Ended(Some("reset".to_owned())),
                });
                assert!(was_over || self.ended.is_some());
            }
        }
    }

    /// All goes well from now on. How long it takes until the gateway has what it should, and the store what it recorded.
    fn settle(&mut self) -> Duration {
        let begun = self.now;
        self.mood = Mood::Works;
        while self.acknowledged < self.recorded || self.holds < self.current || self.knows < self.withdrawn {
            if self.ended.is_some() {
                self.connect();
            }
            self.answers();
            self.room(true);
            while self.takes() {}
            self.happens(Happens::Report);
            self.next_block();
            self.later(Duration::from_millis(50));
            assert!(self.now - begun < Duration::from_secs(3600), "it never settles");
        }
        self.now - begun
    }
}
