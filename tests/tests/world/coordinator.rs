//! The coordinator: a real session machine for each connection, over a store that is slow, fails, and is cut off amid what it does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use penstock_coordinator::ingest::{IngestReport, Room};
use penstock_coordinator::sessions::machine::{Action, Answer, Fact, Machine, Outgoing, Question};
use penstock_coordinator::sessions::{GatewayFacts, News, SessionLimits, Wanted};
use penstock_coordinator::store::StoreError;
use penstock_proto::audit::{ChainError, Head, read_body};
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::{AuditAck, AuditBlock, GatewayMessage, Welcome};

use super::chance::Chance;
use super::plant;
use super::wire::{ToGateway, Wire};

/// How the store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// For now: it is tried again.
    Passing,
    /// It has no room.
    NoRoom,
}

/// What is durable of one gateway's trail.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    pub(crate) head: Option<Head>,
    pub(crate) blocks: Vec<AuditBlock>,
    /// What did not fit.
    pub(crate) faults: Vec<String>,
}

struct Session {
    gateway: usize,
    machine: Machine,
    question: Option<(Duration, Question)>,
    /// An answer about room in memory.
    room: Option<bool>,
    offers: Option<u64>,
}

pub(crate) struct Coordinator {
    base: Instant,
    chance: Chance,
    pub(crate) trails: Vec<Trail>,
    sessions: BTreeMap<u64, Session>,
    /// The newest release, by its number; 0: none.
    pub(crate) current: u64,
    pub(crate) down_until: Duration,
    pub(crate) fails: Option<(Failure, Duration)>,
    /// What is known of each gateway.
    pub(crate) facts: Vec<GatewayFacts>,
    /// The session of each that counts.
    standing: Vec<u64>,
    /// Offers that are older, or that nobody signed, go out beside the true ones.
    pub(crate) lies: bool,
}

impl Coordinator {
    pub(crate) fn new(base: Instant, seed: u64) -> Self {
        Self {
            base,
            chance: Chance::new(seed),
            trails: (0..plant::GATEWAYS).map(|_| Trail::default()).collect(),
            sessions: BTreeMap::new(),
            current: 0,
            down_until: Duration::ZERO,
            fails: None,
            facts: vec![GatewayFacts::default(); plant::GATEWAYS],
            standing: vec![0; plant::GATEWAYS],
            lies: false,
        }
    }

    pub(crate) fn is_up(&self, now: Duration) -> bool {
        now >= self.down_until
    }

    pub(crate) fn accept(&mut self, wire: u64, gateway: usize, now: Duration) {
        let random = self.chance.number();
        let session = Session {
            gateway,
            machine: Machine::new(SessionLimits::default(), random, self.base + now),
            question: None,
            room: None,
            offers: Some(self.current),
        };
        self.sessions.insert(wire, session);
    }

    /// Another release is current.
    pub(crate) fn publish(&mut self, revision: u64) {
        self.current = revision;
        for session in self.sessions.values_mut() {
            session.offers = Some(revision);
        }
    }

    /// It is killed; what the store was doing is done or not.
    pub(crate) fn crash(&mut self, wires: &mut BTreeMap<u64, Wire>, now: Duration, down_for: Duration) {
        for (wire, session) in std::mem::take(&mut self.sessions) {
            if let Some((_, question)) = session.question
                && self.chance.once_in(2)
            {
                let _ = self.answer(session.gateway, question, now);
            }
            if let Some(wire) = wires.get_mut(&wire) {
                wire.tear(&mut self.chance);
                wire.coordinator_left = true;
            }
        }
        self.down_until = now + down_for;
    }

    /// When something is to be done.
    pub(crate) fn next(&self, wires: &BTreeMap<u64, Wire>) -> Option<Duration> {
        let all = self.sessions.iter().flat_map(|(id, session)| {
            let wire = &wires[id];
            let reads = session.machine.reads();
            let at_once = session.room.is_some()
                || session.offers.is_some()
                || wire.is_read_out()
                || (session.machine.has_message() && wire.has_room_down());
            let deadline = session.machine.deadline();
            [
                deadline.map(|deadline| deadline.saturating_duration_since(self.base)),
                session.question.as_ref().map(|(due, _)| *due),
                wire.next_up().filter(|_| reads),
                at_once.then_some(Duration::ZERO),
            ]
        });
        all.flatten().min()
    }

