//! Who a peer is: the one place where a certificate becomes a name.
//!
//! A peer's name is the single SPIFFE-style URI in the subject alternative names of its *verified* leaf
//! certificate: `spiffe://<plant>/<kind>/<name>`. It never comes from a message (DESIGN, promise 8;
//! IEC 62443-3-3 SR 1.2). Parsing is strict: no escapes, no port, no query, nothing after the name; whatever
//! does not have exactly this form has no identity at all.
//!
//! A name outlives its keys: gateways are replaced, laptops lost. Which key counts for a name is the coordinator's record;
//! which *life* of the name a certificate belongs to stands in it, as a number ([`Epoch`]) in the `serialNumber` of its subject
//! (X.520; RFC 5280, 4.1.2.4: it tells apart those who have the same name). So also who has no record, a gateway that meets a
//! device, knows from the shortest of lists that an earlier life is over (`crate::withdrawn`).

use std::fmt;
use std::str::FromStr;

use penstock_policy::ids::{
    AssetId, CoordinatorId, Digest, GatewayId, NameError, OperatorId, PlantId, RoleName,
};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_X509_SERIALNUMBER;
use x509_parser::prelude::FromDer as _;

use crate::role::role_of;

/// What kind of peer, and which.
///
/// Written `gateway/<name>`, `operator/<name>`, `coordinator/<name>` or `device/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// An edge gateway.
    Gateway(GatewayId),
    /// A person or program that uses the coordinator's API.
    Operator(OperatorId),
    /// A coordinator.
    Coordinator(CoordinatorId),
    /// An asset of the plant that has a key of its own.
    Device(AssetId),
}

/// A verified peer: its plant (the trust domain) and what it is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIdentity {
    /// The plant whose authority vouches for it.
    pub plant: PlantId,
    /// What it is.
    pub subject: Subject,
}

/// Why something is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The certificate is no X.509 certificate, or its alternative names cannot be read.
    #[error("the peer's certificate cannot be read")]
    Unreadable,
    /// There must be exactly one URI among the alternative names.
    #[error("the peer's certificate names {0} URIs; exactly one `spiffe://…` is needed")]
    UriCount(usize),
    /// Not of the form `spiffe://<plant>/<kind>/<name>`.
    #[error(
        "`{0}` is not an identity; expected `spiffe://<plant>/<gateway|operator|coordinator|device>/<name>`"
    )]
    Form(String),
    /// The subject's `serialNumber` is no number of a life, or there are several.
    #[error("the peer's certificate has `{0}` where the number of its holder's life has to be, once")]
    Epoch(String),
    /// A part is not a name.
    #[error("`{uri}` is not an identity")]
    Name {
        /// The whole URI.
        uri: String,
        /// What is wrong with the part.
        #[source]
        source: NameError,
    },
}

/// Which life of a subject: it begins with a key that is not the one before, and ends when that key is withdrawn or another takes
/// its place. Later ones have higher numbers; 0 is what a certificate has that says nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The one that follows.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All that the leaf of a chain says that *has been verified*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Who holds it.
    pub identity: PeerIdentity,
    /// In which life.
    pub epoch: Epoch,
    /// SHA-256 of its public key (subjectPublicKeyInfo, DER).
    pub key: Digest,
    /// From when until when it is valid, milliseconds since 1970.
    pub valid_ms: (u64, u64),
    /// The role that it gives a device; `None`: it gives none, or what cannot be read as one.
    pub role: Option<RoleName>,
}

impl Certified {
    /// Reads the leaf of a verified chain.
    ///
    /// # Errors
    /// It cannot be read, does not hold exactly one identity, or more or something else than one number of a life.
    pub fn from_certificate(leaf: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let certificate = parsed(leaf)?;
        let validity = certificate.validity();
        Ok(Self {
            identity: identity_of(&certificate)?,
            epoch: epoch_of(&certificate)?,
            key: Digest::of(certificate.public_key().raw),
            valid_ms: (
                since_1970_ms(validity.not_before),
                since_1970_ms(validity.not_after),
            ),
            role: role_of(leaf).unwrap_or_default(),
        })
    }
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(PeerError::Unreadable),
    }
}

