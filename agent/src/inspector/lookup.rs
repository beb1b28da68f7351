//! Which operations a connection may carry: the plan in force, indexed by destination and port.
//!
//! [`InspectionPolicy::find`] gives what `verdict::permitted` gives, without looking at each rule: rules are found by the
//! networks that hold the destination (one look for each prefix length that the plan has), and only those few are
//! compared. What several rules list for one connection is compiled once and shared by all connections that have it.
//!
//! Where TLS ends here, a rule counts for a device only if one of its sources is that device *and* holds the address
//! that it speaks from: a certificate adds to what the address must be, and takes nothing from it. Where a rule tells roles apart, the role
//! in the certificate then says what of the rule's operations remains: nothing is a list of its own, by which each request is refused and
//! answered, and no rule of another flow is lost for it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use penstock_inspect::connection::Mode;
use penstock_inspect::judge::{RuleIndex, Rules, RulesError};
use penstock_policy::ids::{AssetId, FlowId, Revision, RoleName};
use penstock_policy::plan::{Endpoint, Plan, Rule};
use penstock_policy::protocol::{Operations, Protocol, RoleOperations};
use penstock_policy::terms::{
    Answers, Enforcement, OnAgentLoss, OnRefusal, PortRange, Proof, Tls, Transport,
};
use penstock_proto::tls::data_path::{Devices, RoleReading};

use super::tuple::Tuple;
use crate::observed::NamedFlow;

/// Compiled sets that are kept although no connection uses them.
const SETS_KEPT_MAX: usize = 1024;

/// What the connections of one tuple may do, compiled.
#[derive(Debug)]
pub struct RuleSet {
    /// The union of what the flows list; `None`: anything, inside TLS that ends here.
    pub rules: Option<Arc<Rules>>,
    /// What a client gets for a refused operation: as the first of the flows says.
    pub on_refusal: OnRefusal,
    /// Where the client's TLS ends here: how the server is known.
    pub tls: Option<Arc<Tls>>,
    /// The client's role counts for one of the flows.
    pub by_role: bool,
    /// Each of the flows goes on unread while no inspector can take it (`on_agent_loss: pass`).
    pass: bool,
    /// The flows, in the plan's order.
    flows: Vec<NamedFlow>,
    /// For each compiled rule the place of its flow.
    owners: Vec<usize>,
}

impl RuleSet {
    /// The flow that a compiled rule belongs to; of no rule in particular, the first.
    pub fn flow(&self, rule: Option<RuleIndex>) -> Option<&NamedFlow> {
        let owner = rule.and_then(|rule| self.owners.get(rule)).copied().unwrap_or(0);
        self.flows.get(owner)
    }

    /// Whether a connection may go on unread where there is no seat for it.
    pub fn passes_unread(&self, mode: Mode) -> bool {
        self.pass || mode == Mode::Observe
    }

    /// The protocol that is read.
    pub fn protocol(&self) -> Option<Protocol> {
        Some(self.rules.as_ref()?.protocol())
    }
}

/// What the plan says of a new connection's seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SeatClaim {
    /// The first flow that it belongs to.
    pub flow: Option<FlowId>,
    /// One of its flows must flow.
    pub must_flow: bool,
    /// Its zones only observe.
    pub observed: bool,
    /// Its flows go on unread while no inspector can take them.
    pub pass: bool,
}

/// What the plan in force says of a tuple.
#[derive(Debug, Clone)]
pub enum TupleRules {
    /// No rule matches.
    Nothing,
    /// A matching rule sets no limit.
    Anything,
    /// These operations, or only inside TLS that ends here.
    Only(Arc<RuleSet>),
    /// The rules that match cannot be brought together; nothing passes.
    Unusable(Discord),
}

/// Why the rules of one connection cannot be brought together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Discord {
    /// What they list.
    #[error(transparent)]
    Operations(#[from] RulesError),
    /// What they say of TLS.
    #[error(
        "the flows that share this connection do not agree on its TLS: give them the same service, and the same \
         server_authorities and server_name"
    )]
    Tls,
}

/// A rule's place in the plan, by a network and a range of ports that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Destination {
    network: IpNet,
    place: u32,
    ports: PortRange,
}

/// A plan, ready to be asked for each connection.
#[derive(Debug)]
pub struct InspectionPolicy {
    /// Where it comes from.
    pub plan: Arc<Plan>,
    /// Under which revision.
    pub revision: Revision,
    /// Each destination network of each rule, in order: an entry takes a quarter of what a map's would.
    destinations: Box<[Destination]>,
    /// The prefix lengths among them.
    lengths4: BTreeSet<u8>,
    lengths6: BTreeSet<u8>,
    sets: Mutex<HashMap<SetKey, Arc<RuleSet>>>,
}

