//! How either side judges the certificate that the other shows: a chain to roots that we trust (webpki), then the
//! name in it. Which names are good is the one thing in which the profiles differ ([`ExpectedPeer`]).
//!
//! Whoever shows certificates is a stranger until they are judged, so what judging them takes is bounded first. A leaf of the plant
//! is signed by a root, or by the one issuing certificate that follows it (`super::chains`): at most
//! [`CERTIFICATES_MAX`] are accepted, and each root that has the issuer's name costs one signature. The authorities of
//! others, which a plan may name for a broker, sign through intermediates: [`FOREIGN_CERTIFICATES_MAX`].
//!
//! A gateway may be dark for longer than its certificate is valid, and it holds the key all the same: the handshake proves that, as for any
//! other. So the coordinator's side also accepts a gateway's certificate for a while after its end ([`ClientVerifier::grace`]); that it has ended
//! is seen by what serves the connection ([`super::server::PeerInfo::has_ended`]), which lets it be renewed and nothing else.
//!
//! rustls asks clients and servers by two traits; [`ClientVerifier`] and [`ServerVerifier`] answer them with the same
//! judgement of the name, and all verifiers with the same one of signatures ([`Signers`]).

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use penstock_policy::ids::{AssetId, Digest, GatewayId, PlantId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::chains::{Chains, Issuer};
use super::times::judged;
use super::{TlsError, certificate_error, provider};
use crate::peer::{Certified, Epoch, PeerIdentity, Subject, validity_ms};
use crate::role::role_of;
use crate::withdrawn::WithdrawnView;

/// Why a peer with a valid certificate was not accepted. Libraries print reasons of ours as a program sees them, so it is the sentence there too.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongPeer {
    /// No presented certificate has the pinned digest.
    #[error(
        "the server shows no root certificate with the digest in the token ({0}): either it belongs to another plant, \
         or somebody is in between"
    )]
    Pin(Digest),
    /// It is somebody else.
    #[error("the peer is {found}, not {wanted}")]
    Other {
        /// Who it is.
        found: String,
        /// Who it has to be.
        wanted: String,
    },
    /// Its key was withdrawn, or another took its place.
    #[error(
        "the certificate of {found} was withdrawn: it belongs to life {epoch} of that name, and only life {from} and later ones count"
    )]
    Over {
        /// Who it is.
        found: String,
        /// In which life.
        epoch: Epoch,
        /// The first that counts.
        from: Epoch,
    },
    /// What it was issued by was withdrawn.
    #[error(
        "the certificate of {0} was issued by a key that was withdrawn: whoever had it could issue certificates for anybody"
    )]
    Issuer(String),
}

impl std::fmt::Debug for WrongPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Certificates that a peer of the plant may show: its own, the one that issued it, and the root (those who enrol know only its
/// digest).
pub const CERTIFICATES_MAX: usize = 3;
/// Certificates that a broker of other authorities may show: a chain of three, and the root.
pub const FOREIGN_CERTIFICATES_MAX: usize = 4;
/// What the certificates may have together, bytes.
pub const CERTIFICATES_BYTES_MAX: usize = 16 * 1024;
/// What the keys that the plant's authority certifies sign with.
const SCHEMES: [SignatureScheme; 3] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
];

/// The signatures that can be verified at all.
static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| provider().signature_verification_algorithms);

/// A peer shows more certificates than are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the peer shows {certificates} certificates of {bytes} bytes together; at most {certificates_max} of \
     {CERTIFICATES_BYTES_MAX} bytes are looked at"
)]
pub struct TooLong {
    certificates: usize,
    bytes: usize,
    certificates_max: usize,
}

/// Whether a chain is short enough to be judged: before anything in it is.
fn short_enough(
    end_entity: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    certificates_max: usize,
) -> Result<(), rustls::Error> {
    let certificates = others.len().saturating_add(1);
    let lengths = others.iter().map(|certificate| certificate.len());
    let bytes = lengths.fold(end_entity.len(), usize::saturating_add);
    if certificates <= certificates_max && bytes <= CERTIFICATES_BYTES_MAX {
        return Ok(());
    }
    Err(certificate_error(TooLong {
        certificates,
        bytes,
        certificates_max,
    }))
}

/// Whose signatures are judged.
#[derive(Debug, Clone, Copy)]
enum Signers {
    /// Peers of the plant, whose keys its authority certifies.
    OfThePlant,
    /// Servers of other authorities.
    OfOthers,
}

impl Signers {
    fn schemes(self) -> Vec<SignatureScheme> {
        match self {
            Self::OfThePlant => SCHEMES.to_vec(),
            Self::OfOthers => ALGORITHMS.supported_schemes(),
        }
    }

