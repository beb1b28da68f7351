//! Whether packets can cross the gateway at all: what the machine does beside the rules, looked at each second, and must-flows
//! that fell silent (DESIGN §2, promise 13; IEC 62443-3-3 SR 6.2).
//!
//! ```text
//! plan ─▶ scope ─┐
//! kernel ─ facts ┴▶ judge ──▶ conditions ──▶ health, and the trail when one begins or ends
//! kernel ─ counted ─▶ silent ──┘
//! ```
//!
//! Everything is read, nothing is sent: links, bridges, addresses, kernel parameters, the kernel's own answer to the question
//! where it would forward a packet of each flow, and the counters of must-flows. Ways, which take longest, are asked for every
//! [`WAYS_EVERY`]th time. What cannot be read is unknown, and ends no condition.
//!
//! Not here: what the rules let pass (`table`), and their drift (`drift`).

mod facts;
mod judge;
mod scope;
mod silent;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_policy::plan::Plan;

use self::facts::{MachineFacts, NoWay};
use self::scope::{Concern, Crossing, Expectations};
pub use self::silent::Pace;
use self::silent::{Beats, Rhythms, Silent};
use crate::clock;
use crate::enforce::ground::needs;
use crate::enforce::nft::must_flows::MustFlowElements;
use crate::kernel::FlowRhythm;
use crate::observed::Condition;

/// How often the machine is looked at.
pub(in crate::enforce) const LOOK: Duration = Duration::from_secs(1);
/// Every how many looks the ways are asked for.
const WAYS_EVERY: u32 = 3;

/// What one look found.
#[derive(Debug)]
pub(in crate::enforce) struct PassageReport {
    /// What is so.
    pub(in crate::enforce) present: Vec<Condition>,
    /// Which codes this look could decide; whether others hold is unknown.
    pub(in crate::enforce) looked: fn(&str) -> bool,
}

impl PassageReport {
    /// There is nothing to look at: what was found before is no longer so.
    pub(in crate::enforce) const NOTHING: Self = Self {
        present: Vec::new(),
        looked: |_| true,
    };
    /// Nothing could be read.
    pub(in crate::enforce) const FAILED: Self = Self {
        present: Vec::new(),
        looked: |_| false,
    };
}

/// The code of a must-flow that fell silent.
const SILENT: &str = "flow-silent";

/// What was seen so far, of one plan.
#[derive(Debug, Default)]
pub(in crate::enforce) struct Passage {
    seen: Mutex<WatchedPlan>,
    /// How the flows that are followed went at the last look.
    beats: Mutex<Vec<(String, Beats)>>,
}

#[derive(Debug, Default)]
struct WatchedPlan {
    plan: Option<Arc<Plan>>,
    scope: Arc<Expectations>,
    counted: Arc<MustFlowElements>,
    /// The numbers that interfaces had.
    numbers: BTreeMap<String, u32>,
    /// The addresses that they had since the plan is in force.
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    rhythms: Rhythms,
    /// Ways that lead astray, as last asked for, and what inspection lacks.
    astray: Vec<(Crossing, NoWay)>,
    lacking: Vec<Condition>,
    /// Ways that were seen to lead where they should.
    worked: BTreeSet<(IpAddr, IpAddr)>,
    looks: u32,
}

impl Passage {
    /// `pace`: when flows are judged.
    pub(in crate::enforce) fn new(pace: Pace) -> Self {
        let rhythms = Rhythms::new(pace);
        let seen = WatchedPlan {
            rhythms,
            ..WatchedPlan::default()
        };
        Self {
            seen: Mutex::new(seen),
            beats: Mutex::default(),
        }
    }

