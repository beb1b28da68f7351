//! What gateways would have done with frames that carry neither IP nor ARP, and with IP to many at once: no flow can speak of either.
//!
//! A bridged gateway lets such a frame cross between zones that only observe, and drops it where one of them enforces; a routed one
//! forwards nothing of the kind. Whether a frame had to cross follows from where its ends are: a MAC address belongs to the side whose
//! addresses were seen behind it, or are declared to be. What is sent to many comes to every side. Where the sides are not known, the frame
//! counts as not judged, and that is reported.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use penstock_policy::plan::{Plan, PlanInterface};
use penstock_policy::terms::GatewayMode;

use super::Plans;
use super::policy::OtherFrames;
use crate::capture::{Frame, NotIp, SkipReason, link};

/// MAC addresses whose sides are remembered.
const MACS_MAX: usize = 16_384;
/// Kinds of frames between two MAC addresses that are counted apart; what is beyond counts as between unknown ends.
const PAIRS_MAX: usize = 16_384;
/// Addresses of one MAC address that are remembered for its side.
const ADDRESSES_MAX: usize = 4;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

type Mac = [u8; 6];

/// How what no flow can speak of fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It stays where it is, with or without a gateway.
    Stays,
    /// It passes, because its zones only observe.
    Observed,
    /// Nothing tells whether it has to cross.
    Unknown,
    /// It is dropped.
    Dropped,
}

impl Fate {
    /// In words, behind what it is.
    fn in_words(self) -> &'static str {
        match self {
            Self::Stays => "stays on its side of each gateway",
            Self::Observed => {
                "no flow can permit it; a bridged gateway lets it cross only because the zones observe, and drops it once they enforce"
            }
            Self::Unknown => {
                "no flow can permit it, and a gateway drops it where it has to cross; whether it does is not known"
            }
            Self::Dropped => "no flow can permit it, and a gateway drops it",
        }
    }
}

/// Counts of what became of such frames, in words.
#[derive(Debug, Default)]
pub(super) struct FrameCounts(BTreeMap<(Fate, String), u64>);

impl FrameCounts {
    fn add(&mut self, fate: Fate, what: &dyn std::fmt::Display, count: u64) {
        let words = format!("{what}: {}", fate.in_words());
        *self.0.entry((fate, words)).or_default() += count;
    }

    /// Each of them.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (Fate, String, u64)> {
        self.0
            .into_iter()
            .map(|((fate, what), count)| (fate, what, count))
    }
}

/// Frames by kind and ends, and what tells where their ends are.
#[derive(Debug, Default)]
pub(super) struct OtherTraffic {
    /// Addresses seen behind a MAC address; none: too many, as behind a router.
    behind: HashMap<Mac, Vec<IpAddr>>,
    frames: HashMap<(NotIp, Option<(Mac, Mac)>), u64>,
    groups: FrameCounts,
}

impl OtherTraffic {
    /// Takes note of who sends a packet.
    pub(super) fn sender(&mut self, frame: &Frame<'_>, source: IpAddr) {
        let Some((_, mac)) = macs(frame) else { return };
        if self.behind.len() >= MACS_MAX && !self.behind.contains_key(&mac) {
            return;
        }
        let addresses = self.behind.entry(mac).or_default();
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&source) {
            addresses.push(source);
        }
    }

    /// Counts a frame that carries neither IP nor ARP.
    pub(super) fn frame(&mut self, frame: &Frame<'_>, what: NotIp) {
        let all = (what, macs(frame));
        let has_room = self.frames.len() < PAIRS_MAX || self.frames.contains_key(&all);
        // There are 65,536 EtherTypes, and far more of them with tags.
        let counted = if has_room {
            all
        } else {
            (what.without_tags(), None)
        };
        *self.frames.entry(counted).or_default() += 1;
    }

    /// Counts a packet to many at once, of whose sender the address tells the side.
    pub(super) fn group(&mut self, plans: &Plans, what: SkipReason, source: IpAddr) {
        let at = |plan: &Plan| {
            let sides = plan.interfaces.iter();
            let own: Vec<&PlanInterface> = sides.filter(|side| side.holds(source)).collect();
            match (plan.mode, own.as_slice()) {
                // What is sent to many stays in its network.
                (GatewayMode::Routed, _) => Fate::Stays,
                (GatewayMode::Bridged, []) => Fate::Unknown,
                (GatewayMode::Bridged, own) => to_all(plan, own),
            }
        };
        // A gateway on none of whose sides the sender is has no say, if another has.
        let known = plans
            .plans()
            .any(|plan| plan.interfaces.iter().any(|side| side.holds(source)));
        let asked = plans
            .plans()
            .filter(|plan| !known || plan.interfaces.iter().any(|side| side.holds(source)));
        let fate = asked.map(at).max().unwrap_or(Fate::Stays);
        self.groups.add(fate, &what, 1);
    }

    /// What became of all of them.
    pub(super) fn finish(self, plans: &Plans) -> FrameCounts {
        let mut counts = self.groups;
        let declared = plans.plans().flat_map(|plan| &plan.interfaces);
        let declared: HashMap<Mac, IpAddr> = declared
            .flat_map(|side| &side.hardware)
            .map(|one| (one.mac.0, one.address))
            .collect();
        let addresses = |mac: &Mac| -> Vec<IpAddr> {
            let seen = self.behind.get(mac).into_iter().flatten();
            seen.chain(declared.get(mac)).copied().collect()
        };
        for ((what, ends), count) in self.frames {
            let at = |plan: &Plan| {
                let side_of = |mac: &Mac| side_of(plan, &addresses(mac));
                fate(plan, ends, side_of)
            };
            let fate = plans.plans().map(at).max().unwrap_or(Fate::Stays);
            counts.add(fate, &what, count);
        }
        counts
    }
}

