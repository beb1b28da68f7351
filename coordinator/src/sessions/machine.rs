//! What a gateway's session does, decided: a pure machine. Facts and the time go in; what is to be done, what is to be sent and
//! when to look again come out. It has no clock, no network and no store; [`session`](super::session) is the shell that has.
//!
//! ```text
//!              hello                 the store says up to where it has the trail
//! ─▶ greeting ──────▶ positioning ───────────────────────────────────────────────▶ standing ─▶ over
//! ```
//!
//! A session does two things that wait for nothing of each other: it gives the gateway what it [should have](Wanted), and it takes
//! the audit trail in ([`intake`]). A gateway that does not have the release is offered it; one that has it gets the order alone,
//! each order once. What goes to the gateway waits in one place each: a newer target overtakes one that was not sent yet, and an
//! acknowledgement says up to where the trail is held by then. Whoever drives a machine keeps three rules: its actions are done in
//! their order, what it asks is answered once, and a message is [taken out](Machine::message) only to be sent.

mod intake;
mod lists;

use std::time::Instant;

use bytes::Bytes;
use penstock_policy::ids::Digest;
use penstock_proto::convert::PolicyMark;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1::gateway_message::Message;
use penstock_proto::v1::{AuditAck, AuditBlock, GatewayMessage, Hello, PolicyState, TrustHeld, Upto};
use penstock_proto::withdrawn::Held;

use self::intake::Intake;
use self::lists::Lists;
use super::SessionLimits;
use super::facts::{HeldPolicy, News};
use super::wanted::{Wanted, Word};
use crate::ingest::{IngestReport, Room};
use crate::store::StoreError;
use crate::tickets::Greeting;

/// What happened.
#[derive(Debug)]
pub enum Fact {
    /// The gateway sent something.
    Message(Box<GatewayMessage>),
    /// The gateway sends no more; if its stream broke, why.
    Ended(Option<String>),
    /// The gateway takes no more.
    Gone,
    /// What this gateway should have; also if that is the same again.
    Target(Option<Wanted>),
    /// What it is to do with the release that is on trial there.
    Word(Word),
    /// How far the list of withdrawn keys goes.
    Withdrawn(Held),
    /// The answer to what was asked.
    Answered(Answer),
    /// Whether there is room in memory for the block that came last.
    Room(bool),
    /// A newer session of the same gateway stands.
    Replaced,
    /// The certificate that the gateway came with has ended.
    CertificateEnded,
    /// The coordinator stops.
    Stopping,
    /// Nothing, but it is later.
    TimePassed,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// The gateway said hello: from now on this session is the one that counts.
    Begin(Box<Hello>),
    /// Something about the gateway is to be remembered.
    Learn(News),
    /// The gateway says that it holds this ticket; once in a session, and only where it was given one.
    Hold(Bytes),
    /// The gateway gives its list of withdrawn keys, or trust bundles; each once in a session.
    Take(Box<Message>),
    /// A question, answered by [`Fact::Answered`]; there is at most one at a time.
    Ask(Question),
    /// Room in memory for a block of so many KiB, answered by [`Fact::Room`] after some patience; one at a time.
    AskRoom(u32),
    /// The session is over; `Err`: for a reason that the gateway hears.
    End(Result<(), Refusal>),
}

/// What a session asks of the store.
#[derive(Debug)]
pub enum Question {
    /// Up to where it has the trail, of a gateway that is in this epoch by itself.
    Position {
        /// By the gateway's hello; 0: it did not say.
        epoch: u64,
        /// The ticket that it shows there; `None`: its software knows none.
        ticket: Option<Bytes>,
    },
    /// To store blocks.
    Store {
        /// In their order.
        blocks: Vec<AuditBlock>,
        /// They were not asked for before, so that they cost something of the gateway's share.
        first: bool,
    },
    /// To write down that the trail waits, and why.
    Note(String),
    /// Whether there is room for the trail again.
    Room,
}

/// What the store answers.
#[derive(Debug)]
pub enum Answer {
    /// Up to where it has the trail (`None`: nothing of it), and what the gateway hears of tickets.
    Position(Result<(Option<AuditAck>, Box<Greeting>), Refusal>),
    /// What came of the blocks.
    Stored(Result<IngestReport, StoreError>),
    /// It was written down, or was not: there is nothing to be done about it.
    Noted,
    /// Whether there is room.
    Room(Room),
}

