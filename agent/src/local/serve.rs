//! The agent's end of the local socket: takes connections, judges who may ask, and answers one question on each.

mod lists;

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_policy::overrides::{Code, Signed};
use penstock_policy::text::sentence;
use penstock_proto::event::AgentStep;
use penstock_proto::v1::{Drift, Fault};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::change::{Change, HeldState, TrialState};
use super::people::{self, Peer};
use super::{
    ANSWER_BYTES_MAX, Answer, Ask, InKernel, LocalSettings, LocalStanding, OverrideQuestion,
    REQUEST_BYTES_MAX, Request, is_reason,
};
use crate::audit::{Audit, record};
use crate::reconcile::overrides::OverrideAsk;
use crate::reconcile::trial::Confirmer;
use crate::reconcile::{Command, CommandRefused, Inlet, PolicyView};
use crate::timepiece::Timepiece;
use crate::trust::TrustKeeper;
use crate::withdrawn::WithdrawnKeeper;

/// Connections that are answered at once; those of people are few.
const SEATS: usize = 4;
/// How long a question may take to arrive, and an answer to leave.
const SPOKEN_WITHIN: Duration = Duration::from_secs(5);
/// How long what was asked may take: a large policy takes the kernel a while.
const DONE_WITHIN: Duration = Duration::from_secs(60);
/// How long an answer waits for the trail to be on the disk.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);
/// How long until a socket that could not be made is tried again, and how often it is looked whether it is still there.
pub const AGAIN: Duration = Duration::from_secs(30);
/// How often it is logged that somebody was turned away.
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// The most faults in an answer.
const FAULTS_MAX: usize = 32;

/// Answers on the socket.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where, and for whom.
    pub settings: LocalSettings,
    /// What is so.
    pub policy: watch::Receiver<PolicyView>,
    /// Where commands go.
    pub inlet: Inlet,
    /// The clock that trials go by.
    pub timepiece: Timepiece,
    /// The trail.
    pub audit: Audit,
    /// Why nobody, or not everybody who may, can ask here, for health.
    pub faults: watch::Sender<Vec<Fault>>,
    /// Whose keys no longer count.
    pub withdrawn: Arc<WithdrawnKeeper>,
    /// Which roots are trusted.
    pub trust: Arc<TrustKeeper>,
    /// What else a person at the gateway should know.
    pub further: Vec<watch::Receiver<Vec<Fault>>>,
    /// [`AGAIN`].
    pub again: Duration,
}

/// The stable word of what health shows of the socket.
const SOCKET_FAULT: &str = "local-socket";

/// Who may ask here beside root.
#[derive(Debug, Clone, Copy)]
struct Rights {
    own: u32,
    group: Option<u32>,
}

