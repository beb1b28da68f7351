//! The agent of the random world: the three machines, what is under way between them, and the keeper's turn.

use std::collections::VecDeque;
use std::sync::Arc;

use penstock_proto::backoff::Backoff;

use super::disk::Disk;
use crate::bridge::delivery::machine::DeliveryMachine;
use crate::bridge::intake::machine::IntakeMachine;
use crate::bridge::keeper::machine::KeeperMachine;
use crate::bridge::keeper::{Ack, Answer, IntakeEntry, Question};
use crate::bridge::rules::PublicationRules;
use crate::bridge::side::line::Moment;

pub(super) struct Agent {
    pub intake: IntakeMachine,
    pub keeper: KeeperMachine<u32>,
    pub delivery: DeliveryMachine,
    /// Of the connection that stands, or stood last.
    pub intake_connection: u32,
    pub delivery_connection: u32,
    pub batch: Option<(u32, Vec<IntakeEntry>)>,
    pub durable: VecDeque<(u32, Vec<Ack>)>,
    pub requests: VecDeque<(u32, Question)>,
    pub answers: VecDeque<(u32, Answer)>,
    pub shed: u64,
}

impl Agent {
    /// As it begins over a disk.
    pub(super) fn new(rules: &Arc<PublicationRules>, disk: &Disk, now: Moment) -> Self {
        Self {
            intake: IntakeMachine::new(rules.clone(), None, now.instant, Backoff::default()),
            keeper: KeeperMachine::new(disk.state.finished),
            delivery: DeliveryMachine::new(
                rules.clone(),
                false,
                disk.state.next,
                now.instant,
                Backoff::default(),
            ),
            intake_connection: 0,
            delivery_connection: 0,
            batch: None,
            durable: VecDeque::new(),
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            shed: 0,
        }
    }

    /// The keeper's turn, as its shell takes it; `tick`: positions are to be written though nothing else is.
    pub(super) fn keep(&mut self, disk: &mut Disk, tick: bool, now: Moment) -> Option<()> {
        if !self.keeper.is_stuck()
            && let Some((connection, entries)) = self.batch.take()
        {
            self.keeper.take(entries, connection, &disk.state.unreleased);
        } else if self.requests.is_empty() && !self.keeper.is_stuck() && !tick {
            return None;
        }
        let requests = std::mem::take(&mut self.requests);
        let questions = requests.iter().map(|(_, question)| question);
        let mut commit = self.keeper.commit(questions, tick);
        commit.spare(&disk.state, false);
        let (owed, recorded) = match disk.commit(&mut commit.records) {
            Ok(()) => (self.keeper.kept(&commit, now.instant), true),
            Err(problem) => {
                let (owed, shed, mut positions) = self.keeper.not_kept(commit, problem, now.instant);
                self.shed += shed.map_or(0, |shed| shed.count);
                let recorded = disk.commit(&mut positions).is_ok();
                if recorded {
                    self.keeper.positions_kept();
                }
                (owed, recorded)
            }
        };
        let finished = if recorded {
            self.keeper.finished_written()
        } else {
            self.keeper.finished()
        };
        disk.finish(finished);
        self.durable.extend(owed);
        for (connection, question) in requests {
            let state = &disk.state;
            let answer = match question {
                Question::Read { from, .. } => {
                    // A few at a time.
                    let messages = disk.messages.range(from..).take(3);
                    Answer::Read(messages.map(|(_, message)| message.clone()).collect())
                }
                Question::Received(seq) => Answer::Recorded(seq),
                Question::Forgot if recorded || state.received.is_empty() => Answer::Forgotten,
                Question::Forgot => Answer::NotForgotten,
                Question::State => Answer::State(state.clone()),
                Question::Finished(_) => continue,
            };
            self.answers.push_back((connection, answer));
        }
        Some(())
    }
}
