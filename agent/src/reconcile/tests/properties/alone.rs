//! The end of a history: faults are over, and what was ordered comes about. An islanded gateway is left alone. Others have a coordinator
//! that repeats its order, or none: then a trial that nobody could confirm does not begin, and that is all they wait for.

use super::*;

impl History {
    /// Whether a session stands from now on, where one is needed.
    fn coordinator_is_there(&mut self) -> bool {
        let is_there = !self.overriding.once_in(4);
        let opened = self.stays.now().boot;
        let mut says = self.stays.says.lock().unwrap();
        let is_there = is_there && says.needs_session && !says.islanded;
        says.session = is_there.then_some(opened);
        is_there
    }

    /// What waits for its order gets it, if a session stands.
    pub(super) fn repeat_order(&mut self) -> Judged {
        if self.stays.says.lock().unwrap().session.is_none() {
            return Ok(());
        }
        let standing = self.agent.view.borrow().standing.clone();
        let (StandingState::Held(Hold::NoSession), Some((revision, statement))) =
            (standing.state, standing.release)
        else {
            return Ok(());
        };
        let number = self.number();
        let orders = self.orders.get_mut(&revision.0).unwrap();
        let last = orders.last().cloned().unwrap();
        let order = Order { number, ..last };
        orders.push(order.clone());
        self.step(Occasion::Order(statement, order))
    }

    /// Faults end, and nobody asks for anything any more: what was ordered comes about, and what is on trial ends.
    pub(super) fn alone(&mut self) -> Judged {
        self.agent.life.spare();
        self.stays.table.lock().unwrap().mood = Mood::Works;
        self.stays.records.lock().unwrap().unwritable = None;
        self.stays.time.lock().unwrap().synchronised = true;
        {
            let mut says = self.stays.says.lock().unwrap();
            (says.is_running, says.session) = (false, None);
        }
        let may_confirm = self.coordinator_is_there();
        let release = Command::ReleaseHold {
            by: "anna".to_owned(),
        };
        self.step(Occasion::Command(release, None))?;
        let islanded = self.stays.says.lock().unwrap().islanded;
        let mut still = 0;
        for round in 0..200 {
            // Windows are closed for four hours, and nothing else takes longer than a minute.
            let due = self.agent.due().unwrap_or(TICK);
            pass(&self.stays.time, due);
            let seen = self.stays.now().boot;
            self.stays.says.lock().unwrap().seen = Some(seen);
            let was_on_trial = matches!(self.agent.standing(), StandingState::Trial { .. });
            self.step(Occasion::Due)?;
            let settled = matches!(self.agent.standing(), StandingState::Settled);
            self.tally.by_its_own_test += u64::from(was_on_trial && settled);
            if due >= TICK || round % 10 == 0 {
                self.step(Occasion::Tick)?;
                if may_confirm {
                    self.repeat_order()?;
                }
                // Nothing takes longer than a pause after a rejection, unless something says when.
                still = if self.agent.due().is_none() { still + 1 } else { 0 };
                if still > 8 {
                    break;
                }
            }
        }
        self.step(Occasion::Tick)?;
        self.is_over()?;
        self.tally.reverted = self.reverted.len() as u64;
        let view = self.agent.view.borrow();
        let is_left = match &view.standing.state {
            StandingState::Settled | StandingState::Shadow(_) | StandingState::Reverted(_) => false,
            StandingState::Staged => {
                let revision = view.standing.release.unwrap().0.0;
                self.orders[&revision]
                    .iter()
                    .all(|order| order.upto == Upto::Active)
            }
            StandingState::Held(Hold::NoSession) => islanded || may_confirm,
            StandingState::Held(_) | StandingState::Trial { .. } => true,
        };
        if is_left || !view.faults.is_empty() {
            return Err(format!(
                "alone: islanded: {islanded}, {:?}, {:?}",
                view.standing, view.faults
            ));
        }
        let effective = view.state.effective.as_ref().map(|mark| mark.revision);
        if effective != self.stays.holds() || effective.unwrap_or_default() != self.believed {
            return Err(format!(
                "alone: {effective:?} is shown, r{} believed, {:?} held",
                self.believed,
                self.stays.holds()
            ));
        }
        Ok(())
    }
}
