//! What the trail calls a release that somebody does something to.

use penstock_policy::ids::{Digest, Revision};
use penstock_proto::convert;
use penstock_proto::v1;

/// A release by number and digest: a number alone is no name.
pub(super) fn proposed(revision: Revision, digest: Digest) -> String {
    format!("{revision} {digest}")
}

/// The release that a signature is for; `current`: the signature makes it so.
pub(crate) fn approved(request: &v1::ApproveReleaseRequest, current: bool) -> String {
    let by = match &request.signature {
        Some(signature) if request.brought => {
            format!(", brought the signature of {}", signature.approver)
        }
        _ => String::new(),
    };
    let now = if current { ", now current" } else { "" };
    format!("{}{by}{now}", named(request.revision, &request.statement_digest))
}

/// The release that is rejected or withdrawn, and why.
pub(crate) fn ended(request: &v1::EndReleaseRequest) -> String {
    let named = named(request.revision, &request.statement_digest);
    format!("{named}: {}", request.reason.trim())
}

/// By the digest that the request says.
fn named(revision: u64, digest: &[u8]) -> String {
    let digest =
        convert::digest("", digest).map_or_else(|_| "without a digest".to_owned(), |d| d.to_string());
    format!("{} {digest}", Revision(revision))
}
