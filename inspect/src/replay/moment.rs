//! Plans as of a moment: which conduits grants of remote access open then.
//!
//! A recording is judged by its own time. What a grant opens passes while it lasted, and neither before nor after. Where the
//! question is not what became of something but whether the plant speaks of it at all, every grant counts.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_policy::ids::ConduitId;
use penstock_policy::plan::Plan;

/// Which grants of remote access count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Those that last at this moment, since 1970.
    At(Duration),
    /// All of them, whenever they last.
    Ever,
    /// None.
    Never,
}

/// A plan, ready to be asked as of any moment.
#[derive(Debug)]
pub(super) struct TimedPlan {
    /// Without any grant.
    closed: Arc<Plan>,
    /// With all of them.
    opened: Arc<Plan>,
    /// As of the moment that was asked for last: packets come in order, so the next one mostly asks for the same.
    last: Mutex<Arc<Plan>>,
}

impl TimedPlan {
    pub(super) fn new(plan: Plan) -> Self {
        let all: BTreeSet<ConduitId> = plan.grants.keys().cloned().collect();
        let closed = Arc::new(plan.opening(BTreeSet::new()));
        let opened = match all.is_empty() {
            true => Arc::clone(&closed),
            false => Arc::new(plan.opening(all)),
        };
        Self {
            last: Mutex::new(Arc::clone(&closed)),
            closed,
            opened,
        }
    }

    /// The plan as it is read.
    pub(super) fn plan(&self) -> &Plan {
        &self.closed
    }

    pub(super) fn of(&self, when: When) -> Arc<Plan> {
        let at = match when {
            When::At(_) if self.closed.grants.is_empty() => return Arc::clone(&self.closed),
            When::At(at) => ms(at),
            When::Ever => return Arc::clone(&self.opened),
            When::Never => return Arc::clone(&self.closed),
        };
        let open = self.closed.open_at(Some(at));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.open != open {
            *last = Arc::new(self.closed.opening(open));
        }
        Arc::clone(&last)
    }

    /// When its grants begin and end.
    pub(super) fn turns(&self) -> impl Iterator<Item = Duration> {
        let grants = self.closed.grants.values().flatten();
        grants.flat_map(|grant| [grant.from_ms, grant.until_ms].map(Duration::from_millis))
    }
}

fn ms(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}