impl Server {
    /// Runs until `stop` is cancelled. A socket that cannot be made, or that somebody took away, is a fault in health, and made again:
    /// nothing else waits for it.
    pub async fn run(self, stop: CancellationToken) {
        let socket = &self.settings.socket;
        loop {
            match listen(&self.settings) {
                Ok(listening) => {
                    self.shows(listening.unshared);
                    tokio::select! {
                        () = stop.cancelled() => {
                            let _ = std::fs::remove_file(socket);
                            return;
                        }
                        () = self.take(listening.listener, listening.rights) => {}
                        () = self.is_gone(listening.place) => {
                            tracing::warn!(socket = %socket.display(), "the local socket is gone, and is made again");
                        }
                    }
                }
                Err(error) => {
                    self.shows(Some(format!(
                        "nobody can steer this gateway locally: the socket {} cannot be made: {}; it is tried again every {} s",
                        socket.display(),
                        sentence(&error),
                        self.again.as_secs()
                    )));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(self.again) => {}
                    }
                }
            }
        }
    }

    /// Waits until another file is there, or none: then nobody new can ask.
    async fn is_gone(&self, place: (u64, u64)) {
        while place_of(&self.settings.socket) == Some(place) {
            tokio::time::sleep(self.again).await;
        }
    }

    /// What health shows of the socket from now on; the same again is no news.
    fn shows(&self, wrong: Option<String>) {
        let faults: Vec<Fault> = wrong
            .into_iter()
            .map(|wrong| Fault::new(SOCKET_FAULT, record::bounded(&wrong)))
            .collect();
        self.faults.send_if_modified(|shown| {
            let is_news = *shown != faults;
            if let Some(fault) = faults.first().filter(|_| is_news) {
                tracing::warn!(code = SOCKET_FAULT, "{}", fault.message);
                self.audit
                    .note(record::agent(AgentStep::LocalSocket, &fault.message));
            }
            *shown = faults;
            is_news
        });
    }

    async fn take(&self, listener: UnixListener, rights: Rights) {
        let seats = Arc::new(Semaphore::new(SEATS));
        let mut logged: Option<Instant> = None;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a local connection could not be taken");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let peer = Peer::of(&stream).ok();
            let Some(peer) = peer.filter(|peer| peer.may_ask(rights.own, rights.group)) else {
                if logged.is_none_or(|logged| logged.elapsed() > LOGGED_EVERY) {
                    logged = Some(Instant::now());
                    tracing::warn!("somebody who may not was turned away from the local socket");
                }
                turn_away(&stream, NO_RIGHTS);
                continue;
            };
            let Ok(seat) = seats.clone().try_acquire_owned() else {
                turn_away(&stream, "others are being answered: try again in a moment");
                continue;
            };
            let server = self.clone();
            tokio::spawn(async move {
                server.converse(stream, &peer, rights.own).await;
                drop(seat);
            });
        }
    }

    async fn converse(&self, mut stream: UnixStream, peer: &Peer, own: u32) {
        let Ok(Some(line)) = timeout(SPOKEN_WITHIN, question(&mut stream)).await else {
            return;
        };
        let answer = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => self.answer(request, peer.user, own).await,
            Err(error) => Answer::Refused(format!(
                "the question is not one that this agent knows ({error}): use the `penstock-agent` that belongs to it"
            )),
        };
        let _ = timeout(SPOKEN_WITHIN, stream.write_all(&in_bytes(&answer))).await;
    }

    async fn answer(&self, request: Request, user: u32, own: u32) -> Answer {
        let Request { said, ask } = request;
        if ask == Ask::Standing {
            return Answer::Standing(Box::new(self.standing()));
        }
        let by = match people::in_words(user, own, people::name_of(user).as_deref(), said.as_deref()) {
            Ok(by) => by,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        let reasons = match &ask {
            Ask::Hold { reason } => Some(reason),
            Ask::Revert { reason, .. } => reason.as_ref(),
            Ask::Override(OverrideQuestion::Request { reason, .. }) => Some(reason),
            _ => None,
        };
        if reasons.is_some_and(|reason| !is_reason(reason)) {
            return Answer::Refused("a reason is one line of at most 500 bytes of visible text".to_owned());
        }
        if let Ask::Override(question) = ask {
            return self.overridden(question, by).await;
        }
        if let Ask::TakeWithdrawn { list } = ask {
            return self.take_withdrawn(&list, &by).await;
        }
        if let Ask::TakeTrust { bundles } = ask {
            return self.take_trust(&bundles, &by).await;
        }
        let before = self.standing().change;
        let Some(command) = command(&ask, by) else {
            return Answer::Refused("there is nothing to do".to_owned());
        };
        let done = timeout(DONE_WITHIN, self.inlet.ask(command)).await;
        // Who reads that it was done can rely on the trail to say who did it. A disk that takes nothing keeps nobody from steering.
        self.audit.recorded(RECORDED_WITHIN).await;
        match done {
            Ok(Ok(())) => Answer::Done(done_in_words(&ask, &before, &self.standing())),
            Ok(Err(why)) => Answer::Refused(refused_in_words(why, &before)),
            Err(_) => Answer::Refused(STILL_AT_IT.to_owned()),
        }
    }

    async fn overridden(&self, question: OverrideQuestion, by: String) -> Answer {
        let ask = match question {
            OverrideQuestion::Request {
                effects,
                seconds,
                reason,
                ticket,
            } => {
                let mut number = [0; 32];
                if getrandom::fill(&mut number).is_err() {
                    return Answer::Refused("the machine gives no random number".to_owned());
                }
                OverrideAsk::Request {
                    number: Digest(number),
                    effects,
                    seconds,
                    reason,
                    ticket,
                }
            }
            OverrideQuestion::Begin { signed, code } => {
                let signed = match Signed::from_json(&signed) {
                    Ok(signed) => signed,
                    Err(error) => return Answer::Refused(sentence(&error)),
                };
                let code = match code.map(|typed| Code::parse(&typed.0)).transpose() {
                    Ok(code) => code,
                    Err(error) => return Answer::Refused(error.to_string()),
                };
                OverrideAsk::Begin { signed, code, by }
            }
            OverrideQuestion::End { number } => OverrideAsk::End { number, by },
        };
        let done = timeout(DONE_WITHIN, self.inlet.ask_override(ask)).await;
        self.audit.recorded(RECORDED_WITHIN).await;
        match done {
            Ok(Ok(words)) => Answer::Done(words),
            Ok(Err(why)) => Answer::Refused(sentence(&why)),
            Err(_) => Answer::Refused(STILL_AT_IT.to_owned()),
        }
    }

    fn standing(&self) -> LocalStanding {
        let view = self.policy.borrow().clone();
        let boot = self.timepiece.now().boot;
        let identity = view
            .plan
            .as_ref()
            .map(|plan| format!("spiffe://{}/gateway/{}", plan.plant, plan.gateway));
        let in_kernel = view.state.effective.as_ref().map(|mark| InKernel {
            revision: mark.revision,
            plan_digest: <[u8; 32]>::try_from(mark.plan_digest.as_ref()).map_or_else(
                |_| String::new(),
                |digest| penstock_policy::ids::Digest(digest).to_string(),
            ),
            rules: view.plan.as_ref().map_or(0, |plan| plan.rules.len()),
        });
        let mut faults = self.faults.borrow().clone();
        faults.extend(self.withdrawn.faults().borrow().clone());
        faults.extend(self.trust.faults().borrow().clone());
        faults.extend(self.further.iter().flat_map(|faults| faults.borrow().clone()));
        faults.extend(view.faults.iter().cloned());
        faults.truncate(FAULTS_MAX);
        LocalStanding {
            identity,
            in_kernel,
            drift: view.drift == Drift::Present,
            change: Change::of_view(&view, boot),
            faults: faults.into_iter().map(|fault| fault.message).collect(),
        }
    }
}

