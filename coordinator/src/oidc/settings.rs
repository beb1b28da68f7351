//! The configuration's section `oidc`: what was typed, and what was checked of it.

use std::path::PathBuf;
use std::time::Duration;

use penstock_proto::https::Address;
use serde::Deserialize;

/// Section `oidc`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OidcFile {
    /// The provider, as it calls itself; `""`: none.
    pub issuer: String,
    /// What the provider calls Penstock: a public client that asks with PKCE.
    pub client_id: String,
    /// What is asked for; `openid` is part of it.
    pub scopes: Vec<String>,
    /// PEM file of those who vouch for the provider's web server.
    pub roots: String,
    /// Hosts beside the issuer's on which its addresses may be: `host` or `host:port`.
    pub hosts: Vec<String>,
    /// Means (`amr`) of which a sign-in needs one; empty: any.
    pub required_amr: Vec<String>,
    /// Classes (`acr`) of which a sign-in needs one; empty: any.
    pub required_acr: Vec<String>,
    /// How long ago the provider may have asked for the password, seconds.
    pub max_age_seconds: u32,
    /// How long a certificate that comes by a sign-in is valid, hours.
    pub certificate_hours: u32,
    /// For how long after a sign-in such a certificate is renewed without the provider, hours; 0: it is not.
    pub renewal_hours: u32,
    /// Whether terminals without a browser may sign in by a device code.
    pub device_code: bool,
}

impl Default for OidcFile {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            client_id: String::new(),
            scopes: vec!["openid".to_owned(), "profile".to_owned()],
            roots: String::new(),
            hosts: Vec::new(),
            required_amr: Vec::new(),
            required_acr: Vec::new(),
            max_age_seconds: 300,
            certificate_hours: 12,
            renewal_hours: 72,
            device_code: false,
        }
    }
}

/// How operators sign in, as it was checked.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// `None`: there is no provider. What came by one before is still renewed by these rules.
    pub provider: Option<ProviderSettings>,
    /// How long a certificate is valid that came by a sign-in.
    pub certificate: Duration,
    /// For how long after the sign-in it is renewed.
    pub renewal: Duration,
}

/// The provider.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// As it calls itself.
    pub issuer: String,
    /// What it calls Penstock.
    pub client_id: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Who vouches for its web server; `None`: nobody has to, it is on this machine.
    pub roots: Option<PathBuf>,
    /// Hosts beside the issuer's.
    pub hosts: Vec<String>,
    /// Means of which one is needed.
    pub amr: Vec<String>,
    /// Classes of which one is needed.
    pub acr: Vec<String>,
    /// How long ago it may have asked for the password.
    pub max_age: Duration,
    /// Whether a device code is offered.
    pub device_code: bool,
}

impl OidcFile {
    /// Checks the values.
    ///
    /// # Errors
    /// One makes no sense: its key, and what is wrong with it.
    pub fn check(&self) -> Result<OidcSettings, (&'static str, String)> {
        let within = |key, value: u32, least: u32, most: u32| match (least..=most).contains(&value) {
            true => Ok(value),
            false => Err((key, format!("is not between {least} and {most}"))),
        };
        let max_age = within("oidc.max_age_seconds", self.max_age_seconds, 30, 3600)?;
        let hours = |hours: u32| Duration::from_secs(u64::from(hours) * 3600);
        let settings = OidcSettings {
            provider: None,
            certificate: hours(within("oidc.certificate_hours", self.certificate_hours, 1, 168)?),
            renewal: hours(within("oidc.renewal_hours", self.renewal_hours, 0, 720)?),
        };
        if self.issuer.is_empty() {
            return Ok(settings);
        }
        let address = Address::parse(&self.issuer).map_err(|error| ("oidc.issuer", error.to_string()))?;
        if self.issuer.contains('?') {
            return Err(("oidc.issuer", "has a query: an issuer has none".to_owned()));
        }
        if self.client_id.is_empty() {
            return Err((
                "oidc.client_id",
                "is missing: the provider gives it to Penstock as a public client".to_owned(),
            ));
        }
        if !self.scopes.iter().any(|scope| scope == "openid") {
            return Err((
                "oidc.scopes",
                "lacks `openid`: without it no ID token comes".to_owned(),
            ));
        }
        if address.is_tls() && self.roots.is_empty() {
            let what = "is missing: the PEM file with the roots that vouch for the provider's web server, for instance \
                        /etc/ssl/certs/ca-certificates.crt";
            return Err(("oidc.roots", what.to_owned()));
        }
        Ok(OidcSettings {
            provider: Some(ProviderSettings {
                issuer: self.issuer.clone(),
                client_id: self.client_id.clone(),
                scopes: self.scopes.clone(),
                roots: (!self.roots.is_empty()).then(|| PathBuf::from(&self.roots)),
                hosts: self.hosts.clone(),
                amr: self.required_amr.clone(),
                acr: self.required_acr.clone(),
                max_age: Duration::from_secs(u64::from(max_age)),
                device_code: self.device_code,
            }),
            ..settings
        })
    }
}
