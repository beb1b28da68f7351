//! Whether an ID token proves who somebody is: pure, by the keys, the expectations and the time that are given.
//!
//! The library verifies the signature, issuer and audience; what it is asked with, and all else, stands here. The algorithm comes from a short
//! list, never from the token alone: nothing unsigned, and nothing that a public key could "sign" as if it were a secret. Each refusal names the
//! one thing that is wrong, so that whoever runs the provider finds it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use penstock_policy::ids::Digest;
use penstock_policy::text;
use serde::Deserialize;

/// Longest token that is read, bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How far the provider's clock may be from ours, seconds.
const LEEWAY_S: u64 = 60;
/// Longest `sub`, bytes (OpenID Connect Core, 2).
const SUBJECT_BYTES_MAX: usize = 255;
/// Longest name that is kept of whoever signs in, bytes.
const SHOWN_BYTES_MAX: usize = 128;
/// Most keys of a provider that are kept.
const KEYS_MAX: usize = 64;

/// What may sign a token.
const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("RS256", Algorithm::RS256),
    ("PS256", Algorithm::PS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// Why a token does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Too long.
    #[error("it has more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not a signed token.
    #[error("it is not a signed token (JWS) with the claims of an ID token: {0}")]
    Unreadable(String),
    /// Its algorithm.
    #[error("it is signed by `{0}`, and only RS256, PS256, ES256 and EdDSA count")]
    Algorithm(String),
    /// Its key.
    #[error("no key of the provider is called `{0}` and signs by this algorithm")]
    UnknownKey(String),
    /// Its signature.
    #[error("its signature is not the provider's")]
    Signature,
    /// `iss`.
    #[error("it is of another issuer (`iss`)")]
    Issuer,
    /// `aud`.
    #[error("it was issued for another client (`aud`)")]
    Audience,
    /// `azp`.
    #[error("another client asked for it (`azp`)")]
    AuthorizedParty,
    /// `exp`.
    #[error("it has expired (`exp`); is a clock wrong?")]
    Expired,
    /// `iat` or `nbf`.
    #[error("it is from the future (`iat`); is a clock wrong?")]
    Future,
    /// `iat`.
    #[error("it was issued more than {0} s ago (`iat`); sign in again")]
    Old(u64),
    /// `auth_time`.
    #[error(
        "it does not say when the person was authenticated (`auth_time`), although that was asked for (`max_age`)"
    )]
    NoAuthTime,
    /// `auth_time`.
    #[error("the person was authenticated more than {0} s ago (`auth_time`); the provider has to ask again")]
    AuthOld(u64),
    /// `nonce`.
    #[error(
        "it is bound to no key (`nonce`): the provider leaves it out of the tokens of this way to sign in"
    )]
    Unbound,
    /// `nonce`.
    #[error("it is bound to another key (`nonce`) than the one that asks")]
    OtherKey,
    /// `amr`.
    #[error("the person was authenticated by {has} (`amr`), and one of {needed} is required")]
    Means {
        /// By what.
        has: String,
        /// By what one has to be.
        needed: String,
    },
    /// `acr`.
    #[error("the authentication counts as {has} (`acr`), and one of {needed} is required")]
    Class {
        /// As what.
        has: String,
        /// As what it has to.
        needed: String,
    },
    /// `sub`.
    #[error("it names nobody, or by more than {SUBJECT_BYTES_MAX} bytes (`sub`)")]
    Subject,
}

/// What a token has to say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// What the provider calls Penstock.
    pub client_id: &'a str,
    /// The key that asks for a certificate.
    pub key: Digest,
    /// How long ago the person may have been authenticated, seconds.
    pub max_age_s: u64,
    /// Means of which one is required; empty: any.
    pub amr: &'a [String],
    /// Classes of which one is required; empty: any.
    pub acr: &'a [String],
}

/// Whom a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenAccount {
    /// `sub`.
    pub subject: String,
    /// What the provider says that they are called: it proves nothing.
    pub shown: String,
    /// By which means.
    pub amr: Vec<String>,
    /// Of which class.
    pub acr: Option<String>,
    /// When, seconds since 1970.
    pub auth_time_s: u64,
}

