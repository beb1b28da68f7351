//! A machine that is killed between any two steps of getting a new key.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use penstock_policy::ids::Digest;
use penstock_policy::model::ApproverSet;
use penstock_proto::keys::certificate_request;
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::v1::EnrolResponse;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use super::*;
use crate::identity::{Enrolment, Identity};

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
    certified_key(leaf).unwrap()
}

#[test]
fn whenever_it_is_killed_while_it_gets_a_new_key_there_is_a_usable_identity_and_the_next_attempt_ends_with_the_new_one()
 {
    let mut killed = Vec::new();
    for seam in 0.. {
        let (authority, state) = (Authority::new(), tempfile::tempdir().unwrap());
        let folder = IdentityFolder::new(state.path());
        let old_key = folder.key().unwrap();
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
