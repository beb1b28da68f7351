//! What a coordinator issues, and by which key.

use serde::Deserialize;

use super::ConfigError;
use crate::pkcs11::{KeyUri, UriError};

/// How many keys may be named: the one that issues, one that is to come, and one more for whoever changes their mind.
const KEYS_MAX: usize = 3;

/// Section `authority`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthorityFile {
    /// Where the key by which it issues is, as PKCS #11 URIs. Empty: in a file of the data folder.
    pub keys: Vec<String>,
}

/// Section `certificates`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificatesFile {
    /// Days a gateway's certificate is valid.
    pub gateway_days: u32,
    /// Days for which a gateway can still renew a certificate that has ended; 0: it cannot.
    pub gateway_grace_days: u32,
    /// Days an operator's certificate is valid.
    pub operator_days: u32,
    /// Days the coordinator's own certificate is valid.
    pub coordinator_days: u32,
    /// Days a device's certificate is valid; a person carries each renewal to the device.
    pub device_days: u32,
}

impl Default for CertificatesFile {
    fn default() -> Self {
        Self {
            gateway_days: 90,
            gateway_grace_days: 400,
            operator_days: 30,
            coordinator_days: 60,
            device_days: 365,
        }
    }
}

impl AuthorityFile {
    /// Where the keys are.
    pub(super) fn check(&self) -> Result<Vec<KeyUri>, ConfigError> {
        let bad = |what| ConfigError::Value {
            key: "authority.keys",
            what,
        };
        if self.keys.len() > KEYS_MAX {
            return Err(bad("names more keys than are in use at once".to_owned()));
        }
        let read = self.keys.iter().map(|uri| {
            uri.parse()
                .map_err(|error: UriError| bad(format!("holds a URI that {error}")))
        });
        read.collect()
    }
}
