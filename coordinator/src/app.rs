//! Wires the coordinator together, starts it and stops it. Nothing imports this but `main` and tests.

mod authority;
mod folder;
mod lock;
mod news;
mod services;
mod turn;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{CoordinatorId, GatewayId, OperatorId};
use penstock_proto::audit::tree_head::origin;
use penstock_proto::est::serve;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::Refusal;
use penstock_proto::tls::TlsError;
use penstock_proto::tls::data_path::{PlantTrust, enrolling_server};
use penstock_proto::tls::server::{Reception, ServerCredentials, server_config_with_grace};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::authority::{
    authority_in_words, init_under, install_issuing, install_trust, issuing_request, token_in_words,
};
use self::authority::{authority_of, certificate_files, follow_token, issuing_key};
pub use self::folder::{backup, has_root_key, replicate, stand_alone, unlock};
pub use self::lock::DataLock;
use self::news::News;
use self::services::{Services, server_builder};
use crate::ca::{Authority, CaError};
use crate::clock;
use crate::config::Config;
use crate::enrolment::{Attempts, GATEWAY_PREFIX, GatewayRecord, NewToken, TokenWish, create_token};
use crate::est::EstDesk;
use crate::evidence::Evidence;
use crate::export;
use crate::files::{self, FileError};
use crate::health;
use crate::health::own::{OwnReasons, Probe};
use crate::health_watch::{self, PublishedHealth, Standard};
use crate::ingest;
use crate::journal::Journal;
use crate::last_admin;
use crate::metrics;
use crate::operators::Role;
use crate::own_certificate::OwnCertificate;
use crate::own_seals::OwnSeals;
use crate::query::indexing;
use crate::releases::Releases;
use crate::requests::Permit;
use crate::retention;
use crate::rollout::run::{AfterApproval, Rollouts};
use crate::sessions::Fleet;
use crate::store::{Store, StoreError};
use crate::strangers;
use crate::subjects::Subjects;
use crate::tickets::Tickets;
use crate::witnesses::Witnesses;

/// How long open streams may take to end when the coordinator stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The authority's folder in the data folder.
const CA_FOLDER: &str = "ca";
/// The store's file in the data folder.
const STORE_FILE: &str = "penstock.db";

