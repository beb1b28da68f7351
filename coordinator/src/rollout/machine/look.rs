//! What is due: who became silent, whether the gate holds, whether the stage is over, who is opened. One pass over the seats each;
//! nothing that is counted is stored, so that no count can be wrong.

use super::super::facts::Standing;
use super::super::gate::exceeds;
use super::super::seats::{Mark, Seat};
use super::{Action, HaltReason, Rollout, Stage};

/// How many, at one moment.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) activated: u32,
    pub(super) failed: u32,
    /// In flight though their wave is over.
    pub(super) late: u32,
    pub(super) absent: u32,
    pub(super) in_flight: u32,
    /// Neither confirmed nor given up.
    pub(super) open: u32,
    /// Gateways that do not enforce it.
    pub(super) exceptions: u32,
    /// Of the wave that runs.
    pub(super) wave: WaveCensus,
}

#[derive(Debug, Default)]
pub(super) struct WaveCensus {
    pub(super) members: u32,
    pub(super) waiting: u32,
    pub(super) in_flight: u32,
    pub(super) activated: u32,
    pub(super) failed: u32,
}

impl Census {
    pub(super) fn of(rollout: &Rollout) -> Self {
        let mut all = Self::default();
        let current = rollout.current_wave();
        for seat in &rollout.seats {
            let mark = seat.mark;
            let one = |is: bool| u32::from(is);
            all.activated += one(mark.counts());
            all.failed += one(seat.failed());
            all.absent += one(mark == Mark::Absent);
            all.in_flight += one(mark.is_in_flight());
            all.late += one(mark.is_in_flight() && current != Some(seat.wave));
            all.open += one(mark.may_be_unconfirmed() || matches!(mark, Mark::Waiting | Mark::Absent));
            all.exceptions += one(!mark.is_confirmed());
            if current == Some(seat.wave) {
                all.wave.members += 1;
                all.wave.waiting += one(mark == Mark::Waiting);
                all.wave.in_flight += one(mark.is_in_flight());
                all.wave.activated += one(mark.counts());
                all.wave.failed += one(seat.failed());
            }
        }
        all
    }
}

impl Rollout {
    pub(super) fn look(&mut self, actions: &mut Vec<Action>) {
        self.age(actions);
        self.gate(actions);
        // Each stage may be over at once: one that skips shadow and soak, waves of which nobody is left.
        for _ in 0..self.plan.waves.len().saturating_mul(2).saturating_add(8) {
            let Some(next) = self.next_stage() else { break };
            self.reach(next, actions);
            if let Stage::Opening { .. } = next {
                self.age(actions);
            }
        }
        self.open(actions);
    }

    /// The wave that runs.
    pub(super) fn current_wave(&self) -> Option<u16> {
        match self.stage {
            Stage::Opening { wave, .. } | Stage::Soaking { wave, .. } => Some(wave),
            _ => None,
        }
    }

    /// When the silence or the patience with a gateway is over, and what it is then.
    fn ages(&self, seat: &Seat) -> Option<(u64, Mark)> {
        let silence = seat
            .linked_at
            .max(seat.marked_at)
            .saturating_add(self.plan.silence.as_ms());
        let patience = self.plan.patience.as_ms();
        let is_away = !seat.is_connected;
        match seat.mark {
            Mark::Waiting => match self.stage {
                Stage::Opening { wave, since, passed } if wave == seat.wave => {
                    let away = seat.linked_at.saturating_add(self.plan.silence.as_ms());
                    let stuck = since.saturating_add(patience);
                    let due = if is_away { away.min(stuck) } else { stuck };
                    Some((if passed { self.clock.own_ms } else { due }, Mark::Absent))
                }
                _ => None,
            },
            Mark::Opened if is_away && matches!(seat.heard, Standing::Held { .. }) => {
                Some((silence, Mark::Unknown))
            }
            Mark::Opened if is_away => Some((silence, Mark::Silent)),
            Mark::Opened => match self.stage {
                Stage::Opening {
                    wave, passed: true, ..
                } if wave == seat.wave => Some((self.clock.own_ms, Mark::Withdrawing)),
                _ => Some((seat.marked_at.saturating_add(patience), Mark::Withdrawing)),
            },
            Mark::Withdrawing => Some((silence, Mark::Unknown)),
            Mark::Trial if is_away => Some((silence, Mark::Silent)),
            // It would have been confirmed, or be back.
            Mark::Trial => {
                let end = seat.marked_at.saturating_add(self.plan.trial.as_ms());
                Some((end.saturating_add(self.plan.silence.as_ms()), Mark::Silent))
            }
            Mark::Confirmed if is_away && self.current_wave() == Some(seat.wave) => {
                Some((silence, Mark::ConfirmedSilent))
            }
            _ => None,
        }
    }

