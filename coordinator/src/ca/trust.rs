//! The trust bundles of a plant as its coordinator keeps them: all of them, since whoever was dark takes one after the other.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use penstock_policy::ids::{Digest, PlantId};
use penstock_proto::bundle::{self, SignedBundle, Trusted};

use super::{Authority, CaError, certificate};
use crate::files;

const FILE: &str = "trust.json";

/// Held by whoever takes bundles back: what is on the disk does not change between reading and writing it.
static TAKING: Mutex<()> = Mutex::new(());

/// All bundles so far, in the order of their numbers.
pub(super) fn bundles(dir: &Path) -> Result<Vec<SignedBundle>, CaError> {
    let file = dir.join(FILE);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = String::from_utf8_lossy(&files::read(&file)?).into_owned();
    Ok(bundle::from_json(&text)?)
}

/// What is trusted by the last of them, or before any.
pub(super) fn trusted(dir: &Path, bundles: &[SignedBundle]) -> Result<Trusted, CaError> {
    match bundles.last() {
        // It was verified when it was installed.
        Some(newest) => Ok(newest.trusted()?),
        None => Ok(Trusted::first(&[certificate(&dir.join("root.pem"))?])),
    }
}

impl Authority {
    /// What would be trusted with the bundles in this text beside those that are here.
    ///
    /// # Errors
    /// They are not signed by a root that is trusted here, or say nothing new; or this coordinator would issue below a root, or by a certificate,
    /// that no longer counts.
    pub fn with_bundles(&self, text: &str) -> Result<(Trusted, Vec<SignedBundle>), CaError> {
        self.after(
            (self.trusted.clone(), self.bundles.clone()),
            bundle::from_json(text)?,
        )
    }

    /// The same, beside these.
    fn after(
        &self,
        (mut trusted, mut all): (Trusted, Vec<SignedBundle>),
        come: Vec<SignedBundle>,
    ) -> Result<(Trusted, Vec<SignedBundle>), CaError> {
        let before = trusted.number;
        for bundle in come {
            if bundle.unverified()?.number > trusted.number
                && let Some(taken) = trusted.take(&bundle, &self.plant)?
            {
                trusted = taken;
                all.push(bundle);
            }
        }
        if trusted.number == before {
            return Err(CaError::NotInstalled(format!(
                "the file holds no trust bundle that comes after number {}",
                trusted.number
            )));
        }
        if trusted.phase(&self.root).is_none() {
            return Err(CaError::NotInstalled(
                "this coordinator issues below a root that the trust bundle drops: install an issuing certificate below the active root first".to_owned(),
            ));
        }
        let own = self.issuing.as_ref().map(|issuing| Digest::of(issuing));
        if own.is_some_and(|own| trusted.withdrawn.contains(&own)) {
            return Err(CaError::NotInstalled(
                "this coordinator issues by a certificate that the trust bundle withdraws: install its next one first".to_owned(),
            ));
        }
        Ok((trusted, all))
    }

    /// Keeps these bundles, for the next start.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_bundles(dir: &Path, bundles: &[SignedBundle]) -> Result<(), CaError> {
        Ok(files::replace_secret(
            &dir.join(FILE),
            bundle::to_json(bundles).as_bytes(),
        )?)
    }

    /// Takes bundles back that a gateway holds and this coordinator lost, for the next start; what is trusted then. `None`: what is on the disk goes as
    /// far already, by another gateway.
    ///
    /// # Errors
    /// As [`Self::with_bundles`], or the file cannot be written.
    pub fn take_back(&self, bundles: &[SignedBundle]) -> Result<Option<Trusted>, CaError> {
        let come = bundle::from_json(&bundle::to_json(bundles))?;
        let newest = match come.last() {
            Some(newest) => newest.unverified()?.number,
            None => 0,
        };
        let _one = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self::bundles(&self.dir)?;
        let held = trusted(&self.dir, &kept)?;
        if held.number >= newest {
            return Ok(None);
        }
        let (trusted, all) = self.after((held, kept), come)?;
        Self::keep_bundles(&self.dir, &all)?;
        Ok(Some(trusted))
    }

    /// The root below which what this text (PEM) certifies was certified, if it is trusted here.
    ///
    /// # Errors
    /// The text is not a certificate that issues for this plant.
    pub fn root_of(dir: &Path, plant: &PlantId, pem: &[u8]) -> Result<Digest, CaError> {
        let trusted = trusted(dir, &bundles(dir)?)?;
        let found = penstock_proto::tls::certificates_from_pem(pem, "the issuing certificate")?;
        let issuing = found
            .first()
            .ok_or_else(|| CaError::NotInstalled("there is no certificate".to_owned()))?;
        let roots = trusted.certificates();
        let root = penstock_proto::issuing::judge(issuing, plant, &roots).map_err(CaError::Issuing)?;
        Ok(Digest::of(root))
    }

    /// The number of the first bundle since which a root is trusted without a break; 0: since before any.
    pub fn trusted_since(&self, root: Digest) -> u64 {
        let mut since = None;
        for bundle in &self.bundles {
            let Ok(then) = bundle.trusted() else { continue };
            let has = then.roots.iter().any(|(known, _)| Digest::of(known) == root);
            since = match (has, since) {
                (true, None) => Some(then.number),
                (true, before) => before,
                (false, _) => None,
            };
        }
        since.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
