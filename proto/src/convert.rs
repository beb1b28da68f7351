//! Small conversions between wire and domain that both sides need. Wire becomes domain only by `TryFrom`; what
//! is missing or has the wrong length is refused by name.

use penstock_policy::ids::{Digest, Revision};
use penstock_policy::release::Signature;
use penstock_policy::terms::Proof;

use crate::bundle::{BUNDLES_MAX, SignedBundle, Trusted};
use crate::v1;
use crate::withdrawn::{Held, SignedHeld, SignedList};

/// Why a message is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field that must be there is not.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A digest has not 32 bytes.
    #[error("the field `{field}` has {length} bytes; a SHA-256 digest has 32")]
    DigestLength {
        /// The field.
        field: &'static str,
        /// Its length.
        length: usize,
    },
    /// A number that must not be zero is.
    #[error("the field `{0}` must not be 0")]
    Zero(&'static str),
}

/// A digest from the bytes of `field`.
///
/// # Errors
/// The field does not have 32 bytes.
pub fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, WireError> {
    bytes.try_into().map(Digest).map_err(|_| WireError::DigestLength {
        field,
        length: bytes.len(),
    })
}

impl From<Proof> for v1::Proof {
    fn from(proof: Proof) -> Self {
        match proof {
            Proof::Address => Self::Address,
            Proof::Port => Self::Port,
            Proof::Mac => Self::Mac,
            Proof::Tunnel => Self::Tunnel,
            Proof::ForeignCertificate => Self::ForeignCertificate,
            Proof::PlantCertificate => Self::PlantCertificate,
        }
    }
}

impl From<&Signature> for v1::Signature {
    fn from(signature: &Signature) -> Self {
        Self {
            approver: signature.approver.to_string(),
            signature: signature.bytes().to_vec().into(),
            algorithm: signature.algorithm().written().to_owned(),
        }
    }
}

/// A policy at a place in its life on a gateway: which revision, and which plan of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyMark {
    /// The release.
    pub revision: Revision,
    /// Digest of the gateway's own plan in it.
    pub plan: Digest,
    /// Digest of the release's statement; `None`: from software that does not report it.
    pub statement: Option<Digest>,
}

impl PolicyMark {
    /// Whether both are the same release. A number alone does not say so: a coordinator that was restored from a backup
    /// may have used it a second time.
    pub fn is(&self, other: &Self) -> bool {
        self.revision == other.revision
            && self.plan == other.plan
            && (self.statement == other.statement || self.statement.is_none() || other.statement.is_none())
    }
}

impl TryFrom<&v1::RevisionDigest> for PolicyMark {
    type Error = WireError;
    fn try_from(wire: &v1::RevisionDigest) -> Result<Self, WireError> {
        if wire.revision == 0 {
            return Err(WireError::Zero("revision"));
        }
        Ok(Self {
            revision: Revision(wire.revision),
            plan: digest("plan_digest", &wire.plan_digest)?,
            statement: (!wire.statement_digest.is_empty())
                .then(|| digest("statement_digest", &wire.statement_digest))
                .transpose()?,
        })
    }
}

impl From<PolicyMark> for v1::RevisionDigest {
    fn from(mark: PolicyMark) -> Self {
        Self {
            revision: mark.revision.0,
            plan_digest: mark.plan.0.to_vec().into(),
            statement_digest: mark
                .statement
                .map(|digest| digest.0.to_vec().into())
                .unwrap_or_default(),
        }
    }
}

impl From<&v1::WithdrawnHeld> for Held {
    /// What makes no sense is nothing that anybody holds, so that all of the list is sent.
    fn from(wire: &v1::WithdrawnHeld) -> Self {
        let digest = digest("digest", &wire.digest);
        Self {
            number: digest.as_ref().map_or(0, |_| wire.number),
            digest: digest.unwrap_or(Digest([0; 32])),
        }
    }
}

impl From<&Trusted> for v1::TrustHeld {
    fn from(held: &Trusted) -> Self {
        Self {
            number: held.number,
            digest: held.digest.0.to_vec().into(),
            root: prost::bytes::Bytes::new(),
        }
    }
}

