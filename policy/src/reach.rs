//! By which path of conduits, and with which operations at most, can anything in zone A act on zone B?
//!
//! The answer is on the safe side of the plant's conduits and has no clock: a conduit that a grant of remote access opens
//! counts as open, and says when; whoever holds one asset of a zone is taken to hold the whole zone, and to open any flow that
//! starts there. Only opening counts: that an answer can carry harm back to who
//! asked is not looked at; a bridge carries none back in any case. Undeclared traffic passes between zones that both only
//! observe, so where a gateway stands between two of them, that is a step as well. What the gateways do not stand between is not known here.
//!
//! An answer holds the paths that enter no zone twice, shortest first ([`paths`]). They can be more than anyone reads, so their
//! number is bounded. Beyond it an answer says so, and still has every zone from which the target is entered, with the
//! shortest path by it, so that every way in ([`Reach::acts`]) is there; and it names the zones that paths which are not
//! shown may lead through.

mod paths;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroUsize;

use serde::Serialize;

use crate::ids::{ConduitId, FlowName, GatewayId, ZoneId};
use crate::model::{Conduit, Enforcer, FlowEnd, Plant};
use crate::neighbours::crossings;
use crate::plan::{Grant, opened_by};
use crate::protocol::Operations;
use crate::terms::{Enforcement, Frames, Transport};
use crate::words::and;

/// What lets traffic from one zone into another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permit {
    /// A declared flow.
    Flow {
        /// The conduit.
        conduit: ConduitId,
        /// The flow in it.
        flow: FlowName,
        /// Who may open it, by name.
        sources: Vec<String>,
        /// To whom, by name.
        destinations: Vec<String>,
        /// How it is carried.
        transport: Transport,
        /// What it is limited to; `None`: anything its service can do.
        operations: Option<Operations>,
        /// The gateway carries messages one way and forwards no packet: nothing but these publications arrives.
        bridged: bool,
        /// The conduit is open only while one of these grants of remote access lasts; `None`: it stands open.
        granted: Option<Vec<Grant>>,
    },
    /// Frames other than IP that bridged gateways let pass.
    Frames {
        /// The conduit.
        conduit: ConduitId,
        /// Their name in it.
        flow: FlowName,
        /// Which frames.
        frames: Frames,
    },
    /// Both zones only observe: anything passes the gateway between them, and is recorded.
    Observed {
        /// The gateway.
        gateway: GatewayId,
    },
    /// No gateway of the plant enforces this conduit: what really passes is not known here, so that anything counts.
    Elsewhere {
        /// The conduit.
        conduit: ConduitId,
        /// Who enforces it; `None`: nobody yet.
        by: Option<String>,
    },
}

/// One step from zone to zone, with everything that permits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where it starts.
    pub from: ZoneId,
    /// Where it ends.
    pub to: ZoneId,
    /// What permits it; never empty.
    pub ways: Vec<Permit>,
}

/// How one zone can act on another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Who acts.
    pub from: ZoneId,
    /// On whom.
    pub to: ZoneId,
    /// Paths that enter no zone twice, shortest first; empty if there is none.
    pub paths: Vec<Vec<Step>>,
    /// Set if there are, or may be, other paths than these.
    pub not_shown: Option<NotShown>,
}

/// What is known of paths that an answer does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotShown {
    /// Zones on none of the paths that are shown, through which others may lead.
    pub through: BTreeSet<ZoneId>,
}

/// The answers for many pairs of zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaches {
    /// Those of which one zone can act on the other, by both names.
    pub reaches: Vec<Reach>,
    /// So many more pairs there are, beyond [`PAIRS_MAX`] and [`STEPS_MAX`].
    pub further_pairs: usize,
}

/// Pairs of zones that are answered at once.
pub const PAIRS_MAX: usize = 10_000;

/// Steps of all their paths together, each counted with everything that permits it: many long paths of many pairs are more than
/// anyone reads, and than memory holds. The pair that goes beyond is the last.
pub const STEPS_MAX: usize = 200_000;

/// A name that is no zone of the plant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plant has no zone `{0}`: name one of its zones")]
pub struct UnknownZone(pub ZoneId);

impl Reach {
    /// Whether it can act at all.
    pub fn is_possible(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Everything that can be done to the zone in the end: all ways in, from whichever zone they start.
    pub fn acts(&self) -> impl Iterator<Item = &Permit> {
        self.paths
            .iter()
            .filter_map(|path| path.last())
            .flat_map(|step| step.ways.iter())
    }
}

/// All steps of a plant, ready to be asked.
#[derive(Debug)]
pub struct Steps<'a> {
    /// The zones by name; their places here number them.
    zones: Vec<&'a ZoneId>,
    /// What leads from each to which others.
    onward: Vec<BTreeMap<usize, Vec<Permit>>>,
    /// From which others each is entered.
    back: Vec<Vec<usize>>,
}

