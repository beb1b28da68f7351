//! What is known of the identity provider: its addresses and its keys, fetched when somebody signs in, and kept for a few minutes.
//!
//! Only the issuer's own host is asked, and those that the configuration names beside it: whatever a document says, it leads nowhere else. One
//! fetch goes on at a time, and none sooner than [`AGAIN`] after the end of the one before, so that tokens with invented names of keys cost the provider no
//! more than that. A provider that cannot be asked refuses sign-ins and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_proto::https::{Address, Answer, Asking, HttpsError};
use penstock_proto::tls::certificates_from_pem;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::settings::ProviderSettings;
use super::token::Keys;
use crate::files::{self, FileError};

/// For how long the addresses and keys that were fetched count: so long a key that the provider withdrew may still be believed.
const KEPT: Duration = Duration::from_secs(300);
/// Between the end of a fetch and the next one at least.
const AGAIN: Duration = Duration::from_secs(1);

/// Why the provider cannot be asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ProviderError {
    /// The roots in the configuration.
    #[error("the roots in `oidc.roots` cannot be used: {0}")]
    Roots(String),
    /// No answer.
    #[error("{0}")]
    Asked(String),
    /// Another answer than a document.
    #[error("{0} answers with the status {1}")]
    Status(String, u16),
    /// A document that cannot be used.
    #[error("what {0} says cannot be used: {1}")]
    Document(String, String),
    /// An address on another host.
    #[error("its {what} is at {host}, which is neither the issuer's host nor named in `oidc.hosts`")]
    OtherHost {
        /// Which address.
        what: &'static str,
        /// Where it is.
        host: String,
    },
}

impl From<HttpsError> for ProviderError {
    fn from(error: HttpsError) -> Self {
        Self::Asked(penstock_policy::text::sentence(&error))
    }
}

impl From<FileError> for ProviderError {
    fn from(error: FileError) -> Self {
        Self::Roots(penstock_policy::text::sentence(&error))
    }
}

/// What was fetched.
#[derive(Clone)]
pub(super) struct FetchedProvider {
    pub(super) authorization: String,
    pub(super) token: String,
    pub(super) device: Option<String>,
    pub(super) keys: Keys,
    /// Who vouches for it, for those who ask it themselves.
    pub(super) roots: Vec<Bytes>,
    at: Instant,
}

/// The document at `/.well-known/openid-configuration` (OpenID Connect Discovery, 3).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    device_authorization_endpoint: Option<String>,
}

/// The provider.
pub(super) struct Provider {
    settings: ProviderSettings,
    state: Mutex<Fetches>,
}

#[derive(Default)]
struct Fetches {
    last: Option<Arc<FetchedProvider>>,
    /// When the last one ended, and what came of it where it failed.
    tried: Option<(Instant, Option<ProviderError>)>,
}

impl Provider {
    pub(super) fn new(settings: ProviderSettings) -> Self {
        Self {
            settings,
            state: Mutex::default(),
        }
    }

    pub(super) fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    /// What is known of it; fetched if that is long ago.
    pub(super) async fn known(&self) -> Result<Arc<FetchedProvider>, ProviderError> {
        self.fetched(|last| last.at.elapsed() < KEPT).await
    }

    /// What is known of it now: somebody has seen a key that is not in `before`.
    pub(super) async fn later_than(
        &self,
        before: &Arc<FetchedProvider>,
    ) -> Result<Arc<FetchedProvider>, ProviderError> {
        self.fetched(|last| last.at > before.at).await
    }

    async fn fetched(
        &self,
        is_enough: impl Fn(&FetchedProvider) -> bool,
    ) -> Result<Arc<FetchedProvider>, ProviderError> {
        let mut state = self.state.lock().await;
        if let Some(last) = state.last.as_ref().filter(|last| is_enough(last)) {
            return Ok(last.clone());
        }
        if let Some((at, outcome)) = &state.tried
            && at.elapsed() < AGAIN
        {
            match (outcome, &state.last) {
                (Some(error), _) => return Err(error.clone()),
                (None, Some(last)) => return Ok(last.clone()),
                (None, None) => {}
            }
        }
        let began = Instant::now();
        let outcome = self.fetch(began).await;
        // By its end: whoever waited for one that took its time gets what came of it, and does not wait for another.
        state.tried = Some((Instant::now(), outcome.as_ref().err().cloned()));
        let fetched = Arc::new(outcome.inspect_err(|error| {
            tracing::warn!(%error, "the identity provider cannot be asked; nobody signs in through it until then");
        })?);
        state.last = Some(fetched.clone());
        Ok(fetched)
    }

    async fn fetch(&self, at: Instant) -> Result<FetchedProvider, ProviderError> {
        let roots = match &self.settings.roots {
            Some(file) => certificates_from_pem(&files::read(file)?, &file.display().to_string())
                .map_err(|error| ProviderError::Roots(penstock_policy::text::sentence(&error)))?,
            None => Vec::new(),
        };
        let asking = Asking::trusting(&roots)?;
        let issuer = self.settings.issuer.trim_end_matches('/');
        let address = Address::parse(&format!("{issuer}/.well-known/openid-configuration"))?;
        let document: Discovery = document(&address, asking.get(&address).await?)?;
        if document.issuer != self.settings.issuer {
            let what = format!(
                "it calls itself `{}`, and `oidc.issuer` is another",
                penstock_policy::text::shortened(&penstock_policy::text::printable(&document.issuer), 200)
            );
            return Err(ProviderError::Document(address.host(), what));
        }
        let keys = self.permitted("`jwks_uri`", &document.jwks_uri)?;
        self.permitted("`authorization_endpoint`", &document.authorization_endpoint)?;
        self.permitted("`token_endpoint`", &document.token_endpoint)?;
        if let Some(device) = &document.device_authorization_endpoint {
            self.permitted("`device_authorization_endpoint`", device)?;
        }
        let answer = found(&keys, asking.get(&keys).await?)?;
        let keys_read = Keys::read(&answer.body)
            .map_err(|error| ProviderError::Document(keys.host(), error.to_string()))?;
        Ok(FetchedProvider {
            authorization: document.authorization_endpoint,
            token: document.token_endpoint,
            device: document.device_authorization_endpoint,
            keys: keys_read,
            roots: roots.iter().map(|root| Bytes::copy_from_slice(root)).collect(),
            at,
        })
    }

    /// An address of the provider that may be asked.
    fn permitted(&self, what: &'static str, text: &str) -> Result<Address, ProviderError> {
        let address = Address::parse(text)?;
        let issuer = Address::parse(&self.settings.issuer)?;
        let host = address.host();
        let is_named = self.settings.hosts.iter().any(|named| {
            let named = named.to_ascii_lowercase();
            named == host || format!("{named}:443") == host
        });
        match host == issuer.host() || is_named {
            true => Ok(address),
            false => Err(ProviderError::OtherHost { what, host }),
        }
    }
}

fn found(address: &Address, answer: Answer) -> Result<Answer, ProviderError> {
    match answer.status.as_u16() {
        200 => Ok(answer),
        other => Err(ProviderError::Status(address.host(), other)),
    }
}

fn document<T: serde::de::DeserializeOwned>(address: &Address, answer: Answer) -> Result<T, ProviderError> {
    let answer = found(address, answer)?;
    serde_json::from_slice(&answer.body)
        .map_err(|error| ProviderError::Document(address.host(), error.to_string()))
}
