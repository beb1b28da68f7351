//! A key below the root that issues: certificates odd in every way that one can list, each refused with its reason, by both sides of
//! a connection and by whoever reads a list.

use penstock_proto::issuing::{self, NotIssuing};
use penstock_proto::tls::client::Trust;
use penstock_proto::tls::issuers;
use penstock_proto::withdrawn::{SignedList, Withdrawn};
use rcgen::CustomExtension;

use super::*;

/// An issuing certificate with its key.
struct Issuing(CertifiedIssuer<'static, KeyPair>);

impl Issuing {
    /// As a root certifies it, but for this change.
    fn with(root: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = issuing::params(&plant(), true).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationalUnitName, "issuing");
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2090, 1, 1));
        change(&mut params);
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root.0).unwrap())
    }

    fn new(root: &Authority) -> Self {
        Self::with(root, |_| ())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A peer's certificate, with what follows it.
    fn issue(&self, uri: &str, follows: &[CertificateDer<'static>]) -> Credentials {
        self.issue_as(uri, follows, |_| ())
    }

    fn issue_as(
        &self,
        uri: &str,
        follows: &[CertificateDer<'static>],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Credentials {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let chain = std::iter::once(leaf.der()).chain(follows).cloned().collect();
        Credentials::new(chain, FileKey::of(key).unwrap()).unwrap()
    }
}

/// What the client says of this server, and the server of this client: refused, or by whom it was seen.
async fn judged(root: &Authority, odd: &dyn Fn(&str) -> Credentials) -> [Result<String, String>; 2] {
    let roots = Trust::Roots(vec![root.root()]);
    let server = serve(&odd(COORDINATOR), root.root(), AcceptLimits::default()).await;
    let as_server = call(&[server], profile(roots.clone(), Some(root.issue(GATEWAY)))).await;
    let server = serve(&root.issue(COORDINATOR), root.root(), AcceptLimits::default()).await;
    let as_client = call(&[server], profile(roots, Some(odd(GATEWAY)))).await;
    [as_server, as_client]
}

#[tokio::test]
async fn a_peer_below_an_issuing_certificate_is_accepted_by_both_sides_with_the_root_and_without_and_by_a_pinned_root()
 {
    let root = Authority::new();
    let issuing = Issuing::new(&root);
    for follows in [vec![issuing.der()], vec![issuing.der(), root.root()]] {
        let good = |uri: &str| issuing.issue(uri, &follows);
        let [as_server, as_client] = judged(&root, &good).await;
        assert_eq!(
            (as_server.unwrap(), as_client.unwrap()),
            (GATEWAY.to_owned(), GATEWAY.to_owned())
        );
    }
    let whole = [issuing.der(), root.root()];
    let server = serve(
        &issuing.issue(COORDINATOR, &whole),
        root.root(),
        AcceptLimits::default(),
    )
    .await;
    let pin = Trust::Pin(Digest::of(&root.root()));
    assert_eq!(call(&[server], profile(pin, None)).await.unwrap(), "nobody");
}

#[tokio::test]
async fn each_odd_issuing_certificate_is_refused_by_name_and_lets_nobody_in() {
    let root = Authority::new();
    let other = Authority::new();
    let steel = || issuing::params(&"steel".parse().unwrap(), true).unwrap();
    let extension = |oid: &[u64], critical: bool| {
        let mut extension = CustomExtension::from_oid_content(oid, vec![0x05, 0x00]);
        extension.set_criticality(critical);
        extension
    };
    type Change<'a> = Box<dyn FnOnce(&mut CertificateParams) + 'a>;
    let odd: Vec<(&str, Change<'_>)> = vec![
        (
            "is not an authority's",
            Box::new(|p| p.is_ca = IsCa::ExplicitNoCa),
        ),
        ("is not an authority's", Box::new(|p| p.is_ca = IsCa::NoCa)),
        (
            "path length has to be 0",
            Box::new(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        (
            "path length has to be 0",
            Box::new(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1))),
        ),
        (
            "key usage keyCertSign and cRLSign",
            Box::new(|p| p.key_usages.clear()),
        ),
        (
            "key usage keyCertSign and cRLSign",
            Box::new(|p| p.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature]),
        ),
        (
            "key usage keyCertSign and cRLSign",
            Box::new(|p| p.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign]),
        ),
        (
            "is for spiffe://steel, and this is plant water",
            Box::new(|p| p.subject_alt_names = steel().subject_alt_names),
        ),
        (
            "constrained to other names than those of plant water",
            Box::new(|p| p.custom_extensions = steel().custom_extensions),
        ),
        ("is for no plant", Box::new(|p| p.subject_alt_names.clear())),
        (
            "is for several names",
            Box::new(|p| {
                p.subject_alt_names
                    .push(SanType::DnsName("a.example".try_into().unwrap()))
            }),
        ),
        (
            "is constrained to other names",
            Box::new(|p| {
                p.custom_extensions.clear();
                p.name_constraints = Some(rcgen::NameConstraints {
                    permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("plant.example".to_owned())],
                    excluded_subtrees: Vec::new(),
                });
            }),
        ),
        (
            "an extension (2.5.29.37)",
            Box::new(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        (
            "an extension (1.3.6.1.4.1.99.1)",
            Box::new(|p| {
                p.custom_extensions
                    .push(extension(&[1, 3, 6, 1, 4, 1, 99, 1], true))
            }),
        ),
        (
            "ended at 2021-01-01",
            Box::new(|p| p.not_after = rcgen::date_time_ymd(2021, 1, 1)),
        ),
        (
            "is not valid yet (from 2089",
            Box::new(|p| p.not_before = rcgen::date_time_ymd(2089, 1, 1)),
        ),
    ];
    for (words, change) in odd {
        let issuing = Issuing::with(&root, change);
        let peer = |uri: &str| issuing.issue(uri, &[issuing.der(), root.root()]);
        let [as_server, as_client] = judged(&root, &peer).await;
        let said = as_server.unwrap_err();
        assert!(said.contains(words), "{words}: {said}");
        assert!(as_client.is_err(), "{words}");
    }
    // What is no critical part of it may be there; and no constraint at all, for programs that know none.
    let good = Issuing::with(&root, |p| {
        p.custom_extensions = vec![extension(&[1, 3, 6, 1, 4, 1, 99, 1], false)];
    });
    for answer in judged(&root, &|uri| good.issue(uri, &[good.der()])).await {
        answer.unwrap();
    }
    // By another root, or by nobody: the same names, another key.
    let strange = Issuing::new(&other);
    let said = judged(&root, &|uri| strange.issue(uri, &[strange.der(), root.root()])).await;
    assert!(said.iter().all(Result::is_err));
    assert!(
        said[0]
            .clone()
            .unwrap_err()
            .contains("no root certificate that is trusted here certified"),
        "{said:?}"
    );
}

#[tokio::test]
async fn each_odd_chain_below_a_good_issuing_certificate_is_refused() {
    let root = Authority::new();
    let issuing = Issuing::new(&root);
    // A second one below the first, and a peer that issues for itself.
    let second = {
        let params = issuing::params(&plant(), true).unwrap();
        let mut params = params;
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationalUnitName, "second");
        Issuing(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &issuing.0).unwrap())
    };
    type Peer<'a> = Box<dyn Fn(&str) -> Credentials + 'a>;
    let odd: Vec<(&str, Peer<'_>)> = vec![
        (
            "not issued by this plant's authority",
            Box::new(|uri| second.issue(uri, &[second.der(), issuing.der()])),
        ),
        (
            "at most 3 of",
            Box::new(|uri| second.issue(uri, &[second.der(), issuing.der(), root.root()])),
        ),
        (
            "was not issued by this plant's authority",
            Box::new(|uri| issuing.issue(uri, &[root.root(), issuing.der()])),
        ),
        (
            "was not issued by this plant's authority",
            Box::new(|uri| issuing.issue(uri, &[])),
        ),
        (
            "certificate is an authority's",
            Box::new(|uri| {
                issuing.issue_as(uri, &[issuing.der()], |p| {
                    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
                })
            }),
        ),
        (
            "not a coordinator of plant water",
            Box::new(|uri| issuing.issue(&uri.replace("water", "steel"), &[issuing.der()])),
        ),
        (
            "has expired",
            Box::new(|uri| {
                issuing.issue_as(uri, &[issuing.der()], |p| {
                    p.not_after = rcgen::date_time_ymd(2021, 1, 1)
                })
            }),
        ),
    ];
    for (words, peer) in odd {
        let [as_server, as_client] = judged(&root, &*peer).await;
        let said = as_server.unwrap_err();
        assert!(said.contains(words), "{words}: {said}");
        assert!(as_client.is_err(), "{words}");
    }
    // A signature by another key than the one in the issuing certificate of that name.
    let namesake = Issuing::new(&root);
    for answer in judged(&root, &|uri| issuing.issue(uri, &[namesake.der()])).await {
        assert!(answer.is_err());
    }
}

