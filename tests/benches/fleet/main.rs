//! A fleet that is simulated beside a real coordinator: thousands of gateways, each with a connection, a certificate and a
//! session of its own, from one process. For each size it prints
//!
//! - how long all take to be connected, and what the coordinator's memory is per gateway;
//! - what it writes to its disk while they only report: a page or two in half a minute, by which it proves that its store can be written;
//! - what a release for all of them takes: proposed, approved, offered to the last; what its memory is after each of several
//!   proposals; and whether a session was lost meanwhile;
//! - what all upload at once, and how long a release for all of them takes meanwhile, from its last signature to each gateway;
//! - how long all take to be back after kill -9;
//! - how long after an admin asked for it a revoked gateway has lost its session.
//!
//! PENSTOCK_BENCH=upload: only what needs no kill. PENSTOCK_BENCH=export: how long an export to a file is behind, and nothing else.
//!
//! Run by `make bench`, or `PENSTOCK_FLEET=3000 cargo bench -p penstock-tests --bench fleet` after
//! `cargo bench --no-run -p penstock-coordinator`. It and the coordinator need a file open for each gateway (`ulimit -Hn`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod coordinator;
mod document;
mod export;
mod gateways;
mod plant;
mod upload;

use std::time::{Duration, Instant};

use coordinator::{Coordinator, People};
use gateways::Fleet;
use penstock_proto::v1;
use plant::Built;
use rustix::process::{Resource, getrlimit, setrlimit};

/// How many, where PENSTOCK_FLEET does not say it.
const SIZES: &[u32] = &[3_000, 10_000];
/// Proposals for all, one after the other.
const PROPOSALS: u64 = 4;
/// Proposals behind these: one while none uploads, and others while all do.
const UPLOADED: u64 = 4;
/// How long all upload before such a release, and behind it.
const UPLOADING: Duration = Duration::from_secs(5);
/// Gateways that are revoked, one after the other.
const REVOKED: u32 = 200;
/// How long the fleet only reports, three times each.
const QUIET: Duration = Duration::from_secs(30);
/// Open files that each program needs beside one for each gateway.
const FILES_BESIDE: u64 = 200;
/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a bench: cargo bench -p penstock-tests --bench fleet");
        return;
    }
    let sizes = std::env::var("PENSTOCK_FLEET").map_or_else(
        |_| SIZES.to_vec(),
        |sizes| sizes.split(',').map(|size| size.parse().unwrap()).collect(),
    );
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    for size in &sizes {
        let enough = files
            .maximum
            .is_none_or(|most| most >= u64::from(*size) + FILES_BESIDE);
        assert!(
            enough,
            "{size} gateways need more open files than this process may have (ulimit -Hn)"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if std::env::var("PENSTOCK_BENCH").is_ok_and(|part| part == "export") {
        runtime.block_on(export::measure());
        return;
    }
    for size in sizes {
        runtime.block_on(measure(size));
    }
}

async fn measure(size: u32) {
    println!("{size} gateways");
    let mut coordinator = Coordinator::new("127.0.84.1", "at-once");
    coordinator.start().await;
    let empty = coordinator.resident_mb();
    let mut people = coordinator.people().await;

    let identities = gateways::identities(&coordinator, size);
    let began = Instant::now();
    let fleet = Fleet::start(&coordinator, identities);
    fleet
        .until("all connected", |fleet| fleet.connected() == size)
        .await;
    println!("  connected in {:.1} s", began.elapsed().as_secs_f64());
    let full = coordinator.resident_mb();
    println!(
        "  coordinator: {full:.0} MB, {:.1} KB for each gateway",
        (full - empty) * 1024.0 / f64::from(size)
    );

    let (written, reported) = (coordinator.written_bytes(), fleet.reports());
    tokio::time::sleep(QUIET).await;
    println!(
        "  {} reports in {} s: {} bytes written to disk",
        fleet.reports() - reported,
        QUIET.as_secs(),
        coordinator.written_bytes() - written
    );

    let lost = fleet.lost();
    let mut parent = None;
    for number in 1..=PROPOSALS + UPLOADED {
        let release = plant::release(document::document(size, number), number, parent);
        parent = Some(release.digest());
        if number > PROPOSALS {
            upload(&fleet, &mut people, &release, number).await;
            continue;
        }
        let began = Instant::now();
        people
            .anna
            .propose_release(release.request.clone())
            .await
            .unwrap();
        let proposed = began.elapsed();
        let approving = Instant::now();
        people.bob.approve_release(release.approval("bob")).await.unwrap();
        people
            .carol
            .approve_release(release.approval("carol"))
            .await
            .unwrap();
        let approved = approving.elapsed();
        fleet
            .until("all offered", |fleet| fleet.offered(number) == size as usize)
            .await;
        println!(
            "  release {number}: proposed in {:.1} s, approved in {:.1} s, offered to all {:.1} s after the last signature began; \
             coordinator: {:.0} MB, at most {:.0} MB",
            proposed.as_secs_f64(),
            approved.as_secs_f64(),
            (approving.elapsed()).as_secs_f64(),
            coordinator.resident_mb(),
            coordinator.peak_mb(),
        );
    }
    println!("  sessions lost meanwhile: {}", fleet.lost() - lost);
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "  coordinator, at rest after {PROPOSALS} releases: {:.0} MB",
        coordinator.resident_mb()
    );

    if std::env::var("PENSTOCK_BENCH").is_ok_and(|part| part == "upload") {
        fleet.stop();
        return;
    }
    coordinator.kill();
    fleet
        .until("none connected", |fleet| fleet.connected() == 0)
        .await;
    let began = Instant::now();
    coordinator.start().await;
    fleet.until("all back", |fleet| fleet.connected() == size).await;
    println!(
        "  all back {:.1} s after a start after kill -9",
        began.elapsed().as_secs_f64()
    );
    revoke(&coordinator, &fleet, size.min(REVOKED)).await;
    fleet.stop();
}

