//! How the provider is asked for an ID token: an authorization code with PKCE by the browser (RFC 7636, RFC 8252), or a device code where there is
//! none (RFC 8628). Both bind the token to the key that asks, by its `nonce`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use penstock_policy::ids::Digest;
use penstock_policy::text;
use penstock_proto::https::{Address, Asking, encoded};
use penstock_proto::v1::IdentityProvider;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use super::callback::{Callback, ExpectedAnswer, Verdict};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// How long a person has for the provider's pages.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Between two questions whether a device code was confirmed, where the provider says nothing of it (RFC 8628, 3.2).
const INTERVAL_S: u64 = 5;
/// The longest that is kept to.
const INTERVAL_S_MAX: u64 = 60;

/// Asks the provider.
pub(super) struct Provider<'a> {
    pub(super) settings: &'a IdentityProvider,
    asking: Asking,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

fn refused(what: &str) -> Failure {
    Failure::new(
        Exit::Refused,
        "provider-refused",
        format!("the identity provider does not sign you in: {}", shown(what)),
    )
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(
        Exit::Unreachable,
        "provider-unreachable",
        "the identity provider cannot be asked from this machine",
    )
    .caused_by(error)
    .help(
        "a login that you have goes on until its end; an admin can make a token: penstock login --token FILE",
    )
}

/// The provider's words, bounded, and without what would not be seen.
fn shown(words: &str) -> String {
    text::printable(text::bounded(words, 300)).into_owned()
}

