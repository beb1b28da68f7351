//! A TPM, as the rest of the agent asks it: by a thread of its own, and never for longer than a deadline.
//!
//! The kernel's device cannot be asked with a deadline: whoever reads it waits as long as the TPM does. So it is the thread that waits there, and who
//! asked goes on. While the thread waits, and for [`SILENCE`] after a request that was not answered in time, further requests fail at once:
//! a TPM that hangs costs one deadline, not one for each handshake.

use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::TpmAddress;
use super::session::{Session, TpmError};
use super::wire::WrappedKey;

/// How long a signature may take. A TPM takes 0.05 to 0.2 s, and up to one or two at the first.
pub const SIGN_DEADLINE: Duration = Duration::from_secs(5);
/// How long a new key may take, which a person waits for.
const CREATE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a TPM that did not answer in time is left alone.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Requests that may wait for it. More than this are refused as if it hung: it is then far too slow for what is asked of it.
const REQUESTS_MAX: usize = 64;

type Request = Box<dyn FnOnce(&mut Session) + Send>;

/// A TPM. Clones share it.
#[derive(Clone)]
pub struct Tpm(Arc<Shared>);

struct Shared {
    address: TpmAddress,
    thread: Mutex<Option<SyncSender<Request>>>,
    /// Until when nothing is asked of it, because it did not answer in time.
    silent_until: Mutex<Option<Instant>>,
    /// What the last request to the key came to: why it failed, if it did. The counter's requests say nothing of the key.
    fault: watch::Sender<Option<TpmError>>,
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tpm").field(&self.0.address).finish()
    }
}

impl Tpm {
    /// The one at this address, which is first asked when it is needed.
    pub fn at(address: TpmAddress) -> Self {
        Self(Arc::new(Shared {
            address,
            thread: Mutex::default(),
            silent_until: Mutex::default(),
            fault: watch::channel(None).0,
        }))
    }

    /// Where it is.
    pub fn address(&self) -> &TpmAddress {
        &self.0.address
    }

    /// Why the key did not sign when it was asked last; `None`: it did, or was not asked.
    pub fn fault(&self) -> watch::Receiver<Option<TpmError>> {
        self.0.fault.subscribe()
    }

    pub(super) fn create_key(&self) -> Result<WrappedKey, TpmError> {
        self.ask(CREATE_DEADLINE, Session::create_key)
    }

    pub(super) fn sign(&self, wrapped: &WrappedKey, digest: [u8; 32]) -> Result<Vec<u8>, TpmError> {
        self.sign_within(SIGN_DEADLINE, wrapped, digest)
    }

    /// Signs, and shows what that came to as the key's fault.
    pub(super) fn sign_within(
        &self,
        patience: Duration,
        wrapped: &WrappedKey,
        digest: [u8; 32],
    ) -> Result<Vec<u8>, TpmError> {
        let wrapped = wrapped.clone();
        let signed = self.ask(patience, move |session| session.sign(&wrapped, &digest));
        let fault = signed.as_ref().err().cloned();
        self.0.fault.send_if_modified(|shown| {
            let changed = *shown != fault;
            *shown = fault;
            changed
        });
        signed
    }

    /// What the counter for this machine's disk shows; `None`: there is none.
    ///
    /// # Errors
    /// The TPM cannot be reached, does not answer, or refuses.
    pub fn counter(&self) -> Result<Option<u64>, TpmError> {
        self.ask(SIGN_DEADLINE, Session::counter)
    }

    /// Makes that counter; what it shows.
    ///
    /// # Errors
    /// As [`Self::counter`].
    pub fn begin_counter(&self) -> Result<u64, TpmError> {
        self.ask(CREATE_DEADLINE, Session::begin_counter)
    }

    /// Has that counter go up by one, which nothing undoes.
    ///
    /// # Errors
    /// As [`Self::counter`].
    pub fn count_up(&self) -> Result<(), TpmError> {
        self.ask(SIGN_DEADLINE, Session::count_up)
    }

    /// Has the thread do `request`, and waits for it no longer than `patience`. The async runtime's other tasks go on meanwhile.
    fn ask<T: Send + 'static>(
        &self,
        patience: Duration,
        request: impl FnOnce(&mut Session) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        use tokio::runtime::{Handle, RuntimeFlavor};
        let on_runtime =
            Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        match on_runtime {
            true => tokio::task::block_in_place(|| self.wait(patience, request)),
            false => self.wait(patience, request),
        }
    }

    fn wait<T: Send + 'static>(
        &self,
        patience: Duration,
        request: impl FnOnce(&mut Session) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let hung = || TpmError::Hung(self.0.address.clone());
        let deadline = Instant::now() + patience;
        if self.silent_until().is_some_and(|until| Instant::now() < until) {
            return Err(hung());
        }
        let (done, answer) = mpsc::sync_channel(1);
        let work: Request = Box::new(move |session| {
            // Nobody waits for one that is late before it begins.
            if Instant::now() < deadline {
                let _ = done.send(session.request(deadline, request));
            }
        });
        self.thread()?.try_send(work).map_err(|_| hung())?;
        let answer = answer
            .recv_timeout(patience)
            .unwrap_or_else(|failed| match failed {
                RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected => Err(hung()),
            });
        if matches!(answer, Err(TpmError::Hung(_))) {
            *self.silence() = Some(Instant::now() + SILENCE);
        }
        answer
    }

    fn silence(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.silent_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent_until(&self) -> Option<Instant> {
        *self.silence()
    }

    /// The thread, which ends when the last of these handles is gone and its request is done.
    fn thread(&self) -> Result<SyncSender<Request>, TpmError> {
        let mut thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*thread {
            return Ok(running.clone());
        }
        let (requests, waiting) = mpsc::sync_channel::<Request>(REQUESTS_MAX);
        let mut session = Session::new(self.0.address.clone());
        std::thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || {
                for request in waiting {
                    request(&mut session);
                }
            })
            .map_err(|_| TpmError::Hung(self.0.address.clone()))?;
        Ok(thread.insert(requests).clone())
    }
}
