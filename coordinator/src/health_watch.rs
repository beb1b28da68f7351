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

/// Zones up to which each has series of its own. A larger plant has only the sums: whoever wants to know which zone it is asks for health, or follows alarms.
const MEASURED_ZONES_MAX: usize = 500;

/// How many zones are in each state and how many flows have each assurance; in a plant that is not large for each zone, too.
fn measure(before: &v1::PlantHealth, now: &v1::PlantHealth) {
    for state in ZoneState::ALL {
        let there = now.zones.iter().filter(|zone| zone.state() == wire_state(state));
        metrics::gauge!("penstock_zones", "state" => state.as_str()).set(gauge(there.count() as u64));
    }
    let sums = |health: &v1::PlantHealth| {
        let mut sums = BTreeMap::new();
        for ((_, level), flows) in levels(&health.zones) {
            *sums.entry(level).or_insert(0_u64) += u64::from(flows);
        }
        sums
    };
    let mut flows = sums(before);
    flows.values_mut().for_each(|flows| *flows = 0);
    flows.extend(sums(now));
    for (level, flows) in flows {
        metrics::gauge!("penstock_flows", "assurance" => level).set(gauge(flows));
    }
    measure_each(measured(before), measured(now));
}

/// The zones that have series of their own.
fn measured(health: &v1::PlantHealth) -> &[v1::ZoneHealth] {
    match health.zones.len() {
        0..=MEASURED_ZONES_MAX => &health.zones,
        _ => &[],
    }
}

/// One series per zone and state, 1 for the state that it is in, and one per zone and level. A zone that is no longer measured is in none, and what is no
/// longer there is 0.
fn measure_each(before: &[v1::ZoneHealth], now: &[v1::ZoneHealth]) {
    let there: BTreeSet<&str> = now.iter().map(|zone| zone.zone.as_str()).collect();
    let removed = before.iter().filter(|zone| !there.contains(zone.zone.as_str()));
    let held = now.iter().map(|zone| (zone, Some(zone.state())));
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
    let mut flows = levels(before);
    flows.values_mut().for_each(|flows| *flows = 0);
    flows.extend(levels(now));
    for ((zone, level), flows) in flows {
        metrics::gauge!("penstock_zone_flows", "zone" => zone, "assurance" => level).set(f64::from(flows));
    }
}

/// How many flows of each zone have each assurance, and how many are denied.
fn levels(zones: &[v1::ZoneHealth]) -> BTreeMap<(String, String), u32> {
    let each = zones.iter().flat_map(|zone| {
        let denied = [("denied".to_owned(), zone.denied_flows)];
        let levels = zone.assurance.iter().map(|of| (of.assurance.clone(), of.flows));
        let of_zone = levels.chain(denied);
        of_zone.map(|(level, flows)| ((zone.zone.clone(), level), flows))
    });
    each.collect()
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

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn plant(zones: usize) -> v1::PlantHealth {
        let zone = |number| v1::ZoneHealth {
            zone: format!("z{number}"),
            state: v1::ZoneState::Enforcing.into(),
            denied_flows: 1,
            ..v1::ZoneHealth::default()
        };
        v1::PlantHealth {
            zones: (0..zones).map(zone).collect(),
            ..v1::PlantHealth::default()
        }
    }

    #[test]
    fn a_large_plant_has_sums_and_no_series_for_each_zone_nor_are_those_believed_that_it_had() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let shown = |before: &v1::PlantHealth, now: &v1::PlantHealth| {
            metrics::with_local_recorder(&recorder, || measure(before, now));
            handle.render()
        };
        let (none, small, large) = (plant(0), plant(MEASURED_ZONES_MAX), plant(MEASURED_ZONES_MAX + 1));
        let text = shown(&none, &large);
        assert!(
            text.contains("penstock_zones{state=\"enforcing\"} 501\n")
                && text.contains("penstock_flows{assurance=\"denied\"} 501\n")
                && !text.contains("zone=\""),
            "{text}"
        );
        let text = shown(&large, &small);
        assert!(
            text.contains("penstock_zone_state{zone=\"z7\",state=\"enforcing\"} 1\n"),
            "{text}"
        );
        let text = shown(&small, &large);
        let believed = |line: &&str| line.contains("zone=\"") && !line.ends_with(" 0");
        assert_eq!(text.lines().filter(believed).count(), 0);
        let text = shown(&large, &none);
        assert!(
            text.contains("penstock_zones{state=\"enforcing\"} 0\n")
                && text.contains("penstock_flows{assurance=\"denied\"} 0\n"),
            "{text}"
        );
    }
}
