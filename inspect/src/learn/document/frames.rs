//! What is proposed of frames other than IP: for each kind and VLAN, between which two zones it goes, as its sender's addresses tell.
//!
//! What goes to one machine is proposed for its zone. What goes to many is proposed for every zone across a bridged gateway: nothing tells who
//! needs it there, and the proposal says so. A sender without a known address, and zones that share a side with others, are only named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use penstock_policy::ids::ZoneId;
use penstock_policy::model::{FrameFlow, Plant};
use penstock_policy::terms::{EtherType, FrameSeen, GatewayMode, Mac, MacPrefix};

use super::place::Place;
use super::{Clock, seen};
use crate::learn::frames::{FrameKey, SeenFrames};
use crate::learn::macs::SeenMacs;
use crate::replay::Occurrences;

/// Entries of one list that are written out, as many as a document takes; with more nothing limits the frames by it, and the proposal says so.
const LISTED_MAX: usize = 256;
/// Kinds that are proposed between two zones; further ones are counted.
const KINDS_MAX: usize = 64;
/// Sentences about what is only named; further ones are counted.
const NAMED_MAX: usize = 64;
/// The longest name of an entry.
const NAME_CHARS_MAX: usize = 63;
/// Behind the name of what goes the other way, where the zones' names alone do not tell the two apart.
const BACK: &str = "-back";

/// By the zone that they come from, kind and VLAN.
type Kinds = BTreeMap<(String, EtherType, u16), Kind>;

/// What is proposed, and what is only named.
#[derive(Default)]
pub(super) struct ProposedFrames {
    /// By the two zones, in order.
    conduits: BTreeMap<(String, String), Kinds>,
    /// Sentences.
    named: BTreeSet<String>,
    /// Those beyond so many.
    further: u64,
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
        let mut places = Places::new(around);
        for (key, seen) in frames.iter() {
            proposed.add(key, *seen, &mut places);
        }
        if frames.left_out > 0 {
            let words = format!(
                "{} further frames, of more kinds and ends than are kept apart",
                frames.left_out
            );
            proposed.name(words);
        }
        proposed
    }

    /// Whether nothing is proposed.
    pub(super) fn is_empty(&self) -> bool {
        self.conduits.is_empty()
    }

    fn name(&mut self, words: String) {
        if self.named.len() < NAMED_MAX {
            self.named.insert(words);
        } else if !self.named.contains(&words) {
            self.further += 1;
        }
    }

    fn add(&mut self, key: &FrameKey, seen: Occurrences, around: &mut Places<'_>) {
        let Some(from) = around.zone_of(key.sender) else {
            let words = format!(
                "{} from {}: no address was seen behind that MAC address, or several zones', so that it is not known where they come from",
                key.ether_type,
                Mac(key.sender)
            );
            self.name(words);
            return;
        };
        let to: Vec<String> = match key.is_to_many() {
            true => around.across(&from).iter().cloned().collect(),
            false => around.zone_of(key.destination).into_iter().collect(),
        };
        if to.is_empty() && !key.is_to_many() {
            let words = format!(
                "{} from {from} to {}: it is not known where that is",
                key.ether_type,
                Mac(key.destination)
            );
            self.name(words);
        }
        for to in to.into_iter().filter(|to| *to != from) {
            match around.crossing(&from, &to, key) {
                Crossing::Permitted | Crossing::None => {}
                Crossing::Shared => {
                    let words = format!(
                        "{} from {from} to {to}: one of the two zones shares a side of the gateway with another, and a frame shows no address",
                        key.ether_type
                    );
                    self.name(words);
                }
                Crossing::Bridged => self.propose((&from, &to), key, seen),
            }
        }
    }

    fn propose(&mut self, (from, to): (&str, &str), key: &FrameKey, seen: Occurrences) {
        let zones = (from.min(to).to_owned(), from.max(to).to_owned());
        let kinds = self.conduits.entry(zones).or_default();
        let own = (from.to_owned(), key.ether_type, key.vlan);
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(&own) {
            self.name(format!(
                "more than {KINDS_MAX} kinds of frames between {from} and {to}: no plant needs so many, look at who sends them"
            ));
            return;
        }
        let kind = kinds
            .entry(own)
            .and_modify(|kind| kind.seen = kind.seen.and(seen))
            .or_insert_with(|| Kind {
                groups: Some(BTreeSet::new()),
                appids: BTreeSet::new(),
                to_many: false,
                seen,
            });
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
        if self.further > 0 {
            let _ = writeln!(out, "#   and {} more", self.further);
        }
    }

    /// Writes the conduits; `name` gives one a name that no other has.
    pub(super) fn write(&self, out: &mut String, mut name: impl FnMut(&str) -> String, clock: &Clock<'_>) {
        for ((one, other), kinds) in &self.conduits {
            let name = name(&format!("learned-frames-{one}-{other}"));
            let _ = writeln!(out, "  {name}:\n    from: {one}\n    to: {other}\n    frames:");
            for ((from, ether_type, vlan), kind) in kinds {
                let ways = [from, if from == one { other } else { one }];
                kind.write(out, (ways, *ether_type, *vlan), clock);
            }
        }
    }
}

