//! What it costs the coordinator to give 100,000 sessions another target all at once (issue 12), with the real shell of rollouts over a
//! real store. The sessions are those of its fleet without their connections: what a gateway is sent is awaited at the end where
//! its connection would take it.
//!
//! - `all connect`: each session begins, and the rollout of the release that was approved starts, for which its document is read: all
//!   are to stage it.
//! - `all have staged`: the last of them reported that, and all are to judge live traffic by it.
//!
//! Each is counted until the last session has its target: facts taken in, the machine's step, its record stored, and then all targets
//! worked out and given. Run by `make bench`, or `PENSTOCK_FLEET=100000 cargo bench -p penstock-tests --bench publish` after
//! `cargo bench --no-run -p penstock-coordinator`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[allow(dead_code)] // The rest of it serves the bench of fleets.
#[path = "../fleet/coordinator.rs"]
mod coordinator;
mod document;
#[path = "../fleet/plant.rs"]
mod plant;

use std::sync::Arc;
use std::time::{Duration, Instant};

use coordinator::Coordinator;
use penstock_coordinator::journal::Journal;
use penstock_coordinator::releases::Releases;
use penstock_coordinator::rollout::run::{AfterApproval, Rollouts};
use penstock_coordinator::sessions::{BegunSession, Fleet, News};
use penstock_coordinator::store::Store;
use penstock_policy::ids::{CoordinatorId, GatewayId, PlantId};
use penstock_proto::convert::PolicyMark;
use penstock_proto::v1;
use rustix::time::{ClockId, clock_gettime};

/// How many, where PENSTOCK_FLEET does not say it.
const SIZES: &[u32] = &[10_000, 100_000];
/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a bench: cargo bench -p penstock-tests --bench publish");
        return;
    }
    let sizes = std::env::var("PENSTOCK_FLEET").map_or_else(
        |_| SIZES.to_vec(),
        |sizes| sizes.split(',').map(|size| size.parse().unwrap()).collect(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for size in sizes {
        runtime.block_on(measure(size));
    }
}

/// A coordinator's folder with one approved release for so many gateways.
async fn approved(size: u32) -> Coordinator {
    let mut coordinator = Coordinator::new("127.0.85.1", "wait");
    coordinator.start().await;
    let mut people = coordinator.people().await;
    let release = plant::release(document::document(size), 1, None);
    people
        .anna
        .propose_release(release.request.clone())
        .await
        .unwrap();
    people.bob.approve_release(release.approval("bob")).await.unwrap();
    people
        .carol
        .approve_release(release.approval("carol"))
        .await
        .unwrap();
    coordinator.kill();
    coordinator
}

async fn measure(size: u32) {
    let coordinator = approved(size).await;
    let store = Store::open(&coordinator.config.data.join("penstock.db")).unwrap();
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    let releases = Releases::open(store.clone(), PlantId::new(document::PLANT).unwrap())
        .await
        .unwrap();
    let fleet: Arc<Fleet> = Arc::default();
    let rollouts = Rollouts::open(
        store,
        journal,
        releases,
        Arc::clone(&fleet),
        AfterApproval::DefaultPlan,
    )
    .await
    .unwrap();
    println!("{size} gateways, until the last session has its target:");

    let begins = |number: u32| {
        let name: GatewayId = document::gateway(number).parse().unwrap();
        let hello = v1::Hello {
            capabilities: vec!["trials".to_owned()],
            policy: Some(v1::PolicyState::default()),
            ..v1::Hello::default()
        };
        let session = fleet.begin(&name, u64::MAX, Box::new(hello), 1);
        (name, session)
    };
    let mut sessions: Vec<(GatewayId, BegunSession)> = (0..size).map(begins).collect();
    let began = Spent::now();
    let following = tokio::spawn(async move { rollouts.follow().await });
    until_all(&mut sessions, v1::Upto::Staged).await;
    began.print("all connect", size);

    for (name, session) in &sessions {
        let directive = session.directives.borrow().clone();
        let (wanted, _) = directive.target.unwrap();
        let staged = News::Policy(Box::new(staged(wanted.mark, wanted.order.unwrap().number)));
        fleet.learn(name, session.number, &staged, 2);
    }
    let began = Spent::now();
    until_all(&mut sessions, v1::Upto::Shadow).await;
    began.print("all have staged", size);
    following.abort();
}

/// What a gateway reports that stored the release.
fn staged(mark: PolicyMark, order: u64) -> v1::PolicyState {
    let staged = v1::RevisionDigest::from(mark);
    v1::PolicyState {
        standing: Some(v1::PolicyStanding {
            order,
            revision: staged.revision,
            statement_digest: staged.statement_digest.clone(),
            state: None,
        }),
        staged: Some(staged),
        ..v1::PolicyState::default()
    }
}

/// Waits until every session is to go so far.
async fn until_all(sessions: &mut [(GatewayId, BegunSession)], upto: v1::Upto) {
    let waiting = async {
        for (_, session) in sessions {
            let goes = session.directives.wait_for(|directive| {
                let target = directive.target.as_ref();
                let order = target.and_then(|(wanted, _)| wanted.order.as_ref());
                order.is_some_and(|order| order.upto == upto)
            });
            goes.await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("never all {upto:?}"));
}

/// Time that passes, and the processor's for it.
struct Spent(Instant, Duration);

fn processor() -> Duration {
    let at = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap())
}

impl Spent {
    fn now() -> Self {
        Self(Instant::now(), processor())
    }

    fn print(self, what: &str, size: u32) {
        let (passed, used) = (self.0.elapsed(), processor().saturating_sub(self.1));
        println!(
            "  {what:16} {:7.0} ms, {:7.0} ms of processor time: {:5.2} us a gateway",
            passed.as_secs_f64() * 1e3,
            used.as_secs_f64() * 1e3,
            used.as_secs_f64() * 1e6 / f64::from(size),
        );
    }
}
