//! "Why can (or can't) X talk to Y?": the oracle asked on every gateway between two ends.
//!
//! A question names assets or addresses. Each pair of addresses is put to each gateway that has both on its
//! sides; the answers name the rule, or the nearest one and what differs. An address that no side of a gateway holds is
//! put to each gateway in front of the other end, by whichever interface it would come: the kernel refuses it there. If
//! no gateway stands between, that is the answer: Penstock has no say over that path.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use crate::ids::{AssetId, GatewayId, ZoneId};
use crate::model::Plant;
use crate::plan::{Broker, Grant, Plan, PlanInterface, opened_by};
use crate::protocol::mqtt::MqttOperation;
use crate::terms::Proof;
use crate::verdict::{
    Carried, Connection, Decision, Permissions, Reason, RuleName, Verdict, decide, matching, permitted,
};

/// One end of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueryEnd {
    /// An asset, with all its addresses.
    Asset(AssetId),
    /// An address, whoever it is.
    Address(IpAddr),
}

/// Who asks for what from whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question {
    /// Who opens the connection.
    pub source: QueryEnd,
    /// To whom.
    pub destination: QueryEnd,
    /// How.
    pub transport: Carried,
}

/// What one gateway says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GatewayAnswer {
    /// The gateway.
    pub gateway: GatewayId,
    /// The connection as it crosses it.
    pub connection: Connection,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Operations that an allowed connection is limited to, each with the flow that lists it; `None`: not limited.
    pub operations: Option<Vec<(RuleName, String)>>,
    /// An allowed connection's TLS ends at this gateway, which goes on in the plain to this port of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_port: Option<u16>,
    /// What the two ends of a connection that a flow permits prove of who they are, the client's first, as this gateway checks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proofs: Option<[Proof; 2]>,
    /// The connection ends with these grants of remote access: each flow that permits it is in a conduit that only they open.
    pub granted: Vec<Grant>,
}

/// The answers, and what they come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub question: Question,
    /// One per gateway and pair of addresses that crosses it.
    pub answers: Vec<GatewayAnswer>,
    /// What gateways carry from the one to the other themselves, whatever becomes of a connection between the two.
    pub bridges: Vec<Carries>,
}

/// A one-way bridge between the two ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Carries {
    /// The gateway that is the client of both.
    pub gateway: GatewayId,
    /// The flow that declares it.
    pub rule: RuleName,
    /// The broker that it takes from.
    pub from: Broker,
    /// The broker that it gives to.
    pub to: Broker,
    /// What may cross.
    pub publications: Vec<MqttOperation>,
}

/// What all answers come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every gateway on the way lets it pass.
    Passes,
    /// It passes everywhere, but somewhere only because a boundary does not enforce yet.
    PassesObserved,
    /// At least one gateway drops it, for at least one pair of addresses.
    Dropped,
    /// No gateway stands between the two.
    NoGateway,
}

/// Why a question cannot be put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No such asset.
    #[error("the plant has no asset `{0}`: name one of its assets, or an address")]
    UnknownAsset(AssetId),
    /// The asset is only recorded.
    #[error("asset `{0}` has no address: write one into the plant document, or ask by address")]
    NoAddress(AssetId),
    /// One end has IPv4 addresses only, the other IPv6 only.
    #[error(
        "the two ends have no address family in common: one has only IPv4, the other only IPv6 addresses"
    )]
    Families,
}

/// A text that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an address nor the name of an asset")]
pub struct WhoError(String);

impl FromStr for QueryEnd {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        text.parse()
            .map(Self::Asset)
            .map_err(|_| WhoError(text.to_owned()))
    }
}

