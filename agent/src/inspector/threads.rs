//! The inspector's threads: how each is started, and restarted when it failed.
//!
//! A thread that ends takes its connections with it. The failure is counted, logged and shown in health; the next one
//! starts after [`RESTART_PAUSE`], with the same listeners and the policy in force.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::InspectorState;
use super::worker::{self, Command, Regime};

/// Commands that may wait for a thread.
const COMMANDS_MAX: usize = 4;
/// Pause before a thread that failed is restarted.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// A running thread.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) applied: watch::Receiver<u64>,
    pub(super) commands: mpsc::Sender<Command>,
}

/// Everything that a thread starts with.
#[derive(Debug)]
pub(super) struct Starter {
    pub(super) shared: Arc<InspectorState>,
    pub(super) listeners: Arc<Vec<TcpListener>>,
    pub(super) regime: watch::Sender<Regime>,
    /// Where a thread says by its number that it ended.
    pub(super) ended: mpsc::Sender<usize>,
}

/// Says which thread ended, however it did.
struct Farewell(usize, mpsc::Sender<usize>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody waits for it when the inspector is gone. The queue has room for all threads.
        let _ = self.1.try_send(self.0);
    }
}

impl Starter {
    /// Starts thread `number`.
    pub(super) fn begin(&self, number: usize) -> io::Result<Thread> {
        let listeners = self
            .listeners
            .iter()
            .map(TcpListener::try_clone)
            .collect::<io::Result<_>>()?;
        let (applied_in, applied) = watch::channel(0);
        let (shared, regime) = (Arc::clone(&self.shared), self.regime.subscribe());
        let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
        let farewell = Farewell(number, self.ended.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        std::thread::Builder::new()
            .name(format!("inspect-{number}"))
            .spawn(move || {
                let _farewell = farewell;
                let local = tokio::task::LocalSet::new();
                // A task of its own, for what is waited for here is looked at with every packet.
                let work = local.spawn_local(worker::run(
                    number, shared, regime, listeners, applied_in, commands,
                ));
                match local.block_on(&runtime, work) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(%error, "internal error in a thread of the inspector"),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            })?;
        Ok(Thread {
            applied,
            commands: commands_in,
        })
    }
}

/// Restarts threads that failed, for as long as the inspector lives.
pub(super) async fn keep(
    starter: Starter,
    threads: Arc<Mutex<Vec<Thread>>>,
    mut ended: mpsc::Receiver<usize>,
) {
    while let Some(number) = ended.recv().await {
        let gone = || threads.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if gone() {
            return;
        }
        starter.shared.failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            number,
            "a thread of the inspector failed, and its connections were reset; it is restarted"
        );
        loop {
            tokio::time::sleep(RESTART_PAUSE).await;
            match starter.begin(number) {
                Ok(thread) => {
                    // Without a place, the inspector is gone, and the thread ends with its commands.
                    let mut threads = threads.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(old) = threads.get_mut(number) {
                        *old = thread;
                    }
                    break;
                }
                Err(error) => tracing::error!(%error, "a thread of the inspector cannot be started"),
            }
        }
    }
}
