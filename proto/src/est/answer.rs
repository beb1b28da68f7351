//! What a device is answered: a status, what the body is, and in words what is wrong and what to do.
//!
//! Statuses are those of RFC 7030 (4.2.3): 202 where nothing can be given *yet*, with the time to ask again; 400 for what cannot be read; 401
//! where nobody proved anything; 403 for who is known and gets nothing; 429 and 503 with the time to ask again.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::der;
use crate::refusal::{Reason, Refusal};

/// When a device that was answered 202 asks again: somebody has to approve a release first.
const YET: Duration = Duration::from_secs(60);
/// When a device asks again after a fault of the store.
const AGAIN: Duration = Duration::from_secs(30);

/// What is in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The authority's certificates, PKCS#7.
    Authorities(Vec<u8>),
    /// The certificate that was issued, PKCS#7.
    Certificate(Vec<u8>),
    /// What a request should have.
    Attributes(Vec<u8>),
    /// What is wrong, for people.
    Words(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// What it says.
    pub body: Body,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Whom devices have to trust.
    pub fn authorities(certificates: &[CertificateDer<'_>]) -> Self {
        Self::good(Body::Authorities(der::certs_only(certificates)))
    }

    /// The certificate that was issued, alone (RFC 7030, 4.2.3).
    pub fn certificate(leaf: &CertificateDer<'_>) -> Self {
        Self::good(Body::Certificate(der::certs_only(std::slice::from_ref(leaf))))
    }

    /// What a request should look like.
    pub fn attributes() -> Self {
        Self::good(Body::Attributes(der::csr_attributes()))
    }

    fn good(body: Body) -> Self {
        Self {
            status: 200,
            body,
            retry_after: None,
        }
    }

    /// Nothing, for this reason.
    pub fn words(status: u16, words: impl Into<String>) -> Self {
        Self {
            status,
            body: Body::Words(words.into()),
            retry_after: None,
        }
    }

    /// Nothing: nobody proved who they are.
    pub fn unauthorized(words: &str) -> Self {
        Self::words(401, words)
    }

    /// Nothing, since it was refused.
    pub fn refused(refusal: &Refusal) -> Self {
        let (status, retry_after) = status_of(refusal.reason);
        Self {
            status,
            body: Body::Words(refusal.message.clone()),
            retry_after: refusal.retry_after.or(retry_after),
        }
    }
}

fn status_of(reason: Reason) -> (u16, Option<Duration>) {
    match reason {
        // No release, or none that has this asset: the token waits for it.
        Reason::NotFound => (202, Some(YET)),
        Reason::BadRequest | Reason::BadCertificateRequest => (400, None),
        Reason::TokenUnknown => (401, None),
        Reason::TooManyAttempts | Reason::TooManyActions => (429, Some(YET)),
        Reason::StoreBusy
        | Reason::StoreFull
        | Reason::StoreUnavailable
        | Reason::StoreCorrupt
        | Reason::TooManyProposals
        | Reason::Conflict
        | Reason::Stopping => (503, Some(AGAIN)),
        Reason::Internal => (500, None),
        _ => (403, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_is_answered_as_if_something_was_given() {
        for reason in Reason::ALL {
            let answer = Answer::refused(&Refusal::new(*reason, "no"));
            assert_ne!(answer.status, 200, "{reason:?}");
            assert_eq!(answer.body, Body::Words("no".to_owned()));
            // Whoever is to ask again learns when.
            let asks_again = matches!(answer.status, 202 | 429 | 503);
            assert_eq!(answer.retry_after.is_some(), asks_again, "{reason:?}");
        }
    }
}