const STILL_AT_IT: &str =
    "the agent is still at it, or at something else: `penstock-agent status` shows what came of it";

const NO_RIGHTS: &str =
    "only root, the agent's own user and the members of the group in `local.group` may ask this agent";

/// Answers without waiting, and ends the connection: what does not fit into the socket at once is not said.
fn turn_away(stream: &UnixStream, why: &str) {
    let _ = stream.try_write(&in_bytes(&Answer::Refused(why.to_owned())));
}

fn in_bytes(answer: &Answer) -> Vec<u8> {
    // Texts and numbers cannot fail to be JSON.
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    if line.len() >= ANSWER_BYTES_MAX {
        let too_long = Answer::Refused("the answer would be too long".to_owned());
        line = serde_json::to_vec(&too_long).unwrap_or_default();
    }
    line.push(b'\n');
    line
}

/// One line, without its end; `None`: it is too long, or there is none.
async fn question(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bounded = BufReader::new(stream.take(limit));
    bounded.read_until(b'\n', &mut line).await.ok()?;
    line.pop_if(|last| *last == b'\n')?;
    Some(line)
}

/// A socket that can be connected to.
struct Listening {
    listener: UnixListener,
    rights: Rights,
    /// Which file it is: device and number.
    place: (u64, u64),
    /// Why the group cannot use it.
    unshared: Option<String>,
}

