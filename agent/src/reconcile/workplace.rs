//! Where the reconciler has done what may take long: work on the records, and computing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::{Records, Store};

/// The store, shared by those who keep something in it. Locked only on blocking threads.
pub type SharedStore = Arc<Mutex<Store>>;

/// What comes of work that was handed over; `None`: it panicked.
pub type Handed<T> = Pin<Box<dyn Future<Output = Option<T>> + Send>>;

/// What the reconciler has done for it because it may take long: work on the records, and computing.
pub trait Workplace: Send + Sync + 'static {
    /// Does `work` on the records.
    fn on_records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Records) -> T + Send + 'static,
    ) -> Handed<T>;

    /// Computes `work`.
    fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Handed<T>;
}

/// The agent's own: blocking threads, and the store on the disk.
impl Workplace for SharedStore {
    fn on_records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Records) -> T + Send + 'static,
    ) -> Handed<T> {
        let store = self.clone();
        self.compute(move || work(&mut *store.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Handed<T> {
        let done = tokio::task::spawn_blocking(work);
        Box::pin(async { done.await.ok() })
    }
}