/// The places of the rules, and as whom a client uses them where one of them tells roles apart.
type SetKey = (Vec<u32>, Option<Certified>);

/// Of a client that showed a certificate, the role in it, if there is one.
type Certified = Option<RoleName>;

impl InspectionPolicy {
    /// Indexes `plan`, and compiles each of its lists once, so that a list which cannot be enforced is known before
    /// the plan is in force.
    ///
    /// # Errors
    /// The first flow whose operations cannot be enforced, by name.
    pub fn new(plan: Arc<Plan>, revision: Revision) -> Result<Self, (String, RulesError)> {
        let (mut lengths4, mut lengths6) = (BTreeSet::new(), BTreeSet::new());
        let mut destinations = Vec::new();
        // Rules that were read share equal lists.
        let mut compiled = HashSet::new();
        for (place, rule) in (0_u32..).zip(&plan.rules) {
            if let Some(operations) = &rule.operations
                && compiled.insert(Arc::as_ptr(operations))
            {
                Rules::compile(operations).map_err(|error| (name(rule), error))?;
            }
            if let (Some(operations), Some(roles)) = (&rule.operations, &rule.roles) {
                for list in roles.lists() {
                    Rules::within([(&**operations, Some(list))]).map_err(|error| (name(rule), error))?;
                }
            }
            let Transport::Tcp(ports) = &rule.transport else {
                continue;
            };
            if !plan.is_open(&rule.conduit) {
                continue;
            }
            for end in &rule.destinations {
                let network = end.network.trunc();
                let lengths = match network {
                    IpNet::V4(_) => &mut lengths4,
                    IpNet::V6(_) => &mut lengths6,
                };
                lengths.insert(network.prefix_len());
                destinations.extend(ports.iter().map(|ports| Destination {
                    network,
                    place,
                    ports: *ports,
                }));
            }
        }
        destinations.sort_unstable();
        Ok(Self {
            plan: Arc::clone(&plan),
            revision,
            destinations: destinations.into_boxed_slice(),
            lengths4,
            lengths6,
            sets: Mutex::default(),
        })
    }

    /// What leads to exactly this network.
    fn leading_to(&self, network: IpNet) -> impl Iterator<Item = &Destination> {
        let first = self.destinations.partition_point(|entry| entry.network < network);
        let rest = self.destinations.get(first..).unwrap_or_default();
        rest.iter().take_while(move |entry| entry.network == network)
    }

    /// What a TCP connection from `client` to `server` may do, by their addresses.
    pub fn find(&self, client: IpAddr, server: SocketAddr) -> TupleRules {
        self.found(self.places(client, server, None), None)
    }

    /// What a connection may do, by addresses and, if it showed a certificate, by device.
    pub(super) fn find_for(&self, tuple: &Tuple) -> TupleRules {
        let certified = tuple.device.as_ref().map(|_| tuple.role.clone());
        self.found(
            self.places(tuple.client, tuple.server, tuple.device.as_deref()),
            certified,
        )
    }

    fn found(&self, places: BTreeSet<u32>, certified: Option<Certified>) -> TupleRules {
        let mut listing = Vec::with_capacity(places.len());
        for place in places {
            match self.rule(place).map(Rule::is_carried) {
                Some(true) => listing.push(place),
                Some(false) => return TupleRules::Anything,
                None => {}
            }
        }
        if listing.is_empty() {
            return TupleRules::Nothing;
        }
        match self.set(listing, certified) {
            Ok(set) => TupleRules::Only(set),
            Err(error) => TupleRules::Unusable(error),
        }
    }

    /// The devices that may open a TLS connection from this address: those whose address it is by the flows, or any,
    /// where a flow's source is a whole zone.
    pub fn devices(&self, client: IpAddr, server: SocketAddr) -> Devices {
        let places = self.places(client, server, None);
        let rules = places.iter().filter_map(|place| self.rule(*place));
        let ends: Vec<&Endpoint> = rules
            .filter(|rule| rule.tls.is_some())
            .flat_map(|rule| &rule.sources)
            .filter(|end| end.network.contains(&client))
            .collect();
        if ends.iter().any(|end| is_zone(end)) {
            return Devices::Any;
        }
        Devices::Listed(ends.iter().filter_map(|end| end.name.parse().ok()).collect())
    }

