//! How zones are, from facts. Pure, but that it remembers since when each is so, and what was counted in the last minute.
//!
//! Taking a fact away never makes a zone look worse, and none is well while something that concerns it is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_policy::ids::ZoneId;
use penstock_policy::plan::{Observing, Plan};
use penstock_proto::fault::{OF_OPEN, OF_SHOWING};
use penstock_proto::v1::{Drift, Fault, HealthReport};

use super::{GatewayHealth, ShownFault, ZoneHealth, ZoneMode, ZoneState};
use crate::last_minute::LastMinute;
use crate::observed::sides::Refusals;
use crate::reconcile::{PolicyView, StandingState};

/// The fault of a must-flow that fell silent: one for each flow.
const SILENT: &str = "flow-silent";
/// What is reported among the faults and is none: what enforcing would change, and who was let in by a grant.
const NO_FAULT: [&str; 2] = ["not-ready-to-enforce", "remote-access"];

/// What is judged.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// Plant and gateway, once enrolled.
    pub(super) name: Option<(String, String)>,
    /// The policy.
    pub(super) policy: &'a PolicyView,
    /// What this gateway reports of itself, its faults above all.
    pub(super) report: &'a HealthReport,
    /// What was refused on each side since the agent began.
    pub(super) refusals: BTreeMap<String, Refusals>,
    /// Must-flows that are followed.
    pub(super) must_flows: usize,
    /// Since when the session with the coordinator stands.
    pub(super) session: Option<Duration>,
    /// Now, on the boot's clock and milliseconds since 1970.
    pub(super) now: (Duration, u64),
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Judge {
    heartbeat: u64,
    states: BTreeMap<ZoneId, (ZoneState, Duration, u64)>,
    sides: BTreeMap<String, [LastMinute; 2]>,
    denied: LastMinute,
}

/// A zone and the sides by which it is reached.
struct ZonePlace<'a> {
    modes: Vec<ZoneMode>,
    sides: Vec<&'a str>,
}

impl Judge {
    /// How all is now.
    pub(super) fn judge(&mut self, facts: &Facts<'_>) -> GatewayHealth {
        self.heartbeat = self.heartbeat.wrapping_add(1);
        let (now, now_ms) = facts.now;
        self.count(facts);
        let policy = facts.policy;
        let faults = || facts.report.faults.iter().filter(|fault| is_fault(fault));
        let (worst, trial) = (at_least(facts), trial(policy));
        let places = policy.plan.as_deref().map(places).unwrap_or_default();
        self.states.retain(|zone, _| places.contains_key(zone));
        let mut zones = Vec::with_capacity(places.len());
        for (zone, place) in &places {
            let concerning = || faults().filter(|fault| concerns(fault, zone));
            let mode = mode(&place.modes);
            let well = match mode {
                ZoneMode::Observe => ZoneState::Observing,
                ZoneMode::Enforce | ZoneMode::Mixed => ZoneState::Enforcing,
            };
            let ill = concerning().next().map_or(well, |_| ZoneState::Degraded);
            let state = well.max(ill).max(worst.unwrap_or(well));
            let known = self.states.entry((*zone).clone()).or_insert((state, now, now_ms));
            if known.0 != state {
                *known = (state, now, now_ms);
            }
            let counts = place.sides.iter().filter_map(|side| self.sides.get(*side));
            let [denied, would_deny] = counts.fold([0_u64; 2], |[denied, would_deny], [d, w]| {
                [
                    denied.saturating_add(d.count()),
                    would_deny.saturating_add(w.count()),
                ]
            });
            zones.push(ZoneHealth {
                zone: (*zone).clone(),
                state,
                since: known.1,
                since_ms: known.2,
                mode,
                denied,
                would_deny,
                silent: concerning().filter(|fault| fault.code == SILENT).count(),
                faults: concerning().count(),
            });
        }
        let worst_zone = zones.iter().map(|zone| zone.state).max();
        let (plant, gateway) = facts.name.clone().unwrap_or_default();
        GatewayHealth {
            heartbeat: self.heartbeat,
            now,
            now_ms,
            plant,
            gateway,
            // Without a zone nothing is known to be guarded.
            state: worst_zone.unwrap_or(ZoneState::Unprotected),
            revision: policy.state.effective.as_ref().map(|mark| mark.revision),
            trial,
            drift: policy.drift == Drift::Present,
            overrides: policy.overrides.len(),
            hold: policy.hold.is_some(),
            session: facts.session,
            denied: self.denied.count(),
            must_flows: facts.must_flows,
            silent: faults().filter(|fault| fault.code == SILENT).count(),
            zones,
            faults: faults().map(shown).collect(),
        }
    }