impl<'a> Steps<'a> {
    /// Those of a plant.
    pub fn of(plant: &'a Plant) -> Self {
        let mut steps = Self {
            zones: plant.zones.keys().collect(),
            onward: vec![BTreeMap::new(); plant.zones.len()],
            back: vec![Vec::new(); plant.zones.len()],
        };
        let grants = crate::compile::grants(plant);
        for (conduit_id, conduit) in &plant.conduits {
            if !conduit.enforced_by.is_gateways() {
                steps.add_elsewhere(plant, conduit_id, conduit);
                continue;
            }
            for (name, flow) in &conduit.frames {
                let back = flow.both.then_some((&flow.to, &flow.from));
                for (from, to) in std::iter::once((&flow.from, &flow.to)).chain(back) {
                    let way = Permit::Frames {
                        conduit: conduit_id.clone(),
                        flow: name.clone(),
                        frames: flow.frames.clone(),
                    };
                    steps.add(from, to, way);
                }
            }
            for (name, flow) in &conduit.flows {
                let names = |ends: &[FlowEnd]| ends.iter().map(FlowEnd::name).collect::<Vec<_>>();
                let way = Permit::Flow {
                    conduit: conduit_id.clone(),
                    flow: name.clone(),
                    sources: names(&flow.sources),
                    destinations: names(&flow.destinations),
                    transport: flow.service.transport.clone(),
                    operations: flow.operations.clone(),
                    bridged: flow.is_bridge(),
                    granted: grants.get(conduit_id).cloned(),
                };
                // Flows run either way within a conduit: from the zone of their sources.
                let zones = |ends: &'a [FlowEnd]| -> BTreeSet<&'a ZoneId> {
                    ends.iter().filter_map(|end| zone_of(plant, end)).collect()
                };
                for from in zones(&flow.sources) {
                    for to in zones(&flow.destinations) {
                        steps.add(from, to, way.clone());
                    }
                }
            }
        }
        let observes = |zone: &ZoneId| {
            let zone = plant.zones.get(zone);
            zone.is_some_and(|zone| zone.enforcement == Enforcement::Observe)
        };
        for (gateway, from, to) in crossings(plant) {
            if observes(from) && observes(to) {
                let gateway = gateway.clone();
                steps.add(from, to, Permit::Observed { gateway });
            }
        }
        for (from, onward) in steps.onward.iter().enumerate() {
            for to in onward.keys() {
                steps
                    .back
                    .get_mut(*to)
                    .into_iter()
                    .for_each(|back| back.push(from));
            }
        }
        steps
    }

    /// Whether, how and with what `from` can act on `to`, by at most `paths_max` paths and one for each further way in.
    ///
    /// # Errors
    /// If one of them is no zone of the plant.
    pub fn reach(&self, from: &ZoneId, to: &ZoneId, paths_max: NonZeroUsize) -> Result<Reach, UnknownZone> {
        let number = |zone: &ZoneId| self.number(zone).ok_or_else(|| UnknownZone(zone.clone()));
        Ok(self.between((number(from)?, from), (number(to)?, to), paths_max))
    }

    /// The same for every pair of different zones of which one can act on the other, of those from `from` and to `to`.
    pub fn all(&self, from: Option<&ZoneId>, to: Option<&ZoneId>, paths_max: NonZeroUsize) -> Reaches {
        let mut all = Reaches {
            reaches: Vec::new(),
            further_pairs: 0,
        };
        let zones = || self.zones.iter().copied().enumerate();
        let mut steps = 0;
        let is = |wanted: Option<&ZoneId>, zone: &ZoneId| wanted.is_none_or(|wanted| wanted == zone);
        for start in zones().filter(|(_, zone)| is(from, zone)) {
            let reached = self.before(start.0, None);
            for end in zones().filter(|(number, zone)| is(to, zone) && *number != start.0) {
                let is_reached = reached.get(end.0).is_some_and(Option::is_some);
                if is_reached && all.reaches.len() < PAIRS_MAX && steps < STEPS_MAX {
                    let reach = self.between(start, end, paths_max);
                    let of_it = reach.paths.iter().flatten();
                    steps += of_it.map(|step| 1 + step.ways.len()).sum::<usize>();
                    all.reaches.push(reach);
                } else if is_reached {
                    all.further_pairs += 1;
                }
            }
        }
        all
    }

