//! Rollouts as operators see them. What grows with the fleet is folded, or counted beyond a bound.

use penstock_policy::ids::GatewayId;
use penstock_proto::v1;

use super::desk::Desk;
use super::live::Live;
use super::stored::{Because, Event, FreezeRecord, StoredRollout};
use crate::clock;
use crate::rollout::{Mark, Record, Stage, Wait};
use crate::sessions::{Fleet, GatewayFacts};

/// Things that are waited for and shown, at most.
const WAITS_MAX: usize = 50;
/// Gateways by name: of those that failed or are overridden, and of all.
const FAILED_MAX: usize = 100;
const GATEWAYS_MAX: usize = 20_000;

pub(super) fn freeze(freeze: &FreezeRecord) -> v1::FreezeState {
    v1::FreezeState {
        frozen: freeze.frozen,
        by: freeze.by.clone(),
        reason: freeze.because.reason.clone(),
        ticket: freeze.because.ticket.clone(),
        since_ms: freeze.since_ms,
    }
}

/// One that is in memory; `gateways`: each by name.
pub(super) fn rollout(desk: &Desk, live: &Live, (fleet, gateways): (&Fleet, bool)) -> v1::Rollout {
    let machine = &live.machine;
    let (failed, activated) = machine.failures();
    let (waits, further_waits) = machine.folded_waits(WAITS_MAX);
    let mut shown = v1::Rollout {
        paused: machine.paused().unwrap_or_default().to_owned(),
        halted: machine.halted().map(ToString::to_string).unwrap_or_default(),
        emergency: machine.is_emergency(),
        failed,
        activated,
        waits: waits.into_iter().map(wait).collect(),
        further_waits,
        ..stored(desk, &live.log)
    };
    let members = (0_u32..).zip(machine.fleet().members());
    let most = if gateways { GATEWAYS_MAX } else { FAILED_MAX };
    let overridden = |name: &GatewayId| {
        let words = |facts: &GatewayFacts| {
            let overrides = facts.faults.iter().filter(|fault| fault.is_override());
            overrides.map(|fault| fault.message.clone()).collect::<Vec<_>>()
        };
        fleet.look_at(name, words).unwrap_or_default()
    };
    for (at, member) in members {
        let overridden = overridden(&member.id);
        if !gateways && !machine.has_failed(at) && overridden.is_empty() {
            continue;
        }
        let Some((mark, target)) = machine.mark(at).zip(machine.target(at)) else {
            continue;
        };
        if shown.gateways.len() >= most {
            shown.further_gateways += 1;
            continue;
        }
        let said = fleet.look_at(&member.id, |facts| {
            let is_old = facts.reported_ms.is_some() && !facts.knows_trials();
            (facts.standing.clone(), is_old)
        });
        let (standing, without_trials) = said.unwrap_or_default();
        shown.gateways.push(v1::RolloutGateway {
            name: member.id.to_string(),
            state: mark.word().to_owned(),
            wave: u32::from(target.wave) + 1,
            connected: machine.is_connected(at),
            standing,
            without_trials,
            overridden,
        });
    }
    shown
}

/// One as the store has it.
pub(super) fn stored(desk: &Desk, stored: &StoredRollout) -> v1::Rollout {
    let record: &Record = &stored.rollout;
    let plan = record.plan();
    let stage = record.stage();
    let wave = match stage {
        Stage::Opening { wave, .. } | Stage::Soaking { wave, .. } => Some(wave),
        _ => None,
    };
    let name = wave.and_then(|wave| plan.waves.get(usize::from(wave)));
    let counts: std::collections::BTreeMap<Mark, u32> = record.counts();
    let ended_as = stored
        .ended_as
        .clone()
        .filter(|_| matches!(stage, Stage::Superseded { .. }));
    let damaged = desk.damaged.get(&stored.number);
    v1::Rollout {
        revision: record.revision().0,
        statement_digest: stored.statement.0.to_vec().into(),
        stage: ended_as.unwrap_or_else(|| stage.word().to_owned()),
        wave: wave.map_or(0, |wave| u32::from(wave) + 1),
        waves: u32::try_from(plan.waves.len()).unwrap_or(u32::MAX),
        wave_name: name.map(|wave| wave.name.clone()).unwrap_or_default(),
        halted: damaged
            .map(|(_, why)| format!("this coordinator cannot take it up: {why}"))
            .unwrap_or_default(),
        freeze: Some(freeze(&desk.freeze)),
        started_by: stored.started_by.clone(),
        because: Some(because(&stored.because)),
        started_ms: stored.started_ms,
        ended_ms: stored.ended_ms.unwrap_or(0),
        failed: counts
            .iter()
            .filter(|(mark, _)| mark.is_failure())
            .map(|(_, count)| count)
            .sum(),
        activated: counts
            .iter()
            .filter(|(mark, _)| mark.counts())
            .map(|(_, count)| count)
            .sum(),
        counts: counts
            .into_iter()
            .map(|(mark, count)| (mark.word().to_owned(), count))
            .collect(),
        plan: serde_json::to_vec(plan).unwrap_or_default().into(),
        time_ms: clock::now_ms(),
        events: stored.events.iter().map(event).collect(),
        ..v1::Rollout::default()
    }
}

fn because(because: &Because) -> v1::Because {
    v1::Because {
        reason: because.reason.clone(),
        ticket: because.ticket.clone(),
    }
}

fn event(event: &Event) -> v1::RolloutEvent {
    v1::RolloutEvent {
        time_ms: event.at_ms,
        by: event.by.clone(),
        what: event.what.clone(),
        message: event.message.clone(),
        because: event.because.as_ref().map(because),
    }
}

fn wait((wait, count): (Wait, u32)) -> v1::RolloutWait {
    v1::RolloutWait {
        // Of several, their number says more than one name.
        gateway: wait
            .gateway
            .filter(|_| count == 1)
            .map(|id| id.to_string())
            .unwrap_or_default(),
        gateways: count,
        reason: wait.reason.to_string(),
    }
}
