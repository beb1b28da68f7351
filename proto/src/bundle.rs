//! Which roots a plant trusts, and how one takes another's place: a numbered bundle that a root of the bundle before signed (DESIGN §6;
//! IEC 62443-3-3 SR 1.8).
//!
//! ```text
//!            number 1        2                3                 4
//! old root   active          active           retiring          -
//! new root   -               next             active            active
//!                            trusted by all,  issues; what the  alone
//!                            issues nothing   old one issued counts
//! ```
//!
//! Whoever holds a bundle takes a later one only by the signature of a root that they hold: no root comes in by the word of a coordinator, nor by
//! its own. A bundle may be signed by several roots, so that also those take it who know one of them. Numbers grow; two bundles with one number
//! are an alarm. With roots go issuing certificates ([`crate::issuing`]) that no longer count: a withdrawal is never taken back.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use penstock_policy::ids::{Digest, PlantId};
use penstock_policy::release;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::issuing::parsed;
use crate::keys::{Key, KeyError, has_signed};

/// What a signature says that it is over.
const PAYLOAD_TYPE: &str = "application/vnd.penstock.trust+json";
/// The format of a bundle.
pub const BUNDLE_FORMAT: &str = "penstock-trust/1";
/// Roots of one bundle.
pub const ROOTS_MAX: usize = 4;
/// Issuing certificates that one bundle withdraws.
pub const WITHDRAWN_MAX: usize = 64;
/// Bundles that are looked at together: who was dark for long takes them one after the other.
pub const BUNDLES_MAX: usize = 64;
/// A signed bundle is not looked at beyond.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024;
/// A file of them is not read beyond.
pub const BUNDLE_FILE_BYTES_MAX: usize = BUNDLES_MAX * 2 * BUNDLE_BYTES_MAX;
/// Signatures of one bundle that are looked at.
const SIGNATURES_MAX: usize = ROOTS_MAX;

/// What a root is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Trusted, and nothing is issued below it yet.
    Next,
    /// What is issued now is issued below it.
    Active,
    /// What was issued below it counts, and is renewed below the active one.
    Retiring,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retiring => "retiring",
        })
    }
}

/// A root of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRoot {
    /// Its certificate, DER in base64.
    certificate: String,
    /// What it is good for.
    pub phase: Phase,
}

impl BundleRoot {
    /// This root in this phase.
    pub fn new(certificate: &CertificateDer<'_>, phase: Phase) -> Self {
        Self {
            certificate: BASE64.encode(certificate),
            phase,
        }
    }
}

/// A bundle as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    format: String,
    /// The plant.
    pub plant: PlantId,
    /// Later ones have higher numbers.
    pub number: u64,
    /// When it was made, milliseconds since 1970.
    pub made_ms: u64,
    /// Its roots.
    pub roots: Vec<BundleRoot>,
    /// SHA-256 of issuing certificates (DER) that no longer count.
    pub withdrawn: BTreeSet<Digest>,
}

/// A bundle, and signatures of roots over its exact bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedBundle {
    /// The bundle, as JSON.
    pub payload: Vec<u8>,
    /// Over the payload with its type (DSSE).
    pub signatures: Vec<Vec<u8>>,
}

/// The roots that somebody trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// The bundle's number; 0: roots that people gave, before any bundle.
    pub number: u64,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The roots.
    pub roots: Vec<(CertificateDer<'static>, Phase)>,
    /// Issuing certificates that no longer count.
    pub withdrawn: BTreeSet<Digest>,
}

/// Why a bundle is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Longer than any.
    #[error("the trust bundle has {0} bytes, and at most {BUNDLE_BYTES_MAX} are read")]
    TooLong(usize),
    /// Nobody who may signed it.
    #[error("no root certificate that is trusted here signed the trust bundle")]
    Signature,
    /// It is none.
    #[error("the trust bundle cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Of a format that is not known here.
    #[error("the trust bundle has the format `{0}`; this program reads `{BUNDLE_FORMAT}`")]
    Format(String),
    /// Of another plant.
    #[error("the trust bundle is of plant {0}")]
    Plant(PlantId),
    /// An earlier one.
    #[error("the trust bundle has number {number}, and number {held} is held already")]
    Older {
        /// Its number.
        number: u64,
        /// The one that is held.
        held: u64,
    },
    /// Two of them.
    #[error(
        "two different trust bundles have the number {0}, and a root signed both: somebody else has the key of a root, or two people worked at once"
    )]
    Forked(u64),
    /// What it says makes no sense.
    #[error("the trust bundle cannot be used: {0}")]
    Content(String),
    /// A file of bundles.
    #[error("this is not a file of trust bundles: {0}")]
    File(String),
}

