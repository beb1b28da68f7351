//! From what is known of zones and gateways to the conditions of alarms. Pure: what nobody knows is said to be unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use penstock_policy::ids::{GatewayId, ZoneId};
use penstock_proto::audit::chain::SealFault;
use penstock_proto::v1;

use super::machine::{Condition, OF_SEALS, Sign};
use super::sightings::{Sighting, Sightings};
use super::{AlarmKey, Cause};
use crate::health::Boundary;
use crate::sessions::GatewayFacts;

/// The fault by which a gateway reports that a must-flow fell silent.
const SILENT: &str = "flow-silent";
/// Longest message of an alarm, bytes.
const MESSAGE_BYTES_MAX: usize = 512;

/// What a gateway shows of alarms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GatewayShown {
    /// It is connected, and reported lately.
    pub(crate) is_fresh: bool,
    /// Its kernel holds something else than the policy, now.
    pub(crate) drift: bool,
    /// Faults that name flows or tell of silence: zones, flows, words.
    pub(crate) faults: Vec<(BTreeSet<String>, BTreeSet<String>, String)>,
    /// What its seals show that only a person ends: which it is, and words.
    pub(crate) unproved: Option<(String, String)>,
}

/// A fault of a gateway's seals as the subject of an alarm: another one is more than somebody acknowledged.
pub(crate) fn unproved_subject(gateway: &GatewayId, fault: &SealFault) -> String {
    format!("{gateway}{OF_SEALS}{}", fault.at)
}

impl GatewayShown {
    /// What its facts show.
    pub(crate) fn of(gateway: &GatewayId, facts: &GatewayFacts, now_ms: u64, stale_after_ms: u64) -> Self {
        let unproved = facts.seal_fault.as_ref().filter(|fault| fault.needs_person);
        let is_recent = facts
            .reported_ms
            .is_some_and(|reported_ms| now_ms.saturating_sub(reported_ms) <= stale_after_ms);
        let faults = facts
            .faults
            .iter()
            .filter(|fault| !fault.is_override() && (fault.code == SILENT || !fault.flows.is_empty()));
        Self {
            is_fresh: facts.connected && is_recent,
            drift: facts.drift == i32::from(v1::Drift::Present),
            unproved: unproved.map(|fault| (unproved_subject(gateway, fault), fault.words.clone())),
            faults: faults
                .map(|fault| {
                    let zones = match fault.code.as_str() {
                        SILENT => fault.zones.iter().cloned().collect(),
                        _ => BTreeSet::new(),
                    };
                    (
                        zones,
                        fault.flows.iter().cloned().collect(),
                        fault.message.clone(),
                    )
                })
                .collect(),
        }
    }
}

/// All that conditions are made from.
pub(crate) struct Evidence<'a> {
    pub(crate) zones: &'a BTreeMap<ZoneId, Boundary>,
    pub(crate) health: &'a v1::PlantHealth,
    pub(crate) gateways: &'a BTreeMap<GatewayId, GatewayShown>,
    /// Rollouts that a gate halted, by what names them, and why.
    pub(crate) halted: &'a BTreeMap<String, String>,
    pub(crate) sightings: &'a Sightings,
    /// For how long each zone may be dark.
    pub(crate) dark: &'a dyn Fn(&ZoneId) -> Duration,
    pub(crate) now_ms: u64,
}

/// Each zone and cause, and the plant with its own.
pub(crate) fn conditions(evidence: &Evidence<'_>) -> BTreeMap<AlarmKey, Condition> {
    let mut all = BTreeMap::new();
    let health: BTreeMap<&str, &v1::ZoneHealth> = evidence
        .health
        .zones
        .iter()
        .map(|zone| (zone.zone.as_str(), zone))
        .collect();
    for (zone, boundary) in evidence.zones {
        let place = ZonePlace {
            zone,
            boundary,
            health: health.get(zone.as_str()).copied(),
            evidence,
        };
        for cause in Cause::ALL {
            let condition = match cause {
                Cause::MustFlow => place.must_flow(),
                Cause::Unprotected => place.unprotected(),
                Cause::Drift => place.drift(),
                Cause::Stale => place.stale(),
                Cause::RefusedWrite => {
                    let seen = evidence.sightings.refused(zone, evidence.now_ms);
                    place.seen(cause, seen)
                }
                Cause::Trail => place.trail(),
                Cause::Rollout => continue,
            };
            all.insert(AlarmKey::of_zone(zone, cause), condition);
        }
    }
    all.insert(AlarmKey::of_plant(Cause::Rollout), rollout(evidence.halted));
    let guarding: BTreeSet<&GatewayId> = evidence.zones.values().flat_map(|zone| &zone.gateways).collect();
    let others = evidence
        .gateways
        .keys()
        .filter(|gateway| !guarding.contains(gateway));
    let others: Vec<GatewayId> = others.cloned().collect();
    if !others.is_empty() {
        // At no zone's boundary: not in the release yet, no longer, or none of its zones is.
        all.insert(
            AlarmKey::of_plant(Cause::Trail),
            trail_of_others(evidence, &others),
        );
    }
    all
}

