//! Which gateways a connection crosses, and what each says of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::plan::{Endpoint, Plan, PlanInterface, opened_by};
use penstock_policy::terms::{Answers, Enforcement, GatewayMode, OnRefusal, Transport};
use penstock_policy::verdict::{
    Carried, Connection, Decision, Permissions, Reason, RuleName, decide, permitted,
};

use super::Answer;
use super::moment::{TimedPlan, When};
use crate::capture::Envelope;
use crate::capture::direction::{Declarations, PortCarrier};
use crate::judge::{Rules, RulesError, Verdict};
use crate::operation::Operation;

/// The plans of all gateways, ready to be asked.
#[derive(Debug)]
pub struct Plans {
    plans: Vec<TimedPlan>,
    /// When any grant of remote access begins or ends, in order.
    turns: Vec<Duration>,
}

/// Plans that cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlansError {
    /// A flow's operations are not understood.
    #[error("flow {flow} of gateway {gateway} cannot be judged: {error}")]
    Rules {
        /// The gateway.
        gateway: String,
        /// `conduit/flow`.
        flow: String,
        /// Why.
        error: RulesError,
    },
}

/// One gateway on a connection's way.
#[derive(Debug)]
pub struct Track {
    /// Its name; `None` stands for the way that crosses none.
    pub gateway: Option<String>,
    /// What it does with the connection.
    pub gate: Gate,
    /// What it does with frames that are not plain IP or ARP.
    pub others: OtherFrames,
}

/// What a gateway does with frames from one side to another that have tags or labels, or carry neither IP nor ARP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OtherFrames {
    /// It has no say in them: nobody stands between, or both sides are one zone's.
    Unjudged,
    /// It is a router: what carries IP arrives at an interface for it, and nothing else crosses.
    Routed,
    /// It is a bridge, and lets them cross because its zones only observe.
    Observed,
    /// It is a bridge, and drops them.
    Dropped,
}

impl OtherFrames {
    /// From one side of a gateway to another.
    pub(super) fn between(plan: &Plan, ingress: &PlanInterface, egress: &PlanInterface) -> Self {
        // Such a frame shows no address by which a zone could be told from another.
        let observes = |side: &PlanInterface| side.observing.mode(None) == Enforcement::Observe;
        match plan.mode {
            GatewayMode::Routed => Self::Routed,
            GatewayMode::Bridged
                if ingress.zone == egress.zone && ingress.behind.is_empty() && egress.behind.is_empty() =>
            {
                Self::Unjudged
            }
            GatewayMode::Bridged if observes(ingress) && observes(egress) => Self::Observed,
            GatewayMode::Bridged => Self::Dropped,
        }
    }
}

impl Track {
    /// The same for a connection whose packets come in `envelope`: a bridged gateway looks at no packet behind a tag.
    #[must_use]
    pub fn coming_in(mut self, envelope: Envelope) -> Self {
        let observing = match self.others {
            OtherFrames::Observed => true,
            OtherFrames::Dropped => false,
            OtherFrames::Unjudged | OtherFrames::Routed => return self,
        };
        let open = !matches!(self.gate, Gate::Shut { observing: false, .. });
        if !envelope.is_plain() && open {
            self.gate = Gate::Shut {
                because: format!(
                    "its packets come {envelope}, and a bridged gateway lets IPv4, IPv6 and ARP cross only without them"
                ),
                observing,
            };
        }
        self
    }
}

/// What a gateway does with a connection.
#[derive(Debug)]
pub enum Gate {
    /// Nobody stands between.
    Uncrossed,
    /// Whether anybody does is not known: one end lies on no side of any gateway.
    Stranger {
        /// Which end, in words.
        because: String,
    },
    /// It passes, with whatever it carries.
    Open {
        /// The rule in words.
        because: String,
    },
    /// It passes, and what is judged of it is inside TLS, which a recording does not show.
    Sealed {
        /// The rule in words.
        because: String,
    },
    /// It does not pass.
    Shut {
        /// Why, in words.
        because: String,
        /// The zones only observe yet.
        observing: bool,
    },
    /// It passes, and each operation is judged.
    Inspected {
        /// By these.
        rules: Arc<Rules>,
        /// `conduit/flow` of each rule.
        owners: Vec<String>,
        /// How refusals look: as the first of the flows says.
        on_refusal: OnRefusal,
    },
}

impl Plans {
    /// Takes plans, and makes sure that every flow of theirs can be judged.
    ///
    /// # Errors
    /// A plan's operations cannot be judged.
    pub fn new(plans: Vec<Plan>) -> Result<Self, PlansError> {
        for plan in &plans {
            for rule in &plan.rules {
                let Some(operations) = &rule.operations else {
                    continue;
                };
                Rules::compile(operations).map_err(|error| PlansError::Rules {
                    gateway: plan.gateway.to_string(),
                    flow: format!("{}/{}", rule.conduit, rule.flow),
                    error,
                })?;
            }
        }
        let plans: Vec<TimedPlan> = plans.into_iter().map(TimedPlan::new).collect();
        let mut turns: Vec<Duration> = plans.iter().flat_map(TimedPlan::turns).collect();
        turns.sort_unstable();
        turns.dedup();
        Ok(Self { plans, turns })
    }