/// Destination and source of an Ethernet frame.
fn macs(frame: &Frame<'_>) -> Option<(Mac, Mac)> {
    let ethernet = frame.link_type == ETHERNET;
    let destination = frame.bytes.first_chunk::<6>().filter(|_| ethernet)?;
    let source = frame.bytes.get(6..)?.first_chunk::<6>()?;
    Some((*destination, *source))
}

/// Where the owner of addresses is, seen from a gateway.
enum Place<'p> {
    /// On this side.
    Side(&'p PlanInterface),
    /// At another gateway: this one has nothing to do with it.
    Elsewhere,
    /// Nothing tells, or they are on several sides.
    Unknown,
}

fn side_of<'p>(plan: &'p Plan, addresses: &[IpAddr]) -> Place<'p> {
    let held = |side: &&PlanInterface| addresses.iter().any(|address| side.holds(*address));
    let sides: Vec<&PlanInterface> = plan.interfaces.iter().filter(held).collect();
    match sides.as_slice() {
        [side] => Place::Side(side),
        [] if !addresses.is_empty() => Place::Elsewhere,
        _ => Place::Unknown,
    }
}

/// What becomes at `plan` of a frame between two MAC addresses, destination and source.
fn fate<'p>(plan: &'p Plan, ends: Option<(Mac, Mac)>, side_of: impl Fn(&Mac) -> Place<'p>) -> Fate {
    let undecided = || match plan.mode {
        GatewayMode::Routed => Fate::Unknown,
        // It may come from any side.
        GatewayMode::Bridged => match to_all(plan, &plan.interfaces.iter().collect::<Vec<_>>()) {
            Fate::Dropped => Fate::Unknown,
            other => other,
        },
    };
    let Some((destination, source)) = ends else {
        return undecided();
    };
    if is_link_local(&destination, plan.mode) {
        return Fate::Stays;
    }
    let to_many = destination.first().is_some_and(|first| first & 1 == 1);
    match (side_of(&source), side_of(&destination)) {
        (Place::Elsewhere, _) | (_, Place::Elsewhere) if plan.mode == GatewayMode::Bridged => Fate::Stays,
        (Place::Side(from), _) if to_many => match plan.mode {
            GatewayMode::Routed => Fate::Stays,
            GatewayMode::Bridged => to_all(plan, &[from]),
        },
        (Place::Side(from), Place::Side(to)) if from.name == to.name => Fate::Stays,
        (Place::Side(from), Place::Side(to)) => match OtherFrames::between(plan, from, to) {
            OtherFrames::Unjudged => Fate::Stays,
            OtherFrames::Observed => Fate::Observed,
            OtherFrames::Routed | OtherFrames::Dropped => Fate::Dropped,
        },
        _ => undecided(),
    }
}

/// What becomes at a bridged gateway of what one of these sides sends to all.
fn to_all(plan: &Plan, from: &[&PlanInterface]) -> Fate {
    let to = |from: &&PlanInterface| {
        let name = from.name.clone();
        let from = *from;
        let others = plan.interfaces.iter().filter(move |side| side.name != name);
        others
            .map(move |to| OtherFrames::between(plan, from, to))
            .collect::<Vec<_>>()
    };
    match from.iter().flat_map(to).max() {
        Some(OtherFrames::Dropped) => Fate::Dropped,
        Some(OtherFrames::Observed) => Fate::Observed,
        _ => Fate::Stays,
    }
}

/// Whether a frame is for who is at the other end of the cable: no bridge passes it on (IEEE 802.1Q, 8.6.3). Linux passes on what
/// spanning trees say, unless it takes part in them itself.
fn is_link_local(destination: &Mac, mode: GatewayMode) -> bool {
    let first = if mode == GatewayMode::Bridged { 1 } else { 0 };
    matches!(destination, [0x01, 0x80, 0xc2, 0, 0, last] if (first..=0x0f).contains(last))
}

/// The sender of a packet that IP carries, where it can be read.
pub(super) fn source_of(frame: &Frame<'_>) -> Option<IpAddr> {
    link::ends(frame).map(|(source, _)| source)
}
