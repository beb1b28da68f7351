//! What a fact changes. Facts are levels rather than edges: one that comes twice changes nothing the second time, and what was lost
//! is made good by the next report.

use super::super::facts::{Fact, HardEvent, RevertReason, Standing};
use super::super::seats::{Mark, Strike};
use super::{Action, HaltReason, Note, Rollout, Stage};

impl Rollout {
    /// Another rollout may have a gateway unconfirmed, or no longer: neither it nor the other of its pair is opened meanwhile. Known
    /// before the next step.
    pub fn set_elsewhere(&mut self, gateway: u32, is: bool) {
        if let Some(seat) = self.seats.get_mut(gateway as usize) {
            seat.is_elsewhere = is;
        }
    }

    pub(super) fn take(&mut self, fact: Fact, actions: &mut Vec<Action>) {
        let own_ms = self.clock.own_ms;
        match fact {
            Fact::Hello {
                gateway,
                keeps_order,
                standing,
            } => {
                let has_none = matches!(
                    standing,
                    Standing::Behind
                        | Standing::Staged
                        | Standing::Shadow { .. }
                        | Standing::WithoutTrials
                        | Standing::Held { .. }
                );
                let mark = self.mark(gateway);
                // A replaced gateway, one that lost its disk, or one whose kernel did not take it: its turn comes again, as for one
                // that was absent, once it knows.
                if has_none && mark.is_some_and(|mark| mark == Mark::Trial || mark.is_confirmed()) {
                    self.withdraw(gateway, Mark::Withdrawing, actions);
                }
                // What was under way in an older session does not reach it any more; what did reach it may be on its disk.
                let order = if keeps_order { 0 } else { u64::MAX };
                self.heard(gateway, order, standing, actions);
            }
            Fact::Report {
                gateway,
                order,
                standing,
            } => self.heard(gateway, order, standing, actions),
            Fact::Gone { gateway } => {
                if let Some(seat) = self.seats.get_mut(gateway as usize) {
                    seat.link(false, own_ms);
                }
            }
            Fact::Hard { gateway, event } => self.struck(gateway, Strike::Hard, Some(event), actions),
            Fact::Soft { gateway } => self.struck(gateway, Strike::Soft, None, actions),
        }
    }

    fn heard(&mut self, gateway: u32, order: u64, standing: Standing, actions: &mut Vec<Action>) {
        let own_ms = self.clock.own_ms;
        let Some(seat) = self.seats.get_mut(gateway as usize) else {
            return;
        };
        seat.link(true, own_ms);
        seat.heard = standing;
        seat.judges_since = match standing {
            Standing::Shadow { judged_ms, .. } => Some(own_ms.saturating_sub(judged_ms)),
            _ => None,
        };
        let (mark, knows) = (seat.mark, order >= seat.withdrawn_by);
        let asked = self.target(gateway).map(|target| target.upto);
        match standing {
            Standing::Trial { confirmable } => {
                let was_opened = mark.may_be_unconfirmed() || mark.is_confirmed();
                if !was_opened {
                    actions.push(Action::Note(Note::Unexpected(gateway)));
                }
                self.set(gateway, Mark::Trial);
                self.judge_trial(gateway, confirmable, actions);
            }
            Standing::Confirmed => self.set(gateway, Mark::Confirmed),
            // It went back before this rollout let it activate: it is refused until a person clears it.
            Standing::Reverted(_) if matches!(mark, Mark::Waiting | Mark::Absent) => {
                self.set(gateway, Mark::Refused);
            }
            Standing::Reverted(why) if !mark.is_back() && mark != Mark::Refused => {
                self.reverted(gateway, why, actions)
            }
            Standing::Refused if knows && !(mark == Mark::Trial || mark.is_confirmed() || mark.is_back()) => {
                self.set(gateway, Mark::Refused);
            }
            Standing::Behind
            | Standing::Staged
            | Standing::Shadow { .. }
            | Standing::WithoutTrials
            | Standing::Held { .. } => {
                // It is not activated, and will not be by an order that is on its way.
                let returns = matches!(mark, Mark::Withdrawing | Mark::Silent | Mark::Unknown) && knows;
                // It went back, and a person cleared it; or it takes what it refused.
                if returns || mark.is_back() || mark == Mark::Refused {
                    self.set(gateway, Mark::Absent);
                }
            }
            Standing::Unheard | Standing::OtherTrial | Standing::Reverted(_) | Standing::Refused => {}
        }
        // What it may do is less by what it did itself: an order with a number of its own says so.
        if self.target(gateway).map(|target| target.upto) < asked {
            self.retarget(gateway, actions);
        }
        let cuts = matches!(
            standing,
            Standing::Shadow {
                cuts_must_flow: true,
                ..
            }
        );
        if cuts && !self.accepts_shadow && self.carries() {
            self.halt_for(gateway, |gateway| HaltReason::Shadow { gateway }, actions);
        }
    }

    fn reverted(&mut self, gateway: u32, why: RevertReason, actions: &mut Vec<Action>) {
        // Left unconfirmed on purpose: that is not its failure.
        let left_alone = self.halted().is_some() || self.brings_back();
        let mark = match why {
            RevertReason::Hard(_) => Mark::RevertedHard,
            RevertReason::Ordered => Mark::BroughtBack,
            RevertReason::Timer if left_alone => Mark::BroughtBack,
            _ => Mark::RevertedSoft,
        };
        self.set(gateway, mark);
        if let RevertReason::Hard(event) = why {
            self.halt_for(gateway, |gateway| HaltReason::Hard { gateway, event }, actions);
        }
    }

    fn struck(&mut self, gateway: u32, strike: Strike, event: Option<HardEvent>, actions: &mut Vec<Action>) {
        let Some(seat) = self.seats.get_mut(gateway as usize) else {
            return;
        };
        // What happens to a gateway that has none of the release is not the release's doing.
        let concerns = seat.mark.may_be_unconfirmed() || seat.mark.is_confirmed();
        if !concerns || seat.strike >= strike {
            return;
        }
        seat.strike = strike;
        if let Some(event) = event {
            self.halt_for(gateway, |gateway| HaltReason::Hard { gateway, event }, actions);
        }
    }

    fn halt_for(
        &mut self,
        gateway: u32,
        reason: impl FnOnce(penstock_policy::ids::GatewayId) -> HaltReason,
        actions: &mut Vec<Action>,
    ) {
        if let Some(member) = self.fleet.member(gateway) {
            let reason = reason(member.id.clone());
            self.halt(reason, actions);
        }
    }

    /// Whether it is between shadow and its end.
    fn carries(&self) -> bool {
        matches!(
            self.stage,
            Stage::Shadowing { .. } | Stage::Opening { .. } | Stage::Soaking { .. } | Stage::Converging
        )
    }
}
