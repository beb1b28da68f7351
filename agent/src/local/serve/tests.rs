//! The socket with a reconciler that a test plays: who gets in, what is passed on, and what cannot wear it out.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use penstock_policy::ids::{Digest, Revision};
use penstock_proto::v1::{PolicyState, RevisionDigest, TrustedRelease};
use penstock_proto::withdrawn::SignedList;

use super::*;
use crate::identity::IdentityFolder;
use crate::local::ask::{self, AskError};
use crate::policy_store::journal::{PersonHold, RevertedRelease};
use crate::reconcile::trial::Hold;
use crate::reconcile::{Inbox, Standing, StandingState, inbox};
use crate::timepiece::Time;
use crate::trust::TrustKeeper;
use crate::withdrawn::StoredList;

const R8: Digest = Digest([8; 32]);

/// A server, and the other ends of what it was given.
struct Local {
    settings: LocalSettings,
    view: watch::Sender<PolicyView>,
    inbox: Inbox,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

fn nothing_withdrawn(folder: &Path, audit: &Audit) -> Arc<WithdrawnKeeper> {
    let store = Arc::new(std::sync::Mutex::new(crate::store::Store::empty(folder)));
    StoredList::default().keep(store, audit.clone(), watch::channel(None).1)
}

fn no_other_roots(folder: &Path, audit: &Audit) -> Arc<TrustKeeper> {
    TrustKeeper::new(IdentityFolder::new(folder), watch::channel(None).0, audit.clone())
}

impl Local {
    async fn start(view: PolicyView) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = LocalSettings {
            socket: folder.path().join(crate::local::SOCKET),
            group: None,
        };
        let (view, seen) = watch::channel(view);
        let (inlet, inbox) = inbox();
        let stop = CancellationToken::new();
        let time = Time {
            wall_ms: 0,
            synchronised: true,
            boot: Duration::from_secs(100),
        };
        let audit = Audit::without_spool().0;
        let server = Server {
            withdrawn: nothing_withdrawn(folder.path(), &audit),
            trust: no_other_roots(folder.path(), &audit),
            settings: settings.clone(),
            policy: seen,
            inlet,
            timepiece: Timepiece::Told(Arc::new(std::sync::Mutex::new(time))),
            audit,
            faults: watch::channel(Vec::new()).0,
            further: Vec::new(),
            again: AGAIN,
        };
        tokio::spawn(server.run(stop.clone()));
        while !settings.socket.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self {
            settings,
            view,
            inbox,
            stop,
            _folder: folder,
        }
    }

    /// Asks as a person would; gives the command that came of it with where its answer goes.
    async fn asks(
        &mut self,
        said: &str,
        ask_for: Ask,
    ) -> (
        crate::reconcile::Asked,
        tokio::task::JoinHandle<Result<String, AskError>>,
    ) {
        let (settings, said) = (self.settings.clone(), said.to_owned());
        let asked = tokio::task::spawn_blocking(move || ask::steer(&settings, Some(said), ask_for));
        (self.inbox.asked().await.unwrap(), asked)
    }

