//! When a release may begin on this gateway, and what ends the trial that it is on. Pure: times and facts are arguments.
//!
//! ```text
//! staged ─ order ∧ person ∧ room ∧ clock ∧ window ∧ session ∧ interlock ─▶ armed ─ journal, swap ─▶ trial ─┬─▶ confirmed
//!    └──────────────────────▶ held (which, until when)                                              └─▶ reverted (why)
//! ```
//!
//! A trial that the coordinator cannot confirm goes back by itself, and stays refused until a person clears it. So none begins without a session
//! in which the coordinator gave the order: a stored one may have been taken back while this gateway was out of reach. An emergency
//! waits for it like any other release, since it goes back like any other. What is in force at once, on no trial, needs no session.
//! One that is lost after this look loses nothing but time: the trial begins, and ends like every other.
//!
//! Where a site is declared to be islanded, nobody is expected to confirm: there a trial that came to its end with all must-flows
//! flowing is confirmed by that, and none waits for a session.
//!
//! A trial is measured on the boot's clock, which nobody sets, and ends by itself: a machine that was started again, or an agent that
//! was away until its time was over, comes back with the policy before. An agent that comes back in time goes on with what is left.
//!
//! Not here: what is written and when the kernel changes (`reconcile/activate.rs`), and where facts come from ([`super::site`]).

use std::time::Duration;

use penstock_policy::ids::Digest;

use super::site::{Facts, Interlock};
use crate::policy_store::journal::{
    BEATS_MAX, Beat, DenialBound, Journal, Order, PreviousPolicy, REVERTED_MAX, TrialRecord, Upto,
};
use crate::timepiece::Time;

use super::window::{Opening, Windows};

/// An agent that is started so often within one trial is taken to crash by what is on trial.
pub const STARTS_MAX: u32 = 3;
/// How much of a window is left over after the longest trial that begins in it: for the swap back.
pub const MARGIN: Duration = Duration::from_secs(60);
/// How often a running trial, or an interlock that holds one back, is looked at.
pub const LOOK: Duration = Duration::from_secs(1);
/// How many times its own rhythm a must-flow may be silent.
pub const SILENT_BEATS: u32 = 5;
/// It is never called silent before this, since looks and counters have a grain.
pub const SILENCE_MIN: Duration = Duration::from_secs(5);
/// A trial is this long at least and at most, whatever the order says.
pub const TRIAL_MIN: Duration = Duration::from_secs(10);
/// See [`TRIAL_MIN`].
pub const TRIAL_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Where a session stood before, the coordinator has to be reached over the new rules within this part of the trial.
const MANAGEMENT_PART: u32 = 2;

/// Why a release that is staged is not put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Its order goes no further.
    Order,
    /// A person holds this gateway.
    Person {
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// Too many reverted releases are not cleared yet.
    NotCleared,
    /// It has windows, and the clock is not synchronised.
    Clock,
    /// No window is open for long enough.
    Window {
        /// When one is, milliseconds since 1970; `None`: not within two weeks.
        opens_ms: Option<u64>,
    },
    /// Its windows cannot be told: what is unknown is closed.
    Zone(String),
    /// There is no session with the coordinator in which it was ordered into force, and which could confirm its trial.
    NoSession,
    /// The process does not say that it is safe.
    Interlock(String),
}

/// What is asked before a release begins.
#[derive(Debug)]
pub struct Gate<'a> {
    /// Its order.
    pub order: &'a Order,
    /// It was signed as an emergency: it waits for no window, and for everything else.
    pub emergency: bool,
    /// What a person and the past say.
    pub journal: &'a Journal,
    /// The windows; `None`: it has none, and any time will do.
    pub windows: Option<Result<Windows, String>>,
    /// Somebody can confirm a trial that begins now ([`Facts::has_confirmer`](super::site::Facts::has_confirmer)).
    pub has_confirmer: bool,
}

