//! Releases as the coordinator keeps them: proposed, approved, current (DESIGN §7).
//!
//! ```text
//! propose: statement + documents ─ compile again, compare ─▶ record (proposed)
//! approve: signature ─ verify against the approvers in force ─▶ record (… approved when the threshold is met)
//! current: the approved record with the highest revision; nothing else decides it
//! ```
//!
//! One release is one record (`release/<revision>`), so that approving and becoming current happen in one write.
//! Documents and plans lie beside it by their digests, written before. The coordinator never alters a statement, and
//! gateways verify all of it again: nothing here has to be believed (promise 4). The first release of a plant is
//! judged here by the approvers that it names itself, since the coordinator knows no others; gateways judge it by
//! those of their token.
//!
//! A proposal that waits may be replaced by another one of the same revision; signatures of the old do not count for it,
//! since they are over other bytes.

mod approve;
mod document;
mod propose;

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_policy::ids::{ApproverId, Digest, GatewayId, PlantId, Revision, ZoneId};
use penstock_policy::release::{Release, Signature, Statement};
use penstock_proto::convert::PolicyMark;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::health::Boundary;
use crate::store::Store;

/// Prefix of the records.
const PREFIX: &str = "release/";

/// A release as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRecord {
    /// The statement's exact text.
    pub statement: String,
    /// Signatures by approver, hexadecimal.
    pub signatures: BTreeMap<ApproverId, String>,
    /// The document's files: name and digest of the content.
    pub documents: Vec<(String, Digest)>,
    /// Digest of each gateway's plan.
    pub plans: BTreeMap<GatewayId, Digest>,
    /// Boundaries of the zones, for health.
    pub zones: BTreeMap<ZoneId, Boundary>,
    /// When it was proposed, milliseconds since 1970.
    pub proposed_ms: u64,
    /// When the threshold was met; `None`: it waits.
    pub approved_ms: Option<u64>,
}

/// A record with its statement read.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// As stored.
    pub record: ReleaseRecord,
    /// What it says.
    pub statement: Statement,
    /// Digest of the statement's bytes.
    pub digest: Digest,
    /// The store's revision of the record.
    pub stored_at: u64,
}

/// The release that gateways are offered.
#[derive(Debug)]
pub struct Current {
    /// The record.
    pub recorded: Recorded,
    /// With all plans and their proofs.
    pub release: Release,
}

impl Current {
    /// Its revision.
    pub fn revision(&self) -> Revision {
        self.recorded.statement.revision
    }

    /// What a gateway should hold by it.
    pub fn mark(&self, gateway: &GatewayId) -> Option<PolicyMark> {
        self.recorded.record.plans.get(gateway).map(|plan| PolicyMark {
            revision: self.revision(),
            plan: *plan,
        })
    }

    /// The servers whose TLS ends at a gateway by its plan. Empty also where they cannot stand in a certificate, which
    /// a release that was proposed here excludes: the gateway must not lose its link because of it.
    pub fn tls_ends(&self, gateway: &GatewayId) -> ServerNames {
        let Some(bytes) = self.release.plan(gateway) else {
            return ServerNames::default();
        };
        let names = propose::tls_ends(bytes.plan);
        names.unwrap_or_else(|problem| {
            tracing::warn!(%gateway, revision = %self.revision(), %problem, "a certificate is issued without names");
            ServerNames::default()
        })
    }

    /// The offer for a gateway; `None`: the release has no plan for it.
    pub fn offer(&self, gateway: &GatewayId) -> Option<v1::PolicyOffer> {
        let plan = self.release.plan(gateway)?;
        Some(v1::PolicyOffer {
            release: Some(self.recorded.signed()),
            plan: plan.plan.to_vec().into(),
            leaf_index: plan.leaf_index,
            inclusion_proof: plan.proof.iter().map(|hash| hash.to_vec().into()).collect(),
        })
    }
}

impl Recorded {
    fn read(key: &str, record: ReleaseRecord, stored_at: u64) -> Result<Self, Refusal> {
        let statement = Statement::from_bytes(record.statement.as_bytes()).map_err(|error| {
            tracing::error!(key, error = %crate::chain(&error), "a recorded release cannot be read");
            Refusal::new(
                Reason::Internal,
                format!("the recorded release {key} cannot be read by this software"),
            )
        })?;
        Ok(Self {
            digest: Digest::of(record.statement.as_bytes()),
            statement,
            record,
            stored_at,
        })
    }

    /// Statement and signatures for the wire: the exact bytes.
    pub fn signed(&self) -> v1::SignedRelease {
        v1::SignedRelease {
            statement: self.record.statement.clone().into_bytes().into(),
            signatures: self
                .record
                .signatures
                .iter()
                .map(|(approver, signature)| v1::Signature {
                    approver: approver.to_string(),
                    signature: hex::decode(signature).unwrap_or_default().into(),
                })
                .collect(),
        }
    }

    /// Its signatures, as the verifier wants them.
    fn signatures(&self) -> Vec<Signature> {
        self.record
            .signatures
            .iter()
            .filter_map(|(approver, signature)| {
                Signature::new(approver.clone(), &hex::decode(signature).ok()?).ok()
            })
            .collect()
    }
}

