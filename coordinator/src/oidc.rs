//! Operators sign in through the plant's identity provider (OpenID Connect) instead of with a token (IEC 62443-3-3 SR 1.1 RE 2, SR 1.3).
//!
//! ```text
//! person ─ provider: password, second factor ─▶ ID token, bound to their new key ─▶ sign_in ─┬▶ account unknown: waits, an admin links it
//!                                                                                            ├▶ linked: certificate, for half a day
//!                                                                                            └▶ refused, with the reason
//! ```
//!
//! What operators act with stays a certificate of the plant; a sign-in is one more way to get one. So what the provider can do ends at that:
//!
//! - An account is its issuer and its `sub`, and an admin links it with an operator by hand, as an approver or an admin with a second person, just as
//!   they make a token. Nothing of a role comes from the provider, and no address of e-mail is looked up: whoever runs the provider
//!   would otherwise hand out the plant's roles.
//! - The token's `nonce` is the digest of the key that the certificate is for: a stolen token is worth nothing for another key.
//! - A sign-in takes the place of a key that came by a sign-in. It never takes the place of one that came by a token and holds: so nobody
//!   at the provider locks those out who can let others in ([`Reason::LoginByToken`]).
//! - While the provider cannot be asked, certificates go on, and are renewed for a while ([`Oidc::renewal`]); tokens work as ever.
//!
//! Whoever is suspended, revoked or removed gets nothing: what an admin decided stands until an admin links the account again.
//!
//! Not here: how the provider is asked for the token, which is the person's own machine's (`penstock login --oidc`).

mod account;
mod issue;
mod links;
mod provider;
mod settings;
mod token;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use penstock_policy::ids::{Digest, OperatorId};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::times::instant;
use tokio::sync::Mutex;

use self::account::{AccountRecord, SignedInRecord, key_of};
pub(crate) use self::account::{NamedAccount, signed_in};
pub use self::account::{PREFIX, SIGNED_IN, id};
pub(crate) use self::links::{LinkAnswer, LinkWish};
use self::provider::{FetchedProvider, Provider, ProviderError};
pub use self::settings::{OidcFile, OidcSettings, ProviderSettings};
pub use self::token::{Expected, Keys, ProvenAccount, TOKEN_BYTES_MAX, TokenRefused, nonce, verify};
use crate::allowance::{Allowance, Share};
use crate::ca::{Authority, IssuedCertificate, ProvenKey, bad_request};
use crate::journal::Journal;
use crate::store::{Change, Expect, Store, StoreError};
use crate::subjects::Subjects;

/// How often one operator may get a certificate by a sign-in.
const SIGN_INS: Share = Share {
    at_once: 20,
    per_day: 100,
};
/// Most accounts that wait to be linked.
const WAITING_MAX: usize = 500;

/// Signs people in, and knows whose accounts are whose. Clones share it.
#[derive(Clone)]
pub struct Oidc(Arc<Shared>);

struct Shared {
    provider: Option<Provider>,
    settings: OidcSettings,
    store: Store,
    subjects: Subjects,
    authority: Arc<Authority>,
    journal: Journal,
    sign_ins: Allowance,
    /// One account is linked, or begins to wait, at a time.
    linking: Mutex<()>,
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Oidc")
    }
}

/// What comes of a sign-in.
#[derive(Debug)]
pub(crate) enum SignInAnswer {
    /// The account is linked, and its operator has a certificate.
    Issued(OperatorId, IssuedCertificate),
    /// It waits to be linked, under this name.
    Waits(String),
}

/// Who asks for a certificate, with what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignIn<'a> {
    /// As the provider gave it.
    pub(crate) id_token: &'a str,
    /// PKCS#10, DER.
    pub(crate) certificate_request: &'a [u8],
    /// Whose login it is for; empty: anybody's.
    pub(crate) operator: &'a str,
    /// From where.
    pub(crate) address: IpAddr,
}

/// How the provider is asked by whoever signs in.
pub(crate) struct AskedProvider<'a> {
    pub(crate) settings: &'a ProviderSettings,
    pub(crate) authorization: String,
    pub(crate) token: String,
    pub(crate) device: Option<String>,
    /// DER; shared by all who ask.
    pub(crate) roots: Vec<Bytes>,
}

