//! Which conduits grants of remote access open at this moment, and what there is to report of it. A pure machine: the time comes
//! in, what is open and when to look again goes out (IEC 62443-3-3 SR 1.13, SR 2.6).
//!
//! - A grant opens its conduit while the gateway's clock is synchronised and stands within the grant. Unknown time opens nothing.
//! - It never stays open for longer than was left of it when it was opened, by the clock that nobody sets: a clock that is set
//!   back prolongs nothing. One that was wrong for a while and is right again closes and reopens it.
//! - A conduit without grants is not this machine's business: no clock closes it.
//!
//! Each grant is reported when it opens its conduit, [`SOON`] before it ends, and when it has ended. Between zones that observe it opens
//! and closes nothing, since nothing is dropped there: the sentences say so.
//!
//! Not here: who does it (`reconcile/grants.rs`), and the kernel's own end of it while no agent lives (`enforce/nft/render/granted.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use penstock_policy::ids::{ConduitId, GrantId};
use penstock_policy::plan::{Grant, Plan, moment};
use penstock_proto::event::AgentStep;

use crate::enforce::shape::passive;
use crate::timepiece::Time;

/// How long before its end a grant is reported as ending.
pub const SOON: Duration = Duration::from_secs(15 * 60);
/// How often the clock is looked at while there is a grant that is not over: it may be set, or lose its source.
pub const LOOK: Duration = Duration::from_secs(1);

/// A grant that was moved or prolonged is another one.
type Key = (ConduitId, GrantId, u64, u64);

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
    /// Opened, ending or closed.
    pub step: AgentStep,
    /// In a sentence.
    pub message: String,
}

/// A conduit that is open, for health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenConduit {
    /// The conduit.
    pub conduit: ConduitId,
    /// By which grant, for whom, and until when, in a sentence.
    pub message: String,
}

/// What a look comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantsReport {
    /// The conduits that are to be open, and how long at most.
    pub open: BTreeMap<ConduitId, Duration>,
    /// What to report.
    pub news: Vec<News>,
    /// What health shows.
    pub shown: Vec<OpenConduit>,
    /// The clock is not believed, and these conduits would need it.
    pub waiting: BTreeSet<ConduitId>,
    /// When to look again; `None`: nothing is going to change by itself.
    pub again: Option<Duration>,
}

impl Grants {
    /// Looks at the grants of `plan`, which is the one in force.
    pub fn look(&mut self, plan: &Plan, time: Time) -> GrantsReport {
        let keys: BTreeSet<Key> = all(plan).map(|(conduit, grant)| key(conduit, grant)).collect();
        self.ends.retain(|key, _| keys.contains(key));
        let mut look = GrantsReport::default();
        let gone: Vec<Key> = self
            .told
            .keys()
            .filter(|key| !keys.contains(*key))
            .cloned()
            .collect();
        let mut over = Vec::new();
        for key in gone {
            self.told.remove(&key);
            let moved = plan.grants_of(&key.0).iter().any(|grant| grant.name == key.1);
            let why = if moved {
                "the policy in force has other times for it"
            } else {
                "the policy in force no longer has the grant"
            };
            over.push((key, why));
        }
        for (conduit, grant) in all(plan) {
            over.extend(self.judge(plan, (conduit, grant), time, &mut look));
        }
        // What is closed is known only when all grants were looked at.
        let ended = over
            .iter()
            .map(|(key, why)| closed(plan, &look.open, key, why))
            .collect();
        let begun = std::mem::replace(&mut look.news, ended);
        look.news.extend(begun);
        look
    }

    /// What the look said was not brought about: what it would report is to be reported when it is. How long grants may last at most
    /// stays known.
    pub fn undo(&mut self, before: Self) {
        self.told = before.told;
    }

