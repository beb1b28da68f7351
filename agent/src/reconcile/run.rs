//! The shell of the reconciler: waits for offers, drift, time and a person's nudge, and does on blocking threads
//! what may wait for the disk. It decides nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_proto::v1::PolicyOffer;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Occasion, Reconciler};
use crate::kernel::Kernel;
use crate::policy_store::journal::Order;
use crate::store::{Records, Store};

/// How often desired and effective are compared when nothing happens.
pub const TICK: Duration = Duration::from_secs(10);

/// The store, shared by those who keep something in it. Locked only on blocking threads.
pub type SharedStore = Arc<Mutex<Store>>;

/// The newest offer; an older one that was not yet looked at is overtaken.
pub type OfferSlot = watch::Sender<Option<Arc<PolicyOffer>>>;

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

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// Runs until `stop` is cancelled; `nudge` asks for a look now. The kernel keeps what it has.
    pub async fn run(
        mut self,
        (slot, mut offers): (OfferSlot, watch::Receiver<Option<Arc<PolicyOffer>>>),
        nudge: Arc<Notify>,
        stop: CancellationToken,
    ) {
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drift = self.kernel.drift();
        // Also what happened since the policy took effect at the start.
        drift.mark_changed();
        let mut drift_open = true;
        loop {
            let due = self.due();
            let occasion = tokio::select! {
                () = stop.cancelled() => return,
                changed = offers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Some(offered) = offers.borrow_and_update().clone() else { continue };
                    Occasion::Offer(offered, Order::default())
                }
                changed = drift.changed(), if drift_open => {
                    drift_open = changed.is_ok();
                    let Some(step) = *drift.borrow_and_update() else { continue };
                    Occasion::Drift(step)
                }
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => Occasion::Due,
                () = nudge.notified() => Occasion::Nudge,
                _ = tick.tick() => Occasion::Tick,
            };
            let offered = match &occasion {
                Occasion::Offer(offered, _) => Some(Arc::clone(offered)),
                _ => None,
            };
            self.step(occasion).await;
            if let Some(offered) = offered {
                // It is as large as its plan, and was read; a newer one may have come meanwhile.
                slot.send_if_modified(|held| {
                    drop(held.take_if(|held| Arc::ptr_eq(held, &offered)));
                    false
                });
                drop(offered);
                let _ = self.workplace.compute(crate::allocator::give_back).await;
            }
        }
    }
}
