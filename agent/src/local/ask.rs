//! A person's end of the local socket: one question, one answer, within bounds of size and time.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::{ANSWER_BYTES_MAX, Answer, Ask, LocalSettings, LocalStanding, Request};

/// How long an answer may take: the agent answers within a minute, whatever came of it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(90);
/// How long it may take to say how it stands, for which it waits for nothing.
const SAID_WITHIN: Duration = Duration::from_secs(3);
const SENT_WITHIN: Duration = Duration::from_secs(5);

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no agent answers at {}: start it, or see its log", .0.display())]
    NotThere(PathBuf),
    /// This user may not.
    #[error(
        "this user may not steer the gateway: root may (use sudo), and the members of the group in `local.group` of the configuration"
    )]
    NotAllowed,
    /// The agent takes too long.
    #[error("the agent at {} does not answer: `penstock-agent status` shows what came of it", .0.display())]
    Late(PathBuf),
    /// The socket fails.
    #[error("cannot ask the agent at {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came is no answer.
    #[error("the agent at {} answers what this program does not know: are they of the same version?", .0.display())]
    Form(PathBuf),
    /// Nothing was done.
    #[error("nothing was done: {0}")]
    Refused(String),
}

/// How the gateway stands, by the agent that runs.
///
/// # Errors
/// None answers, or this user may not ask it.
pub fn standing(settings: &LocalSettings) -> Result<LocalStanding, AskError> {
    let request = Request {
        said: None,
        ask: Ask::Standing,
    };
    match ask(settings, &request, SAID_WITHIN)? {
        Answer::Standing(standing) => Ok(*standing),
        Answer::Refused(why) => Err(AskError::Refused(why)),
        Answer::Done(_) => Err(AskError::Form(settings.socket.clone())),
    }
}

/// Has the agent do something; what is so then, in a sentence.
///
/// # Errors
/// No agent answers, this user may not ask it, or it did not do it, and why.
pub fn steer(settings: &LocalSettings, said: Option<String>, ask_for: Ask) -> Result<String, AskError> {
    let request = Request { said, ask: ask_for };
    match ask(settings, &request, ANSWERED_WITHIN)? {
        Answer::Done(sentence) => Ok(sentence),
        Answer::Refused(why) => Err(AskError::Refused(why)),
        Answer::Standing(_) => Err(AskError::Form(settings.socket.clone())),
    }
}

fn ask(settings: &LocalSettings, request: &Request, within: Duration) -> Result<Answer, AskError> {
    let path = || settings.socket.clone();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotThere(path()),
        io::ErrorKind::PermissionDenied => AskError::NotAllowed,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Late(path()),
        _ => AskError::Socket { path: path(), source },
    };
    let mut stream = UnixStream::connect(&settings.socket).map_err(failed)?;
    stream.set_write_timeout(Some(SENT_WITHIN)).map_err(failed)?;
    stream.set_read_timeout(Some(within)).map_err(failed)?;
    // Texts cannot fail to be JSON.
    let mut line = serde_json::to_vec(request).unwrap_or_default();
    line.push(b'\n');
    match stream.write_all(&line) {
        // One that turns somebody away does not read first.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        sent => sent.map_err(failed)?,
    }
    let mut answer = Vec::new();
    let limit = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
    match stream.take(limit).read_to_end(&mut answer) {
        // It closed with our words unread: what it said before counts.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !answer.is_empty() => {}
        read => drop(read.map_err(failed)?),
    }
    serde_json::from_slice(&answer).map_err(|_| AskError::Form(path()))
}
