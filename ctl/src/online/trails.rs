//! How far the coordinator's trails go, verified by the plant's roots, and whether they still begin with what others hold of them: the
//! release before, which its approvers signed, and this login. So each release names a head of the trails that its author and its approvers
//! compared, and none of them has to believe the coordinator.
//!
//! Nothing here keeps a policy from being released: what does not fit is left out of a release, and said.

use std::collections::BTreeMap;

use penstock_policy::ids::{Digest, Revision};
use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::TreeState;
use penstock_policy::release::{Statement, TrailsAnchor};
use penstock_proto::audit::tree_head::{TreeHead, TreeHeadError};
use penstock_proto::tls::times::instant;
use penstock_proto::v1::{ProveTrailsRequest, SignedRelease, TrailsProof, TreeConsistency};
use rustls::pki_types::CertificateDer;
use tonic::Code;

use super::{Online, malformed, refused};
use crate::failure::Failure;
use crate::known::KnownPlant;

/// Proofs in one answer of a coordinator.
const PROOFS_MAX: usize = 256;

/// The tree over all trails as the coordinator has it now.
pub(super) struct ServedTree {
    head: TreeHead,
    /// As the coordinator signed it.
    note: Vec<u8>,
    proofs: BTreeMap<u64, Vec<Hash>>,
    /// Heads that external witnesses cosigned, as the coordinator has them.
    pub(super) cosigned: Vec<Vec<u8>>,
}

/// What somebody else holds of the trails.
pub(super) struct HeldHead {
    /// Who, in words.
    by: String,
    tree: TreeState,
}

impl ServedTree {
    fn begins_with(&self, earlier: &TreeState) -> bool {
        let proof = self.proofs.get(&earlier.size);
        proof.is_some_and(|proof| self.head.tree.continues(earlier, proof))
    }

    /// Whose head the tree does not begin with, if there is such; in words.
    pub(super) fn contradicts(&self, held: &[HeldHead]) -> Option<String> {
        let wrong = held.iter().find(|held| !self.begins_with(&held.tree))?;
        Some(format!(
            "the coordinator's trails, {} blocks by now, do not begin with the {} blocks that {}: blocks were taken out or altered since then, \
             or the coordinator was restored from an older backup",
            self.head.tree.size, wrong.tree.size, wrong.by
        ))
    }

    /// What a release says of it; `None`: there is nothing in the trails.
    pub(super) fn anchor(&self, again: bool) -> Option<TrailsAnchor> {
        let TreeState { size, root } = self.head.tree;
        (size > 0).then_some(TrailsAnchor {
            size,
            root: Digest(root),
            again,
        })
    }
}

/// The newest of these releases that names a head, the oldest first; what they say is nobody's word but the approvers'.
fn newest_named<'a>(chain: impl DoubleEndedIterator<Item = &'a SignedRelease>) -> Option<Statement> {
    let read = |signed: &SignedRelease| Statement::from_bytes(&signed.statement).ok();
    chain
        .rev()
        .filter_map(read)
        .find(|statement| statement.trails.is_some())
}

/// What a release says of the trails, for somebody who compares.
fn named_by(revision: Revision, head: &TrailsAnchor) -> HeldHead {
    HeldHead {
        by: format!("release {revision} names"),
        tree: head.tree(),
    }
}

/// What the releases say on top of which another one is made: the newest of their heads, and that of the release which this person verified last.
pub(super) fn named_before<'a>(
    chain: impl DoubleEndedIterator<Item = &'a SignedRelease>,
    known: &KnownPlant,
) -> Result<Vec<HeldHead>, Failure> {
    let newest = newest_named(chain);
    let verified = known.verified()?.map(|verified| verified.statement);
    let mut held: Vec<HeldHead> = Vec::new();
    for statement in newest.into_iter().chain(verified) {
        let Some(head) = &statement.trails else { continue };
        if held.iter().all(|one| one.tree != head.tree()) {
            held.push(named_by(statement.revision, head));
        }
    }
    Ok(held)
}

impl Online {
    /// What this login saw of the trails.
    pub(super) fn seen_before(&self) -> Result<Option<HeldHead>, Failure> {
        let seen = self.contexts.seen_tree(&self.login.name)?;
        Ok(seen.map(|seen| HeldHead {
            by: format!(
                "{} signed for at {}, and this login saw",
                seen.origin,
                instant(seen.time_ms)
            ),
            tree: seen.tree,
        }))
    }