/// All releases of a plant.
#[derive(Debug, Clone)]
pub struct Releases {
    store: Store,
    plant: PlantId,
    current: watch::Sender<Option<Arc<Current>>>,
}

fn key_of(revision: Revision) -> String {
    // Fixed width, so that the store's order is the revisions' order.
    format!("{PREFIX}{:020}", revision.0)
}

impl Releases {
    /// Opens what is recorded, and makes the newest approved release current.
    pub async fn open(store: Store, plant: PlantId) -> Result<Self, Refusal> {
        let releases = Self {
            store,
            plant,
            current: watch::Sender::new(None),
        };
        releases.refresh().await?;
        Ok(releases)
    }

    /// The current release, now and whenever it changes.
    pub fn current(&self) -> watch::Receiver<Option<Arc<Current>>> {
        self.current.subscribe()
    }

    /// The current release now.
    pub fn now(&self) -> Option<Arc<Current>> {
        self.current.borrow().clone()
    }

    /// The newest records, the newest first.
    pub async fn list(&self, limit: usize) -> Result<Vec<Recorded>, Refusal> {
        self.store
            .list_last(PREFIX, limit)
            .await?
            .into_iter()
            .map(|(key, found)| {
                let record = self.store.decode(&key, &found.value)?;
                Recorded::read(&key, record, found.revision)
            })
            .collect()
    }

    /// One record; revision 0 is the current one.
    pub async fn get(&self, revision: Revision) -> Result<Recorded, Refusal> {
        if revision.0 == 0 {
            return self
                .now()
                .map(|current| current.recorded.clone())
                .ok_or_else(|| Refusal::new(Reason::NotFound, "no release has been approved yet"));
        }
        self.find(revision)
            .await?
            .ok_or_else(|| Refusal::new(Reason::NotFound, format!("there is no release {revision}")))
    }

    async fn find(&self, revision: Revision) -> Result<Option<Recorded>, Refusal> {
        let key = key_of(revision);
        match self.store.get_json::<ReleaseRecord>(&key).await? {
            Some((record, stored_at)) => Recorded::read(&key, record, stored_at).map(Some),
            None => Ok(None),
        }
    }

    /// A release's document files.
    pub async fn documents(&self, recorded: &Recorded) -> Result<Vec<v1::DocumentFile>, Refusal> {
        let mut files = Vec::with_capacity(recorded.record.documents.len());
        for (name, digest) in &recorded.record.documents {
            files.push(v1::DocumentFile {
                name: name.clone(),
                content: self.stored(*digest).await?.into(),
            });
        }
        Ok(files)
    }

    async fn stored(&self, digest: Digest) -> Result<Vec<u8>, Refusal> {
        self.store.blob(digest).await?.ok_or_else(|| {
            tracing::error!(%digest, "a document or plan is missing from the store");
            Refusal::new(
                Reason::StoreCorrupt,
                "a part of the release is missing from the store",
            )
        })
    }

    /// Takes up whatever is the newest approved release in the store.
    pub async fn refresh(&self) -> Result<(), Refusal> {
        // At most one proposal stands above the newest approved release.
        let newest = self
            .list(2)
            .await?
            .into_iter()
            .find(|recorded| recorded.record.approved_ms.is_some());
        let Some(recorded) = newest else {
            return Ok(());
        };
        if self
            .now()
            .is_some_and(|current| current.recorded.digest == recorded.digest)
        {
            return Ok(());
        }
        let mut plans = BTreeMap::new();
        for (gateway, digest) in &recorded.record.plans {
            plans.insert(gateway.clone(), self.stored(*digest).await?);
        }
        let release = Release::from_parts(recorded.statement.clone(), plans).ok_or_else(|| {
            Refusal::new(
                Reason::StoreCorrupt,
                format!(
                    "the stored plans are not those of {}",
                    recorded.statement.revision
                ),
            )
        })?;
        tracing::info!(revision = %recorded.statement.revision, "release is current");
        metrics::gauge!("penstock_release_current").set(gauge(recorded.statement.revision.0));
        let current = Arc::new(Current { recorded, release });
        self.current.send_if_modified(|slot| {
            // Two refreshes at once: the older one must not win.
            let newer = slot
                .as_ref()
                .is_none_or(|held| held.revision() < current.revision());
            if newer {
                *slot = Some(current);
            }
            newer
        });
        Ok(())
    }

    /// Follows the store: a release approved by whatever coordinator on it becomes current here. Ends with the store.
    pub async fn follow(&self) {
        let mut changes = self.store.watch();
        loop {
            use tokio::sync::broadcast::error::RecvError;
            let concerned = match changes.recv().await {
                Ok(change) => change.key.starts_with(PREFIX),
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            };
            if concerned && let Err(refusal) = self.refresh().await {
                tracing::error!(%refusal, "cannot take up the newest release");
            }
        }
    }

    /// What the next release must be: its revision and its parent's digest.
    fn next(&self) -> (Revision, Option<Digest>) {
        match self.now() {
            Some(current) => (
                Revision(current.revision().0.saturating_add(1)),
                Some(current.recorded.digest),
            ),
            None => (Revision(1), None),
        }
    }
}

/// A count as a metric. Beyond 2⁵³ it would lose digits, which nothing here reaches.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn gauge(count: u64) -> f64 {
    count as f64
}