/// All gateways upload at once, and a release for all of them is made in the middle of it.
async fn upload(fleet: &Fleet, people: &mut People, release: &Built, number: u64) {
    let uploads = number > PROPOSALS + 1;
    fleet.upload(uploads);
    tokio::time::sleep(UPLOADING).await;
    people
        .anna
        .propose_release(release.request.clone())
        .await
        .unwrap();
    people.bob.approve_release(release.approval("bob")).await.unwrap();
    let (began, before) = (Instant::now(), fleet.acknowledged());
    people
        .carol
        .approve_release(release.approval("carol"))
        .await
        .unwrap();
    let signed = Instant::now();
    fleet
        .until("all offered", |fleet| fleet.offered(number) == fleet.size())
        .await;
    let mut after = fleet.offered_after(signed);
    after.sort();
    tokio::time::sleep(UPLOADING).await;
    let events = fleet.acknowledged() - before;
    fleet.upload(false);
    let at = |part: usize| after[(after.len() * part / 100).min(after.len() - 1)].as_secs_f64() * 1000.0;
    println!(
        "  {}: {:.0} events/s acknowledged; release {number} offered {:.0} ms (median), {:.0} ms (p99), {:.0} ms (at most) \
         after its last signature was answered",
        if uploads {
            "all upload at once"
        } else {
            "none uploads"
        },
        events as f64 / began.elapsed().as_secs_f64(),
        at(50),
        at(99),
        at(100),
    );
}

/// Revokes gateways while all the others report.
async fn revoke(coordinator: &Coordinator, fleet: &Fleet, count: u32) {
    let admin = coordinator.certificate("operator/admin");
    let mut admin = coordinator.control(admin).await;
    let (mut answered, mut took) = (Vec::new(), Vec::new());
    for number in 0..count {
        let began = Instant::now();
        let request = v1::ChangeStandingRequest {
            subject: format!("gateway/{}", document::gateway(number)),
            change: v1::StandingChange::Revoke.into(),
            reason: "measured".to_owned(),
            ticket: String::new(),
        };
        admin.change_standing(request).await.unwrap();
        answered.push(began.elapsed());
        took.push(fleet.ended(number, began).await);
    }
    answered.sort();
    took.sort();
    let ms = |took: Duration| took.as_secs_f64() * 1000.0;
    let at = |part: usize| ms(took[(took.len() * part / 100).min(took.len() - 1)]);
    println!(
        "  {count} gateways revoked: answered after {:.1} ms (median); each lost its session after {:.1} ms (median), {:.1} ms (p99), {:.1} ms (at most)",
        ms(answered[answered.len() / 2]),
        at(50),
        at(99),
        at(100)
    );
}
