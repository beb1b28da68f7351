//! `devices token`: the secret with which a device gets its certificate by itself (EST).
//!
//! A device is no program of ours: what it needs are a name and a password, and the plant's authority to trust. So the file holds the
//! password alone, and nothing has to be taken apart before it is used.

use std::path::Path;

use penstock_policy::ids::{AssetId, Digest};
use penstock_proto::token::Secret;
use penstock_proto::v1::CreateTokenRequest;
use penstock_proto::v1::create_token_request::Subject as TokenSubject;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::{Online, malformed, refused, requests};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// A device's token that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeviceTokenMade {
    /// Whom it enrols: `device/<asset>`.
    pub subject: String,
    /// What the device logs in as.
    pub user: String,
    /// The file that holds the password.
    pub file: String,
    /// Until when it may be used, milliseconds since 1970.
    pub expires_ms: u64,
    /// SHA-256 of the only public key that it serves; absent: the first that comes.
    pub key: Option<String>,
    /// The role that was asked for (Modbus/TCP Security), empty for none; absent: as the device has.
    pub role: Option<String>,
}

impl Report for DeviceTokenMade {
    const SCHEMA: &'static str = "penstock.devices-token/1";
    fn page(&self, page: &mut Page) {
        page.line(format!(
            "{} token for {} written to {}",
            page.paint(Tone::Good, "✓"),
            page.paint(Tone::Strong, &self.subject),
            page.paint(Tone::Name, &self.file)
        ));
        let until = words::when(self.expires_ms, words::now_ms());
        page.line(format!("  it is a secret, works once, and ends {until}"));
        page.line(match &self.key {
            Some(key) => format!("  it serves the key {key} alone"),
            None => "  it serves the first key that comes with it; --key names the only one".to_owned(),
        });
        match self.role.as_deref() {
            None => {}
            Some("") => page.line("  its certificate will give it no role"),
            Some(role) => page.line(format!("  its certificate will give it the role {role}")),
        }
        page.line(format!(
            "  {} the device enrols by EST: user {}, password as in the file, authority: penstock devices authority > ca.pem",
            page.paint(Tone::Dim, "next,"),
            page.paint(Tone::Name, &self.user)
        ));
    }
}

/// Makes a token for `asset`, for `key` alone if one is named, once it may be; `wait` comes back when it is.
pub(super) async fn token(
    out: &Output,
    context: Option<&str>,
    (asset, key, role): (AssetId, Option<Digest>, Option<String>),
    (hours, wait): (u32, bool),
    file: &Path,
) -> Result<Exit, Failure> {
    // Before a token is made that cannot be kept.
    files::free(file)?;
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let request = CreateTokenRequest {
        subject: Some(TokenSubject::Device(asset.to_string())),
        key_digest: key.map(|key| key.0.to_vec().into()).unwrap_or_default(),
        valid_seconds: hours.saturating_mul(3_600),
        device_role: role.clone(),
        ..CreateTokenRequest::default()
    };
    let answer = loop {
        let answer = online.client.create_token(request.clone()).await;
        let mut answer = answer.map_err(|status| refused(&status))?.into_inner();
        let Some(waits) = answer.waits.take() else {
            break answer;
        };
        if !requests::second_person(out, &mut online, waits, wait).await? {
            return Ok(Exit::Findings);
        }
    };
    let secret = Secret::try_from(answer.secret.as_ref()).map_err(|error| malformed(&error.to_string()))?;
    let text = String::from(secret);
    files::create(file, format!("{text}\n").as_bytes(), Mode::Secret)?;
    out.show(&DeviceTokenMade {
        subject: format!("device/{asset}"),
        user: asset.to_string(),
        file: file.display().to_string(),
        expires_ms: answer.expires_ms,
        key: key.map(|key| key.to_string()),
        role,
    })?;
    Ok(Exit::Done)
}
