//! A release as it was fetched: checked to be what its digests name, and compiled again before anything is believed.

use std::path::Path;

use penstock_policy::ids::{ApproverId, Digest};
use penstock_policy::model::Plant;
use penstock_policy::release::{Envelope, Signature, Statement};
use penstock_proto::refusal::{self, Reason};
use penstock_proto::v1::{GetReleaseRequest, GetReleaseResponse, Release, SignedRelease};

use super::super::{Online, digest, malformed, refused};
use crate::documents::Documents;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::loading::{self, LoadedPlant};
use crate::offline::signing;
use crate::output::Output;

/// A release with its statement, checked to be the one that its digest names.
pub(super) struct Fetched {
    pub(super) release: Release,
    pub(super) statement: Statement,
    pub(super) signed: SignedRelease,
    pub(super) documents: Documents,
}

impl Online {
    /// A release by revision, 0 for the current one; `None` if there is no such.
    pub(super) async fn fetch(&mut self, revision: u64) -> Result<Option<Fetched>, Failure> {
        let answer = match self.client.get_release(GetReleaseRequest { revision }).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if refusal::explain(&status).is(Reason::NotFound) => return Ok(None),
            Err(status) => return Err(refused(&status)),
        };
        let GetReleaseResponse {
            release,
            signed,
            documents,
        } = answer;
        let release = release.ok_or_else(|| malformed("the release is missing"))?;
        let signed = signed.ok_or_else(|| malformed("the signed statement is missing"))?;
        let statement = signing::read_statement(&signed.statement)?;
        if digest("statement_digest", &release.statement_digest)? != Digest::of(&signed.statement) {
            return Err(Failure::altered(
                "digest-mismatch",
                "the coordinator's statement is not the one that its digest names",
            ));
        }
        if statement.plant != self.login.context.plant || (revision != 0 && statement.revision.0 != revision)
        {
            return Err(Failure::altered(
                "wrong-release",
                format!(
                    "asked for r{revision} of {}, got {} of {}",
                    self.login.context.plant, statement.revision, statement.plant
                ),
            ));
        }
        let origin = statement.revision.to_string();
        let documents = documents
            .into_iter()
            .map(|file| (file.name, file.content.to_vec()));
        let documents = Documents::received(&origin, documents);
        Ok(Some(Fetched {
            release,
            statement,
            signed,
            documents,
        }))
    }

    /// The release by revision, or that there is none.
    pub(super) async fn require(&mut self, revision: u64) -> Result<Fetched, Failure> {
        self.fetch(revision).await?.ok_or_else(|| {
            let what = if revision == 0 {
                "there is no current release yet".to_owned()
            } else {
                format!("there is no release r{revision}")
            };
            Failure::new(Exit::Refused, "NOT_FOUND", what).help("see: penstock release list")
        })
    }
}

/// The plant of a release whose documents are what its statement says.
pub(super) fn plant_of(fetched: &Fetched, out: &Output) -> Result<LoadedPlant, Failure> {
    let loaded = loading::judge(fetched.documents.clone(), out)?;
    signing::compare(&fetched.statement, &loaded)?;
    Ok(loaded)
}

/// The current release's plant, to compare with. One that cannot be read any more is said, not passed over.
pub(super) fn base_plant(current: Option<&Fetched>, out: &Output) -> Result<Option<Plant>, Failure> {
    let Some(current) = current else {
        out.remark("there is no current release: everything in this one is new");
        return Ok(None);
    };
    Ok(Some(plant_of(current, out)?.plant))
}

pub(super) fn envelope(fetched: &Fetched) -> Result<Envelope, Failure> {
    let mut envelope = Envelope {
        statement: fetched.signed.statement.to_vec(),
        signatures: Vec::new(),
    };
    for signature in &fetched.signed.signatures {
        let approver = ApproverId::new(&signature.approver).map_err(|error| malformed(&error.to_string()))?;
        let signature =
            Signature::new(approver, &signature.signature).map_err(|error| malformed(&error.to_string()))?;
        envelope.add(signature);
    }
    Ok(envelope)
}

/// Writes documents below `folder`; names that would lead out of it are refused.
pub(super) fn write_documents(documents: &Documents, folder: &Path) -> Result<(), Failure> {
    for file in &documents.files {
        let name = Path::new(&file.name);
        if name
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            return Err(malformed(&format!("a document is named `{}`", file.name)));
        }
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(|source| files::FileError::Write {
            path: parent.to_owned(),
            source,
        })?;
        files::create(&path, &file.content, Mode::Shared)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_document_that_would_be_written_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../up.yaml", "/etc/x.yaml", "a/../../b.yaml"] {
            let documents = Documents::received("r1", [(name.to_owned(), b"x".to_vec())]);
            assert_eq!(
                write_documents(&documents, folder.path()).unwrap_err().exit,
                Exit::Altered,
                "{name}"
            );
        }
        let documents = Documents::received("r1", [("zones/a.yaml".to_owned(), b"x".to_vec())]);
        write_documents(&documents, folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("zones/a.yaml")).unwrap(), b"x");
    }
}
