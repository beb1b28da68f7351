//! What this person knows of a plant's releases, kept on their own machine: the release that they verified last, the
//! statements that they read in full, and which number named which of them.
//!
//! ```text
//! $XDG_CONFIG_HOME/penstock/known/PLANT.OPERATOR.ROOTS.json        ROOTS: digest of the plant's roots, so that another
//!                                                                  plant of the same name is not taken for this one
//! ```
//!
//! A coordinator is never believed about it: the change that an approver is shown is the change from what stands here.
//! Bounded: the oldest numbers and statements are forgotten first, the verified release never.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use penstock_policy::document::limits::DOCUMENT_BYTES_MAX;
use penstock_policy::ids::{Digest, Revision};
use penstock_policy::release::Statement;
use serde::{Deserialize, Serialize};

use crate::contexts::{Contexts, NamedContext};
use crate::documents::Documents;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, FileError, Mode};

const FORMAT: &str = "penstock-known/1";
/// The largest documents, in base64, and what stands beside them.
const FILE_BYTES_MAX: u64 = 4 * DOCUMENT_BYTES_MAX as u64;
/// Most numbers remembered.
const NUMBERS_MAX: usize = 4096;
/// Most statements remembered.
const SEEN_MAX: usize = 64;

/// What is known of a plant.
#[derive(Debug)]
pub struct KnownPlant {
    path: PathBuf,
    remembered: KnownFile,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownFile {
    format: String,
    verified: Option<StoredRelease>,
    numbers: BTreeMap<u64, Digest>,
    seen: Vec<Review>,
}

/// The verified release as it rests.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRelease {
    statement: String,
    documents: Vec<(String, String)>,
}

/// A statement whose documents this person was shown in full, or proposed themselves.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Review {
    statement: String,
    /// And signed.
    signed: bool,
}

/// The release that this person verified last.
#[derive(Debug, Clone)]
pub struct LastVerified {
    /// What it says.
    pub statement: Statement,
    /// Digest of its bytes.
    pub digest: Digest,
    /// What it was made from.
    pub documents: Documents,
}

fn damaged(path: &std::path::Path) -> Failure {
    Failure::local(
        "known-damaged",
        format!("{} cannot be read: it holds what you verified of this plant's releases", path.display()),
    )
    .help("restore it from a backup; without it, move it away: the next release is then shown to you as all new")
}

impl KnownPlant {
    /// What the person of this login knows.
    pub(crate) fn open(contexts: &Contexts, login: &NamedContext) -> Result<Self, Failure> {
        let roots = contexts.enrolled_roots(&login.name)?;
        let roots: Vec<u8> = roots.iter().flat_map(|root| root.as_ref().to_vec()).collect();
        let roots = hex(&Digest::of(&roots));
        let name = format!(
            "{}.{}.{}.json",
            login.context.plant,
            login.context.operator,
            roots.get(..16).unwrap_or_default()
        );
        let path = contexts.root().join("known").join(name);
        if !path.exists() {
            return Ok(Self::empty(path));
        }
        let bytes = files::read(&path, FILE_BYTES_MAX)?;
        let remembered: KnownFile =
            serde_json::from_slice(&bytes).map_err(|error| damaged(&path).caused_by(&error))?;
        if remembered.format != FORMAT {
            return Err(damaged(&path).because(format!("it has the format `{}`", remembered.format)));
        }
        Ok(Self { path, remembered })
    }

    /// Nothing is known yet.
    pub(crate) fn empty(path: PathBuf) -> Self {
        Self {
            path,
            remembered: KnownFile {
                format: FORMAT.to_owned(),
                verified: None,
                numbers: BTreeMap::new(),
                seen: Vec::new(),
            },
        }
    }