    /// Takes in what was counted by now.
    fn count(&mut self, facts: &Facts<'_>) {
        let now = facts.now.0;
        self.sides.retain(|side, _| facts.refusals.contains_key(side));
        for (side, refusals) in &facts.refusals {
            let [denied, would_deny] = self.sides.entry(side.clone()).or_default();
            denied.see(now, refusals.denied);
            would_deny.see(now, refusals.would_deny);
        }
        if let Some(kernel) = &facts.report.kernel {
            let denied = kernel.denied_packets.saturating_add(kernel.denied_operations);
            self.denied.see(now, denied);
        }
    }
}

/// How every zone is at least, whatever its own faults.
fn at_least(facts: &Facts<'_>) -> Option<ZoneState> {
    let policy = facts.policy;
    let is_open = policy.plan.is_none()
        || facts
            .report
            .faults
            .iter()
            .any(|fault| OF_OPEN.contains(&fault.code.as_str()));
    if is_open {
        return Some(ZoneState::Unprotected);
    }
    let changes = matches!(
        policy.standing.state,
        StandingState::Trial { .. } | StandingState::Reverted(_)
    );
    // Rules that are gone are a fault of their own, above. Others that somebody changed are there, and not as they should be.
    let is_other = policy.drift == Drift::Present || policy.state.refused.is_some();
    (changes || is_other).then_some(ZoneState::Degraded)
}

/// The release on trial.
fn trial(policy: &PolicyView) -> Option<u64> {
    match (&policy.standing.state, &policy.standing.release) {
        (StandingState::Trial { .. }, Some((revision, _))) => Some(revision.0),
        _ => None,
    }
}

fn is_fault(fault: &Fault) -> bool {
    !NO_FAULT.contains(&fault.code.as_str())
}

fn concerns(fault: &Fault, zone: &ZoneId) -> bool {
    if OF_SHOWING.contains(&fault.code.as_str()) {
        return false;
    }
    fault.zones.is_empty() || fault.zones.iter().any(|concerned| concerned == zone.as_str())
}

fn shown(fault: &Fault) -> ShownFault {
    ShownFault {
        code: fault.code.clone(),
        message: fault.message.clone(),
        zones: fault.zones.clone(),
    }
}

/// Each zone of a plan, with its sides.
fn places(plan: &Plan) -> BTreeMap<&ZoneId, ZonePlace<'_>> {
    let mut places: BTreeMap<&ZoneId, ZonePlace<'_>> = BTreeMap::new();
    for side in &plan.interfaces {
        let mode = match side.observing {
            Observing::Nothing => ZoneMode::Enforce,
            Observing::Everything => ZoneMode::Observe,
            Observing::Only(_) => ZoneMode::Mixed,
        };
        for zone in std::iter::once(&side.zone).chain(&side.behind) {
            let place = places.entry(zone).or_insert_with(|| ZonePlace {
                modes: Vec::new(),
                sides: Vec::new(),
            });
            place.modes.push(mode);
            place.sides.push(&side.name);
        }
    }
    places
}