    fn age(&mut self, actions: &mut Vec<Action>) {
        let own_ms = self.clock.own_ms;
        let aged: Vec<(u32, Mark)> = (0..)
            .zip(&self.seats)
            .filter_map(|(at, seat)| {
                let (due, mark) = self.ages(seat)?;
                (due <= own_ms).then_some((at, mark))
            })
            .collect();
        for (at, mark) in aged {
            match mark {
                Mark::Withdrawing | Mark::Silent | Mark::Unknown => self.withdraw(at, mark, actions),
                _ => self.set(at, mark),
            }
        }
    }

    fn gate(&mut self, actions: &mut Vec<Action>) {
        let runs = matches!(
            self.stage,
            Stage::Opening { .. }
                | Stage::Soaking { .. }
                | Stage::Converging
                | Stage::CompletedWithExceptions
        );
        if !runs || self.halted().is_some() {
            return;
        }
        let census = Census::of(self);
        if census.failed <= self.accepted_failures {
            return;
        }
        let limit = self.plan.gate.soft_rate;
        // One bad wave is not hidden by many good ones before it.
        let counts = [
            (census.wave.failed, census.wave.activated),
            (census.failed, census.activated),
        ];
        if let Some((failed, activated)) = counts.into_iter().find(|(f, n)| exceeds(*f, *n, limit)) {
            self.halt(HaltReason::Rate { failed, activated }, actions);
        }
    }

    /// What the stage goes over into, if it is over.
    fn next_stage(&self) -> Option<Stage> {
        let own_ms = self.clock.own_ms;
        if self.stage == Stage::RollingBack {
            // Bringing back is never held up.
            return (Census::of(self).in_flight == 0).then_some(Stage::RolledBack);
        }
        if self.is_stopped() {
            return None;
        }
        match self.stage {
            Stage::Scheduled => {
                let has_come = self.plan.start_ms.is_none_or(|start| start <= self.clock.wall_ms);
                (has_come || self.is_emergency).then_some(Stage::Staging { since: own_ms })
            }
            Stage::Staging { since } => {
                let is_late = since.saturating_add(self.plan.silence.as_ms()) <= own_ms;
                let stages = |seat: &Seat| {
                    matches!(seat.heard, Standing::Unheard | Standing::Behind) && seat.mark == Mark::Waiting
                };
                (is_late || self.is_emergency || !self.seats.iter().any(stages)).then(|| {
                    match self.shadows() {
                        true => Stage::Shadowing {
                            until: own_ms.saturating_add(self.plan.shadow.as_ms()),
                        },
                        false => self.opening(0),
                    }
                })
            }
            Stage::Shadowing { until } => (until <= own_ms).then(|| self.opening(0)),
            Stage::Opening { wave, passed, .. } => {
                let census = Census::of(self).wave;
                let is_done = census.waiting == 0 && census.in_flight == 0;
                // Of a wave of which nobody activated nothing was learned.
                let has_shown = census.activated > 0 || census.members == 0 || passed;
                let soak = self.wave(wave).map_or(0, |wave| wave.soak.as_ms());
                let soak = if self.is_emergency || census.members == 0 {
                    0
                } else {
                    soak
                };
                (is_done && has_shown).then(|| Stage::Soaking {
                    wave,
                    until: own_ms.saturating_add(soak),
                })
            }
            Stage::Soaking { wave, until } => (until <= own_ms && Census::of(self).wave.in_flight == 0)
                .then(|| self.opening(wave.saturating_add(1))),
            Stage::Converging | Stage::CompletedWithExceptions => {
                let census = Census::of(self);
                let is_whole = census.exceptions == 0;
                let is_done = census.open == 0 && self.stage == Stage::Converging;
                match (is_whole, is_done) {
                    (true, _) => Some(Stage::Completed),
                    (false, true) => Some(Stage::CompletedWithExceptions),
                    (false, false) => None,
                }
            }
            // One that was replaced comes again.
            Stage::Completed => (Census::of(self).exceptions > 0).then_some(Stage::CompletedWithExceptions),
            _ => None,
        }
    }

    fn opening(&self, wave: u16) -> Stage {
        match self.wave(wave) {
            Some(_) => Stage::Opening {
                wave,
                since: self.clock.own_ms,
                passed: false,
            },
            None => Stage::Converging,
        }
    }