    /// Does what is due.
    pub(crate) fn advance(&mut self, wires: &mut BTreeMap<u64, Wire>, now: Duration) {
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        for id in ids {
            while let Some(fact) = self.fact(id, wires, now) {
                self.step(id, fact, wires, now);
            }
        }
    }

    fn fact(&mut self, id: u64, wires: &mut BTreeMap<u64, Wire>, now: Duration) -> Option<Fact> {
        let (session, wire) = (self.sessions.get_mut(&id)?, wires.get_mut(&id)?);
        if let Some(revision) = session.offers.take() {
            let release = plant::releases()[..revision as usize].last();
            return Some(Fact::Target(
                release.map(|release| Wanted::at_once(release.mark(session.gateway))),
            ));
        }
        if let Some(room) = session.room.take() {
            return Some(Fact::Room(room));
        }
        if let Some((_, question)) = session.question.take_if(|(due, _)| *due <= now) {
            let gateway = session.gateway;
            return Some(Fact::Answered(self.answer(gateway, question, now)));
        }
        if session.machine.reads()
            && let Some(message) = wire.receive_up(now)
        {
            return Some(Fact::Message(Box::new(GatewayMessage {
                message: Some(message),
            })));
        }
        if wire.is_read_out() {
            return Some(match session.machine.reads() {
                true => Fact::Ended(None),
                false => Fact::Gone,
            });
        }
        if session.machine.has_message()
            && wire.has_room_down()
            && let Some(message) = session.machine.message(self.base + now)
        {
            let gateway = session.gateway;
            for message in self.written(gateway, message) {
                wire.send_down(ToGateway::Message(message), now, &mut self.chance);
            }
            return Some(Fact::TimePassed);
        }
        let due = session.machine.deadline().is_some_and(|at| at <= self.base + now);
        due.then_some(Fact::TimePassed)
    }

    fn step(&mut self, id: u64, fact: Fact, wires: &mut BTreeMap<u64, Wire>, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let gateway = session.gateway;
        for action in session.machine.step(self.base + now, fact) {
            match action {
                Action::Begin(hello) => {
                    self.replace(id, gateway, wires, now);
                    self.standing[gateway] = id;
                    self.learn(id, gateway, &News::Hello(hello));
                }
                Action::Learn(news) => self.learn(id, gateway, &news),
                Action::Ask(question) => {
                    let due = now + Duration::from_millis(1 + self.chance.below(400));
                    self.session(id, |session| session.question = Some((due, question)));
                }
                Action::AskRoom(_) => {
                    let is_there = self.fails.is_none() || !self.chance.once_in(10);
                    self.session(id, |session| session.room = Some(is_there));
                }
                // Here a key has one user each, and no tickets are given.
                Action::Hold(_) | Action::Take(_) => {}
                Action::End(end) => {
                    self.end(id, end.err().and_then(|refusal| refusal.retry_after), wires, now)
                }
            }
        }
    }

    fn learn(&mut self, id: u64, gateway: usize, news: &News) {
        if self.standing[gateway] == id {
            self.facts[gateway].learn(news, 1);
        }
    }

    fn session(&mut self, id: u64, change: impl FnOnce(&mut Session)) {
        if let Some(session) = self.sessions.get_mut(&id) {
            change(session);
        }
    }

