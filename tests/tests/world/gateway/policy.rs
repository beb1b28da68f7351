//! The reconciler of a gateway: what is due for it, step by step, and what the checkers say of what came of it.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use penstock_agent::policy_store::journal::Order;
use penstock_agent::reconcile::trial::Confirmer;
use penstock_agent::reconcile::{Command, Occasion, Standing, StandingState, TICK};

use super::{Agent, Gateway, Surroundings, Task, site};

impl Gateway {
    pub(super) fn reconcile(&mut self, around: &mut Surroundings<'_>) -> Result<(), String> {
        let now = around.now;
        let time = self.time(now);
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        agent.life.set_now(now);
        *agent.time.lock().unwrap() = time;
        {
            let mut session = agent.session.lock().unwrap();
            let opened = session.unwrap_or(time.boot);
            *session = agent.connected.then_some(opened);
            if session.is_some() {
                self.in_session_at = now;
            }
        }
        loop {
            agent.task = match std::mem::replace(&mut agent.task, Task::Gone) {
                Task::Busy(mut step) => match step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(reconciler) => Task::Idle(reconciler),
                    Poll::Pending => {
                        agent.task = Task::Busy(step);
                        break;
                    }
                },
                Task::Idle(mut reconciler) => {
                    let confirmed = confirmation(agent, self.index, self.troubled);
                    let occasion = if let Some(offered) = agent.offered.take() {
                        let order = match self.tries {
                            true => {
                                let session = agent.session.lock().unwrap().unwrap_or_default();
                                site::order(self.index, &offered, self.troubled, session)
                            }
                            false => Order::default(),
                        };
                        Occasion::Offer(offered, order)
                    } else if let Some(confirm) = confirmed.filter(|_| agent.confirm_at <= now) {
                        agent.confirm_at = now + TICK;
                        Occasion::Command(confirm, None)
                    } else if agent.tick_at <= now {
                        agent.tick_at = now + TICK;
                        Occasion::Tick
                    } else if reconciler.due().is_some_and(|due| due.is_zero()) {
                        Occasion::Due
                    } else {
                        agent.task = Task::Idle(reconciler);
                        break;
                    };
                    Task::Busy(Box::pin(async move {
                        reconciler.step(occasion).await;
                        reconciler
                    }))
                }
                Task::Gone => unreachable!("it is put back above"),
            };
        }
        let idle = matches!(agent.task, Task::Idle(_));
        let works = self.kernel.lock().unwrap().works(now) && self.disk.lock().unwrap().works(now);
        agent.starts_well &= works;
        let trusted = agent
            .view
            .borrow()
            .state
            .trusted
            .as_ref()
            .map(|trusted| trusted.revision);
        let started_well = idle && std::mem::take(&mut agent.starts_well);
        around.checkers.enforced(
            self.index,
            &mut self.kernel.lock().unwrap(),
            &self.disk.lock().unwrap(),
            (self.tries, now, self.in_session_at),
        )?;
        if !self.agent.as_ref().is_some_and(|agent| agent.life.is_dead()) {
            self.write_trail(around)?;
            if idle {
                let standing = self.view().map(|view| view.standing.state);
                if let Some(StandingState::Trial { ends, .. }) = standing
                    && ends + Duration::from_secs(5) < time.boot
                {
                    return Err(format!(
                        "trial: gateway {} is on one that was to end at {ends:?} of its boot, at {:?}",
                        self.index, time.boot
                    ));
                }
                around.checkers.step_done(self.index)?;
                around.checkers.believes(self.index, trusted)?;
            }
            if started_well {
                around.checkers.stands(self.index, &self.kernel.lock().unwrap())?;
            }
        }
        Ok(())
    }
}

/// The coordinator confirms a release on trial over a session that was opened under its rules; while there is trouble, not every one.
fn confirmation(agent: &Agent, index: usize, troubled: bool) -> Option<Command> {
    let Standing {
        release: Some((_, statement)),
        state: StandingState::Trial {
            confirmable_since: Some(since),
            ..
        },
        ..
    } = agent.view.borrow().standing
    else {
        return None;
    };
    let session_opened = (*agent.session.lock().unwrap()).filter(|opened| *opened >= since)?;
    let is_confirmed = !troubled || site::is_confirmed(index, statement);
    is_confirmed.then_some(Command::Confirm {
        statement,
        by: Confirmer::Remote { session_opened },
    })
}
