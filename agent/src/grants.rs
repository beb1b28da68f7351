//! Which conduits grants of remote access open at this moment, and what there is to report of it. A pure machine: the time comes
//! in, what is open and when to look again goes out (IEC 62443-3-3 SR 1.13, SR 2.6).
//!
//! - A grant opens its conduit while the gateway's clock is synchronised and stands within the grant. Unknown time opens nothing.
//! - It never stays open for longer than was left of it when it was opened, by the clock that nobody sets: a clock that is set
//!   back prolongs nothing. One that was wrong for a while and is right again closes and reopens it.
//! - A conduit without grants is not this machine's business: no clock closes it.
//!
//! Each grant is reported when it opens its conduit, [`SOON`] before it ends, and when it has ended.
//!
//! Not here: who does it (`reconcile/grants.rs`), and the kernel's own end of it while no agent lives (`enforce/render/granted.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use penstock_policy::ids::{ConduitId, GrantId};
use penstock_policy::plan::{Grant, Plan, moment};

use crate::timepiece::Time;

/// How long before its end a grant is reported as ending.
pub const SOON: Duration = Duration::from_secs(15 * 60);
/// How often the clock is looked at while there is a grant that is not over: it may be set, or lose its source.
pub const LOOK: Duration = Duration::from_secs(1);

/// A grant that was prolonged is another one.
type Key = (ConduitId, GrantId, u64);

/// How far a grant has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    Ending,
}

/// What is remembered of the grants of the plan in force; nothing of others.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// When those that were opened end at the latest, by the clock of the boot.
    ends: BTreeMap<Key, Duration>,
    /// What was reported of those that are open.
    told: BTreeMap<Key, Stage>,
}

/// Something for the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// `remote-access-open`, `-ending` or `-closed`.
    pub step: &'static str,
    /// In a sentence.
    pub message: String,
}

/// A conduit that is open, for health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The conduit.
    pub conduit: ConduitId,
    /// By which grant, for whom, and until when, in a sentence.
    pub message: String,
}

/// What a look comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// The conduits that are to be open, and how long at most.
    pub open: BTreeMap<ConduitId, Duration>,
    /// What to report.
    pub news: Vec<News>,
    /// What health shows.
    pub shown: Vec<Open>,
    /// The clock is not believed, and these conduits would need it.
    pub waiting: BTreeSet<ConduitId>,
    /// When to look again; `None`: nothing is going to change by itself.
    pub again: Option<Duration>,
}

impl Grants {
    /// Looks at the grants of `plan`, which is the one in force.
    pub fn look(&mut self, plan: &Plan, time: Time) -> Look {
        let keys: BTreeSet<Key> = all(plan).map(|(conduit, grant)| key(conduit, grant)).collect();
        self.ends.retain(|key, _| keys.contains(key));
        let mut look = Look::default();
        let gone: Vec<Key> = self
            .told
            .keys()
            .filter(|key| !keys.contains(*key))
            .cloned()
            .collect();
        for key in gone {
            self.told.remove(&key);
            look.news
                .push(closed(&key, "the policy in force has the grant no more"));
        }
        for (conduit, grant) in all(plan) {
            self.judge(conduit, grant, time, &mut look);
        }
        look
    }

    fn judge(&mut self, conduit: &ConduitId, grant: &Grant, time: Time, look: &mut Look) {
        let key = key(conduit, grant);
        let over = time.wall_ms >= grant.until_ms;
        if !time.synchronised {
            // How much is left is not known either: what is long over by a clock that is wrong may be to come.
            if self.told.remove(&key).is_some() {
                look.news
                    .push(closed(&key, "the gateway's clock is not synchronised any more"));
            }
            if !over {
                look.waiting.insert(conduit.clone());
            }
            look.wake(LOOK);
            return;
        }
        if over {
            if self.told.remove(&key).is_some() {
                look.news.push(closed(&key, "the grant is over"));
            }
            return;
        }
        if time.wall_ms < grant.from_ms {
            if self.told.remove(&key).is_some() {
                look.news
                    .push(closed(&key, "the gateway's clock went back to before the grant"));
            }
            look.wake(LOOK.min(Duration::from_millis(grant.from_ms - time.wall_ms)));
            return;
        }
        let by_wall = Duration::from_millis(grant.until_ms - time.wall_ms);
        let end = *self.ends.entry(key.clone()).or_insert(time.boot + by_wall);
        let left = by_wall.min(end.saturating_sub(time.boot));
        if left.is_zero() {
            if self.told.remove(&key).is_some() {
                look.news.push(closed(
                    &key,
                    "its time is used up, though the gateway's clock was set back",
                ));
            }
            return;
        }
        let open = look.open.entry(conduit.clone()).or_default();
        *open = left.max(*open);
        look.wake(LOOK.min(left));
        let stage = if left <= SOON { Stage::Ending } else { Stage::Open };
        let before = self.told.insert(key, stage);
        if before.is_none() {
            look.news.push(News {
                step: "remote-access-open",
                message: format!("conduit {conduit} is open for {}", words(grant)),
            });
        }
        if stage == Stage::Ending && before != Some(Stage::Ending) {
            look.news.push(News {
                step: "remote-access-ending",
                message: format!(
                    "conduit {conduit} closes in {} min, at {}; connections on it end: {}",
                    left.as_secs().div_ceil(60),
                    moment(grant.until_ms),
                    words(grant)
                ),
            });
        }
        let soon = if stage == Stage::Ending {
            "; it closes soon"
        } else {
            ""
        };
        look.shown.push(Open {
            conduit: conduit.clone(),
            message: format!("conduit {conduit} is open for {}{soon}", words(grant)),
        });
    }
}

impl Look {
    fn wake(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |again| again.min(after)));
    }
}

fn all(plan: &Plan) -> impl Iterator<Item = (&ConduitId, &Grant)> {
    let grants = plan.grants.iter();
    grants.flat_map(|(conduit, grants)| grants.iter().map(move |grant| (conduit, grant)))
}

fn key(conduit: &ConduitId, grant: &Grant) -> Key {
    (conduit.clone(), grant.name.clone(), grant.until_ms)
}

fn words(grant: &Grant) -> String {
    format!(
        "{} until {} (grant {})",
        grant.person,
        moment(grant.until_ms),
        grant.name
    )
}

fn closed((conduit, grant, _): &Key, why: &str) -> News {
    News {
        step: "remote-access-closed",
        message: format!("conduit {conduit} is closed, which the grant {grant} had opened: {why}"),
    }
}

#[cfg(test)]
mod tests;
