//! What is proposed of frames other than IP: for each kind and VLAN, between which two zones it goes, as its sender's addresses tell.
//!
//! What goes to one machine is proposed for its zone. What goes to many is proposed for every zone across a bridged gateway: nothing tells who
//! needs it there, and the proposal says so. A sender without a known address, and zones that share a side with others, are only named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use penstock_policy::ids::ZoneId;
use penstock_policy::model::Plant;
use penstock_policy::terms::{EtherType, FrameSeen, GatewayMode, Mac, MacPrefix};

use super::place::Place;
use super::{Clock, seen};
use crate::learn::frames::{FrameKey, SeenFrames};
use crate::learn::macs::SeenMacs;
use crate::replay::Occurrences;

/// Entries of one list that are written out; with more, and where some frames are for one machine alone, nothing limits them by it.
const LISTED_MAX: usize = 64;

/// By the zone that they come from, kind and VLAN.
type Kinds = BTreeMap<(String, EtherType, u16), Kind>;

/// What is proposed, and what is only named.
#[derive(Default)]
pub(super) struct ProposedFrames {
    /// By the two zones, in order.
    conduits: BTreeMap<(String, String), Kinds>,
    /// Sentences.
    named: BTreeSet<String>,
}

/// Frames of one kind in one VLAN.
struct Kind {
    /// The groups that they are for; `None`: some are for a machine.
    groups: Option<BTreeSet<[u8; 6]>>,
    appids: BTreeSet<u16>,
    to_many: bool,
    seen: Occurrences,
}

/// Where machines and zones are.
pub(super) struct Surroundings<'s> {
    pub(super) plant: Option<&'s Plant>,
    pub(super) macs: &'s SeenMacs,
    pub(super) place: &'s dyn Fn(IpAddr) -> Option<Place>,
}

impl ProposedFrames {
    pub(super) fn of(frames: &SeenFrames, around: &Surroundings<'_>) -> Self {
        let mut proposed = Self::default();
        for (key, seen) in frames.iter() {
            proposed.add(key, *seen, around);
        }
        if frames.left_out > 0 {
            let words = format!(
                "{} further frames, of more kinds and ends than are kept apart",
                frames.left_out
            );
            proposed.named.insert(words);
        }
        proposed
    }

    /// Whether nothing is proposed.
    pub(super) fn is_empty(&self) -> bool {
        self.conduits.is_empty()
    }

    fn add(&mut self, key: &FrameKey, seen: Occurrences, around: &Surroundings<'_>) {
        let Some(from) = around.zone_of(key.sender) else {
            let words = format!(
                "{} from {}: no address was seen behind that MAC address, or several zones', so that it is not known where they come from",
                key.ether_type,
                Mac(key.sender)
            );
            self.named.insert(words);
            return;
        };
        let to = match key.is_to_many() {
            true => around.across(&from),
            false => around.zone_of(key.destination).into_iter().collect(),
        };
        for to in to.into_iter().filter(|to| *to != from) {
            match around.crossing(&from, &to, key) {
                Crossing::Permitted | Crossing::None => {}
                Crossing::Shared => {
                    let words = format!(
                        "{} from {from} to {to}: one of the two zones shares a side of the gateway with another, and a frame shows no address",
                        key.ether_type
                    );
                    self.named.insert(words);
                }
                Crossing::Bridged => self.propose((&from, &to), key, seen),
            }
        }
    }

    fn propose(&mut self, (from, to): (&str, &str), key: &FrameKey, seen: Occurrences) {
        let zones = (from.min(to).to_owned(), from.max(to).to_owned());
        let kinds = self.conduits.entry(zones).or_default();
        let kind = kinds
            .entry((from.to_owned(), key.ether_type, key.vlan))
            .or_insert(Kind {
                groups: Some(BTreeSet::new()),
                appids: BTreeSet::new(),
                to_many: false,
                seen,
            });
        kind.seen = kind.seen.and(seen);
        kind.to_many |= key.is_to_many();
        kind.appids.extend(key.appid);
        match &mut kind.groups {
            Some(groups) if key.is_to_many() => {
                groups.insert(key.destination);
            }
            groups => *groups = None,
        }
    }

    /// Writes what is only named.
    pub(super) fn remarks(&self, out: &mut String) {
        if !self.named.is_empty() {
            out.push_str("# NOT PROPOSED of frames other than IP; a person who knows the cell can write `frames` for them:\n");
        }
        for words in &self.named {
            let _ = writeln!(out, "#   {words}");
        }
    }

    /// Writes the conduits; `name` gives one a name that no other has.
    pub(super) fn write(&self, out: &mut String, mut name: impl FnMut(&str) -> String, clock: &Clock<'_>) {
        for ((one, other), kinds) in &self.conduits {
            let name = name(&format!("learned-frames-{one}-{other}"));
            let _ = writeln!(out, "  {name}:\n    from: {one}\n    to: {other}\n    frames:");
            for ((from, ether_type, vlan), kind) in kinds {
                kind.write(out, (from, *ether_type, *vlan), clock);
            }
        }
    }
}

