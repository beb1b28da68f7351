//! The health of zones, as a pure function of facts (DESIGN §10; IEC 62443-3-3 SR 6.2, SR 3.3).
//!
//! A zone is as healthy as the worst of the gateways at its boundary, worst first:
//!
//! - `unprotected`: it is certain that a boundary is open: no gateway stands there, one has no policy, or its
//!   kernel does not hold the policy;
//! - `unknown`: a gateway at the boundary never reported anything;
//! - `stale`: it reported, but too long ago. It most likely enforces on (promise 1), but that is not evidence;
//! - `degraded`: it enforces, but not as it should: an older revision, a refused release, drift, faults, an
//!   audit trail that does not fit;
//! - `observing`: all is well, and by its document the zone only observes; the reasons say what enforcing would change;
//! - `enforcing`: all is well, and it enforces.
//!
//! What a rollout does to a gateway is a reason, too. A gateway that is on trial, is held back or went back is `degraded`: it does
//! not enforce, or does not yet keep, what it should have; that it judges traffic by the next release only is said beside. What it
//! should have is what its rollout lets it activate: a release that waits for its rollout or its wave degrades nothing.
//!
//! Every state has reasons, in words. Nothing is healthy for want of evidence: taking a fact away never makes a
//! zone look better (a property below).

pub(crate) mod cluster;
pub(crate) mod exports;
pub mod own;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::assurance::{ZoneAssurance, by_zone};
use penstock_policy::ids::{GatewayId, Revision, ZoneId};
use penstock_policy::model::{Consequence, Plant, ZoneKind};
use penstock_policy::neighbours::{Neighbours, neighbours};
use penstock_policy::plan::Plan;
use penstock_policy::terms::Enforcement;
use penstock_proto::convert::PolicyMark;
use serde::{Deserialize, Serialize};

/// State of a zone, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // Described above.
pub enum ZoneState {
    Enforcing,
    Observing,
    Degraded,
    Stale,
    Unknown,
    Unprotected,
}

impl ZoneState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Enforcing,
        Self::Observing,
        Self::Degraded,
        Self::Stale,
        Self::Unknown,
        Self::Unprotected,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Observing => "observing",
            Self::Degraded => "degraded",
            Self::Stale => "stale",
            Self::Unknown => "unknown",
            Self::Unprotected => "unprotected",
        }
    }
}

/// Where a zone's boundary is, and what its document wants there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boundary {
    /// Observe or enforce.
    pub enforcement: Enforcement,
    /// The gateways on which its guard depends: those that have it on one of their sides, but for those that reach it through
    /// another one that guards it.
    pub gateways: Vec<GatewayId>,
    /// Which zones lie beside it; unknown of releases from before plans distinguished the zones of one side.
    #[serde(default)]
    pub neighbours: Option<Neighbours>,
    /// How well the ends of its flows are known; unknown of releases from before that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assurance: Option<ZoneAssurance>,
    /// What a compromise of the zone can lead to; unknown where the document does not say it, and of releases from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consequence: Option<Consequence>,
    /// Whether it is a safety zone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_safety: bool,
    /// The flows from and to the zone that must not stop, as `conduit/flow`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub must_flows: BTreeSet<String>,
}

impl Boundary {
    /// What its zone's mode means, when all is well.
    fn meaning(&self) -> String {
        match (&self.neighbours, self.enforcement) {
            (Some(neighbours), mode) => neighbours.undeclared(mode),
            (None, Enforcement::Enforce) => "the document enforces this zone".to_owned(),
            (None, Enforcement::Observe) => "the document only observes this zone".to_owned(),
        }
    }
}

