//! What operators call. Each method begins at the gate; what changes something ends in the trail.

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{CoordinatorId, OperatorId, Revision};
use penstock_proto::convert;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use penstock_proto::v1::control_server::Control;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::answers::{Answers, Nothing, carried, framed};
use super::gate::{Action, Gate};
use super::{views, watching};
use crate::alarms::desk::Alarms;
use crate::allowance::Allowance;
use crate::ca::Authority;
use crate::clock;
use crate::enrolment::{self, GATEWAY_PREFIX};
use crate::evidence::Evidence;
use crate::health_watch::PublishedHealth;
use crate::identities::Identities;
use crate::oidc::Oidc;
use crate::query::{FilterError, Searches};
use crate::releases::{ProposalEndKind, Releases, carried as carried_with, targets};
use crate::requests::Requests;
use crate::rollout::run::Rollouts;
use crate::sessions::Fleet;
use crate::store::Store;
use crate::subjects::Subjects;

/// Releases in one list if nothing is said, and at most.
const RELEASES_DEFAULT: usize = 20;
const RELEASES_MAX: usize = 1000;
/// How long a caller waits for the sites' time zones.
const TIME_ZONES_WAIT_MAX: Duration = Duration::from_secs(2);

/// The service.
pub struct ControlService {
    /// Ourselves.
    pub coordinator: CoordinatorId,
    /// Who may do what.
    pub gate: Gate,
    /// Records and trails.
    pub store: Store,
    /// Whose keys count.
    pub subjects: Subjects,
    /// What admins decide of that.
    pub identities: Identities,
    /// What waits for a second person.
    pub requests: Requests,
    /// How often each login may be renewed.
    pub renewals: Allowance,
    /// Who signs in through the identity provider.
    pub oidc: Oidc,
    /// Releases.
    pub releases: Releases,
    /// How releases are carried to gateways.
    pub rollouts: Rollouts,
    /// Gateways.
    pub fleet: Arc<Fleet>,
    /// For the root's digest.
    pub authority: Arc<Authority>,
    /// The coordinator is stopping: streams that would go on for ever end.
    pub stopping: CancellationToken,
    /// Searches under way.
    pub searches: Searches,
    /// What proves what the trails hold.
    pub evidence: Evidence,
    /// Large answers under way.
    pub answers: Answers<OperatorId>,
    /// Watchers of rollouts.
    pub rollout_watches: Answers<OperatorId>,
    /// Watchers of health.
    pub watches: Answers<OperatorId>,
    /// The alarms of the control room.
    pub(crate) alarms: Alarms,
    /// Health as it changes.
    pub health: watch::Receiver<Arc<PublishedHealth>>,
}