/// Which file is there; `None`: none.
fn place_of(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// The socket, ready to be connected to by those who may.
fn listen(settings: &LocalSettings) -> io::Result<Listening> {
    let own = rustix::process::geteuid().as_raw();
    // Under another name until nobody else can write to it; then it takes the place of one that an agent before left.
    let path = &settings.socket;
    let unready = path.with_extension("new");
    match std::fs::remove_file(&unready) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&unready)?;
    let shared = settings.group.as_deref().map(|name| {
        let failed = |error: io::Error| {
            format!(
                "the group `{name}` cannot steer this gateway locally: {}",
                sentence(&error)
            )
        };
        share(&unready, name).map_err(failed)
    });
    let (group, unshared) = match shared {
        Some(Ok(group)) => (Some(group), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&unready, path)?;
    listener.set_nonblocking(true)?;
    Ok(Listening {
        listener: UnixListener::from_std(listener)?,
        rights: Rights { own, group },
        place: place_of(path).ok_or_else(|| io::Error::other("it is gone already"))?,
        unshared,
    })
}

/// Gives the socket to a group, where it has not got that from its folder.
fn share(socket: &Path, name: &str) -> io::Result<u32> {
    let group =
        people::group_of(name).ok_or_else(|| io::Error::other("there is no such group on this machine"))?;
    if std::fs::metadata(socket)?.gid() != group {
        std::os::unix::fs::chown(socket, None, Some(group))?;
    }
    Ok(group)
}

fn command(ask: &Ask, by: String) -> Option<Command> {
    Some(match ask.clone() {
        Ask::Standing | Ask::Override(_) | Ask::TakeWithdrawn { .. } | Ask::TakeTrust { .. } => return None,
        Ask::Confirm { statement } => Command::Confirm {
            statement,
            by: Confirmer::Person(by),
        },
        Ask::Revert { statement, reason } => Command::Revert {
            statement,
            by: match reason {
                Some(reason) => format!("{by} ({reason})"),
                None => by,
            },
            ordered: false,
        },
        Ask::Hold { reason } => Command::Hold { by, why: reason },
        Ask::ReleaseHold => Command::ReleaseHold { by },
        Ask::Clear { statement } => Command::Clear { statement, by },
    })
}

fn refused_in_words(why: CommandRefused, before: &Change) -> String {
    let more = match (why, &before.trial) {
        (CommandRefused::NoTrial | CommandRefused::NothingThere | CommandRefused::Over, _) => {
            "; `penstock-agent status` shows what is so".to_owned()
        }
        (CommandRefused::OtherRelease, Some(trial)) => format!(": r{} is", trial.revision),
        _ => String::new(),
    };
    format!("{why}{more}")
}

/// What is so after `ask` was done; `before` is what was so.
fn done_in_words(ask: &Ask, before: &Change, now: &LocalStanding) -> String {
    let revision = |trial: &Option<TrialState>| trial.as_ref().map_or(0, |trial| trial.revision);
    let was = revision(&before.trial);
    let in_kernel = now.in_kernel.as_ref().map(|held| held.revision);
    match ask {
        Ask::Standing | Ask::Override(_) | Ask::TakeWithdrawn { .. } | Ask::TakeTrust { .. } => String::new(),
        Ask::Confirm { .. } => format!("r{was} is confirmed: it stays in force"),
        Ask::Revert { .. } if in_kernel == Some(was) => {
            let why = now.faults.first().map_or("see the agent's log", String::as_str);
            format!(
                "the trial of r{was} is over, but the kernel still holds its rules ({why}); the agent goes on trying to take them back"
            )
        }
        Ask::Revert { .. } => match in_kernel {
            Some(before) => format!(
                "r{was} is reverted: r{before} is in force again, and r{was} is refused until `penstock-agent clear --revision {was}`"
            ),
            None => format!(
                "r{was} is reverted: no policy is in force, as before it; it is refused until `penstock-agent clear --revision {was}`"
            ),
        },
        Ask::Hold { .. } => {
            let goes_on = match &now.change.trial {
                Some(trial) => format!("; the trial of r{} goes on", trial.revision),
                None => String::new(),
            };
            format!("this gateway is held: no release begins before `penstock-agent release-hold`{goes_on}")
        }
        Ask::ReleaseHold => format!("the hold is released: {}", follows(before, now)),
        Ask::Clear { statement } => {
            let mut reverted = before.reverted.iter();
            let cleared = reverted.find(|reverted| reverted.statement == *statement);
            let cleared = cleared.map_or(0, |cleared| cleared.revision.0);
            let stays = match &now.change.held {
                Some(held) if held.revision == cleared => " and staged",
                _ => "",
            };
            format!("r{cleared} is cleared{stays}: it comes again when the coordinator orders it again")
        }
    }
}

/// What came of the release that was held by a person.
fn follows(before: &Change, now: &LocalStanding) -> String {
    if let Some(trial) = &now.change.trial {
        return format!("r{} is on trial: {trial}", trial.revision);
    }
    if let Some(held) = &now.change.held {
        return held.to_string();
    }
    let in_kernel = now.in_kernel.as_ref().map(|held| held.revision);
    let was_held = before.held.as_ref().map(|HeldState { revision, .. }| *revision);
    match (was_held, in_kernel) {
        (Some(held), Some(in_kernel)) if held == in_kernel => format!("r{held} is in force"),
        (Some(held), _) => {
            let why = now.faults.first().map_or("see the agent's log", String::as_str);
            format!("r{held} is not in force yet ({why}); the agent goes on trying")
        }
        (None, _) => "no release waits for it".to_owned(),
    }
}

#[cfg(test)]
mod tests;
