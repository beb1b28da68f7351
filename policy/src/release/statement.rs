//! The statement that approvers sign: one release of one plant, in canonical JSON.
//!
//! Canonical means: the bytes that [`Statement::to_bytes`] writes (fields in declared order, no white space, maps
//! sorted by key) and no others. [`Statement::from_bytes`] refuses any other spelling of the same content, so that
//! a statement has one digest, no key can appear twice, and no field can be missing.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, GatewayId, OperatorId, PlantId, Revision};
use crate::merkle::growing::TreeState;
use crate::model::{ApproverSet, PublicKey};

/// The format of a release whose people all have keys in Penstock's own form.
pub const STATEMENT_FORMAT: &str = "penstock-release/1";
/// The format of one with keys in OpenSSH's forms. Nothing else differs: it is there so that software from before those forms says by
/// name what it does not know, instead of finding a key that it cannot read.
pub const STATEMENT_FORMAT_SSH: &str = "penstock-release/2";
/// The format of one that names the list of withdrawn keys or the trust bundle ([`Anchor`]), with keys in whatever form. Software from
/// before says by name what it does not know.
pub const STATEMENT_FORMAT_ANCHORED: &str = "penstock-release/3";
/// The format of one that names the head of the coordinator's trails ([`TrailsAnchor`]), with or without what the format before names.
pub const STATEMENT_FORMAT_TRAILS: &str = "penstock-release/4";
/// All formats that this software reads, the oldest first.
pub const STATEMENT_FORMATS: [&str; 4] = [
    STATEMENT_FORMAT,
    STATEMENT_FORMAT_SSH,
    STATEMENT_FORMAT_ANCHORED,
    STATEMENT_FORMAT_TRAILS,
];

/// The longest statement that is read, bytes. One approver takes about 150.
pub const STATEMENT_BYTES_MAX: usize = 256 * 1024;

/// The most heads of other histories that one release replaces.
pub const REPLACES_MAX: usize = 16;

/// The longest reason, bytes: a page of text.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// What is numbered, only ever grows, and travels beside releases: how far it went when the release was proposed. The approvers'
/// signatures hold it, so that a gateway that was set back learns it from people whom it knows, before it trusts a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// Its number.
    pub number: u64,
    /// SHA-256 of what it says.
    pub digest: Digest,
}

/// How far the tree over all trails of the coordinator went when the release was proposed. The approvers' signatures hold it, so that a
/// coordinator that rewrites its trails later is found out, although it holds its own key. Nothing that is enforced depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailsAnchor {
    /// The tree's leaves, each of which is a block.
    pub size: u64,
    /// Its root.
    pub root: Digest,
    /// The trails begin again: the tree does not begin with what releases before this one named, which its approvers accept. So it is where
    /// the coordinator was restored from a backup.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
}

impl TrailsAnchor {
    /// The tree that it names.
    pub fn tree(&self) -> TreeState {
        TreeState {
            size: self.size,
            root: self.root.0,
        }
    }
}

/// What a release says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// One of [`STATEMENT_FORMATS`].
    pub format: String,
    /// The plant.
    pub plant: PlantId,
    /// Its number: higher than the parent's. A number is used once, also by a proposal that nobody approved.
    pub revision: Revision,
    /// Digest of the statement that it follows; `None` only for a plant's first.
    pub parent: Option<Digest>,
    /// Digests of statements that it follows beside its parent: heads of another history, which gateways hold and a
    /// coordinator that was restored from a backup does not know. Ascending; almost always empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<Digest>,
    /// Digest of the document files it was compiled from ([`document_digest`]).
    pub document_digest: Digest,
    /// Merkle root over the gateways' plans (leaf: [`leaf_bytes`], in order of gateway names).
    pub plans_root: Digest,
    /// How many gateways, and so leaves, there are.
    pub gateways: u64,
    /// Whose signatures the *next* release needs.
    pub approvers: ApproverSet,
    /// Who proposes it; their own signature does not count.
    pub author: OperatorId,
    /// Where the change was asked for.
    pub ticket: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// When it was made, milliseconds since 1970; for people, no decision rests on it.
    pub created_ms: u64,
    /// It waits for no window, no shadow and no soak, and needs the signatures of the approvers' emergency threshold for that.
    /// Never in the statement's bytes where it is not so: software from before emergencies refuses them whole.
    #[serde(default, skip_serializing_if = "is_false")]
    pub emergency: bool,
    /// The list of withdrawn keys; only in [`STATEMENT_FORMAT_ANCHORED`] and later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Anchor>,
    /// The trust bundle; only in [`STATEMENT_FORMAT_ANCHORED`] and later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Anchor>,
    /// The head of the coordinator's trails; only in [`STATEMENT_FORMAT_TRAILS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trails: Option<TrailsAnchor>,
}

