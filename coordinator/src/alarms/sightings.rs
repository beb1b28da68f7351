//! What happened and is over, and still has to be seen by somebody: refused writes, and trails that do not fit. Each counts for an hour
//! after it happened last, so that a source that tries all day is one alarm and not thousands. Pure.
//!
//! A gap in a trail that the gateway's own loss record accounts for is no alarm, whichever of the two is read first.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::{GatewayId, ZoneId};
use penstock_policy::protocol::Protocol;
use penstock_policy::protocol::vocabulary::Effect;
use penstock_proto::event::COORDINATOR_PREFIX;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditRecord, Decision, LossEvent, NamedAddress, OperationEvent, TrailEvent};

use crate::health::Boundary;

/// How long it counts.
pub(crate) const COUNTS_MS: u64 = 3_600_000;
/// Who tried to write into one zone, as many as are kept: the newest.
const CLIENTS_MAX: usize = 16;

/// Something that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    last_ms: u64,
    message: String,
    gateway: Option<GatewayId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct TrailSeen {
    /// Blocks that are missing, less those that loss records account for.
    missing: i128,
    gap: Option<Seen>,
    /// When either of these two was heard of last.
    missing_ms: u64,
    /// Somebody else wrote under its name, its seals do not fit, or part of it was refused.
    other: Option<Seen>,
}

/// What was seen lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sightings {
    /// What happened before the coordinator started was read: what is not here did not happen.
    pub(crate) is_whole: bool,
    /// Refused writes into a zone, by who tried.
    refused: BTreeMap<ZoneId, BTreeMap<String, Seen>>,
    trails: BTreeMap<GatewayId, TrailSeen>,
}

/// What happened lately: in words, of what, and at which gateways.
pub(crate) struct Sighting {
    pub(crate) message: String,
    pub(crate) subjects: BTreeSet<String>,
    pub(crate) gateways: BTreeSet<GatewayId>,
}

/// Whether a refused operation would have written or programmed.
fn writes(event: &OperationEvent) -> bool {
    let name = event.operation.split(' ').next().unwrap_or_default();
    let changes = |protocol: Protocol| {
        let operation = protocol
            .operations
            .iter()
            .find(|operation| operation.name == name);
        // What has a number and no name is the vendors' own, by which they program.
        let is_numbered = protocol
            .numbered
            .as_ref()
            .is_some_and(|numbered| (numbered.is)(name));
        is_numbered || operation.is_some_and(|operation| operation.effect >= Effect::Write)
    };
    event.values.is_some() || Protocol::of(&event.protocol).is_some_and(changes)
}

fn named<'a>(names: &'a [NamedAddress], address: &str) -> Option<&'a NamedAddress> {
    names.iter().find(|named| named.address == address)
}

impl Sightings {
    /// Takes a record of a trail in. `zones` are those of the release in force.
    pub(crate) fn take(&mut self, record: &AuditRecord, zones: &BTreeMap<ZoneId, Boundary>) {
        let gateway = GatewayId::new(record.source.as_str()).ok();
        let kind = record.event.as_ref().and_then(|event| event.kind.as_ref());
        match (kind, gateway) {
            (Some(Kind::Operation(event)), Some(gateway)) => self.operation(record, event, gateway, zones),
            (Some(Kind::Loss(event)), Some(gateway)) => self.loss(record.received_ms, gateway, event),
            (Some(Kind::Trail(event)), _) if record.source.starts_with(COORDINATOR_PREFIX) => {
                self.trail(record.received_ms, event);
            }
            _ => {}
        }
    }

    fn operation(
        &mut self,
        record: &AuditRecord,
        event: &OperationEvent,
        gateway: GatewayId,
        zones: &BTreeMap<ZoneId, Boundary>,
    ) {
        if event.decision() != Decision::Deny || event.subject != "operation" || !writes(event) {
            return;
        }
        let server = named(&record.names, &event.server);
        let Some((zone, boundary)) = server
            .and_then(|server| ZoneId::new(server.zone.as_str()).ok())
            .and_then(|zone| zones.get_key_value(&zone))
        else {
            return;
        };
        let is_known = !event.client_name.is_empty()
            || named(&record.names, &event.client).is_some_and(|client| !client.asset.is_empty());
        if is_known && !boundary.is_safety {
            return;
        }
        let client = match event.client_name.as_str() {
            "" => event.client.clone(),
            name => format!("{name} ({})", event.client),
        };
        let stranger = if is_known {
            ""
        } else {
            ", which is not an asset of the document,"
        };
        let server = match event.server_name.as_str() {
            "" => &event.server,
            name => name,
        };
        let seen = Seen {
            last_ms: record.received_ms,
            message: format!(
                "{gateway} refused {} on {server} by {client}{stranger}",
                event.operation
            )
            .trim_end_matches(',')
            .to_owned(),
            gateway: Some(gateway),
        };
        let of_zone = self.refused.entry(zone.clone()).or_default();
        if of_zone.len() >= CLIENTS_MAX && !of_zone.contains_key(&event.client) {
            // The oldest makes room.
            let oldest = of_zone.iter().min_by_key(|(_, seen)| seen.last_ms);
            if let Some(oldest) = oldest.map(|(client, _)| client.clone()) {
                of_zone.remove(&oldest);
            }
        }
        keep(of_zone.entry(event.client.clone()), seen);
    }

