//! The words of decisions and severities, and small pieces of sentences.

use penstock_policy::terms::Proof;
use serde_json::{Value, json};

use crate::v1::{self, Decision, Severity};

/// `allow`, `deny`, `would-deny`; `unknown` of any other number.
pub fn decision_word(decision: i32) -> &'static str {
    match Decision::try_from(decision) {
        Ok(Decision::Allow) => "allow",
        Ok(Decision::Deny) => "deny",
        Ok(Decision::WouldDeny) => "would-deny",
        Ok(Decision::Unspecified) | Err(_) => "unknown",
    }
}

/// What a gateway checked of who an end is; `None`: it does not say.
fn proof(number: i32) -> Option<Proof> {
    Some(match v1::Proof::try_from(number) {
        Ok(v1::Proof::Address) => Proof::Address,
        Ok(v1::Proof::Port) => Proof::Port,
        Ok(v1::Proof::Mac) => Proof::Mac,
        Ok(v1::Proof::Tunnel) => Proof::Tunnel,
        Ok(v1::Proof::ForeignCertificate) => Proof::ForeignCertificate,
        Ok(v1::Proof::PlantCertificate) => Proof::PlantCertificate,
        Ok(v1::Proof::Unspecified) | Err(_) => return None,
    })
}

/// "; the client is known by its address only (D0), the server by a certificate of the plant (D4)"; nothing of software that does not say it.
pub(super) fn known([one, other]: [&str; 2], proofs: [i32; 2]) -> String {
    match proofs.map(proof) {
        [Some(first), Some(second)] => format!("; the {one} is known {first}, the {other} {second}"),
        [Some(first), None] => format!("; the {one} is known {first}"),
        [None, Some(second)] => format!("; the {other} is known {second}"),
        [None, None] => String::new(),
    }
}

/// For programs: what was checked, and what that is worth.
pub(super) fn proof_field(number: i32) -> Value {
    proof(number).map_or(
        Value::Null,
        |proof| json!({ "proof": proof, "assurance": proof.assurance() }),
    )
}

/// `info`, `notice`, `warning`, `alarm`; `unknown` of any other number.
pub fn severity_word(severity: i32) -> &'static str {
    match Severity::try_from(severity) {
        Ok(Severity::Info) => "info",
        Ok(Severity::Notice) => "notice",
        Ok(Severity::Warning) => "warning",
        Ok(Severity::Alarm) => "alarm",
        Ok(Severity::Unspecified) | Err(_) => "unknown",
    }
}

/// `text` behind `mark`; nothing where there is no text.
pub(super) fn behind(mark: &str, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("{mark}{text}")
    }
}

/// `text` in its brackets, behind a space; nothing where there is no text.
pub(super) fn bracketed([open, close]: [char; 2], text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" {open}{text}{close}")
    }
}

/// " ×3"; nothing of what was once.
pub(super) fn times(count: u64) -> String {
    if count > 1 {
        format!(" ×{count}")
    } else {
        String::new()
    }
}