    /// What stands between `client` and `server` for a TCP connection.
    pub fn tracks(&self, client: SocketAddr, server: SocketAddr, when: When) -> Vec<Track> {
        self.between(client.ip(), server.ip(), Carried::Tcp(server.port()), when)
    }

    /// Whether grants of remote access open anything.
    pub fn have_grants(&self) -> bool {
        self.plans.iter().any(|plan| !plan.plan().grants.is_empty())
    }

    /// The first moment after `at` at which a grant of remote access begins or ends.
    pub fn next_turn(&self, at: Duration) -> Option<Duration> {
        let passed = self.turns.partition_point(|turn| *turn <= at);
        self.turns.get(passed).copied()
    }

    /// What stands between `client` and `server` for what `transport` carries.
    pub fn between(&self, client: IpAddr, server: IpAddr, transport: Carried, when: When) -> Vec<Track> {
        let mut tracks = Vec::new();
        for plan in self.plans.iter().map(|plan| plan.of(when)) {
            for ingress in plan.interfaces.iter().filter(|side| side.holds(client)) {
                let others = plan
                    .interfaces
                    .iter()
                    .filter(|side| side.name != ingress.name && side.holds(server));
                for egress in others {
                    let connection = Connection {
                        ingress: ingress.name.clone(),
                        egress: egress.name.clone(),
                        source: client,
                        destination: server,
                        transport,
                    };
                    tracks.push(Track {
                        gateway: Some(plan.gateway.to_string()),
                        gate: gate(&plan, &connection),
                        others: OtherFrames::between(&plan, ingress, egress),
                    });
                }
            }
        }
        if tracks.is_empty() {
            let gate = match self.stranger(client, server) {
                Some(end) => Gate::Stranger {
                    because: format!(
                        "{end} is on no side of a gateway: whether one stands in the way is not known; one that does refuses it \
                         where its zones enforce"
                    ),
                },
                None => Gate::Uncrossed,
            };
            tracks.push(Track {
                gateway: None,
                gate,
                others: OtherFrames::Unjudged,
            });
        }
        tracks
    }

    /// Which of two ends lies on no side of any gateway.
    pub(crate) fn stranger(&self, client: IpAddr, server: IpAddr) -> Option<IpAddr> {
        [client, server].into_iter().find(|end| !self.knows(*end))
    }

    /// All of them, without any grant.
    pub(super) fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.plans.iter().map(TimedPlan::plan)
    }

    /// Whether an address belongs on some side of some gateway.
    fn knows(&self, address: IpAddr) -> bool {
        let mut sides = self.plans.iter().flat_map(|plan| &plan.plan().interfaces);
        sides.any(|side| side.holds(address))
    }
}

/// Ports of one range that still tell which end serves.
const PORTS_TELLING: u16 = 64;

impl Declarations for Plans {
    fn permits(&self, carrier: PortCarrier, client: SocketAddr, server: SocketAddr) -> bool {
        let carried = match carrier {
            PortCarrier::Tcp => Carried::Tcp(server.port()),
            PortCarrier::Udp => Carried::Udp(server.port()),
        };
        // A conduit shows at all times which end opens, whether a grant opens it just then or not.
        self.between(client.ip(), server.ip(), carried, When::Ever)
            .iter()
            .all(|track| track.gate.permits())
    }

    fn leads(&self, client: IpAddr, server: IpAddr) -> bool {
        let holds = |ends: &[Endpoint], address| ends.iter().any(|end| end.network.contains(&address));
        let mut rules = self.plans.iter().flat_map(|plan| &plan.plan().rules);
        rules.any(|rule| holds(&rule.sources, client) && holds(&rule.destinations, server))
    }

    fn names(&self, carrier: PortCarrier, port: u16) -> bool {
        let mut rules = self.plans.iter().flat_map(|plan| &plan.plan().rules);
        rules.any(|rule| {
            let ranges = match (carrier, &rule.transport) {
                (PortCarrier::Tcp, Transport::Tcp(ranges)) | (PortCarrier::Udp, Transport::Udp(ranges)) => {
                    ranges
                }
                _ => return false,
            };
            ranges.iter().any(|range| {
                (range.first..=range.last).contains(&port) && range.last - range.first < PORTS_TELLING
            })
        })
    }
}

