//! The sign of life to the service manager's watchdog: given for as long as connections are carried, and no longer.
//!
//! It comes from a thread of its own, which waits for no disk and no runtime. A process that is stopped, or whose inspector
//! hangs, holds up connections: it gives no sign, and is restarted. A runtime that waits for a stalled disk holds up none, so it
//! has longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::service_manager::ServiceManager;

/// How long the runtime may do nothing.
const RUNTIME_MAX: Duration = Duration::from_secs(120);
/// How often the runtime says that it works.
pub const RUNTIME_BEAT: Duration = Duration::from_secs(1);

/// The thread that gives signs of life. Dropping it ends them.
#[derive(Debug)]
pub struct Watchdog {
    _stop: SyncSender<()>,
    runtime: Arc<Beat>,
}

/// When the runtime last said that it works.
#[derive(Debug)]
struct Beat {
    began: Instant,
    at_ms: AtomicU64,
}

impl Beat {
    fn age(&self) -> Duration {
        let at = Duration::from_millis(self.at_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(at)
    }
}

impl Watchdog {
    /// Starts, if the manager wants signs of life (`allowed` is how long it waits for one); `carries` says whether connections
    /// are carried.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        manager: ServiceManager,
        allowed: Duration,
        carries: impl Fn() -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(1);
        let runtime = Arc::new(Beat {
            began: Instant::now(),
            at_ms: AtomicU64::new(0),
        });
        let beat = Arc::clone(&runtime);
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                loop {
                    if is_alive(carries(), beat.age()) {
                        manager.tell("WATCHDOG=1");
                    }
                    // Four times: one that comes late leaves it in time.
                    if stopped.recv_timeout(allowed / 4) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })?;
        Ok(Self { _stop: stop, runtime })
    }

    /// The runtime works.
    pub fn beat(&self) {
        let now = self.runtime.began.elapsed();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.runtime.at_ms.store(now_ms, Ordering::Relaxed);
    }
}

/// Whether a sign of life is due.
fn is_alive(carries: bool, runtime: Duration) -> bool {
    carries && runtime <= RUNTIME_MAX
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn an_inspector_that_hangs_gives_no_sign_of_life_and_a_runtime_that_waits_for_a_disk_gives_one() {
        assert!(is_alive(true, Duration::from_secs(60)));
        assert!(!is_alive(true, Duration::from_secs(121)));
        assert!(!is_alive(false, Duration::ZERO));
    }

    #[test]
    fn signs_come_while_connections_are_carried_and_end_when_they_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::at(path.to_str().unwrap()).unwrap();
        let carries = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&carries);
        let allowed = Duration::from_millis(40);
        let watchdog = Watchdog::start(manager, allowed, move || asked.load(Ordering::Relaxed)).unwrap();
        watchdog.beat();
        let mut bytes = [0; 64];
        for _ in 0..3 {
            let length = heard.recv(&mut bytes).unwrap();
            assert_eq!(bytes.get(..length).unwrap(), b"WATCHDOG=1");
        }
        carries.store(false, Ordering::Relaxed);
        heard.set_nonblocking(true).unwrap();
        // What was under way arrives; then there is silence.
        let begun = Instant::now();
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(400) {
            assert!(begun.elapsed() < Duration::from_secs(30), "signs go on");
            if heard.recv(&mut bytes).is_ok() {
                quiet = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
