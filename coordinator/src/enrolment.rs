//! Enrolment: a single-use token becomes a certificate (DESIGN §6; IEC 62443-3-3 SR 1.5, SR 1.9).
//!
//! A token is bound to one subject, expires, and is consumed atomically: of two who use it at once with different
//! keys one wins, since both write against the revision that they read. The same token with the *same* key gets
//! its answer again, so that a lost reply does not strand a gateway. At rest there is only a hash of the secret. That a token is
//! used, what is remembered of whoever used it, and the event of it are one change: a crash leaves all of it or nothing.
//! Whether a name or a secret was wrong is not disclosed, and wrong attempts are limited; a right secret, which nobody guesses,
//! passes all the same, so that no stranger at the same address locks it out.
//!
//! A token may be bound to one key, which was born before it: then nobody else enrols with it, whoever gets hold of it.
//!
//! One record per subject (`token/<kind>/<name>`): a new token for a subject ends the one before.

mod applicants;
mod attempts;
mod batch;
mod gateway;
mod wish;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use penstock_policy::ids::{Digest, RoleName};
use penstock_policy::model::ApproverSet;
use penstock_proto::peer::{Certified, Subject};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::token::{SECRET_BYTES, Secret};
use serde::{Deserialize, Serialize};

pub(crate) use self::applicants::{Applicants, Given};
pub use self::attempts::{Attempts, AttemptsLimits};
pub(crate) use self::batch::{BatchGround, BatchTokens, submit_batch};
pub use self::gateway::{GATEWAY_PREFIX, GatewayRecord};
pub(crate) use self::gateway::{update_gateway, with_gateway};
pub use self::wish::TokenWish;
use crate::ca::{Authority, IssuedCertificate, ProvenKey};
pub(crate) use crate::ca::{bad_request, internal};
use crate::journal::Deed;
use crate::operators::{self, OperatorRecord, Role};
use crate::requests::Permit;
use crate::store::{Change, Expect, OwnEvent, Store, StoreError};
use crate::subjects::{Decision, Subjects};

/// Shortest and longest validity of a token, seconds.
pub const VALID_SECONDS: std::ops::RangeInclusive<u32> = 60..=30 * 86_400;
/// Validity of a token if nothing is said, seconds.
pub const VALID_SECONDS_DEFAULT: u32 = 24 * 3600;

/// Prefix of keys that came by a sign-in (`crate::oidc`): a token ends that.
pub(crate) const SIGNED_IN: &str = "sign-in/";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRecord {
    /// Hash of the secret.
    secret: Digest,
    /// For an operator.
    role: Option<Role>,
    /// The only key that it enrols; of a record from before there were such tokens, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Digest>,
    /// The batch for which it was made (SHA-256).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<Digest>,
    /// Of the approvers whom a gateway has to believe; `None`: whoever it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approvers: Option<Digest>,
    /// The role that its certificate gives a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device_role: Option<RoleName>,
    expires_ms: u64,
    created_by: String,
    created_ms: u64,
    used: Option<UsedToken>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedToken {
    key: Digest,
    used_ms: u64,
}

/// A token as it is handed out, once.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The secret; not kept.
    pub secret: Secret,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
}

/// The record of the token for a subject.
pub(crate) fn key_of(subject: &Subject) -> String {
    format!("token/{subject}")
}

fn hash(secret: &Secret) -> Digest {
    let mut bytes = b"penstock token secret 1\0".to_vec();
    bytes.extend(secret.0);
    Digest::of(&bytes)
}

