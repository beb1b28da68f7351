//! Certificate requests: of each only the public key is used, once its signature proved possession of the private one.

use penstock_policy::ids::Digest;
use rcgen::{PublicKeyData as _, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::CaError;

/// Longest certificate request that is read, bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// A public key with the proof that whoever asks holds the private one.
#[derive(Debug, Clone)]
pub struct ProvenKey {
    pub(super) key: SubjectPublicKeyInfo,
    digest: Digest,
}

impl ProvenKey {
    /// Reads a PKCS#10 request and checks that it is signed by the key in it.
    ///
    /// # Errors
    /// The request is too long, is not PKCS#10 in DER and nothing else, has a key of a kind that is not accepted, or
    /// is not signed by it.
    pub fn of_request(request: &[u8]) -> Result<Self, CaError> {
        if request.len() > REQUEST_BYTES_MAX {
            return Err(CaError::Request(format!(
                "it has {} bytes, at most {REQUEST_BYTES_MAX} are read",
                request.len()
            )));
        }
        let unreadable = |what: &str| CaError::Request(what.to_owned());
        let (rest, parsed) = X509CertificationRequest::from_der(request)
            .map_err(|_| unreadable("it is not a PKCS#10 request in DER"))?;
        if !rest.is_empty() {
            return Err(unreadable("other data follows it"));
        }
        // The kind of the key comes from the key itself, whatever the signature's algorithm is called.
        let key = SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw)
            .map_err(|_| CaError::KeyKind)?;
        let accepted: [&rcgen::SignatureAlgorithm; 3] = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ];
        if !accepted.contains(&key.algorithm()) {
            return Err(CaError::KeyKind);
        }
        parsed
            .verify_signature()
            .map_err(|_| unreadable("it is not signed by the key in it"))?;
        let digest = Digest::of(&key.subject_public_key_info());
        Ok(Self { key, digest })
    }

    /// SHA-256 of the public key (subjectPublicKeyInfo).
    pub fn digest(&self) -> Digest {
        self.digest
    }
}
