//! What one step of a rollout over 100,000 gateways costs, with all that its shell does for it: the machine's step, the record as
//! it is stored, and the folded view (issue 12: ≤ 50 ms). Also the largest step, in which all say hello after a restart, and what a
//! rollout and its fleet take of memory, which has to be linear. `cargo bench -p penstock-coordinator --bench rollout`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use divan::Bencher;
use penstock_coordinator::rollout::{Command, Fact, Now, Rollout, Setup, Standing};
use penstock_policy::ids::Revision;
use penstock_policy::rollout::{Fleet, Member, Span, default_plan};

const GATEWAYS: u32 = 100_000;
/// Reports that one step takes in.
const REPORTS: u32 = 1000;

fn main() {
    if std::env::args().any(|argument| argument == "--bench") {
        for gateways in [10_000, GATEWAYS] {
            let before = resident_bytes();
            let rollout = under_way(gateways);
            let own = resident_bytes() - before;
            println!(
                "a rollout over {gateways} gateways and its fleet: {} bytes of memory a gateway",
                own / u64::from(gateways),
            );
            drop(rollout);
        }
    }
    divan::main();
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn now(wall_ms: u64) -> Now {
    Now {
        wall_ms,
        frozen: false,
    }
}

/// A rollout amid a large wave: all are connected and have staged the release.
fn under_way(gateways: u32) -> Rollout {
    let mut rollout = approved(gateways);
    rollout.step(now(2), hellos(gateways));
    rollout
}

fn hellos(gateways: u32) -> impl Iterator<Item = Fact> {
    (0..gateways).map(|gateway| Fact::Hello {
        keeps_order: true,
        gateway,
        standing: Standing::Staged,
    })
}

/// The same before anybody was heard.
fn approved(gateways: u32) -> Rollout {
    let members = (0..gateways).map(|n| Member {
        id: format!("gw-{n:06}").parse().unwrap(),
        site: format!("site-{}", n / 10),
        cell: format!("site-{}/{}", n / 10, n % 10),
        labels: BTreeMap::new(),
        partner: None,
    });
    let fleet = Arc::new(Fleet::new(members.collect()).unwrap());
    let mut plan = default_plan(&fleet, 7);
    plan.shadow = Span::seconds(0);
    plan.waves.drain(..plan.waves.len() - 1);
    let mut rollout = Rollout::new(
        Setup {
            revision: Revision(1),
            plan,
            fleet,
            in_earlier_trial: Vec::new(),
        },
        now(1),
    );
    rollout.steer(now(1), Command::Simulated).unwrap();
    rollout
        .steer(now(1), Command::Approved { emergency: false })
        .unwrap();
    rollout.steer(now(1), Command::Start).unwrap();
    rollout
}

fn reports(round: u32, standing: Standing) -> impl Iterator<Item = Fact> {
    (0..REPORTS).map(move |n| Fact::Report {
        gateway: (round * REPORTS + n) % GATEWAYS,
        order: u64::MAX,
        standing,
    })
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn one_step_with_a_thousand_reports(bencher: Bencher<'_, '_>) {
    let mut rollout = under_way(GATEWAYS);
    let mut round = 0;
    bencher.bench_local(|| {
        round += 1;
        let standing = match round % 2 {
            0 => Standing::Confirmed,
            _ => Standing::Trial { confirmable: true },
        };
        rollout.step(now(u64::from(round) * 1000), reports(round / 2, standing))
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn one_step_in_which_all_say_hello(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(|| approved(GATEWAYS))
        .bench_local_values(|mut rollout| (rollout.step(now(2), hellos(GATEWAYS)), rollout));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn its_record_as_it_is_stored(bencher: Bencher<'_, '_>) {
    let rollout = under_way(GATEWAYS);
    bencher.bench_local(|| serde_json::to_vec(&rollout.record()).unwrap().len());
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn what_is_waited_for_folded(bencher: Bencher<'_, '_>) {
    let rollout = under_way(GATEWAYS);
    bencher.bench_local(|| rollout.folded_waits(50));
}