/// Makes a token for a gateway, for an operator with a role, or for a device.
pub(crate) async fn create_token(
    store: &Store,
    wish: &TokenWish,
    permit: &Permit,
    deed: Deed<'_>,
    now_ms: u64,
) -> Result<NewToken, Refusal> {
    let mut secret = Secret([0; SECRET_BYTES]);
    getrandom::fill(&mut secret.0)
        .map_err(|_| Refusal::new(Reason::Internal, "the system provides no random numbers"))?;
    let expires_ms = now_ms.saturating_add(u64::from(wish.valid_seconds) * 1000);
    let record = TokenRecord {
        secret: hash(&secret),
        role: wish.role,
        key: wish.key,
        batch: None,
        approvers: wish.approvers.as_ref().map(ApproverSet::digest),
        device_role: wish.device_role.clone(),
        expires_ms,
        created_by: deed.operator().to_owned(),
        created_ms: now_ms,
        used: None,
    };
    let key = key_of(&wish.subject);
    let expect = match store.get(&key).await? {
        None => Expect::Absent,
        Some(found) => Expect::Revision(found.revision),
    };
    let change = permit.used(Change::noted(deed.event(&wish.target(), &wish.words(permit))));
    store.apply(change.json(&key, expect, &record)?).await?;
    Ok(NewToken { secret, expires_ms })
}

/// A token that was made and is not used yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedToken {
    /// What it gives an operator.
    pub role: Option<Role>,
    /// When it ends, milliseconds since 1970; it may have ended.
    pub expires_ms: u64,
}

/// For whom a token was made that is not used yet, by name; `prefix` is [`GATEWAY_PREFIX`] or [`operators::PREFIX`].
///
/// # Errors
/// When the store fails.
pub async fn waiting(store: &Store, prefix: &str) -> Result<BTreeMap<String, UnusedToken>, StoreError> {
    let records = store.list_json::<TokenRecord>(&format!("token/{prefix}")).await?;
    Ok(records
        .into_iter()
        .filter(|(_, record, _)| record.used.is_none())
        .map(|(name, record, _)| {
            let waiting = UnusedToken {
                role: record.role,
                expires_ms: record.expires_ms,
            };
            (name, waiting)
        })
        .collect())
}

/// What came of an enrolment.
#[derive(Debug)]
pub struct EnrolmentResult {
    /// Who.
    pub subject: Subject,
    /// Their certificate.
    pub issued: IssuedCertificate,
    /// Whether it is the answer to a repeated request.
    pub repeated: bool,
}

/// Who asks to be enrolled, with what.
#[derive(Debug)]
pub struct Application<'a> {
    /// The name that the applicant says the token was made for.
    pub name: &'a str,
    /// The token's secret.
    pub secret: &'a [u8],
    /// PKCS#10, DER.
    pub certificate_request: &'a [u8],
    /// Digest of the approvers that a gateway will believe; empty: it does not say.
    pub approvers_digest: &'a [u8],
    /// Where it came from, for the limit of attempts.
    pub address: IpAddr,
}

/// Consumes a token and issues a certificate for the key in the request. `event` says what the trail says of it, and whether it
/// is the answer to a repeated request; of one that is repeated too often it says nothing, and then nothing is written.
pub(crate) async fn enrol(
    store: &Store,
    (subjects, authority): (&Subjects, &Authority),
    attempts: &Attempts,
    (applicants, application): (Applicants<'_>, Application<'_>),
    now_ms: u64,
    event: impl Fn(Given<'_>) -> Option<OwnEvent>,
) -> Result<EnrolmentResult, Refusal> {
    let address = application.address;
    let limit = attempts.admit(address, now_ms);
    let outcome = loop {
        match apply(
            store,
            (subjects, authority),
            (applicants, &application),
            now_ms,
            &event,
        )
        .await
        {
            // The token or the peer's record was changed meanwhile, so that it is looked at again.
            Err(refusal) if refusal.reason == Reason::Conflict => {}
            outcome => break outcome,
        }
    };
    if let Err(refusal) = &outcome
        && by_applicant(refusal.reason)
    {
        // It was wrong once more, and nothing else is disclosed about it.
        limit?;
        attempts.failed(address, now_ms);
    }
    outcome
}

/// Whether it is the applicant whom a refusal is due to: each such attempt counts, whatever is wrong with it.
fn by_applicant(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TokenUnknown
            | Reason::TokenUsed
            | Reason::TokenExpired
            | Reason::TokenForOtherKey
            | Reason::ApproversMismatch
            | Reason::KeyTaken
            | Reason::KeyWithdrawn
            | Reason::IdentityWithdrawn
            | Reason::IdentitySuspended
            | Reason::BadRequest
            | Reason::BadCertificateRequest
    )
}

