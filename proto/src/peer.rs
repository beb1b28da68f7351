//! Who a peer is: the one place where a certificate becomes a name.
//!
//! A peer's name is the single SPIFFE-style URI in the subject alternative names of its *verified* leaf
//! certificate: `spiffe://<plant>/<kind>/<name>`. It never comes from a message (DESIGN, promise 8;
//! IEC 62443-3-3 SR 1.2). Parsing is strict: no escapes, no port, no query, nothing after the name; whatever
//! does not have exactly this form has no identity at all.

use std::fmt;
use std::str::FromStr;

use penstock_policy::ids::{AssetId, CoordinatorId, GatewayId, NameError, OperatorId, PlantId};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

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
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(leaf).map_err(|_| PeerError::Unreadable)?;
        if !rest.is_empty() {
            return Err(PeerError::Unreadable);
        }
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