/// What is wrong with the trails of gateways that guard no zone.
fn trail_of_others(evidence: &Evidence<'_>, gateways: &[GatewayId]) -> Condition {
    let words = |found: Trails| {
        Condition::Stands(Sign {
            message: shortened(&found.words.join("; ")),
            subjects: found.subjects,
            gateways: found.gateways,
            priority: Cause::Trail.priority(None),
            is_safety: false,
            dark: Duration::ZERO,
        })
    };
    evidence
        .trails(gateways)
        .map_or(Condition::Clear, words)
        .unless_unread(evidence)
}

/// What is wrong with trails.
struct Trails {
    words: Vec<String>,
    subjects: BTreeSet<String>,
    gateways: BTreeSet<GatewayId>,
}

impl Evidence<'_> {
    /// What was seen of these gateways' trails within the hour, and what only a person ends, whenever it was.
    fn trails(&self, of: &[GatewayId]) -> Option<Trails> {
        let (mut words, mut subjects, mut gateways) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for gateway in of {
            let shown = self.gateways.get(gateway);
            if let Some((subject, fault)) = shown.and_then(|shown| shown.unproved.as_ref()) {
                words.push(format!("{gateway}: {fault}"));
                subjects.insert(subject.clone());
                gateways.insert(gateway.clone());
            }
        }
        if let Some(seen) = self.sightings.trails(of, self.now_ms) {
            subjects.extend(seen.subjects);
            gateways.extend(seen.gateways);
            words.extend((!words.contains(&seen.message)).then_some(seen.message));
        }
        (!words.is_empty()).then_some(Trails {
            words,
            subjects,
            gateways,
        })
    }
}

impl Condition {
    /// What was not seen may have happened, where the trails of the last hour are not read yet.
    fn unless_unread(self, evidence: &Evidence<'_>) -> Self {
        match self {
            Self::Clear if !evidence.sightings.is_whole => Self::Unknown,
            known => known,
        }
    }
}

fn rollout(halted: &BTreeMap<String, String>) -> Condition {
    if halted.is_empty() {
        return Condition::Clear;
    }
    let words: Vec<String> = halted
        .iter()
        .map(|(which, why)| format!("{which}: {why}"))
        .collect();
    Condition::Stands(Sign {
        message: shortened(&words.join("; ")),
        subjects: halted.keys().cloned().collect(),
        gateways: BTreeSet::new(),
        priority: Cause::Rollout.priority(None),
        is_safety: false,
        dark: Duration::ZERO,
    })
}

struct ZonePlace<'a> {
    zone: &'a ZoneId,
    boundary: &'a Boundary,
    health: Option<&'a v1::ZoneHealth>,
    evidence: &'a Evidence<'a>,
}

impl<'a> ZonePlace<'a> {
    fn gateways(&self) -> impl Iterator<Item = (&'a GatewayId, Option<&'a GatewayShown>)> {
        let all = self.evidence.gateways;
        self.boundary
            .gateways
            .iter()
            .map(|gateway| (gateway, all.get(gateway)))
    }

    fn sign(
        &self,
        cause: Cause,
        words: &[String],
        subjects: BTreeSet<String>,
        gateways: BTreeSet<GatewayId>,
    ) -> Condition {
        Condition::Stands(Sign {
            message: shortened(&words.join("; ")),
            subjects,
            gateways,
            priority: cause.priority(self.boundary.consequence),
            is_safety: self.boundary.is_safety,
            dark: match cause {
                Cause::Stale => (self.evidence.dark)(self.zone),
                _ => Duration::ZERO,
            },
        })
    }