/// A provider's keys.
#[derive(Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: Option<String>,
    /// The only algorithm that it is for; `None`: it does not say.
    algorithm: Option<String>,
    public: DecodingKey,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    /// Reads a JWK set (RFC 7517). Keys that are not for signatures, secrets, and those of kinds that nobody here knows are left out.
    ///
    /// # Errors
    /// It is no JWK set.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        let set: KeySet = serde_json::from_slice(json)?;
        let keys = set.keys.into_iter().take(KEYS_MAX).filter_map(|value| {
            let algorithm = value.get("alg").and_then(|alg| alg.as_str()).map(str::to_owned);
            let jwk: Jwk = serde_json::from_value(value).ok()?;
            let is_public = !matches!(jwk.algorithm, jsonwebtoken::jwk::AlgorithmParameters::OctetKey(_));
            let signs =
                !matches!(jwk.common.public_key_use, Some(ref use_) if *use_ != PublicKeyUse::Signature);
            Some(Key {
                public: (is_public && signs)
                    .then(|| DecodingKey::from_jwk(&jwk).ok())
                    .flatten()?,
                id: jwk.common.key_id,
                algorithm,
            })
        });
        Ok(Self(keys.collect()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of this name, or the only one that fits where the token names none.
    fn find(&self, id: Option<&str>, algorithm: (&str, Algorithm)) -> Option<&DecodingKey> {
        let mut fitting = self.0.iter().filter(|key| {
            let is_named = id.is_none() || key.id.as_deref() == id;
            let is_for = key.algorithm.as_deref().is_none_or(|own| own == algorithm.0);
            is_named && is_for && key.public.family().algorithms().contains(&algorithm.1)
        });
        let found = fitting.next()?;
        (id.is_some() || fitting.next().is_none()).then_some(&found.public)
    }
}

/// The `nonce` that binds a token to a key.
pub fn nonce(key: Digest) -> String {
    URL_SAFE_NO_PAD.encode(key.0)
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that have to be understood: none is.
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    auth_time: Option<u64>,
    nonce: Option<String>,
    azp: Option<String>,
    acr: Option<String>,
    #[serde(default)]
    amr: Vec<String>,
    preferred_username: Option<String>,
    name: Option<String>,
    email: Option<String>,
}

/// Whom this token proves, if it counts at `now_s` (seconds since 1970).
///
/// # Errors
/// It does not; the error says why.
pub fn verify(
    token: &str,
    keys: &Keys,
    expected: &Expected<'_>,
    now_s: u64,
) -> Result<ProvenAccount, TokenRefused> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenRefused::TooLong);
    }
    let head = head(token)?;
    let algorithm = ALGORITHMS.into_iter().find(|(name, _)| *name == head.alg);
    let algorithm = algorithm.ok_or_else(|| TokenRefused::Algorithm(shown(&head.alg)))?;
    let key = keys.find(head.kid.as_deref(), algorithm);
    let key = key.ok_or_else(|| TokenRefused::UnknownKey(shown(head.kid.as_deref().unwrap_or_default())))?;

    let mut validation = Validation::new(algorithm.1);
    // By the time that is given, below.
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[expected.issuer]);
    validation.set_audience(&[expected.client_id]);
    let claims = jsonwebtoken::decode::<Claims>(token, key, &validation);
    let claims = claims.map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => TokenRefused::Signature,
        ErrorKind::InvalidIssuer => TokenRefused::Issuer,
        ErrorKind::InvalidAudience => TokenRefused::Audience,
        ErrorKind::InvalidAlgorithm => TokenRefused::Algorithm(head.alg.clone()),
        _ => TokenRefused::Unreadable(error.to_string()),
    })?;
    judged(claims.claims, expected, now_s)
}