    /// Whether the role in a client's certificate matters for a TLS connection from this address. Between zones that only observe nobody is
    /// kept out for it.
    pub(super) fn role_reading(&self, client: IpAddr, server: SocketAddr) -> RoleReading {
        if self.mode(client, server.ip()) == Mode::Enforce && self.tells_roles_apart(client, server) {
            RoleReading::Strict
        } else {
            RoleReading::Ignored
        }
    }

    /// Whether a flow from `client` to `server` tells roles apart.
    pub(super) fn tells_roles_apart(&self, client: IpAddr, server: SocketAddr) -> bool {
        let places = self.places(client, server, None);
        let mut rules = places.iter().filter_map(|place| self.rule(*place));
        rules.any(|rule| rule.roles.is_some())
    }

    /// The asset that stands at the server's address, by the flows from `client` to it.
    pub fn server(&self, client: IpAddr, server: SocketAddr) -> Option<AssetId> {
        self.places(client, server, None)
            .iter()
            .filter_map(|place| self.rule(*place))
            .flat_map(|rule| &rule.destinations)
            .filter(|end| end.network.contains(&server.ip()) && !is_zone(end))
            .find_map(|end| end.name.parse().ok())
    }

    /// What was checked of who the client and the server of a connection are. A client that showed a certificate has met the server by
    /// one, too, where its flows ask for that and it was not turned away.
    pub(super) fn proofs(&self, tuple: &Tuple, turned_away: bool) -> [Proof; 2] {
        let (client, server) = (IpNet::from(tuple.client), tuple.server.ip());
        let by_address = self.plan.address_proof(IpNet::from(server));
        let Some(device) = tuple.device.as_deref() else {
            return [self.plan.address_proof(client), by_address];
        };
        let ended = |rule: &&Rule| rule.tls.is_some();
        let places = self.places(tuple.client, tuple.server, Some(device));
        let rules = places.iter().filter_map(|place| self.rule(*place)).filter(ended);
        let met = rules.filter(|_| !turned_away).map(|rule| {
            let shown = self.plan.proofs(rule, tuple.client, server);
            shown[1].max(by_address)
        });
        [Proof::PlantCertificate, met.min().unwrap_or(by_address)]
    }

    /// What a connection from `client` to `server` may claim.
    pub(super) fn claim(&self, client: IpAddr, server: SocketAddr) -> SeatClaim {
        let places = self.places(client, server, None);
        let rules = || places.iter().filter_map(|place| self.rule(*place));
        SeatClaim {
            flow: rules().next().map(|rule| rule.id),
            must_flow: rules().any(|rule| rule.must_flow),
            observed: self.mode(client, server.ip()) == Mode::Observe,
            pass: !places.is_empty() && rules().all(|rule| rule.on_agent_loss == OnAgentLoss::Pass),
        }
    }

    /// What a flow is called.
    pub(super) fn flow_name(&self, id: FlowId) -> Option<String> {
        self.plan.rules.iter().find(|rule| rule.id == id).map(name)
    }

    /// The matching rules' places in the plan, in its order.
    fn places(&self, client: IpAddr, server: SocketAddr, device: Option<&AssetId>) -> BTreeSet<u32> {
        let lengths = if server.is_ipv4() {
            &self.lengths4
        } else {
            &self.lengths6
        };
        lengths
            .iter()
            .filter_map(|length| IpNet::new(server.ip(), *length).ok())
            .flat_map(|network| self.leading_to(network.trunc()))
            .filter(|entry| entry.ports.contains(server.port()))
            .map(|entry| entry.place)
            .filter(|place| {
                self.rule(*place)
                    .is_some_and(|rule| may_open(rule, client, device))
            })
            .collect()
    }

    fn rule(&self, place: u32) -> Option<&Rule> {
        self.plan.rules.get(usize::try_from(place).ok()?)
    }