/// Why the coordinator does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A file of the data folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// A coordinator runs on the same data.
    #[error(
        "the data folder {0} is in use by a coordinator that runs; stop that one first (systemctl stop penstock-coordinator): gateways go on \
         enforcing meanwhile, keep their trail, and connect again when it starts"
    )]
    Locked(String),
    /// The lock cannot be taken.
    #[error("cannot lock the data folder {folder}")]
    Lock {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The authority.
    #[error("the certificate authority cannot be used; was `penstock-coordinator init` run?")]
    Authority(#[from] CaError),
    /// Gateways would be lost.
    #[error(
        "{0}. Start the coordinator and wait until they connected, take them out of service, or say --force --because WHY"
    )]
    NotReady(String),
    /// Another coordinator acts on the replicated store.
    #[error(
        "the coordinator {0} acts on the replicated store: do this there, or stop it first. Nothing was changed"
    )]
    OtherActs(CoordinatorId),
    /// Two coordinators of one name.
    #[error(
        "another coordinator of the name {0} acts on the replicated store: each has a name of its own (`name` in its configuration), and its own certificate and trail below that"
    )]
    SameName(CoordinatorId),
    /// A replicated store without servers.
    #[error("the configuration names no servers: say them in `[storage.nats]`")]
    NoServers,
    /// The store.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// What is recorded cannot be taken up.
    #[error("what is recorded cannot be used")]
    Recorded(#[from] Refusal),
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The threads that meet clients.
    #[error("the threads for TLS handshakes cannot be started")]
    Threads(#[source] std::io::Error),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The metrics recorder.
    #[error("metrics cannot be set up")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The descriptors of our own services.
    #[error("server reflection cannot be set up")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A coordinator that runs.
pub struct RunningCoordinator {
    /// Where gateways and operators connect.
    pub grpc: Vec<SocketAddr>,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
    /// Where devices enrol.
    pub est: Vec<SocketAddr>,
    stopping: CancellationToken,
    deposed: CancellationToken,
    tasks: JoinSet<()>,
    store: Store,
    /// What it takes to give its turn to another coordinator; `None`: there is no other.
    handed_over: Option<(Journal, u64, CoordinatorId)>,
    _lock: DataLock,
}

/// Makes a new plant's authority in the data folder.
///
/// # Errors
/// There is an authority already, a coordinator runs on the folder, or something cannot be written there.
pub fn init(config: &Config) -> Result<(), AppError> {
    files::private_folder(&config.data)?;
    let _lock = DataLock::take(&config.data)?;
    let ca = config.data.join(CA_FOLDER);
    files::private_folder(&ca)?;
    Authority::create(&ca, config.plant.clone(), config.lifetimes, clock::now_ms())?;
    Store::open(&config.data.join(STORE_FILE))?;
    Ok(())
}

/// Makes a token for an operator directly in the store, while no coordinator runs: for the first admin, and for
/// when every admin's certificate is lost. It is written in the trail like any other.
///
/// # Errors
/// A coordinator runs on the folder, authority or store cannot be opened, or the token cannot be made or stored.
pub async fn operator_token(
    config: &Config,
    operator: &OperatorId,
    role: Role,
    valid_seconds: u32,
) -> Result<(NewToken, penstock_policy::ids::Digest), AppError> {
    let _lock = DataLock::take(&config.data)?;
    let authority = authority_of(config)?;
    let store = turn::open_idle(config).await?;
    let journal = Journal::new(store.clone(), &config.name);
    // Also here this comes before anything is written: a store may have been restored just now.
    let mut own_seals = OwnSeals::new(store.clone(), journal.clone(), &config.plant, &config.data);
    own_seals.settle().await;
    let wish = TokenWish {
        device_role: None,
        subject: Subject::Operator(operator.clone()),
        role: Some(role),
        key: None,
        approvers: None,
        valid_seconds,
    };
    let deed = journal.deed("local", "", "create-token");
    let token = create_token(&store, &wish, &Permit::free(), deed, clock::now_ms()).await?;
    Ok((token, authority.root_digest()))
}

fn not_at(address: SocketAddr) -> impl FnOnce(std::io::Error) -> AppError {
    move |source| AppError::Listen { address, source }
}

/// Starts a coordinator.
///
/// # Errors
/// Another coordinator runs on the folder, authority, store or records cannot be used, TLS or metrics cannot be set
/// up, or an address cannot be listened on.
pub async fn start(config: &Config) -> Result<RunningCoordinator, AppError> {
    let lock = DataLock::take(&config.data)?;
    let recorder = metrics::install()?;
    let authority = Arc::new(authority_of(config)?);
    let issuing = issuing_key(&authority).await?;
    let store = turn::open(config).await?;
    let stopping = CancellationToken::new();
    let journal = Journal::new(store.clone(), &config.name);
    let mut own_seals = OwnSeals::new(store.clone(), journal.clone(), &config.plant, &config.data);
    own_seals.settle().await;
    let (mut tasks, deposed, cluster) = (JoinSet::new(), CancellationToken::new(), watch::Sender::default());
    let cluster_faults = cluster.subscribe();
    // Others hear of it from here on, however long the rest of the start takes.
    let handed_over = turn::take(&store, &journal, &config.name).await?.map(|turn| {
        let revision = turn.revision();
        background(&mut tasks, &stopping, turn.keep(deposed.clone(), cluster));
        (journal.clone(), revision, config.name.clone())
    });
    let subjects = Subjects::open(store.clone(), journal.clone(), authority.clone()).await?;
    let releases = Releases::open(store.clone(), config.plant.clone()).await?;
    let tickets = Tickets::new(store.clone(), journal.clone());
    let fleet = Arc::new(Fleet::remembered(remembered(&store).await?));
    for (gateway, fault) in ingest::seals::faults(&store).await? {
        fleet.unproved(&gateway, Some(fault));
    }
    for (gateway, twin) in tickets.twins(&subjects).await? {
        fleet.twin(&gateway, Some(twin));
    }
    let rollouts = Rollouts::open(
        store.clone(),
        journal.clone(),
        releases.clone(),
        fleet.clone(),
        config.after_approval,
    )
    .await?;
    let standard = match config.after_approval {
        AfterApproval::AtOnce => Standard::Release,
        AfterApproval::Wait | AfterApproval::DefaultPlan => Standard::Rollouts,
    };
    let first = health_watch::look(
        (&fleet, &subjects),
        rollouts.in_force().borrow().as_deref(),
        standard,
        clock::now_ms(),
        config.sessions.stale_after_ms(),
    );
    let (publish, health) = watch::channel(Arc::new(PublishedHealth::new(first)));

    let mut own_certificate = OwnCertificate::new(config, authority.clone(), subjects.clone());
    let server = ServerCredentials::new(&own_certificate.credentials(clock::now_ms())?)?;
    if let Err(error) = own_certificate.settle(&journal).await {
        tracing::error!(error = %crate::chain(&error), "the coordinator's new certificate is not in the trail; it is tried again");
    }
    let withdrawn = authority.withdrawn_issuers();
    let roots = authority.roots();
    let tls = server_config_with_grace(&config.plant, server.clone(), &roots, config.grace, &withdrawn)?;
    let est_tls = enrolling_server(
        PlantTrust {
            plant: &config.plant,
            roots: &roots,
            // The records themselves are asked at each request.
            withdrawn: &withdrawn,
        },
        server.clone(),
    )?;
    let (kept_journal, own_authority) = (journal.clone(), authority.clone());
    let desk = Arc::new(EstDesk::new(
        store.clone(),
        (subjects.clone(), authority.clone()),
        releases.clone(),
        journal.clone(),
        Attempts::new(config.attempts),
    ));
    let known = (fleet.clone(), rollouts.clone(), releases.clone());
    let news = News::open(config, (store.clone(), journal.clone()), known, health.clone()).await?;
    let trails = (origin(&config.plant, config.name.as_str()), store.clone());
    let witnesses = Witnesses::new(&config.witnesses, &config.data, trails, server.clone());
    let evidence = Evidence::new(
        (store.clone(), witnesses.clone()),
        (&config.plant, &config.name),
        server.clone(),
    );
    let services = Services {
        config,
        store: store.clone(),
        subjects: subjects.clone(),
        tickets,
        journal: journal.clone(),
        authority,
        server: server.clone(),
        releases: releases.clone(),
        rollouts: rollouts.clone(),
        fleet: fleet.clone(),
        est: desk.clone(),
        alarms: news.alarms(),
        evidence: evidence.clone(),
        stopping: stopping.clone(),
        health,
    };
    let routes = services.routes().await?;

    let reception = Reception::start_knowing(tls, config.accept, withdrawn).map_err(AppError::Threads)?;
    subjects.connect_at(reception.clone());
    let mut grpc = Vec::new();
    for address in &config.grpc {
        let listener = TcpListener::bind(address).await.map_err(not_at(*address))?;
        grpc.push(listener.local_addr().unwrap_or(*address));
        let accepted = reception.incoming(listener);
        let (routes, stopping) = (routes.clone(), stopping.clone());
        tasks.spawn(async move {
            let served = server_builder()
                .add_routes(routes)
                .serve_with_incoming_shutdown(accepted, stopping.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(error = %crate::chain(&error), "the gRPC server stopped");
            }
        });
    }
    let est = devices_enrol(config, est_tls, &subjects, &desk, (&mut tasks, &stopping)).await?;
    let probe = Arc::new(Probe::new(store.clone()));
    let (own, own_faults) = watch::channel(Vec::new());
    let (untaken, behind, restored) = (releases.untaken(), subjects.behind(), subjects.restored());
    let (exports, export_faults) = export::all(&config.exports, &config.plant, &store, &releases);
    let unsealed = own_seals.fault();
    let reasons = OwnReasons {
        words: [untaken, behind, restored, issuing, unsealed],
        witnesses: witnesses.waits(),
        exports: export_faults,
        cluster: cluster_faults,
    };
    tasks.spawn(own_seals.follow(server.clone(), stopping.clone()));
    background(&mut tasks, &stopping, exports);
    background(
        &mut tasks,
        &stopping,
        health::own::follow(probe.clone(), certificate_files(config), reasons, own),
    );
    background(
        &mut tasks,
        &stopping,
        follow_token(own_authority, subjects.clone()),
    );
    let mut metrics_address = None;
    if let Some(address) = config.metrics {
        let listener = metrics::bind(address).await.map_err(not_at(address))?;
        metrics_address = listener.local_addr().ok();
        let served = metrics::serve(listener, recorder, probe.clone(), stopping.clone());
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the metrics server stopped");
            }
        });
    }
    background(&mut tasks, &stopping, {
        let releases = releases.clone();
        async move { releases.follow().await }
    });
    background(&mut tasks, &stopping, {
        let rollouts = rollouts.clone();
        async move { rollouts.follow().await }
    });
    let (notes, all_notes) = watch::channel(Vec::new());
    background(
        &mut tasks,
        &stopping,
        last_admin::follow(store.clone(), subjects.clone(), rollouts.notes(), notes),
    );
    background(
        &mut tasks,
        &stopping,
        health_watch::follow(
            (fleet.clone(), subjects.clone()),
            rollouts.in_force(),
            standard,
            config.sessions.stale_after_ms(),
            own_faults,
            all_notes,
            publish,
        ),
    );
    tasks.spawn(evidence.publish(releases.clone(), stopping.clone()));
    tasks.spawn(witnesses.follow(stopping.clone()));
    background(
        &mut tasks,
        &stopping,
        retention::follow(store.clone(), kept_journal, config.trail_kept),
    );
    news.start(&mut tasks, &stopping);
    let indexed = indexing::follow(store.clone(), releases.clone(), stopping.clone());
    tasks.spawn(indexed);
    let strangers = strangers::follow(reception.turned_away(), journal.clone());
    background(&mut tasks, &stopping, strangers);
    background(
        &mut tasks,
        &stopping,
        own_certificate.keep(server, journal.clone()),
    );
    Ok(RunningCoordinator {
        grpc,
        metrics: metrics_address,
        est,
        deposed,
        stopping,
        tasks,
        store,
        handed_over,
        _lock: lock,
    })
}

