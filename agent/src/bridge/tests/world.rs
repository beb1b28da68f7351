//! A whole bridge without network, disk and clock: the three machines between two brokers, on a disk that fails at will,
//! in an order that a schedule says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;

use super::brokers::{Heard, Published, Receiver, Said, Source, packets};
use crate::bridge::connection::ConnectionError;
use crate::bridge::delivery::machine::{self as delivery, DeliveryMachine};
use crate::bridge::intake::machine::{self as intake, IntakeMachine};
use crate::bridge::keeper::machine::{COMMIT_BYTES, KeeperMachine};
use crate::bridge::keeper::{Ack, Answer, IntakeEntry, Question};
use crate::bridge::layout::{Message, QueueRecord, Snapshot};
use crate::bridge::rules::PublicationRules;
use crate::bridge::side::line::{Action, Moment};

/// The largest payload, bytes.
pub(super) const PAYLOAD_BYTES_MAX: usize = 40_000;

/// Who does something next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    SourceSends,
    SourceHears,
    IntakeReads,
    IntakeHandsOver,
    IntakeHearsOfDisk,
    Keeper,
    DeliveryHearsOfQueue,
    DeliveryReads,
    DeliveryHearsOfDepth,
    ReceiverHears,
    SourceConnects,
    ReceiverConnects,
}