#[test]
fn a_root_that_lets_nobody_issue_below_it_is_held_to_that() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap());
    let issuing = Issuing::new(&root);
    assert_eq!(
        issuing::judge(&issuing.der(), &plant(), &[root.root()]),
        Err(NotIssuing::RootPath)
    );
}

#[test]
fn whatever_bit_of_an_issuing_certificate_is_turned_it_issues_no_more() {
    let root = Authority::new();
    let issuing = Issuing::new(&root);
    let (good, roots) = (issuing.der(), [root.root()]);
    assert_eq!(issuing::judge(&good, &plant(), &roots), Ok(&roots[0]));
    let (_, parsed) = x509_parser::parse_x509_certificate(&good).unwrap();
    // What is signed, and the signature. What stands between them says how it is signed, which the key says already.
    let length = parsed.tbs_certificate.as_ref().len();
    for at in (4..4 + length).chain(good.len() - parsed.signature_value.data.len()..good.len()) {
        let mut altered = good.to_vec();
        altered[at] ^= 1 << (at % 8);
        assert!(issuing::judge(&altered.into(), &plant(), &roots).is_err(), "{at}");
    }
}

#[test]
fn what_is_shown_beside_a_certificate_is_what_issued_it_and_nothing_else() {
    let root = Authority::new();
    let issuing = Issuing::new(&root);
    let roots = [root.root()];
    let direct = root.issue(GATEWAY);
    assert_eq!(issuers(&plant(), direct.chain(), &roots), Some(vec![root.root()]));
    let strange = Authority::new().root();
    let below = issuing.issue(GATEWAY, &[issuing.der(), strange]);
    assert_eq!(
        issuers(&plant(), below.chain(), &roots),
        Some(vec![issuing.der(), root.root()])
    );
    assert_eq!(issuers(&plant(), &below.chain()[..1], &roots), None);
    assert_eq!(issuers(&"steel".parse().unwrap(), below.chain(), &roots), None);
}

