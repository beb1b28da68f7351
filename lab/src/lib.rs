//! The lab: plants made of network namespaces on one machine, for `penstock demo` and for tests.
//!
//! ```text
//! sandbox   re-executes this program in mount, network and process namespaces of its own (root, or a user namespace)
//!   └─ Lab            ip netns, links, files under one scratch folder
//!       ├─ Namespace  addresses, routes, bridges, sysctls; commands, threads and processes inside it
//!       └─ Daemon     a process with a log file, killed on drop
//! ```
//!
//! Invariant: nothing outside the sandbox is touched, and everything in it vanishes with the program that began
//! it, also after `kill -9`: the processes by their process namespace, the links by their network namespaces,
//! the mounts by their mount namespace.

#![warn(clippy::missing_errors_doc)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

mod daemon;
mod namespace;
pub mod sandbox;

pub use daemon::{Daemon, wait_until};
pub use namespace::{End, Namespace};

/// Why a plant could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel does not let this user make namespaces.
    #[error(
        "this machine allows no network namespaces to user {user}: run as root, or allow user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, \
         user.max_user_namespaces above 0): {detail}"
    )]
    Forbidden {
        /// Numeric user id.
        user: u32,
        /// What `unshare` said.
        detail: String,
    },
    /// A program that the lab drives is not installed.
    #[error("`{program}` is not installed; on Debian: apt-get install {package}")]
    Missing {
        /// The program.
        program: String,
        /// Debian's package of it.
        package: &'static str,
    },
    /// A program that the lab drives refused.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// What was run.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A file or process operation of the system failed.
    #[error("cannot {verb} {what}")]
    System {
        /// The operation.
        verb: &'static str,
        /// On what.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread inside a namespace panicked; its message went to standard error.
    #[error("the work inside namespace {0} panicked")]
    Panicked(String),
    /// Something that was waited for did not come in time.
    #[error("waited {seconds} s in vain for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// A namespace name was used twice or is not a plain word.
    #[error("`{0}` cannot be the name of a namespace: use up to 30 of a-z, 0-9 and `-`")]
    Name(String),
}

impl LabError {
    /// What the system answered when it was to `verb` `what`.
    pub fn system(verb: &'static str, what: impl Into<String>, source: std::io::Error) -> Self {
        let what = what.into();
        Self::System { verb, what, source }
    }
}

/// A running lab: one scratch folder, and the namespaces made through it.
///
/// Only inside a sandbox (see [`sandbox`]).
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    links: AtomicU32,
}

impl Lab {
    /// A lab that keeps its logs and scratch files in `directory`, which is made if it is not there.
    ///
    /// ```
    /// use penstock_lab::Lab;
    ///
    /// let folder = tempfile::tempdir().unwrap();
    /// let lab = Lab::new(folder.path().join("plant")).unwrap();
    /// assert!(lab.directory().is_dir());
    /// assert!(lab.namespace("Not a name").is_err());
    /// ```
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self, LabError> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)
            .map_err(|e| LabError::system("create folder", directory.display().to_string(), e))?;
        Ok(Self {
            directory,
            links: AtomicU32::new(0),
        })
    }

    /// Where logs and scratch files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A new namespace with its loopback up, no forwarding, and IPv6 addresses usable at once (no duplicate
    /// address detection).
    ///
    /// # Errors
    /// The name is taken or is not a plain word, or `ip` is missing or fails: outside the sandbox only root may make
    /// namespaces.
    pub fn namespace(&self, name: &str) -> Result<Namespace, LabError> {
        Namespace::create(name, &self.directory)
    }

    /// A cable between two namespaces: both ends are made and brought up.
    ///
    /// # Errors
    /// `ip` fails: an interface of that name is there already, or a namespace is gone.
    pub fn link(&self, a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<(), LabError> {
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        namespace::link(number, End::from(a), End::from(b))
    }
}