/// Random letters for a state or a verifier.
fn drawn() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::local("no-randomness", "the system provides no random numbers").caused_by(&error)
    })?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl<'a> Provider<'a> {
    pub(super) fn new(settings: &'a IdentityProvider) -> Result<Self, Failure> {
        let roots: Vec<_> = settings
            .roots
            .iter()
            .map(|der| CertificateDer::from(der.to_vec()))
            .collect();
        let asking = Asking::trusting(&roots).map_err(|error| unreachable(&error))?;
        Ok(Self { settings, asking })
    }

    /// What every question for a token says of it.
    fn wanted<'b>(
        &'b self,
        scope: &'b str,
        nonce: &'b str,
        max_age: &'b str,
        acr: &'b str,
    ) -> Vec<(&'b str, &'b str)> {
        let mut wanted = vec![
            ("client_id", self.settings.client_id.as_str()),
            ("scope", scope),
            ("nonce", nonce),
            ("max_age", max_age),
        ];
        if !acr.is_empty() {
            wanted.push(("acr_values", acr));
        }
        wanted
    }

    async fn token(&self, form: &[(&str, &str)]) -> Result<TokenAnswer, Failure> {
        let address = Address::parse(&self.settings.token_endpoint).map_err(|error| unreachable(&error))?;
        let answer = self
            .asking
            .post(&address, form)
            .await
            .map_err(|error| unreachable(&error))?;
        serde_json::from_slice(&answer.body).map_err(|_| {
            refused(&format!(
                "its answer with the status {} is not JSON",
                answer.status.as_u16()
            ))
        })
    }

    /// By the browser on this machine. `opens`: whether it is opened here.
    pub(super) async fn by_browser(&self, out: &Output, nonce: &str, opens: bool) -> Result<String, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::local(
                "callback-failed",
                "no port of this machine can be listened on for the provider's answer",
            )
            .caused_by(&error)
        };
        let callback = Callback::listen().await.map_err(cannot)?;
        let redirect = callback.redirect_uri();
        let (state, verifier) = (drawn()?, drawn()?);
        let challenge = URL_SAFE_NO_PAD.encode(Digest::of(verifier.as_bytes()).0);
        let (scope, max_age) = (
            self.settings.scopes.join(" "),
            self.settings.max_age_seconds.to_string(),
        );
        let acr = self.settings.acr_values.join(" ");
        let mut query = self.wanted(&scope, nonce, &max_age, &acr);
        query.extend([
            ("response_type", "code"),
            ("redirect_uri", redirect.as_str()),
            ("state", state.as_str()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ]);
        let endpoint = &self.settings.authorization_endpoint;
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        let url = format!("{endpoint}{separator}{}", encoded(&query));
        Address::parse(&url).map_err(|error| unreachable(&error))?;
        out.invite(&[("sign in at", &shown(&self.settings.issuer)), ("open", &url)]);
        if opens {
            open(&url);
        }
        let expected = ExpectedAnswer {
            state,
            issuer: self.settings.issuer.clone(),
        };
        let waiting = ask::waiting(out, "waiting for the browser");
        let answered = tokio::time::timeout(PATIENCE, callback.answer(&expected)).await;
        drop(waiting);
        let code = match answered {
            Ok(Verdict::Code(code)) => code,
            Ok(Verdict::Denied(why)) => return Err(refused(&why)),
            Err(_) => return Err(refused("no answer came within 10 minutes")),
        };
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", self.settings.client_id.as_str()),
            ("code", code.as_str()),
            ("redirect_uri", redirect.as_str()),
            ("code_verifier", verifier.as_str()),
        ];
        let answer = self.token(&form).await?;
        given(answer)
    }

    /// By a code that the person types at another machine.
    pub(super) async fn by_device_code(&self, out: &Output, nonce: &str) -> Result<String, Failure> {
        if self.settings.device_authorization_endpoint.is_empty() {
            return Err(Failure::new(
                Exit::Refused,
                "no-device-code",
                "sign-ins by a device code are not offered here",
            )
            .help("sign in where a browser is; or let the coordinator offer it: `device_code` in its configuration"));
        }
        let endpoint = &self.settings.device_authorization_endpoint;
        let address = Address::parse(endpoint).map_err(|error| unreachable(&error))?;
        let (scope, max_age) = (
            self.settings.scopes.join(" "),
            self.settings.max_age_seconds.to_string(),
        );
        let acr = self.settings.acr_values.join(" ");
        let answer = self
            .asking
            .post(&address, &self.wanted(&scope, nonce, &max_age, &acr))
            .await;
        let answer = answer.map_err(|error| unreachable(&error))?;
        let device: DeviceAnswer = serde_json::from_slice(&answer.body).map_err(|_| {
            let error = serde_json::from_slice::<TokenAnswer>(&answer.body)
                .ok()
                .and_then(|answer| answer.error);
            refused(&error.unwrap_or_else(|| format!("status {}", answer.status.as_u16())))
        })?;
        // With the code in it where there is such an address; who has none types it.
        let complete = device
            .verification_uri_complete
            .as_ref()
            .unwrap_or(&device.verification_uri);
        out.invite(&[
            ("sign in at", &shown(&self.settings.issuer)),
            ("open on any machine", &shown(complete)),
            ("code", &shown(&device.user_code)),
        ]);
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", self.settings.client_id.as_str()),
            ("device_code", device.device_code.as_str()),
        ];
        let waiting = ask::waiting(out, "waiting for the code to be confirmed");
        let polled = self.polled(&form, device.interval.unwrap_or(INTERVAL_S));
        let until = PATIENCE.min(Duration::from_secs(device.expires_in));
        let answer = tokio::time::timeout(until, polled).await;
        drop(waiting);
        match answer {
            Ok(answer) => given(answer?),
            Err(_) => Err(refused("the code was not confirmed in time")),
        }
    }

    async fn polled(&self, form: &[(&str, &str)], interval_s: u64) -> Result<TokenAnswer, Failure> {
        let mut interval_s = interval_s.clamp(1, INTERVAL_S_MAX);
        loop {
            tokio::time::sleep(Duration::from_secs(interval_s)).await;
            let answer = self.token(form).await?;
            match answer.error.as_deref() {
                Some("authorization_pending") => {}
                Some("slow_down") => interval_s = interval_s.saturating_add(5).min(INTERVAL_S_MAX),
                _ => return Ok(answer),
            }
        }
    }
}

fn given(answer: TokenAnswer) -> Result<String, Failure> {
    match (answer.id_token, answer.error) {
        (Some(token), None) => Ok(token),
        (_, Some(error)) => Err(refused(&match answer.error_description {
            Some(words) => format!("{error}: {words}"),
            None => error,
        })),
        (None, None) => Err(refused(
            "its answer has no ID token: is `openid` among the scopes?",
        )),
    }
}

/// Has the desktop open the address. Where there is none, the person opens it.
fn open(url: &str) {
    let quiet = std::process::Stdio::null;
    let opened = std::process::Command::new("xdg-open")
        .arg(url)
        .stdin(quiet())
        .stdout(quiet())
        .stderr(quiet())
        .spawn();
    drop(opened);
}
