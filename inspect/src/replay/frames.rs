//! What gateways would have done with frames that carry neither IP nor ARP, and with IP to many at once: no flow can speak of either.
//!
//! A bridged gateway lets such a frame cross where the `frames` of a conduit permit it, and between zones that only observe; it drops it where
//! one of them enforces. A routed one forwards nothing of the kind. What is sent to many counts as permitted where a conduit permits it to
//! one of the other sides: nothing tells who there needs it, and the other sides' copies are dropped.
//!
//! Whether a frame had to cross follows from where its ends are: a MAC address belongs to the side whose
//! addresses were seen behind it, or are declared to be. What is sent to many comes to every side. Where the sides are not known, the frame
//! counts as not judged, and that is reported.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use penstock_policy::plan::{Plan, PlanInterface};
use penstock_policy::terms::{FrameSeen, GatewayMode};
use penstock_policy::verdict::{FrameVerdict, decide_frame};

use super::Plans;
use crate::capture::{BridgedFrame, Frame, NotIp, SkipReason};
use crate::learn::macs::SeenMacs;

/// Kinds of frames between two MAC addresses that are counted apart; what is beyond counts as between unknown ends.
const PAIRS_MAX: usize = 16_384;
/// Rules that one sentence names.
const NAMED_MAX: usize = 6;

type Mac = [u8; 6];

/// How what no flow can speak of fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It stays where it is, with or without a gateway.
    Stays,
    /// It passes, because a conduit permits it.
    Permitted,
    /// It passes, because its zones only observe.
    Observed,
    /// Nothing tells whether it has to cross.
    Unknown,
    /// It is dropped.
    Dropped,
}

impl Fate {
    /// In words, behind what it is; `can_be`: a conduit could permit it.
    fn in_words(self, can_be: bool) -> String {
        let why = match can_be {
            true => "no `frames` of a conduit permit it",
            false => "no flow can permit it",
        };
        match self {
            Self::Stays => "stays on its side of each gateway".to_owned(),
            Self::Permitted => "passes".to_owned(),
            Self::Observed => format!(
                "{why}; a bridged gateway lets it cross only because the zones observe, and drops it once they enforce"
            ),
            Self::Unknown => {
                format!("{why}, and a gateway drops it where it has to cross; whether it does is not known")
            }
            Self::Dropped => format!("{why}, and a gateway drops it"),
        }
    }
}

/// Counts of what became of such frames, in words.
#[derive(Debug, Default)]
pub(super) struct FrameCounts(BTreeMap<(Fate, String), u64>);

impl FrameCounts {
    fn add(&mut self, fate: Fate, what: &dyn std::fmt::Display, (can_be, by): (bool, &Permits), count: u64) {
        let words = match (fate, by.is_empty()) {
            (Fate::Permitted, _) => format!("{what}: passes by {}", names(by)),
            (Fate::Unknown | Fate::Dropped, false) => format!(
                "{what}: {} permits it one way only, and a gateway drops it on others; which way it goes is not known",
                names(by)
            ),
            _ => format!("{what}: {}", fate.in_words(can_be)),
        };
        *self.0.entry((fate, words)).or_default() += count;
    }

    /// Each of them.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (Fate, String, u64)> {
        self.0
            .into_iter()
            .map(|((fate, what), count)| (fate, what, count))
    }
}

/// What permits a frame, by name.
type Permits = BTreeSet<String>;

/// The first of them, and how many more there are.
fn names(by: &Permits) -> String {
    let first: Vec<&str> = by.iter().take(NAMED_MAX).map(String::as_str).collect();
    match by.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Frames by kind and ends, and what tells where their ends are.
#[derive(Debug, Default)]
pub(super) struct OtherTraffic {
    macs: SeenMacs,
    frames: HashMap<(NotIp, Option<BridgedFrame>), u64>,
    groups: FrameCounts,
}

impl OtherTraffic {
    /// Takes note of the addresses of who sent it, as learning does.
    pub(super) fn sender(&mut self, frame: &Frame<'_>) {
        self.macs.frame(frame);
    }

    /// Counts a frame that carries neither IP nor ARP.
    pub(super) fn frame(&mut self, frame: &Frame<'_>, what: NotIp, ignores_tags: bool) {
        let what = if ignores_tags { what.without_tags() } else { what };
        let all = (what, BridgedFrame::of(frame, ignores_tags));
        let has_room = self.frames.len() < PAIRS_MAX || self.frames.contains_key(&all);
        // There are 65,536 EtherTypes, far more of them with tags, and 2^40 kinds of SNAP.
        let counted = if has_room { all } else { (what.in_short(), None) };
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
                (GatewayMode::Bridged, own) => to_all(plan, own, None, &mut Permits::new()),
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
        self.groups.add(fate, &what, (false, &Permits::new()), 1);
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
            let seen = self.macs.behind(penstock_policy::terms::Mac(*mac));
            seen.chain(declared.get(mac).copied()).collect()
        };
        let bridges = plans.plans().any(|plan| plan.mode == GatewayMode::Bridged);
        for ((what, frame), count) in self.frames {
            let mut by = Permits::new();
            let at = |plan: &Plan| {
                let side_of = |mac: &Mac| side_of(plans, plan, &addresses(mac));
                fate(plan, frame.as_ref(), side_of, &mut by)
            };
            let fate = plans.plans().map(at).max().unwrap_or(Fate::Stays);
            let can_be = bridges && frame.is_some_and(|frame| frame.permittable().is_some());
            counts.add(fate, &what, (can_be, &by), count);
        }
        counts
    }
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

fn side_of<'p>(plans: &Plans, plan: &'p Plan, addresses: &[IpAddr]) -> Place<'p> {
    let is_somewhere = |address: &IpAddr| {
        let mut sides = plans.plans().flat_map(|plan| &plan.interfaces);
        sides.any(|side| side.holds(*address))
    };
    let held = |side: &&PlanInterface| addresses.iter().any(|address| side.holds(*address));
    let sides: Vec<&PlanInterface> = plan.interfaces.iter().filter(held).collect();
    match sides.as_slice() {
        [side] => Place::Side(side),
        [] if addresses.iter().any(is_somewhere) => Place::Elsewhere,
        _ => Place::Unknown,
    }
}

