//! What strangers can make the inspector compute, and where.

use penstock_proto::tls::Credentials;

use super::tls::{Authority, Works};
use super::*;

/// Processor time of this process's threads whose name begins so.
fn processor_time(name: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let nanoseconds = tasks.filter_map(|task| {
        let task = task.unwrap().path();
        let is_meant = std::fs::read_to_string(task.join("comm")).ok()?.starts_with(name);
        let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
        let spent = text.split_whitespace().next()?.parse::<u64>().ok()?;
        is_meant.then_some(spent)
    });
    Duration::from_nanos(nanoseconds.sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_thread_that_carries_connections_computes_a_strangers_handshake() {
    let works = Works::new().await;
    let other = Authority::new();
    let (own, _) = other.issue("device/hmi");
    let namesakes = (0..10).map(|_| Authority::new().root());
    let chain = own.chain().iter().take(1).cloned().chain(namesakes).collect();
    let hostile = Credentials::new(chain, own.key().clone()).unwrap();
    let before = [processor_time("inspect-"), processor_time("handshakes")];
    for _ in 0..50 {
        // In TLS 1.3 the client may learn only later that it was refused.
        if let Ok(mut client) = works.dial(Some(hostile.clone())).await {
            let _ = tokio::io::AsyncReadExt::read_u8(&mut client).await;
        }
    }
    let after = [processor_time("inspect-"), processor_time("handshakes")];
    let [carrying, meeting] = [after[0] - before[0], after[1] - before[1]];
    assert!(
        carrying < meeting,
        "{carrying:?} in threads that carry, {meeting:?} where strangers are met"
    );
}
