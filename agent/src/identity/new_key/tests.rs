//! A machine that is killed between any two steps of getting a certificate, or a new key.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use penstock_policy::ids::Digest;
use penstock_policy::model::ApproverSet;
use penstock_proto::keys::{FileKey, certificate_request, has_signed};
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::tls::Credentials;
use penstock_proto::v1::EnrolResponse;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use super::*;
use crate::identity::{Enrolment, Identity};
use crate::store::Store;
use crate::tpm::{KeyPlace, Tpm, TpmAddress};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn enrolment(&self) -> Enrolment {
        Enrolment {
            plant: "works".parse().unwrap(),
            gateway: "gw".parse().unwrap(),
            coordinators: Vec::new(),
            root_digest: Digest::of(self.0.der()),
            approvers: ApproverSet {
                emergency_threshold: None,
                threshold: 1,
                people: BTreeMap::new(),
            },
        }
    }

    /// What the coordinator answers for this key.
    fn answer(&self, key: &Key) -> EnrolResponse {
        let own = PeerIdentity {
            plant: "works".parse().unwrap(),
            subject: Subject::Gateway("gw".parse().unwrap()),
        };
        let request = certificate_request(key, Some(&own)).unwrap();
        let request = request.as_slice().into();
        let mut request = rcgen::CertificateSigningRequestParams::from_der(&request).unwrap();
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = request.signed_by(&self.0).unwrap().der().to_vec();
        let root = self.0.der().to_vec();
        EnrolResponse {
            certificate_chain: vec![leaf.into(), root.clone().into()],
            trust_bundle: vec![root.into()],
        }
    }

    fn check(&self, folder: &IdentityFolder, key: &Key) -> IssuedChain {
        let held = folder.held_roots().unwrap();
        IdentityFolder::check(&self.enrolment(), key, &held, &self.answer(key)).unwrap()
    }

    fn load(&self, folder: &IdentityFolder) -> Identity {
        folder.load(self.enrolment()).unwrap()
    }
}

fn public(identity: &Identity) -> Vec<u8> {
    let leaf = identity.credentials().chain().first().unwrap();
    assert_eq!(
        certified_key(leaf).unwrap(),
        identity.credentials().key().subject_public_key_info(),
        "its certificate is for its key"
    );
    let signature = identity.credentials().key().sign(b"a message").unwrap();
    assert!(has_signed(leaf, b"a message", &signature), "its key signs");
    certified_key(leaf).unwrap()
}

/// Killed between each two steps, with the old key in the one place and the new one in the other.
fn killed_at_each_step(from: KeyPlace, to: KeyPlace, tpm: &Tpm) {
    let mut killed = Vec::new();
    for seam in 0.. {
        let (authority, state) = (Authority::new(), tempfile::tempdir().unwrap());
        let keeping = |place| IdentityFolder::new(state.path()).with_keys(place, tpm.clone());
        let old_key = keeping(from).key().unwrap();
        let folder = keeping(to);
        folder.store_issued(&authority.check(&folder, &old_key)).unwrap();
        // Several certificates of the old key are there.
        folder.store_issued(&authority.check(&folder, &old_key)).unwrap();
        let old = public(&authority.load(&folder));

        let new_key = folder.next_key().unwrap();
        assert_eq!(public(&authority.load(&folder)), old, "the old key is in use");
        let issued = authority.check(&folder, &new_key);
        let mut passed = 0;
        let done = catch_unwind(AssertUnwindSafe(|| {
            folder.new_key_step_by_step(&issued, &mut |step| {
                if passed == seam {
                    killed.push(step);
                    panic!("killed: {step}");
                }
                passed += 1;
            })
        }));
        let before = public(&authority.load(&folder));
        assert!(
            before == old || before == new_key.subject_public_key_info(),
            "{killed:?}"
        );

        // The same command again: as `enrol` does it.
        let is_next = !folder.resume_new_key().unwrap();
        let key = match is_next {
            true if done.is_err() => folder.next_key().unwrap(),
            _ => folder.key().unwrap(),
        };
        assert_eq!(
            key.subject_public_key_info(),
            new_key.subject_public_key_info(),
            "the same token is shown with the same key: {killed:?}"
        );
        let issued = authority.check(&folder, &key);
        match is_next && done.is_err() {
            true => folder.store_new_key(&issued).unwrap(),
            false => folder.store_issued(&issued).unwrap(),
        }
        assert_eq!(
            public(&authority.load(&folder)),
            new_key.subject_public_key_info()
        );
        assert!(!folder.resume_new_key().unwrap() && !folder.next("key.pem").exists());
        assert_eq!(folder.key_place().unwrap(), Some(to));
        if done.is_ok() {
            break;
        }
    }
    assert_eq!(
        killed,
        [
            "before its certificate",
            "roots",
            "its certificate",
            "the key in its place",
            "its certificate in its place",
            "what belonged to the old key is gone",
        ]
    );
}

