//! The way from the release that is held to the one that is offered: each statement between the two, verified with the
//! approvers in force at its parent.
//!
//! So nobody can offer a release that was made on top of one which the approvers never signed, and whoever slept through
//! changes of approvers follows them one by one. A verifier that holds no release yet (a gateway fresh from its enrolment)
//! begins at the first link that the approvers it was given have signed; what comes before that link proves nothing to it.

use super::refusal::OfferRefused;
use super::signature::Signature;
use super::statement::Statement;
use super::verify::{Trust, at_most, verify_release};
use crate::ids::Digest;

/// The most links that are followed in one offer: a release a day for twenty-seven years.
pub const CHAIN_LINKS_MAX: usize = 10_000;

/// The most bytes of statements and signatures that are followed in one offer.
pub const CHAIN_BYTES_MAX: usize = 16 << 20;

/// A release between the one that is held and the one that is offered, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// The statement's exact bytes.
    pub statement: &'a [u8],
    /// Signatures over it.
    pub signatures: &'a [Signature],
}

impl Link<'_> {
    /// What it takes of [`CHAIN_BYTES_MAX`].
    pub fn bytes(&self) -> usize {
        self.signatures
            .iter()
            .fold(self.statement.len(), |sum, signature| {
                sum.saturating_add(signature.bytes().len() + signature.approver.as_str().len())
            })
    }
}

/// What `trust` becomes by following `links`, the oldest first, up to the release whose exact bytes are `offered`.
///
/// # Errors
/// A link from the held release on that is not signed by the approvers in force at its parent, does not follow the link
/// before it, or has no higher number; and links that lead past the held release.
pub fn follow(trust: &Trust, links: &[Link<'_>], offered: &[u8]) -> Result<Trust, OfferRefused> {
    at_most("chain of statements", links.len(), CHAIN_LINKS_MAX)?;
    let bytes = links
        .iter()
        .fold(0_usize, |sum, link| sum.saturating_add(link.bytes()));
    at_most("chain of statements", bytes, CHAIN_BYTES_MAX)?;
    let mut reached = trust.clone();
    if trust.current == Some(Digest::of(offered)) {
        return Ok(reached);
    }
    let mut links = links.iter();
    // To the first link that goes on from what is held.
    for link in links.by_ref() {
        let goes_on = match trust.current {
            Some(current) => Statement::from_bytes(link.statement).is_ok_and(|next| next.follows(current)),
            None => verify_release(trust, link.statement, link.signatures).is_ok(),
        };
        if goes_on {
            reached = verify_release(trust, link.statement, link.signatures)?.next;
            break;
        }
    }
    for link in links {
        reached = verify_release(&reached, link.statement, link.signatures)?.next;
    }
    Ok(reached)
}
