//! The spool under kill -9: a child process appends and prints each position that it was told is durable; it is
//! killed at random moments, again and again on the same spool. Nothing printed may be missing, and the chain holds.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use penstock_agent::audit::record;
use penstock_agent::audit::spool::Spool;
use penstock_agent::audit::{Position, SpoolLimits};
use penstock_proto::audit::{Head, read_body};
use penstock_proto::v1::{AuditEvent, Severity, audit_event::Kind};
use proptest::prelude::ProptestConfig;

/// After so many kills a new spool is begun: what is stored is read whole each time.
const SPOOL_KILLS: u32 = 10;
const CHILD: &str = "PENSTOCK_SPOOL_KILL_CHILD";
const LIMITS: SpoolLimits = SpoolLimits {
    bytes_max: 64 * 1024 * 1024,
    block_bytes: 16 * 1024,
    free_bytes_min: 0,
};

fn events(from: u64, count: u64) -> Vec<AuditEvent> {
    (from..from + count)
        .map(|n| {
            record::event(
                n,
                Severity::Notice,
                1,
                record::agent("tick", &format!("{n:0200}")),
            )
        })
        .collect()
}

/// Every event in the spool, in order of its number; verifies the chain on the way.
fn stored(spool: &mut Spool) -> Vec<u64> {
    let mut head: Option<Head> = None;
    let mut numbers = Vec::new();
    for block in spool.read(Position::default(), usize::MAX, usize::MAX).unwrap() {
        let accepted = Head::accept(head.as_ref(), &block).unwrap();
        assert_eq!(accepted.missing, 0, "a gap before {}", block.sequence);
        head = Some(accepted.head);
        for event in read_body(&block.body).unwrap().events {
            match event.kind {
                Some(Kind::Agent(_)) => numbers.push(event.time_ms),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(head.unwrap_or(spool.head()), spool.head());
    numbers
}

/// What the killed process runs. Without its variable it is a small test of its own: append, close, find again.
#[test]
fn appended_events_are_found_again() {
    let Ok(folder) = std::env::var(CHILD) else {
        let folder = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(folder.path(), LIMITS, 1).unwrap();
        spool.append(events(0, 100), 1).unwrap();
        spool.close().unwrap();
        let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
        assert!(begun.is_none());
        assert_eq!(stored(&mut spool), (0..100).collect::<Vec<_>>());
        return;
    };
    let (mut spool, _) = Spool::open(Path::new(&folder), LIMITS, 1).unwrap();
    let mut next = stored(&mut spool).len() as u64;
    let mut out = std::io::stdout();
    loop {
        let count = 1 + next % 97;
        spool.append(events(next, count), next).unwrap();
        next += count;
        writeln!(out, "durable {next}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn nothing_that_was_said_to_be_durable_is_lost_by_kills_at_any_moment() {
    let kills = ProptestConfig::default().cases / 6;
    let mut folder = tempfile::tempdir().unwrap();
    let (mut acked, mut acked_before) = (0_u64, 0);
    for round in 0..kills {
        if round % SPOOL_KILLS == 0 {
            folder = tempfile::tempdir().unwrap();
            acked_before += std::mem::take(&mut acked);
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "appended_events_are_found_again", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (says, said) = std::sync::mpsc::sync_channel(1 << 12);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, number)) = line.split_once("durable ") {
                    says.send(number.parse::<u64>().unwrap()).unwrap();
                }
            }
        });
        let mut heard = Vec::new();
        // Some are killed while they open the spool, most while they write.
        if round % 5 != 0 {
            heard.push(said.recv_timeout(Duration::from_secs(60)).unwrap());
        }
        std::thread::sleep(Duration::from_millis(u64::from(round) * 7919 % 120));
        child.kill().unwrap();
        child.wait().unwrap();
        heard.extend(said);
        reader.join().unwrap();
        acked = acked.max(heard.last().copied().unwrap_or(0));

        let (mut spool, begun) = Spool::open(folder.path(), LIMITS, 1).unwrap();
        let numbers = stored(&mut spool);
        assert!(
            begun.is_none() || numbers.is_empty(),
            "round {round}: {begun:?} though {} are there",
            numbers.len()
        );
        assert!(
            numbers.len() as u64 >= acked,
            "round {round}: {} stored, {acked} were acknowledged",
            numbers.len()
        );
        assert!(
            numbers.iter().zip(0..).all(|(number, n)| *number == n),
            "round {round}"
        );
    }
    let acked = acked_before + acked;
    assert!(
        acked > u64::from(kills) * 20,
        "the child wrote only {acked} events, so the kills proved little"
    );
    println!("{kills} kills, {acked} events acknowledged, none lost");
}
