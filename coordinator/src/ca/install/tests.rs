//! A key that a root elsewhere certified: how it comes into use, what is refused, and what others make of what it issues.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::process::Command;
use std::time::Duration;

use penstock_policy::ids::{CoordinatorId, Digest};
use penstock_proto::keys::Passphrase;
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::tls::issuers;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::withdrawn::Withdrawn;

use super::super::{IssuedCertificate, IssuingTerms, Lifetimes, OfflineRoot, ProvenKey};
use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

fn plant() -> PlantId {
    "water".parse().unwrap()
}

fn terms(days: u32) -> IssuingTerms {
    IssuingTerms {
        coordinator: CoordinatorId::new("c1").unwrap(),
        lifetime: DAY * days,
        constrained: true,
    }
}

/// A root elsewhere, and the coordinator's folder.
struct Machines {
    folder: tempfile::TempDir,
    root: OfflineRoot,
}

impl Machines {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = OfflineRoot::create(&folder.path().join("root"), plant(), None, NOW_MS).unwrap();
        std::fs::create_dir(folder.path().join("ca")).unwrap();
        Authority::begin_under(&folder.path().join("ca"), &folder.path().join("root/root.pem")).unwrap();
        Self { folder, root }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca")
    }

    fn load(&self) -> Result<Authority, CaError> {
        Authority::load(&self.ca(), plant(), Lifetimes::all(90 * DAY))
    }

    fn signed(&self, days: u32) -> String {
        let request = Authority::request(&self.ca()).unwrap();
        self.root.sign(&request, &terms(days), NOW_MS).unwrap()
    }

    fn install(&self, pem: &str) -> Result<(), CaError> {
        Authority::install(&self.ca(), &plant(), pem.as_bytes(), &[], NOW_MS)
    }
}

fn issue(authority: &Authority, now_ms: u64) -> IssuedCertificate {
    let key = FileKey::generate(KeyKind::EcdsaP256).unwrap();
    let request = certificate_request(&key.into(), None).unwrap();
    let subject: Subject = "gateway/gw-1".parse().unwrap();
    let proven = ProvenKey::of_request(&request).unwrap();
    authority
        .issue((&subject, Epoch(1)), &ServerNames::default(), &proven, now_ms)
        .unwrap()
}

#[test]
fn a_key_that_the_root_certified_issues_once_that_is_installed_and_the_next_one_takes_its_place() {
    let machines = Machines::new();
    assert!(machines.load().is_err(), "nothing issues yet");
    let requested = || ProvenKey::of_request(&Authority::request(&machines.ca()).unwrap()).unwrap();
    assert_eq!(
        requested().digest(),
        requested().digest(),
        "asked for again, it is the same key"
    );
    let first = machines.signed(1825);
    machines.install(&first).unwrap();
    let authority = machines.load().unwrap();
    assert_eq!(authority.roots(), [machines.root.certificate().clone()]);
    assert_eq!(authority.root_digest(), Digest::of(machines.root.certificate()));
    let issued = issue(&authority, NOW_MS);
    assert_eq!(issued.chain.len(), 3);
    assert_eq!(issued.chain[1..], authority.issuers());
    assert_eq!(
        issuers(&plant(), &issued.chain, &authority.roots()),
        Some(authority.issuers())
    );
    // The list of withdrawn keys is signed by the same key, and says by what.
    let mut withdrawn = Withdrawn::default();
    withdrawn.withdraw(&"device/plc".parse().unwrap(), Epoch(2));
    let list = withdrawn
        .since(Withdrawn::default().held(), &plant(), NOW_MS)
        .unwrap();
    let signed = authority.sign_list(&list).unwrap();
    assert_eq!(signed.verify(&plant(), &authority.roots()).unwrap(), list);
    // The next key is another one, and what the first issued goes on counting.
    let second = machines.signed(1825);
    assert_ne!(second, first);
    machines.install(&second).unwrap();
    let after = machines.load().unwrap();
    assert_ne!(after.issuers(), authority.issuers());
    assert!(issuers(&plant(), &issued.chain, &after.roots()).is_some());
}

#[test]
fn a_coordinator_that_is_killed_between_certificate_and_key_issues_with_the_new_one() {
    let machines = Machines::new();
    let first = machines.signed(1825);
    machines.install(&first).unwrap();
    let second = machines.signed(1825);
    std::fs::write(machines.ca().join(ISSUING), &second).unwrap();
    let authority = machines.load().unwrap();
    let pem = certificates_to_pem(&authority.issuers()[..1]);
    assert_eq!(
        pem.lines().collect::<String>(),
        second.lines().collect::<String>()
    );
    // The same command goes on where it was.
    machines.install(&second).unwrap();
    assert!(!machines.ca().join(NEXT_KEY).exists());
    machines.load().unwrap();
    // In a folder without the key, what to do is said.
    std::fs::remove_file(machines.ca().join(KEY)).unwrap();
    let refused = machines.load().err().unwrap().to_string();
    assert!(refused.contains("authority request"), "{refused}");
}