/// A message to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// The first: up to where the coordinator has the gateway's trail, and what it hears of tickets.
    Welcome(AuditAck, Box<Greeting>),
    /// The trust bundles that the gateway lacks, which held this one at its hello.
    Trust(TrustHeld),
    /// What the gateway lacks of the list of withdrawn keys, which held this at its hello.
    Withdrawn(Held),
    /// A release that the gateway does not have, with how far it may go with it.
    Offer {
        /// What of it is the gateway's.
        wanted: PolicyMark,
        /// The statement that the gateway verified last, from which it follows the others.
        verified: Option<Digest>,
    },
    /// How far it may go with the release that it has.
    Order,
    /// What becomes of the release on trial.
    Word(Word),
    /// Up to where its trail is durable here.
    Acknowledgement(AuditAck),
}

/// The session of one gateway.
#[derive(Debug)]
pub struct Machine {
    limits: SessionLimits,
    stage: Stage,
    /// What the gateway says that it holds.
    holds: HeldPolicy,
    /// What it should have.
    wanted: Option<Wanted>,
    /// That is yet to be sent.
    is_pending: bool,
    /// What it was offered last, as long as it did not report since.
    under_way: Option<PolicyMark>,
    /// What was reverted there by its last report.
    reverted: Option<Digest>,
    word: Option<Word>,
    lists: Lists,
    /// What the gateway is to hear of tickets.
    greeting: Box<Greeting>,
    /// It was given a ticket, and did not say yet that it holds it.
    may_hold: bool,
    /// The trust bundle that the gateway holds, until it was sent what it lacks.
    trust: Option<TrustHeld>,
    /// Apart: sessions are many, and most of them are quiet.
    intake: Box<Intake>,
    /// By when the gateway has to take the next message, if one waits for it.
    taken_by: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The gateway is yet to say hello.
    Greeting {
        by: Instant,
    },
    /// The store is asked up to where it has the trail.
    Positioning,
    /// The welcome waits to be sent.
    Welcoming,
    Standing,
    Over,
}

impl Machine {
    /// A gateway came, whose first message is awaited. `random`: any number, which draws the pauses.
    pub fn new(limits: SessionLimits, random: u64, now: Instant) -> Self {
        let by = now + limits.hello_timeout;
        Self {
            limits,
            stage: Stage::Greeting { by },
            holds: HeldPolicy::default(),
            wanted: None,
            is_pending: false,
            under_way: None,
            reverted: None,
            word: None,
            lists: Lists::default(),
            greeting: Box::default(),
            may_hold: false,
            trust: None,
            intake: Box::new(Intake::new(random)),
            taken_by: None,
        }
    }

