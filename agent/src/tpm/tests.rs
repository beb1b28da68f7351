//! What a TPM may answer: anything; and what is asked of one with a resource manager. Real answers are in `tests/tests/api/tpm.rs`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::session::{Session, Transport};
use super::wire::{self, Answer, WrappedKey};
use super::{TpmAddress, TpmError, form};

fn address() -> TpmAddress {
    TpmAddress::Device("/dev/tpm-of-the-test".into())
}

/// A TPM that says to each command what it is told to.
struct Script<F>(F);

impl<F: FnMut(&[u8]) -> io::Result<Vec<u8>> + Send> Transport for Script<F> {
    fn exchange(&mut self, command: &[u8], _: Instant) -> io::Result<Vec<u8>> {
        (self.0)(command)
    }

    fn has_a_resource_manager(&self) -> bool {
        true
    }
}

fn session(answers: impl FnMut(&[u8]) -> io::Result<Vec<u8>> + Send + 'static) -> Session {
    Session::over(address(), Box::new(Script(answers)))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn code_of(command: &[u8]) -> u32 {
    u32::from_be_bytes(command.get(6..10).unwrap().try_into().unwrap())
}

fn framed(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + wire::HEADER_BYTES).unwrap();
    [
        &tag.to_be_bytes()[..],
        &size.to_be_bytes(),
        &code.to_be_bytes(),
        body,
    ]
    .concat()
}

/// With a password's session: handle, parameters, and the session's end.
fn done(handle: Option<u32>, parameters: &[u8]) -> Vec<u8> {
    let handle = handle
        .map(|handle| handle.to_be_bytes().to_vec())
        .unwrap_or_default();
    let size = u32::try_from(parameters.len()).unwrap().to_be_bytes();
    framed(
        0x8002,
        0,
        &[&handle[..], &size, parameters, &[0, 0, 1, 0, 0]].concat(),
    )
}

fn sized(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

fn signed(r: &[u8], s: &[u8]) -> Vec<u8> {
    [&[0x00, 0x18, 0x00, 0x0B][..], &sized(r), &sized(s)].concat()
}

fn wrapped() -> WrappedKey {
    // The public area of `create`, whose bytes end with those of the creation: type to KDF, then a point.
    let create = wire::create(1);
    let at = create
        .bytes
        .windows(4)
        .position(|four| four == [0x00, 0x23, 0x00, 0x0B])
        .unwrap();
    let template = create.bytes.get(at..at + 10 + 10).unwrap();
    WrappedKey {
        public: [template, &sized(&[7; 32]), &sized(&[9; 31])].concat(),
        private: vec![5; 126],
    }
}

/// The answers of a TPM that works.
fn well(command: &[u8]) -> Vec<u8> {
    match code_of(command) {
        0x131 => done(Some(0x8000_0000), &sized(&[1; 60])),
        0x157 => done(Some(0x8000_0001), &sized(&[2; 34])),
        0x15D => done(None, &signed(&[0x80; 32], &[1; 32])),
        0x165 => framed(0x8001, 0, &[]),
        other => panic!("nobody asks for {other:#x}"),
    }
}

#[test]
fn a_loaded_key_signs_by_one_command_each_and_one_that_was_forgotten_is_loaded_again() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, mut signatures) = (asked.clone(), 0);
    let mut session = session(move |command| {
        log.lock().unwrap().push(code_of(command));
        if code_of(command) == 0x15D {
            signatures += 1;
            if signatures == 3 {
                // As after a machine slept: the handle means nothing any more.
                return Ok(framed(0x8001, 0x18B, &[]));
            }
        }
        Ok(well(command))
    });
    let (key, sign) = (wrapped(), |session: &mut Session| {
        session.request(soon(), |session| session.sign(&wrapped(), &[3; 32]))
    });
    let der = sign(&mut session).unwrap();
    // A first bit that is set has a zero before it, or the number would be negative.
    assert_eq!(der.get(..5).unwrap(), [0x30, 0x45, 0x02, 0x21, 0x00]);
    sign(&mut session).unwrap();
    assert_eq!(*asked.lock().unwrap(), [0x131, 0x157, 0x165, 0x15D, 0x15D]);
    // The connection is made anew then, which this one's device cannot be.
    let gone = sign(&mut session).unwrap_err();
    assert!(matches!(gone, TpmError::Gone { .. }), "{gone}");
    assert_eq!(form::from_pem(form::to_pem(&key).as_bytes()), Some(key));
}

#[test]
fn a_refusal_says_what_to_do() {
    for (at, code, says) in [
        (0x157, 0x1DF, "enrol --new-key"),
        (0x131, 0x9A2, "owner hierarchy a password"),
        (0x131, 0x185, "switched it off"),
        (0x131, 0x902, "use /dev/tpmrm0"),
        (0x15D, 0x100, "the firmware has not started it"),
    ] {
        let mut session = session(move |command| {
            Ok(if code_of(command) == at {
                framed(0x8001, code, &[])
            } else {
                well(command)
            })
        });
        let refused = session
            .request(soon(), |session| session.sign(&wrapped(), &[3; 32]))
            .unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
    }
}

