//! A gateway's session: what it is sent and does, and what it reports.

use std::time::Duration;

use penstock_agent::policy_store::journal::{Order, Upto};
use penstock_agent::reconcile::trial::{Confirmer, Hold, RevertReason};
use penstock_coordinator::rollout::{
    Fact, HardEvent, HoldReason, RevertReason as Told, Standing, Target, Upto as Ordered,
};

use super::super::{CARRIED, Tally};
use super::{Gateway, Message, Nature, statement};
use crate::chance::Chance;

impl Gateway {
    /// Takes what was sent, and does it.
    pub(in super::super) fn obey(
        &mut self,
        time: u64,
        chance: &mut Chance,
        tally: &mut Tally,
    ) -> Result<(), String> {
        while !chance.once_in(4) && self.trial.is_some() {
            let Some(session) = &mut self.session else {
                return Ok(());
            };
            let Some(message) = session.down.pop_front() else {
                return Ok(());
            };
            match message {
                // An older release is refused by its number, a confirmed one is there.
                Message::Order(CARRIED, target) => {
                    session.number = target.order;
                    self.ordered(time, target);
                }
                Message::Confirm(CARRIED) => {
                    let opened = session.opened;
                    self.confirm(opened, tally)?;
                }
                Message::Revert(CARRIED) if self.is_on_trial() && self.trial != Some(None) => {
                    let by = "the coordinator".to_owned();
                    self.take_back(time, &RevertReason::Asked { by, ordered: true }, tally)?;
                }
                Message::Order(..) | Message::Confirm(_) | Message::Revert(_) => {}
            }
        }
        Ok(())
    }

    /// Keeps an order; what is on trial, in force or refused goes on without.
    fn ordered(&mut self, time: u64, target: Target) {
        let is_refused = self.disk.journal.is_reverted(statement(CARRIED));
        if self.is_on_trial() || self.disk.confirmed == CARRIED || is_refused {
            return;
        }
        self.judges_since = match target.upto {
            Ordered::Shadow => self.judges_since.or(Some(time)),
            Ordered::Active => self.judges_since,
            _ => None,
        };
        self.disk.order = Some(Order {
            upto: match target.upto {
                Ordered::Active => Upto::Active,
                _ => Upto::Staged,
            },
            trial_ms: (self.nature != Nature::Old).then_some(target.trial_seconds * 1_000),
            ..Order::default()
        });
    }

    fn confirm(&mut self, (session_opened, truly): (Duration, u64), tally: &mut Tally) -> Result<(), String> {
        let Some(trial) = self.trial.as_ref().and_then(Option::as_ref) else {
            return Ok(());
        };
        if !trial.is_confirmed_by(&Confirmer::Remote { session_opened }) {
            return Ok(());
        }
        if truly < self.kernel.1 {
            return Err(format!(
                "gateway {} was confirmed over the rules before",
                self.index
            ));
        }
        self.keep(tally);
        Ok(())
    }

    pub(in super::super) fn report(
        &mut self,
        time: u64,
        chance: &mut Chance,
        calm: bool,
        facts: &mut Vec<Fact>,
    ) {
        if let Some(session) = &self.session {
            self.up.push_back(Fact::Report {
                gateway: self.index as u32,
                order: session.number,
                standing: self.standing(time),
            });
        }
        while let Some(fact) = self.up.front().copied() {
            if chance.once_in(4) {
                break; // The rest comes later.
            }
            self.up.pop_front();
            if matches!(fact, Fact::Report { .. }) && !calm && chance.once_in(8) {
                continue;
            }
            facts.push(fact);
            if chance.once_in(8) {
                facts.push(fact);
            }
        }
    }

    pub(super) fn standing(&self, time: u64) -> Standing {
        if let Some(Some(trial)) = &self.trial {
            let opened = self.session.as_ref().map(|session| session.opened.0);
            let confirmable = trial
                .in_kernel_since()
                .zip(opened)
                .is_some_and(|(since, opened)| opened >= since);
            return Standing::Trial { confirmable };
        }
        if self.disk.confirmed == CARRIED {
            return Standing::Confirmed;
        }
        if let Some(reverted) = self.disk.journal.reverted.last() {
            return Standing::Reverted(match reverted.code.as_str() {
                "not-confirmed" => Told::Timer,
                "reboot" => Told::Reboot,
                "must-flow" => Told::Hard(HardEvent::MustFlowLost),
                "management" => Told::Hard(HardEvent::ManagementLost),
                "crash" => Told::Hard(HardEvent::Crash),
                "denials" => Told::Denials,
                _ => Told::Ordered,
            });
        }
        let reason = match &self.held {
            Some(Hold::Person { .. }) => HoldReason::Person,
            Some(Hold::Clock) => HoldReason::Clock,
            Some(Hold::Window { .. }) => HoldReason::Window,
            Some(Hold::Interlock(_)) => HoldReason::Interlock,
            Some(Hold::NoSession) => HoldReason::NoSession,
            _ if self.nature == Nature::Old => return Standing::WithoutTrials,
            _ => {
                return self
                    .judges_since
                    .map_or(Standing::Staged, |since| Standing::Shadow {
                        cuts_must_flow: false,
                        judged_ms: time - since,
                    });
            }
        };
        Standing::Held {
            reason,
            until_ms: None,
        }
    }
}
