//! A whole spool as agents of today leave it: it is read for ever, and what is written today is the same, byte for byte.

use std::fmt::Write as _;

use super::*;

/// As it is written today, and as agents from before accounts were written as changes left it.
const FIXTURE: &str = "trail-spool-2.txt";
const EARLIER: &str = "trail-spool-1.txt";

/// Events of each severity in three commits, some of them acknowledged, and a loss that waits to be reported.
fn write(folder: &Path) {
    let (mut spool, _) = Spool::open(folder, LIMITS, 1).unwrap();
    for commit in 0..3 {
        let events = (1..=4).map(|severity| event(severity, TIME_MS + commit * 10 + severity as u64, 20));
        spool.append(events.collect(), TIME_MS + commit * 10).unwrap();
    }
    spool.acknowledge(Position {
        epoch: 1,
        sequence: 5,
    });
    spool.count_lost(super::super::layout::Cause::QueueFull, 7, TIME_MS, TIME_MS + 1);
    spool.close().unwrap();
}

const TIME_MS: u64 = 1_790_000_000_000;

/// The files below a folder: name, and what they hold in hex, a line each.
fn in_text(folder: &Path) -> String {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path);
            }
        }
    }
    names.sort();
    let mut text = String::new();
    for path in names {
        let name = path.strip_prefix(folder).unwrap().display();
        writeln!(text, "{name} {}", hex::encode(std::fs::read(&path).unwrap())).unwrap();
    }
    text
}

#[test]
fn a_spool_of_each_format_is_read_for_ever_and_the_newest_written_the_same_today() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let path = fixtures.join(FIXTURE);
    let today = folder();
    write(today.path());
    let written = in_text(today.path());
    if !path.exists() && std::env::var_os("PENSTOCK_FIXTURES").is_some_and(|how| how == "write") {
        std::fs::write(&path, &written).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(kept, written, "{FIXTURE} is not what is written today");
    is_read(&kept);
    is_read(&std::fs::read_to_string(fixtures.join(EARLIER)).unwrap());
}

fn is_read(kept: &str) {
    let from = folder();
    for line in kept.lines() {
        let (name, bytes) = line.split_once(' ').unwrap();
        let path = from.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, hex::decode(bytes).unwrap()).unwrap();
    }
    let (mut spool, begun) = Spool::open(from.path(), LIMITS, 1).unwrap();
    assert_eq!(begun, None);
    assert_eq!(
        spool.next(),
        Position {
            epoch: 1,
            sequence: 12
        }
    );
    assert_eq!(spool.state().lost_events, 7);
    let blocks = all(&mut spool);
    let times = blocks
        .iter()
        .flat_map(|block| read_body(&block.body).unwrap().events);
    let times: Vec<_> = times
        .map(|event| (event.severity, event.time_ms - TIME_MS))
        .collect();
    let expected = (0..3).flat_map(|commit| (1..=4).rev().map(move |one| (one, commit * 10 + one as u64)));
    assert_eq!(times, expected.collect::<Vec<_>>());
    // It goes on, and reports what was owed.
    spool.append(vec![event(1, 1, 1)], TIME_MS + 10_000).unwrap();
    let (missing, events, told, _) = verify(&all(&mut spool));
    assert_eq!((missing, events, told), (0, 13, 7));
}
