//! Looks each second (default) at what no event tells: whether packets can cross, whether must-flows go on, whether the inspector works;
//! keeps what is so for health, and tells the trail when it begins and ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::conditions::Conditions;
use super::passage::{Passage, PassageReport};
use crate::clock;
use crate::enforce::ground::routing;
use crate::enforce::table::Table;
use crate::inspector::pulse::STALLED;
use crate::inspector::{self, InspectorState};
use crate::kernel::FlowRhythm;
use crate::observed::{Condition, ConditionSeen, ConditionStep, Observation};

/// What is watched.
#[derive(Debug)]
pub(in crate::enforce) struct Watching {
    table: Arc<Table>,
    passage: Arc<Passage>,
    conditions: Mutex<Conditions>,
    /// `None`: there is no inspector.
    inspector: Option<Arc<InspectorState>>,
}

/// Looks for as long as the agent runs.
pub(in crate::enforce) async fn watch(watching: Arc<Watching>) {
    loop {
        tokio::time::sleep(watching.table.settings.look).await;
        watching.look().await;
    }
}

impl Watching {
    pub(in crate::enforce) fn new(table: Arc<Table>, inspector: Option<Arc<InspectorState>>) -> Self {
        Self {
            passage: Arc::new(Passage::new(table.settings.pace)),
            table,
            conditions: Mutex::default(),
            inspector,
        }
    }

    /// One look.
    pub(in crate::enforce) async fn look(&self) {
        let now = inspector::now();
        let PassageReport { mut present, looked } = self.look_at_passage(now).await;
        let now_ms = clock::now_ms();
        let pulse = self.inspector.as_ref().map(|inspector| inspector.pulse());
        present.extend(pulse.and_then(|pulse| pulse.stands_still(now)));
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = conditions.holds(STALLED);
        let mut news = conditions.see(present, |code| code == STALLED || looked(code), now, now_ms);
        if let Some((condition, still)) = pulse.and_then(|pulse| pulse.stood_still()).filter(|_| !known) {
            let still_ms = u64::try_from(still.as_millis()).unwrap_or(u64::MAX);
            news.push(ConditionSeen {
                step: ConditionStep::Found,
                condition,
                first_ms: now_ms.saturating_sub(still_ms),
                last_ms: now_ms,
            });
        }
        drop(conditions);
        for seen in news {
            tracing::warn!(step = ?seen.step, code = seen.condition.code, "{}", seen.condition.message);
            self.table.outbox.put(Observation::Condition(Box::new(seen)));
        }
    }

    /// Whether packets can cross; without a plan nothing is expected to.
    async fn look_at_passage(&self, now: Duration) -> PassageReport {
        let Some((plan, counted)) = self.table.in_force(self.passage.followed()).await else {
            return PassageReport::NOTHING;
        };
        let inspects = self.table.settings.inspector.is_some() && routing::is_needed(&plan);
        self.passage.look(plan, counted, inspects, now).await
    }

    /// The must-flows, as they were at the last look.
    pub(in crate::enforce) fn must_flows(&self) -> Vec<FlowRhythm> {
        self.passage.must_flows(inspector::now())
    }

    /// What is so now.
    pub(in crate::enforce) fn current(&self) -> Vec<Condition> {
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .current()
    }
}