    fn set(&self, listing: Vec<u32>, certified: Option<Certified>) -> Result<Arc<RuleSet>, Discord> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let rules: Vec<&Rule> = listing.iter().filter_map(|place| self.rule(*place)).collect();
        let certified = certified.filter(|_| rules.iter().any(|rule| rule.roles.is_some()));
        let key = (listing, certified);
        if let Some(set) = sets.get(&key) {
            return Ok(Arc::clone(set));
        }
        let certified = key.1.as_ref();
        let answers = Answers::shared(rules.iter().map(|rule| rule.answers));
        let (compiled, owners) = match compiled(&rules, certified)? {
            Some((compiled, owners)) => (Some(Arc::new(compiled.with_answers(answers))), owners),
            None => (None, Vec::new()),
        };
        let tls = rules.first().and_then(|rule| rule.tls.as_ref());
        if rules.iter().any(|rule| rule.tls.as_ref() != tls) {
            return Err(Discord::Tls);
        }
        let set = Arc::new(RuleSet {
            tls: tls.cloned(),
            by_role: certified.is_some(),
            pass: rules.iter().all(|rule| rule.on_agent_loss == OnAgentLoss::Pass),
            rules: compiled,
            on_refusal: rules.first().map_or(OnRefusal::Answer, |rule| rule.on_refusal),
            flows: rules
                .iter()
                .map(|rule| NamedFlow {
                    id: rule.id,
                    name: name(rule),
                })
                .collect(),
            owners,
        });
        if sets.len() >= SETS_KEPT_MAX {
            sets.retain(|_, kept| Arc::strong_count(kept) > 1);
        }
        sets.insert(key, Arc::clone(&set));
        Ok(set)
    }

    /// Whether refusals between these two are carried out: not if both are in zones that only observe. Of addresses that are
    /// on no side, or on several, the strictest holds.
    pub fn mode(&self, client: IpAddr, server: IpAddr) -> Mode {
        let observes = |address: IpAddr| {
            let mut sides = self
                .plan
                .interfaces
                .iter()
                .filter(|side| side.holds(address))
                .peekable();
            sides.peek().is_some()
                && sides.all(|side| side.observing.mode(Some(address)) == Enforcement::Observe)
        };
        if observes(client) && observes(server) {
            Mode::Observe
        } else {
            Mode::Enforce
        }
    }

    /// What the plan calls the two ends of a connection; empty where it has no name for one.
    pub fn names(&self, client: IpAddr, server: SocketAddr) -> (String, String) {
        let places = self.places(client, server, None);
        let named = |ends: fn(&Rule) -> &Vec<Endpoint>, address: IpAddr| {
            places
                .iter()
                .filter_map(|place| self.rule(*place))
                .flat_map(ends)
                .filter(|end| end.network.contains(&address))
                .max_by_key(|end| end.network.prefix_len())
                .map(|end| end.name.to_string())
                .unwrap_or_default()
        };
        (
            named(|rule| &rule.sources, client),
            named(|rule| &rule.destinations, server.ip()),
        )
    }
}

/// What the rules permit a client together, and for each compiled rule the place of the flow that it comes from; `None`: they limit nothing.
fn compiled(
    rules: &[&Rule],
    certified: Option<&Certified>,
) -> Result<Option<(Rules, Vec<usize>)>, RulesError> {
    let mut listed: Vec<(usize, (&Operations, Option<&Operations>))> = Vec::with_capacity(rules.len());
    let mut nothing = None;
    for (place, rule) in rules.iter().enumerate() {
        // One that limits nothing leaves none of the others a limit.
        let Some(operations) = rule.operations.as_deref() else {
            return Ok(None);
        };
        let of_role = match (certified, rule.roles.as_deref()) {
            (Some(role), Some(roles)) => match roles.of(role.as_ref()) {
                Some(RoleOperations::All) => None,
                Some(RoleOperations::Only(list)) => Some(list),
                None => {
                    nothing = nothing.or(Some(operations.protocol));
                    continue;
                }
            },
            _ => None,
        };
        listed.push((place, (operations, of_role)));
    }
    if let (true, Some(protocol)) = (listed.is_empty(), nothing) {
        let rules = Rules::nothing(protocol).ok_or(RulesError::Unread(protocol))?;
        return Ok(Some((rules, Vec::new())));
    }
    let (rules, owners) = Rules::within(listed.iter().map(|(_, lists)| *lists))?;
    let place = |owner: usize| listed.get(owner).map_or(0, |(place, _)| *place);
    Ok(Some((rules, owners.into_iter().map(place).collect())))
}

fn may_open(rule: &Rule, client: IpAddr, device: Option<&AssetId>) -> bool {
    // A certificate says nothing where no TLS ends.
    let device = device.filter(|_| rule.tls.is_some());
    rule.sources
        .iter()
        .filter(|end| end.network.contains(&client))
        .any(|end| device.is_none_or(|device| is_zone(end) || *end.name == *device.as_str()))
}

/// Whether this is all that lives in a zone, and not one asset.
fn is_zone(end: &Endpoint) -> bool {
    end.name.starts_with("zone:")
}

fn name(rule: &Rule) -> String {
    format!("{}/{}", rule.conduit, rule.flow)
}

#[cfg(test)]
mod tests;
