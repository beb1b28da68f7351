//! Why a handshake failed, or a certificate is refused, in words for the trail.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use super::times::peer_refused;

/// Why a handshake failed, in words for the trail.
pub fn explain(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(wrong)) => {
            certificate_refused(wrong, "the peer's", "the peer needs a new one")
        }
        Some(tls) => tls.to_string(),
        None => error.to_string(),
    }
}

/// Why the certificate of `whose` ("the peer's") is refused, and what to do where its time does not fit: `another` says how it gets
/// another one.
pub(crate) fn certificate_refused(error: &CertificateError, whose: &str, another: &str) -> String {
    if let Some(words) = peer_refused(error, whose, another) {
        return words;
    }
    let fault = match error {
        // The library prints reasons of our own as a program sees them.
        CertificateError::Other(reason) => match library(&*reason.0) {
            Some(fault) => fault,
            None => return reason.0.to_string(),
        },
        CertificateError::UnknownIssuer => {
            "was issued by none of the authorities that are trusted here".to_owned()
        }
        CertificateError::BadSignature => {
            "names an authority that is trusted here, and does not bear its signature".to_owned()
        }
        CertificateError::BadEncoding => "cannot be read".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("is not for this use ({error})")
        }
        other => format!("is refused ({other})"),
    };
    format!("{whose} certificate {fault}")
}

/// What is wrong by the library that verifies chains; `None`: the reason is not its own.
fn library(reason: &(dyn StdError + Send + Sync + 'static)) -> Option<String> {
    use webpki::Error;
    let fault = match reason.downcast_ref::<Error>()? {
        Error::CaUsedAsEndEntity => "is an authority's, and no authority connects",
        Error::UnsupportedCriticalExtension => "has a critical extension that is not known here",
        Error::UnsupportedCertVersion => "is not of X.509 version 3",
        other => return Some(format!("breaks the rules of X.509 ({other})")),
    };
    Some(fault.to_owned())
}
