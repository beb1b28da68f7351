//! By which path of conduits, and with which operations at most, can anything in zone A act on zone B?
//!
//! The answer is on the safe side of the plant's conduits: whoever holds one asset of a zone is taken to hold the
//! whole zone, and to open any flow that starts there. Only opening counts: that an answer can carry harm back to who
//! asked is not looked at; a bridge carries none back in any case. Undeclared traffic passes between zones that both only
//! observe, so where a gateway stands between two of them, that is a step as well. What the gateways do not stand between is not known here.
//!
//! The paths themselves can be more than anyone reads; so an answer holds the shortest path to each way in, and
//! every way in ([`Reach::acts`]), which together bound what can be done.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::Serialize;

use crate::ids::{ConduitId, FlowName, GatewayId, ZoneId};
use crate::model::{Enforcement, FlowEnd, Operations, Plant};
use crate::neighbours::crossings;
use crate::plan::Transport;
use crate::words::and;

/// What lets traffic from one zone into another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
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
    },
    /// Both zones only observe: anything passes the gateway between them, and is recorded.
    Observed {
        /// The gateway.
        gateway: GatewayId,
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
    pub ways: Vec<Way>,
}

/// How one zone can act on another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Who acts.
    pub from: ZoneId,
    /// On whom.
    pub to: ZoneId,
    /// For each zone from which `to` is entered, the shortest path by it, shortest first; empty if there is none.
    pub paths: Vec<Vec<Step>>,
}

/// A name that is no zone of the plant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plant has no zone `{0}`: name one of its zones")]
pub struct UnknownZone(pub ZoneId);

/// Whether, how and with what `from` can act on `to`.
pub fn reach(plant: &Plant, from: &ZoneId, to: &ZoneId) -> Result<Reach, UnknownZone> {
    for zone in [from, to] {
        if !plant.zones.contains_key(zone) {
            return Err(UnknownZone(zone.clone()));
        }
    }
    Ok(Steps::of(plant).reach(from, to))
}

/// [`reach`] for every ordered pair of different zones of which one can act on the other.
pub fn reach_all(plant: &Plant) -> Vec<Reach> {
    let steps = Steps::of(plant);
    let pairs = plant.zones.keys().flat_map(|from| {
        plant
            .zones
            .keys()
            .filter(move |to| *to != from)
            .map(move |to| (from, to))
    });
    pairs
        .map(|(from, to)| steps.reach(from, to))
        .filter(Reach::is_possible)
        .collect()
}

