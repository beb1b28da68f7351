//! Holds the spool at arm's length: whatever the database below does — fail, report corruption, panic — ends here.
//!
//! Every use runs on a blocking thread under a catch; after an engine's failure the spool is dropped and reopened,
//! at growing intervals. A database that cannot be opened though its files can be read, and others be written beside them, is
//! set aside as `spool.damaged` (one copy, replaced by the next) and a new one begun, which says so in the trail. A disk that is
//! full, read-only or reports errors is waited for: what is there may be whole.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use penstock_policy::text;
use penstock_proto::backoff::Backoff;

use super::opening::EpochReason;
use super::spool::{Spool, SpoolError, SpoolLimits};
use crate::jitter::random;
use crate::{database, durable};

/// Code of the fault, and step of the event, that the coordinator's trail cannot be followed.
pub(super) const TRAIL_AHEAD: &str = "trail-ahead";

const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Failures of the engine to open, other than corruption, before the database is set aside.
const OPEN_FAILURES_MAX: u32 = 5;

/// Why an operation did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Stable code of the fault: `spool-disk-full`, `trail-ahead` or `spool-failed`.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
}

/// The spool, or when to try to open it again.
pub(super) struct Engine {
    folder: PathBuf,
    limits: SpoolLimits,
    spool: Option<Spool>,
    retry_at: Option<Instant>,
    failures: Backoff,
    /// Those of them that were the database's own.
    engine_failures: u32,
    last_failure: Option<Failure>,
    /// Set aside since the last time it was told.
    set_aside: Option<String>,
}

impl Engine {
    pub(super) fn new(folder: PathBuf, limits: SpoolLimits) -> Self {
        Self {
            folder,
            limits,
            spool: None,
            retry_at: None,
            failures: Backoff::between(RETRY_MIN, RETRY_MAX),
            engine_failures: 0,
            last_failure: None,
            set_aside: None,
        }
    }

    /// Why the spool is out of order, if it is.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    /// Opens the spool if it is not open and its time has come; returns what there is to say in the trail.
    pub(super) async fn open(&mut self, now: Instant) -> Option<EpochReason> {
        if self.spool.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        let (folder, limits) = (self.folder.clone(), self.limits);
        let opened = contained(move || {
            let _ = durable::create_folder(&folder);
            Spool::open(&folder, limits, 1)
        })
        .await;
        let (failure, engine_failed, damaged) = match opened {
            Ok(Ok((spool, begun))) => {
                self.spool = Some(spool);
                self.failures.worked();
                self.engine_failures = 0;
                self.retry_at = None;
                self.last_failure = None;
                return match (self.set_aside.take(), begun) {
                    (Some(why), Some(EpochReason::Lost(what))) => {
                        Some(EpochReason::Lost(format!("{what} ({why})")))
                    }
                    (Some(why), _) => Some(EpochReason::Lost(why)),
                    (None, begun) => begun,
                };
            }
            Ok(Err(error)) => {
                let engine_failed = matches!(&error, SpoolError::Engine(_));
                let damaged = matches!(&error, SpoolError::Engine(error) if database::is_damage(error));
                (describe(&error), engine_failed, damaged)
            }
            Err(panic) => (panic, true, true),
        };
        self.fail(failure, now);
        self.engine_failures = self.engine_failures.saturating_add(u32::from(engine_failed));
        if damaged || (engine_failed && self.engine_failures >= OPEN_FAILURES_MAX) {
            self.put_aside(now).await;
        }
        None
    }