/// The boundaries of all zones of a plant, in one pass over its gateways.
pub fn boundaries(plant: &Plant, plans: &BTreeMap<GatewayId, Plan>) -> BTreeMap<ZoneId, Boundary> {
    let mut assurance = by_zone(plant, plans);
    let mut neighbours = neighbours(plant);
    let mut boundaries: BTreeMap<_, _> = plant
        .zones
        .iter()
        .map(|(name, zone)| {
            let boundary = Boundary {
                enforcement: zone.enforcement,
                gateways: Vec::new(),
                neighbours: neighbours.remove(name),
                assurance: assurance.remove(name),
                consequence: zone.consequence,
                is_safety: zone.kind == ZoneKind::Safety || zone.consequence == Some(Consequence::Safety),
                must_flows: BTreeSet::new(),
            };
            (name.clone(), boundary)
        })
        .collect();
    let own = own_sides(plant);
    for (id, gateway) in &plant.gateways {
        let mut guarded: BTreeSet<&ZoneId> = BTreeSet::new();
        for side in gateway.interfaces.values() {
            guarded.insert(&side.zone);
            let here: BTreeSet<&ZoneId> = std::iter::once(&side.zone).chain(&side.behind).collect();
            let behind = side.behind.iter();
            guarded.extend(behind.filter(|zone| !guarded_from(plant, zone, own.get(zone), (id, &here))));
        }
        for zone in guarded {
            if let Some(boundary) = boundaries.get_mut(zone) {
                boundary.gateways.push(id.clone());
            }
        }
    }
    for (conduit, record) in &plant.conduits {
        let flows = record.flows.iter().filter(|(_, flow)| flow.must_flow);
        let flows: Vec<String> = flows.map(|(flow, _)| format!("{conduit}/{flow}")).collect();
        for zone in [&record.from, &record.to] {
            if let Some(boundary) = boundaries.get_mut(zone) {
                boundary.must_flows.extend(flows.iter().cloned());
            }
        }
    }
    boundaries
}

/// The gateways that have a zone for a side's own, by zone.
fn own_sides(plant: &Plant) -> BTreeMap<&ZoneId, BTreeSet<&GatewayId>> {
    let mut own: BTreeMap<&ZoneId, BTreeSet<&GatewayId>> = BTreeMap::new();
    for (id, gateway) in &plant.gateways {
        for side in gateway.interfaces.values() {
            own.entry(&side.zone).or_default().insert(id);
        }
    }
    own
}

/// Whether another gateway than `id` stands between a zone, which it has for a side's own, and the zones `here`: then what happens
/// to `id` leaves that zone guarded.
fn guarded_from(
    plant: &Plant,
    zone: &ZoneId,
    own: Option<&BTreeSet<&GatewayId>>,
    (id, here): (&GatewayId, &BTreeSet<&ZoneId>),
) -> bool {
    let others = own.into_iter().flatten().filter(|other| **other != id);
    others
        .filter_map(|other| plant.gateways.get(*other))
        .any(|other| {
            // Its side towards `id` has one of those zones for its own.
            let mut sides = other.interfaces.values();
            sides.any(|side| side.zone != *zone && here.contains(&side.zone))
        })
}

/// What is known of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayEvidence {
    /// Whether its session stands.
    pub connected: bool,
    /// When it last reported its state, milliseconds since 1970 by the coordinator's clock; `None`: never since the
    /// coordinator started.
    pub reported_ms: Option<u64>,
    /// What its kernel holds.
    pub effective: Option<PolicyMark>,
    /// What it should enforce; `None`: the release in force has no plan for it.
    pub wanted: Option<PolicyMark>,
    /// Why it refused a release: revision and words.
    pub refused: Option<(Revision, String)>,
    /// The kernel holds something else than the policy, now.
    pub drift: bool,
    /// Whether it is certain that its kernel does not enforce (fault `kernel-failed`).
    pub kernel_failed: bool,
    /// Faults it reported, and what is wrong with its trail.
    pub faults: Vec<ReportedFault>,
    /// What enforcing would change where it only observes, in words.
    pub foretold: Vec<String>,
    /// The conduits that grants of remote access opened, in words. Being open for a time is no fault.
    pub granted: Vec<String>,
    /// What a rollout is at with it, in words, and whether that is less than it should be.
    pub rollout: Option<(String, bool)>,
    /// That its key does not count, since when and why, in words; `None`: it does.
    pub withdrawn: Option<String>,
}

