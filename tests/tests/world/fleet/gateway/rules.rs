//! What has to be so when a gateway changes and when it goes back, by arithmetic that knows nothing of its machine.

use penstock_agent::policy_store::journal::{Order, TrialRecord, Upto};
use penstock_agent::reconcile::trial::{MARGIN, RevertReason, STARTS_MAX};

use super::{Gateway, Nature, OPEN};

impl Gateway {
    /// What has to be so when it changes, by arithmetic of its own.
    pub(super) fn may_change(&self, time: u64, order: &Order) -> Result<(), String> {
        let at = format!("gateway {} changed", self.index);
        if order.upto != Upto::Active {
            return Err(format!("{at} without an order"));
        }
        if self.disk.journal.hold.is_some() {
            return Err(format!("{at} while a person holds it"));
        }
        // Islanded ones wait for nobody.
        let is_tried = order.trial_ms.is_some() && self.nature != Nature::Islanded;
        if is_tried && self.session.as_ref().is_none_or(|session| session.number == 0) {
            return Err(format!("{at} though nobody can confirm its trial"));
        }
        if self.has_interlock && !self.is_safe(time) {
            return Err(format!("{at} while the process is not safe"));
        }
        if self.has_windows && !self.emergency {
            let needs = order.trial_ms.unwrap_or_default() + MARGIN.as_millis() as u64;
            let within_hour = self.now(time).wall_ms % 3_600_000;
            let (from, until) = (u64::from(OPEN.0) * 60_000, u64::from(OPEN.1) * 60_000);
            if !self.synchronised || within_hour < from || within_hour + needs > until {
                return Err(format!("{at} outside of its windows"));
            }
        }
        Ok(())
    }

    /// A good release that can be confirmed does not go back for what it did not do.
    pub(super) fn ends_rightly(
        &self,
        time: u64,
        why: &RevertReason,
        record: &TrialRecord,
    ) -> Result<(), String> {
        let is_over = self.boot(time).as_millis() as u64 >= record.began_ms + record.length_ms;
        let right = match why {
            RevertReason::Timer => is_over,
            RevertReason::Reboot => record.boot != self.boot_id(),
            RevertReason::MustFlow { .. } => self.nature == Nature::CutsMustFlow,
            RevertReason::Denials(_) => self.nature == Nature::Denies,
            RevertReason::Management => record.managed && self.nature != Nature::Islanded,
            RevertReason::Crash { starts } => *starts >= STARTS_MAX,
            RevertReason::Asked { .. } => true,
            _ => false,
        };
        match right {
            true => Ok(()),
            false => Err(format!("gateway {} reverted for nothing: {why}", self.index)),
        }
    }
}
