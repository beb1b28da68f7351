//! How a refusal travels: a gRPC status with rich details that a program can act on and a person can read.
//!
//! Every refusal has a stable [`Reason`] (google.rpc.ErrorInfo, domain `penstock`), a sentence, and where it
//! helps the faulty fields (BadRequest), the conditions that do not hold (PreconditionFailure) or when to try
//! again (RetryInfo). Details are bounded, since they travel in an HTTP/2 header.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use penstock_policy::text;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of all reasons.
pub const REASON_DOMAIN: &str = "penstock";

/// Most field violations or preconditions in one refusal; the rest is counted in words.
pub const DETAILS_MAX: usize = 12;
/// Longest text of one detail, in bytes.
pub const DETAIL_BYTES_MAX: usize = 300;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident;)*) => {
        /// Why something was refused; the text is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The gRPC code that goes with it.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// The caller showed no client certificate.
    NoCertificate = "NO_CERTIFICATE", Unauthenticated;
    /// The certificate that the caller's connection was opened with has ended.
    CertificateEnded = "CERTIFICATE_ENDED", Unauthenticated;
    /// The caller's certificate is of another kind than this service is for.
    WrongKindOfPeer = "WRONG_KIND_OF_PEER", PermissionDenied;
    /// The caller's key does not count any more: it was withdrawn, or another took its place.
    IdentityWithdrawn = "IDENTITY_WITHDRAWN", PermissionDenied;
    /// The caller is suspended until an admin lifts that.
    IdentitySuspended = "IDENTITY_SUSPENDED", PermissionDenied;
    /// The key was withdrawn, so that it never gets a certificate again; another key may.
    KeyWithdrawn = "KEY_WITHDRAWN", PermissionDenied;
    /// A certificate is renewed for the key that it has, and for no other.
    OtherKey = "OTHER_KEY", PermissionDenied;
    /// Two machines use the key, so that its certificate is not renewed until a person decides.
    TwoUsers = "TWO_USERS", FailedPrecondition;
    /// What was asked for does not fit how the subject stands: it is revoked already, or not suspended.
    WrongStanding = "WRONG_STANDING", FailedPrecondition;
    /// Nobody changes how they themselves stand.
    OwnStanding = "OWN_STANDING", PermissionDenied;
    /// Without this one no admin would be left.
    LastAdmin = "LAST_ADMIN", FailedPrecondition;
    /// The operator is not known here, or no longer.
    UnknownOperator = "UNKNOWN_OPERATOR", PermissionDenied;
    /// The gateway is not known here, or no longer.
    UnknownGateway = "UNKNOWN_GATEWAY", PermissionDenied;
    /// The operator's role does not include this.
    WrongRole = "WRONG_ROLE", PermissionDenied;
    /// Fields of the request are missing or malformed.
    BadRequest = "BAD_REQUEST", InvalidArgument;
    /// The token is unknown, for another name, or its secret is wrong. Which of them is not disclosed.
    TokenUnknown = "TOKEN_UNKNOWN", PermissionDenied;
    /// The token was used, with another key.
    TokenUsed = "TOKEN_USED", PermissionDenied;
    /// The token is bound to another key.
    TokenForOtherKey = "TOKEN_FOR_OTHER_KEY", PermissionDenied;
    /// The token is past its time.
    TokenExpired = "TOKEN_EXPIRED", PermissionDenied;
    /// The gateway would believe other approvers than those that its token was made for.
    ApproversMismatch = "APPROVERS_MISMATCH", PermissionDenied;
    /// Another operator logs in with this key.
    KeyTaken = "KEY_TAKEN", PermissionDenied;
    /// Operators do not sign in through an identity provider here.
    NoProvider = "NO_PROVIDER", FailedPrecondition;
    /// The identity provider cannot be asked now.
    ProviderUnreachable = "PROVIDER_UNREACHABLE", Unavailable;
    /// What the identity provider signed does not count, or is for another key.
    SignInRefused = "SIGN_IN_REFUSED", PermissionDenied;
    /// The operator's key came by a token and counts, so that no sign-in takes its place.
    LoginByToken = "LOGIN_BY_TOKEN", FailedPrecondition;
    /// The key came by the identity provider, which has to be asked again.
    SignInNeeded = "SIGN_IN_NEEDED", FailedPrecondition;
    /// A second person has to confirm it, and nobody can now.
    NobodyConfirms = "NOBODY_CONFIRMS", FailedPrecondition;
    /// Nobody confirms what they asked for themselves, under whatever name.
    SamePerson = "SAME_PERSON", PermissionDenied;
    /// As many requests wait for a second person as are kept.
    TooManyRequests = "TOO_MANY_REQUESTS", ResourceExhausted;
    /// Too many attempts; try again later.
    TooManyAttempts = "TOO_MANY_ATTEMPTS", ResourceExhausted;
    /// The certificate request cannot be read, is not signed by its key, or has a weak key.
    BadCertificateRequest = "BAD_CERTIFICATE_REQUEST", InvalidArgument;
    /// The document has errors.
    DocumentErrors = "DOCUMENT_ERRORS", InvalidArgument;
    /// The statement does not say what its documents compile to.
    StatementMismatch = "STATEMENT_MISMATCH", InvalidArgument;
    /// The revision is not the next one.
    RevisionTaken = "REVISION_TAKEN", FailedPrecondition;
    /// The release was made on top of one that is not current.
    ParentMismatch = "PARENT_MISMATCH", FailedPrecondition;
    /// The author in the statement is not the caller.
    AuthorMismatch = "AUTHOR_MISMATCH", PermissionDenied;
    /// The approver is the author.
    SelfApproval = "SELF_APPROVAL", PermissionDenied;
    /// The release is an emergency, and the approvers in force have no threshold for one.
    NoEmergencies = "NO_EMERGENCIES", FailedPrecondition;
    /// The caller is not the approver that the signature names, or not one of the approvers in force.
    NotAnApprover = "NOT_AN_APPROVER", PermissionDenied;
    /// The signature does not verify over the release that is recorded.
    BadSignature = "BAD_SIGNATURE", InvalidArgument;
    /// The digest that was signed is not that of the recorded release.
    DigestMismatch = "DIGEST_MISMATCH", FailedPrecondition;
    /// As many proposals wait for signatures as are kept.
    TooManyProposals = "TOO_MANY_PROPOSALS", ResourceExhausted;
    /// The release does not wait for signatures.
    NotProposed = "NOT_PROPOSED", FailedPrecondition;
    /// There is no such thing.
    NotFound = "NOT_FOUND", NotFound;
    /// It exists already.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// An audit block is missing before this one.
    AuditGap = "AUDIT_GAP", FailedPrecondition;
    /// An audit block differs from one that was accepted at the same place.
    AuditFork = "AUDIT_FORK", DataLoss;
    /// An audit block does not name the digest of the one before it.
    AuditBrokenChain = "AUDIT_BROKEN_CHAIN", DataLoss;
    /// An audit block cannot be read, or is larger than allowed.
    AuditMalformed = "AUDIT_MALFORMED", InvalidArgument;
    /// A newer session of the same gateway took over.
    SessionReplaced = "SESSION_REPLACED", Aborted;
    /// The peer did not keep up, or broke the protocol of the session.
    SessionProtocol = "SESSION_PROTOCOL", FailedPrecondition;
    /// Too slow to take what was sent.
    SlowConsumer = "SLOW_CONSUMER", ResourceExhausted;
    /// Somebody else changed the same thing; read it again and repeat.
    Conflict = "CONFLICT", Aborted;
    /// A search that took longer than one may.
    SearchTooLong = "SEARCH_TOO_LONG", DeadlineExceeded;
    /// As many searches of one operator run as may.
    TooManySearches = "TOO_MANY_SEARCHES", ResourceExhausted;
    /// As many large answers are under way as may, and this operator has the most of them.
    TooManyAnswers = "TOO_MANY_ANSWERS", ResourceExhausted;
    /// More changes by one operator than are taken at once.
    TooManyActions = "TOO_MANY_ACTIONS", ResourceExhausted;
    /// The store is busy; try again.
    StoreBusy = "STORE_BUSY", Unavailable;
    /// The store's disk is full.
    StoreFull = "STORE_FULL", ResourceExhausted;
    /// The store cannot be used now: read-only, an error of its disk, no memory. What it holds is not affected.
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable;
    /// The store is damaged.
    StoreCorrupt = "STORE_CORRUPT", DataLoss;
    /// The token that holds the key by which certificates are issued does not sign now.
    IssuingKeyUnavailable = "ISSUING_KEY_UNAVAILABLE", Unavailable;
    /// The coordinator is stopping.
    Stopping = "STOPPING", Unavailable;
    /// A fault of the coordinator itself; its log says more.
    Internal = "INTERNAL", Internal;
}

