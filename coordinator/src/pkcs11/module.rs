//! A module and the thread that alone calls it. A module is somebody else's code: it may take long, or hang while a reader does. Whoever
//! asks waits for [`PATIENCE`] at most, and not at all while it hangs; nothing else of the coordinator waits with them.
//!
//! There is one thread for each module in a process, since a module and its logins are the process's: two that initialise and end it
//! would end each other's sessions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::TokenError;
use super::tokens::Tokens;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the first answers may take, which make a key, or load the module.
const PATIENCE_OF_PEOPLE: Duration = Duration::from_secs(60);
/// How many may wait at once: each holds a thread meanwhile, of the few hundred that a service may have.
const WAITING_MAX: usize = 64;

type Work = Box<dyn FnOnce(&mut Tokens) + Send>;

/// A module, and who calls it.
struct Module {
    path: PathBuf,
    work: SyncSender<Work>,
    /// Since when the module has been at what it does now.
    busy: Arc<Mutex<Option<Instant>>>,
    thread: JoinHandle<()>,
}

static MODULES: Mutex<Option<HashMap<PathBuf, Arc<Module>>>> = Mutex::new(None);

fn module(path: &Path) -> Result<Arc<Module>, TokenError> {
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let modules = modules.get_or_insert_with(HashMap::new);
    if let Some(known) = modules.get(path)
        && !known.thread.is_finished()
    {
        return Ok(known.clone());
    }
    let made = Arc::new(Module::start(path.to_owned())?);
    modules.insert(path.to_owned(), made.clone());
    Ok(made)
}

impl Module {
    fn start(path: PathBuf) -> Result<Self, TokenError> {
        let (work, todo) = mpsc::sync_channel::<Work>(WAITING_MAX);
        let busy = Arc::new(Mutex::new(None));
        let mut tokens = Tokens::of(path.clone());
        let begun = busy.clone();
        let thread = std::thread::Builder::new()
            .name("pkcs11".to_owned())
            .spawn(move || {
                for work in todo {
                    *begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                    work(&mut tokens);
                    *begun.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
            })
            .map_err(|error| TokenError::Module {
                path: path.clone(),
                why: format!("no thread can be started for it: {error}"),
            })?;
        Ok(Self {
            path,
            work,
            busy,
            thread,
        })
    }

    fn busy_for(&self) -> Option<Duration> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.map(|since| since.elapsed())
    }

    fn ask<T: Send + 'static>(
        &self,
        patience: Duration,
        does: impl FnOnce(&mut Tokens) -> Result<T, TokenError> + Send + 'static,
    ) -> Result<T, TokenError> {
        let silent = || TokenError::Silent(self.path.clone());
        if self.busy_for().is_some_and(|busy| busy > patience) {
            return Err(silent());
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let deadline = Instant::now() + patience;
        let work: Work = Box::new(move |tokens| {
            // Nobody waits for it any more.
            if Instant::now() < deadline {
                let _ = answer.send(does(tokens));
            }
        });
        match self.work.try_send(work) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(TokenError::Busy(self.path.clone())),
            Err(TrySendError::Disconnected(_)) => return Err(silent()),
        }
        match answered.recv_timeout(patience) {
            Ok(done) => done,
            Err(RecvTimeoutError::Timeout) => match self.busy_for() {
                Some(busy) if busy >= patience / 2 => Err(silent()),
                _ => Err(TokenError::Busy(self.path.clone())),
            },
            Err(RecvTimeoutError::Disconnected) => Err(TokenError::Busy(self.path.clone())),
        }
    }
}

/// Does something with the tokens of a module. On a runtime with several threads, its other tasks go on meanwhile.
pub(super) fn ask<T: Send + 'static>(
    path: &Path,
    does: impl FnOnce(&mut Tokens) -> Result<T, TokenError> + Send + 'static,
) -> Result<T, TokenError> {
    let module = module(path)?;
    aside(|| module.ask(PATIENCE, does))
}

/// The same where a person waits for it: a token may take its time to make a key.
pub(super) fn ask_patiently<T: Send + 'static>(
    path: &Path,
    does: impl FnOnce(&mut Tokens) -> Result<T, TokenError> + Send + 'static,
) -> Result<T, TokenError> {
    let module = module(path)?;
    aside(|| module.ask(PATIENCE_OF_PEOPLE, does))
}

/// Waits for something while the other tasks of a runtime go on.
fn aside<T>(waits: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(waits),
        _ => waits(),
    }
}