    /// Judges one grant; returns why it no longer opens its conduit, if it did before.
    fn judge(
        &mut self,
        plan: &Plan,
        (conduit, grant): (&ConduitId, &Grant),
        time: Time,
        look: &mut GrantsReport,
    ) -> Option<(Key, &'static str)> {
        let key = key(conduit, grant);
        let over = time.wall_ms >= grant.until_ms;
        if !time.synchronised {
            // How much is left is not known either: what is long over by a clock that is wrong may be to come.
            if !over {
                look.waiting.insert(conduit.clone());
            }
            look.wake(LOOK);
            return self.ended(key, "the gateway's clock is no longer synchronised");
        }
        if over {
            return self.ended(key, "the grant is over");
        }
        if time.wall_ms < grant.from_ms {
            look.wake(LOOK.min(Duration::from_millis(grant.from_ms - time.wall_ms)));
            return self.ended(key, "the gateway's clock went back to before the grant");
        }
        let by_wall = Duration::from_millis(grant.until_ms - time.wall_ms);
        let end = *self.ends.entry(key.clone()).or_insert(time.boot + by_wall);
        let left = by_wall.min(end.saturating_sub(time.boot));
        if left.is_zero() {
            return self.ended(key, "its time is used up; the gateway's clock was set back");
        }
        let open = look.open.entry(conduit.clone()).or_default();
        *open = left.max(*open);
        look.wake(LOOK.min(left));
        let stage = if left <= SOON { Stage::Ending } else { Stage::Open };
        let before = self.told.insert(key, stage);
        let opens = opens(plan, conduit, grant);
        if before.is_none() {
            look.news.push(News {
                step: AgentStep::RemoteAccessOpen,
                message: opens.clone(),
            });
        }
        if stage == Stage::Ending && before != Some(Stage::Ending) {
            look.news.push(News {
                step: AgentStep::RemoteAccessEnding,
                message: ends(plan, conduit, grant, left),
            });
        }
        let soon = if stage == Stage::Open {
            ""
        } else if observes(plan, conduit) {
            "; the grant ends soon"
        } else {
            "; it closes soon"
        };
        look.shown.push(OpenConduit {
            conduit: conduit.clone(),
            message: format!("{opens}{soon}"),
        });
        None
    }

    fn ended(&mut self, key: Key, why: &'static str) -> Option<(Key, &'static str)> {
        self.told.remove(&key).map(|_| (key, why))
    }
}

impl GrantsReport {
    fn wake(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |again| again.min(after)));
    }
}

fn all(plan: &Plan) -> impl Iterator<Item = (&ConduitId, &Grant)> {
    let grants = plan.grants.iter();
    grants.flat_map(|(conduit, grants)| grants.iter().map(move |grant| (conduit, grant)))
}

fn key(conduit: &ConduitId, grant: &Grant) -> Key {
    (conduit.clone(), grant.name.clone(), grant.from_ms, grant.until_ms)
}

/// Whether nothing of a conduit is dropped, open or not: all ends of its flows are in zones that observe.
fn observes(plan: &Plan, conduit: &ConduitId) -> bool {
    let rules = || plan.rules.iter().filter(|rule| rule.conduit == *conduit);
    let mut ends = rules().flat_map(|rule| rule.sources.iter().chain(&rule.destinations));
    rules().next().is_some() && ends.all(|end| passive::observes(plan, &end.network))
}

fn words(grant: &Grant) -> String {
    format!(
        "{} until {} (grant {})",
        grant.person,
        moment(grant.until_ms),
        grant.name
    )
}

fn opens(plan: &Plan, conduit: &ConduitId, grant: &Grant) -> String {
    let words = words(grant);
    if observes(plan, conduit) {
        format!(
            "conduit {conduit} is permitted for {words}; its zones observe, so that its connections pass at other times too, and are \
             reported then"
        )
    } else {
        format!("conduit {conduit} is open for {words}")
    }
}

fn ends(plan: &Plan, conduit: &ConduitId, grant: &Grant, left: Duration) -> String {
    let (words, until) = (words(grant), moment(grant.until_ms));
    let minutes = left.as_secs().div_ceil(60);
    let goes_on = |other: &&Grant| other.from_ms <= grant.until_ms && other.until_ms > grant.until_ms;
    if let Some(other) = plan.grants_of(conduit).iter().find(goes_on) {
        format!(
            "the grant {} ends in {minutes} min, at {until}; the grant {} keeps conduit {conduit} open: {words}",
            grant.name, other.name
        )
    } else if observes(plan, conduit) {
        format!(
            "the grant {} ends in {minutes} min, at {until}; the zones of conduit {conduit} observe, so that its connections go on \
             and are reported: {words}",
            grant.name
        )
    } else {
        format!("conduit {conduit} closes in {minutes} min, at {until}; connections on it end: {words}")
    }
}

/// `open`: what grants open now.
fn closed(plan: &Plan, open: &BTreeMap<ConduitId, Duration>, (conduit, grant, ..): &Key, why: &str) -> News {
    let stands =
        || !plan.grants.contains_key(conduit) && plan.rules.iter().any(|rule| rule.conduit == *conduit);
    let message = if open.contains_key(conduit) {
        format!("conduit {conduit} stays open, but not by the grant {grant} as it was: {why}")
    } else if stands() {
        format!("conduit {conduit} stands open and no longer needs the grant {grant}: {why}")
    } else if observes(plan, conduit) {
        format!(
            "the grant {grant} no longer permits conduit {conduit}; its zones observe, so that its connections go on and are reported: \
             {why}"
        )
    } else {
        format!("conduit {conduit}, which grant {grant} had opened, is closed: {why}")
    };
    News {
        step: AgentStep::RemoteAccessClosed,
        message,
    }
}

#[cfg(test)]
mod tests;