impl Gate<'_> {
    /// Whether it may begin now; `interlock` is asked last, and only if nothing else holds.
    ///
    /// # Errors
    /// What holds it.
    pub fn judge(&self, now: Time, interlock: impl FnOnce() -> Interlock) -> Result<(), Hold> {
        if self.order.upto != Upto::Active {
            return Err(Hold::Order);
        }
        if let Some(hold) = &self.journal.hold {
            return Err(Hold::Person {
                by: hold.by.clone(),
                why: hold.why.clone(),
            });
        }
        let length = length_of(self.order);
        if length.is_some() && self.journal.reverted.len() >= REVERTED_MAX {
            return Err(Hold::NotCleared);
        }
        match &self.windows {
            _ if self.emergency => {}
            None => {}
            Some(Err(why)) => return Err(Hold::Zone(why.clone())),
            Some(Ok(_)) if !now.synchronised => return Err(Hold::Clock),
            Some(Ok(windows)) => {
                let needs = length.unwrap_or_default() + MARGIN;
                if let Opening::Closed { opens_ms } = windows.at(now.wall_ms, needs) {
                    return Err(Hold::Window { opens_ms });
                }
            }
        }
        if length.is_some() && !self.has_confirmer {
            return Err(Hold::NoSession);
        }
        match interlock() {
            Interlock::NotDeclared | Interlock::Safe => Ok(()),
            Interlock::NotSafe(why) => Err(Hold::Interlock(why)),
        }
    }
}

impl Hold {
    /// When it is worth another look, beside the reconciler's own looks; `None`: when something else happens.
    pub fn again(&self, now: Time) -> Option<Duration> {
        match self {
            Self::Interlock(_) => Some(LOOK),
            Self::Window {
                opens_ms: Some(opens_ms),
            } => Some(Duration::from_millis(opens_ms.saturating_sub(now.wall_ms)).max(LOOK)),
            _ => None,
        }
    }

    /// Stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Person { .. } => "person",
            Self::NotCleared => "not-cleared",
            Self::Clock => "clock",
            Self::Window { .. } => "window",
            Self::Zone(_) => "zone",
            Self::NoSession => "no-session",
            Self::Interlock(_) => "interlock",
        }
    }
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Order => f.write_str("stays staged: the coordinator has not ordered it into force"),
            Self::Person { by, why } => write!(f, "stays staged: {by} holds this gateway ({why})"),
            Self::NotCleared => write!(
                f,
                "stays staged: {REVERTED_MAX} reverted releases are not cleared; clear them at the gateway"
            ),
            Self::Clock => f.write_str(
                "stays staged: this gateway has change windows, and its clock is not synchronised; check its time service",
            ),
            Self::Window { opens_ms: Some(_) } => f.write_str("stays staged until the next change window opens"),
            Self::Window { opens_ms: None } => {
                f.write_str("stays staged: no change window of the next two weeks is long enough")
            }
            Self::Zone(why) => write!(f, "stays staged: its change windows cannot be evaluated: {why}"),
            Self::NoSession => f.write_str(
                "stays staged: there is no session with the coordinator in which it is ordered into force, and which could confirm its \
                 trial",
            ),
            Self::Interlock(why) => write!(f, "stays staged: the process does not say that it is safe to change ({why})"),
        }
    }
}

/// How long the trial of an order is; `None`: there is none.
pub fn length_of(order: &Order) -> Option<Duration> {
    order
        .trial_ms
        .map(|ms| Duration::from_millis(ms).clamp(TRIAL_MIN, TRIAL_MAX))
}

/// Why a trial was reverted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevertReason {
    /// Nobody confirmed it in time.
    Timer,
    /// The machine was started again.
    Reboot,
    /// The agent ended too often in it.
    Crash {
        /// How often an agent was started.
        starts: u32,
    },
    /// The kernel no longer takes it, or it is no longer to be found, after the agent was started again.
    Lost(String),
    /// A must-flow fell silent.
    MustFlow {
        /// `conduit/flow`.
        flow: String,
        /// For how long.
        silent: Duration,
    },
    /// A session with the coordinator stood, and under the new rules nothing came from there.
    Management,
    /// More was denied within a minute than may be: so many more than before.
    Denials(u64),
    /// Somebody asked for it.
    Asked {
        /// Who.
        by: String,
        /// It was the coordinator.
        ordered: bool,
    },
}

