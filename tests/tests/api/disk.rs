//! Disks that are full, read-only, limited or damaged: what the coordinator's store says is what one does about it, and files that
//! are written whole stay so.

use std::path::Path;
use std::process::Command;

use penstock_agent::enforce::{Base, BaseError};
use penstock_coordinator::store::{DiskReserve, Expect, FaultCause, Store, StoreError};
use penstock_lab::sandbox;
use penstock_policy::ids::Digest;
use penstock_policy::terms::GatewayMode;
use penstock_proto::whole::{Writers, Writing};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// A signal's number on Linux: a file grew over the limit. By default it ends a process.
const SIGXFSZ: i32 = 25;

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

/// A file system of its own with 4 MiB.
fn small(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    mount(&["-t", "tmpfs", "-o", "size=4m", "small"], folder);
}

fn mount(arguments: &[&str], folder: &Path) {
    let status = Command::new("mount").args(arguments).arg(folder).status();
    assert!(status.unwrap().success(), "{arguments:?}");
}

/// This process has no file open under `path`: the last clone of a store closes it.
fn closed(path: &Path) {
    let mut open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let held = open.find(|entry| std::fs::read_link(entry.path()).is_ok_and(|held| held.starts_with(path)));
    assert!(held.is_none(), "{} stays open", path.display());
}

/// Writes until it does not go on; the number of records that were acknowledged, and the error.
async fn fill(store: &Store) -> (u64, StoreError) {
    for number in 0..1000 {
        let written = store
            .put_if(&format!("r/{number:04}"), Expect::Absent, vec![7; 50_000])
            .await;
        if let Err(error) = written {
            return (number, error);
        }
    }
    panic!("the disk never was full");
}

/// What was acknowledged is there, and the error says that it is.
async fn holds(store: &Store, acknowledged: u64, error: &StoreError) {
    assert_eq!(store.list("r/").await.unwrap().len() as u64, acknowledged);
    let told = error.to_string();
    assert!(told.contains("what was stored before is not affected"), "{told}");
    assert!(!told.contains("restore the newest"), "{told}");
}

#[test]
fn a_full_disk_is_told_as_full_and_written_on_when_there_is_room() {
    sandbox::test(
        "disk::a_full_disk_is_told_as_full_and_written_on_when_there_is_room",
        |_| {
            let folder = Path::new("/run/full");
            small(folder);
            std::fs::write(folder.join("filler"), vec![0; 1 << 20]).unwrap();
            run(async {
                let store = Store::open(&folder.join("s.db")).unwrap();
                let (acknowledged, error) = fill(&store).await;
                assert_eq!(error.cause(), Some(FaultCause::Full), "{error}");
                holds(&store, acknowledged, &error).await;
                std::fs::remove_file(folder.join("filler")).unwrap();
                store
                    .put_if("r/more", Expect::Absent, vec![7; 50_000])
                    .await
                    .unwrap();
            });
        },
    )
    .unwrap();
}

#[test]
fn a_limit_on_the_size_of_files_is_told_as_an_error_of_the_disk_and_never_as_damage() {
    sandbox::test(
        "disk::a_limit_on_the_size_of_files_is_told_as_an_error_of_the_disk_and_never_as_damage",
        |lab| {
            let path = lab.directory().join("s.db");
            run(async {
                let _handled = signal(SignalKind::from_raw(SIGXFSZ)).unwrap();
                let store = Store::open(&path).unwrap();
                let limit = |current| Rlimit {
                    current,
                    maximum: None,
                };
                setrlimit(Resource::Fsize, limit(Some(1 << 20))).unwrap();
                let (acknowledged, error) = fill(&store).await;
                setrlimit(Resource::Fsize, limit(None)).unwrap();
                assert_eq!(error.cause(), Some(FaultCause::Disk), "{error}");
                assert!(error.to_string().contains("do not restore a backup"), "{error}");
                holds(&store, acknowledged, &error).await;
                store
                    .put_if("r/more", Expect::Absent, vec![7; 50_000])
                    .await
                    .unwrap();
            });
        },
    )
    .unwrap();
}

#[test]
fn a_read_only_file_system_is_told_as_that_and_a_file_that_ends_too_early_as_damage() {
    sandbox::test(
        "disk::a_read_only_file_system_is_told_as_that_and_a_file_that_ends_too_early_as_damage",
        |_| {
            let folder = Path::new("/run/small");
            small(folder);
            let path = folder.join("s.db");
            let blob = vec![9; 500_000];
            let digest = Digest::of(&blob);
            let room = DiskReserve {
                reserve_bytes: 0,
                ..DiskReserve::default()
            };
            run(async {
                let store = Store::open_with(&path, room).unwrap();
                store.put_blobs(vec![blob]).await.unwrap();
            });
            closed(&path);
            mount(&["-o", "remount,ro"], folder);
            let error = Store::open(&path).unwrap_err();
            assert_eq!(error.cause(), Some(FaultCause::ReadOnly), "{error}");
            assert!(!error.to_string().contains("restore the newest"), "{error}");
            mount(&["-o", "remount,rw"], folder);

            let whole = std::fs::metadata(&path).unwrap().len();
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(whole / 2).unwrap();
            let error = run(async {
                match Store::open(&path) {
                    Ok(store) => store.blob(digest).await.unwrap_err(),
                    Err(error) => error,
                }
            });
            assert_eq!(error.cause(), Some(FaultCause::Damaged), "{error}");
            assert!(error.to_string().contains("restore the newest"), "{error}");
        },
    )
    .unwrap();
}

#[test]
fn a_file_that_a_full_or_read_only_disk_refuses_is_as_it_was_and_beside_it_is_no_draft() {
    sandbox::test(
        "disk::a_file_that_a_full_or_read_only_disk_refuses_is_as_it_was_and_beside_it_is_no_draft",
        |_| {
            let folder = Path::new("/run/files");
            small(folder);
            let path = folder.join("base.json");
            let old = Base {
                mode: GatewayMode::Routed,
                interfaces: ["eth0".to_owned()].into(),
                input: None,
            };
            old.write(&path).unwrap();
            let stands = |what: &str| {
                assert_eq!(Base::read(&path).unwrap().as_ref(), Some(&old), "{what}");
                let entries = std::fs::read_dir(folder).unwrap();
                let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
                assert_eq!(names, ["base.json"], "{what}");
            };
            let one = Writing::of_service(0o600);
            let many = Writing {
                writers: Writers::Many,
                ..one
            };
            for way in [one, many] {
                for over in [true, false] {
                    let content = vec![7; 5 << 20];
                    let refused = if over {
                        way.replace(&path, &content)
                    } else {
                        way.create(&folder.join("new"), &content)
                    };
                    let refused = refused.unwrap_err();
                    assert_eq!(
                        refused.source.kind(),
                        std::io::ErrorKind::StorageFull,
                        "{refused}"
                    );
                    stands("full");
                }
            }
            mount(&["-o", "remount,ro"], folder);
            let new = Base {
                interfaces: ["eth1".to_owned()].into(),
                ..old.clone()
            };
            let refused = new.write(&path).unwrap_err();
            assert!(matches!(refused, BaseError::File { .. }), "{refused}");
            stands("read-only");
            mount(&["-o", "remount,rw"], folder);
            new.write(&path).unwrap();
            assert_eq!(Base::read(&path).unwrap(), Some(new));
        },
    )
    .unwrap();
}
