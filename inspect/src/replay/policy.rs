//! Which gateways a connection crosses, and what each says of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use penstock_policy::model::{Answers, OnRefusal};
use penstock_policy::plan::{Endpoint, Plan, Transport, opened_by};
use penstock_policy::verdict::{
    Carried, Connection, Decision, Permitted, Reason, RuleName, decide, permitted,
};

use super::Answer;
use crate::capture::direction::{Carrier, Declared};
use crate::judge::{Rules, RulesError, Verdict};
use crate::operation::Operation;

/// The plans of all gateways, ready to be asked.
#[derive(Debug)]
pub struct Plans {
    plans: Vec<Plan>,
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
}

/// What a gateway does with a connection.
#[derive(Debug)]
pub enum Gate {
    /// Nobody stands between.
    Uncrossed,
    /// It passes, with whatever it carries.
    Open {
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
        Ok(Self { plans })
    }

    /// What stands between `client` and `server` for a TCP connection.
    pub fn tracks(&self, client: SocketAddr, server: SocketAddr) -> Vec<Track> {
        self.between(client.ip(), server.ip(), Carried::Tcp(server.port()))
    }

    /// What stands between `client` and `server` for what `transport` carries.
    pub fn between(&self, client: IpAddr, server: IpAddr, transport: Carried) -> Vec<Track> {
        let mut tracks = Vec::new();
        for plan in &self.plans {
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
                        gate: gate(plan, &connection),
                    });
                }
            }
        }
        if tracks.is_empty() {
            tracks.push(Track {
                gateway: None,
                gate: Gate::Uncrossed,
            });
        }
        tracks
    }
}

/// Ports of one range that still tell which end serves.
const PORTS_TELLING: u16 = 64;

impl Declared for Plans {
    fn permits(&self, carrier: Carrier, client: SocketAddr, server: SocketAddr) -> bool {
        let carried = match carrier {
            Carrier::Tcp => Carried::Tcp(server.port()),
            Carrier::Udp => Carried::Udp(server.port()),
        };
        self.between(client.ip(), server.ip(), carried)
            .iter()
            .all(|track| matches!(track.gate, Gate::Open { .. } | Gate::Inspected { .. }))
    }

    fn leads(&self, client: IpAddr, server: IpAddr) -> bool {
        let holds = |ends: &[Endpoint], address| ends.iter().any(|end| end.network.contains(&address));
        let mut rules = self.plans.iter().flat_map(|plan| &plan.rules);
        rules.any(|rule| holds(&rule.sources, client) && holds(&rule.destinations, server))
    }

    fn names(&self, carrier: Carrier, port: u16) -> bool {
        let mut rules = self.plans.iter().flat_map(|plan| &plan.rules);
        rules.any(|rule| {
            let ranges = match (carrier, &rule.transport) {
                (Carrier::Tcp, Transport::Tcp(ranges)) | (Carrier::Udp, Transport::Udp(ranges)) => ranges,
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
        Reason::Unguarded { interface } => format!("interface {interface} belongs to no zone of the plan"),
        Reason::Around => "neither interface belongs to a zone of the plan".to_owned(),
        Reason::NotGuarded => return Gate::Uncrossed,
    };
    match verdict.decision {
        Decision::NotGuarded => Gate::Uncrossed,
        Decision::Deny | Decision::WouldDeny => Gate::Shut {
            because,
            observing: verdict.decision == Decision::WouldDeny,
        },
        Decision::Allow => match permitted(plan, connection) {
            Permitted::Nothing | Permitted::Anything => Gate::Open { because },
            Permitted::Only(listed) if listed.iter().any(|(rule, _)| rule.tls.is_some()) => Gate::Open {
                because: format!("{because}; a recording does not show what is inside its TLS"),
            },
            Permitted::Only(listed) => {
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

fn named(rule: &RuleName) -> String {
    format!("{}/{}", rule.conduit, rule.flow)
}

impl Gate {
    /// What it says of the connection as such.
    pub fn answer(&self) -> Answer {
        match self {
            Self::Uncrossed => Answer {
                allowed: true,
                because: "no gateway stands between the two".to_owned(),
            },
            Self::Open { because } => Answer {
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