impl From<&[SignedBundle]> for v1::TrustBundles {
    fn from(bundles: &[SignedBundle]) -> Self {
        let bundle = |bundle: &SignedBundle| v1::TrustBundle {
            payload: bundle.payload.clone().into(),
            signatures: bundle.signatures.iter().map(|one| one.clone().into()).collect(),
        };
        Self {
            bundles: bundles.iter().map(bundle).collect(),
        }
    }
}

impl From<v1::TrustBundles> for Vec<SignedBundle> {
    /// Nothing of them is judged; more than are looked at are left out.
    fn from(wire: v1::TrustBundles) -> Self {
        let bundle = |bundle: v1::TrustBundle| SignedBundle {
            payload: bundle.payload.to_vec(),
            signatures: bundle.signatures.iter().map(|one| one.to_vec()).collect(),
        };
        wire.bundles.into_iter().take(BUNDLES_MAX).map(bundle).collect()
    }
}

impl From<&SignedList> for v1::WithdrawnList {
    fn from(list: &SignedList) -> Self {
        Self {
            payload: list.payload.clone().into(),
            signature: list.signature.clone().into(),
            chain: list.issuing.clone().unwrap_or_default().into(),
            held: list
                .held
                .as_ref()
                .map(|held| held.payload.clone())
                .unwrap_or_default()
                .into(),
            held_signature: list
                .held
                .as_ref()
                .map(|held| held.signature.clone())
                .unwrap_or_default()
                .into(),
        }
    }
}

impl From<v1::WithdrawnList> for SignedList {
    /// Nothing of it is judged.
    fn from(wire: v1::WithdrawnList) -> Self {
        let issuing = (!wire.chain.is_empty()).then(|| wire.chain.to_vec());
        Self {
            payload: wire.payload.to_vec(),
            signature: wire.signature.to_vec(),
            held: signed_held(&wire.held, &wire.held_signature, issuing.clone()),
            issuing,
        }
    }
}

fn signed_held(payload: &[u8], signature: &[u8], issuing: Option<Vec<u8>>) -> Option<SignedHeld> {
    (!payload.is_empty()).then(|| SignedHeld {
        payload: payload.to_vec(),
        signature: signature.to_vec(),
        issuing,
    })
}

impl From<(Vec<u8>, SignedHeld)> for v1::WithdrawnProof {
    fn from((list, held): (Vec<u8>, SignedHeld)) -> Self {
        Self {
            list: list.into(),
            held: held.payload.into(),
            held_signature: held.signature.into(),
            chain: held.issuing.unwrap_or_default().into(),
        }
    }
}

impl From<&v1::WithdrawnProof> for Option<SignedHeld> {
    /// Nothing of it is judged; `None`: there is no proof.
    fn from(wire: &v1::WithdrawnProof) -> Self {
        let issuing = (!wire.chain.is_empty()).then(|| wire.chain.to_vec());
        signed_held(&wire.held, &wire.held_signature, issuing)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mark_with_no_revision_or_a_short_digest_is_refused() {
        let good = PolicyMark {
            revision: Revision(7),
            plan: Digest::of(b"plan"),
            statement: Some(Digest::of(b"statement")),
        };
        let wire = v1::RevisionDigest::from(good);
        assert_eq!(PolicyMark::try_from(&wire), Ok(good));
        let mut zero = wire.clone();
        zero.revision = 0;
        assert_eq!(PolicyMark::try_from(&zero), Err(WireError::Zero("revision")));
        let mut unknown = wire.clone();
        unknown.statement_digest = Vec::new().into();
        assert!(PolicyMark::try_from(&unknown).unwrap().is(&good));
        let mut other = wire.clone();
        other.statement_digest = Digest::of(b"another").0.to_vec().into();
        assert!(!PolicyMark::try_from(&other).unwrap().is(&good));
        let mut short = wire;
        short.plan_digest = short.plan_digest.slice(..31);
        assert!(matches!(
            PolicyMark::try_from(&short),
            Err(WireError::DigestLength { length: 31, .. })
        ));
    }
}
