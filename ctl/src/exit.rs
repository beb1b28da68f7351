//! The exit codes: few, stable, and the same for every command, so that scripts can rely on them.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, and nothing to object to.
    Done = 0,
    /// The command did its work and the answer is "no": findings, a denied connection, a zone that is not well.
    Findings = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// The plant document has errors.
    BadDocument = 3,
    /// The coordinator refused.
    Refused = 4,
    /// No coordinator could be reached.
    Unreachable = 5,
    /// Something on this machine: a file, a key, the lack of a context.
    Local = 6,
    /// Signatures, digests or plans are not what they should be: do not go on.
    Altered = 7,
}

/// The table in `penstock --help`.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  the answer is no: findings, a denied connection, a zone that is not well
  2  the command line cannot be understood
  3  the plant document has errors
  4  the coordinator refused
  5  no coordinator could be reached
  6  something on this machine: a file, a key, no context
  7  signatures, digests or plans are not what they should be: do not go on";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
