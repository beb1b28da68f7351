//! By whose key the leaf of a peer of the plant has to be signed: a root's, or that of the issuing certificate that follows it.
//!
//! Who may issue below a root stands in [`crate::issuing`]. webpki is asked only whether that key signed the leaf, and whether the leaf is
//! one: it never builds a path. What a stranger's chain costs is one signature by a root and one by the issuing key.

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::PlantId;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};

use super::times::instant;
use super::{TlsError, certificate_error, provider, root_store};
use crate::issuing::{judge, parsed};
use crate::peer::validity_ms;

/// Why a leaf does not count, although the keys of its chain signed what they had to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongChain {
    /// What it was issued by has ended.
    #[error(
        "the certificate by which the peer's was issued ended at {0}: the plant's root has to certify the coordinator's issuing key again"
    )]
    Ended(String),
    /// The peer's own certificate is an authority's.
    #[error("the peer shows the certificate of an authority as its own")]
    LeafIssues,
}

/// What stands between a leaf and a root, and the root: whoever shows the leaf shows them with it. `None`: none of `roots` issued
/// it, itself or by an issuing certificate in `chain`, of which the leaf is the first.
///
/// What time it is does not matter: a clock may be wrong, and that a certificate is not valid at some time is for those to say to
/// whom it is shown.
pub fn issuers(
    plant: &PlantId,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Option<Vec<CertificateDer<'static>>> {
    let (leaf, others) = chain.split_first()?;
    let (from_ms, _) = validity_ms(leaf).ok()?;
    let then = UnixTime::since_unix_epoch(Duration::from_millis(from_ms));
    let signed_by = |anchors: Arc<RootCertStore>| {
        let verifier = WebPkiClientVerifier::builder_with_provider(anchors, provider()).build();
        verifier.is_ok_and(|verifier| verifier.verify_client_cert(leaf, &[], then).is_ok())
    };
    let direct = roots
        .iter()
        .find(|root| root_store(std::slice::from_ref(root)).is_ok_and(signed_by));
    if let Some(root) = direct {
        return Some(vec![root.clone()]);
    }
    let issuing = others.first()?;
    let root = judge(issuing, plant, roots).ok()?;
    let signed = anchor(issuing).is_ok_and(signed_by);
    signed.then(|| vec![issuing.clone(), root.clone()])
}

/// The key of an issuing certificate that was judged, as webpki wants it: without constraints, to which it was held here.
fn anchor(issuing: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut store = RootCertStore::empty();
    store.add(issuing.clone().into_owned())?;
    for anchor in &mut store.roots {
        anchor.name_constraints = None;
    }
    Ok(Arc::new(store))
}

/// The roots of a plant, and who may issue below them.
#[derive(Debug)]
pub(super) struct Chains {
    plant: PlantId,
    roots: Vec<CertificateDer<'static>>,
    anchors: Arc<RootCertStore>,
    /// The roots' own names, as they stand in what they issued.
    names: Vec<Vec<u8>>,
}

/// Whose key a leaf has to be signed by.
#[derive(Debug)]
pub(super) struct Issuer {
    /// One of the roots', or the one of an issuing certificate that was judged.
    pub(super) anchors: Arc<RootCertStore>,
    /// From when until when that issuing certificate is valid, milliseconds since 1970; `None`: a root has no end here.
    valid_ms: Option<(u64, u64)>,
}

impl Chains {
    pub(super) fn new(plant: &PlantId, roots: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        let subject = |root| Some(parsed(root).ok()?.subject().as_raw().to_vec());
        Ok(Self {
            plant: plant.clone(),
            roots: roots.to_vec(),
            anchors: root_store(roots)?,
            names: roots.iter().filter_map(subject).collect(),
        })
    }

    pub(super) fn roots(&self) -> &Arc<RootCertStore> {
        &self.anchors
    }

    /// Whose key has to have signed this leaf. TLS has the issuing certificate follow the leaf; it is looked for nowhere else.
    pub(super) fn issuer(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<Issuer, rustls::Error> {
        let direct = || Issuer {
            anchors: self.anchors.clone(),
            valid_ms: None,
        };
        // What cannot be read here, webpki has a word for.
        let Ok(leaf) = parsed(leaf) else {
            return Ok(direct());
        };
        let issuer = leaf.issuer().as_raw();
        if self.names.iter().any(|name| name == issuer) {
            return Ok(direct());
        }
        let Some(issuing) = others.first() else {
            return Ok(direct());
        };
        // By a root of ours, by its name: whatever else came with a leaf has nothing to do with this plant.
        let is_named = parsed(issuing).is_ok_and(|found| {
            let by = found.issuer().as_raw();
            found.subject().as_raw() == issuer && self.names.iter().any(|name| name == by)
        });
        if !is_named {
            return Ok(direct());
        }
        judge(issuing, &self.plant, &self.roots).map_err(certificate_error)?;
        Ok(Issuer {
            anchors: anchor(issuing)?,
            valid_ms: Some(validity_ms(issuing).map_err(certificate_error)?),
        })
    }
}

impl Issuer {
    /// Whether a root has to have signed it itself.
    pub(super) fn is_root(&self) -> bool {
        self.valid_ms.is_none()
    }

    /// Whether what issued a leaf counts at a time, and the leaf is one.
    pub(super) fn stands(&self, leaf: &CertificateDer<'_>, at: UnixTime) -> Result<(), rustls::Error> {
        if parsed(leaf).is_ok_and(|leaf| leaf.is_ca()) {
            return Err(certificate_error(WrongChain::LeafIssues));
        }
        let Some((from_ms, until_ms)) = self.valid_ms else {
            return Ok(());
        };
        let now = Duration::from_secs(at.as_secs());
        let from = Duration::from_millis(from_ms);
        if now < from {
            // As of the leaf itself: whoever knows that the clock is behind asks again.
            return Err(CertificateError::NotValidYetContext {
                time: at,
                not_before: UnixTime::since_unix_epoch(from),
            }
            .into());
        }
        if now > Duration::from_millis(until_ms) {
            return Err(certificate_error(WrongChain::Ended(instant(until_ms))));
        }
        Ok(())
    }
}
