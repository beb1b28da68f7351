//! The roots that this gateway trusts, by the newest trust bundle that it took; before the first, those that people gave it.
//!
//! ```text
//! identity/roots.pem         by enrolment
//! identity/trust.json        the newest bundle, and a second copy beside it
//! identity/trust.copy.json
//! ```
//!
//! A bundle was verified when it was taken, by a root of the one before. Where neither copy can be read, the roots of the enrolment count, and
//! a coordinator sends what came since.

use penstock_policy::ids::PlantId;
use penstock_proto::bundle::{self, BUNDLE_FILE_BYTES_MAX, BundleError, SignedBundle, Trusted};

use super::{IdentityError, IdentityFolder};
use crate::durable;

const COPIES: [&str; 2] = ["trust.json", "trust.copy.json"];

/// Why a bundle is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrustNotTaken {
    /// For what it is.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It cannot be kept, or what is held cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl IdentityFolder {
    /// What is trusted here.
    ///
    /// # Errors
    /// There is no bundle, and the roots of the enrolment cannot be read.
    pub fn trusted(&self) -> Result<Trusted, IdentityError> {
        match self.newest_bundle() {
            Some(trusted) => Ok(trusted),
            None => Ok(Trusted::first(&self.enrolled_roots()?)),
        }
    }

    fn newest_bundle(&self) -> Option<Trusted> {
        self.newest_signed()?.trusted().ok()
    }

    /// The newest bundle, as it was signed.
    pub(crate) fn newest_signed(&self) -> Option<SignedBundle> {
        let read = |name: &str| {
            let bytes = durable::read(&self.path(name), BUNDLE_FILE_BYTES_MAX as u64).ok()??;
            let bundles = bundle::from_json(std::str::from_utf8(&bytes).ok()?).inspect_err(
                |error| tracing::error!(%error, file = name, "a trust bundle on the disk cannot be read"),
            );
            let newest = bundles.ok()?.pop()?;
            Some((newest.trusted().ok()?.number, newest))
        };
        let newest = COPIES
            .into_iter()
            .filter_map(read)
            .max_by_key(|(number, _)| *number);
        newest.map(|(_, bundle)| bundle)
    }

    /// Takes what is new in these bundles; durable when this returns. `None`: nothing is.
    ///
    /// # Errors
    /// They are not taken, for their reason, or cannot be written; what was trusted before is then.
    pub fn take_trust(
        &self,
        plant: &PlantId,
        bundles: &[SignedBundle],
    ) -> Result<Option<Trusted>, TrustNotTaken> {
        let held = self.trusted()?;
        let Some((taken, bundle)) = held.take_all(bundles, plant)? else {
            return Ok(None);
        };
        let text = bundle::to_json(&[bundle]);
        for name in COPIES {
            durable::replace(&self.path(name), text.as_bytes(), 0o644).map_err(IdentityError::from)?;
        }
        Ok(Some(taken))
    }

    /// Somebody gave this machine a root that the bundle does not have: it begins again with those of the enrolment.
    pub(super) fn forget_trust(&self) -> Result<(), IdentityError> {
        for name in COPIES {
            durable::remove(&self.path(name))?;
        }
        Ok(())
    }
}
