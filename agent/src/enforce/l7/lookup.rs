//! Which operations a connection may carry: the plan in force, indexed by destination and port.
//!
//! [`Policy::find`] gives what `verdict::permitted` gives, without looking at each rule: rules are found by the
//! networks that hold the destination (one look for each prefix length that the plan has), and only those few are
//! compared. What several rules list for one connection is compiled once and shared by all connections that have it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use penstock_inspect::connection::Mode;
use penstock_inspect::judge::{RuleIndex, Rules, RulesError};
use penstock_policy::ids::{FlowId, Revision};
use penstock_policy::model::{Enforcement, OnRefusal, Protocol};
use penstock_policy::plan::{Endpoint, Plan, PortRange, Rule, Transport};

/// Compiled sets that are kept although no connection uses them.
const SETS_KEPT_MAX: usize = 1024;

/// A flow as events name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowName {
    /// The kernel's number.
    pub id: FlowId,
    /// `conduit/flow`.
    pub name: String,
}

/// What the connections of one tuple may do, compiled.
#[derive(Debug)]
pub struct RuleSet {
    /// The union of what the flows list.
    pub rules: Arc<Rules>,
    /// What a client gets for a refused operation: as the first of the flows says.
    pub on_refusal: OnRefusal,
    /// The flows, in the plan's order.
    flows: Vec<FlowName>,
    /// For each compiled rule the place of its flow.
    owners: Vec<usize>,
}

impl RuleSet {
    /// The flow that a compiled rule belongs to; of no rule in particular, the first.
    pub fn flow(&self, rule: Option<RuleIndex>) -> Option<&FlowName> {
        let owner = rule.and_then(|rule| self.owners.get(rule)).copied().unwrap_or(0);
        self.flows.get(owner)
    }

    /// The protocol that is spoken.
    pub fn protocol(&self) -> Protocol {
        self.rules.protocol()
    }
}

/// What the plan in force says of a tuple.
#[derive(Debug, Clone)]
pub enum Found {
    /// No rule matches.
    Nothing,
    /// A matching rule sets no limit.
    Anything,
    /// These operations.
    Only(Arc<RuleSet>),
    /// The rules that match cannot be brought together; nothing passes.
    Unusable(RulesError),
}

/// A plan, ready to be asked for each connection.
#[derive(Debug)]
pub struct Policy {
    /// Where it comes from.
    pub plan: Arc<Plan>,
    /// Under which revision.
    pub revision: Revision,
    /// For each destination network the rules that name it, by their place in the plan, with each port range.
    destinations: HashMap<IpNet, Vec<(PortRange, u32)>>,
    /// The prefix lengths among them.
    lengths4: BTreeSet<u8>,
    lengths6: BTreeSet<u8>,
    sets: Mutex<HashMap<Vec<u32>, Arc<RuleSet>>>,
}

impl Policy {
    /// Indexes `plan`, and compiles each of its lists once, so that a list which cannot be enforced is known before
    /// the plan is in force.
    ///
    /// # Errors
    /// The first flow whose operations cannot be enforced, by name.
    pub fn new(plan: Arc<Plan>, revision: Revision) -> Result<Self, (String, RulesError)> {
        let mut policy = Self {
            plan: Arc::clone(&plan),
            revision,
            destinations: HashMap::new(),
            lengths4: BTreeSet::new(),
            lengths6: BTreeSet::new(),
            sets: Mutex::default(),
        };
        for (place, rule) in (0_u32..).zip(&plan.rules) {
            if let Some(operations) = &rule.operations {
                Rules::compile(operations).map_err(|error| (name(rule), error))?;
            }
            let Transport::Tcp(ports) = &rule.transport else {
                continue;
            };
            for end in &rule.destinations {
                let network = end.network.trunc();
                let lengths = match network {
                    IpNet::V4(_) => &mut policy.lengths4,
                    IpNet::V6(_) => &mut policy.lengths6,
                };
                lengths.insert(network.prefix_len());
                let listed = policy.destinations.entry(network).or_default();
                listed.extend(ports.iter().map(|range| (*range, place)));
            }
        }
        for listed in policy.destinations.values_mut() {
            listed.shrink_to_fit();
        }
        Ok(policy)
    }