#[test]
fn what_this_coordinator_cannot_issue_with_is_not_installed_and_what_was_in_use_stays() {
    let machines = Machines::new();
    let good = machines.signed(1825);
    machines.install(&good).unwrap();
    let before = machines.load().unwrap().issuers();
    let elsewhere = Machines::new();
    let other_plant = OfflineRoot::create(
        &machines.folder.path().join("steel"),
        "steel".parse().unwrap(),
        None,
        NOW_MS,
    )
    .unwrap();
    let request = Authority::request(&machines.ca()).unwrap();
    let later = machines.root.sign(&request, &terms(1825), NOW_MS).unwrap();
    let leaf = issue(&machines.load().unwrap(), NOW_MS).chain[0].clone();
    let stranger = certificate_request(&FileKey::generate(KeyKind::EcdsaP384).unwrap().into(), None).unwrap();
    for (pem, words) in [
        (elsewhere.signed(1825), "no root certificate that is trusted here"),
        (
            other_plant.sign(&request, &terms(1825), NOW_MS).unwrap(),
            "is for spiffe://steel, and this is plant water",
        ),
        (
            machines.root.sign(&stranger, &terms(1825), NOW_MS).unwrap(),
            "a key that was not made here",
        ),
        (
            machines
                .root
                .sign(&request, &terms(1825), NOW_MS - 400 * 86_400_000 * 5)
                .unwrap(),
            "this machine's clock shows",
        ),
        (certificates_to_pem(&[leaf]), "not an authority's"),
        (format!("{later}{good}"), "2 certificates were given"),
        ("no certificate".to_owned(), "stored certificate or key"),
    ] {
        let refused = machines.install(&pem).unwrap_err().to_string();
        assert!(refused.contains(words), "{words}: {refused}");
        assert_eq!(machines.load().unwrap().issuers(), before);
    }
}

#[test]
fn nothing_is_issued_beyond_the_end_of_what_issues_it_but_by_a_clock_that_is_beyond_it() {
    let machines = Machines::new();
    machines.install(&machines.signed(30)).unwrap();
    let authority = machines.load().unwrap();
    let day_ms = 86_400_000;
    let ends_ms = authority.ends_ms();
    assert_eq!(ends_ms, NOW_MS + 30 * day_ms);
    for (now_ms, until_ms) in [
        (NOW_MS + 500, ends_ms),
        (NOW_MS + 29 * day_ms, ends_ms),
        (NOW_MS + 40 * day_ms, NOW_MS + 130 * day_ms),
    ] {
        let issued = issue(&authority, now_ms);
        assert_eq!(issued.expires_ms, until_ms);
        assert_eq!(validity_ms(&issued.chain[0]).unwrap().1, until_ms);
    }
}

#[test]
fn a_roots_key_opens_with_its_passphrase_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("root");
    let passphrase = |text: &str| Passphrase::new(text.to_owned());
    let made = OfflineRoot::create(&dir, plant(), Some(&passphrase("correct horse")), NOW_MS).unwrap();
    let opened = OfflineRoot::open(&dir, || Ok(passphrase("correct horse"))).unwrap();
    assert_eq!(
        (opened.plant(), opened.certificate()),
        (&plant(), made.certificate())
    );
    assert!(OfflineRoot::open(&dir, || Ok(passphrase("battery staple"))).is_err());
    assert!(
        OfflineRoot::create(&dir, plant(), None, NOW_MS).is_err(),
        "the one that is there stays"
    );
}

#[test]
fn openssl_accepts_what_is_issued_and_holds_the_issuing_certificate_to_its_plant() {
    let machines = Machines::new();
    let pem = machines.signed(1825);
    machines.install(&pem).unwrap();
    let authority = machines.load().unwrap();
    let file = |name: &str, certificates: &[CertificateDer<'_>]| {
        let path = machines.folder.path().join(name);
        std::fs::write(&path, certificates_to_pem(certificates)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // By now, for OpenSSL's own clock.
    let now_ms = crate::clock::now_ms().max(NOW_MS - 3_600_000);
    let at = (now_ms / 1000).to_string();
    let issuing = file("issuing.pem", &authority.issuers()[..1]);
    let root = file("root.pem", &authority.roots());
    let verify = |leaf: &str| {
        let output = Command::new("openssl")
            .args([
                "verify",
                "-x509_strict",
                "-attime",
                &at,
                "-CAfile",
                &root,
                "-untrusted",
                &issuing,
                leaf,
            ])
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let ours = file("ours.pem", &issue(&authority, now_ms).chain[..1]);
    let (good, said) = verify(&ours);
    assert!(good, "{said}");
    // The same key certifies somebody of another plant.
    let mut elsewhere = machines.load().unwrap();
    elsewhere.plant = "steel".parse().unwrap();
    let theirs = issue(&elsewhere, now_ms).chain;
    let (good, said) = verify(&file("theirs.pem", &theirs[..1]));
    assert!(!good && said.contains("permitted subtree violation"), "{said}");
}