impl Bundle {
    /// The one that follows `before`, with these roots and with these issuing certificates withdrawn beside those that were.
    ///
    /// # Errors
    /// What it would say makes no sense ([`BundleError::Content`]).
    pub fn following(
        before: &Trusted,
        plant: &PlantId,
        made_ms: u64,
        roots: Vec<BundleRoot>,
        withdrawn: impl IntoIterator<Item = Digest>,
    ) -> Result<Self, BundleError> {
        let bundle = Self {
            format: BUNDLE_FORMAT.to_owned(),
            plant: plant.clone(),
            number: before.number.saturating_add(1),
            made_ms,
            roots,
            withdrawn: before.withdrawn.iter().copied().chain(withdrawn).collect(),
        };
        bundle.content()?;
        Ok(bundle)
    }

    /// Its roots, if all that it says makes sense.
    fn content(&self) -> Result<Vec<(CertificateDer<'static>, Phase)>, BundleError> {
        let wrong = |what: String| Err(BundleError::Content(what));
        if self.number == 0 {
            return wrong("its number is 0".to_owned());
        }
        if self.roots.len() > ROOTS_MAX || self.withdrawn.len() > WITHDRAWN_MAX {
            return wrong(format!(
                "it has {} roots and withdraws {} issuing certificates; at most {ROOTS_MAX} and {WITHDRAWN_MAX} are possible",
                self.roots.len(),
                self.withdrawn.len()
            ));
        }
        let active = self.roots.iter().filter(|root| root.phase == Phase::Active);
        if active.count() != 1 {
            return wrong("exactly one of its roots has to be active".to_owned());
        }
        let mut roots: Vec<(CertificateDer<'static>, Phase)> = Vec::new();
        for root in &self.roots {
            let Ok(der) = BASE64.decode(&root.certificate) else {
                return wrong("one of its roots is not base64".to_owned());
            };
            let certificate = CertificateDer::from(der);
            if !parsed(&certificate).is_ok_and(|root| root.is_ca()) {
                return wrong("one of its roots is not an authority's certificate".to_owned());
            }
            if roots.iter().any(|(known, _)| *known == certificate) {
                return wrong("it names a root twice".to_owned());
            }
            roots.push((certificate, root.phase));
        }
        Ok(roots)
    }
}

impl SignedBundle {
    /// Signed by nobody yet.
    pub fn unsigned(bundle: &Bundle) -> Self {
        Self {
            // Names, numbers and texts: nothing that JSON cannot say; an empty one would be refused as unreadable.
            payload: serde_json::to_vec(bundle).unwrap_or_default(),
            signatures: Vec::new(),
        }
    }

    /// Adds the signature of a root's key.
    ///
    /// # Errors
    /// The key's holder does not sign.
    pub fn sign(&mut self, root: &Key) -> Result<(), KeyError> {
        self.signatures
            .push(root.sign(&release::encoding(PAYLOAD_TYPE, &self.payload))?);
        Ok(())
    }

