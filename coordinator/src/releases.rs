//! Releases as the coordinator keeps them: proposed, approved, current (DESIGN §7).
//!
//! ```text
//! propose: statement + documents ─ compile again, compare ─▶ record (waits)
//! approve: signature ─ verify against the approvers in force ─▶ record, and if the threshold is met, link
//! reject, withdraw: record (ended)
//! current: the newest link; nothing else decides it
//! ```
//!
//! Each of these is one change of the store, with its event in the trail. One release is one record
//! (`release/<revision>`), and a number is used once: several proposals wait side by side, each under its own, until one of
//! them becomes current, which overtakes the others. What became current stands in the history as well (`link/<revision>`:
//! statement and signatures), which gateways and people follow from the release that they verified last. Documents and plans lie beside it by their digests, written before. The coordinator never alters a
//! statement, and gateways verify all of it again: nothing here has to be believed (promise 4). The first release of a
//! plant is judged here by the approvers that it names itself, since the coordinator knows no others; gateways judge it
//! by those of their token.

mod approve;
mod carried;
mod compiling;
mod directory;
mod document;
mod ending;
mod history;
mod offer;
mod propose;
mod record;
mod sweep;
mod take_up;
pub(crate) mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use penstock_policy::ids::{ApproverId, Digest, GatewayId, PlantId, Revision};
use penstock_policy::plan::Plan;
use penstock_policy::release::{Release, Signature, Statement};
use penstock_policy::rollout::Fleet;
use penstock_proto::convert::PolicyMark;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;
use tokio::sync::watch;

pub(crate) use self::carried::carried;
#[cfg(test)]
pub(crate) use self::carried::nothing;
use self::compiling::Compiling;
use self::directory::Directories;
pub use self::directory::{Directory, Name};
use self::history::History;
pub use self::offer::Offer;
pub use self::record::{Detail, ProposalEnd, ProposalEndKind, ReleaseRecord};
use crate::allowance::Allowance;
use crate::store::{Change, Expect, Silent, Store, StoreError};

/// Prefix of the records.
const PREFIX: &str = "release/";

/// A record with its statement read.
#[derive(Debug, Clone)]
pub struct RecordedRelease {
    /// As stored.
    pub record: ReleaseRecord,
    /// What it says.
    pub statement: Statement,
    /// Digest of the statement's bytes.
    pub digest: Digest,
    /// The store's revision of the record.
    pub stored_at: u64,
}

/// A release with all that gateways are offered of it: the newest that was approved, or one that gateways still should have.
#[derive(Debug)]
pub struct CurrentRelease {
    /// The record.
    pub recorded: RecordedRelease,
    /// Plans and boundaries.
    pub detail: Detail,
    /// With all plans and their proofs.
    pub release: Release,
    /// It, and what became current before it.
    pub history: History,
    /// What it carries beside the policy, as it goes out.
    pub carried: Bytes,
}

impl CurrentRelease {
    /// Its revision.
    pub fn revision(&self) -> Revision {
        self.recorded.statement.revision
    }