    /// What a TCP connection from `client` to `server` may do.
    pub fn find(&self, client: IpAddr, server: SocketAddr) -> Found {
        let places = self.places(client, server);
        let mut listing = Vec::with_capacity(places.len());
        for place in places {
            match self.rule(place).map(|rule| rule.operations.is_some()) {
                Some(true) => listing.push(place),
                Some(false) => return Found::Anything,
                None => {}
            }
        }
        if listing.is_empty() {
            return Found::Nothing;
        }
        match self.set(listing) {
            Ok(set) => Found::Only(set),
            Err(error) => Found::Unusable(error),
        }
    }

    /// The matching rules' places in the plan, in its order.
    fn places(&self, client: IpAddr, server: SocketAddr) -> BTreeSet<u32> {
        let lengths = if server.is_ipv4() {
            &self.lengths4
        } else {
            &self.lengths6
        };
        lengths
            .iter()
            .filter_map(|length| IpNet::new(server.ip(), *length).ok())
            .filter_map(|network| self.destinations.get(&network.trunc()))
            .flatten()
            .filter(|(range, _)| range.contains(server.port()))
            .map(|(_, place)| *place)
            .filter(|place| self.rule(*place).is_some_and(|rule| holds(&rule.sources, client)))
            .collect()
    }

    fn rule(&self, place: u32) -> Option<&Rule> {
        self.plan.rules.get(usize::try_from(place).ok()?)
    }

    fn set(&self, listing: Vec<u32>) -> Result<Arc<RuleSet>, RulesError> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.get(&listing) {
            return Ok(Arc::clone(set));
        }
        let rules: Vec<&Rule> = listing.iter().filter_map(|place| self.rule(*place)).collect();
        let (compiled, owners) = Rules::union(rules.iter().filter_map(|rule| rule.operations.as_ref()))?;
        let set = Arc::new(RuleSet {
            rules: Arc::new(compiled),
            on_refusal: rules.first().map_or(OnRefusal::Answer, |rule| rule.on_refusal),
            flows: rules
                .iter()
                .map(|rule| FlowName {
                    id: rule.id,
                    name: name(rule),
                })
                .collect(),
            owners,
        });
        if sets.len() >= SETS_KEPT_MAX {
            sets.retain(|_, kept| Arc::strong_count(kept) > 1);
        }
        sets.insert(listing, Arc::clone(&set));
        Ok(set)
    }

    /// Whether refusals between these two are carried out: not if all sides that hold them only observe.
    pub fn mode(&self, client: IpAddr, server: IpAddr) -> Mode {
        let observes = |address: IpAddr| {
            let mut sides = self
                .plan
                .interfaces
                .iter()
                .filter(|side| side.holds(address))
                .peekable();
            sides.peek().is_some() && sides.all(|side| side.enforcement == Enforcement::Observe)
        };
        if observes(client) && observes(server) {
            Mode::Observe
        } else {
            Mode::Enforce
        }
    }

    /// What the plan calls the two ends of a connection; empty where it has no name for one.
    pub fn names(&self, client: IpAddr, server: SocketAddr) -> (String, String) {
        let places = self.places(client, server);
        let named = |ends: fn(&Rule) -> &Vec<Endpoint>, address: IpAddr| {
            places
                .iter()
                .filter_map(|place| self.rule(*place))
                .flat_map(ends)
                .filter(|end| end.network.contains(&address))
                .max_by_key(|end| end.network.prefix_len())
                .map(|end| end.name.clone())
                .unwrap_or_default()
        };
        (
            named(|rule| &rule.sources, client),
            named(|rule| &rule.destinations, server.ip()),
        )
    }
}

fn holds(ends: &[Endpoint], address: IpAddr) -> bool {
    ends.iter().any(|end| end.network.contains(&address))
}

fn name(rule: &Rule) -> String {
    format!("{}/{}", rule.conduit, rule.flow)
}

#[cfg(test)]
mod tests;