    fn verify(
        self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if matches!(self, Self::OfThePlant) && !SCHEMES.contains(&dss.scheme) {
            return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        verify_tls13_signature(message, certificate, dss, &ALGORITHMS)
    }
}

/// The methods in which rustls's two traits are the same.
macro_rules! signatures {
    ($signers:expr) => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            // TLS 1.2 is not configured, so this cannot be asked; if it were, the answer is no.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::BadSignature,
            ))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            $signers.verify(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            $signers.schemes()
        }
    };
}

mod foreign;
mod gateways;

pub(super) use self::foreign::ForeignVerifier;
pub(super) use self::gateways::GatewayVerifier;

/// Whom a verified certificate has to name.
#[derive(Debug, Clone)]
pub(super) struct ExpectedPeer {
    pub(super) plant: PlantId,
    pub(super) who: PeerKind,
    /// Whose certificates no longer count.
    pub(super) withdrawn: WithdrawnView,
}

#[derive(Debug, Clone)]
pub(super) enum PeerKind {
    /// Whoever the plant's authority vouches for; what they may do is decided by the service.
    AnyPeer,
    /// A coordinator.
    Coordinator,
    /// A device.
    Devices(Devices),
    /// A device, whose certificate gives it one role, or none.
    DevicesInRoles(Devices),
    /// One of these gateways.
    Gateways(BTreeSet<GatewayId>),
}

/// Which devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Devices {
    /// Each that the plant's authority vouches for.
    Any,
    /// One of these; nobody if there are none.
    Listed(BTreeSet<AssetId>),
}

impl Devices {
    /// Whether `device` is one of them.
    pub fn contain(&self, device: &AssetId) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.contains(device),
        }
    }
}

impl ExpectedPeer {
    /// Whether this leaf, which these others follow, names who is expected, in a life that counts, by an issuer that does.
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if self.withdrawn.ends_issuer(others) {
            let found = PeerIdentity::from_certificate(leaf).map_err(certificate_error)?;
            return Err(certificate_error(WrongPeer::Issuer(found.to_string())));
        }
        self.judge_name(leaf)
    }

    fn judge_name(&self, leaf: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        // All that it says has to be readable.
        let Certified { identity, epoch, .. } =
            Certified::from_certificate(leaf).map_err(certificate_error)?;
        let good = match (&self.who, &identity.subject) {
            (PeerKind::AnyPeer, _) | (PeerKind::Coordinator, Subject::Coordinator(_)) => true,
            (PeerKind::Devices(devices) | PeerKind::DevicesInRoles(devices), Subject::Device(device)) => {
                devices.contain(device)
            }
            (PeerKind::Gateways(gateways), Subject::Gateway(gateway)) => gateways.contains(gateway),
            (PeerKind::Coordinator | PeerKind::Gateways(_), _) => false,
            (PeerKind::Devices(_) | PeerKind::DevicesInRoles(_), _) => false,
        };
        let found = identity.to_string();
        if !good || identity.plant != self.plant {
            let wanted = self.wanted();
            return Err(certificate_error(WrongPeer::Other { found, wanted }));
        }
        if let Some(from) = self.withdrawn.over_since(&identity.subject, epoch) {
            return Err(certificate_error(WrongPeer::Over { found, epoch, from }));
        }
        if matches!(self.who, PeerKind::DevicesInRoles(_)) {
            role_of(leaf).map_err(certificate_error)?;
        }
        Ok(())
    }

    fn wanted(&self) -> String {
        let plant = &self.plant;
        match &self.who {
            PeerKind::AnyPeer => format!("of plant {plant}"),
            PeerKind::Coordinator => format!("a coordinator of plant {plant}"),
            PeerKind::Gateways(gateways) => {
                let names: Vec<String> = gateways.iter().map(|name| format!("gateway/{name}")).collect();
                format!("{} of plant {plant}", names.join(" or "))
            }
            PeerKind::Devices(Devices::Any) | PeerKind::DevicesInRoles(Devices::Any) => {
                format!("a device of plant {plant}")
            }
            PeerKind::Devices(Devices::Listed(devices))
            | PeerKind::DevicesInRoles(Devices::Listed(devices)) => match (devices.first(), devices.len()) {
                (Some(device), 1) => format!("device/{device} of plant {plant}"),
                (_, count) => format!("one of the {count} devices of plant {plant} that may connect here"),
            },
        }
    }
}

