//! The life of one agent process: its clock, and the step at which it dies.
//!
//! Whatever an agent does to the kernel or the disk goes through [`Life::at_a_seam`], before and after. There it takes its time,
//! and there it may end: the future that waits never goes on, and is dropped.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use super::chance::Chance;

#[derive(Debug)]
struct State {
    now: Duration,
    chance: Chance,
    /// Seams until it dies.
    dies_in: Option<u64>,
    dead: bool,
    /// When what waits goes on.
    waits_until: Option<Duration>,
    /// How long the longest thing takes, in milliseconds.
    slowness_ms: u64,
}

/// Shared by an agent's parts. A new one for each process.
#[derive(Debug, Clone)]
pub(crate) struct Life(Arc<Mutex<State>>);

impl Life {
    pub(crate) fn new(now: Duration, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            now,
            chance: Chance::new(seed),
            dies_in: None,
            dead: false,
            waits_until: None,
            slowness_ms: 300,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn set_now(&self, now: Duration) {
        let mut state = self.state();
        state.now = now;
        if state.waits_until.is_some_and(|until| until <= now) {
            state.waits_until = None;
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.state().now
    }

    /// It dies after so many seams.
    pub(crate) fn dies_in(&self, seams: u64) {
        self.state().dies_in = Some(seams);
    }

    /// It does not.
    pub(crate) fn spare(&self) {
        self.state().dies_in = None;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// When what waits goes on.
    pub(crate) fn waits_until(&self) -> Option<Duration> {
        self.state().waits_until
    }

    /// Counts a seam; whether it is the last.
    pub(crate) fn dies_here(&self) -> bool {
        let mut state = self.state();
        if let Some(left) = &mut state.dies_in {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => state.dead = true,
            }
        }
        state.dead
    }

    /// Whether something happens that does once in so many times.
    pub(crate) fn once_in(&self, times: u64) -> bool {
        self.state().chance.once_in(times)
    }

    /// Takes a while, or for ever.
    pub(crate) fn at_a_seam(&self) -> impl Future<Output = ()> + Send + use<> {
        let life = self.clone();
        let mut until = None;
        poll_fn(move |_| {
            if until.is_none() && life.dies_here() {
                return Poll::Pending;
            }
            let mut state = life.state();
            if state.dead {
                return Poll::Pending;
            }
            let until = *until.get_or_insert_with(|| {
                let slowness_ms = state.slowness_ms;
                state.now + Duration::from_millis(state.chance.below(slowness_ms))
            });
            if state.now >= until {
                return Poll::Ready(());
            }
            state.waits_until = Some(until);
            Poll::Pending
        })
    }
}
