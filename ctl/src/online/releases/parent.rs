//! What a release changes against the one on top of which it was made, by its own statement: what `release show` compares.
//!
//! The statement names its parent by digest, and the parent's statement its documents: so what is compared is what the author
//! compared, whoever brings it. Whether any of it holds is not asked here (`standing` does, before anything is signed).

use penstock_policy::ids::Digest;
use penstock_proto::v1::ListReleasesRequest;

use super::super::{Online, digest, refused};
use super::ReleaseComparison;
use super::fetched::{FetchedRelease, plant_of};
use super::standing::Base;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::known::KnownPlant;
use crate::loading::{self, LoadedPlant};
use crate::offline::changes::Changes;
use crate::output::Output;

/// So many of the newest releases are looked through for the parent.
const LOOKED_THROUGH: u32 = 1_000;

impl Online {
    /// Compares a release with its parent; `None` where that cannot be done, which is said: the release is shown all the same.
    ///
    /// # Errors
    /// What is shown for the parent is not what the release names.
    pub(super) async fn compare_with_parent(
        &mut self,
        out: &Output,
        known: &KnownPlant,
        fetched: &FetchedRelease,
        loaded: &LoadedPlant,
    ) -> Result<Option<ReleaseComparison>, Failure> {
        let why = match self.against_parent(out, known, fetched, loaded).await {
            Err(failure) if failure.exit == Exit::Altered => return Err(failure),
            Ok(Some(compared)) => return Ok(Some(compared)),
            Ok(None) => {
                format!("the coordinator does not show it among its newest {LOOKED_THROUGH} releases")
            }
            Err(failure) => failure.message,
        };
        out.remark(&format!(
            "not compared with the release on top of which it was made: {why}"
        ));
        Ok(None)
    }

    async fn against_parent(
        &mut self,
        out: &Output,
        known: &KnownPlant,
        fetched: &FetchedRelease,
        loaded: &LoadedPlant,
    ) -> Result<Option<ReleaseComparison>, Failure> {
        let (plant, base) = match fetched.statement.parent {
            None => (None, Base::of(None, "parent")),
            Some(parent) => {
                let verified = known.verified()?.filter(|verified| verified.digest == parent);
                let (revision, plant) = match verified {
                    Some(verified) => (
                        verified.statement.revision,
                        loading::judge(verified.documents, out)?.plant,
                    ),
                    None => {
                        let Some(before) = self.parent(parent).await? else {
                            return Ok(None);
                        };
                        (before.statement.revision, plant_of(&before, out)?.plant)
                    }
                };
                (Some(plant), Base::of(Some((revision, parent)), "parent"))
            }
        };
        let (changes, findings) = Changes::with_findings(plant.as_ref(), &loaded.plant)?;
        Ok(Some(ReleaseComparison {
            changes,
            findings,
            base,
            recorded: None,
        }))
    }

    async fn parent(&mut self, parent: Digest) -> Result<Option<FetchedRelease>, Failure> {
        let request = ListReleasesRequest {
            limit: LOOKED_THROUGH,
        };
        let answer = self.client.list_releases(request).await;
        for release in answer.map_err(|status| refused(&status))?.into_inner().releases {
            if digest("statement_digest", &release.statement_digest)? == parent {
                return self
                    .fetch_named(release.revision, Some(parent), Some(parent))
                    .await;
            }
        }
        Ok(None)
    }
}
