//! A release as it was fetched: checked to be what its digests name, and compiled again before anything is believed.

use std::path::Path;

use penstock_policy::ids::{ApproverId, Digest};
use penstock_policy::release::{Envelope, Signature, Statement};
use penstock_policy::text::is_hidden;
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
pub(in crate::online) struct FetchedRelease {
    pub(in crate::online) release: Release,
    pub(in crate::online) statement: Statement,
    pub(in crate::online) signed: SignedRelease,
    pub(in crate::online) documents: Documents,
    /// The releases before it, from the one that was asked for on.
    pub(in crate::online) chain: Vec<SignedRelease>,
}

/// The coordinator's history up to the release that it calls current, the oldest first, with the digest of that one.
pub(in crate::online) fn history(current: Option<&FetchedRelease>) -> (Vec<SignedRelease>, Option<Digest>) {
    let Some(current) = current else {
        return (Vec::new(), None);
    };
    let mut chain = current.chain.clone();
    chain.push(current.signed.clone());
    (chain, Some(Digest::of(&current.signed.statement)))
}

impl Online {
    /// A release by revision, 0 for the current one; `None` if there is no such.
    pub(in crate::online) async fn fetch(
        &mut self,
        revision: u64,
    ) -> Result<Option<FetchedRelease>, Failure> {
        self.fetch_named(revision, None, None).await
    }

    /// The same, with the releases since one that is known; and only if its statement has this digest.
    pub(in crate::online) async fn fetch_named(
        &mut self,
        revision: u64,
        named: Option<Digest>,
        since: Option<Digest>,
    ) -> Result<Option<FetchedRelease>, Failure> {
        let bytes =
            |digest: Option<Digest>| digest.map(|digest| digest.0.to_vec().into()).unwrap_or_default();
        let request = GetReleaseRequest {
            revision,
            statement_digest: bytes(named),
            since_digest: bytes(since),
        };
        let answer = match self.client.get_release(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if refusal::explain(&status).is(Reason::NotFound) => return Ok(None),
            Err(status) => return Err(refused(&status)),
        };
        let GetReleaseResponse {
            release,
            signed,
            documents,
            chain,
        } = answer;
        let release = release.ok_or_else(|| malformed("the release is missing"))?;
        let signed = signed.ok_or_else(|| malformed("the signed statement is missing"))?;
        let statement = signing::read_statement(&signed.statement)?;
        let stated = Digest::of(&signed.statement);
        let announced = digest("statement_digest", &release.statement_digest)?;
        let mut wanted = named.into_iter().chain([announced]);
        if let Some(wanted) = wanted.find(|wanted| *wanted != stated) {
            return Err(Failure::altered(
                "digest-mismatch",
                "the coordinator's statement is not the one that its digest names",
            )
            .because(format!("named: {wanted}"))
            .because(format!("the statement that came: {stated}")));
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
        Ok(Some(FetchedRelease {
            release,
            statement,
            signed,
            documents,
            chain,
        }))
    }

    /// The release by revision, or that there is none.
    pub(in crate::online) async fn require(&mut self, revision: u64) -> Result<FetchedRelease, Failure> {
        self.fetch(revision).await?.ok_or_else(|| no_such(revision))
    }
}

/// There is no release with this number; 0: none is current.
pub(in crate::online) fn no_such(revision: u64) -> Failure {
    let what = if revision == 0 {
        "there is no current release yet".to_owned()
    } else {
        format!("there is no release r{revision}")
    };
    Failure::new(Exit::Refused, "NOT_FOUND", what).help("see: penstock release list")
}

/// The plant of a release whose documents are what its statement says.
pub(in crate::online) fn plant_of(fetched: &FetchedRelease, out: &Output) -> Result<LoadedPlant, Failure> {
    let loaded = loading::judge(fetched.documents.clone(), out)?;
    signing::compare(&fetched.statement, &loaded)?;
    Ok(loaded)
}

pub(in crate::online) fn envelope(fetched: &FetchedRelease) -> Result<Envelope, Failure> {
    let mut envelope = Envelope {
        statement: fetched.signed.statement.to_vec(),
        signatures: Vec::new(),
    };
    signatures_of(&fetched.signed)?
        .into_iter()
        .for_each(|signature| envelope.add(signature));
    Ok(envelope)
}

/// The signatures of a release as they came.
pub(in crate::online) fn signatures_of(signed: &SignedRelease) -> Result<Vec<Signature>, Failure> {
    let read = |signature: &penstock_proto::v1::Signature| {
        let approver = ApproverId::new(&signature.approver).map_err(|error| malformed(&error.to_string()))?;
        Signature::new(approver, &signature.algorithm, &signature.signature)
            .map_err(|error| malformed(&error.to_string()))
    };
    signed.signatures.iter().map(read).collect()
}

/// Writes documents below `folder`; names that would lead out of it, or mislead who reads them, are refused.
pub(in crate::online) fn write_documents(documents: &Documents, folder: &Path) -> Result<(), Failure> {
    for file in &documents.files {
        let name = Path::new(&file.name);
        if name
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)))
            || file
                .name
                .contains(|c: char| is_hidden(c) || c == '\n' || c == '\t')
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
        for name in [
            "../up.yaml",
            "/etc/x.yaml",
            "a/../../b.yaml",
            "a\u{1b}[2J.yaml",
            "lmay.\u{202e}b",
        ] {
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