/// Puts the question to every gateway between the two ends. The plans are those of a moment ([`Plan::at`]): as they are compiled,
/// every conduit that only grants open is closed.
///
/// # Errors
/// An end is not an asset or an address of the plant, has no address, or shares no address family with the other.
pub fn explain(
    plant: &Plant,
    plans: &BTreeMap<GatewayId, Plan>,
    question: &Question,
) -> Result<Explanation, ExplainError> {
    let sources = addresses(plant, &question.source)?;
    let destinations = addresses(plant, &question.destination)?;
    let pairs: Vec<(IpAddr, IpAddr)> = sources
        .iter()
        .flat_map(|source| {
            destinations
                .iter()
                .map(move |destination| (*source, *destination))
        })
        .filter(|(source, destination)| source.is_ipv4() == destination.is_ipv4())
        .collect();
    if pairs.is_empty() {
        return Err(ExplainError::Families);
    }
    let mut answers = Vec::new();
    let mut bridges = Vec::new();
    for plan in plans.values() {
        bridges.extend(
            plan.bridges
                .iter()
                .filter(|bridge| {
                    let ports = [bridge.from.port, bridge.to.port].map(Carried::Tcp);
                    pairs.contains(&(bridge.from.address, bridge.to.address))
                        && ports.contains(&question.transport)
                })
                .map(|bridge| Carries {
                    gateway: plan.gateway.clone(),
                    rule: RuleName {
                        id: bridge.id,
                        conduit: bridge.conduit.clone(),
                        flow: bridge.flow.clone(),
                    },
                    from: bridge.from.clone(),
                    to: bridge.to.clone(),
                    publications: bridge.publications.clone(),
                }),
        );
        for (source, destination) in &pairs {
            for (ingress, egress) in crossings(plan, *source, *destination) {
                let connection = Connection {
                    ingress: ingress.name.clone(),
                    egress: egress.name.clone(),
                    source: *source,
                    destination: *destination,
                    transport: question.transport,
                };
                answers.push(answer(plan, connection));
            }
        }
    }
    for (source, destination) in &pairs {
        let crossed = |answer: &GatewayAnswer| {
            (answer.connection.source, answer.connection.destination) == (*source, *destination)
        };
        let neighbours = |plan: &Plan| {
            let mut sides = plan.interfaces.iter();
            sides.any(|side| side.holds(*source) && side.holds(*destination))
        };
        let judged = answers.iter().any(crossed) || plans.values().any(neighbours);
        if !judged && !is_elsewhere(plant, *source, *destination) {
            for plan in plans.values() {
                answers.extend(from_elsewhere(plan, *source, *destination, question.transport));
            }
        }
    }
    Ok(Explanation {
        question: question.clone(),
        answers,
        bridges,
    })
}

/// What the gateway of `plan` says of a connection that crosses it.
pub fn answer(plan: &Plan, connection: Connection) -> GatewayAnswer {
    let verdict = decide(plan, &connection);
    let operations = match permitted(plan, &connection) {
        Permissions::Only(listed) if verdict.decision == Decision::Allow => {
            let named = listed.iter().flat_map(|(rule, operations)| {
                let by_role = rule.roles.iter().map(|roles| roles.to_string());
                let phrases = operations.phrases().into_iter().chain(by_role);
                phrases.map(|phrase| (RuleName::of(rule), phrase))
            });
            Some(named.collect())
        }
        _ => None,
    };
    let plain_port = match permitted(plan, &connection) {
        _ if verdict.decision != Decision::Allow => None,
        Permissions::InsideTls(rule) => rule.plain_port(),
        Permissions::Only(listed) => listed.first().and_then(|(rule, _)| rule.plain_port()),
        Permissions::Nothing | Permissions::Anything => None,
    };
    let proofs = match &verdict.reason {
        Reason::Rule(name) => {
            let rule = plan.rules.iter().find(|rule| rule.id == name.id);
            rule.map(|rule| plan.proofs(rule, connection.source, connection.destination))
        }
        _ => None,
    };
    GatewayAnswer {
        gateway: plan.gateway.clone(),
        plain_port,
        proofs,
        granted: granted(plan, &connection, verdict.decision),
        connection,
        verdict,
        operations,
    }
}

/// Whether a conduit joins the two that no gateway of the plant enforces: what crosses it passes none of them.
fn is_elsewhere(plant: &Plant, source: IpAddr, destination: IpAddr) -> bool {
    let holds = |zone: &ZoneId, address: IpAddr| {
        let mut networks = plant.zones.get(zone).into_iter().flat_map(|zone| &zone.networks);
        let mut assets = plant.assets.values().filter(|asset| asset.zone == *zone);
        networks.any(|net| net.contains(&address)) || assets.any(|asset| asset.addresses.contains(&address))
    };
    let mut elsewhere = plant
        .conduits
        .values()
        .filter(|conduit| !conduit.enforced_by.is_gateways());
    elsewhere.any(|conduit| {
        let (from, to) = (&conduit.from, &conduit.to);
        (holds(from, source) && holds(to, destination)) || (holds(to, source) && holds(from, destination))
    })
}

/// What a gateway in front of one end says if the other, which none of its sides holds, comes by it: one answer for each
/// decision, by whichever interface.
fn from_elsewhere(
    plan: &Plan,
    source: IpAddr,
    destination: IpAddr,
    transport: Carried,
) -> Vec<GatewayAnswer> {
    let holding = |address| plan.interfaces.iter().find(move |side| side.holds(address));
    let (ingress, egress) = (holding(source), holding(destination));
    let Some(near) = ingress.xor(egress) else {
        return Vec::new();
    };
    let mut answers: Vec<GatewayAnswer> = Vec::new();
    for far in plan.interfaces.iter().filter(|side| side.name != near.name) {
        let side = |own: Option<&PlanInterface>| own.unwrap_or(far).name.clone();
        let connection = Connection {
            ingress: side(ingress),
            egress: side(egress),
            source,
            destination,
            transport,
        };
        let answer = answer(plan, connection);
        if answers
            .iter()
            .all(|other| other.verdict.decision != answer.verdict.decision)
        {
            answers.push(answer);
        }
    }
    answers
}

