//! What is done with a coordinator's data folder beside running on it: it is copied, unlocked, and its store moved to servers or back.

use std::path::Path;

use penstock_proto::keys;

use super::{AppError, CA_FOLDER, DataLock, STORE_FILE, turn};
use crate::ca::CaError;
use crate::config::Config;
use crate::files;
use crate::store::backup_file;
use crate::store::moved::{self, Contents};

/// Copies store and authority to a new folder, also while the coordinator runs; the root's key, where it is here, under a lock or not at
/// all. The key of an issuing certificate stays here: the root certifies another one for whoever needs the copy.
///
/// # Errors
/// `to` exists or cannot be made, or store or authority cannot be read or written. What was copied so far stays in
/// `to`.
pub fn backup(config: &Config, to: &Path, passphrase: Option<&str>) -> Result<(), AppError> {
    files::new_private_folder(to)?;
    let ca = to.join("ca");
    files::private_folder(&ca)?;
    backup_file(&config.data.join(STORE_FILE), &to.join(STORE_FILE))?;
    let own = config.data.join(CA_FOLDER);
    for certificate in ["root.pem", "issuing.pem", "trust.json"] {
        if own.join(certificate).exists() {
            files::write_new(&ca.join(certificate), &files::read(&own.join(certificate))?)?;
        }
    }
    if let Some(passphrase) = passphrase.filter(|_| has_root_key(config)) {
        let (key, copy) = (own.join("root.key"), ca.join("root.key"));
        keys::copy_locked(&key, &copy, passphrase).map_err(CaError::from)?;
    }
    Ok(())
}

/// Brings the store that stands alone in the data folder to the servers that the configuration names; what it holds.
///
/// # Errors
/// A coordinator runs on the folder, no servers are named, or as [`moved::replicate`].
pub async fn replicate(config: &Config) -> Result<Contents, AppError> {
    let _lock = DataLock::take(&config.data)?;
    let servers = config.nats.clone().ok_or(AppError::NoServers)?;
    Ok(moved::replicate(&config.data.join(STORE_FILE), servers).await?)
}

/// Makes the copy of a replicated store in the data folder one that stands alone, when it has all that the others wrote; or `as_it_is`, where
/// the servers are lost. What it holds.
///
/// # Errors
/// A coordinator runs on the folder, or another one acts on the replicated store; or as [`moved::stand_alone`].
pub async fn stand_alone(config: &Config, as_it_is: bool) -> Result<Contents, AppError> {
    let _lock = DataLock::take(&config.data)?;
    if !as_it_is {
        if config.nats.is_none() {
            return Err(AppError::NoServers);
        }
        drop(turn::open_idle(config).await?);
    }
    Ok(moved::stand_alone(&config.data.join(STORE_FILE))?)
}

/// Takes the lock off the root's key, as it comes from a backup; whether there was one.
///
/// # Errors
/// The passphrase does not open it, or it cannot be read or written.
pub fn unlock(config: &Config, passphrase: &str) -> Result<bool, AppError> {
    let key = config.data.join(CA_FOLDER).join("root.key");
    Ok(keys::unlock(&key, passphrase).map_err(CaError::from)?)
}

/// Whether the plant's root issues on this machine.
pub fn has_root_key(config: &Config) -> bool {
    config.data.join(CA_FOLDER).join("root.key").exists()
}
