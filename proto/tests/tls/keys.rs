//! Keys that only sign: TLS and the authority need no more of them.

use penstock_proto::keys::{Key, KeyError, KeyHolder, KeyKind, certificate_request};
use penstock_proto::tls::Credentials;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::tls::server::{AcceptLimits, ServerCredentials};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use super::{call, plant, serve};

/// Signs, and gives nothing else away: what a TPM or a PKCS #11 token is to us.
#[derive(Debug)]
struct Sealed {
    pair: KeyPair,
    kind: KeyKind,
    works: bool,
}

impl KeyHolder for Sealed {
    fn kind(&self) -> KeyKind {
        self.kind
    }

    fn public_key(&self) -> &[u8] {
        self.pair.public_key_raw()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if !self.works {
            return Err(KeyError::Sign("the token was pulled out".to_owned()));
        }
        Ok(rcgen::SigningKey::sign(&self.pair, message)?)
    }
}

fn sealed(kind: KeyKind, works: bool) -> Key {
    let algorithm = match kind {
        KeyKind::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyKind::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
    };
    let pair = KeyPair::generate_for(algorithm).unwrap();
    Key::new(Sealed { pair, kind, works })
}

#[tokio::test]
async fn keys_that_never_leave_their_holder_serve_both_sides_of_mutual_tls_and_the_authority() {
    // The authority's own key is held so, too.
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(root, sealed(KeyKind::EcdsaP384, true)).unwrap();
    let roots = vec![authority.der().clone()];
    let issue = |uri: &str, purpose: ExtendedKeyUsagePurpose, key: &Key| {
        let request = certificate_request(key, Some(&uri.parse().unwrap())).unwrap();
        // What the authority reads is signed by the key in it.
        let mut request = rcgen::CertificateSigningRequestParams::from_der(&request.into()).unwrap();
        request.params.extended_key_usages = vec![purpose];
        let leaf = request.signed_by(&authority).unwrap().der().clone();
        Credentials::new(vec![leaf, roots[0].clone()], key.clone()).unwrap()
    };
    let coordinator = "spiffe://water/coordinator/c1";
    let gateway = "spiffe://water/gateway/gw-1";
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Ed25519] {
        let server = issue(
            coordinator,
            ExtendedKeyUsagePurpose::ServerAuth,
            &sealed(kind, true),
        );
        let address = serve(&server, roots[0].clone(), AcceptLimits::default()).await;
        let client = issue(gateway, ExtendedKeyUsagePurpose::ClientAuth, &sealed(kind, true));
        let profile = ClientProfile {
            plant: plant(),
            trust: Trust::Roots(roots.clone()),
            credentials: Some(client.clone()),
        };
        assert_eq!(call(&[address], profile.clone()).await.unwrap(), gateway);
        // Another key is not taken for the certificate's.
        let other = Credentials::new(client.chain().to_vec(), sealed(kind, true)).unwrap();
        assert!(other.certified().is_err() && ServerCredentials::new(&other).is_err());
    }
    assert!(certificate_request(&sealed(KeyKind::Ed25519, false), None).is_err());
}
