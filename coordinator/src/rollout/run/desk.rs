//! All rollouts that are in memory, and what each gateway should have by them together. No store and no socket: the shell around
//! it ([`super`]) stores what was decided before anything of it is [published](Desk::publish).
//!
//! At most one rollout opens waves, the newest. Beside it stay: the one that carried the baseline, which looks after gateways that come
//! late or were replaced; and older ones until the trials that they opened are over. What one of them may have unconfirmed, the
//! others leave alone, its partner too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use penstock_policy::ids::{GatewayId, Revision};
use penstock_proto::convert::PolicyMark;
use penstock_proto::v1;

use super::live::{Live, is_end};
use super::standing::order_number;
use super::stored::{Baseline, FreezeRecord};
use crate::releases::CurrentRelease;
use crate::rollout::{Mark, Now, Stage, Target, Upto};
use crate::sessions::{Fleet, GatewayFacts, Order, Wanted, Word};

/// Rollouts in memory at most: a new one waits until the trials of an older one are over.
pub(super) const LIVES_MAX: usize = 4;

/// See the module.
pub(super) struct Desk {
    /// The oldest first; the last one is the newest.
    pub(super) lives: Vec<Live>,
    pub(super) freeze: FreezeRecord,
    pub(super) freeze_at: Option<u64>,
    pub(super) baseline: Baseline,
    pub(super) baseline_at: Option<u64>,
    /// The number of the next rollout.
    pub(super) next: u64,
    /// Rollouts of the store that cannot be taken up: of which release, and why.
    pub(super) damaged: BTreeMap<u64, (Revision, String)>,
    /// The baseline is yet to be written: this release, or that there is none.
    pub(super) first_baseline: Option<Option<Revision>>,
    /// The sessions of gateways as they were looked at last.
    seen: BTreeMap<GatewayId, u64>,
    /// Those that are connected and stand otherwise, and whether by a session that begins.
    moved: BTreeMap<GatewayId, bool>,
    words: u64,
    /// The release of which the rollout does not start by itself.
    pub(super) declined: Option<Revision>,
    /// All was read again from the store, where somebody else wrote.
    pub(super) is_read_again: bool,
    /// The store failed what somebody wanted, and may have it all the same: it is read again before anything else.
    pub(super) is_doubtful: bool,
}

/// What a gateway should have, and of which rollout.
struct Asked<'a> {
    live: &'a Live,
    target: Target,
    offers: bool,
}

impl Desk {
    pub(super) fn new(
        freeze: (FreezeRecord, Option<u64>),
        baseline: (Baseline, Option<u64>),
        next: u64,
    ) -> Self {
        Self {
            lives: Vec::new(),
            freeze: freeze.0,
            freeze_at: freeze.1,
            baseline: baseline.0,
            baseline_at: baseline.1,
            next,
            damaged: BTreeMap::new(),
            first_baseline: None,
            seen: BTreeMap::new(),
            moved: BTreeMap::new(),
            words: 0,
            declined: None,
            is_read_again: false,
            is_doubtful: false,
        }
    }

    /// Takes the place of one whose rollouts somebody else wrote: the sessions stay, and are all given their targets again.
    pub(super) fn follows(&mut self, before: &mut Self) {
        self.seen = std::mem::take(&mut before.seen);
        self.moved = self.seen.keys().map(|id| (id.clone(), true)).collect();
        self.words = before.words;
        self.is_read_again = true;
    }

    pub(super) fn now(&self, wall_ms: u64) -> Now {
        Now {
            wall_ms,
            frozen: self.freeze.frozen,
        }
    }

    /// The newest rollout.
    pub(super) fn newest(&self) -> Option<&Live> {
        self.lives.last()
    }