pub(super) const ACTORS: [Actor; 12] = [
    Actor::SourceConnects,
    Actor::ReceiverConnects,
    Actor::SourceSends,
    Actor::SourceHears,
    Actor::IntakeReads,
    Actor::IntakeHandsOver,
    Actor::Keeper,
    Actor::IntakeHearsOfDisk,
    Actor::DeliveryHearsOfDepth,
    Actor::DeliveryHearsOfQueue,
    Actor::DeliveryReads,
    Actor::ReceiverHears,
];

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    From,
    To,
}

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Publish {
        qos: u8,
        bytes: usize,
        permitted: bool,
    },
    Do(Actor, u8),
    /// Everybody does what there is to do, so often.
    Rounds(u8),
    /// A connection breaks; the broker still heard so many packets.
    Break(Side, u8),
    /// The attempt at a connection fails.
    Refuse(Side),
    /// The receiving broker says again what it said last.
    Repeat,
    /// The agent is killed, and begins again from its disk.
    Crash,
    /// A broker loses the bridge's session.
    Forget(Side),
    Seconds(u8),
    /// From now on the disk takes nothing, no messages, or all.
    Disk(DiskHealth),
    /// From now on the receiving broker takes no publication, or takes them again.
    Later(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskHealth {
    Fails,
    IsFull,
    Works,
}

#[derive(Debug, Default)]
enum Link<T> {
    #[default]
    Closed,
    Opening {
        clean_start: bool,
    },
    Open {
        /// To the broker.
        up: VecDeque<Heard>,
        /// From the broker.
        down: VecDeque<T>,
    },
}

/// The queue, as far as its promises go.
struct Disk {
    health: DiskHealth,
    messages: BTreeMap<u64, Message>,
    durable: Snapshot,
    /// As the running agent sees it: what is done is not written at once.
    state: Snapshot,
}

struct Agent {
    intake: IntakeMachine,
    keeper: KeeperMachine<u32>,
    delivery: DeliveryMachine,
    /// Of the connection that stands, or stood last.
    intake_connection: u32,
    delivery_connection: u32,
    batch: Option<(u32, Vec<IntakeEntry>)>,
    durable: VecDeque<(u32, Vec<Ack>)>,
    requests: VecDeque<(u32, Question)>,
    answers: VecDeque<(u32, Answer)>,
    shed: u64,
}

pub(super) struct World {
    now: Moment,
    rules: Arc<PublicationRules>,
    pub source: Source,
    pub receiver: Receiver,
    disk: Disk,
    agent: Agent,
    from: Link<Said>,
    to: Link<Said>,
    later: bool,
    published: usize,
    pub crashes: usize,
}

impl Disk {
    fn commit(&mut self, records: &mut [QueueRecord]) -> Result<(), String> {
        let message = |record: &QueueRecord| matches!(record, QueueRecord::Message(_));
        if records.is_empty() {
            return Ok(());
        }
        match self.health {
            DiskHealth::Fails => return Err("the disk fails".to_owned()),
            DiskHealth::IsFull if records.iter().any(message) => return Err("the disk is full".to_owned()),
            DiskHealth::IsFull | DiskHealth::Works => {}
        }
        for record in records {
            if let QueueRecord::Message(message) = record {
                message.seq = self.durable.next;
                self.messages.insert(message.seq, message.clone());
            }
            for state in [&mut self.durable, &mut self.state] {
                apply(state, record);
            }
        }
        Ok(())
    }
}

fn apply(state: &mut Snapshot, record: &QueueRecord) {
    match record {
        QueueRecord::Message(message) => {
            state.next += 1;
            if message.origin != 0 {
                state.unreleased.insert(message.origin);
            }
        }
        QueueRecord::Released(identifier) => {
            state.unreleased.remove(identifier);
        }
        QueueRecord::Received(seq) => {
            state.received.insert(*seq);
        }
        QueueRecord::Finished(seq) => {
            state.finished = state.finished.max(*seq);
            state.received.retain(|received| received >= seq);
        }
        QueueRecord::SenderForgot => state.unreleased.clear(),
        QueueRecord::ReceiverForgot => state.received.clear(),
        QueueRecord::Snapshot(_) => {}
    }
}

impl Agent {
    fn new(rules: &Arc<PublicationRules>, disk: &Disk, now: Moment) -> Self {
        Self {
            intake: IntakeMachine::new(rules.clone(), None, now.instant),
            keeper: KeeperMachine::new(disk.state.finished),
            delivery: DeliveryMachine::new(rules.clone(), false, disk.state.next, now.instant),
            intake_connection: 0,
            delivery_connection: 0,
            batch: None,
            durable: VecDeque::new(),
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            shed: 0,
        }
    }

    /// A broker said that the session is new, and a crash now would leave a disk that does not know.
    fn owes_record(&self) -> bool {
        let forgot = |entry: &IntakeEntry| matches!(entry, IntakeEntry::Forgot);
        self.intake.owes_record()
            || self.delivery.owes_record()
            || self.keeper.owes_record()
            || self
                .batch
                .as_ref()
                .is_some_and(|(_, entries)| entries.iter().any(forgot))
    }
}

impl World {
    pub(super) fn new() -> Self {
        let permitted = MqttOperation::Publish {
            topics: vec!["works/#".to_owned()],
            qos: NumberRange { first: 0, last: 2 },
            retain: false,
        };
        let rules = Arc::new(PublicationRules::compile(&[permitted]).unwrap());
        let now = Moment {
            instant: Instant::now(),
            ms: 1_700_000_000_000,
        };
        let state = Snapshot {
            next: 1,
            finished: 1,
            ..Snapshot::default()
        };
        let disk = Disk {
            health: DiskHealth::Works,
            messages: BTreeMap::new(),
            durable: state.clone(),
            state,
        };
        let agent = Agent::new(&rules, &disk, now);
        let mut world = Self {
            now,
            rules,
            source: Source::default(),
            receiver: Receiver::default(),
            disk,
            agent,
            from: Link::Closed,
            to: Link::Closed,
            later: false,
            published: 0,
            crashes: 0,
        };
        world.time_passes(Duration::ZERO);
        world
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish {
                qos,
                bytes,
                permitted,
            } => self.publish(qos, bytes, permitted),
            Step::Do(actor, times) => {
                for _ in 0..times {
                    self.act(actor);
                }
            }
            Step::Rounds(times) => {
                for _ in 0..times {
                    self.round();
                }
            }
            Step::Break(side, heard) => {
                for _ in 0..heard {
                    self.act(match side {
                        Side::From => Actor::SourceHears,
                        Side::To => Actor::ReceiverHears,
                    });
                }
                self.break_off(side);
            }
            Step::Refuse(side) => self.refuse(side),
            Step::Repeat => {
                if let Link::Open { down, .. } = &mut self.to
                    && let Some(last) = down.back().cloned()
                {
                    down.push_back(last);
                }
            }
            Step::Crash => self.crash(),
            Step::Forget(side) => {
                self.break_off(side);
                match side {
                    Side::From => self.source.forget(),
                    Side::To => self.receiver.forget(),
                }
            }
            Step::Seconds(seconds) => self.time_passes(Duration::from_secs(seconds.into())),
            Step::Disk(health) => self.disk.health = health,
            Step::Later(later) => self.later = later,
        }
        self.within_bounds();
    }

    fn publish(&mut self, qos: u8, bytes: usize, permitted: bool) {
        let number = self.published;
        self.published += 1;
        let mut payload = format!("{number} ").into_bytes();
        payload.resize(payload.len().max(bytes), b'x');
        let message = Published {
            number,
            qos,
            permitted,
            payload,
        };
        let connected = matches!(self.from, Link::Open { .. });
        self.source.publish(message, connected);
    }

    fn within_bounds(&self) {
        let message = (PAYLOAD_BYTES_MAX + 1000) as u64;
        assert!(self.agent.intake.pending_bytes() <= intake::BATCH_BYTES + message);
        assert!(self.agent.keeper.bytes() <= COMMIT_BYTES + intake::BATCH_BYTES + message);
        assert!(self.agent.delivery.under_way() <= usize::from(super::brokers::RECEIVE_MAXIMUM));
        let of_this = |(connection, _): &&(u32, Answer)| *connection == self.agent.delivery_connection;
        assert!(self.agent.answers.iter().filter(of_this).count() <= delivery::ANSWERS_MAX);
    }

    /// Everybody does one thing. `true`: somebody did.
    fn round(&mut self) -> bool {
        let mut did = false;
        for actor in ACTORS {
            did |= self.act(actor);
        }
        did
    }

    /// Nothing fails any more: how long until all is done, in virtual time?
    pub(super) fn settle(&mut self) -> Option<Duration> {
        self.disk.health = DiskHealth::Works;
        self.later = false;
        let begun = self.now.instant;
        while self.now.instant - begun < Duration::from_secs(300) {
            while self.round() {}
            let empty = self.disk.state.finished == self.disk.state.next;
            if empty && self.source.is_idle() && !self.agent.keeper.is_stuck() {
                return Some(self.now.instant - begun);
            }
            let deadlines = [self.agent.intake.deadline(), self.agent.delivery.deadline()];
            let next = deadlines.into_iter().flatten().min()?;
            self.time_passes(next.saturating_duration_since(self.now.instant));
        }
        None
    }

    fn time_passes(&mut self, span: Duration) {
        self.now.instant += span;
        self.now.ms += u64::try_from(span.as_millis()).unwrap();
        self.agent.intake.take(intake::Fact::TimePassed, self.now);
        self.agent.delivery.take(delivery::Fact::TimePassed, self.now);
        if !span.is_zero() {
            self.keep(true);
        }
        self.carry_out();
    }

    fn break_off(&mut self, side: Side) {
        let link = match side {
            Side::From => &mut self.from,
            Side::To => &mut self.to,
        };
        if !matches!(link, Link::Open { .. }) {
            return;
        }
        *link = Link::Closed;
        match side {
            Side::From => {
                self.source.disconnected();
                let broke = intake::Fact::Broke(ConnectionError::Closed);
                self.agent.intake.take(broke, self.now);
            }
            Side::To => {
                let broke = delivery::Fact::Broke(ConnectionError::Closed);
                self.agent.delivery.take(broke, self.now);
            }
        }
        self.carry_out();
    }

    fn refuse(&mut self, side: Side) {
        let (outcome, random) = (Err(ConnectionError::Refused(0x88)), 7);
        match side {
            Side::From if matches!(self.from, Link::Opening { .. }) => {
                self.from = Link::Closed;
                let opened = intake::Fact::Opened { outcome, random };
                self.agent.intake.take(opened, self.now);
            }
            Side::To if matches!(self.to, Link::Opening { .. }) => {
                self.to = Link::Closed;
                let opened = delivery::Fact::Opened { outcome, random };
                self.agent.delivery.take(opened, self.now);
            }
            _ => {}
        }
        self.carry_out();
    }

    fn crash(&mut self) {
        // A broker's word that its session is new is not yet on disk: see the bridge's own list of promises.
        if self.agent.owes_record() {
            return;
        }
        self.crashes += 1;
        self.from = Link::Closed;
        self.to = Link::Closed;
        self.source.disconnected();
        self.disk.state = self.disk.durable.clone();
        self.agent = Agent::new(&self.rules, &self.disk, self.now);
        self.time_passes(Duration::ZERO);
    }

    /// What the machines want done is done.
    fn carry_out(&mut self) {
        while let Some(action) = self.agent.intake.action() {
            match action {
                Action::Connect { clean_start } => {
                    self.agent.intake_connection += 1;
                    self.from = Link::Opening { clean_start };
                }
                Action::Send(bytes) => {
                    if let Link::Open { up, .. } = &mut self.from {
                        up.extend(packets(&bytes));
                    }
                }
                Action::Close(_) => {
                    self.from = Link::Closed;
                    self.source.disconnected();
                }
                Action::Report(_) | Action::Own(_) => {}
            }
        }
        while let Some(action) = self.agent.delivery.action() {
            match action {
                Action::Connect { clean_start } => {
                    self.agent.delivery_connection += 1;
                    self.to = Link::Opening { clean_start };
                }
                Action::Send(bytes) => {
                    if let Link::Open { up, .. } = &mut self.to {
                        up.extend(packets(&bytes));
                        self.agent.delivery.take(delivery::Fact::Written, self.now);
                    }
                }
                Action::Close(_) => self.to = Link::Closed,
                Action::Report(_) => {}
                Action::Own(question) => {
                    let connection = self.agent.delivery_connection;
                    self.agent.requests.push_back((connection, question));
                }
            }
        }
        assert!(!self.agent.intake.is_over() && !self.agent.delivery.is_over());
    }

    /// One thing of somebody's. `false`: there is nothing to do.
    fn act(&mut self, actor: Actor) -> bool {
        let did = self.acts(actor).is_some();
        self.carry_out();
        did
    }

    fn acts(&mut self, actor: Actor) -> Option<()> {
        let agent = &mut self.agent;
        match actor {
            Actor::SourceConnects => {
                let Link::Opening { .. } = self.from else {
                    return None;
                };
                let (welcome, down) = self.source.connect();
                let up = VecDeque::new();
                self.from = Link::Open { up, down };
                let (outcome, random) = (Ok(welcome), 11);
                agent
                    .intake
                    .take(intake::Fact::Opened { outcome, random }, self.now);
            }
            Actor::ReceiverConnects => {
                let Link::Opening { clean_start } = self.to else {
                    return None;
                };
                let (up, down) = (VecDeque::new(), VecDeque::new());
                self.to = Link::Open { up, down };
                let (outcome, random) = (Ok(self.receiver.connect(clean_start)), 13);
                agent
                    .delivery
                    .take(delivery::Fact::Opened { outcome, random }, self.now);
            }
            Actor::SourceSends => {
                let Link::Open { down, .. } = &mut self.from else {
                    return None;
                };
                down.push_back(self.source.send()?);
            }
            Actor::SourceHears => {
                let Link::Open { up, down } = &mut self.from else {
                    return None;
                };
                down.extend(self.source.hear(&up.pop_front()?));
                self.acknowledged_is_durable();
            }
            Actor::IntakeReads => {
                let Link::Open { down, .. } = &mut self.from else {
                    return None;
                };
                if !agent.intake.listens() {
                    return None;
                }
                let said = down.pop_front()?;
                agent
                    .intake
                    .take(intake::Fact::Packet(said.as_packet()), self.now);
            }
            Actor::IntakeHandsOver => {
                if agent.batch.is_some() || !agent.intake.has_entries() {
                    return None;
                }
                agent.batch = Some((agent.intake_connection, agent.intake.hand_over()));
            }
            Actor::IntakeHearsOfDisk => {
                let (connection, owed) = agent.durable.pop_front()?;
                if connection == agent.intake_connection {
                    agent.intake.take(intake::Fact::Durable(owed), self.now);
                }
            }
            Actor::Keeper => return self.keep(false),
            Actor::DeliveryHearsOfDepth => {
                let next = self.disk.state.next;
                agent.delivery.take(delivery::Fact::Depth(next), self.now);
                return None;
            }
            Actor::DeliveryHearsOfQueue => {
                let (connection, answer) = agent.answers.pop_front()?;
                if connection == agent.delivery_connection {
                    agent.delivery.take(delivery::Fact::Answered(answer), self.now);
                }
            }
            Actor::DeliveryReads => {
                let Link::Open { down, .. } = &mut self.to else {
                    return None;
                };
                let said = down.pop_front()?;
                agent
                    .delivery
                    .take(delivery::Fact::Packet(said.as_packet()), self.now);
            }
            Actor::ReceiverHears => {
                let Link::Open { up, down } = &mut self.to else {
                    return None;
                };
                down.extend(self.receiver.hear(&up.pop_front()?, self.later));
            }
        }
        Some(())
    }

    /// The keeper's turn, as its shell takes it; `tick`: positions are to be written though nothing else is.
    fn keep(&mut self, tick: bool) -> Option<()> {
        let agent = &mut self.agent;
        if !agent.keeper.is_stuck()
            && let Some((connection, entries)) = agent.batch.take()
        {
            agent
                .keeper
                .take(entries, connection, &self.disk.state.unreleased);
        } else if agent.requests.is_empty() && !agent.keeper.is_stuck() && !tick {
            return None;
        }
        let requests = std::mem::take(&mut agent.requests);
        let questions = requests.iter().map(|(_, question)| question);
        let mut commit = agent.keeper.commit(questions, tick);
        let (owed, recorded) = match self.disk.commit(&mut commit.records) {
            Ok(()) => (agent.keeper.kept(&commit, self.now.instant), true),
            Err(problem) => {
                let (owed, shed, mut positions) = agent.keeper.not_kept(commit, problem, self.now.instant);
                agent.shed += shed.map_or(0, |shed| shed.count);
                let recorded = self.disk.commit(&mut positions).is_ok();
                if recorded {
                    agent.keeper.positions_kept();
                }
                (owed, recorded)
            }
        };
        let finished = if recorded {
            agent.keeper.finished_written()
        } else {
            agent.keeper.finished()
        };
        self.disk.state.finished = self.disk.state.finished.max(finished);
        self.disk.state.received.retain(|received| *received >= finished);
        agent.durable.extend(owed);
        for (connection, question) in requests {
            let state = &self.disk.state;
            let answer = match question {
                Question::Read { from, .. } => {
                    // A few at a time.
                    let messages = self.disk.messages.range(from..).take(3);
                    Answer::Read(messages.map(|(_, message)| message.clone()).collect())
                }
                Question::Received(seq) => Answer::Recorded(seq),
                Question::Forgot if recorded || state.received.is_empty() => Answer::Forgotten,
                Question::Forgot => Answer::NotForgotten,
                Question::State => Answer::State(state.clone()),
                Question::Finished(_) => continue,
            };
            agent.answers.push_back((connection, answer));
        }
        Some(())
    }

    /// What the bridge acknowledges is on its disk, or permitted by nothing.
    fn acknowledged_is_durable(&self) {
        let numbers = self.disk.messages.values().map(|message| {
            let number = message.payload.split(|byte| *byte == b' ').next().unwrap();
            std::str::from_utf8(number).unwrap().parse::<usize>().unwrap()
        });
        let kept: std::collections::BTreeSet<_> = numbers.collect();
        for message in &self.source.accepted {
            if message.permitted && self.source.acknowledged.contains(&message.number) {
                assert!(
                    kept.contains(&message.number),
                    "{} is acknowledged and not on disk",
                    message.number
                );
            }
        }
    }
}
