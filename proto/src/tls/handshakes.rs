//! Where strangers are met: threads of their own compute the handshakes, so that none of it delays those who carry or
//! serve, whatever the peer shows.
//!
//! Handshakes under way are bounded in number, shared by source ([`Crowd`]), and bounded in time; what one takes of memory
//! is bounded by [`super::socket::HANDSHAKE_BYTES_MAX`], what one computes by the profile's verifiers. They take turns:
//! each computes a step of a bounded length, in the order in which its peer's bytes came.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::crowd::{Crowd, source_of};

/// A place is not lost among equals before a tenth of the time that a handshake may take.
const GRACE_PART: u32 = 10;

/// Why somebody was not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// Its source holds as many places as any, and all are taken.
    #[error(
        "the limit of {0} TLS handshakes at a time is reached, and no other source has more of them than this one"
    )]
    Full(usize),
    /// Others came, and its source held the most.
    #[error(
        "its TLS handshake made room for another source: the limit of {0} at a time was reached, and this source had most of them"
    )]
    PushedOut(usize),
    /// It took too long.
    #[error("it did not finish its TLS handshake within {0:?}")]
    Late(Duration),
    /// The threads are gone.
    #[error("no more TLS handshakes are accepted: the program is stopping, or one of its threads failed")]
    Stopped,
}

/// The threads, and the places.
#[derive(Debug)]
pub struct Handshakes {
    /// Taken only when dropped.
    runtime: Option<Runtime>,
    crowd: Arc<Crowd<IpAddr>>,
    at_once_max: usize,
    time_max: Duration,
}

impl Handshakes {
    /// On `threads` threads, with at most `at_once_max` under way and `time_max` for each.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn start(threads: usize, at_once_max: usize, time_max: Duration) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .max_blocking_threads(1)
            .thread_name("handshakes")
            .enable_io()
            .enable_time()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
            crowd: Crowd::new(at_once_max, at_once_max, time_max / GRACE_PART),
            at_once_max,
            time_max,
        })
    }

    /// Has `work` done, the handshake with a peer at `source`. Dropping this drops it.
    ///
    /// # Errors
    /// Why it did not come to an end.
    pub async fn meet<T: Send + 'static>(
        &self,
        source: IpAddr,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Unmet> {
        let runtime = self.runtime.as_ref().ok_or(Unmet::Stopped)?;
        let mut place = self
            .crowd
            .enter(source_of(source), Instant::now())
            .ok_or(Unmet::Full(self.at_once_max))?;
        let (pushed_out, time_max) = (Unmet::PushedOut(self.at_once_max), self.time_max);
        let mut task = JoinSet::new();
        task.spawn_on(
            async move {
                tokio::select! {
                    done = tokio::time::timeout(time_max, work) => done.map_err(|_| Unmet::Late(time_max)),
                    () = std::future::poll_fn(|cx| place.poll_lost(cx)) => Err(pushed_out),
                }
            },
            runtime.handle(),
        );
        match task.join_next().await {
            Some(Ok(done)) => done,
            _ => Err(Unmet::Stopped),
        }
    }

    /// How many are under way.
    pub fn under_way(&self) -> usize {
        self.crowd.taken()
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        // Waiting for the threads is not allowed inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
