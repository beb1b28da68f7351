//! The list as a release brings it, by its approvers' word; and as this gateway gives it back to a coordinator that lost it.
//!
//! A gateway whose disk was set back, or that waited in a cupboard, believes whom it knew then: a coordinator whose key was withdrawn
//! since, too, and that one keeps the list back. But it cannot make a release. So the approvers sign how far the list went when
//! they released, and what is named there counts before anything else of the release is obeyed.

use penstock_policy::release::Anchor;
use penstock_policy::text::sentence;
use penstock_proto::v1::{WithdrawnHeld, WithdrawnProof};
use penstock_proto::withdrawn::{Held, SNAPSHOT_BYTES_MAX, SignedHeld, Withdrawn};

use super::{ListError, NotTaken, PROOF, SUBJECTS_MAX, WithdrawnKeeper};
use crate::store::Records;

impl WithdrawnKeeper {
    /// How far the list goes, so that a coordinator can send what is missing.
    pub fn held(&self) -> WithdrawnHeld {
        let gap = self.lock().gap;
        let list = self.list.borrow().clone();
        let held = match gap {
            true => Withdrawn::default().held(),
            false => list.held(),
        };
        WithdrawnHeld {
            number: held.number,
            digest: held.digest.0.to_vec().into(),
            unproven: !list.is_empty() && self.proof(list.held()).is_none(),
        }
    }

    /// All of the list with the authority's signature over how far it goes, for a coordinator that lacks some of it; `None`: this gateway cannot prove it.
    pub fn prove(&self) -> Option<WithdrawnProof> {
        let list = self.list.borrow().clone();
        let proof = self.proof(list.held())?;
        Some((list.snapshot(), proof).into())
    }

    fn proof(&self, held: Held) -> Option<SignedHeld> {
        let proof = self.lock().proof.clone()?;
        let identity = self.identity.borrow().clone()?;
        let trust = identity.plant_trust();
        let proved = proof.verify(trust.plant, trust.roots).ok()?;
        (proved == held).then_some(proof)
    }

    /// Takes the list that a release names (`how`, for the trail), which enough of its approvers signed: what came with it, or else it is a fault
    /// that this gateway knows less, until a coordinator brings the rest.
    pub async fn learn(&self, anchor: Anchor, brought: &[u8], how: &str) {
        let named = Held {
            number: anchor.number,
            digest: anchor.digest,
        };
        let refused = match brought.is_empty() {
            true => None,
            false => self.take_snapshot(named, brought.to_vec(), how).await.err(),
        };
        if self.list.borrow().held().number >= anchor.number {
            return;
        }
        let why = refused.map_or_else(String::new, |why| {
            format!("; what came with it is not used: {}", sentence(&why))
        });
        let words = format!(
            "{how} came a release whose approvers know of withdrawn keys up to number {}, and this gateway does up to {}{why}. All of the list is asked for in the next session; a coordinator that keeps it back is one to look into",
            anchor.number,
            self.list.borrow().held().number
        );
        self.change(|state| {
            state.gap = true;
            state.lacks = Some((anchor.number, words));
        });
    }

    async fn take_snapshot(&self, named: Held, brought: Vec<u8>, how: &str) -> Result<String, NotTaken> {
        if brought.len() > SNAPSHOT_BYTES_MAX {
            return Err(ListError::TooLong(brought.len()).into());
        }
        let put = move |known: &Withdrawn| {
            let brought = Withdrawn::from_snapshot(&brought, named)?;
            let mut together = known.clone();
            let news = together.take_snapshot(&brought);
            match together.len() > SUBJECTS_MAX {
                true => Err(NotTaken::TooMany(together.len())),
                false => Ok((together, news, None)),
            }
        };
        self.put(how, put).await
    }
}

/// Keeps the proof; without it, a coordinator is asked for another one.
pub(super) fn save_proof(store: &mut dyn Records, proof: Option<&SignedHeld>) {
    // Bytes: nothing that JSON cannot say.
    if let Err(error) = store.save(PROOF, &serde_json::to_vec(&proof).unwrap_or_default()) {
        tracing::warn!(error = %sentence(&error), "the proof of how far the list of withdrawn keys goes is not kept");
    }
}