fn head(token: &str) -> Result<Head, TokenRefused> {
    let unreadable = |what: &str| TokenRefused::Unreadable(what.to_owned());
    let mut parts = token.split('.');
    let first = parts.next().unwrap_or_default();
    if parts.count() != 2 {
        return Err(unreadable("it has not three parts"));
    }
    let bytes = URL_SAFE_NO_PAD
        .decode(first)
        .map_err(|_| unreadable("its head is not base64url"))?;
    let head: Head = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error.to_string()))?;
    match head.crit {
        Some(_) => Err(unreadable("it asks for an extension (`crit`)")),
        None => Ok(head),
    }
}

fn judged(claims: Claims, expected: &Expected<'_>, now_s: u64) -> Result<ProvenAccount, TokenRefused> {
    // The library did this too; what it takes for one of several is not enough.
    if claims.iss != expected.issuer {
        return Err(TokenRefused::Issuer);
    }
    let several = match &claims.aud {
        Audience::One(one) if one == expected.client_id => false,
        Audience::Several(all) if all.iter().any(|one| one == expected.client_id) => all.len() > 1,
        _ => return Err(TokenRefused::Audience),
    };
    match claims.azp.as_deref() {
        Some(party) if party != expected.client_id => return Err(TokenRefused::AuthorizedParty),
        None if several => return Err(TokenRefused::AuthorizedParty),
        _ => {}
    }
    if claims.exp.saturating_add(LEEWAY_S) <= now_s {
        return Err(TokenRefused::Expired);
    }
    let latest_s = now_s.saturating_add(LEEWAY_S);
    if claims.iat > latest_s || claims.nbf.is_some_and(|nbf| nbf > latest_s) {
        return Err(TokenRefused::Future);
    }
    let is_old = |at_s: u64| at_s.saturating_add(expected.max_age_s).saturating_add(LEEWAY_S) < now_s;
    if is_old(claims.iat) {
        return Err(TokenRefused::Old(expected.max_age_s));
    }
    let auth_time_s = claims.auth_time.ok_or(TokenRefused::NoAuthTime)?;
    if auth_time_s > latest_s {
        return Err(TokenRefused::Future);
    }
    if is_old(auth_time_s) {
        return Err(TokenRefused::AuthOld(expected.max_age_s));
    }
    match claims.nonce.as_deref() {
        None => return Err(TokenRefused::Unbound),
        Some(bound) if bound != nonce(expected.key) => return Err(TokenRefused::OtherKey),
        Some(_) => {}
    }
    let is_among = |wanted: &[String], has: &str| wanted.iter().any(|one| one == has);
    if !expected.amr.is_empty() && !claims.amr.iter().any(|one| is_among(expected.amr, one)) {
        return Err(TokenRefused::Means {
            has: listed(&claims.amr),
            needed: listed(expected.amr),
        });
    }
    let has_class = claims
        .acr
        .as_deref()
        .is_some_and(|acr| is_among(expected.acr, acr));
    if !expected.acr.is_empty() && !has_class {
        return Err(TokenRefused::Class {
            has: listed(claims.acr.as_slice()),
            needed: listed(expected.acr),
        });
    }
    let is_unprintable = |c: char| c.is_control() || text::is_hidden(c);
    let is_named =
        (1..=SUBJECT_BYTES_MAX).contains(&claims.sub.len()) && !claims.sub.contains(is_unprintable);
    if !is_named {
        return Err(TokenRefused::Subject);
    }
    let name = claims.preferred_username.or(claims.email).or(claims.name);
    Ok(ProvenAccount {
        subject: claims.sub,
        shown: name.map(|name| shown(&name)).unwrap_or_default(),
        amr: claims.amr.iter().take(8).map(|one| shown(one)).collect(),
        acr: claims.acr.map(|acr| shown(&acr)),
        auth_time_s,
    })
}

/// Somebody else's words, bounded, and without what would not be seen.
fn shown(words: &str) -> String {
    text::printable(text::bounded(words, SHOWN_BYTES_MAX)).into_owned()
}

fn listed(words: &[String]) -> String {
    match words {
        [] => "nothing that is named".to_owned(),
        words => shown(&words.join(", ")),
    }
}

#[cfg(test)]
mod tests;