impl ControlService {
    /// The time zones of the sites. Nobody waits long for them: a large document may be compiling. What nobody waited for is
    /// there the next time.
    async fn time_zones(&self) -> Vec<String> {
        let Some(current) = self.releases.now() else {
            return Vec::new();
        };
        let releases = self.releases.clone();
        let read = tokio::spawn(async move { releases.directory(current.revision()).await });
        match tokio::time::timeout(TIME_ZONES_WAIT_MAX, read).await {
            Ok(Ok(Ok(found))) => found.time_zones().map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// A request about the trail, checked.
    pub(super) fn checked<R, F: TryFrom<R, Error = FilterError>>(request: R) -> Result<F, Refusal> {
        F::try_from(request).map_err(|error| {
            Refusal::new(Reason::BadRequest, error.to_string()).field(error.field, error.what)
        })
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type WatchRolloutStream = Nothing<v1::Rollout>;

    async fn start_rollout(
        &self,
        request: Request<v1::StartRolloutRequest>,
    ) -> Result<Response<v1::Rollout>, Status> {
        self.start(request).await
    }

    async fn steer_rollout(
        &self,
        request: Request<v1::SteerRolloutRequest>,
    ) -> Result<Response<v1::Rollout>, Status> {
        self.steer(request).await
    }

    async fn freeze_rollouts(
        &self,
        request: Request<v1::FreezeRolloutsRequest>,
    ) -> Result<Response<v1::FreezeState>, Status> {
        self.freeze(request).await
    }

    async fn watch_rollout(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        self.watch(request).await
    }

    async fn list_rollouts(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        self.list(request).await
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = self.gate.operator(request.extensions(), Action::WhoAmI).await?;
        Ok(Response::new(v1::WhoAmIResponse {
            operator: caller.operator.to_string(),
            role: caller.role.to_wire().into(),
            plant: self.authority.plant().to_string(),
            coordinator: self.coordinator.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time_zones: self.time_zones().await,
            after_approval: self.rollouts.after_approval().as_str().to_owned(),
        }))
    }

    async fn propose_release(
        &self,
        request: Request<v1::ProposeReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ProposeRelease)
            .await?;
        let message = request.into_inner();
        let list = self.subjects.list().borrow().clone();
        let outcome = match self.evidence.holds(&message.statement).await {
            Ok(()) => {
                let proposed = self.releases.propose(
                    &caller.operator,
                    &message.statement,
                    message.documents,
                    |statement| carried_with(statement, &list, &self.authority),
                    self.gate.deed(&caller),
                    clock::now_ms(),
                );
                proposed.await
            }
            Err(refusal) => Err(refusal),
        };
        let recorded = self.gate.judged(&caller, "", outcome).await?;
        Ok(Response::new(views::release(
            &recorded,
            &self.releases,
            &self.fleet,
        )))
    }

    async fn approve_release(
        &self,
        request: Request<v1::ApproveReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ApproveRelease)
            .await?;
        let message = request.into_inner();
        let outcome = self
            .releases
            .approve(
                &caller.operator,
                &message,
                self.gate.deed(&caller),
                clock::now_ms(),
            )
            .await;
        let target = targets::approved(&message, false);
        let recorded = self.gate.judged(&caller, &target, outcome).await?;
        Ok(Response::new(views::release(
            &recorded,
            &self.releases,
            &self.fleet,
        )))
    }

    async fn reject_release(
        &self,
        request: Request<v1::EndReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        self.end_release(Action::RejectRelease, ProposalEndKind::Rejected, request)
            .await
    }

    async fn withdraw_release(
        &self,
        request: Request<v1::EndReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        self.end_release(Action::WithdrawRelease, ProposalEndKind::Withdrawn, request)
            .await
    }

    async fn list_releases(
        &self,
        request: Request<v1::ListReleasesRequest>,
    ) -> Result<Response<v1::ListReleasesResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ListReleases)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let limit = match request.into_inner().limit as usize {
            0 => RELEASES_DEFAULT,
            limit => limit.min(RELEASES_MAX),
        };
        let releases = self.releases.list(limit).await?;
        Ok(carried(
            v1::ListReleasesResponse {
                releases: views::all_releases(&releases, &self.releases, &self.fleet),
            },
            answer,
        ))
    }

    async fn get_release(
        &self,
        request: Request<v1::GetReleaseRequest>,
    ) -> Result<Response<v1::GetReleaseResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::GetRelease)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let request = request.into_inner();
        let digest = |field, bytes: &[u8]| {
            let read = (!bytes.is_empty())
                .then(|| convert::digest(field, bytes))
                .transpose();
            read.map_err(|error| {
                Refusal::new(Reason::BadRequest, error.to_string()).field(field, error.to_string())
            })
        };
        let revision = Revision(request.revision);
        let recorded = match digest("statement_digest", &request.statement_digest)? {
            Some(digest) => self.releases.named(revision, digest).await?,
            None => self.releases.get(revision).await?,
        };
        let since = digest("since_digest", &request.since_digest)?;
        Ok(carried(
            v1::GetReleaseResponse {
                release: Some(views::release(&recorded, &self.releases, &self.fleet)),
                signed: Some(recorded.signed()),
                documents: self.releases.documents(&recorded).await?,
                chain: self.releases.before(&recorded, since),
            },
            answer,
        ))
    }

    async fn list_gateways(
        &self,
        request: Request<v1::ListGatewaysRequest>,
    ) -> Result<Response<v1::ListGatewaysResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ListGateways)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let waiting = enrolment::waiting(&self.store, GATEWAY_PREFIX)
            .await
            .map_err(Refusal::from)?;
        Ok(carried(
            v1::ListGatewaysResponse {
                gateways: views::gateways(&self.releases, &self.fleet, &self.subjects, waiting),
            },
            answer,
        ))
    }

    async fn submit_batch(
        &self,
        request: Request<v1::SubmitBatchRequest>,
    ) -> Result<Response<v1::SubmitBatchResponse>, Status> {
        self.submit(request).await
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        self.token(request).await
    }

    async fn issue_device(
        &self,
        request: Request<v1::IssueDeviceRequest>,
    ) -> Result<Response<v1::IssueDeviceResponse>, Status> {
        self.device(request).await
    }

    async fn list_requests(
        &self,
        request: Request<v1::ListRequestsRequest>,
    ) -> Result<Response<v1::ListRequestsResponse>, Status> {
        self.waiting(request).await
    }

    async fn decide_request(
        &self,
        request: Request<v1::DecideRequestRequest>,
    ) -> Result<Response<v1::PendingRequest>, Status> {
        self.decide(request).await
    }

    async fn renew_operator(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        self.renew_login(request).await
    }

    async fn list_accounts(
        &self,
        request: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        self.accounts(request).await
    }

    async fn link_account(
        &self,
        request: Request<v1::LinkAccountRequest>,
    ) -> Result<Response<v1::LinkAccountResponse>, Status> {
        self.link_with(request).await
    }

    async fn unlink_account(
        &self,
        request: Request<v1::UnlinkAccountRequest>,
    ) -> Result<Response<v1::ProviderAccount>, Status> {
        self.unlinked(request).await
    }

    async fn list_operators(
        &self,
        request: Request<v1::ListOperatorsRequest>,
    ) -> Result<Response<v1::ListOperatorsResponse>, Status> {
        self.operators(request).await
    }

    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesResponse>, Status> {
        self.devices(request).await
    }

    async fn get_trust(&self, request: Request<v1::TrustHeld>) -> Result<Response<v1::TrustBundles>, Status> {
        // As open as who one is: every program verifies the coordinator by it.
        self.gate.operator(request.extensions(), Action::GetTrust).await?;
        let lacking = self.authority.bundles_since(request.get_ref());
        Ok(Response::new(lacking.into()))
    }

    async fn get_withdrawn(
        &self,
        request: Request<v1::GetWithdrawnRequest>,
    ) -> Result<Response<v1::WithdrawnList>, Status> {
        self.withdrawn(request).await
    }

    async fn change_standing(
        &self,
        request: Request<v1::ChangeStandingRequest>,
    ) -> Result<Response<v1::SubjectState>, Status> {
        self.change(request).await
    }

    // What goes out are the frames, the same for all who watch.
    type WatchHealthStream = Nothing<v1::PlantHealth>;

    async fn watch_health(
        &self,
        request: Request<v1::WatchHealthRequest>,
    ) -> Result<Response<Self::WatchHealthStream>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::WatchHealth)
            .await?;
        let answer = self.watches.begin(&caller.operator, request.extensions())?;
        let frames = watching::frames(&self.health, &request.into_inner());
        Ok(framed(frames, answer))
    }

    type WatchAlarmsStream = Nothing<v1::PlantAlarms>;

    async fn watch_alarms(
        &self,
        request: Request<v1::WatchAlarmsRequest>,
    ) -> Result<Response<Self::WatchAlarmsStream>, Status> {
        self.alarms_watched(request).await
    }

    async fn change_alarm(
        &self,
        request: Request<v1::ChangeAlarmRequest>,
    ) -> Result<Response<v1::Alarm>, Status> {
        self.alarm_changed(request).await
    }

    type SearchAuditStream = ReceiverStream<Result<v1::AuditRecord, Status>>;

    async fn search_audit(
        &self,
        request: Request<v1::SearchAuditRequest>,
    ) -> Result<Response<Self::SearchAuditStream>, Status> {
        self.searched(request).await
    }

    type TailAuditStream = ReceiverStream<Result<v1::AuditRecord, Status>>;

    async fn tail_audit(
        &self,
        request: Request<v1::TailAuditRequest>,
    ) -> Result<Response<Self::TailAuditStream>, Status> {
        self.followed(request).await
    }

    type GetEvidenceStream = ReceiverStream<Result<v1::EvidencePiece, Status>>;

    async fn get_evidence(
        &self,
        request: Request<v1::GetEvidenceRequest>,
    ) -> Result<Response<Self::GetEvidenceStream>, Status> {
        self.proved(request).await
    }

    async fn prove_trails(
        &self,
        request: Request<v1::ProveTrailsRequest>,
    ) -> Result<Response<v1::TrailsProof>, Status> {
        self.tree_proved(request).await
    }

    async fn prove_event(
        &self,
        request: Request<v1::ProveEventRequest>,
    ) -> Result<Response<v1::EventEvidence>, Status> {
        self.event_proved(request).await
    }

    async fn count_audit(
        &self,
        request: Request<v1::CountAuditRequest>,
    ) -> Result<Response<v1::AuditCounts>, Status> {
        self.counted(request).await
    }

    async fn list_denials(
        &self,
        request: Request<v1::ListDenialsRequest>,
    ) -> Result<Response<v1::Denials>, Status> {
        self.denied(request).await
    }
}