    /// What it says, whoever signed it.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub fn unverified(&self) -> Result<Bundle, BundleError> {
        if self.payload.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLong(self.payload.len()));
        }
        let bundle: Bundle = serde_json::from_slice(&self.payload).map_err(BundleError::Unreadable)?;
        if bundle.format != BUNDLE_FORMAT {
            return Err(BundleError::Format(bundle.format));
        }
        bundle.content()?;
        Ok(bundle)
    }

    /// What whoever took it trusts: from their own disk, where it was verified when it was taken.
    ///
    /// # Errors
    /// As [`Self::unverified`].
    pub fn trusted(&self) -> Result<Trusted, BundleError> {
        let bundle = self.unverified()?;
        Ok(Trusted {
            number: bundle.number,
            digest: Digest::of(&self.payload),
            roots: bundle.content()?,
            withdrawn: bundle.withdrawn,
        })
    }

    fn is_signed_by(&self, roots: &[(CertificateDer<'static>, Phase)]) -> bool {
        let signed = release::encoding(PAYLOAD_TYPE, &self.payload);
        self.signatures
            .iter()
            .take(SIGNATURES_MAX)
            .any(|signature| roots.iter().any(|(root, _)| has_signed(root, &signed, signature)))
    }
}

impl Trusted {
    /// Roots that people gave, before any bundle.
    pub fn first(roots: &[CertificateDer<'static>]) -> Self {
        Self {
            number: 0,
            digest: Digest([0; 32]),
            roots: roots.iter().map(|root| (root.clone(), Phase::Active)).collect(),
            withdrawn: BTreeSet::new(),
        }
    }

    /// The certificates of its roots.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.roots.iter().map(|(root, _)| root.clone()).collect()
    }

    /// In which phase a root is; `None`: it is not trusted.
    pub fn phase(&self, root: &CertificateDer<'_>) -> Option<Phase> {
        let found = self.roots.iter().find(|(known, _)| known == root);
        found.map(|(_, phase)| *phase)
    }

    /// What is trusted once this bundle is taken; `None`: it is the one that is held.
    ///
    /// # Errors
    /// No root that is held signed it, it is an earlier one, another one of the same number, one of another plant, or makes no sense. Then
    /// what is held stays.
    pub fn take(&self, signed: &SignedBundle, plant: &PlantId) -> Result<Option<Self>, BundleError> {
        if signed.payload.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLong(signed.payload.len()));
        }
        if Digest::of(&signed.payload) == self.digest {
            return Ok(None);
        }
        if !signed.is_signed_by(&self.roots) {
            return Err(BundleError::Signature);
        }
        let taken = signed.trusted()?;
        let bundle = signed.unverified()?;
        if bundle.plant != *plant {
            return Err(BundleError::Plant(bundle.plant));
        }
        if taken.number == self.number {
            return Err(BundleError::Forked(taken.number));
        }
        if taken.number < self.number {
            return Err(BundleError::Older {
                number: taken.number,
                held: self.number,
            });
        }
        if !taken.withdrawn.is_superset(&self.withdrawn) {
            return Err(BundleError::Content(
                "it takes back the withdrawal of an issuing certificate".to_owned(),
            ));
        }
        Ok(Some(taken))
    }

    /// The same for several, in the order of their numbers: earlier ones than the one that is held say nothing, and one that nobody signed who is
    /// trusted is passed over where a later one is signed by a root that is held. Gives what is trusted then and the bundle that says so; `None`:
    /// nothing is new.
    ///
    /// # Errors
    /// The last of them is not taken, for its reason, or one has the number of the one that is held and says something else.
    pub fn take_all(
        &self,
        bundles: &[SignedBundle],
        plant: &PlantId,
    ) -> Result<Option<(Self, SignedBundle)>, BundleError> {
        let mut held: Option<(Self, SignedBundle)> = None;
        let mut refused = None;
        for bundle in bundles.iter().take(BUNDLES_MAX) {
            let now = held.as_ref().map_or(self, |(held, _)| held);
            match now.take(bundle, plant) {
                Ok(Some(taken)) => {
                    held = Some((taken, bundle.clone()));
                    refused = None;
                }
                Ok(None) | Err(BundleError::Older { .. }) => refused = None,
                Err(forked @ BundleError::Forked(_)) => return Err(forked),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if held.is_none() => Err(error),
            _ => Ok(held),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJson {
    bundles: Vec<EnvelopeJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EnvelopeJson {
    payload_type: String,
    payload: String,
    signatures: Vec<SignatureJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    sig: String,
}

/// Bundles as JSON, each in the standard's envelope (DSSE), to be written to a file.
pub fn to_json(bundles: &[SignedBundle]) -> String {
    let envelope = |bundle: &SignedBundle| EnvelopeJson {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: BASE64.encode(&bundle.payload),
        signatures: bundle
            .signatures
            .iter()
            .map(|signature| SignatureJson {
                sig: BASE64.encode(signature),
            })
            .collect(),
    };
    let file = FileJson {
        bundles: bundles.iter().map(envelope).collect(),
    };
    // Strings have no way to fail; an empty file would be refused.
    serde_json::to_string_pretty(&file).unwrap_or_default() + "\n"
}

/// Reads what [`to_json`] wrote, in the order of their numbers. No signature is judged here.
///
/// # Errors
/// The text is something else, or one of them cannot be read or makes no sense.
pub fn from_json(text: &str) -> Result<Vec<SignedBundle>, BundleError> {
    let wrong = |why: String| BundleError::File(why);
    if text.len() > BUNDLE_FILE_BYTES_MAX {
        return Err(wrong(format!("it has {} bytes", text.len())));
    }
    let file: FileJson = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if file.bundles.is_empty() || file.bundles.len() > BUNDLES_MAX {
        return Err(wrong(format!("it holds {} bundles", file.bundles.len())));
    }
    let mut bundles = Vec::new();
    for envelope in file.bundles {
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(wrong(format!("it holds `{}`", envelope.payload_type)));
        }
        let decoded = |text: &str| {
            BASE64
                .decode(text)
                .map_err(|_| wrong("a part of it is not base64".to_owned()))
        };
        let bundle = SignedBundle {
            payload: decoded(&envelope.payload)?,
            signatures: envelope
                .signatures
                .iter()
                .map(|signature| decoded(&signature.sig))
                .collect::<Result<_, _>>()?,
        };
        bundles.push((bundle.unverified()?.number, bundle));
    }
    bundles.sort_by_key(|(number, _)| *number);
    Ok(bundles.into_iter().map(|(_, bundle)| bundle).collect())
}

#[cfg(test)]
mod tests;