    /// The release that this person verified last; `None`: none yet.
    pub(crate) fn verified(&self) -> Result<Option<LastVerified>, Failure> {
        let Some(kept) = &self.remembered.verified else {
            return Ok(None);
        };
        let statement = Statement::from_bytes(kept.statement.as_bytes())
            .map_err(|error| damaged(&self.path).caused_by(&error))?;
        let documents = kept
            .documents
            .iter()
            .map(|(name, content)| Ok((name.clone(), BASE64.decode(content)?)))
            .collect::<Result<Vec<_>, base64::DecodeError>>()
            .map_err(|error| damaged(&self.path).caused_by(&error))?;
        let documents = Documents::received(&statement.revision.to_string(), documents);
        if documents.digest() != statement.document_digest {
            return Err(damaged(&self.path).because("its documents are not those of its statement"));
        }
        Ok(Some(LastVerified {
            digest: Digest::of(kept.statement.as_bytes()),
            statement,
            documents,
        }))
    }

    /// The digest of the release that this person verified last.
    pub fn verified_digest(&self) -> Option<Digest> {
        let kept = self.remembered.verified.as_ref()?;
        Some(Digest::of(kept.statement.as_bytes()))
    }

    /// Remembers a release as verified, with the documents that were compiled and found to be its own.
    pub(crate) fn set_verified(
        &mut self,
        statement: &Statement,
        documents: &Documents,
    ) -> Result<(), Failure> {
        let bytes = statement.to_bytes();
        self.number(statement.revision, Digest::of(&bytes))?;
        self.remembered.verified = Some(StoredRelease {
            statement: String::from_utf8_lossy(&bytes).into_owned(),
            documents: documents
                .files
                .iter()
                .map(|file| (file.name.clone(), BASE64.encode(&file.content)))
                .collect(),
        });
        Ok(())
    }

    /// The highest number that is known to be used.
    pub fn highest(&self) -> u64 {
        self.remembered.numbers.keys().next_back().copied().unwrap_or(0)
    }

    /// The release that this machine has seen under a number.
    pub(crate) fn number_of(&self, revision: Revision) -> Option<Digest> {
        self.remembered.numbers.get(&revision.0).copied()
    }

    /// Refuses a number under which this machine has seen another release.
    pub(crate) fn check_number(&self, revision: Revision, digest: Digest) -> Result<(), Failure> {
        match self.remembered.numbers.get(&revision.0) {
            Some(known) if *known != digest => Err(Failure::altered(
                "number-reused",
                format!("the coordinator has another {revision} than the one that this machine has seen"),
            )
            .because(format!("seen here: {known}"))
            .because(format!("the coordinator's: {digest}"))
            .help("a number names one release only: the coordinator was restored from a backup, or lies; sign nothing of it before you know which")),
            _ => Ok(()),
        }
    }

    /// Remembers which release a number names.
    pub(crate) fn number(&mut self, revision: Revision, digest: Digest) -> Result<(), Failure> {
        self.check_number(revision, digest)?;
        self.remembered.numbers.insert(revision.0, digest);
        while self.remembered.numbers.len() > NUMBERS_MAX {
            self.remembered.numbers.pop_first();
        }
        Ok(())
    }

    /// Remembers a statement that this person read in full, and perhaps signed.
    pub fn see(&mut self, statement: &[u8], signed: bool) {
        let text = String::from_utf8_lossy(statement).into_owned();
        let before = self
            .remembered
            .seen
            .iter()
            .any(|seen| seen.statement == text && seen.signed);
        self.remembered.seen.retain(|seen| seen.statement != text);
        self.remembered.seen.push(Review {
            statement: text,
            signed: signed || before,
        });
        let surplus = self.remembered.seen.len().saturating_sub(SEEN_MAX);
        self.remembered.seen.drain(..surplus);
    }

    /// Whether this person read this statement in full.
    pub fn has_seen(&self, digest: Digest) -> bool {
        self.seen(digest).is_some()
    }

    /// Whether this person signed this statement.
    pub fn has_signed(&self, digest: Digest) -> bool {
        self.seen(digest).is_some_and(|seen| seen.signed)
    }

    fn seen(&self, digest: Digest) -> Option<&Review> {
        let is = |seen: &&Review| Digest::of(seen.statement.as_bytes()) == digest;
        self.remembered.seen.iter().find(is)
    }