/// The mode of a zone that has these on its sides.
fn mode(modes: &[ZoneMode]) -> ZoneMode {
    match modes {
        [first, others @ ..] if others.iter().all(|other| other == first) => *first,
        _ => ZoneMode::Mixed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use penstock_policy::ids::{Digest, Revision};
    use penstock_proto::v1::KernelCounters;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn view() -> PolicyView {
        let side = |name: &str, zone: &str, behind: &[&str], observing: &str| {
            serde_json::json!({
                "name": name, "zone": zone, "behind": behind, "networks": [], "observing": observing,
                "routers": [], "hardware": []
            })
        };
        let plan = serde_json::json!({
            "format": "penstock-plan/2", "plant": "p", "gateway": "g", "mode": "routed", "requires": [],
            "on_drift": "repair", "management": null, "rules": [], "bridges": [],
            "interfaces": [side("a", "cell", &["drives"], "nothing"), side("b", "office", &[], "everything")]
        });
        PolicyView {
            plan: Some(Arc::new(Plan::from_bytes(plan.to_string().as_bytes()).unwrap())),
            drift: Drift::None,
            ..PolicyView::default()
        }
    }

    fn fault(code: &str, zones: &[&str]) -> Fault {
        Fault {
            zones: zones.iter().map(|zone| (*zone).to_owned()).collect(),
            ..Fault::new(code, "Words".to_owned())
        }
    }

    fn report(faults: Vec<Fault>, denied_packets: u64) -> HealthReport {
        HealthReport {
            faults,
            kernel: Some(KernelCounters {
                denied_packets,
                ..KernelCounters::default()
            }),
            ..HealthReport::default()
        }
    }

    fn judged(judge: &mut Judge, policy: &PolicyView, report: &HealthReport, second: u32) -> GatewayHealth {
        let refused = |denied| Refusals {
            denied,
            would_deny: 2 * denied,
        };
        let counted = u64::from(second);
        judge.judge(&Facts {
            name: Some(("p".to_owned(), "g".to_owned())),
            policy,
            report,
            refusals: [("a".to_owned(), refused(counted)), ("b".to_owned(), refused(0))].into(),
            must_flows: 2,
            session: None,
            now: (SECOND * second, counted * 1000),
        })
    }

    fn states(health: &GatewayHealth) -> Vec<(&str, &str)> {
        let zones = health.zones.iter();
        zones
            .map(|zone| (zone.zone.as_str(), zone.state.as_str()))
            .collect()
    }

    #[test]
    fn a_fault_degrades_the_zones_that_it_names_all_where_it_names_none_and_a_zone_is_so_since_then() {
        let (mut judge, view) = (Judge::default(), view());
        let well = judged(&mut judge, &view, &report(Vec::new(), 0), 1);
        let all_well = [
            ("cell", "enforcing"),
            ("drives", "enforcing"),
            ("office", "observing"),
        ];
        assert_eq!(states(&well), all_well);
        assert_eq!(
            well.state,
            ZoneState::Observing,
            "the overall state is the worst zone's"
        );
        let faulty = report(
            vec![
                fault("flow-silent", &["cell"]),
                fault("not-ready-to-enforce", &[]),
            ],
            9,
        );
        let ill = judged(&mut judge, &view, &faulty, 5);
        assert_eq!(
            states(&ill),
            [
                ("cell", "degraded"),
                ("drives", "enforcing"),
                ("office", "observing")
            ]
        );
        let cell = &ill.zones[0];
        assert_eq!((cell.since, cell.since_ms), (5 * SECOND, 5000));
        assert_eq!((cell.silent, cell.faults), (1, 1));
        assert_eq!(ill.zones[1].since, SECOND);
        assert_eq!(
            (ill.silent, ill.faults.len()),
            (1, 1),
            "what is foretold is no fault"
        );
        assert_eq!((cell.denied, cell.would_deny, ill.denied), (4, 8, 9));
        let all = judged(&mut judge, &view, &report(vec![fault("spool-full", &[])], 9), 7);
        assert!(all.zones.iter().all(|zone| zone.state == ZoneState::Degraded));
        assert_eq!(
            all.zones[0].since,
            5 * SECOND,
            "another cause is no change of state"
        );
        assert_eq!(
            judged(&mut judge, &view, &report(Vec::new(), 9), 8).zones[0].since,
            8 * SECOND
        );
    }

    #[test]
    fn a_broker_that_is_away_is_shown_and_degrades_no_zone() {
        let unseen = report(vec![fault("scada-not-reached", &[])], 9);
        let unseen = judged(&mut Judge::default(), &view(), &unseen, 1);
        assert_eq!((unseen.state, unseen.faults.len()), (ZoneState::Observing, 1));
    }

    #[test]
    fn drift_a_trial_and_no_policy_are_seen_and_each_look_is_another_heartbeat() {
        let (mut judge, none) = (Judge::default(), report(Vec::new(), 0));
        let nothing = judged(&mut judge, &PolicyView::default(), &none, 1);
        assert_eq!((nothing.state, nothing.zones.len()), (ZoneState::Unprotected, 0));
        let drifted = PolicyView {
            drift: Drift::Present,
            ..view()
        };
        let drifted = judged(&mut judge, &drifted, &none, 2);
        assert_eq!((drifted.state, drifted.drift), (ZoneState::Degraded, true));
        let mut trial = view();
        trial.standing.release = Some((Revision(7), Digest([1; 32])));
        trial.standing.state = StandingState::Trial {
            began: SECOND,
            ends: 90 * SECOND,
            confirmable_since: None,
            flows: false,
        };
        let trial = judged(&mut judge, &trial, &none, 3);
        assert_eq!((trial.state, trial.trial), (ZoneState::Degraded, Some(7)));
        let heartbeats = [nothing, drifted, trial].map(|health| health.heartbeat);
        assert_eq!(heartbeats, [1, 2, 3]);
        let open = report(vec![fault("rules-gone", &["cell"])], 0);
        assert_eq!(
            judged(&mut judge, &view(), &open, 4).state,
            ZoneState::Unprotected
        );
    }

    proptest! {
        #[test]
        fn one_fault_more_makes_no_zone_look_better(
            some in prop::collection::vec((0_usize..5, 0_usize..4), 0..6), one in (0_usize..5, 0_usize..4),
        ) {
            let codes = ["flow-silent", "kernel-failed", "spool-full", "remote-access", "not-ready-to-enforce"];
            let zones = [&["cell"][..], &["office"], &["cell", "drives"], &[]];
            let made = |(code, named): (usize, usize)| fault(codes[code], zones[named]);
            let mut faults: Vec<_> = some.into_iter().map(made).collect();
            let before = judged(&mut Judge::default(), &view(), &report(faults.clone(), 0), 1);
            faults.push(made(one));
            let after = judged(&mut Judge::default(), &view(), &report(faults, 0), 1);
            prop_assert!(before.state <= after.state);
            for (before, after) in before.zones.iter().zip(&after.zones) {
                prop_assert!(before.state <= after.state, "{}", before.zone);
            }
        }
    }
}
