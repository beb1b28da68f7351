//! A log that is made shorter, on a real NATS server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::super::tests::OnServer;
use crate::store::conformance::chain;
use crate::store::sqlite::replica::tests::{NO_RESERVE, held};
use crate::store::state::{Change, Expect};
use crate::store::{Silent, Store, StoreError};

#[test]
fn a_log_that_was_made_shorter_leads_newcomers_and_whoever_was_away_to_the_same_store() {
    let copies = OnServer::default();
    let path = |name: &str| copies.folder.path().join(format!("{name}.db"));
    let open = |name: &str| {
        let path = path(name);
        let opened = Store::open_replicated(&path, NO_RESERVE, name, copies.settings());
        copies.on_runtime(opened).unwrap()
    };
    let write = |store: &Store| {
        for number in 0..20_u8 {
            let key = format!("record/{}", number % 3);
            let put = async {
                let held = store.get(&key).await.unwrap();
                let expect = held.map_or(Expect::Absent, |held| Expect::Revision(held.revision));
                let change = Change::silent(Silent::Observed)
                    .json(&key, expect, &"x".repeat(100_000 + usize::from(number)))
                    .unwrap();
                store.apply(change).await.unwrap();
            };
            copies.on_runtime(put);
        }
    };
    let begins = || {
        let state = async {
            let settings = copies.settings();
            let (_, context) = settings.context().await.unwrap();
            settings
                .stream(&context)
                .await
                .unwrap()
                .cached_info()
                .state
                .first_sequence
        };
        copies.on_runtime(state)
    };
    let compact = |store: &Store| copies.on_runtime(store.compact(0)).unwrap();
    let (first, away) = (open("c1"), open("away"));
    write(&away);
    copies
        .on_runtime(away.append("gw", chain(1, &[vec![1; 50]])))
        .unwrap();
    drop(away);
    write(&first);
    assert!(compact(&first), "the log is longer than the copy");
    assert!(!compact(&first), "and now it is short");
    assert_eq!(begins(), 1, "whoever was away for less goes on from where it is");
    write(&first);
    assert!(compact(&first));
    let since = begins();
    assert!(since > 1);
    let (away, fresh) = (open("away"), open("fresh"));
    write(&away);
    // Two at once do not spoil what is there.
    write(&first);
    let one = copies.on_runtime(async { tokio::join!(first.compact(0), away.compact(0)) });
    assert!(matches!(one, (Ok(true), _) | (_, Ok(true))), "{one:?}");
    assert!(begins() > since);
    let newest = open("newest");
    drop((first, away, fresh, newest));
    let replaced = std::fs::read_dir(copies.folder.path()).unwrap();
    let names = replaced.map(|file| file.unwrap().file_name().into_string().unwrap());
    let others: Vec<_> = names.filter(|name| !name.contains(".db")).collect();
    assert!(
        others.len() == 1 && others[0].starts_with("away.replaced-"),
        "no copies are left beside: {others:?}"
    );
    // On the stream of another store nothing is replaced, and nothing is taken.
    let other = OnServer::default();
    let elsewhere = |name: &str| {
        let path = path(name);
        let opened = Store::open_replicated(&path, NO_RESERVE, name, other.settings());
        other.on_runtime(opened)
    };
    let theirs = elsewhere("theirs").unwrap();
    other
        .on_runtime(theirs.append("gw", chain(1, &[vec![9; 50]])))
        .unwrap();
    for _ in 0..3 {
        write(&theirs);
        other.on_runtime(theirs.compact(0)).unwrap();
    }
    let whole = held(&path("c1"));
    let refused = elsewhere("c1").unwrap_err();
    assert!(matches!(refused, StoreError::LogLost { .. }), "{refused:?}");
    assert_eq!(held(&path("c1")), whole);
    drop(theirs);
    // Each has what was written when it was opened.
    drop(["c1", "away", "fresh", "newest"].map(open));
    let whole = held(&path("c1"));
    for name in ["away", "fresh", "newest"] {
        assert_eq!(held(&path(name)), whole, "{name}");
    }
}

#[test]
fn of_a_log_that_was_made_again_nothing_is_taken_out_for_the_sake_of_the_one_before() {
    let copies = OnServer::default();
    let settings = copies.settings();
    let open = |name: &str| {
        let path = copies.folder.path().join(format!("{name}.db"));
        let opened = Store::open_replicated(&path, NO_RESERVE, name, copies.settings());
        copies.on_runtime(opened).unwrap()
    };
    let write = |store: &Store, times: u64| {
        for number in 0..times {
            let put = async {
                let held = store.get("record").await.unwrap();
                let expect = held.map_or(Expect::Absent, |held| Expect::Revision(held.revision));
                let value = "x".repeat(100_000 + usize::try_from(number).unwrap());
                let change = Change::silent(Silent::Observed).json("record", expect, &value);
                store.apply(change.unwrap()).await.unwrap();
            };
            copies.on_runtime(put);
        }
    };
    let old = open("old");
    for _ in 0..2 {
        write(&old, 20);
        assert!(copies.on_runtime(old.compact(0)).unwrap());
    }
    drop(old);
    let made_again = async {
        let (_, context) = settings.context().await.unwrap();
        context.delete_stream(&settings.stream).await.unwrap();
    };
    copies.on_runtime(made_again);
    let new = open("new");
    // Further than the base of the log before.
    write(&new, 60);
    for first in [1, 61] {
        assert!(copies.on_runtime(new.compact(0)).unwrap());
        let begins = async {
            let (_, context) = settings.context().await.unwrap();
            let stream = settings.stream(&context).await.unwrap();
            stream.cached_info().state.first_sequence
        };
        assert_eq!(copies.on_runtime(begins), first);
        write(&new, 20);
    }
    drop(new);
    let fresh = open("fresh");
    let newest = copies.on_runtime(fresh.get("record")).unwrap().unwrap().value;
    assert_eq!(newest.len(), "x".repeat(100_019).len() + 2);
}