    /// Whether `statement` was made on top of the verified release, or of one that was and that this person has read:
    /// whatever history the coordinator tells.
    pub fn leads_on(&self, statement: &Statement) -> bool {
        let Some(verified) = self.verified_digest() else {
            return false;
        };
        statement.follows(verified)
            || self.remembered.seen.iter().any(|seen| {
                statement.follows(Digest::of(seen.statement.as_bytes()))
                    && Statement::from_bytes(seen.statement.as_bytes())
                        .is_ok_and(|between| between.follows(verified))
            })
    }

    /// Writes it down.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        if let Some(folder) = self.path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|source| FileError::Write {
                    path: folder.to_owned(),
                    source,
                })?;
        }
        let bytes = serde_json::to_vec(&self.remembered).map_err(|error| {
            Failure::new(
                Exit::Local,
                "known-unwritten",
                "what you verified cannot be recorded",
            )
            .caused_by(&error)
        })?;
        Ok(files::replace(&self.path, &bytes, Mode::Secret)?)
    }
}

/// A digest's hexadecimal digits.
fn hex(digest: &Digest) -> String {
    digest.to_string().trim_start_matches("sha256:").to_owned()
}

/// A digest as a person compares it: its first twelve digits.
pub fn short(digest: &Digest) -> String {
    hex(digest).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// A plant's release as people keep it; its documents are made up here.
    fn statement(documents: &Documents) -> Statement {
        let signed = include_str!("../../policy/fixtures/release-format-1.json");
        let envelope = penstock_policy::release::Envelope::from_json(signed).unwrap();
        let mut statement = Statement::from_bytes(&envelope.statement).unwrap();
        statement.document_digest = documents.digest();
        statement
    }

    #[test]
    fn what_was_known_when_the_form_was_made_is_read_and_kept_the_same_today() {
        let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/known-1.json");
        let folder = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(folder.path());
        let login = NamedContext {
            name: "one".to_owned(),
            context: crate::contexts::Context {
                plant: "riverside".parse().unwrap(),
                operator: "a.silva".parse().unwrap(),
                coordinators: vec!["127.0.0.1:7643".parse().unwrap()],
            },
        };
        let roots = penstock_proto::tls::certificates_to_pem(&[b"a root"]);
        std::fs::create_dir(folder.path().join("contexts")).unwrap();
        std::fs::write(folder.path().join("contexts/one.roots"), roots).unwrap();

        let files = [
            ("plant.yaml", "plant: riverside\n"),
            ("zones/works.yaml", "zones: {}\n"),
        ];
        let documents = Documents::received(
            "release 7",
            files.map(|(name, content)| (name.to_owned(), content.as_bytes().to_vec())),
        );
        let verified = statement(&documents);
        let mut known = KnownPlant::open(&contexts, &login).unwrap();
        known.set_verified(&verified, &documents).unwrap();
        known.number(Revision(8), Digest([8; 32])).unwrap();
        known.see(&verified.to_bytes(), true);
        known.see(br#"{"another":"statement"}"#, false);
        known.save().unwrap();

        let written = std::fs::read(&known.path).unwrap();
        if !fixture.exists() && std::env::var_os("PENSTOCK_FIXTURES").is_some_and(|how| how == "write") {
            std::fs::write(&fixture, &written).unwrap();
        }
        let kept = std::fs::read(&fixture).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            String::from_utf8(kept.clone()).unwrap()
        );

        std::fs::write(&known.path, kept).unwrap();
        let read = KnownPlant::open(&contexts, &login).unwrap();
        let digest = Digest::of(&verified.to_bytes());
        let held = read.verified().unwrap().expect("it was verified");
        assert_eq!((held.digest, held.statement), (digest, verified));
        assert_eq!(held.documents.digest(), documents.digest());
        assert_eq!(read.highest(), 8);
        assert!(read.check_number(Revision(8), Digest([9; 32])).is_err());
        assert!(read.has_signed(digest));
        let other = Digest::of(br#"{"another":"statement"}"#);
        assert!(read.has_seen(other) && !read.has_signed(other));
    }
}
