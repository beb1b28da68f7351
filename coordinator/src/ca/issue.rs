//! What the authority issues: certificates whose name was decided here, how long they are valid, and what for.

use std::time::Duration;

use penstock_policy::ids::RoleName;
use penstock_proto::keys::Key;
use penstock_proto::peer::{Epoch, PeerIdentity, Subject};
use penstock_proto::role::{ROLE_OID, encoded};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::{Credentials, validity_ms};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use super::request::ProvenKey;
use super::{Authority, CaError};

/// Clocks of gateways may be behind; certificates are valid from a little earlier.
const BACKDATED: Duration = Duration::from_secs(3600);
/// A certificate as it was issued.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// Leaf first, then what issued it, DER; the root last.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it expires, milliseconds since 1970.
    pub expires_ms: u64,
}

impl Authority {
    /// Issues a certificate that says: whoever holds this key is `subject`, in this life of it, and answers by `names`, which people do not
    /// have.
    ///
    /// # Errors
    /// The name does not fit into a certificate, the system provides no random numbers, or the authority's key cannot
    /// sign.
    pub fn issue(
        &self,
        (subject, epoch): (&Subject, Epoch),
        names: &ServerNames,
        key: &ProvenKey,
        now_ms: u64,
    ) -> Result<IssuedCertificate, CaError> {
        self.issue_in_role((subject, epoch), None, names, key, now_ms)
    }

    /// The same for a device in a role, or in none.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_in_role(
        &self,
        (subject, epoch): (&Subject, Epoch),
        role: Option<&RoleName>,
        names: &ServerNames,
        key: &ProvenKey,
        now_ms: u64,
    ) -> Result<IssuedCertificate, CaError> {
        let times = (backdated(now_ms), now_ms);
        self.issue_from((subject, epoch, role), names, &key.key, times, None)
    }

    /// The same for at most so long, where that is said.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_within(
        &self,
        (subject, epoch): (&Subject, Epoch),
        names: &ServerNames,
        key: &ProvenKey,
        now_ms: u64,
        at_most: Option<Duration>,
    ) -> Result<IssuedCertificate, CaError> {
        let times = (backdated(now_ms), now_ms);
        self.issue_from((subject, epoch, None), names, &key.key, times, at_most)
    }

    /// Issues a certificate for a key of the coordinator itself. It is valid from the authority's own
    /// beginning on: peers whose clocks are behind this one accept it, too.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn issue_own(
        &self,
        (subject, epoch): (&Subject, Epoch),
        names: &ServerNames,
        key: Key,
        now_ms: u64,
    ) -> Result<Credentials, CaError> {
        let begun_ms = validity_ms(&self.root).map_or(now_ms, |(from, _)| from);
        let from_ms = begun_ms.min(backdated(now_ms));
        let issued = self.issue_from((subject, epoch, None), names, &key, (from_ms, now_ms), None)?;
        Ok(Credentials::new(issued.chain, key)?)
    }

    /// No longer than the issuing certificate holds. By a clock that shows a time after its end, as long as ever: either the clock is wrong,
    /// or nobody accepts it anyway.
    fn at_most(&self, lifetime: Duration, now_ms: u64) -> Duration {
        match (self.ends_ms / 1000).saturating_sub(now_ms / 1000) {
            0 => lifetime,
            left => lifetime.min(Duration::from_secs(left)),
        }
    }

    /// Valid from the first of two times, and for as long after the second as its kind is, or as `at_most` says.
    fn issue_from(
        &self,
        (subject, epoch, role): (&Subject, Epoch, Option<&RoleName>),
        names: &ServerNames,
        key: &impl PublicKeyData,
        (from_ms, now_ms): (u64, u64),
        at_most: Option<Duration>,
    ) -> Result<IssuedCertificate, CaError> {
        let identity = PeerIdentity {
            plant: self.plant.clone(),
            subject: subject.clone(),
        };
        let uri = identity.to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&subject.to_string());
        if epoch > Epoch::default() {
            let number = DnValue::Utf8String(epoch.to_string());
            params.distinguished_name.push(epoch_type(), number);
        }
        params.subject_alt_names = vec![SanType::URI(
            uri.as_str().try_into().map_err(|_| CaError::Name(uri.clone()))?,
        )];
        // People serve nobody.
        if !matches!(subject, Subject::Operator(_)) {
            params
                .subject_alt_names
                .extend(names.addresses().map(SanType::IpAddress));
            for name in names.dns() {
                params.subject_alt_names.push(SanType::DnsName(
                    name.try_into().map_err(|_| CaError::Name(name.to_owned()))?,
                ));
            }
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let client = || vec![ExtendedKeyUsagePurpose::ClientAuth];
        let both = || {
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ]
        };
        let (usages, lifetime) = match subject {
            // A coordinator also connects to others of its kind.
            Subject::Coordinator(_) => (both(), self.lifetimes.coordinator),
            Subject::Operator(_) => (client(), self.lifetimes.operator),
            // A gateway that ends nobody's TLS serves nobody.
            Subject::Gateway(_) if names.is_empty() => (client(), self.lifetimes.gateway),
            Subject::Gateway(_) => (both(), self.lifetimes.gateway),
            // Some are brokers.
            Subject::Device(_) => (both(), self.lifetimes.device),
        };
        let lifetime = at_most.map_or(lifetime, |most| lifetime.min(most));
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        if let (Subject::Device(_), Some(role)) = (subject, role) {
            let extension = CustomExtension::from_oid_content(ROLE_OID, encoded(role));
            params.custom_extensions.push(extension);
        }
        params.serial_number = Some(serial()?);
        let expires_ms = validity(&mut params, from_ms, now_ms, self.at_most(lifetime, now_ms));
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(|error| self.unsigned(error))?;
        Ok(IssuedCertificate {
            chain: std::iter::once(certificate.der().clone())
                .chain(self.issuers())
                .collect(),
            expires_ms,
        })
    }
}

pub(super) fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// `serialNumber` (X.520), where [`penstock_proto::peer`] looks for it.
fn epoch_type() -> DnType {
    DnType::CustomDnType(vec![2, 5, 4, 5])
}

/// 127 random bits (RFC 5280, 4.1.2.2: positive, at most 20 bytes).
pub(super) fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x01;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// From when what is issued now is valid, milliseconds since 1970.
pub(super) fn backdated(now_ms: u64) -> u64 {
    now_ms.saturating_sub(u64::try_from(BACKDATED.as_millis()).unwrap_or(0))
}

/// Sets the validity, and gives its end in milliseconds since 1970.
pub(super) fn validity(params: &mut CertificateParams, from_ms: u64, now_ms: u64, lifetime: Duration) -> u64 {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now_ms / 1000);
    params.not_before = epoch + Duration::from_secs(from_ms / 1000);
    params.not_after = epoch + now + lifetime;
    u64::try_from((now + lifetime).as_millis()).unwrap_or(u64::MAX)
}
