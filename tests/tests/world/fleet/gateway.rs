//! One gateway of a fleet: its own machine for trials, its journal on disk, its boot's clock and its session; and checks of what it
//! does that know nothing of that machine.

mod link;
mod rules;

use std::collections::VecDeque;
use std::time::Duration;

use jiff::tz::TimeZone;
use penstock_agent::policy_store::journal::{Journal, Order, PreviousPolicy, RevertedRelease};
use penstock_agent::reconcile::site::{Facts, Interlock, MustFlow};
use penstock_agent::reconcile::trial::{Gate, Hold, RevertReason, Trial, TrialEnd};
use penstock_agent::reconcile::window::Windows;
use penstock_agent::timepiece::Time;
use penstock_coordinator::rollout::{Fact, Target};
use penstock_policy::ids::{Digest, Revision};
use penstock_policy::model::Window;

use super::{BEFORE, BEGINS_MS, CARRIED, Tally};
use crate::chance::Chance;

/// What the coordinator sends, about the release of this number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Message {
    Order(u64, Target),
    Confirm(u64),
    Revert(u64),
}

/// What the carried release does where it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    CutsMustFlow,
    CutsManagement,
    Denies,
    /// The agent dies of it, mostly.
    Crashes,
    /// The agent knows no trials.
    Old,
    /// The coordinator is rarely in reach.
    Islanded,
}

struct Session {
    /// By the boot's clock, and in truth.
    opened: (Duration, u64),
    down: VecDeque<Message>,
    number: u64,
}

/// What a disk keeps.
#[derive(Clone, Default)]
struct Disk {
    journal: Journal,
    confirmed: u64,
    /// The last order about the carried release: the next agent has it, too.
    order: Option<Order>,
}

pub(super) struct Gateway {
    pub(super) index: usize,
    nature: Nature,
    has_windows: bool,
    has_interlock: bool,
    /// The release was signed as one.
    emergency: bool,
    disk: Disk,
    /// What the running agent knows; `None`: none runs.
    trial: Option<Option<Trial>>,
    staged: bool,
    held: Option<Hold>,
    /// Since when its kernel judges live traffic by the release beside the one in force.
    judges_since: Option<u64>,
    /// What the kernel holds, and since when in truth.
    kernel: (u64, u64),
    booted_at: u64,
    boots: u64,
    down_until: u64,
    skew: u64,
    synchronised: bool,
    session: Option<Session>,
    up: VecDeque<Fact>,
}

fn statement(revision: u64) -> Digest {
    Digest::of(&revision.to_be_bytes())
}

/// Of each hour of the first two days, the minutes in which those may change that have windows.
const OPEN: (u16, u16) = (10, 40);

fn windows() -> Windows {
    let windows = [3, 4].into_iter().flat_map(|weekday| {
        (0..24).map(move |hour| Window {
            weekday,
            start_minute: hour * 60 + OPEN.0,
            end_minute: hour * 60 + OPEN.1,
        })
    });
    Windows::new(TimeZone::UTC, windows.collect())
}

impl Gateway {
    pub(super) fn new(index: usize, emergency: bool, chance: &mut Chance) -> Self {
        let nature = match chance.below(30) {
            0 => Nature::CutsMustFlow,
            1 => Nature::CutsManagement,
            2 => Nature::Denies,
            3 | 4 => Nature::Old,
            5..8 => Nature::Islanded,
            8 => Nature::Crashes,
            _ => Nature::Good,
        };
        Self {
            index,
            nature,
            has_windows: chance.once_in(4),
            has_interlock: chance.once_in(4),
            emergency,
            disk: Disk {
                confirmed: BEFORE,
                ..Disk::default()
            },
            trial: None,
            staged: false,
            held: None,
            judges_since: None,
            kernel: (BEFORE, 0),
            booted_at: 0,
            boots: 0,
            down_until: 0,
            skew: 0,
            synchronised: true,
            session: None,
            up: VecDeque::new(),
        }
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.disk.journal.trial.is_some()
    }

    pub(super) fn confirmed(&self) -> u64 {
        self.disk.confirmed
    }

    pub(super) fn trial_is_overdue(&self, time: u64) -> bool {
        let trial = self.trial.as_ref().and_then(Option::as_ref);
        trial.is_some_and(|trial| trial.left(self.boot(time)).is_zero())
    }

    fn boot(&self, time: u64) -> Duration {
        Duration::from_millis(time - self.booted_at)
    }

