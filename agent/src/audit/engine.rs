//! Holds the spool at arm's length: whatever its disk, or a fault in it, does ends here.
//!
//! Every use runs on a blocking thread. A spool that cannot be opened, or whose thread panicked, is opened again at growing
//! intervals; one whose disk refused goes on by itself, with a new segment. A disk that is full, read-only or reports errors is waited
//! for, and nothing is set aside for it: what is there may be whole.

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
    last_failure: Option<Failure>,
}

impl Engine {
    pub(super) fn new(folder: PathBuf, limits: SpoolLimits) -> Self {
        Self {
            folder,
            limits,
            spool: None,
            retry_at: None,
            failures: Backoff::between(RETRY_MIN, RETRY_MAX),
            last_failure: None,
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
        let failure = match opened {
            Ok(Ok((spool, begun))) => {
                self.spool = Some(spool);
                self.failures.worked();
                self.retry_at = None;
                self.last_failure = None;
                return begun;
            }
            Ok(Err(error)) => describe(&error),
            Err(panic) => panic,
        };
        self.fail(failure, now);
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
        let done = contained(move || {
            let result = operation(&mut spool);
            (result.map_err(|error| describe(&error)), Some(spool))
        })
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
}

fn describe(error: &SpoolError) -> Failure {
    let mut message = text::sentence(error);
    if let SpoolError::Earlier(database::Error::Io(cause)) = error
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
        message: "internal error in the audit spool (a panic); it is reopened".to_owned(),
    }
}

/// Runs blocking work where neither its panics nor its waiting hurt.
async fn contained<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| panicked())
}
