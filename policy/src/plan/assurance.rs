//! How well the ends of flows prove who they are at a gateway, and what its plan denies since they prove too little.
//!
//! What an end proves is read off the plan itself, so that it is what the gateway checks, and not what a record claims:
//! addresses by side, MAC addresses ([`Plan::bound`]), what another gateway binds ([`Tunnel::vouched`](super::Tunnel)), certificates.
//! A certificate counts only where it is asked for always: on a flow that passes unread while no agent lives, the address is all.
//!
//! A flow whose end proves less than its conduit asks for is in no rule, wholly or for that end: nothing else could
//! permit it by mistake. Between zones that only observe, what the gateway itself carries, or whose TLS it ends, stays in force all the same. It stands in [`Plan::unproven`], so that a denial can say why.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Broker, Endpoint, Hardware, Plan, PlanInterface, Rule};
use crate::ids::{ConduitId, FlowId, FlowName};
use crate::terms::{Assurance, OnAgentLoss, Proof, Tls, Transport};

/// Of the two ends of a flow, one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowSide {
    /// Who opens it; of a bridge, the broker that messages are taken from.
    Source,
    /// To whom; of a bridge, the broker that they are given to.
    Destination,
}

/// A declared flow, which the plan permits only between such of its ends as prove what its conduit asks for: perhaps between none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unproven {
    /// Its number.
    pub id: FlowId,
    /// Its conduit.
    pub conduit: ConduitId,
    /// Its name there.
    pub flow: FlowName,
    /// What the conduit asks of both ends.
    pub minimum: Assurance,
    /// Who may open it, as declared.
    pub sources: Vec<Endpoint>,
    /// To whom, as declared.
    pub destinations: Vec<Endpoint>,
    /// How it is carried.
    pub transport: Transport,
    /// Its loss hurts the process.
    pub must_flow: bool,
    /// The gateway itself would carry it from the one broker to the other, and forward nothing.
    pub bridged: bool,
    /// The ends that prove less; never empty.
    pub weak: Vec<WeakEnd>,
}

/// An end that proves less than its conduit asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeakEnd {
    /// Which end.
    pub side: FlowSide,
    /// The end, as the flow names it.
    pub end: Endpoint,
    /// What it proves.
    pub proof: Proof,
}

impl Unproven {
    /// The ends that stand in the way of a connection between these addresses.
    pub fn in_the_way(&self, source: IpAddr, destination: IpAddr) -> impl Iterator<Item = &WeakEnd> {
        self.weak.iter().filter(move |weak| {
            let address = match weak.side {
                FlowSide::Source => source,
                FlowSide::Destination => destination,
            };
            weak.end.network.contains(&address)
        })
    }
}

impl Plan {
    /// What a network, most often one address, proves by being where it is: the least of what it proves on the sides that hold it.
    pub fn address_proof(&self, network: IpNet) -> Proof {
        if network.prefix_len() != network.max_prefix_len() {
            return Proof::Address;
        }
        let holding = self.interfaces.iter().filter(|side| side.holds(network.addr()));
        let proofs = holding.map(|side| self.proof_on(side, network.addr()));
        proofs.min().unwrap_or(Proof::Address)
    }

    fn proof_on(&self, side: &PlanInterface, address: IpAddr) -> Proof {
        let mut tunnels = self.tunnels.iter().flat_map(|tunnels| &tunnels.peers);
        if let Some(tunnel) = tunnels.find(|tunnel| tunnel.device == side.name) {
            return match tunnel.vouched.contains(&address) {
                true => Proof::Tunnel,
                false => Proof::Address,
            };
        }
        let bound = self.bound.get(&side.name);
        if bound.is_some_and(|bound| bound.iter().any(|one| one.address == address)) {
            return Proof::Mac;
        }
        match side.networks.as_slice() {
            [only] if *only == IpNet::from(address) => Proof::Port,
            _ => Proof::Address,
        }
    }

    /// What an address proves that was seen on a side, where it need not belong.
    pub fn seen_proof(&self, interface: &str, address: IpAddr) -> Proof {
        let side = self.interfaces.iter().find(|side| side.name == interface);
        side.filter(|side| side.holds(address))
            .map_or(Proof::Address, |side| self.proof_on(side, address))
    }

    /// What a client of a rule's proves, who is in `network`.
    pub fn client_proof(&self, rule: &Rule, network: IpNet) -> Proof {
        match &rule.tls {
            Some(_) if rule.on_agent_loss == OnAgentLoss::Block => Proof::PlantCertificate,
            _ => self.address_proof(network),
        }
    }

