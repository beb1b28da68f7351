//! The store under kill -9: a child process saves and prints what was saved, and is killed at random moments, again and again on the
//! same store. Then its database is taken away, cut off, overwritten and set back: what was saved is there all the same. What the
//! database alone would have kept is printed; [`crate::database`] says what came of that.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::prelude::ProptestConfig;

use super::Store;

const STORE_CHILD: &str = "PENSTOCK_STORE_KILL_CHILD";
const RECORD: &str = "policy";

/// A record of this number; every seventh is too large for the database's cache.
fn record_of(number: u64) -> Vec<u8> {
    let length = if number % 7 == 6 {
        300_000
    } else {
        40 + number * 997 % 40_000
    };
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(usize::try_from(length).unwrap(), (number % 251) as u8);
    bytes
}

/// The number of the record that a store in this folder finds; it is whole.
fn found(folder: &Path) -> Option<u64> {
    let record = Store::open(folder).load(RECORD)?;
    let number = u64::from_be_bytes(*record.first_chunk().unwrap());
    assert_eq!(record, record_of(number));
    Some(number)
}

/// What the killed process runs. Without its variable it is a small test of its own: save, close, find again.
#[test]
fn saved_records_are_found_again() {
    let Ok(folder) = std::env::var(STORE_CHILD) else {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..8 {
            Store::open(folder.path())
                .save(RECORD, &record_of(number))
                .unwrap();
            assert_eq!(found(folder.path()), Some(number));
        }
        return;
    };
    let folder = Path::new(&folder);
    let mut next = found(folder).map_or(0, |number| number + 1);
    let mut store = Store::open(folder);
    let mut out = std::io::stdout();
    loop {
        store.save(RECORD, &record_of(next)).unwrap();
        writeln!(out, "durable {next}").unwrap();
        out.flush().unwrap();
        next += 1;
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What may become of a database whose writes the disk did not all take, or lost.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    None,
    Gone,
    CutOff,
    Zeroed,
    SetBack,
}

/// Harms the database in this folder at a place that `dice` says.
fn harm(folder: &Path, harm: Harm, before: &Path, dice: u64) {
    let database = folder.join("store");
    let main = database.join("db");
    let bytes = std::fs::read(&main).unwrap();
    let at = usize::try_from(dice % (bytes.len() as u64 + 1)).unwrap();
    match harm {
        Harm::None => {}
        Harm::Gone => std::fs::remove_dir_all(&database).unwrap(),
        Harm::CutOff => std::fs::write(&main, &bytes[..at]).unwrap(),
        Harm::Zeroed => {
            let mut bytes = bytes;
            bytes
                .iter_mut()
                .skip(at / 4096 * 4096)
                .take(4096)
                .for_each(|byte| *byte = 0);
            std::fs::write(&main, bytes).unwrap();
        }
        Harm::SetBack => {
            std::fs::remove_dir_all(&database).unwrap();
            copy(before, &database);
        }
    }
}

#[test]
fn nothing_that_was_saved_is_lost_by_kills_at_any_moment_whatever_becomes_of_the_database() {
    const HARMS: [Harm; 5] = [Harm::None, Harm::Gone, Harm::CutOff, Harm::Zeroed, Harm::SetBack];
    let kills = ProptestConfig::default().cases / 21;
    let folder = tempfile::tempdir().unwrap();
    let mut before = tempfile::tempdir().unwrap();
    let mut acked = None;
    // How often the database alone had what was saved last, or anything.
    let mut alone = HARMS.map(|_| [0; 2]);
    let mut dice = u64::from(std::process::id());
    for round in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::killed::saved_records_are_found_again",
                "--nocapture",
            ])
            .env(STORE_CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let number = |line: String| line.split_once("durable ")?.1.parse::<u64>().ok();
        if round % 5 != 0 {
            acked = lines.by_ref().find_map(number).max(acked);
        }
        std::thread::sleep(Duration::from_millis(u64::from(round) * 7919 % 60));
        child.kill().unwrap();
        child.wait().unwrap();
        acked = lines.filter_map(number).last().max(acked);
        for (way, alone) in HARMS.into_iter().zip(&mut alone) {
            if !folder.path().join("store/db").exists()
                || (way == Harm::SetBack && !before.path().join("db").exists())
            {
                continue;
            }
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let left = tempfile::tempdir().unwrap();
            copy(folder.path(), left.path());
            harm(left.path(), way, before.path(), dice >> 33);
            let without_files = tempfile::tempdir().unwrap();
            copy(left.path(), without_files.path());
            assert!(
                found(left.path()) >= acked,
                "round {round}, {way:?}: {acked:?} was saved"
            );
            for files in ["copies", "second"] {
                let _ = std::fs::remove_dir_all(without_files.path().join(files));
            }
            // Of a large record the database holds nothing, and may not.
            if acked.is_some_and(|acked| acked % 7 < 5) {
                alone[1] += 1;
                alone[0] += u32::from(found(without_files.path()) >= acked);
            }
        }
        if folder.path().join("store").exists() {
            before = tempfile::tempdir().unwrap();
            copy(&folder.path().join("store"), before.path());
        }
    }
    assert!(
        acked > Some(u64::from(kills)),
        "the child saved too little: {acked:?}"
    );
    println!("{kills} kills, record {acked:?} was saved last, none was lost; of the database alone:");
    for (way, [kept, of]) in HARMS.into_iter().zip(alone) {
        println!("  {way:?}: it had what was saved last in {kept} of {of}");
    }
}
