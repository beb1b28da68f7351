//! The health of zones, as a pure function of facts (DESIGN §10; IEC 62443-3-3 SR 6.2, SR 3.3).
//!
//! A zone is as healthy as the worst of the gateways at its boundary, worst first:
//!
//! - `unprotected`: it is certain that a boundary is open: no gateway stands there, one has no policy, or its
//!   kernel does not hold the policy;
//! - `unknown`: a gateway at the boundary never told anything;
//! - `stale`: it told, but too long ago. It most likely enforces on (promise 1), but that is not evidence;
//! - `degraded`: it enforces, but not as it should: an older revision, a refused release, drift, faults, an
//!   audit trail that does not fit;
//! - `observing`: all is well, and by its document the zone only observes; the reasons say what enforcing would change;
//! - `enforcing`: all is well, and it enforces.
//!
//! Every state has reasons, in words. Nothing is healthy for want of evidence: taking a fact away never makes a
//! zone look better (a property below).

pub mod watch;

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::{GatewayId, Revision, ZoneId};
use penstock_policy::model::{Enforcement, Plant};
use penstock_policy::neighbours::{Neighbours, neighbours};
use penstock_proto::convert::PolicyMark;
use serde::{Deserialize, Serialize};

/// State of a zone, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // Described above.
pub enum State {
    Enforcing,
    Observing,
    Degraded,
    Stale,
    Unknown,
    Unprotected,
}

impl State {
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
    /// The gateways that have the zone on one of their sides.
    pub gateways: Vec<GatewayId>,
    /// Which zones lie beside it; unknown of releases from before plans told the zones of one side apart.
    #[serde(default)]
    pub neighbours: Option<Neighbours>,
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
pub fn boundaries(plant: &Plant) -> BTreeMap<ZoneId, Boundary> {
    let mut neighbours = neighbours(plant);
    let mut boundaries: BTreeMap<_, _> = plant
        .zones
        .iter()
        .map(|(name, zone)| {
            let boundary = Boundary {
                enforcement: zone.enforcement,
                gateways: Vec::new(),
                neighbours: neighbours.remove(name),
            };
            (name.clone(), boundary)
        })
        .collect();
    for (id, gateway) in &plant.gateways {
        let zones: BTreeSet<&ZoneId> = gateway
            .interfaces
            .values()
            .flat_map(|interface| std::iter::once(&interface.zone).chain(&interface.behind))
            .collect();
        for zone in zones {
            if let Some(boundary) = boundaries.get_mut(zone) {
                boundary.gateways.push(id.clone());
            }
        }
    }
    boundaries
}

/// What is known of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayEvidence {
    /// Whether its session stands.
    pub connected: bool,
    /// When it last told how it is, milliseconds since 1970 by the coordinator's clock; `None`: never since the
    /// coordinator started.
    pub reported_ms: Option<u64>,
    /// What its kernel holds.
    pub effective: Option<PolicyMark>,
    /// What it should hold by the current release; `None`: the release has no plan for it.
    pub wanted: Option<PolicyMark>,
    /// Why it refused a release: revision and words.
    pub refused: Option<(Revision, String)>,
    /// The kernel holds something else than the policy, now.
    pub drift: bool,
    /// Whether it is certain that its kernel does not enforce (fault `kernel-failed`).
    pub kernel_failed: bool,
    /// Faults it told, and what is wrong with its trail, in words.
    pub faults: Vec<String>,
    /// What enforcing would change where it only observes, in words.
    pub foretold: Vec<String>,
    /// The conduits that grants of remote access opened, in words. Being open for a time is no fault.
    pub granted: Vec<String>,
}

/// The judgement on one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneJudgement {
    /// Its state.
    pub state: State,
    /// Why; never empty.
    pub reasons: Vec<String>,
}

/// Reasons given at most for one zone; the rest is counted.
const REASONS_MAX: usize = 16;

/// Judges one zone.
///
/// `current`: the revision in force, `None` before the first release. `stale_after_ms`: how old a report may be.
pub fn judge(
    boundary: &Boundary,
    gateways: &BTreeMap<GatewayId, GatewayEvidence>,
    current: Option<Revision>,
    now_ms: u64,
    stale_after_ms: u64,
) -> ZoneJudgement {
    if boundary.gateways.is_empty() {
        return ZoneJudgement {
            state: State::Unprotected,
            reasons: vec!["no gateway stands at its boundary".to_owned()],
        };
    }
    let mut state = match boundary.enforcement {
        Enforcement::Enforce => State::Enforcing,
        Enforcement::Observe => State::Observing,
    };
    let mut reasons = Vec::new();
    for gateway in &boundary.gateways {
        let findings = match gateways.get(gateway) {
            Some(evidence) => judge_gateway(evidence, now_ms, stale_after_ms),
            None => vec![(State::Unknown, "was never seen".to_owned())],
        };
        for (found, reason) in findings {
            state = state.max(found);
            reasons.push(format!("{gateway}: {reason}"));
        }
    }
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
        let revision = current.unwrap_or_default();
        let meaning = boundary.meaning();
        reasons.push(format!(
            "{revision} is effective on every gateway at its boundary: {meaning}"
        ));
    }
    reasons.extend(foretold);
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

fn judge_gateway(evidence: &GatewayEvidence, now_ms: u64, stale_after_ms: u64) -> Vec<(State, String)> {
    let mut findings = Vec::new();
    let Some(reported_ms) = evidence.reported_ms else {
        return vec![(
            State::Unknown,
            "has not reported since this coordinator started".to_owned(),
        )];
    };
    let age_ms = now_ms.saturating_sub(reported_ms);
    if !evidence.connected {
        findings.push((State::Stale, format!("is not connected since {}", ago(age_ms))));
    } else if age_ms > stale_after_ms {
        findings.push((State::Stale, format!("has not reported for {}", ago(age_ms))));
    }
    if evidence.kernel_failed {
        findings.push((
            State::Unprotected,
            "its kernel does not hold the policy".to_owned(),
        ));
    }
    match (&evidence.effective, &evidence.wanted) {
        (None, _) => findings.push((State::Unprotected, "has no policy in force".to_owned())),
        (Some(effective), None) => findings.push((
            State::Degraded,
            format!(
                "enforces {}, but the current release has no plan for it",
                effective.revision
            ),
        )),
        (Some(effective), Some(wanted)) if effective.revision < wanted.revision => findings.push((
            State::Degraded,
            format!("enforces {}, not yet {}", effective.revision, wanted.revision),
        )),
        (Some(effective), Some(wanted)) if effective.revision > wanted.revision => findings.push((
            State::Degraded,
            format!(
                "enforces {}, which is newer than {} here; if this coordinator was restored from a backup, propose the \
                 latest documents with `penstock release propose --again`",
                effective.revision, wanted.revision
            ),
        )),
        (Some(effective), Some(wanted)) if !effective.is(wanted) => findings.push((
            State::Degraded,
            format!(
                "enforces another {} than this coordinator has; if it was restored from a backup, propose the latest \
                 documents with `penstock release propose --again`",
                wanted.revision
            ),
        )),
        (Some(_), Some(_)) => {}
    }
    if let Some((revision, why)) = &evidence.refused {
        findings.push((State::Degraded, format!("refused {revision}: {why}")));
    }
    if evidence.drift {
        findings.push((
            State::Degraded,
            "somebody else changed its kernel's rules".to_owned(),
        ));
    }
    findings.extend(
        evidence
            .faults
            .iter()
            .map(|fault| (State::Degraded, fault.clone())),
    );
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
