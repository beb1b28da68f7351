//! What makes identities, and the second person who confirms it.

use penstock_policy::ids::{AssetId, Digest, GatewayId, OperatorId};
use penstock_policy::model::ApproverSet;
use penstock_proto::convert;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use penstock_proto::v1::decide_request_request::Decision as WireDecision;
use tonic::{Request, Response, Status};

use super::answers::carried;
use super::control::ControlService;
use super::enrol::to_wire;
use super::gate::{Action, Caller};
use crate::clock;
use crate::devices::{self, DeviceAnswer, RoleWish};
use crate::enrolment::{NewToken, TokenWish, VALID_SECONDS, VALID_SECONDS_DEFAULT, create_token};
use crate::operators::Role;
use crate::requests::{Asked, Decided, NamedRequest, Permit, Wanted};
use crate::subjects::Subjects;

/// Longest set of approvers that is read, bytes: a token holds no more.
const APPROVERS_BYTES_MAX: usize = 48 * 1024;

/// What comes of asking for a token.
enum TokenAnswer {
    Made(NewToken),
    Waits(Box<NamedRequest>),
}

fn bad(field: &str, what: impl Into<String>) -> Refusal {
    let what = what.into();
    Refusal::new(Reason::BadRequest, format!("{field} {what}")).field(field, what)
}

impl ControlService {
    pub(super) async fn token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::CreateToken)
            .await?;
        let mut target = String::new();
        let outcome = match wish(request.into_inner(), &self.subjects) {
            Ok(wish) => {
                target = wish.target();
                self.make(&caller, &wish).await
            }
            Err(refusal) => Err(refusal),
        };
        let answer = match self.gate.judged(&caller, &target, outcome).await? {
            TokenAnswer::Made(token) => v1::CreateTokenResponse {
                secret: token.secret.0.to_vec().into(),
                expires_ms: token.expires_ms,
                root_digest: self.authority.root_digest().0.to_vec().into(),
                waits: None,
            },
            TokenAnswer::Waits(request) => v1::CreateTokenResponse {
                waits: Some(self.with_confirmers(&request).await?),
                ..v1::CreateTokenResponse::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn make(&self, caller: &Caller, wish: &TokenWish) -> Result<TokenAnswer, Refusal> {
        let (deed, now_ms) = (self.gate.deed(caller), clock::now_ms());
        let permit = match wish.wanted() {
            None => Permit::free(),
            Some(wanted) => match self
                .requests
                .permit(caller.person(), wanted, deed, now_ms)
                .await?
            {
                Asked::Permitted(permit) => permit,
                Asked::Waits(request) => return Ok(TokenAnswer::Waits(request)),
            },
        };
        create_token(&self.store, wish, &permit, deed, now_ms)
            .await
            .map(TokenAnswer::Made)
    }

    pub(super) async fn device(
        &self,
        request: Request<v1::IssueDeviceRequest>,
    ) -> Result<Response<v1::IssueDeviceResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::IssueDevice)
            .await?;
        let message = request.into_inner();
        let outcome = match RoleWish::from_wire(message.device_role) {
            Err(refusal) => Err(refusal),
            Ok(role) => {
                devices::issue(
                    &self.releases,
                    (&self.subjects, &self.authority),
                    (&message.asset, &role),
                    &message.certificate_request,
                    clock::now_ms(),
                    self.gate.deed(&caller),
                    (&self.requests, caller.person()),
                )
                .await
            }
        };
        let target = format!("device/{}", message.asset);
        let answer = match self.gate.judged(&caller, &target, outcome).await? {
            DeviceAnswer::Issued(issued) => {
                let wire = to_wire(issued, &self.authority);
                v1::IssueDeviceResponse {
                    certificate_chain: wire.certificate_chain,
                    trust_bundle: wire.trust_bundle,
                    waits: None,
                }
            }
            DeviceAnswer::Waits(request) => v1::IssueDeviceResponse {
                waits: Some(self.with_confirmers(&request).await?),
                ..v1::IssueDeviceResponse::default()
            },
        };
        Ok(Response::new(answer))
    }

    pub(super) async fn waiting(
        &self,
        request: Request<v1::ListRequestsRequest>,
    ) -> Result<Response<v1::ListRequestsResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ListRequests)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let listed = self.requests.list(clock::now_ms()).await.map_err(Refusal::from)?;
        let requests = listed.iter().map(shown).collect();
        Ok(carried(v1::ListRequestsResponse { requests }, answer))
    }

    pub(super) async fn decide(
        &self,
        request: Request<v1::DecideRequestRequest>,
    ) -> Result<Response<v1::PendingRequest>, Status> {
        let action = match request.get_ref().decision {
            Some(WireDecision::Confirm(true)) => Action::ConfirmRequest,
            _ => Action::RejectRequest,
        };
        let caller = self.gate.operator(request.extensions(), action).await?;
        let v1::DecideRequestRequest { id, decision } = request.into_inner();
        let (person, deed, now_ms) = (caller.person(), self.gate.deed(&caller), clock::now_ms());
        let outcome = match decision {
            Some(WireDecision::Confirm(true)) => self.requests.confirm(&id, person, deed, now_ms).await,
            Some(WireDecision::Reject(reason)) => {
                self.requests.reject(&id, person, &reason, deed, now_ms).await
            }
            Some(WireDecision::Confirm(false)) | None => Err(bad(
                "decision",
                "must be said: to confirm, or to reject with a reason",
            )),
        };
        let decided = self
            .gate
            .judged(&caller, &format!("request {id}"), outcome)
            .await?;
        Ok(Response::new(shown(&decided)))
    }

    pub(super) async fn with_confirmers(
        &self,
        request: &NamedRequest,
    ) -> Result<v1::PendingRequest, Refusal> {
        Ok(v1::PendingRequest {
            confirmers: self.requests.confirmers(&request.record, clock::now_ms()).await?,
            ..shown(request)
        })
    }
}

