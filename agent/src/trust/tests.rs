#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use penstock_policy::ids::PlantId;
use penstock_policy::model::ApproverSet;
use penstock_proto::bundle::{Bundle, BundleRoot, Phase};
use penstock_proto::keys::{FileKey, Key};
use penstock_proto::tls::certificates_to_pem;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use super::*;
use crate::identity::Enrolment;

fn plant() -> PlantId {
    "works".parse().unwrap()
}

struct Root {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: Key,
}

impl Root {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pair = KeyPair::generate().unwrap();
        let key = FileKey::from_pem(pair.serialize_pem().as_bytes(), "a root")
            .unwrap()
            .into();
        Self {
            issuer: CertifiedIssuer::self_signed(params, pair).unwrap(),
            key,
        }
    }

    /// The next bundle after this, by which another root is trusted too.
    fn adds(&self, before: &Trusted, other: &Self) -> SignedBundle {
        let roots = vec![
            BundleRoot::new(self.issuer.der(), Phase::Active),
            BundleRoot::new(other.issuer.der(), Phase::Next),
        ];
        let mut signed = SignedBundle::unsigned(&Bundle::following(before, &plant(), 1, roots, []).unwrap());
        signed.sign(&self.key).unwrap();
        signed
    }
}

/// A gateway below this root.
fn keeper(root: &Root, folder: &std::path::Path) -> Arc<TrustKeeper> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let name = SanType::URI("spiffe://works/gateway/gw".try_into().unwrap());
    params.subject_alt_names.push(name);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &root.issuer).unwrap();
    let files = folder.join("identity");
    std::fs::create_dir_all(&files).unwrap();
    std::fs::write(files.join("chain.pem"), certificates_to_pem(&[leaf.der()])).unwrap();
    std::fs::write(files.join("roots.pem"), certificates_to_pem(&[root.issuer.der()])).unwrap();
    std::fs::write(files.join("key.pem"), key.serialize_pem()).unwrap();
    let enrolment = Enrolment {
        plant: plant(),
        gateway: "gw".parse().unwrap(),
        coordinators: Vec::new(),
        root_digest: Digest::of(root.issuer.der()),
        approvers: ApproverSet {
            emergency_threshold: None,
            threshold: 1,
            people: BTreeMap::new(),
        },
    };
    let folder = IdentityFolder::new(folder);
    let identity = Some(Arc::new(folder.load(enrolment).unwrap()));
    TrustKeeper::new(folder, watch::channel(identity).0, Audit::without_spool().0)
}

fn anchor(bundle: &SignedBundle) -> Anchor {
    Anchor {
        number: bundle.unverified().unwrap().number,
        digest: Digest::of(&bundle.payload),
    }
}

#[tokio::test]
async fn a_bundle_that_a_release_names_is_taken_by_a_root_that_is_trusted_and_one_that_nobody_brings_is_a_fault()
 {
    let folder = tempfile::tempdir().unwrap();
    let [root, next, thief] = ["root", "next", "thief"].map(Root::new);
    let keeper = keeper(&root, folder.path());
    let first = Trusted::first(&[root.issuer.der().clone()]);
    let [bundle, forged] = [&root, &thief].map(|signer| signer.adds(&first, &next));
    let brought = |bundles: &[SignedBundle]| TrustBundles::from(bundles);
    let said = || {
        keeper
            .faults()
            .borrow()
            .first()
            .map(|fault| fault.message.clone())
    };
    let number = || keeper.held().unwrap().number;

    keeper
        .learn(anchor(&bundle), TrustBundles::default(), "with r7")
        .await;
    let words = said().unwrap();
    assert!(
        words.contains("with r7 came a release whose approvers name trust bundle 1"),
        "{words}"
    );
    // The approvers' word does not stand for a root's.
    keeper
        .learn(anchor(&forged), brought(std::slice::from_ref(&forged)), "with r8")
        .await;
    assert!(
        said()
            .unwrap()
            .contains("no root certificate that is trusted here signed"),
        "{:?}",
        said()
    );
    // What they did not name is not taken with it.
    keeper
        .learn(anchor(&forged), brought(std::slice::from_ref(&bundle)), "with r9")
        .await;
    assert_eq!(number(), 0);
    keeper
        .learn(
            anchor(&bundle),
            brought(std::slice::from_ref(&bundle)),
            "with r10",
        )
        .await;
    assert_eq!((number(), said()), (1, None));
    // An older one, and the same again, are nothing new; another one of the same number is an alarm.
    keeper
        .learn(anchor(&bundle), TrustBundles::default(), "with r11")
        .await;
    assert_eq!(said(), None);
    keeper
        .learn(anchor(&forged), brought(&[forged]), "with r12")
        .await;
    assert!(said().is_some());
    assert_eq!(number(), 1);
    // What is held can be given back to a coordinator that lost it.
    let shown: Vec<SignedBundle> = keeper.show().await.unwrap().into();
    assert_eq!(shown, [bundle]);
}

#[tokio::test]
async fn that_approvers_name_a_bundle_stays_a_fault_whatever_a_coordinator_sends_until_it_is_held_however_it_comes()
 {
    let folder = tempfile::tempdir().unwrap();
    let [root, next, thief] = ["root", "next", "thief"].map(Root::new);
    let keeper = keeper(&root, folder.path());
    let first = Trusted::first(&[root.issuer.der().clone()]);
    let older = root.adds(&first, &next);
    let named = root.adds(&older.trusted().unwrap(), &next);
    let forged = thief.adds(&older.trusted().unwrap(), &next);
    let bring = |bundles: &[SignedBundle]| keeper.bring(TrustBundles::from(bundles));
    let said = || {
        let faults = keeper.faults().borrow().clone();
        let is_lacking = |fault: &Fault| fault.message.contains("approvers name trust bundle 2");
        (faults.len(), faults.iter().any(is_lacking))
    };

    keeper
        .learn(anchor(&named), TrustBundles::default(), "with r7")
        .await;
    assert_eq!(said(), (1, true));
    bring(&[]).await;
    bring(std::slice::from_ref(&older)).await;
    assert_eq!((said(), keeper.held().unwrap().number), ((1, true), 1));
    bring(&[forged]).await;
    assert_eq!(said(), (2, true), "each is said");
    keeper
        .learn(anchor(&older), TrustBundles::default(), "with r6")
        .await;
    assert_eq!(said(), (2, true), "what is known already says nothing of it");
    bring(&[]).await;
    assert_eq!(said(), (1, true));
    keeper.take(vec![named], "brought by anna").await.unwrap();
    assert_eq!(said(), (0, false));
}
