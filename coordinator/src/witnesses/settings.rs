//! The configuration's sections `witness`: what was typed, and what was checked of it.

use std::path::PathBuf;
use std::time::Duration;

use penstock_proto::audit::cosignature::WitnessKey;
use penstock_proto::https::Address;
use serde::Deserialize;

/// Most external witnesses.
const WITNESSES_MAX: usize = 8;
/// How often one is asked, minutes.
const MINUTES: std::ops::RangeInclusive<u32> = 1..=1440;

/// A section `witness`, as it was typed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessFile {
    /// Its submission prefix, `https://…`.
    pub url: String,
    /// Its key, as its operator publishes it.
    pub key: String,
    /// PEM file with the roots that vouch for its web server.
    #[serde(default)]
    pub roots: String,
    /// How often it is asked, minutes.
    #[serde(default = "hourly")]
    pub every_minutes: u32,
}

fn hourly() -> u32 {
    60
}

/// An external witness, as it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessSettings {
    /// Where a checkpoint is sent.
    pub address: Address,
    /// By what its answer counts.
    pub key: WitnessKey,
    /// Who vouches for its web server; `None`: nobody has to, it is on this machine.
    pub roots: Option<PathBuf>,
    /// How often it is asked.
    pub every: Duration,
}

type Wrong = (&'static str, String);

/// All of them.
pub(crate) fn check(files: &[WitnessFile]) -> Result<Vec<WitnessSettings>, Wrong> {
    if files.len() > WITNESSES_MAX {
        return Err(("witness", format!("stands more than {WITNESSES_MAX} times")));
    }
    let checked: Vec<_> = files.iter().map(WitnessFile::check).collect::<Result<_, _>>()?;
    for (at, one) in checked.iter().enumerate() {
        if checked.iter().take(at).any(|other| other.key == one.key) {
            let what = format!("of {} stands twice", one.key.name());
            return Err(("witness.key", what));
        }
    }
    Ok(checked)
}

impl WitnessFile {
    fn check(&self) -> Result<WitnessSettings, Wrong> {
        let url = format!("{}/add-checkpoint", self.url.trim_end_matches('/'));
        let address = Address::parse(&url).map_err(|_| {
            let what = "is not `https://HOST/…`; without TLS (http://) only on this machine";
            ("witness.url", what.to_owned())
        })?;
        let key = self.key.parse();
        let key = key.map_err(|error| ("witness.key", format!("cannot be used: {error}")))?;
        if address.is_tls() && self.roots.is_empty() {
            let what = "has to name a PEM file with the roots that vouch for the witness's web server";
            return Err(("witness.roots", what.to_owned()));
        }
        if !MINUTES.contains(&self.every_minutes) {
            let what = format!("has to be {} to {}", MINUTES.start(), MINUTES.end());
            return Err(("witness.every_minutes", what));
        }
        Ok(WitnessSettings {
            address,
            key,
            roots: (!self.roots.is_empty()).then(|| PathBuf::from(&self.roots)),
            every: Duration::from_secs(60 * u64::from(self.every_minutes)),
        })
    }
}