    /// The tree as it is, with proofs for what others hold; or why the coordinator shows none, in words: no release waits for that.
    ///
    /// # Errors
    /// The answer is not signed by a coordinator of the plant.
    pub(super) async fn served_tree(
        &mut self,
        held: &[HeldHead],
    ) -> Result<Result<ServedTree, String>, Failure> {
        let earlier = held.iter().map(|held| held.tree.size).collect();
        let request = ProveTrailsRequest { size: 0, earlier };
        let answer = match self.client.prove_trails(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => {
                return Ok(Err(
                    "its software is from before that: update the coordinator".to_owned()
                ));
            }
            Err(status) => return Ok(Err(refused(&status).message)),
        };
        let TrailsProof {
            head,
            proofs,
            cosigned,
        } = answer;
        let head = head.ok_or_else(|| malformed("the head of the trails is missing"))?;
        let certificates: Vec<_> = head
            .certificates
            .iter()
            .map(|certificate| CertificateDer::from(certificate.to_vec()))
            .collect();
        let roots = self.contexts.roots(&self.login.name)?;
        let plant = &self.login.context.plant;
        let verified = TreeHead::verify(&head.note, &certificates, plant, &roots);
        let verified = verified.map_err(|error| unsigned(&error))?;
        Ok(Ok(ServedTree {
            head: verified.head,
            note: head.note.to_vec(),
            proofs: proofs.iter().filter_map(read_proof).collect(),
            cosigned: cosigned.iter().map(|note| note.to_vec()).collect(),
        }))
    }

    /// Proofs that the tree of this size begins with its first leaves, of these numbers; none, where the coordinator's software is from before them.
    pub(super) async fn tree_proofs(
        &mut self,
        size: u64,
        earlier: &[u64],
    ) -> Result<Vec<TreeConsistency>, Failure> {
        let mut proofs = Vec::with_capacity(earlier.len());
        for earlier in earlier.chunks(PROOFS_MAX) {
            let earlier = earlier.to_vec();
            match self
                .client
                .prove_trails(ProveTrailsRequest { size, earlier })
                .await
            {
                Ok(answer) => proofs.extend(answer.into_inner().proofs),
                Err(status) if status.code() == Code::Unimplemented => break,
                Err(status) => return Err(refused(&status)),
            }
        }
        Ok(proofs)
    }

    /// Remembers how far the trails go, for the next time.
    pub(super) fn keep_seen(&self, tree: &ServedTree) -> Result<(), Failure> {
        Ok(self.contexts.keep_tree(&self.login.name, &tree.note)?)
    }

    /// Compares the head that a release names with the coordinator's trails, with what the releases before it (`chain`) name, and with what this
    /// login saw; with the tree to be remembered once the release is signed, and what is wrong although nothing false is signed.
    ///
    /// # Errors
    /// The release names what the trails do not begin with, or keeps silent about trails that begin again.
    pub(super) async fn compare_trails(
        &mut self,
        statement: &Statement,
        chain: &[SignedRelease],
        known: &KnownPlant,
    ) -> Result<(Option<ServedTree>, Option<String>), Failure> {
        let before = named_before(chain.iter(), known)?;
        let own: Vec<HeldHead> = statement
            .trails
            .iter()
            .map(|head| named_by(statement.revision, head))
            .collect();
        let mut held: Vec<HeldHead> = before.into_iter().chain(self.seen_before()?).collect();
        let others = held.len();
        held.extend(own);
        let tree = match self.served_tree(&held).await? {
            Ok(tree) => tree,
            Err(why) => {
                let remark = format!(
                    "▲ the coordinator shows no head of its trails, so that none was compared: {why}"
                );
                return Ok((None, Some(remark)));
            }
        };
        let (others, own) = held.split_at(others);
        if let Some(why) = tree.contradicts(own) {
            return Err(rewritten(why).help(
                "do not sign it; its author has to propose it again, and whoever runs the coordinator has to say what happened to its trails",
            ));
        }
        let again = statement.trails.is_some_and(|head| head.again);
        match (tree.contradicts(others), &statement.trails) {
            (None, _) => Ok((Some(tree), None)),
            (Some(_), Some(_)) if again => Ok((Some(tree), None)),
            (Some(why), Some(_)) => Err(rewritten(why).help(
                "do not sign it: it does not say that the trails begin again. If the coordinator was restored from a backup, its author proposes it with \
                 --again; if not, keep everything as it is (docs/evidence.md)",
            )),
            (Some(why), None) => Ok((None, Some(format!("▲ {why}. The release says nothing of the trails, and can be signed")))),
        }
    }
}

fn rewritten(why: String) -> Failure {
    Failure::altered("trail-rewritten", why)
}

fn unsigned(error: &TreeHeadError) -> Failure {
    Failure::altered(
        "trail-unsigned",
        "the coordinator's head of its trails does not count",
    )
    .caused_by(error)
}

/// The size and the path of a proof; `None`: it is none, and proves nothing.
fn read_proof(proof: &TreeConsistency) -> Option<(u64, Vec<Hash>)> {
    let path = proof.path.iter().map(|hash| hash.as_ref().try_into().ok());
    Some((proof.earlier, path.collect::<Option<_>>()?))
}
