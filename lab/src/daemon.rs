//! A process of the lab that goes on by itself: its log, its end.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{LabError, Namespace};

/// A running process; killed (SIGKILL) and reaped on drop.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts `command` with its output appended to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// Its log cannot be opened, or the program cannot be started.
    pub fn spawn(name: &str, mut command: Command, folder: &Path) -> Result<Self, LabError> {
        let log = folder.join(format!("{name}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| LabError::system("open", log.display().to_string(), e))?;
        let err = out
            .try_clone()
            .map_err(|e| LabError::system("share", log.display().to_string(), e))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|e| LabError::system("start", name, e))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// Its name, as in the log's file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Its process id (`ip netns exec` becomes the program itself, so this is the program's).
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        // Failing means that it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits for that at most `patience`.
    ///
    /// # Errors
    /// It has not ended within `patience`, or cannot be waited for.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus, LabError> {
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // A process that has ended just now cannot be asked, and the loop below sees it.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let mut ended = None;
        wait_until(&format!("{} to end", self.name), patience, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        })?;
        self.child
            .wait()
            .map_err(|e| LabError::system("wait for", &self.name, e))
    }

    /// Waits until its log contains `text`.
    ///
    /// ```
    /// use std::process::Command;
    /// use std::time::Duration;
    /// use penstock_lab::Daemon;
    ///
    /// let folder = tempfile::tempdir().unwrap();
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "echo ready; exec sleep 60"]);
    /// let mut daemon = Daemon::spawn("server", command, folder.path()).unwrap();
    /// daemon.wait_for_log("ready", Duration::from_secs(10)).unwrap();
    /// assert!(!daemon.terminate(Duration::from_secs(10)).unwrap().success(), "SIGTERM ended it");
    /// ```
    ///
    /// # Errors
    /// The text is not there within `patience`; the error names the log.
    pub fn wait_for_log(&self, text: &str, patience: Duration) -> Result<(), LabError> {
        wait_until(&format!("`{text}` in {}", self.log.display()), patience, || {
            self.log().contains(text)
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Namespace {
    /// Waits until something inside accepts TCP connections at `address` (`127.0.0.1:502`).
    ///
    /// # Errors
    /// Nothing accepts there within `patience`, or the namespace cannot be entered.
    pub fn wait_for_tcp(&self, address: &str, patience: Duration) -> Result<(), LabError> {
        let what = format!("a listener at {address} in namespace {}", self.name());
        self.enter(|| wait_until(&what, patience, || TcpStream::connect(address).is_ok()))?
    }
}

/// Asks `done` every 10 ms until it says yes.
///
/// ```
/// use std::time::Duration;
/// use penstock_lab::wait_until;
///
/// let mut asked = 0;
/// wait_until("the third answer", Duration::from_secs(10), || {
///     asked += 1;
///     asked == 3
/// })
/// .unwrap();
/// let error = wait_until("what never comes", Duration::ZERO, || false).unwrap_err();
/// assert!(error.to_string().contains("what never comes"));
/// ```
///
/// # Errors
/// `done` has not said yes within `patience`; the error says `what` was waited for.
pub fn wait_until(what: &str, patience: Duration, mut done: impl FnMut() -> bool) -> Result<(), LabError> {
    let end = Instant::now() + patience;
    while !done() {
        if Instant::now() >= end {
            let what = what.to_owned();
            let seconds = patience.as_secs();
            return Err(LabError::TimedOut { what, seconds });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