/// What becomes at `plan` of a frame, and in `by` what permits it there.
fn fate<'p>(
    plan: &'p Plan,
    frame: Option<&BridgedFrame>,
    side_of: impl Fn(&Mac) -> Place<'p>,
    by: &mut Permits,
) -> Fate {
    let seen = frame.map(|frame| &frame.seen);
    let Some(frame) = frame else {
        return undecided(plan, seen, by);
    };
    if frame.is_link_local() || (plan.mode == GatewayMode::Routed && frame.seen.destination == SPANNING_TREE)
    {
        return Fate::Stays;
    }
    match (side_of(&frame.sender), side_of(&frame.seen.destination)) {
        (Place::Elsewhere, _) | (_, Place::Elsewhere) if plan.mode == GatewayMode::Bridged => Fate::Stays,
        (Place::Side(from), _) if frame.is_to_many() => match plan.mode {
            GatewayMode::Routed => Fate::Stays,
            GatewayMode::Bridged => to_all(plan, &[from], seen, by),
        },
        (Place::Side(from), Place::Side(to)) if from.name == to.name => Fate::Stays,
        (Place::Side(from), Place::Side(to)) => crossing(plan, (from, to), seen, by),
        _ if frame.is_to_many() || plan.mode == GatewayMode::Routed => undecided(plan, seen, by),
        (from, to) => {
            let all = |place: Place<'p>| match place {
                Place::Side(side) => vec![side],
                _ => plan.interfaces.iter().collect(),
            };
            let (from, to) = (all(from), all(to));
            let ways = from
                .into_iter()
                .flat_map(|from| to.iter().map(move |to| (from, *to)));
            let ways = ways.filter(|(from, to)| from.name != to.name);
            either(ways.map(|way| crossing(plan, way, seen, by)))
        }
    }
}

/// What becomes of a frame that fares one of these ways.
fn either(fates: impl Iterator<Item = Fate>) -> Fate {
    match fates.max() {
        Some(Fate::Dropped) => Fate::Unknown,
        other => other.unwrap_or(Fate::Stays),
    }
}

/// Whom what spanning trees say is for.
const SPANNING_TREE: Mac = [0x01, 0x80, 0xc2, 0, 0, 0];

/// What becomes of a frame of which nothing tells where it comes from, and which goes to many, or nobody knows to whom.
fn undecided(plan: &Plan, seen: Option<&FrameSeen>, by: &mut Permits) -> Fate {
    if plan.mode == GatewayMode::Routed {
        return Fate::Unknown;
    }
    // It may come from any side.
    either(plan.interfaces.iter().map(|side| to_all(plan, &[side], seen, by)))
}

/// A frame of which too little is known for a rule to permit it.
const OF_NO_RULE: FrameSeen = FrameSeen {
    destination: [0; 6],
    vlan: None,
    ether_type: 0,
    appid: None,
};

/// What becomes of a frame from one side to another, as the oracle says.
fn crossing(
    plan: &Plan,
    (from, to): (&PlanInterface, &PlanInterface),
    seen: Option<&FrameSeen>,
    by: &mut Permits,
) -> Fate {
    match decide_frame(plan, [&from.name, &to.name], seen.unwrap_or(&OF_NO_RULE)) {
        FrameVerdict::Permitted(rule) => {
            by.insert(format!("{}/{}", rule.conduit, rule.flow));
            Fate::Permitted
        }
        FrameVerdict::SameZone | FrameVerdict::NotGuarded => Fate::Stays,
        FrameVerdict::Observed => Fate::Observed,
        FrameVerdict::Refused | FrameVerdict::Routed => Fate::Dropped,
    }
}

/// What becomes at a bridged gateway of what one of these sides sends to all.
fn to_all(plan: &Plan, from: &[&PlanInterface], seen: Option<&FrameSeen>, by: &mut Permits) -> Fate {
    let mut fates = BTreeSet::new();
    for from in from {
        for to in plan.interfaces.iter().filter(|side| side.name != from.name) {
            fates.insert(crossing(plan, (from, to), seen, by));
        }
    }
    match fates.contains(&Fate::Permitted) {
        true => Fate::Permitted,
        false => fates.last().copied().unwrap_or(Fate::Stays),
    }
}