impl Kind {
    fn write(&self, out: &mut String, (from, ether_type, vlan): (&str, EtherType, u16), clock: &Clock<'_>) {
        let zone: String = from.chars().take(36).collect();
        let zone = zone.trim_end_matches(['.', '-']);
        let word = ether_type.word();
        let many = match self.to_many {
            true => "; to many at once: leave it out if nobody across needs it",
            false => "",
        };
        let of_vlan = match vlan {
            0 => String::new(),
            vlan => format!("-vlan-{vlan}"),
        };
        let _ = writeln!(
            out,
            "      # {}{many}\n      {word}{of_vlan}-from-{zone}:\n        from: {from}\n        ethertype: {word}",
            seen(&self.seen, clock)
        );
        if vlan != 0 {
            let _ = writeln!(out, "        vlan: {vlan}");
        }
        if let Some(groups) = self.groups.as_ref().filter(|groups| groups.len() <= LISTED_MAX) {
            let groups = groups
                .iter()
                .map(|group| format!("\"{}\"", MacPrefix::one(*group)));
            let _ = writeln!(out, "        to_mac: [{}]", groups.collect::<Vec<_>>().join(", "));
        }
        if (1..=LISTED_MAX).contains(&self.appids.len()) {
            let ids = self.appids.iter().map(|id| format!("{id:#06x}"));
            let _ = writeln!(out, "        appid: [{}]", ids.collect::<Vec<_>>().join(", "));
        }
    }
}

/// Whether frames can be let across between two zones.
enum Crossing {
    /// The plant permits them already.
    Permitted,
    /// No bridged gateway stands between.
    None,
    /// One does, and one of the zones is not alone on its side.
    Shared,
    /// One does.
    Bridged,
}

impl Surroundings<'_> {
    /// The one zone of the machine that has this MAC address.
    fn zone_of(&self, mac: [u8; 6]) -> Option<String> {
        let declared = self.plant.into_iter().flat_map(|plant| plant.assets.values());
        let declared = declared.filter(|asset| {
            asset
                .mac
                .as_ref()
                .is_some_and(|known| known.parse() == Ok(Mac(mac)))
        });
        let mut zones: BTreeSet<String> = declared.map(|asset| asset.zone.to_string()).collect();
        let addresses = self.macs.behind(Mac(mac));
        zones.extend(addresses.filter_map(|address| Some((self.place)(address)?.zone)));
        let zone = zones.pop_first()?;
        zones.is_empty().then_some(zone)
    }

    /// The zones on other sides of bridged gateways.
    fn across(&self, from: &str) -> BTreeSet<String> {
        let Some(plant) = self.plant else {
            return ["operations", "control"].map(str::to_owned).into();
        };
        let bridges = plant
            .gateways
            .values()
            .filter(|gateway| gateway.mode == GatewayMode::Bridged);
        let mut across = BTreeSet::new();
        for gateway in bridges {
            let sides: Vec<Vec<&ZoneId>> = gateway
                .interfaces
                .values()
                .map(|side| std::iter::once(&side.zone).chain(&side.behind).collect())
                .collect();
            let has = |side: &[&ZoneId]| side.iter().any(|zone| zone.as_str() == from);
            if sides.iter().any(|side| has(side)) {
                let others = sides.iter().filter(|side| !has(side)).flatten();
                across.extend(others.map(|zone| zone.to_string()));
            }
        }
        across
    }

    fn crossing(&self, from: &str, to: &str, key: &FrameKey) -> Crossing {
        let Some(plant) = self.plant else {
            return Crossing::Bridged;
        };
        let seen = FrameSeen {
            destination: key.destination,
            vlan: Some(key.vlan),
            ether_type: key.ether_type.number(),
            appid: key.appid,
        };
        let declared = plant
            .conduits
            .values()
            .flat_map(|conduit| conduit.frames.values());
        let mut declared = declared.filter(|flow| flow.frames.holds(&seen));
        let leads = |one: &ZoneId, other: &ZoneId| one.as_str() == from && other.as_str() == to;
        if declared.any(|flow| leads(&flow.from, &flow.to) || (flow.both && leads(&flow.to, &flow.from))) {
            return Crossing::Permitted;
        }
        let mut crossing = Crossing::None;
        for gateway in plant.gateways.values() {
            let of = |zone: &str| {
                let sides = gateway.interfaces.values();
                sides
                    .filter(|side| {
                        side.zone.as_str() == zone || side.behind.iter().any(|one| one.as_str() == zone)
                    })
                    .collect::<Vec<_>>()
            };
            let (near, far) = (of(from), of(to));
            if near.is_empty() || far.is_empty() || near == far {
                continue;
            }
            // Every gateway between has to be a bridge.
            if gateway.mode == GatewayMode::Routed {
                return Crossing::None;
            }
            if near.iter().chain(&far).any(|side| !side.behind.is_empty()) {
                crossing = Crossing::Shared;
            } else if !matches!(crossing, Crossing::Shared) {
                crossing = Crossing::Bridged;
            }
        }
        crossing
    }
}
