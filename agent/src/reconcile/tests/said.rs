//! A site that says what a test has it say, and outlives the agents that ask it.

use super::*;
use crate::reconcile::site::{Facts, Interlock, MustFlow};
use crate::reconcile::window::Windows;

/// What the site says; set by a test.
#[derive(Debug, Default)]
pub(super) struct Says {
    pub(super) boot: u64,
    pub(super) is_running: bool,
    pub(super) session: Option<Duration>,
    /// A session has to stand, and the order to come in it; else somebody is always there to confirm.
    pub(super) needs_session: bool,
    pub(super) seen: Option<Duration>,
    pub(super) islanded: bool,
    pub(super) windows: Option<Windows>,
}

pub(super) struct SaidSite(pub(super) Arc<Mutex<Says>>);

impl Site for SaidSite {
    fn boot(&self) -> String {
        format!("boot{}", self.0.lock().unwrap().boot)
    }

    fn windows(&self, _: &Plan) -> Option<Result<Windows, String>> {
        self.0.lock().unwrap().windows.clone().map(Ok)
    }

    fn interlock(&self, _: &Plan) -> Interlock {
        match self.0.lock().unwrap().is_running {
            true => Interlock::NotSafe("the pumps run".to_owned()),
            false => Interlock::Safe,
        }
    }

    fn facts(&self) -> Facts {
        let says = self.0.lock().unwrap();
        let poll = says.seen.map(|seen| MustFlow {
            name: "telemetry/poll".to_owned(),
            rhythm: Some(Duration::from_secs(1)),
            seen: Some(seen),
        });
        Facts {
            must_flows: poll.into_iter().collect(),
            session: says.session,
            islanded: says.islanded,
            ..Facts::default()
        }
    }

    fn has_confirmer(&self, order: OrderNumber) -> bool {
        !self.0.lock().unwrap().needs_session || self.facts().has_confirmer(order)
    }
}
