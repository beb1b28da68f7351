//! Who waits for what, and why, in words: what `rollout watch` shows, folded as far as it is asked to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use penstock_policy::ids::GatewayId;

use super::super::facts::{HoldReason, Standing};
use super::super::seats::{Mark, Seat};
use super::{Census, HaltReason, Rollout, Stage, Stop};

/// Something that a rollout waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Who waits; `None`: all of it.
    pub gateway: Option<GatewayId>,
    /// For what.
    pub reason: WaitReason,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitReason {
    /// A person lifts the stop of the line.
    Thaw,
    /// A person resumes it, after a pause for this reason.
    Resume(String),
    /// A person decides what comes of a halt, for this reason.
    Decision(String),
    /// It is simulated, approved or started.
    Next(&'static str),
    /// The time of its start, milliseconds since 1970.
    Start(u64),
    /// So many milliseconds of shadow are left.
    Shadow(u64),
    /// It judges live traffic by the release for as long as the plan wants.
    Judging,
    /// So many milliseconds of looking on are left.
    Soak(u64),
    /// One of the wave activates, or a person passes on.
    Evidence,
    /// It stages the release.
    Stage,
    /// It is held.
    Held(HoldReason),
    /// It may activate, and has not reported that it did.
    Activation,
    /// Its trial shows that it is good.
    Trial,
    /// It reports that it knows that it may no longer activate.
    Withdrawal,
    /// It connects.
    Connection,
    /// It is heard again: it may be enforcing the release unconfirmed.
    Sign,
    /// The other of its pair.
    Partner(GatewayId),
    /// Another of its cell.
    Cell(String),
    /// Another release's trial on it ends.
    OtherTrial,
    /// One of those that may come at once.
    Slot,
    /// Its turn.
    Turn,
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thaw => f.write_str("a person to lift the freeze of the plant"),
            Self::Resume(why) => write!(f, "a person to resume it (paused: {why})"),
            Self::Decision(why) => write!(f, "a person to resume or revert it (halted: {why})"),
            Self::Next(what) => write!(f, "being {what}"),
            Self::Start(at_ms) => write!(f, "its start at {at_ms} ms since 1970"),
            Self::Shadow(ms) => write!(f, "the end of shadow in {} s", ms / 1_000),
            Self::Judging => f.write_str("the gateway's shadow to have lasted as long as the plan wants"),
            Self::Soak(ms) => write!(f, "the end of the soak in {} s", ms / 1_000),
            Self::Evidence => {
                f.write_str("one gateway of the wave to activate, or a person to pass on without")
            }
            Self::Stage => f.write_str("the gateway to verify and store the release"),
            Self::Held(reason) => f.write_str(reason.words()),
            Self::Activation => f.write_str("the gateway to report that it activated"),
            Self::Trial => f.write_str("the gateway's trial to show that it can be confirmed"),
            Self::Withdrawal => f.write_str("the gateway to acknowledge that it may no longer activate"),
            Self::Connection => f.write_str("the gateway to connect"),
            Self::Sign => {
                f.write_str("a sign of the gateway, which may be enforcing the release unconfirmed")
            }
            Self::Partner(id) => write!(f, "{id}, the other of its pair, which may be unconfirmed"),
            Self::Cell(cell) => write!(f, "another gateway of cell {cell}"),
            Self::OtherTrial => f.write_str("the trial of another release on the gateway to end"),
            Self::Slot => f.write_str("one of the gateways that came late before it to be confirmed"),
            Self::Turn => f.write_str("its turn"),
        }
    }
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hard { gateway, event } => write!(f, "gateway {gateway} {}", event.words()),
            Self::Rate { failed, activated } => write!(
                f,
                "{failed} of {activated} activated gateways failed, more than chance explains at the plan's limit"
            ),
            Self::Shadow { gateway } => {
                write!(
                    f,
                    "shadow on gateway {gateway} shows that a flow would be cut that must not stop"
                )
            }
            Self::Person { why } => f.write_str(why),
        }
    }
}

impl Rollout {
    /// What is waited for: what holds all of it first, then at most `most` gateways.
    pub fn waits(&self, most: usize) -> Vec<Wait> {
        let mut waits: Vec<Wait> = self.own_waits();
        let census = Census::of(self);
        let cells = self.cells();
        let gateways = self.order.iter().filter_map(|at| {
            let seat = self.seats.get(*at as usize)?;
            let reason = self.wait_of(*at, seat, &census, &cells)?;
            Some(Wait {
                gateway: Some(self.fleet.member(*at)?.id.clone()),
                reason,
            })
        });
        waits.extend(gateways.take(most));
        waits
    }