/// Listens where devices enrol, and gives the addresses.
async fn devices_enrol(
    config: &Config,
    tls: Arc<ServerConfig>,
    subjects: &Subjects,
    desk: &Arc<EstDesk>,
    (tasks, stopping): (&mut JoinSet<()>, &CancellationToken),
) -> Result<Vec<SocketAddr>, AppError> {
    let mut listening = Vec::new();
    if config.est.is_empty() {
        return Ok(listening);
    }
    let limits = serve::limits(config.accept.handshake_timeout);
    let reception = Reception::start(tls, limits).map_err(AppError::Threads)?;
    subjects.connect_at(reception.clone());
    for address in &config.est {
        let address = *address;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| AppError::Listen { address, source })?;
        listening.push(listener.local_addr().unwrap_or(address));
        let served = serve::serve(listener, reception.clone(), desk.clone(), stopping.clone());
        tasks.spawn(served);
    }
    Ok(listening)
}

/// Runs something until it ends or the coordinator stops.
fn background(
    tasks: &mut JoinSet<()>,
    stopping: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let stopping = stopping.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = work => {}
            () = stopping.cancelled() => {}
        }
    });
}

async fn remembered(store: &Store) -> Result<Vec<(GatewayId, GatewayRecord)>, AppError> {
    let records = store.list_json::<GatewayRecord>(GATEWAY_PREFIX).await?;
    Ok(records
        .into_iter()
        .filter_map(|(name, record, _)| GatewayId::new(name).ok().map(|gateway| (gateway, record)))
        .collect())
}

impl RunningCoordinator {
    /// The store, for tests that look at what was recorded.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Ends when this coordinator does not act any more, since another one does or the replicated store was out of reach for too long.
    pub async fn deposed(&self) {
        self.deposed.cancelled().await;
    }

    /// Stops: no new connections, sessions are told, then it ends; at the latest after [`STOP_TIMEOUT`].
    pub async fn stop(mut self) {
        self.stopping.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
        if let Some((journal, revision, name)) =
            self.handed_over.take().filter(|_| !self.deposed.is_cancelled())
        {
            turn::OwnTurn::end(&self.store, &journal, revision, &name).await;
        }
    }
}