/// A refusal before it becomes a status.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What happened, to what, why, and what to do next.
    pub message: String,
    /// Faulty fields: path and what is wrong with it.
    pub fields: Vec<(String, String)>,
    /// Conditions that do not hold: subject and description.
    pub conditions: Vec<(String, String)>,
    /// More facts by name.
    pub facts: BTreeMap<String, String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with a sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            fields: Vec::new(),
            conditions: Vec::new(),
            facts: BTreeMap::new(),
            retry_after: None,
        }
    }

    /// Names a faulty field.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>, what: impl Into<String>) -> Self {
        self.fields.push((path.into(), what.into()));
        self
    }

    /// Names a condition that does not hold.
    #[must_use]
    pub fn condition(mut self, subject: impl Into<String>, what: impl Into<String>) -> Self {
        self.conditions.push((subject.into(), what.into()));
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.facts.insert(name.into(), bounded(&value.to_string()));
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

fn bounded(text: &str) -> String {
    text::shortened(text, DETAIL_BYTES_MAX).into_owned()
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let mut details = ErrorDetails::new();
        let facts: std::collections::HashMap<_, _> = refusal.facts.into_iter().collect();
        details.set_error_info(refusal.reason.as_str(), REASON_DOMAIN, facts);
        let surplus = |n: usize| (n > DETAILS_MAX).then(|| format!("and {} more", n - DETAILS_MAX));
        for (field, what) in refusal.fields.iter().take(DETAILS_MAX) {
            details.add_bad_request_violation(bounded(field), bounded(what));
        }
        if let Some(more) = surplus(refusal.fields.len()) {
            details.add_bad_request_violation("…", more);
        }
        for (subject, what) in refusal.conditions.iter().take(DETAILS_MAX) {
            details.add_precondition_failure_violation(
                refusal.reason.as_str(),
                bounded(subject),
                bounded(what),
            );
        }
        if let Some(more) = surplus(refusal.conditions.len()) {
            details.add_precondition_failure_violation(refusal.reason.as_str(), "…", more);
        }
        if let Some(after) = refusal.retry_after {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(refusal.reason.code(), bounded(&refusal.message), details)
    }
}

/// A refusal as its receiver reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedRefusal {
    /// The stable reason, if the other side gave one.
    pub reason: Option<String>,
    /// The sentence.
    pub message: String,
    /// Faulty fields and conditions that do not hold: subject and description.
    pub details: Vec<(String, String)>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl ReceivedRefusal {
    /// Whether it is this reason.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason.as_deref() == Some(reason.as_str())
    }
}

