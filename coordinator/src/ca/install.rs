//! The key that a root elsewhere certifies for issuing: made here, and in use once its certificate is installed. A coordinator that is killed
//! between any two of these steps has the key before with its certificate, or the new one with its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_policy::ids::{Digest, PlantId};
use penstock_proto::bundle::{Phase, Trusted};
use penstock_proto::issuing;
use penstock_proto::keys::{FileKey, Key, KeyError, KeyKind, certificate_request};
use penstock_proto::peer::certified_key;
use penstock_proto::tls::times::instant;
use penstock_proto::tls::{TlsError, certificates_from_pem, certificates_to_pem, validity_ms};
use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;

use super::{Authority, CaError, IssuingKey, certificate, trust};
use crate::files;
use crate::pkcs11::{KeyUri, TokenKey};

const ROOT: &str = "root.pem";
const ISSUING: &str = "issuing.pem";
const KEY: &str = "issuing.key";
const NEXT_KEY: &str = "next.key";

type Installed = (CertificateDer<'static>, CertificateDer<'static>, IssuingKey);

/// The root, the issuing certificate below it, and its key; `None`: the root issues.
pub(super) fn installed(
    dir: &Path,
    plant: &PlantId,
    trusted: &Trusted,
    keys: &[KeyUri],
) -> Result<Option<Installed>, CaError> {
    let file = dir.join(ISSUING);
    if !file.exists() {
        return Ok(None);
    }
    let issuing = certificate(&file)?;
    let roots = trusted.certificates();
    let root = issuing::judge(&issuing, plant, &roots)
        .map_err(CaError::Issuing)?
        .clone();
    let key = match key_of(dir, &issuing)? {
        // Also where a token is named by now: until its key is certified, the one that is issues.
        Some((key, _)) => IssuingKey::File(key),
        None if keys.is_empty() => return Err(CaError::NoIssuingKey(file)),
        None => {
            let key = TokenKey::of_certificate(&issuing, keys.to_vec()).ok_or(CaError::NoIssuingKey(file))?;
            IssuingKey::Token(Arc::new(key))
        }
    };
    Ok(Some((root, issuing, key)))
}

/// The key that this certificate is for, and its file.
fn key_of(dir: &Path, issuing: &CertificateDer<'_>) -> Result<Option<(FileKey, PathBuf)>, CaError> {
    let certified = certified_key(issuing);
    // The one that is waiting counts too: its certificate comes first.
    for name in [KEY, NEXT_KEY] {
        let file = dir.join(name);
        if !file.exists() {
            continue;
        }
        let key = Arc::new(FileKey::open_private(&file)?);
        let fits = certified == Some(Key::from(key.clone()).subject_public_key_info());
        if let (true, Some(key)) = (fits, Arc::into_inner(key)) {
            return Ok(Some((key, file)));
        }
    }
    Ok(None)
}

impl Authority {
    /// Begins an authority in `dir` under a root that is kept elsewhere: nothing is issued before its certificate is installed.
    ///
    /// # Errors
    /// There is an authority in `dir` already, or the root's file cannot be read or written.
    pub fn begin_under(dir: &Path, root: &Path) -> Result<(), CaError> {
        let root = certificate(root)?;
        let file = dir.join(ROOT);
        if file.exists() {
            return Err(CaError::Exists(dir.to_owned()));
        }
        Ok(files::write_new(&file, certificates_to_pem(&[root]).as_bytes())?)
    }

    /// A request (PKCS #10, DER) for the key that is to issue next; the key is made now, unless it was already.
    ///
    /// # Errors
    /// The key cannot be read, made or stored.
    pub fn request(dir: &Path) -> Result<Vec<u8>, CaError> {
        let file = dir.join(NEXT_KEY);
        let key = match file.exists() {
            true => FileKey::open_private(&file)?,
            false => {
                let key = FileKey::generate(KeyKind::EcdsaP384)?;
                key.create(&file)?;
                key
            }
        };
        Ok(certificate_request(&Key::from(key), None)?)
    }

