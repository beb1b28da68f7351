//! What was seen behind each address, and what of it is news. Pure: time and sightings are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use penstock_policy::plan::{Endpoint, Plan};
use penstock_policy::terms::Mac;
use penstock_proto::v1::{LearnedBinding, LearnedEvent};

use super::shown::Binding;

/// Addresses that are kept, of all sides; each side has its share for addresses of no asset.
pub(super) const BINDINGS_MAX: usize = 4096;
/// Sightings of one look.
pub(super) const SIGHTINGS_MAX: usize = 16_384;
/// Events of one look; what they leave out is seen again at the next.
const EVENTS_MAX: usize = 64;
/// For how long after a change of one address further ones are only counted: two machines that claim it in turn fill no trail.
pub(super) const QUIET: Duration = Duration::from_secs(60);
/// How often an address is reported that is still behind the same MAC address: so that the trail of any month has it. An address of no asset
/// that was not seen for as long makes room for another.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// An address was seen behind a MAC address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) address: IpAddr,
    pub(super) mac: Mac,
    pub(super) interface: String,
    /// When, milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// What the plan says of an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Named {
    asset: Option<String>,
    declared: Option<Mac>,
}

/// The addresses.
#[derive(Debug, Default)]
pub(super) struct Table {
    bindings: BTreeMap<IpAddr, Binding>,
    /// Those that changed since the trail was given them, as they were then.
    changed: BTreeMap<IpAddr, Binding>,
    sides: BTreeMap<String, Vec<IpNet>>,
    named: BTreeMap<IpAddr, Named>,
}

impl Table {
    /// Those that an agent left.
    pub(super) fn of(left: Vec<Binding>) -> Self {
        let kept = left.into_iter().take(BINDINGS_MAX);
        Self {
            bindings: kept.map(|binding| (binding.address, binding)).collect(),
            ..Self::default()
        }
    }

    /// From now on by this plan. What belongs to none of its sides is forgotten.
    pub(super) fn follow(&mut self, plan: &Plan) {
        let sides = plan.interfaces.iter();
        self.sides = sides
            .map(|side| (side.name.clone(), side.networks.clone()))
            .collect();
        self.named = named(plan);
        let (sides, named) = (&self.sides, &self.named);
        self.bindings
            .retain(|address, binding| holds(sides, &binding.interface, *address));
        for binding in self.bindings.values_mut() {
            let known = named.get(&binding.address).cloned().unwrap_or_default();
            (binding.asset, binding.declared) = (known.asset, known.declared);
        }
        let bindings = &self.bindings;
        self.changed.retain(|address, _| bindings.contains_key(address));
    }

    /// Takes what was seen; what of it is worth telling.
    pub(super) fn take(&mut self, mut sightings: Vec<Sighting>, now_ms: u64) -> Vec<LearnedEvent> {
        // Those of assets first: nobody's crowd takes their share of a look.
        sightings.sort_by_key(|seen| !self.named.contains_key(&seen.address));
        // Sides that have no place for one more stranger in this look.
        let mut full: BTreeSet<String> = BTreeSet::new();
        let mut events = Vec::new();
        // No side takes the others' share of a look.
        let share = EVENTS_MAX.div_ceil(self.sides.len().max(1));
        let mut of_side: BTreeMap<String, usize> = BTreeMap::new();
        for seen in sightings {
            if !holds(&self.sides, &seen.interface, seen.address) {
                continue;
            }
            let told = of_side.entry(seen.interface.clone()).or_default();
            let is_stranger =
                !self.bindings.contains_key(&seen.address) && !self.named.contains_key(&seen.address);
            if *told >= share || (is_stranger && full.contains(&seen.interface)) {
                continue;
            }
            let interface = seen.interface.clone();
            match self.one(seen, now_ms) {
                Some(event) => {
                    *told += 1;
                    events.push(event);
                }
                None if is_stranger => {
                    full.insert(interface);
                }
                None => {}
            }
        }
        let room = EVENTS_MAX.saturating_sub(events.len());
        events.extend(self.overdue(now_ms, room));
        events
    }

    fn one(&mut self, seen: Sighting, now_ms: u64) -> Option<LearnedEvent> {
        let Some(known) = self.bindings.get_mut(&seen.address) else {
            return self.first(seen, now_ms);
        };
        // By a clock that was ahead once, it would count until then.
        known.last_ms = known.last_ms.min(now_ms);
        // What the kernel remembers of an interface that the machine has left.
        if seen.at_ms < known.last_ms && (known.mac, &known.interface) != (seen.mac, &seen.interface) {
            return None;
        }
        if (known.mac, &known.interface) == (seen.mac, &seen.interface) {
            known.last_ms = known.last_ms.max(seen.at_ms);
            return None;
        }
        let before = known.clone();
        known.changes = known.changes.saturating_add(1);
        if before.mac != seen.mac {
            known.previous = Some(before.mac);
        }
        (known.mac, known.interface) = (seen.mac, seen.interface);
        (known.first_ms, known.last_ms) = (seen.at_ms, seen.at_ms);
        // The first change is reported at once.
        let waits = known.changes > 1 && !is_over(known.told_ms, QUIET, now_ms);
        let before = self.changed.remove(&seen.address).unwrap_or(before);
        if waits {
            self.changed.insert(seen.address, before);
            return None;
        }
        known.told_ms = now_ms;
        Some(event(known, Some(&before)))
    }