    /// Runs `operation` on the open spool.
    pub(super) async fn with<T: Send + 'static>(
        &mut self,
        operation: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, Failure> {
        let Some(mut spool) = self.spool.take() else {
            return Err(self.last_failure.clone().unwrap_or_else(|| Failure {
                code: "spool-failed",
                message: "the audit spool is not open yet".to_owned(),
            }));
        };
        let done = contained(
            move || match catch_unwind(AssertUnwindSafe(|| operation(&mut spool))) {
                Ok(result) => {
                    let broken = matches!(result, Err(SpoolError::Engine(_)));
                    if broken {
                        drop(spool);
                        (result.map_err(|error| describe(&error)), None)
                    } else {
                        (result.map_err(|error| describe(&error)), Some(spool))
                    }
                }
                Err(_) => {
                    // Dropped only now, outside of the unwinding: its own panic must not become an abort.
                    let _ = catch_unwind(AssertUnwindSafe(move || drop(spool)));
                    (Err(panicked()), None)
                }
            },
        )
        .await;
        let (result, spool) = done.unwrap_or_else(|panic| (Err(panic), None));
        self.spool = spool;
        match &result {
            Ok(_) => self.last_failure = None,
            Err(failure) if self.spool.is_none() => self.fail(failure.clone(), Instant::now()),
            Err(failure) => self.last_failure = Some(failure.clone()),
        }
        result
    }

    /// Whether the spool is open.
    pub(super) fn is_open(&self) -> bool {
        self.spool.is_some()
    }

    /// Looks at the open spool without changing it.
    pub(super) async fn look<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&Spool) -> T + Send + 'static,
    ) -> Option<T> {
        let spool = self.spool.take()?;
        let looked = contained(move || {
            let seen = look(&spool);
            (seen, spool)
        })
        .await;
        match looked {
            Ok((seen, spool)) => {
                self.spool = Some(spool);
                Some(seen)
            }
            Err(panic) => {
                self.fail(panic, Instant::now());
                None
            }
        }
    }

    /// Closes the spool in good order.
    pub(super) async fn close(&mut self) {
        if let Some(spool) = self.spool.take()
            && let Ok(Err(error)) = contained(move || spool.close()).await
        {
            tracing::warn!(error = %describe(&error).message, "the audit spool was not closed cleanly");
        }
    }

    fn fail(&mut self, failure: Failure, now: Instant) {
        tracing::warn!(code = failure.code, "{}", failure.message);
        self.retry_at = Some(now + self.failures.failed(random()));
        self.last_failure = Some(failure);
    }

    async fn put_aside(&mut self, now: Instant) {
        let folder = self.folder.clone();
        let needed = self.limits.free_bytes_min;
        let moved = contained(move || {
            let free = rustix::fs::statvfs(&folder)?;
            if free.f_bavail.saturating_mul(free.f_frsize) < needed {
                // A full disk explains the failure; what is there may be whole.
                return Ok(false);
            }
            if let Some(why) = database::obstacle(&folder.join("spool")) {
                tracing::warn!("the audit spool cannot be opened, and is not set aside: {why}");
                return Ok(false);
            }
            let aside = folder.join("spool.damaged");
            if aside.exists() {
                std::fs::remove_dir_all(&aside)?;
            }
            std::fs::rename(folder.join("spool"), &aside)?;
            Ok::<_, std::io::Error>(true)
        })
        .await;
        match moved {
            Ok(Ok(true)) => {
                let why = self
                    .last_failure
                    .as_ref()
                    .map_or_else(String::new, |f| f.message.clone());
                self.set_aside = Some(format!("the old database was set aside as spool.damaged: {why}"));
                self.retry_at = Some(now);
                self.failures.worked();
                self.engine_failures = 0;
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the damaged audit spool could not be set aside"),
            Err(panic) => tracing::warn!("{}", panic.message),
        }
    }
}

fn describe(error: &SpoolError) -> Failure {
    let mut message = text::sentence(error);
    if let SpoolError::Engine(sled::Error::Io(cause)) = error
        && !durable::remedy(cause).is_empty()
    {
        message = format!("{message}; {}", durable::remedy(cause));
    }
    Failure {
        code: match error {
            SpoolError::NoRoom { .. } => "spool-disk-full",
            SpoolError::AbsurdEpoch(_) => TRAIL_AHEAD,
            _ => "spool-failed",
        },
        message,
    }
}

fn panicked() -> Failure {
    Failure {
        code: "spool-failed",
        message: "internal error in the audit spool's database (a panic); it is reopened".to_owned(),
    }
}

/// Runs blocking work where neither its panics nor its waiting hurt.
async fn contained<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| panicked())
}
