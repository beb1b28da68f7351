//! How fast the audit spool takes events for good (DESIGN §12), on a real disk with its own fsyncs: first as fast as it goes
//! in commits of the writer's size, then through the handle that everybody records with, at a given rate, where what
//! comes too fast is counted as lost. A process of its own opens and reads what the first part wrote: what that costs with a backlog.
//! Each pace has one, too: what the whole path takes of memory. Of all it is said how much was written for each byte of the trail. In the
//! same run rsyslog's disk queue takes the same events as text, on the same disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod rsyslog;

use std::time::{Duration, Instant};

use penstock_agent::audit::spool::Spool;
use penstock_agent::audit::{self, BLOCK_BYTES, Position, SpoolLimits, record};
use penstock_proto::audit::read_body;
use penstock_proto::v1::{AuditEvent, Decision, Severity, VerdictEvent, audit_event::Kind};

/// Events of the measurement without a pace.
const EVENTS: u64 = 400_000;
/// Events of one commit: what the writer takes at most.
const COMMIT_EVENTS: u64 = 4096;
/// Paces, events a second, and how long each is kept. At the first, each commit holds one or two.
const PACES: [u64; 4] = [100, 50_000, 100_000, 150_000];
const PACE_SECONDS: u64 = 4;
/// What the process that opens is started with, before the folder.
const OPEN: &str = "--open";
/// What the process that keeps a pace is started with, before the pace.
const PACE: &str = "--pace";
const LIMITS: SpoolLimits = SpoolLimits {
    bytes_max: 1024 * 1024 * 1024,
    block_bytes: BLOCK_BYTES,
    free_bytes_min: 0,
};

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a bench: cargo bench -p penstock-agent --bench spool");
        return;
    }
    let behind = |word: &str| std::env::args().skip_while(|argument| argument != word).nth(1);
    if let Some(folder) = behind(OPEN) {
        opened(std::path::Path::new(&folder));
        return;
    }
    if let Some(pace) = behind(PACE) {
        paced(pace.parse().unwrap());
        return;
    }
    unpaced();
    for pace in PACES {
        child(PACE, pace.to_string().as_ref());
    }
    rsyslog::measure();
}

/// Goes on in a process of its own.
fn child(word: &str, argument: &std::ffi::OsStr) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let status = child.arg("--bench").arg(word).arg(argument).status().unwrap();
    assert!(status.success());
}

