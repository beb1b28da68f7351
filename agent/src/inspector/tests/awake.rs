//! What the threads do while nothing comes.

use std::time::Instant;

use super::*;

/// Processor time of the inspector's threads in this process, as the scheduler counts it (`/proc/PID/schedstat`).
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of_thread = |task: std::io::Result<std::fs::DirEntry>| {
        let read = |name: &str| std::fs::read_to_string(task.as_ref().unwrap().path().join(name)).ok();
        let is_ours = read("comm")?.starts_with("inspect-");
        let running = read("schedstat")?.split_whitespace().next()?.parse().ok()?;
        is_ours.then_some(Duration::from_nanos(running))
    };
    tasks.filter_map(of_thread).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_threads_sleep_once_a_quick_exchange_is_over_also_in_its_middle() {
    const SILENCE: Duration = Duration::from_millis(50);
    let world = World::reading().await;
    let (mut client, mut served) = world.pair();
    for is_answered in [true, false] {
        for _ in 0..500 {
            client.write_all(&READ).unwrap();
            assert_eq!(read_exactly(&mut served, READ.len()), READ);
            served.write_all(&ANSWER).unwrap();
            assert_eq!(read_exactly(&mut client, ANSWER.len()), ANSWER);
        }
        if !is_answered {
            client.write_all(&READ).unwrap();
        }
        assert_ne!(processor_time(), Duration::ZERO, "nothing is counted here");
        let begun = Instant::now();
        loop {
            let before = processor_time();
            std::thread::sleep(SILENCE);
            if processor_time() - before < SILENCE / 10 {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "the threads stay awake");
        }
    }
}