    /// A new session of a gateway ends the one before.
    fn replace(&mut self, id: u64, gateway: usize, wires: &mut BTreeMap<u64, Wire>, now: Duration) {
        let older: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(other, session)| **other != id && session.gateway == gateway)
            .map(|(other, _)| *other)
            .collect();
        for other in older {
            self.step(other, Fact::Replaced, wires, now);
        }
    }

    fn end(
        &mut self,
        id: u64,
        retry_after: Option<Duration>,
        wires: &mut BTreeMap<u64, Wire>,
        now: Duration,
    ) {
        let Some(mut session) = self.sessions.remove(&id) else {
            return;
        };
        let Some(wire) = wires.get_mut(&id) else { return };
        // What is durable may be said to the last.
        while wire.has_room_down()
            && let Some(message) = session.machine.message(self.base + now)
        {
            for message in self.written(session.gateway, message) {
                wire.send_down(ToGateway::Message(message), now, &mut self.chance);
            }
        }
        wire.send_down(ToGateway::End(retry_after), now, &mut self.chance);
        wire.coordinator_left = true;
    }

    fn written(&mut self, gateway: usize, message: Outgoing) -> Vec<Down> {
        match message {
            Outgoing::Welcome(held, _) => vec![Down::Welcome(Welcome {
                coordinator: "c-1".to_owned(),
                time_ms: 1,
                health_interval_ms: 10_000,
                audit: Some(held),
                ..Welcome::default()
            })],
            Outgoing::Offer { wanted, verified } => {
                // One of a release that is not current any more is not sent: the one that is follows.
                if wanted.revision.0 != self.current {
                    return Vec::new();
                }
                let mut offers = vec![Down::Offer(plant::offer(gateway, self.current, verified))];
                if self.lies {
                    let older = 1 + self.chance.below(self.current);
                    let parent = plant::releases().get(self.current as usize - 1);
                    offers.insert(0, Down::Offer(plant::forged(gateway, parent)));
                    offers.push(Down::Offer(plant::offer(gateway, older, verified)));
                }
                offers
            }
            Outgoing::Order | Outgoing::Word(_) | Outgoing::Withdrawn(_) | Outgoing::Trust(_) => Vec::new(),
            Outgoing::Acknowledgement(held) => vec![Down::AuditAck(held)],
        }
    }

    fn answer(&mut self, gateway: usize, question: Question, now: Duration) -> Answer {
        self.fails.take_if(|(_, until)| *until <= now);
        let failure = self.fails.map(|(failure, _)| failure);
        let trail = &mut self.trails[gateway];
        match question {
            Question::Position { .. } => Answer::Position(Ok((trail.head.map(acknowledge), Box::default()))),
            Question::Store { blocks, .. } => Answer::Stored(match failure {
                Some(Failure::Passing) => Err(StoreError::Conflict {
                    key: "trail".to_owned(),
                    found: None,
                }),
                Some(Failure::NoRoom) => Err(StoreError::Reserved {
                    path: PathBuf::from("coordinator.db"),
                    free_bytes: 0,
                    kept_bytes: 1,
                }),
                None => Ok(trail.store(blocks)),
            }),
            Question::Note(_) => Answer::Noted,
            Question::Room => Answer::Room(match failure {
                Some(_) => Room::NotInStore,
                None => Room::Yes,
            }),
        }
    }
}

impl Trail {
    fn store(&mut self, blocks: Vec<AuditBlock>) -> IngestReport {
        let (mut events, mut fault) = (0, None);
        for block in blocks {
            match Head::accept(self.head.as_ref(), &block) {
                Ok(accepted) => {
                    if accepted.missing > 0 {
                        self.faults
                            .push(format!("{} blocks are missing", accepted.missing));
                    }
                    events += read_body(&block.body).unwrap().events.len() as u64;
                    self.head = Some(accepted.head);
                    self.blocks.push(block);
                }
                Err(ChainError::Held { .. }) => {}
                Err(error) => {
                    fault = Some(error.to_string());
                    break;
                }
            }
        }
        IngestReport {
            ack: self.head.map(acknowledge),
            events,
            fault,
            seals: None,
        }
    }
}

fn acknowledge(head: Head) -> AuditAck {
    AuditAck {
        trails: None,
        epoch: head.epoch,
        next_sequence: head.next_sequence,
        digest: head.digest.to_vec().into(),
        witness: None,
    }
}