// What serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

/// Why bytes are not a statement.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Longer than any honest one.
    #[error("the release statement has {0} bytes, at most {STATEMENT_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not JSON of the statement's shape: truncated, or with fields unknown here.
    #[error("the release statement cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Made for other software.
    #[error(
        "the release statement has format `{0}`, this software reads `{STATEMENT_FORMAT}`, `{STATEMENT_FORMAT_SSH}`, `{STATEMENT_FORMAT_ANCHORED}` and `{STATEMENT_FORMAT_TRAILS}`"
    )]
    Format(String),
    /// The same content, spelt differently than the one form that has a digest.
    #[error("the release statement is not in its canonical form: take the bytes as they were signed")]
    NotCanonical,
    /// Its parts contradict one another (said in words).
    #[error("the release statement contradicts itself: {0}")]
    Contradiction(String),
}

impl Statement {
    /// The exact bytes that are digested, signed, sent and stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings, numbers and lists has no way to fail; an empty text would verify nowhere.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a statement strictly.
    ///
    /// # Errors
    /// The bytes are too many, not a statement of a known format, not canonical, or contradict themselves.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > STATEMENT_BYTES_MAX {
            return Err(StatementError::TooLong(bytes.len()));
        }
        let statement: Self = match serde_json::from_slice(bytes) {
            Ok(statement) => statement,
            Err(error) => return Err(foreign_format(bytes).unwrap_or(StatementError::Unreadable(error))),
        };
        if !is_known(&statement.format) {
            return Err(StatementError::Format(statement.format));
        }
        if statement.to_bytes() != bytes {
            return Err(StatementError::NotCanonical);
        }
        statement.well_formed().map_err(StatementError::Contradiction)?;
        Ok(statement)
    }

    /// The digest of its bytes, by which the next release names it as its parent.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Whether it was made on top of the statement with this digest.
    pub fn follows(&self, digest: Digest) -> bool {
        self.parent == Some(digest) || self.replaces.contains(&digest)
    }

    /// What must hold within the statement, else why not.
    pub(super) fn well_formed(&self) -> Result<(), String> {
        if self.revision.0 == 0 {
            return Err("revisions begin at 1".to_owned());
        }
        if self.revision.0 == 1 && self.parent.is_some() {
            return Err("the first revision has no parent".to_owned());
        }
        let ascending = self.replaces.windows(2).all(|pair| pair.first() < pair.last());
        if self.replaces.len() > REPLACES_MAX || !ascending {
            return Err(format!(
                "what it replaces are at most {REPLACES_MAX} digests, ascending"
            ));
        }
        if self.parent.is_some_and(|parent| self.replaces.contains(&parent)) {
            return Err("it replaces its own parent".to_owned());
        }
        let texts = [Some(&self.reason), self.ticket.as_ref()];
        if texts
            .into_iter()
            .flatten()
            .any(|text| text.len() > TEXT_BYTES_MAX)
        {
            return Err(format!("reason and ticket have at most {TEXT_BYTES_MAX} bytes"));
        }
        let mut keys = self.approvers.people.values().map(|person| &person.key);
        if self.format == STATEMENT_FORMAT && !keys.all(PublicKey::is_plain) {
            return Err(format!(
                "it has keys in OpenSSH's form, and the format `{STATEMENT_FORMAT}`, which has none"
            ));
        }
        let names_trails = self.trails.is_some();
        if names_trails != (self.format == STATEMENT_FORMAT_TRAILS) {
            return Err(format!(
                "the format `{STATEMENT_FORMAT_TRAILS}` is of releases that name the head of the coordinator's trails, and of no others"
            ));
        }
        if self.trails.is_some_and(|head| head.size == 0) {
            return Err("the trails that it names are empty".to_owned());
        }
        let anchors = [self.withdrawn, self.trust];
        let names_more = anchors.iter().any(Option::is_some) && !names_trails;
        if names_more != (self.format == STATEMENT_FORMAT_ANCHORED) {
            return Err(format!(
                "the format `{STATEMENT_FORMAT_ANCHORED}` is of releases that name a list of withdrawn keys or a trust bundle, and of no others"
            ));
        }
        if anchors.into_iter().flatten().any(|anchor| anchor.number == 0) {
            return Err("lists of withdrawn keys and trust bundles begin at 1".to_owned());
        }
        self.approvers.satisfiable()
    }

    /// What it names beside the plant's policy: the list of withdrawn keys, and the trust bundle.
    pub fn anchors(&self) -> [(&'static str, Option<Anchor>); 2] {
        [
            ("list of withdrawn keys", self.withdrawn),
            ("trust bundle", self.trust),
        ]
    }
}

