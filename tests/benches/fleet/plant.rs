//! The plant's releases, as their author and their approvers send them.

use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::{ApproverId, Digest, OperatorId, Revision};
use penstock_policy::release::{DocumentFile, Draft, build, document_digest};
use penstock_proto::v1;

use super::document::key;

/// A release as its author sends it.
pub(super) struct Built {
    pub(super) request: v1::ProposeReleaseRequest,
    revision: u64,
}

impl Built {
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.request.statement)
    }

    pub(super) fn approval(&self, person: &str) -> v1::ApproveReleaseRequest {
        let approver = ApproverId::new(person).unwrap();
        let signature = key(person).sign(approver, &self.request.statement).unwrap();
        v1::ApproveReleaseRequest {
            revision: self.revision,
            statement_digest: self.digest().0.to_vec().into(),
            signature: Some(v1::Signature {
                approver: person.to_owned(),
                signature: signature.bytes().to_vec().into(),
                ..Default::default()
            }),
            brought: false,
        }
    }
}

/// The release of this number, of this document.
pub(super) fn release(text: String, revision: u64, parent: Option<Digest>) -> Built {
    let source = SourceFile {
        name: "plant.yaml".to_owned(),
        text: text.clone(),
    };
    let loaded = penstock_policy::load(&[source], jiff::civil::date(2026, 1, 1));
    let faults: Vec<_> = loaded.diagnostics.errors().take(3).collect();
    let plant = loaded.plant.unwrap_or_else(|| panic!("{faults:?}"));
    let file = DocumentFile {
        name: "plant.yaml",
        content: text.as_bytes(),
    };
    let draft = Draft {
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        revision: Revision(revision),
        parent,
        replaces: Vec::new(),
        document_digest: document_digest(&[file]),
        author: OperatorId::new("anna").unwrap(),
        ticket: None,
        reason: "a bench".to_owned(),
        created_ms: 1,
    };
    let statement = build(&plant, draft).unwrap().statement.to_bytes();
    let documents = vec![v1::DocumentFile {
        name: "plant.yaml".to_owned(),
        content: text.into_bytes().into(),
    }];
    Built {
        request: v1::ProposeReleaseRequest {
            statement: statement.into(),
            documents,
        },
        revision,
    }
}
