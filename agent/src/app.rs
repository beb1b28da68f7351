//! The whole agent: opens, wires, runs and stops the parts. Nothing imports this but the program and its tests.
//!
//! Order at start: the stored policy is in force before the service manager hears READY and before the first
//! packet to a coordinator. Order at stop: inspected connections are handed over, then link, reconciler, spool; the
//! kernel keeps the policy.

mod shown;

use penstock_proto::backoff::Backoff;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_proto::event::AgentStep;
use penstock_proto::v1::{Fault, Severity};
use penstock_proto::withdrawn::WithdrawnView;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::shown::show_health;
use crate::audit::{Audit, Unwritten, record};
use crate::bindings::{self, BindingWatch};
use crate::bridge::{self, supervisor::Supervisor};
use crate::carried::CarriedTaker;
use crate::config::Config;
use crate::est::EstListener;
use crate::identity::{Identity, IdentityError, IdentityFolder};
use crate::interlock::Asker;
use crate::kernel::{Kernel, LeftState};
use crate::kernel_head::KernelHead;
use crate::known_time::KnownTime;
use crate::link::connect::Shown;
use crate::link::renew::Renewal;
use crate::link::session::{Link, LinkState};
use crate::local;
use crate::reconcile::{PolicyView, Reconciler, SharedStore, inbox};
use crate::rollback::RollbackGuard;
use crate::service_manager::ServiceManager;
use crate::site::GatewaySite;
use crate::store::{self, LockError, Store};
use crate::tap::Tap;
use crate::ticket::TicketKeeper;
use crate::tpm::watch::KeyWatch;
use crate::trails::TrailsKeeper;
use crate::trust::TrustKeeper;
use crate::tunnel;
use crate::voucher::Voucher;
use crate::watchdog::{self, Watchdog};
use crate::withdrawn::{StoredList, WithdrawnKeeper};
use crate::zones::ZoneKeeper;

/// How long the parts have to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the tunnels have to say that they end, once all else has.
const TUNNELS_STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a gateway that is not enrolled looks whether somebody enrolled it.
const ENROLMENT_LOOK: Duration = Duration::from_secs(2);

/// What a running agent shows of itself.
#[derive(Debug, Clone)]
pub struct Views {
    /// Policy, drift, faults.
    pub policy: watch::Receiver<PolicyView>,
    /// The link.
    pub link: watch::Receiver<LinkState>,
    /// What is wrong with the certificate.
    pub certificate: watch::Receiver<Option<Fault>>,
    /// Whose keys no longer count.
    pub withdrawn: Arc<WithdrawnKeeper>,
    /// The trail.
    pub audit: Audit,
}

