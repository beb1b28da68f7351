//! What each actor of the random world does in its turn, and what the machines want done.

use std::collections::VecDeque;

use penstock_inspect::mqtt::packet::kind;

use super::schedule::Actor;
use super::{Link, World};
use crate::bridge::delivery::machine as delivery;
use crate::bridge::intake::machine as intake;
use crate::bridge::side::line::Action;
use crate::bridge::tests::brokers::packets;

impl World {
    /// What the machines want done is done.
    pub(super) fn carry_out(&mut self) {
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
    pub(super) fn act(&mut self, actor: Actor) -> bool {
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
                    agent
                        .intake
                        .take(intake::Fact::Own(intake::Durable(owed)), self.now);
                }
            }
            Actor::Keeper => return agent.keep(&mut self.disk, false, self.now),
            Actor::DeliveryHearsOfDepth => {
                let next = self.disk.state.next;
                agent
                    .delivery
                    .take(delivery::Fact::Own(delivery::QueueFact::Depth(next)), self.now);
                return None;
            }
            Actor::DeliveryHearsOfQueue => {
                let (connection, answer) = agent.answers.pop_front()?;
                if connection == agent.delivery_connection {
                    agent.delivery.take(
                        delivery::Fact::Own(delivery::QueueFact::Answered(answer)),
                        self.now,
                    );
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
                let heard = up.pop_front()?;
                assert!(
                    !self.revoked || heard.kind != kind::PUBLISH,
                    "given although it is revoked"
                );
                down.extend(self.receiver.hear(&heard, self.later));
            }
        }
        Some(())
    }
}