impl RevertReason {
    /// Stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Timer => "not-confirmed",
            Self::Reboot => "reboot",
            Self::Crash { .. } => "crash",
            Self::Lost(_) => "lost",
            Self::MustFlow { .. } => "must-flow",
            Self::Management => "management",
            Self::Denials(_) => "denials",
            Self::Asked { .. } => "asked",
        }
    }
}

impl std::fmt::Display for RevertReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timer => f.write_str("nobody confirmed it in time"),
            Self::Reboot => f.write_str("the gateway was restarted"),
            Self::Crash { starts } => write!(f, "the agent was started {starts} times in it"),
            Self::Lost(why) => f.write_str(why),
            Self::MustFlow { flow, silent } => {
                write!(f, "must-flow {flow} was silent for {} s", silent.as_secs())
            }
            Self::Management => f.write_str("the coordinator could not be reached under its rules"),
            Self::Denials(count) => write!(
                f,
                "it denied {count} packets or operations more within a minute than before it, which is more than was foretold"
            ),
            Self::Asked { by, .. } => write!(f, "{by} asked for it"),
        }
    }
}

/// How a trial is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrialEnd {
    /// The release goes, and why.
    Reverted(RevertReason),
    /// The gateway's own test passed where nobody else is expected to confirm: the release stays.
    Passed,
}

/// Who confirms a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmer {
    /// The coordinator, over a session that was opened then (boot clock).
    Remote {
        /// See above.
        session_opened: Duration,
    },
    /// A person on site.
    Person(String),
    /// The gateway's own test, where it is islanded.
    SelfTest,
}

/// A trial that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The release on trial.
    pub statement: Digest,
    /// What the journal has of it.
    pub record: TrialRecord,
    /// Since when the kernel has it by this process; `None`: not yet.
    swapped: Option<Duration>,
    /// The coordinator's address was reached over its rules.
    is_reached: bool,
}

impl Trial {
    /// One that begins now.
    pub fn begin(
        statement: Digest,
        order: &Order,
        previous: Option<PreviousPolicy>,
        (boot, facts): (String, &Facts),
        now: Time,
    ) -> Option<Self> {
        let alive = facts.must_flows.iter().filter_map(|flow| {
            Some(Beat {
                flow: flow.name.clone(),
                rhythm_ms: milliseconds(flow.rhythm?),
            })
        });
        let record = TrialRecord {
            previous,
            ground: None,
            boot,
            began_ms: milliseconds(now.boot),
            length_ms: milliseconds(length_of(order)?),
            why: order.why.clone(),
            managed: facts.session.is_some(),
            beats: alive.take(BEATS_MAX).collect(),
            denials: facts.denials_max.map(|max| DenialBound {
                before: facts.denials,
                max,
            }),
            islanded: facts.islanded,
            starts: 0,
        };
        Some(Self {
            statement,
            is_reached: false,
            record,
            swapped: None,
        })
    }

    /// One that an agent before began.
    ///
    /// # Errors
    /// It is over.
    pub fn resume(
        statement: Digest,
        mut record: TrialRecord,
        boot: &str,
        now: Time,
    ) -> Result<Self, RevertReason> {
        record.starts = record.starts.saturating_add(1);
        let began = Duration::from_millis(record.began_ms);
        // A boot without a name may be any.
        if record.boot.is_empty() || record.boot != boot || now.boot < began {
            return Err(RevertReason::Reboot);
        }
        let trial = Self {
            statement,
            record,
            swapped: None,
            is_reached: false,
        };
        if trial.left(now.boot).is_zero() {
            return Err(RevertReason::Timer);
        }
        let starts = trial.record.starts;
        if starts >= STARTS_MAX {
            return Err(RevertReason::Crash { starts });
        }
        Ok(trial)
    }