/// What this process wrote so far: by its calls, and to the disk, in whole pages.
fn written(process: &str) -> [u64; 2] {
    let text = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    ["wchar:", "write_bytes:"].map(|name| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}

/// How much was written since, for each byte of `payload`, in words.
fn amplified(process: &str, before: [u64; 2], payload: u64) -> String {
    let now = written(process);
    let times = |place: usize| (now[place] - before[place]) as f64 / payload as f64;
    format!(
        "{:.2} bytes written for each of the events, {:.2} to the disk",
        times(0),
        times(1)
    )
}

/// On the disk that is built on, not on a memory file system.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A denied packet, as the data plane tells it.
fn event(number: u64) -> AuditEvent {
    let [.., high, low] = number.to_be_bytes();
    let verdict = VerdictEvent {
        decision: Decision::Deny.into(),
        flow_id: 0,
        flow: String::new(),
        ingress: "lan1".to_owned(),
        egress: "lan2".to_owned(),
        source: format!("10.1.{high}.{low}"),
        destination: "10.2.0.9".to_owned(),
        protocol: 6,
        port: 502,
        count: 1,
        first_ms: number,
        last_ms: number,
        reason: "no rule of this revision matches: between office and control nothing leads to tcp/502"
            .to_owned(),
        ..VerdictEvent::default()
    };
    record::event(number, Severity::Warning, 7, Kind::Verdict(verdict))
}

fn unpaced() {
    let folder = folder();
    let (mut spool, _) = Spool::open(folder.path(), LIMITS, 1).unwrap();
    let commits: Vec<Vec<AuditEvent>> = (0..EVENTS / COMMIT_EVENTS)
        .map(|commit| {
            (commit * COMMIT_EVENTS..(commit + 1) * COMMIT_EVENTS)
                .map(event)
                .collect()
        })
        .collect();
    let count = commits.iter().map(Vec::len).sum::<usize>();
    let (began, before) = (Instant::now(), written("self"));
    for (now_ms, commit) in (1..).zip(commits) {
        spool.append(commit, now_ms).unwrap();
    }
    let took = began.elapsed().as_secs_f64();
    let amplified = amplified("self", before, payload(&mut spool));
    let (events, lost) = stored(&mut spool);
    assert_eq!((events, lost), (count as u64, 0));
    println!(
        "audit spool, commits of {COMMIT_EVENTS} events as fast as it goes: {:.0} events/s durable (budget 100,000), \
         {amplified} (budget 1.5)",
        count as f64 / took
    );
    spool.close().unwrap();
    child(OPEN, folder.path().as_ref());
}

/// Opens a spool, and reads it as an upload does.
fn opened(folder: &std::path::Path) {
    let before = resident_kib();
    let began = Instant::now();
    let (mut spool, _) = Spool::open(folder, LIMITS, 1).unwrap();
    let took = began.elapsed();
    let open = resident_kib() - before;
    let (mut at, mut bytes) = (Position::default(), 0);
    loop {
        let blocks = spool.read(at, 32, 512 * 1024).unwrap();
        let Some(last) = blocks.last() else { break };
        bytes += blocks.iter().map(|block| block.body.len()).sum::<usize>();
        at = Position {
            epoch: last.epoch,
            sequence: last.sequence + 1,
        };
    }
    println!(
        "audit spool with {} MiB of blocks: opened in {:.1} ms, {open} KiB of memory, {} KiB at most while all was read",
        bytes / 1024 / 1024,
        took.as_secs_f64() * 1000.0,
        resident_kib() - before,
    );
}

/// The most memory that this process had, KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn paced(pace: u64) {
    let folder = folder();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (resident, [_, before]) = (resident_kib(), written("self"));
        let (trail, writer) = audit::start(folder.path().to_owned(), LIMITS);
        let mut state = trail.state();
        state.wait_for(|state| state.next.sequence > 0 || state.next.epoch > 0).await.unwrap();
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < Duration::from_secs(PACE_SECONDS) {
            let due = u64::try_from(began.elapsed().as_micros()).unwrap() * pace / 1_000_000;
            for number in sent..due {
                trail.record_event(event(number));
            }
            sent = due;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        trail.close().await;
        let took = began.elapsed().as_secs_f64();
        drop(writer);
        let resident = resident_kib() - resident;
        let [_, end] = written("self");
        let files = bytes_below(folder.path());
        let (mut spool, _) = Spool::open(folder.path(), LIMITS, 1).unwrap();
        // What was lost in the last second is kept, and told with what comes next.
        let later = record::event(u64::MAX, Severity::Info, 0, record::agent("measured", ""));
        spool.append(vec![later], u64::MAX).unwrap();
        let (events, lost) = stored(&mut spool);
        assert_eq!(events + lost, sent, "every event is in the trail or counted as lost");
        let payload = payload(&mut spool);
        let times = |bytes: u64| bytes as f64 / payload as f64;
        println!(
            "audit spool, {pace} events/s offered for {PACE_SECONDS} s: {:.0} events/s durable, {lost} of {sent} counted \
             as lost; {resident} KiB of memory at most (budget 16,384); {:.2} bytes written for each of the events, {:.2} to the disk",
            events as f64 / took,
            times(files),
            times(end - before),
        );
    });
}

/// What is in the files below a folder, bytes. They only grow, and none of them is removed while a pace is kept.
fn bytes_below(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            found if found.is_dir() => bytes_below(&entry.path()),
            found => found.len(),
        })
        .sum()
}

/// What the blocks hold, bytes.
fn payload(spool: &mut Spool) -> u64 {
    let blocks = spool.read(Position::default(), usize::MAX, usize::MAX).unwrap();
    blocks.iter().map(|block| block.body.len() as u64).sum()
}

/// Verdicts in the spool, and how many its loss records count.
fn stored(spool: &mut Spool) -> (u64, u64) {
    let (mut events, mut lost) = (0, 0);
    for block in spool.read(Position::default(), usize::MAX, usize::MAX).unwrap() {
        for event in read_body(&block.body).unwrap().events {
            match event.kind {
                Some(Kind::Verdict(_)) => events += 1,
                Some(Kind::Loss(loss)) => lost += loss.events,
                _ => {}
            }
        }
    }
    (events, lost)
}