/// The grants on which an allowed connection hangs; none if some flow that stands open permits it.
fn granted(plan: &Plan, connection: &Connection, decision: Decision) -> Vec<Grant> {
    if decision != Decision::Allow {
        return Vec::new();
    }
    let mut grants = BTreeSet::new();
    for rule in matching(plan, connection) {
        match plan.grants.get(&rule.conduit) {
            None => return Vec::new(),
            Some(those) => grants.extend(those.iter().cloned()),
        }
    }
    grants.into_iter().collect()
}

fn addresses(plant: &Plant, who: &QueryEnd) -> Result<Vec<IpAddr>, ExplainError> {
    match who {
        QueryEnd::Address(address) => Ok(vec![*address]),
        QueryEnd::Asset(id) => {
            let asset = plant
                .assets
                .get(id)
                .ok_or_else(|| ExplainError::UnknownAsset(id.clone()))?;
            if asset.addresses.is_empty() {
                return Err(ExplainError::NoAddress(id.clone()));
            }
            Ok(asset.addresses.clone())
        }
    }
}

/// The pairs of different sides on which the two addresses live.
fn crossings(
    plan: &Plan,
    source: IpAddr,
    destination: IpAddr,
) -> impl Iterator<Item = (&PlanInterface, &PlanInterface)> {
    let sides = move |address| plan.interfaces.iter().filter(move |side| side.holds(address));
    sides(source).flat_map(move |ingress| {
        sides(destination)
            .filter(move |egress| egress.name != ingress.name)
            .map(move |egress| (ingress, egress))
    })
}

/// That a client's TLS ends at a gateway before a server in the plain.
pub fn last_metre(port: u16) -> String {
    format!(
        "only inside TLS, by a device's certificate: it ends at this gateway, and the last metre to the server's port {port} is in the plain"
    )
}

/// What the two ends of a connection prove, in a line.
pub fn proven(client: Proof, server: Proof) -> String {
    format!("the client is known {client}, the server {server}")
}

impl Explanation {
    /// What the answers come to.
    pub fn outcome(&self) -> Outcome {
        let is = |decision| {
            self.answers
                .iter()
                .any(|answer| answer.verdict.decision == decision)
        };
        if self.answers.is_empty() {
            Outcome::NoGateway
        } else if is(Decision::Deny) {
            Outcome::Dropped
        } else if is(Decision::WouldDeny) {
            Outcome::PassesObserved
        } else {
            Outcome::Passes
        }
    }
}

impl fmt::Display for QueryEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asset(asset) => f.pad(asset.as_str()),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question {
            source,
            destination,
            transport,
        } = &self.question;
        let outcome = match self.outcome() {
            Outcome::Passes => "passes",
            Outcome::PassesObserved => "passes, but would be denied if its zones enforced",
            Outcome::Dropped => "is denied",
            Outcome::NoGateway => "is not guarded: no gateway stands between the two",
        };
        write!(f, "{source} to {destination} by {transport} {outcome}.")?;
        if matches!(transport, Carried::Other(1 | 58)) && self.outcome() == Outcome::Dropped {
            f.write_str(
                "\n  ICMP errors are judged by the packet that they quote: one about a permitted connection passes from the \
                 side of its far end; a redirect never does.",
            )?;
        }
        for answer in &self.answers {
            let Connection {
                source, destination, ..
            } = &answer.connection;
            write!(
                f,
                "\n  {}: {source} to {destination}: {}",
                answer.gateway, answer.verdict
            )?;
            for (rule, phrase) in answer.operations.iter().flatten() {
                write!(f, "\n    only: {phrase} ({rule})")?;
            }
            if let Some(port) = answer.plain_port {
                write!(f, "\n    {}", last_metre(port))?;
            }
            if let Some([client, server]) = answer.proofs {
                write!(f, "\n    {}", proven(client, server))?;
            }
            if !answer.granted.is_empty() {
                write!(f, "\n    only during {}", opened_by(&answer.granted))?;
            }
        }
        for carries in &self.bridges {
            write!(
                f,
                "\n  {}: {} is a bridge: the gateway itself carries messages one way, from {} to {}",
                carries.gateway, carries.rule, carries.from, carries.to
            )?;
            for publication in &carries.publications {
                write!(f, "\n    only: {publication}")?;
            }
        }
        Ok(())
    }
}