    /// Takes in what happened, and says what is to be done.
    pub fn step(&mut self, now: Instant, fact: Fact) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stage == Stage::Over {
            return actions;
        }
        let end = match self.take(now, fact, &mut actions) {
            Ok(true) => self.look(now, &mut actions).err().map(Err),
            Ok(false) => Some(Ok(())),
            Err(refusal) => Some(Err(refusal)),
        };
        if let Some(end) = end {
            // Nothing more is asked by a session that is over.
            actions.retain(|action| !matches!(action, Action::Ask(_) | Action::AskRoom(_)));
            actions.push(Action::End(end));
            self.stage = Stage::Over;
        }
        actions
    }

    /// When to look again, if nothing happens before: [`Fact::TimePassed`].
    pub fn deadline(&self) -> Option<Instant> {
        let greeting = match self.stage {
            Stage::Over => return None,
            Stage::Greeting { by } => Some(by),
            Stage::Positioning | Stage::Welcoming | Stage::Standing => None,
        };
        let all = [greeting, self.taken_by, self.intake.deadline()];
        all.into_iter().flatten().min()
    }

    /// Whether the gateway's next message is to be read.
    pub fn reads(&self) -> bool {
        match self.stage {
            Stage::Greeting { .. } => true,
            Stage::Positioning | Stage::Welcoming | Stage::Over => false,
            Stage::Standing => self.intake.takes_more(),
        }
    }

    /// Room in memory that blocks take here, KiB. What they no longer take can be given back.
    pub fn room_kib(&self) -> usize {
        self.intake.room_kib()
    }

    /// Blocks that a session took in which is over, and which nobody was asked about. They can still be judged: `answer` is what came
    /// of the last question, if one was open, and `has_room` says whether the last block has room in memory.
    pub fn unjudged(&mut self, answer: Option<&Answer>, has_room: bool) -> Vec<AuditBlock> {
        self.intake.unjudged(answer, has_room)
    }

    /// Whether a message waits for the gateway.
    pub fn has_message(&self) -> bool {
        match self.stage {
            Stage::Greeting { .. } | Stage::Positioning => false,
            Stage::Welcoming => true,
            // What comes after a list waits for it, and so for its signature.
            Stage::Standing if self.lists.are_awaited() => false,
            Stage::Standing => {
                self.trust.is_some()
                    || self.lists.lacking().is_some()
                    || self.due().is_some()
                    || self.word.is_some()
                    || self.intake.acknowledges()
            }
            // What is durable may be said to the last.
            Stage::Over => self.intake.acknowledges(),
        }
    }

    /// Takes the next message out, which is then sent.
    pub fn message(&mut self, now: Instant) -> Option<Outgoing> {
        let message = self.next_message();
        self.taken_by = self.has_message().then(|| now + self.limits.send_timeout);
        message
    }

    fn next_message(&mut self) -> Option<Outgoing> {
        if self.stage == Stage::Welcoming {
            self.stage = Stage::Standing;
            let greeting = std::mem::take(&mut self.greeting);
            self.may_hold = !greeting.ticket.is_empty();
            return Some(Outgoing::Welcome(self.intake.acknowledged(), greeting));
        }
        if self.stage == Stage::Standing {
            if let Some(held) = self.trust.take() {
                return Some(Outgoing::Trust(held));
            }
            // Before a release: whose keys no longer count is known before anything is begun.
            if let Some(held) = self.lists.lacking() {
                self.lists.sent();
                return Some(Outgoing::Withdrawn(held));
            }
            if let Some(due) = self.due() {
                self.is_pending = false;
                if let Outgoing::Offer { wanted, .. } = &due {
                    self.under_way = Some(*wanted);
                }
                return Some(due);
            }
            if let Some(word) = self.word.take() {
                return Some(Outgoing::Word(word));
            }
        }
        self.has_message()
            .then(|| Outgoing::Acknowledgement(self.intake.acknowledged()))
    }

    /// Whether the session goes on after a fact.
    fn take(&mut self, now: Instant, fact: Fact, actions: &mut Vec<Action>) -> Result<bool, Refusal> {
        match fact {
            Fact::Message(message) => self.heard(message.message, actions)?,
            Fact::Ended(problem) => return self.ended(problem),
            Fact::Gone => return Ok(false),
            Fact::Target(wanted) => {
                if wanted != self.wanted {
                    self.wanted = wanted;
                    self.is_pending = true;
                    self.is_pending = self.due().is_some();
                }
            }
            Fact::Word(word) => self.word = Some(word),
            Fact::Withdrawn(ours) => self.lists.go(ours),
            Fact::Answered(Answer::Position(answer)) => {
                let (held, greeting) = answer?;
                self.positioned(held, greeting);
            }
            Fact::Answered(answer) => self.intake.answered(now, answer, actions)?,
            Fact::Room(is_there) => self.intake.room(now, is_there, actions),
            Fact::Replaced => {
                return Err(Refusal::new(
                    Reason::SessionReplaced,
                    "a newer session of this gateway took over; are there two machines with one identity?",
                ));
            }
            Fact::CertificateEnded => {
                return Err(Refusal::new(
                    Reason::CertificateEnded,
                    "the certificate that the session was opened with has ended; the gateway comes back with a newer one",
                ));
            }
            Fact::Stopping => {
                return Err(Refusal::new(Reason::Stopping, "the coordinator is stopping"));
            }
            Fact::TimePassed => {}
        }
        Ok(true)
    }

    /// Does what is due by the clock.
    fn look(&mut self, now: Instant, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        if matches!(self.stage, Stage::Greeting { by } if by <= now) {
            return Err(out_of_order("the session's first message did not come in time"));
        }
        self.intake.look(now, actions);
        if self.taken_by.is_some_and(|by| by <= now) {
            return Err(Refusal::new(
                Reason::SlowConsumer,
                "the gateway does not take what it is sent; the session ends so that others do not wait",
            ));
        }
        let taken_by = self.taken_by.unwrap_or(now + self.limits.send_timeout);
        self.taken_by = self.has_message().then_some(taken_by);
        Ok(())
    }

    fn heard(&mut self, message: Option<Message>, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        if matches!(self.stage, Stage::Greeting { .. }) {
            return self.greeted(message, actions);
        }
        match message {
            Some(Message::Policy(policy)) => {
                self.take_policy(&policy);
                actions.push(Action::Learn(News::Policy(Box::new(policy))));
            }
            Some(Message::Health(report)) => {
                if let Some(policy) = &report.policy {
                    self.take_policy(policy);
                }
                actions.push(Action::Learn(News::Report(Box::new(report))));
            }
            Some(Message::Audit(block)) => {
                actions.push(Action::Learn(News::Seen));
                self.intake.take(block, actions);
            }
            Some(Message::TicketHeld(ticket)) => {
                if std::mem::take(&mut self.may_hold) {
                    actions.push(Action::Hold(ticket));
                }
            }
            Some(given @ (Message::Withdrawn(_) | Message::Trust(_))) => {
                actions.extend(self.lists.given(given).map(|given| Action::Take(Box::new(given))));
            }
            Some(Message::Hello(_)) | None => {
                return Err(out_of_order("a session has one hello, and no empty messages"));
            }
        }
        Ok(())
    }

    fn greeted(&mut self, message: Option<Message>, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        let Some(Message::Hello(hello)) = message else {
            return Err(out_of_order(NO_HELLO));
        };
        if let Some(policy) = &hello.policy {
            self.take_policy(policy);
        }
        let epoch = hello.spool.map_or(0, |spool| spool.epoch);
        self.lists.greeted(hello.withdrawn.as_ref());
        self.trust.clone_from(&hello.trust);
        let ticket = hello.ticket.clone();
        actions.push(Action::Begin(Box::new(hello)));
        actions.push(Action::Ask(Question::Position { epoch, ticket }));
        self.stage = Stage::Positioning;
        Ok(())
    }

    fn ended(&self, problem: Option<String>) -> Result<bool, Refusal> {
        match (self.stage, problem) {
            (Stage::Greeting { .. }, None) => Err(out_of_order(NO_HELLO)),
            (Stage::Greeting { .. }, Some(problem)) => Err(out_of_order(&format!(
                "the session's first message cannot be read: {problem}"
            ))),
            _ => Ok(false),
        }
    }

    fn positioned(&mut self, held: Option<AuditAck>, greeting: Box<Greeting>) {
        if self.stage == Stage::Positioning {
            self.greeting = greeting;
            self.intake.starts(held.unwrap_or_default());
            self.stage = Stage::Welcoming;
        }
    }

    fn take_policy(&mut self, policy: &PolicyState) {
        self.holds = policy.into();
        self.under_way = None;
        let reverted = HeldPolicy::reverted(policy);
        let before = std::mem::replace(&mut self.reverted, reverted).filter(|_| self.reverted.is_none());
        // A person cleared it: where no rollout does, this session orders it again.
        let at_once = self.wanted.as_ref().filter(|wanted| wanted.order.is_none());
        self.is_pending |= before.is_some() && before == at_once.and_then(|wanted| wanted.mark.statement);
        // What waits to be offered may have come to it on another way.
        self.is_pending &= self.due().is_some();
    }

    /// What of the target is to be sent.
    fn due(&self) -> Option<Outgoing> {
        let wanted = self.wanted.as_ref().filter(|_| self.is_pending)?;
        let mark = wanted.mark;
        let offer = || Outgoing::Offer {
            wanted: mark,
            verified: self.holds.trusted.map(|(_, digest)| digest),
        };
        let Some(order) = &wanted.order else {
            return self.holds.lacks(&mark).then(offer);
        };
        let is = |held: Option<PolicyMark>| held.is_some_and(|held| held.is(&mark));
        let is_in_force = is(self.holds.effective);
        if is_in_force && order.upto == Upto::Active {
            return None;
        }
        let effective = self.holds.effective;
        // One that is ahead would take nothing with a lower number; health says so.
        let is_ahead = effective.is_some_and(|held| held.revision > mark.revision);
        let has_it = is_in_force || is(self.holds.staged) || is(self.under_way);
        match has_it || !wanted.offers {
            true => Some(Outgoing::Order),
            false => (!is_ahead).then(offer),
        }
    }
}

const NO_HELLO: &str = "the first message of a session is a hello";

fn out_of_order(what: &str) -> Refusal {
    Refusal::new(Reason::SessionProtocol, what)
}

#[cfg(test)]
mod tests;
