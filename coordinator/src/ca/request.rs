//! Certificate requests: of each only the public key is used, once its signature proved possession of the private one.

use penstock_policy::ids::Digest;
use penstock_proto::refusal::{Reason, Refusal};
use rcgen::{PublicKeyData as _, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::CaError;

/// Longest certificate request that is read, bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// What kind of key it is, by the identifier of its algorithm.
fn kind_in_words(algorithm: &str) -> String {
    match algorithm {
        "1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10" => "an RSA key".to_owned(),
        "1.2.840.10040.4.1" => "a DSA key".to_owned(),
        "1.2.840.10045.2.1" => "an EC key on another curve".to_owned(),
        "1.3.101.113" => "an Ed448 key".to_owned(),
        other => format!("a key of the kind {other}"),
    }
}

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
        let subject_pki = &parsed.certification_request_info.subject_pki;
        let not_accepted =
            || CaError::KeyKind(kind_in_words(&subject_pki.algorithm.algorithm.to_id_string()));
        let key = SubjectPublicKeyInfo::from_der(subject_pki.raw).map_err(|_| not_accepted())?;
        let accepted: [&rcgen::SignatureAlgorithm; 3] = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ];
        if !accepted.contains(&key.algorithm()) {
            return Err(not_accepted());
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

/// A certificate request that cannot be used.
pub(crate) fn bad_request(error: CaError) -> Refusal {
    Refusal::new(Reason::BadCertificateRequest, error.to_string())
        .field("certificate_request", error.to_string())
}

/// A certificate that cannot be issued.
pub(crate) fn internal(error: CaError) -> Refusal {
    tracing::error!(error = %crate::chain(&error), "cannot issue a certificate");
    if let CaError::Token(why) = &error {
        let words = format!(
            "nothing can be issued now: {why}. What was issued goes on counting, and it is tried again"
        );
        return Refusal::new(Reason::IssuingKeyUnavailable, words);
    }
    Refusal::new(
        Reason::Internal,
        "the certificate cannot be issued; the coordinator's log says why",
    )
}