/// Runs until `stop` is cancelled. What was recorded with `audit` up to now is written first. `ready` is called once the stored
/// policy is in force.
///
/// # Errors
/// The state folder cannot be made or locked, or another agent holds it. Nothing else ends it: what fails later is a
/// fault, and is reported.
pub async fn run<K: Kernel>(
    config: Config,
    kernel: Arc<K>,
    (audit, unwritten): (Audit, Unwritten),
    nudge: Arc<Notify>,
    stop: CancellationToken,
    ready: impl FnOnce(Views) + Send,
) -> Result<(), LockError> {
    let started = Instant::now();
    let _lock = store::lock(&config.state_folder)?;
    let folder = config.identity();
    let store: SharedStore = {
        let state_folder = config.state_folder.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&state_folder)).await;
        Arc::new(Mutex::new(
            opened.unwrap_or_else(|_| Store::empty(&config.state_folder)),
        ))
    };
    let writer = unwritten.write_to(config.state_folder.clone(), config.spool_limits());
    let version = concat!("version ", env!("CARGO_PKG_VERSION"));
    audit.note(record::agent(AgentStep::Started, version));

    let timepiece = config.timepiece();
    let time = KnownTime::open(&config.state_folder, timepiece.clone());
    let stored_list = {
        let store = store.clone();
        let read = tokio::task::spawn_blocking(move || {
            StoredList::read(&mut *store.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        });
        read.await.unwrap_or_default()
    };
    let folder = folder.knowing(stored_list.view());
    let key_file = folder.key_file();
    let identity = load_identity(&store, &folder, time.now_ms()).await;
    let first_trust = match &identity {
        Ok(identity) => {
            time.believe_authority(identity);
            Some(identity.enrolment.first_trust())
        }
        Err(error) => {
            tracing::warn!(%error, "no link without an identity; the stored policy stays in force");
            None
        }
    };
    let identity = identity.ok().map(Arc::new);
    kernel.identify(identity.clone());
    let (identity_in, identity) = watch::channel(identity);
    let trust = TrustKeeper::new(folder.clone(), identity_in.clone(), audit.clone());
    let withdrawn = stored_list.keep(store.clone(), audit.clone(), identity.clone());
    let (asker, interlocks) = Asker::new(
        Arc::new(config.bridge_logins.clone()),
        identity.clone(),
        audit.clone(),
        timepiece.clone(),
    );
    let (link_in, link_state) = watch::channel(LinkState::default());
    let site = Arc::new(GatewaySite::new(
        kernel.clone(),
        link_state.clone(),
        interlocks,
        config.islanded,
    ));
    let (reconciler, policy) = Reconciler::new(kernel.clone(), store.clone(), audit.clone(), first_trust);
    let reconciler = reconciler.with_site(site.clone());
    let trails = Arc::new(TrailsKeeper::open(&config.state_folder, audit.clone()));
    let learner = CarriedTaker {
        trails: trails.clone(),
        trust: trust.clone(),
        withdrawn: withdrawn.clone(),
    };
    let reconciler = reconciler.with_learner(Arc::new(learner));
    let mut reconciler = reconciler.with_timepiece(timepiece.clone());
    reconciler.start().await;

    let (inlet, inbox) = inbox();
    let (certificate_in, certificate) = watch::channel(None);
    let (tap_faults, faults) = watch::channel(Vec::new());
    let tap = Tap {
        settings: config.tap,
        policy: policy.clone(),
        audit: audit.clone(),
        faults: tap_faults,
    };
    let mut parts = tokio::task::JoinSet::new();
    parts.spawn(identify(kernel.clone(), identity.clone()));
    parts.spawn(heed(kernel.clone(), withdrawn.view(), stop.clone()));
    parts.spawn(withdrawn.clone().run(stop.clone()));
    let (bridges, bridge_states) = Supervisor::new(
        bridge_settings(&config),
        policy.clone(),
        identity.clone(),
        audit.clone(),
    );
    let (tunnels, tunnel_faults) = tunnel::supervisor::Supervisor::new(
        policy.clone(),
        identity.clone(),
        withdrawn.view(),
        audit.clone(),
    );
    let tunnels = tunnels.showing_in(config.state_folder.join(tunnel::shown::FOLDER));
    let (local_faults, local_faulty) = watch::channel(Vec::new());
    let ended = Arc::new(Notify::new());
    let tickets = {
        let state_folder = config.state_folder.clone();
        let opened = tokio::task::spawn_blocking(move || TicketKeeper::open(&state_folder)).await;
        opened.unwrap_or_else(|_| TicketKeeper::empty(&config.state_folder))
    };
    let (est_faults, est_faulty) = watch::channel(Vec::new());
    let est = EstListener {
        listen: config.est.clone(),
        coordinators: config.coordinators.clone(),
        identity: identity.clone(),
        faults: est_faults,
    };
    let (panel_in, panel_faults) = watch::channel(Vec::new());
    let (scada_in, scada_faults) = watch::channel(Vec::new());
    let (key_watch, key_faults) = KeyWatch::new(folder.tpm(), audit.clone());
    let (guard_faults, rollback_faults) = watch::channel(Vec::new());
    let guard = RollbackGuard {
        state_folder: config.state_folder.clone(),
        folder: folder.clone(),
        policy: policy.clone(),
        withdrawn: withdrawn.view(),
        audit: audit.clone(),
        faults: guard_faults,
    };
    let (kernel_head, head_faults) = KernelHead::new(kernel.clone(), audit.clone());
    let faults = [
        faults,
        local_faulty,
        withdrawn.faults(),
        est_faulty,
        trust.faults(),
        tunnel_faults,
        key_faults.clone(),
        rollback_faults.clone(),
        panel_faults,
        scada_faults,
        trails.faults(),
        head_faults,
    ];
    let keeper = ZoneKeeper {
        kernel: kernel.clone(),
        policy: policy.clone(),
        link: link_state.clone(),
        identity: identity.clone(),
        audit: audit.clone(),
        time: time.clone(),
        bridges: bridge_states.clone(),
        certificate: certificate.clone(),
        faults: faults.to_vec(),
        started,
    };
    let health = show_health(&config, keeper, [panel_in, scada_in]);
    let voucher = Voucher {
        audit: audit.clone(),
        identity: identity.clone(),
    };
    let link = Link {
        identity,
        bridges: bridge_states,
        tunnels: tunnels.states(),
        coordinators: config.coordinators.clone(),
        audit: audit.clone(),
        inlet: inlet.clone(),
        policy: policy.clone(),
        certificate: certificate.clone(),
        faults,
        withdrawn: withdrawn.clone(),
        trust: trust.clone(),
        trails,
        tickets,
        kernel: kernel.clone(),
        started,
        state: link_in,
        time: time.clone(),
        ended: ended.clone(),
        from: Shown::default(),
        shown: None,
    };
    let local = local::serve::Server {
        settings: config.local(),
        policy: policy.clone(),
        inlet,
        timepiece,
        audit: audit.clone(),
        faults: local_faults,
        withdrawn: withdrawn.clone(),
        trust,
        further: vec![key_faults, rollback_faults],
        again: local::serve::AGAIN,
    };
    let bindings = BindingWatch {
        policy: policy.clone(),
        audit: audit.clone(),
        folder: config.state_folder.join(bindings::shown::FOLDER),
    };
    parts.spawn(bindings.run(stop.clone()));
    parts.spawn(local.run(stop.clone()));
    parts.spawn(key_watch.run(stop.clone()));
    parts.spawn(guard.run(stop.clone()));
    parts.spawn(kernel_head.run(stop.clone()));
    parts.spawn(voucher.run(stop.clone()));
    parts.spawn(reconciler.run(inbox, nudge, stop.clone()));
    parts.spawn(site.run(policy.clone(), stop.clone()));
    parts.spawn(asker.run(stop.clone()));
    parts.spawn(link.run(stop.clone()));
    parts.spawn(est.run(stop.clone()));
    health.spawn(&mut parts, &stop);
    parts.spawn(tap.run(stop.clone()));
    parts.spawn(bridges.run(stop.clone()));
    // They carry until the very end: whoever starts next takes them up, and the shorter they are gone the better.
    let carried_so_far = CancellationToken::new();
    let tunnels = tokio::spawn(tunnels.run(carried_so_far.clone()));
    parts.spawn(take_up_enrolments(
        config.state_folder.clone(),
        (folder.clone(), key_file),
        identity_in.clone(),
        stop.clone(),
    ));
    let renewal = Renewal {
        folder,
        coordinators: config.coordinators.clone(),
        audit: audit.clone(),
        identity: identity_in,
        policy: policy.clone(),
        time,
        ended,
        fault: certificate_in,
        withdrawn: withdrawn.clone(),
        est: config.est.iter().map(SocketAddr::ip).collect(),
    };
    parts.spawn(renewal.run(stop.clone()));
    let manager = ServiceManager::from_environment();
    if let Some(manager) = &manager {
        manager.tell("READY=1");
    }
    ready(Views {
        policy: policy.clone(),
        link: link_state,
        certificate,
        withdrawn: withdrawn.clone(),
        audit: audit.clone(),
    });
    let watchdog = watchdog(&kernel);
    live(&mut parts, watchdog.as_ref(), stop).await;

    if let Some(manager) = &manager {
        manager.tell("STOPPING=1");
        kernel.hand_over(manager).await;
    }
    let stopped =
        tokio::time::timeout(STOP_TIMEOUT, async { while parts.join_next().await.is_some() {} }).await;
    if stopped.is_err() {
        tracing::warn!("a part did not stop in time and is cut off");
        parts.abort_all();
    }
    let revision = policy
        .borrow()
        .state
        .effective
        .as_ref()
        .map_or(0, |mark| mark.revision);
    let (severity, message) = left_in_words(&kernel.leave().await, revision);
    audit.record(severity, record::agent(AgentStep::Stopped, &message));
    if tokio::time::timeout(STOP_TIMEOUT, audit.close()).await.is_err() {
        tracing::warn!("the audit spool did not close in time; what it acknowledged is durable all the same");
    }
    carried_so_far.cancel();
    if tokio::time::timeout(TUNNELS_STOP_TIMEOUT, tunnels).await.is_err() {
        tracing::warn!("the tunnels did not end in time and are cut off");
    }
    drop(writer);
    Ok(())
}