    /// The plan whose must-flows are followed, and where they are counted.
    pub(in crate::enforce) fn followed(&self) -> Option<(Arc<Plan>, Arc<MustFlowElements>)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Some((seen.plan.clone()?, Arc::clone(&seen.counted)))
    }

    /// How the flows go that are followed, those of a plan before among them, as of the last look; `now` is the monotonic clock. Never
    /// waits for a look that is under way.
    pub(in crate::enforce) fn must_flows(&self, now: Duration) -> Vec<FlowRhythm> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let flows = beats.iter().map(|(name, beats)| FlowRhythm {
            name: name.clone(),
            usual: beats.usual,
            ago: beats.last.map(|last| now.saturating_sub(last)),
        });
        flows.collect()
    }

    /// Looks at the machine, once, on a blocking thread, for `plan`, which is in force; `now` is the monotonic clock. `counted`
    /// is where its must-flows are counted, where it is another than that of [`Passage::followed`].
    pub(in crate::enforce) async fn look(
        self: &Arc<Self>,
        plan: Arc<Plan>,
        counted: Option<MustFlowElements>,
        inspects: bool,
        now: Duration,
    ) -> PassageReport {
        let passage = Arc::clone(self);
        let look = move || passage.look_now(&plan, counted, inspects, (now, clock::now_ms()));
        tokio::task::spawn_blocking(look)
            .await
            .unwrap_or(PassageReport::FAILED)
    }

    fn look_now(
        &self,
        plan: &Arc<Plan>,
        counted: Option<MustFlowElements>,
        inspects: bool,
        now: (Duration, u64),
    ) -> PassageReport {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = &mut *seen;
        if !seen.plan.as_ref().is_some_and(|known| Arc::ptr_eq(known, plan)) {
            seen.take_up(plan);
        }
        if let Some(counted) = counted {
            seen.counted = Arc::new(counted);
        }
        let facts = match facts::read(&seen.scope, &seen.numbers) {
            Ok(facts) => facts,
            Err(error) => {
                tracing::debug!(%error, "the machine cannot be looked at");
                return PassageReport::FAILED;
            }
        };
        for (name, link) in &facts.links {
            seen.numbers
                .extend(link.as_ref().map(|link| (name.clone(), link.index)));
        }
        for (name, addresses) in &facts.addresses {
            seen.addresses.entry(name.clone()).or_default().extend(addresses);
        }
        if seen.looks.is_multiple_of(WAYS_EVERY) {
            seen.ask_ways(&facts);
            let lacking = if inspects {
                needs::lacking(plan)
            } else {
                Vec::new()
            };
            let lacking = lacking.into_iter();
            seen.lacking = lacking
                .map(|one| Condition::of_gateway(one.code, one.message, false))
                .collect();
        }
        seen.looks = seen.looks.wrapping_add(1);
        let lost: Vec<_> = seen
            .astray
            .iter()
            .map(|(crossing, why)| (crossing, why.clone()))
            .collect();
        let mut present = judge::judge(&seen.scope, &facts, &seen.addresses, &lost);
        present.extend(seen.lacking.iter().cloned());
        let mut looked: fn(&str) -> bool = |_| true;
        match seen.silent(plan, now) {
            Some(silent) => {
                present.extend(silent);
                let beats = seen.beats(now.0).collect();
                *self.beats.lock().unwrap_or_else(PoisonError::into_inner) = beats;
            }
            None => looked = |code| code != SILENT,
        }
        PassageReport { present, looked }
    }
}

impl WatchedPlan {
    /// A plan that was put in force: what is known of the one before holds for what both have. Grants of remote access that open
    /// and end are such plans, too.
    fn take_up(&mut self, plan: &Arc<Plan>) {
        let known = self.plan.replace(Arc::clone(plan));
        self.scope = Arc::new(Expectations::of(plan));
        if known.is_none_or(|known| known.interfaces != plan.interfaces || known.mode != plan.mode) {
            self.addresses.clear();
            self.worked.clear();
        }
        let crossings = &self.scope.crossings;
        self.worked.retain(|(from, to)| {
            let leads = |one: &Crossing| (one.from.1, one.to.1) == (*from, *to);
            crossings.iter().any(|one| leads(one) || leads(&one.back()))
        });
        self.looks = 0;
    }

    /// Asks where packets of flows would go. Where rules of routing look at what this question cannot show (marks), only
    /// what led there once and does no longer is wrong.
    fn ask_ways(&mut self, facts: &MachineFacts) {
        let plain = facts::routes_are_plain();
        let scope = Arc::clone(&self.scope);
        let both = scope.crossings.iter().flat_map(|one| [one.clone(), one.back()]);
        self.astray.clear();
        for crossing in both {
            let ends = (crossing.from.1, crossing.to.1);
            match facts::leads(&crossing, facts) {
                Some(Ok(())) => {
                    self.worked.insert(ends);
                }
                Some(Err(why)) if plain || self.worked.contains(&ends) => self.astray.push((crossing, why)),
                Some(Err(_)) | None => {}
            }
        }
    }

    /// The must-flows that fell silent; `None`: unknown.
    fn silent(&mut self, plan: &Plan, now: (Duration, u64)) -> Option<Vec<Condition>> {
        let counted = match self.counted.read() {
            Ok(counted) => counted,
            Err(error) => {
                // The tables are being changed; a look later they are there again.
                tracing::debug!(%error, "the counters of must-flows cannot be read");
                return None;
            }
        };
        let silent = self.rhythms.see(&counted, now).into_iter();
        Some(
            silent
                .filter_map(|silent| Self::fell_silent(plan, &silent))
                .collect(),
        )
    }

    /// How the flows go that are followed, by name.
    fn beats(&self, now: Duration) -> impl Iterator<Item = (String, Beats)> {
        let beats = self.rhythms.beats(now);
        beats.filter_map(|(flow, beats)| Some((self.counted.name(flow)?.to_owned(), beats)))
    }

    fn fell_silent(plan: &Plan, silent: &Silent) -> Option<Condition> {
        let mut rules = plan.rules.iter();
        // What was a must-flow before is followed for a trial alone.
        let rule = rules.find(|rule| rule.id == silent.flow && rule.must_flow)?;
        let concern = Concern::of_rule(plan, rule);
        let name = format!("{}/{}", rule.conduit, rule.flow);
        let what = if silent.weak {
            "carries less than a quarter of its usual packets"
        } else {
            "carries nothing"
        };
        let message = format!(
            "must-flow {name} {what} since {}; its longest pause before, since this agent has followed it, was {}",
            clock::utc(silent.since_ms),
            span(silent.longest)
        );
        Some(concern.fault(SILENT, &name, message))
    }
}

/// A length of time in words.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=1 => "1 s".to_owned(),
        2..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests;
