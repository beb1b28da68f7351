//! The link of a gateway: attempts at a connection, and the session on one, until it ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use penstock_agent::audit::record;
use penstock_agent::link::session::machine::{Action, SessionMachine};
use penstock_agent::reconcile::StandingState;
use penstock_proto::backoff::Backoff;
use penstock_proto::v1::{HealthReport, Hello, Severity};

use super::{CONNECT_TIMEOUT, Gateway, Link, Surroundings, hang_up};
use crate::wire::{ToGateway, Wire};

impl Gateway {
    pub(super) fn link(&mut self, around: &mut Surroundings<'_>) -> Result<(), String> {
        let now = around.now;
        let reaches =
            now >= self.cut_off_until && around.coordinator.is_up(now) && self.certificate_is_good(now);
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        match agent.link {
            Link::Waiting(until) if until <= now => {
                let takes = match reaches {
                    true => Duration::from_millis(self.chance.below(500)),
                    false => CONNECT_TIMEOUT,
                };
                agent.link = Link::Connecting(now + takes);
            }
            Link::Connecting(until) if until <= now => {
                if reaches {
                    let hello = Hello {
                        policy: Some(agent.view.borrow_and_update().state.clone()),
                        spool: Some(self.spool.state()),
                        ..Hello::default()
                    };
                    let machine = SessionMachine::new(hello, self.spool.next(), around.base + now);
                    let wire = *around.next_wire;
                    *around.next_wire += 1;
                    around.wires.insert(wire, Wire::default());
                    around.coordinator.accept(wire, self.index, now);
                    self.sessions += 1;
                    agent.link = Link::Talking {
                        wire,
                        machine: Box::new(machine),
                    };
                    return self.talk(around);
                }
                let wait = agent.backoff.ended(Duration::ZERO, self.chance.number());
                agent.link = Link::Waiting(now + wait);
            }
            Link::Talking { .. } => return self.talk(around),
            Link::Waiting(_) | Link::Connecting(_) => {}
        }
        Ok(())
    }

    /// Lets the session do what it has to do, and ends it where it has to end.
    pub(super) fn talk(&mut self, around: &mut Surroundings<'_>) -> Result<(), String> {
        let Some((problem, asked)) = self.converse(around)? else {
            return Ok(());
        };
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        let Link::Talking { wire, machine } = &agent.link else {
            return Ok(());
        };
        let lived = machine.lived(around.base + around.now);
        hang_up(around.wires, *wire, &mut self.chance);
        if agent.connected {
            agent
                .audit
                .record(Severity::Info, record::agent("disconnected", &problem));
        }
        agent.connected = false;
        let wait = Backoff::at_least(agent.backoff.ended(lived, self.chance.number()), asked);
        agent.link = Link::Waiting(around.now + wait);
        Ok(())
    }

    /// Why the session ends, and how long the coordinator asks to be left alone; `None`: it goes on.
    fn converse(
        &mut self,
        around: &mut Surroundings<'_>,
    ) -> Result<Option<(String, Option<Duration>)>, String> {
        let now = around.now;
        let at = around.base + now;
        let spool_works = now >= self.spool_broken_until;
        let Some(agent) = &mut self.agent else {
            return Ok(None);
        };
        let Link::Talking { wire, machine } = &mut agent.link else {
            return Ok(None);
        };
        let Some(wire) = around.wires.get_mut(wire) else {
            return Ok(None);
        };
        if agent.view.has_changed().unwrap_or_default() {
            machine.policy_changed(agent.view.borrow_and_update().state.clone(), at);
        }
        for round in 0.. {
            if round > 10_000 {
                return Err(format!("gateway {}: its session spins", self.index));
            }
            if let Some(action) = machine.action(at) {
                match action {
                    Action::Connected { coordinator, .. } => {
                        agent.connected = true;
                        agent
                            .audit
                            .record(Severity::Info, record::agent("connected", &coordinator));
                    }
                    Action::Offer(offer) => agent.offered = Some(Arc::new(offer)),
                    Action::Order(_) | Action::Obey(_) => {
                        return Err("no coordinator of this world orders anything by itself".to_owned());
                    }
                    Action::Withdrawn(_) | Action::Trust(_) => {
                        return Err(
                            "no coordinator of this world withdraws a key or changes a root".to_owned()
                        );
                    }
                    Action::Acknowledge(to) => {
                        around.checkers.acknowledged(self.index, to, around.coordinator)?;
                        self.spool.acknowledge(to);
                    }
                    Action::Resume(held) if spool_works => machine.resumed(Some(self.spool.resume(&held)?)),
                    Action::Resume(_) => machine.resumed(None),
                    Action::Read { from, count_max, .. } => {
                        machine.read(spool_works.then(|| self.spool.read(from, count_max)), at);
                    }
                    Action::Report => {
                        let report = HealthReport {
                            policy: Some(agent.view.borrow().state.clone()),
                            ..HealthReport::default()
                        };
                        machine.reported(report, at, self.chance.number());
                    }
                }
            } else if let StandingState::Trial {
                confirmable_since: Some(since),
                ..
            } = agent.view.borrow().standing.state
                && agent.connected
                && agent.session.lock().unwrap().is_some_and(|opened| opened < since)
            {
                return Ok(Some(("the rules are on trial".to_owned(), None)));
            } else if wire.broken {
                return Ok(Some(("the stream broke".to_owned(), None)));
            } else if let Some(message) = wire.receive_down(now) {
                match message {
                    ToGateway::Message(message) => {
                        if let Err(fault) = machine.received(Some(message), at) {
                            return Ok(Some((fault.to_string(), None)));
                        }
                    }
                    ToGateway::End(asked) => return Ok(Some(("ended".to_owned(), asked))),
                }
            } else if machine.has_outgoing() && wire.has_room_up() {
                if let Some(message) = machine.outgoing(at) {
                    wire.send_up(message, now, &mut self.chance);
                }
            } else if machine.deadline() <= at {
                if let Err(fault) = machine.wake(at, BTreeSet::new()) {
                    return Ok(Some((fault.to_string(), None)));
                }
            } else {
                break;
            }
        }
        Ok(None)
    }
}
