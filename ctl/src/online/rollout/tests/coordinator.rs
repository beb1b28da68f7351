//! A coordinator that answers what a test wrote down, and keeps what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use penstock_proto::v1::control_server::{Control, ControlServer};
use penstock_proto::v1::{self, GetReleaseResponse};
use tonic::codegen::{BoxStream, tokio_stream};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

/// What it answers, and what it was asked.
#[derive(Default)]
pub(super) struct Script {
    /// The newest first.
    pub(super) rollouts: Vec<v1::Rollout>,
    /// What a watch is answered after the first.
    pub(super) then: Vec<v1::Rollout>,
    pub(super) freeze: v1::FreezeState,
    /// It says that it took a freeze, and forgets it.
    pub(super) forgets: bool,
    /// It answers about this release, whatever it was asked.
    pub(super) mistakes: Option<u64>,
    pub(super) releases: BTreeMap<u64, GetReleaseResponse>,
    pub(super) gateways: Vec<v1::Gateway>,
    pub(super) health: v1::PlantHealth,
    pub(super) records: Vec<v1::AuditRecord>,
    pub(super) started: Vec<v1::StartRolloutRequest>,
    pub(super) steered: Vec<v1::SteerRolloutRequest>,
    pub(super) frozen: Vec<v1::FreezeRolloutsRequest>,
}

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<Script>>);

impl Fake {
    pub(super) fn with<T>(&self, use_it: impl FnOnce(&mut Script) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves on a port of its own; a connection to it.
    pub(super) async fn serve(&self) -> Channel {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        let server = Server::builder().add_service(ControlServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        endpoint.connect().await.unwrap()
    }

    fn rollout(&self, revision: u64) -> Result<v1::Rollout, Status> {
        self.with(|script| {
            let found = script
                .rollouts
                .iter()
                .find(|rollout| revision == 0 || rollout.revision == revision);
            let mut found = found
                .cloned()
                .ok_or_else(|| Status::not_found("no such rollout"))?;
            found.revision = script.mistakes.unwrap_or(found.revision);
            Ok(found)
        })
    }
}

fn stream<T: Send + 'static>(items: Vec<T>) -> Response<BoxStream<T>> {
    Response::new(Box::pin(tokio_stream::iter(items.into_iter().map(Ok))))
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no test asks for it"))
}

#[tonic::async_trait]
impl Control for Fake {
    type WatchRolloutStream = BoxStream<v1::Rollout>;
    type WatchHealthStream = BoxStream<v1::PlantHealth>;
    type SearchAuditStream = BoxStream<v1::AuditRecord>;
    type TailAuditStream = BoxStream<v1::AuditRecord>;
    type WatchAlarmsStream = BoxStream<v1::PlantAlarms>;
    type GetEvidenceStream = BoxStream<v1::EvidencePiece>;

    async fn start_rollout(
        &self,
        request: Request<v1::StartRolloutRequest>,
    ) -> Result<Response<v1::Rollout>, Status> {
        let request = request.into_inner();
        let rollout = v1::Rollout {
            revision: self.with(|script| script.mistakes).unwrap_or(request.revision),
            statement_digest: request.statement_digest.clone(),
            stage: "staging".to_owned(),
            plan: request.plan.clone(),
            ..v1::Rollout::default()
        };
        self.with(|script| script.started.push(request));
        Ok(Response::new(rollout))
    }

    async fn steer_rollout(
        &self,
        request: Request<v1::SteerRolloutRequest>,
    ) -> Result<Response<v1::Rollout>, Status> {
        let request = request.into_inner();
        let revision = request.revision;
        self.with(|script| script.steered.push(request));
        Ok(Response::new(self.rollout(revision)?))
    }