    /// Whether it is a gateway's turn, leaving aside whoever is in flight.
    pub(super) fn is_due(&self, seat: &Seat, census: &Census) -> bool {
        let has_turn = match (self.stage, seat.mark) {
            (
                Stage::Opening {
                    wave, passed: false, ..
                },
                Mark::Waiting,
            ) => seat.wave == wave,
            // Nobody else of its wave can show that the release is harmless.
            (
                Stage::Opening {
                    wave, passed: false, ..
                },
                Mark::Absent,
            ) if seat.wave == wave => {
                census.wave.activated == 0 && census.wave.in_flight == 0 && census.wave.waiting == 0
            }
            (Stage::Opening { wave, .. } | Stage::Soaking { wave, .. }, Mark::Absent) => seat.wave < wave,
            (Stage::Converging | Stage::CompletedWithExceptions, Mark::Absent) => true,
            _ => false,
        };
        has_turn && seat.is_connected && seat.heard != Standing::OtherTrial && !seat.is_elsewhere
    }

    /// When live traffic on it will have been judged by the release for as long as the plan wants; `None`: it reports no such thing. An
    /// agent that knows no shadow is not waited for.
    pub(super) fn judged_at(&self, seat: &Seat) -> Option<u64> {
        if !self.shadows() || seat.heard == Standing::WithoutTrials {
            return Some(0);
        }
        let since = seat.judges_since?;
        Some(since.saturating_add(self.plan.shadow.as_ms()))
    }

    fn has_judged(&self, seat: &Seat) -> bool {
        self.judged_at(seat).is_some_and(|at| at <= self.clock.own_ms)
    }

    /// Whether the other of its pair may be enforcing something unconfirmed.
    pub(super) fn partner_blocks(&self, gateway: u32) -> bool {
        let partner = self
            .fleet
            .partner(gateway)
            .and_then(|at| self.seats.get(at as usize));
        partner.is_some_and(|partner| {
            let other = partner.heard == Standing::OtherTrial || partner.is_elsewhere;
            other || partner.mark.may_be_unconfirmed()
        })
    }

    /// How many of each cell are activated, or may be, and not confirmed.
    pub(super) fn cells(&self) -> Vec<u32> {
        let mut cells = vec![0_u32; self.fleet.cell_count()];
        for (at, seat) in (0..).zip(&self.seats) {
            if seat.mark.may_be_unconfirmed()
                && let Some(count) = cells.get_mut(self.fleet.cell(at) as usize)
            {
                *count += 1;
            }
        }
        cells
    }

    fn open(&mut self, actions: &mut Vec<Action>) {
        if self.is_stopped() {
            return;
        }
        let mut census = Census::of(self);
        let mut turns: Vec<(u64, u32)> = Vec::new();
        for at in &self.order {
            if let Some(seat) = self.seats.get(*at as usize)
                && self.is_due(seat, &census)
                && self.has_judged(seat)
            {
                turns.push((seat.marked_at, *at));
            }
        }
        if turns.is_empty() {
            return;
        }
        // Whoever waited longest comes first, so that one that is held again and again does not keep the others back.
        turns.sort_by_key(|(since, _)| *since);
        let mut cells = self.cells();
        for (_, at) in turns {
            let Some(seat) = self.seats.get(at as usize).copied() else {
                continue;
            };
            let is_late = self.current_wave() != Some(seat.wave);
            let has_slot = !is_late || census.late < self.plan.converge.at_once;
            let per_cell = self.wave(seat.wave).map_or(1, |wave| wave.per_cell);
            let Some(in_cell) = cells.get_mut(self.fleet.cell(at) as usize) else {
                continue;
            };
            if !has_slot || *in_cell >= per_cell || !self.is_due(&seat, &census) || self.partner_blocks(at) {
                continue;
            }
            *in_cell += 1;
            census.late += u32::from(is_late);
            census.wave.in_flight += u32::from(!is_late);
            self.set(at, Mark::Opened);
            self.retarget(at, actions);
        }
    }

    /// When something will be due by the rollout's own clock.
    pub(super) fn next_due(&self) -> Option<u64> {
        let stage = match self.stage {
            _ if self.is_stopped() => None,
            Stage::Staging { since } => Some(since.saturating_add(self.plan.silence.as_ms())),
            Stage::Shadowing { until } | Stage::Soaking { until, .. } => Some(until),
            _ => None,
        };
        let own_ms = self.clock.own_ms;
        let stage = stage.filter(|due| *due > own_ms);
        let seats = self.seats.iter();
        let aging = seats
            .clone()
            .filter_map(|seat| self.ages(seat))
            .map(|(due, _)| due);
        let is_asked = !self.is_stopped() && self.asks();
        let waits =
            |seat: &&Seat| is_asked && seat.is_connected && matches!(seat.mark, Mark::Waiting | Mark::Absent);
        let judging = seats.filter(waits).filter_map(|seat| self.judged_at(seat));
        let judging = judging.filter(|due| *due > own_ms);
        aging.chain(judging).chain(stage).min()
    }
}