    /// What a server of a rule's proves.
    pub fn server_proof(&self, rule: &Rule, end: &Endpoint) -> Proof {
        match &rule.tls {
            Some(tls)
                if rule.on_agent_loss == OnAgentLoss::Block && tls.plain_port.is_none() && !end.is_zone() =>
            {
                certified(tls)
            }
            _ => self.address_proof(end.network),
        }
    }

    /// What a broker of a bridge proves.
    pub fn broker_proof(&self, broker: &Broker) -> Proof {
        broker
            .proof()
            .max(self.address_proof(IpNet::from(broker.address)))
    }

    /// What the two ends of a connection prove that this rule permits, the client's first; the least, where several of the rule's ends
    /// hold an address.
    pub fn proofs(&self, rule: &Rule, source: IpAddr, destination: IpAddr) -> [Proof; 2] {
        let client = self.client_proof(rule, IpNet::from(source));
        let host = |end: &Endpoint| Endpoint {
            name: end.name.clone(),
            network: IpNet::from(destination),
        };
        let servers = rule
            .destinations
            .iter()
            .filter(|end| end.network.contains(&destination));
        let server = servers.map(|end| self.server_proof(rule, &host(end))).min();
        [client, server.unwrap_or(Proof::Address)]
    }

    /// The least that an end of each permitted flow proves, by number, bridges among them.
    pub fn least_proofs(&self) -> impl Iterator<Item = (FlowId, Proof)> {
        let rules = self.rules.iter().map(|rule| {
            let clients =
                meeting(&rule.sources, &rule.destinations).map(|end| self.client_proof(rule, end.network));
            let servers = meeting(&rule.destinations, &rule.sources).map(|end| self.server_proof(rule, end));
            (rule.id, clients.chain(servers).min().unwrap_or(Proof::Address))
        });
        let bridges = self.bridges.iter().map(|bridge| {
            let proofs = [&bridge.from, &bridge.to].map(|broker| self.broker_proof(broker));
            (bridge.id, proofs.into_iter().min().unwrap_or(Proof::Address))
        });
        rules.chain(bridges)
    }

    /// The ends of a rule that prove less than `minimum`, but for those that meet nobody of their address family.
    pub(crate) fn weak_ends(&self, rule: &Rule, minimum: Assurance) -> BTreeSet<WeakEnd> {
        let clients = meeting(&rule.sources, &rule.destinations).map(|end| WeakEnd {
            side: FlowSide::Source,
            end: end.clone(),
            proof: self.client_proof(rule, end.network),
        });
        let servers = meeting(&rule.destinations, &rule.sources).map(|end| WeakEnd {
            side: FlowSide::Destination,
            end: end.clone(),
            proof: self.server_proof(rule, end),
        });
        let ends = clients.chain(servers);
        ends.filter(|end| end.proof.assurance() < minimum).collect()
    }

    /// Whether it has to do with assurance at all, so that only an agent that knows of it may take it.
    pub fn weighs(&self) -> bool {
        let mut tunnels = self.tunnels.iter().flat_map(|tunnels| &tunnels.peers);
        !self.bound.is_empty()
            || !self.unproven.is_empty()
            || tunnels.any(|tunnel| !tunnel.vouched.is_empty())
    }

    /// The MAC address that packets of an address must come from on a side.
    pub fn bound_to(&self, interface: &str, address: IpAddr) -> Option<Hardware> {
        let bound = self.bound.get(interface)?;
        bound.iter().find(|one| one.address == address).copied()
    }
}

impl Broker {
    /// What it proves by the way in which it is spoken to.
    pub fn proof(&self) -> Proof {
        self.tls.as_ref().map_or(Proof::Address, certified)
    }
}

impl Endpoint {
    /// Whether it is all that lives in a zone, and not one asset.
    pub fn is_zone(&self) -> bool {
        self.name.starts_with("zone:")
    }
}

/// The ends that have somebody of their address family at the other end.
fn meeting<'a>(ends: &'a [Endpoint], others: &'a [Endpoint]) -> impl Iterator<Item = &'a Endpoint> {
    let four = |end: &Endpoint| end.network.addr().is_ipv4();
    ends.iter()
        .filter(move |end| others.iter().any(|other| four(other) == four(end)))
}

fn certified(tls: &Tls) -> Proof {
    match tls.server_authorities {
        Some(_) => Proof::ForeignCertificate,
        None => Proof::PlantCertificate,
    }
}