impl ApproverSet {
    /// Whether its thresholds can be met at all, by that many different keys, and an emergency needs more of them.
    pub(super) fn satisfiable(&self) -> Result<(), String> {
        let keys: std::collections::BTreeSet<_> =
            self.people.values().map(|person| *person.key.point()).collect();
        if self.threshold == 0 {
            return Err("the approvers' threshold is 0, so that nobody would have to sign".to_owned());
        }
        if keys.len() < usize::from(self.threshold) {
            return Err(format!(
                "{} signatures would be needed, but the approvers have {} different keys",
                self.threshold,
                keys.len()
            ));
        }
        match self.emergency_threshold {
            Some(more) if usize::from(more) > keys.len() => Err(format!(
                "{more} signatures would be needed in an emergency, but the approvers have {} different keys",
                keys.len()
            )),
            Some(more) if more < self.threshold => Err(format!(
                "{more} signatures would be enough in an emergency, and {} are needed otherwise",
                self.threshold
            )),
            Some(more) if more == self.threshold && usize::from(more) < keys.len() => Err(format!(
                "an emergency would need {more} signatures, no more than any other release, and the approvers have {} different keys",
                keys.len()
            )),
            _ => Ok(()),
        }
    }
}

fn is_known(format: &str) -> bool {
    STATEMENT_FORMATS.contains(&format)
}

/// The format that the bytes claim, where that is why they could not be read.
fn foreign_format(bytes: &[u8]) -> Option<StatementError> {
    #[derive(Deserialize)]
    struct Claim {
        format: String,
    }
    let claim: Claim = serde_json::from_slice(bytes).ok()?;
    (!is_known(&claim.format)).then_some(StatementError::Format(claim.format))
}

/// One file of a plant document.
#[derive(Debug, Clone, Copy)]
pub struct DocumentFile<'a> {
    /// Its path within the document's folder, with `/`.
    pub name: &'a str,
    /// Its bytes as they are.
    pub content: &'a [u8],
}

/// The digest of a whole document: its files sorted by name, each as length and name, length and content
/// (lengths as 64-bit big-endian), so that no two different sets of files look alike.
pub fn document_digest(files: &[DocumentFile<'_>]) -> Digest {
    use sha2::Digest as _;
    let mut files = files.to_vec();
    files.sort_by(|a, b| a.name.cmp(b.name).then_with(|| a.content.cmp(b.content)));
    let mut hasher = sha2::Sha256::new();
    hasher.update(b"penstock-document/1\n");
    for file in files {
        for part in [file.name.as_bytes(), file.content] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    Digest(hasher.finalize().into())
}

/// The content of a gateway's leaf in the release's Merkle tree: canonical JSON.
pub fn leaf_bytes(gateway: &GatewayId, revision: Revision, plan_digest: Digest) -> Vec<u8> {
    #[derive(Serialize)]
    struct Leaf<'a> {
        gateway: &'a GatewayId,
        revision: Revision,
        plan_digest: Digest,
    }
    // Two strings and a number have no way to fail; an empty leaf would be in no tree.
    serde_json::to_vec(&Leaf {
        gateway,
        revision,
        plan_digest,
    })
    .unwrap_or_default()
}
