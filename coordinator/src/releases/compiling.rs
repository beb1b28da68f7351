//! The one place where documents are compiled: one at a time, off the threads that serve, and what it took of the heap is
//! given back. Ten engineers who propose at once cost the memory of one, also when they do not wait for the answer: a turn
//! lasts until the work is done. [`WAITING_MAX`] wait for theirs, more are refused.

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::refusal::{Reason, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many may wait for their turn.
const WAITING_MAX: usize = 8;

/// Who compiles next.
#[derive(Debug, Clone)]
pub(super) struct Compiling {
    turn: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// The turn of one who compiles. Dropped after what was compiled, it gives the heap back.
#[derive(Debug)]
pub(super) struct Turn(Arc<CompilePermit>);

#[derive(Debug)]
struct CompilePermit {
    _permit: OwnedSemaphorePermit,
}

impl Default for Compiling {
    fn default() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }
}

impl Compiling {
    /// Waits for the turn.
    pub(super) async fn turn(&self) -> Result<Turn, Refusal> {
        let _waiting = self.waiting.try_acquire().map_err(|_| {
            Refusal::new(
                Reason::TooManyProposals,
                format!("{WAITING_MAX} documents wait to be compiled; try again in a minute"),
            )
            .retry_after(Duration::from_secs(60))
        })?;
        let permit = self.turn.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Refusal::new(Reason::Stopping, "the coordinator is stopping"))?;
        Ok(Turn(Arc::new(CompilePermit { _permit: permit })))
    }
}

impl Turn {
    /// Does the work on a thread of its own.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        // Who waits may go; the work goes on, and so does the turn.
        let held = Arc::clone(&self.0);
        let work = move || {
            let done = work();
            drop(held);
            done
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Refusal::new(Reason::Internal, "compiling the documents failed"))?
    }
}

impl Drop for CompilePermit {
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(give_back);
        }
    }
}

/// Gives free memory of all heaps back to the system: the allocator keeps what a large plant took for threads that
/// compile seldom.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn give_back() {
    // SAFETY: it takes a number and touches nothing but the allocator's own state, under the allocator's locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_turn_lasts_until_the_work_is_done_and_more_than_a_few_do_not_wait() {
        let compiling = Compiling::default();
        let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let (begun, begins) = tokio::sync::oneshot::channel();
        let turn = compiling.turn().await.unwrap();
        let work = move || {
            begun.send(()).unwrap();
            Ok(wait.recv().is_ok())
        };
        let impatient = tokio::spawn(async move { turn.work(work).await });
        begins.await.unwrap();
        // The call was given up, and its work goes on.
        impatient.abort();
        assert!(impatient.await.is_err());
        let next = || {
            let compiling = compiling.clone();
            tokio::spawn(async move { compiling.turn().await.map(drop) })
        };
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| next()).collect();
        while compiling.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(compiling.turn.available_permits(), 0);
        let refused = next().await.unwrap().unwrap_err();
        assert_eq!(refused.reason, Reason::TooManyProposals);
        go.send(()).unwrap();
        for waiting in waiting {
            waiting.await.unwrap().unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_many_who_compile_at_once_one_does_and_all_come_to_their_turn() {
        let (compiling, now, most) = (Compiling::default(), Arc::default(), Arc::default());
        let tasks: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let (compiling, now): (_, Arc<AtomicUsize>) = (compiling.clone(), Arc::clone(&now));
                let most: Arc<AtomicUsize> = Arc::clone(&most);
                tokio::spawn(async move {
                    let turn = compiling.turn().await.unwrap();
                    let work = move || {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    };
                    turn.work(work).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }
}
