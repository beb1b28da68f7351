//! What people sign: the releases of a plant whose gateways have one rule each, another one in each release, and beside it a conduit
//! that grants of remote access open, at other times in each release.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use penstock_policy::ids::{ApproverId, ConduitId, Digest, FlowId, GatewayId, OperatorId, PlantId, Revision};
use penstock_policy::merkle::{Tree, leaf_hash};
use penstock_policy::model::{Approver, ApproverSet};
use penstock_policy::plan::{Capability, Endpoint, Grant, PLAN_FORMAT, Plan, Rule};
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{STATEMENT_FORMAT, Statement, Trust, leaf_bytes};
use penstock_policy::terms::{Answers, GatewayMode, OnAgentLoss, OnDrift, OnRefusal, PortRange, Transport};
use penstock_proto::convert::PolicyMark;
use penstock_proto::v1::{self, PolicyOffer, SignedRelease};

/// Gateways of the plant.
pub(crate) const GATEWAYS: usize = 3;
/// Releases that are signed in a world's time at most.
pub(crate) const RELEASES_MAX: usize = 14;

/// The time of day at which a world begins.
pub(crate) const WALL_MS: u64 = 1_800_000_000_000;
/// The number of the flow that grants open.
pub(crate) const GRANTED_FLOW: FlowId = FlowId(2);

/// The conduit that grants open.
pub(crate) fn granted_conduit() -> ConduitId {
    ConduitId::new("service").unwrap()
}

/// The spans for which a release opens that conduit, in the world's time: some begin before another ends, one release has none of
/// what the one before has, and the next has them shorter.
pub(crate) fn spans(revision: u64) -> Vec<(Duration, Duration)> {
    if revision.is_multiple_of(4) {
        return Vec::new();
    }
    let visits = (0..6).filter(|visit| !(revision + visit).is_multiple_of(3));
    visits
        .map(|visit| {
            let from = 50 + visit * 480 + revision % 5 * 40;
            let lasts = 90 + (revision * 131 + visit * 57) % 500;
            (Duration::from_secs(from), Duration::from_secs(from + lasts))
        })
        .collect()
}

/// A signed release and its plans.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) revision: u64,
    pub(crate) digest: Digest,
    signed: SignedRelease,
    plans: Vec<Vec<u8>>,
    tree: Tree,
}

/// All releases, the oldest first; signed once for all worlds.
pub(crate) fn releases() -> &'static [Release] {
    static RELEASES: OnceLock<Vec<Release>> = OnceLock::new();
    RELEASES.get_or_init(|| {
        let mut all: Vec<Release> = Vec::new();
        for number in 1..=RELEASES_MAX as u64 {
            let parent = all.last().map(|release| release.digest);
            all.push(sign(number, parent, 1));
        }
        all
    })
}

pub(crate) fn gateway(index: usize) -> GatewayId {
    GatewayId::new(format!("gw-{index}")).unwrap()
}

fn plant() -> PlantId {
    PlantId::new("water").unwrap()
}

fn approvers() -> ApproverSet {
    let anna = Approver {
        key: ApproverKey::from_seed(&[1; 32]).public(),
        role: None,
    };
    ApproverSet {
        emergency_threshold: None,
        threshold: 1,
        people: BTreeMap::from([(ApproverId::new("anna").unwrap(), anna)]),
    }
}

/// What a gateway is enrolled with.
pub(crate) fn first_trust(index: usize) -> Trust {
    Trust {
        plant: plant(),
        gateway: gateway(index),
        approvers: approvers(),
        floor: Revision(0),
        current: None,
    }
}

/// The plan of a gateway in a release. One port is its own: a plan that is in force says of which release it is.
pub(crate) fn plan(index: usize, revision: u64) -> Plan {
    let end = |name: &str, address: [u8; 4]| Endpoint {
        name: name.into(),
        network: std::net::IpAddr::from(address).into(),
    };
    let rule = |id, conduit: &str, flow: &str, port| Rule {
        id,
        conduit: conduit.parse().unwrap(),
        flow: flow.parse().unwrap(),
        sources: vec![end("scada", [10, 0, 1, 2])],
        destinations: vec![end("plc", [10, 0, 2, 9])],
        transport: Transport::Tcp(vec![PortRange::single(port)]),
        must_flow: false,
        on_agent_loss: OnAgentLoss::Block,
        operations: None,
        on_refusal: OnRefusal::Answer,
        roles: None,
        answers: Answers::Strict,
        tls: None,
    };
    let mut rules = vec![rule(FlowId(1), "telemetry", "poll", 1000 + revision as u16)];
    let mut requires = BTreeSet::from([Capability(Capability::KERNEL.to_owned())]);
    let wall_ms = |at: Duration| WALL_MS + at.as_millis() as u64;
    let grant = |(visit, (from, until)): (usize, (Duration, Duration))| Grant {
        name: format!("visit-{visit}").parse().unwrap(),
        person: "Carla".to_owned(),
        from_ms: wall_ms(from),
        until_ms: wall_ms(until),
    };
    let grants: Vec<_> = spans(revision).into_iter().enumerate().map(grant).collect();
    let grants = match grants.is_empty() {
        // A conduit without grants would stand open.
        true => BTreeMap::new(),
        false => {
            rules.push(rule(GRANTED_FLOW, "service", "vnc", 5900));
            requires.insert(Capability(Capability::REMOTE_ACCESS.to_owned()));
            BTreeMap::from([(granted_conduit(), grants)])
        }
    };
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: plant(),
        gateway: gateway(index),
        mode: GatewayMode::Routed,
        requires,
        on_drift: OnDrift::Repair,
        interfaces: Vec::new(),
        management: None,
        rules,
        bridges: Vec::new(),
        grants,
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: BTreeSet::new(),
        excepted: BTreeMap::new(),
    }
}

