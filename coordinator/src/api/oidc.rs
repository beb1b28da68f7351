//! Signing in through the identity provider, for whoever has no certificate yet, and what admins do with accounts.

use std::net::IpAddr;
use std::sync::LazyLock;

use penstock_policy::ids::OperatorId;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::crowd::source_of;
use penstock_proto::v1;
use tonic::{Request, Response, Status};

use super::answers::{Answers, carried};
use super::control::ControlService;
use super::enrol::{EnrolmentService, to_wire};
use super::gate::{Action, peer};
use crate::clock;
use crate::oidc::{AskedProvider, LinkAnswer, LinkWish, NamedAccount, SignIn, SignInAnswer};
use crate::operators::Role;

/// Answers with the provider's roots at once, to all strangers and to one source: those may be all that a system trusts, and whoever asks is not known yet.
const PROVIDER_ANSWERS_MAX: (usize, usize) = (16, 4);

/// Their places. What they bound is the process's memory.
static PLACES: LazyLock<Answers<IpAddr>> = LazyLock::new(|| {
    let (places_max, each_max) = PROVIDER_ANSWERS_MAX;
    Answers::new("answers about the identity provider", places_max, each_max)
});

/// Whether a refused sign-in counts as a wrong attempt of whoever is at this address: what the provider itself, or an admin, is to blame for does not.
fn counts(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::SignInRefused | Reason::BadRequest | Reason::BadCertificateRequest
    )
}

impl EnrolmentService {
    pub(super) async fn provider(
        &self,
        request: Request<v1::GetProviderRequest>,
    ) -> Result<Response<v1::IdentityProvider>, Status> {
        let source = source_of(peer(request.extensions())?.address.ip());
        let AskedProvider {
            settings,
            authorization,
            token,
            device,
            roots,
        } = self.oidc.asked().await?;
        let answer = PLACES.begin(&source, request.extensions())?;
        let provider = v1::IdentityProvider {
            issuer: settings.issuer.clone(),
            client_id: settings.client_id.clone(),
            scopes: settings.scopes.clone(),
            authorization_endpoint: authorization,
            token_endpoint: token,
            device_authorization_endpoint: device.unwrap_or_default(),
            max_age_seconds: u32::try_from(settings.max_age.as_secs()).unwrap_or(u32::MAX),
            acr_values: settings.acr.clone(),
            roots,
        };
        Ok(carried(provider, answer))
    }

    pub(super) async fn signed_in(
        &self,
        request: Request<v1::SignInRequest>,
    ) -> Result<Response<v1::SignInResponse>, Status> {
        let address = peer(request.extensions())?.address.ip();
        let message = request.into_inner();
        let now_ms = clock::now_ms();
        let asked = SignIn {
            id_token: &message.id_token,
            certificate_request: &message.certificate_request,
            operator: &message.operator,
            address,
        };
        let limit = self.attempts.admit(address, now_ms);
        let refusal = match self.oidc.sign_in(asked, now_ms).await {
            Ok(SignInAnswer::Issued(operator, issued)) => {
                let wire = to_wire(issued, &self.authority);
                return Ok(Response::new(v1::SignInResponse {
                    certificate_chain: wire.certificate_chain,
                    trust_bundle: wire.trust_bundle,
                    operator: operator.to_string(),
                    account: String::new(),
                }));
            }
            Ok(SignInAnswer::Waits(account)) => {
                return Ok(Response::new(v1::SignInResponse {
                    account,
                    ..v1::SignInResponse::default()
                }));
            }
            Err(refusal) => match (counts(refusal.reason), limit) {
                // Wrong once more, and nothing else is disclosed about it. What is right passes, whoever was wrong at the same address.
                (true, Err(limit)) => limit,
                _ => refusal,
            },
        };
        metrics::counter!("penstock_denied_total", "reason" => refusal.reason.as_str()).increment(1);
        if counts(refusal.reason) {
            self.attempts.failed(address, now_ms);
        }
        // What is over the limit is counted, not written: an attacker must not fill the trail.
        if refusal.reason != Reason::TooManyAttempts {
            let words = format!("sign-in: {}", refusal.message);
            self.journal.stranger_refused("", address, &words).await?;
        }
        Err(refusal.into())
    }
}

fn bad(field: &str, what: impl Into<String>) -> Refusal {
    let what = what.into();
    Refusal::new(Reason::BadRequest, format!("{field} {what}")).field(field, what)
}

/// An account as operators see it.
fn seen(account: &NamedAccount) -> v1::ProviderAccount {
    let record = &account.record;
    let mut wire = v1::ProviderAccount {
        id: account.id.clone(),
        issuer: record.issuer.clone(),
        subject: record.subject.clone(),
        shown: record.shown.clone(),
        asked_ms: record.asked_ms,
        address: record.address.clone(),
        signed_in_ms: account.signed_in_ms,
        ..v1::ProviderAccount::default()
    };
    if let Some(link) = &record.link {
        wire.operator = link.operator.to_string();
        wire.role = link.role.to_wire().into();
        wire.linked_by.clone_from(&link.by);
        wire.linked_ms = link.at_ms;
    }
    wire
}

fn wish(message: v1::LinkAccountRequest) -> Result<LinkWish, Refusal> {
    Ok(LinkWish {
        operator: OperatorId::new(message.operator).map_err(|error| bad("operator", error.to_string()))?,
        role: Role::from_wire(message.role).ok_or_else(|| bad("role", "must be said"))?,
        id: message.id,
    })
}

impl ControlService {
    pub(super) async fn accounts(
        &self,
        request: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ListAccounts)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let accounts = self.oidc.accounts(clock::now_ms()).await?;
        let accounts = accounts.iter().map(seen).collect();
        Ok(carried(v1::ListAccountsResponse { accounts }, answer))
    }

    pub(super) async fn link_with(
        &self,
        request: Request<v1::LinkAccountRequest>,
    ) -> Result<Response<v1::LinkAccountResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::LinkAccount)
            .await?;
        let mut target = String::new();
        let outcome = match wish(request.into_inner()) {
            Ok(wish) => {
                target = wish.target();
                let (person, deed) = (caller.person(), self.gate.deed(&caller));
                self.oidc
                    .link(&self.requests, person, &wish, deed, clock::now_ms())
                    .await
            }
            Err(refusal) => Err(refusal),
        };
        let answer = match self.gate.judged(&caller, &target, outcome).await? {
            LinkAnswer::Linked(account) => v1::LinkAccountResponse {
                account: Some(seen(&account)),
                waits: None,
            },
            LinkAnswer::Waits(request) => v1::LinkAccountResponse {
                account: None,
                waits: Some(self.with_confirmers(&request).await?),
            },
        };
        Ok(Response::new(answer))
    }

    pub(super) async fn unlinked(
        &self,
        request: Request<v1::UnlinkAccountRequest>,
    ) -> Result<Response<v1::ProviderAccount>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::UnlinkAccount)
            .await?;
        let v1::UnlinkAccountRequest { id, reason } = request.into_inner();
        let deed = self.gate.deed(&caller);
        let outcome = self.oidc.unlink(&id, &reason, deed, clock::now_ms()).await;
        let account = self
            .gate
            .judged(&caller, &format!("account/{id}"), outcome)
            .await?;
        Ok(Response::new(seen(&account)))
    }
}