/// Judges whose key signed a leaf that a client shows, and nothing else of it.
#[derive(Debug)]
struct Leaves {
    chains: Chains,
    /// Judges those that a root signed itself.
    direct: Arc<dyn ClientCertVerifier>,
}

impl Leaves {
    fn new(plant: &PlantId, roots: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        let chains = Chains::new(plant, roots)?;
        let direct =
            WebPkiClientVerifier::builder_with_provider(chains.roots().clone(), provider()).build()?;
        Ok(Self { chains, direct })
    }

    /// Who judges a leaf with these certificates behind it, and by whose key.
    fn judge_of(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(Arc<dyn ClientCertVerifier>, Issuer), rustls::Error> {
        short_enough(leaf, others, CERTIFICATES_MAX)?;
        let issuer = self.chains.issuer(leaf, others)?;
        let verifier = match issuer.is_root() {
            true => self.direct.clone(),
            false => WebPkiClientVerifier::builder_with_provider(issuer.anchors.clone(), provider())
                .build()
                .map_err(certificate_error)?,
        };
        Ok((verifier, issuer))
    }
}

/// Judges clients.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    leaves: Leaves,
    named: ExpectedPeer,
    mandatory: bool,
    /// For how long after its end a gateway's certificate is accepted.
    grace: Duration,
}

impl ClientVerifier {
    /// `mandatory`: a client without a certificate does not get in. `grace`: for how long after its end a gateway's certificate is accepted.
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        named: ExpectedPeer,
        mandatory: bool,
        grace: Duration,
    ) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            leaves: Leaves::new(&named.plant, roots)?,
            named,
            mandatory,
            grace,
        }))
    }

    /// The last moment at which a certificate was valid that is refused because it has ended, if it is a gateway's and that is not too
    /// long ago. Nothing of it is believed yet: the chain is judged as of that moment.
    fn end_within_grace(
        &self,
        leaf: &CertificateDer<'_>,
        refused: &rustls::Error,
        now: UnixTime,
    ) -> Option<UnixTime> {
        let rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) = refused
        else {
            return None;
        };
        let identity = PeerIdentity::from_certificate(leaf).ok()?;
        let Subject::Gateway(_) = identity.subject else {
            return None;
        };
        let (_, until_ms) = validity_ms(leaf).ok()?;
        let until = Duration::from_millis(until_ms);
        let ago = Duration::from_secs(now.as_secs()).saturating_sub(until);
        (ago <= self.grace).then(|| UnixTime::since_unix_epoch(until))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.leaves.direct.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let (verifier, issuer) = self.leaves.judge_of(end_entity, intermediates)?;
        let judge = |at| {
            verifier.verify_client_cert(end_entity, &[], at)?;
            issuer.stands(end_entity, at)
        };
        judged(now, judge).or_else(|refused| match self.end_within_grace(end_entity, &refused, now) {
            Some(end) => judge(end),
            None => Err(refused),
        })?;
        // A gateway whose certificate was issued by a key that is withdrawn may come to get another one, by its own key.
        if self.grace.is_zero() || !is_gateway(end_entity) {
            self.named.judge(end_entity, intermediates)?;
        } else {
            self.named.judge_name(end_entity)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    signatures!(Signers::OfThePlant);
}

fn is_gateway(leaf: &CertificateDer<'_>) -> bool {
    PeerIdentity::from_certificate(leaf).is_ok_and(|identity| matches!(identity.subject, Subject::Gateway(_)))
}

/// Where a server's chain must end.
#[derive(Debug)]
pub(super) enum Anchor {
    /// In one of these.
    Roots(Arc<Chains>),
    /// In the presented root with this digest.
    Pin(Digest),
}

/// Judges servers by the URI in their certificate; the address that was dialled plays no part.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) anchor: Anchor,
    pub(super) named: ExpectedPeer,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        short_enough(end_entity, intermediates, CERTIFICATES_MAX)?;
        let chains = match &self.anchor {
            Anchor::Roots(chains) => chains.clone(),
            Anchor::Pin(digest) => {
                let root = intermediates
                    .iter()
                    .find(|certificate| Digest::of(certificate) == *digest)
                    .ok_or_else(|| certificate_error(WrongPeer::Pin(*digest)))?;
                let pinned = Chains::new(&self.named.plant, &[root.clone().into_owned()]);
                Arc::new(pinned.map_err(certificate_error)?)
            }
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let issuer = chains.issuer(end_entity, intermediates)?;
        judged(now, |at| {
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &issuer.anchors,
                &[],
                at,
                self.provider.signature_verification_algorithms.all,
            )?;
            issuer.stands(end_entity, at)
        })?;
        self.named.judge(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!(Signers::OfThePlant);
}