/// A release that somebody with the key of this seed signs as Anna.
fn sign(revision: u64, parent: Option<Digest>, key: u8) -> Release {
    let plans: Vec<_> = (0..GATEWAYS)
        .map(|index| plan(index, revision).to_bytes())
        .collect();
    let leaf = |(index, plan): (usize, &Vec<u8>)| {
        leaf_hash(&leaf_bytes(&gateway(index), Revision(revision), Digest::of(plan)))
    };
    let tree = Tree::new(plans.iter().enumerate().map(leaf).collect());
    let bytes = Statement {
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        format: STATEMENT_FORMAT.to_owned(),
        plant: plant(),
        revision: Revision(revision),
        parent,
        replaces: Vec::new(),
        document_digest: Digest::of(b"document"),
        plans_root: Digest(tree.root()),
        gateways: GATEWAYS as u64,
        approvers: approvers(),
        author: OperatorId::new("carla").unwrap(),
        ticket: None,
        reason: "test".to_owned(),
        created_ms: 1,
    }
    .to_bytes();
    let anna = ApproverId::new("anna").unwrap();
    let signature = v1::Signature {
        approver: anna.to_string(),
        signature: ApproverKey::from_seed(&[key; 32])
            .sign(anna, &bytes)
            .unwrap()
            .bytes()
            .to_vec()
            .into(),
        ..Default::default()
    };
    Release {
        revision,
        digest: Digest::of(&bytes),
        signed: SignedRelease {
            statement: bytes.into(),
            signatures: vec![signature],
        },
        plans,
        tree,
    }
}

/// What nobody of this plant signed, as the release after `parent`.
pub(crate) fn forged(index: usize, parent: Option<&Release>) -> PolicyOffer {
    let revision = parent.map_or(1, |parent| parent.revision + 1);
    sign(revision + 40, parent.map(|parent| parent.digest), 9).offer(index, &[])
}

impl Release {
    /// What of it is a gateway's.
    pub(crate) fn mark(&self, index: usize) -> PolicyMark {
        PolicyMark {
            revision: Revision(self.revision),
            plan: Digest::of(&self.plans[index]),
            statement: Some(self.digest),
        }
    }

    /// As a gateway is offered it that has to follow these releases before.
    pub(crate) fn offer(&self, index: usize, between: &[Release]) -> PolicyOffer {
        let proof = self.tree.proof(index as u64).unwrap();
        PolicyOffer {
            release: Some(self.signed.clone()),
            plan: self.plans[index].clone().into(),
            leaf_index: index as u64,
            inclusion_proof: proof.into_iter().map(|hash| hash.to_vec().into()).collect(),
            chain: between.iter().map(|release| release.signed.clone()).collect(),
            order: None,
            ..PolicyOffer::default()
        }
    }
}

/// The offer of release number `revision` to a gateway that verified the one with this digest last.
pub(crate) fn offer(index: usize, revision: u64, verified: Option<Digest>) -> PolicyOffer {
    let all = &releases()[..revision as usize];
    let (newest, before) = all.split_last().unwrap();
    let known = before.iter().position(|release| Some(release.digest) == verified);
    newest.offer(index, &before[known.map_or(0, |known| known + 1)..])
}

/// The plan's release, by what it permits; `None`: nobody signed such a plan for this gateway.
pub(crate) fn revision_of(index: usize, held: &Arc<Plan>) -> Option<u64> {
    releases()
        .iter()
        .map(|release| release.revision)
        .find(|revision| plan(index, *revision).opening(held.open.clone()) == **held)
}

/// The release whose statement has this digest, as a disk names it.
pub(crate) fn revision_named(digest: &[u8]) -> Option<u64> {
    let named = |release: &&Release| release.digest.0 == digest;
    releases().iter().find(named).map(|release| release.revision)
}

/// The floor in what a disk has as believed.
pub(crate) fn floor_named(trust: &[u8]) -> u64 {
    serde_json::from_slice::<Trust>(trust).unwrap().floor.0
}
