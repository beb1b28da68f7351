//! What a change of the policy is judged by on a real gateway: the plan's windows, what the process says, must-flows by the
//! kernel's counters, the session, and denials.
//!
//! Passive and cheap: must-flows are what the data plane's own looks have seen, and the counters of denials are read once a second
//! while a release is staged or on trial, and else not at all.
//!
//! Not here: what follows from it ([`crate::reconcile::trial`]).

mod denials;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_policy::plan::{ChangeWindows, Plan};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::denials::Foretold;
use crate::interlock::Interlocks;
use crate::kernel::{FlowRhythm, Kernel};
use crate::last_minute::LastMinute;
use crate::link::session::LinkState;
use crate::reconcile::site::{Facts, Interlock, MustFlow, Site};
use crate::reconcile::window::Windows;
use crate::reconcile::{PolicyView, StandingState};
use crate::timepiece;

/// How often counters are read while a release is staged or on trial.
const LOOK: Duration = Duration::from_secs(1);

/// The gateway that this agent runs on.
pub struct GatewaySite<K> {
    kernel: Arc<K>,
    link: watch::Receiver<LinkState>,
    interlocks: Interlocks,
    /// Its configuration says that nobody may be there to confirm.
    is_islanded: bool,
    counted: Mutex<Counted>,
}

/// What was counted around a change.
#[derive(Default)]
struct Counted {
    /// The release that it is about.
    release: Option<Digest>,
    denied: LastMinute,
    foretold: Foretold,
}

impl<K: Kernel> GatewaySite<K> {
    /// What is known by this kernel and this link, and asked by this interlock.
    pub fn new(
        kernel: Arc<K>,
        link: watch::Receiver<LinkState>,
        interlocks: Interlocks,
        is_islanded: bool,
    ) -> Self {
        Self {
            kernel,
            link,
            interlocks,
            is_islanded,
            counted: Mutex::default(),
        }
    }

    /// Counts while there is something to count for, until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, mut policy: watch::Receiver<PolicyView>, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let waits = !changes(&policy.borrow_and_update());
            tokio::select! {
                () = stop.cancelled() => return,
                changed = policy.changed(), if waits => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                _ = looks.tick(), if !waits => {}
            }
            if let Ok(counters) = self.kernel.counters().await {
                let denied = counters.denied_packets.saturating_add(counters.denied_operations);
                self.see(&policy.borrow(), denied, timepiece::since_boot());
            }
        }
    }

    /// So many were denied by now.
    fn see(&self, policy: &PolicyView, denied: u64, at: Duration) {
        let standing = &policy.standing;
        let release = standing.release.as_ref().map(|(_, statement)| *statement);
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.release != release {
            *counted = Counted {
                release,
                ..Counted::default()
            };
        }
        counted.denied.see(at, denied);
        if let StandingState::Shadow(Some(report)) = &standing.state {
            let would = report
                .would_deny_packets
                .saturating_add(report.would_deny_operations);
            counted.foretold.see(at, report.since_ms, would);
        }
    }
}

/// Whether a release is staged or on trial.
fn changes(policy: &PolicyView) -> bool {
    match policy.standing.state {
        StandingState::Settled | StandingState::Reverted(_) => false,
        StandingState::Staged
        | StandingState::Shadow(_)
        | StandingState::Held(_)
        | StandingState::Trial { .. } => true,
    }
}

impl<K: Kernel> Site for GatewaySite<K> {
    fn windows(&self, plan: &Plan) -> Option<Result<Windows, String>> {
        let ChangeWindows { timezone, weekly } = plan.windows.as_ref()?;
        let windows = Windows::in_zone(timezone, weekly.clone());
        Some(windows.map_err(|unknown| unknown.to_string()))
    }

    fn interlock(&self, plan: &Plan) -> Interlock {
        self.interlocks.says(plan)
    }

    fn facts(&self) -> Facts {
        let now = timepiece::since_boot();
        let must_flow = |flow: FlowRhythm| MustFlow {
            name: flow.name,
            rhythm: flow.usual,
            seen: flow.ago.map(|ago| now.saturating_sub(ago)),
        };
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let link = self.link.borrow();
        Facts {
            must_flows: self.kernel.must_flows().into_iter().map(must_flow).collect(),
            session: link.opened,
            answered: link.answered,
            islanded: self.is_islanded,
            denials: counted.denied.count(),
            denials_max: counted.foretold.bound(),
        }
    }
}

#[cfg(test)]
mod tests;