#[test]
fn a_tpm_that_asks_to_be_asked_again_is_and_not_for_ever() {
    for (times, works) in [(3, true), (u32::MAX, false)] {
        let mut left = times;
        let mut session = session(move |command| {
            if code_of(command) == 0x15D && left > 0 {
                left -= 1;
                return Ok(framed(0x8001, 0x922, &[]));
            }
            Ok(well(command))
        });
        let until = Instant::now() + Duration::from_millis(200);
        let signed = session.request(until, |session| session.sign(&wrapped(), &[3; 32]));
        assert_eq!(signed.is_ok(), works, "{signed:?}");
    }
}

/// Bytes, or an answer that was well with some of its bytes changed, cut or added.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let spoilt = (
        0usize..4,
        any::<prop::sample::Index>(),
        any::<u8>(),
        prop::collection::vec(any::<u8>(), 0..3),
    )
        .prop_map(|(which, at, byte, more)| {
            let [primary, load, sign, flush] =
                [0x131u32, 0x157, 0x15D, 0x165].map(|code| framed(0, code, &[]));
            let command = [primary, load, sign, flush].into_iter().nth(which).unwrap();
            let mut answer = well(&command);
            let at = at.index(answer.len());
            *answer.get_mut(at).unwrap() = byte;
            answer.extend(more);
            answer
        });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), spoilt]
}

proptest! {
    #[test]
    fn whatever_a_tpm_answers_it_is_an_error_or_a_signature_and_never_more_than_there_is(answer in answers(), code in 0usize..4) {
        let command = match code {
            0 => wire::create_primary(),
            1 => wire::create(1),
            2 => wire::load(1, &wrapped()),
            _ => wire::sign(1, &[0; 32]),
        };
        if let Some(Answer::Done { parameters, .. }) = wire::answer(&command, &answer) {
            prop_assert!(parameters.len() < answer.len());
            if let Some(key) = wire::created(parameters) {
                prop_assert!(wire::point(&key.public).is_some());
            }
            if let Some(der) = wire::signature(parameters) {
                prop_assert!(der.len() <= 72);
            }
        }
        let said = answer.clone();
        let mut session = session(move |_| Ok(said.clone()));
        // Never a panic, and always an end.
        let until = Instant::now() + Duration::from_millis(1);
        let _ = session.request(until, |session| session.sign(&wrapped(), &[0; 32]));
    }

    #[test]
    fn a_spoilt_file_of_a_key_is_refused_or_is_another_key_of_the_same_form(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut pem = form::to_pem(&wrapped()).into_bytes();
        let at = at.index(pem.len());
        pem[at] = byte;
        if let Some(read) = form::from_pem(&pem) {
            prop_assert_eq!(form::from_pem(form::to_pem(&read).as_bytes()), Some(read));
        }
    }
}

/// A socket that takes whatever comes, and never answers.
fn deaf(folder: &std::path::Path) -> (TpmAddress, std::os::unix::net::UnixListener) {
    let path = folder.join("deaf");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    (TpmAddress::Socket(path), listener)
}

#[test]
fn a_tpm_that_hangs_costs_one_deadline_and_not_one_for_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _listener) = deaf(folder.path());
    let tpm = super::Tpm::at(address);
    let patience = Duration::from_millis(200);
    let ask = || {
        let began = Instant::now();
        let asked = tpm.sign_within(patience, &wrapped(), [0; 32]);
        (asked.unwrap_err(), began.elapsed())
    };
    let (hung, took) = ask();
    assert!(
        matches!(hung, TpmError::Hung(_)) && took >= patience,
        "{hung} {took:?}"
    );
    for _ in 0..20 {
        let (hung, took) = ask();
        assert!(
            matches!(hung, TpmError::Hung(_)) && took < patience,
            "{hung} {took:?}"
        );
    }
    assert_eq!(tpm.fault().borrow().clone(), Some(hung));
}

#[test]
fn a_counter_that_cannot_be_asked_is_no_fault_of_the_key_and_a_key_that_does_not_sign_is() {
    let tpm = super::Tpm::at(address());
    assert!(tpm.counter().is_err() && tpm.count_up().is_err());
    assert_eq!(tpm.fault().borrow().clone(), None);
    let gone = tpm.sign(&wrapped(), [0; 32]).unwrap_err();
    assert_eq!(tpm.fault().borrow().clone(), Some(gone));
}

#[test]
fn a_device_without_the_kernels_resource_manager_is_no_address_of_a_tpm() {
    for (text, is_one) in [
        ("/dev/tpmrm0", true),
        ("/dev/tpmrm1", true),
        ("swtpm:/run/tpm", true),
        ("/dev/tpm0", false),
        ("/dev/tpmrm", false),
        ("/dev/tpmrm0x", false),
        ("dev/tpmrm0", false),
        ("/dev/null", false),
    ] {
        assert_eq!(text.parse::<TpmAddress>().is_ok(), is_one, "{text}");
    }
}

#[test]
fn while_a_tpm_is_waited_for_the_other_tasks_of_the_same_thread_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _listener) = deaf(folder.path());
    let tpm = super::Tpm::at(address);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let asking = tokio::spawn(async move {
            let began = Instant::now();
            let asked = tpm.sign_within(Duration::from_secs(1), &wrapped(), [0; 32]);
            (asked.is_err(), began.elapsed())
        });
        let other = tokio::spawn(async {
            let began = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            began.elapsed()
        });
        let other = other.await.unwrap();
        let (failed, asked) = asking.await.unwrap();
        assert!(
            failed && asked >= Duration::from_secs(1) && other < asked / 2,
            "{other:?} {asked:?}"
        );
    });
}