    /// The kernel has it.
    pub fn swapped(&mut self, at: Duration) {
        self.swapped = Some(at);
        // What came before shows nothing of what the kernel has now.
        self.is_reached = false;
    }

    /// Since when the kernel has it by this process.
    pub fn in_kernel_since(&self) -> Option<Duration> {
        self.swapped
    }

    /// How long it still goes on.
    pub fn left(&self, boot: Duration) -> Duration {
        let end = Duration::from_millis(self.record.began_ms.saturating_add(self.record.length_ms));
        end.saturating_sub(boot)
    }

    /// How long until the next look.
    pub fn again(&self, boot: Duration) -> Duration {
        LOOK.min(self.left(boot))
    }

    /// Looks at the facts: how it is over, if it is.
    pub fn look(&mut self, facts: &Facts, boot: Duration) -> Option<TrialEnd> {
        if let Some(why) = self.fails(facts, boot) {
            return Some(TrialEnd::Reverted(why));
        }
        if !self.left(boot).is_zero() {
            return None;
        }
        let passes = self.record.islanded && self.flows(facts);
        Some(if passes {
            TrialEnd::Passed
        } else {
            TrialEnd::Reverted(RevertReason::Timer)
        })
    }

    /// What of the facts ends it before its time.
    fn fails(&mut self, facts: &Facts, boot: Duration) -> Option<RevertReason> {
        let swapped = self.swapped?;
        let alive = |name: &str| facts.must_flows.iter().find(|flow| flow.name == name)?.seen;
        for beat in &self.record.beats {
            let limit = (Duration::from_millis(beat.rhythm_ms) * SILENT_BEATS).max(SILENCE_MIN);
            let silent = boot.saturating_sub(alive(&beat.flow).unwrap_or_default().max(swapped));
            if silent > limit {
                return Some(RevertReason::MustFlow {
                    flow: beat.flow.clone(),
                    silent,
                });
            }
        }
        // One from before the swap shows nothing: it may stand by rules that would not let it come again.
        let shows = |begun: Option<Duration>| begun.is_some_and(|begun| begun >= swapped);
        self.is_reached |= shows(facts.session) || shows(facts.answered);
        // A coordinator that is away although its rules let through what goes there is not their doing: then the trial has its time.
        let is_missed = self.record.managed && !self.record.islanded && !self.is_reached;
        let limit = Duration::from_millis(self.record.length_ms) / MANAGEMENT_PART;
        if is_missed && boot.saturating_sub(swapped) > limit {
            return Some(RevertReason::Management);
        }
        if let Some(bound) = self.record.denials {
            let count = facts.denials.saturating_sub(bound.before);
            if count > bound.max {
                return Some(RevertReason::Denials(count));
            }
        }
        None
    }

    /// Whether each must-flow that was alive before has flowed since the kernel has it, as far as that can be waited for: one that is
    /// usually silent for most of such a trial shows nothing by it.
    pub fn flows(&self, facts: &Facts) -> bool {
        let Some(swapped) = self.swapped else {
            return false;
        };
        let seen = |name: &str| facts.must_flows.iter().find(|flow| flow.name == name)?.seen;
        let patience_ms = self.record.length_ms / 2;
        self.record
            .beats
            .iter()
            .filter(|beat| beat.rhythm_ms < patience_ms)
            .all(|beat| seen(&beat.flow).is_some_and(|seen| seen >= swapped))
    }

    /// Whether this one may confirm it: only what the new rules let through shows that they do.
    pub fn is_confirmed_by(&self, confirmer: &Confirmer) -> bool {
        match (self.swapped, confirmer) {
            (None, _) => false,
            (Some(swapped), Confirmer::Remote { session_opened }) => *session_opened >= swapped,
            (Some(_), Confirmer::Person(_) | Confirmer::SelfTest) => true,
        }
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