fn identity_of(certificate: &X509Certificate<'_>) -> Result<PeerIdentity, PeerError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PeerError::Unreadable)?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => uri.parse(),
        (None, _) => Err(PeerError::UriCount(0)),
        (Some(_), more) => Err(PeerError::UriCount(more + 1)),
    }
}

fn epoch_of(certificate: &X509Certificate<'_>) -> Result<Epoch, PeerError> {
    let mut numbers = certificate.subject().iter_by_oid(&OID_X509_SERIALNUMBER);
    let Some(number) = numbers.next() else {
        return Ok(Epoch::default());
    };
    let text = number.as_str().map_err(|_| PeerError::Unreadable)?;
    let epoch: u32 = text.parse().map_err(|_| PeerError::Epoch(text.to_owned()))?;
    // One spelling, so that two certificates of one life have the same name.
    if numbers.next().is_some() || epoch.to_string() != text {
        return Err(PeerError::Epoch(text.to_owned()));
    }
    Ok(Epoch(epoch))
}

fn since_1970_ms(time: x509_parser::time::ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000)
}

/// From when until when a certificate is valid, milliseconds since 1970.
///
/// # Errors
/// The certificate cannot be read.
pub fn validity_ms(certificate: &CertificateDer<'_>) -> Result<(u64, u64), PeerError> {
    let parsed = parsed(certificate)?;
    let validity = parsed.validity();
    Ok((
        since_1970_ms(validity.not_before),
        since_1970_ms(validity.not_after),
    ))
}

impl Subject {
    /// `gateway`, `operator`, `coordinator` or `device`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway",
            Self::Operator(_) => "operator",
            Self::Coordinator(_) => "coordinator",
            Self::Device(_) => "device",
        }
    }

    /// The name without its kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Gateway(id) => id.as_str(),
            Self::Operator(id) => id.as_str(),
            Self::Coordinator(id) => id.as_str(),
            Self::Device(id) => id.as_str(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind(), self.name())
    }
}

impl FromStr for Subject {
    type Err = PeerError;
    fn from_str(text: &str) -> Result<Self, PeerError> {
        let named = |source| PeerError::Name {
            uri: text.to_owned(),
            source,
        };
        let (kind, name) = text
            .split_once('/')
            .ok_or_else(|| PeerError::Form(text.to_owned()))?;
        Ok(match kind {
            "gateway" => Self::Gateway(GatewayId::new(name).map_err(named)?),
            "operator" => Self::Operator(OperatorId::new(name).map_err(named)?),
            "coordinator" => Self::Coordinator(CoordinatorId::new(name).map_err(named)?),
            "device" => Self::Device(AssetId::new(name).map_err(named)?),
            _ => return Err(PeerError::Form(text.to_owned())),
        })
    }
}

impl TryFrom<String> for Subject {
    type Error = PeerError;
    fn try_from(text: String) -> Result<Self, PeerError> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.to_string()
    }
}

impl PeerIdentity {
    /// The identity in the leaf of a chain that *has been verified*.
    ///
    /// # Errors
    /// The certificate cannot be read, or does not hold exactly one identity of this form.
    pub fn from_certificate(leaf: &CertificateDer<'_>) -> Result<Self, PeerError> {
        identity_of(&parsed(leaf)?)
    }
}

/// The public key (subjectPublicKeyInfo, DER) that a certificate is for.
pub fn certified_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.public_key().raw.to_vec())
}

/// The public key (subjectPublicKeyInfo, DER) in a certificate request (PKCS#10, DER), whose signature is not looked at.
pub fn requested_key(request: &[u8]) -> Option<Vec<u8>> {
    let (rest, parsed) = X509CertificationRequest::from_der(request).ok()?;
    let key = parsed.certification_request_info.subject_pki.raw.to_vec();
    rest.is_empty().then_some(key)
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.plant, self.subject)
    }
}