/// A request as operators see it.
fn shown(request: &NamedRequest) -> v1::PendingRequest {
    let record = &request.record;
    let mut wire = v1::PendingRequest {
        id: request.id.clone(),
        asked_by: record.by.to_string(),
        asked_ms: record.asked_ms,
        ends_ms: record.ends_ms(),
        state: v1::RequestState::Waiting.into(),
        ..v1::PendingRequest::default()
    };
    match &record.wanted {
        Wanted::GatewayToken {
            gateway,
            key,
            approvers,
            valid_seconds,
        } => {
            wire.subject = format!("gateway/{gateway}");
            wire.key = key.map(|key| key.0.to_vec().into()).unwrap_or_default();
            wire.valid_seconds = *valid_seconds;
            if let Some(approvers) = approvers {
                wire.approvers = approvers.to_bytes().into();
                wire.approvers_digest = approvers.digest().0.to_vec().into();
            }
        }
        Wanted::OperatorToken {
            operator,
            role,
            valid_seconds,
        } => {
            wire.subject = format!("operator/{operator}");
            wire.valid_seconds = *valid_seconds;
            wire.role = role.to_wire().into();
        }
        Wanted::DeviceToken {
            asset,
            key,
            device_role,
            valid_seconds,
        } => {
            wire.subject = format!("device/{asset}");
            wire.device_role = device_role.as_ref().map(ToString::to_string).unwrap_or_default();
            wire.key = key.map(|key| key.0.to_vec().into()).unwrap_or_default();
            wire.valid_seconds = *valid_seconds;
        }
        Wanted::DeviceCertificate {
            asset,
            key,
            device_role,
        } => {
            wire.subject = format!("device/{asset}");
            wire.device_role = device_role.as_ref().map(ToString::to_string).unwrap_or_default();
            wire.key = key.0.to_vec().into();
        }
        Wanted::ProviderAccount {
            account,
            issuer,
            subject,
            shown,
            operator,
            role,
        } => {
            wire.subject = format!("operator/{operator}");
            wire.role = role.to_wire().into();
            wire.account = Some(v1::ProviderAccount {
                id: account.clone(),
                issuer: issuer.clone(),
                subject: subject.clone(),
                shown: shown.clone(),
                ..v1::ProviderAccount::default()
            });
        }
    }
    match &record.decided {
        None => {}
        Some(Decided::Confirmed { by, at_ms }) => {
            wire.state = v1::RequestState::Confirmed.into();
            (wire.decided_by, wire.decided_ms) = (by.to_string(), *at_ms);
        }
        Some(Decided::Rejected { by, at_ms, reason }) => {
            wire.state = v1::RequestState::Rejected.into();
            (wire.decided_by, wire.decided_ms) = (by.to_string(), *at_ms);
            wire.reason.clone_from(reason);
        }
    }
    wire
}