impl Kind {
    fn write(
        &self,
        out: &mut String,
        ([from, to], ether_type, vlan): ([&String; 2], EtherType, u16),
        clock: &Clock<'_>,
    ) {
        let word = ether_type.word();
        let many = match self.to_many {
            true => "; to many at once: leave it out if nobody across needs it",
            false => "",
        };
        let of_vlan = match vlan {
            0 => String::new(),
            vlan => format!("-vlan-{vlan}"),
        };
        let start = format!("{word}{of_vlan}-from-");
        let name = format!(
            "{start}{}",
            told_apart(from, to, NAME_CHARS_MAX.saturating_sub(start.len()))
        );
        let _ = writeln!(
            out,
            "      # {}{many}\n      {name}:\n        from: {from}\n        ethertype: {word}",
            seen(&self.seen, clock)
        );
        if vlan != 0 {
            let _ = writeln!(
                out,
                "        vlan: {vlan} # if only the recording has this tag (some mirror ports add one), learn with `--ignore-tags`"
            );
        }
        let groups = self.groups.as_ref();
        if groups.is_some_and(|groups| groups.len() > LISTED_MAX) {
            let _ = writeln!(
                out,
                "        # NOT LIMITED by to_mac: more than {LISTED_MAX} groups were seen"
            );
        } else if groups.is_none() {
            out.push_str(
                "        # NOT LIMITED by to_mac: some are for one machine, and another may take its place\n",
            );
        }
        if ether_type.has_appid() && !(1..=LISTED_MAX).contains(&self.appids.len()) {
            let why = match self.appids.len() {
                0 => "the recording shows none".to_owned(),
                _ => format!("more than {LISTED_MAX} were seen"),
            };
            let _ = writeln!(out, "        # NOT LIMITED by appid: {why}");
        }
        if let Some(groups) = groups.filter(|groups| groups.len() <= LISTED_MAX) {
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

/// The zone's name in so many characters, so that it is not the other's.
fn told_apart(zone: &str, other: &str, most: usize) -> String {
    let short = |zone: &str| {
        let short: String = zone.chars().take(most.saturating_sub(BACK.len())).collect();
        short.trim_end_matches(['.', '-']).to_owned()
    };
    match zone {
        zone if zone.len() <= most => zone.to_owned(),
        zone if short(zone) == short(other) && zone > other => short(zone) + BACK,
        zone => short(zone),
    }
}

/// Whether frames can be let across between two zones.
#[derive(Debug, Clone, Copy)]
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

/// Where machines and zones are, each looked up once.
struct Places<'s> {
    around: &'s Surroundings<'s>,
    declared: BTreeMap<Mac, BTreeSet<String>>,
    across: BTreeMap<String, BTreeSet<String>>,
    between: BTreeMap<(String, String), (Crossing, Vec<&'s FrameFlow>)>,
}

impl<'s> Places<'s> {
    fn new(around: &'s Surroundings<'s>) -> Self {
        let mut declared: BTreeMap<Mac, BTreeSet<String>> = BTreeMap::new();
        for asset in around.plant.into_iter().flat_map(|plant| plant.assets.values()) {
            if let Some(mac) = asset.mac.as_ref().and_then(|mac| mac.parse().ok()) {
                declared.entry(mac).or_default().insert(asset.zone.to_string());
            }
        }
        Self {
            around,
            declared,
            across: BTreeMap::new(),
            between: BTreeMap::new(),
        }
    }

    /// The one zone of the machine that has this MAC address.
    fn zone_of(&self, mac: [u8; 6]) -> Option<String> {
        let mut zones = self.declared.get(&Mac(mac)).cloned().unwrap_or_default();
        let addresses = self.around.macs.behind(Mac(mac));
        zones.extend(addresses.filter_map(|address| Some((self.around.place)(address)?.zone)));
        let zone = zones.pop_first()?;
        zones.is_empty().then_some(zone)
    }

    /// The zones on other sides of bridged gateways.
    fn across(&mut self, from: &str) -> &BTreeSet<String> {
        let around = self.around;
        self.across
            .entry(from.to_owned())
            .or_insert_with(|| around.across(from))
    }

    fn crossing(&mut self, from: &str, to: &str, key: &FrameKey) -> Crossing {
        let around = self.around;
        let pair = (from.to_owned(), to.to_owned());
        let (crossing, flows) = self
            .between
            .entry(pair)
            .or_insert_with(|| (around.crossing(from, to), around.declared(from, to)));
        let seen = FrameSeen {
            destination: key.destination,
            vlan: Some(key.vlan),
            ether_type: key.ether_type.number(),
            appid: key.appid,
        };
        match flows.iter().any(|flow| flow.frames.holds(&seen)) {
            true => Crossing::Permitted,
            false => *crossing,
        }
    }
}

impl<'s> Surroundings<'s> {
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

    /// What the plant permits from one zone to another.
    fn declared(&self, from: &str, to: &str) -> Vec<&'s FrameFlow> {
        let leads = |one: &ZoneId, other: &ZoneId| one.as_str() == from && other.as_str() == to;
        let conduits = self.plant.into_iter().flat_map(|plant| plant.conduits.values());
        let flows = conduits.flat_map(|conduit| conduit.frames.values());
        let leading =
            flows.filter(|flow| leads(&flow.from, &flow.to) || (flow.both && leads(&flow.to, &flow.from)));
        leading.collect()
    }

    fn crossing(&self, from: &str, to: &str) -> Crossing {
        let Some(plant) = self.plant else {
            return Crossing::Bridged;
        };
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
