//! From a person's word at the coordinator to its enforcement in the gateways' kernels (issue 12: p99 ≤ 0.5 s where no window holds
//! it). A real coordinator and real agents, each in a network namespace, over real mTLS; each release moves the one flow of
//! each gateway from one port to another.
//!
//! - `approval`: the coordinator carries approved releases to all gateways at once (`after_approval = "at-once"`). Counted from when the
//!   answer to the last approver's signature is there.
//! - `rollout`: an order per release. The release is approved before; counted from when the answer to the start of its
//!   rollout is there, which has one wave and no shadow, until the release is in force on trial. What comes then, the confirmation over the
//!   new rules, is waited for and not counted.
//!
//! In force is a release at a gateway when a packet has come through to the new port, and none comes to the old one any more:
//! both are sent all the time. A packet that was let through before the answer came counts as 0. What is counted from when the
//! person's request went out is printed beside it.
//!
//! Run by `make bench`, or `cargo bench -p penstock-tests --bench commit` after `cargo bench --no-run -p penstock-coordinator -p
//! penstock-agent`. `PENSTOCK_BENCH=approval` runs that part alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[allow(dead_code)] // The rest of it serves the bench of fleets.
#[path = "../fleet/coordinator.rs"]
mod coordinator;
#[path = "../fleet/document.rs"]
mod document;
#[path = "../fleet/plant.rs"]
mod plant;
mod site;

use std::time::{Duration, Instant};

use coordinator::{Coordinator, People};
use penstock_lab::{Lab, Namespace, sandbox};
use penstock_policy::ids::Digest;
use penstock_policy::release::Statement;
use penstock_policy::rollout::{Converge, FORMAT, GateLimits, RolloutPlan, Selector, Span, Wave};
use penstock_proto::v1;
use site::Site;

/// Gateways, each with a client and a server.
const GATEWAYS: u32 = 4;
/// Within one session a gateway looks at 16 offers at once and then at one every 5 s; a trial begins a session of its own.
const PACE: Duration = Duration::from_millis(5_200);
/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the gateways' management peer is.
const ADDRESS: &str = "192.0.2.10";
/// After a release is in force everywhere, for late packets to the old port.
const SETTLE: Duration = Duration::from_millis(100);

const PARTS: [(&str, Begins); 2] = [("approval", Begins::Approved), ("rollout", Begins::Started)];

/// With what a release begins to go to its gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    Approved,
    Started,
}

impl Begins {
    /// Releases that are counted, behind the first, and how long to wait before each.
    fn releases(self) -> (u64, Duration) {
        match self {
            Self::Approved => (30, PACE),
            Self::Started => (100, Duration::ZERO),
        }
    }
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a bench: cargo bench -p penstock-tests --bench commit");
        return;
    }
    let selected = std::env::var("PENSTOCK_BENCH").ok();
    let parts: Vec<_> = PARTS
        .into_iter()
        .filter(|(name, _)| selected.as_deref().is_none_or(|selected| selected == *name))
        .collect();
    assert!(!parts.is_empty(), "PENSTOCK_BENCH is none of {PARTS:?}");
    if !sandbox::inside() {
        let status = sandbox::reexecute(&["--bench"]).unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    sandbox::prepare().unwrap();
    for (name, begins) in parts {
        let lab = Lab::new(format!("/run/penstock-bench-{name}")).unwrap();
        let headquarters = headquarters(&lab, name);
        let sites: Vec<Site> = (0..GATEWAYS)
            .map(|number| Site::build(&lab, &headquarters, (name, number)))
            .collect();
        headquarters
            .enter(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(measure(begins, sites));
            })
            .unwrap();
    }
}

fn headquarters(lab: &Lab, part: &str) -> Namespace {
    let headquarters = lab.namespace(&format!("hq-{part}")).unwrap();
    headquarters.address("lo", &format!("{ADDRESS}/32")).unwrap();
    headquarters
}

