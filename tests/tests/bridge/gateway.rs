//! The gateway's process: the agent's own supervisor of bridges, obeying a plan in a file, until it is killed.
//!
//! It runs in a process of its own, so that `kill -9` is real. The plan is looked at every 20 ms, as the reconciler
//! would publish a new one. With [`GUARDED`] the kernel enforces the plan first, management guard and all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock_agent::audit;
use penstock_agent::bridge::queue::QueueLimits;
use penstock_agent::bridge::run::BridgeSettings;
use penstock_agent::bridge::side::Login;
use penstock_agent::bridge::supervisor::Supervisor;
use penstock_agent::enforce;
use penstock_agent::identity::IdentityFolder;
use penstock_agent::reconcile::PolicyView;
use penstock_policy::ids::Revision;
use penstock_policy::plan::Plan;
use penstock_proto::backoff::Backoff;
use penstock_proto::withdrawn::Withdrawn;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The state folder of a gateway, in the environment of its process.
pub const CHILD: &str = "PENSTOCK_BRIDGE_CHILD";
/// The kernel enforces the plan, too.
pub const GUARDED: &str = "PENSTOCK_BRIDGE_GUARDED";
/// The quota of the queue, bytes.
pub const QUEUE_BYTES: &str = "PENSTOCK_BRIDGE_QUEUE_BYTES";
/// The file with whose keys no longer count, in the state folder.
pub const WITHDRAWN: &str = "withdrawn.json";
/// The test that is the process.
pub const NAME: &str = "gateway::a_gateway_without_a_plan_keeps_no_bridge";

/// Without its variable it is a small test of its own; with it, the process.
#[test]
fn a_gateway_without_a_plan_keeps_no_bridge() {
    if let Ok(state) = std::env::var(CHILD) {
        return run(Path::new(&state), None);
    }
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), Some(Duration::from_millis(300)));
    let left = std::fs::read_dir(folder.path().join("bridges"));
    assert!(left.is_err() || left.unwrap().all(|entry| entry.unwrap().path().is_file()));
}

fn run(state: &Path, patience: Option<Duration>) {
    tracing_subscriber::fmt().with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        tokio::spawn(async move {
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            tokio::select! {
                _ = terminate.recv() => {}
                () = async {
                    match patience {
                        Some(patience) => tokio::time::sleep(patience).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
            stopping.cancel();
        });
        let limits = audit::SpoolLimits {
            bytes_max: 8 * 1024 * 1024,
            block_bytes: audit::BLOCK_BYTES,
            free_bytes_min: 0,
        };
        let trail_folder = state.join("trail");
        std::fs::create_dir_all(&trail_folder).unwrap();
        let (trail, writer) = audit::start(trail_folder, limits);
        let (list, withdrawn) = watch::channel(Arc::default());
        let identity = IdentityFolder::peek_enrolment(state).ok().map(|enrolment| {
            let folder = IdentityFolder::new(state).knowing(withdrawn.into());
            Arc::new(folder.load(enrolment).unwrap())
        });
        let (view, policy) = watch::channel(PolicyView::default());
        let settings = BridgeSettings {
            folder: state.join("bridges"),
            limits: QueueLimits {
                bytes_max: std::env::var(QUEUE_BYTES)
                    .map_or(64 * 1024 * 1024, |bytes| bytes.parse().unwrap()),
                free_bytes_min: 128 * 1024,
            },
            message_bytes_max: 64 * 1024,
            // So that tests need not wait for what is told.
            look: Duration::from_millis(100),
            // Nor for the waits between connections, which grow while a broker restarts again and again.
            backoff: Backoff::between(Duration::from_millis(100), Duration::from_millis(500)),
            logins: Arc::new(
                [("to-broker".to_owned(), login(state))]
                    .into_iter()
                    .filter(|(_, login)| login.password_file.exists())
                    .collect(),
            ),
        };
        let (_identity_in, identity) = watch::channel(identity);
        let (supervisor, _states) = Supervisor::new(settings, policy, identity, trail.clone());
        let following = tokio::spawn(follow(state.to_owned(), view, list));
        supervisor.run(stop).await;
        following.abort();
        trail.close().await;
        writer.await.unwrap();
    });
}

fn login(state: &Path) -> Login {
    Login {
        user: "penstock".to_owned(),
        password_file: state.join("password"),
    }
}

/// Publishes the plan and the list of withdrawn keys in their files whenever they change.
async fn follow(state: PathBuf, view: watch::Sender<PolicyView>, list: watch::Sender<Arc<Withdrawn>>) {
    let mut last = Vec::new();
    let mut enforcer = None;
    loop {
        let withdrawn = std::fs::read(state.join(WITHDRAWN)).unwrap_or_default();
        if let Ok(withdrawn) = serde_json::from_slice::<Withdrawn>(&withdrawn) {
            list.send_if_modified(|known| {
                let is_longer = **known != withdrawn;
                *known = Arc::new(withdrawn);
                is_longer
            });
        }
        let bytes = std::fs::read(state.join("plan.json")).unwrap_or_default();
        if bytes != last
            && let Ok(plan) = Plan::from_bytes(&bytes)
        {
            let plan = Arc::new(plan);
            if std::env::var_os(GUARDED).is_some() {
                let (observed, _) = mpsc::channel(64);
                let kernel = enforce::Enforcer::start(enforce::EnforceSettings::default(), observed).unwrap();
                kernel.apply(plan.clone(), Revision(1)).await.unwrap();
                enforcer = Some(kernel);
                println!("guarded");
            }
            last = bytes;
            view.send_modify(|view| view.plan = Some(plan));
        }
        let _kept = &enforcer;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
