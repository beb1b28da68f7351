//! The one place where documents are compiled: one at a time, off the threads that serve, and what it took of the heap is
//! given back. Ten engineers who propose at once cost the memory of one.

use std::sync::Arc;

use penstock_proto::refusal::{Reason, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who compiles next.
#[derive(Debug, Clone)]
pub(super) struct Compiling(Arc<Semaphore>);

/// The turn of one who compiles. Dropped after what was compiled, it gives the heap back.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Default for Compiling {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Compiling {
    /// Waits for the turn.
    pub(super) async fn turn(&self) -> Result<Turn, Refusal> {
        let permit = self.0.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Refusal::new(Reason::Stopping, "the coordinator is stopping"))?;
        Ok(Turn { _permit: permit })
    }
}

impl Turn {
    /// Does the work on a thread of its own.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Refusal::new(Reason::Internal, "compiling the documents failed"))?
    }
}

impl Drop for Turn {
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_many_who_compile_at_once_one_does_and_all_come_to_their_turn() {
        let (compiling, now, most) = (Compiling::default(), Arc::default(), Arc::default());
        let tasks: Vec<_> = (0..20)
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
