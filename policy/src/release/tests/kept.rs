//! A signed release as it was written when its format was made: people keep such files, and gateways hold such statements.

use super::*;
use crate::release::signing::ApproverKey;
use crate::release::{Envelope, Signable};

const SIGNED: &str = include_str!("../../../fixtures/release-format-1.json");

#[test]
fn a_release_that_was_signed_then_is_read_verified_and_written_the_same_today() {
    let envelope = Envelope::from_json(SIGNED).unwrap();
    assert_eq!(envelope.to_json(), SIGNED);
    let statement = Statement::from_bytes(&envelope.statement).unwrap();
    assert_eq!(statement.to_bytes(), envelope.statement);
    assert_eq!((statement.revision, statement.gateways), (Revision(7), 2));
    let signed = Signable::release(&envelope.statement);
    assert_eq!(envelope.signatures.len(), 2);
    for signature in &envelope.signatures {
        let key = statement.approvers.people[&signature.approver].key;
        assert!(signature.verifies(&signed, &key), "{}", signature.approver);
    }
    // And who signs it today makes the same signature.
    let again = ApproverKey::from_seed(&[1; 32])
        .sign(id("a.silva"), &envelope.statement)
        .unwrap();
    assert!(envelope.signatures.contains(&again));
}

#[test]
fn the_digest_of_documents_and_the_leaf_of_a_gateway_are_what_they_were() {
    let file = DocumentFile {
        name: "plant.yaml",
        content: b"plant: riverside-water",
    };
    assert_eq!(
        document_digest(&[file]).to_string(),
        "sha256:a9735c2a645b763443ee706ba8e150e11834a81742038ae18807844734ff6416"
    );
    let leaf = leaf_bytes(&id("gw-works"), Revision(7), Digest([1; 32]));
    assert_eq!(
        String::from_utf8(leaf).unwrap(),
        format!(
            r#"{{"gateway":"gw-works","revision":7,"plan_digest":"{}"}}"#,
            Digest([1; 32])
        )
    );
}