    /// The newest release that a gateway was let activate.
    pub(super) fn in_force(&self) -> Option<Arc<CurrentRelease>> {
        let activated = |live: &&Live| {
            let counts = live.log.rollout.counts();
            live.is_carried() || counts.keys().any(|mark| mark.counts() || mark.is_in_flight())
        };
        let live = self.lives.iter().rev().find(activated)?;
        Some(live.release.clone())
    }

    /// The releases that gateways should have by what is here.
    pub(super) fn releases(&self) -> BTreeSet<Revision> {
        self.lives.iter().map(|live| live.machine.revision()).collect()
    }

    /// Takes in how gateways stand that stand otherwise.
    pub(super) fn hear(&mut self, fleet: &Fleet) {
        let Self {
            lives, seen, moved, ..
        } = self;
        fleet.take_moved(|id, session, facts| {
            let before = seen.get(id).copied();
            for live in lives.iter_mut() {
                live.hear(id, (before, session), facts);
            }
            match session {
                Some(session) => {
                    seen.insert(id.clone(), session);
                    *moved.entry(id.clone()).or_default() |= before != Some(session);
                }
                None => {
                    seen.remove(id);
                    moved.remove(id);
                }
            }
        });
    }

    /// A rollout that begins or is taken up learns what is known: who is connected, and what the others have under way.
    pub(super) fn add(&mut self, mut live: Live, fleet: &Fleet) {
        let seen = &self.seen;
        fleet.inspect_connected(|id, session, facts| {
            // The others hear of a session that began meanwhile as it is.
            if seen.get(id) == Some(&session) {
                live.hear(id, (None, Some(session)), facts);
            }
        });
        for other in &mut self.lives {
            introduce(&live, other);
            introduce(other, &mut live);
        }
        self.lives.push(live);
    }

    /// Steps all that have something to step for.
    pub(super) fn step(&mut self, wall_ms: u64, all: bool) {
        let now = self.now(wall_ms);
        // What one opens another may not: each step is known to all before the next.
        for at in 0..self.lives.len() {
            let crossed = match self.lives.get_mut(at) {
                Some(live) if all || live.is_due() => live.step(now),
                _ => continue,
            };
            self.pass_on(at, &crossed);
        }
    }

    /// Tells the others what one may have unconfirmed.
    pub(super) fn pass_on(&mut self, from: usize, crossed: &[(GatewayId, bool)]) {
        for (at, other) in self.lives.iter_mut().enumerate() {
            if at != from {
                for (id, is) in crossed {
                    elsewhere(other, id, *is);
                }
            }
        }
    }