async fn measure(begins: Begins, mut sites: Vec<Site>) {
    let after_approval = match begins {
        Begins::Approved => "at-once",
        Begins::Started => "wait",
    };
    let mut coordinator = Coordinator::new(ADDRESS, after_approval);
    coordinator.start().await;
    let mut people = coordinator.people().await;
    let mut parent = None;
    let mut times = [const { Vec::new() }; 2];
    let mut slowest = Vec::new();
    let (releases, pace) = begins.releases();
    for number in 1..=releases + 1 {
        tokio::time::sleep(pace).await;
        let text = document::document(GATEWAYS, number % 2).replace("service: tcp/", "service: udp/");
        let release = plant::release(text, number, parent);
        parent = Some(release.digest());
        if number == 1 {
            for site in &mut sites {
                let statement = Statement::from_bytes(&release.request.statement).unwrap();
                site.enrol(&coordinator, &statement.approvers).await;
            }
        }
        for site in &sites {
            site.forget(number);
        }
        people
            .anna
            .propose_release(release.request.clone())
            .await
            .unwrap();
        people.bob.approve_release(release.approval("bob")).await.unwrap();
        let mut sent = Instant::now();
        people
            .carol
            .approve_release(release.approval("carol"))
            .await
            .unwrap();
        if begins == Begins::Started {
            sent = Instant::now();
            start(&mut people, number, release.digest()).await;
        }
        let answered = Instant::now();
        for site in &sites {
            site.until_open(number).await;
        }
        tokio::time::sleep(SETTLE).await;
        if begins == Begins::Started {
            until_completed(&mut people, number).await;
        }
        if number > 1 {
            let since = |from: Instant| {
                let in_force = sites.iter().map(move |site| site.in_force(number));
                in_force.map(move |at| at.saturating_duration_since(from).as_secs_f64() * 1e3)
            };
            slowest.push(since(answered).fold(0.0, f64::max));
            times[0].extend(since(answered));
            times[1].extend(since(sent));
        }
    }
    let what = match begins {
        Begins::Approved => "the last signature",
        Begins::Started => "the start of its rollout",
    };
    println!("{releases} releases to {GATEWAYS} gateways (ms): from {what}");
    let [answered, requested] = times;
    for (from, times) in [
        ("acknowledged, to force at a gateway (budget: p99 500)", answered),
        ("acknowledged, to force at the last of them", slowest),
        ("sent, to force at a gateway", requested),
    ] {
        let mut times = times;
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        println!(
            "  {from:54} p50 {:6.1}   p99 {:6.1}   max {:6.1}",
            at(50),
            at(99),
            at(100)
        );
    }
}

/// All gateways at once, on trial.
async fn start(people: &mut People, revision: u64, digest: Digest) {
    let plan = RolloutPlan {
        format: FORMAT.to_owned(),
        seed: 1,
        start_ms: None,
        shadow: Span::seconds(0),
        trial: Span::seconds(300),
        silence: Span::seconds(120),
        patience: Span::seconds(600),
        gate: GateLimits { soft_rate: 0.02 },
        converge: Converge { at_once: 5 },
        waves: vec![Wave {
            name: "all".to_owned(),
            gateways: Selector::All,
            per_cell: GATEWAYS,
            soak: Span::seconds(0),
        }],
    };
    let request = v1::StartRolloutRequest {
        revision,
        statement_digest: digest.0.to_vec().into(),
        plan: serde_json::to_vec(&plan).unwrap().into(),
        because: Some(v1::Because {
            reason: "a bench".to_owned(),
            ticket: String::new(),
        }),
    };
    people.anna.start_rollout(request).await.unwrap();
}

async fn until_completed(people: &mut People, revision: u64) {
    let began = Instant::now();
    loop {
        let request = v1::ListRolloutsRequest { limit: 1 };
        let answer = people.anna.list_rollouts(request).await.unwrap().into_inner();
        let newest = &answer.rollouts[0];
        if newest.revision == revision && newest.stage == "completed" {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{newest:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
