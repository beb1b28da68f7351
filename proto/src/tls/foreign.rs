//! The connecting side towards servers that others wrote and that are not of the plant: receivers of logs.
//!
//! TLS 1.3, verified by name against the roots in a file and no others; a certificate of our own where one is configured. No session
//! is resumed.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::{TlsError, certificates_from_pem, provider, read};

/// How to connect: whom `roots` vouch for, and the certificate (with what issued it) and key that are shown where they are asked for. Without
/// roots nobody is believed.
///
/// # Errors
/// A file cannot be read or used.
pub fn config(roots: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<ClientConfig, TlsError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = roots {
        let found = certificates_from_pem(&read(path)?, &path.display().to_string())?;
        let (usable, _) = store.add_parsable_certificates(found);
        if usable == 0 {
            return Err(TlsError::NoRoot);
        }
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(Arc::new(store));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates_from_pem(&read(certificate)?, &certificate.display().to_string())?;
            let pem = |source| TlsError::Pem {
                what: key.display().to_string(),
                source,
            };
            let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(pem)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