#[test]
fn a_list_of_withdrawn_keys_counts_by_a_key_that_a_root_certified_for_it_and_by_no_other() {
    let root = Authority::new();
    let issuing = Issuing::new(&root);
    let mut withdrawn = Withdrawn::default();
    withdrawn.withdraw(&"device/plc".parse().unwrap(), penstock_proto::peer::Epoch(2));
    let list = withdrawn.since(Withdrawn::default().held(), &plant(), 1).unwrap();
    let signed = |key: &KeyPair, certificate: &CertificateDer<'_>| SignedList {
        issuing: Some(certificate.to_vec()),
        ..SignedList::sign(
            &list,
            &FileKey::from_pem(key.serialize_pem().as_bytes(), "it")
                .unwrap()
                .into(),
        )
        .unwrap()
    };
    let roots = [root.root()];
    let good = signed(issuing.0.key(), &issuing.der());
    assert_eq!(good.verify(&plant(), &roots).unwrap(), list);
    assert_eq!(SignedList::from_json(&good.to_json()).unwrap(), good);
    let gateway = root.issue_serving(GATEWAY);
    let strange = Issuing::new(&Authority::new());
    for (bad, words) in [
        (
            SignedList {
                issuing: None,
                ..good.clone()
            },
            "not signed by the plant's authority",
        ),
        (
            signed(issuing.0.key(), &Issuing::new(&root).der()),
            "not signed by the plant's authority",
        ),
        (signed(issuing.0.key(), &gateway.chain()[0]), "not an authority's"),
        (
            signed(strange.0.key(), &strange.der()),
            "no root certificate that is trusted here",
        ),
        (signed(issuing.0.key(), &vec![0; 17_000].into()), "at most"),
    ] {
        let refused = bad.verify(&plant(), &roots).unwrap_err().to_string();
        assert!(refused.contains(words), "{words}: {refused}");
    }
}