    /// The same, gateways folded by what they wait for: one of them, and how many; at most `most` such things, and how many gateways
    /// wait for others.
    pub fn folded_waits(&self, most: usize) -> (Vec<(Wait, u32)>, u32) {
        let census = Census::of(self);
        let cells = self.cells();
        let mut folded: BTreeMap<WaitReason, (u32, u32)> = BTreeMap::new();
        let mut further = 0;
        for at in &self.order {
            let seat = self.seats.get(*at as usize);
            let Some(reason) = seat.and_then(|seat| self.wait_of(*at, seat, &census, &cells)) else {
                continue;
            };
            let is_full = folded.len() >= most;
            match folded.entry(reason) {
                Entry::Occupied(mut alike) => alike.get_mut().1 += 1,
                Entry::Vacant(_) if is_full => further += 1,
                Entry::Vacant(new) => {
                    new.insert((*at, 1));
                }
            }
        }
        let own = self.own_waits().into_iter().map(|wait| (wait, 0));
        let gateways = folded.into_iter().filter_map(|(reason, (at, count))| {
            let gateway = Some(self.fleet.member(at)?.id.clone());
            Some((Wait { gateway, reason }, count))
        });
        (own.chain(gateways).collect(), further)
    }

    fn own_waits(&self) -> Vec<Wait> {
        let own_ms = self.clock.own_ms;
        let mut reasons = Vec::new();
        let is_over = self.brings_back() || matches!(self.stage, Stage::Completed | Stage::Superseded { .. });
        if self.is_frozen && !is_over {
            reasons.push(WaitReason::Thaw);
        }
        match &self.stop {
            Some(Stop::Paused { why }) => reasons.push(WaitReason::Resume(why.clone())),
            Some(Stop::Halted(why)) => reasons.push(WaitReason::Decision(why.to_string())),
            None => {}
        }
        reasons.extend(match self.stage {
            Stage::Draft => Some(WaitReason::Next("simulated")),
            Stage::Simulated => Some(WaitReason::Next("approved")),
            Stage::Approved => Some(WaitReason::Next("started")),
            Stage::Scheduled => Some(WaitReason::Start(self.plan.start_ms.unwrap_or_default())),
            Stage::Shadowing { until } => Some(WaitReason::Shadow(until.saturating_sub(own_ms))),
            Stage::Soaking { until, .. } => Some(WaitReason::Soak(until.saturating_sub(own_ms))),
            Stage::Opening { .. } => {
                let wave = Census::of(self).wave;
                let is_bare = wave.activated == 0 && wave.in_flight == 0 && wave.waiting == 0;
                is_bare.then_some(WaitReason::Evidence)
            }
            _ => None,
        });
        reasons
            .into_iter()
            .map(|reason| Wait {
                gateway: None,
                reason,
            })
            .collect()
    }

    fn wait_of(&self, at: u32, seat: &Seat, census: &Census, cells: &[u32]) -> Option<WaitReason> {
        match seat.mark {
            Mark::Opened => Some(match seat.heard {
                _ if !seat.is_connected => WaitReason::Sign,
                Standing::Held { reason, .. } => WaitReason::Held(reason),
                _ => WaitReason::Activation,
            }),
            Mark::Trial if seat.is_connected => Some(WaitReason::Trial),
            Mark::Trial | Mark::Silent | Mark::Unknown | Mark::ConfirmedSilent => Some(WaitReason::Sign),
            Mark::Withdrawing => Some(WaitReason::Withdrawal),
            Mark::Waiting | Mark::Absent if self.asks() => Some(self.turn_of(at, seat, census, cells)),
            _ => None,
        }
    }

    /// Whether gateways are still to come.
    pub(super) fn asks(&self) -> bool {
        matches!(
            self.stage,
            Stage::Staging { .. }
                | Stage::Shadowing { .. }
                | Stage::Opening { .. }
                | Stage::Soaking { .. }
                | Stage::Converging
                | Stage::CompletedWithExceptions
        )
    }

    fn turn_of(&self, at: u32, seat: &Seat, census: &Census, cells: &[u32]) -> WaitReason {
        let is_unstaged = matches!(seat.heard, Standing::Unheard | Standing::Behind);
        if !seat.is_connected {
            return WaitReason::Connection;
        }
        if matches!(self.stage, Stage::Staging { .. }) && is_unstaged {
            return WaitReason::Stage;
        }
        if seat.heard == Standing::OtherTrial || seat.is_elsewhere {
            return WaitReason::OtherTrial;
        }
        if !self.is_due(seat, census) {
            return WaitReason::Turn;
        }
        if self.judged_at(seat).is_none_or(|at| at > self.clock.own_ms) {
            return WaitReason::Judging;
        }
        let partner = self
            .fleet
            .partner(at)
            .and_then(|partner| self.fleet.member(partner));
        if let Some(partner) = partner
            && self.partner_blocks(at)
        {
            return WaitReason::Partner(partner.id.clone());
        }
        let per_cell = self.wave(seat.wave).map_or(1, |wave| wave.per_cell);
        let in_cell = cells
            .get(self.fleet.cell(at) as usize)
            .copied()
            .unwrap_or_default();
        if in_cell >= per_cell {
            let cell = self.fleet.member(at).map(|member| member.cell.clone());
            return WaitReason::Cell(cell.unwrap_or_default());
        }
        let is_late = self.current_wave() != Some(seat.wave);
        match is_late && census.late >= self.plan.converge.at_once {
            true => WaitReason::Slot,
            false => WaitReason::Turn,
        }
    }
}
