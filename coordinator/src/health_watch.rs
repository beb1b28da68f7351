//! The plant's health as it changes: gathers the facts, asks [`crate::health::judge`], and publishes what is new.
//!
//! Level-triggered: a change of facts or of the release wakes it, a tick finds what went stale; it always judges all
//! from what is known then, off the threads that serve. Changes within [`DEBOUNCE`] become one answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_proto::v1;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::frame::frame;
use crate::health::{Boundary, GatewayEvidence, ZoneJudgement, ZoneState, judge};
use crate::releases::{CurrentRelease, gauge};
use crate::sessions::{Fleet, TunnelSeries};
use crate::subjects::Subjects;
use penstock_policy::ids::GatewayId;

/// Shortest time between two answers.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How many times as long as a look took is rested before the next: a large fleet that changes all the time is judged less
/// often, not at others' cost.
const REST: u32 = 4;
/// How often age is looked at.
const TICK: Duration = Duration::from_secs(1);

/// The plant's health as it was judged, and as it goes to all who watch it: the message is made once, when somebody wants it.
#[derive(Debug)]
pub struct PublishedHealth {
    health: v1::PlantHealth,
    frame: OnceLock<Bytes>,
}

impl PublishedHealth {
    /// Of this health.
    pub fn new(health: v1::PlantHealth) -> Self {
        Self {
            health,
            frame: OnceLock::new(),
        }
    }

    /// As it was judged.
    pub(crate) fn health(&self) -> &v1::PlantHealth {
        &self.health
    }

    /// As it goes out.
    pub fn frame(&self) -> Bytes {
        self.frame.get_or_init(|| frame(&self.health)).clone()
    }
}

/// Judges whenever something changed, until the receivers are gone.
pub async fn follow(
    (fleet, subjects): (Arc<Fleet>, Subjects),
    mut in_force: watch::Receiver<Option<Arc<CurrentRelease>>>,
    standard: Standard,
    stale_after_ms: u64,
    mut own: watch::Receiver<Vec<v1::Fault>>,
    mut notes: watch::Receiver<Vec<String>>,
    publish: watch::Sender<Arc<PublishedHealth>>,
) {
    let mut own_known = true;
    let mut tunnels = TunnelSeries::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    measure(&v1::PlantHealth::default(), &publish.borrow().health);
    loop {
        let release = in_force.borrow_and_update().clone();
        let began = Instant::now();
        let looked = tokio::task::spawn_blocking({
            let (fleet, subjects) = (fleet.clone(), subjects.clone());
            let mut tunnels = std::mem::take(&mut tunnels);
            move || {
                // Only those to gateways that there are: a series stays for as long as this program runs.
                let is_one = |tunnel: &&v1::TunnelHealth| {
                    let peer = tunnel.peer.parse::<GatewayId>().ok();
                    let release = release.as_deref();
                    peer.is_some_and(|peer| release.is_some_and(|release| release.mark(&peer).is_some()))
                };
                fleet.inspect(|gateway, facts| {
                    let known: Vec<_> = facts.tunnels.iter().filter(is_one).cloned().collect();
                    tunnels.of(gateway, facts.connected, &known);
                });
                tunnels.end();
                let now = look(
                    (&fleet, &subjects),
                    release.as_deref(),
                    standard,
                    clock::now_ms(),
                    stale_after_ms,
                );
                (now, tunnels)
            }
        });
        let Ok((mut now, held)) = looked.await else {
            return;
        };
        tunnels = held;
        now.coordinator = own.borrow_and_update().clone();
        now.notes = notes.borrow_and_update().clone();
        let took = began.elapsed();
        publish.send_if_modified(|held| {
            let before = &held.health;
            let new = before.zones != now.zones
                || before.current_revision != now.current_revision
                || before.notes != now.notes
                || before.coordinator != now.coordinator;
            if new {
                measure(before, &now);
                *held = Arc::new(PublishedHealth::new(now));
            }
            new
        });
        tokio::select! {
            () = fleet.changed() => {}
            changed = in_force.changed() => if changed.is_err() { return },
            changed = notes.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
            changed = own.changed(), if own_known => own_known = changed.is_ok(),
            () = publish.closed() => return,
        }
        tokio::time::sleep(DEBOUNCE.max(took * REST)).await;
    }
}

/// What gateways are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standard {
    /// The release that goes to all at once.
    Release,
    /// What each was given by a rollout; whoever was given nothing, what it enforces.
    Rollouts,
}