    fn now(&self, time: u64) -> Time {
        Time {
            wall_ms: BEGINS_MS + time + self.skew,
            synchronised: self.synchronised,
            boot: self.boot(time),
        }
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.boots)
    }

    fn is_safe(&self, time: u64) -> bool {
        (time / 1_000 + self.index as u64 * 37) % 400 < 200
    }

    // ── What happens to it ──────────────────────────────────────────────

    pub(super) fn cut(&mut self) {
        if self.session.take().is_some() {
            let gateway = self.index as u32;
            self.up.push_back(Fact::Gone { gateway });
            self.forget_order();
        }
    }

    /// The coordinator that had the session is gone.
    pub(super) fn forget_session(&mut self) {
        self.session = None;
        self.up.clear();
        self.forget_order();
    }

    /// An agent that knows no trials has an order as long as its session stands.
    fn forget_order(&mut self) {
        self.disk.order.take_if(|_| self.nature == Nature::Old);
    }

    /// Its agent is.
    pub(super) fn kill(&mut self, for_ms: u64) {
        self.cut();
        (self.trial, self.staged, self.judges_since) = (None, false, None);
        self.down_until += for_ms;
    }

    pub(super) fn reboot(&mut self, time: u64, for_ms: u64) {
        self.kill(for_ms);
        self.boots += 1;
        self.booted_at = time;
    }

    pub(super) fn set_clock(&mut self, skew: u64) {
        (self.skew, self.synchronised) = match self.skew {
            0 => (skew, false),
            _ => (0, true),
        };
    }

    pub(super) fn toggle_hold(&mut self) {
        let journal = &mut self.disk.journal;
        journal.hold = match journal.hold.take() {
            Some(_) => None,
            None => Some(penstock_agent::policy_store::journal::PersonHold {
                by: "k.ito".to_owned(),
                why: "works on the pump".to_owned(),
                since_ms: 0,
            }),
        };
    }

    /// A person clears what was reverted.
    pub(super) fn clear(&mut self) {
        self.disk.journal.reverted.clear();
    }

    pub(super) fn calm_down(&mut self, time: u64) {
        self.down_until = self.down_until.min(time);
        (self.skew, self.synchronised) = (0, true);
        self.disk.journal.hold = None;
    }

    pub(super) fn send(&mut self, message: Message) {
        // A session that the coordinator does not know yet reads its target when it opens.
        let is_known = !self.up.iter().any(|fact| matches!(fact, Fact::Hello { .. }));
        if let Some(session) = self.session.as_mut().filter(|_| is_known) {
            session.down.push_back(message);
        }
    }

    // ── What it does ────────────────────────────────────────────────────

    /// Some time passes; whether the kernel was changed to the carried release.
    ///
    /// # Errors
    /// It did what it may not.
    pub(super) fn live(
        &mut self,
        time: u64,
        calm: bool,
        chance: &mut Chance,
        tally: &mut Tally,
    ) -> Result<bool, String> {
        if self.down_until > time {
            tally.killed += 1;
            return Ok(false);
        }
        self.down_until = time;
        let before = self.kernel.0;
        if self.trial.is_none() {
            self.start(time, tally)?;
        }
        if self.kernel.0 == CARRIED && self.nature == Nature::Crashes && !chance.once_in(3) {
            self.kill(1_000);
            return Ok(before == BEFORE && self.kernel.0 == CARRIED);
        }
        let reachable = self.kernel.0 == BEFORE || self.nature != Nature::CutsManagement;
        if !reachable {
            self.cut();
        }
        if self.session.is_none()
            && reachable
            && (calm || chance.once_in(if self.nature == Nature::Islanded { 20 } else { 4 }))
        {
            self.connect(time);
        }
        let (facts, boot) = (self.facts(time), self.boot(time));
        match self.trial.as_mut().and_then(Option::as_mut) {
            Some(trial) => {
                let end = trial.look(&facts, boot);
                self.end(time, end, tally)?;
            }
            None => self.change(time, calm, chance, tally)?,
        }
        Ok(before == BEFORE && self.kernel.0 == CARRIED)
    }

    fn end(&mut self, time: u64, end: Option<TrialEnd>, tally: &mut Tally) -> Result<(), String> {
        match end {
            None => Ok(()),
            Some(TrialEnd::Reverted(why)) => self.take_back(time, &why, tally),
            Some(TrialEnd::Passed) if self.nature == Nature::Islanded => {
                self.keep(tally);
                Ok(())
            }
            Some(TrialEnd::Passed) => Err(format!("gateway {} confirmed itself", self.index)),
        }
    }

    /// The release on trial stays.
    fn keep(&mut self, tally: &mut Tally) {
        self.disk.journal.trial = None;
        self.disk.confirmed = CARRIED;
        self.trial = Some(None);
        tally.confirmed += 1;
    }

    fn start(&mut self, time: u64, tally: &mut Tally) -> Result<(), String> {
        self.trial = Some(None);
        self.staged = true;
        let Some(record) = self.disk.journal.trial.clone() else {
            self.load(self.disk.confirmed, time);
            return Ok(());
        };
        let now = self.now(time);
        match Trial::resume(statement(CARRIED), record, &self.boot_id(), now) {
            Ok(mut trial) => {
                self.load(CARRIED, time);
                trial.swapped(now.boot);
                self.disk.journal.trial = Some(trial.record.clone());
                self.trial = Some(Some(trial));
                Ok(())
            }
            Err(why) => self.take_back(time, &why, tally),
        }
    }

    fn load(&mut self, revision: u64, time: u64) {
        if self.kernel.0 != revision {
            self.kernel = (revision, time);
        }
    }

    fn connect(&mut self, time: u64) {
        let opened = (self.boot(time), time);
        self.session = Some(Session {
            opened,
            down: VecDeque::new(),
            number: 0,
        });
        let (gateway, standing) = (self.index as u32, self.standing(time));
        self.up.push_back(Fact::Hello {
            gateway,
            keeps_order: self.nature != Nature::Old,
            standing,
        });
    }

    /// An order came in the session that stands.
    fn is_ordered(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.number > 0)
    }

    fn facts(&self, time: u64) -> Facts {
        let boot = self.boot(time);
        let has_it = self.kernel.0 == CARRIED;
        let since = Duration::from_millis(self.kernel.1.saturating_sub(self.booted_at));
        let is_cut = has_it && self.nature == Nature::CutsMustFlow;
        Facts {
            must_flows: vec![MustFlow {
                name: "control/poll".to_owned(),
                rhythm: (!is_cut).then_some(Duration::from_secs(1)),
                seen: Some(if is_cut { since } else { boot }),
            }],
            session: self.session.as_ref().map(|session| session.opened.0),
            answered: None,
            denials: if has_it && self.nature == Nature::Denies {
                100
            } else {
                0
            },
            denials_max: Some(10),
            islanded: self.nature == Nature::Islanded,
        }
    }

    /// Puts the staged release in force, if nothing holds it.
    fn change(
        &mut self,
        time: u64,
        calm: bool,
        chance: &mut Chance,
        tally: &mut Tally,
    ) -> Result<(), String> {
        self.held = None;
        let Some(order) = self.disk.order.clone() else {
            return Ok(());
        };
        let is_wanted = self.staged
            && self.disk.confirmed < CARRIED
            && !self.disk.journal.is_reverted(statement(CARRIED));
        if !is_wanted {
            return Ok(());
        }
        let now = self.now(time);
        let gate = Gate {
            order: &order,
            journal: &self.disk.journal,
            emergency: self.emergency,
            windows: self.has_windows.then(|| Ok(windows())),
            has_confirmer: self.nature == Nature::Islanded || self.is_ordered(),
        };
        let interlock = || match (self.has_interlock, self.is_safe(time)) {
            (false, _) => Interlock::NotDeclared,
            (true, true) => Interlock::Safe,
            (true, false) => Interlock::NotSafe("the pumps run".to_owned()),
        };
        if let Err(hold) = gate.judge(now, interlock) {
            *tally.held.entry(word(&hold)).or_default() += 1;
            self.held = Some(hold);
            return Ok(());
        }
        self.may_change(time, &order)?;
        let before = Some(PreviousPolicy {
            statement: statement(BEFORE),
            slot: "a".to_owned(),
        });
        let around = (self.boot_id(), &self.facts(time));
        let Some(trial) = Trial::begin(statement(CARRIED), &order, before, around, now) else {
            // It knows no trials, or its order has none.
            self.disk.confirmed = CARRIED;
            self.load(CARRIED, time);
            tally.swaps += 1;
            return Ok(());
        };
        if self.dies(calm, chance, tally) {
            return Ok(());
        }
        self.disk.journal.trial = Some(trial.record.clone());
        if self.dies(calm, chance, tally) {
            return Ok(());
        }
        self.load(CARRIED, time);
        tally.swaps += 1;
        if self.dies(calm, chance, tally) {
            return Ok(());
        }
        let mut trial = trial;
        trial.swapped(now.boot);
        self.trial = Some(Some(trial));
        // Only a session under the new rules shows that they let it pass.
        self.cut();
        Ok(())
    }

    fn dies(&mut self, calm: bool, chance: &mut Chance, tally: &mut Tally) -> bool {
        let dies = !calm && chance.once_in(30);
        if dies {
            self.kill(chance.below(20_000));
            tally.killed += 1;
        }
        dies
    }

    /// The trial is over without a confirmation.
    fn take_back(&mut self, time: u64, why: &RevertReason, tally: &mut Tally) -> Result<(), String> {
        let Some(record) = self.disk.journal.trial.take() else {
            return Err(format!("gateway {} reverts what is on no trial", self.index));
        };
        self.ends_rightly(time, why, &record)?;
        *tally.reverted.entry(why.code().to_owned()).or_default() += 1;
        self.disk.journal.reverted.push(RevertedRelease {
            statement: statement(CARRIED),
            revision: Revision(CARRIED),
            code: why.code().to_owned(),
            why: why.to_string(),
            at_ms: 0,
            ordered: matches!(why, RevertReason::Asked { ordered: true, .. }),
        });
        self.trial = Some(None);
        // The order went with the release: it has to be ordered again, when a person has cleared it.
        self.disk.order = None;
        self.load(BEFORE, time);
        Ok(())
    }
}

fn word(hold: &Hold) -> &'static str {
    match hold {
        Hold::Order => "order",
        Hold::Person { .. } => "person",
        Hold::NotCleared => "not-cleared",
        Hold::Clock => "clock",
        Hold::Window { .. } => "window",
        Hold::Zone(_) => "zone",
        Hold::NoSession => "no-session",
        Hold::Interlock(_) => "interlock",
    }
}