    /// What the gateways show that `look` finds: words and subjects of each. It is over only where all of them are known.
    fn shown(
        &self,
        cause: Cause,
        look: impl Fn(&GatewayId, &GatewayShown) -> Option<(String, BTreeSet<String>)>,
    ) -> Condition {
        let (mut words, mut subjects, mut gateways) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut all_known = true;
        for (gateway, shown) in self.gateways() {
            let fresh = shown.filter(|shown| shown.is_fresh);
            all_known &= fresh.is_some();
            if let Some((found, of)) = fresh.and_then(|shown| look(gateway, shown)) {
                words.push(format!("{gateway}: {found}"));
                subjects.extend(of);
                gateways.insert(gateway.clone());
            }
        }
        match (words.is_empty(), all_known) {
            (false, _) => self.sign(cause, &words, subjects, gateways),
            (true, true) => Condition::Clear,
            (true, false) => Condition::Unknown,
        }
    }

    fn must_flow(&self) -> Condition {
        self.shown(Cause::MustFlow, |_, shown| {
            let concerned = shown.faults.iter().filter_map(|(zones, flows, words)| {
                let own: BTreeSet<String> = match zones.contains(self.zone.as_str()) {
                    true => flows.clone(),
                    false => flows.intersection(&self.boundary.must_flows).cloned().collect(),
                };
                (!own.is_empty() || zones.contains(self.zone.as_str())).then_some((words, own))
            });
            let (words, flows): (Vec<&String>, Vec<BTreeSet<String>>) = concerned.unzip();
            let words: Vec<&str> = words.into_iter().map(String::as_str).collect();
            let flows: BTreeSet<String> = flows.into_iter().flatten().collect();
            let named = flows.iter().cloned().collect::<Vec<_>>().join(", ");
            (!words.is_empty()).then(|| (format!("{} ({named})", words.join("; ")), flows))
        })
    }

    fn drift(&self) -> Condition {
        self.shown(Cause::Drift, |gateway, shown| {
            shown.drift.then(|| {
                let words = "somebody else changed its kernel's rules, and they are not put back";
                (words.to_owned(), BTreeSet::from([gateway.to_string()]))
            })
        })
    }

    /// How well it is guarded; `None`: nobody knows, or the document has no gateway there, which is no news to a shift.
    fn state(&self) -> Option<v1::ZoneState> {
        let health = self.health.filter(|_| !self.boundary.gateways.is_empty());
        Some(health?.state())
    }

    /// Of these gateways: one more of them is more of the alarm.
    fn of_health(&self, cause: Cause, gateways: BTreeSet<GatewayId>) -> Condition {
        // The gravest of what many gateways have in common is the first.
        let reasons = self
            .health
            .map(|health| health.reasons.iter().take(2).cloned().collect());
        let reasons: Vec<String> = reasons.unwrap_or_default();
        let subjects = gateways.iter().map(ToString::to_string).collect();
        self.sign(cause, &reasons, subjects, gateways)
    }

    fn unprotected(&self) -> Condition {
        match self.state() {
            Some(v1::ZoneState::Unprotected) => {
                let gateways = self.boundary.gateways.iter().cloned().collect();
                self.of_health(Cause::Unprotected, gateways)
            }
            Some(v1::ZoneState::Stale | v1::ZoneState::Unknown | v1::ZoneState::Unspecified) | None => {
                Condition::Unknown
            }
            Some(_) => Condition::Clear,
        }
    }

    fn stale(&self) -> Condition {
        match self.state() {
            Some(v1::ZoneState::Stale | v1::ZoneState::Unknown) => {
                let lost = self
                    .gateways()
                    .filter(|(_, shown)| !shown.is_some_and(|shown| shown.is_fresh));
                let lost = lost.map(|(gateway, _)| gateway.clone()).collect();
                self.of_health(Cause::Stale, lost)
            }
            None | Some(v1::ZoneState::Unspecified) => Condition::Unknown,
            Some(_) => Condition::Clear,
        }
    }

    fn trail(&self) -> Condition {
        let found = self.evidence.trails(&self.boundary.gateways);
        let stands = |found: Trails| self.sign(Cause::Trail, &found.words, found.subjects, found.gateways);
        found
            .map_or(Condition::Clear, stands)
            .unless_unread(self.evidence)
    }

    fn seen(&self, cause: Cause, seen: Option<Sighting>) -> Condition {
        match seen {
            Some(seen) => self.sign(cause, &[seen.message], seen.subjects, seen.gateways),
            None => Condition::Clear.unless_unread(self.evidence),
        }
    }
}

fn shortened(text: &str) -> String {
    penstock_policy::text::shortened(text, MESSAGE_BYTES_MAX).into_owned()
}

#[cfg(test)]
mod tests;