    /// Changes that were not reported when they came, and addresses of which the trail has had nothing for a day; at most `room`.
    fn overdue(&mut self, now_ms: u64, room: usize) -> Vec<LearnedEvent> {
        let mut events = Vec::new();
        for (address, known) in &mut self.bindings {
            if events.len() >= room {
                break;
            }
            let is_due = match self.changed.contains_key(address) {
                true => is_over(known.told_ms, QUIET, now_ms),
                false => known.last_ms > known.told_ms && is_over(known.told_ms, DAY, now_ms),
            };
            if is_due {
                known.told_ms = now_ms;
                let before = self.changed.remove(address);
                // Perhaps it is again as the trail has it.
                let before =
                    before.filter(|before| (before.mac, &before.interface) != (known.mac, &known.interface));
                events.push(event(known, before.as_ref()));
            }
        }
        events
    }

    fn first(&mut self, seen: Sighting, now_ms: u64) -> Option<LearnedEvent> {
        let known = self.named.get(&seen.address).cloned();
        if !self.has_room(known.is_some(), &seen.interface, now_ms) {
            return None;
        }
        let known = known.unwrap_or_default();
        let binding = Binding {
            address: seen.address,
            asset: known.asset,
            mac: seen.mac,
            interface: seen.interface,
            declared: known.declared,
            first_ms: seen.at_ms,
            last_ms: seen.at_ms,
            changes: 0,
            previous: None,
            told_ms: now_ms,
        };
        let event = event(&binding, None);
        self.bindings.insert(seen.address, binding);
        Some(event)
    }

    /// Whether there is a place for one more address, an asset's or a stranger's of this side; the stranger who was silent for the longest time
    /// makes room: for an asset at once, for another stranger of its side after a day.
    fn has_room(&mut self, is_asset: bool, interface: &str, now_ms: u64) -> bool {
        let strangers = self.bindings.values().filter(|binding| binding.asset.is_none());
        let silent = if is_asset {
            if self.bindings.len() < BINDINGS_MAX {
                return true;
            }
            strangers
                .map(|binding| (binding.address, binding.last_ms))
                .min_by_key(|(_, last_ms)| *last_ms)
        } else {
            let share = BINDINGS_MAX / self.sides.len().max(1);
            let of_side: Vec<_> = strangers
                .filter(|binding| binding.interface == interface)
                .map(|binding| (binding.address, binding.last_ms))
                .collect();
            if of_side.len() < share && self.bindings.len() < BINDINGS_MAX {
                return true;
            }
            let oldest = of_side.into_iter().min_by_key(|(_, last_ms)| *last_ms);
            oldest.filter(|(_, last_ms)| is_over(*last_ms, DAY, now_ms))
        };
        if let Some((address, _)) = silent {
            self.bindings.remove(&address);
            self.changed.remove(&address);
        }
        silent.is_some()
    }

    /// All of them, for people: those of assets first.
    pub(super) fn shown(&self) -> Vec<Binding> {
        let mut all: Vec<Binding> = self.bindings.values().cloned().collect();
        all.sort_by_key(|binding| (binding.asset.is_none(), binding.address));
        all
    }
}

/// Whether `span` is over since then, or the clock was set back.
fn is_over(since_ms: u64, span: Duration, now_ms: u64) -> bool {
    let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    now_ms.checked_sub(since_ms).is_none_or(|ago| ago >= span)
}

fn holds(sides: &BTreeMap<String, Vec<IpNet>>, interface: &str, address: IpAddr) -> bool {
    let networks = sides.get(interface);
    networks.is_some_and(|networks| networks.iter().any(|network| network.contains(&address)))
}

/// The addresses that the plan names, with the MAC addresses that it has for them.
fn named(plan: &Plan) -> BTreeMap<IpAddr, Named> {
    let mut named: BTreeMap<IpAddr, Named> = BTreeMap::new();
    let rules = plan.rules.iter().map(|rule| (&rule.sources, &rule.destinations));
    let unproven = plan.unproven.iter().map(|one| (&one.sources, &one.destinations));
    let ends = rules
        .chain(unproven)
        .flat_map(|(sources, destinations)| sources.iter().chain(destinations));
    let single = |end: &&Endpoint| !end.is_zone() && end.network.prefix_len() == end.network.max_prefix_len();
    for end in ends.filter(single) {
        named.entry(end.network.addr()).or_default().asset = Some(end.name.to_string());
    }
    for broker in plan.bridges.iter().flat_map(|bridge| [&bridge.from, &bridge.to]) {
        named.entry(broker.address).or_default().asset = Some(broker.asset.to_string());
    }
    let hardware = plan.interfaces.iter().flat_map(|side| &side.hardware);
    for one in plan.bound.values().flatten().chain(hardware) {
        named.entry(one.address).or_default().declared = Some(one.mac);
    }
    named
}

fn event(binding: &Binding, before: Option<&Binding>) -> LearnedEvent {
    let text = |mac: &Option<Mac>| mac.map(|mac| mac.to_string()).unwrap_or_default();
    LearnedEvent {
        source: binding.address.to_string(),
        binding: Some(LearnedBinding {
            mac: binding.mac.to_string(),
            interface: binding.interface.clone(),
            previous_mac: before.map(|before| before.mac.to_string()).unwrap_or_default(),
            previous_interface: before.map(|before| before.interface.clone()).unwrap_or_default(),
            asset: binding.asset.clone().unwrap_or_default(),
            declared_mac: text(&binding.declared),
            first_ms: before.map_or(0, |before| before.first_ms),
            last_ms: before.map_or(0, |before| before.last_ms),
            changes: binding.changes,
        }),
        ..LearnedEvent::default()
    }
}

#[cfg(test)]
mod tests;