fn unreachable(error: &ProviderError) -> Refusal {
    Refusal::new(
        Reason::ProviderUnreachable,
        format!(
            "the identity provider cannot be asked: {error}; what was issued goes on, and tokens work: `penstock login --token FILE`"
        ),
    )
}

fn refused(why: &TokenRefused) -> Refusal {
    Refusal::new(
        Reason::SignInRefused,
        format!("what the identity provider signed does not count: {why}"),
    )
}

impl Oidc {
    /// By these settings and records.
    pub fn new(
        settings: OidcSettings,
        store: Store,
        (subjects, authority): (Subjects, Arc<Authority>),
        journal: Journal,
    ) -> Self {
        Self(Arc::new(Shared {
            provider: settings.provider.clone().map(Provider::new),
            settings,
            store,
            subjects,
            authority,
            journal,
            sign_ins: Allowance::new(SIGN_INS),
            linking: Mutex::default(),
        }))
    }

    fn provider(&self) -> Result<&Provider, Refusal> {
        self.0.provider.as_ref().ok_or_else(|| {
            Refusal::new(
                Reason::NoProvider,
                "operators do not sign in through an identity provider here (`[oidc]` in the coordinator's configuration): ask an admin for a token",
            )
        })
    }

    /// How the provider is asked.
    pub(crate) async fn asked(&self) -> Result<AskedProvider<'_>, Refusal> {
        let provider = self.provider()?;
        let known = provider.known().await.map_err(|error| unreachable(&error))?;
        let settings = provider.settings();
        Ok(AskedProvider {
            settings,
            authorization: known.authorization.clone(),
            token: known.token.clone(),
            device: known.device.clone().filter(|_| settings.device_code),
            roots: known.roots.clone(),
        })
    }

    /// Whom a token proves, by the provider's keys: fetched again where it names one that is not known.
    async fn proven(&self, token: &str, key: Digest, now_ms: u64) -> Result<ProvenAccount, Refusal> {
        let provider = self.provider()?;
        let settings = provider.settings();
        let expected = Expected {
            issuer: &settings.issuer,
            client_id: &settings.client_id,
            key,
            max_age_s: settings.max_age.as_secs(),
            amr: &settings.amr,
            acr: &settings.acr,
        };
        let judged = |known: &FetchedProvider| verify(token, &known.keys, &expected, now_ms / 1000);
        let known = provider.known().await.map_err(|error| unreachable(&error))?;
        match judged(&known) {
            Err(TokenRefused::UnknownKey(_)) => {
                let later = provider
                    .later_than(&known)
                    .await
                    .map_err(|error| unreachable(&error))?;
                judged(&later).map_err(|why| refused(&why))
            }
            other => other.map_err(|why| refused(&why)),
        }
    }

    /// A certificate for the operator whom the account is linked with.
    pub(crate) async fn sign_in(&self, asked: SignIn<'_>, now_ms: u64) -> Result<SignInAnswer, Refusal> {
        self.provider()?;
        let key = ProvenKey::of_request(asked.certificate_request).map_err(bad_request)?;
        let proven = self.proven(asked.id_token, key.digest(), now_ms).await?;
        let issuer = self.provider()?.settings().issuer.clone();
        let name = account::id(&issuer, &proven.subject);
        loop {
            let found = self.0.store.get_json::<AccountRecord>(&key_of(&name)).await?;
            let linked = found.and_then(|(record, _)| {
                let is_same = record.issuer == issuer && record.subject == proven.subject;
                record.link.filter(|_| is_same)
            });
            let Some(link) = linked else {
                return self.waits(&issuer, (name, proven), asked.address, now_ms).await;
            };
            if !asked.operator.is_empty() && asked.operator != link.operator.as_str() {
                let words = format!(
                    "this account is operator/{}'s, and the login is operator/{}'s: sign in with that one's account, or for a login of its own",
                    link.operator,
                    penstock_policy::text::shortened(&penstock_policy::text::printable(asked.operator), 64)
                );
                return Err(Refusal::new(Reason::SignInRefused, words));
            }
            match self
                .issue((&name, &link), &proven, &key, asked.address, now_ms)
                .await
            {
                // Something of it was changed meanwhile, so that it is looked at again.
                Err(refusal) if refusal.reason == Reason::Conflict => {}
                other => return other.map(|issued| SignInAnswer::Issued(link.operator, issued)),
            }
        }
    }

    /// Writes down that an account waits to be linked; once.
    async fn waits(
        &self,
        issuer: &str,
        (name, proven): (String, ProvenAccount),
        address: IpAddr,
        now_ms: u64,
    ) -> Result<SignInAnswer, Refusal> {
        let _one_at_a_time = self.0.linking.lock().await;
        let all = self.all().await?;
        let known = all.iter().find(|account| account.id == name);
        if known.is_some_and(|account| !account.record.is_over(now_ms)) {
            return Ok(SignInAnswer::Waits(name));
        }
        let waiting = all.iter().filter(|account| account.record.link.is_none());
        if waiting.filter(|account| !account.record.is_over(now_ms)).count() >= WAITING_MAX {
            return Err(Refusal::new(
                Reason::TooManyRequests,
                "too many accounts wait to be linked already; an admin looks at them: `penstock operators accounts`",
            ));
        }
        let words = format!(
            "{}, as {} says `{}`",
            means(issuer, &proven),
            issuer,
            proven.shown
        );
        let record = AccountRecord {
            issuer: issuer.to_owned(),
            subject: proven.subject,
            shown: proven.shown,
            asked_ms: now_ms,
            address: address.to_string(),
            link: None,
        };
        let event = self.0.journal.account_event("unlinked", &name, address, &words);
        let expect = known.map_or(Expect::Absent, |known| Expect::Revision(known.revision));
        let mut change = Change::noted(event).json(&key_of(&name), expect, &record)?;
        // What is over makes room, a few at a time.
        let over = all
            .iter()
            .filter(|one| one.id != name && one.record.is_over(now_ms));
        for one in over.take(16) {
            change = change.removed(&key_of(&one.id), one.revision);
        }
        self.0.store.apply(change).await?;
        Ok(SignInAnswer::Waits(name))
    }

    /// For how long an operator's certificate is renewed for this key; `None`: as long as ever, since the key came by a token.
    ///
    /// # Errors
    /// The provider has to be asked again.
    pub(crate) async fn renewal(
        &self,
        operator: &OperatorId,
        key: Digest,
        now_ms: u64,
    ) -> Result<Option<Duration>, Refusal> {
        let Some((signed_in, _)) = signed_in(&self.0.store, operator).await? else {
            return Ok(None);
        };
        if signed_in.key != key {
            return Ok(None);
        }
        let account = self
            .0
            .store
            .get_json::<AccountRecord>(&key_of(&signed_in.account))
            .await?;
        let is_linked = account
            .and_then(|(account, _)| account.link)
            .is_some_and(|link| link.operator == *operator);
        let window_ms = u64::try_from(self.0.settings.renewal.as_millis()).unwrap_or(u64::MAX);
        // Also of a clock that was set back by more than that.
        if is_linked && now_ms.abs_diff(signed_in.at_ms) < window_ms {
            return Ok(Some(self.0.settings.certificate));
        }
        let why = match is_linked {
            true => format!("{operator} signed in last at {}", instant(signed_in.at_ms)),
            false => format!("the account of {operator} is linked no longer"),
        };
        Err(Refusal::new(
            Reason::SignInNeeded,
            format!(
                "the login of {operator} came by the identity provider, and {why}: sign in again, `penstock login --oidc`"
            ),
        ))
    }

    /// All accounts.
    async fn all(&self) -> Result<Vec<NamedAccount>, StoreError> {
        let records = self.0.store.list_json::<AccountRecord>(PREFIX).await?;
        let signed_in = self.0.store.list_json::<SignedInRecord>(SIGNED_IN).await?;
        let named = records.into_iter().map(|(id, record, revision)| NamedAccount {
            signed_in_ms: signed_in
                .iter()
                .filter(|(_, one, _)| one.account == id)
                .map(|(_, one, _)| one.at_ms)
                .max()
                .unwrap_or(0),
            id,
            record,
            revision,
        });
        Ok(named.collect())
    }
}

/// What the provider says of how somebody was authenticated, for the trail.
fn means(issuer: &str, proven: &ProvenAccount) -> String {
    let mut words = format!("`{}` of {issuer}", proven.subject);
    if !proven.amr.is_empty() {
        words = format!("{words}, by {} (amr)", proven.amr.join(" "));
    }
    if let Some(acr) = &proven.acr {
        words = format!("{words}, acr {acr}");
    }
    format!(
        "{words}, authenticated at {}",
        instant(proven.auth_time_s.saturating_mul(1000))
    )
}