/// What a token is to be made for: whom, with which role, key or approvers, for how long.
fn wish(request: v1::CreateTokenRequest, subjects: &Subjects) -> Result<TokenWish, Refusal> {
    use v1::create_token_request::Subject as Wire;
    let subject = match request.subject {
        Some(Wire::Gateway(name)) => {
            Subject::Gateway(GatewayId::new(name).map_err(|e| bad("gateway", e.to_string()))?)
        }
        Some(Wire::Operator(name)) => {
            Subject::Operator(OperatorId::new(name).map_err(|e| bad("operator", e.to_string()))?)
        }
        Some(Wire::Device(name)) => {
            Subject::Device(AssetId::new(name).map_err(|e| bad("device", e.to_string()))?)
        }
        None => return Err(bad("subject", "is missing: a gateway, an operator or a device")),
    };
    let device_role = match (&subject, request.device_role) {
        (Subject::Device(_), role) => RoleWish::from_wire(role)?.of(subjects, &subject),
        (_, None) => None,
        (_, Some(_)) => return Err(bad("device_role", "is only for devices")),
    };
    let role = Role::from_wire(request.role);
    let is_operator = matches!(subject, Subject::Operator(_));
    if is_operator && role.is_none() {
        return Err(bad("role", "must be said for an operator"));
    }
    if !is_operator && request.role != 0 {
        return Err(bad("role", "is only for operators"));
    }
    let key = (!request.key_digest.is_empty())
        .then(|| convert::digest("key_digest", &request.key_digest))
        .transpose()
        .map_err(|error| bad("key_digest", error.to_string()))?;
    if is_operator && key.is_some() {
        return Err(bad("key_digest", "is only for gateways and devices"));
    }
    let approvers = approvers(&request.approvers, &request.approvers_digest)?;
    if !matches!(subject, Subject::Gateway(_)) && approvers.is_some() {
        return Err(bad("approvers", "are only for gateways"));
    }
    let valid_seconds = match request.valid_seconds {
        0 => VALID_SECONDS_DEFAULT,
        seconds if VALID_SECONDS.contains(&seconds) => seconds,
        _ => {
            let (least, most) = (VALID_SECONDS.start(), VALID_SECONDS.end());
            return Err(bad("valid_seconds", format!("is not between {least} and {most}")));
        }
    };
    Ok(TokenWish {
        subject,
        role,
        key,
        approvers,
        valid_seconds,
        device_role,
    })
}

/// The approvers whom a gateway will believe, if their digest is the one that was given.
fn approvers(json: &[u8], digest: &[u8]) -> Result<Option<ApproverSet>, Refusal> {
    if json.is_empty() && digest.is_empty() {
        return Ok(None);
    }
    if json.len() > APPROVERS_BYTES_MAX {
        return Err(bad(
            "approvers",
            format!("have more than {APPROVERS_BYTES_MAX} bytes"),
        ));
    }
    let set: ApproverSet =
        serde_json::from_slice(json).map_err(|error| bad("approvers", format!("cannot be read: {error}")))?;
    let digest: Digest = convert::digest("approvers_digest", digest)
        .map_err(|error| bad("approvers_digest", error.to_string()))?;
    // Of the bytes that are made of what was read: what a gateway makes of its token is the same.
    if set.digest() != digest {
        return Err(bad("approvers_digest", "is not that of the approvers"));
    }
    Ok(Some(set))
}