fn gate(plan: &Plan, connection: &Connection) -> Gate {
    let verdict = decide(plan, connection);
    let because = match &verdict.reason {
        Reason::Rule(rule) => named(rule),
        Reason::SameZone(zone) => format!("both ends are in zone {zone}"),
        Reason::Misplaced { address, interface } => format!("{address} does not belong on {interface}"),
        Reason::NoRule { nearest: None } => "no rule matches".to_owned(),
        Reason::NoRule {
            nearest: Some(nearest),
        } => format!(
            "no rule matches; closest is {}: {}",
            named(&nearest.rule),
            nearest.differs.join(", ")
        ),
        Reason::Closed { rule, grants } => {
            format!("{} permits it only during {}", named(rule), opened_by(grants))
        }
        unproven @ Reason::Unproven { .. } => unproven.to_string(),
        Reason::Unguarded { interface } => format!("interface {interface} belongs to no zone of the plan"),
        Reason::Around => "neither interface belongs to a zone of the plan".to_owned(),
        Reason::NotGuarded => return Gate::Uncrossed,
    };
    match verdict.decision {
        Decision::NotGuarded => Gate::Uncrossed,
        Decision::Deny | Decision::WouldDeny => Gate::Shut {
            because: match behind(plan, connection) {
                Some(flow) => format!(
                    "{because}; a recording from behind the gateway shows its own connection for {flow} like this, in the plain"
                ),
                None => because,
            },
            observing: verdict.decision == Decision::WouldDeny,
        },
        Decision::Allow => match permitted(plan, connection) {
            Permissions::Nothing | Permissions::Anything => Gate::Open { because },
            Permissions::InsideTls(_) => Gate::Sealed {
                because: format!("{because}; a recording does not show what is inside its TLS"),
            },
            Permissions::Only(listed) if listed.iter().any(|(rule, _)| rule.roles.is_some()) => {
                Gate::Sealed {
                    because: format!(
                        "{because}; a recording shows neither what is inside its TLS nor the client's role, by which the gateway permits or refuses \
                     each operation"
                    ),
                }
            }
            Permissions::Only(listed) if listed.iter().any(|(rule, _)| rule.tls.is_some()) => Gate::Sealed {
                because: format!("{because}; a recording does not show what is inside its TLS"),
            },
            Permissions::Only(listed) => {
                let answers = Answers::shared(listed.iter().map(|(rule, _)| rule.answers));
                let owner = |at: &usize| listed.get(*at).map(|(rule, _)| named(&RuleName::of(rule)));
                match Rules::union(listed.iter().map(|(_, operations)| *operations)) {
                    Ok((rules, owners)) => Gate::Inspected {
                        rules: Arc::new(rules.with_answers(answers)),
                        owners: owners.iter().filter_map(owner).collect(),
                        on_refusal: listed
                            .first()
                            .map_or(OnRefusal::Answer, |(rule, _)| rule.on_refusal),
                    },
                    // What cannot be understood is refused, as the agent would refuse it.
                    Err(error) => Gate::Shut {
                        because: error.to_string(),
                        observing: false,
                    },
                }
            }
        },
    }
}

/// The flow whose last metre a connection could be: the gateway speaks to the flow's server in the plain, from its client's address.
fn behind(plan: &Plan, connection: &Connection) -> Option<String> {
    let Carried::Tcp(port) = connection.transport else {
        return None;
    };
    let holds = |ends: &[Endpoint], address| ends.iter().any(|end| end.network.contains(&address));
    let mut rules = plan.open_rules();
    let rule = rules.find(|rule| {
        rule.plain_port() == Some(port)
            && holds(&rule.sources, connection.source)
            && holds(&rule.destinations, connection.destination)
    })?;
    Some(named(&RuleName::of(rule)))
}

fn named(rule: &RuleName) -> String {
    format!("{}/{}", rule.conduit, rule.flow)
}

impl Gate {
    /// Whether a gateway lets it pass by what is declared.
    pub(super) fn permits(&self) -> bool {
        matches!(
            self,
            Self::Open { .. } | Self::Sealed { .. } | Self::Inspected { .. }
        )
    }

    /// What it says of the connection as such.
    pub fn answer(&self) -> Answer {
        match self {
            Self::Uncrossed => Answer {
                allowed: true,
                because: "no gateway stands between the two".to_owned(),
            },
            Self::Open { because } | Self::Sealed { because } | Self::Stranger { because } => Answer {
                allowed: true,
                because: because.clone(),
            },
            Self::Shut { because, observing } => Answer {
                allowed: *observing,
                because: if *observing {
                    format!("would be refused, but the zones only observe: {because}")
                } else {
                    because.clone()
                },
            },
            Self::Inspected { owners, .. } => {
                let mut flows = owners.clone();
                flows.dedup();
                Answer {
                    allowed: true,
                    because: format!("{}, each operation on its own", flows.join(" and ")),
                }
            }
        }
    }

    /// What it says of an operation.
    pub fn answer_to(&self, rules: Option<&Rules>, operation: &Operation<'_>, verdict: Verdict) -> Answer {
        let (Self::Inspected { owners, .. }, Some(rules)) = (self, rules) else {
            return self.answer();
        };
        let explained = rules.explain(operation, verdict);
        let because = match verdict {
            Verdict::Allow(index) => match owners.get(index) {
                Some(flow) => format!("{flow}: {explained}"),
                None => explained,
            },
            _ => explained,
        };
        Answer {
            allowed: verdict.allows(),
            because,
        }
    }
}
