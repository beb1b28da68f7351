//! The certificate between a root that is kept away from networks and the plant's leaves: the root certifies the key of one
//! coordinator, and that key issues (DESIGN §6; IEC 62443-3-3 SR 1.8).
//!
//! ```text
//! root, on a machine without a network ─▶ issuing certificate, at most one ─▶ leaf
//! root that issues itself              ─────────────────────────────────────▶ leaf
//! ```
//!
//! TLS libraries differ in what they make of such a certificate: webpki refuses all that stands below a constraint on URIs,
//! others know none. So all of it is held here ([`judge`]), but for its time, which whoever asks knows. What costs nothing is
//! looked at before the signature.

use penstock_policy::ids::PlantId;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::keys::has_signed;

/// Name constraints (RFC 5280, 4.2.1.10).
const NAME_CONSTRAINTS: [u64; 4] = [2, 5, 29, 30];

/// Why a certificate does not issue for this plant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotIssuing {
    /// It cannot be read.
    #[error("the issuing certificate cannot be read")]
    Unreadable,
    /// It has a part that is not known here, or that limits it in another way.
    #[error("the issuing certificate has an extension ({0}) that is not accepted there")]
    Extension(String),
    /// It is of somebody who issues nothing.
    #[error(
        "the certificate between root and peer is not an authority's: its holder must not issue certificates"
    )]
    NoAuthority,
    /// It could have others issue.
    #[error("the issuing certificate does not say that nobody issues below it (its path length has to be 0)")]
    PathLength,
    /// It may not sign certificates and lists.
    #[error(
        "the issuing certificate may not sign certificates and lists (key usage keyCertSign and cRLSign)"
    )]
    KeyUsage,
    /// It is for no plant, or for another one.
    #[error("the issuing certificate is for {found}, and this is plant {plant}")]
    Plant {
        /// What it says.
        found: String,
        /// The one that it has to be for.
        plant: PlantId,
    },
    /// It is constrained to something else than the plant's names.
    #[error("the issuing certificate is constrained to other names than those of plant {0}")]
    Constraints(PlantId),
    /// No root that is trusted here certified it.
    #[error("no root certificate that is trusted here certified the issuing certificate")]
    Root,
    /// The root's own path length is 0.
    #[error(
        "the root certificate that certified the issuing certificate lets nobody issue below it (its path length is 0)"
    )]
    RootPath,
}

pub(crate) fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, NotIssuing> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(NotIssuing::Unreadable),
    }
}

/// The root that certified this issuing certificate for `plant`. What time it is plays no part.
///
/// # Errors
/// It is not one that issues for this plant, or none of `roots` certified it: by name ([`NotIssuing`]).
pub fn judge<'a>(
    certificate: &CertificateDer<'_>,
    plant: &PlantId,
    roots: &'a [CertificateDer<'static>],
) -> Result<&'a CertificateDer<'static>, NotIssuing> {
    let issuing = parsed(certificate)?;
    judge_content(&issuing, plant)?;
    let issuer = issuing.issuer().as_raw();
    let mut refused = NotIssuing::Root;
    for root in roots {
        let Ok(parsed_root) = parsed(root) else { continue };
        if parsed_root.subject().as_raw() != issuer {
            continue;
        }
        let path = parsed_root.basic_constraints().ok().flatten();
        if path.is_some_and(|found| found.value.path_len_constraint == Some(0)) {
            refused = NotIssuing::RootPath;
            continue;
        }
        if has_signed(
            root,
            issuing.tbs_certificate.as_ref(),
            &issuing.signature_value.data,
        ) {
            return Ok(root);
        }
    }
    Err(refused)
}

fn judge_content(issuing: &X509Certificate<'_>, plant: &PlantId) -> Result<(), NotIssuing> {
    let unreadable = |_| NotIssuing::Unreadable;
    let constraints = issuing.basic_constraints().map_err(unreadable)?;
    let constraints = constraints.ok_or(NotIssuing::NoAuthority)?;
    if !constraints.critical || !constraints.value.ca {
        return Err(NotIssuing::NoAuthority);
    }
    if constraints.value.path_len_constraint != Some(0) {
        return Err(NotIssuing::PathLength);
    }
    for extension in issuing.extensions() {
        let known = match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::NameConstraints(_)
            | ParsedExtension::SubjectAlternativeName(_)
            | ParsedExtension::SubjectKeyIdentifier(_)
            | ParsedExtension::AuthorityKeyIdentifier(_) => true,
            // It would limit what is issued, to something that is not looked at.
            ParsedExtension::ExtendedKeyUsage(_) => false,
            _ => !extension.critical,
        };
        if !known {
            return Err(NotIssuing::Extension(extension.oid.to_id_string()));
        }
    }
    let usage = issuing.key_usage().map_err(unreadable)?;
    if !usage.is_some_and(|usage| usage.value.key_cert_sign() && usage.value.crl_sign()) {
        return Err(NotIssuing::KeyUsage);
    }
    let names = issuing.subject_alternative_name().map_err(unreadable)?;
    let names = names
        .map(|found| found.value.general_names.as_slice())
        .unwrap_or_default();
    if !matches!(names, [GeneralName::URI(uri)] if *uri == domain(plant)) {
        let found = match names {
            [] => "no plant".to_owned(),
            [GeneralName::URI(uri)] => (*uri).to_owned(),
            _ => "several names".to_owned(),
        };
        let plant = plant.clone();
        return Err(NotIssuing::Plant { found, plant });
    }
    // Where it is constrained, then to exactly this plant: nobody has to weigh one name against another.
    if let Some(found) = issuing.name_constraints().map_err(unreadable)? {
        let permitted = found.value.permitted_subtrees.as_deref().unwrap_or_default();
        let is_plant = matches!(permitted, [only] if matches!(only.base, GeneralName::URI(host) if host == plant.as_str()));
        let excluded = found.value.excluded_subtrees.as_deref().unwrap_or_default();
        if !is_plant || !excluded.is_empty() {
            return Err(NotIssuing::Constraints(plant.clone()));
        }
    }
    Ok(())
}

/// The trust domain's own name (SPIFFE): without a path, so that nobody is taken for it.
fn domain(plant: &PlantId) -> String {
    format!("spiffe://{plant}")
}

/// What an issuing certificate of `plant` says, but for name, time and number. `constrained`: by the standard's name
/// constraints, too, which OpenSSL and Go hold others to, and for which some programs refuse the certificate; programs of
/// Penstock hold it to its plant either way. Addresses and DNS names are not constrained: no root knows a plant's addresses
/// for years ahead, and nothing of Penstock takes a peer for anything because of them.
///
/// # Errors
/// The plant's name does not fit into a certificate.
pub fn params(plant: &PlantId, constrained: bool) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(domain(plant).try_into()?)];
    params.use_authority_key_identifier_extension = true;
    if constrained {
        let mut content = plant.as_str().as_bytes().to_vec();
        // uniformResourceIdentifier [6] in GeneralSubtree, in permittedSubtrees [0], in NameConstraints.
        for tag in [0x86, 0x30, 0xa0, 0x30] {
            // Names are at most 63 bytes long: a length is one byte.
            let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80);
            let length = length.ok_or(rcgen::Error::CouldNotParseCertificate)?;
            content.splice(0..0, [tag, length]);
        }
        let mut constraints = CustomExtension::from_oid_content(&NAME_CONSTRAINTS, content);
        constraints.set_criticality(true);
        params.custom_extensions.push(constraints);
    }
    Ok(params)
}