    async fn says(&self, bytes: &'static [u8]) -> String {
        let socket = self.settings.socket.clone();
        let spoken = move || {
            let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            match stream.write_all(bytes) {
                // Who is turned away may be so before a word is read.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                sent => sent.unwrap(),
            }
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        tokio::task::spawn_blocking(spoken).await.unwrap()
    }
}

fn mark(revision: u8) -> RevisionDigest {
    RevisionDigest {
        revision: revision.into(),
        statement_digest: vec![revision; 32].into(),
        plan_digest: vec![revision; 32].into(),
    }
}

fn with_seven() -> PolicyView {
    PolicyView {
        state: PolicyState {
            effective: Some(mark(7)),
            trusted: Some(TrustedRelease {
                revision: 7,
                ..TrustedRelease::default()
            }),
            ..PolicyState::default()
        },
        ..PolicyView::default()
    }
}

fn eight(state: StandingState) -> Standing {
    Standing {
        release: Some((Revision(8), R8)),
        state,
        ..Standing::default()
    }
}

fn on_trial() -> PolicyView {
    let mut view = with_seven();
    view.state.effective = Some(mark(8));
    view.standing = eight(StandingState::Trial {
        began: Duration::from_secs(40),
        ends: Duration::from_secs(340),
        confirmable_since: Some(Duration::from_secs(41)),
        flows: true,
    });
    view
}

/// Who runs this test, as the trail would name them with a name that they say.
fn words(said: &str) -> String {
    let user = rustix::process::geteuid().as_raw();
    people::in_words(user, user, people::name_of(user).as_deref(), Some(said)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_asks_reaches_the_reconciler_with_their_name_and_they_read_what_came_of_it() {
    let mut local = Local::start(on_trial()).await;
    let ((command, reply), asked) = local.asks("anna", Ask::Confirm { statement: R8 }).await;
    let by = Confirmer::Person(words("anna"));
    assert_eq!(command, Command::Confirm { statement: R8, by });
    local.view.send_modify(|view| {
        view.standing = Standing::default();
        view.state.trusted = Some(TrustedRelease {
            revision: 8,
            ..TrustedRelease::default()
        });
    });
    reply.unwrap().send(Ok(())).unwrap();
    assert_eq!(
        asked.await.unwrap().unwrap(),
        "r8 is confirmed: it stays in force"
    );

    local.view.send_replace(on_trial());
    let reason = Some("pump 3 is loud".to_owned());
    let ((command, reply), asked) = local
        .asks(
            "anna",
            Ask::Revert {
                statement: R8,
                reason,
            },
        )
        .await;
    let by = format!("{} (pump 3 is loud)", words("anna"));
    let expected = Command::Revert {
        statement: R8,
        by,
        ordered: false,
    };
    assert_eq!(command, expected);
    local.view.send_replace(with_seven());
    reply.unwrap().send(Ok(())).unwrap();
    let said = asked.await.unwrap().unwrap();
    assert!(said.starts_with("r8 is reverted: r7 is in force again"), "{said}");
    local.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_is_asked_for_by_name_with_a_number_that_nobody_guesses_and_what_is_no_file_or_code_is_refused_here()
 {
    let mut local = Local::start(with_seven()).await;
    let ask_for = |question: OverrideQuestion| {
        let settings = local.settings.clone();
        let asked = move || ask::steer(&settings, Some("anna".to_owned()), Ask::Override(question));
        tokio::task::spawn_blocking(asked)
    };
    let request = |reason: &str| OverrideQuestion::Request {
        effects: vec![penstock_policy::overrides::Effect::Unasked],
        seconds: 60,
        reason: reason.to_owned(),
        ticket: None,
    };
    let begin = |signed: &str, code: Option<&str>| OverrideQuestion::Begin {
        signed: signed.to_owned(),
        code: code.map(|code| crate::local::TypedCode(code.to_owned())),
    };
    let form = Signed {
        payload: b"{}".to_vec(),
        signatures: Vec::new(),
    }
    .to_json();
    for (question, why) in [
        (request("two\nlines"), "a reason is one line"),
        (begin("{}", None), ""),
        (begin(&form, Some("ABC")), "26 letters and digits"),
    ] {
        let refused = ask_for(question).await.unwrap().unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let mut numbers = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let answer = ask_for(request("the PLC is gone"));
        let (asked, reply) = local.inbox.override_asked().await.unwrap();
        let OverrideAsk::Request { number, .. } = asked else {
            panic!("{asked:?}");
        };
        numbers.insert(number);
        reply.unwrap().send(Ok("a form".to_owned())).unwrap();
        assert_eq!(answer.await.unwrap().unwrap(), "a form");
    }
    assert_eq!(numbers.len(), 2);
    let answer = ask_for(OverrideQuestion::End { number: None });
    let (asked, reply) = local.inbox.override_asked().await.unwrap();
    let OverrideAsk::End { number: None, by } = asked else {
        panic!("{asked:?}");
    };
    assert_eq!(by, words("anna"));
    let nothing = crate::reconcile::overrides::NotOverridden::NothingThere;
    reply.unwrap().send(Err(nothing)).unwrap();
    let refused = answer.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("`penstock-agent override list`"), "{refused}");
    let hidden = format!("{:?}", begin("", Some("0123-secret")));
    assert!(!hidden.contains("secret"), "{hidden}");
    local.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_still_holds_is_not_said_to_be_reverted_or_in_force() {
    let mut local = Local::start(on_trial()).await;
    let ((_, reply), asked) = local
        .asks(
            "anna",
            Ask::Revert {
                statement: R8,
                reason: None,
            },
        )
        .await;
    local.view.send_modify(|view| view.standing = Standing::default());
    reply.unwrap().send(Ok(())).unwrap();
    let said = asked.await.unwrap().unwrap();
    assert!(said.contains("the kernel still holds its rules"), "{said}");

    let mut held = with_seven();
    held.state.staged = Some(mark(8));
    held.standing = eight(StandingState::Held(Hold::Person {
        by: "anna".to_owned(),
        why: "x".to_owned(),
    }));
    for (then, words) in [
        (with_seven(), "r8 is not in force yet"),
        (on_trial(), "r8 is on trial: 240 s left"),
    ] {
        local.view.send_replace(held.clone());
        let ((command, reply), asked) = local.asks("anna", Ask::ReleaseHold).await;
        assert!(matches!(command, Command::ReleaseHold { .. }));
        local.view.send_replace(then);
        reply.unwrap().send(Ok(())).unwrap();
        let said = asked.await.unwrap().unwrap();
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_why_and_what_to_do_and_a_root_without_a_name_is_refused_before_anything_is_asked() {
    let mut local = Local::start(on_trial()).await;
    let ((_, reply), asked) = local
        .asks(
            "anna",
            Ask::Confirm {
                statement: Digest([9; 32]),
            },
        )
        .await;
    reply.unwrap().send(Err(CommandRefused::OtherRelease)).unwrap();
    let said = asked.await.unwrap().unwrap_err().to_string();
    assert_eq!(said, "nothing was done: another release is on trial here: r8 is");
    let answer = local.says(b"{\"said\":null,\"ask\":\"release-hold\"}\n").await;
    assert!(
        answer.contains("not a person") && answer.contains("--by NAME"),
        "{answer}"
    );
    let answer = local
        .says(b"{\"said\":\"anna\",\"ask\":{\"hold\":{\"reason\":\"a\\nb\"}}}\n")
        .await;
    assert!(answer.contains("one line"), "{answer}");
    assert!(local.inbox.has_no_commands());
}

#[tokio::test(flavor = "multi_thread")]
async fn how_it_stands_is_shown_with_all_that_a_person_needs_for_the_next_command() {
    let mut view = on_trial();
    view.hold = Some(PersonHold {
        by: "anna".to_owned(),
        why: "x".to_owned(),
        since_ms: 1,
    });
    view.reverted = vec![RevertedRelease {
        statement: Digest([6; 32]),
        revision: Revision(6),
        code: "asked".to_owned(),
        why: "x".to_owned(),
        at_ms: 1,
        ordered: false,
    }];
    let local = Local::start(view.clone()).await;
    let settings = local.settings.clone();
    let standing = tokio::task::spawn_blocking(move || ask::standing(&settings))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(standing.in_kernel.unwrap().revision, 8);
    assert_eq!(standing.change.trial.unwrap().left_ms, 240_000);
    assert_eq!(
        (standing.change.hold, standing.change.reverted),
        (view.hold, view.reverted)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_answered_shortly_or_not_at_all_and_harms_nobody() {
    let local = Local::start(with_seven()).await;
    assert!(
        local
            .says(b"GET / HTTP/1.1\n")
            .await
            .contains("not one that this agent knows")
    );
    // Longer than a question may be, and never ended.
    assert_eq!(local.says(&[b'{'; REQUEST_BYTES_MAX + 1]).await, "");
    let said = local.says(b"{\"said\":null,\"ask\":\"standing\"}\n").await;
    assert!(said.contains("\"revision\":7"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_take_a_few_seats_for_a_few_seconds_and_others_are_told_to_come_again() {
    let local = Local::start(with_seven()).await;
    let connect = || std::os::unix::net::UnixStream::connect(&local.settings.socket).unwrap();
    let silent: Vec<_> = (0..SEATS).map(|_| connect()).collect();
    let busy = local.says(b"{\"said\":null,\"ask\":\"standing\"}\n").await;
    assert!(busy.contains("try again in a moment"), "{busy}");
    drop(silent);
    loop {
        let said = local.says(b"{\"said\":null,\"ask\":\"standing\"}\n").await;
        if said.contains("\"revision\":7") {
            break;
        }
    }
}

#[tokio::test]
async fn the_socket_is_closed_to_others_from_the_first_moment_and_takes_the_place_of_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let settings = LocalSettings {
        socket: folder.path().join("s"),
        group: Some("no-such-group-here".to_owned()),
    };
    let left = std::os::unix::net::UnixListener::bind(&settings.socket).unwrap();
    drop(left);
    let Listening {
        listener: _listener,
        rights,
        ..
    } = listen(&settings).unwrap();
    let mode = std::fs::metadata(&settings.socket).unwrap().permissions().mode();
    assert_eq!(
        (mode & 0o777, rights.group),
        (0o600, None),
        "an unknown group opens nothing"
    );
    assert!(std::os::unix::net::UnixStream::connect(&settings.socket).is_ok());
    let entries = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(entries, 1);
}

#[test]
fn without_an_agent_a_person_reads_that_there_is_none() {
    let settings = LocalSettings {
        socket: PathBuf::from("/nonexistent/local.sock"),
        group: None,
    };
    let error = ask::standing(&settings).unwrap_err();
    assert!(matches!(error, AskError::NotThere(_)));
    assert!(error.to_string().contains("start it"), "{error}");
}

#[tokio::test]
async fn a_socket_that_cannot_be_made_is_a_fault_until_it_is_made_and_one_that_somebody_took_away_is_made_again()
 {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let socket = run.join(crate::local::SOCKET);
    let (_view, policy) = watch::channel(with_seven());
    let (audit, mut recorded) = Audit::without_spool();
    let (faults, mut shown) = watch::channel(Vec::new());
    let server = Server {
        withdrawn: nothing_withdrawn(folder.path(), &audit),
        trust: no_other_roots(folder.path(), &audit),
        settings: LocalSettings {
            socket: socket.clone(),
            group: Some("no-such-group".to_owned()),
        },
        policy,
        inlet: inbox().0,
        timepiece: Timepiece::Kernel,
        audit,
        faults,
        further: Vec::new(),
        again: Duration::from_millis(5),
    };
    let stop = CancellationToken::new();
    let server = tokio::spawn(server.run(stop.clone()));
    let is_said = |words: &'static str| {
        move |faults: &Vec<Fault>| {
            let fault = faults.first();
            fault.is_some_and(|fault| fault.code == "local-socket" && fault.message.contains(words))
        }
    };
    shown.wait_for(is_said("cannot be made")).await.unwrap();
    std::fs::create_dir(&run).unwrap();
    shown
        .wait_for(is_said("`no-such-group` cannot steer"))
        .await
        .unwrap();
    std::fs::remove_file(&socket).unwrap();
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut said = 0;
    while recorded.try_recv().is_ok() {
        said += 1;
    }
    assert_eq!(said, 2, "the same again is no news");
    stop.cancel();
    server.await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_list_of_withdrawn_keys_that_cannot_be_judged_here_is_refused_with_what_is_wrong() {
    let local = Local::start(with_seven()).await;
    let asked = async |list: &str| {
        let (settings, list) = (local.settings.clone(), list.to_owned());
        let ask_for = Ask::TakeWithdrawn { list };
        let asked =
            tokio::task::spawn_blocking(move || ask::steer(&settings, Some("anna".to_owned()), ask_for));
        asked.await.unwrap().unwrap_err().to_string()
    };
    let refused = asked("{}").await;
    assert!(
        refused.contains("nothing was done: it is not a signed list"),
        "{refused}"
    );
    let unjudged = SignedList {
        payload: b"{}".to_vec(),
        ..SignedList::default()
    };
    let refused = asked(&unjudged.to_json()).await;
    assert!(refused.contains("this gateway is not enrolled"), "{refused}");
    local.stop.cancel();
}
