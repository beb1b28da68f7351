//! What a change of the policy is judged by at each gateway, and the orders that come with offers: by the time and the release alone, so
//! that no draw of chance is added. Gateway 0 has change windows, gateway 1 an interlock; gateway 2 has neither.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::tz::TimeZone;
use penstock_agent::policy_store::journal::{Order, OrderNumber, Upto};
use penstock_agent::reconcile::site::{Facts, Interlock, Site};
use penstock_agent::reconcile::window::Windows;
use penstock_agent::timepiece::Time;
use penstock_policy::ids::Digest;
use penstock_policy::model::Window;
use penstock_policy::plan::Plan;
use penstock_proto::v1::PolicyOffer;

use super::plant;

/// When gateway 0 may change, in minutes of a world that begins on a Friday at 08:00.
const WINDOWS: [(u64, u64); 4] = [(0, 10), (15, 30), (35, 45), (48, 60)];
const BEGINS_AT: u64 = 8 * 60;
/// Of each so many seconds, the last half are no time to change gateway 1.
const PROCESS: u64 = 160;

pub(crate) struct WorldSite {
    pub(crate) index: usize,
    pub(crate) booted_at: Duration,
    pub(crate) time: Arc<Mutex<Time>>,
    pub(crate) session: Arc<Mutex<Option<Duration>>>,
}

/// Whether a gateway may begin to change at this moment of its world.
pub(crate) fn may_change(index: usize, at: Duration) -> bool {
    let minute = at.as_secs() / 60;
    match index {
        0 => WINDOWS
            .iter()
            .any(|(from, until)| (*from..*until).contains(&minute)),
        1 => is_safe(at.as_secs()),
        _ => true,
    }
}

fn is_safe(second: u64) -> bool {
    second % PROCESS < PROCESS / 2
}

/// What a release's order is in the session that was opened then: one in four at once, the others on trial.
pub(crate) fn order(index: usize, offer: &PolicyOffer, troubled: bool, session: Duration) -> Order {
    let statement = Digest::of(&offer.release.as_ref().unwrap().statement);
    let revision = plant::revision_named(&statement.0).unwrap_or_default();
    let at_once = (revision + index as u64).is_multiple_of(4);
    Order {
        upto: Upto::Active,
        trial_ms: (!at_once).then_some(if troubled { 60_000 } else { 240_000 }),
        why: "a world's".to_owned(),
        number: OrderNumber {
            session,
            number: revision,
        },
    }
}

/// Whether somebody confirms it while there is trouble.
pub(crate) fn is_confirmed(index: usize, statement: Digest) -> bool {
    let revision = plant::revision_named(&statement.0).unwrap_or_default();
    !(revision + index as u64).is_multiple_of(3)
}

impl Site for WorldSite {
    fn boot(&self) -> String {
        format!("{:?}", self.booted_at)
    }

    fn windows(&self, _: &Plan) -> Option<Result<Windows, String>> {
        let minute = |minute: u64| (BEGINS_AT + minute) as u16;
        let windows = WINDOWS.iter().map(|(from, until)| Window {
            weekday: 4,
            start_minute: minute(*from),
            end_minute: minute(*until),
        });
        (self.index == 0).then(|| Ok(Windows::new(TimeZone::UTC, windows.collect())))
    }

    fn interlock(&self, _: &Plan) -> Interlock {
        // The process knows no clock that somebody sets.
        let second = (self.booted_at + self.time.lock().unwrap().boot).as_secs();
        match self.index {
            1 if !is_safe(second) => Interlock::NotSafe("the pumps run".to_owned()),
            1 => Interlock::Safe,
            _ => Interlock::NotDeclared,
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            session: *self.session.lock().unwrap(),
            ..Facts::default()
        }
    }
}