    async fn freeze_rollouts(
        &self,
        request: Request<v1::FreezeRolloutsRequest>,
    ) -> Result<Response<v1::FreezeState>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.with(|script| {
            script.freeze.frozen = request.frozen && !script.forgets;
            script.frozen.push(request);
            script.freeze.clone()
        })))
    }

    async fn watch_rollout(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        let request = request.into_inner();
        let mut answers = vec![self.rollout(request.revision)?];
        if !request.once {
            answers.extend(self.with(|script| script.then.clone()));
        }
        Ok(stream(answers))
    }

    async fn list_rollouts(
        &self,
        _: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        Ok(Response::new(self.with(|script| v1::ListRolloutsResponse {
            rollouts: script.rollouts.clone(),
            freeze: Some(script.freeze.clone()),
        })))
    }

    async fn who_am_i(&self, _: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIResponse>, Status> {
        Ok(Response::new(v1::WhoAmIResponse {
            coordinator: "c1".to_owned(),
            time_zones: vec!["UTC".to_owned()],
            ..v1::WhoAmIResponse::default()
        }))
    }

    async fn get_release(
        &self,
        request: Request<v1::GetReleaseRequest>,
    ) -> Result<Response<GetReleaseResponse>, Status> {
        let revision = request.into_inner().revision;
        let found = self.with(|script| script.releases.get(&revision).cloned());
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found("no such release"))
    }

    async fn list_gateways(
        &self,
        _: Request<v1::ListGatewaysRequest>,
    ) -> Result<Response<v1::ListGatewaysResponse>, Status> {
        Ok(Response::new(v1::ListGatewaysResponse {
            gateways: self.with(|script| script.gateways.clone()),
        }))
    }

    async fn watch_health(
        &self,
        _: Request<v1::WatchHealthRequest>,
    ) -> Result<Response<Self::WatchHealthStream>, Status> {
        Ok(stream(vec![self.with(|script| script.health.clone())]))
    }

    async fn search_audit(
        &self,
        _: Request<v1::SearchAuditRequest>,
    ) -> Result<Response<Self::SearchAuditStream>, Status> {
        Ok(stream(self.with(|script| script.records.clone())))
    }

    async fn count_audit(
        &self,
        _: Request<v1::CountAuditRequest>,
    ) -> Result<Response<v1::AuditCounts>, Status> {
        no()
    }

    async fn list_denials(
        &self,
        _: Request<v1::ListDenialsRequest>,
    ) -> Result<Response<v1::Denials>, Status> {
        no()
    }

    async fn get_evidence(
        &self,
        _: Request<v1::GetEvidenceRequest>,
    ) -> Result<Response<Self::GetEvidenceStream>, Status> {
        no()
    }

    async fn prove_trails(
        &self,
        _: Request<v1::ProveTrailsRequest>,
    ) -> Result<Response<v1::TrailsProof>, Status> {
        no()
    }

    async fn prove_event(
        &self,
        _: Request<v1::ProveEventRequest>,
    ) -> Result<Response<v1::EventEvidence>, Status> {
        no()
    }

    async fn tail_audit(
        &self,
        _: Request<v1::TailAuditRequest>,
    ) -> Result<Response<Self::TailAuditStream>, Status> {
        no()
    }

    async fn watch_alarms(
        &self,
        _: Request<v1::WatchAlarmsRequest>,
    ) -> Result<Response<Self::WatchAlarmsStream>, Status> {
        no()
    }

    async fn change_alarm(&self, _: Request<v1::ChangeAlarmRequest>) -> Result<Response<v1::Alarm>, Status> {
        no()
    }

    async fn propose_release(
        &self,
        _: Request<v1::ProposeReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        no()
    }

    async fn approve_release(
        &self,
        _: Request<v1::ApproveReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        no()
    }

    async fn reject_release(
        &self,
        _: Request<v1::EndReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        no()
    }

    async fn withdraw_release(
        &self,
        _: Request<v1::EndReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        no()
    }

    async fn list_releases(
        &self,
        _: Request<v1::ListReleasesRequest>,
    ) -> Result<Response<v1::ListReleasesResponse>, Status> {
        no()
    }

    async fn submit_batch(
        &self,
        _: Request<v1::SubmitBatchRequest>,
    ) -> Result<Response<v1::SubmitBatchResponse>, Status> {
        no()
    }

    async fn create_token(
        &self,
        _: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        no()
    }

    async fn issue_device(
        &self,
        _: Request<v1::IssueDeviceRequest>,
    ) -> Result<Response<v1::IssueDeviceResponse>, Status> {
        no()
    }

    async fn list_requests(
        &self,
        _: Request<v1::ListRequestsRequest>,
    ) -> Result<Response<v1::ListRequestsResponse>, Status> {
        no()
    }

    async fn decide_request(
        &self,
        _: Request<v1::DecideRequestRequest>,
    ) -> Result<Response<v1::PendingRequest>, Status> {
        no()
    }

    async fn renew_operator(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        no()
    }

    async fn list_accounts(
        &self,
        _: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        no()
    }

    async fn link_account(
        &self,
        _: Request<v1::LinkAccountRequest>,
    ) -> Result<Response<v1::LinkAccountResponse>, Status> {
        no()
    }

    async fn unlink_account(
        &self,
        _: Request<v1::UnlinkAccountRequest>,
    ) -> Result<Response<v1::ProviderAccount>, Status> {
        no()
    }

    async fn list_operators(
        &self,
        _: Request<v1::ListOperatorsRequest>,
    ) -> Result<Response<v1::ListOperatorsResponse>, Status> {
        no()
    }

    async fn list_devices(
        &self,
        _: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesResponse>, Status> {
        no()
    }

    async fn get_trust(&self, _: Request<v1::TrustHeld>) -> Result<Response<v1::TrustBundles>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_withdrawn(
        &self,
        _: Request<v1::GetWithdrawnRequest>,
    ) -> Result<Response<v1::WithdrawnList>, Status> {
        no()
    }

    async fn change_standing(
        &self,
        _: Request<v1::ChangeStandingRequest>,
    ) -> Result<Response<v1::SubjectState>, Status> {
        no()
    }
}