/// What the kernel goes on doing once the agent has ended, and how grave that is.
fn left_in_words(left: &LeftState, revision: u64) -> (Severity, String) {
    match left {
        LeftState::Nothing => (
            Severity::Notice,
            "no policy was in force on this gateway".to_owned(),
        ),
        LeftState::Policy => (
            Severity::Notice,
            format!("the kernel holds the rules of r{revision}, and goes on enforcing them"),
        ),
        LeftState::Repaired(message) => (
            Severity::Warning,
            format!(
                "the kernel holds the rules of r{revision} again, and goes on enforcing them; just before, {message}"
            ),
        ),
        LeftState::Differing(message) => (
            Severity::Alarm,
            format!(
                "the kernel no longer holds the rules of r{revision}, and nothing restores them: {message}"
            ),
        ),
        LeftState::Unknown(message) => (
            Severity::Alarm,
            format!("whether the kernel holds the rules of r{revision} is not known: {message}"),
        ),
    }
}

/// What this machine's configuration says of bridges.
fn bridge_settings(config: &Config) -> bridge::run::BridgeSettings {
    bridge::run::BridgeSettings {
        folder: config.state_folder.join(bridge::FOLDER),
        limits: bridge::queue::QueueLimits {
            bytes_max: config.bridge_queue_bytes_max,
            free_bytes_min: config.free_bytes_min,
        },
        message_bytes_max: config.bridge_message_bytes_max,
        look: bridge::supervisor::LOOK,
        backoff: Backoff::default(),
        logins: Arc::new(config.bridge_logins.clone()),
    }
}