    /// When to step again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lives.iter().filter_map(Live::due_at).min()
    }

    /// Whether something was decided that the store does not have.
    pub(super) fn is_unstored(&self) -> bool {
        self.lives.iter().any(Live::is_unstored)
    }

    /// Gives sessions what came of steps that are stored: those that are concerned, and no others.
    pub(super) fn publish(&mut self, fleet: &Fleet) {
        let mut concerned = std::mem::take(&mut self.moved);
        let mut words: Vec<(GatewayId, Word)> = Vec::new();
        for live in &mut self.lives {
            let pending = std::mem::take(&mut live.pending);
            let members = live.machine.fleet();
            let name = |at: u32| members.member(at).map(|member| member.id.clone());
            for id in pending.moved.iter().filter_map(|at| name(*at)) {
                concerned.entry(id).or_insert(false);
            }
            if pending.all {
                concerned.extend(self.seen.keys().map(|id| (id.clone(), true)));
            }
            concerned.extend(pending.targets.iter().filter_map(|at| Some((name(*at)?, true))));
            let statement = live.release.recorded.digest;
            for (at, stays) in pending.words {
                let word = match stays {
                    true => Word::Confirm(statement),
                    false => Word::Revert {
                        statement,
                        reason: format!("the rollout of {} is brought back", live.machine.revision()).into(),
                    },
                };
                words.extend(name(at).map(|id| (id, word)));
            }
        }
        for (id, forced) in concerned {
            self.direct(fleet, &id, forced);
        }
        for (id, word) in words {
            self.words += 1;
            let number = self.words;
            fleet.direct(&id, |directive, _| directive.word = Some((number, word)));
        }
    }

    /// Gives one session what its gateway should have; `forced`: with a number of its own, also if it is otherwise the same.
    fn direct(&self, fleet: &Fleet, id: &GatewayId, forced: bool) {
        fleet.direct(id, |directive, facts| {
            let wanted = self.wanted(id, facts);
            let same = match (&directive.target, &wanted) {
                (Some((held, _)), Some((wanted, _))) => held.is_but_for_number(wanted),
                (held, wanted) => held.is_none() && wanted.is_none(),
            };
            if forced || !same {
                directive.target = wanted;
            }
        });
    }

    /// What a gateway should have, as its session is given it.
    pub(super) fn wanted(
        &self,
        id: &GatewayId,
        facts: &GatewayFacts,
    ) -> Option<(Wanted, Arc<CurrentRelease>)> {
        let Asked { live, target, offers } = self.asked(id, facts)?;
        let release = live.release.clone();
        let mark = release.mark(id)?;
        let upto = match target.upto {
            Upto::None | Upto::Staged => v1::Upto::Staged,
            Upto::Shadow => v1::Upto::Shadow,
            Upto::Active => v1::Upto::Active,
        };
        if !facts.knows_trials() {
            // What it is offered is in force at once.
            return (upto == v1::Upto::Active).then(|| (Wanted::at_once(mark), release));
        }
        let waves = &live.machine.plan().waves;
        let wave = match waves.get(usize::from(target.wave)) {
            Some(wave) => format!("wave {} ({})", u32::from(target.wave) + 1, wave.name),
            None => "after the waves".to_owned(),
        };
        let order = Order {
            number: order_number(live.number(), target.order),
            upto,
            trial_seconds: u32::try_from(target.trial_seconds).unwrap_or(u32::MAX),
            why: format!("rollout of {}, {wave}", live.machine.revision()).into(),
        };
        let wanted = Wanted {
            mark,
            order: Some(order),
            offers,
        };
        Some((wanted, release))
    }

    fn asked(&self, id: &GatewayId, facts: &GatewayFacts) -> Option<Asked<'_>> {
        let of = |live: &Live| {
            let at = live.machine.fleet().find(id)?;
            Some((live.machine.mark(at)?, live.machine.target(at)?))
        };
        let active = |live, target| Asked {
            live,
            target: Target {
                upto: Upto::Active,
                ..target
            },
            offers: true,
        };
        // It may no longer, which it has to hear; it is sent nothing for that.
        let withdrawn = |live, target| Asked {
            live,
            target: Target {
                upto: Upto::Staged,
                ..target
            },
            offers: false,
        };
        let (newest, older) = self.lives.split_last()?;
        let asks = of(newest);
        if let Some((mark, target)) = asks {
            match (mark, target.upto) {
                (_, Upto::Active) | (Mark::Trial, _) => return Some(active(newest, target)),
                (Mark::Withdrawing | Mark::Silent | Mark::Unknown, Upto::None) => {
                    return Some(withdrawn(newest, target));
                }
                _ => {}
            }
        }
        for live in older.iter().rev() {
            let Some((mark, target)) = of(live) else {
                continue;
            };
            let lacks = is_behind(live, id, facts);
            match mark {
                Mark::Trial => return Some(active(live, target)),
                Mark::Opened if target.upto == Upto::Active => return Some(active(live, target)),
                // What it was ordered may be on its disk: it is withdrawn first, whatever comes after.
                Mark::Opened | Mark::Withdrawing | Mark::Silent | Mark::Unknown => {
                    return Some(withdrawn(live, target));
                }
                // Its turn comes there first: whoever has nothing of the baseline does not wait for the newest one's waves.
                Mark::Waiting | Mark::Absent if self.is_baseline(live) && lacks => {
                    return Some(Asked {
                        live,
                        target,
                        offers: target.upto > Upto::None,
                    });
                }
                _ => {}
            }
        }
        let (_, target) = asks?;
        match (target.upto, newest.machine.stage()) {
            (Upto::None, Stage::Draft | Stage::Simulated | Stage::Approved | Stage::Scheduled) => None,
            // What it judges traffic by beside its policy, it need not any more.
            (Upto::None, _) => {
                let mark = newest.release.mark(id)?;
                let is_staged = facts.staged.is_some_and(|staged| staged.is(&mark));
                is_staged.then(|| withdrawn(newest, target))
            }
            _ => Some(Asked {
                live: newest,
                target,
                offers: true,
            }),
        }
    }

    pub(super) fn is_baseline(&self, live: &Live) -> bool {
        self.baseline == Baseline::Rollout(live.number())
    }

    /// Lets go of rollouts that have nothing left to do. One that may have a gateway unconfirmed, however long that is silent, is what
    /// keeps the other of its pair as it is.
    pub(super) fn prune(&mut self) {
        let baseline = self.baseline;
        let newest = self.newest().map(Live::number);
        self.lives.retain(|live| {
            let number = live.number();
            let is_over = live.is_settled() && !live.is_unstored();
            Some(number) == newest || baseline == Baseline::Rollout(number) || !is_over
        });
    }

    /// Makes room for a new one: of those that are over, the oldest goes. Answers with what it may have unconfirmed, which is passed on
    /// to the new one; `None`: there is no room.
    pub(super) fn make_room(&mut self) -> Option<Vec<GatewayId>> {
        if self.lives.len() < LIVES_MAX {
            return Some(Vec::new());
        }
        let baseline = self.baseline;
        let is_over = |live: &Live| {
            let is_baseline = baseline == Baseline::Rollout(live.number());
            is_end(live.machine.stage()) && live.machine.is_over() && !is_baseline
        };
        let oldest = self.lives.iter().position(is_over);
        oldest.map(|at| self.lives.remove(at).machine.may_be_unconfirmed())
    }

    /// Those that may be in a trial of what is here and are not connected.
    pub(super) fn in_earlier_trial(&self) -> Vec<GatewayId> {
        let all = self
            .lives
            .iter()
            .flat_map(|live| live.machine.may_be_unconfirmed());
        all.filter(|id| !self.seen.contains_key(id)).collect()
    }

    /// Gives all sessions, or those that begin, a release that is carried to all at once; `None`: nothing.
    pub(super) fn publish_at_once(
        &mut self,
        fleet: &Fleet,
        release: Option<&Arc<CurrentRelease>>,
        all: bool,
    ) {
        let mut concerned = std::mem::take(&mut self.moved);
        if all {
            concerned.extend(self.seen.keys().map(|id| (id.clone(), true)));
        }
        for id in concerned.keys() {
            fleet.direct(id, |directive, _| {
                directive.target =
                    release.and_then(|release| Some((Wanted::at_once(release.mark(id)?), release.clone())));
            });
        }
    }
}

/// Whether a gateway enforces neither a release nor a newer one.
fn is_behind(live: &Live, id: &GatewayId, facts: &GatewayFacts) -> bool {
    live.release.mark(id).is_some_and(|mark| {
        let has = |held: PolicyMark| held.is(&mark) || held.revision > mark.revision;
        !facts.effective.is_some_and(has)
    })
}

/// What one may have unconfirmed, for another that was not there.
fn introduce(from: &Live, to: &mut Live) {
    for id in from.machine.may_be_unconfirmed() {
        elsewhere(to, &id, true);
    }
}

fn elsewhere(live: &mut Live, id: &GatewayId, is: bool) {
    if let Some(gateway) = live.machine.fleet().find(id) {
        live.machine.set_elsewhere(gateway, is);
        live.hurry();
    }
}