    /// The same for the key on a token, which is made there now, unless there is one; and whether it was.
    ///
    /// # Errors
    /// The token or its key cannot be used, or the key can be taken off it.
    pub fn request_on(key: &KeyUri) -> Result<(Vec<u8>, bool), CaError> {
        let (key, is_new) = TokenKey::open_or_make(key)?;
        Ok((certificate_request(&Key::from(key), None)?, is_new))
    }

    /// Takes what the root signed into use, for the next start: for a key that was made here, or on one of these tokens. What was issued before
    /// goes on counting. A key in a file whose place another takes is destroyed.
    ///
    /// # Errors
    /// It is not for such a key, not one that issues for this plant, or not by this plant's root; or it does not hold at `now_ms`; or a
    /// file cannot be written. What was in use then stays so.
    pub fn install(
        dir: &Path,
        plant: &PlantId,
        pem: &[u8],
        keys: &[KeyUri],
        now_ms: u64,
    ) -> Result<(), CaError> {
        let trusted = trust::trusted(dir, &trust::bundles(dir)?)?;
        let found = certificates_from_pem(pem, "the issuing certificate")?;
        let [issuing] = found.as_slice() else {
            return Err(CaError::NotInstalled(format!(
                "{} certificates were given; the issuing certificate alone is wanted",
                found.len()
            )));
        };
        let roots = trusted.certificates();
        let root = issuing::judge(issuing, plant, &roots).map_err(CaError::Issuing)?;
        if trusted.withdrawn.contains(&Digest::of(issuing)) {
            return Err(CaError::NotInstalled(
                "the trust bundle withdraws this issuing certificate".to_owned(),
            ));
        }
        match trusted.phase(root) {
            Some(Phase::Active) => {}
            phase => {
                let phase = phase.map(|phase| phase.to_string()).unwrap_or_default();
                return Err(CaError::NotInstalled(format!(
                    "the root that certified it is {phase} in the trust bundle: only below the active one is anything issued"
                )));
            }
        }
        let (from_ms, until_ms) = validity_ms(issuing).map_err(TlsError::from)?;
        if !(from_ms..until_ms).contains(&now_ms) {
            return Err(CaError::NotInstalled(format!(
                "the issuing certificate is valid from {} until {}, and this machine's clock shows {}: set the clock of whichever machine is wrong",
                instant(from_ms),
                instant(until_ms),
                instant(now_ms)
            )));
        }
        let in_file = key_of(dir, issuing)?;
        if in_file.is_none() {
            let not_made_here = || {
                CaError::NotInstalled(
                    "the issuing certificate is for a key that was not made here: sign the request that `penstock-coordinator authority request` wrote on this machine"
                        .to_owned(),
                )
            };
            if keys.is_empty() {
                return Err(not_made_here());
            }
            let key = TokenKey::of_certificate(issuing, keys.to_vec()).ok_or_else(not_made_here)?;
            // Before anything is given up for it.
            key.prove(issuing)?;
        }
        files::replace_secret(
            &dir.join(ISSUING),
            certificates_to_pem(found.as_slice()).as_bytes(),
        )?;
        match in_file {
            Some((_, key_file)) if key_file == dir.join(NEXT_KEY) => {
                let failed = failed("rename", &key_file);
                std::fs::rename(&key_file, dir.join(KEY)).map_err(failed)?;
            }
            Some(_) => {}
            None => {
                for name in [KEY, NEXT_KEY] {
                    destroy(&dir.join(name))?;
                }
            }
        }
        Ok(())
    }
}

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> CaError + 'a {
    move |source| {
        CaError::from(KeyError::File {
            verb,
            path: path.to_owned(),
            source,
        })
    }
}

/// Removes a key's file, if there is one. (Its blocks may be read off the disk until they are written again: that is why such a key is
/// withdrawn, where somebody may have the disk.)
fn destroy(file: &Path) -> Result<(), CaError> {
    match std::fs::remove_file(file) {
        Ok(()) => {
            let folder = file.parent().unwrap_or(file);
            std::fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed("sync", folder))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", file)(error)),
    }
}

#[cfg(test)]
mod tests;