async fn apply(
    store: &Store,
    (subjects, authority): (&Subjects, &Authority),
    (applicants, application): (Applicants<'_>, &Application<'_>),
    now_ms: u64,
    event: &impl Fn(Given<'_>) -> Option<OwnEvent>,
) -> Result<EnrolmentResult, Refusal> {
    let unknown = || {
        Refusal::new(
            Reason::TokenUnknown,
            "this enrolment token is not known here for this name; ask an admin for a new one",
        )
    };
    let secret = Secret::try_from(application.secret).map_err(|_| unknown())?;
    let (subject, record, revision) = find(store, applicants.kinds(), application.name, &secret)
        .await?
        .ok_or_else(unknown)?;
    let proven = ProvenKey::of_request(application.certificate_request).map_err(bad_request)?;
    if record.key.is_some_and(|key| key != proven.digest()) {
        // For which one it is, is not disclosed.
        return Err(Refusal::new(
            Reason::TokenForOtherKey,
            format!(
                "the token for {subject} is bound to another key than {}, which asked: enrol the machine that has that key, or ask an \
                 admin for a token for this one",
                proven.digest()
            ),
        ));
    }
    let repeated = match &record.used {
        Some(used) if used.key != proven.digest() => {
            return Err(Refusal::new(
                Reason::TokenUsed,
                format!(
                    "the token for {subject} was already used, with another key; if that was not you, tell an admin now, \
                     else ask for a new token"
                ),
            ));
        }
        Some(_) => true,
        None => false,
    };
    if record.expires_ms <= now_ms {
        return Err(Refusal::new(
            Reason::TokenExpired,
            format!("the token for {subject} has expired; ask an admin for a new one"),
        ));
    }
    if let Some(expected) = record.approvers
        && application.approvers_digest != expected.0
    {
        return Err(other_approvers(&subject, expected, application.approvers_digest));
    }
    let names = applicants.names(&subject).await?;
    let decision = Decision {
        at_ms: now_ms,
        by: &record.created_by,
        reason: "enrolled with a token",
    };
    let _giving = match subject {
        Subject::Operator(_) => Some(subjects.giving_keys().await),
        _ => None,
    };
    if matches!(subject, Subject::Operator(_))
        && let Some(other) = subjects.other_operator(&subject, proven.digest())
    {
        return Err(Refusal::new(
            Reason::KeyTaken,
            format!(
                "this key is {other}'s, and each name has a key of its own, since roles exclude each other: log in as {subject} with a new one"
            ),
        )
        .fact("subject", subject));
    }
    let role = record.device_role.as_ref();
    let life = subjects.with_key_in_role(&subject, (proven.digest(), role), decision, repeated)?;
    // A certificate that is not handed out is none.
    let issued = authority
        .issue_in_role((&subject, life.epoch), role, &names, &proven, now_ms)
        .map_err(internal)?;
    let given = Given {
        subject: &subject,
        epoch: life.epoch,
        key: proven.digest(),
        repeated,
    };
    if let Some(event) = event(given) {
        let mut change = Change::noted(event);
        if !repeated {
            let used = TokenRecord {
                used: Some(UsedToken {
                    key: proven.digest(),
                    used_ms: now_ms,
                }),
                ..record.clone()
            };
            change = change.json(&key_of(&subject), Expect::Revision(revision), &used)?;
        }
        let change = remember(store, change, &subject, record.role, &issued, now_ms).await?;
        subjects.apply(change, life.step).await?;
    }
    Ok(EnrolmentResult {
        subject,
        issued,
        repeated,
    })
}

/// A gateway that would obey others than those that its token was made for: somebody edited the file, or the agent does not say.
fn other_approvers(subject: &Subject, expected: Digest, shown: &[u8]) -> Refusal {
    let words = match shown {
        [] => format!(
            "the token for {subject} was made for the approvers {expected}, and this agent is too old to show which it would believe: \
             upgrade penstock-agent, then enrol with the same token"
        ),
        _ => format!(
            "the token for {subject} was made for the approvers {expected}, and this one holds others: its file was changed, \
             so find out by whom; then ask an admin for a new token"
        ),
    };
    Refusal::new(Reason::ApproversMismatch, words).fact("subject", subject)
}

/// The token of this name and secret. Each kind of subject that may ask here is looked at, in the same way, whatever is found.
async fn find(
    store: &Store,
    kinds: &[&str],
    name: &str,
    secret: &Secret,
) -> Result<Option<(Subject, TokenRecord, u64)>, StoreError> {
    let wanted = hash(secret);
    let mut found = None;
    for kind in kinds {
        let Ok(subject) = format!("{kind}/{name}").parse::<Subject>() else {
            return Ok(None);
        };
        if let Some((record, revision)) = store.get_json::<TokenRecord>(&key_of(&subject)).await?
            && verify_slices_are_equal(&record.secret.0, &wanted.0).is_ok()
        {
            found = Some((subject, record, revision));
        }
    }
    Ok(found)
}

/// Adds to a change what is remembered of whoever enrolled.
async fn remember(
    store: &Store,
    change: Change,
    subject: &Subject,
    role: Option<Role>,
    issued: &IssuedCertificate,
    now_ms: u64,
) -> Result<Change, Refusal> {
    match (subject, role) {
        (Subject::Operator(operator), Some(role)) => {
            let record = OperatorRecord {
                role,
                enrolled_ms: now_ms,
                certificate_expires_ms: issued.expires_ms,
            };
            let change = operators::record(store, change, operator, &record).await?;
            // Whichever way it came before, the login is one by token now.
            let signed_in = format!("{SIGNED_IN}{operator}");
            Ok(match store.get(&signed_in).await? {
                Some(found) => change.removed(&signed_in, found.revision),
                None => change,
            })
        }
        (Subject::Gateway(gateway), _) => {
            let update = |record: &mut GatewayRecord| {
                record.enrolled_ms = now_ms;
                record.certificate_expires_ms = issued.expires_ms;
            };
            Ok(with_gateway(store, change, gateway.as_str(), update).await?)
        }
        // Its life says all that there is.
        (Subject::Device(_), _) => Ok(change),
        _ => Err(Refusal::new(
            Reason::Internal,
            format!("the token of {subject} has no role"),
        )),
    }
}

/// Issues a new certificate to a peer that has one, for the same subject and key; with the names by which a gateway serves where it ends TLS,
/// and for at most so long, where that is said. `event` is what the trail says of it.
pub(crate) async fn renew(
    store: &Store,
    (subjects, authority): (&Subjects, &Authority),
    certified: &Certified,
    (names, at_most): (&ServerNames, Option<Duration>),
    certificate_request: &[u8],
    now_ms: u64,
    event: OwnEvent,
) -> Result<IssuedCertificate, Refusal> {
    let proven: ProvenKey = ProvenKey::of_request(certificate_request).map_err(bad_request)?;
    let subject = &certified.identity.subject;
    loop {
        let life = subjects.renewed(certified, proven.digest(), now_ms)?;
        let issued = authority
            .issue_within((subject, life.epoch), names, &proven, now_ms, at_most)
            .map_err(internal)?;
        let mut change = Change::noted(event.clone());
        match subject {
            Subject::Gateway(gateway) => {
                let update = |record: &mut GatewayRecord| record.certificate_expires_ms = issued.expires_ms;
                change = with_gateway(store, change, gateway.as_str(), update).await?;
            }
            Subject::Operator(operator) => {
                change = operators::renewed(store, change, operator, issued.expires_ms).await?;
            }
            Subject::Coordinator(_) | Subject::Device(_) => {}
        }
        match subjects.apply(change, life.step).await {
            Err(StoreError::Conflict { .. }) => {}
            other => return other.map(|()| issued).map_err(Refusal::from),
        }
    }
}

#[cfg(test)]
mod tests;
