//! A whole bridge without network, disk and clock: the three machines between two brokers, on a disk that fails at will,
//! in an order that a schedule says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;

use super::brokers::{Heard, Published, Receiver, Said, Source};
use crate::bridge::connection::ConnectionError;
use crate::bridge::delivery::machine as delivery;
use crate::bridge::intake::machine as intake;
use crate::bridge::keeper::Answer;
use crate::bridge::keeper::machine::COMMIT_BYTES;
use crate::bridge::rules::PublicationRules;
use crate::bridge::side::line::Moment;

mod actors;
mod agent;
mod disk;
mod schedule;

use agent::Agent;
use disk::Disk;
use schedule::Actor;
pub(super) use schedule::{ACTORS, DiskHealth, Side, Step};

/// The largest payload, bytes.
pub(super) const PAYLOAD_BYTES_MAX: usize = 40_000;

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
    /// The policy in force permits nothing of what is published.
    pub revoked: bool,
    /// What has a lower number may have met a policy that did not permit it.
    pub doubtful_below: usize,
}

/// What the policy permits under this topic.
fn rules(topic: &str) -> Arc<PublicationRules> {
    let permitted = MqttOperation::Publish {
        topics: vec![topic.to_owned()],
        qos: NumberRange { first: 0, last: 2 },
        retain: false,
    };
    Arc::new(PublicationRules::compile(&[permitted]).unwrap())
}

impl World {
    pub(super) fn new() -> Self {
        let rules = rules("works/#");
        let now = Moment {
            instant: Instant::now(),
            ms: 1_700_000_000_000,
        };
        let disk = Disk::new();
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
            revoked: false,
            doubtful_below: 0,
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
            Step::Permit(permitted) => self.permit(permitted),
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
            self.agent.keep(&mut self.disk, true, self.now);
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

    /// Another policy comes into force: the bridge starts again over its queue, with other rules.
    fn permit(&mut self, permitted: bool) {
        if self.agent.delivery.owes_record() || self.revoked != permitted {
            return;
        }
        self.revoked = !permitted;
        self.doubtful_below = self.published;
        self.rules = rules(if permitted { "works/#" } else { "works/b" });
        self.crash();
    }

    fn crash(&mut self) {
        // The receiving broker's word that its session is new is not yet on disk: see the bridge's own list of promises.
        if self.agent.delivery.owes_record() {
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

    /// What the bridge acknowledges is on its disk, or permitted by nothing.
    fn acknowledged_is_durable(&self) {
        let numbers = self.disk.messages.values().map(|message| {
            let number = message.payload.split(|byte| *byte == b' ').next().unwrap();
            std::str::from_utf8(number).unwrap().parse::<usize>().unwrap()
        });
        let kept: std::collections::BTreeSet<_> = numbers.collect();
        for message in &self.source.accepted {
            let is_permitted = message.permitted && !self.revoked && message.number >= self.doubtful_below;
            if is_permitted && self.source.acknowledged.contains(&message.number) {
                assert!(
                    kept.contains(&message.number),
                    "{} is acknowledged and not on disk",
                    message.number
                );
            }
        }
    }
}
