//! Judges gateways at the other end of a tunnel, which may have connected or be connected to: by name, chain and life, at any time.

use super::*;

/// Judges both ends of tunnels. A gateway's certificate may be good for no server, since devices know it only where it says so; who it is to another
/// gateway it proves as to a coordinator, whichever of the two connected.
#[derive(Debug)]
pub(in crate::tls) struct GatewayVerifier {
    leaves: Leaves,
    named: ExpectedPeer,
}

impl GatewayVerifier {
    pub(in crate::tls) fn new(
        roots: &[CertificateDer<'static>],
        named: ExpectedPeer,
    ) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            leaves: Leaves::new(&named.plant, roots)?,
            named,
        }))
    }

    /// Whether this is the certificate of a gateway that is meant.
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        // That what it was issued by has ended, too, ends no tunnel.
        let (verifier, _) = self.leaves.judge_of(end_entity, intermediates)?;
        let at = nearest(end_entity, now)?;
        verifier.verify_client_cert(end_entity, &[], at)?;
        self.named.judge(end_entity, intermediates)
    }
}

/// The moment of a certificate's own validity that is nearest to now. Nothing of it is believed yet: the chain is judged as of then.
fn nearest(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<UnixTime, rustls::Error> {
    let (from_ms, until_ms) = validity_ms(leaf).map_err(certificate_error)?;
    let now = Duration::from_secs(now.as_secs());
    let (from, until) = (Duration::from_millis(from_ms), Duration::from_millis(until_ms));
    Ok(UnixTime::since_unix_epoch(now.min(until).max(from)))
}

impl ClientCertVerifier for GatewayVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.leaves.direct.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!(Signers::OfThePlant);
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!(Signers::OfThePlant);
}