impl FromStr for PeerIdentity {
    type Err = PeerError;
    fn from_str(uri: &str) -> Result<Self, PeerError> {
        let (plant, subject) = uri
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| PeerError::Form(uri.to_owned()))?;
        let plant = PlantId::new(plant).map_err(|source| PeerError::Name {
            uri: uri.to_owned(),
            source,
        })?;
        Ok(Self {
            plant,
            subject: subject.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_identity_survives_being_written_and_read(
            plant in "[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?",
            kind in prop::sample::select(vec!["gateway", "operator", "coordinator", "device"]),
            name in "[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?",
        ) {
            let uri = format!("spiffe://{plant}/{kind}/{name}");
            let identity: PeerIdentity = uri.parse().unwrap();
            prop_assert_eq!(identity.to_string(), uri);
        }

        #[test]
        fn whatever_parses_is_written_back_as_it_was(text in "(spiffe://)?[a-zA-Z0-9./%:?#@-]{0,40}") {
            if let Ok(identity) = text.parse::<PeerIdentity>() {
                prop_assert_eq!(identity.to_string(), text);
            }
        }
    }

    #[test]
    fn near_misses_have_no_identity() {
        for uri in [
            "",
            "spiffe://",
            "spiffe://p",
            "spiffe://p/gateway",
            "spiffe://p/gateway/",
            "spiffe://p/gateway/a/b",
            "spiffe://p/gateway/a?x",
            "spiffe://p/gateway/a#x",
            "spiffe://p:1/gateway/a",
            "spiffe://u@p/gateway/a",
            "spiffe://p/root/a",
            "spiffe://p/gateway/A",
            "spiffe://p/gateway/%61",
            "SPIFFE://p/gateway/a",
            "https://p/gateway/a",
            " spiffe://p/gateway/a",
        ] {
            assert!(uri.parse::<PeerIdentity>().is_err(), "{uri}");
        }
    }

    fn certificate(uris: &[&str], dns: &[&str]) -> CertificateDer<'static> {
        let mut params =
            rcgen::CertificateParams::new(dns.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>()).unwrap();
        for uri in uris {
            params
                .subject_alt_names
                .push(rcgen::SanType::URI((*uri).try_into().unwrap()));
        }
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_with_one_uri_names_its_peer_and_dns_names_do_not_matter() {
        let leaf = certificate(&["spiffe://water/gateway/gw-1"], &["spiffe.example"]);
        let identity = PeerIdentity::from_certificate(&leaf).unwrap();
        assert_eq!(
            identity.subject,
            Subject::Gateway(GatewayId::new("gw-1").unwrap())
        );
        assert_eq!(identity.plant.as_str(), "water");
    }

    /// A certificate of gw-1 with these texts as the `serialNumber` of its subject.
    fn of_life(numbers: &[&str]) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names.push(rcgen::SanType::URI(
            "spiffe://water/gateway/gw-1".try_into().unwrap(),
        ));
        for number in numbers {
            params.distinguished_name.push(
                rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]),
                rcgen::DnValue::Utf8String((*number).to_owned()),
            );
        }
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_says_which_life_of_its_holder_it_belongs_to_in_one_spelling() {
        let epoch = |numbers: &[&str]| Certified::from_certificate(&of_life(numbers)).map(|read| read.epoch);
        assert_eq!(epoch(&[]), Ok(Epoch(0)));
        assert_eq!(epoch(&["3"]), Ok(Epoch(3)));
        assert_eq!(epoch(&["4294967295"]), Ok(Epoch(u32::MAX)));
        for wrong in ["", "03", "+3", "-1", "3 ", "4294967296", "three"] {
            assert_eq!(
                epoch(&[wrong]),
                Err(PeerError::Epoch(wrong.to_owned())),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_certificate_with_no_uri_or_with_two_names_nobody() {
        assert_eq!(
            PeerIdentity::from_certificate(&certificate(&[], &["gw-1"])),
            Err(PeerError::UriCount(0))
        );
        assert_eq!(
            PeerIdentity::from_certificate(&certificate(
                &["spiffe://water/gateway/gw-1", "spiffe://water/operator/eve"],
                &[]
            )),
            Err(PeerError::UriCount(2))
        );
        let mut longer = certificate(&["spiffe://water/gateway/gw-1"], &[]).to_vec();
        longer.push(0);
        assert_eq!(
            PeerIdentity::from_certificate(&longer.into()),
            Err(PeerError::Unreadable)
        );
    }
}