#[test]
fn whenever_it_is_killed_while_it_gets_a_new_key_there_is_a_usable_identity_and_the_next_attempt_ends_with_the_new_one()
 {
    let nowhere = Tpm::at(TpmAddress::Socket("/nowhere/tpm".into()));
    killed_at_each_step(KeyPlace::File, KeyPlace::File, &nowhere);
}

#[test]
fn so_it_is_where_the_new_key_is_in_a_tpm_or_the_old_one_or_both() {
    let swtpm = Swtpm::start();
    let tpm = Tpm::at(TpmAddress::Socket(swtpm.socket()));
    for (from, to) in [
        (KeyPlace::File, KeyPlace::Tpm),
        (KeyPlace::Tpm, KeyPlace::Tpm),
        (KeyPlace::Tpm, KeyPlace::File),
    ] {
        killed_at_each_step(from, to, &tpm);
    }
}

/// A TPM that others wrote, in a folder of its own.
struct Swtpm {
    folder: tempfile::TempDir,
    running: Child,
}

impl Swtpm {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg(format!("--tpmstate=dir={at}"))
            .arg(format!("--server=type=unixio,path={at}/tpm"))
            .arg(format!("--ctrl=type=unixio,path={at}/tpm.ctrl"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let started = Self {
            running: child.expect("scripts/setup installs swtpm"),
            folder,
        };
        let began = Instant::now();
        while !started.socket().exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "swtpm did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        started
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tpm")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

/// The steps at which a certificate is stored.
const ISSUED: [&str; 4] = [
    "before anything is written",
    "the one before is kept",
    "roots",
    "the new one",
];

/// Stores a certificate for this key, until it is killed after so many steps; the step, if it was.
fn stores_until(folder: &IdentityFolder, issued: &IssuedChain, seam: usize) -> Option<&'static str> {
    let (mut passed, mut killed) = (0, None);
    let _ = catch_unwind(AssertUnwindSafe(|| {
        folder.issued_step_by_step(issued, &mut |step| {
            if passed == seam {
                killed = Some(step);
                panic!("killed: {step}");
            }
            passed += 1;
        })
    }));
    killed
}

#[test]
fn whenever_it_is_killed_while_a_certificate_is_renewed_one_of_the_two_is_usable_and_the_next_renewal_is_stored()
 {
    for (seam, step) in ISSUED.into_iter().enumerate() {
        let (authority, state) = (Authority::new(), tempfile::tempdir().unwrap());
        let folder = IdentityFolder::new(state.path());
        let key = folder.key().unwrap();
        let first = authority.check(&folder, &key);
        folder.store_issued(&first).unwrap();
        let second = authority.check(&folder, &key);
        assert_eq!(stores_until(&folder, &second, seam), Some(step));
        let in_use = authority.load(&folder);
        assert_eq!(public(&in_use), key.subject_public_key_info(), "{step}");
        let shown = in_use.credentials().chain();
        assert!(shown == first.chain || shown == second.chain, "{step}");
        let third = authority.check(&folder, &key);
        folder.store_issued(&third).unwrap();
        let held: Vec<_> = authority.load(&folder).profiles().collect();
        let chains = held.iter().filter_map(|profile| profile.credentials.as_ref());
        assert!(
            chains.map(Credentials::chain).any(|chain| chain == third.chain),
            "{step}"
        );
    }
}

#[test]
fn whenever_it_is_killed_while_it_enrols_it_is_not_enrolled_or_has_a_usable_identity_and_the_same_token_goes_on()
 {
    let mut killed = Vec::new();
    // Before the key is there, at each step of the certificate, and before and after the record.
    for seam in 0..ISSUED.len() + 3 {
        let (authority, state) = (Authority::new(), tempfile::tempdir().unwrap());
        let folder = IdentityFolder::new(state.path());
        let steps = || {
            if seam == 0 {
                return "no key yet";
            }
            let key = folder.key().unwrap();
            let issued = authority.check(&folder, &key);
            if let Some(step) = stores_until(&folder, &issued, seam - 1) {
                return step;
            }
            if seam == ISSUED.len() + 1 {
                return "before the record";
            }
            let mut store = Store::open(state.path());
            IdentityFolder::store_enrolment(&mut store, &authority.enrolment()).unwrap();
            "the record"
        };
        let step = steps();
        killed.push(step);
        let enrolled = IdentityFolder::enrolment(&mut Store::open(state.path()));
        match enrolled {
            Ok(enrolment) => drop(folder.load(enrolment).unwrap()),
            Err(IdentityError::NotEnrolled) => assert_ne!(step, "the record"),
            Err(error) => panic!("{step}: {error}"),
        }
        // The same command again, with the key that the token is known by.
        let before = FileKey::find(&folder.path("key.pem")).unwrap().map(Key::from);
        let key = folder.key().unwrap();
        if let Some(before) = before {
            assert_eq!(
                before.subject_public_key_info(),
                key.subject_public_key_info(),
                "{step}"
            );
        }
        folder.store_issued(&authority.check(&folder, &key)).unwrap();
        let mut store = Store::open(state.path());
        IdentityFolder::store_enrolment(&mut store, &authority.enrolment()).unwrap();
        let enrolment = IdentityFolder::enrolment(&mut store).unwrap();
        let identity = folder.load(enrolment).unwrap();
        assert_eq!(public(&identity), key.subject_public_key_info(), "{step}");
    }
    let all: Vec<_> = ["no key yet"]
        .into_iter()
        .chain(ISSUED)
        .chain(["before the record", "the record"])
        .collect();
    assert_eq!(killed, all);
}

#[test]
fn a_root_that_an_answer_brings_is_not_kept_and_issues_nothing() {
    let (authority, state) = (Authority::new(), tempfile::tempdir().unwrap());
    let folder = IdentityFolder::new(state.path());
    let key = folder.key().unwrap();
    folder.store_issued(&authority.check(&folder, &key)).unwrap();
    let held = folder.held_roots().unwrap();
    let thief = Authority::new();
    let strange = Digest::of(thief.0.der()).to_string();
    let check = |answer: &EnrolResponse| IdentityFolder::check(&authority.enrolment(), &key, &held, answer);

    // Beside a certificate that is good: it is taken, and the root is named.
    let mut answer = authority.answer(&key);
    answer.trust_bundle.push(thief.0.der().to_vec().into());
    let issued = check(&answer).unwrap();
    assert!(issued.strange_roots().unwrap().contains(&strange));
    folder.store_issued(&issued).unwrap();
    assert_eq!(folder.held_roots().unwrap(), held);
    // One that the answer does not name stays.
    answer.trust_bundle = vec![thief.0.der().to_vec().into()];
    folder.store_issued(&check(&answer).unwrap()).unwrap();
    assert_eq!(folder.held_roots().unwrap(), held);

    // A certificate that it issued is not taken, whatever else is in the answer.
    let mut answer = thief.answer(&key);
    answer.trust_bundle.push(authority.0.der().to_vec().into());
    let refused = check(&answer).unwrap_err().to_string();
    assert!(
        refused.contains("no root that this gateway holds issued") && refused.contains(&strange),
        "{refused}"
    );
    // Before there is any root, the token's is the one.
    let first = |answer: &EnrolResponse| IdentityFolder::check(&authority.enrolment(), &key, &[], answer);
    assert_eq!(first(&authority.answer(&key)).unwrap().roots, held);
    assert!(first(&answer).is_err());
}