    /// Each single step: from where to where, and what permits it.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'a ZoneId, &'a ZoneId, &[Permit])> {
        self.zones
            .iter()
            .zip(&self.onward)
            .flat_map(move |(from, onward)| {
                onward
                    .iter()
                    .filter_map(move |(to, ways)| Some((*from, *self.zones.get(*to)?, ways.as_slice())))
            })
    }

    /// The zones that `from` can act on at all; no zone of the plant acts on none.
    pub fn reached_from(&self, from: &ZoneId) -> BTreeSet<&'a ZoneId> {
        let before = self.number(from).map(|from| self.before(from, None));
        let reached = before.into_iter().flatten().zip(&self.zones);
        reached
            .filter(|(before, _)| before.is_some())
            .map(|(_, zone)| *zone)
            .collect()
    }

    fn number(&self, zone: &ZoneId) -> Option<usize> {
        self.zones.binary_search(&zone).ok()
    }

    /// What another firewall lets pass leads where its flows do; what nobody limits leads both ways.
    fn add_elsewhere(&mut self, plant: &Plant, id: &ConduitId, conduit: &Conduit) {
        let by = match &conduit.enforced_by {
            Enforcer::Other(by) => Some(by.clone()),
            Enforcer::Nobody | Enforcer::Gateways => None,
        };
        let opens = |from: &ZoneId| {
            let mut sources = conduit.flows.values().flat_map(|flow| &flow.sources);
            let mut frames = conduit.frames.values();
            sources.any(|end| zone_of(plant, end) == Some(from))
                || frames.any(|flow| flow.from == *from || (flow.both && flow.to == *from))
        };
        for (from, to) in [(&conduit.from, &conduit.to), (&conduit.to, &conduit.from)] {
            if by.is_none() || opens(from) {
                let (conduit, by) = (id.clone(), by.clone());
                self.add(from, to, Permit::Elsewhere { conduit, by });
            }
        }
    }

    fn add(&mut self, from: &ZoneId, to: &ZoneId, way: Permit) {
        let (Some(from), Some(to)) = (self.number(from), self.number(to)) else {
            return;
        };
        if from != to
            && let Some(onward) = self.onward.get_mut(from)
        {
            onward.entry(to).or_default().push(way);
        }
    }

    fn between(&self, from: (usize, &ZoneId), to: (usize, &ZoneId), paths_max: NonZeroUsize) -> Reach {
        let found = self.paths(from.0, to.0, paths_max.get());
        let name = |zone: &usize| self.zones.get(*zone).map(|zone| (*zone).clone());
        let step = |pair: &[usize]| {
            let [from, to] = pair else { return None };
            Some(Step {
                from: name(from)?,
                to: name(to)?,
                ways: self.onward.get(*from)?.get(to)?.clone(),
            })
        };
        Reach {
            from: from.1.clone(),
            to: to.1.clone(),
            paths: found
                .paths
                .iter()
                .map(|path| path.windows(2).filter_map(step).collect())
                .collect(),
            not_shown: found.through.map(|through| NotShown {
                through: through.iter().filter_map(name).collect(),
            }),
        }
    }
}

fn zone_of<'a>(plant: &'a Plant, end: &'a FlowEnd) -> Option<&'a ZoneId> {
    match end {
        FlowEnd::Asset(asset, _) => plant.assets.get(asset).map(|asset| &asset.zone),
        FlowEnd::Zone(zone, _) => Some(zone),
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere { conduit, by: None } => {
                write!(f, "anything, as nobody enforces the conduit {conduit} yet")
            }
            Self::Elsewhere {
                conduit,
                by: Some(by),
            } => write!(
                f,
                "what {by} lets pass of the conduit {conduit}, which no gateway of the plant enforces: it counts as anything"
            ),
            Self::Frames {
                conduit,
                flow,
                frames,
            } => write!(
                f,
                "{conduit}/{flow}: frames of {frames}, in which nothing is read"
            ),
            Self::Observed { gateway } => write!(f, "anything, as both zones only observe at {gateway}"),
            Self::Flow {
                conduit,
                flow,
                sources,
                destinations,
                transport,
                operations,
                bridged,
                granted,
            } => {
                let (sources, destinations) = (and(sources.iter()), and(destinations.iter()));
                write!(f, "{conduit}/{flow}: {sources} to {destinations} by {transport}")?;
                let only = if *bridged {
                    "only these messages, carried by the gateway one way"
                } else {
                    "only"
                };
                if let Some(operations) = operations {
                    write!(f, ", {only}: {}", operations.phrases().join("; "))?;
                }
                match granted {
                    Some(grants) => write!(f, ", only during {}", opened_by(grants)),
                    None => Ok(()),
                }
            }
        }
    }
}
