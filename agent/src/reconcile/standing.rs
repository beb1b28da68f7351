//! How this gateway stands to the newest release, beside what is in force: for the coordinator, and for people at the cabinet.

use std::time::Duration;

use penstock_policy::ids::{Digest, Revision};

use super::trial::Hold;
use super::{Reconciler, Workplace};
use crate::kernel::{Kernel, ShadowReport};
use crate::policy_store::journal::{OrderNumber, RevertedRelease};

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// The order that was taken up last, whatever came of it: the rest is what is so since. None while the disk does not have it.
    pub order: OrderNumber,
    /// Which release the rest is about; `None`: none.
    pub release: Option<(Revision, Digest)>,
    /// How far it is.
    pub state: StandingState,
}

/// How far a release is.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum StandingState {
    /// It is in force for good, or there is none.
    #[default]
    Settled,
    /// It is staged: its order goes no further, or a fault that health shows keeps it from being in force.
    Staged,
    /// It is staged, and live traffic is judged by it beside the policy in force.
    Shadow(Option<ShadowReport>),
    /// It is staged, may be in force, and is held.
    Held(Hold),
    /// It is on trial.
    Trial {
        /// When it began, on the boot's clock.
        began: Duration,
        /// When it ends by itself, on that clock.
        ends: Duration,
        /// The kernel has it: a session that is opened from then on may confirm it; `None`: not yet.
        confirmable_since: Option<Duration>,
        /// Each must-flow that was alive before has flowed under its rules, but for those that are too slow to be waited for.
        flows: bool,
    },
    /// It was reverted, and stays refused until a person clears it.
    Reverted(RevertedRelease),
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    pub(super) fn standing(&self) -> Standing {
        let (order, about) = self.ordered;
        // For the next agent it is the order before, which may let it begin: it is answered once the disk has it.
        let order = if self.order_is_due {
            OrderNumber::default()
        } else {
            order
        };
        let in_force = self.effective.as_ref();
        let desired = self.desired.as_ref();
        let of = |release, state| Standing {
            order,
            release: Some(release),
            state,
        };
        if let Some(trial) = &self.trial {
            let began = Duration::from_millis(trial.record.began_ms);
            let state = StandingState::Trial {
                began,
                ends: began + Duration::from_millis(trial.record.length_ms),
                confirmable_since: trial.in_kernel_since(),
                flows: trial.flows(&self.site.facts()),
            };
            let named = self.journal.applying.as_ref();
            let revision = named.map_or(Revision(0), |applying| applying.floor);
            return of((revision, trial.statement), state);
        }
        if let Some(desired) = desired.filter(|desired| !self.is_effective(desired)) {
            let state = match &self.held {
                Some(Hold::Order) if self.is_shadowed() => {
                    StandingState::Shadow(self.shadow_report(desired.statement).cloned())
                }
                None | Some(Hold::Order) => StandingState::Staged,
                Some(hold) => StandingState::Held(hold.clone()),
            };
            return of((desired.mark.revision, desired.statement), state);
        }
        // The one that was asked about, and else the newest that would be in force otherwise.
        let revision = in_force.map(|policy| policy.mark.revision);
        let reverted = |is_meant: &dyn Fn(&RevertedRelease) -> bool| {
            let mut newest_first = self.journal.reverted.iter().rev();
            newest_first.find(|reverted| is_meant(reverted)).cloned()
        };
        let reverted = reverted(&|reverted| Some(reverted.statement) == about)
            .or_else(|| reverted(&|reverted| Some(reverted.revision) > revision));
        match (reverted, in_force) {
            (Some(reverted), _) => {
                let release = (reverted.revision, reverted.statement);
                of(release, StandingState::Reverted(reverted))
            }
            (None, Some(policy)) => {
                let release = (policy.mark.revision, policy.statement);
                of(release, StandingState::Settled)
            }
            (None, None) => Standing {
                order,
                ..Standing::default()
            },
        }
    }
}
