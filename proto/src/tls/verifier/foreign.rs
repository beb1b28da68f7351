//! Judges servers of other authorities, which a plan names for a broker, by the name that they are reached by.

use rustls::client::WebPkiServerVerifier;

use super::super::root_store;
use super::*;

/// Judges servers by a name that one of their authorities vouches for.
#[derive(Debug)]
pub(in crate::tls) struct ForeignVerifier {
    chains: Arc<dyn ServerCertVerifier>,
    /// The names of the authorities. What a server shows under one of them is not needed, and not looked at: it would
    /// only multiply the paths that might end there.
    authorities: BTreeSet<Vec<u8>>,
}

impl ForeignVerifier {
    pub(in crate::tls) fn new(roots: &[CertificateDer<'static>]) -> Result<Arc<Self>, TlsError> {
        let chains = WebPkiServerVerifier::builder_with_provider(root_store(roots)?, provider()).build()?;
        let authorities = roots.iter().filter_map(subject).collect();
        Ok(Arc::new(Self { chains, authorities }))
    }
}

/// Whose certificate it is, as it stands there.
fn subject(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.subject().as_raw().to_vec())
}

impl ServerCertVerifier for ForeignVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        short_enough(end_entity, intermediates, FOREIGN_CERTIFICATES_MAX)?;
        let needed: Vec<CertificateDer<'_>> = intermediates
            .iter()
            .filter(|shown| subject(shown).is_some_and(|subject| !self.authorities.contains(&subject)))
            .cloned()
            .collect();
        judged(now, |at| {
            self.chains
                .verify_server_cert(end_entity, &needed, server_name, ocsp_response, at)
        })
    }

    signatures!(Signers::OfOthers);
}
