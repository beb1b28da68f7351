//! From a plant to a release: all plans compiled, one statement over them.
//!
//! The same plant and draft give the same bytes, so that an approver's machine and the coordinator can each
//! build the release anew and compare, instead of believing its author.

use std::collections::BTreeMap;

use super::statement::{
    Anchor, STATEMENT_FORMAT, STATEMENT_FORMAT_ANCHORED, STATEMENT_FORMAT_SSH, STATEMENT_FORMAT_TRAILS,
    Statement, TrailsAnchor, leaf_bytes,
};
use crate::compile::{CompileError, compile_all};
use crate::ids::{Digest, GatewayId, OperatorId, Revision};
use crate::merkle::{Hash, Tree, leaf_hash};
use crate::model::{Plant, PublicKey};

/// What a release says beyond the plant itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its number: higher than the parent's, and never used before.
    pub revision: Revision,
    /// Digest of the statement that it follows; `None` for the first.
    pub parent: Option<Digest>,
    /// Heads of other histories that it follows too; see [`Statement::replaces`].
    pub replaces: Vec<Digest>,
    /// Digest of the document that the plant was read from.
    pub document_digest: Digest,
    /// Who proposes it.
    pub author: OperatorId,
    /// Where the change was asked for.
    pub ticket: Option<String>,
    /// Why.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub created_ms: u64,
    /// See [`Statement::emergency`].
    pub emergency: bool,
    /// See [`Statement::withdrawn`].
    pub withdrawn: Option<Anchor>,
    /// See [`Statement::trust`].
    pub trust: Option<Anchor>,
    /// See [`Statement::trails`].
    pub trails: Option<TrailsAnchor>,
}

impl Draft {
    /// What a statement was drafted as, to build the same release anew.
    pub fn of(statement: &Statement) -> Self {
        Self {
            revision: statement.revision,
            parent: statement.parent,
            replaces: statement.replaces.clone(),
            document_digest: statement.document_digest,
            author: statement.author.clone(),
            ticket: statement.ticket.clone(),
            reason: statement.reason.clone(),
            created_ms: statement.created_ms,
            emergency: statement.emergency,
            withdrawn: statement.withdrawn,
            trust: statement.trust,
            trails: statement.trails,
        }
    }
}

/// Why no release can be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A plan cannot be compiled.
    #[error("the release cannot be built")]
    Compile(#[from] CompileError),
    /// The statement would be refused by every gateway.
    #[error("the release would be refused everywhere: {0}")]
    Refused(String),
}

/// A release with all its plans.
#[derive(Debug, Clone)]
pub struct Release {
    /// What approvers sign.
    pub statement: Statement,
    /// Each gateway's plan, exact bytes.
    pub plans: BTreeMap<GatewayId, Vec<u8>>,
    /// The plans' order, by which a leaf is found without counting.
    order: Vec<GatewayId>,
    tree: Tree,
}

/// One gateway's part of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedPlan<'a> {
    /// The plan's exact bytes.
    pub plan: &'a [u8],
    /// Its leaf's position.
    pub leaf_index: u64,
    /// Sibling hashes from the leaf to the root.
    pub proof: Vec<Hash>,
}

/// Compiles every gateway's plan and states the release over them.
///
/// # Errors
/// The plant cannot be compiled, or every gateway would refuse the release.
pub fn build(plant: &Plant, draft: Draft) -> Result<Release, BuildError> {
    let plans: BTreeMap<_, _> = compile_all(plant)?
        .into_iter()
        .map(|(gateway, plan)| (gateway, plan.to_bytes()))
        .collect();
    let tree = tree(draft.revision, &plans);
    let statement = Statement {
        format: match (draft.trails, draft.withdrawn.or(draft.trust)) {
            (Some(_), _) => STATEMENT_FORMAT_TRAILS,
            (None, Some(_)) => STATEMENT_FORMAT_ANCHORED,
            (None, None) => format_of(plant),
        }
        .to_owned(),
        plant: plant.id.clone(),
        revision: draft.revision,
        parent: draft.parent,
        replaces: draft.replaces,
        document_digest: draft.document_digest,
        plans_root: Digest(tree.root()),
        gateways: tree.size(),
        approvers: plant.approvers.clone(),
        author: draft.author,
        ticket: draft.ticket,
        reason: draft.reason,
        created_ms: draft.created_ms,
        emergency: draft.emergency,
        withdrawn: draft.withdrawn,
        trust: draft.trust,
        trails: draft.trails,
    };
    statement.well_formed().map_err(BuildError::Refused)?;
    Ok(Release {
        order: plans.keys().cloned().collect(),
        statement,
        plans,
        tree,
    })
}

impl Release {
    /// A release that was built before, from its stored parts; `None` if the plans are not the statement's.
    pub fn from_parts(statement: Statement, plans: BTreeMap<GatewayId, Vec<u8>>) -> Option<Self> {
        let tree = tree(statement.revision, &plans);
        let same = Digest(tree.root()) == statement.plans_root && tree.size() == statement.gateways;
        same.then(|| Self {
            order: plans.keys().cloned().collect(),
            statement,
            plans,
            tree,
        })
    }

    /// A gateway's plan with its proof; `None` if the release has none for it.
    pub fn plan(&self, gateway: &GatewayId) -> Option<ReleasedPlan<'_>> {
        let plan = self.plans.get(gateway)?;
        let leaf_index = self.order.binary_search(gateway).ok()? as u64;
        Some(ReleasedPlan {
            plan,
            leaf_index,
            proof: self.tree.proof(leaf_index)?,
        })
    }

    /// All gateways' plans with their proofs, in order of names: what a push to the whole fleet needs.
    pub fn offers(&self) -> impl Iterator<Item = (&GatewayId, ReleasedPlan<'_>)> {
        self.plans
            .iter()
            .zip(0_u64..)
            .filter_map(|((gateway, plan), leaf_index)| {
                let proof = self.tree.proof(leaf_index)?;
                Some((
                    gateway,
                    ReleasedPlan {
                        plan,
                        leaf_index,
                        proof,
                    },
                ))
            })
    }
}

/// The format of a plant's releases, by the keys of all its people: also those who may override a gateway stand in plans.
fn format_of(plant: &Plant) -> &'static str {
    let approvers = plant.approvers.people.values().map(|person| &person.key);
    let overriders = plant.break_glass.iter().flat_map(|those| those.people.values());
    match approvers
        .chain(overriders.map(|person| &person.key))
        .all(PublicKey::is_plain)
    {
        true => STATEMENT_FORMAT,
        false => STATEMENT_FORMAT_SSH,
    }
}

/// The tree whose leaves are the gateways' plans in order of their names.
fn tree(revision: Revision, plans: &BTreeMap<GatewayId, Vec<u8>>) -> Tree {
    Tree::new(
        plans
            .iter()
            .map(|(gateway, plan)| leaf_hash(&leaf_bytes(gateway, revision, Digest::of(plan))))
            .collect(),
    )
}