    fn loss(&mut self, received_ms: u64, gateway: GatewayId, event: &LossEvent) {
        if event.blocks > 0 {
            let trail = self.trails.entry(gateway).or_default();
            trail.missing -= i128::from(event.blocks);
            trail.missing_ms = received_ms;
        }
    }

    fn trail(&mut self, received_ms: u64, event: &TrailEvent) {
        let Ok(gateway) = GatewayId::new(event.source.as_str()) else {
            return;
        };
        let seen = Seen {
            last_ms: received_ms,
            message: format!("{}: {}", event.source, event.message),
            gateway: Some(gateway.clone()),
        };
        let trail = self.trails.entry(gateway).or_default();
        match event.step.as_str() {
            "gap" => {
                trail.missing += i128::from(event.blocks);
                trail.missing_ms = received_ms;
                trail.gap = Some(seen);
            }
            "refused" | "rewound" | "seals" => trail.other = Some(seen),
            _ => {}
        }
    }

    /// Forgets what no longer counts, and what is of no zone and no gateway any more.
    pub(crate) fn forget(&mut self, zones: &BTreeMap<ZoneId, Boundary>, now_ms: u64) {
        // What came while the clock was ahead came now at the latest: else it would count until then.
        let counts = |seen: &mut Seen| {
            seen.last_ms = seen.last_ms.min(now_ms);
            now_ms - seen.last_ms < COUNTS_MS
        };
        self.refused.retain(|zone, seen| {
            seen.retain(|_, seen| counts(seen));
            zones.contains_key(zone) && !seen.is_empty()
        });
        self.trails.retain(|_, trail| {
            trail.gap.take_if(|gap| !counts(gap));
            trail.other.take_if(|other| !counts(other));
            trail.missing_ms = trail.missing_ms.min(now_ms);
            // What accounts for what comes or came within the hour: no loss of long ago hides a gap, and no gap of long ago makes one of another.
            if now_ms - trail.missing_ms >= COUNTS_MS {
                trail.missing = 0;
            }
            trail.gap.is_some() || trail.other.is_some() || trail.missing != 0
        });
    }

    /// Refused writes into a zone.
    pub(crate) fn refused(&self, zone: &ZoneId, now_ms: u64) -> Option<Sighting> {
        let seen = self.refused.get(zone)?.iter();
        sighting(seen.map(|(client, seen)| (client.clone(), seen)), now_ms)
    }

    /// What does not fit in the trails of these gateways.
    pub(crate) fn trails(&self, gateways: &[GatewayId], now_ms: u64) -> Option<Sighting> {
        let known = gateways
            .iter()
            .filter_map(|gateway| Some((gateway, self.trails.get(gateway)?)));
        let seen = known.flat_map(|(gateway, trail)| {
            let gap = trail.gap.iter().filter(|_| trail.missing > 0);
            let gap = gap.map(move |seen| (format!("{gateway} gap"), seen));
            gap.chain(trail.other.iter().map(move |seen| (gateway.to_string(), seen)))
        });
        sighting(seen, now_ms)
    }
}

fn keep(entry: std::collections::btree_map::Entry<'_, String, Seen>, seen: Seen) {
    let held = entry.or_insert_with(|| seen.clone());
    if seen.last_ms >= held.last_ms {
        *held = seen;
    }
}

fn sighting<'a>(all: impl Iterator<Item = (String, &'a Seen)>, now_ms: u64) -> Option<Sighting> {
    let mut seen: Vec<_> = all
        .filter(|(_, seen)| now_ms.saturating_sub(seen.last_ms) < COUNTS_MS)
        .collect();
    seen.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.last_ms));
    let (_, newest) = seen.first()?;
    let more = match seen.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(Sighting {
        message: format!("{}{more}", newest.message),
        gateways: seen.iter().filter_map(|(_, seen)| seen.gateway.clone()).collect(),
        subjects: seen
            .into_iter()
            .map(|(subject, _)| subject)
            .collect::<BTreeSet<_>>(),
    })
}

#[cfg(test)]
mod tests;
