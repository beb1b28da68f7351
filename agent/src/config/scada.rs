//! Where this gateway publishes its health, as it was typed and as it was checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use penstock_policy::ids::AssetId;
use rustls::pki_types::ServerName;
use serde::Deserialize;

use super::services::is_own_place;
use crate::bridge::side::Login;
use crate::scada::{ScadaSettings, ScadaTrust};

/// What topics begin with by default.
const PREFIX: &str = "penstock";
/// The longest beginning of topics, bytes.
const PREFIX_BYTES_MAX: usize = 200;

/// The section of the file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TypedScada {
    broker: String,
    asset: String,
    authorities: PathBuf,
    server_name: String,
    user: String,
    password_file: PathBuf,
    prefix: Option<String>,
}

impl TypedScada {
    /// The settings, or what is wrong with them.
    pub(super) fn check(self) -> Result<Option<ScadaSettings>, (&'static str, String)> {
        if self.broker.is_empty() {
            let rest = Self {
                prefix: None,
                ..self.clone()
            };
            if rest == Self::default() {
                return Ok(None);
            }
            return Err((
                "scada.broker",
                "is empty, and the rest of `[scada]` is not: name the broker's address and port, or nothing"
                    .to_owned(),
            ));
        }
        let broker: Option<SocketAddr> = self.broker.parse().ok().filter(is_own_place);
        let Some(broker) = broker else {
            let words = format!(
                "is `{}`: name the broker's address, not its name, and its port, such as 10.20.9.5:8883",
                self.broker
            );
            return Err(("scada.broker", words));
        };
        let prefix = self.prefix.clone().unwrap_or_else(|| PREFIX.to_owned());
        if !is_prefix(&prefix) {
            return Err((
                "scada.prefix",
                format!(
                    "must be the beginning of a topic: 1 to {PREFIX_BYTES_MAX} bytes without `+`, `#` or control characters, not beginning with `$` or `/`, not ending in `/`"
                ),
            ));
        }
        Ok(Some(ScadaSettings {
            broker,
            trust: self.trust()?,
            login: self.login()?,
            prefix,
        }))
    }

    fn trust(&self) -> Result<ScadaTrust, (&'static str, String)> {
        let other = !self.authorities.as_os_str().is_empty();
        if other != self.asset.is_empty() {
            return Err((
                "scada.asset",
                "or `scada.authorities` must say how the broker proves who it is, and only one of them can"
                    .to_owned(),
            ));
        }
        if !other {
            if !self.server_name.is_empty() {
                return Err((
                    "scada.server_name",
                    "goes with `scada.authorities`: a certificate of the plant names the asset".to_owned(),
                ));
            }
            let asset = AssetId::new(self.asset.as_str()).map_err(|error| {
                let words = format!("is `{}`, which no asset can be called: {error}", self.asset);
                ("scada.asset", words)
            })?;
            return Ok(ScadaTrust::Plant(asset));
        }
        if !self.authorities.is_absolute() {
            return Err(("scada.authorities", "must be an absolute path".to_owned()));
        }
        if !self.server_name.is_empty() && ServerName::try_from(self.server_name.as_str()).is_err() {
            let words = format!("is `{}`, which no server can be called", self.server_name);
            return Err(("scada.server_name", words));
        }
        Ok(ScadaTrust::Authorities {
            file: self.authorities.clone(),
            server_name: Some(self.server_name.clone()).filter(|name| !name.is_empty()),
        })
    }

    fn login(&self) -> Result<Option<Login>, (&'static str, String)> {
        let has_file = !self.password_file.as_os_str().is_empty();
        if self.user.is_empty() && !has_file {
            return Ok(None);
        }
        if self.user.is_empty() || self.user.len() > usize::from(u16::MAX) {
            return Err((
                "scada.user",
                "is empty or longer than MQTT allows, and `scada.password_file` is there".to_owned(),
            ));
        }
        if !self.password_file.is_absolute() {
            return Err(("scada.password_file", "must be an absolute path".to_owned()));
        }
        Ok(Some(Login {
            user: self.user.clone(),
            password_file: self.password_file.clone(),
        }))
    }
}

/// Whether topics can begin with this.
fn is_prefix(prefix: &str) -> bool {
    (1..=PREFIX_BYTES_MAX).contains(&prefix.len())
        && !prefix.starts_with(['$', '/'])
        && !prefix.ends_with('/')
        && !prefix.chars().any(|c| matches!(c, '+' | '#') || c.is_control())
}