/// Reads a status back: what the other side refused, or why the call could not reach it.
pub fn explain(status: &Status) -> ReceivedRefusal {
    if let Some(message) = crate::channel::explain_failure(status) {
        return ReceivedRefusal {
            reason: None,
            message,
            details: Vec::new(),
            retry_after: None,
        };
    }
    let details = status.get_error_details();
    let mut lines = Vec::new();
    if let Some(bad) = details.bad_request() {
        lines.extend(
            bad.field_violations
                .iter()
                .map(|v| (v.field.clone(), v.description.clone())),
        );
    }
    if let Some(failed) = details.precondition_failure() {
        lines.extend(
            failed
                .violations
                .iter()
                .map(|v| (v.subject.clone(), v.description.clone())),
        );
    }
    ReceivedRefusal {
        reason: details
            .error_info()
            .filter(|info| info.domain == REASON_DOMAIN)
            .map(|info| info.reason.clone()),
        message: status.message().to_owned(),
        details: lines,
        retry_after: details.retry_info().and_then(|info| info.retry_delay),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_refusal_reads_back_as_it_was_meant() {
        let status: Status = Refusal::new(Reason::ParentMismatch, "release r4 was made on top of r2")
            .condition("parent", "r3 is current")
            .field("statement.parent", "is r2")
            .retry_after(Duration::from_secs(3))
            .into();
        assert_eq!(status.code(), Code::FailedPrecondition);
        let explained = explain(&status);
        assert!(explained.is(Reason::ParentMismatch));
        assert_eq!(explained.message, "release r4 was made on top of r2");
        assert_eq!(
            explained.details,
            [
                ("statement.parent".to_owned(), "is r2".to_owned()),
                ("parent".to_owned(), "r3 is current".to_owned())
            ]
        );
        assert_eq!(explained.retry_after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn details_stay_within_what_a_header_can_carry() {
        let mut refusal = Refusal::new(Reason::DocumentErrors, "ä".repeat(10_000));
        for n in 0..1000 {
            refusal = refusal.field(format!("f{n}"), "ö".repeat(5000));
        }
        let status: Status = refusal.into();
        assert!(status.details().len() < 8 * 1024, "{}", status.details().len());
        let explained = explain(&status);
        assert_eq!(explained.details.len(), DETAILS_MAX + 1);
        assert_eq!(
            explained.details.last().unwrap().1,
            format!("and {} more", 1000 - DETAILS_MAX)
        );
    }

    #[test]
    fn every_reason_is_unique_and_in_the_form_that_errorinfo_wants() {
        let texts: BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(texts.len(), Reason::ALL.len());
        for text in texts {
            assert!(text.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{text}");
        }
    }
}
