//! The gRPC services of a coordinator, put together, and what one connection may ask of them at once.

use std::sync::Arc;

use penstock_proto::channel::{
    GATEWAY_MESSAGE_BYTES_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, OPERATOR_REQUEST_BYTES_MAX,
    OPERATOR_RESPONSE_BYTES_MAX,
};
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::v1;
use penstock_proto::v1::control_server::ControlServer;
use penstock_proto::v1::enrolment_server::EnrolmentServer;
use penstock_proto::v1::gateway_link_server::GatewayLinkServer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use super::AppError;
use crate::alarms::desk::Alarms;
use crate::allowance::Allowance;
use crate::api::answers::{self, Answers};
use crate::api::calls::{self, CALL_TIMEOUT, Calls};
use crate::api::gate::{self, Gate};
use crate::api::{
    ANSWERS_MAX, CARRIED, ControlService, EnrolmentService, LinkService, RENEWALS, WATCHES_MAX,
};
use crate::ca::Authority;
use crate::config::Config;
use crate::enrolment::Attempts;
use crate::est::EstDesk;
use crate::evidence::Evidence;
use crate::health_watch::PublishedHealth;
use crate::identities::Identities;
use crate::ingest::{Ingest, SealJudge};
use crate::journal::Journal;
use crate::oidc::Oidc;
use crate::query::Searches;
use crate::releases::Releases;
use crate::requests::Requests;
use crate::rollout::run::Rollouts;
use crate::sessions::{self, Fleet, Sessions};
use crate::store::Store;
use crate::subjects::Subjects;
use crate::tickets::Tickets;

/// Calls that one connection may have under way.
const CALLS_PER_CONNECTION_MAX: usize = 64;

/// A server with the bounds that hold for each connection.
pub(super) fn server_builder() -> Server {
    Server::builder()
        .timeout(CALL_TIMEOUT)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .max_concurrent_streams(128)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(16 * 1024)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1 << 20)
}

/// What the services need.
pub(super) struct Services<'a> {
    pub(super) config: &'a Config,
    pub(super) store: Store,
    pub(super) subjects: Subjects,
    pub(super) tickets: Tickets,
    pub(super) journal: Journal,
    pub(super) authority: Arc<Authority>,
    /// The coordinator's own certificate and key.
    pub(super) server: Arc<ServerCredentials>,
    pub(super) releases: Releases,
    pub(super) rollouts: Rollouts,
    pub(super) fleet: Arc<Fleet>,
    pub(super) est: Arc<EstDesk>,
    pub(super) alarms: Alarms,
    pub(super) evidence: Evidence,
    pub(super) stopping: CancellationToken,
    pub(super) health: watch::Receiver<Arc<PublishedHealth>>,
}

impl Services<'_> {
    /// All of them, as they are served.
    pub(super) async fn routes(self) -> Result<Routes, AppError> {
        let oidc = Oidc::new(
            self.config.oidc.clone(),
            self.store.clone(),
            (self.subjects.clone(), self.authority.clone()),
            self.journal.clone(),
        );
        let control = ControlServer::new(ControlService {
            coordinator: self.config.name.clone(),
            gate: Gate::new(self.store.clone(), self.subjects.clone(), self.journal.clone()),
            store: self.store.clone(),
            subjects: self.subjects.clone(),
            identities: Identities::new(
                self.store.clone(),
                self.subjects.clone(),
                (self.tickets.clone(), self.fleet.clone()),
                self.releases.clone(),
            ),
            renewals: Allowance::new(RENEWALS),
            requests: Requests::new(self.store.clone(), self.subjects.clone()),
            oidc: oidc.clone(),
            releases: self.releases.clone(),
            rollouts: self.rollouts,
            fleet: self.fleet.clone(),
            authority: self.authority.clone(),
            stopping: self.stopping.clone(),
            searches: Searches::default(),
            evidence: self.evidence.clone(),
            answers: Answers::new("large answers", ANSWERS_MAX.0, ANSWERS_MAX.1),
            rollout_watches: Answers::new("watches of rollouts", WATCHES_MAX.0, WATCHES_MAX.1),
            watches: Answers::new("watches of health", WATCHES_MAX.0, WATCHES_MAX.1),
            alarms: self.alarms,
            health: self.health,
        })
        .max_decoding_message_size(OPERATOR_REQUEST_BYTES_MAX)
        .max_encoding_message_size(OPERATOR_RESPONSE_BYTES_MAX);
        let enrolment = EnrolmentServer::new(EnrolmentService {
            store: self.store.clone(),
            subjects: self.subjects.clone(),
            authority: self.authority.clone(),
            attempts: Attempts::new(self.config.attempts),
            journal: self.journal.clone(),
            fleet: self.fleet.clone(),
            repeats: Allowance::new(RENEWALS),
            oidc,
        })
        .max_decoding_message_size(64 * 1024);
        let judge = SealJudge::new(
            self.config.plant.clone(),
            self.authority.roots(),
            &self.config.name,
            self.server,
        );
        let link = GatewayLinkServer::new(LinkService {
            sessions: Arc::new(Sessions {
                authority: self.authority.clone(),
                coordinator: self.config.name.clone(),
                fleet: self.fleet,
                releases: self.releases,
                ingest: Ingest::new(self.store.clone(), self.journal.clone())
                    .with_share(self.config.trail)
                    .with_judge(judge),
                store: self.store.clone(),
                subjects: self.subjects.clone(),
                tickets: self.tickets.clone(),
                limits: self.config.sessions,
                stopping: self.stopping,
                evidence: self.evidence,
                leaving: sessions::leaving(self.config.accept.connections_max),
            }),
            places: Answers::of_sessions(self.config.accept.connections_max),
            subjects: self.subjects.clone(),
            authority: self.authority,
            store: self.store,
            journal: self.journal,
            tickets: self.tickets,
            renewals: Allowance::new(RENEWALS),
            est: self.est,
            carried: Allowance::new(CARRIED),
        })
        .max_decoding_message_size(GATEWAY_MESSAGE_BYTES_MAX);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        // Strangers learn nothing by it, and are held to what they need: enrolment.
        let subjects = self.subjects;
        let known = move |request| gate::known(&subjects, request);
        let reflection = InterceptedService::new(reflection, known);
        let (reporter, standard_health) = tonic_health::server::health_reporter();
        reporter.set_serving::<ControlServer<ControlService>>().await;
        reporter.set_serving::<EnrolmentServer<EnrolmentService>>().await;
        reporter.set_serving::<GatewayLinkServer<LinkService>>().await;
        let mut routes = Routes::builder();
        routes
            .add_service(control)
            .add_service(enrolment)
            .add_service(link)
            .add_service(reflection)
            .add_service(standard_health);
        let routes = routes.routes().into_axum_router();
        let carried = routes.layer(axum::middleware::map_response(answers::carry));
        let done = axum::middleware::from_fn_with_state(Calls::default(), calls::to_the_end);
        Ok(Routes::from(carried.layer(done)))
    }
}