/// Waits for the stop. A part that ends before is a fault of ours: it is said, and the others go on, since
/// enforcement is worth more than a clean picture.
async fn live(parts: &mut tokio::task::JoinSet<()>, watchdog: Option<&Watchdog>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            ended = parts.join_next(), if !parts.is_empty() => {
                if let Some(Err(error)) = ended {
                    tracing::error!(%error, "internal error in a part of the agent; restart the agent");
                }
            }
            () = tokio::time::sleep(watchdog::RUNTIME_BEAT) => {
                if let Some(watchdog) = watchdog {
                    watchdog.beat();
                }
            }
        }
    }
}

/// Signs of life for the service manager, if it wants them.
fn watchdog<K: Kernel>(kernel: &Arc<K>) -> Option<Watchdog> {
    let (manager, allowed) = (
        ServiceManager::from_environment()?,
        ServiceManager::watchdog_allowed()?,
    );
    let carrying = kernel.clone();
    Watchdog::start(manager, allowed, move || carrying.carries())
        .inspect_err(|error| tracing::error!(%error, "the service manager cannot be notified"))
        .ok()
}

async fn load_identity(
    store: &SharedStore,
    folder: &IdentityFolder,
    now_ms: u64,
) -> Result<Identity, IdentityError> {
    let (store, folder) = (store.clone(), folder.clone());
    tokio::task::spawn_blocking(move || {
        let mut store = store.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        folder.load_at(IdentityFolder::enrolment(&mut *store)?, now_ms)
    })
    .await
    .unwrap_or(Err(IdentityError::NotEnrolled))
}

/// Tells the kernel's side each new identity. Ends with those who find them.
async fn identify<K: Kernel>(kernel: Arc<K>, mut identity: watch::Receiver<Option<Arc<Identity>>>) {
    while identity.changed().await.is_ok() {
        let found = identity.borrow_and_update().clone();
        kernel.identify(found);
    }
}

/// Has the kernel's side end what stands on keys that no longer count: those of now, and of each longer list, until `stop`.
async fn heed<K: Kernel>(kernel: Arc<K>, mut view: WithdrawnView, stop: CancellationToken) {
    let mut list = view.now();
    loop {
        kernel.heed(list).await;
        tokio::select! {
            () = stop.cancelled() => return,
            grown = view.grown() => list = grown,
        }
    }
}

/// Takes up an enrolment that was made while the agent ran: the first one, and each that brought another key. `key_file` is the one whose
/// identity was loaded.
async fn take_up_enrolments(
    state_folder: PathBuf,
    (folder, mut key_file): (IdentityFolder, Option<(u64, u64)>),
    identity: watch::Sender<Option<Arc<Identity>>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ENROLMENT_LOOK) => {}
        }
        let is_known = identity.borrow().is_some();
        let (state_folder, folder) = (state_folder.clone(), folder.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            let found = folder.key_file();
            if is_known && found == key_file {
                return None;
            }
            let enrolment = IdentityFolder::peek_enrolment(&state_folder).ok()?;
            Some((folder.load(enrolment).ok()?, found))
        });
        if let Ok(Some((loaded, found))) = loaded.await {
            key_file = found;
            identity.send_replace(Some(Arc::new(loaded)));
        }
    }
}