    /// What a gateway should hold by it.
    pub fn mark(&self, gateway: &GatewayId) -> Option<PolicyMark> {
        self.detail.plans.get(gateway).map(|plan| PolicyMark {
            revision: self.revision(),
            plan: *plan,
            statement: Some(self.recorded.digest),
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
}

impl RecordedRelease {
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

    /// Whether it was proposed as an emergency: with its emergency threshold met, a rollout skips shadow, soak and start.
    pub fn is_emergency(&self) -> bool {
        self.statement.emergency
    }

    /// Statement and signatures for the wire: the exact bytes.
    pub fn signed(&self) -> v1::SignedRelease {
        signed(&self.record.statement, &self.record.signatures)
    }

    /// Its signatures, as the verifier wants them.
    fn signatures(&self) -> Vec<Signature> {
        readable(&self.record.signatures).collect()
    }
}

/// The signatures of a record that this software can read; whatever it cannot counts nowhere.
fn readable(signatures: &BTreeMap<ApproverId, String>) -> impl Iterator<Item = Signature> {
    let read = |(approver, text): (&ApproverId, &String)| Signature::from_text(approver.clone(), text).ok();
    signatures.iter().filter_map(read)
}

/// Statement and signatures for the wire.
fn signed(statement: &str, signatures: &BTreeMap<ApproverId, String>) -> v1::SignedRelease {
    v1::SignedRelease {
        statement: statement.to_owned().into_bytes().into(),
        signatures: readable(signatures)
            .map(|one| v1::Signature::from(&one))
            .collect(),
    }
}

/// All releases of a plant.
#[derive(Debug, Clone)]
pub struct Releases {
    store: Store,
    plant: PlantId,
    current: watch::Sender<Option<Arc<CurrentRelease>>>,
    /// Why the newest approved release is not offered to gateways.
    untaken: watch::Sender<Option<String>>,
    /// Held while it is decided what becomes of a proposal: two of them never become current side by side.
    deciding: Arc<tokio::sync::Mutex<()>>,
    /// Held while the newest release is taken up: its plans are read once.
    refreshing: Arc<tokio::sync::Mutex<()>>,
    /// Held while a proposal is stored, and while what nothing refers to is removed.
    storing: Arc<tokio::sync::Mutex<()>>,
    /// Releases that gateways still should have, beside the current one; `None`: not known yet, so that nothing is removed.
    kept: Arc<std::sync::Mutex<Option<BTreeSet<Revision>>>>,
    compiling: Compiling,
    directories: Directories,
    /// How much each engineer may propose.
    documents: Arc<Allowance>,
}

fn key_of(revision: Revision) -> String {
    // Fixed width, so that the store's order is the revisions' order.
    format!("{PREFIX}{:020}", revision.0)
}

impl Releases {
    /// Opens what is recorded, and makes the newest approved release current.
    ///
    /// # Errors
    /// The store cannot be read, or what it holds is not a release.
    pub async fn open(store: Store, plant: PlantId) -> Result<Self, Refusal> {
        let releases = Self {
            store,
            plant,
            current: watch::Sender::new(None),
            untaken: watch::Sender::new(None),
            deciding: Arc::default(),
            refreshing: Arc::default(),
            storing: Arc::default(),
            kept: Arc::default(),
            compiling: Compiling::default(),
            directories: Directories::default(),
            documents: Arc::new(Allowance::new(sweep::DOCUMENTS)),
        };
        history::complete(&releases.store).await?;
        releases.refresh().await?;
        Ok(releases)
    }

    /// Which releases gateways still should have, beside the current one: their plans are kept. Before this is known, none is removed.
    pub(crate) fn keep(&self, revisions: BTreeSet<Revision>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref() != Some(&revisions) {
            *kept = Some(revisions);
            drop(kept);
            self.sweep_soon();
        }
    }

    /// The current release, now and whenever it changes.
    pub fn current(&self) -> watch::Receiver<Option<Arc<CurrentRelease>>> {
        self.current.subscribe()
    }

    /// Why the newest approved release cannot be taken up here, so that gateways are not offered it; `None`: it is.
    pub fn untaken(&self) -> watch::Receiver<Option<String>> {
        self.untaken.subscribe()
    }

    /// The current release now.
    pub fn now(&self) -> Option<Arc<CurrentRelease>> {
        self.current.borrow().clone()
    }

    /// The newest records, the newest first.
    pub(crate) async fn list(&self, limit: usize) -> Result<Vec<RecordedRelease>, Refusal> {
        self.store
            .list_last(PREFIX, limit)
            .await?
            .into_iter()
            .map(|(key, found)| {
                let record = self.store.decode(&key, &found.value)?;
                RecordedRelease::read(&key, record, found.revision)
            })
            .collect()
    }

    /// One record; revision 0 is the current one.
    pub(crate) async fn get(&self, revision: Revision) -> Result<RecordedRelease, Refusal> {
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

    /// The record of a number, if it is the one with this statement.
    pub(crate) async fn named(&self, revision: Revision, digest: Digest) -> Result<RecordedRelease, Refusal> {
        let recorded = self.get(revision).await?;
        if recorded.digest == digest {
            return Ok(recorded);
        }
        Err(Refusal::new(
            Reason::DigestMismatch,
            format!(
                "{} is not the release that was meant: its statement has the digest {}, not {digest}; read it again",
                recorded.statement.revision, recorded.digest
            ),
        )
        .condition("statement_digest", recorded.digest.to_string()))
    }

    /// What became current from `since` (or from the first) up to the release before `recorded`, the oldest first.
    pub fn before(&self, recorded: &RecordedRelease, since: Option<Digest>) -> Vec<v1::SignedRelease> {
        self.now()
            .map(|current| current.history.before(recorded, since))
            .unwrap_or_default()
    }

    /// What a release holds for each gateway and zone.
    async fn detail(&self, recorded: &RecordedRelease) -> Result<Detail, Refusal> {
        let record = &recorded.record;
        let Some(digest) = record.detail else {
            return Ok(Detail {
                plans: record.plans.clone(),
                zones: record.zones.clone(),
            });
        };
        let bytes = self.stored(digest).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            tracing::error!(%digest, %error, "the detail of a release cannot be read");
            Refusal::new(
                Reason::StoreCorrupt,
                "a part of the release cannot be read by this software",
            )
        })
    }

    async fn find(&self, revision: Revision) -> Result<Option<RecordedRelease>, Refusal> {
        let key = key_of(revision);
        match self.store.get_json::<ReleaseRecord>(&key).await? {
            Some((record, stored_at)) => RecordedRelease::read(&key, record, stored_at).map(Some),
            None => Ok(None),
        }
    }

    /// A release's document files.
    pub(crate) async fn documents(
        &self,
        recorded: &RecordedRelease,
    ) -> Result<Vec<v1::DocumentFile>, Refusal> {
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

    /// A plan that some gateway holds; `None`: it is not in the store, or this software cannot read it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn stored_plan(&self, digest: Digest) -> Result<Option<Plan>, Refusal> {
        let bytes = self.store.blob(digest).await?;
        Ok(bytes.and_then(|bytes| Plan::from_bytes(&bytes).ok()))
    }

    /// A release that was approved, with its plans: it need not be the newest.
    ///
    /// # Errors
    /// There is none, it is not approved, or the store does not have all of it.
    pub(crate) async fn approved_release(&self, revision: Revision) -> Result<Arc<CurrentRelease>, Refusal> {
        if let Some(current) = self.now().filter(|current| current.revision() == revision) {
            return Ok(current);
        }
        let recorded = self.get(revision).await?;
        if recorded.record.approved_ms.is_none() {
            return Err(Refusal::new(
                Reason::NotFound,
                format!("{revision} is not approved"),
            ));
        }
        self.load(recorded).await.map(Arc::new)
    }

    /// The gateways of a release as a rollout looks at them, from its documents.
    ///
    /// # Errors
    /// The documents cannot be read by this software.
    pub(crate) async fn fleet_of(&self, recorded: &RecordedRelease) -> Result<Fleet, Refusal> {
        let made = self.plant_of(recorded, Fleet::of).await?;
        made.map_err(|error| Refusal::new(Reason::DocumentErrors, error.to_string()))
    }

    /// Reads all that belongs to a release.
    async fn load(&self, recorded: RecordedRelease) -> Result<CurrentRelease, Refusal> {
        let history = History::read(&self.store, recorded.statement.revision).await?;
        let detail = self.detail(&recorded).await?;
        let mut plans = BTreeMap::new();
        for (gateway, digest) in &detail.plans {
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
        let carried = self.carried(&recorded).await?;
        Ok(CurrentRelease {
            carried,
            recorded,
            detail,
            release,
            history,
        })
    }

    /// The digest that the next release must name as its parent.
    fn parent(&self) -> Option<Digest> {
        self.now().map(|current| current.recorded.digest)
    }

    /// Whether the release waits for signatures; else what became of it, in words.
    fn waits(&self, recorded: &RecordedRelease) -> Result<(), Refusal> {
        let revision = recorded.statement.revision;
        let why = if let Some(ended) = &recorded.record.ended {
            format!(
                "{revision} was {} by {}: {}",
                ended.how.as_str(),
                ended.by,
                ended.reason
            )
        } else if recorded.record.approved_ms.is_some() {
            format!("{revision} is not waiting for signatures: it is approved")
        } else if recorded.statement.parent != self.parent() {
            format!(
                "{revision} was overtaken by another release; it has to be proposed again on top of that one"
            )
        } else {
            return Ok(());
        };
        Err(Refusal::new(Reason::NotProposed, why))
    }

    /// Notes when the threshold was met.
    async fn approved(&self, recorded: &RecordedRelease, now_ms: u64) -> Result<RecordedRelease, Refusal> {
        self.change(recorded.statement.revision, recorded.digest, |recorded| {
            recorded.record.approved_ms.get_or_insert(now_ms);
            Ok(Change::silent(Silent::Derived))
        })
        .await
    }

    /// Replaces a record by what `decide` makes of it, with what else belongs to that, as often as somebody else was faster.
    async fn change(
        &self,
        revision: Revision,
        digest: Digest,
        mut decide: impl FnMut(&mut RecordedRelease) -> Result<Change, Refusal>,
    ) -> Result<RecordedRelease, Refusal> {
        loop {
            let mut recorded = self.named(revision, digest).await?;
            let (own, expect) = (key_of(revision), Expect::Revision(recorded.stored_at));
            let change = decide(&mut recorded)?.json(&own, expect, &recorded.record)?;
            match self.store.apply(change).await {
                Err(StoreError::Conflict { key, .. }) if key == own => {}
                Err(other) => return Err(other.into()),
                Ok(written) => {
                    let written = written.iter().find(|written| written.key == own);
                    recorded.stored_at = written.map_or(recorded.stored_at, |written| written.revision);
                    return Ok(recorded);
                }
            }
        }
    }
}

/// A count as a metric. Beyond 2⁵³ it would lose digits, which nothing here reaches.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn gauge(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