impl Reach {
    /// Whether it can act at all.
    pub fn is_possible(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Everything that can be done to the zone in the end: all ways in, from whichever zone they start.
    pub fn acts(&self) -> impl Iterator<Item = &Way> {
        self.paths
            .iter()
            .filter_map(|path| path.last())
            .flat_map(|step| step.ways.iter())
    }
}

/// All steps of a plant, by where they start.
struct Steps<'a>(BTreeMap<&'a ZoneId, BTreeMap<&'a ZoneId, Vec<Way>>>);

impl<'a> Steps<'a> {
    fn of(plant: &'a Plant) -> Self {
        let mut steps = Self(BTreeMap::new());
        for (conduit_id, conduit) in &plant.conduits {
            for (name, flow) in &conduit.flows {
                let names = |ends: &[FlowEnd]| ends.iter().map(FlowEnd::name).collect::<Vec<_>>();
                let way = Way::Flow {
                    conduit: conduit_id.clone(),
                    flow: name.clone(),
                    sources: names(&flow.sources),
                    destinations: names(&flow.destinations),
                    transport: flow.service.transport.clone(),
                    operations: flow.operations.clone(),
                    bridged: flow.is_bridge(),
                };
                // Flows run either way within a conduit: from the zone of their sources.
                let starts: BTreeSet<_> = flow
                    .sources
                    .iter()
                    .filter_map(|end| zone_of(plant, end))
                    .collect();
                let ends: BTreeSet<_> = flow
                    .destinations
                    .iter()
                    .filter_map(|end| zone_of(plant, end))
                    .collect();
                for from in &starts {
                    for to in &ends {
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
                steps.add(from, to, Way::Observed { gateway });
            }
        }
        steps
    }

    fn add(&mut self, from: &'a ZoneId, to: &'a ZoneId, way: Way) {
        if from == to {
            return;
        }
        let ways = self.0.entry(from).or_default().entry(to).or_default();
        ways.push(way);
    }

    fn reach(&self, from: &ZoneId, to: &ZoneId) -> Reach {
        let mut paths: Vec<Vec<Step>> = Vec::new();
        if from != to {
            // The zone before each zone on the shortest way from `from`, without passing through `to`.
            let before = self.shortest(from, to);
            for (last, onward) in &self.0 {
                let reached = *last == from || before.contains_key(*last);
                if let Some(ways) = onward.get(to)
                    && reached
                    && *last != to
                {
                    let mut path = self.path(from, last, &before);
                    path.push(Step {
                        from: (*last).clone(),
                        to: to.clone(),
                        ways: ways.clone(),
                    });
                    paths.push(path);
                }
            }
            paths.sort_by_key(Vec::len);
        }
        Reach {
            from: from.clone(),
            to: to.clone(),
            paths,
        }
    }

    /// Breadth first: for each zone that `from` reaches without entering `avoid`, the zone before it.
    fn shortest(&self, from: &ZoneId, avoid: &ZoneId) -> BTreeMap<&'a ZoneId, ZoneId> {
        let mut before = BTreeMap::new();
        let mut next = VecDeque::from([from.clone()]);
        while let Some(zone) = next.pop_front() {
            for onward in self.0.get(&zone).into_iter().flat_map(BTreeMap::keys) {
                if *onward != from && *onward != avoid && !before.contains_key(*onward) {
                    before.insert(*onward, zone.clone());
                    next.push_back((*onward).clone());
                }
            }
        }
        before
    }

    /// The steps from `from` to `to` along `before`.
    fn path(&self, from: &ZoneId, to: &ZoneId, before: &BTreeMap<&ZoneId, ZoneId>) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = to;
        while at != from {
            let Some(previous) = before.get(at) else { break };
            let ways = self.0.get(previous).and_then(|onward| onward.get(at));
            steps.push(Step {
                from: previous.clone(),
                to: at.clone(),
                ways: ways.cloned().unwrap_or_default(),
            });
            at = previous;
        }
        steps.reverse();
        steps
    }
}

fn zone_of<'a>(plant: &'a Plant, end: &'a FlowEnd) -> Option<&'a ZoneId> {
    match end {
        FlowEnd::Asset(asset, _) => plant.assets.get(asset).map(|asset| &asset.zone),
        FlowEnd::Zone(zone, _) => Some(zone),
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Observed { gateway } => write!(f, "anything, as both zones only observe at {gateway}"),
            Self::Flow {
                conduit,
                flow,
                sources,
                destinations,
                transport,
                operations,
                bridged,
            } => {
                let (sources, destinations) = (and(sources.iter()), and(destinations.iter()));
                write!(f, "{conduit}/{flow}: {sources} to {destinations} by {transport}")?;
                let only = if *bridged {
                    "only these messages, carried by the gateway one way"
                } else {
                    "only"
                };
                match operations {
                    Some(operations) => write!(f, ", {only}: {}", operations.phrases().join("; ")),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            return write!(f, "{} is one zone: nothing stands within it.", self.from);
        }
        if self.paths.is_empty() {
            return write!(f, "Nothing in {} can act on {}.", self.from, self.to);
        }
        for (number, path) in self.paths.iter().enumerate() {
            let route: Vec<&str> = std::iter::once(self.from.as_str())
                .chain(path.iter().map(|step| step.to.as_str()))
                .collect();
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", route.join(" → "))?;
            for step in path {
                for way in &step.ways {
                    write!(f, "\n  {} → {}  {way}", step.from, step.to)?;
                }
            }
        }
        Ok(())
    }
}