/// The plant's health at one moment: its zones are those of `release`.
pub fn look(
    (fleet, subjects): (&Fleet, &Subjects),
    release: Option<&CurrentRelease>,
    standard: Standard,
    now_ms: u64,
    stale_after_ms: u64,
) -> v1::PlantHealth {
    for (standing, count) in subjects.standings("gateway") {
        metrics::gauge!("penstock_gateways", "standing" => standing.as_str()).set(gauge(count));
    }
    let Some(release) = release else {
        return v1::PlantHealth {
            time_ms: now_ms,
            current_revision: 0,
            zones: Vec::new(),
            ..v1::PlantHealth::default()
        };
    };
    let mut evidence: BTreeMap<_, GatewayEvidence> = BTreeMap::new();
    let mut lagging = 0u64;
    fleet.inspect(|gateway, facts| {
        let own = release.mark(gateway);
        let given = facts
            .should_have
            .filter(|(_, is_active)| *is_active)
            .map(|(mark, _)| mark);
        let wanted = match standard {
            Standard::Release => own,
            Standard::Rollouts => given.or_else(|| own.map(|own| facts.effective.unwrap_or(own))),
        };
        if wanted.is_some_and(|wanted| !facts.effective.is_some_and(|effective| effective.is(&wanted))) {
            lagging += 1;
        }
        let mut known = facts.evidence(wanted);
        known.withdrawn = subjects.out_of_service(gateway);
        evidence.insert(gateway.clone(), known);
    });
    metrics::gauge!("penstock_gateways_behind").set(gauge(lagging));
    let zones: Vec<_> = release
        .detail
        .zones
        .iter()
        .map(|(zone, boundary)| {
            let judged = judge(
                zone,
                boundary,
                &evidence,
                Some(release.revision()),
                now_ms,
                stale_after_ms,
            );
            to_wire(zone.to_string(), judged, boundary)
        })
        .collect();
    v1::PlantHealth {
        time_ms: now_ms,
        current_revision: release.revision().0,
        zones,
        ..v1::PlantHealth::default()
    }
}

/// One series per zone and state, 1 for the state that it is in. A zone that is no longer in the plant is in none.
fn measure(before: &v1::PlantHealth, now: &v1::PlantHealth) {
    measure_assurance(before, now);
    let there: BTreeSet<&str> = now.zones.iter().map(|zone| zone.zone.as_str()).collect();
    let removed = before
        .zones
        .iter()
        .filter(|zone| !there.contains(zone.zone.as_str()));
    let held = now.zones.iter().map(|zone| (zone, Some(zone.state())));
    for (zone, holds) in held.chain(removed.map(|zone| (zone, None))) {
        for state in ZoneState::ALL {
            let value = if Some(wire_state(state)) == holds {
                1.0
            } else {
                0.0
            };
            metrics::gauge!("penstock_zone_state", "zone" => zone.zone.clone(), "state" => state.as_str())
                .set(value);
        }
    }
}

/// One series per zone and level. Of a zone or a level that is no longer there it is 0.
fn measure_assurance(before: &v1::PlantHealth, now: &v1::PlantHealth) {
    let set = |zone: &str, level: &str, flows: u32| {
        metrics::gauge!("penstock_zone_flows", "zone" => zone.to_owned(), "assurance" => level.to_owned())
            .set(f64::from(flows));
    };
    let levels = |health: &v1::PlantHealth| -> BTreeMap<(String, String), u32> {
        let each = health.zones.iter().flat_map(|zone| {
            let denied = [("denied".to_owned(), zone.denied_flows)];
            let levels = zone.assurance.iter().map(|of| (of.assurance.clone(), of.flows));
            let of_zone = levels.chain(denied);
            of_zone.map(|(level, flows)| ((zone.zone.clone(), level), flows))
        });
        each.collect()
    };
    let there = levels(now);
    for (zone, level) in levels(before).keys().filter(|key| !there.contains_key(*key)) {
        set(zone, level, 0);
    }
    for ((zone, level), flows) in &there {
        set(zone, level, *flows);
    }
}

fn wire_state(state: ZoneState) -> v1::ZoneState {
    match state {
        ZoneState::Enforcing => v1::ZoneState::Enforcing,
        ZoneState::Observing => v1::ZoneState::Observing,
        ZoneState::Degraded => v1::ZoneState::Degraded,
        ZoneState::Stale => v1::ZoneState::Stale,
        ZoneState::Unprotected => v1::ZoneState::Unprotected,
        ZoneState::Unknown => v1::ZoneState::Unknown,
    }
}

fn to_wire(zone: String, judged: ZoneJudgement, boundary: &Boundary) -> v1::ZoneHealth {
    let assurance = boundary.assurance.as_ref();
    let flows = assurance.into_iter().flat_map(|of| &of.flows);
    v1::ZoneHealth {
        zone,
        state: wire_state(judged.state).into(),
        reasons: judged.reasons,
        gateways: boundary.gateways.iter().map(ToString::to_string).collect(),
        assurance: flows
            .map(|(level, flows)| v1::FlowsByAssurance {
                assurance: level.to_string(),
                flows: *flows,
            })
            .collect(),
        denied_flows: assurance.map_or(0, |of| of.denied),
    }
}