/// A fault that a gateway reported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReportedFault {
    /// In words.
    pub words: String,
    /// The zones that it concerns; none: all at the gateway's boundary.
    pub zones: BTreeSet<ZoneId>,
}

impl ReportedFault {
    /// Whether it concerns a zone.
    fn concerns(&self, zone: &ZoneId) -> bool {
        self.zones.is_empty() || self.zones.contains(zone)
    }
}

/// The judgement on one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneJudgement {
    /// Its state.
    pub state: ZoneState,
    /// Why; never empty.
    pub reasons: Vec<String>,
}

/// Gateways named in one reason; further ones are counted.
const NAMES_MAX: usize = 3;
/// Reasons given at most for one zone; the rest is counted.
const REASONS_MAX: usize = 16;

/// Judges one zone.
///
/// What several gateways have in common is one reason, the gravest first. `current`: the revision in force, `None` before the first release. `stale_after_ms`: how old a report may be.
pub fn judge(
    zone: &ZoneId,
    boundary: &Boundary,
    gateways: &BTreeMap<GatewayId, GatewayEvidence>,
    current: Option<Revision>,
    now_ms: u64,
    stale_after_ms: u64,
) -> ZoneJudgement {
    if boundary.gateways.is_empty() {
        return ZoneJudgement {
            state: ZoneState::Unprotected,
            reasons: vec!["no gateway stands at its boundary".to_owned()],
        };
    }
    let mut state = match boundary.enforcement {
        Enforcement::Enforce => ZoneState::Enforcing,
        Enforcement::Observe => ZoneState::Observing,
    };
    let mut found: BTreeMap<(Reverse<ZoneState>, String), Vec<&GatewayId>> = BTreeMap::new();
    for gateway in &boundary.gateways {
        let findings = match gateways.get(gateway) {
            Some(evidence) => judge_gateway(zone, evidence, now_ms, stale_after_ms),
            None => vec![(ZoneState::Unknown, "was never seen".to_owned())],
        };
        for (grave, reason) in findings {
            state = state.max(grave);
            let alike = found.entry((Reverse(grave), reason)).or_default();
            if alike.last() != Some(&gateway) {
                alike.push(gateway);
            }
        }
    }
    let mut reasons: Vec<String> = found
        .into_iter()
        .map(|((_, reason), gateways)| format!("{}: {reason}", some_of(&gateways)))
        .collect();
    let foretold: Vec<String> = match boundary.enforcement {
        Enforcement::Enforce => Vec::new(),
        Enforcement::Observe => boundary
            .gateways
            .iter()
            .filter_map(|gateway| Some((gateway, gateways.get(gateway)?)))
            .flat_map(|(gateway, evidence)| {
                let told = move |words: &String| format!("{gateway}: {words}");
                evidence.foretold.iter().map(told)
            })
            .collect(),
    };
    if reasons.is_empty() {
        let revision = in_force(boundary, gateways).or(current).unwrap_or_default();
        let meaning = boundary.meaning();
        reasons.push(match in_force(boundary, gateways) {
            Some(_) => format!("{revision} is effective on every gateway at its boundary: {meaning}"),
            None => format!("every gateway at its boundary enforces what it should have: {meaning}"),
        });
    }
    reasons.extend(foretold);
    for gateway in &boundary.gateways {
        if let Some((words, false)) = gateways
            .get(gateway)
            .and_then(|evidence| evidence.rollout.as_ref())
        {
            reasons.push(format!("{gateway}: {words}"));
        }
    }
    for gateway in &boundary.gateways {
        // What is open now is known of a connected gateway alone.
        let evidence = gateways.get(gateway).filter(|evidence| evidence.connected);
        let granted = evidence.into_iter().flat_map(|evidence| &evidence.granted);
        reasons.extend(granted.map(|words| format!("{gateway}: {words}")));
    }
    if reasons.len() > REASONS_MAX {
        let more = reasons.len() - REASONS_MAX;
        reasons.truncate(REASONS_MAX);
        reasons.push(format!("and {more} more"));
    }
    ZoneJudgement { state, reasons }
}

/// The release that all gateways at a boundary enforce; `None`: not all the same.
fn in_force(boundary: &Boundary, gateways: &BTreeMap<GatewayId, GatewayEvidence>) -> Option<Revision> {
    let mut all = boundary.gateways.iter().map(|gateway| {
        let effective = gateways.get(gateway).and_then(|evidence| evidence.effective);
        effective.map(|effective| effective.revision)
    });
    let first = all.next().flatten()?;
    all.all(|other| other == Some(first)).then_some(first)
}

/// The names of gateways; of many, some and how many more.
fn some_of(gateways: &[&GatewayId]) -> String {
    let shown = gateways.iter().take(NAMES_MAX);
    let shown = shown.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match gateways.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn judge_gateway(
    zone: &ZoneId,
    evidence: &GatewayEvidence,
    now_ms: u64,
    stale_after_ms: u64,
) -> Vec<(ZoneState, String)> {
    let mut findings = Vec::new();
    // Why nothing comes from it, where a person decided that: not a broken line.
    let because = |words: String| match &evidence.withdrawn {
        Some(why) => format!("{why}; {words}"),
        None => words,
    };
    let Some(reported_ms) = evidence.reported_ms else {
        return vec![(
            ZoneState::Unknown,
            because("has not reported since this coordinator started".to_owned()),
        )];
    };
    let age_ms = now_ms.saturating_sub(reported_ms);
    if !evidence.connected {
        findings.push((
            ZoneState::Stale,
            because(format!("has been disconnected for {}", ago(age_ms))),
        ));
    } else if age_ms > stale_after_ms {
        findings.push((ZoneState::Stale, format!("has not reported for {}", ago(age_ms))));
    }
    if evidence.kernel_failed {
        findings.push((
            ZoneState::Unprotected,
            "its kernel does not hold the policy".to_owned(),
        ));
    }
    match (&evidence.effective, &evidence.wanted) {
        (None, _) => findings.push((ZoneState::Unprotected, "has no policy in force".to_owned())),
        (Some(effective), None) => findings.push((
            ZoneState::Degraded,
            format!(
                "enforces {}, but the current release has no plan for it",
                effective.revision
            ),
        )),
        (Some(effective), Some(wanted)) if effective.revision < wanted.revision => findings.push((
            ZoneState::Degraded,
            format!("enforces {}, not yet {}", effective.revision, wanted.revision),
        )),
        (Some(effective), Some(wanted)) if effective.revision > wanted.revision => findings.push((
            ZoneState::Degraded,
            format!(
                "enforces {}, which is newer than {} here; if this coordinator was restored from a backup, propose the \
                 latest documents with `penstock release propose --again`",
                effective.revision, wanted.revision
            ),
        )),
        (Some(effective), Some(wanted)) if !effective.is(wanted) => findings.push((
            ZoneState::Degraded,
            format!(
                "enforces a different {} from the one that this coordinator has; if it was restored from a backup, propose the latest \
                 documents with `penstock release propose --again`",
                wanted.revision
            ),
        )),
        (Some(_), Some(_)) => {}
    }
    if let Some((revision, why)) = &evidence.refused {
        findings.push((ZoneState::Degraded, format!("refused {revision}: {why}")));
    }
    if let Some((words, true)) = &evidence.rollout {
        findings.push((ZoneState::Degraded, words.clone()));
    }
    if evidence.drift {
        findings.push((
            ZoneState::Degraded,
            "somebody else changed its kernel's rules".to_owned(),
        ));
    }
    let faults = evidence.faults.iter().filter(|fault| fault.concerns(zone));
    findings.extend(faults.map(|fault| (ZoneState::Degraded, fault.words.clone())));
    findings
}

/// An age that changes its words seldom, so that a healthy view does not change each second.
fn ago(age_ms: u64) -> String {
    let minutes = age_ms / 60_000;
    match minutes {
        0 => "less than a minute".to_owned(),
        1..=59 => format!("{minutes} min"),
        60..=2879 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

#[cfg(test)]
mod tests;
